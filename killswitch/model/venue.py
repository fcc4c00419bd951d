"""What a venue adapter offers, and the five ways in which a call can go wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, Protocol

from msgspec import Struct

from killswitch.model.snapshot import AccountSnapshot, Fill, Order, OrderSide, Side

RejectReason = Literal[
    "already_flat", "below_minimum", "above_maximum", "blocked_by_order", "price_band",
    "market_closed", "insufficient_margin", "duplicate_client_order_id", "permission", "other",
]  # fmt: skip
OrderState = Literal["open", "filled", "canceled", "rejected", "expired"]


class OrderRequest(Struct, frozen=True):
    """One order as sent. `amount` in contracts, already exact by the instrument's rules."""

    client_order_id: str
    symbol: str
    side: OrderSide
    position_side: Side
    amount: Decimal
    reduce_only: bool
    type: Literal["market", "limit"] = "market"
    price: Decimal | None = None


class OrderReport(Struct, frozen=True):
    """The venue's account of one order. `filled` in contracts, `fee` in the account's currency or unknown."""

    id: str
    client_order_id: str | None
    symbol: str
    state: OrderState
    amount: Decimal
    filled: Decimal
    average_price: Decimal | None = None
    fee: Decimal | None = None


class VenueError(Exception):
    """A call to a venue did not do what was asked; the subclass says what is known."""


class OrderRejectedError(VenueError):
    """The venue refused the order: nothing was done."""

    def __init__(self, reason: RejectReason, text: str) -> None:
        super().__init__(text)
        self.reason: RejectReason = reason


class RateLimitedError(VenueError):
    """The venue refused to listen; nothing was done. `retry_after` in seconds, or unknown."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class VenueDownError(VenueError):
    """The venue could not be reached, or is in maintenance, and surely did nothing."""


class FateUnknownError(VenueError):
    """The request may or may not have taken effect: ask, never send again."""


class MalformedAnswerError(VenueError):
    """The answer does not make sense: its meaning is unknown."""


class VenueAdapter(Protocol):
    """One account at one venue. Every method may raise any VenueError; none of them decides anything."""

    account: str

    async def snapshot(self) -> AccountSnapshot:
        """Everything about the account. A failure is told by `quality`, never by empty lists."""
        ...

    async def submit(self, request: OrderRequest) -> OrderReport:
        """Send one order, once."""
        ...

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        """The order with this client id; None only if the venue says that it has none."""
        ...

    async def open_orders(self) -> tuple[Order, ...]:
        """All resting orders, conditional ones included."""
        ...

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        """What filled of the order with this client id."""
        ...

    async def cancel(self, symbol: str, order_id: str) -> None:
        """Cancel one order; an order that is already gone is no error."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


class AccountSpec(Struct, frozen=True):
    """What an adapter is made from: an `Account` document without the policy room's types.

    `credentials` are references resolved by the caller's `resolve`, never values in a document.
    """

    account: str
    adapter: str
    market: str
    currency: str
    endpoint: str | None
    options: dict[str, object]
    credentials: dict[str, str]


class AdapterFactory(Protocol):
    """What the entry-point group `killswitch.adapters` names."""

    def __call__(self, spec: AccountSpec) -> VenueAdapter: ...
