"""Families of seeded random worlds: what a book, its bots and its venue do, and how they are polled.

A family is a function from randomness to a `Setup`. It declares which error the rule is allowed there, and which
delays; the figures of the first rule are printed beside the counts."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from random import Random

from msgspec import Struct

from tests.worlds.judge import Setup, seeded
from tests.worlds.venue_view import View
from tests.worlds.world import NEVER, Book, Move, Option, Path, World, walk

LAGS = (0.5, 2.0, 15.0, 61.0, NEVER)
BTC, ETH, SOL = "BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT"
FIRST = {BTC: 60_000.0, ETH: 3_000.0, SOL: 150.0}
CALM = 0.00012
"""Volatility per square root of a second: 0.2% in three minutes."""
DAY = 180.0


class Family(Struct, frozen=True):
    """One family. `false_allowed`: the share of worlds that may close falsely; delays in seconds, None: not bounded."""

    name: str
    make: Callable[[Random], Setup]
    page: str = ""
    false_allowed: float = 0.0
    p50: float | None = None
    p90: float | None = None

    def world(self, seed: int) -> Setup:
        """The world of `seed`."""
        return self.make(seeded(self.name, seed))


FAMILIES: dict[str, Family] = {}


def family(
    name: str, page: str = "", *, false_allowed: float = 0.0, p50: float | None = None, p90: float | None = None
) -> Callable[[Callable[[Random], Setup]], Callable[[Random], Setup]]:
    """Register a family."""

    def register(make: Callable[[Random], Setup]) -> Callable[[Random], Setup]:
        FAMILIES[name] = Family(name, make, page, false_allowed, p50, p90)
        return make

    return register


# Parts that families are made of


def view(rng: Random, **more: object) -> View:
    """An ordinary venue, polled in the ordinary way."""
    fields: dict[str, object] = {
        "poll": rng.uniform(10.0, 60.0), "skew": rng.uniform(0.02, 0.3), "stamps": rng.random() < 0.7, **more,
    }  # fmt: skip
    return View(**fields)  # type: ignore[arg-type]  # the names decide


class Desk:
    """A futures account: longs in BTC and ETH, perhaps a short in SOL; `gross` times its equity in all.

    `loss` is what a fall of the longs' marks at `begin` shall cost, as a fraction of equity; it `lasts` some seconds.
    """

    def __init__(
        self,
        rng: Random,
        *,
        gross: float | None = None,
        loss: float = 0.0,
        begin: float = 0.0,
        lasts: float = 0.0,
        seconds: float = DAY,
        hedge: bool = False,
        vol: float = CALM,
        world: World | None = None,
        name: str = "main",
        equity: float | None = None,
        symbols: tuple[str, str, str] = (BTC, ETH, SOL),
    ) -> None:
        self.rng = rng
        self.equity = equity or float(rng.choice([20_000, 100_000, 250_000, 1_000_000]))
        self.begin = begin
        self.gross = gross or rng.uniform(1.6, 4.5)
        self.world = world or World(seconds)
        self.book = Book(self.world, name, {"USDT": self.equity}, hedge=hedge)
        longs = self.gross * rng.uniform(0.75, 1.0)
        change = -loss / longs
        moves: list[Move] = [(begin, begin + lasts, change)] if loss else []
        share = rng.uniform(0.4, 1.0)
        first, second, third = symbols
        for symbol, part, price in ((first, share, FIRST[BTC]), (second, 1.0 - share, FIRST[ETH])):
            self.book.list(symbol, walk(rng, price, seconds, vol, moves))
            if part > 0.05:
                self.book.open(symbol, "long", self.equity * longs * part)
        self.book.list(third, walk(rng, FIRST[SOL], seconds, vol))
        if hedge:
            self.book.open(first, "short", self.equity * longs * share * rng.uniform(0.1, 0.4))
        elif self.gross - longs > 0.1:
            self.book.open(third, "short", self.equity * (self.gross - longs))

    def out(self, t: float, share: float, lag: float, kind: str = "withdrawal") -> None:
        """A share of the first equity leaves."""
        text = f"{kind} of {share:.1%}, row {lag:g} s after it"
        self.world.at(t, lambda now: self.book.flow(now, kind, -share * self.equity, lag=lag), text)

    def deposit(self, t: float, share: float, lag: float) -> None:
        """A share of the first equity comes."""
        text = f"deposit of {share:.1%}, row {lag:g} s after it"
        self.world.at(t, lambda now: self.book.flow(now, "deposit", share * self.equity, lag=lag), text)

    def cut(
        self, t: float, symbol: str, share: float, *, slip: float = 0.0, lag: float = 0.5, cause: str = "trade"
    ) -> None:
        """Close a share of a position at the market."""

        def act(now: float) -> None:
            net = self.book.net(symbol)
            self.book.trade(
                now,
                symbol,
                "sell" if net > 0 else "buy",
                abs(net) * Decimal(str(share)),
                slip=slip,
                lag=lag,
                cause=cause,
            )

        self.world.at(t, act, f"{cause}: {share:.0%} of {symbol} closed, slip {slip:.2%}, row {lag:g} s after it")

    def setup(self, shown: View | None = None, **more: object) -> Setup:
        return Setup(self.world, {self.book.name: shown or view(self.rng)}, **more)  # type: ignore[arg-type]  # options of the setup


def moving(rng: Random, **more: float) -> Desk:
    """A book from which money moves, while it truly loses up to 4.5%: a moved tenth must not be added to that."""
    gross = more.pop("gross", rng.uniform(0.5, 2.0))
    return Desk(
        rng, gross=gross, loss=rng.uniform(0.0, 0.045), begin=rng.uniform(5.0, 60.0), lasts=rng.choice([0.0, 5.0, 80.0])
    )


def known_lag(rng: Random, lag: float) -> float | None:
    """The reader's knowledge of the rows' lag: none, or about what it is."""
    return None if lag == NEVER or rng.random() < 0.6 else lag * rng.uniform(1.0, 1.2)


def loss_fraction(rng: Random) -> float:
    """The fraction of its equity that a book loses in a crash."""
    return rng.uniform(0.13, 0.35)


def event_time(rng: Random) -> float:
    """When events happen: after a while, and with time left for what follows."""
    return rng.uniform(25.0, 70.0)


# Prices alone


@family("ordinary crash", "0-2 s")
def ordinary(rng: Random) -> Setup:
    """The longs fall within seconds, and nothing else happens."""
    return Desk(rng, loss=loss_fraction(rng), begin=event_time(rng), lasts=rng.uniform(0.5, 10.0)).setup()


@family("grinding fall", "0-2 s")
def grinding(rng: Random) -> Setup:
    """The same over one or two minutes."""
    return Desk(rng, loss=loss_fraction(rng), begin=10.0, lasts=rng.uniform(60.0, 120.0)).setup()


@family("gap", "0-2 s")
def gap(rng: Random) -> Setup:
    """The whole fall between two prints."""
    return Desk(rng, loss=loss_fraction(rng), begin=event_time(rng)).setup()


@family("calm")
def calm(rng: Random) -> Setup:
    """A wild but harmless market: the book loses 2-7%."""
    return Desk(rng, loss=rng.uniform(0.02, 0.07), begin=event_time(rng), lasts=rng.uniform(0.0, 60.0)).setup()


@family("restart in a crash", "0-2 s")
def restarted(rng: Random) -> Setup:
    """The runner dies before, during or after the fall and is started again."""
    begin = event_time(rng)
    dies = begin + rng.uniform(-20.0, 15.0)
    desk = Desk(rng, loss=loss_fraction(rng), begin=begin, lasts=rng.uniform(0.0, 30.0))
    return desk.setup(restarts=[(dies, dies + rng.uniform(2.0, 45.0))])


@family("outage in a crash", "0-2 s")
def outage(rng: Random) -> Setup:
    """The venue does not answer for a while around the fall."""
    begin = event_time(rng)
    dies = begin + rng.uniform(-10.0, 10.0)
    desk = Desk(rng, loss=loss_fraction(rng), begin=begin, lasts=rng.uniform(0.0, 20.0))
    return desk.setup(view(rng, down=[(dies, dies + rng.uniform(2.0, 30.0))]))


@family("positions unknown in a crash", "0-2 s")
def partial(rng: Random) -> Setup:
    """Equity is read and positions are not; the parts of equity are sufficient."""
    begin = event_time(rng)
    dies = begin + rng.uniform(-10.0, 2.0)
    desk = Desk(rng, loss=loss_fraction(rng), begin=begin, lasts=rng.uniform(0.0, 8.0))
    return desk.setup(view(rng, positions_unknown=[(dies, dies + rng.uniform(15.0, 60.0))]))


@family("hedge mode", "0-2 s")
def hedge_mode(rng: Random) -> Setup:
    """Long and short of one symbol at once."""
    desk = Desk(
        rng,
        loss=loss_fraction(rng),
        begin=event_time(rng),
        lasts=rng.uniform(0.0, 10.0),
        hedge=True,
        gross=rng.uniform(4, 6),
    )
    return desk.setup()


def coins(rng: Random, loss: float, begin: float, lasts: float) -> tuple[World, Book, float]:
    """An account whose collateral is BTC and that holds little else."""
    world, equity = World(DAY), float(rng.choice([50_000, 400_000]))
    share = rng.uniform(0.6, 1.0)
    path = walk(rng, 60_000, DAY, CALM, [(begin, begin + lasts, -loss / share)])
    world.prices["BTC"] = path
    book = Book(world, "main", {"USDT": equity * (1 - share), "BTC": equity * share / 60_000})
    book.list(ETH, walk(rng, FIRST[ETH], DAY, CALM))
    book.open(ETH, "long", equity * rng.uniform(0.1, 0.6))
    return world, book, equity


@family("collateral falls", "0-2 s")
def collateral(rng: Random) -> Setup:
    """BTC collateral falls 0.2-1% a second."""
    loss = loss_fraction(rng)
    world, _, _ = coins(rng, loss, 20.0, loss / rng.uniform(0.002, 0.01))
    return Setup(world, {"main": view(rng)})


@family("collateral falls, old index")
def stale_index(rng: Random) -> Setup:
    """The same, and the price of the collateral that is shown is up to 10 s old while equity is live."""
    loss = loss_fraction(rng)
    world, _, _ = coins(rng, loss, 20.0, loss / rng.uniform(0.004, 0.01))
    return Setup(world, {"main": view(rng, index_cached=10.0)}, allowed=12.5)


@family("collateral wobbles, old index")
def stale_index_calm(rng: Random) -> Setup:
    """Collateral falls by 4-7% and comes back, again and again, beside a 10 s old index: nothing is lost."""
    world = World(DAY)
    step = rng.uniform(0.04, 0.07)
    moves: list[Move] = []
    t = 20.0
    while t < 160:
        lasts = rng.uniform(3, 12)
        moves += [(t, t + lasts, -step), (t + lasts, t + 2 * lasts, step / (1 - step))]
        t += 2 * lasts + rng.uniform(0, 10)
    world.prices["BTC"] = walk(rng, 60_000, DAY, 0.0, moves)
    book = Book(world, "main", {"USDT": 1_000, "BTC": 1.5})
    book.list(ETH, walk(rng, FIRST[ETH], DAY, CALM))
    book.open(ETH, "long", 20_000)
    return Setup(world, {"main": view(rng, index_cached=10.0)})


@family("inverse book", "0-2 s")
def inverse(rng: Random) -> Setup:
    """Coin-margined contracts, equity in dollars or in the coin itself; both fall or the contracts alone lose."""
    world = World(DAY)
    in_coin = rng.random() < 0.5
    begin, lasts, gross = event_time(rng), rng.uniform(0.0, 20.0), rng.uniform(1.2, 3.0)
    change = -loss_fraction(rng) / gross
    path = walk(rng, 60_000, DAY, CALM, [(begin, begin + lasts, change)], digits=1)
    world.prices["BTC"] = path
    book = Book(world, "main", {"BTC": rng.uniform(0.5, 20.0)}, currency="BTC" if in_coin else "USD")
    book.list("BTC/USD:BTC", path, settle="BTC", size=Decimal(100), inverse=True, step=Decimal(1))
    book.open("BTC/USD:BTC", "long", float(book.wallets["BTC"]) * gross * (1 if in_coin else 60_000))
    return Setup(world, {"main": view(rng)})


@family("options in the total", "0-2 s")
def options(rng: Random) -> Setup:
    """Options that the adapter does not read lose; the wallet does not move."""
    desk = Desk(rng, gross=rng.uniform(0.3, 1.0))
    value = desk.equity * rng.uniform(0.4, 1.0)
    begin = event_time(rng)
    loss = loss_fraction(rng) * (desk.equity + value) / value
    path = walk(rng, 100.0, DAY, 0.0005, [(begin, begin + rng.uniform(0, 20), -min(loss, 0.95))])
    desk.book.options.append(Option(path, Decimal(str(round(value / 100, 4)))))
    return desk.setup(view(rng, complete=False))


@family("vanished options", "0-2 s")
def vanished(rng: Random) -> Setup:
    """Options expire worthless; in a second variant they are sold for their value, and nothing is lost."""
    desk = Desk(rng, gross=rng.uniform(0.3, 1.0))
    value = desk.equity * rng.uniform(0.25, 0.8)
    option = Option(Path([100.0]), Decimal(str(round(value / 100, 4))))
    desk.book.options.append(option)
    sold = rng.random() < 0.5

    def end(now: float) -> None:
        desk.world.touch(now)
        desk.book.options.clear()
        if sold:
            desk.book.add("USDT", option.amount * 100)
        desk.world.settle(now)

    desk.world.at(event_time(rng), end, "options sold" if sold else "options expire worthless")
    return desk.setup(view(rng, complete=False))


# The book's own fills in a fall


def stopped(rng: Random, lag: float, *, loss: float, slips: float = 0.03, lasts: float | None = None) -> Desk:
    """A crash in which the book's own stops close its longs on the way, or at its end where it is a gap."""
    seconds = rng.uniform(0.0, 6.0) if lasts is None else lasts
    desk = Desk(rng, loss=loss, begin=event_time(rng), lasts=seconds)
    for symbol in (BTC, ETH):
        if (symbol, "long") in desk.book.holdings and (symbol == BTC or rng.random() < 0.7):
            desk.world.stop(
                desk.book,
                symbol,
                "long",
                loss / desk.gross * rng.uniform(0.5, 0.95),
                slip=rng.uniform(0, slips),
                lag=lag,
            )
    return desk


