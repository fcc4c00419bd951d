"""`step`: confirmation, escalation, cooldown with new loss, latch and reset."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.engine.state import from_stored, initial, to_stored
from killswitch.engine.step import StageMachine, StepResult, latch, overdue, reset, step
from killswitch.graph.lowering import lower
from killswitch.graph.nodes import AutoReset, Compare, Graph, Number, OnUnknown, SignalRead, SignalRef
from killswitch.model.instant import HOUR, MINUTE, SECOND
from tests.graphs import FALL_1H, FALL_15M, graph, stage, trigger

UNKNOWN = (float("-inf"), float("inf"))
AUTO = AutoReset(condition=3, hold=60 * MINUTE)
BELOW_2 = Compare("<", SignalRead(1), Number(0.02))


def ladder(**more: object) -> Graph:
    """Three levels on the 15m fall: 4.5% for 2m, 7% for 1m, 10% at once."""
    return graph(
        (FALL_15M, FALL_1H),
        (
            trigger("a", 0, 0.045, confirm=2 * MINUTE),
            trigger("b", 0, 0.07, confirm=MINUTE),
            trigger("c", 0, 0.10),
        ),
        (
            stage("one", 1, 0, cooldown=30 * MINUTE, reset=AUTO),
            stage("two", 2, 1, cooldown=90 * MINUTE, reset=AUTO),
            stage("three", 3, 2, cooldown=6 * HOUR),
        ),
        reset_when=(BELOW_2,),
        **more,  # type: ignore[arg-type]  # passed through
    )


class Run:
    """A machine driven by falls of the 15m window; every stage that may fire does."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.fired: list[tuple[int, int]] = []
        self.resets: list[int] = []
        self.steps: list[StepResult] = []
        self.overdue: list[tuple[int, ...]] = []
        self.state = initial()
        self.machine = StageMachine.of(graph, lower(graph.conditions))

    def at(
        self,
        seconds: float,
        fall: float | None,
        *,
        value: float | None = None,
        scheduled: bool = True,
        hour: float | None = None,
        cost: float = 0.0,
    ) -> Run:
        """Evaluate at `seconds`, with this fall in both windows (None: unknown); `hour`: another second column."""
        now = round(seconds * SECOND) + 1
        low, high = UNKNOWN if fall is None else (fall, fall)
        wide = fall if hour is None else hour
        low1, high1 = UNKNOWN if wide is None or math.isnan(wide) else (wide, wide)
        single_value = None if fall is None else 1 - fall if value is None else value
        unit_value = None if single_value is None else (single_value, single_value)
        result = step(
            self.machine, self.state, ([low, low1], [high, high1], []), now,
            scheduled=scheduled, unit_value=unit_value, cost=cost,
        )  # fmt: skip
        self.state = result.state
        self.steps.append(result)
        self.overdue.append(overdue(self.machine, self.state.triggers, now))
        if result.reset:
            self.resets.append(int(seconds))
            self.state = reset(self.state, now, automatic=True)
        elif result.eligible:
            self.state = latch(self.state, result.eligible[0], now, unit_value)
            self.fired.append((int(seconds), result.eligible[0].level))
        return self


def test_a_stage_fires_when_its_trigger_was_true_for_long_enough() -> None:
    """2m of confirmation: true at 0, 60 and 120 s fires at 120 s, not before."""
    assert Run(ladder()).at(0, 0.05).at(60, 0.05).at(119, 0.05).at(120, 0.05).fired == [(120, 1)]


def test_one_evaluation_that_is_false_begins_confirmation_anew() -> None:
    """True at every evaluation of the two minutes, or not confirmed."""
    assert Run(ladder()).at(0, 0.05).at(60, 0.04).at(120, 0.05).at(180, 0.05).fired == []


def test_of_several_levels_at_once_the_highest_fires() -> None:
    """One step to −12% fires level 3 only."""
    assert Run(ladder()).at(0, 0.12).at(60, 0.12).at(180, 0.12).fired == [(0, 3)]


def test_a_higher_level_fires_over_a_latched_lower_one() -> None:
    """Escalation does not wait for a cooldown."""
    run = Run(ladder()).at(0, 0.05).at(120, 0.05).at(130, 0.08).at(190, 0.08).at(200, 0.11)
    assert run.fired == [(120, 1), (190, 2), (200, 3)]


