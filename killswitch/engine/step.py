"""`step`: evaluates the triggers and finds the stages that may fire. Pure: time is an argument.

A tick calls `step` (conditions, confirmation, reset), then `latch` for the stage that planning could execute. They are
separate because a stage that selects nothing of a non-empty book must not latch, and only planning knows the selection.

An interpreter over long quiet periods (a backtest) calls `quiescent_until` instead of stepping through them. It inverts
the arithmetic of `step`; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.state import (
    NEVER,
    PartialFiring,
    StageMachineState,
    Triggers,
    initial,
    level_in_force,
    may_reset_from,
    stage_in_force,
)
from killswitch.graph.nodes import Graph, Stage
from killswitch.model.instant import DAY

SAME = 1e-9
"""Relative tolerance within which unit values are equal."""

Evaluate = Callable[[list[float], list[float], list[str | None]], tuple[int, int]]


def bits(mask: int) -> Iterator[int]:
    """Indexes of the set bits, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class StageMachine(Struct, frozen=True):
    """A graph compiled for stepping: its conditions as code, and its triggers' `on_unknown` as masks.

    `confirm`, `confirm_ticks` and `grace` have one value for each trigger.
    """

    graph: Graph
    evaluate: Evaluate
    all: int
    hold: int
    trip: int
    confirm: tuple[int, ...]
    confirm_ticks: tuple[int, ...]
    grace: tuple[int, ...]
    counting: int
    """Triggers that confirm in ticks."""
    rearming: int
    """Triggers on which the same level fires again after they were false."""

    @classmethod
    def of(cls, graph: Graph, evaluate: Evaluate) -> StageMachine:
        """Prepare `graph`, whose conditions `evaluate` computes."""

        def mask(answer: str) -> int:
            return sum(1 << i for i, trigger in enumerate(graph.triggers) if trigger.on_unknown == answer)

        return cls(
            graph=graph,
            evaluate=evaluate,
            all=(1 << len(graph.triggers)) - 1,
            hold=mask("hold"),
            trip=mask("trip"),
            confirm=tuple(trigger.confirm for trigger in graph.triggers),
            confirm_ticks=tuple(trigger.confirm_ticks for trigger in graph.triggers),
            grace=tuple(trigger.grace or 0 for trigger in graph.triggers),
            counting=sum(1 << i for i, trigger in enumerate(graph.triggers) if trigger.confirm_ticks),
            rearming=sum(1 << i for i, trigger in enumerate(graph.triggers) if trigger.rearms),
        )

    def in_force(self, state: StageMachineState) -> Stage | None:
        """The stage that has fired and was not reset since; None if it was removed from the policy."""
        name = stage_in_force(state)
        return next((stage for stage in self.graph.stages if stage.name == name), None)


class StepResult(Struct, frozen=True, gc=False):
    """Result of one evaluation. `eligible`: stages that may fire, highest first."""

    state: StageMachineState
    eligible: tuple[Stage, ...] = ()
    reset: bool = False


def step(
    machine: StageMachine,
    state: StageMachineState,
    columns: tuple[list[float], list[float], list[str | None]],
    now: int,
    *,
    scheduled: bool = True,
    unit_value: tuple[float, float] | None = None,
    cost: float = 0.0,
) -> StepResult:
    """Move `state` by one evaluation at `now`.

    `columns` are lo, hi and text in the order of the graph's signals. `unit_value` is the interval of the
    unit value; `cost` is what closing has cost since the last firing, in unit value.
    """
    true, unknown = machine.evaluate(*columns)
    before = state.triggers
    missing = unknown & machine.all
    holding = (true & machine.all) | (missing & machine.hold & before.held) | (missing & machine.trip)
    if (
        holding == before.held
        and missing == before.unknown
        and now < before.due
        and not (scheduled and holding & machine.counting & ~before.confirmed)
    ):
        if level_in_force(state) == 0 and not before.confirmed:
            return StepResult(state)
    else:
        asserted = (true | missing & machine.trip) & machine.all
        triggers = _move(machine, before, holding, missing, asserted, now, scheduled)
        # only an observed false ends a trigger: missing data never clears it
        state = replace(state, triggers=triggers, spent=state.spent & (true | missing))
    state, reset = _watch_reset(machine, state, true, now)
    eligible = _eligible(machine, state, now, unit_value, cost)
    return StepResult(state, eligible, reset and not eligible)


def _move(
    machine: StageMachine, before: Triggers, held: int, missing: int, asserted: int, now: int, scheduled: bool
) -> Triggers:
    """Triggers after this evaluation."""
    since, due = before.since, before.due
    changed = held ^ before.held
    if changed:
        since = dict(since)
        for i in bits(changed & before.held):
            del since[i]
        for i in bits(changed & held):
            since[i] = now
            due = min(due, now + machine.confirm[i])
    confirmed, ticks = before.confirmed & held, before.ticks
    if ticks or machine.counting:
        ticks = _count(machine, ticks, held & ~confirmed, scheduled)
    unknown_since = before.unknown_since
    if missing or before.unknown:
        unknown_since = {i: before.unknown_since.get(i, now) for i in bits(missing)}
    if now >= due or ticks:
        confirmed, due = _confirm(machine, confirmed, held, asserted, since, ticks, now)
    return Triggers(held, confirmed, missing, since, ticks, unknown_since, due)