@family("stops fill, rows at once", "0-2 s")
def stops_at_once(rng: Random) -> Setup:
    """A gap through the stops; their rows come within a second."""
    return stopped(rng, rng.uniform(0.1, 1.0), loss=loss_fraction(rng), lasts=0.0).setup(view(rng, hurried=1.0))


@family("stops fill, rows late")
def stops_late(rng: Random) -> Setup:
    """Rows 5-30 s late; where marks alone show the loss nobody has to wait for them."""
    lag = rng.uniform(5.0, 30.0)
    return stopped(rng, lag, loss=loss_fraction(rng), lasts=0.0).setup(view(rng, hurried=1.0), allowed=2.5)


@family("stops fill, rows never", "p90 20 s", p90=20.0)
def stops_never(rng: Random) -> Setup:
    """A gap, mostly shown by marks; slips of up to 3%, and no row ever."""
    return stopped(rng, NEVER, loss=rng.uniform(0.11, 0.35), lasts=0.0).setup(view(rng, hurried=1.0), allowed=23.0)


@family("stops slip beyond, rows never")
def slips_never(rng: Random) -> Setup:
    """A gap costs 6-9% by the marks, and slips of up to 3.5% take it to 12-15%; no row ever reports them."""
    by_marks, total, begin = rng.uniform(0.06, 0.09), rng.uniform(0.12, 0.15), event_time(rng)
    desk = Desk(rng, gross=rng.uniform(3.2, 4.5), loss=by_marks, begin=begin)
    held = [symbol for symbol in (BTC, ETH) if (symbol, "long") in desk.book.holdings]
    longs = sum(float(desk.book.net(symbol) * desk.book.contracts[symbol].path.at(0)) for symbol in held)
    slip = (total - by_marks) * desk.equity / longs
    for symbol in held:
        desk.world.stop(desk.book, symbol, "long", by_marks / desk.gross / 2, slip=slip, lag=NEVER)
    return desk.setup(view(rng, hurried=1.0), allowed=23.0)


