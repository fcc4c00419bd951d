"""Builds the page of an answer: its sections, tables and charts, and the reasons of firings."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from killswitch.graph.nodes import PolicySet, SignalRef
from killswitch.lab.campaign import CLOSE_ALL, IN_PROPORTION, NONE, STAGED, BookRuns, Results
from killswitch.lab.outcome import BacktestFiring, ClosedAmount, Run, RunCurve
from killswitch.lab.pages.answer import BacktestAnswer
from killswitch.lab.pages.verdict import NAMES, currency_of, partial, percent
from killswitch.lab.summary import Against, Figures, Group, Losers
from killswitch.model.instant import to_micros
from killswitch.render.chart import ChartMark, area_chart, line_chart
from killswitch.render.chart_layers import BLUE, GREEN, GREY, PINK, TEAL, VIOLET
from killswitch.render.document import Facts, Figure, Page, Section, Table
from killswitch.render.formats import count_of, duration_text, instant, interval, listed, money
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.signal_values import has_look_ahead

NOTES = (
    "Bars go through a paper market: 0.05% taker fee, 0.01% half spread, linear impact, at most a tenth of a bar's "
    "volume, liquidation at the maintenance margin. Funding is not charged.",
    "Worst drawdown is the greatest fall of equity from an earlier peak, at bar closes.",
    "A recording of a crash always rewards cutting sooner and more: compare rules at equal gross, and price the "
    "triggers on calm months, before believing in one.",
)
WIDEST = 48
"""The most characters of a cell on one line of text."""
_COMPARED = (STAGED, NONE, CLOSE_ALL)
Drawings = dict[tuple[str, str], tuple[Figure, ...]]
"""(market, book) → its charts."""
SIZES = (11.0, 3.4), (3.9, 2.6)
"""Sizes of the drawing in inches on a wide screen and on a phone: text keeps its size on both."""
COLOURS = {
    STAGED: BLUE, NONE: GREY, CLOSE_ALL: GREEN, IN_PROPORTION: PINK, "longs": TEAL, "shorts": VIOLET,
}  # fmt: skip
"""One colour has one meaning on the whole page; yellow to red are the levels of stages."""
_MOST_MARKS = 12
_HOUR = 3600 * 1_000_000
BEFORE, AFTER = 3 * _HOUR, 6 * _HOUR
"""The time around the first stage that fired which a second chart enlarges."""


def build_page(found: BacktestAnswer, results: Results, policies: PolicySet, drawings: Drawings | None) -> Page:
    """Return the page of `found`. `policies` explain the firings; books without drawings appear in tables only."""
    reasons = _reasons(policies)
    sections: list[Section] = []
    if results.wanted > 1:
        sections += _summary(found)
    few = results.wanted <= len(drawings) if drawings else results.wanted == 1
    shown = [each for each in results.tried if few or (drawings or {}).keys() & {_key(each)}]
    for each in shown:
        sections.append(_book(each, reasons, (drawings or {}).get(_key(each), ()), alone=results.wanted == 1))
    if results.wanted > 1:
        sections.append(Section("Every book", (_every_book(results.tried, found.rules),), folded=True))
    if found.not_run:
        sections.append(_not_run(found))
    return Page(
        title=_title(found, results),
        warning=partial(results, found.rules),
        facts=Facts((*_facts(found, results), *_without_look_ahead(policies))),
        summary=found.verdict,
        sections=tuple(sections),
        notes=NOTES,
    )


def _table(
    head: tuple[str, ...], rows: Sequence[tuple[str, ...]], numbers: tuple[int, ...] = (), caption: str = "",
    expendable: tuple[int, ...] = (),
) -> Table:  # fmt: skip
    return Table(head, tuple(rows), numbers, caption, widest=WIDEST, expendable=expendable)


def _key(tried: BookRuns) -> tuple[str, str]:
    return tried.market, tried.member.book.name


def _title(found: BacktestAnswer, results: Results) -> str:
    markets = list(dict.fromkeys(each.market for each in results.tried))
    where = f" in {markets[0] if len(markets) == 1 else count_of(len(markets), 'market')}" if markets else ""
    return f"Backtest of {listed(found.policies.names)}{where}"


def _facts(found: BacktestAnswer, results: Results) -> Iterator[tuple[str, str]]:
    variant = f", variant {found.policies.variant}" if found.policies.variant else ""
    commit = f", commit {found.policies.commit[:12]}" if found.policies.commit else ""
    yield "Policies", f"{', '.join(found.policies.names)}{variant} ({found.policies.digest[:19]}{commit})"
    markets = list(dict.fromkeys(each.market for each in results.tried))
    yield ("Market" if len(markets) == 1 else "Markets"), ", ".join(markets) or "-"
    if results.wanted == 1 and results.tried:
        (run, *_) = results.tried[0].runs
        currency = currency_of(results.tried)
        equity, gross = money(run.start_equity, currency), money(run.gross_start, currency)
        yield "Book", f"{run.book}: equity {equity}, gross {gross}"
        yield "Bars", f"{run.bars:,} from {instant(run.begins)} to {instant(run.ends)}"
    else:
        yield "Books", f"{results.wanted:,}"
    yield "Seed", str(found.seed)
    for words in found.missing:
        yield "Left out", words


def _without_look_ahead(policies: PolicySet) -> Iterator[tuple[str, str]]:
    """The signals for which every bar was ticked, which makes a backtest slower and changes no result."""
    read = (signal for graph in policies.graphs for signal in graph.signals)
    names = sorted({signal.name for signal in read if not has_look_ahead(signal)})
    if names:
        yield "No look-ahead", f"{listed(names)}: every bar was ticked, none skipped"


# -- one book ------------------------------------------------------------------------------------------------


def _book(tried: BookRuns, reasons: Reasons, figures: tuple[Figure, ...], *, alone: bool) -> Section:
    staged = tried.run(STAGED)
    tables = [_side_by_side(tried.runs)]
    if staged is not None and staged.firings:
        tables.append(_firings(staged, reasons))
        tables += _other_effects(staged)
    tables += [_liquidations(run) for run in tried.runs if run.liquidations]
    title = "The rules side by side" if alone else f"{tried.member.book.name} in {tried.market}"
    return Section(title, (*figures, *tables))


def _side_by_side(runs: Sequence[Run]) -> Table:
    head = ("rule", "final equity", "worst drawdown", "lowest", "fees", "slippage", "turnover", "liquidations")
    rows = tuple(
        (
            run.rule, money(run.final_equity), percent(run.worst_drawdown), money(run.lowest_equity), money(run.fees),
            money(run.slippage), money(run.turnover), str(len(run.liquidations)),
        )
        for run in runs
    )  # fmt: skip
    return _table(head, rows, tuple(range(1, len(head))), expendable=(6, 5, 4))


def _firings(run: Run, reasons: Reasons) -> Table:
    head = ("fired", "stage", "why", "loss", "closed", "gross", "verified", "hedge then", "cost")
    rows = tuple(
        (
            instant(firing.at), f"{firing.level} {firing.stage or ''}".strip(), _why(firing, reasons),
            firing.source or "-", closed_text(firing.closed),
            f"{money(firing.gross_before)} → {money(firing.gross_after)}", verified_text(firing),
            hedge_text(firing), "-" if firing.ended is None else money(firing.cost),
        )
        for firing in run.firings
    )  # fmt: skip
    return _table(head, rows, (8,), f"Stages that fired ({run.rule})", (6, 7, 5, 4, 3))


def _other_effects(run: Run) -> Iterator[Table]:
    """The money that stages moved and the hedges that they opened, with what they computed; no table without any."""
    rows = tuple(
        (instant(firing.at), firing.stage or "", moved_text(firing), firing.reason or "-")
        for firing in run.firings
        if firing.transfer is not None or firing.opened
    )
    if rows:
        head = ("fired", "stage", "moved or opened", "because")
        yield _table(head, rows, (), f"Margin and hedges ({run.rule})", (3,))


def moved_text(firing: BacktestFiring) -> str:
    """Return the transfer of a firing with what has become of it, and what it opened."""
    opened = [f"opened {closed_text(firing.opened)}"] if firing.opened else []
    if (moved := firing.transfer) is None:
        return ", ".join(opened)
    became = "" if moved.status == "moved" else f" ({moved.status})"
    amount = money(moved.amount, moved.currency)
    return ", ".join([f"{amount} from {moved.source} to {moved.account}{became}", *opened])


def _liquidations(run: Run) -> Table:
    rows = tuple(
        (instant(one.at), one.account, one.symbol, one.side, f"{one.contracts:f}", f"{one.price:f}")
        for one in run.liquidations
    )
    head = ("liquidated", "account", "symbol", "side", "contracts", "price")
    return _table(head, rows, (4, 5), f"Liquidations ({run.rule})")


# -- many books ----------------------------------------------------------------------------------------------


def _summary(found: BacktestAnswer) -> Iterator[Section]:
    summary = found.summary
    if not summary.groups:
        return
    yield Section("All books together", (against_table(summary.groups[:1]), figures_table(summary.groups[:1])))
    folded = len(summary.groups) > 8
    if folded:
        yield _where([group for group in summary.groups if group.market and group.kind] or summary.groups[1:])
    if summary.groups[1:]:
        tables = (against_table(summary.groups[1:]), figures_table(summary.groups[1:]))
        yield Section("By market and kind of book", tables, folded=folded)
    losers = tuple(_losers(losers) for losers in summary.losers if losers.books)
    words = () if losers else ("In no book did staging end poorer than an alternative.",)
    yield Section("Where staging loses most", (*words, *losers))
    yield _in_turn(found)


def _where(groups: Sequence[Group]) -> Section:
    """Return a line for each market and kind of book: whether staging helps there, and by how much."""
    figures = (f"{what}: {rule}" for what in ("drawdown", "final") for rule in _COMPARED)
    head = ("books of", "books", "staging", *figures)
    rows = []
    for group in groups:
        of = {one.rule: one for one in group.figures}
        if of.keys() >= set(_COMPARED):
            means = [of[rule] for rule in _COMPARED]
            rows.append((
                _name(group), str(group.books), _helps(of[STAGED], of[NONE]),
                *(percent(one.drawdown_mean) for one in means),
                *("-" if one.final_of_start is None else percent(one.final_of_start) for one in means),
            ))  # fmt: skip
    words = (
        "Means over the books; final equity is in percent of the start. Staging helps where its worst drawdown is "
        "smaller than with no protection and it ends no poorer; at a price, where it is smaller and it ends poorer; "
        "elsewhere it does not help."
    )
    return Section("Where staging helps, and where not", (words, _table(head, rows, (1, *range(3, len(head))))))


def _helps(staged: Figures, unprotected: Figures) -> str:
    if staged.drawdown_mean == unprotected.drawdown_mean and staged.final_mean == unprotected.final_mean:
        return "changes nothing"
    if staged.drawdown_mean >= unprotected.drawdown_mean:
        return "does not help"
    return "helps" if staged.final_mean >= unprotected.final_mean else "at a price"


def _losers(losers: Losers) -> Table:
    rows = tuple(
        (one.book, one.market, money(one.staged), money(one.alternative), money(one.difference), _yes(one.in_turn))
        for one in losers.books
    )
    head = ("book", "market", "staged", losers.rule, "difference", "both sides in turn")
    return _short(_table(head, rows, (2, 3, 4), f"Against {NAMES[losers.rule]}"))


def _in_turn(found: BacktestAnswer) -> Section:
    turns = found.summary.in_turn
    title = "Both sides closed in turn"
    if not turns:
        return Section(title, ("No book: no side was closed after the other was gone.",))
    rows = tuple(
        (
            turn.book, turn.market, f"{turn.first}s {instant(turn.first_at)}", instant(turn.second_at),
            money(turn.final), money(turn.unprotected),
        )
        for turn in turns
    )  # fmt: skip
    head = ("book", "market", "first closed", "other side closed", "staged", "none")
    words = (
        f"In {count_of(len(turns), 'book')} the losing side was closed first, and the side that had hedged it later, "
        "alone. This happens when a fall turns into a rebound."
    )
    return Section(title, (words, _short(_table(head, rows, (4, 5)))), folded=len(rows) > 12)


def against_table(groups: Sequence[Group]) -> Table:
    """Return staging against each alternative, a line for each group and alternative."""
    head = ("books of", "against", "books", "richer", "poorer", "smaller drawdown", "greater", "mean difference")
    rows = tuple((_name(group), *_against(against)) for group in groups for against in group.against)
    return _table(head, rows, (2, 3, 4, 5, 6, 7), "Staging against each alternative")


def _against(against: Against) -> tuple[str, ...]:
    counts = (against.books, against.richer, against.poorer, against.smaller_drawdown, against.greater_drawdown)
    return (NAMES[against.rule], *map(str, counts), money(against.difference_mean))


def figures_table(groups: Sequence[Group]) -> Table:
    """Return the figures of each rule, a line for each group and rule."""
    head = (
        "books of", "rule", "books", "final equity", "mean drawdown", "95th percentile", "over 20%",
        "turnover ÷ gross", "gross kept", "costs", "liquidated",
    )  # fmt: skip
    rows = tuple((_name(group), *_figures(figures)) for group in groups for figures in group.figures)
    return _table(head, rows, tuple(range(2, len(head))), "Each rule (means over books)")


def _figures(one: Figures) -> tuple[str, ...]:
    return (
        one.rule, str(one.books), money(one.final_mean), percent(one.drawdown_mean), percent(one.drawdown_p95),
        f"{one.deep:.0%}", "-" if one.turnover is None else f"{one.turnover:.2f}",
        "-" if one.gross_kept is None else f"{one.gross_kept:.0%}",
        money(one.cost_mean), str(one.liquidated),
    )  # fmt: skip


def _name(group: Group) -> str:
    if group.market is None:
        return group.kind or "all"
    return f"{group.market}, {group.kind}" if group.kind else group.market


def _every_book(tried: Sequence[BookRuns], rules: Sequence[str]) -> Table:
    head = ("book", "market", "kind", *(f"{rule}: {what}" for rule in rules for what in ("final", "drawdown")))
    rows = tuple(
        (each.member.book.name, each.market, each.member.kind, *(cell for rule in rules for cell in _two(each, rule)))
        for each in tried
    )
    return _short(_table(head, rows, tuple(range(3, len(head)))))


def _short(table: Table) -> Table:
    """Remove the second column, the market, where there is only one: the page's facts name it."""
    if len({row[1] for row in table.rows}) > 1:
        return table
    rows = tuple((row[0], *row[2:]) for row in table.rows)
    return _table((table.head[0], *table.head[2:]), rows, tuple(n - 1 for n in table.numbers), table.caption)


