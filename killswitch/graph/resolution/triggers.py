"""Compiles triggers of both forms, expressions and thresholds: a signal compared with a number of a fitting unit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from killswitch.graph.expressions.arguments import NO_DECLARATIONS, Declarations, arguments_of_keys
from killswitch.graph.expressions.conditions import text_condition
from killswitch.graph.freezing import freeze
from killswitch.graph.nodes import (
    AdaptiveRule,
    Compare,
    ComparisonOp,
    ConditionNode,
    Number,
    SignalRead,
    SignalRef,
    Threshold,
    Trigger,
    is_true,
    step_of,
)
from killswitch.graph.problems import Findings, Problem, signal_problem
from killswitch.graph.wording import percent, signals_of
from killswitch.model.instant import MINUTE, SECOND
from killswitch.policy.schema.policy import AnyPolicy
from killswitch.policy.schema.scalars import Quantity, QuantityUnit
from killswitch.policy.schema.trigger import COMPARISONS, Adaptive, ExpressionTrigger, ThresholdTrigger
from killswitch.policy.yaml.source_map import Path
from killswitch.render.formats import count_of
from killswitch.signals.arguments import Argument
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.declaration import BoolSignal, Level, SignalSpec, TextSignal, Unit

OPERATORS: dict[str, ComparisonOp] = {"at_least": ">=", "at_most": "<=", "above": ">", "below": "<"}

_FITTING: dict[Unit, tuple[QuantityUnit, ...]] = {
    "fraction": ("percent", "plain"),
    "ratio": ("plain", "percent"),
    "count": ("plain",),
    "score": ("plain",),
    "money": ("money",),
    "money per hour": ("plain",),
    "seconds": ("time",),
    "milliseconds": ("time",),
}
_EXAMPLES: dict[Unit, str] = {
    "fraction": "4.5%",
    "ratio": "2.5",
    "count": "3",
    "score": "0.5",
    "money per hour": "500",
    "seconds": "30s",
    "milliseconds": "250ms",
}
_KINDS: dict[QuantityUnit, str] = {
    "plain": "a plain number",
    "percent": "a percentage",
    "money": "money",
    "time": "a time",
}
MILLISECONDS = SECOND // 1000

_NUMBERS = re.compile(
    r"""//[^\n]*|"[^"]*"|'[^']*'|[A-Za-z_][\w.]*|(-?\s*(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))"""
)
"""Numbers in an expression; texts, comments and names are skipped."""


_FOLDED = "YAML folds this text into one line: write it as `|`, which keeps its lines, or take the comment out"


def trigger(name: str, policy: AnyPolicy, columns: SignalIndex, found: Findings) -> Trigger | None:
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
        spec, held = _signal(written.signal, path, found), None
        if isinstance(spec, BoolSignal):
            condition = truth(spec, written, path, columns, found)
        elif spec is not None:
            held = threshold(spec, written, path, policy, columns, found)
    if held is not None:
        condition = Compare(held.op, SignalRead(held.index), Number(held.value))
    if written.confirm.ticks:
        found.warning(
            "KS5005", (*path, "confirm"),
            f"the duration of {count_of(written.confirm.ticks, 'tick')} depends on the runner's interval",
            "write a time, such as 2m: it means the same at every interval",
        )  # fmt: skip
    if condition is None or found.gaps.has_flaw(path):
        return None
    shares = written.warn_at if isinstance(written, ThresholdTrigger) else ()
    return freeze(
        written, Trigger, name=name, condition=condition, threshold=held, place=found.place(path, key=True),
        rearms=_rearms(condition, columns), warn_at=tuple(sorted({float(share) for share in shares})),
    )  # fmt: skip


def condition_places(policy: AnyPolicy, triggers: Iterable[Trigger | None]) -> Iterator[tuple[Path, ConditionNode]]:
    """The condition of each compiled trigger, with the place of what it reads."""
    for each in triggers:
        if each is not None:
            is_threshold = isinstance(policy.triggers[each.name], ThresholdTrigger)
            yield ("spec", "triggers", each.name, "signal" if is_threshold else "when"), each.condition


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

    node, problems = condition(text, level, columns.of, columns.declared)
    swallowed = [
        Problem("KS4010", "this comment swallows the lines below it", _FOLDED, start, end - start)
        for start, end in comments(text)
        if found.source.inside(path, start).line != found.source.inside(path, end - 1).line
    ]
    found.within(path, swallowed or problems)
    return None if swallowed else node


