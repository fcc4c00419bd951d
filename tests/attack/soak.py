"""Soak test: an hour of continuous faults at one venue, in virtual time; nothing fires, and no resource leaks.

Faults of every kind happen at once: requests that are lost, garbled, late or answered falsely, streams that break, a
wall clock that jumps, lock files that others delete or replace with a pipe, runners that are killed. Prices go up and
down meanwhile, far from the limit. At the end the book falls by a quarter, and is closed.

`python -m tests.attack.soak [VENUE] [SECONDS] [SEED]` runs one soak test and prints its measurements.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import random
import sys
import tempfile
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

from msgspec import Struct, field

from tests.faults.mishaps import Chance, Mishap, Occasion
from tests.latency.sites import PRICE, VENUES, WARM_UP, Site
from tests.virtual_time import START, VirtualTime

FAILING: Final = 0.05
"""The share of requests that go wrong."""
TICK: Final = 3.0
SETTLED: Final = 0.5
"""After this share of the time every bounded buffer is full; growth from there on is a leak."""
FLAT_WITHIN: Final = 120.0
"""Seconds within which the book must be flat at the end; faults continue meanwhile."""
STEP: Final = 1.0
KINDS: Final = ("stream", "wall", "locks", "kill")
EVERY: Final = 150.0
"""Mean seconds between two disturbances other than faulty answers of the venue."""
JUMPS: Final = (-86_400, -3_600, -90, -5, 0, 0, 0, 5, 90, 3_600, 86_400)
"""By how many seconds a wall clock may be off."""
BOUNDED: Final = ("killswitch/model/parsing.py", "killswitch/model/magnitude.py")
"""Files that cache at most 8,192 numbers; the cache takes hours to fill."""
PACKAGES: Final = ("killswitch", "killswitch_ccxt", "killswitch_alpaca", "killswitch_paper")


class Resources(Struct, frozen=True):
    """The resources that the process holds. `memory`: bytes allocated by the product since tracing began."""

    descriptors: int
    threads: int
    memory: int


class SoakResult(Struct):
    """The result of a soak test: the resources before it, at two moments of it, and after it."""

    began: Resources
    settled: Resources | None = None
    full: Resources | None = None
    ended: Resources | None = None
    flat_after: float | None = None
    """Seconds from the fall at the end until the venue was flat; None: never."""
    early: str | None = None
    """The decision made while nothing was lost, if any."""
    problems: list[str] = field(default_factory=list)
    mishaps: Counter[Mishap] = field(default_factory=Counter)
    disturbances: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        resources = {"before": self.began, "halfway": self.settled, "at the end": self.full, "after": self.ended}
        return "\n".join(
            (
                f"mishaps: {dict(self.mishaps)}", f"disturbances: {dict(self.disturbances)}",
                *(f"{when}: {what}" for when, what in resources.items()),
                f"flat after {self.flat_after} s; decided early: {self.early}; problems: {self.problems}",
            )
        )  # fmt: skip


class JumpingClock:
    """A clock whose wall time jumps while its monotonic time does not."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return self._time.now() + self.ahead

    def monotonic(self) -> float:
        return self._time.monotonic()

    @property
    def origin(self) -> str:
        """All runners of a soak test share one machine that never reboots."""
        return "soak"

    async def sleep(self, seconds: float) -> None:
        await self._time.sleep(seconds)


def soak(venue: str, seconds: float, seed: int) -> SoakResult:
    """Run one soak test."""
    found = SoakResult(_resources())
    with tempfile.TemporaryDirectory() as folder:
        time = VirtualTime(START)
        try:
            time.run(_Soak(venue, Path(folder), time, random.Random(seed), found).run(seconds, seed))
        finally:
            tracemalloc.stop()
    found.ended = _resources()
    return found


def _resources() -> Resources:
    gc.collect()
    memory = 0
    if tracemalloc.is_tracing():
        ours = [tracemalloc.Filter(True, f"*/{package}/*") for package in PACKAGES]
        ours += [tracemalloc.Filter(False, f"*/{file}") for file in BOUNDED]
        memory = sum(it.size for it in tracemalloc.take_snapshot().filter_traces(ours).statistics("filename"))
    return Resources(len([*Path("/proc/self/fd").iterdir()]), threading.active_count(), memory)


