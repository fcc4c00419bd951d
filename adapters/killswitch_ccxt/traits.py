"""What a dialect declares of its exchange, and the tables of which it declares it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, cast

from msgspec import structs

from killswitch.model.inspection import Capability
from killswitch.model.snapshot import Market
from killswitch.model.venue import AccountSpec, Call, ClientIdRule, Cost, DeadManRule, OrderLife, RateLimit, VenueTraits
from killswitch_ccxt.errors import Answer, Meaning, Verdicts, first_said
from killswitch_ccxt.instruments import StateTable
from killswitch_ccxt.validation import KEY_AND_SECRET, OFFERED


@dataclass(frozen=True, slots=True)
class Ages:
    """How often each part of a snapshot is read, in seconds; equity and positions every time. See `snapshot_reader`.

    They keep a snapshot inside the venue's documented limits at a tick of one second. `quotes`: None where they are
    not read, since the positions bring what is needed.
    """

    orders: float = 5.0
    fills: float = 15.0
    flows: float = 20.0
    quotes: float | None = 10.0
    mode: float = 60.0
    states: float = 60.0
    clock: float = 300.0
    orders_least: float = 2.0
    rows_least: float = 5.0
    """The least time between two readings of all orders, and of fills or flows, however much moves meanwhile."""
    rows_hurried: int = 6
    """How many readings of flows a minute may be earlier than their age, because money or a position has moved."""
    fills_hurried: int = 6
    """The same of fills; each symbol counts, where symbols must be named. Together they weigh at most a tenth of what
    the venue's limits leave to reading."""
    hurried_saved: int = 3
    """Hurried readings that even the smallest of these allowances saves up for the next movement."""
    rules: float = 3600.0


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


def charge(limit: str, **units: int) -> tuple[Cost, ...]:
    """What each call takes of a rate limit: call → units."""
    return tuple(Cost(cast("Call", call), limit, units) for call, units in units.items())


class Exchange:
    """What is known of an exchange before anything is asked. Class attributes are data."""

    exchange: ClassVar[str] = ""
    """Its name in ccxt."""
    markets: ClassVar[tuple[Market, ...]] = ("swap", "future", "spot")
    environments: ClassVar[tuple[str, ...]] = ("production", "sandbox")
    credentials: ClassVar[Mapping[str, str]] = KEY_AND_SECRET
    """Name in an Account document → name in ccxt. All are needed."""
    more_options: ClassVar[tuple[str, ...]] = ()
    """What an Account's `options` may say at this exchange beside what they may say everywhere."""
    codes: ClassVar[Mapping[str, Meaning]] = {}
    """The venue's own code, as text → what it means."""
    code_form: ClassVar[re.Pattern[str] | None] = None
    """How the venue writes its codes; one of this form that is not among `codes` is a refusal all the same. None where
    nothing but a known code, or a narrow class of ccxt's, is one."""
    limits: ClassVar[tuple[RateLimit, ...]] = ()
    costs: ClassVar[tuple[Cost, ...]] = ()
    """Of a snapshot: what one costs on average at a tick of one second, with the parts at their `ages`."""
    client_ids: ClassVar[ClientIdRule] = ClientIdRule()
    batch: ClassVar[int] = 1
    whole_book: ClassVar[bool] = False
    dead_man: ClassVar[DeadManRule | None] = None
    fees_by_fills: ClassVar[bool] = False
    order_life: ClassVar[OrderLife] = OrderLife(names="none")
    """How late an order may arrive; of an exchange that nobody has looked at, nothing is known."""
    window: ClassVar[int | None] = None
    """Milliseconds after its timestamp for which the venue takes a request, as ccxt says it; None where it does not."""
    streams: ClassVar[tuple[Literal["orders", "positions", "balance"], ...]] = ()
    """What ccxt can watch without naming a symbol."""
    ages: ClassVar[Ages] = Ages()
    capabilities: ClassVar[tuple[Capability, ...]] = ()
    has_hedge_mode: ClassVar[bool] = False
    changes_by_get: ClassVar[bool] = False
    """Whether orders are sent by GET, so that a failed GET may have done something."""
    kinds_apart: ClassVar[bool] = True
    """Whether an order must be cancelled as the kind that it is, conditional or not."""
    fills_need_symbol: ClassVar[bool] = False
    keeps_rules: ClassVar[bool] = False
    """Whether ccxt's markets of some symbols are all that reading and closing these needs: what an exchange keeps
    beside them would be missing after a restart."""
    rows_whole: ClassVar[frozenset[Literal["fills", "flows"]]] = frozenset({"fills", "flows"})
    """Lists of rows that come whole: `fills`, or `flows`, gives every row since the time asked for, or raises. Only of
    these a snapshot says up to when they are known."""
    trades_in_flows: ClassVar[bool] = False
    """Whether the ledger that `flows` reads has every trade, so that `traded` says whose fills are to be asked for."""
    instrument_states: ClassVar[StateTable | None] = None
    """How the venue's own rules tell states beyond ccxt's open and halted; None where they tell none."""
    tried: ClassVar[str] = "parsed answers only"
    """Against what the adapter was tried, for people."""

    def __init_subclass__(cls) -> None:
        """What an Account document can ask of an exchange is in `validation`, where it is read without a dialect."""
        offered = OFFERED.get(cls.exchange)
        if offered is not None:
            cls.markets, cls.environments, cls.credentials = offered.markets, offered.environments, offered.credentials

    @classmethod
    def traits_for(cls, spec: AccountSpec) -> VenueTraits:
        """What closing has to know of the venue, for this kind of account."""
        return VenueTraits(
            limits=cls.limits, costs=cls.costs, batch=cls.batch, whole_book=cls.whole_book,
            client_ids=cls.client_ids, dead_man=cls.dead_man, fees_by_fills=cls.fees_by_fills,
            order_life=cls.order_life_for(spec),
        )  # fmt: skip

    @classmethod
    def order_life_for(cls, spec: AccountSpec) -> OrderLife:
        """How late an order of this account may arrive: where ccxt says a window with each request, no later."""
        if cls.window is None:
            return cls.order_life
        told = spec.options.get("ccxt")
        window = told.get("recvWindow", cls.window) if isinstance(told, Mapping) else cls.window
        return structs.replace(cls.order_life, always=float(str(window)) / 1000)

    @classmethod
    def credentials_of(cls, given: Mapping[str, str]) -> dict[str, str]:
        """Credentials by ccxt's names. None at all are fine: then only public questions can be asked."""
        return {cls.credentials[name]: value for name, value in given.items()}

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        """ccxt's `options` for this account."""
        return {"defaultType": "spot" if spec.market == "margin" else spec.market}

    @classmethod
    def codes_of(cls, answer: Answer) -> Iterable[str]:
        """The venue's own codes in a refusal, the most telling one first."""
        body = answer.body
        if not isinstance(body, Mapping):
            return ()
        return first_said(body.get("code"), body.get("retCode"), body.get("error"), body.get("msg"))

    @classmethod
    def verdicts(cls) -> Verdicts:
        """How the venue says no."""
        return Verdicts(cls.codes, cls.code_form)

    @classmethod
    def used_from(cls, headers: Mapping[str, str], path: str) -> Mapping[str, int]:
        """What the venue's headers (names in lower case) say of its own count: limit → units."""
        return {}
