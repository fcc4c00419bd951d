"""A kill -9 between any two writes of a close, and between a request and its answer, does not change its end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import AccountSpec
from killswitch.store.sqlite import open_store
from killswitch_paper import adapter
from tests.faults.forked import Forked
from tests.honest_venue import HonestVenue


def moments(writes: int, orders: int, cancels: int) -> list[str]:
    counts = (("write", writes), ("order", orders), ("cancel", cancels))
    return [
        f"{what}-{number}-{side}"
        for what, count in counts
        for number in range(1, count + 1)
        for side in ("before", "after")
    ]


MOMENTS = moments(writes=10, orders=4, cancels=2)
PAPER_MOMENTS = moments(writes=7, orders=2, cancels=2)
CLOSER, PAPER_CLOSER = "tests.faults.killed_closer", "tests.faults.killed_paper_closer"
LATE = ("killswitch_paper.client", "sqlalchemy.dialects.sqlite")


@pytest.fixture(scope="module")
def closers(repository: Path) -> Iterator[Forked]:
    """Both programs that close and are killed; every run and every life in it is a process of its own."""
    with Forked(repository, CLOSER, PAPER_CLOSER, *LATE) as forked:
        yield forked


def run(closers: Forked, folder: Path, *arguments: str, program: str = CLOSER) -> list[str]:
    code, printed = closers.run(program, folder / "printed", str(folder), *arguments)
    assert code == 0, printed
    return printed.split("\n")[:-1]


def assert_closed_as_decided(folder: Path) -> None:
    """Exactly the intended quantity is closed, each order was journaled before, and the journal ends flat."""
    venue = HonestVenue({}, file=folder / "venue.json")
    store = open_store(str(folder / "store.sqlite"), read_only=True)
    journal = store.journal("d1")
    assert (venue.position("BTC"), venue.position("ETH")) == (Decimal(50), Decimal(0))
    assert (venue.traded("BTC"), venue.traded("ETH")) == (Decimal(50), Decimal(30))
    assert venue.state["resting"] == {}
    journaled = {entry.client_order_id for entry in journal if entry.kind == "sending"}
    assert set(venue.state["orders"]) <= journaled
    filled = [Decimal(entry.data["filled"] or 0) for entry in journal if entry.kind == "filled"]
    assert sum(filled) == Decimal(80)
    assert [entry.data["status"] for entry in journal if entry.kind == "finished"] == ["flat"]
    assert list(store.unfinished()) == []
    store.close()


def test_the_moments_are_all_that_an_undisturbed_close_passes_through(closers: Forked, tmp_path: Path) -> None:
    """A write or a request that is added to closing must be added to the kills below."""
    assert sorted(run(closers, tmp_path)) == sorted(MOMENTS)
    assert_closed_as_decided(tmp_path)


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_9_at_any_moment_leaves_exactly_the_intended_quantity_closed(
    closers: Forked, tmp_path: Path, moment: str
) -> None:
    """Killed there and started again, the close ends where it would have ended."""
    assert run(closers, tmp_path, moment) == ["killed", "exit 0"]
    assert_closed_as_decided(tmp_path)


@pytest.mark.parametrize("first", ["write-4-after", "order-1-after", "order-2-before"])
@pytest.mark.parametrize("second", ["write-1-before", "write-1-after", "order-1-before", "order-1-after"])
def test_kill_9_during_recovery_changes_nothing_either(
    closers: Forked, tmp_path: Path, first: str, second: str
) -> None:
    """Killed during a close, and killed again during recovery."""
    assert run(closers, tmp_path, first, second) == ["killed", "killed", "exit 0"]
    assert_closed_as_decided(tmp_path)


@pytest.fixture(scope="module")
def paper_venues(repository: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which serves a paper venue for each line that it is sent, and writes its address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.paper_venue"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=repository,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), str(repository / "adapters")])},
    )  # fmt: skip
    yield server
    server.communicate()


@pytest.fixture
def endpoint(paper_venues: subprocess.Popen[str]) -> str:
    """The address of a paper venue for one test, which another process serves."""
    assert paper_venues.stdin is not None
    assert paper_venues.stdout is not None
    paper_venues.stdin.write("another\n")
    paper_venues.stdin.flush()
    return paper_venues.stdout.readline().strip()


@pytest.mark.parametrize("moment", PAPER_MOMENTS)
def test_kill_9_at_any_moment_on_a_paper_venue_of_another_process(
    closers: Forked, tmp_path: Path, endpoint: str, moment: str
) -> None:
    """The same over HTTP: what the venue has executed stays executed, and is not repeated."""
    assert run(closers, tmp_path, endpoint, moment, program=PAPER_CLOSER) == ["killed", "exit 0"]
    account = asyncio.run(account_at(endpoint))
    held = {position.symbol: (position.side, position.contracts) for position in account.positions or ()}
    assert held == {"BTC": ("long", Decimal(50))}
    assert account.orders == ()
    closed = [fill for fill in account.fills or () if fill.realized_pnl is not None and fill.order is not None]
    sold = sum(fill.amount for fill in closed if (fill.symbol, fill.side) == ("BTC", "sell"))
    bought = sum(fill.amount for fill in closed if (fill.symbol, fill.side) == ("ETH", "buy"))
    assert (sold, bought) == (Decimal(50), Decimal(30))


def test_the_paper_moments_are_all_that_an_undisturbed_close_passes_through(
    closers: Forked, tmp_path: Path, endpoint: str
) -> None:
    """As above, for the kills on the paper venue. Two answers that arrive together are one write, else two."""
    passed = run(closers, tmp_path, endpoint, program=PAPER_CLOSER)
    assert set(PAPER_MOMENTS) <= set(passed)
    assert set(passed) - set(PAPER_MOMENTS) <= {"write-8-before", "write-8-after"}


async def account_at(endpoint: str) -> AccountSnapshot:
    venue = adapter(AccountSpec("main", "paper", "swap", "USDT", endpoint, {}, {}))
    account = await venue.snapshot()
    await venue.close()
    return account
