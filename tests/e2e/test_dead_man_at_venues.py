"""The venues' own dead-man timers, set by `ksctl run` through the real clients: what the venue itself then does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, cast

import pytest

from killswitch.model.venue import AccountSpec, DeadManVenue, VenueAdapter
from killswitch_ccxt import adapter
from tests.e2e.processes import POLICY, until
from tests.e2e.wired import REACHED, Run, Site, World, venue
from tests.faults.exchange import Exchange, Market
from tests.virtual_time import VirtualTime
from tests.wire.bybit.venue import BybitWire
from tests.wire.server import KEY, SECRET

SWITCH: Final = """
apiVersion: killswitch.dev/v1
kind: DeadMansSwitch
metadata: {name: venue-timer}
spec: {accounts: [main], at_venue: true, timeout: TIMEOUT, refresh: 2s, accept_unprotected: ACCEPTED}
"""
TIMEOUTS: Final = {"binance": 8, "bybit": 8, "okx": 10, "krakenfutures": 8}
"""Seconds. OKX takes no fewer than 10; Bybit is left half of it to find out for itself that a stream is gone."""
AS_RECKONED: Final = frozenset(TIMEOUTS) - {"bybit"}
"""Bybit's goes off earlier than it is reckoned with: it counts from when the stream is gone, and for a part only."""
PACE: Final = ("--interval", "1500ms", "--read-timeout", "3s")


def switch(seconds: int, *, accepted: bool = False) -> str:
    """The document."""
    return SWITCH.replace("TIMEOUT", f"{seconds}s").replace("ACCEPTED", "true" if accepted else "false")


@dataclass(frozen=True)
class Told:
    """What was seen of a run that was stopped, of one that was killed, and of the one after it."""

    armed: tuple[str, bool]
    """What `status` said of the timer, and with a time until which it runs."""
    kept: tuple[int, float]
    """Orders that rest after the first run, and seconds for which it ran with the timer on."""
    stopped: tuple[int, list[str], str]
    """Exit code, timers that still ran, stderr."""
    killed: tuple[list[str], int]
    """Timers that run after SIGKILL, and orders that rest at that moment."""
    later: str
    """What the next run said first."""
    unspoken: list[str]


def _story(name: str, folder: Path) -> Told:
    seconds = TIMEOUTS[name]
    with venue(REACHED[name]) as world:
        site = Site(folder, world, POLICY, switch(seconds))
        with site.running(*PACE) as run:
            began = _armed(world, run)
            shown = until(lambda: _timer(site), "status shows the timer")
            # Longer than the timer runs without a refresh.
            until(lambda: run.over or world.state()["at"] > began + seconds + 1, "the timer would have gone off")
            kept = (world.state()["resting"], world.state()["at"] - began)
            status = run.terminate()
            stopped = (status, world.state()["timed"], run.said)
        with site.running(*PACE) as run:
            _armed(world, run)
            run.kill()
            state = world.state()
            killed = (state["timed"], state["resting"])
        until(lambda: not world.state()["resting"], "the venue cancels what rests")
        later = ""
        if name in AS_RECKONED:
            with site.running(*PACE, "--ticks", "2") as run:
                until(lambda: run.over, "the last run ends")
                later = run.said
        return Told(shown, kept, stopped, killed, later, world.state()["unspoken"])


def _armed(world: World, run: Run) -> float:
    """Wait until the venue has a timer; the venue's seconds at that moment."""
    until(lambda: run.over or world.state()["timed"], "the venue's timer runs")
    assert not run.over, run.said
    at: float = world.state()["at"]
    return at


def _timer(site: Site) -> tuple[str, bool]:
    view = site.view()
    found = [it for it in (() if view is None else view.timers) if it.state == "armed"]
    return (found[0].state, found[0].until is not None) if found else ()  # type: ignore[return-value] # not yet


@dataclass(frozen=True)
class Bared:
    """What was seen of a timer that a protective stop stands against."""

    stopped: list[str]
    """Timers that run at the venue after the stop was placed under a running one."""
    problems: tuple[str, ...]
    pages: list[str]
    said: str
    status: int
    asked: Mapping[str, Any]
    """Calls that had arrived when a run that found the stop was two ticks old, and timers that ran then."""
    accepted: list[str]
    """Timers that run where the policy accepts it."""


def _bared(name: str, folder: Path) -> Bared:
    with venue(REACHED[name]) as world:
        site = Site(folder, world, POLICY)
        site.write("switch.yaml", switch(60))
        with site.running(*PACE) as run:
            _armed(world, run)
            world.move("order", symbol=REACHED[name].symbols[0], side="sell", amount="1", falls_to="80")
            until(lambda: run.over or not world.state()["timed"], "the timer is stopped")
            problems = until(lambda: run.over or _problems(site), "status lists it under problems")
            pages = until(lambda: run.over or _pages(site), "a page tells it")
            stopped = world.state()["timed"]
            status, said = run.terminate(), run.said
        before = world.state()["calls"].get("dead_man", 0)
        with site.running(*PACE) as run:
            until(lambda: run.over or "does not run" in run.said, "a run that finds the stop says so")
            state = world.state()
            run.terminate()
        asked = {"timers": state["timed"], "calls": state["calls"].get("dead_man", 0) - before, "said": run.said}
        site.write("switch.yaml", switch(60, accepted=True))
        with site.running(*PACE) as run:
            _armed(world, run)
            accepted = world.state()["timed"]
            run.terminate()
        assert isinstance(problems, tuple), said
        assert isinstance(pages, list), said
        return Bared(stopped, problems, pages, said, status, asked, accepted)


