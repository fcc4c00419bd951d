"""`quiescent_until`: the time until which `step` would change nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.engine.state import NEVER, StageMachineState, initial
from killswitch.engine.step import StageMachine, latch, overdue, quiescent_until, reset, step
from killswitch.graph.lowering import lower
from killswitch.graph.nodes import AutoReset, Compare, Number, SignalRead
from killswitch.model.instant import HOUR, MINUTE, SECOND
from tests.graphs import FALL_1H, FALL_15M, graph, stage, trigger

AUTO = AutoReset(condition=4, hold=20 * MINUTE)
MACHINE_GRAPH = graph(
    (FALL_15M, FALL_1H),
    (
        trigger("a", 0, 0.045, confirm=2 * MINUTE, grace=5 * MINUTE),
        trigger("b", 0, 0.07, confirm=MINUTE, on_unknown="trip"),
        trigger("c", 1, 0.10, ticks=3, on_unknown="warn"),
        trigger("d", 1, 0.14, grace=None),
    ),
    (
        stage("one", 1, 0, cooldown=5 * MINUTE, reset=AUTO),
        stage("two", 2, 1, 2, cooldown=10 * MINUTE, reset=AUTO),
        stage("three", 3, 3, cooldown=HOUR),
    ),
    reset_when=(Compare("<", SignalRead(1), Number(0.02)),),
)
MACHINE = StageMachine.of(MACHINE_GRAPH, lower(MACHINE_GRAPH.conditions))

FALLS = st.one_of(st.none(), st.sampled_from([0.0, 0.01, 0.03, 0.05, 0.08, 0.12, 0.2]))
MOVES = st.lists(st.tuples(st.integers(5, 400), FALLS, FALLS, st.floats(0.5, 1.0)), min_size=1, max_size=25)


def columns(fall: float | None, hour: float | None) -> tuple[list[float], list[float], list[str | None]]:
    low = [float("-inf") if each is None else each for each in (fall, hour)]
    high = [float("inf") if each is None else each for each in (fall, hour)]
    return low, high, []


@given(MOVES, st.booleans(), st.data())
def test_before_quiescent_until_a_step_with_the_same_conditions_changes_and_reports_nothing(
    moves, is_still, data
) -> None:
    """From any state: before the instant that `quiescent_until` returns a step is idle.

    That is at any unit value, or at the same one where the value of an empty book stays as it is.
    """
    state, now = initial(), 1_000 * SECOND
    for seconds, fall, hour, value in moves:
        now += seconds * SECOND
        signals = columns(fall, hour)
        result = step(MACHINE, state, signals, now, unit_value=(value, value))
        state = result.state
        if result.reset:
            state = reset(state, now, automatic=True)
        elif result.eligible:
            state = latch(state, result.eligible[0], now, (value, value))
        until = quiescent_until(MACHINE, state, *MACHINE.evaluate(*signals), now, is_still=is_still)
        if until <= now + 1:
            continue
        later = data.draw(st.integers(now + 1, min(until - 1, now + 3 * HOUR)))
        other = value if is_still else data.draw(st.floats(0.1, 2.0))
        idle = step(MACHINE, state, signals, later, unit_value=(other, other))
        assert (idle.eligible, idle.reset) == ((), False)
        assert idle.state == state
        assert overdue(MACHINE, idle.state.triggers, later) == overdue(MACHINE, state.triggers, now)


def test_a_confirmed_stage_of_an_empty_book_rests_until_its_cooldown_is_over_and_then_for_good() -> None:
    """A fall of 15% fires `three`; its value stays, so that a later loss cannot fire it again."""
    (high, hour) = (columns(0.15, 0.15), HOUR)
    result = step(MACHINE, initial(), high, 0, unit_value=(1.0, 1.0))
    state = latch(result.state, result.eligible[0], 0, (1.0, 1.0))
    masks = MACHINE.evaluate(*high)
    settled = step(MACHINE, state, high, hour, unit_value=(1.0, 1.0)).state
    settled = step(MACHINE, settled, high, hour + SECOND, unit_value=(1.0, 1.0)).state
    assert result.eligible[0].name == "three"
    assert quiescent_until(MACHINE, settled, *masks, hour + SECOND) == 0
    assert quiescent_until(MACHINE, settled, *masks, hour + SECOND, is_still=True) == NEVER


def quiescence_after(state: StageMachineState, fall: float | None) -> int:
    return quiescent_until(MACHINE, state, *MACHINE.evaluate(*columns(fall, fall)), 0)


def state_after(fall: float | None, at: int, state: StageMachineState | None = None) -> StageMachineState:
    return step(MACHINE, state or initial(), columns(fall, fall), at, unit_value=(1.0, 1.0)).state


def test_an_idle_machine_is_quiescent_for_ever() -> None:
    """Nothing held, nothing unknown, nothing latched: no time moves it."""
    assert quiescence_after(state_after(0.0, MINUTE), 0.0) == NEVER


def test_a_running_confirmation_ends_quiescence_when_it_is_due() -> None:
    """`a` is true since minute 1 and confirmed after two more."""
    assert quiescence_after(state_after(0.05, MINUTE), 0.05) == 3 * MINUTE


def test_a_confirmed_stage_in_its_cooldown_is_not_quiescent() -> None:
    """Its next firing depends on the unit value, which is not a condition."""
    state = state_after(0.05, 3 * MINUTE, state_after(0.05, MINUTE))
    fired = latch(state, MACHINE_GRAPH.stages[-1], 3 * MINUTE, (1.0, 1.0))
    assert quiescence_after(fired, 0.05) == 0


def test_an_automatic_reset_ends_quiescence_when_it_is_due() -> None:
    """Latched at minute 3 with a cooldown of 5, and below 2% from minute 10 on for 20."""
    state = state_after(0.05, 3 * MINUTE, state_after(0.05, MINUTE))
    fired = latch(state, MACHINE_GRAPH.stages[-1], 3 * MINUTE, (1.0, 1.0))
    assert quiescence_after(state_after(0.0, 10 * MINUTE, fired), 0.0) == 30 * MINUTE


def test_a_time_without_a_reset_delays_the_automatic_one() -> None:
    """As above; but nobody resets for 45 minutes after the firing."""
    state = state_after(0.05, 3 * MINUTE, state_after(0.05, MINUTE))
    held = replace(MACHINE_GRAPH.stages[-1], no_reset_for=45 * MINUTE)
    fired = latch(state, held, 3 * MINUTE, (1.0, 1.0))
    calm = state_after(0.0, 10 * MINUTE, fired)
    assert quiescence_after(calm, 0.0) == 48 * MINUTE
    early = step(MACHINE, calm, columns(0.0, 0.0), 48 * MINUTE - 1, unit_value=(1.0, 1.0))
    assert not early.reset
    assert step(MACHINE, early.state, columns(0.0, 0.0), 48 * MINUTE, unit_value=(1.0, 1.0)).reset


def test_a_machine_that_has_not_stepped_on_these_conditions_is_not_quiescent() -> None:
    """A trigger that just became true is a change."""
    assert quiescence_after(state_after(0.0, MINUTE), 0.05) == 0


HELD_RESET = AutoReset(condition=3, hold=20 * MINUTE)
WAITING_GRAPH = graph(
    (FALL_15M, FALL_1H),
    (
        trigger("a", 0, 0.05, confirm=2 * MINUTE, grace=5 * MINUTE),
        trigger("b", 0, 0.09, confirm=2 * MINUTE, grace=5 * MINUTE, on_unknown="trip"),
        trigger("c", 1, 0.09, grace=5 * MINUTE),
    ),
    (stage("one", 1, 2, cooldown=5 * MINUTE, reset=HELD_RESET),),
    reset_when=(Compare("<", SignalRead(1), Number(0.02)),),
)
WAITING = StageMachine.of(WAITING_GRAPH, lower(WAITING_GRAPH.conditions))
INFINITY = float("inf")


def step_and_quiescence(
    state: StageMachineState, fall: float | None, hour: float | None
) -> tuple[StageMachineState, int]:
    """The state after a step at one hour with these falls, and until when it is quiescent then."""
    low = [-INFINITY if each is None else each for each in (fall, hour)]
    high = [INFINITY if each is None else each for each in (fall, hour)]
    next_state = step(WAITING, state, (low, high, []), HOUR, unit_value=(1.0, 1.0)).state
    return next_state, quiescent_until(WAITING, next_state, *WAITING.evaluate(low, high, []), HOUR)


def latched(**fields: object) -> StageMachineState:
    """Stage one, fired at minute 50: cooled down at minute 55."""
    return replace(latch(initial(), WAITING_GRAPH.stages[0], 50 * MINUTE, (1.0, 1.0)), **fields)


def test_an_unknown_that_trips_is_quiescent_until_its_confirmation_is_due() -> None:
    """Counted as true from the first unknown on: two minutes later it fires if nothing changes."""
    assert step_and_quiescence(initial(), None, 0.0)[1] == HOUR + 2 * MINUTE


def test_an_unknown_that_holds_true_is_quiescent_until_its_confirmation_would_be_due() -> None:
    """Held through the outage it completes nothing, but that is the instant at which a true condition would."""
    held = step_and_quiescence(initial(), 0.06, 0.0)[0]
    low, high = [-INFINITY, 0.0], [0.08, 0.0]
    outage = step(WAITING, held, (low, high, []), HOUR + MINUTE, unit_value=(1.0, 1.0)).state
    assert (outage.triggers.held, outage.triggers.unknown) == (0b001, 0b001)
    assert quiescent_until(WAITING, outage, *WAITING.evaluate(low, high, []), HOUR) == HOUR + 2 * MINUTE


def test_a_condition_that_differs_from_the_state_is_not_quiescent() -> None:
    """True where the state is false, unknown where it is known, and a stage that could not fire."""
    quiet = step_and_quiescence(initial(), 0.0, 0.0)[0]
    assert quiescent_until(WAITING, quiet, 0b001, 0, HOUR) == 0
    assert quiescent_until(WAITING, quiet, 0, 0b100, HOUR) == 0
    assert quiescent_until(WAITING, replace(quiet, barren=("one",)), 0, 0, HOUR) == 0
    assert quiescent_until(WAITING, quiet, 0, 0, HOUR) == NEVER


def test_a_trigger_that_counts_ticks_is_not_quiescent_before_the_last_tick() -> None:
    """Every scheduled step increments its count."""
    counted = graph((FALL_15M, FALL_1H), (trigger("t", 0, 0.05, ticks=3),), (stage("s", 1, 0),))
    machine = StageMachine.of(counted, lower(counted.conditions))
    signals: tuple[list[float], list[float], list[str | None]] = ([0.06, 0.0], [0.06, 0.0], [])
    next_state = step(machine, initial(), signals, HOUR).state
    assert quiescent_until(machine, next_state, *machine.evaluate(*signals), HOUR) == 0


def test_a_stage_that_only_waits_for_its_cooldown_is_not_quiescent() -> None:
    """The same level may fire as soon as time and unit value permit: every step counts."""
    standing = step_and_quiescence(latched(), 0.0, 0.10)
    assert standing[0].triggers.confirmed == 0b100
    assert standing[1] == 0


def test_a_latch_with_a_false_reset_condition_is_quiescent_for_ever() -> None:
    """No clock runs, and no time moves it."""
    assert step_and_quiescence(latched(), 0.0, 0.05)[1] == NEVER


def test_a_latch_whose_reset_condition_just_turned_false_is_not_quiescent() -> None:
    """The next step clears the time since which it held."""
    assert quiescent_until(WAITING, latched(reset_since=55 * MINUTE), 0, 0, HOUR) == 0


def test_a_latch_whose_reset_condition_just_turned_true_is_not_quiescent() -> None:
    """The next step records the time since which it holds."""
    assert quiescent_until(WAITING, latched(), 0b1000, 0, HOUR) == 0


def test_a_reset_is_due_when_its_condition_has_held_and_the_cooldown_is_over() -> None:
    """Whichever is later of the two; without a cooldown the first alone."""
    held = latched(reset_since=55 * MINUTE)
    assert quiescent_until(WAITING, held, 0b1000, 0, HOUR) == 75 * MINUTE
    assert quiescent_until(WAITING, replace(held, cooldown_until=90 * MINUTE), 0b1000, 0, HOUR) == 90 * MINUTE
    assert quiescent_until(WAITING, replace(held, cooldown_until=None), 0b1000, 0, HOUR) == 75 * MINUTE


def test_a_latch_without_an_automatic_reset_is_quiescent_for_ever() -> None:
    """Only an operator ends it; the same for a stage that an edit removed."""
    assert quiescent_until(WAITING, replace(latched(), stage="gone"), 0b1000, 0, HOUR) == NEVER
