"""`rests_until` at its edges: unknown that is held, and the automatic reset's clock in each of its states."""

from __future__ import annotations

from msgspec.structs import replace

from killswitch.engine.rest import rests_until
from killswitch.engine.state import NEVER, State, initial
from killswitch.engine.step import Machine, latch, step
from killswitch.graph.lowering import lower
from killswitch.graph.nodes import AutoReset, Compare, Number, SignalRead
from killswitch.model.instant import HOUR, MINUTE
from tests.graphs import FALL_1H, FALL_15M, graph, stage, trigger

AUTO = AutoReset(condition=3, hold=20 * MINUTE)
GRAPH = graph(
    (FALL_15M, FALL_1H),
    (
        trigger("a", 0, 0.05, confirm=2 * MINUTE, grace=5 * MINUTE),
        trigger("b", 0, 0.09, confirm=2 * MINUTE, grace=5 * MINUTE, on_unknown="trip"),
        trigger("c", 1, 0.09, grace=5 * MINUTE),
    ),
    (stage("one", 1, 2, cooldown=5 * MINUTE, reset=AUTO),),
    reset_when=(Compare("<", SignalRead(1), Number(0.02)),),
)
MACHINE = Machine.of(GRAPH, lower(GRAPH.conditions))
INFINITY = float("inf")


def rest(state: State, fall: float | None, hour: float | None) -> tuple[State, int]:
    """The state after a step at one hour with these falls, and until when it rests then."""
    low = [-INFINITY if each is None else each for each in (fall, hour)]
    high = [INFINITY if each is None else each for each in (fall, hour)]
    moved = step(MACHINE, state, (low, high, []), HOUR, unit_value=(1.0, 1.0)).state
    return moved, rests_until(MACHINE, moved, *MACHINE.evaluate(low, high, []))


def latched(**fields: object) -> State:
    """Stage one, fired at minute 50: cooled down at minute 55."""
    return replace(latch(initial(), GRAPH.stages[0], 50 * MINUTE, (1.0, 1.0)), **fields)


def test_an_unknown_that_trips_rests_until_its_confirmation_is_due() -> None:
    """Counted as true from the first unknown on: two minutes later it fires if nothing changes."""
    assert rest(initial(), None, 0.0)[1] == HOUR + 2 * MINUTE


def test_an_unknown_that_holds_what_was_true_rests_until_its_confirmation_would_be_due() -> None:
    """Held through the outage it completes nothing, but that is the instant at which a true would."""
    held = rest(initial(), 0.06, 0.0)[0]
    low, high = [-INFINITY, 0.0], [0.08, 0.0]
    outage = step(MACHINE, held, (low, high, []), HOUR + MINUTE, unit_value=(1.0, 1.0)).state
    assert (outage.triggers.held, outage.triggers.unknown) == (0b001, 0b001)
    assert rests_until(MACHINE, outage, *MACHINE.evaluate(low, high, [])) == HOUR + 2 * MINUTE


def test_a_condition_that_differs_from_what_the_state_holds_is_no_rest() -> None:
    """True where the state says false, unknown where it says known, and a stage that could not fire."""
    quiet = rest(initial(), 0.0, 0.0)[0]
    assert rests_until(MACHINE, quiet, 0b001, 0) == 0
    assert rests_until(MACHINE, quiet, 0, 0b100) == 0
    assert rests_until(MACHINE, replace(quiet, barren=("one",)), 0, 0) == 0
    assert rests_until(MACHINE, quiet, 0, 0) == NEVER


def test_a_trigger_that_counts_ticks_is_not_at_rest_before_it_has_counted_them() -> None:
    """Every scheduled step moves its count."""
    counted = graph((FALL_15M, FALL_1H), (trigger("t", 0, 0.05, ticks=3),), (stage("s", 1, 0),))
    machine = Machine.of(counted, lower(counted.conditions))
    seen: tuple[list[float], list[float], list[str | None]] = ([0.06, 0.0], [0.06, 0.0], [])
    moved = step(machine, initial(), seen, HOUR).state
    assert rests_until(machine, moved, *machine.evaluate(*seen)) == 0


def test_a_stage_that_only_its_cooldown_holds_back_is_not_at_rest() -> None:
    """The same level stands and may fire as soon as time and unit value let it: every step counts."""
    standing = rest(latched(), 0.0, 0.10)
    assert standing[0].triggers.confirmed == 0b100
    assert standing[1] == 0


def test_a_latch_whose_reset_condition_is_false_rests_for_ever() -> None:
    """No clock runs, and no time moves it."""
    assert rest(latched(), 0.0, 0.05)[1] == NEVER


def test_a_latch_whose_reset_condition_has_just_turned_false_has_a_clock_to_stop() -> None:
    """The next step forgets since when it held: it is not at rest."""
    assert rests_until(MACHINE, latched(reset_since=55 * MINUTE), 0, 0) == 0


def test_a_latch_whose_reset_condition_has_just_turned_true_has_a_clock_to_start() -> None:
    """The next step writes down since when: it is not at rest."""
    assert rests_until(MACHINE, latched(), 0b1000, 0) == 0


def test_a_reset_is_due_when_its_condition_has_held_and_the_cooldown_is_over() -> None:
    """Whichever is later of the two; without a cooldown the first alone."""
    held = latched(reset_since=55 * MINUTE)
    assert rests_until(MACHINE, held, 0b1000, 0) == 75 * MINUTE
    assert rests_until(MACHINE, replace(held, cooldown_until=90 * MINUTE), 0b1000, 0) == 90 * MINUTE
    assert rests_until(MACHINE, replace(held, cooldown_until=None), 0b1000, 0) == 75 * MINUTE


def test_a_latch_in_a_stage_without_a_reset_rests_for_ever() -> None:
    """Only a hand ends it; the same for a stage that an edit removed."""
    assert rests_until(MACHINE, replace(latched(), stage="gone"), 0b1000, 0) == NEVER
