"""The named cases of the latency suite: what happens at the venue, and whether the policy must fire.

A case begins when the book has been quiet for a while. The moment from which it must fire is not written here: the
venue's own ledger distinguishes losses from transfers (`Truth`).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.venue import OrderRequest
from tests.faults.exchange import Mode
from tests.latency.sites import PRICE, THRESHOLD, TICK, Ability, Site
from tests.wire.ledger import NEVER

D = Decimal
Scenario = Callable[[Site], Awaitable[None]]
QUIET: Final = 12.0
"""Seconds for which nothing must happen after a transfer and the appearance of its row."""
LEDGER: Final = 20.0 + TICK
"""Seconds after which a change that is bounded by trades counts as lost, where no row ever appears: counted from its
detection, which is up to a tick after the change."""


class Case(Struct, frozen=True):
    """A scenario at a venue, and the expected outcome. `lasts`: seconds of the scenario, unless an order ends it.

    `fires`: whether the policy must fire, which the venue's ledger has to confirm. `more`: permitted seconds beyond a
    tick and three round trips. `needs`: required abilities of the venue. `by`: whether an order must be sent, or a
    decision is enough. `threshold`: fall of the account `of` at which the policy's threshold is reached.
    """

    name: str
    scenario: Scenario
    lasts: float = 70.0
    fires: bool = True
    more: float = 0.0
    needs: frozenset[Ability] = frozenset()
    by: Literal["order", "decision"] = "order"
    mode: Mode = "one_way"
    pushed: bool = False
    accounts: tuple[str, ...] = ("main",)
    of: str = "main"
    threshold: Decimal = THRESHOLD


CASES: dict[str, Case] = {}


def case(name: str, **more: Any) -> Callable[[Scenario], Scenario]:
    """Register a scenario as a case."""

    def register(scenario: Scenario) -> Scenario:
        CASES[name] = replace(Case(name, scenario), **more)
        return scenario

    return register


def _lag(seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"{seconds:g}s"


# Falls


@case("plain")
async def plain(site: Site) -> None:
    """The longs fall by 26% at once."""
    site.fall(D("0.26"))


@case("grinding")
async def grinding(site: Site) -> None:
    """The longs fall by 26% in twenty steps of a second."""
    for step in range(1, 21):
        site.fall(D("0.013") * step)
        await site.until(step)


@case("equity 3 s old", more=3.0)
async def cached_equity(site: Site) -> None:
    """The venue's answers about equity are three seconds old, those about positions are not."""
    site.wire.ledger.ages["equity"] = 3.0
    await site.until(5)
    site.fall(D("0.26"))


@case("positions 2 s old", more=2.0)
async def late_positions(site: Site) -> None:
    """The longs fall by 3% a second, and positions are reported two seconds late."""
    site.wire.ledger.ages["positions"] = 2.0
    await site.until(5)
    for step in range(1, 8):
        site.fall(D("0.03") * step)
        await site.until(5 + step)


JITTER = tuple(D(each) for each in ("0.001", "-0.0012", "0.0004", "-0.0007", "0.0011", "0", "-0.0009", "0.0013")) * 5
"""The fall of the longs at every half second: an ordinary market."""


async def _jitter(site: Site) -> None:
    """Twenty seconds of an ordinary market, with positions reported a second late."""
    site.wire.ledger.ages["positions"] = 1.0
    for step, fallen in enumerate(JITTER):
        site.fall(fallen)
        await site.until((step + 1) / 2)
    site.fall(D(0))
    await site.until(23)


@case("a bot trades through, positions 1 s old", lasts=80.0)
async def traded_through(site: Site) -> None:
    """After the jitter the longs fall by 26% at once; half a percent of one is bought and sold every half second."""
    await _jitter(site)
    site.fall(D("0.26"))
    for step in range(1, 101):
        await site.until(23 + step / 2)
        site.wire.exchange.trade((site.symbols[0], "long"), D(-3 if step % 2 else 3))


@case("positions stand still", lasts=80.0, more=0.5)
async def positions_stand_still(site: Site) -> None:
    """After the jitter the list of positions never changes again, and the longs fall by 1% every half second.

    The fall stays hidden up to the earlier range of prices, which is less than one step more.
    """
    await _jitter(site)
    for step in range(1, 27):
        site.wire.ledger.ages["positions"] = 1.0 + step / 2
        site.fall(D("0.01") * step)
        await site.until(23 + step / 2)


