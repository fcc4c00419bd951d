"""What a dialect reads for a snapshot: equity, positions, orders, rows and prices."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from killswitch.model.parsing import Row
from killswitch.model.snapshot import Fill, Flow, LimitUse, Order, Position, Withdrawals
from killswitch.model.venue import AccountSpec
from killswitch_ccxt import positions
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect.core import DialectCore
from killswitch_ccxt.equity import AccountEquity, in_one_currency
from killswitch_ccxt.holdings import Prices, ValuationInputs, holdings
from killswitch_ccxt.instruments import Quote, States, marks_of, quotes, valuation_price
from killswitch_ccxt.unpriced import LastPrices

PositionMode = Literal["one_way", "hedge"]


def mode_of(is_hedged: bool | None) -> PositionMode | None:
    """The position mode by a venue's flag; None where the flag is unknown."""
    return None if is_hedged is None else "hedge" if is_hedged else "one_way"


class AccountReads(DialectCore):
    """The requests of a snapshot. A list of orders, fills or flows is different at every venue, and has no default."""

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._holdings: tuple[str, ...] = ()
        """Symbols that a spot account held at the last snapshot."""
        self._last_prices = LastPrices()

    @abstractmethod
    async def orders(self) -> tuple[Order, ...]:
        """All open orders, conditional ones included."""

    @abstractmethod
    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        """Fills from `since` (UTC ms) on; of `symbols` only, where the venue requires symbols."""

    @abstractmethod
    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        """Deposits, withdrawals and other flows from `since` (UTC ms) on; None where the venue does not list them."""

    async def account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        """Equity with its parts, and positions, as close to one moment as the venue allows.

        Prices of collateral are fetched together with them, never kept from an earlier snapshot.
        """
        if self.is_spot:
            return await self.spot_account()
        account_equity, found = await asyncio.gather(self.equity(), self.positions())
        return account_equity, found

    async def equity(self) -> AccountEquity:
        """The equity of a derivatives account, with its parts."""
        return in_one_currency(await self.client.call("fetch_balance"), self.spec.currency)

    async def equity_alone(self) -> AccountEquity | None:
        """Equity while positions cannot be fetched; None where the venue returns both in one answer."""
        return None if self.is_spot else await self.equity()

    async def positions(self) -> tuple[Position, ...]:
        """All open positions of a derivatives account."""
        rows = await self.client.call("fetch_positions")
        found = positions.positions(rows, self.rules, self.refine_position)
        return tuple(map(self._in_account_currency, found))

    def _in_account_currency(self, position: Position) -> Position:
        """The position without the amounts that ccxt states in another coin than the account's currency: they are
        unknown."""
        if positions.in_currency(self.rules[position.symbol], self.spec.currency):
            return position
        return positions.converted(position, None)

    async def spot_account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        """The balances of a spot account, as positions with prices."""
        return await self.value_spot_account(self.client.call("fetch_balance"))

    async def value_spot_account(self, balance: Awaitable[Row]) -> tuple[AccountEquity, tuple[Position, ...]]:
        """Equity and positions of a spot account; prices of the holdings of the last snapshot are fetched together with
        the balance."""
        known = tuple(symbol for symbol in self._holdings if symbol in self.rules)
        prices: Mapping[str, Quote] = {}
        if known:
            answer, prices = await asyncio.gather(balance, self.last_prices(known))
        else:
            answer = await balance

        async def of(symbols: Sequence[str]) -> Mapping[str, Quote]:
            return prices if set(symbols) <= set(known) else await self.last_prices(symbols)

        found = await holdings(answer, self.spec, self.valuation_inputs(of))
        self._holdings = tuple(position.symbol for position in found[1])
        return found

    def valuation_inputs(self, prices: Prices) -> ValuationInputs:
        """What spot holdings are valued by."""
        return ValuationInputs(self.rules, prices, self._last_prices, self.client.now())

    async def last_prices(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """The prices that value spot holdings."""
        return await self.quotes(symbols)

    def refine_position(self, position: Position, info: Row) -> Position:
        """Add what only the venue's own row states."""
        return position

    def latest_trades(self) -> Mapping[str, datetime]:
        """Symbol → its latest trade in the ledger that `flows` fetched last, where `has_trades_in_flows`."""
        return {}

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Best prices, last and index price of `symbols`, as far as the venue states them."""
        if not symbols:
            return {}
        return quotes(await self.client.call("fetch_tickers", list(symbols)))

    async def prices(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Mark, index and last price of `symbols` at one moment: all requests are concurrent, and nothing is cached."""
        return await self.quotes(symbols)

    async def watched(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Mark, index, last and best prices of held and watched `symbols`, in as few requests as the venue allows."""
        return await self.prices(symbols)

    async def asset_prices(self, assets: Sequence[str]) -> Mapping[str, Quote]:
        """Asset → its prices in the account's currency, for assets in the balances that are no position; only those
        that have one."""
        return {}

    async def marks(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
        """Mark prices of a few `symbols` that are no longer held, by the cheapest request that returns them.

        On spot it is the last price, which also values the holdings.
        """
        found = await self.prices(symbols)
        if not self.is_spot:
            return marks_of(found)
        prices = {symbol: valuation_price(quote) for symbol, quote in found.items()}
        return {symbol: price for symbol, price in prices.items() if price is not None}

    async def states(self) -> States:
        """States of instruments beyond ccxt's open and halted: a venue in `cancel_only`, a symbol in `reduce_only`."""
        return {} if self.instrument_states is None else self.instrument_states.read(self.rules)

    @property
    def states_withdrawals(self) -> bool:
        """Whether a request states which coins can be withdrawn; test systems have none."""
        return self.coin_list is not None and self.spec.environment == "production"

    async def withdrawals(self, assets: Collection[str]) -> tuple[Withdrawals, ...] | None:
        """Which of `assets` cannot be withdrawn, as far as the venue states it.

        None if it states neither that one of them cannot, nor anything about the account's currency.
        """
        coins = self.coin_list
        if coins is None:
            return None
        answer = await self.client.call(coins.method)
        found = coins.read(answer, self.client.ccxt.safe_currency_code, assets)
        is_stated = any(it.suspended or it.asset == self.spec.currency for it in found)
        return found if is_stated else None

    async def own_limits(self) -> tuple[LimitUse, ...]:
        """The use of limits that only a request of its own states, every `ages.limits`."""
        return ()

    async def position_mode(self) -> PositionMode | None:
        """The position mode of the account; None where the venue does not state it."""
        if not self.has_hedge_mode:
            return "one_way"
        mode = await self.client.call("fetch_position_mode")
        return mode_of(mode.get("hedged"))
