"""Families of wrong and missing answers: one wrong print, positions that cannot be read, equity below zero, and rows
that come after an operator's reset.

Importing this module completes `FAMILIES`.
"""

from __future__ import annotations

from decimal import Decimal
from random import Random

from tests.worlds.bookings import close_all, seize
from tests.worlds.emptied import LAMBDA, measured
from tests.worlds.families import CALM, LAGS, event_time, family, view
from tests.worlds.futures_book import LINEAR, Futures, Gain
from tests.worlds.judge import Setup
from tests.worlds.world import NEVER, Book, Move, Print, World, exact, walk

# One wrong print


def wrong_at(rng: Random, begin: float, end: float) -> tuple[float, float]:
    """When exactly one tick sees a wrong price."""
    k = rng.randint(int(begin), int(end))
    return k - 0.05, k + 0.75


def printed(rng: Random, *, loss: float, begin: float, lasts: float, against: bool, tick: tuple[float, float]) -> Setup:
    """A book that loses `loss`, and one print of 10-60%, `against` or in favour of it, that the index refutes."""
    size = rng.uniform(0.1, 0.6)
    if rng.random() < 0.5:
        book, name, size = _printed_futures(rng, (begin, lasts, -loss), size)
        down = (book.holdings.get((name, "long")) is not None) == against
    else:
        book, name = _printed_spot(rng, (begin, begin + lasts, loss))
        down = against
    factor = Decimal(str(round(1 - size if down else 1 + size, 4)))
    book.prints.append(Print(*tick, name, factor))
    restarts = [(tick[0] + 0.85, tick[0] + 1.5)] if rng.random() < 0.2 else []
    form = rng.choice(["full", "amounts"]) if book.market == "spot" else "full"
    shown = view(rng, index=True, form=form)
    return Setup(book.world, {"main": shown}, policy="corroborated", restarts=restarts, allowed=3.5)


def _printed_futures(rng: Random, gain: Gain, size: float) -> tuple[Book, str, float]:
    """The wrong price never takes all of the equity."""
    book = Futures(rng, [gain], kind="linear", gross=rng.uniform(1.2, 3.0))
    return book.book, LINEAR, max(min(size, 0.9 / book.gross), 0.1)


def _printed_spot(rng: Random, fall: Move) -> tuple[Book, str]:
    """A spot account in BTC and a stable coin, of which one has the wrong price."""
    world, equity, stable = World(180.0), 100_000.0, rng.random() < 0.4
    part = rng.uniform(0.5, 0.7) if stable else rng.uniform(0.2, 0.3)
    coin = 0.95 - part
    world.prices["USDC"] = walk(rng, 1.0, 180.0, 0.0, digits=4)
    world.prices["BTC"] = walk(rng, 60_000.0, 180.0, CALM / 4, [(fall[0], fall[1], -fall[2] / coin)])
    book = Book(
        world, "main", {"USDT": equity * 0.05, "USDC": equity * part, "BTC": equity * coin / 60_000}, market="spot"
    )
    for asset in ("USDC", "BTC"):
        book.list(f"{asset}/USDT", world.prices[asset], step=Decimal("0.00001"))
    return book, "USDC" if stable else "BTC"


@family("one print against the book")
def print_against(rng: Random) -> Setup:
    """Back at the next tick, in a slow fall of up to 6%."""
    loss, lasts = rng.uniform(0.0, 0.06), rng.uniform(20.0, 80.0)
    return printed(rng, loss=loss, begin=20.0, lasts=lasts, against=True, tick=wrong_at(rng, 15.0, 120.0))


@family("one print in favour of the book")
def print_in_favour(rng: Random) -> Setup:
    """The same to the other side: what it showed is no peak."""
    loss, lasts = rng.uniform(0.0, 0.06), rng.uniform(20.0, 80.0)
    return printed(rng, loss=loss, begin=20.0, lasts=lasts, against=False, tick=wrong_at(rng, 15.0, 120.0))


@family("one print in a real fall", "0-2 s")
def print_in_fall(rng: Random) -> Setup:
    """12-20% is lost within half a minute, and a print to either side comes in the middle of it."""
    loss, lasts, begin = rng.uniform(0.12, 0.2), rng.uniform(10.0, 30.0), event_time(rng)
    tick = wrong_at(rng, begin + 1, begin + lasts - 1)
    return printed(rng, loss=loss, begin=begin, lasts=lasts, against=rng.random() < 0.7, tick=tick)