def _two(tried: BookRuns, rule: str) -> tuple[str, str]:
    run = tried.run(rule)
    if run is None:
        return "not run", "-"
    unfinished = "" if run.complete else " (stopped)"
    return money(run.final_equity) + unfinished, percent(run.worst_drawdown)


def _not_run(found: BacktestAnswer) -> Section:
    rows = tuple((one.market or "-", one.book, one.rule or "-", one.text) for one in found.not_run)
    return Section("Failed runs", (_table(("market", "book", "rule", "why"), rows),))


def _yes(so: bool) -> str:
    return "yes" if so else "no"


Reasons = Mapping[tuple[str, str], tuple[str, str | None, str]]
"""Policy and trigger → its signal, unit and threshold; triggers by an expression are absent."""


def _reasons(policies: PolicySet) -> Reasons:
    return {
        (graph.policy, trigger.name): (
            _signal(graph.signals[limit.index]), BY_NAME[graph.signals[limit.index].name].unit,
            f"{limit.op} {limit.written}",
        )
        for graph in policies.graphs
        for trigger in graph.triggers
        if (limit := trigger.threshold) is not None
    }  # fmt: skip


def _signal(signal: SignalRef) -> str:
    over = f" over {duration_text(timedelta(microseconds=signal.window))}" if signal.window else ""
    return f"{signal.name}{over}"


