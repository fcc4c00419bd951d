"""Settlement: unrealised profit becomes wallet, the entry price becomes the mark, and equity stands still.

`with_settlements` throws settlements into any world. They change no truth, so that they may change no verdict; the
worlds in which they do are in `EXCEPTIONS`, each with its reason. The families are worlds of settlements of their own.

Importing this module completes `FAMILIES`."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from tests.worlds.bookings import carry, settle_profits
from tests.worlds.families import LAGS, Desk, event_time, family, loss_fraction, moving, view
from tests.worlds.futures_book import Futures
from tests.worlds.judge import Setup, seeded
from tests.worlds.world import NEVER, Book

TRADED = "settled in the same interval as a trade whose fill is late"
OLDER = "an older answer about equity next to newer entry prices"
BLIND: Final = "settled while positions or entry prices are unknown, next to money that moves"
TWICE: Final = "settled twice in one interval with a trade and a withdrawal, and only one settlement has a row"
EXCEPTIONS: Final[Mapping[tuple[str, int], str]] = {
    ("noisy equity, silent ledger", 3): "equity and positions are out of step by noise, which a settlement looks like",
    ("attack: old answers around a transfer", 12): OLDER,
    ("attack: old answers around a transfer", 36): OLDER,
    ("attack: money leaves while the venue is down", 45): TWICE,
    ("attack: money leaves while positions are unknown", 25): BLIND,
    ("hedge mode: a leg closed and swept", 52): TRADED,
    ("positions late: close and sweep", 14): "settled before the positions show the trade, and swept",
    ("everything leaves while no runner lives", 20): BLIND,
    ("positions unreadable, money moves", 1): BLIND,
    ("positions unreadable, money moves", 21): BLIND,
}
"""(family, seed) → why a settlement may turn this world wrong: one of the reasons above, or a sentence of its own."""
ROWS: Final = (*LAGS, NEVER, NEVER)
"""Lags of a settlement's row. Many venues book none."""


def with_settlements(setup: Setup, family_name: str, seed: int, *, settled: bool = True) -> Setup:
    """The same world, whose positions carry profit or loss from before, and settle it one to three times.

    Some settlements pay only some positions; a quarter fall within 1.5 s of what else happens. With `settled` False
    the positions only carry the profit: that is the world to compare with.
    """
    rng = seeded(f"settlements in {family_name}", seed)
    happens = [t for t in setup.world.scheduled() if 5.0 < t < setup.world.seconds - 5.0]
    for book in setup.world.books.values():
        carry(book, rng.choice([-1.0, 1.0]) * rng.uniform(0.03, 0.25))
        for _ in range(rng.randint(1, 3)):
            t = rng.uniform(8.0, setup.world.seconds - 8.0)
            if happens and rng.random() < 0.25:
                t = max(rng.choice(happens) + rng.uniform(-1.5, 1.5), 3.0)
            lag, rows = rng.choice(ROWS), rng.choice(["one", "each"])
            partial = Random(rng.random()) if rng.random() < 0.3 else None

            def act(
                now: float, book: Book = book, lag: float = lag, rows: str = rows, partial: Random | None = partial
            ) -> None:
                only = None if partial is None else [key for key in book.holdings if partial.random() < 0.5]
                settle_profits(book, now, lag=lag, rows=rows, only=only)  # type: ignore[arg-type]  # drawn above

            if settled:
                text = f"settlement of {book.name}{' in part' if partial else ''}, row {lag:g} s after it"
                setup.world.at(t, act, text)
    return setup


def is_settled(setup: Setup) -> bool:
    """Whether any account of the world holds what can be settled."""
    return any(book.holdings for book in setup.world.books.values())


# A profit that is settled


def drift(rng: Random) -> float:
    """A harmless loss, as a share of the first equity."""
    return -rng.uniform(0.0, 0.035)