@family("positions late in a fall", "0-2 s")
def late_positions(rng: Random) -> Setup:
    """Positions are 1-3 s old in a fall of 3% a second in which the book's own orders fill."""
    fall, begin = rng.uniform(0.25, 0.4), event_time(rng)
    desk = Desk(rng, loss=fall, begin=begin, lasts=fall / 0.03)
    for k in range(4):
        t = begin + 1.5 * k + rng.random()
        desk.cut(t, BTC, 0.2, slip=rng.uniform(0, 0.002), lag=rng.choice([0.5, 2.0, 15.0]))
    return desk.setup(view(rng, positions_lag=(1.0, 3.0), hurried=1.0), allowed=5.5)


@family("equity cached in a crash")
def cached_equity(rng: Random) -> Setup:
    """The answer with the equity is up to 3 s old."""
    desk = Desk(rng, loss=loss_fraction(rng), begin=event_time(rng), lasts=rng.uniform(0.0, 8.0))
    return desk.setup(view(rng, equity_cached=3.0), allowed=5.5)


@family("fat finger", "p50 8 s, max 15 s", p50=8.5)
def fat_finger(rng: Random) -> Setup:
    """The book sells a large position 8% below the mark; only its fill can show it."""
    desk = Desk(rng, gross=rng.uniform(2.6, 4.5))
    lag = rng.uniform(0.5, 13.0)
    size = desk.equity * rng.uniform(1.6, 2.4) / FIRST[SOL]
    desk.world.at(
        event_time(rng),
        lambda now: desk.book.trade(now, SOL, "sell", size, slip=0.08, lag=lag),
        f"sold at -8%, row {lag:.1f} s after it",
    )
    return desk.setup(view(rng, hurried=1.0), allowed=16.0)


