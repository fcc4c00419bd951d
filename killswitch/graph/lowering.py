"""Lowering: compiles conditions to one Python function over columns, and finds conditions with a constant result.

A comparison is true or false only if it is for the whole interval; otherwise it is unknown. Comparisons of a signal
with a number are grouped into *ladders*, one for each signal and direction: a value that has reached a threshold has
reached all lower ones, so a binary search evaluates the whole ladder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from msgspec import Struct

from killswitch.graph.intervals import NumberWriter
from killswitch.graph.nodes import (
    AllOf,
    AnyOf,
    Compare,
    ConditionNode,
    Constant,
    Not,
    SignalRef,
    TextIs,
    ThresholdStep,
    step_of,
)
from killswitch.signals.catalogue import BY_NAME

TRUE, FALSE, UNKNOWN = 1, 0, -1

ColumnsEvaluator = Callable[[list[float], list[float], list[str | None]], tuple[int, int]]
"""(lows, highs, texts) → (mask of true conditions, mask of unknown ones); bit `i` is condition `i`."""

ConditionEvaluator = Callable[[list[float], list[float], list[str | None]], int]
"""(lows, highs, texts) → TRUE, FALSE or UNKNOWN."""


def lower(conditions: Sequence[ConditionNode]) -> ColumnsEvaluator:
    """Compile a function that evaluates all `conditions` in one pass.

    The columns are indexed by `SignalRead.index` and `TextIs.index`; no bound may be NaN, and unknown is
    `(-inf, inf)`, or `None` for text.
    """
    return _evaluator(source(conditions))


@lru_cache(maxsize=1024)  # the books of a desk have the same conditions on positions; the function has no state
def _evaluator(text: str) -> ColumnsEvaluator:
    namespace: dict[str, ColumnsEvaluator] = {}
    exec(compile(text, "<lowered graph>", "exec"), namespace)
    return namespace["evaluate"]


def lower_one(condition: ConditionNode) -> ConditionEvaluator:
    """Compile a function that evaluates a single condition."""
    evaluate = lower((condition,))

    def verdict(lows: list[float], highs: list[float], texts: list[str | None]) -> int:
        true, unknown = evaluate(lows, highs, texts)
        return UNKNOWN if unknown else true

    return verdict


def source(conditions: Sequence[ConditionNode]) -> str:
    """Python source of the function: `t` is the mask of surely true conditions, `p` that of possibly true ones."""
    writer = _ConditionWriter()
    for position, condition in enumerate(conditions):
        writer.add(condition, 1 << position)
    return writer.text()


class _LadderThreshold(Struct, frozen=True):
    """One threshold of a ladder; `mask` are the conditions that it decides."""

    step: ThresholdStep
    mask: int


class _ConditionWriter:
    def __init__(self) -> None:
        self._numbers = NumberWriter()
        self._texts: set[int] = set()
        self._ladders: dict[tuple[int, bool], list[_LadderThreshold]] = {}
        self._others: list[tuple[str, str, int]] = []
        self._always = 0

    def add(self, condition: ConditionNode, mask: int) -> None:
        """Add `condition`, whose bit is `mask`."""
        if isinstance(condition, Constant):
            self._always |= mask if condition.value else 0
            return
        step = step_of(condition)
        if step is not None:
            self._ladders.setdefault((step.index, step.rising), []).append(_LadderThreshold(step, mask))
            return
        self._others.append((*self._verdict(condition), mask))

    def text(self) -> str:
        """Source of the whole function."""
        ladders: list[str] = []
        climbs: list[str] = []
        for (index, rising), thresholds in self._ladders.items():
            self._numbers.reads.add(index)
            sure, possible = (f"l{index}", f"h{index}") if rising else (f"h{index}", f"l{index}")
            steps = _ladder(thresholds)
            ladders += _climb(sure, "t", steps) + _climb(possible, "p", steps)
            climbs += _climb(f"l{index}", "t", steps)
        loads = [f"l{i} = lows[{i}]; h{i} = highs[{i}]" for i in sorted(self._numbers.reads)]
        loads += [f"s{i} = texts[{i}]" for i in sorted(self._texts)]
        others = [
            line
            for true, false, mask in self._others
            for line in (f"if {true}: t |= {mask:#x}; p |= {mask:#x}", f"elif not {false}: p |= {mask:#x}")
        ]
        lines = [f"t = p = {self._always:#x}", *self._points(climbs), *loads, *ladders, *self._numbers.lines, *others]
        return "\n ".join(("def evaluate(lows, highs, texts):", *lines, "return t, p ^ t")) + "\n"

    def _points(self, climbs: list[str]) -> list[str]:
        """Fast path for the common case that every signal is known, so that no condition is unknown.

        There is none with texts, which may be unknown separately, or with arithmetic, whose result may be unknown
        (∞ − ∞).
        """
        if self._texts or self._numbers.lines:
            return []
        loads = [f"l{i} = h{i} = lows[{i}]" for i in sorted(self._numbers.reads)]
        others = [f"if {true}: t |= {mask:#x}" for true, _, mask in self._others]
        return ["if lows == highs:", *(f" {line}" for line in (*loads, *climbs, *others)), " return t, 0"]

    def _verdict(self, node: ConditionNode) -> tuple[str, str]:
        """Two Python conditions: `node` is surely true, and it is surely false."""
        if isinstance(node, Compare):
            true, false = self._numbers.verdict(node)
            return f"({true})", f"({false})"
        if isinstance(node, TextIs):
            self._texts.add(node.index)
            name, values = f"s{node.index}", tuple(node.values)
            return f"({name} in {values!r})", f"({name} is not None and {name} not in {values!r})"
        if isinstance(node, Not):
            true, false = self._verdict(node.part)
            return false, true
        if isinstance(node, Constant):
            return str(node.value), str(not node.value)
        parts = [self._verdict(part) for part in node.parts]
        trues, falses = [true for true, _ in parts], [false for _, false in parts]
        if isinstance(node, AllOf):
            return _joined(" and ", trues, "True"), _joined(" or ", falses, "False")
        return _joined(" or ", trues, "False"), _joined(" and ", falses, "True")


def _joined(operator: str, parts: list[str], empty: str) -> str:
    return f"({operator.join(parts)})" if parts else empty


def _ladder(thresholds: list[_LadderThreshold]) -> list[_LadderThreshold]:
    """Thresholds in the order in which a growing value reaches them; each mask includes those of lower ones."""
    steps: list[_LadderThreshold] = []
    reached = 0
    for threshold in sorted(thresholds, key=lambda threshold: threshold.step.severity):
        reached |= threshold.mask
        if steps and steps[-1].step == threshold.step:
            steps.pop()
        steps.append(_LadderThreshold(threshold.step, reached))
    return steps


def _climb(name: str, into: str, steps: list[_LadderThreshold]) -> list[str]:
    """Binary search: statements that add the mask of the highest step reached by `name` to `into`."""

    def reached(threshold: _LadderThreshold) -> str:
        sign = (">" if threshold.step.rising else "<") + ("" if threshold.step.strict else "=")
        return f"{name} {sign} {threshold.step.value!r}"

    def halve(first: int, end: int) -> list[str]:
        # the highest reached step is one of first-1 … end-1; -1 is none
        if first == end:
            return [f"{into} |= {steps[first - 1].mask:#x}"] if first else ["pass"]
        middle = (first + end) // 2
        above, below = halve(middle + 1, end), halve(first, middle)
        lines = [f"if {reached(steps[middle])}:", *(f" {line}" for line in above)]
        if below != ["pass"]:
            lines += ["else:", *(f" {line}" for line in below)]
        return lines

    return halve(0, len(steps))


_BOTH = frozenset((True, False))


def outcomes(conditions: Sequence[ConditionNode], signals: Sequence[SignalRef]) -> tuple[frozenset[bool], ...]:
    """Possible results of each condition for known signals: {True}, {False} or both."""
    ranges = [BY_NAME[signal.name].range for signal in signals]
    return tuple(_outcome(condition, ranges) for condition in conditions)


def _outcome(node: ConditionNode, ranges: Sequence[tuple[float, float]]) -> frozenset[bool]:
    """What a condition can be. Thresholds are compared here: compiling them costs more than all else of a policy."""
    step = step_of(node)
    if step is not None:
        low, high = ranges[step.index]
        surely, possibly = (low, high) if step.rising else (high, low)
        return frozenset((_is_reached(step, surely), _is_reached(step, possibly)))
    if isinstance(node, AllOf | AnyOf) and node.parts:
        parts = [_outcome(part, ranges) for part in node.parts]
        decides = isinstance(node, AnyOf)
        if frozenset((decides,)) in parts:
            return frozenset((decides,))
        return _BOTH if any(decides in part for part in parts) else frozenset((not decides,))
    lows, highs = [low for low, _ in ranges], [high for _, high in ranges]
    true, unknown = lower((node,))(lows, highs, [None] * len(ranges))
    return _BOTH if unknown else frozenset((bool(true),))


def _is_reached(step: ThresholdStep, value: float) -> bool:
    distance = value - step.value if step.rising else step.value - value
    return distance > 0 if step.strict else distance >= 0
