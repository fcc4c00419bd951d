"""From a `close` action to targets: which positions, and what should be left of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from killswitch.graph.nodes import AttributionRule, Close, Fallback, Graph
from killswitch.model.decision import Source
from killswitch.planning.cap import Gross, most
from killswitch.planning.ranking import Candidate, Ranked, in_group_order, rank
from killswitch.signals.columns import known
from killswitch.signals.history import Interval

AllIf = Callable[[list[float], list[float], list[str | None]], int]
TRUE = 1


@dataclass(frozen=True, slots=True)
class Target:
    """What should be left of a position: `contracts`, not yet rounded to the venue's steps."""

    ranked: Ranked
    contracts: Decimal


@dataclass(frozen=True, slots=True)
class Selection:
    """The targets of one close action in order of closing, and what of it could not be done as declared."""

    targets: list[Target]
    remarks: tuple[str, ...]


def select(
    graph: Graph,
    action: Close,
    book: Sequence[Candidate],
    source: Source,
    rule: AttributionRule | None,
    all_if: AllIf | None,
) -> Selection:
    """What one close action selects, and what should be left of each; `book` is the whole scope's."""
    ranking = next(r for r in graph.rankings if r.name == action.ranking)
    everyone = rank(ranking, book)
    pool = [ranked for ranked in everyone if _allowed(action, ranked.candidate)]
    pool, ranked_fallback = _side(action, pool, source, rule)
    limit = _limit(action, len(pool), ranked_fallback=ranked_fallback)
    chosen = pool if limit is None else pool[:limit]
    targets = [Target(ranked, _left(graph, action, ranked, all_if)) for ranked in in_group_order(chosen, graph.groups)]
    if action.share_cap is None:
        return Selection(targets, ())
    return Selection(*capped(targets, action.share_cap, book))


def capped(
    targets: Sequence[Target], share_cap: Decimal, book: Sequence[Candidate]
) -> tuple[list[Target], tuple[str, ...]]:
    """The targets brought under the cap, and of which positions it could only be kept by closing all of them."""
    gross = Gross.of(book)
    unknown = [t.ranked.candidate.position.symbol for t in targets if t.ranked.candidate.worth is None]
    remarks = [f"the worth of {', '.join(unknown)} is unknown: closed wholly, as the share cap asks"] if unknown else []
    if not gross.whole:
        remarks.append("the gross is not wholly known: the share cap is taken of the part that is")
    kept = [Target(t.ranked, min(t.contracts, most(share_cap, t.ranked.candidate, gross))) for t in targets]
    return kept, tuple(remarks)


def _allowed(action: Close, candidate: Candidate) -> bool:
    symbol = candidate.position.symbol
    base = symbol.split("/")[0].split("_")[0].split("-")[0]
    if base in action.except_assets:
        return False
    return action.symbols is None or symbol in action.symbols or base in action.symbols


def _side(action: Close, pool: list[Ranked], source: Source, rule: AttributionRule | None) -> tuple[list[Ranked], bool]:
    """The positions on the action's side, and whether attribution fell back to the worst ranked."""
    if action.side == "both":
        return pool, False
    if action.side != "losing":
        return [r for r in pool if r.candidate.position.side == action.side], False
    if source in ("LONG", "SHORT"):
        return [r for r in pool if r.candidate.position.side == source.lower()], False
    fallback: Fallback = "worst_ranked"
    if rule is not None:
        fallback = rule.if_mixed if source == "MIXED" else rule.if_unknown
    return ([] if fallback == "none" else pool), fallback == "worst_ranked"


def _limit(action: Close, count: int, *, ranked_fallback: bool) -> int | None:
    """How many to take, at least one; None is all. `worst` binds where attribution fell back to the worst."""
    limits = [] if action.top is None else [action.top]
    if ranked_fallback and action.worst_share is not None:
        share = Fraction(str(action.worst_share))
        limits.append(max(1, int(share * count)))
    return min(limits, default=None)


def _left(graph: Graph, action: Close, ranked: Ranked, all_if: AllIf | None) -> Decimal:
    held = ranked.candidate.position.contracts
    if all_if is not None:
        intervals = [_position_signal(ref.name, ranked) for ref in graph.position_signals]
        if all_if([lo for lo, _ in intervals], [hi for _, hi in intervals], []) == TRUE:
            return Decimal(0)
    return held * (1 - action.fraction)


def _position_signal(name: str, ranked: Ranked) -> Interval:
    """A position signal of the catalogue. Its P&L delta is over the window that the decision is made on."""
    candidate = ranked.candidate
    values: dict[str, float | None] = {
        "position.pnl_delta": candidate.pnl_delta,
        "position.loss": None if candidate.pnl is None else max(0.0, -candidate.pnl),
        "position.liquidation_distance": candidate.liquidation_distance,
        "position.notional_share": candidate.notional_share,
        "position.margin_loss": candidate.margin_loss,
        "position.score": ranked.score,
    }
    return known(values[name])