def churned(rng: Random, lag: float) -> Desk:
    """A bot that buys and sells the same amount between two reads, at a loss each time."""
    desk = Desk(rng, gross=rng.uniform(0.3, 1.0))
    each = rng.uniform(0.008, 0.02)
    size = desk.equity * rng.uniform(1.0, 3.0)
    slip = each * desk.equity / size / 2

    def trip(now: float) -> None:
        count = size / FIRST[SOL]
        desk.book.trade(now, SOL, "buy", count, slip=slip, fee=0.0, lag=lag)
        desk.book.trade(now, SOL, "sell", count, slip=slip, fee=0.0, lag=lag)

    t, begin = event_time(rng), 0.0
    while begin < 25 * each / 0.01:
        desk.world.at(t + begin, trip, f"round trip at a loss of {each:.2%}")
        begin += rng.uniform(0.6, 1.6)
    return desk


@family("runaway churn, rows never", "max 16 s")
def churn(rng: Random) -> Setup:
    """Positions are flat at each read, and the wallet falls."""
    return churned(rng, NEVER).setup(allowed=17.0)


@family("runaway churn, rows late")
def churn_rows(rng: Random) -> Setup:
    """The same with rows that come 1-6 s late."""
    lag = rng.uniform(1.0, 6.0)
    return churned(rng, lag).setup(view(rng, hurried=1.0), allowed=lag + 2.5)


