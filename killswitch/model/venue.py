"""The protocol of venue adapters, optional extensions of it, and the errors of calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal, Protocol, runtime_checkable

from msgspec import Struct

from killswitch.model.snapshot import AccountSnapshot, Fill, Order, OrderSide, Side

RejectReason = Literal[
    "already_flat", "below_minimum", "above_maximum", "blocked_by_order", "price_band",
    "market_closed", "insufficient_margin", "duplicate_client_order_id", "permission", "other",
]  # fmt: skip
OrderState = Literal["open", "filled", "canceled", "rejected", "expired"]


class OrderRequest(Struct, frozen=True):
    """An order to send. `amount` is in contracts, `price` in quote per base; both conform to the instrument's rules.

    `ioc`: the unfilled part expires at once. An order with a `trigger_price` is inactive until the mark falls or rises
    to it, by `trigger_when`. `valid_for`: seconds from the call after which the venue must reject the request; only if
    `VenueTraits.order_life` supports it.
    """

    client_order_id: str
    symbol: str
    side: OrderSide
    position_side: Side
    amount: Decimal
    reduce_only: bool
    type: Literal["market", "limit"] = "market"
    price: Decimal | None = None
    time_in_force: Literal["gtc", "ioc"] = "gtc"
    trigger_price: Decimal | None = None
    trigger_when: Literal["falls", "rises"] | None = None
    valid_for: float | None = None


class OrderReport(Struct, frozen=True):
    """The venue's report of one order. `filled` is in contracts, `fee` in the account's currency or unknown."""

    id: str
    client_order_id: str | None
    symbol: str
    state: OrderState
    amount: Decimal
    filled: Decimal
    average_price: Decimal | None = None
    fee: Decimal | None = None


class VenueError(Exception):
    """A call to a venue failed; the subclass states what is known about its effect."""


class OrderRejectedError(VenueError):
    """The venue rejected the order, which has no effect."""

    def __init__(self, reason: RejectReason, text: str) -> None:
        super().__init__(text)
        self.reason: RejectReason = reason


class RateLimitedError(VenueError):
    """The venue rejected the request because of a rate limit; it has no effect.

    `retry_after` is in seconds; None if unknown.
    """

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class VenueDownError(VenueError):
    """The venue was unreachable or in maintenance; the request certainly had no effect."""


class RequestExpiredError(VenueDownError):
    """The venue rejected the request as expired; it certainly had no effect."""


class CredentialsRefusedError(VenueDownError):
    """The venue rejects the credentials, or they lack the permission; a retry fails the same way."""


class FateUnknownError(VenueError):
    """The request may or may not have taken effect: query its status, never send it again."""


class MalformedAnswerError(VenueError):
    """The answer is malformed, so its meaning is unknown."""


Call = Literal[
    "snapshot", "submit", "submit_batch", "close_book", "find_order", "open_orders", "fills", "cancel", "dead_man",
]  # fmt: skip


class RateLimit(Struct, frozen=True):
    """A rate limit: at most `allowed` units in any `per` seconds.

    `by`: counted for the account, for each symbol of the account, or for the network address, which all accounts at the
    venue share.
    """

    name: str
    allowed: int
    per: float
    by: Literal["account", "symbol", "address"] = "account"


class Cost(Struct, frozen=True):
    """The cost of one call against a limit: `units`, plus `each` for every order in it."""

    call: Call
    limit: str
    units: int = 0
    each: int = 0


class ClientIdRule(Struct, frozen=True):
    """The format of client order ids that a venue accepts.

    `plain` is up to `longest` of [a-z0-9]; `hex` is `0x` and 32 hex digits; `uuid` is 32 hex digits, grouped.
    """

    form: Literal["plain", "hex", "uuid"] = "plain"
    longest: int = 32


class OrderLife(Struct, frozen=True):
    """How long after sending a request for an order can take effect, and how its client order id prevents duplicates.

    `shortest` and `longest`: the range of `OrderRequest.valid_for`, in seconds; `longest` None if requests cannot
    declare it. `always`: seconds after which the venue rejects any request; None: no documented bound. `names`: how
    long the venue rejects a second order with the same client order id: for `ever`, while the first is `open`, or never
    (`none`).
    """

    shortest: float = 0.0
    longest: float | None = None
    always: float | None = None
    names: Literal["ever", "open", "none"] = "ever"


class DeadManRule(Struct, frozen=True):
    """The venue's own dead-man timer: unless it is refreshed in time, the venue cancels resting orders.

    `reach`: what one timer covers. `shortest` and `longest`: its range in seconds; `longest` None if the venue
    documents none. `a_day`: how often it can trigger in a day. `takes_stops`: whether it also cancels conditional
    orders; None: unknown. `quiet_for_maintenance`: whether it must be disarmed before maintenance of the venue.
    """

    reach: Literal["account", "symbol", "connection"]
    shortest: float
    longest: float | None = None
    a_day: int | None = None
    takes_stops: bool | None = None
    quiet_for_maintenance: bool = False


class VenueTraits(Struct, frozen=True):
    """The properties of a venue that execution needs. Without limits, no requests are metered.

    `whole_book`: whether `close_book` closes every position of the account and nothing else. A call without a cost is
    free. `dead_man`: None if there is no timer. `fees_by_fills`: whether order reports may lack the fee, which `fills`
    provides. `order_life`: how long after sending an order can take effect.
    """

    limits: tuple[RateLimit, ...] = ()
    costs: tuple[Cost, ...] = ()
    whole_book: bool = False
    client_ids: ClientIdRule = ClientIdRule()
    dead_man: DeadManRule | None = None
    fees_by_fills: bool = False
    order_life: OrderLife = OrderLife()


PLAIN_VENUE: Final = VenueTraits()


class VenueDescription(VenueTraits, frozen=True):
    """A venue as a table or a file describes it without an account: its traits, and what an adapter can offer there.

    `batch`: the maximum number of orders in one request; 1 if there are no batches.
    """

    batch: int = 1


class Batching(Struct, frozen=True):
    """Several orders in one request. `most`: the maximum number of orders in it.

    `submit` sends each order once, and returns the venue's answers in order. An error that is raised applies to all of
    them.
    """

    most: int
    submit: Callable[[Sequence[OrderRequest]], Awaitable[Sequence[OrderReport | VenueError]]]


@runtime_checkable
class MeteredVenue(Protocol):
    """An adapter that reports the venue's own rate-limit counters."""

    def used(self) -> Mapping[str, int]:
        """Limit name → units used in its current period, as last reported by the venue; others are missing."""


