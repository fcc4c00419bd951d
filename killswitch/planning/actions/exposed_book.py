"""The legs of a book that count in an exposure, netted by base asset, and why they cannot be netted.

What is counted is the book as closes in progress leave it: positions, the coin wallets that inverse contracts settle
in, and what an account outside of the scope holds of an instrument that may be a hedge of ours. While a part of it is
unknown the net is: the other leg of a hedge may be in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import OpenedHedge
from killswitch.graph.unwinding import UnwindingRule
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.actions.kind import KnownBook
from killswitch.planning.orders.slices import DERIVATIVES
from killswitch.planning.rounding import CLOSED_STATES, greatest_order
from killswitch.planning.spot_routes import base_of, is_never_sold
from killswitch.planning.targets.neutral import Bases, ExposedLeg, Order, WeightedBase, nets
from killswitch.planning.targets.ranking import RankingCandidate, candidates
from killswitch.valuation.position_measures import HOLDINGS, ZERO, base_quantity, is_inverse, settlement
from killswitch.valuation.scope_view import PnlKey

Counts = Callable[[str, str], bool]
"""(account, symbol) → whether a position is counted."""


class CountedBook(Struct, frozen=True):
    """The legs that are counted, the price of each base, and each position as closes in progress leave it."""

    legs: tuple[ExposedLeg, ...]
    prices: Mapping[str, Decimal]
    positions: Mapping[PnlKey, RankingCandidate]
    keys: Mapping[str, tuple[tuple[str, str], ...]]
    """Base asset → the account and symbol of each of its legs."""
    outside: frozenset[PnlKey] = frozenset()
    """Positions of the accounts of declared hedges, which are counted and never reduced."""

    def weighted(self, weights: Mapping[str, Decimal], net: Mapping[str, Decimal]) -> Bases:
        """The price and the weight of each base of a net; a base without a weight counts by notional."""
        return {
            base: WeightedBase(price, weights.get(base, Decimal(1)))
            for base, price in self.prices.items() if base in net
        }  # fmt: skip

    def orders(self, book: KnownBook) -> Order:
        """The greatest order that reduces a position and that its venue accepts."""

        def order(key: PnlKey, most: Decimal) -> Decimal:
            each = self.positions[key]
            rules = book.view.instrument(each.account.account, each.position.symbol)
            return greatest_order(each.position, most, rules, reduce_only=each.account.market in DERIVATIVES)

        return order


def is_kept(each: RankingCandidate, rule: UnwindingRule) -> bool:
    """Whether a holding is never sold."""
    return is_never_sold(each.account.market, each.position.symbol, rule.spot)


def counted_book(
    counts: Counts, hedges: Sequence[OpenedHedge], book: KnownBook, rule: UnwindingRule
) -> CountedBook | str:
    """The legs of the scope or a group; why they cannot be netted if one of them is unknown.

    `hedges`: what may have been opened against them, also on accounts outside of the scope.
    """
    if book.is_partial or book.unseen:
        return "a part of the book cannot be read, and a leg may be in it"
    outside: list[RankingCandidate] = []
    for hedge in hedges:
        earlier = _opened_earlier(counts, hedge, book)
        if isinstance(earlier, str):
            return earlier
        outside += [each for each in earlier if each not in outside]
    legs, positions = list[ExposedLeg](), dict[PnlKey, RankingCandidate]()
    prices, keys = dict[str, Decimal](), dict[str, list[tuple[str, str]]]()
    inside = [each for each in book.candidates if counts(each.account.account, each.position.symbol)]
    for each in (*inside, *outside):
        account, position, base = each.account, each.position, base_of(each.position.symbol)
        if account.market in HOLDINGS and base in rule.spot.stables:
            continue
        rules = book.view.instrument(account.account, position.symbol)
        held = base_quantity(position, account, rules)
        if not held:
            return f"the size of {position.symbol} on {account.account} in base units is unknown"
        if each.measured and base not in prices:
            prices[base] = each.measured / abs(held)
        left = min(position.contracts, max(ZERO, book.evaluator.under_way.get(each.key, position.contracts)))
        if left:
            is_shut = rules is not None and rules.state in CLOSED_STATES
            is_cuttable = not (is_shut or each in outside or is_kept(each, rule))
            legs.append(ExposedLeg(base, held / position.contracts, left, each.key, is_cuttable))
            positions[each.key] = replace(each, position=replace(position, contracts=left))
            keys.setdefault(base, []).append((account.account, position.symbol))
    wallets = _wallets(counts, book)
    if isinstance(wallets, str):
        return wallets
    legs += wallets
    if (unpriced := without_price(nets(legs), prices)) is not None:
        return unpriced
    of_bases = {base: tuple(each) for base, each in keys.items()}
    return CountedBook(tuple(legs), prices, positions, of_bases, frozenset(each.key for each in outside))


def without_price(net: Mapping[str, Decimal], prices: Mapping[str, Decimal]) -> str | None:
    """Why a net cannot be compared in money, or None: a price is needed of each base whose net is not 0."""
    unpriced = sorted(base for base, units in net.items() if units and base not in prices)
    return (
        f"the price of {', '.join(unpriced)} is unknown, so that nothing can be compared in money" if unpriced else None
    )


def _opened_earlier(counts: Counts, opened: OpenedHedge, book: KnownBook) -> Sequence[RankingCandidate] | str:
    """What the account of a declared hedge holds of its instrument, where that is not counted in the scope.

    It may be a hedge that was opened before, which no reduction touches.
    """
    view = book.view.alone(opened.account)
    if view is None or view.unknown is not None or view.positions_unknown is not None:
        return f"what {opened.account} holds of {opened.instrument} is unknown"
    counted = {each.key for each in book.candidates if counts(each.account.account, each.position.symbol)}
    found = [each for each in candidates(view, None) if each.key not in counted]
    rate = book.view.conversion(view.currency or "").rate
    return [
        replace(each, measured=None if rate is None or each.measured is None else each.measured * rate)
        for each in found if each.position.symbol == opened.instrument
    ]  # fmt: skip


def _wallets(counts: Counts, book: KnownBook) -> list[ExposedLeg] | str:
    """The coins that inverse contracts settle in: their wallet is exposed to the price of the coin with its equity.

    A short of as many dollars as the wallet was deposited with nets to 0 at every price: what the contracts have gained
    or lost is in the wallet. Its deposit alone would show a net that is not there.
    """
    found: dict[tuple[str, str], ExposedLeg] = {}
    for each in book.candidates:
        account, symbol = each.account, each.position.symbol
        rules = book.view.instrument(account.account, symbol)
        coin = settlement(symbol)
        is_counted = counts(account.account, symbol)
        if not is_counted or not is_inverse(symbol, rules) or (account.account, coin) in found:
            continue
        equity = coin_equity(account, coin)
        if equity is None:
            return f"the equity of the {coin} wallet of {account.account} is unknown"
        found[account.account, coin] = ExposedLeg(coin, Decimal(1), equity, is_cuttable=False)
    return list(found.values())


def coin_equity(account: AccountSnapshot, coin: str) -> Decimal | None:
    """The equity of the account in units of the coin, with the unrealised profit of contracts in it; None: unknown."""
    if account.currency == coin:
        return account.equity
    return next((each.equity for each in account.balances or () if each.asset == coin), None)
