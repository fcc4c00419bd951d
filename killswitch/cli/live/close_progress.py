"""`ksctl status --watch`: progress of closes, updated until all are finished."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import click

from killswitch.accounts.arming import open_closes
from killswitch.cli.terminal import encode_record, print_note
from killswitch.journal.codec import decode_all
from killswitch.model.snapshot import Event
from killswitch.model.store import Store
from killswitch.model.words import close_text
from killswitch.operations.progress import CloseProgress, OpenPosition, progress_of
from killswitch.operations.status import runner_state
from killswitch.render.document import Facts, Section, section_text
from killswitch.render.formats import count_of, duration_text, instant
from killswitch.runner.clock import SystemClock
from killswitch.runner.status_blob import tick_time

UPDATE_SECONDS = 1.0
"""Seconds between two updates."""

PAUSE_FACTOR = 4.0
"""Minimum pause after an update, in multiples of its duration: watching must not slow the runner."""

MAX_SECONDS_WITHOUT_RUNNER = 10.0
"""Seconds without a runner after which the watch ends."""

LOOK_BACK = 50
"""Number of newest decisions that are searched for new closes."""

INTERRUPTED = 130
REACHED = ("flat", "at target")
CLOSING_COMMANDS = ("close", "apply")


class CloseWatch:
    """Every close that is in progress, or started since the watch began."""

    def __init__(self, store: Store) -> None:
        self._store = store
        unfinished = self._unfinished()
        self._before = {stored.decision.id for stored in store.decisions(LOOK_BACK)} - unfinished
        self._ids: dict[str, None] = {}
        self.is_runner_alive = False
        """Whether a runner was alive at the last update."""
        self.pending: tuple[Event, ...] = ()
        """Pending commands that start a close at the next tick."""

    def poll(self, now: datetime, tick_now: datetime | None = None) -> tuple[CloseProgress, ...]:
        """The state of each close, in the order of their decisions. `tick_now`: the present time as ticks are dated."""
        self.is_runner_alive = runner_state(self._store.lease(), now).liveness == "alive"
        self.pending = tuple(event for event in self._store.pending_events() if event.kind in CLOSING_COMMANDS)
        unfinished = self._unfinished()
        recent = [stored.decision.id for stored in reversed(self._store.decisions(LOOK_BACK))]
        for each in (*recent, *sorted(unfinished - set(recent))):
            if each in unfinished or each not in self._before:
                self._ids[each] = None
        progress = (self._progress(each, tick_now or now) for each in self._ids)
        return tuple(each for each in progress if each is not None and each.positions)

    def _unfinished(self) -> set[str]:
        return {decision.id for _, decision in open_closes(self._store)}

    def _progress(self, decision: str, now: datetime) -> CloseProgress | None:
        stored = self._store.decision(decision)
        if stored is None:
            return None
        return progress_of(
            stored.decision, decode_all(self._store.journal(decision)), now, is_runner_alive=self.is_runner_alive
        )


class TerminalProgress:
    """Redraw in place, within the width and height of the terminal."""

    def __init__(self) -> None:
        self._drawn = 0

    def show(self, closes: Sequence[CloseProgress]) -> None:
        width, height = shutil.get_terminal_size()
        rows = "\n".join(section_text(progress_section(each)) for each in closes).split("\n")
        text = [row[: width - 1] for row in rows]
        if len(text) > height - 1:
            text = [*text[: height - 2], f"… {count_of(len(text) - height + 2, 'more line')}"]
        up = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        click.echo(up + "\n".join(text), color=True)
        self._drawn = len(text)


class ProgressChanges:
    """Print one line per change of anything but the time."""

    def __init__(self, write: Callable[[CloseProgress], str]) -> None:
        self._write = write
        self._printed: dict[str, tuple[object, ...]] = {}

    def show(self, closes: Sequence[CloseProgress]) -> None:
        for each in closes:
            if self._printed.get(each.decision) != each.changing:
                self._printed[each.decision] = each.changing
                click.echo(self._write(each))
                sys.stdout.flush()


def follow(store: Store, *, json: bool, terminal: bool) -> int:
    """Print every change until no close is in progress; 0 if all targets are reached, else 1."""
    screen = TerminalProgress() if terminal and not json else ProgressChanges(encode_record if json else progress_line)
    try:
        return _follow(store, screen)
    except KeyboardInterrupt:
        print_note("stopped watching; closing is not affected")
        return INTERRUPTED


def _follow(store: Store, screen: TerminalProgress | ProgressChanges) -> int:
    watch, clock = CloseWatch(store), SystemClock()
    runner_gone_since: float | None = None
    while True:
        began = time.monotonic()
        closes = watch.poll(clock.now(), tick_time(store, clock))
        if closes:
            screen.show(closes)
        starting = watch.pending and watch.is_runner_alive
        if not starting and not any(each.standing == "closing" for each in closes):
            break
        now = time.monotonic()
        runner_gone_since = None if watch.is_runner_alive else now if runner_gone_since is None else runner_gone_since
        if runner_gone_since is not None and now - runner_gone_since >= MAX_SECONDS_WITHOUT_RUNNER:
            print_note("no runner is alive on this store: `ksctl run --live` resumes the remaining work")
            return 1
        time.sleep(max(UPDATE_SECONDS, PAUSE_FACTOR * (time.monotonic() - began)))
    if not closes:
        print_note("no close is in progress")
    return 0 if all(each.standing in REACHED for each in closes) else 1


MAX_BLOCKED_SHOWN = 8
"""Maximum blocked positions in a block."""


def progress_section(shown: CloseProgress) -> Section:
    """The state of a close in a few facts."""
    blocked = [_open(each) for each in shown.blocked[:MAX_BLOCKED_SHOWN]]
    if len(shown.blocked) > MAX_BLOCKED_SHOWN:
        blocked.append(f"and {len(shown.blocked) - MAX_BLOCKED_SHOWN} more")
    facts = (
        ("positions", f"{shown.done} done, {shown.open} open of {shown.positions}"),
        ("orders", _orders(shown)),
        ("time", _time(shown)),
        ("held up", *blocked),
    )
    return Section(f"{_what(shown)}  [{shown.decision}]", (Facts(facts),))


def progress_line(shown: CloseProgress) -> str:
    """The state of a close in one line."""
    blocked_text = (
        f"; held up: {', '.join(_open(each) for each in shown.blocked[:MAX_BLOCKED_SHOWN])}" if shown.blocked else ""
    )
    done = f"{shown.done} of {count_of(shown.positions, 'position')} done"
    return (
        f"{instant(shown.at)}  {shown.decision}  {shown.standing}: {done}; "
        f"orders: {_orders(shown)}; {_time(shown)}{blocked_text}"
    )


def _what(shown: CloseProgress) -> str:
    if shown.stage is not None:
        return f"{shown.stage} on {shown.scope}"
    cause = f"{shown.cause}: " if shown.cause and shown.cause != shown.reason else ""
    why = f"{cause}{shown.reason or 'no reason'}"
    return f"{close_text(shown.cause)} by {shown.author or 'unknown'} of {shown.scope} ({why})"


def _orders(shown: CloseProgress) -> str:
    counts = shown.orders
    partly = f", {counts.partly} in part" if counts.partly else ""
    empty = f", {counts.empty} ended without a fill" if counts.empty else ""
    refused = f", {counts.refused} refused" if counts.refused else ""
    return f"{counts.sent} sent, {counts.filled} filled{partly}, {counts.unknown} unknown{empty}{refused}"


def _time(shown: CloseProgress) -> str:
    elapsed = duration_text(timedelta(seconds=shown.elapsed))
    if shown.standing != "closing":
        return f"ended {shown.standing} after {elapsed}"
    if shown.expected_end is None:
        return f"{elapsed} elapsed, end unknown: {shown.unknown_because or 'no estimate is possible'}"
    return f"{elapsed} elapsed, end expected in {duration_text(shown.expected_end - shown.at)}"


def _open(each: OpenPosition) -> str:
    left = "?" if each.left is None else f"{each.left:f}"
    return f"{left} {each.symbol} {each.position_side} on {each.account}: {each.why}"