def _why(firing: BacktestFiring, reasons: Reasons) -> str:
    """Return the triggers: `equity.drawdown over 15m 4.67% >= 4.5%`; of one by an expression, its name."""
    found = []
    for reading in firing.triggers:
        signal, unit, threshold = reasons.get((firing.policy, reading.name), (None, None, None))
        found.append(f"{signal} {interval(reading.value, unit)} {threshold}" if signal else reading.name)
    return "; ".join(found) or "-"


def closed_text(closed: tuple[ClosedAmount, ...]) -> str:
    """Return what a firing closed, largest first."""
    ordered = sorted(closed, key=lambda each: (-each.notional, each.symbol))
    return ", ".join(f"{each.symbol} {each.side} {money(each.notional)}" for each in ordered) or "nothing"


def verified_text(firing: BacktestFiring) -> str:
    """Return when the venue showed every target reached, counted from the firing."""
    if firing.ended is None:
        return "nothing to close"
    if firing.verified_at is None:
        return "never"
    after = firing.verified_at - firing.at
    return f"after {duration_text(after)}" if after >= timedelta(seconds=1) else "at once"


def hedge_text(firing: BacktestFiring) -> str:
    """Return whether the other side remained when the close was verified, and how much of it."""
    if firing.hedge is None:
        return "-"
    kept = "" if firing.hedge_kept is None or firing.hedge == "closed" else f" ({firing.hedge_kept:.0%})"
    return f"{firing.hedge}{kept}"