@case("6% lost, a trade before it, positions 1 s old", lasts=45.0, fires=False)
async def little_lost(site: Site) -> None:
    """After the jitter half a percent of one is bought and a second later the longs fall by 6%: too little to close."""
    await _jitter(site)
    site.wire.exchange.trade((site.symbols[0], "long"), D(3))
    await site.until(24)
    site.fall(D("0.06"))
    await site.until(45)


@case("positions unreadable", by="decision")
async def positions_unreadable(site: Site) -> None:
    """From two seconds before the fall on the positions cannot be polled; equity can."""
    site.wire.failing.add(site.venue.positions_at)
    await site.until(2)
    site.fall(D("0.26"))


@case("one of three down", accounts=("dark", "falling", "still"), of="falling", threshold=D("0.3"))
async def one_of_three_down(site: Site) -> None:
    """Of a portfolio's three accounts one is unavailable, and another one loses 42%: 14% of all."""
    site.wires["dark"].maintenance = True
    await site.until(3)
    site.fall(D("0.42"), "falling")


@case("a stray mark", lasts=QUIET, fires=False, needs=frozenset({"marks"}))
async def stray_mark(site: Site) -> None:
    """The marks of the longs are 26% lower for two seconds; index and last price are not, and there are no trades."""
    for symbol in site.symbols[:2]:
        market = site.wire.exchange.markets[symbol]
        market.index = market.last = PRICE
    site.fall(D("0.26"))
    await site.until(2)
    site.fall(D(0))


# Stops


def _stops(site: Site) -> None:
    """Place stop orders for half of each long, 5% below."""
    for symbol, amount in zip(site.symbols[:2], (300, 200), strict=True):
        site.wire.exchange.rest(
            symbol, "sell", D(amount), reduce_only=True, trigger_price=PRICE * D("0.95"), trigger_when="falls"
        )


def _lag_rows(site: Site, seconds: float) -> None:
    site.wire.ledger.fill_lag = site.wire.ledger.row_lag = seconds


def _stops_fill(lag: float) -> Scenario:
    async def scenario(site: Site) -> None:
        _stops(site)
        await site.until(2)
        _lag_rows(site, lag)
        site.fall(D("0.26"))
        _lag_rows(site, 0.0)

    return scenario


for _seconds in (0.0, 10.0, 30.0, NEVER):
    case(f"stops fill, rows {_lag(_seconds)}")(_stops_fill(_seconds))


@case("stops fill, fills 30s, ledger at once", needs=frozenset({"bills"}))
async def stops_fill_late(site: Site) -> None:
    """The fills are listed half a minute late, and the venue's ledger has them at once."""
    _stops(site)
    await site.until(2)
    site.wire.ledger.fill_lag = 30.0
    site.fall(D("0.26"))
    site.wire.ledger.fill_lag = 0.0


case("stops fill, rows never, pushed", pushed=True, needs=frozenset({"push"}))(_stops_fill(NEVER))


@case("cut in ten clips in a fall, rows never")
async def cut_in_clips(site: Site) -> None:
    """The longs fall by 2% a second, and the owner's bot sells a tenth of each at every step; no list shows that."""
    exchange = site.wire.exchange
    _lag_rows(site, NEVER)
    for step in range(1, 11):
        site.fall(D("0.02") * step)
        for symbol, amount in zip(site.symbols[:2], (60, 40), strict=True):
            sold = OrderRequest(f"{symbol[:3]}{step}", symbol, "sell", "long", D(amount), reduce_only=True)
            exchange.place(sold, by="hand")
        await site.until(step)
    _lag_rows(site, 0.0)


def _wick(lag: float) -> Scenario:
    """The marks fall by 15% and recover before the next poll; the stops of all longs were filled at the bottom."""

    async def scenario(site: Site) -> None:
        for symbol, amount in zip(site.symbols[:2], (600, 400), strict=True):
            site.wire.exchange.rest(
                symbol, "sell", D(amount), reduce_only=True, trigger_price=PRICE * D("0.95"), trigger_when="falls"
            )
        await site.until(2)
        _lag_rows(site, lag)
        site.fall(D("0.15"))
        _lag_rows(site, 0.0)
        site.fall(D(0))

    return scenario


for _seconds in (0.0, 10.0, NEVER):
    case(f"wick through all stops, rows {_lag(_seconds)}", more=min(_seconds, LEDGER))(_wick(_seconds))


# Restarts


