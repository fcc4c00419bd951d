"""The generic dialect of an exchange, by ccxt's unified calls. `venues/` overrides what differs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from killswitch.model.inspection import KeyRights
from killswitch.model.parsing import Row, UnreadableError, decimal
from killswitch.model.snapshot import Fill, Flow, Order, Position
from killswitch.model.venue import (
    AccountSpec,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    VenueDownError,
    VenueError,
)
from killswitch_ccxt import fills, orders, positions
from killswitch_ccxt.answers import NoSuchSymbolError
from killswitch_ccxt.client import Client
from killswitch_ccxt.equity import AccountEquity, in_one_currency
from killswitch_ccxt.errors import GoneError
from killswitch_ccxt.holdings import Prices, ValuationInputs, holdings
from killswitch_ccxt.instruments import Quote, States, marks_of, quotes, valuation_price
from killswitch_ccxt.traits import Exchange
from killswitch_ccxt.unpriced import LastPrices

PositionMode = Literal["one_way", "hedge"]
BatchResults = Sequence[OrderReport | VenueError]
"""The result of each order of a batch, in order."""
LONGEST_WINDOW: Final = 60_000
"""The longest window of a request that any venue accepts, in milliseconds."""


def mode_of(is_hedged: bool | None) -> PositionMode | None:
    """The position mode by a venue's flag; None where the flag is unknown."""
    return None if is_hedged is None else "hedge" if is_hedged else "one_way"


def is_stop(request: OrderRequest) -> bool:
    """Whether a conditional order is a stop and no take-profit: it sells on a fall or buys on a rise."""
    return (request.side == "sell") is (request.trigger_when == "falls")


