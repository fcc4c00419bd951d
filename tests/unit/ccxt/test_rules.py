"""Rules are large: loaded once for all accounts of one system, and renewed beside everything else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal

from killswitch.model.venue import AccountSpec
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.traits import Ages
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.generic import Generic
from tests.faults.exchange import Exchange, Market
from tests.virtual_time import VirtualTime
from tests.wire.binance.venue import BinanceWire
from tests.wire.server import KEY, SECRET

SYMBOL = "BTC/USDT:USDT"


class Plain(Generic):
    """Binance by ccxt's unified calls, its rules young for a minute."""

    exchange = "binanceusdm"
    ages = Ages(rules=60.0)


def _try(
    course: Callable[[VirtualTime, BinanceWire, Callable[[str], CcxtVenue]], Awaitable[None]],
    kind: type[Dialect] = Plain,
) -> None:
    time = VirtualTime()

    async def play() -> None:
        exchange = Exchange({}, lambda: (time.elapsed, time.now()), markets=[Market(SYMBOL)])
        wire = BinanceWire(exchange)
        await wire.start()
        made: list[CcxtVenue] = []

        def account(name: str) -> CcxtVenue:
            credentials = {"key": KEY, "secret": SECRET}
            spec = AccountSpec(name, "ccxt", "swap", "USDT", wire.address, {"clock": time}, credentials)
            made.append(CcxtVenue(spec, kind))
            return made[-1]

        try:
            await course(time, wire, account)
        finally:
            for venue in made:
                await venue.close()
            await wire.stop()

    time.run(play())


def _loads(wire: BinanceWire) -> int:
    return sum(it.ask.path.endswith("/exchangeInfo") for it in wire.seen)


def test_two_accounts_of_one_system_load_its_rules_once() -> None:
    """Also when both ask at the same time; a third one, later, has them at once."""
    import asyncio

    async def course(time: VirtualTime, wire: BinanceWire, account: Callable[[str], CcxtVenue]) -> None:
        first, second = account("first"), account("second")
        seen = await asyncio.gather(first.snapshot(), second.snapshot())
        assert [[it.symbol for it in one.instruments or ()] for one in seen] == [[SYMBOL], [SYMBOL]]
        await account("third").snapshot()
        assert _loads(wire) == 1

    _try(course)


def test_rules_that_cannot_be_taken_over_are_loaded_anew() -> None:
    """Some exchanges of ccxt keep a part of their rules where another client does not find it."""

    async def course(time: VirtualTime, wire: BinanceWire, account: Callable[[str], CcxtVenue]) -> None:
        await account("first").snapshot()
        second = account("second")

        def lost(source: object) -> None:
            raise KeyError("hip3TokensByName")

        second.client.ccxt.set_markets_from_exchange = lost
        assert (await second.snapshot()).quality == "ok"
        assert _loads(wire) == 2

    _try(course)


def test_rules_that_grew_old_are_renewed_without_being_waited_for() -> None:
    """The snapshot that finds them old has the old ones; a later one has the new, and says what changed."""

    async def course(time: VirtualTime, wire: BinanceWire, account: Callable[[str], CcxtVenue]) -> None:
        venue = account("main")
        await venue.snapshot()
        wire.exchange.markets["NEW/USDT:USDT"] = Market("NEW/USDT:USDT")
        await time.sleep(61.0)
        old = await venue.snapshot()
        await venue.rules.wait_for_renewal()
        new = await venue.snapshot()
        assert (old.instruments, [it.symbol for it in new.instruments or ()]) == (None, ["NEW/USDT:USDT"])
        assert _loads(wire) == 2

    _try(course)


def test_a_market_that_is_shut_while_something_is_held_there_is_looked_at_twice_a_minute() -> None:
    """Closing waits for its opening, and an hour is too long for that."""

    class Slow(Plain):
        ages = Ages(rules=3600.0)

    async def course(time: VirtualTime, wire: BinanceWire, account: Callable[[str], CcxtVenue]) -> None:
        wire.exchange.markets[SYMBOL].state = "halted"
        wire.exchange.trade((SYMBOL, "long"), Decimal(2))
        venue = account("main")
        first = await venue.snapshot()
        assert [it.state for it in first.instruments or ()] == ["halted"]
        wire.exchange.markets[SYMBOL].state = "open"
        told = []
        for _ in range(62):
            await time.sleep(1.0)
            seen = await venue.snapshot()
            await venue.rules.wait_for_renewal()
            told += [(round(time.elapsed), it.state) for it in seen.instruments or ()]
        assert [state for _, state in told] == ["open"]
        assert told[0][0] <= 33

    _try(course, Slow)


def test_old_rules_go_on_where_the_new_ones_do_not_come() -> None:
    """A venue that does not tell its rules may be traded by the old ones; they are asked for again a minute later."""

    async def course(time: VirtualTime, wire: BinanceWire, account: Callable[[str], CcxtVenue]) -> None:
        venue = account("main")
        await venue.snapshot()
        told = wire.answer
        refused: list[str] = []

        def silent_on_rules(ask):  # type: ignore[no-untyped-def] # as the server's own
            if ask.path.endswith("/exchangeInfo"):
                refused.append(ask.path)
                raise NotImplementedError
            return told(ask)

        wire.answer = silent_on_rules  # type: ignore[method-assign]  # its answers are replaced
        for _ in range(3):
            await time.sleep(61.0)
            seen = await venue.snapshot()
            await venue.rules.wait_for_renewal()
            assert seen.quality == "ok"
        assert len(refused) == 3
        wire.answer = told  # type: ignore[method-assign]  # as it was
        seen = await venue.snapshot()
        assert seen.reason is not None
        assert "rules: they are from" in seen.reason

    _try(course)
