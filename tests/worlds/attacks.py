"""Families that an attacker of the rule would try, and the rarer things that venues do.

Importing this module completes `FAMILIES`.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from random import Random

from tests.worlds.bookings import split_contracts
from tests.worlds.families import (
    BTC,
    CALM,
    DAY,
    ETH,
    FAMILIES,
    FIRST,
    LAGS,
    SOL,
    Desk,
    coins,
    event_time,
    family,
    known_lag,
    loss_fraction,
    moving,
    spot,
    spot_view,
    stopped,
    view,
)
from tests.worlds.judge import Setup
from tests.worlds.world import GRID, NEVER, Book, World, exact, walk

SEEN = (0.5, 2.0, 15.0)
"""Lags of fills that come before the rule has to choose without them."""

INVERSE, CALL, DOGE = "BTC/USD:BTC", "BTC/USD:BTC-240329-60000-C", "DOGE/USDT:USDT"
OTHERS = ("XRP/USDT:USDT", "ADA/USDT:USDT", "DOT/USDT:USDT")
"""What account A holds beside B: a symbol has one mark, wherever it is held."""

# Rarer things that venues do


@family("early rows")
def early(rng: Random) -> Setup:
    """The row is dated and visible up to 30 s before the money moves."""
    desk = moving(rng)
    desk.out(t := event_time(rng), rng.uniform(0.05, 0.5), -rng.uniform(0.5, 30.0), "transfer")
    if rng.random() < 0.5:
        desk.deposit(t + rng.uniform(0.5, 40.0), rng.uniform(0.05, 0.5), -rng.uniform(0.5, 30.0))
    return desk.setup(view(rng, poll=rng.uniform(2.0, 20.0)))


@family("early rows before a crash", "0-2 s")
def early_crash(rng: Random) -> Setup:
    """A withdrawal is announced, the book falls, and then the money leaves: the row must not explain the fall."""
    begin = event_time(rng)
    loss = loss_fraction(rng)
    desk = Desk(rng, loss=loss, begin=begin, lasts=rng.uniform(0.0, 3.0))
    lead = rng.uniform(4.0, 20.0)
    desk.out(begin + lead, loss * rng.uniform(0.9, 1.1), -lead - rng.uniform(0.5, 8.0))
    return desk.setup(view(rng, poll=2.0))


@family("rows twice")
def doubled(rng: Random) -> Setup:
    """Every row is shown twice under one id, and again after a restart."""
    desk = moving(rng, gross=rng.uniform(1.0, 3.0))
    t = event_time(rng)
    desk.out(t, rng.uniform(0.05, 0.4), rng.choice(SEEN))
    desk.deposit(t + rng.uniform(1, 30), rng.uniform(0.05, 0.4), rng.choice(SEEN))
    desk.cut(t + rng.uniform(1, 30), BTC, 0.5, lag=rng.choice(SEEN))
    restarts = [(t + 40, t + 45)] if rng.random() < 0.5 else []
    return desk.setup(view(rng, doubled=1.0), restarts=restarts)


@family("conversions")
def conversions(rng: Random) -> Setup:
    """10-60% of the wallet is swapped for BTC and back; no row reports it, and small fees are paid."""
    desk = moving(rng)
    desk.world.prices["BTC"] = desk.book.contracts[BTC].path
    t = 20.0
    for k in range(rng.randint(1, 4)):
        share, cost = rng.uniform(0.1, 0.6), rng.uniform(0.0, 0.002)

        def act(now: float, there: bool = k % 2 == 0, share: float = share, cost: float = cost) -> None:
            if there:
                desk.book.convert(now, "USDT", "BTC", desk.equity * share, cost=cost)
            else:
                desk.book.convert(now, "BTC", "USDT", desk.book.wallets.get("BTC", Decimal(0)), cost=cost)

        desk.world.at(t, act, f"{share:.0%} converted, no row")
        t += rng.uniform(3.0, 40.0)
    return desk.setup()


@family("borrowed and converted, then a crash", "0-2 s")
def borrowed(rng: Random) -> Setup:
    """Cash is borrowed for coins (a wallet below zero), and the coins fall."""
    world, equity, t = World(DAY), 100_000.0, 20.0
    share = rng.uniform(1.2, 2.0)
    begin = event_time(rng)
    world.prices["BTC"] = walk(
        rng, 60_000, DAY, CALM, [(begin, begin + rng.uniform(0, 10), -loss_fraction(rng) / share)]
    )
    book = Book(world, "main", {"USDT": equity, "BTC": 0})
    book.list(ETH, walk(rng, FIRST[ETH], DAY, CALM))
    book.open(ETH, "long", equity * 0.3)
    world.at(t, lambda now: book.convert(now, "USDT", "BTC", equity * share), f"{share:.0%} converted on credit")
    return Setup(world, {"main": view(rng)})


@family("fees in a third coin")
def third_coin(rng: Random) -> Setup:
    """A busy bot pays its fees in BNB; they cost 1-3% in all, rows late."""
    desk = moving(rng)
    desk.world.prices["BNB"] = walk(rng, 600.0, DAY, CALM)
    desk.book.wallets["BNB"] = exact(desk.equity * 0.06 / 600)
    lag, count = rng.choice(SEEN), 40
    size = desk.equity * rng.uniform(0.3, 0.8)
    fee = rng.uniform(0.01, 0.03) * desk.equity / size / count

    def act(now: float, side: str) -> None:
        desk.book.trade(now, SOL, side, size / FIRST[SOL], fee=fee, fee_asset="BNB", lag=lag)  # type: ignore[arg-type]  # a side by the caller

    for k in range(count):
        desk.world.at(20 + 3 * k + rng.random(), lambda now, s=("buy", "sell")[k % 2]: act(now, s))
    return desk.setup()


@family("interest and rebates")
def interest(rng: Random) -> Setup:
    """Interest, fees, rebates and insurance, 0.01-0.5% each, rows late or never."""
    desk = moving(rng)
    t = 15.0
    while t < 150:
        kind = rng.choice(["interest", "fee", "rebate", "insurance", "funding"])
        sign = -1 if kind in ("interest", "fee") else 1 if kind != "funding" else rng.choice([-1, 1])
        amount, lag = sign * desk.equity * rng.choice([0.0001, 0.001, 0.004]), rng.choice(LAGS)
        desk.world.at(
            t, lambda now, k=kind, a=amount, g=lag: desk.book.flow(now, k, a, lag=g), f"{kind} {amount:,.0f}"
        )  # fmt: skip
        t += rng.uniform(10, 40)
    return desk.setup()


@family("haircut steps")
def haircut(rng: Random) -> Setup:
    """The venue lends less on BTC collateral than before; its value does not change."""
    world, equity = World(DAY), 200_000.0
    world.prices["BTC"] = walk(rng, 60_000, DAY, CALM)
    book = Book(world, "main", {"USDT": equity * 0.3, "BTC": equity * 0.7 / 60_000})
    book.list(ETH, walk(rng, FIRST[ETH], DAY, CALM))
    book.open(ETH, "long", equity)
    book.haircuts["BTC"] = [(0.0, Decimal("0.05")), (event_time(rng), Decimal("0.3"))]
    return Setup(world, {"main": view(rng)})


@family("delivery and sweep")
def delivered(rng: Random) -> Setup:
    """A future expires near its mark, and what it had tied up leaves; the rows are late."""
    desk = moving(rng, gross=rng.uniform(1.6, 3.5))
    desk.cut(t := event_time(rng), BTC, 1.0, slip=rng.uniform(-0.003, 0.003), lag=rng.choice(SEEN), cause="delivery")
    desk.out(t + rng.uniform(0, 3), rng.uniform(0.1, 0.4), rng.choice(LAGS))
    return desk.setup()


@family("split")
def split(rng: Random) -> Setup:
    """Every contract becomes ten at a tenth of the mark."""
    desk = moving(rng)
    i = int(event_time(rng) / GRID)
    at = i * GRID
    path = walk(rng, 600.0, DAY, CALM, [(at, at, -0.9)])
    desk.book.list("BNB/USDT:USDT", path)
    desk.book.open("BNB/USDT:USDT", "long", desk.equity * rng.uniform(0.5, 3.0))
    desk.world.at(at - 2e-10, lambda now: split_contracts(desk.book, now, "BNB/USDT:USDT", Fraction(10)), "split 1:10")
    if rng.random() < 0.5:
        desk.out(at + rng.uniform(-1.0, 2.0), rng.uniform(0.05, 0.3), rng.choice(LAGS))
    return desk.setup(view(rng, skew=0.02))


# Portfolios


def two(rng: Random, loss: float) -> tuple[Desk, Desk, float]:
    """Accounts A and B; B loses `loss` of both together at the returned instant."""
    world, begin = World(DAY), event_time(rng)
    a = Desk(rng, world=world, name="A", gross=rng.uniform(0.5, 1.5), symbols=OTHERS)
    equity = a.equity * rng.uniform(1.0, 4.0)
    share = loss * (a.equity + equity) / equity
    lasts = rng.uniform(0.0, 8.0)
    b = Desk(rng, world=world, name="B", equity=equity, gross=3.0, loss=share, begin=begin, lasts=lasts)
    return a, b, begin


def transfers(rng: Random, a: Desk, b: Desk, begin: float) -> None:
    """Money goes from one to the other and perhaps back, legs seconds apart, some rows late or never."""
    for _ in range(rng.randint(1, 3)):
        source, goal = (a, b) if rng.random() < 0.6 else (b, a)
        amount = min(a.equity, b.equity) * rng.uniform(0.05, 0.25)
        t = begin + rng.uniform(-15.0, 15.0)
        fee = rng.choice([0.0, 0.001, 0.005])
        lags = rng.choice([(0.5, 0.5), (1.0, NEVER), (NEVER, 1.0), (15.0, 2.0), (2.0, 15.0)])
        world = source.world
        world.at(
            t, lambda now, s=source, x=amount, g=lags[0]: s.book.flow(now, "transfer", -x, lag=g, transit=True),
            f"{amount:,.0f} leave {source.book.name}, rows {lags}",
        )  # fmt: skip
        world.at(
            t + rng.uniform(0.0, 10.0),
            lambda now, g=goal, x=amount * (1 - fee), y=lags[1]: g.book.flow(now, "transfer", x, lag=y, transit=True),
            f"{amount * (1 - fee):,.0f} reach {goal.book.name}",
        )


@family("portfolio: A to B while B loses", "0-2 s")
def together_lose(rng: Random) -> Setup:
    """Together they lose: what is on its way neither hides nor adds to it."""
    a, b, begin = two(rng, rng.uniform(0.14, 0.25))
    a.world.together()
    transfers(rng, a, b, begin)
    return Setup(a.world, {"A": view(rng), "B": view(rng)}, scope="portfolio")


@family("portfolio: A to B, a small loss")
def together_calm(rng: Random) -> Setup:
    """Together they lose at most half of the threshold."""
    a, b, begin = two(rng, rng.uniform(0.0, 0.05))
    a.world.together()
    transfers(rng, a, b, begin)
    return Setup(a.world, {"A": view(rng), "B": view(rng)}, scope="portfolio")


@family("accounts: A to B while B loses", "0-2 s")
def separately_lose(rng: Random) -> Setup:
    """Each account by itself: B loses while money comes to it, A only gives."""
    world, begin = World(DAY), event_time(rng)
    a = Desk(rng, world=world, name="A", gross=0.5, symbols=OTHERS)
    b = Desk(rng, world=world, name="B", loss=rng.uniform(0.2, 0.35), begin=begin, lasts=rng.uniform(0.0, 8.0))
    amount = min(a.equity, b.equity) * rng.uniform(0.05, 0.5)
    t, lags = begin + rng.uniform(-8.0, 8.0), rng.choice([(1.0, NEVER), (NEVER, 1.0), (0.5, 15.0)])
    world.at(t, lambda now: a.book.flow(now, "transfer", -amount, lag=lags[0], transit=True), f"{amount:,.0f} leave A")
    t += rng.uniform(0.0, 6.0)
    world.at(t, lambda now: b.book.flow(now, "transfer", amount, lag=lags[1], transit=True), "and reach B")
    return Setup(world, {"A": view(rng), "B": view(rng)})


@family("portfolio: one venue down, the other loses", "0-2 s")
def one_down(rng: Random) -> Setup:
    """A does not answer while B loses more than any price of A could make up for: A holds 0.3 times its equity in BTC.

    A's BTC is B's BTC, so that B's marks bound what A has lost.
    """
    world, begin = World(DAY), event_time(rng)
    own, other = 100_000.0, 100_000.0 * rng.uniform(1.5, 4.0)
    change = -rng.uniform(0.25, 0.35) * (own + other) / (other * 3.0)
    path = walk(rng, FIRST[BTC], DAY, CALM, [(begin, begin + rng.uniform(0.0, 8.0), change)])
    for name, equity, gross in (("A", own, 0.3), ("B", other, 3.0)):
        book = Book(world, name, {"USDT": equity})
        book.list(BTC, path)
        book.open(BTC, "long", equity * gross)
    world.together()
    down = [(begin - rng.uniform(1.0, 20.0), begin + rng.uniform(20.0, 60.0))]
    return Setup(world, {"A": view(rng, down=down), "B": view(rng)}, scope="portfolio", still_seen=True)


# Attacks


@family("attack: profit taken and swept")
def profit_swept(rng: Random) -> Setup:
    """A winner is closed and its profit leaves at once."""
    desk = moving(rng, gross=1.0)
    t, gain, size = event_time(rng), rng.uniform(0.05, 0.2), rng.uniform(1.0, 2.0)
    desk.book.list("DOGE/USDT:USDT", walk(rng, 100.0, DAY, CALM, [(15.0, t - 5.0, gain)]))
    desk.book.open("DOGE/USDT:USDT", "long", desk.equity * size)
    desk.cut(t, "DOGE/USDT:USDT", 1.0, slip=rng.uniform(0, 0.001), lag=rng.choice(SEEN))
    desk.out(t + rng.uniform(0, 1), gain * size, rng.choice(LAGS))
    return desk.setup()


@family("attack: stops fill harmlessly, and a sweep")
def stops_and_sweep(rng: Random) -> Setup:
    """Stops fill in a fall that costs 3-6%, and a bot sweeps a part of what is free."""
    desk = stopped(rng, rng.choice(SEEN), loss=rng.uniform(0.03, 0.055), slips=0.002)
    desk.out(event_time(rng), rng.uniform(0.05, 0.4), rng.choice(LAGS))
    return desk.setup(view(rng, hurried=1.0))


@family("attack: sold just before a gap")
def sold_before(rng: Random) -> Setup:
    """Everything is sold, and within the same tick the marks fall by 5-15%: nothing is lost, and rows say so late."""
    begin = event_time(rng)
    desk = Desk(rng, loss=rng.uniform(0.15, 0.35), begin=begin)
    lag = rng.choice(SEEN)
    for symbol in (BTC, ETH):
        desk.cut(begin - rng.uniform(0.2, 0.8), symbol, 1.0, slip=rng.uniform(0, 0.001), lag=lag)
    return desk.setup(view(rng, hurried=1.0))


@family("attack: exactly the unrealised loss leaves")
def loss_leaves(rng: Random) -> Setup:
    """A position that has lost 4-6% of equity is closed, and the same amount is withdrawn in the same tick."""
    loss = rng.uniform(0.04, 0.06)
    desk = Desk(rng, loss=loss, begin=15.0, lasts=5.0, vol=CALM / 4)
    desk.cut(t := event_time(rng), BTC, 1.0, lag=rng.choice(SEEN))
    desk.cut(t, ETH, 1.0, lag=rng.choice(SEEN))
    desk.out(t + rng.uniform(0, 0.5), loss, rng.choice(LAGS))
    return desk.setup()


@family("attack: a deposit of exactly the loss", "0-2 s")
def loss_refilled(rng: Random) -> Setup:
    """A top-up bot replaces what the fall takes, in the same tick; the row is late or never comes."""
    loss, begin = rng.uniform(0.2, 0.4), event_time(rng)
    desk = Desk(rng, loss=loss, begin=begin, lasts=rng.choice([0.0, 2.0]))
    desk.deposit(begin + rng.uniform(0.05, 0.6), loss, rng.choice(LAGS))
    return desk.setup()


@family("attack: top-ups through a grinding fall", "0-2 s")
def refilled(rng: Random) -> Setup:
    """The same every few seconds through a slow fall: equity is never seen to be lower."""
    loss = rng.uniform(0.2, 0.35)
    desk = Desk(rng, loss=loss, begin=20.0, lasts=100.0)
    lag, each = rng.choice(LAGS), rng.uniform(2.0, 8.0)
    for k in range(int(100 / each)):
        desk.deposit(20 + each * k, loss * each / 100, lag)
    return desk.setup()


@family("attack: positions moved to another account")
def given(rng: Random) -> Setup:
    """A position goes to another account at its mark with its margin; no fill reports it, and the row is late."""
    desk = moving(rng, gross=rng.uniform(1.6, 3.5))
    t = event_time(rng)
    desk.world.at(t, lambda now: desk.book.give(now, BTC, "long"), "the BTC position is moved away")
    if rng.random() < 0.7:
        desk.out(t + rng.uniform(0, 2), rng.uniform(0.05, 0.4), rng.choice(SEEN), "transfer")
    return desk.setup()


@family("attack: old answers around a transfer")
def old_answers(rng: Random) -> Setup:
    """A load balancer's other node answers now and then with what was some seconds ago."""
    desk = moving(rng)
    t = event_time(rng)
    desk.out(t, rng.uniform(0.08, 0.5), rng.choice(LAGS))
    desk.deposit(t + rng.uniform(5, 60), rng.uniform(0.08, 0.5), rng.choice(LAGS))
    return desk.setup(view(rng, old_answers=(rng.uniform(0.1, 0.4), 8.0)))