@family("settled profit")
def profit(rng: Random) -> Setup:
    """10-20% of profit, earned before the eyes of the reader or before it came, become wallet; up to 3.5% is lost."""
    t, gain = event_time(rng), rng.uniform(0.1, 0.2)
    seen = rng.random() < 0.5
    gains = [(5.0, 12.0, gain if seen else 0.0), (t + rng.uniform(3.0, 60.0), rng.uniform(0.0, 20.0), drift(rng))]
    book = Futures(rng, gains, carried=0.0 if seen else gain)
    book.settle(t, rng.choice(ROWS))
    return book.setup(view(rng, entries=rng.random() < 0.8))


@family("settled profit, then a crash", "0-2 s")
def profit_crash(rng: Random) -> Setup:
    """What is lost after the settlement is lost."""
    t, gain = event_time(rng), rng.uniform(0.1, 0.2)
    book = Futures(
        rng, [(t + rng.uniform(1.5, 40.0), rng.uniform(0.0, 8.0), -loss_fraction(rng))], carried=gain
    )  # fmt: skip
    book.settle(t, rng.choice(ROWS))
    return book.setup()


@family("settled loss, then the rest of a fall", "0-2 s")
def loss_then_fall(rng: Random) -> Setup:
    """4-5.5% is lost and settled; with what is lost after it that comes to 11.2-12.5% of the start."""
    first, total, t = rng.uniform(0.04, 0.055), rng.uniform(0.112, 0.125), event_time(rng)
    later = t + rng.uniform(2.0, 60.0)
    book = Futures(rng, [(6.0, rng.uniform(0.0, 10.0), -first), (later, rng.uniform(0.0, 8.0), first - total)])
    book.settle(t, rng.choice(ROWS))
    return book.setup(view(rng, entries=rng.random() < 0.8))


@family("settled loss")
def loss_settled(rng: Random) -> Setup:
    """4-7% in all, a part of it before and a part of it after its settlement, and as much carried from before."""
    total, t = rng.uniform(0.04, 0.07), event_time(rng)
    part = rng.uniform(0.2, 1.0) * total
    book = Futures(rng, [(6.0, 8.0, -part), (t + 10.0, 5.0, part - total)], carried=-rng.uniform(0.0, 0.2))
    book.settle(t, rng.choice(ROWS))
    return book.setup(view(rng, entries=rng.random() < 0.8))


# With money that moves


def settled_with_money(rng: Random, *, entries: bool) -> Setup:
    """A settlement, and within a fraction of a second money leaves: as much as was settled, or another amount."""
    t, gain = event_time(rng), rng.choice([-1, 1, 1]) * rng.uniform(0.06, 0.2)
    book = Futures(rng, [(t + 20.0, 10.0, drift(rng))], carried=gain)
    book.settle(t, rng.choice(ROWS))
    share = abs(gain) if rng.random() < 0.5 else rng.uniform(0.05, 0.4)
    book.move(t + rng.uniform(-0.3, 0.3), -share, rng.choice(LAGS))
    return book.setup(view(rng, entries=entries))


@family("settled and withdrawn at once")
def settled_withdrawn(rng: Random) -> Setup:
    """Both in one tick; the entry prices say how much was settled."""
    return settled_with_money(rng, entries=True)


@family("settled and withdrawn at once, no entry prices", "a choice", false_allowed=1.0)
def settled_withdrawn_blind(rng: Random) -> Setup:
    """The same without entry prices: looks as a loss that the marks lag does, and errs on closing."""
    return settled_with_money(rng, entries=False)


@family("settled and deposited at once")
def settled_deposited(rng: Random) -> Setup:
    """A settlement of either sign, and a deposit in the same tick; a harmless loss before or after it."""
    t, gain = event_time(rng), rng.choice([-1, 1]) * rng.uniform(0.06, 0.2)
    book = Futures(rng, [(t + rng.choice([-15.0, 20.0]), 8.0, drift(rng))], carried=gain)
    book.settle(t, rng.choice(ROWS))
    share = abs(gain) if rng.random() < 0.5 else rng.uniform(0.05, 0.6)
    book.move(t + rng.uniform(-0.3, 0.3), share, rng.choice(LAGS))
    return book.setup()


