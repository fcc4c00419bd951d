"""The markets and the books of the page: folders of bars, in steps or as recorded, whole or an ordinary span."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
from msgspec import Struct

from killswitch.cli.lab.backtest_books import market_folders
from killswitch.lab.bars import BarTable, Series, read_market
from killswitch.lab.book import BacktestBook, BookAccount, BookPosition
from killswitch.lab.families import EQUITY, all_splits, random_books
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.render.formats import count_of
from tests.evidence.bridging import bridged

MINUTE = 60_000_000
STEP = MINUTE // 2
"""Half of the shortest confirmation of the shipped policies, which is a minute."""
FINE_ENOUGH = MINUTE
"""Bars that are not longer than the shortest confirmation are used as they were recorded."""
DAY = 24 * 60 * MINUTE
CALM = "calm-"
"""Folders whose name begins so hold an ordinary month, not a crash."""
CALM_SPANS = 8
"""The ordinary month is cut into so many spans: one book a month would be one bet."""
SPLITS_OF = 8
"""A market with so many symbols also gives four-long/four-short books."""
SPLITS = 4
"""So many of them for each book of another kind."""
GROSS = Decimal(3)
SIZE = Decimal("0.1")
"""Of the equity of the lab's families: of 100,000 the thinnest symbols take 20 minutes of their volume to be closed,
and the page would compare symbols, not sets."""
INVESTED = Decimal("0.9")
"""The share of its equity that a spot book holds in coins."""
KINDS = ("hedged", "directional", "concentrated", "split", "several", "spot")


class Span(Struct, frozen=True):
    """Bars of a folder: all of them, or those that open in [begins, ends) (microseconds).

    `step`: what they are walked in, None as recorded; `coarse`: first joined into bars of this length.
    """

    folder: Path
    name: str
    begins: int | None = None
    ends: int | None = None
    step: int | None = STEP
    seed: int = 0
    coarse: int | None = None

    @property
    def is_calm(self) -> bool:
        return self.folder.name.startswith(CALM)

    def table(self) -> BarTable:
        """Its bars; read, joined and walked again at each call."""
        table = read_market(self.folder)
        if self.coarse is not None:
            table = joined(table, self.coarse)
        if self.step is not None and interval_of(table) > max(FINE_ENOUGH, self.step):
            table = bridged(table, self.step, self.seed)
        if self.begins is not None and self.ends is not None:
            table = BarTable(table.name, [_between(one, self.begins, self.ends) for one in table.series])
        return table

    def bars(self) -> PriceMatrix:
        """Its bars, for backtests."""
        return PriceMatrix(self.table())


class EvidenceBook(Struct, frozen=True):
    """A book of a kind, in a span."""

    span: Span
    kind: str
    book: BacktestBook


def interval_of(table: BarTable) -> int:
    """The length of its bars, in microseconds."""
    return round(table.interval.total_seconds() * 1_000_000)


def _between(one: Series, begins: int, ends: int) -> Series:
    first, last = (int(np.searchsorted(np.asarray(one.opened), at)) for at in (begins, ends))
    opened, high, low, close, volume = (
        column[first:last] for column in (one.open, one.high, one.low, one.close, one.volume)
    )
    return Series(one.symbol, one.opened[first:last], opened, high, low, close, volume)


def joined(table: BarTable, interval: int) -> BarTable:
    """The same prices in bars of `interval`, as a venue that records coarser ones would have given them."""
    return BarTable(table.name, [_joined(one, interval) for one in table.series])


def _joined(one: Series, interval: int) -> Series:
    at = np.asarray(one.opened) // interval * interval
    first = np.flatnonzero(np.diff(at, prepend=at[0] - 1))
    last = [*(first[1:] - 1), len(at) - 1]
    opened, high, low, close, volume = (
        np.asarray(each) for each in (one.open, one.high, one.low, one.close, one.volume)
    )
    return Series(
        one.symbol, at[first].tolist(), opened[first].tolist(), np.maximum.reduceat(high, first).tolist(),
        np.minimum.reduceat(low, first).tolist(), close[last].tolist(), np.add.reduceat(volume, first).tolist(),
    )  # fmt: skip


def crash_folders(markets: Path) -> list[Path]:
    """The folders that hold a crash, oldest first."""
    return [folder for folder in market_folders(markets) if not folder.name.startswith(CALM)]


def whole_spans(markets: Path, *, seed: int) -> list[Span]:
    """Every crash folder whole, in steps; `seed` is that of the walk."""
    return [Span(folder, folder.name, seed=seed) for folder in crash_folders(markets)]


def ordinary_spans(markets: Path, *, seed: int) -> list[Span]:
    """What came before each crash, and the ordinary month in CALM_SPANS parts."""
    return [span for folder in market_folders(markets) for span in _ordinary(folder, seed)]


def _ordinary(folder: Path, seed: int) -> Iterator[Span]:
    table = read_market(folder)
    begins, ends = table.opened[0], table.opened[-1]
    if not folder.name.startswith(CALM):
        yield Span(folder, f"before {folder.name}", begins, crash_begin(table), seed=seed)
        return
    edges = [begins + (ends - begins) * part // CALM_SPANS // MINUTE * MINUTE for part in range(CALM_SPANS + 1)]
    for number, (first, last) in enumerate(pairwise(edges), start=1):
        yield Span(folder, f"{folder.name}, {number} of {CALM_SPANS}", first, last, seed=seed)


def crash_begin(table: BarTable) -> int:
    """When the largest fall within a day of the equally weighted market began: the peak before it, in microseconds."""
    closes = PriceMatrix(table).close
    level = np.nanmean(np.log(closes / closes[-1]), axis=1)
    at = np.asarray(table.opened)
    first = np.searchsorted(at, at - DAY)
    peaks = [int(begin) + int(np.argmax(level[begin : end + 1])) for end, begin in enumerate(first)]
    fallen = level - level[peaks]
    return int(at[peaks[int(np.argmin(fallen))]])


# -- books -------------------------------------------------------------------------------------------------------


def books_of(span: Span, kinds: Sequence[str], count: int, seed: int) -> tuple[list[EvidenceBook], list[str]]:
    """`count` seeded books of each kind, and sentences about those that the market's symbols do not allow."""
    symbols = read_market(span.folder).symbols
    drawn = random_books(symbols, count, seed=seed, gross=GROSS)
    found = [EvidenceBook(span, each.kind, each.book) for each in drawn.members if each.kind in kinds]
    if "split" in kinds and len(symbols) == SPLITS_OF:
        members = all_splits(symbols, SPLITS_OF // 2, GROSS).members
        drawn_splits = Random(f"{seed}/split").sample(members, min(len(members), SPLITS * count))
        found += [EvidenceBook(span, "split", each.book) for each in drawn_splits]
    if "several" in kinds:
        hedged = [each.book for each in drawn.members if each.kind == "hedged"]
        found += [EvidenceBook(span, "several", _over_two(book)) for book in hedged]
    if "spot" in kinds:
        found += [EvidenceBook(span, "spot", _spot(symbols, Random(f"{seed}/spot/{n}"), n)) for n in range(count)]
    found = [EvidenceBook(each.span, each.kind, _sized(each.book)) for each in found]
    missing = [each for each in drawn.missing if each.split()[1] in kinds]
    return found, [f"{span.name}: {each}" for each in missing]


def _sized(book: BacktestBook) -> BacktestBook:
    """SIZE times the book, whose prices and shares stay."""
    accounts = tuple(
        account.model_copy(update={
            "equity": account.equity * SIZE,
            "positions": tuple(
                each.model_copy(update={"notional": each.notional * SIZE}) for each in account.positions
            ),
        })
        for account in book.accounts
    )  # fmt: skip
    return book.model_copy(update={"accounts": accounts})


def _over_two(book: BacktestBook) -> BacktestBook:
    """The same positions over two exchanges: the longs at one, the shorts at the other, half of the equity at each."""
    (whole,) = book.accounts
    accounts = tuple(
        BookAccount(
            account=f"{side}s", venue=f"{side}-venue", market="swap", currency="USDT", equity=EQUITY / 2,
            positions=tuple(each for each in whole.positions if each.side == side),
        )
        for side in ("long", "short")
    )  # fmt: skip
    return BacktestBook(name=f"{book.name}, over two", accounts=accounts)


def _spot(symbols: Sequence[str], rng: Random, number: int) -> BacktestBook:
    """Coins with lognormal weights, paid in full."""
    weights = [math.exp(rng.gauss(0.0, 0.7)) for _ in symbols]
    invested = EQUITY * INVESTED
    parts = [(invested * Decimal(repr(each / sum(weights)))).quantize(Decimal("0.01")) for each in weights]
    held = tuple(BookPosition(symbol=s, side="long", notional=n) for s, n in zip(symbols, parts, strict=True))
    account = BookAccount(account="main", market="spot", currency="USDT", equity=EQUITY, positions=held)
    return BacktestBook(name=f"spot {number + 1:02d}", accounts=(account,))


def bars_text(folder: Path) -> str:
    """How the bars of a folder are used: `5m → 30s`, or `1m` as they were recorded."""
    interval = interval_of(read_market(folder))
    minutes = f"{interval // MINUTE}m"
    return f"{minutes} → {STEP // 1_000_000}s" if interval > FINE_ENOUGH else minutes


def days_text(span: Span) -> str:
    """Its length in days."""
    assert span.begins is not None and span.ends is not None
    return f"{(span.ends - span.begins) / DAY:.1f}"


def missing_text(missing: Sequence[str]) -> str:
    """A sentence about the books that there are not."""
    if not missing:
        return ""
    return f"Not there ({count_of(len(missing), 'kind')} in a market): " + "; ".join(missing) + "."
