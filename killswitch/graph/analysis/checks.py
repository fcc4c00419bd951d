"""Checks of a policy: unused triggers, keys without effect, and unreachable conditions and stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

from killswitch.graph.actions.kind import Surroundings
from killswitch.graph.actions.registry import kind_named
from killswitch.graph.analysis.breakers import check_recovery, check_warnings
from killswitch.graph.analysis.reachability import check_reachable, condition_path, ways
from killswitch.graph.lowering import outcomes
from killswitch.graph.nodes import (
    AllOf,
    AnyOf,
    Compare,
    ConditionNode,
    Not,
    Number,
    SignalRead,
    SignalRef,
    Stage,
    Trigger,
)
from killswitch.graph.problems import Findings
from killswitch.graph.wording import signals_of
from killswitch.policy.schema.policy import AnyPolicy
from killswitch.policy.schema.policy import Stage as WrittenStage
from killswitch.policy.schema.scalars import Quantity
from killswitch.policy.schema.trigger import ThresholdTrigger
from killswitch.policy.yaml.source_map import Path
from killswitch.signals.catalogue import BY_NAME


def check(spec: AnyPolicy, triggers: Sequence[Trigger | None], stages: Sequence[Stage], around: Surroundings) -> None:
    """Run all checks of a whole policy. A trigger that is None already has its diagnostic."""
    found = around.found
    _names_differ(stages, found)
    _all_used(spec, around)
    never = _never(spec, triggers, around)
    _position_conditions(around)
    check_reachable(spec, triggers, stages, never, found)
    _trip_on_a_window(spec, triggers, stages, around)
    check_warnings(triggers, around)
    check_recovery(spec, triggers, stages, around)


def _names_differ(stages: Sequence[Stage], found: Findings) -> None:
    seen: Counter[str] = Counter()
    for number, stage in enumerate(stages):
        if found.gaps.is_hole(("spec", "stages", number, "name")):
            continue
        if seen[stage.name]:
            message = f"there is already a stage `{stage.name}`"
            found.error("KS3020", ("spec", "stages", number, "name"), message, "give each stage a name of its own")
        seen[stage.name] += 1


def _all_used(policy: AnyPolicy, around: Surroundings) -> None:
    gaps = around.found.gaps
    lists = [("spec", "stages", number, key) for number in range(len(policy.stages)) for key in ("any", "all")]
    is_unreadable = gaps.is_hole(("spec", "stages")) or any(gaps.has_flaw(each) for each in lists)
    if is_unreadable or not all(stage.any_of or stage.all_of for stage in policy.stages):
        return  # an unreadable stage may use any trigger
    used = {name for stage in policy.stages for name in (*stage.any_of, *stage.all_of)}
    for name in policy.triggers:
        if name not in used:
            message = f"no stage uses the trigger `{name}`"
            fix = "name it under `any` or `all` of a stage, or take it out"
            around.found.warning("KS5001", ("spec", "triggers", name), message, fix, key=True)


def _never(policy: AnyPolicy, triggers: Sequence[Trigger | None], around: Surroundings) -> set[int]:
    """Triggers that can never be true; warns of triggers and resets with a constant result."""
    compiled = [(i, trigger) for i, trigger in enumerate(triggers) if trigger is not None]
    conditions = [*(trigger.condition for _, trigger in compiled), *(condition for _, condition in around.resets)]
    results = outcomes(conditions, around.columns.signals)
    for (_, trigger), result in zip(compiled, results, strict=False):
        always = f"`{trigger.name}` holds whatever its signals are", "write a condition that distinguishes cases"
        message = f"`{trigger.name}` can never hold: its signals cannot reach that"
        never = message, "`ksctl schema signals` says what each signal can be"
        _warn_of_one(result, condition_path(policy, trigger.name), always, never, around.found)
    always = (
        "this always holds, so the stage resets as soon as its time is over, however bad it still is",
        "write a condition that ends it",
    )
    never = "this can never hold, so the stage never resets by itself", "correct it, or write `reset: manual`"
    for (path, _), result in zip(around.resets, results[len(compiled) :], strict=True):
        _warn_of_one(result, path, always, never, around.found)
    found = zip(compiled, results, strict=False)
    return {i for (i, trigger), result in found if result == {False} and trigger.on_unknown != "trip"}


def _position_conditions(around: Surroundings) -> None:
    """Warn of conditions on positions with a constant result."""
    conditions = around.position_conditions
    results = outcomes([condition for _, condition in conditions], around.position_columns.signals)
    never = "this can never hold for any position", "correct it, or take it out"
    for (path, _), result in zip(conditions, results, strict=True):
        fix = "write `fraction: 100%` instead" if path[-1] == "all_if" else "take it out"
        always = "this holds for every position", fix
        _warn_of_one(result, path, always, never, around.found)
    for path, condition in conditions:
        for number in _beyond_whole(condition, around.position_columns.signals):
            around.found.warning(
                "KS5064", path, f"{number:g} is {number:.0%} of a fraction, which nearly every position is below",
                f"for {number:g}% write {number / 100:g}",
            )  # fmt: skip


def _beyond_whole(condition: ConditionNode, signals: Sequence[SignalRef]) -> Iterator[float]:
    """Yield the numbers above 1 that a condition compares with a fraction, as if it were in per cent."""
    match condition:
        case (
            Compare(left=SignalRead(index), right=Number(value)) | Compare(left=Number(value), right=SignalRead(index))
        ):
            if BY_NAME[signals[index].name].unit == "fraction" and value > 1:
                yield value
        case Not(part):
            yield from _beyond_whole(part, signals)
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from _beyond_whole(part, signals)


def _trip_on_a_window(
    policy: AnyPolicy, triggers: Sequence[Trigger | None], stages: Sequence[Stage], around: Surroundings
) -> None:
    """Warn of a stage that closes on a new store: its triggers count as true until their windows are filled."""
    signals = around.columns.signals
    true_at_start = {
        number
        for number, trigger in enumerate(triggers)
        if trigger is not None
        and trigger.on_unknown == "trip"
        and any(BY_NAME[signals[each].name].windowed for each in signals_of(trigger.condition))
    }
    for number, stage in enumerate(stages):
        if around.found.gaps.has_flaw(("spec", "stages", number)) or "close" not in _keys(policy.stages[number]):
            continue
        names = tuple(policy.triggers)
        for name in dict.fromkeys(names[min(way)] for way in ways(stage) if way and way <= true_at_start):
            around.found.warning(
                "KS5019", ("spec", "triggers", name, "on_unknown"),
                f"`{name}` is unknown on a new store, so that `{stage.name}` closes a book that lost nothing",
                "write `on_unknown: hold`, or use a signal without a window, such as `equity.drawdown_from_peak`",
            )  # fmt: skip


def _warn_of_one(
    result: frozenset[bool], path: Path, always: tuple[str, str], never: tuple[str, str], found: Findings
) -> None:
    """Warn of a condition with a constant result; `always` and `never` are message and fix."""
    if len(result) == 1:
        code, text_and_fix = ("KS5002", always) if True in result else ("KS5003", never)
        found.warning(code, path, *text_and_fix)


NOISE_IN_A_MINUTE = Decimal("0.005")
"""Maximum fraction of equity a minute that counts as noise, whatever the tolerance."""
_HOLD_AT_ZERO: dict[str, Callable[[Decimal], bool]] = {
    "at_least": lambda number: number <= 0,
    "above": lambda number: number < 0,
    "at_most": lambda number: number >= 0,
    "below": lambda number: number > 0,
}
"""Comparison → whether it is true for a signal of 0."""


def check_idle(policy: AnyPolicy, found: Findings) -> None:
    """Warn of written keys without effect."""
    flawed = found.gaps.has_flaw
    for number, stage in enumerate(policy.stages):
        closes = any(kind_named(key).needs_the_book for key in _keys(stage))
        is_unreadable = flawed(("spec", "stages", number, "actions"))
        if not closes and not is_unreadable and _is_written(found, ("spec", "stages", number, "when_unreachable")):
            message = f"`{stage.name}` closes and cancels nothing, so that nothing of it waits for an account"
            found.warning(
                "KS5016", ("spec", "stages", number, "when_unreachable"), message, "take it out, or add a `close`",
                key=True,
            )  # fmt: skip
    locks = any(kind_named(key).is_reversible for stage in policy.stages for key in _keys(stage))
    lists = [("spec", "stages", number, "actions") for number in range(len(policy.stages))]
    is_unreadable = found.gaps.is_hole(("spec", "stages")) or any(flawed(each) for each in lists)
    if (
        policy.on_suspicion == "lock"
        and not locks
        and not is_unreadable
        and _is_written(found, ("spec", "on_suspicion"))
    ):
        message = "no stage has `lock_trading`, so that there is no lock to write on suspicion"
        found.warning("KS5016", ("spec", "on_suspicion"), message, "add `lock_trading` to a stage, or take it out")
    if not flawed(("spec", "unexplained")) and policy.unexplained.tolerance > 2 * NOISE_IN_A_MINUTE:
        message = "at most 0.5% of equity a minute counts as noise, however large the tolerance is"
        found.warning("KS5016", ("spec", "unexplained", "tolerance"), message, "write a smaller one, or take it out")
    _unexplained(policy, found)
    _loss_at_most(policy, found)


def _keys(stage: WrittenStage) -> Iterator[str]:
    """Keys of the stage's readable actions."""
    return (key for action in stage.actions for key in action.written)