@family("attack: old answers in a crash")
def old_crash(rng: Random) -> Setup:
    """The same while the book falls: at most a few ticks more."""
    desk = Desk(rng, loss=loss_fraction(rng), begin=event_time(rng), lasts=rng.uniform(0, 10))
    return desk.setup(view(rng, old_answers=(rng.uniform(0.1, 0.4), 8.0)), allowed=9.0)


def _out_unseen(rng: Random) -> tuple[Desk, tuple[float, float]]:
    """10-60% leaves while nobody polls, perhaps with a position closed; from when to when that is."""
    desk = moving(rng, gross=rng.uniform(1.0, 3.0))
    dies = event_time(rng)
    gap = rng.uniform(4.0, 45.0)
    if rng.random() < 0.6:
        desk.cut(dies + gap * rng.uniform(0.1, 0.5), BTC, rng.choice([0.5, 1.0]), lag=rng.choice(SEEN))
    desk.out(dies + gap * rng.uniform(0.5, 0.95), rng.uniform(0.1, 0.6), rng.choice(LAGS))
    return desk, (dies, dies + gap)


@family("attack: money leaves while no runner lives")
def out_in_gap(rng: Random) -> Setup:
    """The runner is restarted, and in between 10-60% left, perhaps with a position closed."""
    desk, unseen = _out_unseen(rng)
    return desk.setup(restarts=[unseen])


