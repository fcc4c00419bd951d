"""The `Limits` document: what an order must pass before a bot sends it."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

from killswitch.model.instant import SECOND
from killswitch.policy.schema.cross_key_checks import Breach, items, mapping, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import MistakeError, Part, Scalar
from killswitch.policy.schema.policy import Match
from killswitch.policy.schema.scalars import (
    Duration,
    Fraction,
    Moment,
    Money,
    Price,
    Quantity,
    Text,
    Word,
    Words,
    moment,
    pattern_json,
    quantity,
    quoted,
)
from killswitch.policy.schema.unwinding import DEFAULT_STABLES, OrdersPerMinute

DEFAULT_VALID_FOR = 2 * SECOND
DEFAULT_REQUEST_TIMEOUT = 30 * SECOND

LIMIT_KEYS = (
    "banned", "session", "price_band", "order_size", "position_size", "gross", "leverage", "concentration",
    "free_margin", "day", "orders_per_minute", "latency", "spread",
)  # fmt: skip
"""The keys of which each limits something."""


def limit_size(value: object) -> Quantity:
    """A size above zero: a percentage of equity, money, or an amount of a base asset."""
    fix = "write a size with its unit: 10% of the equity, 10000 USDT, or 2 BTC"
    if isinstance(value, str):
        try:
            found = quantity(value)
        except MistakeError:
            found = None
        if found is not None and found.unit in ("percent", "money") and found.value > Decimal(0):
            return found
    raise MistakeError("KS2300", f"{quoted(value)} is not a size with its unit", fix)


_SIZE_JSON = pattern_json(r"[0-9.]+(\s*%|\s+[A-Za-z][A-Za-z0-9]+)", "10%", "10000 USDT", "2 BTC")

LimitSize = Annotated[Quantity, Scalar(limit_size, _SIZE_JSON)]


class SizeLimit(Part):
    """A largest size, of all symbols or of some. Of several that cover a symbol, each counts."""

    at_most: LimitSize
    """The largest size: a percentage of the account's equity, money in its currency, or units of the base asset."""
    symbols: Words | None = None
    """Symbols, as the venue writes them, or base assets. Left out: every symbol."""


class BandLimit(Part):
    """A largest distance of an order's price from the mark, of all symbols or of some."""

    at_most: Fraction
    """The largest distance, above and below, as a fraction of the mark."""
    symbols: Words | None = None
    """Symbols, as the venue writes them, or base assets. Left out: every symbol."""


class DayLimits(Part):
    """Limits of a day from 00:00 UTC. A day turns when the clock of the run and the time of the venue are past it."""

    loss: LimitSize | None = None
    """The largest net loss since the day began: the fall of equity without deposits, withdrawals and transfers, so that
    fees and funding are in it once. A percentage is of the equity at its beginning. Left out: no limit."""
    trades: OrdersPerMinute | None = None
    """The largest number of orders that trade. A round trip is two. Left out: no limit."""
    fees: Money | None = None
    """The largest sum of fees; a fee that is not known counts at `fee_rate`. Left out: no limit."""
    fee_rate: Fraction | None = None
    """The worst fee, as a fraction of the value of a fill. Required with `fees`. Left out: not used."""


class MaintenanceWindow(Part):
    """A time in which no order may open anything, because the venue or the desk is at work."""

    begins: Moment
    """When it begins."""
    ends: Moment
    """When it ends."""
    reason: Text
    """Why, for the answer that a bot gets."""


