"""Families of books over a market's symbols: every split into longs and shorts, and seeded random ones of three kinds.

Each book is one swap account in USDT with 100,000 of equity and leverage 5; its gross notional is `gross` × equity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import combinations
from random import Random
from typing import Literal

from msgspec import Struct

from killswitch.lab.book import BacktestBook, BookAccount, BookPosition
from killswitch.market.rules import base_asset
from killswitch.model.snapshot import Side

EQUITY = Decimal(100_000)
LEVERAGE = Decimal(5)
GROSS = Decimal(3)

Kind = Literal["given", "split", "hedged", "directional", "concentrated"]
_SPREAD = 0.7
"""The standard deviation of a weight's logarithm: the largest of eight is about eight times the smallest."""
_OTHER_SIDE = Decimal("0.2")
_CONCENTRATED = (0.6, 0.8)


class FamilyBook(Struct, frozen=True):
    """A book and its kind."""

    kind: Kind
    book: BacktestBook


class BookFamily(Struct, frozen=True):
    """The books that a market's symbols allow, and sentences about those that they do not."""

    members: tuple[FamilyBook, ...]
    missing: tuple[str, ...]


def half_and_half(symbols: Sequence[str], gross: Decimal = GROSS) -> BacktestBook:
    """Hold the first half of the symbols long and the others short, in equal parts; a single symbol is long."""
    longs = (len(symbols) + 1) // 2
    each = gross * EQUITY / len(symbols)
    sides: list[Side] = ["long" if number < longs else "short" for number in range(len(symbols))]
    return _book("half long, half short", {s: (side, each) for s, side in zip(symbols, sides, strict=True)})


def all_splits(symbols: Sequence[str], side: int, gross: Decimal = GROSS) -> BookFamily:
    """Return every book with `side` of the symbols long and `side` others short, all of the same notional.

    Of n symbols that is C(n, side) × C(n − side, side) books: 70 for four of eight.
    """
    if len(symbols) < 2 * side:
        need = f"{side} long and {side} short need {2 * side} symbols"
        return BookFamily((), (f"no splits: {need}, and there {_are(len(symbols))}",))
    each = gross * EQUITY / (2 * side)
    labels = _labels(symbols)
    members = [FamilyBook("split", _split(longs, shorts, each, labels)) for longs, shorts in _splits(symbols, side)]
    return BookFamily(tuple(members), ())


def random_books(symbols: Sequence[str], count: int, *, seed: int, gross: Decimal = GROSS) -> BookFamily:
    """Return `count` books of each of three kinds; weights are lognormal before they are scaled.

    - *hedged*: as much long as short, to the last unit of money; the long symbols are random.
    - *directional*: on one random side; every other book holds a fifth of its gross on the other side (with two symbols
      or more).
    - *concentrated*: 60 to 80% of the gross in one symbol; the side of each position is random.

    Equal symbols, seed and gross give equal books; a book does not depend on `count`.
    """
    members: list[FamilyBook] = []
    missing = []
    for kind, (least, draw) in _RANDOM_KINDS.items():
        if len(symbols) < least:
            missing.append(f"no {kind} books: they need {least} symbols, and there {_are(len(symbols))}")
            continue
        for number in range(count):
            rng = Random(f"{seed}/{kind}/{number}")
            drawn = draw(symbols, rng, number, gross * EQUITY)
            members.append(FamilyBook(kind, _book(f"{kind} {number + 1:02d}", drawn)))
    return BookFamily(tuple(members), tuple(missing))


Held = dict[str, tuple[Side, Decimal]]
"""Symbol → side and notional."""


def _hedged(symbols: Sequence[str], rng: Random, _number: int, gross: Decimal) -> Held:
    shuffled = rng.sample(symbols, len(symbols))
    longs = rng.randint(1, len(symbols) - 1)
    weights = _weights(shuffled, rng)
    sides: tuple[tuple[Side, list[str]], ...] = (("long", shuffled[:longs]), ("short", shuffled[longs:]))
    return _in_order(symbols, {s: (side, n) for side, ones in sides for s, n in _shares(ones, weights, gross / 2)})