def test_d18_the_same_level_needs_its_cooldown_over_and_new_loss() -> None:
    """A peak that is still in the window does not fire by itself; a lower unit value after the cooldown does."""
    run = Run(ladder()).at(0, 0.05).at(120, 0.05, value=0.95)
    run.at(1000, 0.06, value=0.94)  # cooling down
    run.at(1919, 0.05, value=0.94)
    run.at(1920, 0.05, value=0.95)  # rested, but not below where it fired
    assert run.fired == [(120, 1)]
    assert run.at(1980, 0.05, value=0.9499).fired == [(120, 1), (1980, 1)]


def test_d18_what_the_close_itself_cost_is_no_new_loss() -> None:
    """Slippage of 1% of the unit value is accounted separately: only a loss below that fires again."""
    run = Run(ladder()).at(0, 0.05).at(120, 0.05, value=0.95)
    run.at(2000, 0.06, value=0.941, cost=0.01)
    assert run.fired == [(120, 1)]
    assert run.at(2060, 0.06, value=0.939, cost=0.01).fired[-1] == (2060, 1)


def test_a_lower_level_never_fires_before_the_reset() -> None:
    """After level 2, level 1 is silent for as long as the latch holds."""
    run = Run(ladder()).at(0, 0.08).at(60, 0.08)
    for minute in range(2, 600):
        run.at(minute * 60, 0.05, value=0.5, hour=0.05)
    assert run.fired == [(60, 2)]


def test_an_automatic_reset_needs_the_condition_to_hold_and_the_cooldown_over() -> None:
    """Below 2% for 60m: an interruption restarts the hour; then level 0, and everything may fire again."""
    run = Run(ladder()).at(0, 0.05).at(120, 0.05)
    run.at(200, 0.0, hour=0.01).at(3000, 0.0, hour=0.03).at(3060, 0.0, hour=0.01).at(6659, 0.0, hour=0.01)
    assert run.resets == []
    assert run.at(6660, 0.0, hour=0.01).resets == [6660]
    assert run.state.level == 0
    assert run.at(7000, 0.05).at(7120, 0.05).fired[-1] == (7120, 1)


def test_an_unknown_reset_condition_does_not_count_as_held() -> None:
    """Unknown data is never `clear`."""
    run = Run(ladder()).at(0, 0.05).at(120, 0.05).at(200, 0.0, hour=0.01).at(2000, None).at(2060, 0.0, hour=0.01)
    assert run.at(3900, 0.0, hour=0.01).resets == []


def test_level_three_is_reset_by_an_operator_only() -> None:
    """A stage with a manual reset is never reset automatically."""
    run = Run(ladder()).at(0, 0.12)
    for hour in range(1, 50):
        run.at(hour * 3600, 0.0)
    assert (run.resets, run.state.level) == ([], 3)


def test_d17_confirmation_in_time_does_not_depend_on_the_interval() -> None:
    """At a hundred evaluations a second or one a minute, two minutes are two minutes."""
    fast = Run(ladder())
    for hundredth in range(12_100):
        fast.at(hundredth / 100, 0.05, scheduled=hundredth % 100 == 0)
    slow = Run(ladder()).at(0, 0.05).at(60, 0.05).at(120, 0.05)
    assert fast.fired == slow.fired == [(120, 1)]


def test_d17_an_evaluation_after_a_push_does_not_count_as_a_tick() -> None:
    """`3 ticks` counts scheduled ticks, however many pushes come between."""
    counted = graph((FALL_15M, FALL_1H), (trigger("t", 0, 0.05, ticks=3),), (stage("s", 1, 0),))
    run = Run(counted).at(0, 0.06)
    for push in range(50):
        run.at(1 + push / 100, 0.06, scheduled=False)
    assert run.at(10, 0.06).fired == []
    assert run.at(20, 0.06).fired == [(20, 1)]


def test_hold_keeps_truth_and_clock_through_an_outage() -> None:
    """D15: true, then unknown for half a minute, then true: the two minutes continue to run."""
    run = Run(ladder()).at(0, 0.05).at(60, 0.05).at(90, None).at(100, None).at(119, None).at(121, 0.05)
    assert run.fired == [(121, 1)]


def test_hold_never_completes_a_confirmation_on_unknown_data() -> None:
    """D3: a failed fetch does not fire the switch."""
    assert Run(ladder()).at(0, 0.05).at(60, 0.05).at(180, None).at(600, None).fired == []


def test_hold_keeps_a_false_condition_false() -> None:
    """Unknown data is never `fire` either."""
    assert Run(ladder()).at(0, 0.01).at(60, None).at(3600, None).fired == []