# Positions that cannot be read


@family("positions and the ledger unreadable in a crash", "0-2 s")
def unreadable_crash(rng: Random) -> Setup:
    """Equity and wallets are read, positions, perhaps unrealised profit and the ledger are not: 12-35% is lost."""
    begin = event_time(rng)
    book = Futures(rng, [(begin, rng.uniform(0.0, 8.0), -rng.uniform(0.12, 0.35))])
    dies = begin - rng.uniform(0.5, 12.0)
    shown = view(
        rng, positions_unknown=[(dies, dies + rng.uniform(35.0, 80.0))], silent_from=dies - rng.uniform(0.0, 20.0),
        profit_with_positions=rng.random() < 0.8,
    )  # fmt: skip
    return book.setup(shown)


@family("positions unreadable, money moves")
def unreadable_moves(rng: Random) -> Setup:
    """The same with 10-60% that leaves or comes, rows late, never or unread; up to 4% is lost."""
    begin = event_time(rng)
    book = Futures(rng, [(begin + rng.uniform(-10.0, 30.0), 10.0, -rng.uniform(0.0, 0.04))])
    share = rng.uniform(0.1, 0.6) * rng.choice([-1, -1, -1, 1])
    book.move(begin + rng.uniform(1.0, 20.0), share, rng.choice(LAGS))
    shown = view(
        rng, positions_unknown=[(begin, begin + rng.uniform(25.0, 80.0))], profit_with_positions=rng.random() < 0.8,
        silent_from=begin - 5.0 if rng.random() < 0.4 else 1e9,
    )  # fmt: skip
    return book.setup(shown)


# Below zero


def indebted(rng: Random, t: float, seconds: float = 240.0) -> Futures:
    """110-140% is lost at once."""
    return Futures(rng, [(t, 0.0, -rng.uniform(1.1, 1.4))], kind="linear", seconds=seconds, gross=rng.uniform(2.2, 3.0))


@family("below zero for a whole window", "0-2 s")
def below_zero(rng: Random) -> Setup:
    """Judged by the fall within a minute; more than a minute after the fall something happens without a row."""
    t = float(rng.randint(8, 15))
    book = indebted(rng, t)
    late, lag = t + rng.uniform(75.0, 110.0), rng.choice([15.0, 61.0, NEVER])
    if rng.random() < 0.6:
        part = Decimal(str(rng.choice([0.2, 0.5])))
        held, order = book.book.holdings[book.symbol, book.side], "sell" if book.side == "long" else "buy"
        book.world.at(
            late, lambda now: book.book.trade(now, LINEAR, order, held.contracts * part, slip=0.02, lag=lag),  # type: ignore[arg-type]  # one of the two
            f"a part is closed, row {lag:g} s after it",
        )  # fmt: skip
    if rng.random() < 0.6:
        book.move(late + rng.uniform(0.0, 20.0), rng.uniform(0.01, 0.06), lag)
    return book.setup(policy="minute", owes=[(t + 2.0, 240.0)])


@family("liquidated into debt", "0-2 s")
def liquidated_into_debt(rng: Random) -> Setup:
    """All is taken with a fill or without, the insurance fund pays the debt, and new money comes: the latch stays."""
    t, lag = float(rng.randint(15, 40)), rng.choice(LAGS)
    book = indebted(rng, t)
    book.world.at(
        t + 0.4, lambda now: close_all(book.book, now, lag=lag, slip=0.005), f"taken, rows {lag:g} s after it"
    )
    paid, come = rng.choice([5.0, 30.0, 61.0]), rng.uniform(70.0, 120.0)

    def pay(now: float) -> None:
        book.book.flow(now, "insurance", -book.book.wallets["USDT"], lag=lag)

    book.world.at(t + paid, pay, "the insurance fund pays the debt")
    book.move(t + come, rng.uniform(0.2, 1.0), rng.choice(LAGS))
    return book.setup(owes=[(t + 2.0, t + paid)])


@family("contracts vanish, and a debt is left", "Λ")
def seized_into_debt(rng: Random) -> Setup:
    """Below zero is not empty: it is a loss when the ledger is known past it."""
    t = event_time(rng)
    book = Futures(rng, kind="linear")
    debt = -rng.uniform(0.001, 0.3) * book.first
    book.world.at(t, lambda now: seize(book.book, now, left=debt), f"contracts vanish, and {debt:,.0f} is left")
    return book.setup(view(rng, hurried=1.0), allowed=LAMBDA)


