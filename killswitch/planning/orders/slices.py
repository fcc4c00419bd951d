"""One position's way to its target: where it is sold, and in which slices."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.unwinding import ImpactRule, UnwindingRule
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Liquidity, OrderSide, Position
from killswitch.planning.rounding import Reduction, reduction
from killswitch.planning.spot_routes import Markets, Route, base_of, open_markets, quote_of, route
from killswitch.planning.targets.ranking import Candidate
from killswitch.planning.targets.selection import Target
from killswitch.risk.trading_cost import daily_volume, greatest_size
from killswitch.signals.position import ZERO
from killswitch.signals.view import ScopeView

_Rows = dict[tuple[str, str], list[Position]]


class Holdings(Struct, frozen=True):
    """The positions of a scope's spot accounts, found by (account, symbol) and by (account, base asset)."""

    by_symbol: _Rows = {}
    by_asset: _Rows = {}

    @classmethod
    def of(cls, view: ScopeView) -> Holdings:
        """Looked through once: a decision asks for each of its positions."""
        found = cls()
        if any(account.market == "spot" for account in view.accounts):
            for account, position in view.positions():
                found.by_symbol.setdefault((account.account, position.symbol), []).append(position)
                found.by_asset.setdefault((account.account, base_of(position.symbol)), []).append(position)
        return found

    def under(self, account: str, symbol: str) -> list[Position]:
        """What the account holds under the symbol."""
        return self.by_symbol.get((account, symbol), [])

    def of_asset(self, account: str, asset: str) -> list[Position]:
        """What the account holds of the asset, under whatever symbols."""
        return self.by_asset.get((account, asset), [])


def price_of(candidate: Candidate, symbol: str, holdings: Holdings) -> Decimal | None:
    """The price of the holding on the market `symbol`, in that market's quote; None where nothing tells it.

    Its own mark where that is the market, else its worth against that of the quote.
    """
    position, account = candidate.position, candidate.account
    if symbol == position.symbol and position.mark_price is not None:
        return position.mark_price
    quote = quote_of(symbol)
    unit = None if quote is None else worth_of(quote, account, holdings)
    if unit is None or not unit or candidate.worth is None or not position.contracts:
        return None
    if position.notional is None and quote_of(position.symbol) not in (None, account.currency):
        return None  # its worth was taken from a mark in another currency
    return candidate.worth / position.contracts / unit


def worth_of(asset: str, account: AccountSnapshot, holdings: Holdings) -> Decimal | None:
    """What one unit of `asset` is worth in the account's currency; None where the account does not tell.

    A stable coin that is not the account's own currency is worth what the account says, and not simply 1.
    """
    if asset == account.currency:
        return Decimal(1)
    for position in holdings.of_asset(account.account, asset):
        if quote_of(position.symbol) == account.currency and position.mark_price is not None:
            return position.mark_price
    told = (each.price for each in account.balances or () if each.asset == asset and each.price is not None)
    return next((price for price in told if sane(price) and price > ZERO), None)


def held(symbol: str, account: AccountSnapshot, holdings: Holdings) -> Decimal:
    """How much the account holds under `symbol`; 0 where no position is listed: that is how closing reads it too."""
    return sum((position.contracts for position in holdings.under(account.account, symbol)), ZERO)


class Slice(Struct, frozen=True):
    """`greatest` in contracts, None where nothing bounds it; `unknown` says what could not be asked, or is None."""

    greatest: Decimal | None = None
    unknown: str | None = None


WHOLE = Slice()


def greatest_slice(rule: ImpactRule | None, liquidity: Liquidity | None, side: OrderSide) -> Slice:
    """What one order on this `side` of the market may be at most; the smallest of the bounds that are known."""
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
    """The size of the greatest impact that is accepted. A market that has not moved at all has no known volatility."""
    volume, over, volatility = _known(liquidity.volume), liquidity.over, liquidity.volatility
    if volume is None or over is None or volatility is None or not (_positive(over) and _positive(volatility)):
        return None
    return greatest_size(rule.model, rule.at_most, daily_volume(volume, over), volatility)


def _by_participation(share: Decimal, liquidity: Liquidity, side: OrderSide) -> Decimal | None:
    """The share of what rests on the side that is traded against, or of what was traded last: the smaller."""
    depth = _known(liquidity.bid_depth if side == "sell" else liquidity.ask_depth)
    seen = [each for each in (depth, _known(liquidity.volume)) if each is not None]
    return share * min(seen) if seen else None


def _known(value: Decimal | None) -> Decimal | None:
    """A depth or volume that can be one; None is unknown."""
    return value if value is not None and sane(value) and value >= ZERO else None


def _positive(value: float) -> bool:
    return 0.0 < value < 1e30


DERIVATIVES = ("swap", "future")


class Blocked(Struct, frozen=True):
    """A selected position that the venue takes no order for now, and why."""

    symbol: str
    why: str
    dust: bool


class Market(Struct, frozen=True):
    """What is known of the markets that a decision trades on: rules, liquidity, and for spot what is open and held."""

    view: ScopeView
    rule: UnwindingRule
    liquidity: dict[tuple[str, str], Liquidity]
    spot: dict[str, Markets] = {}
    holdings: Holdings = Holdings()

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


class Cut(Struct, frozen=True):
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
    rules = market.view.instrument(account.account, way.first)
    side: OrderSide = "sell" if position.side == "long" else "buy"
    bounds = greatest_slice(market.rule.impact, market.liquidity.get((account.account, way.first)), side)
    if way.first != position.symbol:
        price = price_of(candidate, way.first, market.holdings)
        position = replace(position, symbol=way.first, mark_price=price)  # as if it were held on that market
    result = reduction(
        position,
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
    own = market.view.instrument(account.account, symbol)
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