def test_trip_counts_unknown_as_true_and_warn_as_false() -> None:
    """Each trigger has its own treatment of unknown."""
    for answer, fires in (("trip", [(60, 1)]), ("warn", []), ("hold", [])):
        one = graph(
            (FALL_15M, FALL_1H),
            (trigger("t", 0, 0.05, confirm=MINUTE, on_unknown=answer, grace=30 * SECOND),),  # type: ignore[arg-type]  # one of the three above
            (stage("s", 1, 0),),
        )
        run = Run(one).at(0, None).at(60, None)
        assert run.fired == fires, answer
        assert run.overdue == [(), (0,)], "unknown past its grace"


def test_an_unknown_is_overdue_after_its_grace_until_it_is_known() -> None:
    """When it recurs, its grace begins again."""
    one = graph((FALL_15M, FALL_1H), (trigger("t", 0, 0.05, grace=MINUTE),), (stage("s", 1, 0),))
    run = Run(one)
    for seconds, fall in ((0, None), (59, None), (60, None), (120, None), (130, 0.0), (140, None), (200, None)):
        run.at(seconds, fall)
    assert run.overdue == [(), (), (0,), (0,), (), (), (0,)]


def test_d14_an_interval_decides_only_as_a_whole() -> None:
    """[3%, 100%] against 4.5% is unknown, [5%, 100%] is true: partly known is not false."""
    machine = StageMachine.of(ladder(), lower(ladder().conditions))
    state = initial()
    partly = step(machine, state, ([0.03, 0.0], [1.0, 0.0], []), 1).state
    assert partly.triggers.held == 0
    assert partly.triggers.unknown == 0b111
    surely = step(machine, state, ([0.05, 0.0], [1.0, 0.0], []), 1).state
    assert surely.triggers.held == 0b001
    assert surely.triggers.unknown == 0b110


def test_d11_an_edit_that_lengthens_confirmation_keeps_a_firing_trigger_firing() -> None:
    """State is kept by trigger name; what was confirmed stays so until it is false, and latches stay."""
    run = Run(ladder()).at(0, 0.05).at(120, 0.05)
    names = ("a", "b", "c")
    stored = to_stored(run.state, names)
    longer = ladder()
    edited = replace(longer, triggers=(replace(longer.triggers[0], confirm=HOUR), *longer.triggers[1:]))
    again = Run(edited)
    again.state = from_stored(stored, names)
    again.at(180, 0.05, value=0.95)
    assert again.state.level == 1
    assert again.state.triggers.confirmed & 1
    again.at(2000, 0.05, value=0.94)
    assert again.fired == [(2000, 1)]


def test_an_edit_that_adds_and_removes_triggers_moves_state_by_name() -> None:
    """A trigger's clock follows its name, not its place."""
    run = Run(ladder()).at(0, 0.08)
    state = from_stored(to_stored(run.state, ("a", "b", "c")), ("new", "b"))
    assert (state.triggers.held, state.triggers.since) == (0b10, {1: 1})


LEVERAGE = SignalRef("exposure.leverage")


def limits(on_unknown: OnUnknown = "hold") -> Graph:
    """One stage on a fall of 5% or a leverage of 3, cooling down for 30m; column 0 is the fall, 1 the leverage."""
    return graph(
        (FALL_15M, LEVERAGE),
        (trigger("fall", 0, 0.05), trigger("leverage", 1, 3.0, rearms=True, on_unknown=on_unknown)),
        (stage("cut", 1, 0, 1, cooldown=30 * MINUTE),),
    )


def test_a_leverage_limit_fires_again_when_it_is_broken_again() -> None:
    """6× fires and is cut to 2×; 15× an hour later fires although the unit value is where it was."""
    run = Run(limits()).at(0, 0.0, hour=6.0).at(60, 0.0, hour=2.0).at(3600, 0.0, hour=15.0)
    assert run.fired == [(0, 1), (3600, 1)]


def test_a_leverage_limit_that_is_broken_again_inside_the_cooldown_fires_when_that_is_over() -> None:
    """Broken again at 10m and still so at 30m, when the cooldown ends."""
    run = Run(limits()).at(0, 0.0, hour=6.0).at(60, 0.0, hour=2.0).at(600, 0.0, hour=4.0).at(1799, 0.0, hour=4.0)
    assert run.fired == [(0, 1)]
    assert run.at(1800, 0.0, hour=4.0).fired == [(0, 1), (1800, 1)]


def test_a_leverage_that_never_came_back_below_its_limit_fires_again_only_on_a_new_loss() -> None:
    """6× and then 5× for two hours without a loss is one breach; with the unit value 1% lower it is acted on again."""
    run = Run(limits()).at(0, 0.0, hour=6.0).at(3600, 0.0, hour=5.0).at(7200, 0.0, hour=5.0)
    assert run.fired == [(0, 1)]
    assert run.at(7260, 0.01, hour=5.0).fired == [(0, 1), (7260, 1)]


