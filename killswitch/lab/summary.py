"""Statistics over many backtests: how often staging ends richer, how deep books fall, and the worst books by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from statistics import mean, quantiles

from msgspec import Struct

from killswitch.lab.campaign import NONE, STAGED, BookRuns
from killswitch.lab.outcome import BacktestFiring, Run
from killswitch.model.snapshot import Instant, Side

DEEP = Decimal("0.2")
"""Worst drawdowns beyond this are counted."""
DUST = Decimal("0.01")
"""The fraction of a closed book that lot sizes may leave."""
WORST = 5
_MONEY, _FRACTION = Decimal("0.01"), Decimal("0.000001")


class Figures(Struct, frozen=True):
    """One rule over `books` books: means; `drawdown_p95` interpolates linearly (type 7 of Hyndman and Fan, The American
    Statistician 50, 1996).

    `deep` is the share of books whose worst drawdown is over 20%; `turnover` is in multiples of the gross at the start,
    `gross_kept` the mean gross over the run relative to it (None where a book began with none). `liquidated` counts
    books with at least one liquidation.
    """

    rule: str
    books: int
    final_mean: Decimal
    final_of_start: Decimal | None
    drawdown_mean: Decimal
    drawdown_p95: Decimal
    deep: Decimal
    turnover: Decimal | None
    gross_kept: Decimal | None
    cost_mean: Decimal
    """Fees and slippage."""
    liquidated: int
    liquidations: int


class Against(Struct, frozen=True):
    """Staging against one alternative: in how many of `books` it ended richer or poorer (the rest: the same), and in
    how many its worst drawdown was smaller or greater."""

    rule: str
    books: int
    richer: int
    poorer: int
    smaller_drawdown: int
    greater_drawdown: int
    difference_mean: Decimal
    """Final equity of staging less that of the alternative."""


class Loser(Struct, frozen=True):
    """A book in which staging ended poorer than the alternative."""

    market: str
    book: str
    staged: Decimal
    alternative: Decimal
    difference: Decimal
    in_turn: bool


class Losers(Struct, frozen=True):
    """The books in which staging loses most against one alternative, the worst first."""

    rule: str
    books: tuple[Loser, ...]


class InTurn(Struct, frozen=True):
    """A book whose two sides were closed in turn (failure case D20): the hedging side after the other was gone."""

    market: str
    book: str
    first: Side
    first_at: Instant
    second_at: Instant
    final: Decimal
    unprotected: Decimal | None


class Group(Struct, frozen=True):
    """Books of one market and one kind; None means all."""

    market: str | None
    kind: str | None
    books: int
    figures: tuple[Figures, ...]
    against: tuple[Against, ...]


class Summary(Struct, frozen=True):
    """Statistics over the books that were run to the end under every rule."""

    groups: tuple[Group, ...]
    losers: tuple[Losers, ...]
    in_turn: tuple[InTurn, ...]


def summarise(tried: Sequence[BookRuns], rules: Sequence[str]) -> Summary:
    """Summarise every book that ended under each of `rules`: all together first, then by market and by kind."""
    finished = [each for each in tried if _ended(each, rules)]
    markets = list(dict.fromkeys(each.market for each in finished))
    kinds = list(dict.fromkeys(each.member.kind for each in finished))
    wanted: list[tuple[str | None, str | None]] = [(None, None)]
    wanted += [(None, kind) for kind in kinds if len(kinds) > 1]
    if len(markets) > 1:
        wanted += [(market, None) for market in markets]
        wanted += [(market, kind) for market in markets for kind in kinds if len(kinds) > 1]
    groups = (group for market, kind in wanted if (group := _group(finished, rules, market, kind)).books)
    losers = (_losers(finished, rule) for rule in rules if rule != STAGED and STAGED in rules)
    turns = tuple(turn for each in finished if (turn := in_turn(each)) is not None)
    return Summary(tuple(groups), tuple(losers), turns)


def in_turn(tried: BookRuns) -> InTurn | None:
    """Return how staging closed both sides one after the other, or None.

    A firing closed positions of one side only, and a later one closed only positions of the other and left nothing: by
    then the first side was gone, and the second was unhedged.
    """
    run = tried.run(STAGED)
    if run is None:
        return None
    earlier: dict[Side, BacktestFiring] = {}
    for firing in run.firings:
        sides = {closed.side for closed in firing.closed if closed.contracts}
        if len(sides) != 1:
            continue
        (side,) = sides
        before = earlier.get("short" if side == "long" else "long")
        if before is not None and _left_nothing(firing):
            first: Side = "short" if side == "long" else "long"
            none = tried.run(NONE)
            unprotected = none.final_equity if none else None
            name = tried.member.book.name
            return InTurn(tried.market, name, first, before.at, firing.at, run.final_equity, unprotected)
        earlier.setdefault(side, firing)
    return None


def _left_nothing(firing: BacktestFiring) -> bool:
    before, after = firing.gross_before, firing.gross_after
    return before is not None and after is not None and after <= before * DUST


def figures(rule: str, runs: Sequence[Run]) -> Figures:
    """Return one rule's figures over the books of `runs`, at least one."""
    falls = [run.worst_drawdown for run in runs]
    held, funded = [run for run in runs if run.gross_start], [run for run in runs if run.start_equity > 0]
    return Figures(
        rule=rule,
        books=len(runs),
        final_mean=mean([run.final_equity for run in runs]).quantize(_MONEY),
        final_of_start=mean([run.final_equity / run.start_equity for run in funded]).quantize(_FRACTION)
        if funded
        else None,
        drawdown_mean=mean(falls).quantize(_FRACTION),
        drawdown_p95=_p95(falls).quantize(_FRACTION),
        deep=(Decimal(sum(fall > DEEP for fall in falls)) / len(falls)).quantize(_FRACTION),
        turnover=mean([run.turnover / run.gross_start for run in held]).quantize(_FRACTION) if held else None,
        gross_kept=mean([run.gross_mean / run.gross_start for run in held]).quantize(_FRACTION) if held else None,
        cost_mean=mean([run.fees + run.slippage for run in runs]).quantize(_MONEY),
        liquidated=sum(bool(run.liquidations) for run in runs),
        liquidations=sum(len(run.liquidations) for run in runs),
    )