def threshold(
    spec: SignalSpec,
    written: ThresholdTrigger,
    path: Path,
    policy: AnyPolicy,
    columns: SignalIndex,
    found: Findings,
) -> Threshold | None:
    """Compile the threshold of the trigger at `path`; None if its arguments or its unit are wrong."""
    key, values = written.comparison, arguments_of_keys(spec, written, path, columns.declared, found)
    if key is None or values is None:
        return None  # the trigger is only partly readable
    if key == "is":
        fix = f"write one of {', '.join(COMPARISONS)}, with a number"
        found.error("KS3007", (*path, "is"), f"`{spec.name}` is a {spec.unit}, and not true or false", fix, key=True)
        return None
    fits = [_argument_fits(each, written, path, policy, found) for each in spec.arguments]
    if not all(fits):
        return None
    limit: Quantity | Adaptive = getattr(written, key)
    scale = SECOND // MILLISECONDS if spec.unit == "milliseconds" else 1
    reference = SignalRef(spec.name, values)
    if isinstance(limit, Adaptive):
        return _adaptive_threshold(spec, limit, reference, scale, (*path, key), policy, columns, found)
    if not _unit_fits(spec, limit, (*path, key), policy, found):
        return None
    return Threshold(columns.of(reference), OPERATORS[key], float(limit.value * scale), limit.written)


def _adaptive_threshold(
    spec: SignalSpec,
    limit: Adaptive,
    signal: SignalRef,
    scale: int,
    path: Path,
    policy: AnyPolicy,
    columns: SignalIndex,
    found: Findings,
) -> Threshold | None:
    """The threshold at `path` that is computed from history or another signal; None if it is wrong."""
    bounds = (limit.floor, limit.initial, limit.cap)
    names = ("floor", "initial", "cap")
    if any(each is None for each in bounds):  # left out, which is reported already
        return None
    if not all(_unit_fits(spec, each, (*path, name), policy, found) for each, name in zip(bounds, names, strict=True)):
        return None
    index = columns.of(signal)
    rule = adaptive_rule(limit, [float(each.value * scale) for each in bounds], signal, path, columns, found)
    written_as = f"adaptive, {limit.floor.written} to {limit.cap.written}"
    return None if rule is None else Threshold(index, OPERATORS[str(path[-1])], rule.initial, written_as, rule)


DEFAULT_BLOCK = 15 * MINUTE
"""The block of a signal without a window (microseconds)."""


def adaptive_rule(
    written: Adaptive, bounds: Sequence[float], signal: SignalRef, path: Path, columns: SignalIndex, found: Findings
) -> AdaptiveRule | None:
    """The rule of a computed threshold; None if its bounds are out of order, or its other signal is wrong.

    `bounds`: floor, initial and cap in the unit of the signal.
    """
    floor, initial, cap = bounds
    if not 0 < floor <= initial <= cap:
        message, fix = "floor, initial and cap are not above 0 and in this order", "write 0 < floor <= initial <= cap"
        found.error("KS3072", path, message, fix, key=True)
        return None
    if written.quantile is not None and written.history is not None:
        identity = f"{signal}/{written.quantile}/{written.history}/{bounds}"
        block = signal.window or DEFAULT_BLOCK
        return AdaptiveRule(floor, cap, initial, float(written.quantile), written.history, block, identity=identity)
    if written.of is None or written.times is None:
        return None  # the document is only partly readable
    spec = _signal(written.of.signal, (*path, "of"), found)
    values = None if spec is None else arguments_of_keys(spec, written.of, (*path, "of"), columns.declared, found)
    if spec is None or values is None:
        return None
    other = SignalRef(spec.name, values)
    identity = f"{signal}/{written.times}/{other}/{bounds}"
    return AdaptiveRule(floor, cap, initial, times=float(written.times), column=columns.of(other), identity=identity)


def expression_threshold(condition: ConditionNode, text: str) -> Threshold | None:
    """The threshold of an expression that compares one signal with one number, in either order; else None."""
    step = step_of(condition)
    if step is None:
        return None
    op: ComparisonOp = (">" if step.strict else ">=") if step.rising else ("<" if step.strict else "<=")
    numbers = [each for each in _NUMBERS.findall(text) if each]
    written = numbers[0].replace(" ", "") if len(numbers) == 1 else f"{step.value:g}"
    return Threshold(step.index, op, step.value, written)


def _signal(name: str, path: Path, found: Findings) -> SignalSpec | None:
    """The signal that is named below `path`, if it is one of the scope that has no text; else None."""
    if found.gaps.is_hole((*path, "signal")):
        return None
    problem = signal_problem(name, "scope")
    if problem is not None:
        found.error(problem[0], (*path, "signal"), *problem[1:])
        return None
    spec = BY_NAME[name]
    if isinstance(spec, TextSignal):
        fix = f"write it as an expression: `when: '{text_condition(spec)}'`"
        found.error("KS3007", (*path, "signal"), f"`{spec.name}` is a text, and has no threshold", fix)
        return None
    return spec


