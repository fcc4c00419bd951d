"""The part `bridge`: how far the way in which coarse bars are walked moves the results.

Two tables. The first has the crash folders of coarse bars as they were recorded, and walked with several seeds. The
second is a check against the truth: a folder of one-minute bars is joined into five-minute bars, and these are walked
in minutes again; what was recorded by the minute is what the walk should have found.

Both are played without the product: no protection, the levels of `futures-drawdown` (`v6-like`), and a close of
everything at the first fall that the recommended set asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
from msgspec.structs import replace

from killswitch.lab.bars import read_market
from tests.evidence.first_falls import Trigger, closed_at, first_firing, rules_of
from tests.evidence.gathering import RECOMMENDED, Say
from tests.evidence.markets import FINE_ENOUGH, MINUTE, Span, books_of, interval_of, whole_spans
from tests.evidence.players import V6, Held, held_of, v6_equity, worst_fall
from tests.evidence.results import PageTable, PartResult, highest_twentieth, percent

SEEDS = (1, 2, 3, 4, 5)
KINDS = ("hedged", "directional", "concentrated")
COARSE = 5 * MINUTE
NONE = "none"
FIRST = "at the set's first fall"
RULES = (NONE, V6, FIRST)
WALKED = "walked"
Drawdowns = Mapping[tuple[str, str], list[float]]
"""(kind, rule) → the worst drawdown of each book."""


def bridge(markets: Path, policies: Path, *, count: int, seed: int, jobs: int, say: Say) -> PartResult:
    """Play and tabulate; `command` and `date` are filled in by the caller."""
    spans = whole_spans(markets, seed=0)
    coarse = [span for span in spans if interval_of(read_market(span.folder)) > FINE_ENOUGH]
    fine = [span for span in spans if span not in coarse]
    walks = {"as recorded": [replace(span, step=None) for span in coarse]}
    walks |= {f"{WALKED}, seed {each}": [replace(span, seed=each) for span in coarse] for each in SEEDS}
    truth = {"1m, as recorded": fine, "joined to 5m": [replace(span, step=None, coarse=COARSE) for span in fine]}
    truth |= {
        f"{WALKED} in 1m, seed {each}": [replace(span, step=MINUTE, coarse=COARSE, seed=each) for span in fine]
        for each in SEEDS
    }
    triggers = {kind: rules_of(policies / RECOMMENDED[kind] / "policy.yaml").triggers for kind in KINDS}
    found: dict[str, Drawdowns] = {}
    for name, walked in {**walks, **truth}.items():
        say(f"  {name}")
        found[name] = _drawdowns(walked, triggers, count, seed)
    tables = {"coarse": _table(found, list(walks)), "truth": _table(found, list(truth))}
    numbers = _numbers(found, "coarse", list(walks)) | _numbers(found, "truth", list(truth))
    notes = {"coarse": _names(coarse), "truth": _names(fine)}
    return PartResult("bridge", "", "", tables, numbers, notes)


def _names(spans: Sequence[Span]) -> str:
    return ", ".join(each.name for each in spans)


def _drawdowns(
    spans: Sequence[Span], triggers: Mapping[str, tuple[Trigger, ...]], count: int, seed: int
) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {(kind, rule): [] for kind in KINDS for rule in RULES}
    for span in spans:
        table = span.table()
        at = np.asarray(table.opened)
        for book in books_of(span, KINDS, count, seed)[0]:
            held = held_of(table, book.book)
            for rule, fall in _rules(held, at[-len(held.close) :], triggers[book.kind]).items():
                found[book.kind, rule].append(fall())
    return found


def _rules(held: Held, at: np.ndarray, triggers: Sequence[Trigger]) -> dict[str, Callable[[], float]]:
    equity = held.equity + (held.close - held.close[0]) @ held.units
    return {
        NONE: lambda: closed_at(held, None)[0],
        V6: lambda: worst_fall(v6_equity(held)),
        FIRST: lambda: closed_at(held, first_firing(equity, at, triggers))[0],
    }


def _table(found: Mapping[str, Drawdowns], names: Sequence[str]) -> PageTable:
    """Mean and 95th percentile: of each column that was not walked, and lowest to highest over the seeds."""
    plain, seeded = _plain(names), [name for name in names if name not in _plain(names)]
    rows = []
    for kind in KINDS:
        for rule in RULES:
            cells = [str(len(found[names[0]][kind, rule]))]
            for figure in (mean, highest_twentieth):
                cells += [percent(figure(found[name][kind, rule])) for name in plain]
                values = [figure(found[name][kind, rule]) for name in seeded]
                cells.append(f"{100 * min(values):.1f} to {100 * max(values):.1f}%")
            rows.append((kind, rule, *cells))
    columns = [f"{figure}, {name}" for figure in ("mean", "95th") for name in (*plain, f"walked, {len(SEEDS)} seeds")]
    return PageTable(("kind", "rule", "books", *columns), tuple(rows), 2)


def _plain(names: Sequence[str]) -> list[str]:
    return [name for name in names if not name.startswith(WALKED)]


def _numbers(found: Mapping[str, Drawdowns], group: str, names: Sequence[str]) -> dict[str, float]:
    """`GROUP/KIND/RULE/recorded`, `/low` and `/high` of the 95th percentile."""
    numbers = {}
    for kind in KINDS:
        for rule in RULES:
            values = {name: highest_twentieth(found[name][kind, rule]) for name in names}
            seeded = [value for name, value in values.items() if name not in _plain(names)]
            numbers[f"{group}/{kind}/{rule}/recorded"] = values[names[0]]
            numbers[f"{group}/{kind}/{rule}/low"] = min(seeded)
            numbers[f"{group}/{kind}/{rule}/high"] = max(seeded)
    return numbers
