"""The ledger of flows and fills that explain changes of equity; each row counts once, by the venue's clock.

Money is Decimal in the scope's currency. Rows also arrive with snapshots of unknown equity, so they are collected until
the next known equity.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.instant import HOUR, SECOND, to_micros
from killswitch.model.magnitude import sane, sound_fill
from killswitch.model.snapshot import UNIT_FLOWS, AccountSnapshot, Fill, Flow, Position
from killswitch.pnl_explain.asset_prices import AssetPrices, LastPrice
from killswitch.pnl_explain.classification import EARLY
from killswitch.valuation.position_measures import ZERO, move_value
from killswitch.valuation.scope_view import PnlKey, ScopeView

MAXIMUM_ROW_AGE = 48 * HOUR
"""The maximum age of a new row at the last observation. Older rows are repetitions, so their ids can be dropped."""


class LedgerRow(Struct):
    """A ledger row that is not matched with a change of equity yet.

    `at` is the time of the event, `seen` that of its first report (microseconds on the clock of ticks); `amount` is in
    the account's currency. `moved`: it is a deposit, a withdrawal or a transfer; otherwise it is profit or loss.
    `repeated`: another row reports the same amount at the same time, so it explains no change of another time.
    """

    account: str
    at: int
    seen: int
    amount: Decimal
    moved: bool
    repeated: bool = False


class UnpricedFlow(Struct, frozen=True):
    """A flow in an asset whose price is unknown yet; `seen` is the time of its first report."""

    account: str
    flow: Flow
    seen: int


class FillRow(Struct):
    """A fill reported since its account's last known equity, and its realised P&L less fee."""

    account: str
    fill: Fill
    gain: Decimal | None


class ScopeLedgerState(Struct):
    """The serialised form of a ledger."""

    seen: list[tuple[str, int]]
    realized: list[tuple[str, str, str, Decimal]]
    unknown: list[tuple[str, str, str, int]]
    joined: list[tuple[str, int]]
    looked_at: int | None
    rows: list[LedgerRow] = []
    fills: list[FillRow] = []
    unpriced: list[UnpricedFlow] = []
    prices: list[LastPrice] = []
    transfers: list[tuple[str, int, Decimal]] = []


