"""What an asset is worth in another, as far as a snapshot tells: for sizes on markets that hold no position."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.planning.ranking import Candidate
from killswitch.planning.routes import base_of, quote_of
from killswitch.signals.position import ZERO
from killswitch.signals.view import ScopeView

_Rows = dict[tuple[str, str], list[Position]]


@dataclass(frozen=True, slots=True)
class Holdings:
    """The positions of a scope's spot accounts, found by (account, symbol) and by (account, base asset)."""

    by_symbol: _Rows = field(default_factory=dict)
    by_asset: _Rows = field(default_factory=dict)

    @classmethod
    def of(cls, view: ScopeView) -> Holdings:
        """Looked through once: a decision asks for each of its positions."""
        found = cls()
        if any(account.market == "spot" for account in view.accounts):
            for account, position in view.positions():
                found.by_symbol.setdefault((account.account, position.symbol), []).append(position)
                found.by_asset.setdefault((account.account, base_of(position.symbol)), []).append(position)
        return found

    def under(self, account: str, symbol: str) -> list[Position]:
        """What the account holds under the symbol."""
        return self.by_symbol.get((account, symbol), [])

    def of_asset(self, account: str, asset: str) -> list[Position]:
        """What the account holds of the asset, under whatever symbols."""
        return self.by_asset.get((account, asset), [])


def price_of(candidate: Candidate, symbol: str, holdings: Holdings) -> Decimal | None:
    """The price of the holding on the market `symbol`, in that market's quote; None where nothing tells it.

    Its own mark where that is the market, else its worth against that of the quote.
    """
    position, account = candidate.position, candidate.account
    if symbol == position.symbol and position.mark_price is not None:
        return position.mark_price
    quote = quote_of(symbol)
    unit = None if quote is None else worth_of(quote, account, holdings)
    if unit is None or not unit or candidate.worth is None or not position.contracts:
        return None
    if position.notional is None and quote_of(position.symbol) not in (None, account.currency):
        return None  # its worth was taken from a mark in another currency
    return candidate.worth / position.contracts / unit


def worth_of(asset: str, account: AccountSnapshot, holdings: Holdings) -> Decimal | None:
    """What one unit of `asset` is worth in the account's currency; None where the account does not tell.

    A stable coin that is not the account's own currency is worth what the account says, and not simply 1.
    """
    if asset == account.currency:
        return Decimal(1)
    for position in holdings.of_asset(account.account, asset):
        if quote_of(position.symbol) == account.currency and position.mark_price is not None:
            return position.mark_price
    told = (each.price for each in account.balances or () if each.asset == asset and each.price is not None)
    return next((price for price in told if sane(price) and price > ZERO), None)


def held(symbol: str, account: AccountSnapshot, holdings: Holdings) -> Decimal:
    """How much the account holds under `symbol`; 0 where no position is listed: that is how closing reads it too."""
    return sum((position.contracts for position in holdings.under(account.account, symbol)), ZERO)
