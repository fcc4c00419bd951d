"""What is quoted in something else than the account's currency: X/BTC in an account that counts in USDT."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from killswitch.market.account import PaperAccount
from killswitch.market.holding import ZERO
from killswitch.market.instruments import base_asset, quote_asset
from killswitch.market.tape import Tape
from killswitch.model.snapshot import Rate


class Quotes:
    """Finds the market that turns a quote asset into the account's currency.

    Only cash accounts have such: what a sale brings is a holding of the quote asset. Where there is no market between
    the two, the quote counts as the currency itself (a book in USD with symbols in USDT).
    """

    def __init__(self, tapes: Mapping[str, Tape]) -> None:
        self._tapes = tapes
        spot = (symbol for symbol in tapes if ":" not in symbol)
        self._markets = {(base_asset(symbol), quote_asset(symbol)): tapes[symbol] for symbol in spot}

    def bridge(self, account: PaperAccount, symbol: str) -> Tape | None:
        """The market of the symbol's quote asset against the account's currency; None where none is needed."""
        if not account.is_cash:
            return None
        quote = quote_asset(symbol)
        return None if quote in {None, account.currency} else self._markets.get((quote or "", account.currency))

    def price(self, account: PaperAccount, symbol: str) -> Decimal:
        """The last price in the account's currency; zero where there is none yet."""
        last = self._tapes[symbol].last or ZERO
        bridge = self.bridge(account, symbol)
        return last if bridge is None else last * (bridge.last or ZERO)

    def market_of(self, asset: str, account: PaperAccount) -> str | None:
        """The symbol under which a cash account holds an asset; None where it cannot."""
        if not account.is_cash:
            return None
        tape = self._markets.get((asset, account.currency)) or self._markets.get((asset, None))
        return None if tape is None else account.held_as(tape.instrument.symbol)

    def rates(self, currency: str) -> tuple[Rate, ...]:
        """What one unit of a currency costs in others, as the spot markets here price it."""
        found = ((quote, tape.last) for (base, quote), tape in self._markets.items() if base == currency)
        return tuple(Rate(quote, last) for quote, last in found if quote is not None and last)

    def prices(self, account: PaperAccount) -> dict[str, Decimal]:
        """`price` of everything that is held."""
        if not account.is_cash:  # the usual case, once for every snapshot
            return {held.symbol: self._tapes[held.symbol].last or ZERO for held in account.holdings.values()}
        return {symbol: self.price(account, symbol) for symbol in account.holdings}  # a cash account's keys
