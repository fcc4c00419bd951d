"""Families of splits and redenominations: quantity and price change inversely, and nothing is lost by it.

Importing this module completes `FAMILIES`.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Final

from tests.worlds.bookings import split_contracts, split_holding
from tests.worlds.families import CALM, DAY, ETH, FIRST, LAGS, event_time, family, view
from tests.worlds.judge import Setup
from tests.worlds.world import NEVER, Book, Move, Side, World, walk

COIN_RATIOS: Final = (Fraction(10), Fraction(1, 10), Fraction(100), Fraction(1000), Fraction(1, 1000))
SHARE_RATIOS: Final = (
    Fraction(2), Fraction(3), Fraction(4), Fraction(10), Fraction(20), Fraction(1, 5), Fraction(1, 10), Fraction(1, 20),
    Fraction(3, 2), Fraction(5, 2), Fraction(5, 4), Fraction(4, 3),
)  # fmt: skip
BEFORE = 2e-10
"""A split is booked just before the step of the price, which has happened by then for whoever looks."""
STOCK, OTHER = "TSLA", "MSFT"


def between_polls(rng: Random) -> float:
    """A step of the grid that no tick straddles: positions and prices are of one side of it."""
    return int(event_time(rng)) + 0.75


def jump(t: float, ratio: Fraction, change: float) -> Move:
    """The price after a split, which really changes by `change` in the same instant."""
    return (t, t, (1 + change) / float(ratio) - 1)


def split_book(rng: Random, loss: float, *, real: tuple[float, float]) -> tuple[World, Book, float]:
    """A futures account whose position is split, and loses `loss` of it by a price change within `real` at once."""
    world, t, ratio = World(DAY), between_polls(rng), rng.choice(COIN_RATIOS)
    side: Side = "long" if rng.random() < 0.5 else "short"
    change = rng.uniform(*real)
    gross = min(loss / change, 4.0) if change else rng.uniform(1.0, 3.0)
    equity = float(rng.choice([20_000, 100_000, 1_000_000]))
    book = Book(world, "main", {"USDT": equity})
    fall = -change if side == "long" else change
    book.list("BNB/USDT:USDT", walk(rng, 600.0, DAY, CALM / 2, [jump(t, ratio, fall)], digits=8), step=Decimal("0.001"))
    book.open("BNB/USDT:USDT", side, equity * gross)
    book.list(ETH, walk(rng, FIRST[ETH], DAY, CALM))
    book.open(ETH, "long", equity * rng.uniform(0.1, 0.4))
    world.at(
        t - BEFORE, lambda now: split_contracts(book, now, "BNB/USDT:USDT", ratio),
        f"every contract becomes {ratio}, and the price changes by {fall:+.1%} besides",
    )  # fmt: skip
    return world, book, t


@family("contracts split")
def contracts_split(rng: Random) -> Setup:
    """10:1, 1:10, 1:1000 of a long or a short position, with a price change that costs up to 6%."""
    world, book, t = split_book(rng, rng.uniform(0.0, 0.06), real=(0.0, 0.0) if rng.random() < 0.5 else (0.03, 0.2))
    if rng.random() < 0.3:
        amount, lag = -book.equity(0.0) * rng.uniform(0.05, 0.3), rng.choice(LAGS)
        world.at(
            t + rng.choice([-1, 1]) * rng.uniform(2.0, 20.0), lambda now: book.flow(now, "withdrawal", amount, lag=lag)
        )
    return Setup(world, {"main": view(rng)})


@family("contracts split in a crash", "0-2 s")
def contracts_split_crash(rng: Random) -> Setup:
    """The same, and the price change besides, of up to 25%, costs 13-35%."""
    world, _, _ = split_book(rng, rng.uniform(0.14, 0.35), real=(0.09, 0.25))
    return Setup(world, {"main": view(rng)})


@family("contracts split while no runner lives")
def contracts_split_gap(rng: Random) -> Setup:
    """In a restart of up to 20 s."""
    world, _, t = split_book(rng, rng.uniform(0.0, 0.05), real=(0.0, 0.0))
    dies = t - rng.uniform(0.5, 3.0)
    return Setup(world, {"main": view(rng)}, restarts=[(dies, t + rng.uniform(1.0, 20.0))])


def holder(
    rng: Random,
    ratio: Fraction,
    t: float,
    change: float,
    *,
    shares: bool,
    later: Move | None = None,
    held: float,
    short: bool = True,
) -> tuple[World, Book, str]:
    """Who holds coins, or shares long or short, of which each becomes `ratio`; `held`: the share of equity in them."""
    world, equity = World(DAY), float(rng.choice([30_000, 200_000]))
    asset, cash = (STOCK, "USD") if shares else ("BNB", "USDT")
    sign = -1 if shares and short and rng.random() < 0.3 else 1
    moves = [jump(t, ratio, sign * change), *([] if later is None else [(later[0], later[1], sign * later[2])])]
    path = world.prices[asset] = walk(rng, 600.0, DAY, CALM / 2, moves, digits=6)
    count = Decimal(str(equity * held / 600.0))
    count = sign * (count.to_integral_value() if shares else round(count, 3))
    book = Book(
        world, "main", {cash: Decimal(equity) - count * 600, asset: count},
        market="equity" if shares else "spot", currency=cash,
    )  # fmt: skip
    book.list(asset if shares else f"{asset}/USDT", path, step=Decimal("0.001"))
    world.at(
        t - BEFORE, lambda now: split_holding(book, now, asset, ratio, whole=shares),
        f"each {asset} becomes {ratio}, and the price changes by {sign * change:+.1%} besides",
    )  # fmt: skip
    return world, book, asset


@family("held coins redenominated")
def coins_split(rng: Random) -> Setup:
    """10:1, 1:10, 1:1000 of a coin in a spot account, with a price change that costs up to 6%."""
    held, t = rng.uniform(0.3, 0.95), between_polls(rng)
    world, _, _ = holder(rng, rng.choice(COIN_RATIOS), t, -rng.uniform(0.0, 0.06), shares=False, held=held)
    return Setup(world, {"main": view(rng, form=rng.choice(["full", "amounts"]))})


@family("held coins redenominated in a crash", "0-2 s")
def coins_split_crash(rng: Random) -> Setup:
    """The same, and the price falls by 17-25% besides."""
    held, t = rng.uniform(0.75, 0.95), between_polls(rng)
    world, _, _ = holder(rng, rng.choice(COIN_RATIOS), t, -rng.uniform(0.17, 0.25), shares=False, held=held)
    return Setup(world, {"main": view(rng, form=rng.choice(["full", "amounts"]))})


@family("shares split")
def shares_split(rng: Random) -> Setup:
    """2:1, 3:2, 1:10, ... of shares held or owed, without a row; what is no whole share is paid in cash."""
    held, t = rng.uniform(0.3, 0.95), between_polls(rng)
    world, _, _ = holder(rng, rng.choice(SHARE_RATIOS), t, -rng.uniform(0.0, 0.06), shares=True, held=held)
    return Setup(world, {"main": view(rng)})


@family("shares split, then a crash", "0-2 s")
def shares_split_crash(rng: Random) -> Setup:
    """Seconds or a minute after it the price falls by 20-35%."""
    held, t = rng.uniform(0.75, 0.95), between_polls(rng)
    later = t + rng.uniform(3.0, 60.0)
    world, _, _ = holder(
        rng, rng.choice(SHARE_RATIOS), t, -rng.uniform(0.0, 0.03), shares=True, held=held,
        later=(later, later + rng.uniform(0.0, 8.0), -rng.uniform(0.2, 0.35)),
    )  # fmt: skip
    return Setup(world, {"main": view(rng)})


@family("shares split in a crash", "a choice")
def shares_split_at_once(rng: Random) -> Setup:
    """The price falls by 17-25% in the instant of the split: without a row it is left open."""
    held, t = rng.uniform(0.75, 0.95), between_polls(rng)
    world, _, _ = holder(rng, rng.choice(SHARE_RATIOS), t, -rng.uniform(0.17, 0.25), shares=True, held=held)
    return Setup(world, {"main": view(rng)}, allowed=NEVER)


# What looks as a split


@family("a fifth lost, and as much refilled in coins", "0-2 s")
def refilled(rng: Random) -> Setup:
    """The price falls by 20-33%, and coins of as much come in the same tick: not a round ratio, so a deposit."""
    held, t, fall = rng.uniform(0.75, 0.95), between_polls(rng), rng.choice([0.2, 0.25, 0.3, 1 / 3])
    world, book, asset = holder(rng, Fraction(1), t, -fall, shares=False, held=held)
    lag = rng.choice([15.0, 61.0, NEVER])
    world.at(
        t + rng.uniform(0.01, 0.2),
        lambda now: book.flow(
            now, "deposit", book.wallets[asset] * Decimal(str(fall / (1 - fall))), asset=asset, lag=lag
        ),
        f"as much comes, row {lag:g} s after it",
    )
    return Setup(world, {"main": view(rng, form=rng.choice(["full", "amounts"]))})


@family("nine times as many come, then a fall of 90%", "0-2 s")
def comes_and_falls(rng: Random) -> Setup:
    """Coins are deposited, and a tick later their price falls by 90%; a split that is shown in two steps looks so."""
    held, t = rng.uniform(0.3, 0.95), between_polls(rng)
    world, book, asset = holder(rng, Fraction(1), t, -0.9, shares=False, held=held)
    lag = rng.choice([15.0, 61.0, NEVER])
    world.at(
        t - 1.0, lambda now: book.flow(now, "deposit", 9 * book.wallets[asset], asset=asset, lag=lag),
        f"nine times as many come, row {lag:g} s after it",
    )  # fmt: skip
    return Setup(world, {"main": view(rng, form=rng.choice(["full", "amounts"]))})


@family("half lost, and as many shares come")
def shares_come(rng: Random) -> Setup:
    """A stock loses half, and as many shares are transferred in: looks as a split until the row comes."""
    held, t = rng.uniform(0.5, 0.95), between_polls(rng)
    world, book, asset = holder(rng, Fraction(1), t, -0.5, shares=True, held=held, short=False)
    lag = rng.choice([0.5, 2.0, 15.0])
    world.at(
        t + rng.uniform(0.01, 0.2), lambda now: book.flow(now, "transfer", book.wallets[asset], asset=asset, lag=lag),
        f"as many come, row {lag:g} s after it",
    )  # fmt: skip
    return Setup(world, {"main": view(rng)}, allowed=lag + 6.0)
