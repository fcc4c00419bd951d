"""The named worlds, numbered one to twelve: deterministic except for the reader's jitter, each with its right outcome.

Numbers are chosen so that each can be checked in the head: an account of 100,000 USDT, marks of 100 unless a name says
otherwise, and a policy that closes at a drawdown of 10%."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Literal

from msgspec import Struct

from tests.worlds.judge import Setup, Verdict, judge
from tests.worlds.venue_view import View
from tests.worlds.world import NEVER, Book, Move, Option, World, walk

CALM = Random(0)
"""No path of a named world has any volatility, so that nothing is drawn from it."""
ENOUGH = 150.0

Right = Literal["never closes", "closes", "closes, though money only moved"]


class Named(Struct, frozen=True):
    """A named world and its right outcome.

    `closes`: the loss is real, and is detected within `allowed`. `closes, though money only moved`: the error
    that the rule chooses, because a reader cannot distinguish this world from one in which the money is lost."""

    number: int
    make: Callable[[], Setup]
    right: Right
    scopes: tuple[str, ...] = ("account/main",)
    """The scopes that close; every other one never does."""

    def complaints(self, name: str) -> list[str]:
        """The deviations, in sentences; none where the outcome is right."""
        verdict = judge(self.make(), name, 0)
        return self._complaints(verdict)

    def _complaints(self, verdict: Verdict) -> list[str]:
        if self.right == "closes, though money only moved":
            if not verdict.false:
                return [f"{verdict}\n    did not close: another error is chosen than the one that is documented"]
            return []
        found = [] if not verdict.bad else [str(verdict)]
        closed = sorted({each.scope for each in verdict.fired})
        expected = sorted(self.scopes) if self.right == "closes" else []
        if closed != expected and not found:
            found.append(f"{verdict}\n    closed {closed or 'nothing'}, and right is {expected or 'nothing'}")
        return found


NAMED: dict[str, Named] = {}


def named(
    number: int, name: str, right: Right, scopes: tuple[str, ...] = ("account/main",)
) -> Callable[[Callable[[], Setup]], Callable[[], Setup]]:
    """Register a world."""

    def register(make: Callable[[], Setup]) -> Callable[[], Setup]:
        NAMED[name] = Named(number, make, right, scopes)
        return make

    return register


def account(
    *moves: Move, gross: float = 1.0, world: World | None = None, name: str = "main", equity: int = 100_000
) -> Book:
    """`equity` USDT, and a long in BTC of `gross` times as much at a mark of 100 that makes `moves`."""
    world = world or World(ENOUGH)
    book = Book(world, name, {"USDT": equity})
    book.list("BTC/USDT:USDT", walk(CALM, 100.0, ENOUGH, 0.0, moves))
    book.open("BTC/USDT:USDT", "long", equity * gross)
    return book


def read(book: Book, allowed: float = 2.5, **more: object) -> Setup:
    """The book as an ordinary venue reports it: the ledger is polled every 20 s, and each second after a movement."""
    shown = View(poll=20.0, hurried=1.0, **more)  # type: ignore[arg-type]  # options of the view
    return Setup(book.world, {book.name: shown}, allowed=allowed)


def _out(lag: float) -> Setup:
    book = account(gross=1.0)
    book.world.at(40.3, lambda now: book.flow(now, "withdrawal", -30_000, lag=lag), "30,000 leave")
    return read(book)


for _lag in (0.5, 15.0, 61.0, NEVER):
    _text = "never" if _lag == NEVER else f"after {_lag:g} s"
    named(1, f"30% out, row {_text}", "never closes")(lambda lag=_lag: _out(lag))  # type: ignore[misc]  # bound in the loop


@named(2, "close and sweep of exactly its margin, rows 15 s late", "never closes")
def close_and_sweep() -> Setup:
    """150,000 at 5 times are closed at the mark, and their margin of 30,000 leaves in the same tick."""
    book = account(gross=1.5)
    book.list("ETH/USDT:USDT", walk(CALM, 100.0, ENOUGH, 0.0))
    book.open("ETH/USDT:USDT", "long", 50_000)
    book.world.at(40.3, lambda now: book.trade(now, "BTC/USDT:USDT", "sell", 1_500, lag=15.0), "closed")
    book.world.at(40.4, lambda now: book.flow(now, "transfer", -30_000, lag=15.0), "30,000 leave")
    return read(book)


@named(3, "6x flip and 8% sweep", "never closes")
def flip_and_sweep() -> Setup:
    """Down 3% by the marks; then 300,000 long become 300,000 short, and 8,000 leave in the same tick."""
    book = account((20.0, 25.0, -0.01), gross=3.0)
    book.world.at(40.3, lambda now: book.trade(now, "BTC/USDT:USDT", "sell", 6_000, lag=15.0), "flipped")
    book.world.at(40.4, lambda now: book.flow(now, "withdrawal", -8_000, lag=15.0), "8,000 leave")
    return read(book)


@named(4, "crash 4 s before a deposit whose row is 61 s late", "closes")
def crash_before_deposit() -> Setup:
    """The book loses 15% at once; 4 s later 50,000 come."""
    book = account((40.0, 40.0, -0.05), gross=3.0)
    book.world.at(44.0, lambda now: book.flow(now, "deposit", 50_000, lag=61.0), "50,000 come")
    return read(book, allowed=1.5)


def _three_stops(lag: float, allowed: float) -> Setup:
    world = World(ENOUGH)
    book = Book(world, "main", {"USDT": 100_000})
    for coin in ("BTC", "ETH", "SOL", "XRP"):
        symbol = f"{coin}/USDT:USDT"
        moves: list[Move] = [] if coin == "XRP" else [(40.5, 40.5, -0.08)]
        book.list(symbol, walk(CALM, 100.0, ENOUGH, 0.0, moves))
        book.open(symbol, "long", 20_000 if coin == "XRP" else 60_000)
        if coin != "XRP":
            world.stop(book, symbol, "long", 0.03, lag=lag)
    return read(book, allowed=allowed, marks=False)


@named(5, "three stops fill in a gap of 8%, no marks left, rows 2 s late", "closes")
def three_stops() -> Setup:
    """180,000 lose 14,400 between two ticks, and with the positions their marks are gone: only rows can tell."""
    return _three_stops(2.0, 4.5)


@named(5, "three stops fill in a gap of 8%, no marks left, rows never", "closes")
def three_stops_never() -> Setup:
    """The same without rows: within the bound of 20 s for trades that are seen."""
    return _three_stops(NEVER, 22.5)


@named(6, "stops slip 2%, rows never", "closes")
def stops_slip() -> Setup:
    """A gap costs 3% of 280,000 by the marks (8.4%), and the stop fills 2% below (another 5.6%)."""
    book = account((40.5, 40.5, -0.03), gross=2.8)
    book.list("ETH/USDT:USDT", walk(CALM, 100.0, ENOUGH, 0.0))
    book.open("ETH/USDT:USDT", "long", 20_000)
    book.world.stop(book, "BTC/USDT:USDT", "long", 0.02, slip=0.02, lag=NEVER)
    return read(book, allowed=22.5)


@named(7, "positions 1-3 s late in a fall of 3% a second, with own fills", "closes")
def late_positions() -> Setup:
    """From 40 s on; the book sells a quarter at 42.2 and 43.2 s."""
    book = account((40.0, 46.0, -0.18), gross=1.5)
    for t in (42.2, 43.2):
        book.world.at(t, lambda now: book.trade(now, "BTC/USDT:USDT", "sell", 375, lag=2.0), "a quarter sold")
    return read(book, allowed=4.5, positions_lag=(1.0, 3.0))


@named(8, "equity cached for 3 s in a crash", "closes")
def cached_equity() -> Setup:
    """24% within 4 s; equity is up to 3 s old, positions and marks are not."""
    return read(account((40.0, 44.0, -0.08), gross=3.0), allowed=4.5, equity_cached=3.0)


@named(9, "BTC collateral falling 1% a second, index cached 10 s", "closes")
def collateral() -> Setup:
    """80,000 of 100,000 are BTC; from 40 s on they fall by 20% in 20 s. Equity is live, the price beside it is not."""
    world = World(ENOUGH)
    world.prices["BTC"] = walk(CALM, 50_000.0, ENOUGH, 0.0, [(40.0, 60.0, -0.2)])
    book = Book(world, "main", {"USDT": 20_000, "BTC": Decimal("1.6")})
    book.list("ETH/USDT:USDT", walk(CALM, 100.0, ENOUGH, 0.0))
    book.open("ETH/USDT:USDT", "long", 30_000)
    return read(book, allowed=11.5, index_cached=10.0)


@named(10, "unseen options lose 20%, wallet still", "closes")
def options() -> Setup:
    """Options of 50,000 beside 100,000 USDT lose 30,000."""
    book = account(gross=0.5)
    book.options.append(Option(walk(CALM, 100.0, ENOUGH, 0.0, [(40.0, 43.0, -0.6)]), Decimal(500)))
    return read(book, allowed=2.0, complete=False)


def _legs(scope: str, loss: float) -> Setup:
    world = World(ENOUGH)
    a = account(gross=1.0, world=world, name="A")
    b = account((42.0, 44.0, -loss / 2), gross=2.0, world=world, name="B")
    if scope == "portfolio":
        world.together()
    world.at(40.2, lambda now: a.flow(now, "transfer", -30_000, lag=1.0, transit=True), "30,000 leave A")
    world.at(44.2, lambda now: b.flow(now, "transfer", 30_000, lag=NEVER, transit=True), "30,000 reach B")
    views = {name: View(poll=20.0, hurried=1.0) for name in ("A", "B")}
    return Setup(world, views, scope=scope, allowed=2.5)


@named(11, "A to B, legs 4 s apart, one row never, while B loses 12%", "closes", ("account/B",))
def legs() -> Setup:
    """B truly loses 12%, and what comes to it hides nothing; A only gave money away."""
    return _legs("account", 0.12)


@named(11, "A to B, legs 4 s apart, one row never, while B loses 10%: the portfolio", "never closes")
def legs_together() -> Setup:
    """Together they lose 5%: on the way nothing is lost and nothing comes."""
    return _legs("portfolio", 0.10)


@named(11, "A to B, legs 4 s apart, one row never, while B loses 24%: the portfolio", "closes", ("portfolio",))
def legs_together_lose() -> Setup:
    """Together they lose 12%."""
    return _legs("portfolio", 0.24)


TRIPS = [40.3 + 1.1 * k for k in range(18)]


def _leak(*, lost: bool, times: list[float], lag: float) -> Setup:
    """The wallet falls by 1,500 at each of `times`, and no position is ever seen to move."""
    book = account(gross=0.3)
    book.list("DOGE/USDT:USDT", walk(CALM, 100.0, ENOUGH, 0.0))

    def trip(now: float) -> None:
        book.trade(now, "DOGE/USDT:USDT", "buy", 1_500, slip=0.005, fee=0.0, lag=lag)
        book.trade(now, "DOGE/USDT:USDT", "sell", 1_500, slip=0.005, fee=0.0, lag=lag)

    for t in times:
        if lost:
            book.world.at(t, trip, "round trip at a loss of 1,500")
        else:
            book.world.at(t, lambda now: book.flow(now, "withdrawal", -1_500, lag=lag), "1,500 leave")
    return read(book, allowed=16.0)


@named(12, "runaway round trips with flat positions, rows never", "closes")
def churn() -> Setup:
    """Every 1.1 s; the wallet falls, and nothing else shows."""
    return _leak(lost=True, times=TRIPS, lag=NEVER)


@named(12, "dust withdrawals that look just so", "closes, though money only moved")
def dust() -> Setup:
    """The same amounts at the same times leave, with rows 61 s late: a reader sees the same as in the world above."""
    return _leak(lost=False, times=TRIPS, lag=61.0)


@named(12, "dust withdrawals, seldom", "never closes")
def infrequent() -> Setup:
    """Every 9 s: never five within 12 s, so that they count as withdrawals."""
    return _leak(lost=False, times=[20.3 + 9 * k for k in range(12)], lag=61.0)