def _count(machine: StageMachine, ticks: dict[int, int], pending: int, scheduled: bool) -> dict[int, int]:
    """Scheduled ticks of the pending triggers that confirm in ticks."""
    return {i: ticks.get(i, 0) + scheduled for i in bits(pending & machine.counting)}


def _confirm(
    machine: StageMachine,
    confirmed: int,
    held: int,
    asserted: int,
    since: dict[int, int],
    ticks: dict[int, int],
    now: int,
) -> tuple[int, int]:
    """The confirmed triggers, and when the next of the pending ones is due.

    A held unknown keeps its clock, but only an observed true completes a confirmation.
    """
    due = NEVER
    for i in bits(held & ~confirmed):
        if machine.confirm_ticks[i]:
            enough = ticks[i] >= machine.confirm_ticks[i]
        else:
            enough = now - since[i] >= machine.confirm[i]
            due = due if enough and asserted >> i & 1 else min(due, since[i] + machine.confirm[i])
        if enough and asserted >> i & 1:
            confirmed |= 1 << i
    return confirmed, due


def overdue(machine: StageMachine, triggers: Triggers, now: int) -> tuple[int, ...]:
    """Triggers that have been unknown for their grace."""
    return tuple(i for i, at in triggers.unknown_since.items() if now - at >= machine.grace[i])


def _watch_reset(
    machine: StageMachine, state: StageMachineState, true: int, now: int
) -> tuple[StageMachineState, bool]:
    """Track the automatic reset of the stage in force; True when it is due.

    A close that waits for accounts delays it.
    """
    if level_in_force(state) == 0 or state.waiting is not None:
        return state, False
    stage = machine.in_force(state)
    if stage is None or stage.reset is None or state.by_hand:  # a removed stage stays latched until a manual reset
        return state, False
    if not true >> stage.reset.condition & 1:
        return (state if state.reset_since is None else replace(state, reset_since=None)), False
    if state.reset_since is None:
        state = replace(state, reset_since=now)
    since = state.reset_since or now
    return state, now >= may_reset_from(state) and now - since >= stage.reset.hold


def is_confirmed(stage: Stage, confirmed: int) -> bool:
    """Whether the stage's triggers are confirmed."""
    any_of, all_of = stage.any_of, stage.all_of
    return (not any_of or any(confirmed >> i & 1 for i in any_of)) and all(confirmed >> i & 1 for i in all_of)


def _eligible(
    machine: StageMachine, state: StageMachineState, now: int, unit_value: tuple[float, float] | None, cost: float
) -> tuple[Stage, ...]:
    """Stages that may fire: a higher level always, the same level only on something new, a lower level never."""
    confirmed = state.triggers.confirmed
    if not confirmed:
        return ()
    rested = state.cooldown_until is None or now >= state.cooldown_until
    has_lost = rested and _has_lost(state, unit_value, cost)
    anew = confirmed & machine.rearming & ~state.spent if rested else 0
    return tuple(
        stage
        for stage in machine.graph.stages
        if (stage.level > state.level or (stage.level == state.level and (has_lost or anew & triggers_of(stage))))
        and is_confirmed(stage, confirmed)
    )


def _has_lost(state: StageMachineState, unit_value: tuple[float, float] | None, cost: float) -> bool:
    """Whether the unit value is surely below its value at the firing, apart from the cost of the close."""
    if unit_value is None or state.fired_value is None:
        return False
    # After a deposit or withdrawal the unit value is computed with other units: equal except for rounding.
    return unit_value[1] + cost < state.fired_value - abs(state.fired_value) * SAME


def triggers_of(stage: Stage) -> int:
    """Mask of the stage's triggers."""
    mask = 0
    for i in (*stage.any_of, *stage.all_of):
        mask |= 1 << i
    return mask


def stage_of_record(record: str) -> str:
    """The stage of an entry of `barren` or `acted`: its name before the slash."""
    return record.partition("/")[0]


def latch(
    state: StageMachineState, stage: Stage, now: int, unit_value: tuple[float, float] | None, *, is_acting: bool = True
) -> StageMachineState:
    """The state after `stage` has fired at `now`. Its confirmed triggers are marked as spent.

    `is_acting`: whether the firing is carried out; one that is only recorded holds back no reset.
    """
    confirmed, partial = state.triggers.confirmed, state.partial
    most = None if stage.reset is None else stage.reset.at_most
    return replace(
        state,
        level=stage.level,
        stage=stage.name,
        fired_at=now,
        fired_value=unit_value[0] if unit_value is not None else None,
        cooldown_until=now + stage.cooldown,
        reset_since=None,
        barren=tuple(record for record in state.barren if stage_of_record(record) != stage.name),
        acted={},
        spent=state.spent | confirmed & triggers_of(stage),
        waiting=None,
        partial=partial if partial is not None and partial.level > stage.level else None,
        by_hand=most is not None and len(_recent(state.recovered, now)) >= most,
        no_reset_before=_no_reset_before(state, stage, now, is_acting=is_acting),
    )


