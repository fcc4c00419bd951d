"""Signals of the systems around the book: lateness of ticks, heartbeats, external alerts, flags, the time of day."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.flags import NO_FLAGS, decode_flags, encode_flags
from killswitch.model.instant import SECOND, from_micros, to_micros
from killswitch.model.snapshot import Event, ExternalAlert, Snapshot
from killswitch.signals.system_signals import is_within
from killswitch.signals.written_forms import FORMS, FormError, labels, weekdays
from tests.worlds import account, after, position
from tests.worlds.firings import Scenario
from tests.worlds.signals import values_after

INFINITE = math.inf
UNKNOWN = (-INFINITE, INFINITE)
HELD = account("100000", [position("BTC", "long", "0", contracts="2", notional="100000")])


def tick(second: float, *, scheduled: bool = True, **more: Any) -> Snapshot:
    """A snapshot of one account with one position, so many seconds after the start."""
    accounts = more.pop("accounts", (HELD,))
    return Snapshot(after(seconds=second), accounts, "killswitch.snapshot/v1", scheduled=scheduled, **more)


# runner.tick_lateness


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        pytest.param([tick(0, due=after())], (0, 0), id="the first after a restart"),
        pytest.param([tick(10, due=after(seconds=7.5))], (2.5, 2.5), id="late"),
        pytest.param([tick(10, due=after(seconds=11))], (0, 0), id="never early"),
        pytest.param([tick(10, due=after(seconds=8)), tick(11, scheduled=False)], (2, 2), id="a pass between ticks"),
        pytest.param([tick(10)], UNKNOWN, id="a recording without the due time"),
        pytest.param([tick(10, due=after(seconds=8)), tick(20)], UNKNOWN, id="the last tick counts"),
    ],
)
def test_lateness_is_counted_from_when_the_tick_was_due(
    ticks: Sequence[Snapshot], expected: tuple[float, float]
) -> None:
    """In seconds; a pass that a push has woken is due at no time, and repeats the last tick's."""
    assert values_after("runner.tick_lateness", [], ticks) == expected


# heartbeat.age


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        pytest.param([tick(0), tick(90, heartbeats={"bot": after(seconds=30)})], (60, 60), id="a minute ago"),
        pytest.param([tick(0, heartbeats={"bot": after(seconds=5)})], (0, 0), id="in the future"),
        pytest.param([tick(0), tick(40, heartbeats={"other": after()})], (40, INFINITE), id="never seen"),
        pytest.param([tick(0)], (0, INFINITE), id="watched since now"),
    ],
)
def test_a_heartbeat_ages_from_the_last_one(ticks: Sequence[Snapshot], expected: tuple[float, float]) -> None:
    """One that was never sent is at least as old as the time for which it is watched."""
    assert values_after("heartbeat.age", ["bot"], ticks) == expected


def test_watching_a_heartbeat_outlives_a_restart() -> None:
    """A bot that never beats is no younger after it."""
    assert values_after("heartbeat.age", ["bot"], [tick(0), tick(20), tick(50)], restart=True) == (50, INFINITE)


# alert.active


def alert(name: str = "Down", status: str = "firing", ends: float | None = None, **named: str) -> ExternalAlert:
    end = None if ends is None else after(seconds=ends)
    return ExternalAlert(name, status, after(), named, ends_at=end)  # type: ignore[arg-type] # one of two words


ALIVE = {"alerts_as_of": after(seconds=60)}