@runtime_checkable
class BookClosingVenue(Protocol):
    """An adapter whose venue can close all positions in one request."""

    async def close_book(self) -> None:
        """Ask the venue to close every position of the account at market. The positions show the result."""


@runtime_checkable
class DeadManVenue(Protocol):
    """An adapter that controls its venue's dead-man timer, which `traits.dead_man` describes."""

    async def arm_dead_man(self, seconds: float, symbols: Collection[str]) -> None:
        """Start or restart the timer. `symbols`: those with orders to cancel, if the timer covers a symbol."""

    async def disarm_dead_man(self, symbols: Collection[str]) -> None:
        """Stop the timer; a timer that does not run is not an error."""


class Push(Struct, frozen=True):
    """A message of the venue's private stream. `alive` is only a heartbeat; `lost`: the stream is down, with `why`."""

    kind: Literal["positions", "orders", "balance", "alive", "lost"]
    why: str | None = None


@runtime_checkable
class PushingVenue(Protocol):
    """An adapter that subscribes to its venue's private stream. Messages trigger a poll and never replace one."""

    async def listen(self, hear: Callable[[Push], None]) -> None:
        """Listen until cancelled, reconnecting automatically; VenueError only if it can never work."""


@runtime_checkable
class SuspendingVenue(Protocol):
    """An adapter whose broker can reject every new order on request, ours included."""

    async def suspend_trading(self, suspended: bool) -> None: ...


