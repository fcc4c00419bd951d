"""Private streams of real clients: a trade by another party triggers a tick; a lost or silent stream is reported."""

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
from tests.e2e.wire_venues import VENUES, Run, Site, World, venue
from tests.faults.exchange import Exchange, Market
from tests.virtual_time import VirtualTime
from tests.wire.bybit.venue import BybitWire
from tests.wire.server import KEY, SECRET

TOPICS: Final[Mapping[str, int]] = {"binance": 1, "bybit": 3, "okx": 3, "krakenfutures": 3, "mexc": 6, "alpaca": 1}
"""How many topics each client subscribes to, or gets without asking; before that it receives no event."""
LOSS: Final = "is unreliable"


@dataclass(frozen=True)
class StreamRun:
    """Observations of a runner that polls every 30 s."""

    polled: list[dict[str, Any]]
    """The snapshots recorded before the first trade."""
    woken: dict[str, Any]
    """The first snapshot that shows the trade."""
    again: dict[str, Any]
    """The first snapshot that shows a second trade, after the venue closed the stream and the client reopened it."""
    streams: list[str]
    """The state of the stream in `status` then."""
    lost: list[str]
    """Warnings about the stream."""
    stderr: str
    status: int


def _run_with_two_trades(name: str, folder: Path) -> StreamRun:
    with venue(VENUES[name]) as world:
        site = Site(folder, world, POLICY)
        with site.running("--interval", "30s") as run:
            return _observe(world, site, run, name)


def _observe(world: World, site: Site, run: Run, name: str) -> StreamRun:
    _wait_for_subscriptions(world, run, name)
    until(lambda: run.has_ended or any(_is_good(it) for it in site.snapshots()), "a poll is recorded")
    polled = site.snapshots()
    woken = _trade(world, site, run, name)
    world.move("hang_up")
    until(lambda: run.has_ended or not world.state()["subscribed"], "the stream is gone")
    _wait_for_subscriptions(world, run, name)
    again = _trade(world, site, run, name)
    lost = until(lambda: run.has_ended or _warnings(site), "the loss is reported")
    assert isinstance(lost, list), run.stderr
    until(lambda: run.has_ended or LOSS in run.stderr, "the loss is on stderr too")
    view = site.view()
    streams = [] if view is None else [str(it.state) for it in view.streams]
    return StreamRun(polled, woken, again, streams, _warnings(site), run.stderr, run.terminate())


def _wait_for_subscriptions(world: World, run: Run, name: str) -> None:
    until(lambda: run.has_ended or len(world.state()["subscribed"]) >= TOPICS[name], "the stream is subscribed")
    assert not run.has_ended, run.stderr


def _trade(world: World, site: Site, run: Run, name: str) -> dict[str, Any]:
    """Another party sells 0.5 of the first symbol; the first snapshot that shows it."""
    symbol = VENUES[name].symbols[0]
    before = Decimal(world.held()[f"{symbol} long"])
    world.move("order", symbol=symbol, side="sell", amount="0.5")

    def shows() -> list[dict[str, Any]]:
        return [it for it in site.snapshots() if _amount(it, symbol) == before - Decimal("0.5")]

    found = until(lambda: run.has_ended or shows(), "a snapshot shows the trade")
    assert isinstance(found, list), run.stderr
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
def test_a_foreign_trade_triggers_a_tick_and_a_stream_closed_by_the_venue_is_reported_once_and_reopened(
    name: str, tmp_path: Path
) -> None:
    """The snapshot that shows the trade is recorded as unscheduled, less than an interval after the last poll.

    There is one warning, although the stream delivers again long before the next tick; a later trade triggers a tick.
    """
    seen = _run_with_two_trades(name, tmp_path / name)
    assert seen.woken["scheduled"] is False, seen.stderr
    last = [it for it in seen.polled if it.get("scheduled", True)][-1]
    waited = datetime.fromisoformat(seen.woken["as_of"]) - datetime.fromisoformat(last["as_of"])
    assert waited.total_seconds() < 30
    assert seen.woken["accounts"][0]["quality"] == "ok"
    assert seen.again["scheduled"] is False, seen.stderr
    assert len(seen.lost) == 1, seen.lost
    assert LOSS in seen.lost[0]
    assert seen.stderr.count(LOSS) == 1
    assert seen.streams == ["heard"]
    assert seen.status == 0, seen.stderr


def test_a_loss_between_two_ticks_is_reported_until_the_stream_is_steady() -> None:
    """A stream lost and recovered between two ticks is reported, until it has delivered for `STEADY_AFTER`."""
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


def test_silence_between_two_ticks_is_reported_at_the_next_one() -> None:
    """Where polls are further apart than a stream may be silent, its next message does not hide the silence."""
    time = VirtualTime()
    stream = Stream("main", time)
    stream.record_push()
    time.elapsed = STALE_AFTER + 1
    stream.record_push()
    assert stream.problem is not None
    assert "no sign of life for 60 s" in stream.problem


def test_a_stream_that_stays_open_and_silent_is_reported_as_stale() -> None:
    """Bybit keeps the connection and stops answering pings: after a minute without a message the stream is stale."""
    time = VirtualTime()

    async def scenario() -> None:
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
        listener = PushListener({"main": ArmedAccount("main", "bybit", "swap", "USDT", account, armed=False)}, time)
        listener.start()
        try:
            await time.sleep(5.0)
            exchange.trade(("BTC/USDT:USDT", "long"), Decimal(-1))
            await time.sleep(5.0)
            assert ([it.state for it in listener.views], listener.alerts.texts) == (["heard"], ())
            assert tuple(listener.pushed) == ("main",)
            wire.streams.mute = True
            await time.sleep(STALE_AFTER - 10.0)
            assert [it.state for it in listener.views] == ["heard"]
            await time.sleep(30.0)
            assert [it.state for it in listener.views] == ["stale"]
            (problem,) = listener.alerts.texts
            assert "is unreliable: no sign of life for 60 s; until it delivers again" in problem
            assert len(wire.sockets) == 1
        finally:
            await listener.stop(5.0)
            await account.close()
            await wire.stop()

    time.run(scenario())