@family("liquidation of all")
def liquidated(rng: Random) -> Setup:
    """The venue takes all positions at the end of a crash, with a slip of up to 2%; rows late."""
    begin, lasts = event_time(rng), rng.choice([0.0, 0.0, 3.0])
    desk = Desk(rng, loss=rng.uniform(0.3, 0.6), begin=begin, lasts=lasts, gross=4.5)
    t = begin + lasts + rng.uniform(0.3, 0.8)
    for symbol in (BTC, ETH, SOL):
        if desk.book.net(symbol):
            desk.cut(
                t, symbol, 1.0, slip=rng.uniform(0.0, 0.02), lag=rng.choice([1.0, 10.0, 30.0]), cause="liquidation"
            )
    return desk.setup()


@family("partial liquidation")
def partly_liquidated(rng: Random) -> Setup:
    """The venue takes a part of a position at each step of the fall."""
    begin, lasts = event_time(rng), rng.uniform(1.0, 8.0)
    desk = Desk(rng, loss=rng.uniform(0.2, 0.4), begin=begin, lasts=lasts, gross=4.5)
    for k in range(4):
        desk.cut(
            begin + lasts * k / 4 + 0.3,
            BTC,
            0.25,
            slip=rng.uniform(0.0, 0.01),
            lag=rng.choice([1.0, 10.0, NEVER]),
            cause="liquidation",
        )
    return desk.setup(allowed=3.5)


