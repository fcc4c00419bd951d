"""How a close is carried out: slices, pace, the price that is accepted, the way out, hedges, routes of spot.

Times are whole microseconds; shares, bounds and impacts are Decimal fractions (0.005 is 0.5%).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final, Literal

from killswitch.model.record import Node
from killswitch.model.words import Cause
from killswitch.policy.schema.unwinding import DEFAULT_HEDGE_AFTER, DEFAULT_HEDGE_WINDOW, DEFAULT_STABLES, DEFAULT_VIA

RungOrder = Literal["limit_ioc", "market", "limit"]
ImpactModel = Literal["square_root", "linear"]
IfUnknown = Literal["whole", "ladder_only"]
"""Of a position whose liquidity is unknown: one order in both; `ladder_only` only where a ladder bounds its price."""


class RungRule(Node):
    """One step of the ladder: `tries` orders of this kind, then the next; limited at `widen` × the bound of its class.

    `limit_ioc` expires as far as it does not fill at once, `market` has no limit, `limit` rests and is for markets
    that take no market orders. The last rung is tried without end.
    """

    order: RungOrder
    widen: Decimal = Decimal(1)
    """Without a meaning for `market`."""
    tries: int = 1


class ImpactRule(Node):
    """The greatest slice: one whose expected impact is at most `at_most`, and within the participation."""

    model: ImpactModel
    at_most: Decimal
    participation: Decimal | None
    """Of the visible depth, or of the recent volume, a slice; None: not asked."""
    if_unknown: IfUnknown


class SlippageRule(Node):
    """The bound of one class of symbols: the fraction of the mark, when it is sent, that an order may slip."""

    symbols: tuple[str, ...] | None
    """Symbols, or base assets; those of the group where one is named. None is every symbol."""
    at_most: Decimal
    group: str | None = None
    """The CorrelationGroup that `symbols` were taken from."""

    def covers(self, symbol: str, base: str) -> bool:
        """Whether the symbol, whose base asset is `base`, is of this class."""
        return self.symbols is None or symbol in self.symbols or base in self.symbols


class StandIn(Node):
    """An instrument that may stand in for a position that cannot be closed."""

    account: str
    symbol: str


class HedgeRule(Node):
    """When a position cannot be closed."""

    mode: Literal["suggest", "act"]
    after: int
    """How long it cannot be closed before (microseconds)."""
    stand_ins: tuple[StandIn, ...]
    """In the order in which they are tried."""
    window: int
    """Of the returns that beta is taken over (microseconds)."""
    max_notional: Decimal | None
    """Bound of one hedge, in `currency`; None: none, which `act` never has."""
    currency: str | None = None


class SpotRule(Node):
    """Routes of a holding that has no open market against the account's currency."""

    via: tuple[str, ...]
    """Assets to go over, in the order in which they are tried."""
    stables: tuple[str, ...]
    """Assets that count as money: never sold."""
    keep: tuple[str, ...] = ()
    """Other assets that are never sold."""


DEFAULT_SPOT: Final = SpotRule(DEFAULT_VIA, DEFAULT_STABLES)
SUGGESTED_ONLY: Final = HedgeRule("suggest", DEFAULT_HEDGE_AFTER, (), DEFAULT_HEDGE_WINDOW, None)
"""Where nothing is said: that a position cannot be closed is told, with no instrument to put in its place."""


class UnwindingRule(Node):
    """One way to carry a close out. What is None or empty is not asked for."""

    name: str
    reasons: tuple[Cause, ...] = ()
    """Closes by hand for these reasons are carried out by it."""
    max_orders_per_minute: int | None = None
    """None: as fast as the venue allows."""
    pause: int = 0
    """Microseconds between two slices of one position."""
    impact: ImpactRule | None = None
    """None: positions are split at the venue's maximum only."""
    slippage: tuple[SlippageRule, ...] = ()
    """The first that covers a symbol holds; of a symbol that none covers the price is not bounded."""
    ladder: tuple[RungRule, ...] = ()
    """Never empty with `slippage`, and never without an exit; empty: every order is a market order."""
    hedge: HedgeRule = SUGGESTED_ONLY
    spot: SpotRule = DEFAULT_SPOT

    def bound(self, symbol: str, base: str) -> Decimal | None:
        """The fraction of the mark that an order of the symbol may slip; None: it is not bounded."""
        return next((each.at_most for each in self.slippage if each.covers(symbol, base)), None)


PLAIN: Final = UnwindingRule("plain")
"""A close that names no unwinding: market orders as fast as the venue allows. No document is behind it."""


def _bounded(at_most: str) -> tuple[SlippageRule, ...]:
    return (SlippageRule(None, Decimal(at_most)),)


_RESTING = RungRule("limit", Decimal(3))
_SHORT = (RungRule("limit_ioc"), RungRule("market", tries=2), _RESTING)
"""One try within the bound, then out at any price."""
_LONG = (RungRule("limit_ioc", tries=2), RungRule("limit_ioc", Decimal(2), 2), RungRule("market", tries=2), _RESTING)

OF_CAUSE: Final[Mapping[Cause, UnwindingRule]] = {
    each.reasons[0]: each
    for each in (
        UnwindingRule("market", ("market",), slippage=_bounded("0.03"), ladder=_SHORT),
        UnwindingRule("system-failure", ("system-failure",)),
        UnwindingRule("exchange-breach", ("exchange-breach",)),
        UnwindingRule("regulatory", ("regulatory",), slippage=_bounded("0.01"), ladder=_LONG),
        # the coin that fails may be a stable one: here none is kept for being one
        UnwindingRule(
            "counterparty", ("counterparty",), slippage=_bounded("0.02"), ladder=_LONG,
            spot=SpotRule(DEFAULT_SPOT.via, ()),
        ),
        UnwindingRule("drill", ("drill",), 60, slippage=_bounded("0.005"), ladder=_LONG),
        UnwindingRule("operator", ("operator",)),
    )
}  # fmt: skip
"""What a close by hand does for a reason that no document claims. Named after the reason."""


def unwinding_for(cause: Cause | None, rules: Iterable[UnwindingRule]) -> UnwindingRule:
    """How a close by hand for this reason is carried out: by the rule of a set that claims it, else as built in.

    None, which is a record older than the vocabulary, counts as `operator`.
    """
    reason: Cause = cause or "operator"
    claiming = (each for each in rules if reason in each.reasons)
    return next(claiming, OF_CAUSE[reason])


def unwinding_named(name: str | None, rules: Iterable[UnwindingRule]) -> UnwindingRule:
    """How a stage's close is carried out that names `name`; `PLAIN` where it names none.

    LookupError for a name that the set does not have, which no compiled set of policies leads to.
    """
    if name is None:
        return PLAIN
    for each in rules:
        if each.name == name:
            return each
    raise LookupError(f"the policy set has no unwinding `{name}`")
