"""Lowered code, compared with an independent tree-walking evaluation of the same conditions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import copysign, inf, isnan

from hypothesis import given
from hypothesis import strategies as st

from killswitch.graph.lowering import lower, outcomes
from killswitch.graph.nodes import (
    AllOf,
    AnyOf,
    Arithmetic,
    Compare,
    ConditionNode,
    Constant,
    Not,
    Number,
    NumberNode,
    SignalRead,
    SignalRef,
    TextIs,
)
from killswitch.signals.catalogue import BY_NAME

SIGNALS, TEXTS = 4, ("LONG", "SHORT", "MIXED")
Interval = tuple[float, float]
EVERYTHING: Interval = (-inf, inf)
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
APPLY: dict[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}

tame = st.sampled_from([-2.0, -1.0, -0.5, -0.0, 0.0, 0.045, 0.5, 1.0, 2.0, 3.0, 1e308, -1e308, 5e-324])
finite = tame | st.floats(allow_nan=False, allow_infinity=False)
ends = finite | st.sampled_from([inf, -inf])


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    """Known, partly known or unknown."""
    kind = draw(st.sampled_from(["known", "known", "partly", "unknown"]))
    if kind == "unknown":
        return EVERYTHING
    low, high = sorted((draw(ends), draw(ends)), key=lambda end: (end, copysign(1.0, end)))
    return (low, low) if kind == "known" else (low, high)


numbers: st.SearchStrategy[NumberNode] = st.recursive(
    st.builds(SignalRead, st.integers(0, SIGNALS - 1)) | st.builds(Number, finite),
    lambda inner: st.builds(Arithmetic, st.sampled_from(["+", "-", "*", "/"]), inner, inner),
    max_leaves=4,
)
comparisons = st.builds(Compare, st.sampled_from(list(COMPARE)), numbers, numbers)
ladders = st.builds(
    Compare, st.sampled_from(["<", "<=", ">", ">="]), st.builds(SignalRead, st.integers(0, 1)), st.builds(Number, tame)
)
texts = st.builds(TextIs, st.just(0), st.lists(st.sampled_from(TEXTS), min_size=1, unique=True).map(tuple))
conditions: st.SearchStrategy[ConditionNode] = st.recursive(
    comparisons | ladders | texts | st.builds(Constant, st.booleans()),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(AllOf, st.lists(inner, max_size=3).map(tuple))
        | st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=5,
)


def interval_of(node: NumberNode, columns: list[Interval]) -> Interval:
    if isinstance(node, SignalRead):
        return columns[node.index]
    if isinstance(node, Number):
        return (node.value, node.value)
    left, right = interval_of(node.left, columns), interval_of(node.right, columns)
    if node.op == "/":
        if right[0] <= 0 <= right[1]:
            return EVERYTHING
        corners = [a / b for a in left for b in right]
    elif node.op == "+":
        corners = [left[0] + right[0], left[1] + right[1]]
    elif node.op == "-":
        corners = [left[0] - right[1], left[1] - right[0]]
    else:
        corners = [a * b for a in left for b in right]
    return EVERYTHING if any(map(isnan, corners)) else (min(corners), max(corners))


def compared(op: str, left: Interval, right: Interval) -> bool | None:
    """By the corners: an order relation that holds, or fails, at every corner does so in between."""
    if EVERYTHING in (left, right):
        return None
    if op in ("==", "!="):
        equal: bool | None = None
        if left[1] < right[0] or right[1] < left[0]:
            equal = False
        elif left[0] == left[1] == right[0] == right[1]:
            equal = True
        return equal if op == "==" or equal is None else not equal
    answers = {COMPARE[op](a, b) for a in left for b in right}
    return answers.pop() if len(answers) == 1 else None


def truth(node: ConditionNode, columns: list[Interval], text: str | None) -> bool | None:
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, TextIs):
        return None if text is None else text in node.values
    if isinstance(node, Compare):
        return compared(node.op, interval_of(node.left, columns), interval_of(node.right, columns))
    if isinstance(node, Not):
        inner = truth(node.part, columns, text)
        return None if inner is None else not inner
    parts = [truth(part, columns, text) for part in node.parts]
    decisive = isinstance(node, AnyOf)
    if decisive in parts:
        return decisive
    return None if None in parts else not decisive


def run(nodes: list[ConditionNode], columns: list[Interval], text: str | None) -> list[bool | None]:
    true, unknown = lower(nodes)([low for low, _ in columns], [high for _, high in columns], [text])
    assert true & unknown == 0
    assert (true | unknown) >> len(nodes) == 0
    return [None if unknown >> i & 1 else bool(true >> i & 1) for i in range(len(nodes))]


columns = st.lists(intervals(), min_size=SIGNALS, max_size=SIGNALS)
text = st.none() | st.sampled_from(TEXTS)


@given(st.lists(conditions | ladders, max_size=8), columns, text)
def test_lowered_code_equals_the_tree_walk(
    nodes: list[ConditionNode], columns: list[Interval], text: str | None
) -> None:
    """For any conditions and columns, every bit equals the naive evaluation."""
    assert run(nodes, columns, text) == [truth(node, columns, text) for node in nodes]


def point_number(node: NumberNode, values: list[float]) -> float | None:
    """Plain float arithmetic; None where it has no value."""
    if isinstance(node, SignalRead):
        return values[node.index]
    if isinstance(node, Number):
        return node.value
    left, right = point_number(node.left, values), point_number(node.right, values)
    if left is None or right is None or (node.op == "/" and right == 0):
        return None
    result = left / right if node.op == "/" else APPLY[node.op](left, right)
    return None if isnan(result) else result


def point_truth(node: ConditionNode, values: list[float], text: str) -> bool | None:
    """Ordinary logic at one point; None where a number has no value."""
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, TextIs):
        return text in node.values
    if isinstance(node, Compare):
        left, right = point_number(node.left, values), point_number(node.right, values)
        return None if left is None or right is None else COMPARE[node.op](left, right)
    if isinstance(node, Not):
        inner = point_truth(node.part, values, text)
        return None if inner is None else not inner
    parts = [point_truth(part, values, text) for part in node.parts]
    decisive = isinstance(node, AnyOf)
    if decisive in parts:
        return decisive
    return None if None in parts else not decisive


@given(st.lists(conditions | ladders, min_size=1, max_size=4), columns, st.sampled_from(TEXTS), st.data())
def test_no_value_inside_the_intervals_contradicts_a_known_verdict(
    nodes: list[ConditionNode], columns: list[Interval], text: str, data: st.DataObject
) -> None:
    """Soundness: pick any point inside the intervals; true stays true and false stays false there."""
    values = [data.draw(st.floats(low, high, allow_nan=False)) for low, high in columns]
    for node, known in zip(nodes, run(nodes, columns, text), strict=True):
        if known is not None:
            assert point_truth(node, values, text) == known


@given(conditions, st.lists(finite, min_size=SIGNALS, max_size=SIGNALS), st.sampled_from(TEXTS))
def test_known_values_leave_nothing_unknown_but_what_has_no_value(
    node: ConditionNode, values: list[float], text: str
) -> None:
    """Exactness: with every signal known, the verdict is that of ordinary arithmetic and logic."""
    (known,) = run([node], [(value, value) for value in values], text)
    assert known == point_truth(node, values, text)


@given(st.lists(conditions | ladders, min_size=1, max_size=4))
def test_what_a_condition_can_be_is_what_lowered_code_says_of_all_values(nodes: list[ConditionNode]) -> None:
    """Thresholds and their combinations are not compiled for it: the verdict over the whole ranges is the same."""
    names = ("equity.drawdown", "equity.value", "exposure.leverage", "equity.loss_from_start")
    signals = [SignalRef(name, ()) for name in names]
    columns = [BY_NAME[name].range for name in names]
    expected = run(nodes, columns, None)
    found = [None if len(each) == 2 else next(iter(each)) for each in outcomes(nodes, signals)]
    assert found == expected