@family("attack: money leaves while the venue is down")
def out_in_outage(rng: Random) -> Setup:
    """The same with an outage of the venue."""
    desk, unseen = _out_unseen(rng)
    return desk.setup(view(rng, down=[unseen]))


@family("attack: money leaves while positions are unknown")
def out_unknown(rng: Random) -> Setup:
    """Positions cannot be read, equity can, and 10-60% leaves."""
    desk = moving(rng)
    t = event_time(rng)
    desk.out(t + rng.uniform(1, 20), rng.uniform(0.1, 0.6), rng.choice(LAGS))
    return desk.setup(view(rng, positions_unknown=[(t, t + rng.uniform(25, 60))]))


@family("attack: a slow bleed of withdrawals")
def bleed(rng: Random) -> Setup:
    """0.5-2% leaves every 9-20 s, and no row ever comes: never five within 12 s."""
    desk = moving(rng)
    t = 12.0
    while t < 170:
        desk.out(t, rng.uniform(0.005, 0.02), NEVER)
        t += rng.uniform(9.0, 20.0)
    return desk.setup()


@family("attack: a busy bot, and a withdrawal")
def busy_and_out(rng: Random) -> Setup:
    """The book trades several times its equity around a withdrawal of 10-40%; fills are seen, its row perhaps not."""
    desk = moving(rng)
    lag, t = rng.choice([0.5, 2.0, 8.0]), event_time(rng)
    for k in range(30):
        size = desk.equity * rng.uniform(0.3, 1.0) / FIRST[SOL]
        desk.world.at(
            t - 20 + 1.3 * k,
            lambda now, s=("buy", "sell")[k % 2], n=size: desk.book.trade(
                now, SOL, s, n, slip=0.0002, fee=0.0002, lag=lag
            ),
        )
    desk.out(t, rng.uniform(0.1, 0.4), rng.choice(LAGS))
    return desk.setup(view(rng, hurried=1.0))


