"""Compiles triggers of both forms, thresholds and expressions, to graph triggers."""

from __future__ import annotations

from killswitch.graph.nodes import Compare, ConditionNode, Number, SignalRead, Trigger
from killswitch.graph.problems import Findings, Problem
from killswitch.graph.resolution.thresholds import SignalIndex, expression_threshold, threshold
from killswitch.graph.wording import signals_of
from killswitch.policy.schema.policy import ExpressionTrigger, PolicySpec
from killswitch.policy.yaml.source_map import Path
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.declaration import Level

_FOLDED = "YAML folds this text into one line: write it as `|`, which keeps its lines, or take the comment out"


def trigger(name: str, policy: PolicySpec, columns: SignalIndex, found: Findings) -> Trigger | None:
    """Compile the trigger `name`; None if it has a mistake, which is reported in `found`."""
    written = policy.triggers[name]
    path: Path = ("spec", "triggers", name)
    if found.gaps.is_hole(path):
        return None
    condition: ConditionNode | None = None
    if isinstance(written, ExpressionTrigger):
        condition = expression(written.when, "scope", (*path, "when"), columns, found)
        held = None if condition is None else expression_threshold(condition, written.when)
    else:
        held = threshold(written, path, policy, columns, found)
    if held is not None:
        condition = Compare(held.op, SignalRead(held.index), Number(held.value))
    if written.confirm.ticks:
        found.warning(
            "KS5005", (*path, "confirm"),
            f"{written.confirm.ticks} ticks last as long as the runner's interval makes them",
            "write a time, such as 2m: it means the same at every interval",
        )  # fmt: skip
    if condition is None or found.gaps.has_flaw(path):
        return None
    return Trigger(
        name=name,
        condition=condition,
        threshold=held,
        confirm=written.confirm.micros,
        confirm_ticks=written.confirm.ticks,
        on_unknown=written.on_unknown,
        grace=written.grace,
        place=found.place(path, key=True),
        rearms=_rearms(condition, columns),
    )


def _rearms(condition: ConditionNode, columns: SignalIndex) -> bool:
    """Whether the condition reads a signal that measures a condition instead of a loss."""
    signals = columns.signals
    return any(BY_NAME[signals[index].name].measures == "condition" for index in signals_of(condition))


def expression(text: str, level: Level, path: Path, columns: SignalIndex, found: Findings) -> ConditionNode | None:
    """Compile the expression at `path`; None if it has a mistake, which is reported in `found`."""
    if found.gaps.is_hole(path):
        return None
    from killswitch.graph.expressions.expression import (  # CEL costs start-up time; many policies need none
        comments,
        condition,
    )

    node, problems = condition(text, level, columns.of)
    swallowed = [
        Problem("KS4010", "this comment swallows the lines below it", _FOLDED, start, end - start)
        for start, end in comments(text)
        if found.source.inside(path, start).line != found.source.inside(path, end - 1).line
    ]
    found.within(path, swallowed or problems)
    return None if swallowed else node
