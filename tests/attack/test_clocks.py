"""Wall clocks that jump: real processes under libfaketime, at a paper venue whose clock is right."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.model.venue import AccountSpec
from killswitch.operations.commands import operator_event
from killswitch.runner.clock import SystemClock
from killswitch.runner.status_blob import LIVE_NAME, decode_view, encode_view, tick_time
from killswitch.store.sqlite import open_store
from killswitch_paper import adapter
from tests.e2e.processes import Site, ksctl, paper, process, until

AHEAD, RIGHT, BEHIND = "+7200s", "+0s", "-7200s"
READS = 3000
"""Reads of the account after which a market begins: a runner takes five minutes for them, a test seconds."""


def _library() -> Path | None:
    """The library that fakes clocks, which its package builds at installation; None where it is not installed."""
    package = importlib.util.find_spec("libfaketime")
    built = None if package is None or package.origin is None else Path(package.origin).parent.rglob("libfaketime.so.1")
    return next(iter(built or ()), None)


LIBRARY = _library()
needs_faked_clock = pytest.mark.skipif(
    LIBRARY is None, reason="libfaketime is not installed: its package is built with a C compiler, on Linux"
)


class WallClock:
    """The faked wall clock of every process started later; it can be set while they run."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._file = folder / "wall-clock"
        self._patch = patch
        self.set(RIGHT)

    def set(self, offset: str) -> None:
        """Replace the file atomically, because a process may read it at any time."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(offset + "\n", encoding="ascii")
        fresh.replace(self._file)

    @contextmanager
    def faked(self) -> Iterator[None]:
        with self._patch.context() as patch:
            patch.setenv("LD_PRELOAD", str(LIBRARY))
            patch.setenv("FAKETIME_TIMESTAMP_FILE", str(self._file))
            patch.setenv("FAKETIME_NO_CACHE", "1")
            patch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            yield


@pytest.fixture
def wall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WallClock:
    return WallClock(tmp_path, monkeypatch)


@needs_faked_clock
def test_an_operator_close_works_after_a_clock_that_was_ahead_is_set_back(tmp_path: Path, wall: WallClock) -> None:
    """Two hours ahead at the start, then right: an operator close is executed at once, and the difference is paged."""
    with paper("--crash", "7", "--skip", "240", "--speed", "1", "--begin-after-readings", "3") as address, wall.faked():
        site = Site(tmp_path, address)
        wall.set(AHEAD)
        with site.running("--live"):
            wall.set(RIGHT)
            until(lambda: any("clock" in notice.text for notice in site.status().notices), "the difference is paged")
            closed = ksctl("close", "--store", str(site.store), "--reason", "operator: the clock was ahead")
            assert closed.returncode == 0, closed.stdout + closed.stderr
        assert not site.venue().positions


@needs_faked_clock
def test_a_crash_is_closed_while_the_clock_jumps_forward_and_back(tmp_path: Path, wall: WallClock) -> None:
    """Two hours ahead, two hours behind, right: the stage fires, the book is closed, and the lock remains.

    The market begins after the runner has seen the clock jump in both directions; it jumps until the book is closed.
    """
    with (
        paper("--crash", "7", "--skip", "240", "--speed", "120", "--begin-after-readings", str(READS)) as address,
        wall.faked(),
    ):
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            for offset, side in ((AHEAD, "ahead of"), (BEHIND, "behind")):
                wall.set(offset)
                text = f"{side} the dates of the ticks"
                until(lambda text=text: has_notice(site, text), f"the wall clock is {text}")  # type: ignore[misc] # a default binds it
            assert site.decisions() == [], "the market has not begun"
            begin_market(site)
            offsets = cycle((RIGHT, AHEAD, BEHIND))

            def closed() -> bool:
                wall.set(next(offsets))
                return not site.venue().positions

            until(closed, "the book is closed")
            wall.set(RIGHT)
            assert runner.poll() is None
            until(lambda: json.loads((site.locks / "account__main.json").read_text())["locked"], "the lock is set")
        assert [decision.stage for decision in site.decisions()] == ["close-everything"]


def has_notice(site: Site, text: str) -> bool:
    """Whether one of the newest notices contains the text."""
    return any(text in notice.text for notice in site.status().notices)


def begin_market(site: Site) -> None:
    """Read the account until the market begins."""

    async def read() -> None:
        venue = adapter(AccountSpec("main", "paper", "swap", "USDT", site.address, {}, {}))
        try:
            for _ in range(READS):
                await venue.snapshot()
        finally:
            await venue.close()

    asyncio.run(read())


def set_earlier_boot(site: Site) -> None:
    """Change the store as a boot does: its last tick belongs to an earlier boot of this machine."""
    store = open_store(str(site.store))
    try:
        view = decode_view(store.live(LIVE_NAME) or b"")
        assert view.clock is not None
        before = replace(view.clock, origin="the boot before")
        store.put_live(LIVE_NAME, encode_view(replace(view, clock=before)))
    finally:
        store.close()


@needs_faked_clock
def test_an_operator_close_that_waits_over_a_boot_with_a_clock_ahead_is_executed(
    tmp_path: Path, wall: WallClock
) -> None:
    """Killed before it processed the command, restarted two hours ahead: the book is closed, and the jump is paged."""
    with paper("--crash", "7", "--skip", "100", "--speed", "600", "--begin-after-readings", "3") as address:
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            runner.kill()
            runner.wait()
        store = open_store(str(site.store))
        store.put_event(operator_event("close", "account/main", "desk", "market: now", tick_time(store, SystemClock())))
        store.close()
        set_earlier_boot(site)
        wall.set(AHEAD)
        with wall.faked(), process("run", *site.place, "--interval", "100ms", "--live", "--ticks", "200") as runner:
            until(lambda: runner.poll() is not None or not site.venue().positions, "the book is closed")
            until(lambda: any("no runner has run" in each.text for each in site.status().notices), "it is paged")
        assert not site.venue().positions