@family("deleveraged while it wins")
def adl(rng: Random) -> Setup:
    """ADL takes a winning short at a slip of up to 2%, rows late: profit, and no loss to close for."""
    desk = Desk(rng, gross=rng.uniform(0.5, 1.0))
    path = walk(rng, 100.0, DAY, CALM, [(30.0, 40.0, -0.2)])
    desk.book.list("DOGE/USDT:USDT", path)
    desk.book.open("DOGE/USDT:USDT", "short", desk.equity * rng.uniform(1.0, 2.0))
    desk.cut(
        rng.uniform(36, 60), "DOGE/USDT:USDT", rng.choice([0.3, 1.0]), slip=rng.uniform(0, 0.02),
        lag=rng.choice([0.5, 15.0, 61.0]), cause="adl",
    )  # fmt: skip
    return desk.setup()


# Money that only moves


@family("transfer out", "0/250")
def transfer_out(rng: Random) -> Setup:
    """5-80% leaves; its row comes 0.5 s ... never."""
    desk = moving(rng)
    lag = rng.choice(LAGS)
    desk.out(event_time(rng), rng.uniform(0.05, 0.8), lag, rng.choice(["withdrawal", "transfer"]))
    return desk.setup(view(rng, row_lag_s=known_lag(rng, lag)))


@family("deposit")
def deposit(rng: Random) -> Setup:
    """5-300% comes; its row comes 0.5 s ... never."""
    desk = moving(rng)
    desk.deposit(event_time(rng), rng.uniform(0.05, 3.0), rng.choice(LAGS))
    return desk.setup()


@family("close and sweep", "0/200")
def close_and_sweep(rng: Random) -> Setup:
    """A bot closes a position and takes its margin (or another amount) out at once."""
    desk = moving(rng, gross=rng.uniform(1.6, 4.5))
    t, lag = event_time(rng), rng.choice(LAGS)
    share = desk.gross / 2 / rng.choice([2, 3, 5]) if rng.random() < 0.6 else rng.uniform(0.05, 0.4)
    desk.cut(t, BTC, rng.choice([0.5, 1.0]), slip=rng.uniform(0, 0.001), lag=rng.choice([0.5, 2.0, 15.0]))
    desk.out(t + rng.uniform(0.0, 1.5), min(share, 0.6), lag)
    return desk.setup()


