"""Selection: turns a `close` action into targets, the contracts to leave of each selected position."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

from msgspec import Struct

from killswitch.graph.actions.close import Close
from killswitch.graph.lowering import TRUE, UNKNOWN
from killswitch.graph.nodes import AttributionRule, Fallback, Graph, RankingRule
from killswitch.model.decision import Source
from killswitch.planning.spot_routes import base_of, is_named
from killswitch.planning.targets.ranking import (
    Ranked,
    RankedBook,
    RankingCandidate,
    by_component,
    by_genesis,
    in_group_order,
    rank,
)
from killswitch.planning.targets.spread import (
    BookRisk,
    Gross,
    Kept,
    book_risk,
    capped,
    least_risk,
    remarks,
    unspreadable,
    worst_first,
)
from killswitch.render.formats import count_of
from killswitch.signals.history.scope import History
from killswitch.signals.signal_values import position_columns
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey

PositionConditions = Mapping[str, Callable[[list[float], list[float], list[str | None]], int]]
"""Key of the action → its compiled condition on the columns of a position."""

Risk = BookRisk | str | None
"""The risk of a book, or why it is unknown; None if the ranking does not use it."""


class SelectedTarget(Struct, frozen=True):
    """Target of a position: `contracts` to leave, not yet rounded to the venue's steps."""

    ranked: Ranked
    contracts: Decimal


class Selection(Struct, frozen=True):
    """Targets of one close action in order of closing, and remarks on what it could not know.

    `is_held_back`: there are positions to select, and `where` is true for none of them.
    """

    targets: list[SelectedTarget]
    remarks: tuple[str, ...]
    is_held_back: bool


def select(
    graph: Graph,
    action: Close,
    book: Sequence[RankingCandidate],
    source: Source,
    rule: AttributionRule | None,
    conditions: PositionConditions,
    history: History | None = None,
    kept: Collection[PnlKey] = (),
    most_today: int | None = None,
) -> Selection:
    """Select the positions of one close action and their targets; `book` is that of the whole scope.

    `history` provides component risk and volatility. Positions in `kept` are not selected, but count in the book.
    `most_today`: how many positions the daily cap of the action still allows.
    """
    ranking = _ranking(graph, action.ranking)
    risk = _risk(ranking, book, history)
    everyone, unranked = _ranked(ranking, book, risk, history)
    pool = [r for r in everyone if r.candidate.key not in kept and _is_allowed(action, r.candidate)]
    pool, ranked_fallback = _side(action, pool, source, rule, book)
    matching, unknown = _where(graph, action, pool, conditions)
    limit = _limit(action, len(matching), ranked_fallback=ranked_fallback)
    wanted = matching if limit is None else matching[:limit]
    chosen = wanted if most_today is None else wanted[:most_today]
    beyond = () if len(chosen) == len(wanted) else (_beyond_the_cap(action, len(wanted) - len(chosen)),)
    most, capped = _most(graph, action, chosen, book, conditions)
    left, spread = _left(action, chosen, most, risk)
    return Selection(
        [
            SelectedTarget(ranked, left[ranked.candidate.key])
            for ranked in in_group_order(chosen, graph.groups, history)
            if action.spread == "each" or left[ranked.candidate.key] < ranked.candidate.position.contracts
        ],
        (*unranked, *unknown, *beyond, *capped, *spread),
        bool(pool) and not matching,
    )


def known_risk(graph: Graph, name: str, book: Sequence[RankingCandidate], history: History | None) -> BookRisk | None:
    """The risk of a book by the ranking of this name; None if that computes none, or it is unknown."""
    found = _risk(_ranking(graph, name), book, history)
    return found if isinstance(found, BookRisk) else None


def ranked_book(graph: Graph, ranking: str, book: Sequence[RankingCandidate], history: History | None) -> RankedBook:
    """The book by the ranking of this name, the worst first, and remarks on missing data."""
    rule = _ranking(graph, ranking)
    return _ranked(rule, book, _risk(rule, book, history), history)


def _ranking(graph: Graph, name: str) -> RankingRule:
    return next(rule for rule in graph.rankings if rule.name == name)


def _ranked(ranking: RankingRule, book: Sequence[RankingCandidate], risk: Risk, history: History | None) -> RankedBook:
    """The ranked book, the worst first, and remarks on missing data."""
    if isinstance(risk, BookRisk):
        return by_component(book, risk.shares), ()
    if ranking.formula == "genesis":
        return by_genesis(ranking, book, history)
    remark = f"the component risk is unknown ({risk}): ranked as {ranking.if_unknown}"
    return rank(ranking, book), (remark,) if isinstance(risk, str) else ()


def _risk(ranking: RankingRule, book: Sequence[RankingCandidate], history: History | None) -> Risk:
    """The risk of the book, or why it is unknown; None if the ranking does not use it."""
    if ranking.formula != "component-risk" or not book:
        return None
    return "no returns were recorded" if history is None else book_risk(ranking, book, history)