def _unexplained(policy: AnyPolicy, found: Findings) -> None:
    """Warn of a threshold on unexplained money that is true without any."""
    for name, trigger in policy.triggers.items():
        spec = BY_NAME.get(trigger.signal) if isinstance(trigger, ThresholdTrigger) else None
        is_sum = spec is not None and spec.counts_unexplained and spec.unit == "money"  # 0 on a quiet account
        if not is_sum or found.gaps.has_flaw(("spec", "triggers", name)):
            continue
        for comparison, holds in _HOLD_AT_ZERO.items():
            written = getattr(trigger, comparison)
            if isinstance(written, Quantity) and holds(written.value):
                message = f"`{name}` holds on a quiet account, where nothing is unexplained and the sum is 0"
                fix = "falls are below zero: write `at_most: -10000 USDT`; `at_least: 10000 USDT` is money that came in"
                found.warning("KS5017", ("spec", "triggers", name, comparison), message, fix)


def _loss_at_most(policy: AnyPolicy, found: Findings) -> None:
    """Warn of a threshold that a loss must stay below, and that fires a stage on its own: it is true without a loss."""
    alone = {name for stage in policy.stages for name in stage.any_of}
    alone |= {stage.all_of[0] for stage in policy.stages if len(stage.all_of) == 1 and not stage.any_of}
    for name, trigger in policy.triggers.items():
        spec = BY_NAME.get(trigger.signal) if isinstance(trigger, ThresholdTrigger) else None
        if (
            spec is None
            or name not in alone
            or not spec.is_loss_size
            or found.gaps.has_flaw(("spec", "triggers", name))
        ):
            continue
        for comparison, opposite in (("at_most", "at_least"), ("below", "above")):
            written = getattr(trigger, comparison)
            if written is not None and _HOLD_AT_ZERO[comparison](written.value):
                message = f"`{name}` holds while nothing is lost: `{spec.name}` is the size of a loss, 0 without one"
                fix = f"write `{opposite}` for a trigger that a loss makes true"
                found.warning("KS5018", ("spec", "triggers", name, comparison), message, fix)


def _is_written(found: Findings, path: tuple[str | int, ...]) -> bool:
    return found.source.node(path) is not None