# Rows after an operator's reset


def after_reset(rng: Random, later: list[Gain]) -> tuple[Futures, float]:
    """13-20% is lost and closed for, and an operator resets; the instant of that."""
    reset = rng.uniform(24.0, 32.0)
    gains: list[Gain] = [(8.0, rng.uniform(0.0, 6.0), -rng.uniform(0.13, 0.2)), *later]
    return Futures(rng, gains, kind="linear", seconds=200.0), reset


def reset_setup(rng: Random, book: Futures, reset: float, **more: object) -> Setup:
    book.world.at(reset, book.book.truth.reset, "an operator resets")
    return measured(rng, book.setup(view(rng, hurried=1.0), resets=[reset], ends_within=0.0008, **more))


@family("reset, then a loss that a late row shows")
def reset_late_loss(rng: Random) -> Setup:
    """After the reset 5-6% of the first equity is lost by prices, and as much by funding whose row is late."""
    book, reset = after_reset(rng, [(45.0, 5.0, -rng.uniform(0.05, 0.06))])
    lag = rng.choice([2.0, 8.0, 20.0])
    amount = -book.first * rng.uniform(0.05, 0.06)
    book.world.at(
        rng.uniform(40.0, 70.0), lambda now: book.book.flow(now, "funding", amount, lag=lag),
        f"funding {amount:,.0f}, row {lag:g} s after it",
    )  # fmt: skip
    return reset_setup(rng, book, reset, allowed=lag + 3.5)


@family("reset, then a fall that a late row explains")
def reset_late_flow(rng: Random) -> Setup:
    """After the reset a part is closed without a fill and 5-6% leaves, its row half a minute late; 4-5.5% is lost."""
    book, reset = after_reset(rng, [(110.0, 8.0, -rng.uniform(0.03, 0.045))])
    t = rng.uniform(38.0, 50.0)
    held, order = book.book.holdings[LINEAR, book.side], "sell" if book.side == "long" else "buy"
    part = exact(held.contracts * Decimal(str(rng.uniform(0.2, 0.4))), 3)
    book.world.at(t, lambda now: book.book.trade(now, LINEAR, order, part, lag=NEVER), "a part is closed, no row")  # type: ignore[arg-type]  # one of the two
    book.move(t + 0.05, -rng.uniform(0.05, 0.06), rng.uniform(25.0, 45.0))
    return reset_setup(rng, book, reset)


@family("reset while a row is late")
def reset_meanwhile(rng: Random) -> Setup:
    """Money leaves, or funding is paid, seconds before the reset, and the row comes after it; 3-5% is lost then."""
    book, reset = after_reset(rng, [(60.0, 8.0, -rng.uniform(0.03, 0.045))])
    t, lag = reset - rng.uniform(1.5, 6.0), rng.choice([15.0, 30.0, 61.0])
    kind, amount = rng.choice(["withdrawal", "funding"]), -book.first * rng.uniform(0.04, 0.09)
    book.world.at(
        t, lambda now: book.book.flow(now, kind, amount, lag=lag), f"{kind} {amount:,.0f}, row {lag:g} s after it"
    )
    return reset_setup(rng, book, reset)


@family("reset, then a small transfer whose row is late")
def reset_small_flow(rng: Random) -> Setup:
    """A part is closed for a fee, its fill late or never seen; in the same tick less than a hundredth comes or leaves.

    That counts as a slip of the trade until its row comes; then the fall from the peak is the real one, to little
    more than the noise of 0.05%."""
    book, reset = after_reset(rng, [(100.0, 8.0, -rng.uniform(0.03, 0.045))])
    t = reset + rng.choice([rng.uniform(-6.0, -1.5), rng.uniform(1.5, 15.0)])
    held, order = book.book.holdings[LINEAR, book.side], "sell" if book.side == "long" else "buy"
    part, lag = exact(held.contracts * Decimal(str(rng.uniform(0.4, 0.6))), 3), rng.choice([30.0, NEVER])
    book.world.at(t, lambda now: book.book.trade(now, LINEAR, order, part, lag=lag, fee=0.001), "a part is closed")  # type: ignore[arg-type]  # one of the two
    book.move(t + 0.05, rng.choice([-1, 1, 1]) * rng.uniform(0.006, 0.009), rng.uniform(15.0, 45.0))
    setup = reset_setup(rng, book, reset)
    setup.policy, setup.ends_within, book.book.truth.measure = "peak", 0.0006, "peak"
    return setup