def _problems(site: Site) -> tuple[str, ...]:
    view = site.view()
    return () if view is None else tuple(it for it in view.problems if "dead-man" in it)


def _pages(site: Site) -> list[str]:
    return [it.text for it in site.notices() if it.severity == "page" and "does not run" in it.text]


IN_EVERY_RUN: Final = "binance"


@pytest.mark.parametrize(
    "name", [pytest.param(it, marks=() if it == IN_EVERY_RUN else pytest.mark.venues) for it in TIMEOUTS]
)
def test_a_timer_runs_while_ticks_are_committed_a_clean_stop_ends_it_and_a_killed_runner_leaves_it(
    name: str, tmp_path: Path
) -> None:
    """Longer than its timeout nothing is cancelled, and SIGTERM leaves no timer and every order where it is.

    At the moment of SIGKILL the order rests and the timer runs; then it is gone, and the next run says so.
    """
    told = _story(name, tmp_path / name)
    assert told.armed == ("armed", True)
    assert told.kept[0] == 1
    assert told.kept[1] > TIMEOUTS[name]
    assert told.stopped[:2] == (0, []), told.stopped[2]
    assert "goes off" not in told.stopped[2]
    assert told.unspoken == []
    assert (bool(told.killed[0]), told.killed[1]) == (True, 1)
    if name in AS_RECKONED:
        assert "the dead-man timer of account main has fired at" in told.later


@pytest.mark.parametrize(
    ("name", "word"), [pytest.param("krakenfutures", "would", marks=pytest.mark.venues), ("binance", "may")]
)
def test_a_timer_does_not_run_over_a_protective_stop_unless_that_is_accepted(
    name: str, word: str, tmp_path: Path
) -> None:
    """One that runs is stopped at the next tick, with a page and a problem; none is started; accepted, it runs."""
    told = _bared(name, tmp_path / name)
    symbol = REACHED[name].symbols[0]
    why = (
        f"the dead-man timer of account main does not run: it {word} cancel the protective orders of {symbol} and "
        "leave the position unprotected; `accept_unprotected: true` would accept that"
    )
    assert told.stopped == []
    assert told.problems == (why,)
    assert why in told.pages
    assert why in told.said
    assert told.status == 0, told.said
    assert (told.asked["timers"], told.asked["calls"]) == ([], 0)
    assert why in told.asked["said"]
    assert told.accepted


def test_a_venue_without_a_timer_is_refused_before_the_first_tick(tmp_path: Path) -> None:
    """MEXC has none: exit 1 with the place in the policy, the account, and the way out; nothing was asked there."""
    with venue(REACHED["mexc"]) as world:
        site = Site(tmp_path, world, POLICY, switch(30))
        with site.running(*PACE) as run:
            until(lambda: run.over, "it is refused")
        assert run.process.returncode == 1, run.said
        assert "1.yaml:4:18: DeadMansSwitch venue-timer, account main: venue mexc has no timer" in run.said
        assert "take the account out of the switch" in run.said
        assert site.seen() == []
        assert world.state()["requests"] == 0


def test_a_refresh_at_half_of_the_timeout_finds_bybits_stream_just_let_go_and_opens_another() -> None:
    """Renewed in the moment in which the stream is dropped: 3.5 s later, of 6, the order still rests."""
    time, symbol = VirtualTime(), "BTC/USDT:USDT"

    async def story() -> None:
        exchange = Exchange({}, lambda: (time.elapsed, time.now()), markets=[Market(symbol)])
        wire = BybitWire(exchange)
        await wire.start()
        spec = AccountSpec(
            account="main", adapter="ccxt", market="swap", currency="USDT", endpoint=wire.address,
            endpoint_ws=wire.address_ws, options={"clock": time}, credentials={"key": KEY, "secret": SECRET},
            exchange="bybit",
        )  # fmt: skip
        account = adapter(spec)
        assert isinstance(account, DeadManVenue)
        try:
            exchange.rest(symbol, "buy", Decimal(1), type="limit", price=Decimal(50))
            await account.arm_dead_man(6.0, [])
            await time.sleep(3.0)
            await account.arm_dead_man(6.0, [])
            await time.sleep(3.5)
            assert len(exchange.resting()) == 1
            await time.sleep(3.0)
            assert exchange.resting() == ()
        finally:
            await account.disarm_dead_man([])
            await cast("VenueAdapter", account).close()
            await wire.stop()

    time.run(story())
