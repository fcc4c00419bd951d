"""The venues' own dead-man timers, set by `ksctl run` through the real clients, and their effect at the venue."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import Struct

from killswitch.model.venue import AccountSpec
from killswitch_ccxt import adapter
from tests.e2e.processes import POLICY, until
from tests.e2e.wire_venues import VENUES, Run, Site, World, venue
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
"""Seconds. OKX accepts no fewer than 10; half of Bybit's timeout is left to the venue to detect a lost stream."""
FIRES_AS_ESTIMATED: Final = frozenset(TIMEOUTS) - {"bybit"}
"""Without Bybit: its timer fires earlier than estimated, because it counts from the loss of the stream, and for a part
of the timeout only."""
PACE: Final = ("--interval", "1500ms", "--read-timeout", "3s")


def switch(seconds: int, *, accepted: bool = False) -> str:
    """The DeadMansSwitch document."""
    return SWITCH.replace("TIMEOUT", f"{seconds}s").replace("ACCEPTED", "true" if accepted else "false")


class TimerRuns(Struct, frozen=True):
    """Observations of a run that was stopped, of one that was killed, and of the one after it."""

    armed: tuple[str, bool]
    """The timer's state in `status`, and whether an expiry time is shown."""
    kept: tuple[int, float]
    """Orders that rest after the first run, and the seconds for which it ran with the timer armed."""
    stopped: tuple[int, list[str], str]
    """Exit code, timers that still run, stderr."""
    killed: tuple[list[str], int]
    """Timers that run and orders that rest directly after SIGKILL."""
    next_stderr: str
    """stderr of the next run."""
    unspoken: list[str]


def _stop_kill_and_restart(name: str, folder: Path) -> TimerRuns:
    seconds = TIMEOUTS[name]
    with venue(VENUES[name]) as world:
        site = Site(folder, world, POLICY, switch(seconds))
        with site.running(*PACE) as run:
            armed_at = _wait_until_armed(world, run)
            shown = until(lambda: _timer(site), "status shows the timer")
            # Longer than the timer runs without a refresh.
            until(
                lambda: run.has_ended or world.state()["at"] > armed_at + seconds + 1, "the timer would have gone off"
            )
            kept = (world.state()["resting"], world.state()["at"] - armed_at)
            status = run.terminate()
            stopped = (status, world.state()["timed"], run.stderr)
        with site.running(*PACE) as run:
            _wait_until_armed(world, run)
            run.kill()
            state = world.state()
            killed = (state["timed"], state["resting"])
        until(lambda: not world.state()["resting"], "the venue cancels what rests")
        next_stderr = ""
        if name in FIRES_AS_ESTIMATED:
            with site.running(*PACE, "--ticks", "2") as run:
                until(lambda: run.has_ended, "the last run ends")
                next_stderr = run.stderr
        return TimerRuns(shown, kept, stopped, killed, next_stderr, world.state()["unspoken"])


def _wait_until_armed(world: World, run: Run) -> float:
    """Wait until a timer runs at the venue; the venue's time at that moment, in seconds."""
    until(lambda: run.has_ended or world.state()["timed"], "the venue's timer runs")
    assert not run.has_ended, run.stderr
    at: float = world.state()["at"]
    return at


def _timer(site: Site) -> tuple[str, bool]:
    view = site.view()
    found = [it for it in (() if view is None else view.timers) if it.state == "armed"]
    return (found[0].state, found[0].until is not None) if found else ()  # type: ignore[return-value] # not yet


class BlockedTimer(Struct, frozen=True):
    """Observations of a timer that a protective stop order keeps from running."""

    stopped: list[str]
    """Timers that run at the venue after the stop order was placed while one was running."""
    problems: tuple[str, ...]
    pages: list[str]
    stderr: str
    status: int
    next_run: Mapping[str, Any]
    """Timers and timer calls of a second run, which finds the stop order at its start, its problems and its pages."""
    accepted: list[str]
    """Timers that run where the policy accepts that."""


def _block_and_accept(name: str, folder: Path) -> BlockedTimer:
    with venue(VENUES[name]) as world:
        site = Site(folder, world, POLICY)
        site.write("switch.yaml", switch(60))
        with site.running(*PACE) as run:
            _wait_until_armed(world, run)
            world.move("order", symbol=VENUES[name].symbols[0], side="sell", amount="1", falls_to="80")
            until(lambda: run.has_ended or not world.state()["timed"], "the timer is stopped")
            problems = until(lambda: run.has_ended or _problems(site), "status lists it under problems")
            pages = until(lambda: run.has_ended or _pages(site), "a page reports it")
            stopped = world.state()["timed"]
            status, stderr = run.terminate(), run.stderr
        first = started_at(site)
        assert isinstance(pages, list), stderr
        before = world.state()["calls"].get("dead_man", 0)
        with site.running(*PACE) as run:
            again = until(lambda: run.has_ended or _problems(site, after=first), "a run that finds the stop lists it")
            state, repeated = world.state(), len(_pages(site)) - len(pages)
            run.terminate()
        timer_calls = state["calls"].get("dead_man", 0) - before
        next_run = {"timers": state["timed"], "calls": timer_calls, "problems": again, "pages": repeated}
        site.write("switch.yaml", switch(60, accepted=True))
        with site.running(*PACE) as run:
            _wait_until_armed(world, run)
            accepted = world.state()["timed"]
            run.terminate()
        assert isinstance(problems, tuple), stderr
        return BlockedTimer(stopped, problems, pages, stderr, status, next_run, accepted)