def truth(
    spec: SignalSpec, written: ThresholdTrigger, path: Path, columns: SignalIndex, found: Findings
) -> ConditionNode | None:
    """The condition on a signal that is true or false; None if its key or its arguments are wrong."""
    key, values = written.comparison, arguments_of_keys(spec, written, path, columns.declared, found)
    if key != "is" and key is not None:
        message = f"`{spec.name}` is true or false, and compared with no number"
        found.error("KS3007", (*path, key), message, "write `is: true`, or `is: false`", key=True)
        return None
    if values is None or written.is_ is None:
        return None
    return is_true(columns.of(SignalRef(spec.name, values)), written.is_)


def _unit_fits(spec: SignalSpec, quantity: Quantity, path: Path, policy: AnyPolicy, found: Findings) -> bool:
    if quantity.unit not in _FITTING.get(spec.unit, ()):
        message = f"`{quantity.written}` is {_KINDS[quantity.unit]}, and `{spec.name}` is {_unit_name(spec.unit)}"
        found.error("KS3004", path, message, _way_out(spec.unit, quantity, policy))
        return False
    if quantity.value < spec.range[0]:
        message = f"`{quantity.written}` is below zero, and `{spec.name}` never is"
        found.error("KS3004", path, message, f"write it without the sign: {quantity.written.lstrip('-')}")
        return False
    if quantity.unit == "plain" and spec.unit == "fraction" and quantity.value > 1 >= spec.range[1]:
        message = f"`{quantity.written}` is {percent(quantity.value)} of a fraction that never exceeds 100%"
        found.error("KS3004", path, message, f"did you mean {quantity.written}%?")
        return False
    return spec.unit != "money" or _currency_fits(quantity, path, policy, found)


def _argument_fits(
    argument: Argument, written: ThresholdTrigger, path: Path, policy: AnyPolicy, found: Findings
) -> bool:
    """Whether an amount of money that a signal takes is in the scope's currency; reports an error if not."""
    if argument.kind != "money":
        return True
    key = argument.key
    return _currency_fits(getattr(written, key), (*path, key), policy, found, f"`{key}`")


def _currency_fits(
    quantity: Quantity, path: Path, policy: AnyPolicy, found: Findings, what: str = "the threshold"
) -> bool:
    """Whether money is in the reference currency, or in the only currency of the scope; reports an error if not."""
    reference, currencies, flawed = policy.reference, policy.scope.match.currency, found.gaps.has_flaw
    if reference is not None:
        fits = quantity.currency == reference.currency
        message = f"{what} is in {quantity.currency}, and the policy measures its scope in {reference.currency}"
        fix = f"write it in {reference.currency}, the policy's reference currency"
    else:
        is_unreadable = flawed(("spec", "reference")) or flawed(("spec", "scope", "match", "currency"))
        fits = is_unreadable or currencies == (quantity.currency,)
        others = "any currency" if currencies is None else "accounts in " + " and ".join(currencies)
        message = f"{what} is in {quantity.currency}, and the policy's scope takes {others}"
        fix = f"narrow the scope with `match: {{currency: {quantity.currency}}}`, or compare a fraction instead"
    if not fits:
        found.error("KS3008", path, message, fix)
    return fits


def _unit_name(unit: Unit) -> str:
    return {"money": "money", "seconds": "a time", "milliseconds": "a time"}.get(unit, f"a {unit}")


def _way_out(unit: Unit, quantity: Quantity, policy: AnyPolicy) -> str:
    currencies = policy.scope.match.currency
    units = {"money": f" {currencies[0] if currencies else 'USDT'}", "seconds": "s", "milliseconds": "ms"}
    if quantity.unit == "plain" and unit in units:
        return f"write it with its unit: {quantity.written}{units[unit]}"
    return f"write it as, for example, {_EXAMPLES.get(unit, '10000' + units.get(unit, ''))}"


class SignalIndex:
    """Assigns columns to signals, in the order of their first use. `declared`: what their arguments may name."""

    def __init__(self, declared: Declarations = NO_DECLARATIONS) -> None:
        self.declared = declared
        self._index: dict[SignalRef, int] = {}

    def of(self, signal: SignalRef) -> int:
        """Column of `signal`; a new one at its first use."""
        return self._index.setdefault(signal, len(self._index))

    @property
    def signals(self) -> tuple[SignalRef, ...]:
        """The signals, by column."""
        return tuple(self._index)
