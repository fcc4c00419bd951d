"""The way back over its days under a virtual clock: a warning, a trip, gaps, a restart and approvals on the way."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.model.snapshot import Event
from killswitch.model.store import DamagedStateError
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.recovery.recoveries import approval_subject
from tests.backtests import written
from tests.unit.planning.recovery.plans import PLAN, Course, planned
from tests.worlds import START

SEVEN_OF_5_PERCENT = [20 ** (k / 7 - 1) for k in range(8)]
"""min(1, 0.05 × fᵏ) with f = (1 ÷ 0.05)^(1/7) = 1.534: 5%, 7.67%, 11.8%, 18.1%, 27.7%, 42.5%, 65.2%, 100%."""


def begun(course: Course, *, trip_at: float = 1, reset_at: float = 2) -> float:
    """Trip, reset and an hour of health; the hour at which step 0 has begun: 5 minutes after the reset's tick, at which
    the health condition was evaluated first, and an hour."""
    course.until(trip_at)
    course.tick("93000")  # 7% below the 100,000 of the hour before
    course.until(reset_at)
    course.reset()
    return reset_at + 1 + 5 / 60


def test_seven_clean_days_reach_the_full_size_in_the_declared_steps() -> None:
    """The limit of each day is 5% × 1.534ᵏ, and each step takes 24 hours after the one before."""
    course = Course(planned())
    first = begun(course)
    for step in range(7):
        course.until(first + 24 * step + 23.9)
        assert float(course.share) == pytest.approx(SEVEN_OF_5_PERCENT[step], rel=1e-6)
    course.until(first + 24 * 7 + 0.2)
    assert course.cap is None, "the full size has no way back any more"
    assert [hour for hour, title in course.titles() if title == "a step of the way back"] == [
        pytest.approx(first + 24 * step, abs=0.001) for step in range(8)
    ]


def test_nothing_is_opened_from_the_trip_until_the_scope_is_healthy() -> None:
    """Latched and unhealthy, the share is zero; the reset alone opens nothing."""
    course = Course(planned())
    course.until(1)
    course.tick("93000")
    assert course.share == 0, "with the tick that fires"
    course.until(2)
    course.reset()
    assert course.share == 0
    course.until(2.5)
    course.tick("91000")  # 2.2% below the quarter of an hour before: not healthy
    course.until(3.7)  # the fall is in the window until 2:45, and an hour of health from then ends at 3:45
    assert course.share == 0
    course.until(3.9)
    assert course.share == Decimal("0.05")


def test_unknown_is_not_healthy() -> None:
    """The account is not read for a minute within the hour of health: the hour begins again."""
    course = Course(planned())
    begun(course)
    course.until(2.9)
    course.tick(is_known=False)
    course.until(3.9)
    assert course.share == 0
    course.until(4.2)
    assert course.share == Decimal("0.05")


def test_a_warning_pauses_the_step_and_starts_its_day_again() -> None:
    """At 50% of the threshold for an hour from hour 40: step 1 is due 24 hours after the hour at which it is over."""
    course = Course(planned())
    first = begun(course)
    course.until(first + 10)
    course.tick("89500")  # 3.8% below 93,000, and the threshold is 6%: above its half, until it leaves the window
    over = first + 10 + 1 + 5 / 60
    course.until(first + 24.2)
    assert course.share == Decimal("0.05"), "without the warning step 1 had begun"
    course.until(over + 23.9)
    assert course.share == Decimal("0.05")
    course.until(over + 24.3)
    assert float(course.share) == pytest.approx(SEVEN_OF_5_PERCENT[1], rel=1e-6)


@pytest.mark.parametrize(("back", "after_trip"), [("", 0), ("steps_back: 1, ", 2), ("steps_back: 9, ", 0)])
def test_a_trip_falls_back_to_the_start_or_by_the_declared_steps(back: str, after_trip: int) -> None:
    """A trip at step 3: to step 0, to step 2, and no further than step 0."""
    course = Course(planned(ramp=f"{{steps: 7, every: 24h, {back}thresholds: fixed}}"))
    first = begun(course)
    course.until(first + 73)
    assert float(course.share) == pytest.approx(SEVEN_OF_5_PERCENT[3], rel=1e-6)
    again = begun_again(course)
    course.until(again + 0.2)
    assert float(course.share) == pytest.approx(SEVEN_OF_5_PERCENT[after_trip], rel=1e-6)


def begun_again(course: Course) -> float:
    """A trip now, a reset an hour later, and an hour of health; when the ramp goes on."""
    trip = course.hours
    course.tick("80000")
    course.until(trip + 1)
    assert course.share == 0
    course.reset()
    return trip + 2 + 5 / 60


def test_seven_days_with_one_warning_and_one_trip_on_the_way() -> None:
    """A warning at step 1 costs the day so far, and a trip at step 4 all steps: the full size 7 days after the last."""
    course = Course(planned())
    first = begun(course)
    course.until(first + 24 + 12)
    course.tick("89500")
    warned_until = first + 36 + 1 + 5 / 60
    course.until(warned_until + 3 * 24 + 1)  # steps 2, 3 and 4, each a day after the one before
    assert float(course.share) == pytest.approx(SEVEN_OF_5_PERCENT[4], rel=1e-6)
    again = begun_again(course)
    course.until(again + 7 * 24 - 0.1)
    assert float(course.share) == pytest.approx(SEVEN_OF_5_PERCENT[6], rel=1e-6)
    course.until(again + 7 * 24 + 0.2)
    assert course.cap is None
    assert [title for _, title in course.titles()] == [
        "the way back after a reset", "the way back after a reset",
        "a step of the way back", "a step of the way back",
        "a warning on the way back", "a warning on the way back is over",
        "a step of the way back", "a step of the way back", "a step of the way back",
        "the way back falls back", "the way back after a reset",
        *["a step of the way back"] * 8,
    ]  # fmt: skip


def test_time_that_nobody_watched_does_not_count() -> None:
    """An account that is not read for six hours, and a process that is away for five, delay the step by as much."""
    course = Course(planned())
    first = begun(course)
    course.until(first + 6)
    course.until(first + 12, is_known=False)
    course.until(first + 18)
    course.restart(gap=timedelta(hours=5))
    # unknown from 6 to 12 and the windows that reach back into it; away for 5 h, and no interval at either end
    course.until(first + 24 + 11)
    assert course.share == Decimal("0.05"), "24 h on the clock, and fewer than 24 h watched"
    course.until(first + 24 + 11 + 2.5)
    assert float(course.share) == pytest.approx(SEVEN_OF_5_PERCENT[1], rel=1e-6)


def test_a_restart_in_the_middle_goes_on_with_the_same_step_and_clean_time() -> None:
    """Without a gap the next process takes the step an interval later: that one is not watched."""
    course = Course(planned())
    first = begun(course)
    course.until(first + 36)
    before = course.cap
    course.restart()
    course.tick()
    assert course.cap == before
    course.until(first + 48 + 0.3)
    assert float(course.share) == pytest.approx(SEVEN_OF_5_PERCENT[2], rel=1e-6)


def test_a_damaged_state_is_reported_and_not_taken_for_none() -> None:
    """No way back would mean the full size."""
    with pytest.raises(DamagedStateError):
        Interpreter(planned()).restore((), lambda *_: [], live={"recovery": b"{"}.get)


def test_each_step_waits_for_as_many_people_as_declared_and_counts_nobody_twice() -> None:
    """Two people: ann twice is one, and ann with bob are two. The approvals of a step are spent with it."""
    course = Course(planned(ramp="{steps: 7, every: 24h, approvals: 2, thresholds: fixed}"))
    first = begun(course)
    course.until(first + 5)
    subject = next_step(course)
    course.tick(events=[approval(course, "Ann", subject)])
    course.until(first + 26)
    assert course.share == Decimal("0.05")
    course.tick(events=[approval(course, "ann", subject)])
    course.tick()
    assert course.share == Decimal("0.05"), "one person counts once"
    course.tick(events=[approval(course, "bob", subject)])
    course.tick()
    assert float(course.share) == pytest.approx(SEVEN_OF_5_PERCENT[1], rel=1e-6)
    course.until(first + 60)
    assert float(course.share) == pytest.approx(SEVEN_OF_5_PERCENT[1], rel=1e-6), "step 2 needs two of its own"
    course.tick(events=[approval(course, "ann", subject), approval(course, "bob", subject)])
    assert course.interpreter.recoveries.views()[0].approvals_missing == 2, "those of step 1 are spent"


def next_step(course: Course) -> str:
    """The subject of an approval of the next step."""
    (found,) = course.interpreter.recoveries.views()
    return approval_subject("fall", "account/main", found.step, found.since)


@pytest.mark.parametrize(
    "subject",
    [
        approval_subject("fall", "account/main", 1, START),
        approval_subject("fall", "account/other", 0, START),
        approval_subject("fall", "account/main", 0, START),  # of a way back that has fallen back since
        "step/1",
    ],
)
def test_an_approval_of_anything_else_does_not_count(subject: str) -> None:
    """Of a later step, of another scope, of another day, of nothing: it is answered by a warning."""
    course = Course(planned(ramp="{steps: 7, every: 24h, approvals: 1, thresholds: fixed}"))
    first = begun(course)
    course.until(first + 0.5)
    course.tick(events=[approval(course, "ann", subject)])
    assert course.notices[-1][1] == "an approval does not count"
    course.until(first + 30)
    assert course.share == Decimal("0.05")


def test_an_approval_that_was_given_before_a_fall_back_does_not_count_after_it() -> None:
    """The same step of another time is another subject."""
    course = Course(planned(ramp="{steps: 7, every: 24h, approvals: 1, thresholds: fixed}"))
    first = begun(course)
    course.until(first + 2)
    given = approval(course, "ann", next_step(course))
    again = begun_again(course)
    course.until(again + 1)
    course.tick(events=[given])
    course.until(again + 30)
    assert course.share == Decimal("0.05")


def approval(course: Course, person: str, subject: str) -> Event:
    """The event of a verified approval."""
    return replace(course.event("approve", approves=subject), author=person)


@pytest.mark.parametrize(("thresholds", "trips"), [("scale", True), ("fixed", False)])
def test_thresholds_of_losses_shrink_with_the_limit_or_stay(thresholds: str, trips: bool) -> None:
    """At 5% of the full size a loss of 0.31% of the equity is 6.2% of what may be lost: above 6%."""
    course = Course(planned(ramp=f"{{steps: 7, every: 24h, thresholds: {thresholds}}}"))
    first = begun(course)
    course.until(first + 2)
    course.tick(str(93000 * (1 - 0.0031)))
    assert (course.share == 0) is trips


def test_a_loss_below_the_smaller_threshold_trips_nothing() -> None:
    """0.29% of the equity is 5.8% of what may be lost at 5% of the full size; at 7.67% of it is 3.8%."""
    course = Course(planned(ramp="{steps: 7, every: 24h, thresholds: scale}"))
    first = begun(course)
    course.until(first + 2)
    course.tick(str(93000 * (1 - 0.0029)))
    assert course.share == Decimal("0.05")


def test_closer_attention_warns_earlier_shortens_the_interval_and_reports() -> None:
    """For two days: warnings at half of their shares, a tick each 5 s, and a report every 12 hours."""
    watch = "monitoring: {for: 48h, interval: 5s, warnings: 50%, report_every: 12h}"
    course = Course(planned(monitoring=watch))
    assert course.interpreter.recoveries.interval is None
    first = begun(course)
    course.until(first + 1)
    assert course.interpreter.recoveries.interval == 5_000_000
    course.tick(str(93000 * (1 - 0.016)))  # 1.6%, above 25% of 6%
    assert course.notices[-1][1] == "a warning on the way back"
    course.until(first + 60)
    assert course.interpreter.recoveries.interval is None
    reports = [hour for hour, title in course.titles() if title == "the way back so far"]
    assert len(reports) in (3, 4)
    assert "closer attention is over" in [title for _, title in course.titles()]


def test_a_money_start_follows_the_limits_and_counts_positions() -> None:
    """10,000 of 1,000,000 in steps of 1.5 is 1%; twelve steps, and five positions that grow by half, rounded down."""
    course = Course(planned("{gross: 10000 USDT, positions: 5}", "{factor: 1.5, every: 24h, thresholds: fixed}"))
    first = begun(course)
    course.until(first + 0.2)
    cap = course.cap
    assert cap is not None and (cap.share, cap.positions, cap.steps) == (Decimal("0.01"), 5, 12)
    course.until(first + 7 * 24 + 0.2)
    assert course.share == Decimal("0.170859375"), "10,000 × 1.5⁷ = 170,859"
    assert course.cap is not None and course.cap.positions == 85, "5 × 1.5⁷ = 85.4"
    (view,) = course.interpreter.recoveries.views()
    assert view.positions == 85
    assert "17.1% of the limits and at most 85 positions" in view.progress


def test_a_plan_that_is_taken_out_ends_the_way_back_with_a_notice() -> None:
    """Nothing is silently lifted."""
    course = Course(planned())
    begun(course)
    course.policies = written(PLAN.rpartition("---")[0])
    course.restart()
    course.tick()
    assert course.notices[-1][1] == "a way back is over without its plan"
    assert course.cap is None


@pytest.mark.parametrize("restarts", [True, False])
def test_a_policy_that_only_observes_from_now_on_has_no_way_back_in_force(restarts: bool) -> None:
    """What it fires locks nothing: its limits are whole again, and that is notified, as for a plan taken out."""
    course = Course(planned())
    begun(course)
    observing = written(
        PLAN.replace("mode: enforce", "mode: observe").replace("START", "{share: 5%}").replace("MONITORING", "")
        .replace("RAMP", "{steps: 7, every: 24h, thresholds: fixed}")
    )  # fmt: skip
    if restarts:
        course.policies = observing
        course.restart()
    else:
        course.reload(observing)
    course.tick()
    assert course.notices[-1][1] == "a way back is over without its plan"
    assert course.cap is None


def test_a_reload_goes_on_with_the_step_under_the_next_plan_and_another_name() -> None:
    """Step 2 of 7 stays step 2; its policy has another name, and the next step needs 12 hours instead of 24."""
    course = Course(planned())
    first = begun(course)
    course.until(first + 49)
    text = PLAN.replace("name: fall}", "name: falls}").replace("policies: fall", "policies: falls")
    text = text.replace("  max_gap: 10m", "  max_gap: 10m\n  formerly: fall").replace("START", "{share: 5%}")
    text = text.replace("RAMP", "{steps: 7, every: 12h, thresholds: fixed}").replace("MONITORING", "")
    course.reload(written(text))
    course.tick()
    assert float(course.share) == pytest.approx(SEVEN_OF_5_PERCENT[2], rel=1e-6)
    course.until(first + 48 + 12.3)
    assert float(course.share) == pytest.approx(SEVEN_OF_5_PERCENT[3], rel=1e-6)
    (view,) = course.interpreter.recoveries.views()
    assert view.policy == "falls"
