"""Expected price and cost of orders that are not sent yet, by the quotes and the liquidity of their snapshot.

The expected price is the best price on the other side of the market, moved by the expected impact of the whole amount
(the square root of `risk/trading_cost.py`). The cost is what is paid against the mark, as in a report; no venue states
the fee of an order before it is filled, so that fees are not in it. Without a quote, neither is known; without volume
and volatility, the impact is not in them, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from killswitch.model.effects import Intent
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Liquidity, OrderSide, Position, WatchedPrice
from killswitch.risk.trading_cost import MarkedContract, daily_volume, expected_impact
from killswitch.valuation.position_measures import ZERO, notional
from killswitch.valuation.scope_view import PnlKey, ScopeView

Lacks = Literal["quote", "impact", "value"]
"""What is not in a cost: without a `quote` or a `value` there is none; the `impact` of an order on its market."""


class ExpectedOrder(Struct, frozen=True, omit_defaults=True):
    """What closes one position: `orders` of `contracts` together, in the order of closing.

    `mark` and `price` are in the quote of the symbol. `cost` against the mark and `value` at the mark are in the
    scope's currency, without fees; None if unknown. `lacks`: what is missing of the cost.
    """

    rank: int
    account: str
    symbol: str
    position_side: str
    side: OrderSide
    orders: int
    contracts: Decimal
    leaves: Decimal
    mark: Decimal | None = None
    price: Decimal | None = None
    value: Decimal | None = None
    cost: Decimal | None = None
    lacks: tuple[Lacks, ...] = ()


class _Market(Struct, frozen=True):
    """What the snapshot states about the market of a position."""

    view: ScopeView
    account: AccountSnapshot
    position: Position
    liquidity: Liquidity | None


def expected_orders(view: ScopeView, intents: Iterable[Intent]) -> tuple[ExpectedOrder, ...]:
    """What closes each position, the worst first. Second hops and hedges, which close none, are left out."""
    grouped: dict[PnlKey, list[Intent]] = {}
    for intent in intents:
        if intent.purpose != "hedge" and intent.after is None:
            grouped.setdefault((intent.account, intent.symbol, intent.position_side), []).append(intent)
    markets = _markets(view)
    return tuple(_expected(each, markets.get(key)) for key, each in grouped.items())


def expected_opening(view: ScopeView, account: AccountSnapshot, intents: Sequence[Intent]) -> ExpectedOrder:
    """What opens a position, by the quote of what the account holds or watches of the symbol."""
    symbol, side = intents[0].symbol, intents[0].position_side
    stated: list[Position | WatchedPrice] = [row for row in account.positions or () if row.symbol == symbol]
    stated += [row for row in account.watched or () if row.symbol == symbol]
    rows = (
        Position(symbol, side, intents[0].contracts, mark_price=row.mark_price, bid=row.bid, ask=row.ask)
        for row in stated
    )
    priced = next((row for row in rows if row.mark_price is not None), None)
    liquidity = next((row for row in account.liquidity or () if row.symbol == symbol), None)
    return _expected(list(intents), None if priced is None else _Market(view, account, priced, liquidity))


def _markets(view: ScopeView) -> Mapping[PnlKey, _Market]:
    liquidity = {(each.account, row.symbol): row for each in view.accounts for row in each.liquidity or ()}
    return {
        (account.account, row.symbol, row.side): _Market(
            view, account, row, liquidity.get((account.account, row.symbol))
        )
        for account, row in view.positions()
    }


def _expected(intents: list[Intent], market: _Market | None) -> ExpectedOrder:
    first, contracts = intents[0], sum((each.contracts for each in intents), ZERO)
    known = None if market is None else _price_and_cost(market, first.side, contracts)
    mark, price, value, cost, lacks = known or (None, None, None, None, ("quote", "value"))
    return ExpectedOrder(
        min(each.rank for each in intents), first.account, first.symbol, first.position_side, first.side,
        len(intents), contracts, intents[-1].target, mark, price, value, cost, tuple(lacks),
    )  # fmt: skip


def _price_and_cost(
    market: _Market, side: OrderSide, contracts: Decimal
) -> tuple[Decimal | None, Decimal | None, Decimal | None, Decimal | None, tuple[Lacks, ...]]:
    """Mark, expected price, value at the mark, cost, and what the cost lacks."""
    position, account = market.position, market.account
    mark = position.mark_price
    whole = notional(position, account, market.view.instrument(account.account, position.symbol))
    each = None if whole is None or not position.contracts else whole / position.contracts
    quote = position.bid if side == "sell" else position.ask
    quote = quote if quote is not None and sane(quote) and quote > ZERO else None
    impact = _impact(market.liquidity, contracts)
    price = None
    if quote is not None:
        moved = impact if impact is not None else ZERO
        price = max(ZERO, quote * (1 - moved if side == "sell" else 1 + moved))
    contract = MarkedContract.of(mark, each)
    cost = None if contract is None or price is None else contract.cost(side, contracts, price)
    lacks = _lacks(has_quote=quote is not None, has_impact=impact is not None, has_value=contract is not None)
    converted = [
        None if amount is None else market.view.converted_or_unknown(amount, account)
        for amount in (None if each is None else each * contracts, cost)
    ]
    return mark, price, converted[0], converted[1], tuple(lacks)


def _lacks(*, has_quote: bool, has_impact: bool, has_value: bool) -> Iterator[Lacks]:
    if not has_quote:
        yield "quote"
    elif not has_impact:
        yield "impact"
    if not has_value:
        yield "value"


def _impact(liquidity: Liquidity | None, contracts: Decimal) -> Decimal | None:
    """The expected impact as a fraction; None without volume and volatility. A volatility of zero counts as unknown."""
    if liquidity is None or liquidity.volume is None or liquidity.over is None or liquidity.volatility is None:
        return None
    volume, over, volatility = liquidity.volume, liquidity.over, liquidity.volatility
    if not (sane(volume) and volume > ZERO and 0.0 < over < _GREAT and 0.0 < volatility < _GREAT):
        return None
    return expected_impact(contracts, daily_volume(volume, over), volatility)


_GREAT = 1e30
