"""Families in which everything leaves an account, and perhaps comes back: what was emptied by transfers has no new
loss, and what was lost before counts when the money is back. Contracts that vanish together with the money are a loss.

Importing this module completes `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from random import Random

from tests.worlds.bookings import deposit_all, seize, withdraw_all
from tests.worlds.families import CALM, LAGS, event_time, family, view
from tests.worlds.futures_book import Futures, Gain
from tests.worlds.judge import Setup
from tests.worlds.world import NEVER, Book, Move, World, walk

FILLS = (0.5, 2.0, 15.0)
HOUR = 3_900.0
LAMBDA = 23.0
"""The longest delay where only time shows that no row comes."""


def measured(rng: Random, setup: Setup) -> Setup:
    """Judged by the fall within a quarter of an hour, from the peak or from the start."""
    setup.policy = rng.choice([None, "peak", "start"])
    if setup.policy == "start":
        for truth, _ in setup.world.truths:
            truth.measure = "start"
    return setup


def emptied(
    rng: Random,
    *,
    before: float,
    after: float = 0.0,
    away: float | None = None,
    steps: int = 1,
    dust: float = 0.0,
    seconds: float = 330.0,
    restart: bool = False,
    kind: str | None = None,
) -> Setup:
    """A book loses `before`, is closed and emptied, is refilled after `away` seconds (never: None), loses `after`."""
    t = rng.uniform(28.0, 45.0)
    gains: list[Gain] = [(6.0, rng.uniform(0.0, 10.0), -before)]
    back = t + 2.0 * steps + (away or 0.0)
    if away is not None:
        gains.append((back + rng.uniform(8.0, 25.0), rng.uniform(0.0, 8.0), -after))
    if away is None:
        seconds = 180.0
    book = Futures(rng, gains, seconds=seconds, kind=kind, gross=rng.uniform(1.2, 3.0))  # type: ignore[arg-type]  # one of the kinds
    left = book.leave(t, fills=rng.choice(FILLS), lag=rng.choice(LAGS), steps=steps, dust=dust)
    if away is not None:
        book.back(back, left, lag=rng.choice(LAGS), part=rng.choice([1.0, rng.uniform(0.3, 2.0)]))
    gap = rng.choice([(t - 2.0, t + rng.uniform(1.0, 20.0)), (t + 5.0, t + 15.0), (back - 3.0, back + 5.0)])
    shown = view(rng, omits_empty=rng.random() < 0.5, entries=rng.random() < 0.8)
    return measured(rng, book.setup(shown, restarts=[gap] if restart else [], flat_counts=True))


def small(rng: Random) -> float:
    """Two of them are less than 8% together."""
    return rng.uniform(0.0, 0.036)


@family("everything leaves")
def leaves(rng: Random) -> Setup:
    """All is closed and withdrawn in one tick, and nothing comes back; a harmless loss before it."""
    return emptied(rng, before=small(rng))


@family("everything leaves and is back after seconds or minutes")
def leaves_and_returns(rng: Random) -> Setup:
    """It comes back after 3 to 150 s, as much or more or less of it; harmless losses before and after."""
    return emptied(rng, before=small(rng), after=small(rng), away=rng.choice([3.0, 20.0, 70.0, 120.0, 150.0]))


@family("everything leaves and is back after an hour")
def leaves_for_an_hour(rng: Random) -> Setup:
    """The same after an hour, polled every 5 s, judged from the start or from the peak."""
    setup = emptied(rng, before=small(rng), after=small(rng), away=3_600.0, seconds=HOUR)
    setup.policy, setup.tick = setup.policy or "peak", 5.0
    return setup


@family("everything leaves in steps")
def leaves_in_steps(rng: Random) -> Setup:
    """In two to four steps a second or two apart."""
    away = rng.choice([None, 30.0, 120.0])
    return emptied(rng, before=small(rng), after=small(rng), away=away, steps=rng.randint(2, 4))


@family("everything leaves but dust")
def leaves_dust(rng: Random) -> Setup:
    """A hundredth to a third of a thousandth stays."""
    away = rng.choice([None, 30.0, 120.0])
    dust = rng.uniform(0.00001, 0.0003)
    return emptied(rng, before=small(rng), after=small(rng), away=away, dust=dust)


@family("everything leaves while no runner lives")
def leaves_in_gap(rng: Random) -> Setup:
    """The runner is restarted around the emptying, while the account is empty, or around the return."""
    away = rng.choice([None, 30.0, 120.0])
    return emptied(rng, before=small(rng), after=small(rng), away=away, restart=True)


@family("lost, emptied, refilled, lost", "0-2 s")
def loss_around(rng: Random) -> Setup:
    """5-6% before and 6.5-7.5% after it: what was lost before counts when the money is back."""
    away, before = rng.choice([20.0, 70.0, 120.0]), rng.uniform(0.05, 0.06)
    return emptied(rng, before=before, after=rng.uniform(0.065, 0.075), away=away, restart=rng.random() < 0.3)


@family("lost, emptied for an hour, refilled, lost", "0-2 s")
def loss_around_an_hour(rng: Random) -> Setup:
    """The same with an hour in between, polled every 5 s, judged from the start or from the peak."""
    setup = emptied(rng, before=rng.uniform(0.05, 0.06), after=rng.uniform(0.065, 0.075), away=3_600.0, seconds=HOUR)
    setup.policy, setup.tick, setup.allowed = setup.policy or "peak", 5.0, 10.5
    return setup


@family("emptied, refilled, crash", "0-2 s")
def crash_after(rng: Random) -> Setup:
    """What comes back loses 13-30%."""
    return emptied(rng, before=small(rng), after=rng.uniform(0.13, 0.3), away=rng.choice([20.0, 70.0, 120.0]))


@family("crash, emptied, refilled: the latch stays", "0-2 s")
def latched(rng: Random) -> Setup:
    """13-20% is lost and closed for; emptying and refilling fires nothing again, and lifts no latch."""
    return emptied(rng, before=rng.uniform(0.13, 0.2), after=small(rng), away=rng.choice([None, 20.0, 120.0]))


# A loss that empties


def seized(rng: Random, left: float, **more: object) -> Setup:
    """The venue takes all contracts and all money but `left`."""
    t = event_time(rng)
    book = Futures(rng, [(6.0, 8.0, -rng.uniform(0.0, 0.04))])
    book.world.at(t, lambda now: seize(book.book, now, left=left * book.first), "contracts and money vanish")
    return book.setup(view(rng, hurried=1.0, omits_empty=rng.random() < 0.5), **more)


@family("all contracts and all money vanish", "Λ")
def vanish(rng: Random) -> Setup:
    """Liquidation, ADL or theft without a fill: a loss when the ledger is known past it."""
    return seized(rng, rng.choice([0.0, 0.0, rng.uniform(0.0001, 0.04)]), allowed=LAMBDA)


@family("all contracts and all money vanish, and no runner lives", "Λ")
def vanish_in_gap(rng: Random) -> Setup:
    """The same in or around a restart; who is started after it polls the ledger at its ordinary interval."""
    setup = seized(rng, 0.0)
    setup.allowed = LAMBDA + max(each.poll for each in setup.views.values())
    dies = setup.world.scheduled()[0] - rng.choice([-2.0, 0.5, 5.0])
    setup.restarts = [(dies, dies + rng.uniform(2.0, 15.0))]
    return setup


# Spot accounts, and portfolios


def spots(rng: Random, moves: Sequence[Move] = ()) -> tuple[World, Book, Book]:
    """Spot accounts A and B that hold BTC, ETH and USDT."""
    world = World(300.0)
    held = rng.uniform(0.6, 0.95)
    books = []
    for coin, first in (("BTC", 60_000.0), ("ETH", 3_000.0)):
        world.prices[coin] = walk(rng, first, 300.0, CALM / 2, moves)
    for name, equity in (("A", rng.choice([20_000.0, 90_000.0])), ("B", rng.choice([20_000.0, 90_000.0]))):
        book = Book(world, name, {"USDT": equity * (1 - held)}, market="spot")
        for coin, first, part in (("BTC", 60_000.0, 0.6), ("ETH", 3_000.0, 0.4)):
            book.wallets[coin] = round(Decimal(str(equity * held * part / first)), 6)
            book.list(f"{coin}/USDT", world.prices[coin], step=Decimal("0.00001"))
        books.append(book)
    return world, books[0], books[1]


def coins_move(rng: Random, t: float, source: Book, goal: Book, *, apart: float) -> None:
    """Everything goes from one account to the other, perhaps some seconds under way."""
    lags, taken = (rng.choice(LAGS), rng.choice(LAGS)), {}
    source.world.at(
        t, lambda now: taken.update(withdraw_all(source, now, lag=lags[0], transit=True)),
        f"all leaves {source.name}, rows {lags[0]:g} s after it",
    )  # fmt: skip
    source.world.at(
        t + apart, lambda now: deposit_all(goal, now, taken, lag=lags[1], transit=True),
        f"and reaches {goal.name}, rows {lags[1]:g} s after it",
    )  # fmt: skip


def spot_setup(rng: Random, world: World, *, together: bool) -> Setup:
    if together:
        world.together()
    views = {
        name: view(rng, form=rng.choice(["full", "amounts"]), omits_empty=rng.random() < 0.5) for name in world.books
    }
    return Setup(world, views, scope="portfolio" if together else "account", flat_counts=True)


@family("spot: all coins to another account")
def coins_to_other(rng: Random) -> Setup:
    """Each account by itself: the one is empty, the other has more, and perhaps all comes back."""
    world, a, b = spots(rng, [(10.0, 15.0, -rng.uniform(0.0, 0.04))])
    t = event_time(rng)
    coins_move(rng, t, a, b, apart=rng.uniform(0.0, 10.0))
    setup = spot_setup(rng, world, together=False)
    if rng.random() < 0.5:
        kept: dict[str, Decimal] = {}
        there = t + rng.uniform(30.0, 130.0)
        lag = rng.choice(LAGS)
        world.at(
            there, lambda now: kept.update(withdraw_all(b, now, lag=lag, share=0.5, transit=True)), "half leaves B"
        )
        world.at(there + 2.0, lambda now: deposit_all(a, now, kept, lag=lag, transit=True), "and reaches A")
    return setup


@family("portfolio: all coins to another account")
def coins_to_other_together(rng: Random) -> Setup:
    """Together nothing changes, but for what is under way for up to 10 s."""
    world, a, b = spots(rng, [(10.0, 15.0, -rng.uniform(0.0, 0.06))])
    coins_move(rng, event_time(rng), a, b, apart=rng.uniform(0.0, 10.0))
    return spot_setup(rng, world, together=True)


@family("portfolio: all coins to another account, then a crash", "0-2 s")
def coins_to_other_crash(rng: Random) -> Setup:
    """The account that has everything now loses 20-35% of its coins' price."""
    t = event_time(rng)
    world, a, b = spots(rng, [(t + rng.uniform(11.0, 60.0), rng.uniform(0.0, 9.0), -rng.uniform(0.25, 0.35))])
    coins_move(rng, t, a, b, apart=rng.uniform(0.0, 10.0))
    return spot_setup(rng, world, together=rng.random() < 0.5)


