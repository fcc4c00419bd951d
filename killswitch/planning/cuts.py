"""One position's way to its target: where it is sold, in which slices, and what the venue's rules leave of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from msgspec.structs import replace

from killswitch.graph.unwinding import UnwindingRule
from killswitch.model.snapshot import AccountSnapshot, Instrument, Liquidity, OrderSide, Position
from killswitch.planning.ranking import Candidate
from killswitch.planning.rounding import Reduction, reduction
from killswitch.planning.routes import Markets, Route, base_of, open_markets, quote_of, route
from killswitch.planning.selection import Target
from killswitch.planning.slices import Slice, greatest_slice
from killswitch.planning.worths import Holdings, price_of
from killswitch.signals.view import ScopeView

DERIVATIVES = ("swap", "future")


@dataclass(frozen=True, slots=True)
class Blocked:
    """A selected position that the venue takes no order for now, and why."""

    symbol: str
    why: str
    dust: bool


@dataclass(frozen=True, slots=True)
class Market:
    """What is known of the markets that a decision trades on: rules, liquidity, and for spot what is open and held."""

    view: ScopeView
    rule: UnwindingRule
    liquidity: dict[tuple[str, str], Liquidity]
    spot: dict[str, Markets] = field(default_factory=dict)
    holdings: Holdings = field(default_factory=Holdings)

    @classmethod
    def of(cls, view: ScopeView, rule: UnwindingRule) -> Market:
        """Of the scope's accounts as they are in this snapshot: liquidity is not held over."""
        liquidity = {
            (account.account, each.symbol): each for account in view.accounts for each in account.liquidity or ()
        }
        spot = {a.account: open_markets(a, view.instruments) for a in view.accounts if a.market == "spot"}
        return cls(view, rule, liquidity, spot, Holdings.of(view))

    def band(self, symbol: str) -> Decimal | None:
        """The fraction of the mark that an order of the symbol may slip; None where it is not bounded."""
        return self.rule.bound(symbol, base_of(symbol))

    def rules(self, account: str, symbol: str) -> Instrument | None:
        """The symbol's rules as last given."""
        return self.view.instrument(account, symbol)


@dataclass(frozen=True, slots=True)
class Cut:
    """A target with its way: `place` counts from 1 in the order of closing. `slice` is what bounds its orders."""

    place: int
    target: Target
    route: Route
    slice: Slice
    result: Reduction

    @property
    def candidate(self) -> Candidate:
        return self.target.ranked.candidate

    @property
    def side(self) -> OrderSide:
        return "sell" if self.candidate.position.side == "long" else "buy"

    @property
    def blocked(self) -> Blocked | None:
        """Why the venue takes no order for it now, or None."""
        why = self.result.blocked
        return None if why is None else Blocked(self.candidate.position.symbol, why, dust=not self.result.parts)

    @property
    def outgrown(self) -> bool:
        """Whether its slices are larger than its market should be asked to take at once."""
        greatest = self.slice.greatest
        return greatest is not None and any(part > greatest for part in self.result.parts)


def cut_of(place: int, target: Target, market: Market) -> Cut:
    """How `target` is reached."""
    candidate = target.ranked.candidate
    account, position = candidate.account, candidate.position
    way = _way(candidate, market)
    rules = market.rules(account.account, way.first)
    side: OrderSide = "sell" if position.side == "long" else "buy"
    bounds = greatest_slice(market.rule.impact, market.liquidity.get((account.account, way.first)), side)
    result = reduction(
        position if way.first == position.symbol else _as_if_of(way.first, candidate, market),
        target.contracts,
        rules,
        reduce_only=account.market in DERIVATIVES,
        greatest=bounds.greatest,
    )
    return Cut(place, target, way, bounds, result)


def _way(candidate: Candidate, market: Market) -> Route:
    account, symbol = candidate.account, candidate.position.symbol
    if account.market != "spot":
        return Route(symbol)
    own = market.rules(account.account, symbol)
    state = None if own is None else own.state
    found = route(symbol, state, account.currency, market.spot[account.account], market.rule.spot)
    return found if found.second is None else _where_it_arrives(found, account, market)


def _where_it_arrives(found: Route, account: AccountSnapshot, market: Market) -> Route:
    """The route with its second hop on the market that the asset in between is listed on, where that brings money.

    What the first hop brings is added to the holding that is there, so it is there that its arrival is seen.
    """
    money = (account.currency, *market.rule.spot.stables)
    for position in market.holdings.of_asset(account.account, found.via or ""):
        symbol = position.symbol
        if quote_of(symbol) in money and symbol in market.spot[account.account].values():
            return Route(found.first, symbol, found.via)
    return found


def _as_if_of(symbol: str, candidate: Candidate, market: Market) -> Position:
    """The holding as a position of another market of the same asset, at that market's price where one is known."""
    return replace(candidate.position, symbol=symbol, mark_price=price_of(candidate, symbol, market.holdings))
