"""Collateral: assets in an account's balances that are no position, whose prices move its equity.

A stable coin or a coin in a futures account has no mark that could be held against an index. Its price is corroborated
by the venue's index of it, or by its last trades against the account's currency.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Balance
from killswitch.model.venue import Prices
from killswitch.valuation.position_measures import HOLDINGS, ZERO, base_of


def collateral(account: AccountSnapshot) -> tuple[Balance, ...]:
    """The balances with a price that are neither the account's currency nor holdings among its positions."""
    held = {base_of(it.symbol) for it in account.positions or ()} if account.market in HOLDINGS else set()
    return tuple(
        it
        for it in account.balances or ()
        if it.asset != account.currency
        and it.asset not in held
        and it.price is not None
        and sane(it.price)
        and it.price > ZERO
    )


def market_of(asset: str, account: AccountSnapshot) -> str:
    """The symbol by which the price of an asset in the account's currency is fetched."""
    return f"{asset}/{account.currency}"


def collateral_symbols(account: AccountSnapshot) -> frozenset[str]:
    """The symbols by which prices of the account's collateral are fetched."""
    return frozenset(market_of(it.asset, account) for it in collateral(account))


def at_prices(account: AccountSnapshot, prices: Mapping[str, Decimal]) -> AccountSnapshot | None:
    """The account with collateral at other prices, asset → price; its equity follows. None if that is unknown."""
    equity, balances = account.equity, []
    for it in account.balances or ():
        price = prices.get(it.asset)
        if price is None or it.price is None or price == it.price:
            balances.append(it)
            continue
        if equity is None:
            return None
        wallet = it.wallet if it.wallet is not None else it.equity
        equity += (it.amount if wallet is None else wallet) * (price - it.price)
        balances.append(replace(it, price=price))
    return replace(account, equity=equity, balances=tuple(balances)) if prices else account


def with_holding_prices(account: AccountSnapshot, before: AccountSnapshot) -> AccountSnapshot:
    """The account, whose positions have other marks than `before`, with the balances that are the same holdings moved
    in the same proportion. The equity has these moves already."""
    if account.market not in HOLDINGS or account.balances is None:
        return account
    pairs = zip(account.positions or (), before.positions or (), strict=True)
    moved = {
        base_of(it.symbol): it.mark_price / old.mark_price
        for it, old in pairs
        if it.mark_price is not None and old.mark_price and it.mark_price != old.mark_price
    }
    balances = tuple(
        it if it.price is None or it.asset not in moved else replace(it, price=it.price * moved[it.asset])
        for it in account.balances
    )
    return replace(account, balances=balances) if moved else account


def fetched_marks(account: AccountSnapshot, prices: Mapping[str, Prices]) -> dict[str, Decimal]:
    """Asset → the fetched price that values it, for collateral that has one."""
    found = ((it.asset, prices.get(market_of(it.asset, account))) for it in collateral(account))
    return {asset: each.mark for asset, each in found if each is not None and each.mark is not None}


def fetched_references(account: AccountSnapshot, prices: Mapping[str, Prices]) -> dict[str, Decimal]:
    """Asset → its fetched index, or its last price without one, for collateral that has one of the two."""
    found = {}
    for it in collateral(account):
        each = prices.get(market_of(it.asset, account), Prices())
        reference = each.index if each.index is not None else each.last
        if reference is not None and reference > ZERO:
            found[it.asset] = reference
    return found
