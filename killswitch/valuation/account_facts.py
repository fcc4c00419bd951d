"""Facts of one account in one snapshot: each is computed when it is first read, and once for everything that reads it.

Policies, scopes and signals share them, and a later snapshot of the account shares what did not change. Money is
Decimal, in the account's currency.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

from msgspec.structs import replace

from killswitch.model.computed_once import computed_once
from killswitch.model.instant import to_micros
from killswitch.model.magnitude import sane, sound_account, sound_orders, sound_watched
from killswitch.model.snapshot import AccountSnapshot, Position, WatchedPrice
from killswitch.valuation.held_positions import HeldPositions, SizeKey
from killswitch.valuation.opening_orders import largest_opening_order
from killswitch.valuation.position_measures import HOLDINGS, ZERO, Instruments, PnlKey, base_of, settlement, sign
from killswitch.valuation.trust import (
    reason_equity_missing,
    reason_positions_missing,
    reason_positions_unusable,
    reason_stale,
)

T = TypeVar("T")

PriceRow = Position | WatchedPrice
"""A row with prices of one symbol, all of one answer."""


class AccountFacts:
    """Facts of one account. `held` are its positions with their measures.

    `rules` are those of all accounts. They must not change for the account's own symbols while its facts are in use.
    """

    def __init__(self, account: AccountSnapshot, rules: Instruments, before: AccountFacts | None = None) -> None:
        """`before`: facts of an earlier snapshot of the account under the same rules."""
        self.account = account
        self.name = account.account
        self.rules = rules
        self.held: HeldPositions = HeldPositions.of(account, rules, None if before is None else before.held)
        self._change: AccountChange | None = None
        self._order_before = None if before is None else before._known_order()
        is_plausible = account.quality == "ok" and self.held.sizes.are_open
        self.positions_unusable = None if is_plausible else reason_positions_unusable(account)
        """The reason why its positions are unusable, or None, whether or not its equity is known."""
        self.equity_unusable = reason_equity_missing(account) or self.positions_unusable
        """The reason why its equity is unusable, or None; its age does not count."""
        self.positions_missing = reason_positions_missing(account)
        """The reason if the account does not report its positions, or None."""

    # Trust

    def equity_unknown(self, as_of: int, stale_after: int | None) -> str | None:
        """The reason why its equity is unknown at `as_of` (microseconds), or None."""
        if stale_after is None or self.equity_unusable is not None:
            return self.equity_unusable
        return reason_stale(self.account, as_of, stale_after)

    def untrusted(self, as_of: int, stale_after: int | None) -> str | None:
        """The reason why its numbers are unknown, or None if they are usable."""
        return self.equity_unknown(as_of, stale_after) or self.positions_missing

    @computed_once
    def sound(self) -> AccountSnapshot:
        """The account with every insane number unknown, and without orders of insane size; itself if there is none."""
        return sound_account(self.account)

    @computed_once
    def observed(self) -> int | None:
        """When it was observed (microseconds); None if it does not report that."""
        return None if self.account.observed_at is None else to_micros(self.account.observed_at)

    # Money

    @computed_once
    def maintenance(self) -> Decimal | None:
        """The maintenance margin; None if it is unknown or insane."""
        margin = self.account.maintenance_margin
        return margin if margin is not None and sane(margin) else None

    @computed_once
    def wallets(self) -> list[tuple[str, Decimal, Decimal]] | None:
        """(asset, wallet, price) of every balance if all of them and unrealised profit are reported, else None."""
        return wallets(self.account)

    @computed_once
    def single_wallet(self) -> Decimal | None:
        """The wallet of an account that holds only its own currency; None for any other account, and if unknown."""
        return single_wallet(self.account)

    @computed_once
    def holdings(self) -> Mapping[str, tuple[Decimal, Decimal]]:
        """Asset → (amount, price) of every priced asset except the account's own currency."""
        return holdings(self.account)

    # Positions

    @property
    def positions(self) -> tuple[Position, ...] | None:
        """Its open positions with every insane number unknown, one for each symbol and side; None if unknown."""
        return None if self.account.positions is None else self.held.merged

    @property
    def sizes(self) -> Mapping[SizeKey, Decimal] | None:
        """Symbol and side → contracts, without zeros; None if unknown. The same object while nothing is traded."""
        return None if self.account.positions is None else self.held.sizes.contracts

    @computed_once
    def entries(self) -> Mapping[SizeKey, Decimal | None] | None:
        """Symbol and side → entry price, that of the first row if there are several; None if unknown."""
        return None if self.positions is None else {each.key: each.entry_price for each in self.positions}

    @property
    def pnl(self) -> dict[PnlKey, Decimal] | None:
        """The unrealised P&L of every position; None if one, or the positions, are unknown. It must not be changed."""
        return None if self.account.positions is None else self.held.pnl

    @property
    def unrealised(self) -> Decimal | None:
        """The unrealised P&L of its positions together; None if that of one, or the positions, are unknown."""
        return None if self.account.positions is None else self.held.unrealised

    @computed_once
    def open_profit(self) -> Decimal | None:
        """The unrealised profit of the answer that has the equity, else that of the positions; None if unknown."""
        reported = self.account.unrealized
        return reported if reported is not None and sane(reported) else self.unrealised

    @computed_once
    def unrealised_unknown(self) -> str | None:
        """The reason why `unrealised` is None, or None."""
        if self.unrealised is not None:
            return None
        return self.positions_missing or f"a position of {self.name} gives neither its P&L nor the prices to compute it"

    @computed_once
    def largest_order(self) -> tuple[float, float]:
        """Bounds of the value of its largest resting order that may add risk, in its own currency."""
        if self._order_before is not None and self._order_before[0] == _order_terms(self.account):
            return self._order_before[1]
        orders = sound_orders(self.account.orders)
        if not all(order.price or order.trigger_price for order in orders or ()):
            return largest_opening_order(self.sound, self.rules)
        # without market orders, no price of a position is read that would have to be checked
        account = self.account if orders is self.account.orders else replace(self.account, orders=orders)
        return largest_opening_order(account, self.rules)

    def _known_order(self) -> tuple[object, tuple[float, float]] | None:
        """What `largest_order` was computed of, and its value; None if that was not read, or depends on prices."""
        known: tuple[float, float] | None = self.__dict__.get("largest_order")
        orders, own = self.account.orders, ("", self.account.currency)
        if known is None or orders is None:
            return None
        is_of_orders = all((it.price or it.trigger_price) and settlement(it.symbol) in own for it in orders)
        return (_order_terms(self.account), known) if is_of_orders else None

    # Prices

    def is_priced(self, as_of: int, stale_after: int | None) -> bool:
        """Whether its prices are of this snapshot: it was polled, is plausible, and fresh enough."""
        return self.positions_unusable is None and reason_stale(self.account, as_of, stale_after) is None

    def printed_at(self, row: PriceRow) -> int | None:
        """The venue time of the row's mark price (microseconds); None if the venue does not state it."""
        own = row.at if isinstance(row, WatchedPrice) else row.mark_at
        if own is not None:
            return to_micros(own)
        return self.marked_at if isinstance(row, Position) else None

    @computed_once
    def marked_at(self) -> int | None:
        """The venue time of the marks of positions without a time of their own (microseconds)."""
        return None if self.account.marked_at is None else to_micros(self.account.marked_at)

    @computed_once
    def watched(self) -> tuple[WatchedPrice, ...]:
        """The prices of the watch list with every insane number unknown; empty without one, and if it was not read."""
        return sound_watched(self.account.watched) or ()

    def priced(self, symbol: str) -> tuple[PriceRow, ...]:
        """The rows with prices of `symbol`: its positions, then the watch list."""
        found = self._priced.get(symbol)
        if found is None:
            watched = [each for each in self.watched if each.symbol == symbol]
            found = self._priced[symbol] = (*self.held.rows_of(symbol), *watched)
        return found

    @computed_once
    def _priced(self) -> dict[str, tuple[PriceRow, ...]]:
        return {}

    def lists(self, symbol: str) -> bool:
        """Whether a row has prices of `symbol`: that of a position, or of the watch list."""
        return bool(self.held.places_of(symbol)) or any(each.symbol == symbol for each in self.watched)

    # Changes

    def is_still_since(self, before: AccountFacts) -> bool:
        """Whether the positions are known to have the same sizes and entry prices, as after nearly every tick."""
        if self.account.positions is None or self.held.sizes is not before.held.sizes:
            return False
        return self.held is before.held or self.held.entries == before.held.entries

    def since(self, before: AccountFacts) -> AccountChange:
        """The change since the facts of an earlier snapshot of the account; one object for everything that asks."""
        if self._change is None or self._change.before is not before:
            before._change = None  # or each change would keep all earlier ones
            self._change = AccountChange(before, self)
        return self._change


