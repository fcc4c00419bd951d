"""Unwinding rules: slices, pace, price bounds, ladder, hedges and spot routes of a close.

Times are whole microseconds; shares, bounds and impacts are Decimal fractions (0.005 is 0.5%).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct

from killswitch.graph.freezing import frozen_from
from killswitch.model.words import Cause, Rung
from killswitch.policy.schema import unwinding as schema
from killswitch.policy.schema.unwinding import DEFAULT_HEDGE_AFTER, DEFAULT_HEDGE_WINDOW, DEFAULT_STABLES, DEFAULT_VIA
from killswitch.signals.arguments import is_among

frozen_from(schema.Rung)(Rung)


@frozen_from(schema.Impact)
class ImpactRule(Struct, frozen=True):
    """Maximum slice: its expected impact is at most `at_most`, and it is within the participation."""

    model: Literal["square_root", "linear"]
    at_most: Decimal
    participation: Decimal | None
    """Maximum fraction of the visible depth, or of the recent volume; None: unbounded."""
    if_unknown: Literal["whole", "ladder_only"]
    """For unknown liquidity: both send one order; `ladder_only` requires a ladder that bounds its price."""


@frozen_from(schema.SlippageClass, by_hand=["symbols"])
class SlippageRule(Struct, frozen=True):
    """Slippage bound of a class of symbols, as a fraction of the mark when the order is sent."""

    symbols: tuple[str, ...] | None
    """Symbols or base assets, or the symbols and patterns of the group. None: every symbol."""
    at_most: Decimal
    group: str | None = None
    """CorrelationGroup of the symbols."""

    def covers(self, symbol: str, base: str) -> bool:
        """Whether the symbol, with base asset `base`, is in this class."""
        return self.symbols is None or base in self.symbols or is_among(symbol, self.symbols)


@frozen_from(schema.StandIn)
class HedgeInstrument(Struct, frozen=True):
    """An instrument that may hedge a position that cannot be closed."""

    account: str
    symbol: str


@frozen_from(schema.Hedge, instruments="with", max_notional="max_notional.value", currency="max_notional.currency")
class HedgeRule(Struct, frozen=True):
    """Hedging of positions that cannot be closed."""

    mode: Literal["suggest", "act"]
    after: int
    """Time for which a position must be uncloseable (microseconds)."""
    instruments: tuple[HedgeInstrument, ...]
    """In order of preference."""
    window: int
    """Window of the returns for beta (microseconds)."""
    max_notional: Decimal | None
    """Maximum notional of one hedge, in `currency`; None: unbounded, only with `suggest`."""
    currency: str | None = None


@frozen_from(schema.Spot)
class SpotRule(Struct, frozen=True):
    """Routes of spot holdings without an open market against the account's currency."""

    via: tuple[str, ...]
    """Intermediate assets, in order of preference."""
    stables: tuple[str, ...]
    """Assets that count as money and are never sold."""
    keep: tuple[str, ...] = ()
    """Other assets that are never sold."""


DEFAULT_SPOT: Final = SpotRule(DEFAULT_VIA, DEFAULT_STABLES)
SUGGESTED_ONLY: Final = HedgeRule("suggest", DEFAULT_HEDGE_AFTER, (), DEFAULT_HEDGE_WINDOW, None)
"""Default: a position that cannot be closed is reported, without a hedge instrument."""


@frozen_from(schema.UnwindingSpec, by_hand=["slippage"])
class UnwindingRule(Struct, frozen=True):
    """Rules of carrying out a close. None and empty values are not required."""

    name: str
    reasons: tuple[Cause, ...] = ()
    """Reasons whose manual closes use it."""
    max_orders_per_minute: int | None = None
    """None: as fast as the venue allows."""
    pause: int = 0
    """Microseconds between two slices of a position."""
    impact: ImpactRule | None = None
    """None: positions are split only at the venue's maximum."""
    slippage: tuple[SlippageRule, ...] = ()
    """The first class that covers a symbol applies; without one the price is unbounded."""
    ladder: tuple[Rung, ...] = ()
    """Not empty with `slippage`, and ends with an exit; empty: every order is a market order."""
    hedge: HedgeRule = SUGGESTED_ONLY
    spot: SpotRule = DEFAULT_SPOT
    slices: int | None = None
    """Parts of each position that go in turn; None: one position after the other."""

    def bound(self, symbol: str, base: str) -> Decimal | None:
        """Maximum slippage of an order of the symbol, as a fraction of the mark; None: unbounded."""
        return next((each.at_most for each in self.slippage if each.covers(symbol, base)), None)


PLAIN: Final = UnwindingRule("plain")
"""Unwinding of a close that names none: market orders as fast as the venue allows. It has no document."""


def _bounded(at_most: str) -> tuple[SlippageRule, ...]:
    return (SlippageRule(None, Decimal(at_most)),)


_RESTING = Rung("limit", Decimal(3))
_SHORT = (Rung("limit_ioc"), Rung("market", tries=2), _RESTING)
"""One try within the bound, then at any price."""
_LONG = (
    Rung("limit_ioc", tries=2),
    Rung("limit_ioc", Decimal(2), 2),
    Rung("market", tries=2),
    _RESTING,
)

OF_CAUSE: Final[Mapping[Cause, UnwindingRule]] = {
    each.reasons[0]: each
    for each in (
        UnwindingRule("market", ("market",), slippage=_bounded("0.03"), ladder=_SHORT),
        UnwindingRule("system-failure", ("system-failure",), slippage=_bounded("0.05"), ladder=_SHORT),
        UnwindingRule("exchange-breach", ("exchange-breach",)),
        UnwindingRule("regulatory", ("regulatory",), slippage=_bounded("0.01"), ladder=_LONG),
        # the failing coin may be a stable coin, so none is kept
        UnwindingRule(
            "counterparty", ("counterparty",), slippage=_bounded("0.02"), ladder=_LONG,
            spot=SpotRule(DEFAULT_SPOT.via, ()),
        ),
        UnwindingRule("dead-man", ("dead-man",), slippage=_bounded("0.05"), ladder=_SHORT),
        UnwindingRule("drill", ("drill",), 60, slippage=_bounded("0.005"), ladder=_LONG),
        UnwindingRule("operator", ("operator",), slippage=_bounded("0.02"), ladder=_SHORT),
    )
}  # fmt: skip
"""Built-in unwindings of manual closes, by reason and named after it, if no document claims the reason."""


def skips_bounds_without_mark(rule: UnwindingRule) -> bool:
    """Whether a close by hand with this rule goes at market at once for positions without a fresh mark.

    That is so for built-in rules with a single bounded try. A document, and a reason that trades price for time, keep
    their ladder, whose steps are then limited by the order book.
    """
    return any(rule is each and each.ladder == _SHORT for each in OF_CAUSE.values())


def unwinding_for(cause: Cause | None, rules: Iterable[UnwindingRule]) -> UnwindingRule:
    """Unwinding of manual closes for this reason: the rule that claims it, else the built-in one.

    None, in records older than the reasons, counts as `operator`.
    """
    reason: Cause = cause or "operator"
    return next((each for each in rules if reason in each.reasons), OF_CAUSE[reason])


def unwinding_named(name: str | None, rules: Iterable[UnwindingRule]) -> UnwindingRule:
    """Unwinding named by a stage's close; `PLAIN` without a name.

    LookupError for an unknown name, which a compiled policy set never has.
    """
    if name is None:
        return PLAIN
    for each in rules:
        if each.name == name:
            return each
    raise LookupError(f"the policy set has no unwinding `{name}`")
