"""`ksctl status --watch`: a running close, redrawn until nothing is closing any more."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import click

from killswitch.accounts.arming import left_to_do
from killswitch.cli.terminal import as_json, mention
from killswitch.journal.codec import decode_all
from killswitch.model.legible import one_line
from killswitch.model.snapshot import Event
from killswitch.model.store import Store
from killswitch.operations.progress import OpenPosition, Progress, progress_of
from killswitch.operations.status import runner_state
from killswitch.render.formats import instant, lasting
from killswitch.runner.clock import SystemClock
from killswitch.runner.status_blob import tick_time

EVERY = 1.0
"""Seconds between two looks."""

IDLE = 4.0
"""How many times longer than a look the pause after it is at least: watching must not slow the runner beside it."""

LEFT_ALONE = 10.0
"""Seconds that unfinished work may be without a runner before watching it ends."""

LOOK_BACK = 50
"""How many of the newest decisions are looked at for closes that began meanwhile."""

INTERRUPTED = 130
REACHED = ("flat", "at target")
HAVE_WORK = ("close", "apply")


class Watch:
    """Every close that is under way, or began since watching did."""

    def __init__(self, store: Store) -> None:
        self._store = store
        unfinished = self._unfinished()
        self._before = {stored.decision.id for stored in store.decisions(LOOK_BACK)} - unfinished
        self._ids: dict[str, None] = {}
        self.alive = False
        """Whether somebody lives who works on it, at the last look."""
        self.pending: tuple[Event, ...] = ()
        """Hands that begin a close as soon as a tick takes them."""

    def look(self, now: datetime, dated: datetime | None = None) -> tuple[Progress, ...]:
        """How each of them stands, in the order in which they were decided. `dated`: now, as ticks are dated."""
        self.alive = runner_state(self._store.lease(), now).liveness == "alive"
        self.pending = tuple(event for event in self._store.pending_events() if event.kind in HAVE_WORK)
        unfinished = self._unfinished()
        recent = [stored.decision.id for stored in reversed(self._store.decisions(LOOK_BACK))]
        for each in (*recent, *sorted(unfinished - set(recent))):
            if each in unfinished or each not in self._before:
                self._ids[each] = None
        found = (self._progress(each, dated or now) for each in self._ids)
        return tuple(each for each in found if each is not None and each.positions)

    def _unfinished(self) -> set[str]:
        return {decision.id for decisions in left_to_do(self._store).values() for decision in decisions}

    def _progress(self, decision: str, now: datetime) -> Progress | None:
        stored = self._store.decision(decision)
        if stored is None:
            return None
        return progress_of(stored.decision, decode_all(self._store.journal(decision)), now, runs=self.alive)


class Terminal:
    """Redraws in place, never wider or higher than the terminal."""

    def __init__(self) -> None:
        self._drawn = 0

    def show(self, closes: Sequence[Progress]) -> None:
        width, height = shutil.get_terminal_size()
        text = [row[: width - 1] for each in closes for row in block(each)]
        if len(text) > height - 1:
            text = [*text[: height - 2], f"… {len(text) - height + 2} more lines"]
        up = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        click.echo(up + "\n".join(text), color=True)
        self._drawn = len(text)


class Lines:
    """One line for each change, of everything but the time."""

    def __init__(self, write: Callable[[Progress], str]) -> None:
        self._write = write
        self._said: dict[str, tuple[object, ...]] = {}

    def show(self, closes: Sequence[Progress]) -> None:
        for each in closes:
            if self._said.get(each.decision) != each.changing:
                self._said[each.decision] = each.changing
                click.echo(self._write(each))
                sys.stdout.flush()


def follow(store: Store, *, json: bool, terminal: bool) -> int:
    """Show every change until nothing is closing; 0 if all of it reached its targets, else 1."""
    screen = Terminal() if terminal and not json else Lines(as_json if json else line)
    try:
        return _follow(store, screen)
    except KeyboardInterrupt:
        mention("stopped watching; the close continues")
        return INTERRUPTED


def _follow(store: Store, screen: Terminal | Lines) -> int:
    watch, clock = Watch(store), SystemClock()
    alone_since: float | None = None
    while True:
        began = time.monotonic()
        closes = watch.look(clock.now(), tick_time(store, clock))
        if closes:
            screen.show(closes)
        if not _closing(watch, closes):
            break
        now = time.monotonic()
        if watch.alive:
            alone_since = None
        elif alone_since is None:
            alone_since = now
        if alone_since is not None and now - alone_since >= LEFT_ALONE:
            mention("no runner is alive on this store: `ksctl run --live` resumes the remaining work")
            return 1
        time.sleep(max(EVERY, IDLE * (time.monotonic() - began)))
    if not closes:
        mention("no close is in progress")
    return 0 if all(each.standing in REACHED for each in closes) else 1


def _closing(watch: Watch, closes: Sequence[Progress]) -> bool:
    """Whether anything is being closed, or will be as soon as the living runner ticks."""
    return any(each.standing == "closing" for each in closes) or bool(watch.pending and watch.alive)


WORST_SHOWN = 8
"""How many of the positions that are held up a block names."""


def block(shown: Progress) -> list[str]:
    """A close as it stands, a few lines."""
    held = [f"  held up    {_open(each)}" for each in shown.blocked[:WORST_SHOWN]]
    if len(shown.blocked) > WORST_SHOWN:
        held.append(f"             and {len(shown.blocked) - WORST_SHOWN} more")
    return [
        f"{_what(shown)}  [{shown.decision}]",
        f"  positions  {shown.done} done, {shown.open} open of {shown.positions}",
        f"  orders     {_orders(shown)}",
        f"  time       {_time(shown)}",
        *held,
    ]


def line(shown: Progress) -> str:
    """A close as it stands, in one line."""
    held = f"; held up: {', '.join(_open(each) for each in shown.blocked[:WORST_SHOWN])}" if shown.blocked else ""
    return (
        f"{instant(shown.at)}  {shown.decision}  {shown.standing}: {shown.done} of {shown.positions} positions done; "
        f"orders: {_orders(shown)}; {_time(shown)}{held}"
    )


def _what(shown: Progress) -> str:
    if shown.stage is not None:
        return f"{shown.stage} on {shown.scope}"
    cause = f"{shown.cause}: " if shown.cause and shown.cause != shown.reason else ""
    why = f"{cause}{shown.reason or 'no reason'}"
    return one_line(f"close by hand by {shown.author or 'unknown'} of {shown.scope} ({why})")


def _orders(shown: Progress) -> str:
    counts = shown.orders
    partly = f" ({counts.partly} in part)" if counts.partly else ""
    parts = [f"{counts.sent} sent", f"{counts.filled} filled{partly}", f"{counts.unknown} unknown"]
    parts += [f"{counts.empty} ended without a fill"] if counts.empty else []
    return ", ".join(parts + ([f"{counts.refused} refused"] if counts.refused else []))


def _time(shown: Progress) -> str:
    elapsed = lasting(timedelta(seconds=shown.elapsed))
    if shown.standing != "closing":
        return f"ended {shown.standing} after {elapsed}"
    if shown.expected_end is None:
        return f"{elapsed} elapsed, end unknown: {shown.unknown_because or 'no estimate is possible'}"
    return f"{elapsed} elapsed, end expected in {lasting(shown.expected_end - shown.at)}"


def _open(each: OpenPosition) -> str:
    left = "?" if each.left is None else f"{each.left:f}"
    return f"{left} {each.symbol} {each.position_side} on {each.account}: {each.why}"
