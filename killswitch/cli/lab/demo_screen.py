"""Output of the demo: one line per event."""

from __future__ import annotations

import sys
import time
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli.terminal import terminal_width
from killswitch.graph.nodes import PolicySet
from killswitch.incident.record.loss import attribution_text
from killswitch.journal.codec import decode
from killswitch.journal.entries import Entry, Filled, Finished, Locked, Rejected, Verified, text_of
from killswitch.model.decision import Decision
from killswitch.model.effects import Orders, sizes_of, tag_of
from killswitch.model.store import Store
from killswitch.planning.scopes.trigger_status import MachineStatus, TriggerStatus
from killswitch.render import layout
from killswitch.render.formats import count_of, interval, money
from killswitch.runner.observers import TickReport
from killswitch.runner.status_blob import LIVE_NAME, decode_view
from killswitch.signals.catalogue import BY_NAME

if TYPE_CHECKING:
    from killswitch.lab.bars import BarTable
    from killswitch.lab.book import BacktestBook
    from killswitch.lab.feed import Feed

MAX_SILENCE_SECONDS = 30 * 60
"""Seconds of market time after which a tick without events is printed."""
PRINTED_MOVE = Decimal("0.01")
"""Relative move of equity that is printed."""
WITH_THE_POLICIES, WITHOUT = "with the policies", "without"


