"""A machine whose wall clock jumps: real processes under libfaketime, against a paper venue whose clock is right."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest

from tests.e2e.processes import Site, ksctl, paper, until

AHEAD, RIGHT, BEHIND = "+7200s", "+0s", "-7200s"


def _library() -> Path | None:
    """The library that fakes clocks, as the package builds it at its installation; None where it is not there."""
    package = importlib.util.find_spec("libfaketime")
    built = None if package is None or package.origin is None else Path(package.origin).parent.rglob("libfaketime.so.1")
    return next(iter(built or ()), None)


LIBRARY = _library()
needs_faked_clock = pytest.mark.skipif(
    LIBRARY is None, reason="libfaketime is not installed: its package is built with a C compiler, on Linux"
)


class WallClock:
    """The wall clock of every process that is begun after it; it can be set while they run."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._file = folder / "wall-clock"
        self._patch = patch
        self.set(RIGHT)

    def set(self, offset: str) -> None:
        """Replaced whole: a process reads it at any time."""
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
def test_a_clock_that_was_ahead_and_was_put_back_takes_no_lever_away(tmp_path: Path, wall: WallClock) -> None:
    """Two hours ahead at the start, then right: a close by hand is carried out at once, and the difference is paged."""
    with paper("--crash", "7", "--skip", "240", "--speed", "1", "--begin-after-readings", "3") as address, wall.faked():
        site = Site(tmp_path, address)
        wall.set(AHEAD)
        with site.running("--live"):
            wall.set(RIGHT)
            until(lambda: any("clock" in notice.text for notice in site.standing().notices), "the difference is paged")
            closed = ksctl("close", "--store", str(site.store), "--reason", "operator: the clock was ahead")
            assert closed.returncode == 0, closed.stdout + closed.stderr
        assert not site.venue().positions


@needs_faked_clock
def test_a_crash_is_closed_while_the_clock_goes_to_and_fro(tmp_path: Path, wall: WallClock) -> None:
    """Two hours ahead, right, two hours behind: the stage fires, the book is closed, and the lock stands."""
    with (
        paper("--crash", "7", "--skip", "240", "--speed", "30", "--begin-after-readings", "3") as address,
        wall.faked(),
    ):
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            offsets = cycle((AHEAD, RIGHT, BEHIND))

            def closed() -> bool:
                wall.set(next(offsets))
                return not site.venue().positions

            until(closed, "the book is closed")
            wall.set(RIGHT)
            assert runner.poll() is None
            until(lambda: json.loads((site.locks / "account__main.json").read_text())["locked"], "the lock stands")
        assert [decision.stage for decision in site.decisions()] == ["close-everything"]
