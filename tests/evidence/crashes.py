"""The part `crashes`: every compared set over every crash folder and kind of book."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from statistics import mean

from killswitch.lab.backtest import Rule
from killswitch.lab.campaign import CLOSE_ALL, IN_PROPORTION, NONE, STAGED, BookRuns
from killswitch.lab.families import FamilyBook
from killswitch.lab.outcome import Run
from killswitch.lab.summary import figures, in_turn
from tests.evidence.gathering import (
    COMPARED,
    MEANT,
    RECOMMENDED,
    REFERENCE,
    UNPROTECTED,
    Candidate,
    Case,
    Say,
    Trial,
    candidates,
    run_all,
    staged,
)  # fmt: skip
from tests.evidence.markets import KINDS, EvidenceBook, bars_text, books_of, missing_text, whole_spans
from tests.evidence.players import PLAYERS, play
from tests.evidence.results import (
    PageTable,
    PartResult,
    falls,
    highest_twentieth,
    interval_text,
    percent,
)  # fmt: skip

FELL = Decimal("0.07")
"""Only books whose unprotected worst drawdown is at least this are asked about protection."""
FIGURES = ("mean drawdown", "95th percentile", "over 20%", "final equity", "turnover ÷ gross", "gross kept",
            "liquidated")  # fmt: skip
AT_ONCE = ("futures-directional", "one-exchange-directional")
"""Sets whose first close is of everything: at once, and in proportion, they are the same."""
WORDS: Mapping[Rule, str] = {STAGED: "", IN_PROPORTION: ", its cuts in proportion", CLOSE_ALL: ", all at once"}


def crashes(markets: Path, policies: Path, *, count: int, seed: int, jobs: int, say: Say) -> PartResult:
    """Run and tabulate; `command` and `date` are filled in by the caller."""
    spans, missing = whole_spans(markets, seed=seed), list[str]()
    books: list[EvidenceBook] = []
    for kind in KINDS:
        for span in spans:
            found, absent = books_of(span, [kind], count, seed)
            books += found
            missing += absent
    tested = candidates(policies, sorted({name for names in COMPARED.values() for name in names}), variants=False)
    own = candidates(policies, sorted(MEANT), variants=True)
    sets = {each.label: each.policies for each in (*tested, *own)}
    cases = run_all(books, sets, lambda book: list(_trials(book.kind, own)), seed=seed, jobs=jobs, say=say)
    fallen = [case for case in cases if case.unprotected.worst_drawdown >= FELL]
    say("  the rules of other programs")
    played = {place: {name: play(case.part, name) for name in PLAYERS} for place, case in _swaps(fallen)}
    tables = {
        **{f"kind {kind}": table for kind, table in _by_kind(fallen, played, seed)},
        "by market": _by_market(fallen),
        "splits": _splits([case for case in cases if case.part.kind == "split"]),
        "equal gross": _equal_gross(fallen, own),
        "came back": _came_back(cases),
        **{f"readme {name}": table for name, table in _readmes(fallen, own)},
        **{f"readme came back {name}": table for name, table in _readme_costs(cases, own)},
    }
    numbers = {key: value for kind in KINDS for key, value in _numbers(kind, fallen).items()}
    bars = ", ".join(f"{span.name} ({bars_text(span.folder)})" for span in spans)
    notes = {"bars": bars, "missing": missing_text(missing), "books": f"{len(fallen)} of {len(cases)}"}
    return PartResult("crashes", "", "", tables, numbers, notes)


def _trials(kind: str, own: Sequence[Candidate]) -> Iterator[Trial]:
    """What a book of this kind is run under: each compared set as it is, and those that are for it in all ways."""
    yield UNPROTECTED
    yield from (staged(name) for name in COMPARED[kind])
    for each in own:
        if MEANT[each.folder][0] == kind:
            if each.label not in COMPARED[kind]:
                yield each.label, STAGED
            yield from ((each.label, rule) for rule in ways(each))


def ways(each: Candidate) -> tuple[Rule, ...]:
    """The rules that a set is compared with itself by, where it is no close of everything anyway."""
    return () if each.folder in AT_ONCE else (IN_PROPORTION, CLOSE_ALL)


def _of(cases: Sequence[Case], kind: str) -> list[Case]:
    return [case for case in cases if case.part.kind == kind]


def _swaps(cases: Sequence[Case]) -> list[tuple[int, Case]]:
    """The books of one swap account, which the independent players can hold, with their places."""
    return [(place, case) for place, case in enumerate(cases) if case.part.kind not in ("several", "spot")]


def figure_cells(rule: str, runs: Sequence[Run]) -> tuple[str, ...]:
    """The figures of the runs, in the order of FIGURES."""
    one = figures(rule, runs)
    return (
        percent(one.drawdown_mean), percent(one.drawdown_p95), f"{one.deep:.0%}", percent(one.final_of_start),
        "-" if one.turnover is None else f"{one.turnover:.2f}", percent(one.gross_kept, 0), str(one.liquidated),
    )  # fmt: skip


def _by_kind(
    fallen: Sequence[Case], played: Mapping[int, Mapping[str, tuple[float, float]]], seed: int
) -> Iterator[tuple[str, PageTable]]:
    places = {id(case): place for place, case in _swaps(fallen)}
    for kind in KINDS:
        cases = _of(fallen, kind)
        if not cases:
            continue
        rows = [("none", "", *_with_interval(NONE, [case.unprotected for case in cases], seed))]
        for trial in cases[0].runs:
            if trial[1] in (STAGED, CLOSE_ALL):
                rows.append((*trial, *_with_interval(trial[1], [case.runs[trial] for case in cases], seed)))
        for name in PLAYERS if kind not in ("several", "spot") else ():
            found = [played[places[id(case)]][name] for case in cases]
            fell, left = [each[0] for each in found], [each[1] for each in found]
            deep = sum(each > 0.2 for each in fell) / len(fell)
            rows.append((
                name, "independent", percent(mean(fell)), percent(highest_twentieth(fell)), f"{deep:.0%}",
                percent(mean(left)), "-", "-", "-", interval_text(fell, seed),
            ))  # fmt: skip
        yield kind, PageTable(("policy", "rule", *FIGURES, "interval of the mean"), tuple(rows), 2)


def _with_interval(rule: str, runs: Sequence[Run], seed: int) -> tuple[str, ...]:
    return (*figure_cells(rule, runs), interval_text(falls(runs), seed))


def _numbers(kind: str, fallen: Sequence[Case]) -> dict[str, float]:
    """For the chooser and the verdicts: `KIND/SET/mean`, `/p95`, `/final`, and the number of books."""
    cases = _of(fallen, kind)
    found: dict[str, float] = {f"{kind}/books": len(cases)}
    for trial in (trial for trial in (cases[0].runs if cases else ()) if trial[1] in (NONE, STAGED)):
        runs = [case.runs[trial] for case in cases]
        found[f"{kind}/{trial[0]}/mean"] = mean(falls(runs))
        found[f"{kind}/{trial[0]}/p95"] = highest_twentieth(falls(runs))
        found[f"{kind}/{trial[0]}/final"] = mean(float(run.final_equity / run.start_equity) for run in runs)
    return found


def _by_market(fallen: Sequence[Case]) -> PageTable:
    """The recommended set crash by crash, against none and the reference."""
    head = ("kind", "set", "market", "bars", "books", "mean none", REFERENCE, "the set", "95th none", REFERENCE,
            "the set", "final none", "the set")  # fmt: skip
    rows = []
    for kind, name in RECOMMENDED.items():
        for market in sorted({case.part.span.name for case in _of(fallen, kind)}):
            cases = [case for case in _of(fallen, kind) if case.part.span.name == market]
            trials = (UNPROTECTED, staged(REFERENCE), staged(name))
            found = [[case.runs[trial] for case in cases] if trial in cases[0].runs else None for trial in trials]
            rows.append((
                kind, name, market, bars_text(cases[0].part.span.folder), str(len(cases)),
                *(percent(mean(falls(runs)) if runs else None) for runs in found),
                *(percent(highest_twentieth(falls(runs)) if runs else None) for runs in found),
                *(percent(mean(run.final_equity / run.start_equity for run in runs) if runs else None)
                  for runs in (found[0], found[2])),
            ))  # fmt: skip
    return PageTable(head, tuple(rows), 4)


def _splits(cases: Sequence[Case]) -> PageTable:
    head = ("policy", "richer than none", "smaller drawdown than none", "both sides in turn", "final equity",
            "worst loss against none")  # fmt: skip
    rows = []
    for label, _ in (trial for trial in (cases[0].runs if cases else ()) if trial[1] == STAGED):
        runs = [case.runs[label, STAGED] for case in cases]
        bare = [case.unprotected for case in cases]
        turned = [
            in_turn(BookRuns(case.part.span.name, FamilyBook("split", case.part.book), (run,)))
            for case, run in zip(cases, runs, strict=True)
        ]
        pairs = list(zip(runs, bare, strict=True))
        rows.append((
            label, str(sum(a.final_equity > b.final_equity for a, b in pairs)),
            str(sum(a.worst_drawdown < b.worst_drawdown for a, b in pairs)),
            str(sum(turn is not None for turn in turned)),
            percent(mean(run.final_equity / run.start_equity for run in runs)),
            percent(min((a.final_equity - b.final_equity) / b.start_equity for a, b in pairs)),
        ))  # fmt: skip
    return PageTable(head, tuple(rows))


def _equal_gross(fallen: Sequence[Case], own: Sequence[Candidate]) -> PageTable:
    head = ("kind", "policy", "drawdown staged", "in proportion", "95th staged", "in proportion", "final staged",
            "in proportion", "gross kept staged", "in proportion")  # fmt: skip
    rows = []
    for kind in KINDS:
        cases = _of(fallen, kind)
        for each in own:
            if not cases or (each.label, IN_PROPORTION) not in cases[0].runs:
                continue
            ours, theirs = (
                figures(rule, [case.runs[each.label, rule] for case in cases]) for rule in (STAGED, IN_PROPORTION)
            )
            pairs = [(one.drawdown_mean, one.drawdown_p95, one.final_of_start) for one in (ours, theirs)]
            cells = [percent(value) for both in zip(*pairs, strict=True) for value in both]
            rows.append((kind, each.label, *cells, percent(ours.gross_kept, 0), percent(theirs.gross_kept, 0)))
    return PageTable(head, tuple(rows), 2)


def _came_back(cases: Sequence[Case]) -> PageTable:
    rows = []
    for kind in KINDS:
        back = [case for case in _of(cases, kind) if _recovered(case)]
        for trial in (trial for trial in (back[0].runs if back else ()) if trial[1] == STAGED):
            fired = [case for case in back if case.runs[trial].firings]
            if fired:
                losses = [lost(case, case.runs[trial]) for case in fired]
                rows.append((
                    kind, trial[0], str(len(back)), str(len(fired)), percent(mean(losses)), percent(max(losses)),
                ))  # fmt: skip
    return PageTable(("kind", "policy", "came back", "fired", "mean loss", "worst"), tuple(rows), 2)


def _recovered(case: Case) -> bool:
    return case.unprotected.final_equity >= case.unprotected.start_equity


def lost(case: Case, run: Run) -> Decimal:
    """Final equity lost to protection, as a fraction of the start."""
    return (case.unprotected.final_equity - run.final_equity) / run.start_equity


# -- the READMEs of the sets -------------------------------------------------------------------------------------


def variant_name(each: Candidate) -> str:
    """`tight`, or that it is the set as shipped."""
    return each.label.removeprefix(each.folder).strip(" ()") or "as shipped"


def _readmes(fallen: Sequence[Case], own: Sequence[Candidate]) -> Iterator[tuple[str, PageTable]]:
    for folder, (kind, *_) in MEANT.items():
        cases = _of(fallen, kind)
        if not cases:
            continue
        rows = [("no protection", *figure_cells(NONE, [case.unprotected for case in cases]))]
        for each in (each for each in own if each.folder == folder):
            for rule in (STAGED, *ways(each)):
                runs = [case.runs[each.label, rule] for case in cases]
                rows.append((f"{variant_name(each)}{WORDS[rule]}", *figure_cells(rule, runs)))
        yield folder, PageTable(("rule", *FIGURES), tuple(rows))


def _readme_costs(cases: Sequence[Case], own: Sequence[Candidate]) -> Iterator[tuple[str, PageTable]]:
    for folder, (kind, *_) in MEANT.items():
        back = [case for case in _of(cases, kind) if _recovered(case)]
        rows = []
        for each in (each for each in own if each.folder == folder):
            fired = [case for case in back if case.runs[each.label, STAGED].firings]
            losses = [lost(case, case.runs[each.label, STAGED]) for case in fired]
            rows.append((variant_name(each), f"{len(fired)} of {len(back)}", percent(mean(losses) if losses else None)))
        yield folder, PageTable(("rule", "fired and came back", "mean loss"), tuple(rows))