def figures(tried: BookRuns, currency: str) -> tuple[Figure, ...]:
    """Return the charts of a book whose runs have equity curves; empty otherwise."""
    curves = [(run, run.course) for run in tried.runs if run.course is not None]
    if not curves:
        return ()
    drawn = [*_equity(curves, currency)]
    for run, curve in curves:
        if run.rule == STAGED:
            sides = {"longs": curve.long_pnl, "shorts": curve.short_pnl}
            drawn.append(_figure("P&L by side, staged (before fees)", curve.at, sides, currency, run))
            caption = "Positions, staged (long above zero, short below)"
            drawn.append(_figure(caption, curve.at, curve.held, currency, run, is_stacked=True))
    return tuple(drawn)


def marks(run: Run) -> tuple[ChartMark, ...]:
    """Return the first stages that fired, each with its level."""
    return tuple(
        ChartMark(to_micros(firing.at), f"{firing.level} {firing.stage or ''}".strip(), firing.level)
        for firing in run.firings[:_MOST_MARKS]
    )


def _equity(curves: Sequence[tuple[Run, RunCurve]], currency: str) -> Iterator[Figure]:
    longest = max((curve for _, curve in curves), key=lambda curve: len(curve.at))
    gap = float("nan")
    series = {run.rule: [*curve.equity, *[gap] * (len(longest.at) - len(curve.at))] for run, curve in curves}
    staged = next((run for run, _ in curves if run.rule == STAGED), curves[0][0])
    yield _figure("Equity", longest.at, series, currency, staged)
    if not staged.firings:
        return
    fired = to_micros(staged.firings[0].at)
    first, end = bisect_left(longest.at, fired - BEFORE), bisect_right(longest.at, fired + AFTER)
    if 2 * (end - first) < len(longest.at):
        near = {rule: values[first:end] for rule, values in series.items()}
        caption = f"Equity around the first stage that fired ({staged.firings[0].at:%Y-%m-%d})"
        yield _figure(caption, longest.at[first:end], near, currency, staged)


def _figure(
    label: str, at: Sequence[int], series: Mapping[str, Sequence[float]], unit: str, run: Run, *,
    is_stacked: bool = False,
) -> Figure:  # fmt: skip
    title = f"{label}: {run.book} in {run.market}"
    seen = [mark for mark in marks(run) if at and at[0] <= mark.at <= at[-1]]
    if is_stacked:
        sides = COLOURS["longs"], COLOURS["shorts"]
        drawn = [area_chart(title, at, series, unit=unit, marks=seen, size=size, colours=sides) for size in SIZES]
    else:
        own = [COLOURS[name] for name in series]
        drawn = [line_chart(title, at, series, unit=unit, marks=seen, size=size, colours=own) for size in SIZES]
    return Figure(label, *drawn)
