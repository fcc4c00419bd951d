"""A tick with 1,000 notifications that wait for a target that is down, against the same tick with none.

Two real runners with stores on disk tick alternately, so that both have the same load. The sending thread runs in both:
it retries the pending notifications with its own pauses during the ticks.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from msgspec.structs import replace

from killswitch.engine.alerts import AlertState
from killswitch.graph.routing import Route, RouteRule, RouteTarget
from killswitch.incident.notify.custom_target import register_target
from killswitch.incident.notify.message import Message, decode_message
from killswitch.incident.notify.targets import NotSentError
from killswitch.model.decision import Decision
from killswitch.model.instant import HOUR, to_micros
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import Outgoing, TickRecord
from killswitch.runner.clock import SystemClock
from killswitch.runner.loop import Runner
from killswitch.runner.notify.notifier import Notifier
from killswitch.runner.observers import TickReport
from tests import graphs
from tests.bench.measure import Measure
from tests.bench.memory import fast_folder
from tests.outboxes import START, message
from tests.runner_world import ScriptedVenue, World, book, crash_policy

PENDING, TICKS, ROUNDS = 1_000, 10, 300


def measures() -> Iterator[Measure]:
    """The promise: at most five hundredths more, by the median ratio of all rounds; and what `routed` promises."""
    yield from routed()
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


EVENTS, TICK_OF = 10_000, 100
"""Events in all, and in each tick."""
SCOPES: tuple[int, ...] = (500, EVENTS)
"""The scopes over which they spread: with fewer than events, firings and resets take turns on each; else all fire."""
MINUTE_SECONDS, PROMISED_P99 = 60.0, 5.0


def routed() -> Iterator[Measure]:
    """10,000 events through the tree and the outbox while one channel is dead: none lost, all within a minute."""
    for scopes in SCOPES:
        with tempfile.TemporaryDirectory(dir=fast_folder()) as place:
            elapsed, p99, lost = _through(Path(place), scopes)
        name = f"{EVENTS:,} events on {scopes:,} scopes through routes and outbox with one dead channel"
        yield Measure(f"{name}: lost", float(lost), 1.0, "one", 0.0, "messages")
        yield Measure(f"{name}: in all", elapsed, MINUTE_SECONDS, "a minute", 1.0, "s")
        yield Measure(f"{name}: p99 to live channels", p99, PROMISED_P99, "promised", 1.0, "s")


def _through(folder: Path, scopes: int) -> tuple[float, float, int]:
    """Seconds until both live channels have everything, the p99 of a message, and how many did not arrive."""
    world = World(folder)
    store = world.open()
    arrived: dict[str, dict[str, float]] = {"one": {}, "two": {}}
    done = threading.Event()

    def live(name: str) -> Callable[[Message], None]:
        def send(message: Message) -> None:
            now = time.perf_counter()
            for each in message.members or (message.id,):
                arrived[name].setdefault(each, now)
            if all(len(ids) >= EVENTS for ids in arrived.values()):
                done.set()

        return send

    def dead(_message: Message) -> None:
        raise NotSentError("down")

    for name, send in (("one", live("one")), ("two", live("two")), ("dead", dead)):
        register_target(name, send)
    every = RouteRule(None, None, None, None, None, None, ())
    targets = {name: (RouteTarget("custom", name),) for name in ("one", "two", "dead")}
    routes = tuple(Route(name, every, to, 100_000 * HOUR, graphs.HERE) for name, to in targets.items())
    policies = replace(graphs.policy_set(crash_policy()), routes=routes)
    notifier = Notifier(policies, store, SystemClock())
    notifier.start()
    begun, decided = time.perf_counter(), dict[str, float]()
    for number in range(EVENTS // TICK_OF):
        at = Snapshot(datetime.now(UTC), (), "killswitch.snapshot/v1")
        decisions = tuple(_firing(f"{number}-{each}", at, scopes) for each in range(TICK_OF))
        at_decision = time.perf_counter()
        found = notifier.outgoing(at, decisions, (), decisions, AlertState())
        suppressed, blob = notifier.to_commit()
        record = TickRecord(at.as_of, "sha256:0", (), (), decisions, (), (), None, (), 0, found, suppressed, blob)
        store.commit_tick(record)
        for each in found:
            message = decode_message(each.body)
            decided |= dict.fromkeys(message.members or (message.id,), at_decision)
        notifier.ticked(TickReport(at, (), (), (), (), 0.0))
    done.wait(MINUTE_SECONDS)
    elapsed = time.perf_counter() - begun
    asyncio.run(notifier.drain(1.0))
    waits = sorted(at - decided[id_] for ids in arrived.values() for id_, at in ids.items())
    world.close()
    lost = 2 * EVENTS - len(waits)
    return elapsed, waits[len(waits) * 99 // 100] if waits else elapsed, lost


def _firing(name: str, at: Snapshot, scopes: int) -> Decision:
    """A firing on one of the scopes, or its reset."""
    tick, each = map(int, name.split("-"))
    number = tick * TICK_OF + each
    scope, is_reset = f"account/{number % scopes}", number // scopes % 2 == 1
    if is_reset:
        return Decision(name, at.as_of, "crash", "sha256:0", scope, "enforce", None, 0, 3, kind="reset", author="desk")
    return Decision(name, at.as_of, "crash", "sha256:0", scope, "enforce", "close", 3, 0)
