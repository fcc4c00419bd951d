"""The second hop of a spot sale: what the first one brought, and nothing that was there before (C19).

Where the decision closes the asset that the sale goes over wholly, no second hop is needed: that close sells what
arrives with the rest. Where it trims it, what was decided on is all that is sold of it: what the first hop brings
stays, and is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from killswitch.model.decision import Intent
from killswitch.model.snapshot import Position
from killswitch.planning.orders.slices import Blocked, Cut, Market, held, price_of
from killswitch.planning.rounding import Reduction, reduction
from killswitch.signals.position import ZERO


def hop_of(cut: Cut, first: Intent, index: int, market: Market) -> Intent | Blocked:
    """The intent that sells what `first`, at `index` of the decision, will have brought.

    Its contracts are an estimate at the marks, rounded down; 0 and inexact where no price is known. `target` is what
    was held of the asset before. Proceeds that are surely below the venue's minimum stay as they are, and are told.
    """
    symbol, via = cut.route.second, cut.route.via
    if symbol is None or via is None:
        raise AssertionError("only a route of two hops has a second one")
    account = cut.candidate.account
    price = price_of(cut.candidate, cut.route.first, market.holdings)
    proceeds = None if price is None else sum(cut.result.parts, ZERO) * price
    sized = _sized(proceeds, symbol, account.account, market)
    if sized.blocked is not None and not sized.parts:
        why = f"dust: about {proceeds} {via} from {cut.route.first} is below the minimum of {symbol}"
        return Blocked(cut.candidate.position.symbol, why, dust=True)
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


def _sized(proceeds: Decimal | None, symbol: str, account: str, market: Market) -> Reduction:
    """The proceeds in the hop market's units; no more than they are."""
    rules = market.view.instrument(account, symbol)
    if proceeds is None or rules is None or rules.amount_step is None:
        return Reduction(ZERO, () if proceeds is None else (proceeds,), exact=False)
    mark = next((position.mark_price for position in market.holdings.under(account, symbol)), None)
    return reduction(Position(symbol, "long", proceeds, mark_price=mark), ZERO, rules, reduce_only=False)


OwnCloses = Mapping[tuple[str, str], Cut]
"""(account, symbol) → what the decision closes of the position on its own market."""


def own_closes(cuts: Sequence[Cut]) -> OwnCloses:
    """Every cut that orders something on one market; of several for a symbol the first."""
    found: dict[tuple[str, str], Cut] = {}
    for cut in cuts:
        if cut.route.second is None and cut.result.parts:
            found.setdefault((cut.candidate.account.account, cut.route.first), cut)
    return found


def own_close(cut: Cut, own: OwnCloses) -> Cut | None:
    """What the same decision closes of the position that the second hop of `cut` would sell from, or None."""
    return own.get((cut.candidate.account.account, cut.route.second or ""))


def stays(cuts: Sequence[Cut]) -> list[str]:
    """What first hops bring in that is not sold, because the decision trims what they bring."""
    closes, found = own_closes(cuts), []
    for cut in cuts:
        own = own_close(cut, closes) if cut.route.second is not None and cut.result.parts else None
        if own is not None and own.result.target > ZERO:
            name = own.candidate.position.symbol
            found.append(f"what {cut.route.first} brings stays {cut.route.via}: {name} is trimmed by this decision")
    return found
