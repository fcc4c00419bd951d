"""What a dialect declares of its exchange, and builders of the tables in a declaration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final, Literal, cast

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.inspection import Capability
from killswitch.model.snapshot import LimitUse, Market
from killswitch.model.venue import (
    AccountSpec,
    Call,
    ClientIdRule,
    ConditionalOrderRule,
    Cost,
    DeadManRule,
    OrderLife,
    RateLimit,
    VenueDescription,
)
from killswitch_ccxt.errors import Meaning, RefusalCodes, VenueAnswer, present_codes
from killswitch_ccxt.instruments import StateTable
from killswitch_ccxt.validation import KEY_AND_SECRET, OFFERED
from killswitch_ccxt.withdrawals import CoinList


class Ages(Struct, frozen=True):
    """How often each part of a snapshot is fetched, in seconds; equity and positions every time. See `snapshot_reader`.

    They keep a snapshot inside the venue's documented limits at a tick of one second. `quotes`: None where they are not
    fetched, since the positions bring the prices; `watch`: how often a watch list is fetched there. Elsewhere it is
    fetched together with the quotes.
    """

    orders: float = 5.0
    fills: float = 15.0
    flows: float = 20.0
    quotes: float | None = 10.0
    watch: float = 10.0
    mode: float = 60.0
    states: float = 60.0
    clock: float = 300.0
    orders_least: float = 2.0
    rows_least: float = 5.0
    """Least time between two fetches of all orders, and of fills or flows, however much changes meanwhile."""
    early_flows: int = 6
    """How many fetches of flows a minute may be early, because a balance or a position has changed."""
    early_fills: int = 6
    """The same for fills; each symbol counts, where requests name symbols. Together they weigh at most a tenth of
    what the venue's limits leave for snapshots."""
    early_saved: int = 3
    """Early fetches that even the smallest of these allowances saves up for the next change."""
    rules: float = 3600.0
    limits: float | None = None
    """How often the use of limits is fetched that only a request of its own states; None where there is none."""


CAPABILITIES: Final = (
    "equity", "positions", "orders", "trigger orders", "fills", "flows", "prices", "market orders", "limit orders",
    "reduce only", "put back stops", "batch orders", "close book", "position mode", "find by client id", "dead man",
    "push", "key rights", "clock", "bars", "sandbox", "demo",
)  # fmt: skip
"""Names of all capabilities, in the order in which they are listed."""


def capability_table(noted: Mapping[str, str], *plain: str) -> tuple[Capability, ...]:
    """All capabilities of a venue, in their usual order.

    `noted`: name → `yes`, `partly` or `no`, followed by a comma and a note where there is one. `plain`: names that are
    a yes without a note. ValueError for an unknown name and for one that is missing: none is assumed.
    """
    found = dict.fromkeys(plain, "yes") | dict(noted)
    if found.keys() != set(CAPABILITIES):
        raise ValueError(f"unknown or missing capabilities: {', '.join(sorted(found.keys() ^ set(CAPABILITIES)))}")
    return tuple(_capability(name, *found[name].partition(", ")) for name in CAPABILITIES)


def _capability(name: str, can: str, _: str, note: str) -> Capability:
    if can not in ("yes", "partly", "no"):
        raise ValueError(f"capability {name}: {can!r} is neither yes, partly nor no")
    return Capability(name, cast("Literal['yes', 'partly', 'no']", can), note)


def call_costs(limit: str, **units: int) -> tuple[Cost, ...]:
    """The costs of calls under one rate limit, from call → units."""
    return tuple(Cost(cast("Call", call), limit, units) for call, units in units.items())