def started_at(site: Site) -> datetime | None:
    view = site.view()
    return None if view is None else view.started_at


def _problems(site: Site, after: datetime | None = None) -> tuple[str, ...]:
    """The problems with timers that the last tick lists; none for a run that began at `after`."""
    view = site.view()
    return () if view is None or view.started_at == after else tuple(it for it in view.problems if "dead-man" in it)


def _pages(site: Site) -> list[str]:
    return [it.text for it in site.notices() if it.severity == "page" and "does not run" in it.text]


IN_EVERY_RUN: Final = "binance"


@pytest.mark.parametrize(
    "name", [pytest.param(it, marks=() if it == IN_EVERY_RUN else pytest.mark.venues) for it in TIMEOUTS]
)
def test_a_timer_runs_while_ticks_are_committed_a_clean_stop_disarms_it_and_a_killed_runner_leaves_it_armed(
    name: str, tmp_path: Path
) -> None:
    """A run longer than the timeout cancels nothing; SIGTERM leaves no timer and every order in place.

    At SIGKILL the order rests and the timer runs; later the order is cancelled, and the next run reports it.
    """
    seen = _stop_kill_and_restart(name, tmp_path / name)
    assert seen.armed == ("armed", True)
    assert seen.kept[0] == 1
    assert seen.kept[1] > TIMEOUTS[name]
    assert seen.stopped[:2] == (0, []), seen.stopped[2]
    assert "it fires at" not in seen.stopped[2]
    assert seen.unspoken == []
    assert (bool(seen.killed[0]), seen.killed[1]) == (True, 1)
    if name in FIRES_AS_ESTIMATED:
        assert "the dead-man timer of account main has fired at" in seen.next_stderr


@pytest.mark.parametrize(
    ("name", "verb"), [pytest.param("krakenfutures", "would", marks=pytest.mark.venues), ("binance", "may")]
)
def test_w2_a_timer_does_not_run_over_a_protective_stop_unless_that_is_accepted(
    name: str, verb: str, tmp_path: Path
) -> None:
    """A running timer is stopped at the next tick, with a page and a problem; none is started; if accepted, it runs."""
    seen = _block_and_accept(name, tmp_path / name)
    symbol = VENUES[name].symbols[0]
    why = (
        f"the dead-man timer of account main does not run: it {verb} cancel the protective orders of {symbol} and "
        "leave the position unprotected; `accept_unprotected: true` would accept that"
    )
    assert seen.stopped == []
    assert seen.problems == (why,)
    assert why in seen.pages
    assert why in seen.stderr
    assert seen.status == 0, seen.stderr
    assert (seen.next_run["timers"], seen.next_run["calls"]) == ([], 0)
    assert (seen.next_run["problems"], seen.next_run["pages"]) == ((why,), 0), "it was paged by the run before"
    assert seen.accepted


def test_a_venue_without_a_timer_is_refused_before_the_first_tick(tmp_path: Path) -> None:
    """MEXC has none: exit 69 with the place in the policy, the account, and the way out; the venue gets no request."""
    with venue(VENUES["mexc"]) as world:
        site = Site(tmp_path, world, POLICY, switch(30))
        with site.running(*PACE) as run:
            until(lambda: run.has_ended, "it is refused")
        assert run.process.returncode == 69, run.stderr
        assert "1.yaml:4:18: DeadMansSwitch venue-timer, account main: venue mexc has no timer" in run.stderr
        assert "take the account out of the switch" in run.stderr
        assert site.snapshots() == []
        assert world.state()["requests"] == 0


def test_w2_a_refresh_just_after_bybits_stream_was_closed_opens_another_stream() -> None:
    """Refreshed at the moment at which the stream is closed: 3.5 s later, of 6, the order still rests."""
    time, symbol = VirtualTime(), "BTC/USDT:USDT"

    async def scenario() -> None:
        exchange = Exchange({}, lambda: (time.elapsed, time.now()), markets=[Market(symbol)])
        wire = BybitWire(exchange)
        await wire.start()
        spec = AccountSpec(
            account="main", adapter="ccxt", market="swap", currency="USDT", endpoint=wire.address,
            endpoint_ws=wire.address_ws, options={"clock": time}, credentials={"key": KEY, "secret": SECRET},
            exchange="bybit",
        )  # fmt: skip
        account = adapter(spec)
        timer = account.dead_man
        assert timer is not None
        try:
            exchange.rest(symbol, "buy", Decimal(1), type="limit", price=Decimal(50))
            await timer.arm(6.0, [])
            await time.sleep(3.0)
            await timer.arm(6.0, [])
            await time.sleep(3.5)
            assert len(exchange.resting()) == 1
            await time.sleep(3.0)
            assert exchange.resting() == ()
        finally:
            await timer.disarm([])
            await account.close()
            await wire.stop()

    time.run(scenario())
