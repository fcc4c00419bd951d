"""The plainest condition: one signal against one number, however it was written."""

from __future__ import annotations

from math import isfinite

from killswitch.graph.nodes import AllOf, AnyOf, Compare, ComparisonOp, ConditionNode, Number, SignalRead
from killswitch.model.record import Record, record

_MIRRORED: dict[ComparisonOp, ComparisonOp] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


@record
class Step(Record):
    """Column `index` at or beyond `value`: upwards when `rising`, and past it when `strict`."""

    index: int
    rising: bool
    value: float
    strict: bool

    @property
    def severity(self) -> tuple[float, bool]:
        """Greater for what is harder to reach; only steps of one column and direction may be compared."""
        return (self.value if self.rising else -self.value, self.strict)


def step_of(node: ConditionNode) -> Step | None:
    """The step that `node` is; None for anything else, equality with a number included."""
    if isinstance(node, AllOf | AnyOf) and len(node.parts) == 1:
        return step_of(node.parts[0])
    if not isinstance(node, Compare):
        return None
    left, op, right = node.left, node.op, node.right
    if isinstance(left, Number):
        left, op, right = right, _MIRRORED[op], left
    if not (isinstance(left, SignalRead) and isinstance(right, Number) and isfinite(right.value)):
        return None
    if op in ("==", "!="):
        return None
    return Step(left.index, op in (">", ">="), right.value, op in ("<", ">"))