@family("attack: a withdrawal in the middle of a fall that is harmless")
def out_in_fall(rng: Random) -> Setup:
    """Marks cost 5-7% while 5-40% leaves, in the same seconds."""
    begin = event_time(rng)
    desk = Desk(rng, loss=rng.uniform(0.05, 0.07), begin=begin, lasts=rng.uniform(0, 8), vol=CALM / 4)
    desk.out(begin + rng.uniform(-2, 8), rng.uniform(0.05, 0.4), rng.choice(LAGS))
    return desk.setup()


@family("attack: funding eats the book")
def funding_loss(rng: Random) -> Setup:
    """Extreme funding takes 12-20% in three payments; only its rows can show it."""
    desk = Desk(rng, gross=rng.uniform(2.0, 4.0))
    lag = rng.uniform(0.5, 10.0)
    each = desk.equity * rng.uniform(0.13, 0.2) / 3
    for k in range(3):
        desk.world.at(30 + 20 * k, lambda now: desk.book.flow(now, "funding", -each, lag=lag), f"funding -{each:,.0f}")
    return desk.setup(view(rng, hurried=1.0), allowed=lag + 3.5)


@family("noisy crash", "0-2 s")
def noisy_crash(rng: Random) -> Setup:
    """A real fall at a venue whose equity swings."""
    desk = Desk(rng, loss=rng.uniform(0.18, 0.35), begin=event_time(rng), lasts=rng.uniform(0, 10))
    return desk.setup(view(rng, noise=rng.uniform(0.002, 0.01), noise_in_profit=rng.random() < 0.5), allowed=3.5)