def _order_terms(account: AccountSnapshot) -> object:
    """What decides the largest order of an account under the same rules, if all orders have a price."""
    return account.market, account.currency, account.position_mode, account.orders


class AccountChange:
    """The change of an account between two snapshots, with whatever is computed from both."""

    def __init__(self, before: AccountFacts, after: AccountFacts) -> None:
        self.before = before
        self.after = after
        self._computed: dict[Callable[..., Any], Any] = {}

    @computed_once
    def has_traded(self) -> bool:
        """Whether the contracts of a position differ, or the positions of either snapshot are unknown."""
        one, other = self.before.sizes, self.after.sizes
        return one is None or other is None or (one is not other and one != other)

    def once(self, compute: Callable[[AccountFacts, AccountFacts], T]) -> T:
        """`compute(before, after)`, which must depend on nothing else, computed once for this change."""
        if compute not in self._computed:
            self._computed[compute] = compute(self.before, self.after)
        found: T = self._computed[compute]
        return found


def holdings(account: AccountSnapshot) -> dict[str, tuple[Decimal, Decimal]]:
    """Asset → (amount, price) of every priced asset except the account's own currency.

    The amount excludes unrealised profit if the venue reports it separately. On a market of holdings, a position
    without a balance is a holding, too.
    """
    found: dict[str, tuple[Decimal, Decimal]] = {}
    for balance in account.balances or ():
        if balance.asset == account.currency or balance.price is None or not sane(balance.price):
            continue
        amount = balance.wallet if balance.wallet is not None else balance.equity
        amount = balance.amount if amount is None else amount
        if sane(amount):
            found[balance.asset] = (amount, balance.price)
    if account.market in HOLDINGS:
        held = {balance.asset for balance in account.balances or ()}
        for position in account.positions or ():
            asset = base_of(position.symbol)
            if asset not in held and position.mark_price is not None and sane(position.mark_price):
                amount, _ = found.get(asset, (ZERO, ZERO))
                found[asset] = (amount + position.contracts * sign(position), position.mark_price)
    return found


