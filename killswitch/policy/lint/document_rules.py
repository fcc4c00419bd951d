"""Rules about thresholds, selectors and the set as a whole: slips that compile."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from killswitch.model.instant import from_micros, rfc3339
from killswitch.policy.lint.rule import LintContext, LintRule, Remark, TextEdit, without_block_key
from killswitch.policy.lint.stage_rules import closing_stages, spec_of
from killswitch.policy.loader import Document
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.policy import PolicyDocument
from killswitch.policy.schema.scalars import Quantity
from killswitch.policy.schema.trigger import ThresholdTrigger, Trigger
from killswitch.policy.yaml.parser import Node
from killswitch.signals.catalogue import BY_NAME


def _without_owner(document: Document, _context: LintContext) -> Iterator[Remark]:
    if isinstance(document.model, PolicyDocument) and "owner" not in document.model.metadata.labels:
        message = f"the policy `{document.name}` has no owner: nobody knows whom to ask before it is changed"
        yield Remark(("metadata", "name"), message, "add the label `owner` under `metadata.labels`", key=False)


def _share_without_percent(document: Document, _context: LintContext) -> Iterator[Remark]:
    spec = spec_of(document)
    for name, trigger in ({} if spec is None else spec.triggers).items():
        if not isinstance(trigger, ThresholdTrigger) or trigger.comparison in (None, "is"):
            continue
        signal, key = BY_NAME.get(trigger.signal), trigger.comparison
        value = getattr(trigger, key)
        if signal is None or signal.unit != "fraction" or not isinstance(value, Quantity):
            continue
        if value.unit == "plain" and value.value != 0:
            path = ("spec", "triggers", name, key)
            node = document.source.node(path)
            written = f"{(value.value * 100).normalize():f}%"
            edit = None if node is None or not node.plain else TextEdit(node.span, written)
            message = f"`{value.written}` is a share, which is {written}: easily read as {value.written} percent"
            yield Remark(path, message, f"write `{written}`", key=False, edit=edit)


def _condition(trigger: Trigger) -> tuple[object, ...]:
    """What a trigger compares, without spelling."""
    if not isinstance(trigger, ThresholdTrigger):
        return " ".join(trigger.when.split()), trigger.confirm
    value = None if trigger.comparison in (None, "is") else getattr(trigger, str(trigger.comparison))
    if isinstance(value, Quantity):
        value = (value.value, value.currency)
    arguments = tuple((key, str(each)) for key, each in trigger.given())
    return trigger.signal, arguments, trigger.comparison, str(value), trigger.is_, trigger.confirm


def _same_condition(document: Document, _context: LintContext) -> Iterator[Remark]:
    spec = spec_of(document)
    seen: dict[tuple[object, ...], str] = {}
    for name, trigger in ({} if spec is None else spec.triggers).items():
        first = seen.setdefault(_condition(trigger), name)
        if first != name:
            message = f"`{name}` has the same condition as `{first}`"
            fix = f"change what was meant to differ, or use `{first}` in its place"
            yield Remark(("spec", "triggers", name), message, fix)


def _gap_over_window(document: Document, _context: LintContext) -> Iterator[Remark]:
    """Only losses of equity are measured by polls alone; other signals count rows, or have samples of their own."""
    spec = spec_of(document)
    for name, trigger in ({} if spec is None else spec.triggers).items():
        if spec is None or not isinstance(trigger, ThresholdTrigger):
            continue
        signal = BY_NAME.get(trigger.signal)
        if signal is None or not signal.is_loss_size:
            continue
        window = dict(trigger.given()).get("window")
        if isinstance(window, int) and window <= spec.max_gap:
            message = f"the window of `{name}` is not longer than `max_gap`: it counts as known without a measurement"
            yield Remark(("spec", "triggers", name, "window"), message, "write a shorter `max_gap`, or a longer window")


def _everything_matches(document: Document, context: LintContext) -> Iterator[Remark]:
    """Accounts of one kind may all be meant; a spot wallet beside a futures account is rarely sold with it."""
    spec = spec_of(document)
    if spec is None or spec.mode != "enforce" or not any(closing_stages(document)):
        return
    match = spec.scope.match
    if any(getattr(match, key) for key in type(match).model_fields) or spec.scope.strategy or spec.scope.symbol:
        return
    markets = {each.model.spec.market for each in context.documents if isinstance(each.model, AccountDocument)}
    if len(markets) > 1:
        kinds = ", ".join(sorted(markets))
        message = f"accounts of every market are matched ({kinds}), and their positions are closed"
        yield Remark(("spec", "scope", "match"), message, "match a market, a venue, or accounts by name")


def _over_already(document: Document, context: LintContext) -> Iterator[Remark]:
    spec = spec_of(document)
    if spec is None or spec.disabled is None or spec.disabled.until > context.now:
        return
    node = document.source.node(("spec",))
    pair = None if node is None or node.pairs is None else node.pairs.get("disabled")
    edit = None if pair is None else without_block_key(*pair, document.source.lines)
    message = f"`disabled` has no effect since {rfc3339(from_micros(spec.disabled.until))}: the policy fires"
    yield Remark(("spec", "disabled"), message, "take it out", edit=edit)


_USED_BY_NAME = ("Ranking", "Runbook", "Session")
"""Kinds that have an effect only where another document names one."""


def _unused(document: Document, context: LintContext) -> Iterator[Remark]:
    if document.kind not in _USED_BY_NAME:
        return
    others = (each for each in context.documents if each is not document)
    if not any(_names(root, document.name) for each in others if (root := each.source.node(())) is not None):
        message = f"nothing in the set names the {document.kind} `{document.name}`"
        yield Remark(("metadata", "name"), message, "name it where it was meant to be used, or remove it", key=False)


def _names(root: Node, name: str) -> bool:
    """Whether a value below the node is the name, or an expression that contains it in quotes."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        text = node.text
        if text is not None and (text == name or f'"{name}"' in text or f"'{name}'" in text):
            return True
        waiting += [value for _, value in (node.pairs or {}).values()]
        waiting += node.items or ()
    return False


def _unlike_stages(document: Document, _context: LintContext) -> Iterator[Remark]:
    """A higher stage that closes less than a lower one."""
    before: tuple[str, Decimal] | None = None
    for path, stage in sorted(closing_stages(document), key=lambda each: each[1].level):
        closes = [action.close for action in stage.actions if action.close is not None]
        plain = [each.fraction for each in closes if each.side == "both" and each.top is None and each.where is None]
        if not plain or len(closes) != 1:
            continue
        if before is not None and plain[0] < before[1]:
            message = f"`{stage.name}` closes a smaller fraction than `{before[0]}`, which has a lower level"
            number = next(place for place, action in enumerate(stage.actions) if action.close is not None)
            fix = "exchange the two, or their levels"
            yield Remark((*path, "actions", number, "close", "fraction"), message, fix, key=False)
        before = (stage.name, plain[0])


DOCUMENT_RULES = (
    LintRule("KS7210", "warning", _without_owner),
    LintRule("KS7211", "warning", _share_without_percent),
    LintRule("KS7212", "warning", _same_condition),
    LintRule("KS7213", "warning", _gap_over_window),
    LintRule("KS7214", "warning", _everything_matches),
    LintRule("KS7215", "warning", _over_already),
    LintRule("KS7216", "warning", _unused),
    LintRule("KS7217", "warning", _unlike_stages),
)
