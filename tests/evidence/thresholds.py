"""The parts `scaled` and `walk`: which thresholds, and whether those chosen on the past serve the next crash.

Both close everything at the first fall, by `tests/evidence/first_falls.py`, and ask what fired falsely before the crash
in the same folder.

`scaled`: a fall within an hour, confirmed for two minutes, with a fixed threshold and with a multiple of the book's
expected move of an hour (12 hours of five-minute returns). Two rules are compared where the fixed one fires falsely in
no more books than the scaled one.

`walk`: a fall within a quarter of an hour, confirmed for two minutes, or within 48 hours, confirmed for five: the two
measures of the recommended sets that fire first. Before each crash folder but the first, the pair of thresholds with
the smallest mean drawdown over the earlier ones is taken, of those that fired falsely in no more of their books than is
wanted; where none is within it, the one that fired least. It is judged on that folder alone. A second table has the
smallest drawdown at each share of false firings over all folders, which nobody could have chosen beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
from msgspec import Struct

from tests.evidence.first_falls import (
    Moments,
    Scaled,
    Trigger,
    closed_at,
    confirmed,
    fall_within,
    first_firing,
    moments_of,
    rules_of,
    scaled_thresholds,
)  # fmt: skip
from tests.evidence.gathering import RECOMMENDED, Say
from tests.evidence.markets import MINUTE, bars_text, books_of, crash_begin, interval_of, whole_spans
from tests.evidence.ordinary import BOUNDS, recovered
from tests.evidence.players import V6, Floats, Held, held_of, v6_equity, worst_fall
from tests.evidence.results import PageTable, PartResult, highest_twentieth, percent, share_text

KINDS = ("hedged", "directional", "concentrated")
ALL = "all three"
FIXED = (0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.085, 0.10, 0.13, 0.17)
TIMES = (2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
QUARTERS = tuple(each / 1000 for each in range(30, 81, 5))
LONGS = tuple(each / 100 for each in range(8, 21, 2))
PAIRS = tuple(product(QUARTERS, LONGS))
"""Thresholds over 15 minutes and over 48 hours that `walk` chooses from."""
SHARES = (0.0, 0.05, 0.10, 0.15, 0.25, 0.40)
"""Of books that fire falsely: the rows of the second table."""
SHIPPED = "as shipped"
HOUR, CONFIRM = 60 * MINUTE, 2 * MINUTE
SCALED = Scaled(1.0, 0.005, 0.60, 0.07, HOUR, 12 * HOUR, 5 * MINUTE)


class Measured(Struct, frozen=True):
    """One book in one crash folder. `crash`: the close from which it is no ordinary day."""

    kind: str
    folder: str
    bars: str
    symbols: tuple[str, ...]
    held: Held
    equity: Floats
    at: tuple[int, ...]
    crash: int
    step: int

    def is_false(self, fired: int | None) -> bool:
        """Whether a firing was on an ordinary day, and false."""
        if fired is None or fired >= self.crash:
            return False
        return recovered(self.at[: self.crash], self.equity[: self.crash].tolist(), self.at[fired])


class Outcome(Struct, frozen=True):
    """A rule over books: the drawdown of each, and whether it fired falsely in each."""

    drawdowns: tuple[float, ...] = ()
    false: tuple[bool, ...] = ()

    def and_also(self, other: Outcome) -> Outcome:
        return Outcome(self.drawdowns + other.drawdowns, self.false + other.false)

    @property
    def false_share(self) -> float:
        return mean(self.false) if self.false else 0.0

    @property
    def false_text(self) -> str:
        return share_text(sum(self.false), len(self.false))

    @property
    def figures(self) -> tuple[str, str]:
        return percent(mean(self.drawdowns)), percent(highest_twentieth(self.drawdowns))


Key = tuple[str, str, str]
"""Rule, kind, folder."""


class Outcomes:
    """Outcomes by rule, kind and folder."""

    def __init__(self) -> None:
        self._found: dict[Key, Outcome] = {}
        self.bars: dict[str, str] = {}

    def add(self, rule: str, book: Measured, drawdown: float, fired: int | None) -> None:
        key = (rule, book.kind, book.folder)
        before = self._found.get(key, Outcome())
        self._found[key] = before.and_also(Outcome((drawdown,), (book.is_false(fired),)))
        self.bars[book.folder] = book.bars

    def folders(self, kind: str) -> list[str]:
        """The folders with books of this kind, oldest first."""
        return sorted({folder for _, of, folder in self._found if of == kind})

    def of(self, rule: str, kinds: Sequence[str], folders: Sequence[str] | None = None) -> Outcome:
        """Of the books of these kinds in these folders, all for None."""
        found = Outcome()
        for (name, kind, folder), outcome in self._found.items():
            if name == rule and kind in kinds and (folders is None or folder in folders):
                found = found.and_also(outcome)
        return found


def _measured(
    markets: Path, count: int, seed: int, each: Callable[[Measured, Moments], None], *, with_moments: bool
) -> None:
    """Call `each` with every book of every crash folder, and the moments of its market where they are asked."""
    for span in whole_spans(markets, seed=seed):
        table = span.table()
        step = interval_of(table)
        at = tuple((np.asarray(table.opened) + step).tolist())
        crash = int(np.searchsorted(np.asarray(table.opened), crash_begin(table)))
        moments = moments_of(table, SCALED) if with_moments else Moments((), (), ())
        for one in books_of(span, KINDS, count, seed)[0]:
            held = held_of(table, one.book)
            if len(held.close) != len(at):
                raise ValueError(f"{span.name}: {one.book.name} has no price at the first bar")
            equity = held.equity + (held.close - held.close[0]) @ held.units
            symbols = tuple(each_one.symbol for each_one in one.book.accounts[0].positions)
            bars = bars_text(span.folder)
            each(Measured(one.kind, span.folder.name, bars, symbols, held, equity, at, crash, step), moments)


# -- fixed and scaled --------------------------------------------------------------------------------------------


def scaled(markets: Path, policies: Path, *, count: int, seed: int, jobs: int, say: Say) -> PartResult:
    """Play and tabulate; `command` and `date` are filled in by the caller."""
    found = Outcomes()

    def play(book: Measured, moments: Moments) -> None:
        fallen = fall_within(book.equity, HOUR // book.step)
        thresholds: dict[str, Floats | float] = {percent(each): each for each in FIXED}
        for times in TIMES:
            rule = Scaled(times, *(getattr(SCALED, name) for name in Scaled.__struct_fields__[1:]))
            thresholds[_times(times)] = scaled_thresholds(book.held, book.symbols, moments, rule, fallen)
        for name, threshold in thresholds.items():
            fired = confirmed(fallen >= threshold, CONFIRM // book.step)
            found.add(name, book, closed_at(book.held, fired)[0], fired)

    _measured(markets, count, seed, play, with_moments=True)
    rows, better, compared = [], 0, 0
    for name, kinds in ((ALL, KINDS), *((kind, (kind,)) for kind in KINDS)):
        outcomes = {rule: found.of(rule, kinds) for rule in (*map(percent, FIXED), *map(_times, TIMES))}
        for ours, theirs in pairs(outcomes):
            a, b = outcomes[ours], outcomes[theirs]
            rows.append((name, ours, a.false_text, *a.figures, theirs, b.false_text, *b.figures))
            if name == ALL:
                compared += 1
                better += mean(a.drawdowns) < mean(b.drawdowns)
    head = ("books", "scaled", "fires falsely", "mean", "95th", "fixed", "fires falsely", "mean", "95th")
    numbers: dict[str, float] = {"compared": compared, "better": better}
    notes = {"bars": ", ".join(f"{folder} ({bars})" for folder, bars in sorted(found.bars.items()))}
    return PartResult("scaled", "", "", {"pairs": PageTable(head, tuple(rows), 2)}, numbers, notes)


def _times(times: float) -> str:
    return f"{times:g} ×"


def pairs(outcomes: Mapping[str, Outcome]) -> Iterator[tuple[str, str]]:
    """Each scaled rule with the lowest fixed threshold that fires falsely in no more books."""
    for times in map(_times, TIMES):
        for fixed in map(percent, FIXED):
            if outcomes[fixed].false_share <= outcomes[times].false_share:
                yield times, fixed
                break


# -- walk forward ------------------------------------------------------------------------------------------------


def walk(markets: Path, policies: Path, *, count: int, seed: int, jobs: int, say: Say) -> PartResult:
    """Play and tabulate; `command` and `date` are filled in by the caller."""
    triggers = {kind: rules_of(policies / RECOMMENDED[kind] / "policy.yaml").triggers for kind in KINDS}
    found = Outcomes()

    def play(book: Measured, _: Moments) -> None:
        fired = first_firing(book.equity, np.asarray(book.at), triggers[book.kind])
        found.add(SHIPPED, book, closed_at(book.held, fired)[0], fired)
        for rule, place, drawdown in closed_by_pairs(book):
            found.add(rule, book, drawdown, place)
        found.add(V6, book, worst_fall(v6_equity(book.held)), None)

    _measured(markets, count, seed, play, with_moments=False)
    rows: list[tuple[str, ...]] = []
    numbers: dict[str, float] = {}
    for kind in KINDS:
        of_kind, judged = _walked(found, kind)
        rows += of_kind
        numbers |= judged
    head = ("kind", "judged on", "bars", "15m", "48h", "earlier: mean", "95th", "fires falsely", "later: mean", "95th",
            "fires falsely", "as shipped: mean", "95th", f"{V6}: mean", "95th")  # fmt: skip
    tables = {"walk": PageTable(head, tuple(rows), 3), "frontier": _frontier(found)}
    notes = {"bars": ", ".join(f"{folder} ({bars})" for folder, bars in sorted(found.bars.items()))}
    return PartResult("walk", "", "", tables, numbers, notes)


def closed_by_pairs(book: Measured) -> Iterator[tuple[str, int | None, float]]:
    """For each pair: its name, where it fires first, and the worst drawdown with everything closed there."""
    at = np.asarray(book.at)
    quarters, longs = (
        [first_firing(book.equity, at, [Trigger("equity.drawdown", window, each, confirm)]) for each in thresholds]
        for window, confirm, thresholds in ((15 * MINUTE, CONFIRM, QUARTERS), (48 * HOUR, 5 * MINUTE, LONGS))
    )
    drawdown = cache(lambda place: closed_at(book.held, place)[0])
    for pair, firings in zip(PAIRS, product(quarters, longs), strict=True):
        place = min((each for each in firings if each is not None), default=None)
        yield _pair(pair), place, drawdown(place)


def _pair(pair: tuple[float, float]) -> str:
    return f"{percent(pair[0])} / {percent(pair[1], 0)}"


def _walked(found: Outcomes, kind: str) -> tuple[list[tuple[str, ...]], dict[str, float]]:
    """The rows of a kind, one for each later crash and one of them all, and its numbers."""
    folders = found.folders(kind)
    rows: list[tuple[str, ...]] = []
    pooled = {"later": Outcome(), "shipped": Outcome(), "reference": Outcome()}
    for number, later in enumerate(folders[1:], start=1):
        pair = chosen(found, kind, folders[:number])
        earlier = found.of(_pair(pair), [kind], folders[:number])
        judged = {
            name: found.of(rule, [kind], [later])
            for name, rule in (("later", _pair(pair)), ("shipped", SHIPPED), ("reference", V6))
        }
        past = (*earlier.figures, earlier.false_text)
        rows.append((kind, later, found.bars[later], *_pair(pair).split(" / "), *past, *_row(judged)))
        pooled = {name: pooled[name].and_also(outcome) for name, outcome in judged.items()}
    rows.append((kind, "all later crashes", "", "", "", "", "", "", *_row(pooled)))
    numbers: dict[str, float] = {f"{kind}/books": len(pooled["later"].drawdowns)}
    for name, outcome in pooled.items():
        numbers[f"{kind}/{name}/mean"] = mean(outcome.drawdowns)
        numbers[f"{kind}/{name}/p95"] = highest_twentieth(outcome.drawdowns)
        numbers[f"{kind}/{name}/false"] = outcome.false_share
    return rows, numbers


def _frontier(found: Outcomes) -> PageTable:
    """The smallest mean drawdown at each share of false firings, of all folders at once."""
    rows = []
    for kind in KINDS:
        outcomes = {pair: found.of(_pair(pair), [kind]) for pair in PAIRS}
        for share in SHARES:
            quiet = [pair for pair, outcome in outcomes.items() if outcome.false_share <= share]
            if quiet:
                best = min(quiet, key=lambda pair: (mean(outcomes[pair].drawdowns), pair))
                outcome = outcomes[best]
                rows.append((
                    kind, f"{share:.0%}", *_pair(best).split(" / "), outcome.false_text, *outcome.figures,
                ))  # fmt: skip
        shipped = found.of(SHIPPED, [kind])
        rows.append((kind, SHIPPED, "", "", shipped.false_text, *shipped.figures))
    return PageTable(("kind", "at most", "15m", "48h", "fires falsely", "mean", "95th"), tuple(rows), 2)


def _row(judged: Mapping[str, Outcome]) -> tuple[str, ...]:
    ours = judged["later"]
    return (*ours.figures, ours.false_text, *judged["shipped"].figures, *judged["reference"].figures)


def chosen(found: Outcomes, kind: str, folders: Sequence[str]) -> tuple[float, float]:
    """The pair of thresholds that these folders recommend."""
    outcomes = {pair: found.of(_pair(pair), [kind], folders) for pair in PAIRS}
    quiet = [pair for pair, outcome in outcomes.items() if outcome.false_share <= BOUNDS[kind]]
    if not quiet:
        return min(PAIRS, key=lambda pair: (outcomes[pair].false_share, mean(outcomes[pair].drawdowns), pair))
    return min(quiet, key=lambda pair: (mean(outcomes[pair].drawdowns), pair))