@family("settled loss that a deposit refills", "0-2 s")
def settled_refilled(rng: Random) -> Setup:
    """13-20% is lost, settled and refilled in one tick: the wallet stands still, and the equity too."""
    t, loss = round(event_time(rng) * 4) / 4, rng.uniform(0.13, 0.2)
    book = Futures(rng, [(t, 0.0, -loss)])
    book.settle(t + 0.05, rng.choice(ROWS))
    book.move(t + rng.uniform(0.06, 0.3), loss, rng.choice([15.0, 61.0, NEVER]))
    return book.setup()


@family("settled loss, then as much leaves")
def swallowed(rng: Random) -> Setup:
    """5-7% is lost and settled with its row; within a minute as much is withdrawn, and its row is late."""
    t, loss = event_time(rng), rng.uniform(0.05, 0.07)
    book = Futures(rng, [(6.0, 8.0, -loss)])
    book.settle(t, rng.choice([0.5, 2.0]))
    book.move(t + rng.uniform(6.0, 50.0), -loss, rng.choice([15.0, 61.0, NEVER]))
    return book.setup()


# With prices, restarts, late positions


@family("settled in the tick of a fall", "0-2 s")
def settled_in_crash(rng: Random) -> Setup:
    """The price gaps by what costs 13-35% in the tick in which profit or loss is settled."""
    t = round(event_time(rng) * 4) / 4
    book = Futures(
        rng, [(t, rng.choice([0.0, 3.0]), -loss_fraction(rng))], carried=rng.choice([-1, 1]) * rng.uniform(0.03, 0.2)
    )
    book.settle(t + rng.uniform(-0.5, 0.5), rng.choice(ROWS))
    return book.setup()


@family("settled in the tick of a small fall")
def settled_in_fall(rng: Random) -> Setup:
    """The same with 3-7%."""
    t = round(event_time(rng) * 4) / 4
    book = Futures(rng, [(t, 0.0, -rng.uniform(0.03, 0.07))], carried=rng.choice([-1, 1]) * rng.uniform(0.05, 0.2))
    book.settle(t + rng.uniform(-0.5, 0.5), rng.choice(ROWS))
    return book.setup()


def settled_often(rng: Random, losses: list[float]) -> Futures:
    """A profit of 10-15% is carried, losses follow one another, and a settlement follows each of them."""
    t, gains, times = 12.0, [], []
    for loss in losses:
        gains.append((t, rng.uniform(0.0, 6.0), -loss))
        times.append(t + rng.uniform(6.5, 15.0))
        t += rng.uniform(22.0, 40.0)
    book = Futures(rng, gains, carried=rng.choice([-1, 1]) * rng.uniform(0.1, 0.15))
    for each in times:
        book.settle(each, rng.choice(ROWS))
    return book


@family("settled again and again")
def settled_calm(rng: Random) -> Setup:
    """Two or three settlements, and 3-7% lost in all."""
    count = rng.randint(2, 3)
    return settled_often(rng, [rng.uniform(0.03, 0.07) / count] * count).setup()


@family("settled again and again in a fall", "0-2 s")
def settled_fall(rng: Random) -> Setup:
    """Two or three settlements, and 12-18% lost in all, less than a tenth at once."""
    count = rng.randint(2, 3)
    return settled_often(rng, [rng.uniform(0.12, 0.18) / count] * count).setup()


@family("settled while no runner lives")
def settled_in_gap(rng: Random) -> Setup:
    """The runner is restarted around the settlement, or between it and its row."""
    t, gain = event_time(rng), rng.choice([-1, 1]) * rng.uniform(0.1, 0.2)
    book = Futures(rng, [(t + 60.0, 10.0, drift(rng))], carried=gain)
    book.settle(t, rng.choice(ROWS))
    dies = t + rng.choice([-3.0, -0.5, 0.6, 2.0])
    return book.setup(restarts=[(dies, dies + rng.uniform(1.0, 20.0))])