@family("close and sweep, no rows at all", "a choice", false_allowed=1.0)
def blind_sweep(rng: Random) -> Setup:
    """Neither the fills nor the transfer ever get a row: looks as stops that slip do. The rule chooses."""
    desk = moving(rng, gross=rng.uniform(1.6, 4.5))
    desk.cut(t := event_time(rng), BTC, rng.choice([0.5, 1.0]), lag=NEVER)
    desk.out(t + rng.uniform(0, 1), rng.uniform(0.1, 0.3), NEVER)
    return desk.setup()


@family("spot: coins bought on the way of a crash", "0-2 s")
def spot_buys(rng: Random) -> Setup:
    """The book buys what falls, rows late."""
    begin = event_time(rng)
    world, book, equity = spot(rng, loss=rng.uniform(0.2, 0.35), begin=begin, lasts=rng.uniform(2, 20))
    size, lag = equity * 0.02 / 60_000, rng.choice(SEEN)
    for k in range(4):
        world.at(begin + 1.5 * k, lambda now: book.trade(now, "BTC/USDT", "buy", size, fee=0.001, lag=lag))
    return Setup(world, {"main": spot_view(rng)}, allowed=3.5)


# Two things at once


@family("stops fill while no runner lives", "0-2 s")
def stops_in_gap(rng: Random) -> Setup:
    """The book is stopped out between the old runner's last poll and the new one's first; rows late."""
    desk = stopped(rng, rng.choice([1.0, 10.0, 30.0]), loss=loss_fraction(rng), lasts=0.0, slips=0.01)
    begin = desk.begin
    return desk.setup(
        view(rng, hurried=1.0), restarts=[(begin - rng.uniform(0.5, 4.0), begin + rng.uniform(1.0, 20.0))]
    )