@pytest.mark.parametrize(
    ("wanted", "more", "expected"),
    [
        pytest.param("any", {"alerts": (alert(),), **ALIVE}, 1.0, id="firing"),
        pytest.param("any", {"alerts": (alert(status="resolved"),), **ALIVE}, 0.0, id="resolved"),
        pytest.param("any", {"alerts": (alert(ends=59),), **ALIVE}, 0.0, id="past its end"),
        pytest.param("any", {"alerts": (alert(ends=60),), **ALIVE}, 0.0, id="at its end, as Alertmanager counts"),
        pytest.param("any", {"alerts": (alert(ends=61),), **ALIVE}, 1.0, id="before its end"),
        pytest.param("any", ALIVE, 0.0, id="never received while the receiver works"),
        pytest.param("any", {"alerts": (alert(),)}, None, id="no receiver"),
        pytest.param("any", {"alerts": (alert(),), "alerts_as_of": after(hours=-1)}, None, id="an unreachable one"),
        pytest.param("any", {"alerts": (alert("Up"),), **ALIVE}, 0.0, id="of another name"),
        pytest.param("team=risk", {"alerts": (alert(team="risk", env="prod"),), **ALIVE}, 1.0, id="its label"),
        pytest.param("team=risk,env=dev", {"alerts": (alert(team="risk", env="prod"),), **ALIVE}, 0.0, id="not both"),
        pytest.param(
            "team=risk", {"alerts": (alert(team="ops"), alert(team="risk", status="resolved")), **ALIVE}, 0.0,
            id="a webhook carries several: no other's label or status",
        ),
    ],
)  # fmt: skip
def test_an_alert_is_active_while_it_fires_and_has_not_ended(
    wanted: str, more: dict[str, Any], expected: float | None
) -> None:
    """At second 60, with a longest gap of ten minutes."""
    low, high = (0.0, 1.0) if expected is None else (expected, expected)
    assert values_after("alert.active", ["Down", wanted], [tick(60, **more)]) == (low, high)


# flag.set


def flagged(name: str, is_set: bool, scope: str | None = None, until: float | None = None) -> Event:
    end = None if until is None else after(seconds=until)
    return Event(
        f"{name}{is_set}{scope}{until}", after(), "flag", scope, "desk", "test", flag=name, is_set=is_set, until=end
    )


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([[flagged("x", True)]], 1, id="set"),
        pytest.param([[flagged("x", True)], []], 1, id="until it is cleared"),
        pytest.param([[flagged("x", True)], [flagged("x", False)]], 0, id="cleared"),
        pytest.param([[flagged("x", False), flagged("x", True)]], 1, id="the last command counts"),
        pytest.param([[flagged("y", True)]], 0, id="another name"),
        pytest.param([[]], 0, id="never set"),
        pytest.param([[flagged("x", True, until=60)], []], 0, id="at its end"),
        pytest.param([[flagged("x", True, until=61)], []], 1, id="before its end"),
        pytest.param([[flagged("x", True, until=30), flagged("x", True)], []], 1, id="set again without an end"),
        pytest.param([[flagged("x", True, "account/main")]], 1, id="of its account"),
        pytest.param([[flagged("x", True, "venue/paper")]], 1, id="of its venue"),
        pytest.param([[flagged("x", True, "account/other")]], 0, id="of another account"),
        pytest.param([[flagged("x", True, "account/main"), flagged("x", False)]], 0, id="cleared in every scope"),
        pytest.param([[flagged("x", True), flagged("x", False, "account/main")]], 1, id="cleared in one scope alone"),
    ],
)
def test_a_flag_is_set_by_the_last_command_about_it(events: Sequence[Sequence[Event]], expected: float) -> None:
    """A tick a minute; the last one is evaluated."""
    ticks = [tick(60 * i, events=tuple(each)) for i, each in enumerate(events)]
    assert values_after("flag.set", ["x"], ticks) == (expected, expected)


def test_a_flag_of_one_account_is_not_set_for_a_scope_of_two() -> None:
    """Nor is it unknown; one of their venue, or of the portfolio, is."""
    both = (HELD, account("5", (), name="second"))
    for scope, expected in (("account/main", 0), ("venue/paper", 1), ("portfolio", 1), (None, 1)):
        ticks = [tick(0, events=(flagged("x", True, scope),), accounts=both)]
        assert values_after("flag.set", ["x"], ticks) == (expected, expected), scope