def _directional(symbols: Sequence[str], rng: Random, number: int, gross: Decimal) -> Held:
    sides: tuple[Side, Side] = ("long", "short") if rng.random() < 0.5 else ("short", "long")
    shuffled = rng.sample(symbols, len(symbols))
    weights = _weights(shuffled, rng)
    if number % 2 == 0 or len(symbols) == 1:
        return _in_order(symbols, {s: (sides[0], n) for s, n in _shares(shuffled, weights, gross)})
    against = max(1, len(shuffled) // 4)
    held = {s: (sides[1], n) for s, n in _shares(shuffled[:against], weights, gross * _OTHER_SIDE)}
    most = gross * (1 - _OTHER_SIDE)
    return _in_order(symbols, held | {s: (sides[0], n) for s, n in _shares(shuffled[against:], weights, most)})


def _concentrated(symbols: Sequence[str], rng: Random, _number: int, gross: Decimal) -> Held:
    shuffled = rng.sample(symbols, len(symbols))
    share = Decimal(round(rng.uniform(*_CONCENTRATED), 4)).quantize(Decimal("0.0001"))
    notionals = {shuffled[0]: gross * share}
    notionals |= dict(_shares(shuffled[1:], _weights(shuffled, rng), gross - gross * share))
    sides: dict[str, Side] = {s: "long" if rng.random() < 0.5 else "short" for s in shuffled}
    return _in_order(symbols, {s: (sides[s], n) for s, n in notionals.items()})


_RANDOM_KINDS: dict[Kind, tuple[int, Callable[[Sequence[str], Random, int, Decimal], Held]]] = {
    "hedged": (2, _hedged),
    "directional": (1, _directional),
    "concentrated": (2, _concentrated),
}
"""The least number of symbols of a kind of book, and the function that draws one."""


def _weights(symbols: Sequence[str], rng: Random) -> dict[str, float]:
    return {symbol: math.exp(rng.gauss(0.0, _SPREAD)) for symbol in symbols}


def _shares(symbols: Sequence[str], weights: Mapping[str, float], total: Decimal) -> Iterator[tuple[str, Decimal]]:
    """Split `total` by weight, to the cent; the last symbol gets the rounding difference, so that the sum is exact."""
    total_weight = sum(weights[symbol] for symbol in symbols)
    left = total
    for symbol in symbols[:-1]:
        part = (total * Decimal(repr(weights[symbol] / total_weight))).quantize(Decimal("0.01"))
        left -= part
        yield symbol, part
    yield symbols[-1], left


def _in_order(symbols: Sequence[str], held: Held) -> Held:
    return {symbol: held[symbol] for symbol in symbols if symbol in held}


def _splits(symbols: Sequence[str], side: int) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for longs in combinations(symbols, side):
        for shorts in combinations([symbol for symbol in symbols if symbol not in longs], side):
            yield longs, shorts


def _split(longs: Sequence[str], shorts: Sequence[str], each: Decimal, labels: Mapping[str, str]) -> BacktestBook:
    sides: dict[str, Side] = {**dict.fromkeys(longs, "long"), **dict.fromkeys(shorts, "short")}
    name = f"long {' '.join(labels[s] for s in longs)}, short {' '.join(labels[s] for s in shorts)}"
    return _book(name, {symbol: (side, each) for symbol, side in sides.items()})


def _labels(symbols: Sequence[str]) -> dict[str, str]:
    """Return the base asset of each symbol, or its whole name where two are equal."""
    assets = [base_asset(symbol) for symbol in symbols]
    return {s: asset if assets.count(asset) == 1 else s for s, asset in zip(symbols, assets, strict=True)}


def _book(name: str, held: Held) -> BacktestBook:
    positions = tuple(
        BookPosition(symbol=symbol, side=side, notional=notional, leverage=LEVERAGE)
        for symbol, (side, notional) in held.items()
    )
    account = BookAccount(account="main", market="swap", currency="USDT", equity=EQUITY, positions=positions)
    return BacktestBook(name=name, accounts=(account,))


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"
