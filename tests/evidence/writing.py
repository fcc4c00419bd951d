"""The page: tables of the results, and what they must not be taken for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from statistics import mean

from killswitch.lab.campaign import CLOSE_ALL, IN_PROPORTION, NONE, STAGED, BookRuns
from killswitch.lab.outcome import Run
from killswitch.lab.summary import figures, in_turn
from killswitch.render.document import Table, table_lines
from tests.evidence.gathering import CALM, GROSS, HORIZON, MEANT, Case, Evidence, Firings

FELL = Decimal("0.07")
"""Only books whose unprotected worst drawdown is at least this are asked about protection."""
KINDS = ("hedged", "directional", "concentrated", "split")
PAIR = 2
CHOOSER = """\
**Which set to begin with.** Hedged books: cuts by component risk, tight (`one-exchange-hedged`, or `several-exchanges`
for legs at several). Directional and concentrated books: close at the first fall (`one-exchange-directional`). All of
them: a limit over a longer time as well, which these sets have. `ksctl init` writes them.
"""
"""The recommendation, before the tables that it comes from."""


def rendered(evidence: Evidence, *, command: str, date: str) -> str:
    """The page as Markdown."""
    return "\n".join(_lines(evidence, command, date)).rstrip() + "\n"


def _lines(evidence: Evidence, command: str, date: str) -> Iterator[str]:
    crashes = [case for case in evidence.cases if not _is_calm(case)]
    fallen = [case for case in crashes if case.unprotected.worst_drawdown >= FELL]
    yield from _head(evidence, crashes, fallen, command, date)
    yield from _by_kind(evidence, fallen)
    yield from _by_market(evidence, fallen)
    yield from _splits(evidence, crashes)
    yield from _equal_gross(evidence, fallen)
    yield from _recovered(evidence, crashes)
    yield from _calm(evidence)


def _is_calm(case: Case) -> bool:
    return case.part.market.startswith(CALM)


def _head(
    evidence: Evidence, crashes: Sequence[Case], fallen: Sequence[Case], command: str, date: str
) -> Iterator[str]:
    markets = sorted({case.part.market for case in evidence.cases})
    yield f"""# Evidence

{CHOOSER}
What the shipped policies would have done in recorded crashes, and in a calm month. Made on {date} by

```sh
{command}
```

(`tests/evidence`; it needs folders of bars that are not part of this repository.) The same bars, seed and counts make
the same page.

**A recording of a crash always rewards cutting sooner and more.** Do not read these tables as "the tighter, the
better": compare rules at equal gross (below), and price the triggers on the calm month (at the end). Protection buys
the tail, not the mean: where books end poorer with it, that is its premium.

- Markets: {", ".join(markets)}.
- Books: {len(evidence.cases)}, each with 100,000 of equity, gross {GROSS}, leverage 5. {evidence.random} seeded random
  books of each kind in each market (seed {evidence.seed}): *hedged* is dollar-neutral with lognormal weights,
  *directional* all on one side or 80/20, *concentrated* has 60–80% in one symbol; *split* is every book of four equal
  longs and four equal shorts, where there are eight symbols. {_sentences(evidence.missing)}
- Rules: *none*; each policy *staged*, as it is; *close-all*, everything at the policy's first trigger; *in
  proportion*, the policy's every cut made over all positions alike.