def test_flags_are_stored_with_their_end() -> None:
    """Kept over a restart; time that only a wall clock has measured does not shorten them."""
    kept = decode_flags(encode_flags(NO_FLAGS.after(flagged("x", True, until=60)).after(flagged("y", True))))
    assert {flag.name: flag.until for flag in kept.in_force} == {"x": after(seconds=60), "y": None}
    later = kept.after_outage(to_micros(after(seconds=10)), to_micros(after(hours=5)))
    assert later.in_force[0].until == after(hours=5, seconds=50)
    over = kept.after_outage(to_micros(after(seconds=70)), to_micros(after(hours=5)))
    assert over.in_force[0].until == after(seconds=60)


# clock.within

BERLIN = "Europe/Berlin"


def local(text: str, zone: str = BERLIN) -> int:
    """Microseconds of a local time."""
    return to_micros(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)))


@pytest.mark.parametrize(
    ("at", "span", "days", "expected"),
    [
        pytest.param("2024-03-05 05:59", ("22:00", "06:00"), "any", True, id="over midnight"),
        pytest.param("2024-03-05 06:00", ("22:00", "06:00"), "any", False, id="the end is not included"),
        pytest.param("2024-03-05 22:00", ("22:00", "06:00"), "any", True, id="the begin is"),
        pytest.param("2024-03-05 21:59", ("22:00", "06:00"), "any", False, id="before it"),
        pytest.param("2024-03-05 12:00", ("09:00", "17:30"), "mon-fri", True, id="a Tuesday"),
        pytest.param("2024-03-09 12:00", ("09:00", "17:30"), "mon-fri", False, id="a Saturday"),
        pytest.param("2024-03-09 03:00", ("22:00", "06:00"), "fri", True, id="the day is that of the begin"),
        pytest.param("2024-03-08 03:00", ("22:00", "06:00"), "fri", False, id="the night before is Thursday's"),
        pytest.param("2024-03-05 11:00", ("09:00", "09:00"), "tue", True, id="a whole day from its begin"),
        pytest.param("2024-03-05 08:59", ("09:00", "09:00"), "tue", False, id="which is still Monday's before"),
        pytest.param("2024-03-10 23:00", ("22:00", "06:00"), "sat-mon", True, id="a range over Sunday"),
    ],
)
def test_the_time_of_day_is_local_and_its_day_is_that_of_the_begin(
    at: str, span: tuple[str, str], days: str, expected: bool
) -> None:
    """[from, to), over midnight where `to` is not later than `from`."""
    assert is_within(local(at), *span, BERLIN, days) is expected
    assert values_after("clock.within", [*span, BERLIN, days], [_tick_at(local(at))]) == (expected, expected)


def _tick_at(at: int) -> Snapshot:
    return Snapshot(from_micros(at), (HELD,), "killswitch.snapshot/v1")


@pytest.mark.parametrize(
    ("day", "hours"),
    [
        pytest.param("2024-03-31", 0, id="clocks are advanced from 02:00 to 03:00"),
        pytest.param("2024-10-27", 2, id="clocks are set back from 03:00 to 02:00"),
        pytest.param("2024-06-01", 1, id="any other day"),
    ],
)
def test_an_hour_of_the_night_may_last_none_or_two(day: str, hours: int) -> None:
    """02:00 to 03:00 in Berlin, by counting the minutes of the UTC day for which it is true."""
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC)
    minutes = (to_micros(begin + timedelta(minutes=minute)) for minute in range(24 * 60))
    assert sum(is_within(at, "02:00", "03:00", BERLIN, "any") for at in minutes) == 60 * hours


@given(st.integers(0, 86_399), st.integers(0, 1439), st.integers(0, 1439))
def test_a_span_and_its_complement_cover_the_day_once(second: int, begin: int, end: int) -> None:
    """Each second is in [from, to) or in [to, from), and in no more than one of them."""
    first, last = (f"{minute // 60:02}:{minute % 60:02}" for minute in (begin, end))
    at = to_micros(datetime(2024, 6, 5, tzinfo=UTC)) + second * SECOND
    inside, outside = is_within(at, first, last, "UTC", "any"), is_within(at, last, first, "UTC", "any")
    assert (inside and outside) if first == last else inside != outside


