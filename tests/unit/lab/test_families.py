"""Families of books: the number of splits is combinatorial, and random books have the properties of their kind."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from killswitch.lab.book import BacktestBook
from killswitch.lab.families import FamilyBook, all_splits, half_and_half, random_books

EIGHT = ("ADA_USDT", "BCH_USDT", "BTC_USDT", "DOGE_USDT", "DOT_USDT", "ETH_USDT", "LINK_USDT", "XRP_USDT")
GROSS = Decimal(300_000)


def notional(book: BacktestBook, side: str | None = None) -> Decimal:
    (account,) = book.accounts
    return sum((p.notional for p in account.positions if side in {None, p.side}), Decimal(0))


def books_of_kind(kind: str, symbols: tuple[str, ...] = EIGHT, count: int = 50) -> list[BacktestBook]:
    return [member.book for member in random_books(symbols, count, seed=7).members if member.kind == kind]


@pytest.mark.parametrize(("symbols", "side"), [(8, 4), (8, 3), (8, 1), (6, 3), (3, 1), (2, 1)])
def test_all_splits_are_counted_by_combinatorics(symbols: int, side: int) -> None:
    """C(n, k) choices of longs times C(n − k, k) of shorts, no two alike; 70 for four of eight."""
    books = [member.book for member in all_splits(EIGHT[:symbols], side).members]
    assert len(books) == math.comb(symbols, side) * math.comb(symbols - side, side)
    assert len({tuple(sorted((p.symbol, p.side) for p in book.accounts[0].positions)) for book in books}) == len(books)
    assert len({book.name for book in books}) == len(books)


def test_a_split_holds_equal_parts_of_three_times_its_equity() -> None:
    """Four long and four short at 37,500 each, on 100,000 at leverage 5."""
    for member in all_splits(EIGHT, 4).members:
        (account,) = member.book.accounts
        assert {p.notional for p in account.positions} == {Decimal(37_500)}
        assert {p.leverage for p in account.positions} == {Decimal(5)}
        assert [p.side for p in account.positions].count("long") == 4
        assert account.equity == 100_000


def test_too_few_symbols_are_reported() -> None:
    """No book is invented, and the omission is reported."""
    family = all_splits(EIGHT[:3], 2)
    assert family.members == ()
    assert family.missing == ("no splits: 2 long and 2 short need 4 symbols, and there are 3",)


def test_one_symbol_gives_directional_books_only() -> None:
    """All on one side; the kinds that need two symbols are named."""
    family = random_books(EIGHT[:1], 4, seed=1)
    assert {member.kind for member in family.members} == {"directional"}
    assert len(family.members) == 4
    assert family.missing == (
        "no hedged books: they need 2 symbols, and there is 1",
        "no concentrated books: they need 2 symbols, and there is 1",
    )


@pytest.mark.parametrize("symbols", [2, 3, 8])
@pytest.mark.parametrize("kind", ["hedged", "directional", "concentrated"])
def test_weights_sum_to_the_gross(kind: str, symbols: int) -> None:
    """To the cent, and every notional is above zero."""
    books = books_of_kind(kind, EIGHT[:symbols])
    assert len(books) == 50
    assert {notional(book) for book in books} == {GROSS}


@pytest.mark.parametrize("symbols", [2, 3, 8])
def test_hedged_books_are_dollar_neutral(symbols: int) -> None:
    """Long equals short exactly."""
    assert {notional(book, "long") - notional(book, "short") for book in books_of_kind("hedged", EIGHT[:symbols])} == {
        0
    }


def test_directional_books_are_one_sided_or_80_20() -> None:
    """Half of them all on one side, half 80/20; both sides occur."""
    shares = [notional(book, "long") / GROSS for book in books_of_kind("directional")]
    assert set(shares[0::2]) == {Decimal(0), Decimal(1)}
    assert set(shares[1::2]) == {Decimal("0.2"), Decimal("0.8")}


def test_concentrated_books_have_most_in_one_symbol() -> None:
    """Between 60 and 80% of the gross."""
    largest = [max(p.notional for p in book.accounts[0].positions) / GROSS for book in books_of_kind("concentrated")]
    assert Decimal("0.6") <= min(largest) < Decimal("0.65")
    assert Decimal("0.75") < max(largest) <= Decimal("0.8")


def test_the_same_seed_gives_the_same_books() -> None:
    """The number of books does not matter; another seed gives others."""

    def some(count: int, seed: int) -> tuple[FamilyBook, ...]:
        return tuple(m for m in random_books(EIGHT, count, seed=seed).members if int(m.book.name[-2:]) <= 3)

    assert some(3, 7) == some(10, 7)
    assert some(3, 7) != some(3, 8)


def test_without_a_book_half_of_the_symbols_are_long() -> None:
    """Two of three symbols; a single one is held long."""
    assert [p.side for p in half_and_half(EIGHT[:3]).accounts[0].positions] == ["long", "long", "short"]
    assert [p.side for p in half_and_half(EIGHT[:1]).accounts[0].positions] == ["long"]
    assert notional(half_and_half(EIGHT[:3])).quantize(Decimal("0.01")) == GROSS