class DemoScreen:
    """Print the run of `policies_at`; `pace` is the pause after each line, in seconds."""

    def __init__(self, pace: float, policies_at: Path) -> None:
        self._pace = pace
        self._policies_at = policies_at
        self._shown_equity: Decimal | None = None
        self._shown_at: datetime | None = None
        self._first_equity: Decimal | None = None
        self._triggers: dict[tuple[str, str, str], tuple[bool, bool]] = {}
        self._acting: list[str] = []
        self._last_fired = "DECISION"
        self._journaled: dict[str, int] = {}
        self._store: Store | None = None
        self._at: datetime | None = None
        self._lowest: dict[tuple[str, str], Decimal] = {}
        self._day: date | None = None

    # -- the run begins, and ends -------------------------------------------------------------------------

    def begin(self, bars: BarTable, book: BacktestBook, policies: PolicySet, count: int) -> None:
        """Print the market, the book and the policies."""
        hours = bars.interval.total_seconds() * count / 3600
        shown = f"{count_of(len(bars.symbols), 'symbol')}, {count_of(count, 'bar')} shown ({hours:.1f} hours)"
        self._write(f"Market {bars.name}: {shown}", bold=True)
        for account in book.accounts:
            self._write(f"Book {book.name}, account {account.account}: {money(account.equity, account.currency)}")
            for side in ("long", "short"):
                if symbols := [each.symbol for each in account.positions if each.side == side]:
                    self._write(f"  {side:5} {', '.join(symbols)}")
        names = ", ".join(graph.policy for graph in policies.graphs)
        self._write(f"Policies {names} ({policies.digest[:19]}), armed, on the paper venue\n")

    def observe(self, store: Store) -> DemoScreen:
        """Read triggers and the journal from `store`; returns the observer for the runner."""
        self._store = store
        return self

    def end(self, protected: Feed, bystander: Feed, book: BacktestBook, folder: Path) -> None:
        """Print the final equity with and without the policies."""
        self._write("\nFinal equity", bold=True)
        for account in book.accounts:
            with_, without = (feed.market.snapshot(account.account) for feed in (protected, bystander))
            self._write(f"  account {account.account}: equity {money(account.equity, account.currency)} at the start")
            for name, final in ((WITH_THE_POLICIES, with_), (WITHOUT, without)):
                lowest = self._lowest.get((name, account.account))
                held = final.positions
                open_text = "positions unknown" if held is None else f"{count_of(len(held), 'position')} open"
                self._write(f"    {name:18} lowest {money(lowest):>12}, end {money(final.equity):>12} ({open_text})")
        self._next_steps(folder)

    def _next_steps(self, folder: Path) -> None:
        """Print what was written, and commands that work in the folder where the demo was started."""
        self._write(f"\nWritten to {folder}/: store, reports, locks, trading_lock.json and recording.jsonl.")
        self._write(f"What the desk was notified of: {folder / 'messages.log'}. Next steps:")
        store = folder / "killswitch.sqlite"
        ksctl = sys.argv[0] if "/" in sys.argv[0] and not Path(sys.argv[0]).is_absolute() else "ksctl"
        for command in (
            f"report --store {store}",
            f"history --store {store}",
            f"explain {self._last_fired} --store {store}",
            f"replay --policies {self._policies_at} --snapshots {folder / 'recording.jsonl'}",
        ):
            click.echo(f"  {ksctl} {command}")  # whole, so that it can be copied

    # -- as it happens ------------------------------------------------------------------------------------

    def ticked(self, report: TickReport) -> None:
        """Print the equity if it moved, triggers that changed, and stages that fired."""
        self._at = report.snapshot.as_of
        for account in report.snapshot.accounts:
            self._lower(WITH_THE_POLICIES, account.account, account.equity)
        equities = [account.equity for account in report.snapshot.accounts]
        equity = None if None in equities else sum((e for e in equities if e is not None), Decimal(0))
        changes = self._changes()
        if equity is None or self._is_event(equity, report) or changes:
            self._equity(equity)
        for text, colour in changes:
            self._print(text, colour)
        for notice in report.notices:
            self._print(f"{notice.severity}: {notice.text}", "yellow")
        for decision in report.decisions:
            self._decision(decision)
        self._acting += report.acting_on

    def observe_unprotected(self, feed: Feed) -> None:
        """Record the lowest equity of the book without the policies."""
        for account in feed.market.accounts:
            self._lower(WITHOUT, account, feed.market.snapshot(account).equity)

    def _lower(self, name: str, account: str, equity: Decimal | None) -> None:
        if equity is not None:
            self._lowest[name, account] = min(equity, self._lowest.get((name, account), equity))

    def print_journal(self) -> None:
        """Print the journal entries since the previous call."""
        assert self._store is not None
        for decision in self._acting:
            for entry in self._store.journal(decision):
                if entry.sequence > self._journaled.get(decision, 0):
                    self._journaled[decision] = entry.sequence
                    self._journal(decode(entry))

    def _is_event(self, equity: Decimal, report: TickReport) -> bool:
        if self._shown_equity is None or self._shown_at is None:
            return True
        has_moved = abs(equity - self._shown_equity) >= PRINTED_MOVE * abs(self._shown_equity)
        is_due = (report.snapshot.as_of - self._shown_at).total_seconds() >= MAX_SILENCE_SECONDS
        return has_moved or is_due or bool(report.decisions)

    def _equity(self, equity: Decimal | None) -> None:
        self._shown_equity, self._shown_at = equity, self._at
        self._first_equity = self._first_equity or equity
        if equity is None or not self._first_equity:
            self._print("equity unknown", "yellow")
            return
        width = bar_width(terminal_width())
        bar = bar_of(float(equity / self._first_equity), width).ljust(width)
        self._print("  ".join(part for part in (f"equity {money(equity):>12}", bar, self._falls()) if part))

    def _machines(self) -> tuple[MachineStatus, ...]:
        blob = self._store.live(LIVE_NAME) if self._store else None
        return () if blob is None else decode_view(blob).machines

    def _falls(self) -> str:
        """The drawdowns that the policies watch, each once."""
        falls: dict[str, str] = {}
        for machine in self._machines():
            for trigger in machine.triggers:
                spec = BY_NAME.get(trigger.signal or "")
                if spec is not None and spec.is_loss_size and trigger.window:
                    falls[f"{trigger.window // 60_000_000}m"] = interval(trigger.value, trigger.unit)
        return "fall " + ", ".join(f"{window} {value}" for window, value in falls.items()) if falls else ""

    def _changes(self) -> list[tuple[str, str]]:
        """Triggers that became true, were confirmed or cleared since the last tick."""
        found = []
        for machine in self._machines():
            for trigger in machine.triggers:
                key = (machine.policy, machine.scope, trigger.name)
                before, now = self._triggers.get(key, (False, False)), (trigger.held, trigger.confirmed)
                self._triggers[key] = now
                if now != before:
                    found.append(_change(trigger, before))
        return found

    def _decision(self, decision: Decision) -> None:
        if decision.kind == "reset":
            self._print(f"RESET from level {decision.previous_level}: {decision.reason}", "green")
            return
        if decision.is_suspicion:
            self._print(decision.reason or "suspicion", "yellow")
            return
        self._last_fired = decision.id
        self._print(f"LEVEL {decision.level} FIRES: {decision.stage}", "red")
        if decision.attribution is not None and decision.attribution.window:
            self._print(f"  {attribution_text(decision.attribution)}")
        if decision.book is not None:
            before, after = decision.book.before.gross, decision.book.after.gross
            orders = sizes_of(decision.effects)[tag_of(Orders)]
            self._print(f"  {count_of(orders, 'order')}: gross {money(before)} → {money(after)}")

    def _journal(self, entry: Entry) -> None:
        symbol = entry.symbol
        match entry:
            case Locked():
                self._print(f"  lock written: {entry.scope} ({entry.status})", "magenta")
            case Filled():
                self._print(f"  {symbol}: filled {text_of(entry.filled)} at {text_of(entry.price)}", "cyan")
            case Verified() if symbol is not None:
                shown = f"{text_of(entry.position)}, wanted {text_of(entry.target)}"
                self._print(f"  {symbol}: the venue shows {shown}", "cyan")
            case Rejected():
                self._print(f"  {symbol}: rejected: {entry.text or entry.reason}", "yellow")
            case Finished() if entry.account is not None:
                self._print(f"  closing ended: {_ENDS.get(entry.status or '', entry.status)}", "green")

    def _print(self, text: str, colour: str | None = None) -> None:
        if self._at is not None and self._at.date() != self._day:
            self._day = self._at.date()
            self._write(f"{self._day}, times in UTC", bold=True)
        at = f"{self._at:%H:%M}" if self._at else ""
        for line in fitted(text, terminal_width()):
            click.echo(f"{click.style(at, dim=True)}  {click.style(line, fg=colour) if colour else line}")
            at = " " * len(at)
        if self._pace:
            time.sleep(self._pace)

    def _write(self, text: str, *, bold: bool = False) -> None:
        width = terminal_width()
        click.secho(text if width is None else layout.fit(text, width), bold=bold)