- The venue: taker fee 0.05%, half spread 0.01%, linear impact (0.1 × the share of the bar's volume), at most 10% of a
  bar's volume, liquidation at a maintenance margin of 0.5% for a fee of 0.5%. No funding, no outages, no late orders:
  a real crash is worse.
- Worst drawdown is from a peak of equity, at bar closes. *Over 20%* is the share of books in which it was deeper.
  *Gross kept* is the mean gross over the run against the gross at the start.
- Unless stated otherwise, a table counts the {len(fallen)} of {len(crashes)} books in crashes whose worst drawdown
  without protection was at least {FELL:.0%}.
"""


def _sentences(words: Sequence[str]) -> str:
    return "Not there: " + "; ".join(words) + "." if words else ""


# -- tables ------------------------------------------------------------------------------------------------------

FIGURES = ("mean drawdown", "95th percentile", "over 20%", "final equity", "turnover ÷ gross", "gross kept",
            "liquidated")  # fmt: skip


def _by_kind(evidence: Evidence, fallen: Sequence[Case]) -> Iterator[str]:
    yield "## Each kind of book under each policy"
    yield ""
    yield "Policies with the same triggers have the same result for *close-all*, which is listed once."
    yield ""
    for kind in KINDS:
        cases = [case for case in fallen if case.part.member.kind == kind]
        if not cases:
            continue
        yield f"### {kind.capitalize()} books ({len(cases)})"
        yield ""
        rows = [("none", "", *figure_cells(NONE, [case.unprotected for case in cases]))]
        told = set()
        for each in evidence.tested:
            rows.append(
                (each.label, STAGED, *figure_cells(STAGED, [case.protected[each.label, STAGED] for case in cases]))
            )
            closed = figure_cells(CLOSE_ALL, [case.protected[each.label, CLOSE_ALL] for case in cases])
            if closed not in told:
                rows.append((each.label, CLOSE_ALL, *closed))
            told.add(closed)
        yield from table_of(("policy", "rule", *FIGURES), rows, words=2)


def figure_cells(rule: str, runs: Sequence[Run]) -> tuple[str, ...]:
    """The figures of the runs, in the order of FIGURES."""
    one = figures(rule, runs)
    return (
        percent(one.drawdown_mean), percent(one.drawdown_p95), f"{one.deep:.0%}", percent(one.final_of_start),
        "-" if one.turnover is None else f"{one.turnover:.2f}", percent(one.gross_kept, 0), str(one.liquidated),
    )  # fmt: skip


def _by_market(evidence: Evidence, fallen: Sequence[Case]) -> Iterator[str]:
    yield "## Where staging helps, and where it does not"
    yield ""
    yield "Each policy over the kind of book that it is for, crash by crash, against none and against close-all."
    yield ""
    head = ("policy", "market", "books", "drawdown none", "staged", "close-all", "final none", "staged", "close-all",
            "richer than none", "than close-all")  # fmt: skip
    rows = []
    for each in evidence.tested:
        cases = [case for case in fallen if case.part.member.kind == MEANT.get(each.folder)]
        for market in sorted({case.part.market for case in cases}):
            rows.append((each.label, market, *_three([c for c in cases if c.part.market == market], each.label)))
    yield from table_of(head, rows, words=2)


def _three(cases: Sequence[Case], label: str) -> Iterator[str]:
    bare = [case.unprotected for case in cases]
    staged, closed = ([case.protected[label, rule] for case in cases] for rule in (STAGED, CLOSE_ALL))
    yield str(len(cases))
    yield from (percent(mean([run.worst_drawdown for run in runs])) for runs in (bare, staged, closed))
    yield from (percent(mean([run.final_equity / run.start_equity for run in runs])) for runs in (bare, staged, closed))
    for others in (bare, closed):
        richer = sum(a.final_equity > b.final_equity for a, b in zip(staged, others, strict=True))
        yield f"{richer} of {len(cases)}"


def _splits(evidence: Evidence, crashes: Sequence[Case]) -> Iterator[str]:
    cases = [case for case in crashes if case.part.member.kind == "split"]
    if not cases:
        return
    yield f"## The {len(cases)} four-long/four-short books"
    yield ""
    yield (
        "All of them, however little they fell. *Both sides in turn*: one side was closed, and when it was gone the "
        "other was closed alone (a fall, then a rebound that squeezes the hedge). In eight even positions a share cap "
        "of an eighth binds nowhere, so futures-concentrated cuts here as futures-degross does."
    )
    yield ""
    head = ("policy", "richer than none", "than close-all", "than in proportion", "smaller drawdown than none",
            "both sides in turn", "final equity", "worst loss against none")  # fmt: skip
    rows = []
    for each in evidence.tested:
        staged = [case.protected[each.label, STAGED] for case in cases]
        against = {
            NONE: [case.unprotected for case in cases],
            CLOSE_ALL: [case.protected[each.label, CLOSE_ALL] for case in cases],
            IN_PROPORTION: [case.protected[each.label, IN_PROPORTION] for case in cases],
        }
        turned = [in_turn(BookRuns(c.part.market, c.part.member, (run,))) for c, run in zip(cases, staged, strict=True)]
        smaller = sum(a.worst_drawdown < b.worst_drawdown for a, b in zip(staged, against[NONE], strict=True))
        worst = min(a.final_equity - b.final_equity for a, b in zip(staged, against[NONE], strict=True))
        rows.append((
            each.label,
            *(str(sum(a.final_equity > b.final_equity for a, b in zip(staged, runs, strict=True)))
              for runs in against.values()),
            str(smaller), str(sum(turn is not None for turn in turned)),
            percent(mean([run.final_equity / run.start_equity for run in staged])), f"{worst:,.0f}",
        ))  # fmt: skip
    yield from table_of(head, rows, words=1)


def _equal_gross(evidence: Evidence, fallen: Sequence[Case]) -> Iterator[str]:
    yield "## At equal gross"
    yield ""
    yield (
        "The same triggers and the same cuts of gross, taken where the policy takes them (*staged*) or over all "
        "positions alike (*in proportion*). What is better here is better for what it chooses, not for cutting more. "
        "(The book left by the one is not the book left by the other, so later triggers may differ.)"
    )
    yield ""
    head = ("kind", "policy", "drawdown staged", "in proportion", "95th staged", "in proportion", "final staged",
            "in proportion", "gross kept staged", "in proportion")  # fmt: skip
    rows = []
    for kind in KINDS:
        cases = [case for case in fallen if case.part.member.kind == kind]
        for each in evidence.tested if cases else ():
            ours, theirs = (
                figures(rule, [case.protected[each.label, rule] for case in cases]) for rule in (STAGED, IN_PROPORTION)
            )
            pairs = [
                (each_one.drawdown_mean, each_one.drawdown_p95, each_one.final_of_start) for each_one in (ours, theirs)
            ]
            cells = [percent(value) for both in zip(*pairs, strict=True) for value in both]
            rows.append((kind, each.label, *cells, percent(ours.gross_kept, 0), percent(theirs.gross_kept, 0)))
    yield from table_of(head, rows, words=2)


def _recovered(evidence: Evidence, crashes: Sequence[Case]) -> Iterator[str]:
    yield "## What protection costs when the book would have come back"
    yield ""
    yield (
        "Books that without protection ended at or above where they began, whatever lay between, and in which the "
        "policy fired: final equity lost to protection, in percent of the start."
    )
    yield ""
    rows = []
    for kind in KINDS:
        back = [
            case for case in crashes
            if case.part.member.kind == kind and case.unprotected.final_equity >= case.unprotected.start_equity
        ]  # fmt: skip
        for each in evidence.tested:
            fired = [case for case in back if case.protected[each.label, STAGED].firings]
            if fired:
                losses = [lost(case, case.protected[each.label, STAGED]) for case in fired]
                closed = [lost(case, case.protected[each.label, CLOSE_ALL]) for case in fired]
                cells = (
                    str(len(back)),
                    str(len(fired)),
                    percent(mean(losses)),
                    percent(max(losses)),
                    percent(mean(closed)),
                )
                rows.append((kind, each.label, *cells))
    head = ("kind", "policy", "came back", "fired", "mean loss", "worst", "mean loss of close-all")
    yield from table_of(head, rows, words=2)


def lost(case: Case, run: Run) -> Decimal:
    """Final equity lost to protection, as a fraction of the start."""
    return (case.unprotected.final_equity - run.final_equity) / run.start_equity


def _calm(evidence: Evidence) -> Iterator[str]:
    hours = round(HORIZON.total_seconds() / 3600)
    yield "## The calm month"
    yield ""
    yield (
        f"A firing is *false* if {hours} hours later (at the end of the bars, where that is sooner) the unprotected "
        "book was worth at least what it was worth when the stage fired. All books, however little they fell."
    )
    symbols = sorted({symbol for case in evidence.cases if _is_calm(case) for symbol in case.part.member.book.symbols})
    if len(symbols) == PAIR:
        yield (
            f"There are only two symbols, {' and '.join(symbols)}, so every hedged book is one of them long and the "
            "other short: many books, but one bet, and no measure of how hedged books fare in general."
        )
    yield ""
    rows = []
    kinds = [kind for kind in KINDS if any(one.kind == kind for one in evidence.calm)]
    for kind in kinds:
        for each in evidence.tested:
            rows.append((kind, each.label, *calm_cells(
                [one for one in evidence.calm if (one.kind, one.label) == (kind, each.label)]
            )))  # fmt: skip
    head = ("kind", "policy", "books", "fired in", "firings", "of them false", "mean cost of protection")
    yield from table_of(head, rows, words=2)


def calm_cells(found: Sequence[Firings]) -> tuple[str, ...]:
    """Books, share that fired, firings, false ones, mean cost."""
    fired = sum(bool(one.fired) for one in found)
    firings, false = sum(one.fired for one in found), sum(one.false for one in found)
    cost = mean([one.cost for one in found])
    return (str(len(found)), f"{fired / len(found):.0%}", str(firings), str(false), f"{cost:,.0f}")


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int) -> Iterator[str]:
    """The table as Markdown; its first `words` columns are text."""
    table = Table(tuple(head), tuple(tuple(row) for row in rows), numbers=tuple(range(words, len(head))))
    yield from table_lines(table)
    yield ""


def percent(value: Decimal | None, places: int = 1) -> str:
    """A fraction as a percentage; `-` where there is none."""
    return "-" if value is None else f"{value:.{places}%}"
