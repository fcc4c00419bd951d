"""`step` at its edges: several triggers at once, the last instant of a duration, and the effects of a latch."""

from __future__ import annotations

from msgspec.structs import replace

from killswitch.engine.state import initial
from killswitch.engine.step import SAME, StageMachine, StepResult, latch, overdue, stage_of_record, step
from killswitch.graph.lowering import lower
from killswitch.graph.nodes import AutoReset, Compare, Graph, Number, OnUnknown, SignalRead
from killswitch.model.instant import MINUTE, SECOND
from tests.graphs import FALL_1H, FALL_15M, graph, stage, trigger

INFINITY = float("inf")


def machine(*made: Graph) -> StageMachine:
    return StageMachine.of(made[0], lower(made[0].conditions))


def columns(*falls: float | None) -> tuple[list[float], list[float], list[str | None]]:
    """Falls of the two windows; None is unknown."""
    low = [-INFINITY if fall is None else fall for fall in falls]
    high = [INFINITY if fall is None else fall for fall in falls]
    return low, high, []


def walk(
    stage_machine: StageMachine, *moves: tuple[int, tuple[float | None, float | None]], scheduled: bool = True
) -> list[StepResult]:
    """The steps at these seconds, with these falls of both windows; nothing latches."""
    state, steps = initial(), []
    for seconds, falls in moves:
        steps.append(
            step(stage_machine, state, columns(*falls), seconds * SECOND, scheduled=scheduled, unit_value=(1.0, 1.0))
        )
        state = steps[-1].state
    return steps


def names(result: StepResult) -> list[str]:
    return [each.name for each in result.eligible]


def two_windows(answer: OnUnknown = "hold", *, graces: tuple[int, int] = (MINUTE, MINUTE)) -> StageMachine:
    """One trigger on each window; they differ only in the grace of their unknown."""
    triggers = (
        trigger("short", 0, 0.05, on_unknown=answer, grace=graces[0]),
        trigger("long", 1, 0.05, on_unknown=answer, grace=graces[1]),
    )
    return machine(graph((FALL_15M, FALL_1H), triggers, (stage("s", 1, 0), stage("l", 2, 1))))


def test_an_evaluation_counts_as_scheduled_by_default() -> None:
    """A trigger of two ticks fires at the second plain call of `step`."""
    counted = machine(graph((FALL_15M, FALL_1H), (trigger("t", 0, 0.05, ticks=2),), (stage("s", 1, 0),)))
    first = step(counted, initial(), columns(0.06, 0.0), SECOND)
    assert names(first) == []
    assert names(step(counted, first.state, columns(0.06, 0.0), 2 * SECOND)) == ["s"]


def test_the_second_trigger_has_its_own_ticks_and_treatment_of_unknown() -> None:
    """Each trigger has its own confirmation and result, wherever it is in the policy."""
    tripping = two_windows("trip")
    assert names(walk(tripping, (1, (0.0, None)))[0]) == ["l"]
    triggers = (trigger("t", 0, 0.05), trigger("counted", 1, 0.05, ticks=2))
    counted = machine(graph((FALL_15M, FALL_1H), triggers, (stage("s", 1, 1),)))
    assert [names(result) for result in walk(counted, (1, (0.0, 0.06)), (2, (0.0, 0.06)))] == [[], ["s"]]


def test_the_cost_of_closing_is_zero_by_default() -> None:
    """After the cooldown, half a percent below the last firing is new loss."""
    stage_machine = two_windows()
    state = latch(initial(), stage_machine.graph.stages[-1], 0, (0.95, 0.95))
    rested = state.cooldown_until
    assert rested is not None
    assert names(step(stage_machine, state, columns(0.06, 0.0), rested, unit_value=(0.945, 0.945))) == ["s"]


def test_a_stage_stays_eligible_while_its_trigger_is_true_and_nothing_has_latched() -> None:
    """Planning may have selected nothing: the next step proposes it again, with nothing changed."""
    assert [names(result) for result in walk(two_windows(), (1, (0.06, 0.0)), (2, (0.06, 0.0)))] == [["s"], ["s"]]


