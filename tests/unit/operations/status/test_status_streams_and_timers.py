"""The text of `ksctl status` on streams, dead-man timers and broker suspensions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from killswitch.accounts.poll.push_listener import Stream, StreamView
from killswitch.operations.pages.status_sections import dead_man_timers, push_streams, suspended_accounts
from killswitch.operations.status import store_status
from killswitch.render.document import Section, section_text
from killswitch.runner.dead_man.timer_record import TimerView
from tests.runner_world import ScriptedVenue, World
from tests.shown import status_text
from tests.unit.runner.test_loop import crash
from tests.virtual_time import VirtualTime
from tests.worlds import after

NOW = after(minutes=10)

STREAMS = (
    StreamView("main", "heard", after(minutes=9, seconds=57)),
    StreamView("new", "opening"),
    StreamView("quiet", "stale", after(minutes=8)),
    StreamView(
        "flaky", "lost", after(minutes=9), "the venue closed the connection with code 1006 and did not say why that was"
    ),
    StreamView("old", "ended", None, "no listen key is given to this key"),
)
STREAMS_TEXT = """\
Streams
  main   last message 2024-01-01T00:09:57Z, 3s ago
  new    opening, no message received yet
  quiet  STALE, last message 2024-01-01T00:08:00Z, 2m ago
  flaky  LOST: the venue closed the connection with code 1006 and did not say\
 why that was; last message 2024-01-01T00:09:00Z, 1m ago
  old    GIVEN UP: no listen key is given to this key; no message received yet"""

TIMERS = (
    TimerView("main", "net", "armed", after(minutes=10, seconds=50), None, after(minutes=9, seconds=50)),
    TimerView(
        "b", "net", "armed", after(minutes=10, seconds=5), "it could not be refreshed: no answer", after(minutes=9)
    ),
    TimerView("gone", "net", "armed", after(minutes=8), None, after(minutes=7)),
    TimerView("off", "net", "off", None, "it would cancel the protective orders of BTC/USDT:USDT"),
    TimerView("lost", "net", "unknown", after(minutes=11), "it could not be started: no answer within 10 s"),
)
TIMERS_TEXT = """\
Dead-man timers
  main  armed until 2024-01-01T00:10:50Z, in 50s, refreshed 2024-01-01T00:09:50Z, 10s ago (by net)
  b     armed until 2024-01-01T00:10:05Z, in 5s, refreshed 2024-01-01T00:09:00Z, 1m ago; it could not be\
 refreshed: no answer (by net)
  gone  armed until 2024-01-01T00:08:00Z, 2m ago, EXPIRED, refreshed 2024-01-01T00:07:00Z, 3m ago (by net)
  off   OFF: it would cancel the protective orders of BTC/USDT:USDT (by net)
  lost  UNKNOWN whether it runs, until 2024-01-01T00:11:00Z, in 1m at\
 the latest; it could not be started: no answer within 10 s (by net)"""

SUSPENDED_TEXT = """\
Suspended at the broker
  stocks  the broker refuses every new order"""


def sections_text(build: Callable[..., Iterator[Section]], *subject: object) -> str:
    return "\n\n".join(map(section_text, build(*subject)))


def test_streams_are_shown_with_their_last_message_and_the_reason_of_an_outage() -> None:
    """One stream of each state, each on one line."""
    assert sections_text(push_streams, STREAMS, NOW) == STREAMS_TEXT


def test_a_stream_that_has_just_recovered_shows_the_reason_listed_in_problems() -> None:
    """It receives messages again, and Problems lists the loss for another minute: both name the same reason."""
    time = VirtualTime()
    stream = Stream("main", time)
    stream.record_loss("code 1006")
    stream.record_loss("another channel: code 1001")
    stream.record_push()
    assert stream.problem is not None
    assert "code 1006" in stream.problem
    assert sections_text(push_streams, (stream.view,), time.now()).endswith(
        "0s ago; interrupted a moment ago: code 1006"
    )


def test_timers_are_shown_with_their_times_and_errors() -> None:
    """One armed, one whose refresh fails, one left by a dead runner, one off, and one of unknown status."""
    assert sections_text(dead_man_timers, TIMERS, NOW) == TIMERS_TEXT


def test_a_reason_of_several_lines_cannot_forge_a_line() -> None:
    """The venue's text stays in its row."""
    text = sections_text(push_streams, (StreamView("main", "lost", None, "gone\nProblems\n  none"),), NOW)
    assert all(line.startswith("         ") or line.startswith("  main") for line in text.splitlines()[1:])


def test_status_shows_only_blocks_that_have_entries(tmp_path: Path) -> None:
    """A run without streams, timers and suspensions has no such block; one with them has all three, after the locks."""
    world = World(tmp_path)
    store = world.open()
    asyncio.run(crash(world, store, ScriptedVenue(None)))
    plain = store_status(store, NOW, 10)
    world.close()
    plain_text = status_text(plain, "x")
    assert plain.view is not None
    assert not any(title in plain_text for title in ("Streams", "Dead-man", "Suspended"))
    view = replace(plain.view, streams=STREAMS, timers=TIMERS, suspended=("stocks",))
    text = status_text(replace(plain, view=view), "x")
    assert f"\n\n{STREAMS_TEXT}\n\n{TIMERS_TEXT}\n\n{SUSPENDED_TEXT}" in text
    assert sections_text(suspended_accounts, ("stocks",)) == SUSPENDED_TEXT
    assert text.index("Locks") < text.index("Streams")
