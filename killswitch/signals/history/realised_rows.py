"""Realised P&L by the venue's own rows: fills, funding, interest, fees, rebates and insurance."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, cast

from msgspec import Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.model.instant import HOUR, to_micros
from killswitch.signals.history.collector import FollowedHistory, HistoryCollector, Needs

if TYPE_CHECKING:
    from killswitch.model.snapshot import AccountSnapshot, Fill
    from killswitch.valuation.scope_view import ScopeView

READ_BACK = 24 * HOUR
"""How far back a venue is read after an outage or a restart. After a longer one, rows in between may be missing."""
ZERO = Decimal(0)
Kinds = frozenset[str]
FUNDING: Kinds = frozenset({"funding"})
REALISED: Kinds = frozenset({"fill", "funding", "interest", "fee", "rebate", "insurance"})


class RealisedRow(Struct, frozen=True):
    """A row: its kind (`fill`, or that of a flow), its time on the clock of ticks, and what it made.

    `gain`: in the account's currency, without the part in another currency, of which there is `further`; None if the
    venue does not state it. `further`: (amount, currency) whose price is not known yet.
    """

    account: str
    kind: str
    at: int
    gain: Decimal | None
    further: tuple[Decimal, str] | None = None


class KnownRows(Struct, frozen=True):
    """The rows of one list of an account are complete from `since` to `until`; None: the venue never stated it.

    Microseconds on the clock of ticks.
    """

    since: int
    until: int | None = None


class RealisedRowsState(Struct):
    """The serialised form of `RealisedRows`."""

    begun_at: int | None
    kept_from: int
    rows: dict[str, RealisedRow]
    known: dict[str, KnownRows]


class RealisedRows(HistoryCollector):
    """The rows of the longest window in use, each once, and until when they are complete."""

    name = "realised_rows"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._keep = max((cast(int, need["window"]) for need in needs), default=0)
        self._max_gap = max_gap
        self._begun_at: int | None = None
        """The last reset, where windows begin."""
        self._kept_from = 0
        """Earlier rows were dropped."""
        self._rows: dict[str, RealisedRow] = {}
        self._known: dict[str, KnownRows] = {}
        """List and account (`fills/main`) → until when its rows are complete."""
        self._before: ScopeView | None = None

    def total(self, view: ScopeView, window: int, kinds: Kinds) -> Decimal | None:
        """What rows of these kinds made in the window, in the scope's currency.

        None if rows may be missing, or one of them does not state what it made.
        """
        now = view.as_of
        edge = max(now - window, self._begun_at or 0)
        lists = ("flows", "fills") if "fill" in kinds else ("flows",)
        if not view.accounts or edge < self._kept_from:
            return None
        total = ZERO
        for account in view.accounts:
            if not all(self._is_complete(f"{rows}/{account.account}", edge, now) for rows in lists):
                return None
            rate = view.conversion(account.currency).rate
            gains = [
                row.gain if row.further is None else None
                for row in self._rows.values()
                if row.account == account.account and row.kind in kinds and edge <= row.at <= now
            ]
            known = [gain for gain in gains if gain is not None]
            if len(known) < len(gains) or (rate is None and gains):
                return None
            total += sum(known, ZERO) * (ZERO if rate is None else rate)
        return total

    def _is_complete(self, rows: str, edge: int, now: int) -> bool:
        known = self._known.get(rows)
        if known is None or known.until is None:
            return False
        return known.since <= edge and now - known.until <= self._max_gap

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Keep the snapshot before, with the positions that fills changed."""
        self._before = before

    def follow(self, history: FollowedHistory, equity: Decimal | None) -> None:
        """Record the rows of the snapshot; a row that was reported before is the same one."""
        from killswitch.pnl_explain.ledger import ahead_of_venue

        view = history.view
        if view is None:
            return
        edge = self._kept_from = max(view.as_of - self._keep, self._begun_at or 0, self._kept_from)
        for account in view.accounts:
            ahead = ahead_of_venue(account, view.as_of)
            for rows, until in (("fills", account.fills_as_of), ("flows", account.flows_as_of)):
                at = None if until is None else to_micros(until) + ahead
                self._extend(f"{rows}/{account.account}", at, view.as_of)
            if not (account.flows or account.fills):
                continue
            for key, row in self._new_rows(account, ahead):
                if row.at >= edge:
                    self._rows.setdefault(key, row)
        if not self._rows:
            return
        if any(row.further is not None for row in self._rows.values()):
            self._price(history, view)
        if any(row.at < edge for row in self._rows.values()):
            self._rows = {key: row for key, row in self._rows.items() if row.at >= edge}

    def _extend(self, rows: str, until: int | None, now: int) -> None:
        """Extend what is complete; it begins now, at first and after an outage of which not all is read."""
        known = self._known.get(rows)
        if known is None:
            known = self._known[rows] = KnownRows(now)
        if until is not None:
            reached = known.until if known.until is not None else known.since
            self._known[rows] = KnownRows(now if until - reached > READ_BACK else known.since, max(until, reached))

    def _new_rows(self, account: AccountSnapshot, ahead: int) -> Iterable[tuple[str, RealisedRow]]:
        """The key and the row of each flow and fill."""
        from killswitch.model.magnitude import sane
        from killswitch.model.snapshot import UNIT_FLOWS

        name = account.account
        for flow in account.flows or ():
            if flow.kind not in UNIT_FLOWS:
                row = RealisedRow(name, flow.kind, to_micros(flow.at) + ahead, ZERO if sane(flow.amount) else None)
                further = None if row.gain is None else (flow.amount, flow.currency)
                yield f"flow/{name}/{flow.id}", replace(row, further=further)
        if account.fills:
            fills = sorted(account.fills, key=lambda each: each.at)
            for fill, gain in zip(fills, realised(account, fills, self._before), strict=True):
                row = RealisedRow(name, "fill", to_micros(fill.at) + ahead, gain)
                yield f"fill/{name}/{fill.id}", _less_fee(row, fill, account.currency)

    def _price(self, history: FollowedHistory, view: ScopeView) -> None:
        """Add the parts in other currencies whose price is known by now."""
        accounts = {account.account: account for account in view.accounts}
        for key, row in self._rows.items():
            account = accounts.get(row.account)
            if row.further is None or row.gain is None or account is None:
                continue
            amount = history.ledger.converted(account, *row.further)
            if amount is not None:
                self._rows[key] = replace(row, gain=row.gain + amount, further=None)

    def restart(self, now: int, *, accept: bool) -> None:
        """Windows begin at the reset."""
        self._begun_at = self._kept_from = now
        self._rows = {key: row for key, row in self._rows.items() if row.at >= now}

    def state(self) -> RealisedRowsState:
        """Everything."""
        return RealisedRowsState(self._begun_at, self._kept_from, self._rows, self._known)

    def restore(self, stored: bytes) -> None:
        """Restore the rows; a window that is longer than those kept before is not complete."""
        state = msgjson.decode(stored, type=RealisedRowsState)
        self._begun_at, self._kept_from = state.begun_at, state.kept_from
        self._rows, self._known = state.rows, state.known