def one_by_one(rng: Random, before: float, after: float) -> Setup:
    """Two futures accounts lose, are emptied one after the other, are refilled one after the other, and lose."""
    world, t, away = World(330.0), rng.uniform(28.0, 40.0), rng.uniform(20.0, 110.0)
    books = []
    late = t + away + rng.uniform(45.0, 60.0)
    for name in ("A", "B"):
        gains: list[Gain] = [(6.0, rng.uniform(0.0, 10.0), -before), (late, rng.uniform(0.0, 6.0), -after)]
        books.append(
            Futures(rng, gains, world=world, name=name, kind="linear", seconds=330.0, gross=rng.uniform(1.2, 3.0))
        )
    world.together()
    for k, book in enumerate(books):
        at = t + k * rng.uniform(1.0, 12.0)
        left = book.leave(at, fills=rng.choice(FILLS), lag=rng.choice(LAGS))
        book.back(at + away + k * rng.uniform(1.0, 12.0), left, lag=rng.choice(LAGS))
    views = {name: view(rng, omits_empty=rng.random() < 0.5) for name in ("A", "B")}
    restarts = [(t + 5.0, t + 14.0)] if rng.random() < 0.3 else []
    return Setup(world, views, scope="portfolio", restarts=restarts, flat_counts=True)