def test_an_unknown_unit_value_is_no_new_loss() -> None:
    """Neither now, nor if it was unknown when the stage fired: the same level does not fire again."""
    stage_machine = two_windows()
    for fired, now in (((1.0, 1.0), None), (None, (0.5, 0.5))):
        state = latch(initial(), stage_machine.graph.stages[-1], 0, fired)
        assert names(step(stage_machine, state, columns(0.06, 0.0), 31 * MINUTE, unit_value=now)) == []


def test_a_cooldown_is_over_at_its_last_instant_and_not_before() -> None:
    """A stage that cools down for thirty minutes may fire again thirty minutes later to the microsecond."""
    stage_machine = two_windows()
    state = latch(initial(), stage_machine.graph.stages[-1], 0, (0.95, 0.95))
    early = step(stage_machine, state, columns(0.06, 0.0), 30 * MINUTE - 1, unit_value=(0.9, 0.9))
    assert names(early) == []
    assert names(step(stage_machine, early.state, columns(0.06, 0.0), 30 * MINUTE, unit_value=(0.9, 0.9))) == ["s"]


def test_a_unit_value_lower_by_no_more_than_rounding_is_no_new_loss() -> None:
    """A billionth below is the same value; twice that is lower."""
    stage_machine = two_windows()
    state = latch(initial(), stage_machine.graph.stages[-1], 0, (1.0, 1.0))
    at = 31 * MINUTE
    for value, fires in ((1.0 - SAME, []), (1.0 - 2 * SAME, ["s"])):
        assert names(step(stage_machine, state, columns(0.06, 0.0), at, unit_value=(value, value))) == fires


def test_a_new_loss_is_certain_only_if_the_whole_interval_is_below_the_lowest_value_at_firing() -> None:
    """Fired at 0.90 to 0.95: 0.89 to 0.92 may be no loss at all, 0.88 to 0.89 is one."""
    stage_machine = two_windows()
    state = latch(initial(), stage_machine.graph.stages[-1], 0, (0.90, 0.95))
    assert state.fired_value == 0.90
    for value, fires in (((0.89, 0.92), []), ((0.88, 0.89), ["s"])):
        assert names(step(stage_machine, state, columns(0.06, 0.0), 31 * MINUTE, unit_value=value)) == fires


def test_ticks_of_a_trigger_that_is_false_are_not_counted() -> None:
    """Five ticks of false, while another trigger comes and goes, are no part of three ticks of true."""
    triggers = (trigger("t", 0, 0.05, ticks=3), trigger("other", 1, 0.05))
    stage_machine = machine(graph((FALL_15M, FALL_1H), triggers, (stage("s", 1, 0),)))
    moves = [(second, (0.0, 0.06 if second % 2 else 0.0)) for second in range(1, 6)]
    moves += [(second, (0.06, 0.06 if second % 2 else 0.0)) for second in range(6, 9)]
    assert [names(result) for result in walk(stage_machine, *moves)] == [[]] * 7 + [["s"]]


def late(stage_machine: StageMachine, *moves: tuple[int, tuple[float | None, float | None]]) -> list[tuple[int, ...]]:
    """The triggers that are overdue after the step at each of these seconds."""
    steps = zip(moves, walk(stage_machine, *moves), strict=True)
    return [overdue(stage_machine, result.state.triggers, seconds * SECOND) for (seconds, _), result in steps]


def test_what_is_known_is_not_overdue() -> None:
    """A condition that turns true is not unknown."""
    assert late(two_windows(), (1, (0.0, 0.0)), (2, (0.06, 0.06))) == [(), ()]


def test_an_unknown_without_a_grace_is_overdue_at_once() -> None:
    """In the evaluation in which it becomes unknown."""
    at_once = machine(graph((FALL_15M, FALL_1H), (trigger("t", 0, 0.05, grace=None),), (stage("s", 1, 0),)))
    assert late(at_once, (1, (None, 0.0)), (2, (None, 0.0))) == [(0,), (0,)]


def test_each_unknown_is_overdue_at_the_end_of_its_own_grace() -> None:
    """Graces of one and three minutes, in either order."""
    moves = [(second, (None, None)) for second in (0, 59, 60, 179, 180)]
    for graces, first in (((MINUTE, 3 * MINUTE), 0), ((3 * MINUTE, MINUTE), 1)):
        assert late(two_windows(graces=graces), *moves) == [(), (), (first,), (first,), (0, 1)]


