"""What flows and fills say about a change of equity, each row counted once.

Money is Decimal in the scope's currency. Rows arrive when they become known, also with snapshots whose
equity cannot be used, so they are gathered until the next equity that can.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from killswitch.model.instant import HOUR, to_micros
from killswitch.model.snapshot import UNIT_FLOWS, AccountSnapshot, Fill, Flow, Position
from killswitch.signals.equity_change import holdings
from killswitch.signals.position import ZERO, move_value
from killswitch.signals.soundness import sane
from killswitch.signals.view import PnlKey, ScopeView

LATEST = 48 * HOUR
"""Rows that happened longer before the last look than this are old news, told again: their ids may be forgotten."""


class Row(Struct):
    """A row of an account's ledger that no change of equity has been found for yet.

    `at` is the venue's time, `seen` when it became known (microseconds); `amount` in the account's currency. `moved`:
    it is a deposit, a withdrawal or a transfer; otherwise profit or loss.
    """

    account: str
    at: int
    seen: int
    amount: Decimal
    moved: bool


class FillRow(Struct):
    """A fill that became known since its account's equity was last usable, and what it realised less its fee."""

    account: str
    fill: Fill
    gain: Decimal | None


class LedgerState(Struct):
    """A ledger as serialised."""

    seen: list[tuple[str, int]]
    realized: list[tuple[str, str, str, Decimal]]
    unknown: list[tuple[str, str, str, int]]
    joined: list[tuple[str, int]]
    looked_at: int | None
    rows: list[Row] = []
    fills: list[FillRow] = []


class Ledger:
    """Gathers rows by id, and keeps realised P&L per position, net of fees.

    `unknown` says of which positions, and when, a fill's gain was not known.
    """

    def __init__(self) -> None:
        self.realized: dict[PnlKey, Decimal] = {}
        self.unknown: dict[PnlKey, int] = {}
        self.rows: list[Row] = []
        """Flows, funding, interest and fees that still wait for their change of equity, oldest first."""
        self.fills: list[FillRow] = []
        self.joined: dict[str, int] = {}
        """When each account's equity was first counted: what happened to it before is in that already."""
        self._seen: dict[str, int] = {}
        self._looked_at: int | None = None

    def gather(self, view: ScopeView, before: ScopeView | None) -> None:
        """Take the view's new rows; `before` is the view of the tick before, for the positions that fills met."""
        for account in view.accounts:
            if account.flows:
                for flow in account.flows:
                    if self._is_new(account.account, f"flow/{account.account}/{flow.id}", flow.at):
                        self._take_flow(account, flow, view.as_of)
            if account.fills:
                for fill in account.fills:
                    if self._is_new(account.account, f"fill/{account.account}/{fill.id}", fill.at):
                        self._take_fill(account, fill, view, before)
        if view.unknown is None:
            self._looked_at = view.as_of
            for account in view.accounts:
                self.joined.setdefault(account.account, view.as_of)
        self._forget_old()

    def unit_flow_in(self, view: ScopeView) -> Decimal:
        """Money moved by rows of the view that were not counted yet, in its currency; nothing is counted."""
        total = ZERO
        for account in view.accounts:
            for flow in account.flows or ():
                new = f"flow/{account.account}/{flow.id}" not in self._seen
                amount = in_account_currency(account, flow.amount, flow.currency)
                if new and flow.kind in UNIT_FLOWS and amount is not None and sane(amount):
                    total += view.converted(amount, account)
        return total

    def fills_of(self, account: str) -> list[FillRow]:
        """The account's new fills, each given once."""
        found = [row for row in self.fills if row.account == account]
        if found:
            self.fills = [row for row in self.fills if row.account != account]
        return found

    def drop(self, accounts: Collection[str] | None = None) -> None:
        """Forget what waits, of these accounts or of all; of all, also what accounts realised that have left."""
        if accounts is None:
            self._keep_joined()
        self.rows = [row for row in self.rows if accounts is not None and row.account not in accounts]
        self.fills = [row for row in self.fills if accounts is not None and row.account not in accounts]

    def _keep_joined(self) -> None:
        """What accounts realised which are not in the scope any more is in a currency that is not known any more."""
        self.realized = {key: value for key, value in self.realized.items() if key[0] in self.joined}
        self.unknown = {key: at for key, at in self.unknown.items() if key[0] in self.joined}

    def _is_new(self, account: str, key: str, at: datetime) -> bool:
        happened = to_micros(at)
        if key in self._seen or (self._looked_at is not None and happened < self._looked_at - LATEST):
            return False
        self._seen[key] = happened
        joined = self.joined.get(account)
        return joined is not None and happened >= joined

    def _forget_old(self) -> None:
        """Ids of rows that would be old news; the oldest were entered first, more or less, and that will do."""
        while self._seen and self._looked_at is not None:
            oldest = next(iter(self._seen))
            if self._seen[oldest] >= self._looked_at - LATEST:
                return
            del self._seen[oldest]

    def _take_flow(self, account: AccountSnapshot, flow: Flow, seen: int) -> None:
        amount = in_account_currency(account, flow.amount, flow.currency)
        if amount is None or not sane(amount):
            return  # what it moved shows as unexplained change, and is treated as such
        if amount:
            moved = flow.kind in UNIT_FLOWS
            self.rows.append(Row(account.account, to_micros(flow.at), seen, amount, moved))

    def _take_fill(self, account: AccountSnapshot, fill: Fill, view: ScopeView, before: ScopeView | None) -> None:
        met = _position_met(account.account, fill, before)
        side = fill.position_side or (met.side if met else _side_alone(fill))
        gain = fill.realized_pnl
        if gain is None and sane(fill.amount) and sane(fill.price):
            gain = _realized(account.account, fill, met, side, view)
        fee = None if fill.fee is None else in_account_currency(account, fill.fee, fill.fee_currency)
        key = (account.account, fill.symbol, side)
        known = None
        if gain is None or not sane(gain):
            self.unknown[key] = view.as_of
        else:
            known = gain - (fee if fee is not None and sane(fee) else ZERO)
            self.realized[key] = self.realized.get(key, ZERO) + known
        if sane(fill.amount) and sane(fill.price):
            self.fills.append(FillRow(account.account, fill, known))

    def state(self) -> LedgerState:
        """Everything, for storing."""
        return LedgerState(
            seen=list(self._seen.items()),
            realized=[(*key, value) for key, value in self.realized.items()],
            unknown=[(*key, at) for key, at in self.unknown.items()],
            joined=list(self.joined.items()),
            looked_at=self._looked_at,
            rows=self.rows,
            fills=self.fills,
        )

    def restore(self, state: LedgerState) -> None:
        """Take up where a stored ledger left off."""
        self._seen = dict(state.seen)
        self.realized = {(a, s, side): value for a, s, side, value in state.realized}
        self.unknown = {(a, s, side): at for a, s, side, at in state.unknown}
        self.joined, self._looked_at = dict(state.joined), state.looked_at
        self._keep_joined()
        self.rows, self.fills = state.rows, state.fills