@family("stops fill while the venue is down", "0-2 s")
def stops_in_outage(rng: Random) -> Setup:
    """The same with an outage of the venue."""
    desk = stopped(rng, rng.choice([1.0, 10.0, 30.0]), loss=loss_fraction(rng), lasts=0.0, slips=0.01)
    begin = desk.begin
    down = [(begin - rng.uniform(0.5, 4.0), begin + rng.uniform(1.0, 20.0))]
    return desk.setup(view(rng, hurried=1.0, down=down))


@family("coins leave the collateral")
def coins_leave(rng: Random) -> Setup:
    """BTC is withdrawn or deposited where BTC is the collateral, and its price drifts; rows are in BTC."""
    world, book, _ = coins(rng, rng.uniform(0.0, 0.045), 10.0, 120.0)
    held = float(book.wallets["BTC"])
    for _ in range(rng.randint(1, 3)):
        amount, lag = held * rng.choice([-1.0, -1.0, 1.0]) * rng.uniform(0.08, 0.25), rng.choice(LAGS)
        kind = "deposit" if amount > 0 else "withdrawal"
        world.at(
            rng.uniform(15.0, 110.0), lambda now, k=kind, a=amount, g=lag: book.flow(now, k, a, asset="BTC", lag=g),
            f"{kind} of {amount / held:.1%} of the BTC, row {lag:g} s after it",
        )  # fmt: skip
    return Setup(world, {"main": view(rng)})


def coin_margined(rng: Random, *, gross: float, fall: float = 0.0) -> tuple[World, Book, float]:
    """A BTC account, in BTC or USD, long the inverse perpetual; `fall` of BTC from 10 to 20 s."""
    world = World(DAY)
    path = walk(rng, 60_000, DAY, CALM, [(10.0, 20.0, -fall)], digits=1)
    world.prices["BTC"] = path
    currency = rng.choice(["BTC", "USD"])
    book = Book(world, "main", {"BTC": rng.uniform(0.5, 20.0)}, currency=currency)
    held = float(book.wallets["BTC"])
    book.list(INVERSE, path, settle="BTC", size=Decimal(100), inverse=True, step=Decimal(1))
    book.open(INVERSE, "long", held * gross * (1 if currency == "BTC" else 60_000))
    return world, book, held


@family("inverse: close and sweep")
def inverse_sweep(rng: Random) -> Setup:
    """A coin-margined position is closed, and coins leave at once."""
    gross = rng.uniform(1.0, 3.0)
    world, book, held = coin_margined(rng, gross=gross, fall=rng.uniform(0.0, 0.04) / (gross + 1))
    t, share, lag = event_time(rng), rng.uniform(0.08, 0.4), rng.choice(LAGS)
    seen = rng.choice(SEEN)
    world.at(t, lambda now: book.trade(now, INVERSE, "sell", book.net(INVERSE), slip=0.0003, lag=seen), "closed")
    world.at(
        t + rng.uniform(0, 1), lambda now: book.flow(now, "transfer", -held * share, asset="BTC", lag=lag),
        f"{share:.1%} leaves, row {lag:g} s after it",
    )  # fmt: skip
    return Setup(world, {"main": view(rng)})


@family("hedge mode: a leg closed and swept")
def hedge_sweep(rng: Random) -> Setup:
    """One leg of a hedge is closed at the market, and its margin leaves."""
    desk = Desk(rng, hedge=True, gross=rng.uniform(2.0, 5.0), loss=rng.uniform(0, 0.04), begin=10.0, lasts=20.0)
    t, seen = event_time(rng), rng.choice(SEEN)
    side = rng.choice(["long", "short"])
    held = desk.book.holdings[BTC, side].contracts  # type: ignore[index]  # one of the two
    order = "sell" if side == "long" else "buy"
    desk.world.at(
        t, lambda now: desk.book.trade(now, BTC, order, held, position_side=side, slip=0.0003, lag=seen),  # type: ignore[arg-type]  # one of the two
        f"the {side} leg is closed, row {seen:g} s after it",
    )  # fmt: skip
    desk.out(t + rng.uniform(0, 1), rng.uniform(0.08, 0.4), rng.choice(LAGS))
    return desk.setup()