class LimitsSpec(Part):
    """What an order of a bot, and every change of one, must pass at the gate. Orders that only reduce pass all of it.

    A limit that cannot be computed denies: a missing price, an unknown equity, a venue without the number. A limit that
    is left out is none, and the gate's answer lists it.
    """

    match: Match
    """The accounts; `{}` is every account. An account has at most one `Limits`."""
    stale_after: Duration
    """The age of the account's data from which nothing is proved by it."""
    valid_for: Duration = DEFAULT_VALID_FOR
    """How long after the question an allowed order may be sent. Left out: 2s."""
    request_timeout: Duration = DEFAULT_REQUEST_TIMEOUT
    """The longest time-out of the bots' requests to the venue: an order may arrive until then. Left out: 30s."""
    cash: tuple[Word, ...] = DEFAULT_STABLES
    """Assets that count as money next to the account's currency. Left out: USDT, USDC, FDUSD."""
    banned: Words | None = None
    """Symbols, as the venue writes them, or base assets, that must not be opened. Left out: none."""
    session: Words | None = None
    """Names of `Session` documents; entries pass while one of them is open. Left out: at any time."""
    maintenance: tuple[MaintenanceWindow, ...] = ()
    """Times in which nothing may be opened. Left out: none."""
    maintenance_in: Words | None = None
    """Names of `Session` documents while which nothing may be opened, for windows that recur. Left out: none."""
    price_band: tuple[BandLimit, ...] = ()
    """The largest distances of an order's price from the mark. Left out: no limit."""
    order_size: tuple[SizeLimit, ...] = ()
    """The largest value or amount of one order. Left out: no limit."""
    position_size: tuple[SizeLimit, ...] = ()
    """The largest value or amount of a position at worst: what is held on its side, with every order that could add to
    it filled. Left out: no limit."""
    gross: LimitSize | None = None
    """The largest sum of the worst cases of all positions. Left out: no limit."""
    leverage: Price | None = None
    """The largest ratio of that sum to the equity. Left out: no limit."""
    concentration: LimitSize | None = None
    """The largest sum of the worst cases in one base asset. Left out: no limit."""
    free_margin: LimitSize | None = None
    """The least free margin after the order. A missing balance is zero. Left out: no limit."""
    day: DayLimits | None = None
    """Limits of the UTC day. Left out: none."""
    orders_per_minute: OrdersPerMinute | None = None
    """The largest number of orders that the gate allows in any 60 seconds. Left out: no limit."""
    latency: Duration | None = None
    """The longest answer time of the venue at the last poll. Left out: no limit."""
    spread: Fraction | None = None
    """The largest distance of bid and ask, as a fraction of their middle. Left out: no limit."""


class LimitsDocument(VersionedPart):
    """Limits that an order must pass before it is sent."""

    kind: Literal["Limits"]
    spec: LimitsSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """A document limits something; fees have a worst rate; windows end after they begin."""
        spec = spec_of(written)
        if spec and not any(key in spec for key in LIMIT_KEYS) and not spec.get("maintenance"):
            fix = f"add at least one of {', '.join(LIMIT_KEYS)}"
            yield Breach("KS2301", ("spec",), "it limits nothing", fix)
        day = mapping(spec.get("day"))
        if ("fees" in day) != ("fee_rate" in day):
            missing, given = ("fee_rate", "fees") if "fees" in day else ("fees", "fee_rate")
            fix = f"add `{missing}`: a fee that is not known counts at its worst"
            yield Breach("KS2302", ("spec", "day", given), f"`{given}` without `{missing}` limits nothing", fix)
        elif "day" in spec and isinstance(spec["day"], dict) and not day:
            yield Breach("KS2301", ("spec", "day"), "it limits nothing", "add `loss`, `trades` or `fees`, or remove it")
        for number, window in enumerate(items(spec.get("maintenance"))):
            begins, ends = (_moment(mapping(window).get(key)) for key in ("begins", "ends"))
            if begins is not None and ends is not None and ends <= begins:
                path = ("spec", "maintenance", number, "ends")
                yield Breach("KS2303", path, "the window ends before it begins", "write a later `ends`")
        for key in ("order_size", "position_size", "price_band"):
            yield from _twice(key, items(spec.get(key)))


def _moment(value: object) -> int | None:
    try:
        return moment(value)
    except MistakeError:
        return None


def _twice(key: str, limits: list[object]) -> Iterator[Breach]:
    """Two limits of the same symbols: the larger one has no effect."""
    seen: set[tuple[object, ...]] = set()
    for number, limit in enumerate(limits):
        symbols, size = mapping(limit).get("symbols"), mapping(limit).get("at_most")
        names = tuple(sorted(map(str, symbols))) if isinstance(symbols, list) else (str(symbols),)
        unit = str(size).rsplit(maxsplit=1)[-1] if " " in str(size).strip() else "%"
        if (names, unit) in seen:
            fix = "keep one of them, or name other symbols"
            yield Breach("KS2304", ("spec", key, number), "the same symbols have a limit in this unit already", fix)
        seen.add((names, unit))
