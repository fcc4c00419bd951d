"""A kill -9 between any two writes of a close, and between a request and its answer, changes nothing about the end."""

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


def run(repository: Path, folder: Path, *arguments: str, program: str = "tests.faults.killed_closer") -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-m", program, folder, *arguments],
        capture_output=True, text=True, check=False, cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.split("\n")[:-1]


def assert_closed_as_decided(folder: Path) -> None:
    """Exactly the intended quantity is closed, each order was journaled before, and the record says flat."""
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


def test_the_moments_are_all_that_an_undisturbed_close_passes_through(repository: Path, tmp_path: Path) -> None:
    """A write or a request that is added to closing must be added to the kills below."""
    assert sorted(run(repository, tmp_path)) == sorted(MOMENTS)
    assert_closed_as_decided(tmp_path)


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_9_at_any_moment_leaves_exactly_the_intended_quantity_closed(
    repository: Path, tmp_path: Path, moment: str
) -> None:
    """Killed there and started again, the close ends where it would have ended."""
    assert run(repository, tmp_path, moment) == ["killed", "exit 0"]
    assert_closed_as_decided(tmp_path)


@pytest.mark.parametrize("first", ["write-4-after", "order-1-after", "order-2-before"])
@pytest.mark.parametrize("second", ["write-1-before", "write-1-after", "order-1-before", "order-1-after"])
def test_kill_9_during_recovery_changes_nothing_either(
    repository: Path, tmp_path: Path, first: str, second: str
) -> None:
    """Killed in mid-close, and killed again while picking up the pieces."""
    assert run(repository, tmp_path, first, second) == ["killed", "killed", "exit 0"]
    assert_closed_as_decided(tmp_path)


@pytest.fixture
def endpoint(repository: Path) -> Iterator[str]:
    """The address of a paper venue that another process serves."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.paper_venue"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert server.stdout is not None
    yield server.stdout.readline().strip()
    server.communicate()


@pytest.mark.parametrize("moment", PAPER_MOMENTS)
def test_kill_9_at_any_moment_on_a_paper_venue_of_another_process(
    repository: Path, tmp_path: Path, endpoint: str, moment: str
) -> None:
    """The same over HTTP: what the venue has done stays done, and is not done again."""
    program = "tests.faults.killed_paper_closer"
    assert run(repository, tmp_path, endpoint, moment, program=program) == ["killed", "exit 0"]
    account = asyncio.run(account_at(endpoint))
    held = {position.symbol: (position.side, position.contracts) for position in account.positions or ()}
    assert held == {"BTC": ("long", Decimal(50))}
    assert account.orders == ()
    closed = [fill for fill in account.fills or () if fill.realized_pnl is not None and fill.order is not None]
    sold = sum(fill.amount for fill in closed if (fill.symbol, fill.side) == ("BTC", "sell"))
    bought = sum(fill.amount for fill in closed if (fill.symbol, fill.side) == ("ETH", "buy"))
    assert (sold, bought) == (Decimal(50), Decimal(30))


def test_the_paper_moments_are_all_that_an_undisturbed_close_passes_through(
    repository: Path, tmp_path: Path, endpoint: str
) -> None:
    """As above, for the kills on the paper venue. Two answers that come together are one write, else two."""
    passed = run(repository, tmp_path, endpoint, program="tests.faults.killed_paper_closer")
    assert set(PAPER_MOMENTS) <= set(passed)
    assert set(passed) - set(PAPER_MOMENTS) <= {"write-8-before", "write-8-after"}


async def account_at(endpoint: str) -> AccountSnapshot:
    venue = adapter(AccountSpec("main", "paper", "swap", "USDT", endpoint, {}, {}))
    account = await venue.snapshot()
    await venue.close()
    return account