def _no_reset_before(state: StageMachineState, stage: Stage, now: int, *, is_acting: bool) -> int | None:
    """Until when nobody resets after a firing of `stage`; what an earlier firing declared stays."""
    declared = stage.no_reset_until(now) if is_acting else None
    return max((end for end in (state.no_reset_before, declared) if end is not None), default=None)


def _recent(recovered: tuple[int, ...], now: int) -> tuple[int, ...]:
    """The automatic resets of the last 24 hours."""
    return tuple(at for at in recovered if now - at < DAY)


def fire_partly(
    state: StageMachineState, stage: Stage, now: int, decision: str, *, held_back: bool, is_acting: bool = True
) -> StageMachineState:
    """The state after `stage` has fired at `now` without latching; a higher partial firing stays in force."""
    end = _no_reset_before(state, stage, now, is_acting=is_acting)
    if state.partial is not None and state.partial.level > stage.level:
        return replace(state, no_reset_before=end)
    partial = PartialFiring(stage.name, stage.level, now, decision, held_back)
    return replace(state, partial=partial, reset_since=None, no_reset_before=end)


def refute(state: StageMachineState, before: Triggers, refuted: int) -> StageMachineState:
    """The state after prices that alone made the `refuted` triggers true were found wrong: these triggers as `before`.

    What good prices made true, or were confirming, stays as it was.
    """
    now = state.triggers

    def mask(current: int, earlier: int) -> int:
        return current & ~refuted | earlier & refuted

    def values(current: dict[int, int], earlier: dict[int, int]) -> dict[int, int]:
        kept = {i: value for i, value in current.items() if not refuted >> i & 1}
        return kept | {i: value for i, value in earlier.items() if refuted >> i & 1}

    triggers = Triggers(
        mask(now.held, before.held), mask(now.confirmed, before.confirmed), mask(now.unknown, before.unknown),
        values(now.since, before.since), values(now.ticks, before.ticks),
        values(now.unknown_since, before.unknown_since), min(now.due, before.due),
    )  # fmt: skip
    return replace(state, triggers=triggers)


def reset(state: StageMachineState, now: int, *, automatic: bool) -> StageMachineState:
    """The state after a reset at `now`: nothing latched, every trigger at its initial state.

    Automatic resets of the last 24 hours are remembered.
    """
    recovered = (*_recent(state.recovered, now), now) if automatic else _recent(state.recovered, now)
    return replace(initial(), recovered=recovered)


def quiescent_until(
    machine: StageMachine, state: StageMachineState, true: int, unknown: int, now: int, *, is_still: bool = False
) -> int:
    """The instant before which `step` changes nothing, and no trigger is overdue, while the conditions stay the same.

    `state` is the result of the last step, at `now`; `true` and `unknown` are its evaluated masks. Instants are in
    microseconds. `is_still`: the unit value stays the same, too. NEVER: only a change of conditions has an effect. 0:
    the machine is not quiescent.
    """
    triggers = state.triggers
    missing = unknown & machine.all
    holding = (true & machine.all) | (missing & machine.hold & triggers.held) | (missing & machine.trip)
    if holding != triggers.held or missing != triggers.unknown or state.barren or state.waiting or state.partial:
        return 0
    if holding & machine.counting & ~triggers.confirmed:
        return 0
    rested = NEVER
    for stage in machine.graph.stages:
        if stage.level < state.level or not is_confirmed(stage, triggers.confirmed):
            continue
        if not is_still or stage.level > state.level:
            return 0  # only its cooldown or the unit value keeps it from firing
        if state.cooldown_until is not None and state.cooldown_until > now:
            rested = state.cooldown_until
    ends = (at + machine.grace[i] for i, at in triggers.unknown_since.items())
    return min(rested, triggers.due, _reset_due(machine, state, true), *(end for end in ends if end > now))


def _reset_due(machine: StageMachine, state: StageMachineState, true: int) -> int:
    """When the automatic reset of the latched stage is due if its condition stays true; 0 if its clock is not set."""
    if state.level == 0:
        return NEVER
    stage = machine.in_force(state)
    if stage is None or stage.reset is None or state.by_hand:
        return NEVER
    if not true >> stage.reset.condition & 1:
        return NEVER if state.reset_since is None else 0
    if state.reset_since is None:
        return 0
    return max(state.reset_since + stage.reset.hold, may_reset_from(state))