class _Soak:
    """A running soak test."""

    def __init__(self, venue: str, folder: Path, time: VirtualTime, chance: random.Random, found: SoakResult) -> None:
        self._folder = folder
        self._time = time
        self._chance = chance
        self._found = found
        self._clock = JumpingClock(time)
        self._site = Site(VENUES[venue], folder, time, pushed="push" in VENUES[venue].can, tick=TICK)
        self._site.clock = self._clock

    async def run(self, seconds: float, seed: int) -> None:
        """Run the warm-up, then faults for `seconds`, then the fall."""
        site = self._site
        await site.open()
        site.start()
        try:
            await asyncio.sleep(WARM_UP)
            with self._mishaps(seed):
                await self._faults(seconds)
                await self._fall()
        finally:
            await site.close()
            self._found.problems += site.observed.problems

    @contextmanager
    def _mishaps(self, seed: int) -> Iterator[None]:
        quiet = self._site.wire.mishaps
        self._site.wire.mishaps = _CountedMishaps(seed, self._found.mishaps)
        try:
            yield
        finally:
            self._site.wire.mishaps = quiet

    async def _faults(self, seconds: float) -> None:
        site, found = self._site, self._found
        site.begin()
        while site.now < seconds:
            await asyncio.sleep(STEP)
            self._drift(seconds)
            if self._chance.random() < STEP / EVERY:
                await self._disturb(self._chance.choice(KINDS))
            site.wire.seen.clear()  # the memory of the test venue does not count
            if not tracemalloc.is_tracing() and site.now >= SETTLED * seconds:
                tracemalloc.start(1)
            if found.settled is None and site.now >= (1 + SETTLED) / 2 * seconds:
                found.settled = _resources()
        found.full = _resources()
        if site.observed.decided_at is not None:
            found.early = f"after {site.observed.decided_at:.1f} s"

    async def _fall(self) -> None:
        site, fell = self._site, self._time.elapsed
        site.fall(Decimal("0.26"))
        while self._time.elapsed < fell + FLAT_WITHIN:
            await asyncio.sleep(STEP)
            if not any(site.wire.exchange.held.values()):
                self._found.flat_after = self._time.elapsed - fell
                break

    def _drift(self, seconds: float) -> None:
        """Move prices up and down by 2%, three times in all: far from the limit of 10%."""
        change = Decimal(str(round(0.02 * math.sin(6 * math.pi * self._site.now / seconds), 6)))
        for symbol in self._site.symbols:
            self._site.wire.exchange.reprice(symbol, PRICE * (1 + change))

    async def _disturb(self, kind: str) -> None:
        match kind:
            case "kill" if tracemalloc.is_tracing():
                return  # a new process has no memory that could have grown
            case "stream":
                for socket in list(self._site.wire.sockets):
                    await socket.close()
            case "wall":
                self._clock.ahead = timedelta(seconds=self._chance.choice(JUMPS))
            case "locks":
                self._spoil_locks()
            case "kill":
                await self._site.kill()
                self._site.start()
        self._found.disturbances[kind] += 1

    def _spoil_locks(self) -> None:
        """Delete every lock file, and put a pipe in its place, as anyone who may write in the folder can."""
        folder = self._folder / "locks"
        for file in folder.glob("*.json"):
            file.unlink()
            os.mkfifo(file)


class _CountedMishaps:
    """Random mishaps, counted by kind."""

    def __init__(self, seed: int, counted: Counter[Mishap]) -> None:
        self._chance = Chance(seed, FAILING, math.inf)
        self._counted = counted

    def at(self, occasion: Occasion, now: float) -> Mishap:
        mishap = self._chance.at(occasion, now)
        self._chance.happened.clear()
        if mishap != "none":
            self._counted[mishap] += 1
        return mishap


def main(venue: str = "binance", seconds: str = "3600", seed: str = "1") -> None:
    """Run one soak test and print its result."""
    print(soak(venue, float(seconds), int(seed)))


if __name__ == "__main__":
    main(*sys.argv[1:])
