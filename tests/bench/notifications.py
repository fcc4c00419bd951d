"""A tick with 1,000 notifications that wait for a target that is down, against the same tick with none.

Two real runners with stores on disk tick alternately, so that both have the same load. The sending thread runs in both:
it retries the pending notifications with its own pauses during the ticks.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from msgspec.structs import replace

from killswitch.graph.routing import Route, RouteRule, RouteTarget
from killswitch.model.instant import HOUR, to_micros
from killswitch.model.store import Outgoing, TickRecord
from killswitch.runner.loop import Runner
from tests import graphs
from tests.bench.measure import Measure
from tests.bench.memory import fast_folder
from tests.outboxes import START, message
from tests.runner_world import ScriptedVenue, World, book, crash_policy

PENDING, TICKS, ROUNDS = 1_000, 10, 300


def measures() -> Iterator[Measure]:
    """The promise: at most five hundredths more, by the median ratio of all rounds."""
    with tempfile.TemporaryDirectory(dir=fast_folder()) as place:
        ours, reference = asyncio.run(_both(Path(place)))
    name = f"tick with {PENDING:,} notifications pending"
    yield Measure(name, ours / TICKS * 1e6, reference / TICKS * 1e6, "tick with none", 1.05, "µs")


async def _both(folder: Path) -> tuple[float, float]:
    """Seconds of TICKS ticks, with and without pending notifications."""
    worlds = []
    for name, pending in (("with", PENDING), ("without", 0)):
        (folder / name).mkdir()
        worlds.append(await _started(folder / name, pending))
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS + 1):
        # Alternately, with a changing first one, so that neither is always the first after the garbage collector.
        order = (0, 1) if number % 2 else (1, 0)
        for which in order:
            world, runner = worlds[which]
            gc.disable()
            begun = time.perf_counter()
            for _ in range(TICKS):
                await runner.tick()
            elapsed = time.perf_counter() - begun
            gc.enable()
            await world.clock.sleep(1.0)
            if number:
                times[which].append(elapsed)
    for world, runner in worlds:
        await runner.finish()
        await runner.shut_down()
        world.close()
    reference = median(times[1])
    # Both of a round have the same load, so the ratio of a round is more exact than that of the best of each.
    return reference * median(ours / none for ours, none in zip(*times, strict=True)), reference


async def _started(folder: Path, pending: int) -> tuple[World, Runner]:
    world = World(folder)
    store = world.open()
    target = RouteTarget("file", str(folder / "none" / "n.jsonl"))
    messages = tuple(
        Outgoing(f"m{number}", to_micros(START), "desk", target.key, b"{}" if number else _body())
        for number in range(pending)
    )
    store.commit_tick(TickRecord(START, "sha256:0", (), (), (), (), (), None, (), 0, messages))
    route = Route("desk", RouteRule(None, None, None, None, None, None, ()), (target,), 100_000 * HOUR, graphs.HERE)
    policies = replace(graphs.policy_set(crash_policy()), routes=(route,))
    runner = world.runner(store, [ScriptedVenue(book("1000"))], armed=False, policies=policies)
    await runner.start()
    await runner.tick()
    return world, runner


def _body() -> bytes:
    from killswitch.incident.notify.message import encode_message

    return encode_message(message("m0"))