class Prices(Struct, frozen=True):
    """Prices of a symbol at one moment, in quote units per base unit; `at`: venue time. None is unknown."""

    mark: Decimal | None = None
    index: Decimal | None = None
    last: Decimal | None = None
    at: datetime | None = None


@runtime_checkable
class PricedVenue(Protocol):
    """An adapter that reads prices separately, to corroborate a mark, or the price of an asset in the balances."""

    async def prices(self, symbols: Collection[str]) -> Mapping[str, Prices]:
        """Mark, index and last price of each symbol, in one round trip and never from a cache.

        `symbols` are those of positions, and `ASSET/CURRENCY` for assets of the balances that are no position, in the
        account's currency. The mark is the price that values the symbol or the asset in a snapshot; None where the
        venue has it only in its answer about the account. A symbol without a price is omitted.
        """


@runtime_checkable
class RememberingVenue(Protocol):
    """An adapter that needs state of the previous run.

    It needs the symbols that were held, if its venue requires symbols in queries, and the time from which rows are new.
    """

    def remember(self, symbols: Collection[str], since: datetime | None = None) -> None:
        """Include these symbols in the first snapshot's query for rows; called before it.

        `since`: the time of the last stored snapshot, from which rows are read; None if unknown.
        """


@runtime_checkable
class RuleKeepingVenue(Protocol):
    """An adapter that can start with the instrument rules of an earlier run while the venue's own are loading."""

    def rules_to_keep(self) -> bytes | None:
        """The rules of the symbols that the account holds; None if unchanged since the last call."""

    def use_rules(self, kept: bytes) -> None:
        """Start with stored rules; called before the first snapshot. Unreadable or outdated rules are not used."""


OPTIONAL_CALLS: Final = ("used", "close_book", "arm_dead_man", "disarm_dead_man", "listen", "suspend_trading",
                         "inspect", "key_rights", "prices", "remember",
                         "rules_to_keep", "use_rules")  # fmt: skip
"""Optional methods of adapters. A wrapper of an adapter must forward those that it has."""


class VenueAdapter(ABC):
    """One account at one venue, the base class of all adapters.

    Every method may raise any VenueError; adapters make no decisions. A method without a body here is required. What
    only some venues offer is None here, and an adapter that offers it has a value in its place.
    """

    account: str
    traits: VenueTraits = PLAIN_VENUE
    """The properties of the venue."""
    batches: Batching | None = None
    """Several orders in one request."""

    @abstractmethod
    async def snapshot(self) -> AccountSnapshot:
        """Poll the account. A failure is reported by `quality`, never by empty lists."""

    @abstractmethod
    async def submit(self, request: OrderRequest) -> OrderReport:
        """Send one order, once."""

    @abstractmethod
    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        """The order with this client order id; None only if the venue reports that it has none."""

    @abstractmethod
    async def open_orders(self) -> tuple[Order, ...]:
        """All resting orders, conditional ones included."""

    @abstractmethod
    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        """The fills of the order with this client order id."""

    @abstractmethod
    async def cancel(self, symbol: str, order_id: str) -> None:
        """Cancel one order; an order that no longer exists is not an error."""

    @abstractmethod
    async def close(self) -> None:
        """Close connections."""


CAPABILITIES: Final = tuple(it for it in VenueAdapter.__annotations__ if getattr(VenueAdapter, it, PLAIN_VENUE) is None)
"""The attributes of VenueAdapter that are None where a venue does not offer them: a wrapper passes on all of them."""


class AccountSpec(Struct, frozen=True):
    """The configuration of an adapter, from an `Account` document.

    `credentials` are references resolved by the caller's `resolve`, never values in a document.
    """

    account: str
    adapter: str
    market: str
    currency: str
    endpoint: str | None
    options: dict[str, object]
    credentials: dict[str, str]
    exchange: str | None = None
    endpoint_ws: str | None = None
    environment: Literal["production", "sandbox", "demo"] = "production"
    outside_hours: Literal["queue", "extended"] | None = None


class AdapterFactory(Protocol):
    """A factory of adapters, an entry point of the group `killswitch.adapters`."""

    def __call__(self, spec: AccountSpec) -> VenueAdapter: ...