@family("portfolio: emptied account by account")
def portfolio_emptied(rng: Random) -> Setup:
    """Harmless losses before and after it."""
    return one_by_one(rng, small(rng), small(rng))


@family("portfolio: lost, emptied account by account, refilled, lost", "0-2 s")
def portfolio_loss_around(rng: Random) -> Setup:
    """5-6% before and 6.5-7.5% after it, in both."""
    return one_by_one(rng, rng.uniform(0.05, 0.06), rng.uniform(0.065, 0.075))


@family("portfolio: one account vanishes", "a choice")
def portfolio_vanish(rng: Random) -> Setup:
    """Contracts and money of A vanish; closing B on it is the policy's choice (`on_unexplained`), so that no delay of
    a loss is bounded. Where only transfers emptied A, nothing may close B."""
    world, t = World(180.0), event_time(rng)
    a, b = (
        Futures(rng, [(6.0, 8.0, -rng.uniform(0.0, 0.04))], world=world, name=name, kind="linear")
        for name in ("A", "B")
    )
    world.together()
    if rng.random() < 0.5:
        world.at(t, lambda now: seize(a.book, now), "contracts and money of A vanish")
    else:
        a.leave(t, fills=rng.choice(FILLS), lag=rng.choice(LAGS))
    views = {name: view(rng, hurried=1.0) for name in (a.book.name, b.book.name)}
    return Setup(world, views, scope="portfolio", allowed=NEVER)


__all__ = ["LAMBDA", "measured"]
