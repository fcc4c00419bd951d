"""The lowered code, case by case: what is true, what is false, and what stays unknown."""

from __future__ import annotations

from math import inf, nan

import pytest

from killswitch.graph.lowering import FALSE, TRUE, UNKNOWN, lower, lower_one, source
from killswitch.graph.nodes import (
    AllOf,
    AnyOf,
    Arithmetic,
    ArithmeticOp,
    Compare,
    ComparisonOp,
    ConditionNode,
    Constant,
    Not,
    Number,
    SignalRead,
    TextIs,
)

X, Y = SignalRead(0), SignalRead(1)
UNBOUNDED = (-inf, inf)
Interval = tuple[float, float]


def verdict(
    condition: ConditionNode, x: Interval = (0.0, 0.0), y: Interval = (0.0, 0.0), text: str | None = None
) -> int:
    return lower_one(condition)([x[0], y[0]], [x[1], y[1]], [None, None, text])


@pytest.mark.parametrize(
    ("op", "x", "expected"),
    [
        ("<", (1.0, 2.9), TRUE),
        ("<", (1.0, 3.0), UNKNOWN),
        ("<", (3.0, 9.0), FALSE),
        ("<=", (1.0, 3.0), TRUE),
        ("<=", (1.0, 3.1), UNKNOWN),
        ("<=", (3.1, 9.0), FALSE),
        (">", (3.1, 9.0), TRUE),
        (">", (3.0, 9.0), UNKNOWN),
        (">", (1.0, 3.0), FALSE),
        (">=", (3.0, 9.0), TRUE),
        (">=", (2.9, 3.0), UNKNOWN),
        (">=", (1.0, 2.9), FALSE),
        ("==", (3.0, 3.0), TRUE),
        ("==", (3.0, 3.1), UNKNOWN),
        ("==", (3.1, 9.0), FALSE),
        ("!=", (3.1, 9.0), TRUE),
        ("!=", (2.0, 3.0), UNKNOWN),
        ("!=", (3.0, 3.0), FALSE),
    ],
)
def test_a_comparison_is_true_only_if_the_whole_interval_agrees(op: ComparisonOp, x: Interval, expected: int) -> None:
    """True where every value of the interval compares so, false where none does, else unknown."""
    assert verdict(Compare(op, X, Number(3.0)), x) == expected


@pytest.mark.parametrize("op", ["<", "<=", ">", ">=", "==", "!="])
@pytest.mark.parametrize("other", [Number(0.0), Number(-1e308), Y], ids=["zero", "far", "another unknown"])
def test_unknown_is_never_clear_and_never_fires(op: ComparisonOp, other: Number | SignalRead) -> None:
    """A signal of which nothing is known makes every comparison unknown, on either side of it."""
    assert verdict(Compare(op, X, other), UNBOUNDED, UNBOUNDED) == UNKNOWN
    assert verdict(Compare(op, other, X), UNBOUNDED, UNBOUNDED) == UNKNOWN


@pytest.mark.parametrize("op", ["<", "<=", ">", ">=", "==", "!="])
@pytest.mark.parametrize("end", [inf, -inf])
def test_unknown_stays_unknown_compared_with_infinity(op: ComparisonOp, end: float) -> None:
    """`x <= +∞` would be true of every number, but unknown may be no number at all."""
    assert verdict(Compare(op, X, Y), UNBOUNDED, (end, end)) == UNKNOWN
    assert verdict(Compare(op, Y, X), UNBOUNDED, (end, end)) == UNKNOWN


def test_infinite_is_known() -> None:
    """A leverage of +∞ (equity at or below zero) is above every threshold: it fires."""
    assert verdict(Compare(">", X, Number(5.0)), (inf, inf)) == TRUE
    assert verdict(Compare(">=", X, Y), (inf, inf), (4.0, 5.0)) == TRUE


def test_d14_a_nan_from_arithmetic_reads_as_unknown_not_as_false() -> None:
    """∞ − ∞ and 0 × ∞ have no value: the comparison is unknown, and so is its negation."""
    for op, y in (("-", (inf, inf)), ("+", (-inf, -inf))):
        condition = Compare(">", Arithmetic(op, X, Y), Number(0.0))  # type: ignore[arg-type]  # op is one of the four
        assert verdict(condition, (inf, inf), y) == UNKNOWN
        assert verdict(Not(condition), (inf, inf), y) == UNKNOWN
    assert verdict(Compare(">", Arithmetic("*", X, Y), Number(0.0)), (0.0, 0.0), (inf, inf)) == UNKNOWN
    assert verdict(Compare("<", X, Number(nan)), (1.0, 1.0)) == UNKNOWN


@pytest.mark.parametrize("zero", [(0.0, 0.0), (-0.0, -0.0), (-1.0, 1.0), (0.0, 2.0), (-2.0, -0.0)])
def test_division_by_an_interval_with_zero_is_unknown(zero: Interval) -> None:
    """The result of a divisor that contains zero may be anything."""
    assert verdict(Compare(">", Arithmetic("/", X, Y), Number(0.0)), (1.0, 1.0), zero) == UNKNOWN