@family("settled while no runner lives, in a fall", "0-2 s")
def settled_in_gap_fall(rng: Random) -> Setup:
    """4-5% is lost, then settled in a restart, and the rest of 11.5-13% follows."""
    t, first, total = event_time(rng), rng.uniform(0.04, 0.05), rng.uniform(0.115, 0.13)
    book = Futures(rng, [(6.0, 5.0, -first), (t + rng.uniform(25.0, 50.0), 3.0, first - total)])
    book.settle(t, rng.choice(ROWS))
    dies = t + rng.choice([-3.0, -0.5, 0.6, 2.0])
    return book.setup(restarts=[(dies, dies + rng.uniform(1.0, 20.0))])


@family("settled, positions late")
def settled_late(rng: Random) -> Setup:
    """The positions' answer is 1-3 s old when profit is settled: entry prices follow the wallet."""
    t, gain = event_time(rng), rng.choice([-1, 1]) * rng.uniform(0.1, 0.2)
    book = Futures(rng, [(t + 15.0, 10.0, drift(rng))], carried=gain)
    book.settle(t, rng.choice(ROWS))
    return book.setup(view(rng, positions_lag=(1.0, 3.0), entries=rng.random() < 0.7))


@family("settled, equity cached")
def settled_cached(rng: Random) -> Setup:
    """Equity and wallets are up to 3 s old, positions are not: entry prices come before the wallet."""
    t, gain = event_time(rng), rng.choice([-1, 1]) * rng.uniform(0.1, 0.2)
    book = Futures(rng, [(t + 15.0, 10.0, drift(rng))], carried=gain)
    book.settle(t, rng.choice(ROWS))
    return book.setup(view(rng, equity_cached=3.0))


@family("settled, some positions only")
def settled_in_part(rng: Random) -> Setup:
    """Of several positions in a book, one after the other is settled, and perhaps money leaves in between."""
    desk = moving(rng, gross=rng.uniform(1.6, 3.0))
    carry(desk.book, rng.choice([-1, 1]) * rng.uniform(0.1, 0.25))
    t = event_time(rng)
    for k, key in enumerate(list(desk.book.holdings)):
        lag = rng.choice(ROWS)
        desk.world.at(
            t + k * rng.uniform(0.0, 12.0),
            lambda now, key=key, lag=lag: settle_profits(desk.book, now, lag=lag, only=[key]),
            f"{key[0]} settled, row {lag:g} s after it",
        )
    if rng.random() < 0.5:
        desk.out(t + rng.uniform(-10.0, 30.0), rng.uniform(0.05, 0.4), rng.choice(LAGS))
    return desk.setup()


@family("settled, and a position closed")
def settled_and_cut(rng: Random) -> Setup:
    """Profit is settled a few seconds before or after a position is closed; its fill is seen."""
    desk = Desk(rng, gross=rng.uniform(1.6, 3.0), loss=rng.uniform(0.0, 0.045), begin=10.0, lasts=20.0)
    carry(desk.book, rng.choice([-1, 1]) * rng.uniform(0.1, 0.25))
    t, lag, symbol = event_time(rng), rng.choice(ROWS), next(iter(desk.book.holdings))[0]
    desk.world.at(t, lambda now: settle_profits(desk.book, now, lag=lag), f"settled, row {lag:g} s after it")
    desk.cut(
        t + rng.choice([-1, 1]) * rng.uniform(2.5, 15.0), symbol, rng.choice([0.5, 1.0]), lag=rng.choice([0.5, 2.0])
    )
    return desk.setup(view(rng, hurried=1.0))


__all__ = ["BLIND", "EXCEPTIONS", "OLDER", "TRADED", "TWICE", "is_settled", "with_settlements"]
