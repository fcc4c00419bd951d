"""What a venue adapter offers, what else some offer, and the five ways in which a call can go wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
    """One order as sent. `amount` in contracts, `price` in quote per base, both exact by the instrument's rules.

    `ioc`: what does not fill at once expires. With a `trigger_price` it rests unseen until the mark falls to it or
    rises to it, as `trigger_when` says, and is then sent as the order that it otherwise is. `valid_for`: seconds from
    the call after which the venue must refuse the request; only where `VenueTraits.order_life` says that it can.
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


class RequestExpiredError(VenueDownError):
    """The venue refused the request because its time was up when it was looked at: surely nothing was done."""


class CredentialsRefusedError(VenueDownError):
    """The venue does not accept the credentials, or they may not do this: asking again brings the same."""


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


Call = Literal[
    "snapshot", "submit", "submit_batch", "close_book", "find_order", "open_orders", "fills", "cancel", "dead_man",
]  # fmt: skip


class RateLimit(Struct, frozen=True):
    """At most `allowed` units in any `per` seconds.

    `by`: counted for the account, for each symbol of the account, or for the network address, which all accounts
    at the venue share.
    """

    name: str
    allowed: int
    per: float
    by: Literal["account", "symbol", "address"] = "account"


class Cost(Struct, frozen=True):
    """What one call takes of a limit: `units`, and `each` for every order in it."""

    call: Call
    limit: str
    units: int = 0
    each: int = 0


class ClientIdRule(Struct, frozen=True):
    """Which client order ids a venue takes.

    `plain` is up to `longest` of [a-z0-9]; `hex` is `0x` and 32 hex digits; `uuid` is 32 hex digits, grouped.
    """

    form: Literal["plain", "hex", "uuid"] = "plain"
    longest: int = 32


class OrderLife(Struct, frozen=True):
    """For how long a request for an order can be carried out after it has left, and what its name guards against.

    `shortest` and `longest`: what `OrderRequest.valid_for` may be, in seconds; `longest` None where a request cannot
    say it. `always`: seconds after which the venue refuses any request, whatever it says; None: it names no bound.
    `names`: until when the venue refuses a second order of a name: for `ever`, while the first is `open`, or `none`.
    """

    shortest: float = 0.0
    longest: float | None = None
    always: float | None = None
    names: Literal["ever", "open", "none"] = "ever"


class DeadManRule(Struct, frozen=True):
    """The venue's own dead-man timer: unless it is refreshed in time, the venue cancels resting orders.

    `reach`: what one timer covers. `shortest` and `longest` in seconds; `longest` None where the venue names none.
    `a_day`: how often it may go off in a day. `takes_stops`: whether it cancels conditional orders too; None: unknown.
    `quiet_for_maintenance`: whether it must be disarmed before maintenance of the venue.
    """

    reach: Literal["account", "symbol", "connection"]
    shortest: float
    longest: float | None = None
    a_day: int | None = None
    takes_stops: bool | None = None
    quiet_for_maintenance: bool = False


class VenueTraits(Struct, frozen=True):
    """What a venue is like, as far as acting has to know. Without limits nothing is metered.

    `batch` is the most orders of one `submit_batch`; 1 where there is none. `whole_book`: `close_book` closes every
    position of the account and nothing else. A call without a cost is free. `dead_man`: None where it has no timer.
    `fees_by_fills`: what the venue says of an order may lack its fee, which `fills` tells. `order_life`: how late an
    order may arrive and still be carried out.
    """

    limits: tuple[RateLimit, ...] = ()
    costs: tuple[Cost, ...] = ()
    batch: int = 1
    whole_book: bool = False
    client_ids: ClientIdRule = ClientIdRule()
    dead_man: DeadManRule | None = None
    fees_by_fills: bool = False
    order_life: OrderLife = OrderLife()


PLAIN_VENUE: Final = VenueTraits()


@runtime_checkable
class DescribedVenue(Protocol):
    """An adapter that says what its venue is like; of one that does not, nothing but the plain is taken for granted."""

    @property
    def traits(self) -> VenueTraits: ...


@runtime_checkable
class MeteredVenue(Protocol):
    """An adapter that reads the venue's own count of what was used."""

    def used(self) -> Mapping[str, int]:
        """Limit name → units used in its current time, as the venue said last; nothing for what it has not said."""
        ...