@pytest.mark.parametrize(
    ("op", "x", "y", "low", "high"),
    [
        ("+", (1.0, 2.0), (10.0, 20.0), 11.0, 22.0),
        ("-", (1.0, 2.0), (10.0, 20.0), -19.0, -8.0),
        ("*", (-1.0, 2.0), (10.0, 20.0), -20.0, 40.0),
        ("*", (-3.0, -2.0), (-5.0, 4.0), -12.0, 15.0),
        ("/", (1.0, 2.0), (4.0, 8.0), 0.125, 0.5),
        ("/", (-1.0, 2.0), (-8.0, -4.0), -0.5, 0.25),
    ],
)
def test_arithmetic_gives_the_exact_range(op: ArithmeticOp, x: Interval, y: Interval, low: float, high: float) -> None:
    """The ends of the result are reached, and nothing beyond them."""
    result = Arithmetic(op, X, Y)
    step = 0.001
    assert verdict(Compare(">=", result, Number(low)), x, y) == TRUE
    assert verdict(Compare(">=", result, Number(low + step)), x, y) == UNKNOWN
    assert verdict(Compare("<=", result, Number(high)), x, y) == TRUE
    assert verdict(Compare("<=", result, Number(high - step)), x, y) == UNKNOWN


KLEENE: dict[str, tuple[ConditionNode, int]] = {
    "true": (Constant(True), TRUE),
    "false": (Constant(False), FALSE),
    "unknown": (Compare(">", Y, Number(0.0)), UNKNOWN),
}


@pytest.mark.parametrize("left", KLEENE)
@pytest.mark.parametrize("right", KLEENE)
def test_logic_is_kleenes(left: str, right: str) -> None:
    """`and` is the least and `or` the greatest of its parts, in the order false < unknown < true."""
    rank, back = {FALSE: 0, UNKNOWN: 1, TRUE: 2}, (FALSE, UNKNOWN, TRUE)
    (first, a), (second, b) = KLEENE[left], KLEENE[right]
    assert verdict(AllOf((first, second)), y=UNBOUNDED) == back[min(rank[a], rank[b])]
    assert verdict(AnyOf((first, second)), y=UNBOUNDED) == back[max(rank[a], rank[b])]
    assert verdict(Not(first), y=UNBOUNDED) == back[2 - rank[a]]


def test_empty_all_is_true_and_empty_any_is_false() -> None:
    """The neutral elements of `and` and `or`."""
    assert verdict(AllOf(())) == TRUE
    assert verdict(AnyOf(())) == FALSE


def test_a_text_comparison_is_true_false_or_unknown() -> None:
    """An attribution without a value is neither LONG nor not LONG."""
    is_long = TextIs(2, ("LONG",))
    assert verdict(is_long, text="LONG") == TRUE
    assert verdict(is_long, text="SHORT") == FALSE
    assert verdict(is_long) == UNKNOWN
    assert verdict(Not(is_long)) == UNKNOWN


def test_text_values_are_quoted_as_data() -> None:
    """A value that looks like code is compared, never run."""
    nasty = "'] or __import__('os').abort() or ['"
    assert verdict(TextIs(2, (nasty,)), text=nasty) == TRUE
    assert verdict(TextIs(2, (nasty,)), text="LONG") == FALSE


def test_each_condition_has_its_own_bit_beyond_sixty_four() -> None:
    """Two hundred thresholds on one signal: those up to the value are set, the others are clear."""
    evaluate = lower([Compare(">=", X, Number(float(i))) for i in range(200)])
    assert evaluate([120.0], [120.0], [None]) == ((1 << 121) - 1, 0)
    assert evaluate([119.5], [150.0], [None]) == ((1 << 120) - 1, ((1 << 151) - 1) ^ ((1 << 120) - 1))


def test_thresholds_of_both_directions_and_either_order_share_a_signal() -> None:
    """`3 <= x` is `x >= 3`, strict and loose thresholds at one value stay apart, and equal ones share their step."""
    conditions: list[ConditionNode] = [
        Compare("<=", Number(3.0), X),
        Compare(">", X, Number(3.0)),
        Compare("<", X, Number(3.0)),
        Compare(">=", Number(3.0), X),
        Compare(">=", X, Number(3.0)),
    ]
    evaluate = lower(conditions)
    assert evaluate([3.0], [3.0], []) == (0b11001, 0)
    assert evaluate([4.0], [4.0], []) == (0b10011, 0)
    assert evaluate([2.0], [2.0], []) == (0b01100, 0)
    assert evaluate([2.0], [4.0], []) == (0, 0b11111)


def test_no_condition_costs_a_call() -> None:
    """The generated text holds no call but those of its own definition."""
    conditions = [
        Compare(">=", X, Number(0.1)),
        AllOf((Compare("<", Arithmetic("/", X, Y), Number(2.0)), Not(TextIs(2, ("LONG", "MIXED"))))),
    ]
    body = source(conditions).split(":\n", 1)[1]
    assert "call" not in body
    import ast

    calls = [node for node in ast.walk(ast.parse(source(conditions))) if isinstance(node, ast.Call)]
    assert calls == []
