"""The base class of venue adapters, what they may offer, and the errors of calls."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal, Protocol

from msgspec import Struct

from killswitch.model.inspection import BarHistory, Capability, Inspection, KeyRights
from killswitch.model.snapshot import AccountSnapshot, Fill, Market, Order, OrderSide, Side

RejectReason = Literal[
    "already_flat", "below_minimum", "above_maximum", "blocked_by_order", "price_band",
    "market_closed", "insufficient_margin", "duplicate_client_order_id", "permission", "other",
]  # fmt: skip
OrderState = Literal["open", "filled", "canceled", "rejected", "expired"]
TriggerPrice = Literal["mark", "index", "last"]
"""The price that triggers a conditional order."""


class OrderRequest(Struct, frozen=True):
    """An order to send. `amount` is in contracts, `price` in quote per base; both conform to the instrument's rules.

    `ioc`: the unfilled part expires at once. An order with a `trigger_price` is inactive until the price `trigger_by`
    falls or rises to it, by `trigger_when`; another one than the mark only if `VenueTraits.conditional_orders` has it.
    `valid_for`: seconds from the call after which the venue must reject the request; only if `VenueTraits.order_life`
    supports it.
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
    trigger_by: TriggerPrice = "mark"


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
    "transfer",
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


OWN_MARK: Final = "ks"
"""How every plain client order id of this program begins."""
OWN_HEX_MARK: Final = OWN_MARK.encode().hex()
OWN_LENGTH: Final = 31
"""Length of an id that contains decision, intent and attempt in plain form."""
OWN_SHORTEST: Final = 14
"""Minimum length of an id: shorter ones could collide within a day. No venue's limit is that low."""
_OWN_ID: Final = re.compile(rf"{OWN_MARK}[0-9a-z]{{{OWN_SHORTEST - 2},{OWN_LENGTH - 2}}}")


STOP_WORK: Final = "cstop"
"""How the place of the decision begins in the id of a catastrophe stop, which no decision has sent."""


def is_catastrophe_stop(name: str | None) -> bool:
    """Whether `name` is the client order id of a catastrophe stop of this program; only plain ids show it."""
    return name is not None and len(name) == OWN_LENGTH and name.startswith(OWN_MARK + STOP_WORK) and is_ours(name)


def decision_in(name: str) -> str | None:
    """The decision that an id of this program contains; None for a form that contains only a digest."""
    return name[len(OWN_MARK) :][:20] if len(name) == OWN_LENGTH and name.startswith(OWN_MARK) else None


def is_ours(name: str | None) -> bool:
    """Whether `name` has the form of a client order id of this program, under any venue's rule."""
    if name is None:
        return False
    digits = name.lower().removeprefix("0x").replace("-", "")
    if len(digits) == 32 and digits.startswith(OWN_HEX_MARK):
        return all(digit in "0123456789abcdef" for digit in digits)
    return bool(_OWN_ID.fullmatch(name))


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


class ConditionalOrderRule(Struct, frozen=True):
    """Conditional orders that `submit` places and that rest at the venue while this program is dead.

    `triggers`: the prices that can trigger one. The venue itself keeps a reduce-only one from opening a position.
    """

    triggers: tuple[TriggerPrice, ...]


class VenueTraits(Struct, frozen=True):
    """The properties of a venue that execution needs. Without limits, no requests are metered.

    A call without a cost is free. `fees_by_fills`: whether order reports may lack the fee, which `fills` provides.
    `order_life`: how long after sending an order can take effect. `enforces_reduce_only`: whether the venue itself
    limits a reduce-only order of the account, at market or with a price, to the position; None: unknown.
    `conditional_orders`: what a catastrophe stop may be; None where none can be placed.
    """

    limits: tuple[RateLimit, ...] = ()
    costs: tuple[Cost, ...] = ()
    client_ids: ClientIdRule = ClientIdRule()
    fees_by_fills: bool = False
    order_life: OrderLife = OrderLife()
    enforces_reduce_only: bool | None = None
    conditional_orders: ConditionalOrderRule | None = None


PLAIN_VENUE: Final = VenueTraits()


class VenueDescription(VenueTraits, frozen=True):
    """A venue as a table or a file describes it without an account: its traits, and what an adapter can offer there.

    `batch`: the maximum number of orders in one request; 1 if there are no batches. `whole_book`: whether one request
    closes every position of the account. `dead_man`: its dead-man timer, if it has one.
    """

    batch: int = 1
    whole_book: bool = False
    dead_man: DeadManRule | None = None


class Batching(Struct, frozen=True):
    """Several orders in one request. `most`: the maximum number of orders in it.

    `submit` sends each order once, and returns the venue's answers in order. An error that is raised applies to all of
    them.
    """

    most: int
    submit: Callable[[Sequence[OrderRequest]], Awaitable[Sequence[OrderReport | VenueError]]]


class VenueTimer(Struct, frozen=True):
    """The venue's own dead-man timer, as `rule` describes it. Symbols are named where the timer is for one symbol.

    `arm` starts or restarts it with a time in seconds; the symbols are those with orders to cancel. `disarm` stops it;
    a timer that does not run is not an error.
    """

    rule: DeadManRule
    arm: Callable[[float, Collection[str]], Awaitable[None]]
    disarm: Callable[[Collection[str]], Awaitable[None]]


class Push(Struct, frozen=True):
    """A message of the venue's private stream. `alive` is only a heartbeat; `lost`: the stream is down, with `why`."""

    kind: Literal["positions", "orders", "balance", "alive", "lost"]
    why: str | None = None