def test_the_end_of_one_unknown_does_not_end_another() -> None:
    """The first is overdue, known and unknown again; the second is unknown all along."""
    moves = [(0, (None, None)), (60, (None, None)), (80, (0.0, None)), (100, (None, None)), (160, (None, None))]
    assert late(two_windows(), *moves) == [(), (0, 1), (1,), (1,), (0, 1)]


def test_all_triggers_of_an_all_list_must_be_true() -> None:
    """One of two is not enough, whichever it is; any of the one list and all of the other."""
    triggers = (trigger("a", 0, 0.05), trigger("b", 0, 0.08), trigger("c", 1, 0.05))
    both = machine(graph((FALL_15M, FALL_1H), triggers, (stage("s", 1, 0, all_of=(1, 2)),)))
    for falls, fires in (((0.06, 0.06), []), ((0.09, 0.0), []), ((0.0, 0.06), []), ((0.09, 0.06), ["s"])):
        assert names(walk(both, (1, falls))[0]) == fires


def test_a_stage_may_have_an_all_list_without_an_any_list() -> None:
    """Without a list of alternatives, all of the others are enough."""
    triggers = (trigger("a", 0, 0.05), trigger("b", 1, 0.05))
    both = machine(graph((FALL_15M, FALL_1H), triggers, (stage("s", 1, all_of=(0, 1)),)))
    assert [names(result) for result in walk(both, (1, (0.06, 0.0)), (2, (0.06, 0.06)))] == [[], ["s"]]


def test_a_stage_that_an_edit_removed_stays_latched_and_is_not_reset() -> None:
    """Only an operator resets a stage that no document has; a higher level still fires over it."""
    stage_machine = two_windows()
    state = replace(initial(), level=1, stage="gone", cooldown_until=0)
    assert stage_machine.in_force(state) is None
    result = step(stage_machine, state, columns(0.0, 0.06), 3600 * SECOND)
    assert (result.reset, result.state.level, result.state.stage, names(result)) == (False, 1, "gone", ["l"])


def test_a_notice_record_of_a_stage_begins_with_its_name() -> None:
    """With or without a reason after a slash, and whatever slashes the reason has."""
    assert [stage_of_record(record) for record in ("one", "one/why", "one/why/so")] == ["one", "one", "one"]


def test_a_firing_clears_the_records_of_its_own_stage_only() -> None:
    """The clock of an earlier reset, the accounts that acted and the notices of this stage are cleared."""
    before = replace(
        initial(), level=1, stage="s", reset_since=7, barren=("s", "s/nothing", "l/nothing"), acted={"a": 9}
    )
    stage_machine = two_windows()
    after = latch(before, stage_machine.graph.stages[0], 10, None)
    assert (after.level, after.stage, after.fired_at, after.fired_value) == (2, "l", 10, None)
    assert (after.reset_since, after.barren, after.acted) == (None, ("s", "s/nothing"), {})
    assert after.cooldown_until == 10 + stage_machine.graph.stages[0].cooldown


def test_a_reset_condition_that_is_true_over_a_firing_counts_from_the_firing_on() -> None:
    """The hour below 2% begins with the stage that it resets, not with the one before it."""
    auto = AutoReset(condition=2, hold=60 * MINUTE)
    triggers = (trigger("a", 0, 0.05), trigger("b", 0, 0.08))
    stage_machine = machine(
        graph(
            (FALL_15M, FALL_1H),
            triggers,
            (stage("one", 1, 0, cooldown=0, reset=auto), stage("two", 2, 1, cooldown=0, reset=auto)),
            reset_when=(Compare("<", SignalRead(1), Number(0.02)),),
        )
    )
    state = latch(initial(), stage_machine.graph.stages[-1], 0, (1.0, 1.0))
    state = step(stage_machine, state, columns(0.0, 0.0), MINUTE).state
    state = latch(state, stage_machine.graph.stages[0], 50 * MINUTE, (1.0, 1.0))
    begun = step(stage_machine, state, columns(0.0, 0.0), 51 * MINUTE)
    assert not begun.reset
    before = step(stage_machine, begun.state, columns(0.0, 0.0), 111 * MINUTE - 1)
    assert not before.reset
    assert step(stage_machine, before.state, columns(0.0, 0.0), 111 * MINUTE).reset
