"""The part `calm`: how often the sets fire on ordinary days, and what of it was false.

Ordinary days are what came before each crash, up to the peak that it fell from, and a month without a crash, in parts.
A book *fires* if a stage that closes something is confirmed. Until then the book is as it was, so that the first
firing needs no backtest (`tests/evidence/first_falls.py`). It is *false* if, 24 hours later (at the end of the span,
where that is sooner), the book without protection had at least the equity of that moment.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from msgspec import Struct

from killswitch.lab.book import BookAccount
from killswitch.lab.price_matrix import Instants, PriceMatrix
from tests.evidence.first_falls import FallRules, first_firing, rules_of
from tests.evidence.gathering import COMPARED, MEANT, RECOMMENDED, Say, candidates
from tests.evidence.markets import KINDS, Span, bars_text, books_of, days_text, ordinary_spans
from tests.evidence.players import Floats
from tests.evidence.results import PageTable, PartResult, share_text

HORIZON = timedelta(hours=24)
BOUNDS = {"hedged": 0.05, "several": 0.05, "directional": 0.25, "concentrated": 0.25, "spot": 0.25}
"""The share of books that may fire falsely on ordinary spans."""


class Firing(Struct, frozen=True):
    """What one set did in one book of an ordinary span."""

    label: str
    kind: str
    span: str
    is_calm: bool
    has_fired: bool
    is_false: bool


def ordinary(markets: Path, policies: Path, *, count: int, seed: int, jobs: int, say: Say) -> PartResult:
    """Play and tabulate; `command` and `date` are filled in by the caller."""
    rules = _rules(policies)
    spans = ordinary_spans(markets, seed=seed)
    found: list[Firing] = []
    for span in spans:
        bars = span.bars()
        for book in books_of(span, KINDS, count, seed)[0]:
            paths = {account.account: equity_of(bars, account) for account in book.book.accounts}
            for label in _labels(book.kind, rules):
                found.append(_firing(span, book.kind, label, rules[label], paths, bars.at))
    tables = {
        "spans": _spans(spans, found),
        **{f"kind {kind}": table for kind, table in _by_kind(found)},
        **{f"readme {folder}": _readme(folder, rules, found) for folder in (*MEANT, "circuit-breaker")},
    }
    numbers = {key: value for kind in KINDS for key, value in _numbers(found, kind)}
    numbers |= {"spans": len(spans), "days": sum(float(days_text(span)) for span in spans)}
    numbers["days before crashes"] = sum(float(days_text(span)) for span in spans if not span.is_calm)
    return PartResult("calm", "", "", tables, numbers, {})


def _rules(policies: Path) -> dict[str, FallRules]:
    """The rules of every compared set, and of the variants of those that are for a kind of book."""
    names = sorted({name for names in COMPARED.values() for name in names} | set(MEANT))
    return {
        each.label: rules_of(policies / each.folder / "policy.yaml", variant_of(each.label))
        for each in candidates(policies, names, variants=True)
    }


def variant_of(label: str) -> str | None:
    """`tight` of `futures-degross (tight)`."""
    return label.partition(" (")[2].rstrip(")") or None


def _labels(kind: str, rules: Mapping[str, FallRules]) -> Iterator[str]:
    """The sets that are compared for this kind of book, and the variants of those that are for it."""
    for label in rules:
        folder, variant = label.partition(" (")[0], variant_of(label)
        if (folder in COMPARED[kind] and variant is None) or kind in MEANT.get(folder, ()):
            yield label


def equity_of(bars: PriceMatrix, account: BookAccount) -> Floats:
    """The equity of the account at each close, without any order, fee or liquidation."""
    equity = np.full(len(bars), float(account.equity))
    for each in account.positions:
        close = bars.close[:, bars.columns([each.symbol])[0]]
        equity += float(each.notional) * (1 if each.side == "long" else -1) * (close / close[0] - 1)
    return equity


def _firing(span: Span, kind: str, label: str, rules: FallRules, paths: Mapping[str, Floats], at: Instants) -> Firing:
    whole = np.sum(list(paths.values()), axis=0)
    fired = []
    for scope, triggers in rules.policies:
        watched = [whole] if scope == "portfolio" else list(paths.values())
        fired += [first_firing(equity, at, triggers) for equity in watched]
    first = min((each for each in fired if each is not None), default=None)
    is_false = first is not None and recovered(at.tolist(), whole.tolist(), int(at[first]))
    return Firing(label, kind, span.name, span.is_calm, first is not None, is_false)


def recovered(at: Sequence[int], equity: Sequence[float], fired: int) -> bool:
    """Whether equity HORIZON after `fired` (microseconds), or at the end, is at least that when it fired."""
    then = bisect_left(at, fired)
    later = min(bisect_left(at, fired + round(HORIZON.total_seconds() * 1_000_000)), len(at) - 1)
    return equity[later] >= equity[then]


# -- tables ------------------------------------------------------------------------------------------------------


def _spans(spans: Sequence[Span], found: Sequence[Firing]) -> PageTable:
    """The recommended set of each kind in each span."""
    rows = []
    for span in spans:
        cells = []
        for kind, name in RECOMMENDED.items():
            mine = [each for each in found if (each.kind, each.label, each.span) == (kind, name, span.name)]
            cells.append(f"{_count(mine, 'fired')}, {_count(mine, 'false')} of {len(mine)}" if mine else "-")
        rows.append((span.name, bars_text(span.folder), days_text(span), *cells))
    return PageTable(("span", "bars", "days", *(f"{kind}: fired, falsely" for kind in RECOMMENDED)), tuple(rows), 2)


def _by_kind(found: Sequence[Firing]) -> Iterator[tuple[str, PageTable]]:
    head = ("policy", "books before crashes", "fired", "falsely", "books of the month", "fired", "falsely")
    for kind in KINDS:
        rows = []
        for label in dict.fromkeys(each.label for each in found if each.kind == kind):
            mine = [each for each in found if (each.kind, each.label) == (kind, label)]
            before, month = [e for e in mine if not e.is_calm], [e for e in mine if e.is_calm]
            rows.append((
                label, str(len(before)), _share(before, "fired"), _share(before, "false"),
                str(len(month)), _share(month, "fired"), _share(month, "false"),
            ))  # fmt: skip
        yield kind, PageTable(head, tuple(rows))


def _count(found: Sequence[Firing], of: str) -> int:
    return sum(each.is_false if of == "false" else each.has_fired for each in found)


def _share(found: Sequence[Firing], of: str) -> str:
    return share_text(_count(found, of), len(found))


def _readme(folder: str, rules: Mapping[str, FallRules], found: Sequence[Firing]) -> PageTable:
    """The ordinary spans of a set and its variants: of its own kinds of book, or of all."""
    kinds = MEANT.get(folder, ("hedged", "directional", "concentrated", "spot"))
    rows = []
    for label in (label for label in rules if label.partition(" (")[0] == folder):
        for kind in kinds:
            books = [one for one in found if (one.kind, one.label) == (kind, label)]
            if books:
                name = (variant_of(label) or "as shipped") + (f", {kind} books" if len(kinds) > 1 else "")
                rows.append((name, str(len(books)), _share(books, "fired"), _share(books, "false")))
    return PageTable(("rule", "ordinary books", "fired", "falsely"), tuple(rows))


def _numbers(found: Sequence[Firing], kind: str) -> Iterator[tuple[str, float]]:
    """`KIND/SET/before/fired`, `/false` and `/books`, and the same of the month."""
    for label in dict.fromkeys(each.label for each in found if each.kind == kind):
        mine = [each for each in found if (each.kind, each.label) == (kind, label)]
        for name, is_calm in (("before", False), ("month", True)):
            group = [each for each in mine if each.is_calm == is_calm]
            yield f"{kind}/{label}/{name}/books", len(group)
            yield f"{kind}/{label}/{name}/fired", _count(group, "fired")
            yield f"{kind}/{label}/{name}/false", _count(group, "false")
