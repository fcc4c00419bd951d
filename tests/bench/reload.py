"""The longest tick of a run while it takes another set of 200 files, against a tick before.

A runner of an account that every policy watches, on a scripted venue and a store on disk, ticks ten times a second.
Every file changes a threshold; they are read, compiled and prepared next to the ticks, as by `ksctl reload`, and taken
between two of them.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from msgspec import Struct

from killswitch.accounts.next_set import next_set_at, program_version
from killswitch.accounts.opening import LoadedPolicies, read_policies
from killswitch.model.applied_set import AppliedSet, PolicyOrigin
from killswitch.runner.hot_reload import ReloadAnswer, SetOfStart
from killswitch.runner.loop import Runner
from killswitch.runner.process import FirstAnswers, switch_threads_often
from tests.bench.desk import FILES, write_set
from tests.bench.measure import Measure
from tests.runner_world import ScriptedVenue, World, book

INTERVAL: Final = 0.1
BEFORE: Final = 40
AFTER: Final = 10
LATER: Final = 50.0
"""Milliseconds that the longest tick may take more than the longest one before."""
ACCOUNTS: Final = ("one",)


class Tick(Struct, frozen=True):
    """Seconds of one tick: as they pass, and of the processor for its thread."""

    passed: float
    processor: float


def measures() -> Iterator[Measure]:
    """The longest tick during a reload, beyond the longest one before it."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "policies"
        write_set(files, FILES)
        _rewrite(files, "account: [account-", f"account: [{', '.join(ACCOUNTS)}, account-")
        before, during = asyncio.run(_run(Path(folder), files))
    for what, passed in (("passed", True), ("processor", False)):
        longest = [max(each.passed if passed else each.processor for each in ticks) * 1e3 for ticks in (before, during)]
        print(f"longest tick, {what}: {longest[0]:.1f} ms before, {longest[1]:.1f} ms during the reload")
    later = max(each.passed for each in during) - max(each.passed for each in before)
    yield Measure(f"reload of {FILES} files: the longest tick, beyond one before", later * 1e3, LATER, "allowed", 1.0)


async def _run(folder: Path, files: Path) -> tuple[list[Tick], list[Tick]]:
    switch_threads_often()
    loaded = read_policies((files,))
    world = World(folder)
    runner = _runner(world, loaded)
    await runner.start()
    before = [await _tick(runner, world) for _ in range(BEFORE)][5:]
    _rewrite(files, "      at_least: ", "      at_least: 1")
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(_reload, runner, files, loaded)
        during = []
        while not answer.done():
            during.append(await _tick(runner, world))
        during += [await _tick(runner, world) for _ in range(AFTER)]
    if answer.result().status != "taken":
        raise AssertionError(answer.result())
    await runner.finish()
    await runner.shut_down()
    world.close()
    return before, during


def _rewrite(files: Path, text: str, by: str) -> None:
    for file in files.glob("*.yaml"):
        file.write_text(file.read_text(encoding="utf-8").replace(text, by), encoding="utf-8")


def _reload(runner: Runner, files: Path, loaded: LoadedPolicies) -> ReloadAnswer:
    proposed = next_set_at((files,), PolicyOrigin(source="bench"), loaded)
    return runner.propose(proposed).answer.result()


def _runner(world: World, loaded: LoadedPolicies) -> Runner:
    origin = PolicyOrigin(source="bench")
    in_force = AppliedSet(digest=loaded.policies.digest, at=world.clock.now(), program=program_version(),
                          origin=origin, files=loaded.files)  # fmt: skip
    venues = [ScriptedVenue(book("1100", name), name) for name in ACCOUNTS]
    return world.runner(
        world.open(), venues, policies=loaded.policies, witnesses=(FirstAnswers(),), of_start=SetOfStart(in_force)
    )


async def _tick(runner: Runner, world: World) -> Tick:
    """The seconds of a tick; then the rest of the interval passes."""
    began, on_processor = time.perf_counter(), time.thread_time()
    await runner.tick()
    took = Tick(time.perf_counter() - began, time.thread_time() - on_processor)
    await world.clock.sleep(INTERVAL)
    await asyncio.sleep(max(0.0, INTERVAL - took.passed))
    return took
