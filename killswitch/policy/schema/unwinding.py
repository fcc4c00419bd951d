"""What an `Unwinding` holds: how a close is carried out once it is decided."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.words import Cause
from killswitch.policy.schema import unwinding_checks
from killswitch.policy.schema.cross_key_checks import Breach
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, MistakeError, Part, Scalar
from killswitch.policy.schema.scalars import (
    Duration,
    Fraction,
    Name,
    ProperShare,
    Quantity,
    Word,
    number_within,
    quantity,
    spelled,
    whole_number,
)

DEFAULT_HEDGE_AFTER = MINUTE
DEFAULT_HEDGE_WINDOW = 4 * HOUR
DEFAULT_VIA = ("BTC", "ETH")
DEFAULT_STABLES = ("USDT", "USDC", "FDUSD")
WIDEST = 100


def money(value: object) -> Quantity:
    """More than zero of a currency, as `50000 USDT`."""
    fix = "write the number and its currency, such as 50000 USDT"
    try:
        written = quantity(value)
    except MistakeError:
        raise MistakeError("KS2103", f"{spelled(value)} is no sum of money", fix) from None
    if written.unit != "money" or written.value <= 0:
        raise MistakeError("KS2103", f"{spelled(value)} is no sum of money above zero", fix)
    return written


def widening(value: object) -> Decimal:
    """How many times the bound: a plain number above 0 and at most 100."""
    fix = "write how many times the bound, such as 1 or 2.5"
    return number_within(value, lambda number: 0 < number <= WIDEST, f"above 0 and at most {WIDEST}", fix)


Money = Annotated[Quantity, Scalar(money, {"type": "string", "pattern": r"^[0-9.]+\s+[A-Za-z][A-Za-z0-9]+$"})]
Widening = Annotated[Decimal, Scalar(widening, {"type": "number", "exclusiveMinimum": 0, "maximum": WIDEST})]
Tries = Annotated[int, whole_number(1, 100)]
OrdersPerMinute = Annotated[int, whole_number(1, 60_000)]


class Impact(Part):
    """How large a slice may be, so that it does not move the market against what is left."""

    model: Literal["square_root", "linear"]
    """The expected impact of trading Q: `square_root` is σ·√(Q/V) (Almgren, Thum, Hauptmann and Li 2005), `linear` is
    σ·Q/V (Kyle 1985), with the daily volatility σ and the daily volume V."""
    at_most: Fraction
    """The greatest expected impact of one slice, as a fraction of the price."""
    participation: Fraction | None = None
    """The greatest part of the visible depth, or where that is unknown of the recent volume, that one slice may be.
    Left out: not bounded."""
    if_unknown: Literal["whole", "ladder_only"]
    """When volume, volatility and depth are unknown the position goes in one order, as far as the venue's maximum
    allows. `whole` accepts that; `ladder_only` accepts it only because a ladder bounds the price, and needs one."""


class SlippageClass(Part):
    """How far from the mark an order of some symbols may fill. Without `symbols` and `group` it is for all."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["symbols", "group"]}})

    symbols: Annotated[tuple[Word, ...] | None, AtLeastOne()] = None
    """Symbols, or base assets. Left out: every one."""
    group: Name | None = None
    """A CorrelationGroup, in place of its symbols. Left out: `symbols` says which."""
    at_most: ProperShare
    """The bound, as a fraction of the mark when the order is sent."""


class Rung(Part):
    """One step of the ladder: so many orders of one kind, then the next step."""

    order: Literal["limit_ioc", "market", "limit"]
    """`limit_ioc` has a limit and expires as far as it does not fill at once. `market` has none. `limit` rests, and is
    for markets that take no market orders."""
    widen: Widening = Decimal(1)
    """The limit, in times of the symbol's bound; not with `market`. Left out: 1."""
    tries: Tries = 1
    """How many orders before the next step. Left out: 1."""


class StandIn(Part):
    """An instrument that may stand in for a position that cannot be closed."""

    account: Word
    """The name of its Account."""
    symbol: Word
    """Its symbol there."""


class Hedge(Part):
    """What is done about a position that cannot be closed: its venue is down, its market is halted or delisted."""

    mode: Literal["suggest", "act"]
    """`suggest` tells a person what to open, and how much; `act` opens it, temporarily."""
    after: Duration = DEFAULT_HEDGE_AFTER
    """How long the position cannot be closed before. Left out: 60s."""
    stand_ins: Annotated[tuple[StandIn, ...], AtLeastOne(), Field(alias="with")]
    """Instruments that may stand in; the first that can does."""
    window: Duration = DEFAULT_HEDGE_WINDOW
    """Of the returns over which beta is taken, which sizes the hedge. Left out: 4h."""
    max_notional: Money | None = None
    """The greatest worth of one hedge; needed with `act`. Left out: what beta says."""


class Spot(Part):
    """How holdings are sold that have no open market against the account's currency, and what is never sold."""

    via: tuple[Word, ...] = DEFAULT_VIA
    """Assets to go over, the first that has both markets. Left out: BTC, then ETH."""
    stables: tuple[Word, ...] = DEFAULT_STABLES
    """Assets that count as money, and are never sold. Left out: USDT, USDC, FDUSD."""
    keep: tuple[Word, ...] = ()
    """Other assets that are never sold. Left out: none."""


class UnwindingSpec(Part):
    """How fast, in which pieces and at which price a close is carried out, and what if it cannot be."""

    reasons: tuple[Cause, ...] = ()
    """Closes by hand for these reasons are carried out by it. Left out: none; what a reason does by itself is in
    `docs/semantics.md`."""
    max_orders_per_minute: OrdersPerMinute | None = None
    """On each account, evenly spaced. Left out: as fast as the venue allows."""
    pause: Duration | None = None
    """Between two slices of one position. Left out: none."""
    impact: Impact | None = None
    """How large a slice may be. Left out: positions are split at the venue's maximum only."""
    slippage: tuple[SlippageClass, ...] = ()
    """How far from the mark an order may fill; the first that covers a symbol holds, and what none covers is not
    bounded. Needs a `ladder`. Left out: no bound."""
    ladder: tuple[Rung, ...] = ()
    """The orders that are tried, one step after the other. It ends with an exit: `market`, or `limit`. Left out: market
    orders."""
    hedge: Hedge | None = None
    """What to do about a position that cannot be closed. Left out: it is told, and nothing is opened."""
    spot: Spot = Spot()
    """Routes of spot holdings. Left out: over BTC, then ETH; USDT, USDC and FDUSD are kept."""


class UnwindingDocument(VersionedPart):
    """An unwinding: how a close is carried out."""

    kind: Literal["Unwinding"]
    spec: UnwindingSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """See `unwinding_checks`."""
        return unwinding_checks.unwinding(written)
