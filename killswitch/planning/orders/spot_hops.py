"""Second hop of a spot sale: sells the proceeds of the first hop, without the previous holding (C19).

If the same decision closes the intermediate asset completely, no second hop is needed: that close also sells the
proceeds. If it trims the asset, the proceeds are kept, and a remark reports that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from killswitch.model.decision import Intent
from killswitch.model.snapshot import Position
from killswitch.planning.orders.slices import Blocked, Cut, TradedMarkets, held, price_of
from killswitch.planning.rounding import Reduction, reduction
from killswitch.valuation.position_measures import ZERO


def hop_of(cut: Cut, first: Intent, index: int, market: TradedMarkets) -> Intent | Blocked:
    """The intent that sells the proceeds of `first`, the intent at `index` of the decision.

    Its contracts are an estimate at the marks, rounded down; 0 and inexact without a known price. `target` is the
    previous holding of the asset. Proceeds that are surely below the venue's minimum are kept, and reported as blocked.
    """
    symbol, via = cut.route.second, cut.route.via
    if symbol is None or via is None:
        raise AssertionError("a route without a second hop has no second order")
    account = cut.candidate.account
    price = price_of(cut.candidate, cut.route.first, market.holdings)
    proceeds = None if price is None else sum(cut.result.parts, ZERO) * price
    sized = _sized(proceeds, symbol, account.account, market)
    if sized.blocked is not None and not sized.parts:
        why = f"dust: about {proceeds} {via} from {cut.route.first} is below the minimum of {symbol}"
        return Blocked(account.account, cut.candidate.position.symbol, why, dust=True)
    return Intent(
        account=account.account,
        symbol=symbol,
        position_side="long",
        side="sell",
        contracts=sum(sized.parts, ZERO),
        target=held(symbol, account, market.holdings),
        reduce_only=False,
        rank=first.rank,
        score=first.score,
        exact=sized.exact,
        band=market.band(symbol),
        purpose="hop",
        after=index,
    )


def _sized(proceeds: Decimal | None, symbol: str, account: str, market: TradedMarkets) -> Reduction:
    """The proceeds in units of the second market, rounded down."""
    rules = market.view.instrument(account, symbol)
    if proceeds is None or rules is None or rules.amount_step is None:
        return Reduction(ZERO, () if proceeds is None else (proceeds,), exact=False)
    mark = next((position.mark_price for position in market.holdings.under(account, symbol)), None)
    return reduction(Position(symbol, "long", proceeds, mark_price=mark), ZERO, rules, reduce_only=False)


OwnCloses = Mapping[tuple[str, str], Cut]
"""(account, symbol) → cut of the decision on the position's own market."""


def own_closes(cuts: Sequence[Cut]) -> OwnCloses:
    """Index the cuts with orders on a single market; of several for a symbol the first."""
    found: dict[tuple[str, str], Cut] = {}
    for cut in cuts:
        if cut.route.second is None and cut.result.parts:
            found.setdefault((cut.candidate.account.account, cut.route.first), cut)
    return found


def own_close(cut: Cut, own: OwnCloses) -> Cut | None:
    """The cut of the same decision on the position that the second hop of `cut` would sell from, or None."""
    return own.get((cut.candidate.account.account, cut.route.second or ""))


def kept_proceeds(cuts: Sequence[Cut]) -> list[str]:
    """Remarks on proceeds of first hops that are kept because the decision trims their asset."""
    closes, found = own_closes(cuts), []
    for cut in cuts:
        own = own_close(cut, closes) if cut.route.second is not None and cut.result.parts else None
        if own is not None and own.result.target > ZERO:
            name = own.candidate.position.symbol
            found.append(f"the proceeds of {cut.route.first} stay {cut.route.via}: {name} is trimmed by this decision")
    return found