_TIME_WIDTH = len("12:34  ")
_BESIDE_BAR = 73
"""Columns of a line of equity without its bar: time, amount, and the falls over two windows, at least so far."""
_WIDEST_BAR = 30
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar_width(columns: int | None) -> int:
    """The length of a full bar on a terminal of `columns` columns; None: not a terminal."""
    return _WIDEST_BAR if columns is None else max(0, min(_WIDEST_BAR, columns - _BESIDE_BAR))


def bar_of(share: float, width: int) -> str:
    """A bar of `share` of `width` columns, at most full, in eighths of a column."""
    full, part = divmod(round(max(0.0, min(1.0, share)) * width * 8), 8)
    return ("█" * full + _EIGHTHS[part]).rstrip()


def fitted(text: str, columns: int | None) -> list[str]:
    """The lines of a text to the right of its time, on a terminal of `columns` columns."""
    if columns is None or len(text) + _TIME_WIDTH <= columns:
        return [text]
    indent = " " * (len(text) - len(text.lstrip()))
    return layout.hanging(text, f"{indent}  ", columns - _TIME_WIDTH).split("\n")


_ENDS = {"flat": "the venue shows every target reached", "residual": "something is left", "blocked": "blocked"}


def _change(trigger: TriggerStatus, before: tuple[bool, bool]) -> tuple[str, str]:
    value = interval(trigger.value, trigger.unit)
    if trigger.confirmed:
        return f"{trigger.name} confirmed: {value} {trigger.threshold}", "red"
    if trigger.held and not before[0]:
        return f"{trigger.name} true: {value} {trigger.threshold}, confirming", "yellow"
    return f"{trigger.name} cleared: {value}", "green"