@family("inverse: sold without a fill and swept")
def inverse_unreported(rng: Random) -> Setup:
    """A little of a coin-margined position is sold, its fill 20 s late or never, and a far larger amount leaves."""
    gross = rng.uniform(1.0, 3.0)
    world, book, held = coin_margined(rng, gross=gross, fall=rng.uniform(0.0, 0.03) / (gross + 1))
    t, sold, seen = event_time(rng), rng.uniform(0.01, 0.15), rng.choice([20.0, NEVER])
    share, lag = rng.uniform(0.12, 0.4), rng.choice(LAGS)

    def sell(now: float) -> None:
        count = held * sold * 60_000 / 100
        book.trade(now, INVERSE, "sell", count, slip=0.0003, lag=seen)

    world.at(t, sell, f"{sold:.1%} of the equity sold, row {seen:g} s after it")
    world.at(
        t + rng.uniform(0, 1), lambda now: book.flow(now, "transfer", -held * share, asset="BTC", lag=lag),
        f"{share:.1%} leaves, row {lag:g} s after it",
    )  # fmt: skip
    return Setup(world, {"main": view(rng)})


@family("options: sold beside them and swept")
def options_swept(rng: Random) -> Setup:
    """Options whose notional is the underlying lose a little of their premium while the future beside them is sold."""
    world, book, held = coin_margined(rng, gross=rng.uniform(0.05, 0.3))
    t, seen, lag = event_time(rng), rng.choice([2.5, 20.0, NEVER]), rng.choice(LAGS)
    premium, value = 0.02, rng.uniform(0.05, 0.3)
    path = walk(rng, premium, DAY, 0.0, [(t, t, -rng.uniform(0.02, 0.1))], digits=5)
    book.list(CALL, path, settle="BTC", step=Decimal("0.1"), option=True)
    rate = 1 if book.currency == "BTC" else 60_000
    book.open(CALL, "long", held * value * rate)
    world.at(
        t, lambda now: book.trade(now, INVERSE, "sell", book.net(INVERSE) * Decimal("0.2"), lag=seen),
        f"a fifth of the future sold, row {seen:g} s after it",
    )  # fmt: skip
    if rng.random() < 0.7:
        share = rng.uniform(0.08, 0.3)
        world.at(
            t + rng.uniform(0, 1), lambda now: book.flow(now, "transfer", -held * share, asset="BTC", lag=lag),
            f"{share:.1%} leaves, row {lag:g} s after it",
        )  # fmt: skip
    return Setup(world, {"main": view(rng)})


@family("options fall beside a trade", "0-2 s")
def options_fall(rng: Random) -> Setup:
    """The premium falls by half or more in the second in which the future beside it is sold."""
    world, book, held = coin_margined(rng, gross=rng.uniform(0.05, 0.3))
    t, seen, loss, value = event_time(rng), rng.choice([2.5, 20.0, NEVER]), loss_fraction(rng), rng.uniform(0.4, 0.6)
    book.list(
        CALL, walk(rng, 0.02, DAY, 0.0, [(t, t, -loss / value)], digits=5), settle="BTC", step=Decimal("0.1"),
        option=True,
    )  # fmt: skip
    book.open(CALL, "long", held * value * (1 if book.currency == "BTC" else 60_000))
    world.at(t, lambda now: book.trade(now, INVERSE, "sell", book.net(INVERSE) * Decimal("0.2"), lag=seen), "sold")
    return Setup(world, {"main": view(rng)})


def hedged(rng: Random) -> tuple[Desk, Decimal]:
    """A book that is long and short of the same size in one symbol: prices make nothing of it."""
    desk = Desk(rng, hedge=True, gross=rng.uniform(0.3, 0.6))
    desk.book.list(DOGE, walk(rng, 100.0, DAY, CALM))
    for side in ("long", "short"):
        desk.book.open(DOGE, side, desk.equity * rng.uniform(1.5, 2.0))
    return desk, min(desk.book.holdings[DOGE, side].contracts for side in ("long", "short"))


@family("hedge mode: both legs closed and swept")
def hedge_closed(rng: Random) -> Setup:
    """As much of either leg is closed at the market, with fills, and 8-25% leaves in the same second."""
    desk, count = hedged(rng)
    t, seen, share = event_time(rng), rng.choice(SEEN), Decimal(str(rng.choice([0.3, 1.0])))

    def close(now: float) -> None:
        desk.book.trade(now, DOGE, "sell", count * share, position_side="long", slip=0.0003, lag=seen)
        desk.book.trade(now, DOGE, "buy", count * share, position_side="short", slip=0.0003, lag=seen)

    desk.world.at(t, close, f"{share:.0%} of both legs closed, rows {seen:g} s after it")
    desk.out(t + rng.uniform(0, 0.5), rng.uniform(0.08, 0.25), rng.choice([15.0, 61.0, NEVER]))
    return desk.setup(view(rng, hurried=1.0))


