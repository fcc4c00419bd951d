"""What a dialect does with orders: sending, finding and cancelling them, and the timer that cancels them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

from msgspec.structs import replace

from killswitch.model.parsing import Row, UnreadableError, decimal
from killswitch.model.snapshot import Fill
from killswitch.model.venue import (
    AccountSpec,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    VenueDescription,
    VenueError,
)
from killswitch_ccxt import orders
from killswitch_ccxt.dialect.core import DialectCore
from killswitch_ccxt.dialect.reads import PositionMode

BatchResults = Sequence[OrderReport | VenueError]
"""The result of each order of a batch, in order."""
LONGEST_WINDOW: Final = 60_000
"""The longest window of a request that any venue accepts, in milliseconds."""


def is_stop(request: OrderRequest) -> bool:
    """Whether a conditional order is a stop and no take-profit: it sells on a fall or buys on a rise."""
    return (request.side == "sell") is (request.trigger_when == "falls")


class OrderCalls(DialectCore):
    """The requests about orders. How an order is found is different at every venue, and has no default."""

    submit_batch: Callable[[Sequence[OrderRequest], PositionMode], Awaitable[BatchResults]] | None = None
    """Send several orders in one request, at most `batch`; None where that is 1."""
    close_book: Callable[[], Awaitable[None]] | None = None
    """Ask the venue to close every position; None where it has no such request."""

    @classmethod
    def traits_for(cls, spec: AccountSpec) -> VenueDescription:
        return replace(super().traits_for(spec), whole_book=cls.close_book is not None)

    @abstractmethod
    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """ccxt's order with this client id, open or not; None only if the venue states that it has none."""

    @abstractmethod
    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        """The fills of one order."""

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

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        """Cancel one order. GoneError where it no longer exists."""
        params = {"trigger": True} if conditional else {}
        await self.client.call("cancel_order", order_id, symbol, params, changes=True)


class TimerCalls(DialectCore):
    """The venue's dead-man timer, which `dead_man` describes; both calls are None where there is none."""

    arm_dead_man: Callable[[float, Collection[str]], Awaitable[None]] | None = None
    """Start or renew the timer."""
    disarm_dead_man: Callable[[Collection[str]], Awaitable[None]] | None = None
    """Stop the timer."""


class CcxtTimer(TimerCalls):
    """A timer for the whole account, by ccxt's unified call. It comes before `Dialect` among the bases of a class."""

    async def arm_dead_man(self, seconds: float, symbols: Collection[str]) -> None:
        await self.client.call("cancel_all_orders_after", int(seconds * 1000), changes=True)

    async def disarm_dead_man(self, symbols: Collection[str]) -> None:
        await self.client.call("cancel_all_orders_after", 0, changes=True)