@family("flip and sweep", "0/199")
def flip_and_sweep(rng: Random) -> Setup:
    """A position of six times the equity is turned round, and 8% is taken out at once."""
    desk = moving(rng, gross=0.3)
    desk.book.list("BNB/USDT:USDT", walk(rng, 600.0, DAY, 0.00003))
    desk.book.open("BNB/USDT:USDT", "long", desk.equity * rng.uniform(2, 6))
    desk.cut(t := event_time(rng), "BNB/USDT:USDT", 1.0, lag=(lag := rng.choice([0.5, 2.0, 15.0])))
    desk.world.at(
        t + 0.01, lambda now: desk.book.trade(now, "BNB/USDT:USDT", "sell", desk.equity * 3 / 600, lag=lag), "flipped"
    )
    desk.out(t + rng.uniform(0.0, 0.5), rng.uniform(0.06, 0.2), rng.choice([15.0, 61.0, NEVER]))
    return desk.setup()


@family("repeated out and in", "0/250")
def back_and_forth(rng: Random) -> Setup:
    """The same amount leaves and comes back, several times."""
    desk = moving(rng)
    share, lag, t = rng.uniform(0.08, 0.4), rng.choice(LAGS), 20.0
    while t < 120:
        desk.out(t, share, lag, "transfer")
        t += rng.uniform(0.5, 12)
        desk.deposit(t, share, lag)
        t += rng.uniform(0.5, 12)
    return desk.setup()


@family("funding and sweep", "0/250")
def funding_and_sweep(rng: Random) -> Setup:
    """Funding is paid, and in the same tick money leaves."""
    desk = moving(rng, gross=rng.uniform(1.6, 4.5))
    t = event_time(rng)
    paid = desk.equity * desk.gross * rng.uniform(-0.003, 0.001)
    lag = rng.choice([0.5, 5.0, 15.0])
    desk.world.at(t, lambda now: desk.book.flow(now, "funding", paid, lag=lag), f"funding {paid:,.0f}")
    desk.out(t + rng.uniform(0.0, 0.6), rng.uniform(0.05, 0.5), rng.choice(LAGS))
    return desk.setup()


@family("dust withdrawals, rows 61 s late", "50/250", false_allowed=0.2)
def dust(rng: Random) -> Setup:
    """Many small amounts leave; no row comes within a minute. The densest look as churn does: the rule chooses."""
    desk = moving(rng)
    t, apart = 15.0, rng.uniform(4.0, 30.0)
    while t < 160:
        desk.out(t, rng.uniform(0.005, 0.025), 61.0)
        t += apart * rng.uniform(0.6, 1.4)
    return desk.setup()


@family("noisy equity")
def noisy(rng: Random) -> Setup:
    """The venue's equity swings by 0.3-2% without trades or prices; now and then something leaves."""
    desk = moving(rng)
    if rng.random() < 0.5:
        desk.out(event_time(rng), rng.uniform(0.05, 0.3), rng.choice([0.5, 15.0]))
    return desk.setup(view(rng, noise=rng.uniform(0.003, 0.02), noise_in_profit=rng.random() < 0.5))


@family("noisy equity, silent ledger", "11/250", false_allowed=0.044)
def noisy_silent(rng: Random) -> Setup:
    """The same, and the ledger does not answer."""
    desk = moving(rng)
    if rng.random() < 0.5:
        desk.out(event_time(rng), rng.uniform(0.05, 0.3), rng.choice([0.5, 15.0]))
    noise = rng.uniform(0.003, 0.02)
    return desk.setup(view(rng, noise=noise, noise_in_profit=rng.random() < 0.5, silent_from=rng.uniform(0, 20)))


@family("deposit around a crash", "0-2 s")
def deposit_around_crash(rng: Random) -> Setup:
    """Money comes just before, during or just after a fall: it never hides the loss."""
    begin = event_time(rng)
    desk = Desk(rng, loss=rng.uniform(0.22, 0.4), begin=begin, lasts=rng.uniform(0.0, 3.0))
    desk.deposit(begin + rng.choice([0.1, 4.5, 8.0]), rng.uniform(0.1, 1.0), rng.choice(LAGS))
    return desk.setup()


