"""Selection of books and markets by the options of `ksctl backtest`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path

from msgspec import Struct

from killswitch.lab.bars import BarsError, read_market
from killswitch.lab.book import BacktestBook, BookError, demo_book, read_book
from killswitch.lab.campaign import CampaignPart, Source
from killswitch.lab.crash import crash_bars
from killswitch.lab.families import BookFamily, FamilyBook, all_splits, half_and_half, random_books
from killswitch.lab.price_matrix import PriceMatrix


class BacktestOptions(Struct, frozen=True):
    """Options of a backtest: the source of prices (`markets` or `crash`) and the books (`random` of each kind)."""

    markets: tuple[Path, ...]
    crash: int | None
    book: Path | None
    books: Path | None
    all_splits: int | None
    random: int
    gross: Decimal
    seed: int


class BacktestBooks(Struct, frozen=True):
    """Markets by name, the books in each, and messages about books that cannot be run.

    `intervals`: market → the length of its bars (microseconds), as far as they were read.
    """

    markets: dict[str, Source]
    parts: tuple[CampaignPart, ...]
    missing: tuple[str, ...]
    intervals: dict[str, int] = {}


def load_books(options: BacktestOptions) -> BacktestBooks:
    """Load all markets and books. Raises BarsError or BookError, which name the place of the problem."""
    sources = dict(_sources(options))
    file_books = _books_of_files(options)
    parts: list[CampaignPart] = []
    missing: list[str] = []
    intervals: dict[str, int] = {}
    for name, source in sources.items():
        prices = source()
        intervals[name] = round(prices.interval.total_seconds() * 1_000_000)
        family = _priced_books(prices, file_books) if file_books else _generated_books(prices, options)
        parts += [CampaignPart(name, member) for member in family.members]
        missing += [f"{name}: {problem}" for problem in family.missing]
    if not parts:
        raise BookError("\n".join(missing))
    return BacktestBooks(sources, tuple(parts), tuple(missing), intervals)


def panel_of(folder: Path) -> PriceMatrix:
    """Load the bars in `folder`."""
    return PriceMatrix(read_market(folder))


def generated_panel(seed: int) -> PriceMatrix:
    """Generate the crash of this seed."""
    return PriceMatrix(crash_bars(seed))


def market_folders(folder: Path) -> list[Path]:
    """Return `folder` if it contains bars, else its subfolders that do. BarsError if none does."""
    if _holds_bars(folder):
        return [folder]
    found = [inner for inner in sorted(folder.iterdir()) if inner.is_dir() and _holds_bars(inner)]
    if not found:
        raise BarsError(f"{folder}: holds no .parquet and no .csv file, and neither does any folder in it")
    return found


def _holds_bars(folder: Path) -> bool:
    return any(path.suffix in {".parquet", ".csv"} for path in folder.iterdir())


def _sources(options: BacktestOptions) -> Iterator[tuple[str, Source]]:
    if options.crash is not None:
        yield f"crash-{options.crash}", partial(generated_panel, options.crash)
        return
    folders: dict[str, Path] = {}
    for folder in (inner for path in options.markets for inner in market_folders(path)):
        other = folders.setdefault(folder.resolve().name, folder)
        if other.resolve() != folder.resolve():
            raise BarsError(f"{folder}: {other} has the same name, and results would be ambiguous; rename one")
    yield from ((name, partial(panel_of, folder)) for name, folder in folders.items())


def _books_of_files(options: BacktestOptions) -> Sequence[FamilyBook]:
    if options.book is not None:
        return [FamilyBook("given", read_book(options.book))]
    if options.books is None:
        return []
    files = sorted(path for path in options.books.iterdir() if path.suffix in {".yaml", ".yml"})
    if not files:
        raise BookError(f"{options.books}: holds no book (.yaml or .yml)")
    books = [read_book(file) for file in files]
    names: dict[str, Path] = {}
    for book, file in zip(books, files, strict=True):
        if names.setdefault(book.name, file) is not file:
            raise BookError(f"{file}: the book of {names[book.name]} is called {book.name} too; rename one")
    return [FamilyBook("given", book) for book in books]


def _priced_books(prices: PriceMatrix, books: Sequence[FamilyBook]) -> BookFamily:
    members, missing = [], []
    for member in books:
        try:
            prices.first(member.book.symbols)
        except BarsError as error:
            missing.append(f"book {member.book.name} cannot be held: {str(error).removeprefix(f'{prices.name}: ')}")
        else:
            members.append(member)
    return BookFamily(tuple(members), tuple(missing))


def _generated_books(prices: PriceMatrix, options: BacktestOptions) -> BookFamily:
    if options.all_splits is None and not options.random:
        return BookFamily((FamilyBook("given", _default_book(prices, options.gross)),), ())
    splits = BookFamily((), ())
    if options.all_splits is not None:
        splits = all_splits(prices.symbols, options.all_splits, options.gross)
    drawn = random_books(prices.symbols, options.random, seed=options.seed, gross=options.gross)
    unless_none = drawn.missing if options.random else ()
    return BookFamily((*splits.members, *drawn.members), (*splits.missing, *unless_none))


def _default_book(prices: PriceMatrix, gross: Decimal) -> BacktestBook:
    demo = demo_book()
    if prices.name.startswith("crash-") and demo.symbols == set(prices.symbols) and gross == 3:
        return demo
    return half_and_half(prices.symbols, gross)
