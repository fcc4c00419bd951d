"""Rules about what stages do: what a desk forgets, and what a bot or the next shift then does."""

from __future__ import annotations

from collections.abc import Iterator

from killswitch.policy.lint.rule import LintContext, LintRule, Remark, without_item
from killswitch.policy.loader import Document
from killswitch.policy.schema.policy import AnyPolicy, PolicyDocument, Stage
from killswitch.policy.yaml.source_map import Path


def spec_of(document: Document) -> AnyPolicy | None:
    """The policy of a document; None for a document of another kind."""
    return document.model.spec if isinstance(document.model, PolicyDocument) else None


def actions_of(stage: Stage) -> set[str]:
    """The keys of a stage's actions."""
    return {key for action in stage.actions for key in action.written}


def stages_of(document: Document) -> Iterator[tuple[Path, Stage]]:
    """The stages of a policy with their paths."""
    spec = spec_of(document)
    for number, stage in enumerate(() if spec is None else spec.stages):
        yield ("spec", "stages", number), stage


CLOSING = frozenset({"close", "reduce", "neutralise"})
"""The actions that close positions, or a part of them."""


def closing_stages(document: Document) -> Iterator[tuple[Path, Stage]]:
    """The stages that close positions."""
    return ((path, stage) for path, stage in stages_of(document) if CLOSING & actions_of(stage))


def _without_lock(document: Document, _context: LintContext) -> Iterator[Remark]:
    for path, stage in closing_stages(document):
        if "lock_trading" not in actions_of(stage):
            message = f"`{stage.name}` closes positions and locks no trading, so that a bot may open them again at once"
            yield Remark((*path, "actions"), message, "add `lock_trading: {mode: reduce_only, for: …}`")


def _without_cancel(document: Document, _context: LintContext) -> Iterator[Remark]:
    for path, stage in closing_stages(document):
        if "cancel_orders" not in actions_of(stage):
            message = f"`{stage.name}` closes positions and leaves resting entries, which may open them again"
            yield Remark((*path, "actions"), message, "add `cancel_orders: {kind: entry}`")


def _without_notice(document: Document, _context: LintContext) -> Iterator[Remark]:
    for path, stage in closing_stages(document):
        if not stage.notify:
            message = f"`{stage.name}` closes positions and notifies nobody by name"
            yield Remark((*path, "name"), message, "add `notify: […]` with the desk that answers", key=False)


def _without_runbook(document: Document, _context: LintContext) -> Iterator[Remark]:
    for path, stage in closing_stages(document):
        if stage.runbook is None:
            message = f"`{stage.name}` closes positions and names no runbook"
            fix = "add `runbook: …`: what to check, whom to call, when to reset"
            yield Remark((*path, "name"), message, fix, key=False)


def _listed_twice(document: Document, _context: LintContext) -> Iterator[Remark]:
    for path, stage in stages_of(document):
        for key, names in (("any", stage.any_of), ("all", stage.all_of), ("notify", stage.notify)):
            for number, name in enumerate(names):
                if name not in names[:number]:
                    continue
                node = document.source.node((*path, key))
                items = [] if node is None else node.items or []
                edit = without_item(items, number, document.source.lines) if number < len(items) else None
                fix = "take it out, or write the name that was meant"
                yield Remark((*path, key, number), f"`{name}` is listed twice", fix, key=False, edit=edit)


def _blind_close(document: Document, _context: LintContext) -> Iterator[Remark]:
    spec = spec_of(document)
    if spec is None:
        return
    closing = {name for _, stage in closing_stages(document) for name in (*stage.any_of, *stage.all_of)}
    for name, trigger in spec.triggers.items():
        if trigger.on_unknown == "warn" and name in closing:
            message = f"`{name}` closes positions, and a moment of missing data sets its confirmation back to nothing"
            fix = "write `on_unknown: hold`, which keeps what was seen, or `trip`"
            yield Remark(("spec", "triggers", name, "on_unknown"), message, fix, key=False)


STAGE_RULES = (
    LintRule("KS7201", "warning", _without_lock),
    LintRule("KS7202", "warning", _without_cancel),
    LintRule("KS7203", "warning", _without_notice),
    LintRule("KS7204", "warning", _without_runbook),
    LintRule("KS7205", "warning", _listed_twice),
    LintRule("KS7206", "warning", _blind_close),
)
