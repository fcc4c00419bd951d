"""A pass that a push triggers concerns the account that pushed: for every other account it is as if it had not been."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import Graph, ScopeRule, SignalRef
from killswitch.model.snapshot import Health
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.loop import RunnerPace
from tests import graphs
from tests.runner_world import book, crash_policy
from tests.unit.accounts.test_push_listener import PushingTestVenue, Script, Site, push

PORTFOLIO = ScopeRule("portfolio", None, None, None, None)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def reporting(site: Site, name: str, latency: float, script: Script = ()) -> PushingTestVenue:
    """A venue that reports the health of its polls."""
    venue = PushingTestVenue(site.time, name, script)
    venue.answer = replace(book("1000", name), health=health(latency))
    return venue


def health(latency: float) -> Health:
    """Five requests, none of which failed."""
    return Health(latency_ms=latency, requests=5, errors=0, timeouts=0, malformed=0, rate_limited=0, clock_skew_ms=0.0)


def watched(signal: str, limit: float, on_unknown: Any, confirm: float = 0.0, each: str = "account") -> Graph:
    """Closes everything while `signal` is above `limit`, after `confirm` seconds."""
    trigger = replace(graphs.trigger("bad", 0, limit), on_unknown=on_unknown, confirm=round(confirm * 1e6))
    stage = graphs.stage("close-everything", 3, 0, actions=(LockTrading("reduce_only", None), graphs.close()))
    graph = graphs.graph([SignalRef(signal)], [trigger], [stage], policy="watched")
    return replace(graph, scope=PORTFOLIO) if each == "portfolio" else graph


def run(site: Site, graph: Graph, ticks: int, *venues: PushingTestVenue, interval: float = 1.0) -> list[float]:
    """The seconds of the run at which something was decided."""
    accounts = {each.account: ArmedAccount(each.account, each.account, "swap", "USDT", each, armed=True)
                for each in venues}  # fmt: skip
    runner = assemble(
        graphs.policy_set(graph), accounts, site.store, site.time, RunnerPace(interval, 0.5, stop_timeout=0.5),
        live=True, locks=LockPaths(site.folder / "locks", None), observers=(site.seen,),
    )  # fmt: skip
    site.time.run(runner.run(asyncio.Event(), ticks))
    decided = [report.snapshot.as_of for report in site.seen.reports if report.decisions]
    return [(at - site.time.start).total_seconds() for at in decided]


@pytest.mark.parametrize("each", ["account", "portfolio"])
@pytest.mark.parametrize("signal", ["venue.latency", "venue.error_rate", "venue.malformed"])
def test_a_push_on_one_account_makes_nothing_unknown_on_another(site: Site, signal: str, each: str) -> None:
    """An unknown trips: the account that was not polled keeps what is known of its venue, and nothing is closed."""
    quiet = reporting(site, "one", 0.5)
    pushes = reporting(site, "two", 0.5, tuple((0.4 + number, push("orders")) for number in range(4)))
    assert run(site, watched(signal, 1.0, "trip", each=each), 5, quiet, pushes) == []
    assert [report.snapshot.scheduled for report in site.seen.reports].count(False) == 4


@pytest.mark.parametrize("each", ["account", "portfolio"])
def test_pushes_on_one_account_do_not_restart_a_confirmation_on_another(site: Site, each: str) -> None:
    """Slow for longer than five seconds: closed after five, however often the other account pushes."""
    quiet = reporting(site, "one", 5000.0)
    pushes = reporting(site, "two", 5000.0, tuple((0.5 + number, push("orders")) for number in range(9)))
    (first, *_) = run(site, watched("venue.latency", 1.0, "warn", 5.0, each=each), 10, quiet, pushes)
    assert 5.0 <= first < 6.1
    assert len(quiet.sent) == 1


def test_a_push_on_one_account_confirms_nothing_on_another(site: Site) -> None:
    """Slow from 0 s and well again before the poll at 4 s: the three seconds to confirm pass at no poll of it.

    The passes that the other account triggers between 3 and 4 s show the poll of 2 s again, which is no three seconds.
    """
    quiet = reporting(site, "one", 5000.0)
    pushes = reporting(site, "two", 0.5, tuple((at / 4, push("orders")) for at in range(9, 16)))

    def mends(_: object) -> None:
        if site.time.monotonic() > 2.1:
            quiet.answer = replace(book("1000", "one"), health=health(0.5))

    pushes.on_push = mends
    assert run(site, watched("venue.latency", 1.0, "warn", 3.0), 4, quiet, pushes, interval=2.0) == []
    assert quiet.sent == []


def test_a_second_poll_that_joins_a_pushed_one_makes_no_account_down(site: Site) -> None:
    """Two accounts push; the fall of the first is polled again with both while the second is still being polled."""
    one = PushingTestVenue(site.time, "one", ((0.30, push("positions")),))
    two = PushingTestVenue(site.time, "two", ((0.32, push("positions")),))
    one.on_push = lambda _: setattr(one, "answer", book("500", "one"))

    def slower(_: object) -> None:
        two.trip, two.answer = 0.1, book("900", "two")

    two.on_push = slower
    graph = crash_policy()
    graph = replace(graph, scope=PORTFOLIO, stages=(replace(graph.stages[0], corroborate=True),))
    run(site, graph, 2, one, two, interval=10.0)
    accounts = [account for report in site.seen.reports for account in report.snapshot.accounts]
    assert {account.quality for account in accounts} == {"ok"}
    # The decision on the pushed poll of the second comes long before the next poll.
    woken = [report.snapshot for report in site.seen.reports if not report.snapshot.scheduled]
    assert woken[-1].accounts[1].equity == Decimal(900)