def _p95(values: Sequence[Decimal]) -> Decimal:
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


def _ended(tried: BookRuns, rules: Sequence[str]) -> bool:
    return all((run := tried.run(rule)) is not None and run.complete for rule in rules)


def _group(finished: Sequence[BookRuns], rules: Sequence[str], market: str | None, kind: str | None) -> Group:
    chosen = [each for each in finished if market in {None, each.market} and kind in {None, each.member.kind}]
    if not chosen:
        return Group(market, kind, 0, (), ())
    by_rule = {rule: _runs(chosen, rule) for rule in rules}
    against = () if STAGED not in by_rule else tuple(
        _against(by_rule[STAGED], rule, runs) for rule, runs in by_rule.items() if rule != STAGED
    )  # fmt: skip
    return Group(market, kind, len(chosen), tuple(figures(rule, runs) for rule, runs in by_rule.items()), against)


def _runs(chosen: Sequence[BookRuns], rule: str) -> list[Run]:
    return [run for each in chosen if (run := each.run(rule)) is not None]


def _against(staged: Sequence[Run], rule: str, others: Sequence[Run]) -> Against:
    pairs = list(zip(staged, others, strict=True))

    def count(which: Callable[[Run, Run], bool]) -> int:
        return sum(which(ours, theirs) for ours, theirs in pairs)

    return Against(
        rule,
        len(pairs),
        richer=count(lambda ours, theirs: ours.final_equity > theirs.final_equity),
        poorer=count(lambda ours, theirs: ours.final_equity < theirs.final_equity),
        smaller_drawdown=count(lambda ours, theirs: ours.worst_drawdown < theirs.worst_drawdown),
        greater_drawdown=count(lambda ours, theirs: ours.worst_drawdown > theirs.worst_drawdown),
        difference_mean=mean([ours.final_equity - theirs.final_equity for ours, theirs in pairs]).quantize(_MONEY),
    )


def _losers(finished: Sequence[BookRuns], rule: str) -> Losers:
    found = []
    for each in finished:
        ours, theirs = each.run(STAGED), each.run(rule)
        if ours is not None and theirs is not None and ours.final_equity < theirs.final_equity:
            less = ours.final_equity - theirs.final_equity
            turned = in_turn(each) is not None
            name = each.member.book.name
            found.append(Loser(each.market, name, ours.final_equity, theirs.final_equity, less, turned))
    return Losers(rule, tuple(sorted(found, key=lambda one: one.difference)[:WORST]))