# Texts of arguments


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("time", "24:00"), ("time", "6:00"), ("time", "22"), ("zone", "Europe/Berln"), ("zone", "../etc/passwd"),
        ("days", "monday"), ("days", "mon-"), ("days", "mon,,tue"), ("labels", "team"), ("labels", "a=1,a=2"),
        ("labels", "=risk"),
    ],
)  # fmt: skip
def test_a_text_in_the_wrong_form_says_what_to_write(kind: str, text: str) -> None:
    """The compiler reports it at its place, so that no reader meets it."""
    with pytest.raises(FormError) as error:
        FORMS[kind](text)
    assert text.split("=", maxsplit=1)[0] in error.value.message
    assert error.value.fix


def test_texts_of_arguments_mean_what_they_show() -> None:
    """Worked by hand: Monday is 0."""
    assert weekdays("fri-mon") == {4, 5, 6, 0}
    assert weekdays("mon,wed-thu") == {0, 2, 3}
    assert labels("team=risk,url=a=b") == {"team": "risk", "url": "a=b"}
    assert labels("any") == {}


# When they fire


def ticks(*more: dict[str, Any], every: float = 10) -> list[Snapshot]:
    return [tick(every * i, **each) for i, each in enumerate(more)]


BEATS = [{"heartbeats": {"bot": after(seconds=10 * i)}} for i in range(12)]
STOPPED = {"events": (flagged("bot-stopped", True),)}
SCENARIOS: dict[str, Scenario] = {
    "runner.tick_lateness": Scenario(
        "signal: runner.tick_lateness, at_least: 5s",
        ticks({"due": after()}, {"due": after(seconds=4)}),
        ticks({"due": after()}, {"due": after(seconds=10)}),  # the first after a restart
        ticks({}, {}, {}),
        at=after(seconds=10),
    ),
    "heartbeat.age": Scenario(
        "when: 'heartbeat.age(\"bot\") >= 60.0 && !flag.set(\"bot-stopped\")'",
        ticks({}, *[BEATS[1]] * 8),
        ticks(STOPPED, *[BEATS[1]] * 8),  # a planned stop
        ticks({}, {}, {}),  # never seen
        at=after(seconds=70),
    ),
    "alert.active": Scenario(
        "signal: alert.active, name: Down, labels: 'team=risk', is: true",
        ticks(ALIVE, {"alerts": (alert(team="risk"),), **ALIVE}),
        ticks(*[{"alerts": (alert(team="ops"), alert(team="risk", status="resolved")), **ALIVE}] * 3),
        ticks({}, {}, {}),
        at=after(seconds=10),
    ),
    "flag.set": Scenario(
        "signal: flag.set, name: halt, is: true",
        ticks({}, {"events": (flagged("halt", True, "account/main"),)}),
        ticks({"events": (flagged("halt", True, "account/other"),)}, {}, {}),  # of another scope
        None,
        at=after(seconds=10),
    ),
    "clock.within": Scenario(
        "signal: clock.within, from: 00:00, to: 00:30, zone: UTC, days: mon, is: true",
        ticks({}),
        [tick(24 * 3600), tick(24 * 3600 + 60)],  # a Tuesday
        None,
        at=after(),
    ),
}  # fmt: skip


def test_flags_and_the_time_are_known_without_anything_else() -> None:
    """An account that cannot be read, and a recording of an earlier version."""
    dark = tick(0, accounts=(account(None, None, quality="down"),))
    assert values_after("flag.set", ["x"], [dark]) == (0, 0)
    assert values_after("clock.within", ["00:00", "00:30", "UTC", "any"], [dark]) == (1, 1)
    assert values_after("runner.tick_lateness", [], [dark]) == UNKNOWN