class Dialect(Exchange):
    """The requests and answers of one account at its exchange. Class attributes are data; each method does one request.

    Every method may raise a VenueError, and UnreadableError for an answer that cannot be parsed.
    """

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        self.client = client
        self.spec = spec
        self._holdings: tuple[str, ...] = ()
        """Symbols that a spot account held at the last snapshot."""
        self._corrected_rules: tuple[Mapping[str, Row] | None, Mapping[str, Row]] = (None, {})
        """ccxt's markets that were corrected last, and the result."""
        self._last_prices = LastPrices()

    def concerns(self, rule: Row) -> bool:
        """Whether this account may hold a market of the venue."""
        # One account holds perpetual and dated contracts, whichever of the two its document names.
        return any(rule.get(kind) for kind in (("spot",) if self.is_spot else ("swap", "future")))

    @property
    def is_spot(self) -> bool:
        """Whether the account holds assets and no contracts: a spot or a margin account."""
        return self.spec.market in ("spot", "margin")

    @property
    def rules(self) -> Mapping[str, Row]:
        """ccxt's markets by symbol, each as `corrected_rule` returns it. They are loaded before any other request."""
        markets: Mapping[str, Row] = self.client.ccxt.markets or {}
        if markets is not self._corrected_rules[0]:
            self._corrected_rules = markets, {symbol: self.corrected_rule(rule) for symbol, rule in markets.items()}
        return self._corrected_rules[1]

    def corrected_rule(self, rule: Row) -> Row:
        """One of ccxt's markets, corrected where ccxt parses it wrongly or leaves something out."""
        return rule

    def id_of(self, symbol: str) -> str:
        """The venue's name of a symbol. NoSuchSymbolError where the rules do not have it."""
        if symbol not in self.rules:
            raise NoSuchSymbolError(f"the venue's rules have no {symbol}")
        return str(self.rules[symbol]["id"])

    def rule_of(self, name: object) -> Any:
        """ccxt's market for the venue's name of a symbol, among those that are `is_ours`. NoSuchSymbolError where there
        is none."""
        known = (self.client.ccxt.markets_by_id or {}).get(str(name)) or ()
        found = next((rule for rule in known if self.is_ours(rule)), None)
        if found is None:
            raise NoSuchSymbolError(f"the venue's rules have no {name}")
        return found

    def is_ours(self, rule: Row) -> bool:
        """Whether a row of this account can refer to a market, where several markets have the same name."""
        return True

    def symbol_of(self, name: object) -> str:
        """ccxt's symbol for the venue's name of it. NoSuchSymbolError where the rules do not have it."""
        return str(self.rule_of(name)["symbol"])

    def order_of(self, row: Row) -> Row:
        """The order of one of the venue's own rows, under ccxt's names."""
        return self.refine_order(self.client.ccxt.parse_order(dict(row), self.rule_of(row.get("symbol"))))

    def fills_of(self, rows: Iterable[Row]) -> tuple[Fill, ...]:
        """The fills of the venue's own rows."""
        trades = (self.client.ccxt.parse_trade(row, self.rule_of(row.get("symbol"))) for row in rows)
        return fills.fills(trades, self.refine_fill)

    # Reading

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

    async def orders(self) -> tuple[Order, ...]:
        """All open orders, conditional ones included."""
        return orders.open_orders(map(self.refine_order, await self.client.call("fetch_open_orders")))

    def refine_order(self, row: Row) -> Row:
        """ccxt's order, with fields of the venue's own row under ccxt's names."""
        return row

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        """Fills from `since` (UTC ms) on; of `symbols` only, where the venue requires symbols."""
        requested = symbols if self.fills_need_symbol else (None,)
        answers = await asyncio.gather(*(self.client.call("fetch_my_trades", symbol, since) for symbol in requested))
        return fills.fills((row for rows in answers for row in rows), self.refine_fill)

    def refine_fill(self, fill: Fill, info: Row) -> Fill:
        """Add what only the venue's own row states: realised profit, cause, position side."""
        return fill

    def latest_trades(self) -> Mapping[str, datetime]:
        """Symbol → its latest trade in the ledger that `flows` fetched last, where `has_trades_in_flows`."""
        return {}

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        """Deposits, withdrawals and other flows from `since` (UTC ms) on; None where the venue does not list them."""
        has = self.client.ccxt.has
        if has.get("fetchLedger"):
            return fills.flows(await self.client.call("fetch_ledger", None, since))
        if has.get("fetchDeposits") and has.get("fetchWithdrawals"):
            methods = ("fetch_deposits", "fetch_withdrawals")
            deposits, withdrawals = await asyncio.gather(*(self.client.call(method, None, since) for method in methods))
            return fills.completed_moves(deposits, "deposit", 1) + fills.completed_moves(withdrawals, "withdrawal", -1)
        return None

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Best prices, last and index price of `symbols`, as far as the venue states them."""
        if not symbols:
            return {}
        return quotes(await self.client.call("fetch_tickers", list(symbols)))

    async def prices(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Mark, index and last price of `symbols` at one moment: all requests are concurrent, and nothing is cached."""
        return await self.quotes(symbols)

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

    async def position_mode(self) -> PositionMode | None:
        """The position mode of the account; None where the venue does not state it."""
        if not self.has_hedge_mode:
            return "one_way"
        mode = await self.client.call("fetch_position_mode")
        return mode_of(mode.get("hedged"))

    async def call_all(self, *requests: tuple[str, Row]) -> list[Any]:
        """The answers to several concurrent requests, each a method and its params."""
        return await asyncio.gather(*(self.client.call(method, params) for method, params in requests))

    # Orders

    def order_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """ccxt's params of an order. In hedge mode the position side replaces reduce-only."""
        params: dict[str, Any] = {"clientOrderId": request.client_order_id}
        if request.reduce_only and not self.is_spot:
            params["reduceOnly"] = True
        if request.time_in_force == "ioc":
            params["timeInForce"] = "IOC"
        if request.trigger_price is not None:
            # As text: ccxt ignores a Decimal here, and the stop would be sent as a market order.
            params["triggerPrice"] = format(request.trigger_price, "f")
        if mode == "hedge":
            params |= {"hedged": True, "positionSide": request.position_side.upper()}
        return params

    def create_arguments(self, request: OrderRequest, mode: PositionMode) -> tuple[Any, ...]:
        """The arguments of ccxt's create_order. OrderRejectedError where the venue's steps would change a number.

        Numbers are exact by the venue's rules at this point; ccxt would silently truncate others.
        """
        ccxt, symbol, requested = self.client.ccxt, request.symbol, request.amount
        if symbol not in self.rules:
            raise OrderRejectedError("market_closed", f"the venue's rules have no {symbol}")
        try:
            written = decimal(ccxt.amount_to_precision(symbol, requested))
        except Exception as error:  # ccxt's InvalidOrder, for an amount that rounds to zero
            raise OrderRejectedError("below_minimum", f"{requested} {symbol}: {error}") from error
        if written != requested:
            raise OrderRejectedError(
                "other", f"the venue's step would change the amount {requested} {symbol} to {written}"
            )
        if request.price is not None and decimal(ccxt.price_to_precision(symbol, request.price)) != request.price:
            raise OrderRejectedError(
                "other", f"{request.price} is no valid price of {symbol}: it is not a multiple of the price step"
            )
        return (symbol, request.type, request.side, requested, request.price, self.order_params(request, mode))

    def window_of(self, *requests: OrderRequest) -> dict[str, int]:
        """`recvWindow` for orders: counted from their timestamp, it ends with their validity at the venue.

        With a clock that is behind, the venue would refuse them at once; with one that is ahead, they would live
        longer.
        """
        wanted = [request.valid_for for request in requests if request.valid_for is not None]
        if not wanted:
            return {}
        return {"recvWindow": min(LONGEST_WINDOW, max(1, round(min(wanted) * 1000 + self.client.unadjusted_ms)))}

    def deadline_of(self, *requests: OrderRequest) -> int | None:
        """The venue's time (ms) from which on it must refuse the orders; None where they have no limit."""
        wanted = [request.valid_for for request in requests if request.valid_for is not None]
        if not wanted:
            return None
        now = self.client.venue_time(self.client.now_ms())
        return int((now.timestamp() + min(wanted)) * 1000)

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        """Send one order, once."""
        row = await self.client.call("create_order", *self.create_arguments(request, mode), places=True)
        return self.accepted_report(row, request)

    def accepted_report(self, row: Row, request: OrderRequest) -> OrderReport:
        """The report of an order that was sent, by its row under ccxt's names.

        UnreadableError where the answer is about another order.
        """
        name, sent = row.get("clientOrderId"), request.client_order_id
        if name not in (sent, None, ""):
            raise UnreadableError(f"sent order {sent}, the answer is about {name}")
        complete = {**row, "clientOrderId": sent, "amount": request.amount}
        return orders.report(complete, request.symbol, self.spec.currency)

    async def submit_batch(self, requests: Sequence[OrderRequest], mode: PositionMode) -> BatchResults:
        """Send several orders in one request."""
        raise VenueDownError(f"{self.exchange} accepts no batches of orders")

    async def close_book(self) -> None:
        """Ask the venue to close every position."""
        raise VenueDownError(f"{self.exchange} does not close a whole book")

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """ccxt's order with this client id, open or not; None only if the venue states that it has none."""
        try:
            row: Row = await self.client.call("fetch_order", None, symbol, {"clientOrderId": client_order_id})
        except GoneError:
            return None
        return row

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        """The fills of one order."""
        rows = await self.client.call("fetch_my_trades", symbol, None, None, {"orderId": order_id})
        return fills.fills_of_order(fills.fills(rows, self.refine_fill), order_id)

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        """Cancel one order. GoneError where it no longer exists."""
        params = {"trigger": True} if conditional else {}
        await self.client.call("cancel_order", order_id, symbol, params, changes=True)

    async def arm_dead_man(self, seconds: float, symbols: Collection[str]) -> None:
        """Start or renew the venue's timer."""
        await self.client.call("cancel_all_orders_after", int(seconds * 1000), changes=True)

    async def disarm_dead_man(self, symbols: Collection[str]) -> None:
        """Stop the venue's timer."""
        await self.client.call("cancel_all_orders_after", 0, changes=True)

    # Streams

    async def watch(self, method: str) -> None:
        """Wait for the next message of a stream. `method`: ccxt's."""
        await self.client.call(method)

    @classmethod
    def refusal_of(cls, message: Any) -> VenueError | None:
        """The error of a stream message that is a refusal, where ccxt would wait on; None for every other message."""
        return None

    # Inspection

    async def rights(self) -> KeyRights:
        """What the credentials may do."""
        return KeyRights(note=self.rights_note)

    async def status(self) -> str | None:
        """`ok`, or the venue's own text; None where it states no status."""
        if not self.client.ccxt.has.get("fetchStatus"):
            return None
        return str((await self.client.call("fetch_status")).get("status"))

    async def margin_mode(self) -> str | None:
        """`cross` or `isolated`, where the account has one mode for all positions."""
        return None