def _most(
    graph: Graph,
    action: Close,
    chosen: Sequence[Ranked],
    book: Sequence[RankingCandidate],
    conditions: PositionConditions,
) -> tuple[Kept, tuple[str, ...]]:
    """Upper bound of what is left of each position: 0 where `all_if` holds, else by the share cap."""
    most = {r.candidate.key: _bound(graph, r, conditions) for r in chosen}
    if action.share_cap is None:
        return most, ()
    gross = Gross.of(book)
    for each in chosen:
        most[each.candidate.key] = min(most[each.candidate.key], capped(action.share_cap, each.candidate, gross))
    return most, remarks(chosen, gross)


def _left(action: Close, chosen: Sequence[Ranked], most: Kept, risk: Risk) -> tuple[Kept, tuple[str, ...]]:
    """Contracts left of each position: by its own fraction, or by the cut of all positions by rank."""
    own = {r.candidate.key: r.candidate.position.contracts * (1 - action.fraction) for r in chosen}
    each = {key: min(most[key], part) for key, part in own.items()}
    if action.spread == "each" or action.fraction == 1 or not chosen:
        return each, ()
    why = unspreadable(chosen)
    if why is not None or isinstance(risk, str):
        because = "" if why is None else f"{why}: "
        return each, (f"{because}the same part of every position is closed, not the worst ranked first",)
    if risk is None:
        return worst_first(action.fraction, chosen, most), ()
    return least_risk(action.fraction, chosen, most, risk), ()


def is_allowed(action: Close, symbol: str) -> bool:
    """Whether the action may close positions of the symbol."""
    return base_of(symbol) not in action.except_assets and is_named(symbol, action.symbols)


def _is_allowed(action: Close, candidate: RankingCandidate) -> bool:
    """Whether the action may close the position; of a hedge one of its legs, because all are cut together."""
    return any(is_allowed(action, symbol) for symbol in candidate.symbols or (candidate.position.symbol,))


def _side(
    action: Close, pool: list[Ranked], source: Source, rule: AttributionRule | None, book: Sequence[RankingCandidate]
) -> tuple[list[Ranked], bool]:
    """The positions on the action's side, and whether attribution fell back to the worst ranked."""
    if action.side == "both":
        return pool, False
    pool = [r for r in pool if not r.candidate.is_flat]
    if action.side != "losing":
        return [r for r in pool if r.candidate.position.side == action.side], False
    if source in ("LONG", "SHORT"):
        return [r for r in pool if r.candidate.position.side == source.lower()], False
    chosen = fallback(rule, source)
    if chosen == "larger_side":
        larger = _larger_side(book)
        return [r for r in pool if larger in (None, r.candidate.position.side)], False
    return ([] if chosen == "none" else pool), chosen == "worst_ranked"


def _larger_side(book: Sequence[RankingCandidate]) -> str | None:
    """The side with the larger notional, long if they are equal; None while a notional is unknown."""
    net = ZERO
    for each in book:
        if each.measured is None:
            return None
        net += each.measured if each.position.side == "long" else -each.measured
    return "long" if net >= 0 else "short"


def fallback(rule: AttributionRule | None, source: Source) -> Fallback:
    """What an action on the losing side selects where neither side has lost alone."""
    if rule is None:
        return "worst_ranked"
    return rule.if_mixed if source == "MIXED" else rule.if_unknown


def _beyond_the_cap(action: Close, count: int) -> str:
    cap = count_of(action.daily_cap or 0, "position")
    return f"{count_of(count, 'position')} not closed: the closes of 24 hours have reached their cap of {cap}"


def _limit(action: Close, count: int, *, ranked_fallback: bool) -> int | None:
    """Maximum number of positions, at least one; None is all. `worst` applies if attribution fell back to the worst."""
    limits = [] if action.top is None else [action.top]
    if ranked_fallback and action.worst_share is not None:
        limits.append(max(1, int(Fraction(str(action.worst_share)) * count)))
    return min(limits, default=None)


def _bound(graph: Graph, ranked: Ranked, conditions: PositionConditions) -> Decimal:
    """Upper bound of the contracts left of the position by `all_if`: 0 where it is surely true."""
    return ZERO if _verdict(graph, ranked, conditions, "all_if") == TRUE else ranked.candidate.position.contracts


def _where(
    graph: Graph, action: Close, pool: list[Ranked], conditions: PositionConditions
) -> tuple[list[Ranked], tuple[str, ...]]:
    """The positions for which the action's `where` is true, and a remark on those for which it is unknown."""
    if action.where is None:
        return pool, ()
    verdicts = [(each, _verdict(graph, each, conditions, "where")) for each in pool]
    selected = (TRUE, UNKNOWN) if action.where_unknown == "close" else (TRUE,)
    unknown = [f"{each.candidate.key[1]} {each.candidate.key[2]}" for each, found in verdicts if found == UNKNOWN]
    what = "closed nevertheless" if action.where_unknown == "close" else "not closed"
    remarks = (f"where is unknown for {', '.join(unknown)}: {what} (where_unknown: {action.where_unknown})",)
    return [each for each, found in verdicts if found in selected], remarks if unknown else ()


def _verdict(graph: Graph, ranked: Ranked, conditions: PositionConditions, key: str) -> int | None:
    """TRUE, FALSE or UNKNOWN for the position; None if the action has no such condition."""
    condition = conditions.get(key)
    if condition is None:
        return None
    columns = position_columns(graph.position_signals, ranked)
    return condition(columns.lo, columns.hi, columns.text)
