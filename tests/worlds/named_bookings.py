"""The named worlds, numbered thirteen to twenty: what venues book and answer without any price, trade or transfer.

Importing this module completes `NAMED`. The numbers are those of `named.py`: 100,000 USDT and marks of 100."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from tests.worlds.bookings import (
    carry,
    close_all,
    deposit_all,
    seize,
    settle_profits,
    split_contracts,
    split_holding,
    withdraw_all,
)
from tests.worlds.judge import Setup
from tests.worlds.named import CALM, ENOUGH, account, named, read
from tests.worlds.splits import BEFORE
from tests.worlds.venue_view import View
from tests.worlds.world import NEVER, Book, Print, World, walk

BTC = "BTC/USDT:USDT"
LONG = 330.0


def holding(asset: str, moves: list[tuple[float, float, float]], *, held: int, market: str = "spot") -> Book:
    """100,000, of which `held` are in an asset whose price of 100 makes `moves`."""
    world, cash = World(ENOUGH), "USD" if market == "equity" else "USDT"
    path = world.prices[asset] = walk(CALM, 100.0, ENOUGH, 0.0, moves)
    wallets: dict[str, float | str | Decimal] = {cash: 100_000 - held, asset: held // 100}
    book = Book(world, "main", wallets, market=market, currency=cash)
    book.list(asset if market == "equity" else f"{asset}/{cash}", path)
    return book


# 13: settlement


def _settled(lag: float) -> Setup:
    book = account()
    carry(book, 0.12)
    book.world.at(40.3, lambda now: settle_profits(book, now, lag=lag), "12,000 are settled")
    return read(book)


for _lag in (0.5, 15.0, 61.0, NEVER):
    _text = "never" if _lag == NEVER else f"after {_lag:g} s"
    named(13, f"12% of profit is settled, row {_text}", "never closes")(lambda lag=_lag: _settled(lag))  # type: ignore[misc]  # bound in the loop


@named(13, "4% of loss is settled, and 7% more is lost", "closes")
def settled_loss() -> Setup:
    """200,000 long lose 4,000, are settled, and lose 7,000 more: 11%, although less than 10% since the settlement."""
    book = account((20.0, 25.0, -0.02), (60.0, 64.0, -0.035 / 0.98), gross=2.0)
    book.world.at(40.3, lambda now: settle_profits(book, now), "the loss is settled")
    return read(book)


@named(13, "12% of profit is settled and withdrawn in one tick", "never closes")
def settled_and_withdrawn() -> Setup:
    """Equity falls by 12,000; the entry price says that nothing of it was lost."""
    book = account()
    carry(book, 0.12)
    book.world.at(40.3, lambda now: settle_profits(book, now), "12,000 are settled")
    book.world.at(40.4, lambda now: book.flow(now, "withdrawal", -12_000, lag=NEVER), "and leave")
    return read(book)


@named(13, "12% of loss is settled and refilled in one tick", "closes")
def settled_and_refilled() -> Setup:
    """The gap costs 12,000, they are settled, and 12,000 come: wallet and equity are what they were."""
    book = account((40.25, 40.25, -0.06), gross=2.0)
    book.world.at(40.3, lambda now: settle_profits(book, now), "12,000 of loss are settled")
    book.world.at(40.4, lambda now: book.flow(now, "deposit", 12_000, lag=61.0), "as much comes")
    return read(book)


@named(13, "6% of loss is settled with its row, and as much leaves", "never closes")
def settled_then_out() -> Setup:
    """The row belongs to the settlement: it explains no second change of the same size."""
    book = account((20.0, 25.0, -0.03), gross=2.0)
    book.world.at(40.3, lambda now: settle_profits(book, now, lag=0.5), "6,000 of loss are settled")
    book.world.at(60.3, lambda now: book.flow(now, "withdrawal", -6_000, lag=61.0), "6,000 leave")
    return read(book)


@named(13, "12% of profit is settled while no runner lives", "never closes")
def settled_in_restart() -> Setup:
    """Nobody polls from 38 to 47 s."""
    setup = _settled(15.0)
    setup.restarts = [(38.0, 47.0)]
    return setup


# 14: everything leaves


def _emptied(first: float, then: float, *, lag: float, away: float) -> Setup:
    """200,000 long lose a share of 100,000, everything leaves at 40 s, and is back and open later to lose again."""
    world = World(LONG)
    book = Book(world, "main", {"USDT": 100_000})
    back = 40.4 + away
    moves = [(20.0, 25.0, -first / 2), (back + 20.0, back + 24.0, -then / 2)]
    book.list(BTC, walk(CALM, 100.0, LONG, 0.0, moves))
    book.open(BTC, "long", 200_000)
    left: dict[str, Decimal] = {}
    world.at(40.3, lambda now: close_all(book, now, lag=2.0), "all is closed")
    world.at(40.4, lambda now: left.update(withdraw_all(book, now, lag=lag)), "all leaves")
    world.at(back, lambda now: deposit_all(book, now, left, lag=lag), "all comes back")
    world.at(
        back + 1.5,
        lambda now: book.trade(now, BTC, "buy", 2 * book.wallets["USDT"] / book.contracts[BTC].path.at(now)),
        "and is open again",
    )
    setup = read(book)
    setup.flat_counts = True
    return setup


for _lag in (0.5, 61.0, NEVER):
    _text = "never" if _lag == NEVER else f"after {_lag:g} s"
    named(14, f"everything leaves and is back after two minutes, rows {_text}", "never closes")(
        lambda lag=_lag: _emptied(0.02, 0.03, lag=lag, away=120.0)  # type: ignore[misc]  # bound in the loop
    )


@named(14, "6% lost, everything leaves, is back and loses 6% more", "closes")
def emptied_between() -> Setup:
    """0.94 × 0.94 is less than 0.895: what was lost before counts."""
    return _emptied(0.06, 0.06, lag=15.0, away=60.0)


@named(14, "all coins go to another account of the portfolio", "never closes")
def coins_to_other() -> Setup:
    """A is empty, and nothing was lost."""
    world, books = World(ENOUGH), []
    world.prices["BTC"] = walk(CALM, 100.0, ENOUGH, 0.0)
    for name in ("A", "B"):
        book = Book(world, name, {"USDT": 20_000, "BTC": 800}, market="spot")
        book.list("BTC/USDT", world.prices["BTC"])
        books.append(book)
    a, b = books
    left: dict[str, Decimal] = {}
    world.at(40.3, lambda now: left.update(withdraw_all(a, now, lag=15.0, transit=True)), "all leaves A")
    world.at(44.3, lambda now: deposit_all(b, now, left, lag=NEVER, transit=True), "and reaches B")
    return Setup(world, {name: View(poll=20.0, hurried=1.0) for name in ("A", "B")}, flat_counts=True)


@named(14, "all contracts and all money vanish", "closes")
def vanished() -> Setup:
    """Without a fill and without a row: a loss when the ledger is known past it."""
    book = account()
    book.world.at(40.3, lambda now: seize(book, now), "contracts and money vanish")
    return read(book, allowed=23.0)


# 15: splits


@named(15, "a contract is split ten for one, and the price falls by 20% besides", "closes")
def split_in_a_fall() -> Setup:
    """20% of 100,000."""
    book = account((40.75, 40.75, 0.8 / 10 - 1))
    book.world.at(40.75 - BEFORE, lambda now: split_contracts(book, now, BTC, Fraction(10)), "split")
    return read(book)


@named(15, "a thousand coins become one", "never closes")
def redenominated() -> Setup:
    """1:1000 of 80,000 in a spot account, without a row."""
    book = holding("BNB", [(40.75, 40.75, 999.0)], held=80_000)
    book.world.at(40.75 - BEFORE, lambda now: split_holding(book, now, "BNB", Fraction(1, 1000)), "redenominated")
    return read(book)


for _ratio in (Fraction(2), Fraction(1, 20), Fraction(3, 2)):
    _words = f"{_ratio.numerator}:{_ratio.denominator}"

    @named(15, f"shares are split {_words}, the broken one paid in cash", "never closes")
    def shares(ratio: Fraction = _ratio) -> Setup:
        """70,100 of 100,000 in 701 shares."""
        book = holding("TSLA", [(40.75, 40.75, 1 / float(ratio) - 1)], held=70_100, market="equity")
        book.world.at(40.75 - BEFORE, lambda now: split_holding(book, now, "TSLA", ratio, whole=True), "split")
        return read(book)


@named(15, "a coin loses 20%, and a quarter more of it comes", "closes")
def refilled() -> Setup:
    """800 coins lose 16,000, and 200 coins come: no split, since 5:4 is no ratio of coins."""
    book = holding("BNB", [(40.5, 40.5, -0.2)], held=80_000)
    book.world.at(40.6, lambda now: book.flow(now, "deposit", 200, asset="BNB", lag=61.0), "200 come")
    return read(book)


# 16: one print


def _printed(*moves: tuple[float, float, float], factor: str, at: int, gross: float = 1.0) -> Setup:
    book = account(*moves, gross=gross)
    book.prints.append(Print(at - 0.05, at + 0.75, BTC, Decimal(factor)))
    setup = read(book, index=True)
    setup.policy = "corroborated"
    return setup


@named(16, "one print of -30%, which the index refutes", "never closes")
def printed() -> Setup:
    """Back at the next second."""
    return _printed(factor="0.7", at=40)


@named(16, "one print of -30% in a fall of 15%", "closes")
def printed_in_a_fall() -> Setup:
    """150,000 in all fall from 40 to 52 s; the print comes at 46 s."""
    return _printed((40.0, 52.0, -0.1), factor="0.7", at=46, gross=1.5)


# 17: below zero


@named(17, "below zero for a whole window, and a change is open", "closes")
def below_zero() -> Setup:
    """120% is lost at 20 s; at 100 s 1,000 come without a row, and the fall within a minute is still 100%."""
    book = account((20.0, 20.0, -0.6), gross=2.0)
    book.world.at(100.3, lambda now: book.flow(now, "deposit", 1_000, lag=NEVER), "1,000 come")
    setup = read(book)
    setup.policy, setup.owes = "minute", [(22.0, ENOUGH)]
    return setup


@named(17, "contracts vanish, and a debt is left", "closes")
def debt() -> Setup:
    """100,000 become a debt of 500: that is not an empty account."""
    book = account()
    book.world.at(40.3, lambda now: seize(book, now, left=-500.0), "contracts and money vanish")
    return read(book, allowed=23.0)


# 18: positions cannot be read


@named(18, "positions, unrealised profit and the ledger unreadable in a fall of 12%", "closes")
def unreadable() -> Setup:
    """Equity less wallets is the unrealised profit."""
    book = account((40.5, 40.5, -0.06), gross=2.0)
    return read(book, positions_unknown=[(38.0, 100.0)], profit_with_positions=True, silent_from=30.0)


@named(18, "positions and unrealised profit unreadable, and 30% leaves", "never closes")
def unreadable_out() -> Setup:
    """Equity less wallets is what it was."""
    book = account()
    book.world.at(40.3, lambda now: book.flow(now, "withdrawal", -30_000, lag=61.0), "30,000 leave")
    return read(book, positions_unknown=[(38.0, 100.0)], profit_with_positions=True)


# 19: portfolios


def _away(book: Book, out: float, back: float) -> None:
    """All is closed, leaves, and comes back."""
    left: dict[str, Decimal] = {}
    book.world.at(out, lambda now: close_all(book, now, lag=2.0), f"{book.name} is closed")
    book.world.at(out + 0.1, lambda now: left.update(withdraw_all(book, now, lag=15.0)), f"{book.name} is empty")
    book.world.at(back, lambda now: deposit_all(book, now, left, lag=15.0), f"{book.name} is back")


@named(19, "a portfolio is emptied account by account and refilled", "never closes")
def portfolio_emptied() -> Setup:
    """A at 40 s, B at 46 s, and both are back two minutes later."""
    world = World(LONG)
    for name, at in (("A", 40.3), ("B", 46.3)):
        book = Book(world, name, {"USDT": 100_000})
        book.list(BTC, walk(CALM, 100.0, LONG, 0.0))
        book.open(BTC, "long", 100_000)
        _away(book, at, at + 120.0)
    world.together()
    views = {name: View(poll=20.0, hurried=1.0) for name in ("A", "B")}
    return Setup(world, views, scope="portfolio", flat_counts=True)


# 20: rows after an operator's reset


@named(20, "0.7% come with a trade, reset, and then their row", "closes")
def row_after_reset() -> Setup:
    """14% is lost. 800 are sold without a fill as 700 come, it is reset, the row comes, and some 2% is lost then."""
    book = account((10.0, 14.0, -0.07), (100.0, 104.0, -0.015), gross=2.0)
    book.world.at(30.0, book.truth.reset, "an operator resets")
    book.world.at(26.3, lambda now: book.trade(now, BTC, "sell", 800, lag=NEVER, fee=0.001), "a part is closed")
    book.world.at(26.4, lambda now: book.flow(now, "deposit", 700, lag=42.0), "700 come")
    setup = read(book)
    setup.policy, setup.resets, setup.ends_within = "peak", [30.0], 0.0006
    return setup
