"""What `status` says of the venues' own means: private streams, dead-man timers, suspensions at the broker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from textwrap import fill

from killswitch.cli.wording import ago, instant
from killswitch.model.legible import one_line
from killswitch.runner.deadman_memory import TimerView
from killswitch.runner.listening import StreamView

WIDTH = 80
"""Columns. Reasons are whole sentences of venues: they go on below themselves."""
LEAST = 40
"""Columns that a sentence has, however long the account's name is."""


def streams_text(streams: Sequence[StreamView], now: datetime) -> str:
    """Each account's stream: when it was heard last, and why it is not."""
    return _block("Streams", [(each.account, _stream(each, now)) for each in streams])


def _stream(stream: StreamView, now: datetime) -> str:
    heard = "nothing heard yet" if stream.heard_at is None else f"last heard {_when(stream.heard_at, now)}"
    match stream.state:
        case "heard":
            return heard if stream.why is None else f"{heard}; not heard a moment ago: {stream.why}"
        case "opening":
            return f"opening, {heard}"
        case "stale":
            return f"STALE, {heard}"
        case "lost":
            return f"LOST: {stream.why or 'no reason given'}; {heard}"
        case "ended":
            return f"GIVEN UP: {stream.why or 'no reason given'}; {heard}"


def timers_text(timers: Sequence[TimerView], now: datetime) -> str:
    """Each account's dead-man timer: until when it runs, when it was refreshed, and why it is not."""
    return _block("Dead-man timers", [(each.account, f"{_timer(each, now)} (by {each.switch})") for each in timers])


def _timer(timer: TimerView, now: datetime) -> str:
    until = "a time not known" if timer.until is None else _when(timer.until, now)
    over = timer.until is not None and timer.until <= now
    why = "" if timer.why is None else f"; {timer.why}"
    match timer.state:
        case "armed":
            refreshed = "" if timer.refreshed_at is None else f", refreshed {_when(timer.refreshed_at, now)}"
            return f"armed until {until}{', WHICH IS OVER' if over else ''}{refreshed}{why}"
        case "off":
            return "OFF" if timer.why is None else f"OFF: {timer.why}"
        case "unknown":
            return f"UNKNOWN whether it {'ran' if over else 'runs'}, until {until} at the latest{why}"


def suspended_text(accounts: Sequence[str]) -> str:
    """The accounts on which the broker takes no new order."""
    return _block("Suspended at the broker", [(name, "every new order is refused there") for name in accounts])


def _when(at: datetime, now: datetime) -> str:
    return f"{instant(at)}, {ago(at, now)}"


def _block(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """A line or more for each row, under its title; nothing where there are none."""
    if not rows:
        return ""
    named = [(one_line(name), one_line(text)) for name, text in rows]
    width = max(len(name) for name, _ in named)
    indent = " " * (width + 4)
    return "\n".join(
        [
            title,
            *(
                fill(
                    text,
                    max(WIDTH, len(indent) + LEAST),
                    initial_indent=f"  {name.ljust(width)}  ",
                    subsequent_indent=indent,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                for name, text in named
            ),
        ]
    )