def _restart(killed: float, started: float, *, stops: bool = False) -> Scenario:
    """Kill the runner and start a new one, at these seconds relative to the fall."""

    async def scenario(site: Site) -> None:
        if stops:
            _stops(site)
        moments: list[tuple[float, Callable[[], Any]]] = [(killed, site.kill), (started, site.start)]
        moments.append((0.0, lambda: site.fall(D("0.26"))))
        for at, action in sorted(moments, key=lambda it: it[0]):
            await site.until(6 + at)
            pending = action()
            if pending is not None:
                await pending

    return scenario


RESTARTED: Final = 1.0
"""A new runner's first tick may come two seconds after its start, a second later than any other."""
case("restart before the fall", more=RESTARTED)(_restart(-3.0, -1.0))
case("restart during the fall", more=RESTARTED)(_restart(-1.0, 3.0))
case("restart during the fall, stops fill", more=RESTARTED)(_restart(-1.0, 3.0, stops=True))
case("restart after the fall", more=RESTARTED)(_restart(0.05, 4.0))


# Transfers


def _transfer(share: str, lag: float) -> Scenario:
    async def scenario(site: Site) -> None:
        ledger = site.wire.ledger
        ledger.row_lag = lag
        ledger.flow("transfer", (ledger.equity * D(share)).quantize(D("0.01")))
        ledger.row_lag = 0.0

    return scenario


def _duration(lag: float) -> float:
    return 75.0 if math.isinf(lag) else lag + QUIET


for _share, _percent in (("-0.12", 12), ("-0.3", 30)):
    for _seconds in (0.5, 1.0, 15.0, 61.0, NEVER):
        _name = f"{_percent}% out, rows {_lag(_seconds)}"
        case(_name, lasts=_duration(_seconds), fires=False)(_transfer(_share, _seconds))


@case("transfer, then a fall")
async def transfer_then_fall(site: Site) -> None:
    """12% is withdrawn with a row a minute late, and two seconds later the longs fall."""
    await _transfer("-0.12", 61.0)(site)
    await site.until(2)
    site.fall(D("0.26"))


@case("a fall, then a deposit")
async def fall_then_deposit(site: Site) -> None:
    """80% is deposited half a second after the fall, with a row a minute late: no deposit hides a loss."""
    site.fall(D("0.26"))
    await site.until(0.5)
    await _transfer("0.8", 61.0)(site)


@case("close and sweep, rows 15s", lasts=15.0 + QUIET, fires=False)
async def close_and_sweep(site: Site) -> None:
    """The bot closes a position, and withdraws exactly its margin."""
    symbol = site.symbols[0]
    _lag_rows(site, 15.0)
    site.wire.exchange.trade((symbol, "long"), D(-600))
    site.wire.ledger.flow("transfer", D(-12_000))
    _lag_rows(site, 0.0)


@case("flip and sweep, rows 15s", lasts=15.0 + QUIET, fires=False)
async def flip_and_sweep(site: Site) -> None:
    """The bot turns a long into a short, and withdraws 8%."""
    symbol = site.symbols[0]
    _lag_rows(site, 15.0)
    site.wire.exchange.trade((symbol, "long"), D(-600))
    site.wire.exchange.trade((symbol, "short"), D(600))
    site.wire.ledger.flow("transfer", D(-8_000))
    _lag_rows(site, 0.0)


@case("dust out, rows 15s", lasts=15.0 + QUIET + 12.0, fires=False)
async def dust_out(site: Site) -> None:
    """1.5% is withdrawn each second for twelve seconds."""
    for second in range(12):
        await site.until(second)
        await _transfer("-0.015", 15.0)(site)


def _churn(slip: str) -> Scenario:
    """A runaway bot buys and sells the whole account's value each second; no list shows it; flat at every poll."""

    async def scenario(site: Site) -> None:
        symbol, exchange = site.symbols[0], site.wire.exchange
        exchange.markets[symbol].slip = D(slip)
        _lag_rows(site, NEVER)
        for second in range(18):
            await site.until(second)
            exchange.place(OrderRequest(f"in{second}", symbol, "buy", "long", D(1000), reduce_only=False), by="hand")
            exchange.place(OrderRequest(f"out{second}", symbol, "sell", "long", D(1000), reduce_only=True), by="hand")
        exchange.markets[symbol].slip = D("0.0005")
        _lag_rows(site, 0.0)

    return scenario


# Slippage twice, and twice a fee of 0.05% where the venue charges one.
case("churn at 0.8% a second, rows never", more=16.0)(_churn("0.0035"))
case("churn at 1.1% a second, rows never", more=16.0)(_churn("0.005"))
_PAIR: Final[dict[str, Any]] = {"accounts": ("main", "other"), "threshold": D("0.2")}