@family("hedge mode: legs slip, only some fills")
def hedge_slips(rng: Random) -> Setup:
    """Both legs close far from the mark; of their fills one is seen, and it is as much as the two legs differ by."""
    desk, count = hedged(rng)
    slip = Decimal(str(loss_fraction(rng))) * Decimal(str(desk.equity)) / (2 * count * 100)
    part = count * Decimal("0.1")

    def close(now: float) -> None:
        desk.book.trade(now, DOGE, "sell", count - part, position_side="long", slip=float(slip), lag=NEVER)
        desk.book.trade(now, DOGE, "buy", count - part, position_side="short", slip=float(slip), lag=NEVER)
        desk.book.trade(now, DOGE, "buy", part, position_side="short", slip=float(slip), lag=0.1)

    desk.world.at(event_time(rng), close, f"both legs closed, slip {slip:.1%}, rows of most never")
    return desk.setup(view(rng, hurried=1.0), allowed=23.0)


@family("positions late: close and sweep")
def late_sweep(rng: Random) -> Setup:
    """The positions' answer is 1-3 s old when a position is closed and its margin leaves."""
    desk = moving(rng, gross=rng.uniform(1.6, 4.5))
    t = event_time(rng)
    desk.cut(t, BTC, rng.choice([0.5, 1.0]), slip=rng.uniform(0, 0.001), lag=rng.choice(SEEN))
    desk.out(t + rng.uniform(0.0, 1.5), rng.uniform(0.08, 0.4), rng.choice(LAGS))
    return desk.setup(view(rng, positions_lag=(1.0, 3.0)))


@family("equity cached: money moves")
def cached_moves(rng: Random) -> Setup:
    """Equity is up to 3 s old while positions are closed and money comes and goes."""
    desk = moving(rng, gross=rng.uniform(1.6, 4.5))
    t = event_time(rng)
    desk.cut(t, BTC, 1.0, slip=rng.uniform(0, 0.001), lag=rng.choice(SEEN))
    desk.out(t + rng.uniform(0.0, 3.0), rng.uniform(0.08, 0.4), rng.choice(LAGS))
    desk.deposit(t + rng.uniform(5.0, 40.0), rng.uniform(0.08, 0.4), rng.choice(LAGS))
    return desk.setup(view(rng, equity_cached=3.0))


@family("spot: coins leave in a crash", "0-2 s")
def spot_out_in_crash(rng: Random) -> Setup:
    """What is held falls, and a part of it is withdrawn in the same seconds."""
    begin = event_time(rng)
    world, book, _ = spot(rng, loss=rng.uniform(0.2, 0.35), begin=begin, lasts=rng.uniform(0.0, 10.0))
    amount, lag = float(book.wallets["BTC"]) * rng.uniform(0.05, 0.4), rng.choice(LAGS)
    world.at(
        begin + rng.uniform(-5.0, 8.0), lambda now: book.flow(now, "withdrawal", -amount, asset="BTC", lag=lag),
        f"{amount:.4f} BTC leave, row {lag:g} s after it",
    )  # fmt: skip
    return Setup(world, {"main": spot_view(rng)})


# Older recordings


@family("old format: crash", "0-2 s")
def old_format_crash(rng: Random) -> Setup:
    """Only equity and the positions' own profits are there."""
    desk = Desk(rng, loss=loss_fraction(rng), begin=event_time(rng), lasts=rng.uniform(0, 10))
    return desk.setup(view(rng, form="old", skew=0.05))


@family("old format: money moves")
def old_format_flows(rng: Random) -> Setup:
    """The same with a transfer out, a deposit or a sweep."""
    desk = moving(rng, gross=rng.uniform(1.0, 3.0))
    t, lag = event_time(rng), rng.choice(LAGS)
    if rng.random() < 0.3:
        desk.deposit(t, rng.uniform(0.1, 1.0), lag)
    else:
        if rng.random() < 0.5:
            desk.cut(t, BTC, 1.0, lag=rng.choice(SEEN))
        desk.out(t + 0.3, rng.uniform(0.1, 0.5), lag)
    return desk.setup(view(rng, form="old", skew=0.05, row_lag_s=known_lag(rng, lag)))


@family("coins' equity only: crash", "0-2 s")
def coins_crash(rng: Random) -> Setup:
    """Each coin's equity is reported, and no wallet."""
    desk = Desk(rng, loss=loss_fraction(rng), begin=event_time(rng), lasts=rng.uniform(0, 10))
    return desk.setup(view(rng, form="coins", skew=0.05))


@family("coins' equity only: money moves")
def coins_flows(rng: Random) -> Setup:
    """The same with money that leaves."""
    desk = moving(rng)
    desk.out(event_time(rng), rng.uniform(0.08, 0.6), rng.choice(LAGS))
    return desk.setup(view(rng, form="coins", skew=0.05))


__all__ = ["FAMILIES"]