def realised(account: AccountSnapshot, fills: Iterable[Fill], before: ScopeView | None) -> list[Decimal | None]:
    """The realised P&L of each fill, in order: as the venue states it, or 0 of a fill that surely opens.

    `before`: the snapshot before the fills; a fill without P&L whose position it does not show is unknown.
    """
    from killswitch.model.magnitude import sane

    held: dict[str, Decimal] = {}
    is_known = False
    for facts in () if before is None else before.facts:
        if facts.name == account.account and facts.positions is not None:
            is_known = True
            for each in facts.positions:
                held[each.symbol] = held.get(each.symbol, ZERO) + _signed(each.contracts, each.side)
    found: list[Decimal | None] = []
    for fill in fills:
        signed = _signed(fill.amount, "long" if fill.side == "buy" else "short")
        size = held.get(fill.symbol, ZERO)
        held[fill.symbol] = size + signed
        if fill.realized_pnl is not None:
            found.append(fill.realized_pnl if sane(fill.realized_pnl) else None)
        elif fill.position_side is not None:
            found.append(ZERO if (fill.side == "buy") == (fill.position_side == "long") else None)
        else:
            found.append(ZERO if is_known and size * signed >= ZERO else None)
    return found


def _less_fee(row: RealisedRow, fill: Fill, currency: str) -> RealisedRow:
    """The row less the fill's fee. A fee that the venue does not state is unknown, and so is what the fill made."""
    from killswitch.model.magnitude import sane

    if row.gain is None or fill.fee is None or not sane(fill.fee):
        return replace(row, gain=None)
    if fill.fee == ZERO or fill.fee_currency == currency:
        return replace(row, gain=row.gain - fill.fee)
    if fill.fee_currency is None:
        return replace(row, gain=None)
    return replace(row, further=(-fill.fee, fill.fee_currency))


def _signed(contracts: Decimal, side: str) -> Decimal:
    return contracts if side == "long" else -contracts