def in_account_currency(account: AccountSnapshot, amount: Decimal, currency: str | None) -> Decimal | None:
    """`amount` of `currency` in the account's currency by the prices of what it holds; None where nothing converts."""
    if currency == account.currency:
        return amount
    held = holdings(account).get(currency) if currency is not None and sane(amount) else None
    return None if held is None else amount * held[1]


def _position_met(account: str, fill: Fill, before: ScopeView | None) -> Position | None:
    """The position that the fill met, as it was before."""
    if before is None:
        return None
    for owner, position in before.positions():
        same = owner.account == account and position.symbol == fill.symbol
        if same and fill.position_side in (None, position.side):
            return position
    return None


def _side_alone(fill: Fill) -> str:
    """The side of a fill of which nothing else is known: one with a result closes, one without opens."""
    closes = fill.realized_pnl is not None and sane(fill.realized_pnl) and fill.realized_pnl != ZERO
    return "long" if (fill.side == "buy") != closes else "short"


def _realized(account: str, fill: Fill, met: Position | None, side: str, view: ScopeView) -> Decimal | None:
    """Realised P&L of a fill that does not say: none when it opens, else from the entry price it met."""
    opens = (fill.side == "buy") == (side == "long")
    if opens:
        return ZERO if met is not None or fill.position_side is not None else None
    if met is None:
        return None
    # What goes beyond the position turns it round: that part opens.
    closed = Position(symbol=met.symbol, side=met.side, contracts=min(fill.amount, met.contracts))
    return move_value(closed, view.instrument(account, fill.symbol), met.entry_price, fill.price)