@family("transfer out before a crash", "0-2 s")
def out_before_crash(rng: Random) -> Setup:
    """Money leaves, and seconds later the rest of it loses."""
    begin = event_time(rng)
    desk = Desk(rng, loss=loss_fraction(rng), begin=begin, lasts=rng.uniform(0.0, 3.0))
    desk.out(begin - rng.uniform(0.5, 20.0), rng.uniform(0.05, 0.3), rng.choice(LAGS))
    return desk.setup()


def spot(rng: Random, *, loss: float = 0.0, begin: float = 0.0, lasts: float = 0.0) -> tuple[World, Book, float]:
    """A spot account: BTC and ETH held, and some USDT."""
    world, equity = World(DAY), float(rng.choice([30_000, 200_000]))
    held = rng.uniform(0.5, 0.9)
    moves: list[Move] = [(begin, begin + lasts, -loss / held)] if loss else []
    share = rng.uniform(0.3, 0.9)
    wallets: dict[str, float | str | Decimal] = {"USDT": equity * (1 - held)}
    book = Book(world, "main", wallets, market="spot")
    for asset, first, part in (("BTC", 60_000.0, share), ("ETH", 3_000.0, 1 - share)):
        path = world.prices[asset] = walk(rng, first, DAY, CALM, moves)
        book.wallets[asset] = round(Decimal(str(equity * held * part / first)), 6)
        book.list(f"{asset}/USDT", path, step=Decimal("0.00001"))
    return world, book, equity


def spot_view(rng: Random, **more: object) -> View:
    return view(rng, form=rng.choice(["full", "amounts"]), **more)


@family("spot: money comes and goes")
def spot_flows(rng: Random) -> Setup:
    """Deposits and withdrawals of cash and of coins, rows 0.5-61 s late or never."""
    world, book, equity = spot(rng)
    t = 20.0
    for _ in range(rng.randint(1, 4)):
        coin, lag = rng.choice(["USDT", "BTC"]), rng.choice(LAGS)
        most = float(book.wallets[coin]) * (1.0 if coin == "USDT" else 60_000) * 0.24
        sign = rng.choice([-1, 1])
        value = rng.uniform(0.2, 1.0) * most if sign < 0 else rng.uniform(0.1, 0.8) * equity
        amount = sign * value / (1.0 if coin == "USDT" else 60_000)
        kind = "withdrawal" if sign < 0 else "deposit"
        world.at(
            t, lambda now, k=kind, a=amount, c=coin, g=lag: book.flow(now, k, a, asset=c, lag=g),
            f"{kind} of {value / equity:.1%} in {coin}, row {lag:g} s after it",
        )  # fmt: skip
        t += rng.uniform(1.0, 40.0)
    return Setup(world, {"main": spot_view(rng)})


@family("spot crash", "0-2 s")
def spot_crash(rng: Random) -> Setup:
    """What is held falls."""
    world, _, _ = spot(rng, loss=loss_fraction(rng), begin=event_time(rng), lasts=rng.uniform(0.0, 20.0))
    return Setup(world, {"main": spot_view(rng)})


@family("spot trades")
def spot_trades(rng: Random) -> Setup:
    """Buys and sells at the market, fees in a third coin or in the bought one; rows late or never."""
    world, book, equity = spot(rng)
    world.prices["BNB"] = walk(rng, 600.0, DAY, CALM)
    book.wallets["BNB"] = Decimal(str(round(equity * 0.02 / 600, 4)))
    fee_asset = rng.choice(["BNB", None])
    t = 20.0
    for k in range(6):
        lag = rng.choice([0.5, 2.0, 15.0, NEVER])
        share = rng.uniform(0.05, 0.2)
        world.at(
            t,
            lambda now, s=("sell", "buy")[k % 2], n=equity * share / 60_000, g=lag: book.trade(
                now, "BTC/USDT", s, n, slip=rng.uniform(0, 0.001), lag=g, fee=0.001, fee_asset=fee_asset
            ),
            f"spot trade of {share:.0%}, row {lag:g} s after it",
        )
        t += rng.uniform(1.0, 20.0)
    return Setup(world, {"main": spot_view(rng)})
