"""What an asset is worth in another, as far as a snapshot tells: for sizes on markets that hold no position."""

from __future__ import annotations

from decimal import Decimal

from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.ranking import Candidate
from killswitch.planning.routes import base_of, quote_of
from killswitch.signals.position import ZERO
from killswitch.signals.soundness import sane
from killswitch.signals.view import ScopeView


def price_of(candidate: Candidate, symbol: str, view: ScopeView) -> Decimal | None:
    """The price of the holding on the market `symbol`, in that market's quote; None where nothing tells it.

    Its own mark where that is the market, else its worth against that of the quote.
    """
    position, account = candidate.position, candidate.account
    if symbol == position.symbol and position.mark_price is not None:
        return position.mark_price
    quote = quote_of(symbol)
    unit = None if quote is None else worth_of(quote, account, view)
    if unit is None or not unit or candidate.worth is None or not position.contracts:
        return None
    if position.notional is None and quote_of(position.symbol) not in (None, account.currency):
        return None  # its worth was taken from a mark in another currency
    return candidate.worth / position.contracts / unit


def worth_of(asset: str, account: AccountSnapshot, view: ScopeView) -> Decimal | None:
    """What one unit of `asset` is worth in the account's currency; None where the account does not tell.

    A stable coin that is not the account's own currency is worth what the account says, and not simply 1.
    """
    if asset == account.currency:
        return Decimal(1)
    for holder, position in view.positions():
        if (
            holder.account == account.account
            and base_of(position.symbol) == asset
            and quote_of(position.symbol) == account.currency
            and position.mark_price is not None
        ):
            return position.mark_price
    told = (each.price for each in account.balances or () if each.asset == asset and each.price is not None)
    return next((price for price in told if sane(price) and price > ZERO), None)


def held(symbol: str, account: AccountSnapshot, view: ScopeView) -> Decimal:
    """How much the account holds under `symbol`; 0 where no position is listed: that is how closing reads it too."""
    rows = [
        position.contracts
        for holder, position in view.positions()
        if holder.account == account.account and position.symbol == symbol
    ]
    return sum(rows, ZERO)
