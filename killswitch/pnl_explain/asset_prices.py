"""Prices of an account's assets, including recently sold ones, whose rows may arrive later."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from msgspec import Struct

from killswitch.model.instant import HOUR
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot
from killswitch.valuation.position_measures import HOLDINGS, ZERO

KEPT = 48 * HOUR
"""How long the price of a sold asset is kept (microseconds)."""


class LastPrice(Struct, frozen=True, array_like=True):
    """The last price of an asset in the account's currency, and when it was last seen (microseconds)."""

    account: str
    asset: str
    price: Decimal
    at: int


class AssetPrices:
    """The prices of the assets of each account of a scope, in the account's currency."""

    def __init__(self) -> None:
        self._last: dict[str, AccountSnapshot] = {}
        self._names: dict[str, list[str]] = {}
        self._sold: dict[tuple[str, str], LastPrice] = {}

    def observe(self, account: AccountSnapshot, at: int) -> None:
        """Observe an account's next snapshot; assets that it no longer prices keep their last price."""
        if account.quality != "ok" or account.balances is None:
            return
        name, names = account.account, _names(account)
        if name in self._last and names != self._names[name]:
            present = dict(_prices(account))
            for asset, price in _prices(self._last[name]):
                if asset not in present:
                    self._sold[name, asset] = LastPrice(name, asset, price, at)
            self._sold = {key: each for key, each in self._sold.items() if each.at >= at - KEPT}
        self._last[name], self._names[name] = account, names

    def last(self, account: str) -> AccountSnapshot | None:
        """The last observed snapshot of an account."""
        return self._last.get(account)

    def price(self, account: AccountSnapshot, asset: str) -> Decimal | None:
        """The price of an asset: from the account's current or last holding, else from a market or a rate."""
        last = self._last.get(account.account)
        for snapshot in (account, last):
            found = None if snapshot is None else next((it for name, it in _prices(snapshot) if name == asset), None)
            if found is not None:
                return found
        sold = self._sold.get((account.account, asset))
        return next(_by_markets(account, asset), None) if sold is None else sold.price

    def amount(self, account: AccountSnapshot, amount: Decimal, currency: str | None) -> Decimal | None:
        """`amount` of `currency` in the account's currency; None if the price is unknown or the amount is invalid."""
        if currency is None or not sane(amount):
            return None
        price = Decimal(1) if currency == account.currency else self.price(account, currency)
        found = None if price is None else amount * price
        return found if found is not None and sane(found) else None

    def state(self, at: int | None) -> list[LastPrice]:
        """The state to store; `at` is the time of the current prices."""
        present = {
            (name, asset): LastPrice(name, asset, price, at or 0)
            for name, account in self._last.items()
            for asset, price in _prices(account)
        }
        return [*(self._sold | present).values()]

    def restore(self, state: list[LastPrice]) -> None:
        """Restore stored prices."""
        self._sold = {(each.account, each.asset): each for each in state}


def _names(account: AccountSnapshot) -> list[str]:
    """The names of the assets that the account prices, for comparison with the last snapshot."""
    names = [balance.asset for balance in account.balances or () if balance.price is not None]
    if account.market in HOLDINGS:
        names += [position.symbol for position in account.positions or ()]
    return names


def _prices(account: AccountSnapshot) -> Iterator[tuple[str, Decimal]]:
    """(asset, price) of every asset held, except the account's own currency."""
    for balance in account.balances or ():
        if balance.asset != account.currency and balance.price is not None and _is_price(balance.price):
            yield balance.asset, balance.price
    if account.market in HOLDINGS:
        for position in account.positions or ():
            if position.mark_price is not None and _is_price(position.mark_price):
                yield position.symbol.replace("_", "/").partition("/")[0], position.mark_price


def _by_markets(account: AccountSnapshot, asset: str) -> Iterator[Decimal]:
    """Prices of an asset by markets against the account's currency, and by the venue's rates."""
    marks = [(mark.symbol, mark.mark_price) for mark in account.marks or ()]
    marks += [(it.symbol, it.mark_price) for it in account.positions or () if it.mark_price is not None]
    for symbol, mark in marks:
        base, _, quote = symbol.partition(":")[0].partition("/")
        if (base, quote) == (asset, account.currency) and _is_price(mark):
            yield mark
    for rate in account.rates or ():
        if rate.currency == asset and _is_price(rate.price):
            yield 1 / rate.price


def _is_price(price: Decimal) -> bool:
    return sane(price) and price > ZERO
