"""Prices at Deribit: the index of currencies, and quotes by currency or by symbol."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from killswitch.model.parsing import Row, instant, positive, rows_at, value_at
from killswitch.model.venue import VenueDownError
from killswitch_ccxt.answers import answered
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.instruments import Quote, quote_of

MOST_TICKERS: Final = 5
"""Most symbols whose prices are requested one by one."""


class DeribitPriceDialect(Dialect):
    """The part of Deribit's dialect that reads prices."""

    async def indexes(self, currencies: Collection[str]) -> dict[str, Decimal]:
        """Currency → Deribit's index price of it in USD, for currencies that have one.

        VenueDownError without that of the account's currency.
        """

        async def index_price(currency: str) -> Decimal | None:
            if currency == "USD":
                return Decimal(1)
            try:
                answer = await self.client.call("public_get_get_index_price", {"index_name": f"{currency.lower()}_usd"})
            except VenueDownError:
                if currency == self.spec.currency:
                    raise
                return None  # without the index, Deribit's own total is the equity
            return positive(value_at(answer, "result", "index_price"))

        names = sorted(currencies)
        found = await asyncio.gather(*map(index_price, names))
        return {name: price for name, price in zip(names, found, strict=True) if price is not None}

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Prices by one request for each currency in which the symbols settle."""
        wanted = {str(self.rules[symbol]["id"]): symbol for symbol in symbols}
        currencies = sorted({str(self.rules[symbol].get("settle")) for symbol in symbols})
        method = "public_get_get_book_summary_by_currency"
        answers = await self.call_all(*((method, {"currency": currency}) for currency in currencies))
        rows = [row for it in answers for row in rows_at(it, "result", what="the answer about prices")]
        return {
            symbol: self._quote(symbol, row, "bid_price", "ask_price", "last", "creation_timestamp")
            for row in rows
            if (symbol := wanted.get(str(row.get("instrument_name")))) is not None
        }

    async def prices(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Prices with the index of each symbol by its own request; for many symbols, prices without it by currency."""
        if len(symbols) > MOST_TICKERS:
            return await self.quotes(symbols)
        queries = (("public_get_ticker", {"instrument_name": self.rules[it]["id"]}) for it in symbols)
        answers = await self.call_all(*queries)
        return {
            symbol: self._ticker(symbol, result)
            for symbol, answer in zip(symbols, answers, strict=True)
            if isinstance(result := answer.get("result"), Mapping)
        }

    async def watched(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Prices without the index, which would take a request for each symbol; with it, and with the price limits, the
        first few of the watch list."""
        names = {str(self.rules[it]["id"]): it for it in self.spec.watch[:MOST_TICKERS] if it in symbols}
        tickers = [self.client.call("public_get_ticker", {"instrument_name": name}) for name in names]
        found, answers = await asyncio.gather(self.quotes(symbols), answered(tickers))
        rows = [row for it in answers if isinstance(row := it.get("result"), Mapping)]
        own = {it: row for row in rows if (it := names.get(str(row.get("instrument_name")))) is not None}
        return {**found, **{symbol: self._ticker(symbol, row) for symbol, row in own.items()}}

    async def asset_prices(self, assets: Sequence[str]) -> Mapping[str, Quote]:
        """Deribit's index, which values the currencies of an account with cross collateral, read again."""
        dollars = await self.indexes({*assets, self.spec.currency})
        own = dollars.get(self.spec.currency)
        prices = {it: dollars[it] / own for it in assets if it in dollars} if own else {}
        return {it: Quote(index=price, mark=price) for it, price in prices.items()}

    def _ticker(self, symbol: str, row: Row) -> Quote:
        """The quote of a ticker. Deribit clamps a sale below `min_price`, and a purchase above `max_price`, to it."""
        found = self._quote(symbol, row, "best_bid_price", "best_ask_price", "last_price", "timestamp")
        return replace(found, lowest=positive(row.get("min_price")), highest=positive(row.get("max_price")))

    def _quote(self, symbol: str, row: Row, bid: str, ask: str, last: str, at: str) -> Quote:
        """A quote without the last price of an option, which may be hours old: Deribit does not state its time."""
        last = "-" if self.rules[symbol].get("option") else last
        return quote_of(row, f"{bid} {ask} {last} index_price mark_price", instant(row.get(at)))