def test_a_fall_that_ended_and_recurs_needs_a_new_loss() -> None:
    """5% down at 0.95; recovered; 5% down from a higher peak, at 0.97: nothing was lost since the firing."""
    run = Run(limits()).at(0, 0.05, value=0.95, hour=1.0).at(2000, 0.0, value=1.02, hour=1.0)
    assert run.at(4000, 0.05, value=0.97, hour=1.0).fired == [(0, 1)]


def test_of_a_loss_and_a_condition_of_one_stage_the_new_one_decides() -> None:
    """It fired on the fall; a leverage that was below its limit then is a breach of its own, and not for the fall."""
    run = Run(limits()).at(0, 0.05, value=0.95, hour=1.0).at(2000, 0.05, value=0.95, hour=1.0)
    assert run.fired == [(0, 1)]
    run.at(2060, 0.05, value=0.95, hour=3.5)
    assert run.fired == [(0, 1), (2060, 1)]
    run.at(2120, 0.05, value=0.95, hour=1.0).at(4000, 0.05, value=0.95, hour=1.0)
    assert run.fired == [(0, 1), (2060, 1)]


@pytest.mark.parametrize("answer", ["hold", "warn", "trip"])
def test_unknown_data_does_not_end_a_breach(answer: OnUnknown) -> None:
    """6×, unknown for an hour, 6× again: whatever unknown counts as, it was never seen to be below the limit."""
    run = Run(limits(answer)).at(0, 0.0, value=1.0, hour=6.0)
    run.at(1000, 0.0, value=1.0, hour=math.nan).at(4000, 0.0, value=1.0, hour=6.0)
    assert run.fired == [(0, 1)]
    run.at(4060, 0.0, value=1.0, hour=1.0).at(4120, 0.0, value=1.0, hour=6.0)
    assert run.fired == [(0, 1), (4120, 1)]


def test_a_second_stage_of_the_level_fires_on_its_own_condition_once() -> None:
    """Both limits are broken; the first stage fires, the other one after its cooldown, and then neither again."""
    two = graph(
        (FALL_15M, LEVERAGE),
        (trigger("leverage", 1, 3.0, rearms=True), trigger("higher", 1, 4.0, rearms=True)),
        (stage("cut", 1, 0), stage("trim", 1, 1)),
    )
    run = Run(two)
    for minute in range(180):
        run.at(60 * minute, 0.0, value=1.0, hour=6.0)
    assert [step.eligible[0].name for step in run.steps if step.eligible] == ["cut", "trim"]


falls = st.one_of(st.none(), st.sampled_from([0.0, 0.01, 0.03, 0.046, 0.05, 0.075, 0.11, 0.2]))


@given(st.lists(st.tuples(st.integers(1, 4000), falls), min_size=1, max_size=80))
def test_between_resets_levels_only_rise_and_unknown_fires_nothing(moves: list[tuple[int, float | None]]) -> None:
    """For all inputs: stages escalate only, and no stage fires on unknown data."""
    run = Run(ladder())
    seconds = 0
    for gap, fall in moves:
        seconds += gap
        level, count, resets = run.state.level, len(run.fired), len(run.resets)
        run.at(seconds, fall)
        if len(run.fired) > count:
            assert fall is not None
            assert run.fired[-1][1] >= level
        elif len(run.resets) == resets:
            assert run.state.level == level


@given(st.lists(st.tuples(st.integers(1, 400), falls), min_size=1, max_size=60))
def test_a_stored_and_restored_state_continues_unchanged(moves: list[tuple[int, float | None]]) -> None:
    """Serialising between any two evaluations changes nothing."""
    straight, stored = Run(ladder()), Run(ladder())
    names = ("a", "b", "c")
    seconds = 0
    for gap, fall in moves:
        seconds += gap
        straight.at(seconds, fall)
        stored.state = from_stored(to_stored(stored.state, names), names)
        stored.at(seconds, fall)
    assert (stored.fired, stored.resets) == (straight.fired, straight.resets)
    assert to_stored(stored.state, names) == to_stored(straight.state, names)


def test_an_automatic_reset_waits_for_the_cooldown() -> None:
    """Level 2 cools down for 90 minutes: an hour below 2% is not enough."""
    run = Run(ladder()).at(0, 0.08).at(60, 0.08)
    run.at(120, 0.0, hour=0.01).at(3720, 0.0, hour=0.01).at(5459, 0.0, hour=0.01)
    assert run.resets == []
    assert run.at(5460, 0.0, hour=0.01).resets == [5460]