def _between(fall: str) -> Scenario:
    """A fifth of one watched account goes to the other; it leaves, arrives four seconds later, and is listed then."""

    async def scenario(site: Site) -> None:
        ledgers = [site.wires[name].ledger for name in ("main", "other")]
        ledgers[0].row_lag = ledgers[1].row_lag = 15.0
        ledgers[0].flow("transfer", D(-20_000))
        if fall != "0":
            await site.until(2)
            site.fall(D(fall), "other")
        await site.until(4)
        ledgers[1].flow("transfer", D(20_000))
        ledgers[0].row_lag = ledgers[1].row_lag = 0.0

    return scenario


case("between accounts, rows 15s", lasts=15.0 + QUIET, fires=False, **_PAIR)(_between("0"))
case("between accounts, and a fall", of="other", **_PAIR)(_between("0.26"))


def _spot(share: str, lag: float, fall: str = "0") -> Scenario:
    """Transfer cash of a spot account; where it has too little, coins."""

    async def scenario(site: Site) -> None:
        ledger = site.wire.ledger
        cash = (ledger.equity * D(share)).quantize(D("0.01"))
        ledger.row_lag = lag
        ledger.flow("transfer", cash)
        ledger.row_lag = 0.0
        if fall != "0":
            await site.until(2)
            site.fall(D(fall))

    return scenario


_SPOT: Final[dict[str, Any]] = {"mode": "spot", "needs": frozenset({"spot"})}
case("spot: 80% in, rows 1s", lasts=QUIET, fires=False, **_SPOT)(_spot("0.8", 1.0))
case("spot: 30% out, rows 1s", lasts=QUIET, fires=False, **_SPOT)(_spot("-0.3", 1.0))
case("spot: 30% out, rows 61s", lasts=61.0 + QUIET, fires=False, **_SPOT)(_spot("-0.3", 61.0))
case("spot: 30% out, then a fall", **_SPOT)(_spot("-0.3", 1.0, "0.26"))


# Actions of the venue


@case("collateral falls 0.2% a second", needs=frozenset({"collateral"}))
async def collateral_falls(site: Site) -> None:
    """Nineteen twentieths of the account are a coin, which falls; the positions do not move."""
    for step in range(1, 71):
        site.wire.ledger.price_collateral(site.venue.collateral[0], D(50_000) * (1 - D("0.002") * step))
        site.wire.exchange.markets[site.venue.collateral[1]].price = D(50_000) * (1 - D("0.002") * step)
        await site.until(step)


@case("funding is paid", lasts=QUIET, fires=False, needs=frozenset({"funding"}))
async def funding(site: Site) -> None:
    """The account pays three tenths of a percent of the longs' notional."""
    site.wire.ledger.flow("funding", D(-300), symbol=site.symbols[0])


@case("ADL of one position", lasts=QUIET, fires=False, needs=frozenset({"venue_fills"}))
async def adl(site: Site) -> None:
    """The venue closes the short at its mark; nothing falls."""
    site.wire.exchange.take_away((site.symbols[2], "short"), D(200), "adl")


@case("ADL of one position in a fall", needs=frozenset({"venue_fills"}))
async def adl_in_a_fall(site: Site) -> None:
    """The longs fall by 26%, and the short, which is in profit, is closed at once."""
    site.wire.exchange.reprice(site.symbols[2], PRICE * D("0.95"))
    await site.until(3)
    site.fall(D("0.26"))
    site.wire.exchange.take_away((site.symbols[2], "short"), D(200), "adl")


def _liquidate(site: Site, *symbols: str) -> None:
    """Liquidate at half a percent from the mark, as a venue's own engine does."""
    exchange = site.wire.exchange
    for symbol in symbols:
        side = "long" if symbol in site.symbols[:2] else "short"
        price = exchange.markets[symbol].price * (D("0.995") if side == "long" else D("1.005"))
        exchange.take_away((symbol, side), exchange.held[symbol, side], "liquidation", price)  # type: ignore[index, arg-type] # a side


@case("liquidation of one position", needs=frozenset({"venue_fills"}))
async def liquidation_of_one(site: Site) -> None:
    """The longs fall by 26%, and the venue sells one of them."""
    site.fall(D("0.26"))
    _liquidate(site, site.symbols[0])


@case("liquidation of all positions", needs=frozenset({"venue_fills"}), by="decision")
async def liquidation_of_all(site: Site) -> None:
    """The longs fall by 26%, and the venue closes everything: nothing is left to close, and the account is locked."""
    site.fall(D("0.26"))
    _liquidate(site, *site.symbols)
