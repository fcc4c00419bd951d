"""Private streams of real clients: another hand's trade wakes a tick, and a stream that is lost or silent is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.push_listener import STALE_AFTER, STEADY_AFTER, PushListener, Stream
from killswitch.model.venue import AccountSpec
from killswitch_ccxt import adapter
from tests.e2e.processes import POLICY, until
from tests.e2e.wired import REACHED, Run, Site, World, venue
from tests.faults.exchange import Exchange, Market
from tests.virtual_time import VirtualTime
from tests.wire.bybit.venue import BybitWire
from tests.wire.server import KEY, SECRET

TOPICS: Final[Mapping[str, int]] = {"binance": 1, "bybit": 3, "okx": 3, "krakenfutures": 3, "mexc": 6, "alpaca": 1}
"""How many topics each client asks for, or gets unasked; before it has, nothing that happens is heard."""
LOSS: Final = "is unreliable"


@dataclass(frozen=True)
class Told:
    """What was seen of a runner that polls every 30 s."""

    polled: list[dict[str, Any]]
    """What was recorded before the other hand traded."""
    woken: dict[str, Any]
    """The first snapshot with what it left."""
    again: dict[str, Any]
    """That of a second trade, after the venue had closed the stream and it was opened anew."""
    streams: list[str]
    """What `status` says of the stream then."""
    lost: list[str]
    """Warnings about the stream."""
    said: str
    status: int


def _story(name: str, folder: Path) -> Told:
    with venue(REACHED[name]) as world:
        site = Site(folder, world, POLICY)
        with site.running("--interval", "30s") as run:
            return _seen_of(world, site, run, name)


def _seen_of(world: World, site: Site, run: Run, name: str) -> Told:
    _heard(world, run, name)
    until(lambda: run.over or any(_is_good(it) for it in site.seen()), "a poll is recorded")
    polled = site.seen()
    woken = _traded(world, site, run, name)
    world.move("hang_up")
    until(lambda: run.over or not world.state()["subscribed"], "the stream is gone")
    _heard(world, run, name)
    again = _traded(world, site, run, name)
    lost = until(lambda: run.over or _warnings(site), "the loss is told")
    assert isinstance(lost, list), run.said
    until(lambda: run.over or LOSS in run.said, "the loss is written too")
    view = site.view()
    streams = [] if view is None else [str(it.state) for it in view.streams]
    return Told(polled, woken, again, streams, _warnings(site), run.said, run.terminate())


def _heard(world: World, run: Run, name: str) -> None:
    until(lambda: run.over or len(world.state()["subscribed"]) >= TOPICS[name], "the stream is heard")
    assert not run.over, run.said


def _traded(world: World, site: Site, run: Run, name: str) -> dict[str, Any]:
    """Another hand sells one of the first symbol; the first snapshot that shows it."""
    symbol = REACHED[name].symbols[0]
    before = Decimal(world.held()[f"{symbol} long"])
    world.move("order", symbol=symbol, side="sell", amount="0.5")

    def shows() -> list[dict[str, Any]]:
        return [it for it in site.seen() if _amount(it, symbol) == before - Decimal("0.5")]

    found = until(lambda: run.over or shows(), "a snapshot shows what the other hand left")
    assert isinstance(found, list), run.said
    return found[0]


def _is_good(snapshot: dict[str, Any]) -> bool:
    return all(it["quality"] == "ok" for it in snapshot["accounts"])


def _amount(snapshot: dict[str, Any], symbol: str) -> Decimal | None:
    (account,) = snapshot["accounts"]
    return next((Decimal(it["contracts"]) for it in account.get("positions") or () if it["symbol"] == symbol), None)


def _warnings(site: Site) -> list[str]:
    return [it.text for it in site.notices() if it.severity == "warning" and LOSS in it.text]


IN_EVERY_RUN: Final = "okx"


@pytest.mark.parametrize(
    "name", [pytest.param(it, marks=() if it == IN_EVERY_RUN else pytest.mark.venues) for it in TOPICS]
)
def test_a_trade_by_another_hand_wakes_a_tick_and_a_stream_that_the_venue_closes_is_told_once_and_opened_again(
    name: str, tmp_path: Path
) -> None:
    """The snapshot that shows the trade is recorded as unscheduled, less than an interval after the last poll.

    One warning, though the stream is long heard again at the next tick; a trade after that wakes a tick as before.
    """
    told = _story(name, tmp_path / name)
    assert told.woken["scheduled"] is False, told.said
    last = [it for it in told.polled if it.get("scheduled", True)][-1]
    waited = datetime.fromisoformat(told.woken["as_of"]) - datetime.fromisoformat(last["as_of"])
    assert waited.total_seconds() < 30
    assert told.woken["accounts"][0]["quality"] == "ok"
    assert told.again["scheduled"] is False, told.said
    assert len(told.lost) == 1, told.lost
    assert LOSS in told.lost[0]
    assert told.said.count(LOSS) == 1
    assert told.streams == ["heard"]
    assert told.status == 0, told.said


def test_a_loss_between_two_ticks_is_told_at_the_next_one_until_the_stream_is_steady() -> None:
    """Lost and heard again before anyone looked: it is told all the same, until it was heard for a while."""
    time = VirtualTime()
    stream = Stream("main", time)
    stream.record_push()
    time.elapsed = 5.0
    stream.record_loss("the venue hung up")
    time.elapsed = 6.0
    stream.record_push()
    why = "the stream of account main is unreliable: the venue hung up; "
    why += "until it delivers again the account is polled at the interval only"
    assert (stream.state, stream.problem) == ("heard", why)
    time.elapsed = 6.0 + STEADY_AFTER - 1
    stream.record_push()
    assert stream.problem == why
    time.elapsed = 6.0 + STEADY_AFTER
    stream.record_push()
    assert stream.problem is None


def test_silence_between_two_ticks_is_told_at_the_next_one() -> None:
    """Where the polls are further apart than a stream may be silent, its first word does not hide the silence."""
    time = VirtualTime()
    stream = Stream("main", time)
    stream.record_push()
    time.elapsed = STALE_AFTER + 1
    stream.record_push()
    assert stream.problem is not None
    assert "no sign of life for 60 s" in stream.problem


def test_a_stream_that_stays_open_and_says_nothing_is_told_as_stale() -> None:
    """Bybit keeps the connection and answers no ping any more: after a minute without a sign of life it is stale."""
    time = VirtualTime()

    async def story() -> None:
        exchange = Exchange({("BTC/USDT:USDT", "long"): Decimal(2)}, lambda: (time.elapsed, time.now()),
                            markets=[Market("BTC/USDT:USDT")])  # fmt: skip
        wire = BybitWire(exchange)
        await wire.start()
        spec = AccountSpec(
            account="main", adapter="ccxt", market="swap", currency="USDT", endpoint=wire.address,
            endpoint_ws=wire.address_ws, options={"clock": time}, credentials={"key": KEY, "secret": SECRET},
            exchange="bybit",
        )  # fmt: skip
        account = adapter(spec)
        listening = PushListener({"main": ArmedAccount("main", "bybit", "swap", "USDT", account, armed=False)}, time)
        listening.start()
        try:
            await time.sleep(5.0)
            exchange.trade(("BTC/USDT:USDT", "long"), Decimal(-1))
            await time.sleep(5.0)
            assert ([it.state for it in listening.views], listening.problems) == (["heard"], ())
            assert tuple(listening.pushed) == ("main",)
            wire.streams.mute = True
            await time.sleep(STALE_AFTER - 10.0)
            assert [it.state for it in listening.views] == ["heard"]
            await time.sleep(30.0)
            assert [it.state for it in listening.views] == ["stale"]
            (problem,) = listening.problems
            assert "is unreliable: no sign of life for 60 s; until it delivers again" in problem
            assert len(wire.sockets) == 1
        finally:
            await listening.stop(5.0)
            await account.close()
            await wire.stop()

    time.run(story())