Listen = Callable[[Callable[[Push], None]], Awaitable[None]]
SuspendTrading = Callable[[bool], Awaitable[None]]


class Prices(Struct, frozen=True):
    """Prices of a symbol at one moment, in quote units per base unit; `at`: venue time. None is unknown."""

    mark: Decimal | None = None
    index: Decimal | None = None
    last: Decimal | None = None
    at: datetime | None = None


class SentTransfer(Struct, frozen=True):
    """A transfer that was sent, and whose answer is unknown: to the account `to`, under our `id`, after `since`."""

    to: str
    amount: Decimal
    id: str
    since: datetime


TransferFate = Literal["moved", "failed", "open"]
"""What a venue states of a transfer. `open`: under way, or not listed: a list that lacks it proves nothing."""


class Transfers(Struct, frozen=True):
    """Money between accounts of one venue. `place`: what all accounts that reach each other share; `name`: this account
    in it.

    `send` moves an amount, in the currency of the account, to the account of this name, under an id of ours. It is
    called once for each id, since not every venue knows such ids. OrderRejectedError: it moved nothing.
    `find` looks up a transfer of this account whose answer was lost; None where the venue has no list of them.
    `check` asks the venue whether the account is the one that `name` and `place` state, where a document declares
    them; OrderRejectedError if it is not. None where nothing was declared.
    """

    place: str
    name: str
    send: Callable[[str, Decimal, str], Awaitable[None]]
    find: Callable[[SentTransfer], Awaitable[TransferFate]] | None = None
    check: Callable[[], Awaitable[None]] | None = None


class RuleKeeping(Struct, frozen=True):
    """The rules of instruments, kept for the next run, which starts with them while the venue's own are loading.

    `to_keep`: those of the symbols that the account holds; None if unchanged since the last call. `use` is called
    before the first snapshot; unreadable or outdated rules are not used.
    """

    to_keep: Callable[[], bytes | None]
    use: Callable[[bytes], None]


class VenueAdapter(ABC):
    """One account at one venue, the base class of all adapters.

    Every method may raise any VenueError; adapters make no decisions. The methods are required. The attributes that are
    None are capabilities that only some venues have: an adapter that offers one has a method or an object in its place.
    """

    account: str
    traits: VenueTraits = PLAIN_VENUE
    """The properties of the venue."""

    batches: Batching | None = None
    close_book: Callable[[], Awaitable[None]] | None = None
    """Ask the venue to close every position of the account at market, and nothing else. The positions show the
    result."""
    dead_man: VenueTimer | None = None
    kept_rules: RuleKeeping | None = None
    used: Callable[[], Mapping[str, int]] | None = None
    """Limit name → units used in its current period, as last reported by the venue; others are missing."""
    listen: Listen | None = None
    """Listen to the venue's private stream until cancelled, reconnecting automatically; VenueError only if it can never
    work. Messages trigger a poll and never replace one."""
    suspend_trading: SuspendTrading | None = None
    """Make the broker reject every new order, ours included, or accept them again."""
    prices: Callable[[Collection[str]], Awaitable[Mapping[str, Prices]]] | None = None
    """Mark, index and last price of each symbol, in one round trip and never from a cache, to corroborate a mark.

    The symbols are those of positions, and `ASSET/CURRENCY` for assets of the balances that are no position, in the
    account's currency. The mark is the price that values the symbol or the asset in a snapshot; None where the venue
    has it only in its answer about the account. A symbol without a price is omitted."""
    remember: Callable[[Collection[str], datetime | None], None] | None = None
    """Include the symbols that the last run held in the first snapshot's query for rows; called before it. The time is
    that of the last stored snapshot, from which rows are read; None if unknown."""
    inspect: Callable[[], Awaitable[Inspection]] | None = None
    """Inspect the venue. Raises VenueError only if it is unreachable or rejects the credentials."""
    key_rights: Callable[[], Awaitable[KeyRights]] | None = None
    """The permissions of the credentials, by one or two requests. Raises VenueError if they cannot be read."""

    transfers: Transfers | None = None
    """Move money of the account to another one of the venue."""

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


OPTIONAL_ATTRIBUTES: Final = tuple(
    it for it in VenueAdapter.__annotations__ if getattr(VenueAdapter, it, PLAIN_VENUE) is None
)
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
    watch: tuple[str, ...] = ()
    """The symbols whose prices a snapshot has in `watched`, whether or not they are held."""
    orders_first: bool = False
    """Whether resting orders are read before positions, and never after them in the same snapshot: a gate proves by
    them what reduces."""


class AdapterFactory(Protocol):
    """A factory of adapters, an entry point of the group `killswitch.adapters`."""

    def __call__(self, spec: AccountSpec) -> VenueAdapter: ...


class VenueListing(Struct, frozen=True):
    """One venue that an installed adapter supports. `tried`: what it was tested against.

    `credentials`: the names of the credentials that an Account document needs; empty where that is not stated.
    """

    adapter: str
    exchange: str | None
    markets: tuple[Market, ...]
    capabilities: tuple[Capability, ...]
    traits: VenueDescription
    tried: str = ""
    credentials: tuple[str, ...] = ()


class VenueFamily(Protocol):
    """The venues of one adapter, an entry point of the group `killswitch.venues`."""

    def listings(self) -> Sequence[VenueListing]:
        """Every venue that the adapter supports by name."""

    def history(self, exchange: str, endpoint: str | None = None) -> BarHistory | None:
        """The exchange's public bars; None if this family does not support the exchange or its bars."""
