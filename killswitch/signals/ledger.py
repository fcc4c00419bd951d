"""What flows and fills say about a change of equity, each row counted once.

Money is Decimal in the scope's currency. Rows arrive when they become known, also with snapshots whose
equity cannot be used, so they are gathered until the next equity that can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from killswitch.model.instant import HOUR
from killswitch.model.snapshot import UNIT_FLOWS, AccountSnapshot, Fill, Flow, Position
from killswitch.signals.position import ZERO, move_value
from killswitch.signals.view import PnlKey, ScopeView

REMEMBER = 48 * HOUR
"""How long an id is remembered after it was last seen; adapters repeat rows for minutes, not for days."""


@dataclass(slots=True)
class Gathered:
    """What became known since the last usable equity. `other` is None where a row's worth is unknown."""

    unit_flow: Decimal = ZERO
    other: Decimal | None = ZERO

    def add(self, amount: Decimal | None) -> None:
        """Add profit or loss; an unknown amount makes the whole unknown."""
        self.other = None if amount is None or self.other is None else self.other + amount


@dataclass(slots=True)
class Ledger:
    """Gathers rows by id, and keeps realised P&L per position, net of fees."""

    seen: dict[str, int] = field(default_factory=dict)
    realized: dict[PnlKey, Decimal] = field(default_factory=dict)
    gathered: Gathered = field(default_factory=Gathered)

    def gather(self, view: ScopeView, before: ScopeView | None) -> None:
        """Take the view's new rows; `before` is the view of the tick before, for the sizes that fills met."""
        for account in view.accounts:
            if account.flows:
                for flow in account.flows:
                    if self._is_new(account, flow.id, "flow", view.as_of):
                        self._take_flow(account, flow)
            if account.fills:
                for fill in account.fills:
                    if self._is_new(account, fill.id, "fill", view.as_of):
                        self._take_fill(account, fill, view, before)

    def take(self) -> Gathered:
        """What was gathered; gathering begins anew."""
        taken, self.gathered = self.gathered, Gathered()
        return taken

    def _is_new(self, account: AccountSnapshot, row: str, kind: str, now: int) -> bool:
        key = f"{kind}/{account.account}/{row}"
        new = key not in self.seen
        self.seen.pop(key, None)
        self.seen[key] = now  # the dict is in order of last sight, oldest first
        for oldest, at in list(self.seen.items())[:2]:
            if at < now - REMEMBER:
                del self.seen[oldest]
        return new

    def _take_flow(self, account: AccountSnapshot, flow: Flow) -> None:
        amount = in_account_currency(account, flow.amount, flow.currency)
        if amount is None:
            return  # what it moved shows as unexplained change, and is treated as such
        if flow.kind in UNIT_FLOWS:
            self.gathered.unit_flow += amount
        else:
            self.gathered.add(amount)

    def _take_fill(self, account: AccountSnapshot, fill: Fill, view: ScopeView, before: ScopeView | None) -> None:
        met = _position_met(account.account, fill, before)
        side = fill.position_side or (met.side if met else ("long" if fill.side == "buy" else "short"))
        gain = fill.realized_pnl
        if gain is None:
            gain = _realized(fill, met, side, view)
        fee = None if fill.fee is None else in_account_currency(account, fill.fee, fill.fee_currency)
        self.gathered.add(None if gain is None or fee is None else gain - fee)
        if gain is not None:
            key = (account.account, fill.symbol, side)
            self.realized[key] = self.realized.get(key, ZERO) + gain - (fee or ZERO)


def in_account_currency(account: AccountSnapshot, amount: Decimal, currency: str | None) -> Decimal | None:
    """`amount` of `currency` in the account's currency by its balances' prices; None where nothing converts."""
    if currency == account.currency:
        return amount
    for balance in account.balances or ():
        if balance.asset == currency and balance.price is not None:
            return amount * balance.price
    return None


def _position_met(account: str, fill: Fill, before: ScopeView | None) -> Position | None:
    """The position that the fill met, as it was before."""
    if before is None:
        return None
    for owner, position in before.positions():
        same = owner.account == account and position.symbol == fill.symbol
        if same and fill.position_side in (None, position.side):
            return position
    return None


def _realized(fill: Fill, met: Position | None, side: str, view: ScopeView) -> Decimal | None:
    """Realised P&L of a fill that does not say: none when it opens, else from the entry price it met."""
    opens = (fill.side == "buy") == (side == "long")
    if opens:
        return ZERO
    if met is None:
        return None
    account = next((a for a in view.accounts if any(f is fill for f in a.fills or ())), None)
    instrument = view.instrument(account.account, fill.symbol) if account else None
    closed = Position(symbol=met.symbol, side=met.side, contracts=fill.amount)
    return move_value(closed, instrument, met.entry_price, fill.price)