def single_wallet(account: AccountSnapshot) -> Decimal | None:
    """The wallet of an account that holds only its own currency; None for any other account, and if unknown."""
    if account.unrealized is None or account.balances is None or len(account.balances) != 1:
        return None
    balance = account.balances[0]
    known = balance.asset == account.currency and balance.wallet is not None and sane(balance.wallet)
    return balance.wallet if known else None


def wallets(account: AccountSnapshot) -> list[tuple[str, Decimal, Decimal]] | None:
    """(asset, wallet, price) of every balance if all of them and unrealised profit are reported, else None."""
    if not account.balances or account.unrealized is None:
        return None
    found = []
    for balance in account.balances:
        price = Decimal(1) if balance.asset == account.currency else balance.price
        if balance.wallet is None or price is None or not (sane(balance.wallet) and sane(price)):
            return None
        found.append((balance.asset, balance.wallet, price))
    return found


def holdings_value(account: AccountSnapshot) -> Decimal | None:
    """The value of all holdings, the account's own currency included; None if a price is unknown."""
    own = [each for each in account.balances or () if each.asset == account.currency]
    if any(each.price is None for each in account.balances or () if each.asset != account.currency and each.amount):
        return None
    cash = sum((each.amount if each.wallet is None else each.wallet for each in own), ZERO)
    return sum((amount * price for amount, price in holdings(account).values()), cash)


def wallets_value(account: AccountSnapshot) -> Decimal | None:
    """Σ w p of every balance, whether or not unrealised profit is reported; None if a wallet or price is unknown."""
    total = ZERO
    for balance in account.balances or ():
        price = Decimal(1) if balance.asset == account.currency else balance.price
        if balance.wallet is None or price is None or not (sane(balance.wallet) and sane(price)):
            return None
        total += balance.wallet * price
    return total if account.balances else None