@runtime_checkable
class BatchingVenue(Protocol):
    """An adapter that sends several orders in one request."""

    async def submit_batch(self, requests: Sequence[OrderRequest]) -> Sequence[OrderReport | VenueError]:
        """Send each order once; for each, in order, the venue's answer. What is raised holds for all of them."""
        ...


@runtime_checkable
class BookClosingVenue(Protocol):
    """An adapter whose venue closes everything in one request."""

    async def close_book(self) -> None:
        """Ask the venue to close every position of the account at market. What it did, its positions say."""
        ...


@runtime_checkable
class DeadManVenue(Protocol):
    """An adapter that sets its venue's dead-man timer. `traits.dead_man` says what that is worth."""

    async def arm_dead_man(self, seconds: float, symbols: Collection[str]) -> None:
        """Start the timer, or start it again. `symbols`: those with something to cancel, where it is for a symbol."""
        ...

    async def disarm_dead_man(self, symbols: Collection[str]) -> None:
        """Stop the timer; one that does not run is no error."""
        ...


class Push(Struct, frozen=True):
    """The venue said something of itself. `alive` is a sign of life only; `lost`: the stream is down, with `why`."""

    kind: Literal["positions", "orders", "balance", "alive", "lost"]
    why: str | None = None


@runtime_checkable
class PushingVenue(Protocol):
    """An adapter that hears its venue's private stream. What it hears wakes a reading; it never stands for one."""

    async def listen(self, hear: Callable[[Push], None]) -> None:
        """Hear until cancelled, connecting anew by itself; VenueError only where it will never work."""
        ...


@runtime_checkable
class SuspendingVenue(Protocol):
    """An adapter whose broker itself refuses every new order on demand, ours included."""

    async def suspend_trading(self, suspended: bool) -> None: ...


class Prices(Struct, frozen=True):
    """What a symbol costs at one moment, quote units per base unit; `at`: venue time. None is unknown."""

    mark: Decimal | None = None
    index: Decimal | None = None
    last: Decimal | None = None
    at: datetime | None = None


@runtime_checkable
class PricedVenue(Protocol):
    """An adapter that reads prices by themselves, for a second look at a mark."""

    async def prices(self, symbols: Collection[str]) -> Mapping[str, Prices]:
        """Mark, index and last price of each symbol, in one round trip and never from memory.

        A symbol of which the venue has no price is left out.
        """
        ...


@runtime_checkable
class RememberingVenue(Protocol):
    """An adapter that must know what the run before it knew: which symbols were held, where its venue wants them named,
    and since when rows are new."""

    def remember(self, symbols: Collection[str], since: datetime | None = None) -> None:
        """Ask for rows of these symbols too at the first snapshot, from `since` on; called before it.

        `since`: the time of the last snapshot that was stored; None where it is not known.
        """
        ...


@runtime_checkable
class RuleKeepingVenue(Protocol):
    """An adapter that can begin with the rules of an earlier run while the venue's own are on their way."""

    def rules_to_keep(self) -> bytes | None:
        """The rules of the symbols that the account holds; None while they are those of the last call."""
        ...

    def use_rules(self, kept: bytes) -> None:
        """Begin with them; called before the first snapshot. What cannot be read, or is too old, is not used."""
        ...


OPTIONAL_CALLS: Final = ("used", "submit_batch", "close_book", "arm_dead_man", "disarm_dead_man", "listen",
                         "suspend_trading", "inspect", "key_rights", "prices", "remember",
                         "rules_to_keep", "use_rules")  # fmt: skip
"""What only some adapters offer. Who wraps an adapter passes on what it has of these."""


def traits_of(adapter: object) -> VenueTraits:
    """What the adapter says of its venue."""
    # Asked many times in each tick: a check against the protocol would take longer than all that is done with it.
    told: VenueTraits = getattr(adapter, "traits", PLAIN_VENUE)
    return told


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
    exchange: str | None = None
    endpoint_ws: str | None = None
    environment: Literal["production", "sandbox", "demo"] = "production"
    outside_hours: Literal["queue", "extended"] | None = None


class AdapterFactory(Protocol):
    """What the entry-point group `killswitch.adapters` names."""

    def __call__(self, spec: AccountSpec) -> VenueAdapter: ...