class ScopeLedger:
    """Collects rows by id, and tracks realised P&L per position, net of fees.

    `unknown`: position → the last time that the P&L of a fill was unknown.
    """

    def __init__(self) -> None:
        self.realized: dict[PnlKey, Decimal] = {}
        self.unknown: dict[PnlKey, int] = {}
        self.rows: list[LedgerRow] = []
        """Flows, funding, interest and fees that are not matched with a change of equity, oldest first."""
        self.fills: list[FillRow] = []
        self.joined: dict[str, int] = {}
        """When each account's equity first counted, by its venue's clock; earlier rows are included in it."""
        self.unpriced: list[UnpricedFlow] = []
        """Flows without a price, which wait as long as rows do."""
        self._transfers: list[tuple[str, int, Decimal]] = []
        """(account, time, amount) of recent transfers: a venue may report one in two lists, under two ids."""
        self._prices = AssetPrices()
        self._seen: dict[str, int] = {}
        self._last_known_at: int | None = None

    def collect(self, view: ScopeView, before: ScopeView | None) -> None:
        """Collect the view's new rows; `before` is the previous view, with the positions before the fills."""
        for account in view.accounts:
            self._correct_joined(account)
            self._prices.observe(account, view.as_of)
            if account.flows or account.fills:
                self._collect_rows(account, view, before)
        if self.unpriced:
            self._price_waiting_flows(view)
        if view.unknown is None:
            self._last_known_at = view.as_of
            for account in view.accounts:
                if account.account not in self.joined:
                    wallet = account.wallet_as_of
                    self.joined[account.account] = view.as_of if wallet is None else to_micros(wallet)
        self._forget_old()

    def _collect_rows(self, account: AccountSnapshot, view: ScopeView, before: ScopeView | None) -> None:
        """Collect an account's new rows, dated on the clock of ticks."""
        ahead = ahead_of_venue(account, view.as_of)
        for flow in account.flows or ():
            if self._is_new(account.account, f"flow/{account.account}/{flow.id}", flow.at):
                self._collect_flow(account, replace(flow, at=_later(flow.at, ahead)) if ahead else flow, view.as_of)
        for fill in account.fills or ():
            if self._is_new(account.account, f"fill/{account.account}/{fill.id}", fill.at):
                self._collect_fill(account, replace(fill, at=_later(fill.at, ahead)) if ahead else fill, view, before)

    def _correct_joined(self, account: AccountSnapshot) -> None:
        """Correct a joining time that is ahead of the venue's clock, which was wrong, to that of the last snapshot."""
        joined, now = self.joined.get(account.account), venue_time(account)
        if joined is None or now is None or joined <= now:
            return
        last = self._prices.last(account.account)
        then = None if last is None else venue_time(last)
        self.joined[account.account] = now if then is None else min(now, then)

    def unit_flow_in(self, view: ScopeView) -> Decimal:
        """The transfers in uncounted rows of the view, in its currency; leaves them uncounted."""
        total = ZERO
        for account in view.accounts:
            for flow in account.flows or ():
                new = f"flow/{account.account}/{flow.id}" not in self._seen
                amount = self._prices.amount(account, flow.amount, flow.currency)
                if new and flow.kind in UNIT_FLOWS and amount is not None:
                    total += view.converted(amount, account)
        return total

    def converted(self, account: AccountSnapshot, amount: Decimal, currency: str) -> Decimal | None:
        """An amount of any currency in the account's; None if its price is unknown."""
        return self._prices.amount(account, amount, currency)

    def fills_of(self, account: str) -> list[FillRow]:
        """The account's new fills; each is returned once."""
        found = [row for row in self.fills if row.account == account]
        if found:
            self.fills = [row for row in self.fills if row.account != account]
        return found

    def drop(self) -> None:
        """Drop all waiting rows, and the realised P&L of accounts that have left the scope."""
        self._drop_departed()
        self.rows, self.fills, self.unpriced = [], [], []

    def _drop_departed(self) -> None:
        """Drop the realised P&L of accounts that left the scope, whose currency is no longer known."""
        self.realized = {key: value for key, value in self.realized.items() if key[0] in self.joined}
        self.unknown = {key: at for key, at in self.unknown.items() if key[0] in self.joined}

    def _is_new(self, account: str, key: str, at: datetime) -> bool:
        happened = to_micros(at)
        if key in self._seen or (self._last_known_at is not None and happened < self._last_known_at - MAXIMUM_ROW_AGE):
            return False
        self._seen[key] = happened
        joined = self.joined.get(account)
        return joined is not None and happened >= joined

    def _forget_old(self) -> None:
        """Drop ids of rows older than `MAXIMUM_ROW_AGE`; ids are in approximate order of time, which suffices."""
        while self._seen and self._last_known_at is not None:
            oldest = next(iter(self._seen))
            if self._seen[oldest] >= self._last_known_at - MAXIMUM_ROW_AGE:
                return
            del self._seen[oldest]

    def _collect_flow(self, account: AccountSnapshot, flow: Flow, seen: int) -> None:
        if not sane(flow.amount):
            return  # its effect appears as an unexplained change
        amount = self._prices.amount(account, flow.amount, flow.currency)
        if amount is None:
            self.unpriced.append(UnpricedFlow(account.account, flow, seen))
        elif amount:
            at, moved = to_micros(flow.at), flow.kind in UNIT_FLOWS
            repeated = moved and self._is_repeated(account.account, at, amount, seen)
            self.rows.append(LedgerRow(account.account, at, seen, amount, moved, repeated))

    def _is_repeated(self, account: str, at: int, amount: Decimal, seen: int) -> bool:
        """Whether an equal transfer of the same moment was reported before."""
        self._transfers = [each for each in self._transfers if seen - each[1] <= EARLY * 2]
        found = any(
            (name, value) == (account, amount) and abs(then - at) <= SECOND for name, then, value in self._transfers
        )
        self._transfers.append((account, at, amount))
        return found

    def _price_waiting_flows(self, view: ScopeView) -> None:
        """Collect the flows whose price is known by now; those that wait too long are dropped, like rows."""
        waiting, self.unpriced = self.unpriced, []
        accounts = {account.account: account for account in view.accounts}
        for each in waiting:
            account = accounts.get(each.account)
            if view.as_of - each.seen > EARLY:
                continue
            if account is None:
                self.unpriced.append(each)
            else:
                self._collect_flow(account, each.flow, each.seen)

    def _collect_fill(self, account: AccountSnapshot, fill: Fill, view: ScopeView, before: ScopeView | None) -> None:
        position = _position_before(account.account, fill, before)
        side = fill.position_side or (position.side if position else _probable_side(fill))
        sound = sound_fill(fill, view.instrument(account.account, fill.symbol))
        gain = fill.realized_pnl if fill.realized_pnl is not None and sane(fill.realized_pnl) else None
        if gain is None and sound is not None:
            gain = _realized(account, sound, position, side, view)
        fee = None if fill.fee is None else self._prices.amount(account, fill.fee, fill.fee_currency)
        key = (account.account, fill.symbol, side)
        known = None
        if gain is None or not sane(gain):
            self.unknown[key] = view.as_of
        else:
            known = gain - (fee or ZERO)
            self.realized[key] = self.realized.get(key, ZERO) + known
        if sound is not None:
            self.fills.append(FillRow(account.account, sound, known))

    def state(self) -> ScopeLedgerState:
        """Everything, for storing."""
        return ScopeLedgerState(
            seen=list(self._seen.items()),
            realized=[(*key, value) for key, value in self.realized.items()],
            unknown=[(*key, at) for key, at in self.unknown.items()],
            joined=list(self.joined.items()),
            looked_at=self._last_known_at,
            rows=self.rows,
            fills=self.fills,
            unpriced=self.unpriced,
            prices=self._prices.state(self._last_known_at),
            transfers=self._transfers,
        )

    def restore(self, state: ScopeLedgerState) -> None:
        """Restore a stored ledger."""
        self._seen = dict(state.seen)
        self.realized = {(a, s, side): value for a, s, side, value in state.realized}
        self.unknown = {(a, s, side): at for a, s, side, at in state.unknown}
        self.joined, self._last_known_at = dict(state.joined), state.looked_at
        self._drop_departed()
        self.rows, self.fills, self.unpriced = state.rows, state.fills, state.unpriced
        self._prices.restore(state.prices)
        self._transfers = list(state.transfers)


