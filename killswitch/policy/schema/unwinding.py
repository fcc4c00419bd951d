"""The `Unwinding` document: how a decided close is executed."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.words import Cause
from killswitch.policy.schema import cross_key_checks
from killswitch.policy.schema.cross_key_checks import Breach
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, Part, Scalar
from killswitch.policy.schema.scalars import (
    Duration,
    Fraction,
    Money,
    Name,
    ProperShare,
    Word,
    number_within,
    whole_number,
)

DEFAULT_HEDGE_AFTER = MINUTE
DEFAULT_HEDGE_WINDOW = 4 * HOUR
DEFAULT_VIA = ("BTC", "ETH")
DEFAULT_STABLES = ("USDT", "USDC", "FDUSD")
WIDEST = 100


def widening(value: object) -> Decimal:
    """A multiple of the bound: a plain number greater than 0 and at most 100."""
    fix = "write a multiple of the bound, such as 1 or 2.5"
    return number_within(value, lambda number: 0 < number <= WIDEST, f"above 0 and at most {WIDEST}", fix)


Widening = Annotated[Decimal, Scalar(widening, {"type": "number", "exclusiveMinimum": 0, "maximum": WIDEST})]
Tries = Annotated[int, whole_number(1, 100)]
OrdersPerMinute = Annotated[int, whole_number(1, 60_000)]
SliceCount = Annotated[int, whole_number(2, 100)]


class Impact(Part):
    """The maximum size of a slice, by its expected market impact."""

    model: Literal["square_root", "linear"]
    """The expected impact of trading Q: `square_root` is σ·√(Q/V) (Almgren, Thum, Hauptmann and Li 2005), `linear` is
    σ·Q/V (Kyle 1985), with the daily volatility σ and the daily volume V."""
    at_most: Fraction
    """The maximum expected impact of one slice, as a fraction of the price."""
    participation: Fraction | None = None
    """The maximum size of one slice as a share of the visible depth or, where that is unknown, of the recent volume.
    Left out: no limit."""
    if_unknown: Literal["whole", "ladder_only"]
    """When volume, volatility and depth are unknown, the position is closed in one order, up to the venue's maximum.
    `whole` accepts that; `ladder_only` accepts it only with a ladder, which bounds the price."""


class SlippageClass(Part):
    """How far from the mark an order may fill, for some symbols, or without `symbols` and `group` for all."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["symbols", "group"]}})

    symbols: Annotated[tuple[Word, ...] | None, AtLeastOne()] = None
    """Symbols, or base assets. Left out: all symbols."""
    group: Name | None = None
    """A CorrelationGroup, instead of its symbols. Left out: `symbols` applies."""
    at_most: ProperShare
    """The bound, as a fraction of the mark at the time the order is sent."""


class Rung(Part):
    """One step of the ladder: a number of orders of one kind, then the next step."""

    order: Literal["limit_ioc", "market", "limit"]
    """The kind of order. `limit_ioc` is a limit order whose unfilled part expires at once. `market` has no limit.
    `limit` rests, for markets that accept no market orders."""
    widen: Widening = Decimal(1)
    """The limit, as a multiple of the symbol's bound; not with `market`. Left out: 1."""
    tries: Tries = 1
    """The number of orders before the next step. Left out: 1."""


class StandIn(Part):
    """An instrument to hedge a position with that cannot be closed."""

    account: Word
    """The name of the Account to open it on."""
    symbol: Word
    """The symbol on that account."""


class Hedge(Part):
    """The hedge for a position that cannot be closed, because its venue is down or its market is halted or delisted."""

    mode: Literal["suggest", "act"]
    """`suggest` notifies operators what to open, and how much; `act` opens it temporarily."""
    after: Duration = DEFAULT_HEDGE_AFTER
    """How long a position must be uncloseable before it is hedged. Left out: 60s."""
    stand_ins: Annotated[tuple[StandIn, ...], AtLeastOne(), Field(alias="with")]
    """Instruments for the hedge; the first that can be used is."""
    window: Duration = DEFAULT_HEDGE_WINDOW
    """The window of the returns for beta, which determines the size of the hedge. Left out: 4h."""
    max_notional: Money | None = None
    """The maximum notional of one hedge; required with `act`. Left out: the size by beta."""


class Spot(Part):
    """How holdings without an open market against the account's currency are sold, and which assets are never sold."""

    via: tuple[Word, ...] = DEFAULT_VIA
    """Intermediate assets; the first that has both markets is used. Left out: BTC, then ETH."""
    stables: tuple[Word, ...] = DEFAULT_STABLES
    """Assets that count as cash and are never sold. Left out: USDT, USDC, FDUSD."""
    keep: tuple[Word, ...] = ()
    """Other assets that are never sold. Left out: none."""


class UnwindingSpec(Part):
    """How fast, in which slices and at which price a close is executed, and what to do if it cannot be."""

    reasons: tuple[Cause, ...] = ()
    """The reasons of manual closes that use this Unwinding. Left out: none; `docs/semantics.md` describes what a reason
    does by default."""
    max_orders_per_minute: OrdersPerMinute | None = None
    """The maximum order rate on each account, evenly spaced. Left out: as fast as the venue allows."""
    pause: Duration | None = None
    """The pause between two slices of one position. Left out: none."""
    slices: SliceCount | None = None
    """The number of parts into which each position is divided. They go in turn, a part of every position and then the
    next ones, so that the book shrinks as a whole; a position that is closed at once may leave its hedges naked for the
    rest of the schedule. Requires `max_orders_per_minute` or `pause`. Left out: one position after the other."""
    impact: Impact | None = None
    """The maximum size of a slice. Left out: positions are split only at the venue's maximum."""
    slippage: tuple[SlippageClass, ...] = ()
    """How far from the mark orders may fill; the first item that covers a symbol applies, and other symbols are not
    bounded. Requires a `ladder`. Left out: no bound."""
    ladder: tuple[Rung, ...] = ()
    """The orders to try, one step after the other. The last step is an exit: `market`, or `limit`. Left out: market
    orders."""
    hedge: Hedge | None = None
    """The hedge for a position that cannot be closed. Left out: operators are notified, and nothing is opened."""
    spot: Spot = Spot()
    """How spot holdings are sold. Left out: via BTC, then ETH; USDT, USDC and FDUSD are kept."""


class UnwindingDocument(VersionedPart):
    """An unwinding: how a close is executed."""

    kind: Literal["Unwinding"]
    spec: UnwindingSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """See `cross_key_checks`."""
        return cross_key_checks.unwinding(written)
