"""The rules of silence, with the values of the definition: what fires, when, and what never does."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.engine.silence import Beat, SwitchCheck, SwitchState, WayAnswer, armed, check, disarmed
from killswitch.graph.nodes import HeartbeatWay, PendingRule, Place, SilenceRule
from killswitch.model.instant import SECOND

RULE = SilenceRule(
    name="maker", accounts=("main",), watches="strategy", beats="maker", ways=(HeartbeatWay("file", "/a"),),
    every=10 * SECOND, timeout=60 * SECOND, check=5 * SECOND, checks=3, pending=PendingRule(600 * SECOND, "page"),
    on_one_way="page", progress_timeout=None, on_silence="close", force=False, place=Place("", 0, 0, ""),
)  # fmt: skip
TWO = replace(RULE, ways=(HeartbeatWay("file", "/a"), HeartbeatWay("file", "/b")))
START = SwitchState(since=0.0, floor=0.0)


def watched(
    rule: SilenceRule, until: float, beats: Mapping[str, list[Beat]], *, state: SwitchState = START,
    skipped: tuple[float, float] = (0.0, 0.0), errors: Mapping[str, tuple[float, float]] | None = None,
) -> list[tuple[float, SwitchCheck]]:  # fmt: skip
    """The checks every interval until `until` or the firing; none in `skipped`. `errors`: a way fails in a span."""
    found: list[tuple[float, SwitchCheck]] = []
    now, step = 0.0, rule.check / SECOND
    while now <= until:
        if not skipped[0] < now < skipped[1]:
            answers = {}
            for way in (each.at for each in rule.ways):
                heard = [beat for beat in beats.get(way, []) if beat.at <= now]
                low, high = (errors or {}).get(way, (1.0, 0.0))
                error = "connection refused" if low <= now < high else None
                answers[way] = WayAnswer(now, heard[-1] if heard else None, error)
            result = check(rule, state, now, answers)
            state = result.state
            found.append((now, result))
            if result.fires is not None:
                return found
        now += step
    return found


def fired_at(checks: list[tuple[float, SwitchCheck]]) -> float | None:
    """When the switch has fired; None if it did not."""
    return next((at for at, each in checks if each.fires is not None), None)


def beating(until: float, every: float = 10.0) -> list[Beat]:
    """A heartbeat each `every` seconds until `until`."""
    return [Beat(number * every, number) for number in range(int(until / every) + 1)]


def test_it_fires_between_the_timeout_and_the_timeout_and_its_checks() -> None:
    """At most timeout + k × check after the last heartbeat: 60 + 3 × 5 s."""
    at = fired_at(watched(RULE, 1000.0, {"/a": beating(200.0)}))
    assert at is not None
    assert 200.0 + 60.0 <= at <= 200.0 + 60.0 + 15.0


def test_it_never_fires_while_heartbeats_come() -> None:
    """Each 10 s over an hour."""
    assert fired_at(watched(RULE, 3600.0, {"/a": beating(3600.0)})) is None


def test_a_late_heartbeat_does_not_take_a_firing_back() -> None:
    """The state stays fired, and only `arm` returns it to service: pending, until it is heard again."""
    checks = watched(RULE, 1000.0, {"/a": beating(100.0)})
    state, now = checks[-1][1].state, checks[-1][0]
    late = check(RULE, state, now + 5, {"/a": WayAnswer(now + 5, Beat(now + 4))})
    assert (late.phase, late.fires) == ("fired", None)
    again = armed(late.state, now + 6)
    assert check(RULE, again, now + 10, {"/a": WayAnswer(now + 10, Beat(now + 4))}).phase == "pending"
    assert check(RULE, again, now + 20, {"/a": WayAnswer(now + 20, Beat(now + 19))}).phase == "armed"


def test_one_that_was_never_heard_is_pending_and_pages_after_its_limit() -> None:
    """It protects nothing yet, and closes nothing without `pending: {then: fire}`."""
    checks = watched(RULE, 900.0, {})
    assert {each.phase for _, each in checks} == {"pending"}
    assert next(at for at, each in checks if any(it.key == "pending" for it in each.problems)) == 600.0
    declared = replace(RULE, pending=PendingRule(600 * SECOND, "fire"))
    assert fired_at(watched(declared, 900.0, {})) == 600.0


def test_a_heartbeat_from_before_the_watcher_listened_arms_nothing() -> None:
    """The file of a bot that was stopped last week is still there."""
    old = {"/a": [Beat(-500_000.0, 7)]}
    assert watched(RULE, 300.0, old)[-1][1].phase == "pending"


def test_one_that_was_armed_before_a_restart_of_the_watcher_stays_armed() -> None:
    """Silence begins at the start of the watcher, since nobody listened before."""
    state = SwitchState(since=0.0, floor=0.0, is_heard=True)
    at = fired_at(watched(RULE, 300.0, {"/a": [Beat(-500.0)]}, state=state))
    assert at is not None
    assert 60.0 <= at <= 75.0


def test_an_own_pause_is_no_silence() -> None:
    """The watcher is suspended from 100 s to 400 s; the bot dies at 90 s, and is given a whole timeout again."""
    at = fired_at(watched(RULE, 1000.0, {"/a": beating(90.0)}, skipped=(100.0, 400.0)))
    assert at is not None
    assert 400.0 + 60.0 <= at <= 400.0 + 75.0


def test_own_pauses_that_have_held_back_a_whole_timeout_count_no_more() -> None:
    """A watcher that sleeps for 30 s again and again would protect nobody: it pages, and then fires."""
    state, fired, paged = START, None, None
    now = 0.0
    for number in range(40):
        now = number * 30.0
        result = check(RULE, state, now, {"/a": WayAnswer(now, Beat(0.0))})
        state = result.state
        paged = now if paged is None and any(each.key == "paused" for each in result.problems) else paged
        if result.fires is not None:
            fired = now
            break
    assert paged == 60.0  # two pauses of 30 s are one timeout
    assert fired is not None
    assert paged < fired <= 60.0 + 60.0 + 3 * 30.0


def test_two_ways_are_heard_as_one() -> None:
    """The last heartbeat over all ways counts: one way that is silent and sound proves nothing."""
    beats = {"/a": beating(50.0), "/b": beating(500.0)}
    at = fired_at(watched(TWO, 1000.0, beats))
    assert at is not None
    assert 560.0 <= at <= 575.0


@pytest.mark.parametrize(("declared", "fires"), [("page", False), ("fire", True)])
def test_with_one_way_in_error_the_silence_of_the_other_fires_only_where_declared(declared: str, fires: bool) -> None:
    """An error while listening is no silence."""
    rule = replace(TWO, on_one_way=declared)
    checks = watched(rule, 600.0, {"/a": beating(100.0), "/b": beating(100.0)}, errors={"/b": (90.0, 1e9)})
    assert (fired_at(checks) is not None) is fires
    assert any(each.key == "way//b" for _, check_ in checks for each in check_.problems)


@pytest.mark.parametrize(("declared", "fires"), [("page", False), ("fire", True)])
def test_a_way_that_answers_only_errors_for_a_whole_timeout_fires_only_where_declared(
    declared: str, fires: bool
) -> None:
    """The only way is in error from 100 s on: 160 s at the earliest."""
    rule = replace(RULE, on_one_way=declared)
    checks = watched(rule, 600.0, {"/a": beating(100.0)}, errors={"/a": (100.0, 1e9)})
    at = fired_at(checks)
    assert (at is not None) is fires
    assert at is None or 160.0 <= at <= 175.0
    assert any(each.key == "way//a" for _, check_ in checks for each in check_.problems)


def test_progress_that_does_not_change_counts_as_silence_after_its_timeout() -> None:
    """A thread that beats next to a dead loop is not life: stuck from 100 s, counted from there after 120 s."""
    rule = replace(RULE, progress_timeout=120 * SECOND)
    beats = {"/a": [Beat(each.at, min(each.progress or 0, 10)) for each in beating(2000.0)]}
    at = fired_at(watched(rule, 2000.0, beats))
    assert at is not None
    assert 220.0 <= at <= 235.0
    assert fired_at(watched(RULE, 2000.0, beats)) is None, "without progress_timeout it is not noticed"


def test_a_disarm_expires_and_silence_counts_from_there() -> None:
    """Disarmed for 300 s at 100 s, and never heard again: 460 s at the earliest."""
    state = watched(RULE, 100.0, {"/a": beating(100.0)})[-1][1].state
    state = disarmed(state, 400.0)
    now = 100.0
    while (result := check(RULE, state, now, {"/a": WayAnswer(now, Beat(100.0))})).fires is None and now < 1000.0:
        assert (result.phase == "disarmed") == (now < 400.0)
        state, now = result.state, now + 5.0
    assert 460.0 <= now <= 475.0


def test_an_arm_ends_a_disarm() -> None:
    """Before its time, and with a whole timeout."""
    state = disarmed(replace(START, is_heard=True), 1e6)
    result = check(RULE, armed(state, 100.0), 105.0, {"/a": WayAnswer(105.0, Beat(50.0))})
    assert (result.phase, result.silence) == ("armed", 5.0)


@given(
    st.lists(st.floats(0.1, 120.0), min_size=1, max_size=30),
    st.lists(st.tuples(st.floats(0.5, 6.0), st.booleans()), min_size=1, max_size=200),
)
def test_it_never_fires_earlier_than_a_timeout_after_what_was_heard(
    gaps: list[float], checks: list[tuple[float, bool]]
) -> None:
    """Whatever the spacing of heartbeats, checks and errors: silence of less than 60 s closes nothing."""
    beats, at = [], 0.0
    for gap in gaps:
        at += gap
        beats.append(at)
    state, now, deaf_since = START, 0.0, None
    for step, is_error in checks:
        now += step
        heard = [each for each in beats if each <= now]
        last = Beat(heard[-1]) if heard else None
        deaf_since = (deaf_since if deaf_since is not None else now) if is_error else None
        result = check(RULE, state, now, {"/a": WayAnswer(now, last, "broken" if is_error else None)})
        state = result.state
        if result.fires is not None:
            assert last is not None
            assert now - last.at >= 60.0
            assert not is_error
            return
