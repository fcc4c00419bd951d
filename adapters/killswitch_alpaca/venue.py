"""One account at Alpaca as a VenueAdapter. `errors` and `client` define what a failed call means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from urllib.parse import quote

from killswitch.model.inspection import Inspection, KeyRights
from killswitch.model.parsing import Row, UnreadableError, object_at
from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import (
    MalformedAnswerError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    Prices,
    Push,
    VenueAdapter,
    VenueDownError,
    VenueError,
)
from killswitch_alpaca.client import Client, has_no_such_order
from killswitch_alpaca.errors import as_venue_error, refusal_meaning
from killswitch_alpaca.hours import Session
from killswitch_alpaca.http import RefusedAnswerError
from killswitch_alpaca.inspection import COUNTED, FIFTHS, traits_for
from killswitch_alpaca.order_requests import bounding_price, order_body, send_style
from killswitch_alpaca.orders import read_report
from killswitch_alpaca.positions import is_crypto
from killswitch_alpaca.settings import AlpacaSettings
from killswitch_alpaca.snapshot_reader import SnapshotReader

FRESH_WITHIN = timedelta(seconds=1)
"""Age up to which a last price may contradict the mark."""


class AlpacaVenue(VenueAdapter):
    """One account at Alpaca: stocks, ETFs and coins, paper or live."""

    def __init__(self, settings: AlpacaSettings) -> None:
        self.account = settings.spec.account
        self.traits = traits_for(settings.requests_per_minute)
        self._settings = settings
        self._client = Client(settings)
        self._reader = SnapshotReader(settings, self._client)

    def used(self) -> Mapping[str, int]:
        """Alpaca's own request count by its last answer, in the units of the traits."""
        used = self._client.used
        return {} if used is None else {COUNTED: FIFTHS * used}

    def remember(self, symbols: Collection[str], since: datetime | None = None) -> None:
        """Lists of rows name every symbol themselves: only `since` is needed."""
        self._reader.ledger.remember(since)

    async def snapshot(self) -> AccountSnapshot:
        return await self._reader.snapshot()

    async def prices(self, symbols: Collection[str]) -> Mapping[str, Prices]:
        """The mark is the price at which Alpaca values a position, and has no time of its own;
        the last price is included if it is at most a second old. There is no index price."""
        names = sorted(set(symbols))
        asked_at = self._reader.sessions.venue_time()
        with _venue_errors():
            held, trades = await asyncio.gather(self._reader.queries.positions(), self._last_prices(names))
        marks = {position.symbol: position.mark_price for position in held}
        fresh = {symbol: price for symbol, (price, at) in trades.items() if asked_at - at <= FRESH_WITHIN}
        return {
            symbol: Prices(marks.get(symbol), None, fresh.get(symbol), asked_at)
            for symbol in names
            if marks.get(symbol) is not None or symbol in fresh
        }

    async def _last_prices(self, symbols: Sequence[str]) -> Mapping[str, tuple[Decimal, datetime]]:
        """Last prices; empty where market data cannot be read, so that only marks remain."""
        try:
            return await self._reader.queries.trades(symbols)
        except (VenueError, UnreadableError):
            return {}

    async def submit(self, request: OrderRequest) -> OrderReport:
        """Outside market hours, OrderRejectedError without sending anything, unless the account configures
        otherwise."""
        session = "regular" if is_crypto(request.symbol) else await self._session()
        extended = self._settings.spec.outside_hours == "extended"
        opens = self._reader.sessions.hours.next_session(self._settings.now(), extended=extended)
        style = send_style(request, session, self._settings.spec.outside_hours, opens)
        limit = None
        if style == "bounded":
            limit = bounding_price(request, await self._price(request), self._settings.extended_band)
        body = order_body(request, style, limit)
        try:
            with _venue_errors():
                answer = await self._client.change("POST", "/v2/orders", body)
        finally:
            self._reader.touch(fills=True)
        report = _report(answer, request.client_order_id)
        self._reader.known_orders.sent(request, report)
        return report

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        found = await self._order(client_order_id)
        return None if found is None else _report(found, client_order_id)

    async def open_orders(self) -> tuple[Order, ...]:
        with _venue_errors():
            await self._reader.read_orders()
        return self._reader.open_orders

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        """Raises MalformedAnswerError while the list of trades has less than the order's filled quantity."""
        found = await self._order(client_order_id)
        if found is None:
            return ()
        with _venue_errors():
            return await self._reader.queries.fills_of(found, symbol)

    async def cancel(self, symbol: str, order_id: str) -> None:
        try:
            await self._client.change("DELETE", f"/v2/orders/{quote(order_id, safe='')}")
        except RefusedAnswerError as error:
            if refusal_meaning(error.refused) != "gone":
                raise as_venue_error(error.refused, changes=True) from error
        finally:
            self._reader.touch(fills=False)

    async def suspend_trading(self, suspended: bool) -> None:
        """Make Alpaca refuse every new order of the account, ours included, or accept them again."""
        body = {"suspend_trade": suspended}
        try:
            with _venue_errors():
                await self._client.change("PATCH", "/v2/account/configurations", body)
        finally:
            self._reader.account.touch()

    async def listen(self, on_push: Callable[[Push], None]) -> None:
        from killswitch_alpaca.stream import listen

        await listen(self._settings, on_push, self._reader.touch)

    async def inspect(self) -> Inspection:
        from killswitch_alpaca.inspection import inspect

        return await inspect(self._client, self._settings)

    async def key_rights(self) -> KeyRights:
        """Alpaca has no query for it."""
        from killswitch_alpaca.inspection import RIGHTS

        return KeyRights(note=RIGHTS)

    async def close(self) -> None:
        await self._client.close()
        await self._reader.sessions.close()

    async def _session(self) -> Session:
        """The current session, read again where the clock is unknown or old. Raises VenueDownError where it is
        unknown."""
        now = asyncio.get_running_loop().time()
        part = self._reader.sessions.clock
        if part.is_due(now) and not (part.is_usable(now) and part.failure):
            try:
                await self._reader.sessions.read()
                part.was_read(now, part.touches)
            except UnreadableError as error:
                raise VenueDownError(f"Alpaca's clock cannot be read, and no order was sent: {error}") from error
        session = self._reader.sessions.now()
        if session is None:
            raise VenueDownError("it is unknown whether the stock market is open, and no order was sent")
        return session

    async def _price(self, request: OrderRequest) -> Decimal:
        """Reference price of an order without a price: the quote of its side, else the last price."""
        try:
            quotes = await self._reader.queries.quotes([request.symbol])
        except (UnreadableError, VenueDownError, MalformedAnswerError):
            quotes = {}
        bid, ask = quotes.get(request.symbol, (None, None))
        price = bid if request.side == "sell" else ask
        if price is None:
            price = next((p.mark_price for p in self._reader.positions if p.symbol == request.symbol), None)
        if price is None:
            raise OrderRejectedError(
                "market_closed",
                f"{request.symbol}: no quote and no last price for the limit of an order in the extended session",
            )
        return price

    async def _order(self, client_order_id: str) -> Row | None:
        """The order with this client order id; None only if Alpaca reports that there is none."""
        try:
            answer = await self._client.get("/v2/orders:by_client_order_id", {"client_order_id": client_order_id})
        except VenueError as error:
            if has_no_such_order(error):
                return None
            raise
        with _venue_errors():
            return object_at(answer, what="the order")


@contextmanager
def _venue_errors() -> Iterator[None]:
    """Raise the refusal of a change, and an answer that cannot be read, as the VenueError that it is."""
    try:
        yield
    except RefusedAnswerError as error:
        raise as_venue_error(error.refused, changes=True) from error
    except UnreadableError as error:
        raise MalformedAnswerError(str(error)) from error


def _report(answer: object, client_order_id: str) -> OrderReport:
    """The order in the answer. Raises MalformedAnswerError for another order, or none."""
    with _venue_errors():
        report = read_report(object_at(answer, what="the order"))
    if report.client_order_id != client_order_id:
        raise MalformedAnswerError(f"the answer is about order {report.client_order_id}, not {client_order_id}")
    return report