class Exchange:
    """What is known of an exchange before any request. Class attributes are data."""

    exchange: ClassVar[str] = ""
    """Its name in ccxt."""
    markets: ClassVar[tuple[Market, ...]] = ("swap", "future", "spot")
    environments: ClassVar[tuple[str, ...]] = ("production", "sandbox")
    credentials: ClassVar[Mapping[str, str]] = KEY_AND_SECRET
    """Name in an Account document → name in ccxt. All are needed."""
    more_options: ClassVar[tuple[str, ...]] = ()
    """Keys of an Account's `options` at this exchange, in addition to those of every exchange."""
    codes: ClassVar[Mapping[str, Meaning]] = {}
    """The venue's own code, as text → its meaning."""
    code_form: ClassVar[re.Pattern[str] | None] = None
    """The form of the venue's codes; an unknown code in this form is a refusal, too. None where only a known code,
    or a narrow class of ccxt's, is one."""
    limits: ClassVar[tuple[RateLimit, ...]] = ()
    costs: ClassVar[tuple[Cost, ...]] = ()
    """Costs; that of a snapshot is the average at a tick of one second, with the parts at their `ages`."""
    client_ids: ClassVar[ClientIdRule] = ClientIdRule()
    batch: ClassVar[int] = 1
    dead_man: ClassVar[DeadManRule | None] = None
    conditional_orders: ClassVar[ConditionalOrderRule | None] = None
    """What a catastrophe stop may be on its contracts; None where that was not tried."""
    fees_by_fills: ClassVar[bool] = False
    order_life: ClassVar[OrderLife] = OrderLife(names="none")
    """How late an order may arrive; unknown for an exchange that was not examined."""
    window: ClassVar[int | None] = None
    """Milliseconds after its timestamp for which the venue accepts a request, as ccxt states it; None without such a
    window."""
    streams: ClassVar[tuple[Literal["orders", "positions", "balance"], ...]] = ()
    """Streams that ccxt can watch without a symbol."""
    ages: ClassVar[Ages] = Ages()
    capabilities: ClassVar[tuple[Capability, ...]] = ()
    adl_ranks: ClassVar[int | None] = None
    """The highest rank of a position of contracts in the queue of automatic deleveraging; None where positions do not
    state theirs."""
    has_hedge_mode: ClassVar[bool] = False
    has_orders_by_get: ClassVar[bool] = False
    """Whether orders are sent by GET, so that a failed GET may have had an effect."""
    has_separate_order_kinds: ClassVar[bool] = True
    """Whether the cancellation of an order must state whether it is conditional."""
    fills_need_symbol: ClassVar[bool] = False
    keeps_rules: ClassVar[bool] = False
    """Whether ccxt's markets of some symbols suffice to read and close these: what an exchange stores elsewhere
    would be missing after a restart."""
    complete_lists: ClassVar[frozenset[Literal["fills", "flows"]]] = frozenset({"fills", "flows"})
    """Complete lists: `fills`, or `flows`, returns every row since the requested time, or raises. Only for these a
    snapshot states up to when they are known."""
    has_trades_in_flows: ClassVar[bool] = False
    """Whether the ledger of `flows` has every trade: `latest_trades` then names the symbols whose fills are fetched."""
    coin_list: ClassVar[CoinList | None] = None
    """The request that states which coins can be withdrawn; None where there is none."""
    instrument_states: ClassVar[StateTable | None] = None
    """How the venue's own rules state more than ccxt's open and halted; None where they do not."""
    rights_note: ClassVar[str] = "the venue does not state the permissions of a key"
    """The note about the permissions of a key, where they cannot be queried."""
    tried: ClassVar[str] = "parsed answers only"
    """How the adapter was tested, for people."""

    def __init_subclass__(cls) -> None:
        """Copy what an Account document can request from `validation`, which is usable without a dialect."""
        offered = OFFERED.get(cls.exchange)
        if offered is not None:
            cls.markets, cls.environments, cls.credentials = offered.markets, offered.environments, offered.credentials

    @classmethod
    def traits_for(cls, spec: AccountSpec) -> VenueDescription:
        """The venue's traits for this kind of account."""
        return VenueDescription(
            limits=cls.limits, costs=cls.costs, batch=cls.batch,
            client_ids=cls.client_ids, dead_man=cls.dead_man, fees_by_fills=cls.fees_by_fills,
            order_life=cls.order_life_for(spec), enforces_reduce_only=cls.enforces_reduce_only(spec.market),
            conditional_orders=cls.conditional_orders,
        )  # fmt: skip

    @classmethod
    def enforces_reduce_only(cls, market: str) -> bool | None:
        """Whether the venue limits reduce-only orders of this kind of account to the position; None if unknown."""
        is_offered = any(each.name == "reduce only" and each.can == "yes" for each in cls.capabilities)
        return is_offered and market in ("swap", "future")

    @classmethod
    def order_life_for(cls, spec: AccountSpec) -> OrderLife:
        """How late an order of this account may arrive: not after the window that ccxt states with each request."""
        if cls.window is None:
            return cls.order_life
        user_options = spec.options.get("ccxt")
        window = user_options.get("recvWindow", cls.window) if isinstance(user_options, Mapping) else cls.window
        return replace(cls.order_life, always=float(str(window)) / 1000)

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        """ccxt's `options` for this account."""
        return {"defaultType": "spot" if spec.market == "margin" else spec.market}

    @classmethod
    def codes_of(cls, answer: VenueAnswer) -> Iterable[str]:
        """The venue's own codes in a refusal, the most specific one first."""
        body = answer.fields
        return present_codes(body.get("code"), body.get("retCode"), body.get("error"), body.get("msg"))

    @classmethod
    def refusal_codes(cls) -> RefusalCodes:
        """The venue's codes and their form."""
        return RefusalCodes(cls.codes, cls.code_form)

    @classmethod
    def used_from(cls, headers: Mapping[str, str], path: str) -> Mapping[str, int]:
        """The venue's own counts in its headers (names in lower case): limit → units."""
        return {}

    @classmethod
    def allowed_from(cls, headers: Mapping[str, str], limit: RateLimit) -> int:
        """How many units the venue allows of a limit whose count is in the headers; as documented, unless they say."""
        return limit.allowed

    @classmethod
    def limit_uses(cls, headers: Mapping[str, str], path: str) -> Mapping[str, LimitUse]:
        """The counts of the headers with what is allowed; only of limits that the venue documents."""
        declared = {limit.name: limit for limit in cls.limits}
        return {
            name: LimitUse(name, Decimal(used), Decimal(cls.allowed_from(headers, declared[name])))
            for name, used in cls.used_from(headers, path).items()
            if name in declared
        }