def _later(at: datetime, micros: int) -> datetime:
    """The time plus `micros`; unchanged if the result is out of range."""
    try:
        return at + timedelta(microseconds=micros)
    except OverflowError:
        return at


def _position_before(account: str, fill: Fill, before: ScopeView | None) -> Position | None:
    """The position before the fill."""
    if before is None:
        return None
    for owner, position in before.positions():
        same = owner.account == account and position.symbol == fill.symbol
        if same and fill.position_side in (None, position.side):
            return position
    return None


def _probable_side(fill: Fill) -> str:
    """The probable side of a fill without a position: a fill with realised P&L closes, one without opens."""
    closes = fill.realized_pnl is not None and sane(fill.realized_pnl) and fill.realized_pnl != ZERO
    return "long" if (fill.side == "buy") != closes else "short"


def _realized(
    account: AccountSnapshot, fill: Fill, position: Position | None, side: str, view: ScopeView
) -> Decimal | None:
    """The realised P&L of a fill that does not report it: zero if it opens, else from the position's entry price."""
    opens = (fill.side == "buy") == (side == "long")
    if opens:
        return ZERO if position is not None or fill.position_side is not None else None
    if position is None:
        return None
    # The part beyond the position's size flips it, so it opens.
    closed = Position(symbol=position.symbol, side=position.side, contracts=min(fill.amount, position.contracts))
    return move_value(
        closed, account, view.instrument(account.account, fill.symbol), (position.entry_price, fill.price)
    )


AHEAD_TOLERANCE = 5 * SECOND
"""The tolerance for a venue's clock that is ahead of ours; timestamps are not more accurate."""
BEHIND_TOLERANCE = 30 * SECOND
"""The tolerance for a venue's clock that is behind ours; an answer may have been in transit for so long."""
MAXIMUM_ANSWER_AGE = 60 * SECOND
"""The maximum age of a good answer; if one seems older, ticks are dated ahead of our clock."""


def venue_time(account: AccountSnapshot) -> int | None:
    """The venue's time of the account's newest answer (microseconds); None if it dates none."""
    wallet, positions = account.wallet_as_of, account.positions_as_of
    if wallet is None or (positions is not None and positions > wallet):
        wallet = positions
    return None if wallet is None else to_micros(wallet)


def ahead_of_venue(account: AccountSnapshot, as_of: int) -> int:
    """The offset of the clock of ticks from the venue's clock (microseconds); 0 if they agree, or if it is unknown.

    It is added to the venue's times for comparison with a tick's.
    """
    venue = venue_time(account)
    if venue is None or account.observed_at is None or account.quality != "ok":
        return 0
    observed = to_micros(account.observed_at)
    skew, drift = observed - venue, as_of - observed
    return (skew if skew < -AHEAD_TOLERANCE or skew > BEHIND_TOLERANCE else 0) + (
        drift if drift > MAXIMUM_ANSWER_AGE else 0
    )
