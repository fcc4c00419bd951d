"""Slices: the market and the order sizes that bring one position to its target."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.unwinding import ImpactRule, UnwindingRule
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Liquidity, OrderSide, Position
from killswitch.planning.rounding import Reduction, reduction
from killswitch.planning.spot_routes import Markets, SpotRoute, base_of, open_markets, quote_of, route
from killswitch.planning.targets.ranking import RankingCandidate
from killswitch.planning.targets.selection import SelectedTarget
from killswitch.risk.trading_cost import daily_volume, greatest_size
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import ScopeView

_Rows = dict[tuple[str, str], list[Position]]


class Holdings(Struct, frozen=True):
    """Spot positions of a scope, indexed by (account, symbol) and by (account, base asset)."""

    by_symbol: _Rows = {}
    by_asset: _Rows = {}

    @classmethod
    def of(cls, view: ScopeView) -> Holdings:
        """Build the indexes once for a decision."""
        found = cls()
        if any(account.market == "spot" for account in view.accounts):
            for account, position in view.positions():
                found.by_symbol.setdefault((account.account, position.symbol), []).append(position)
                found.by_asset.setdefault((account.account, base_of(position.symbol)), []).append(position)
        return found

    def under(self, account: str, symbol: str) -> list[Position]:
        """Positions of the account with the symbol."""
        return self.by_symbol.get((account, symbol), [])

    def of_asset(self, account: str, asset: str) -> list[Position]:
        """Positions of the account in the asset, over all symbols."""
        return self.by_asset.get((account, asset), [])


def price_of(candidate: RankingCandidate, symbol: str, holdings: Holdings) -> Decimal | None:
    """Price of the holding on the market `symbol`, in that market's quote asset; None if unknown.

    On its own market it is the mark, else its value divided by that of the quote asset.
    """
    position, account = candidate.position, candidate.account
    if symbol == position.symbol and position.mark_price is not None:
        return position.mark_price
    quote = quote_of(symbol)
    unit = None if quote is None else value_of(quote, account, holdings)
    if unit is None or not unit or candidate.value is None or not position.contracts:
        return None
    if position.notional is None and quote_of(position.symbol) not in (None, account.currency):
        return None  # its value comes from a mark in another currency
    return candidate.value / position.contracts / unit


def value_of(asset: str, account: AccountSnapshot, holdings: Holdings) -> Decimal | None:
    """Value of one unit of `asset` in the account's currency; None if unknown.

    A stable coin other than the account's currency has the price of the account, not 1.
    """
    if asset == account.currency:
        return Decimal(1)
    for position in holdings.of_asset(account.account, asset):
        if quote_of(position.symbol) == account.currency and position.mark_price is not None:
            return position.mark_price
    prices = (each.price for each in account.balances or () if each.asset == asset and each.price is not None)
    return next((price for price in prices if sane(price) and price > ZERO), None)


def held(symbol: str, account: AccountSnapshot, holdings: Holdings) -> Decimal:
    """Holding of the account under `symbol`; 0 without a listed position, as in the executor."""
    return sum((position.contracts for position in holdings.under(account.account, symbol)), ZERO)


class Slice(Struct, frozen=True):
    """Bound of one order: `greatest` in contracts (None: unbounded), and the missing data in `unknown`, or None."""

    greatest: Decimal | None = None
    unknown: str | None = None


WHOLE = Slice()


def greatest_slice(rule: ImpactRule | None, liquidity: Liquidity | None, side: OrderSide) -> Slice:
    """Maximum size of one order on this `side` of the market: the smallest known bound."""
    if rule is None:
        return WHOLE
    if liquidity is None:
        return Slice(unknown="liquidity")
    by_impact = _by_impact(rule, liquidity)
    by_share = None if rule.participation is None else _by_participation(rule.participation, liquidity, side)
    missing = [] if by_impact is not None else ["volume or volatility"]
    if rule.participation is not None and by_share is None:
        missing.append("depth and volume")
    known = [bound for bound in (by_impact, by_share) if bound is not None]
    return Slice(min(known, default=None), " and ".join(missing) or None)


def _by_impact(rule: ImpactRule, liquidity: Liquidity) -> Decimal | None:
    """Size with the maximum accepted impact; None if unknown. A volatility of zero counts as unknown."""
    volume, over, volatility = _known(liquidity.volume), liquidity.over, liquidity.volatility
    if volume is None or over is None or volatility is None or not (_positive(over) and _positive(volatility)):
        return None
    return greatest_size(rule.model, rule.at_most, daily_volume(volume, over), volatility)


def _by_participation(share: Decimal, liquidity: Liquidity, side: OrderSide) -> Decimal | None:
    """Share of the depth on the opposite side, or of the recent volume, whichever is smaller."""
    depth = _known(liquidity.bid_depth if side == "sell" else liquidity.ask_depth)
    seen = [each for each in (depth, _known(liquidity.volume)) if each is not None]
    return share * min(seen) if seen else None


def _known(value: Decimal | None) -> Decimal | None:
    """A depth or volume, or None if it is not sound."""
    return value if value is not None and sane(value) and value >= ZERO else None


def _positive(value: float) -> bool:
    return 0.0 < value < 1e30


DERIVATIVES = ("swap", "future")


class Blocked(Struct, frozen=True):
    """A selected position for which the venue accepts no order now, and why."""

    account: str
    symbol: str
    why: str
    dust: bool


class TradedMarkets(Struct, frozen=True):
    """Data of the markets that a decision trades on: rules, liquidity, and for spot open markets and holdings."""

    view: ScopeView
    rule: UnwindingRule
    liquidity: dict[tuple[str, str], Liquidity]
    spot: dict[str, Markets] = {}
    holdings: Holdings = Holdings()

    @classmethod
    def of(cls, view: ScopeView, rule: UnwindingRule) -> TradedMarkets:
        """Markets of the scope in this snapshot; liquidity is never carried over from earlier snapshots."""
        liquidity = {(a.account, each.symbol): each for a in view.accounts for each in a.liquidity or ()}
        spot = {a.account: open_markets(a, view.instruments) for a in view.accounts if a.market == "spot"}
        return cls(view, rule, liquidity, spot, Holdings.of(view))

    def band(self, symbol: str) -> Decimal | None:
        """Maximum slippage of an order of the symbol, as a fraction of the mark; None if unbounded."""
        return self.rule.bound(symbol, base_of(symbol))


class Cut(Struct, frozen=True):
    """A target with its route and orders. `place` counts from 1 in the order of closing; `slice` bounds the orders."""

    place: int
    target: SelectedTarget
    route: SpotRoute
    slice: Slice
    result: Reduction

    @property
    def candidate(self) -> RankingCandidate:
        return self.target.ranked.candidate

    @property
    def side(self) -> OrderSide:
        return "sell" if self.candidate.position.side == "long" else "buy"

    @property
    def blocked(self) -> Blocked | None:
        """Why the venue accepts no order for it now, or None."""
        why = self.result.blocked
        account, symbol, _ = self.candidate.key
        return None if why is None else Blocked(account, symbol, why, dust=not self.result.parts)

    @property
    def is_outgrown(self) -> bool:
        """Whether a slice exceeds the bound of its market."""
        greatest = self.slice.greatest
        return greatest is not None and any(part > greatest for part in self.result.parts)


def cut_of(place: int, target: SelectedTarget, market: TradedMarkets) -> Cut:
    """Compute the route and the orders that reach `target`."""
    candidate = target.ranked.candidate
    account, position = candidate.account, candidate.position
    spot_route = _way(candidate, market)
    rules = market.view.instrument(account.account, spot_route.first)
    side: OrderSide = "sell" if position.side == "long" else "buy"
    bounds = greatest_slice(market.rule.impact, market.liquidity.get((account.account, spot_route.first)), side)
    if spot_route.first != position.symbol:
        price = price_of(candidate, spot_route.first, market.holdings)
        position = replace(position, symbol=spot_route.first, mark_price=price)  # as if it were held on that market
    reduce_only = account.market in DERIVATIVES
    greatest = bounds.greatest
    if market.rule.slices is not None:
        part = (position.contracts - target.contracts) / market.rule.slices
        greatest = part if greatest is None else min(part, greatest)
    result = reduction(position, target.contracts, rules, reduce_only=reduce_only, greatest=greatest)
    return Cut(place, target, spot_route, bounds, result)


def _way(candidate: RankingCandidate, market: TradedMarkets) -> SpotRoute:
    account, symbol = candidate.account, candidate.position.symbol
    if account.market != "spot":
        return SpotRoute(symbol)
    own = market.view.instrument(account.account, symbol)
    state = None if own is None else own.state
    found = route(symbol, state, account.currency, market.spot[account.account], market.rule.spot)
    return found if found.second is None else _where_it_arrives(found, account, market)


def _where_it_arrives(found: SpotRoute, account: AccountSnapshot, market: TradedMarkets) -> SpotRoute:
    """The route with its second hop on the market where the intermediate asset is listed, if quoted in money.

    The proceeds of the first hop are added to that holding, so their arrival is visible there.
    """
    money = (account.currency, *market.rule.spot.stables)
    for position in market.holdings.of_asset(account.account, found.via or ""):
        symbol = position.symbol
        if quote_of(symbol) in money and symbol in market.spot[account.account].values():
            return SpotRoute(found.first, symbol, found.via)
    return found
