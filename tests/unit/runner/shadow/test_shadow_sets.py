"""A shadow set sees every snapshot and does nothing; whatever happens to it, the ticks of the run go on."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.accounts.next_set import next_set
from killswitch.accounts.opening import LoadedPolicies
from killswitch.model.applied_set import AppliedSet, PolicyFile, PolicyOrigin, folder_digest
from killswitch.model.snapshot import Position, decode_snapshot
from killswitch.operations.commands import operator_event
from killswitch.runner.loop import Runner
from killswitch.runner.shadow.child_process import COMMAND, ShadowProcess
from killswitch.runner.shadow.comparison import shadow_reports
from killswitch.runner.shadow.evaluation import ShadowSeed, ShadowStart
from killswitch.runner.shadow.record import (
    SHADOW,
    ShadowRecord,
    encode_record,
    past_of,
    shadow_records,
    time_in_shadow,
)
from killswitch.runner.shadow.shadow_sets import ShadowRefusedError, ShadowSets, SourceShadows
from killswitch.source.candidate import Candidate
from killswitch.store.sqlite import open_store
from tests.backtests import written
from tests.runner_world import ScriptedVenue, Seen, World, book
from tests.worlds import after, rules, snapshot

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: crash}}
spec:
  mode: enforce
  scope: {{each: account, match: {{}}}}
  max_gap: 10m
  triggers: {{fall: {{signal: equity.loss_from_start, at_least: {at_least}, on_unknown: hold}}}}
  stages:
    - name: close-everything
      level: 1
      any: [fall]
      cooldown: 1m
      reset: manual
      actions: [{{lock_trading: {{mode: reduce_only}}}}, {{close: {{side: both, fraction: 100%}}}}]
"""
DEPLOYED = written(POLICY.format(at_least="10%"))
STRICT = (PolicyFile("crash.yaml", POLICY.format(at_least="5%").encode()),)
SAME = (PolicyFile("crash.yaml", POLICY.format(at_least="10%").encode()),)
ORIGIN = PolicyOrigin(source="desk", commit="c0ffee")
WAITS = 30.0
"""Seconds that a test waits for a process; it goes on as soon as the process has answered."""


class Desk:
    """A run of a policy that closes at a fall of 10%, with shadow sets next to it."""

    def __init__(self, world: World, command: Sequence[str] = COMMAND, **more: Any) -> None:
        self.world, self.store, self.seen = world, world.open(), Seen()
        self.lines: list[str] = []
        self.venue = ScriptedVenue(book("1100"))
        self.sets = ShadowSets(
            self.store, str(world.folder / "store.sqlite"), ["main"], 1.0, self.lines.append, command, **more
        )
        self.runner: Runner = world.runner(
            self.store, [self.venue], policies=DEPLOYED, witnesses=(self.seen, self.sets)
        )

    @property
    def now(self) -> datetime:
        return self.world.clock.now()

    async def tick(self, equity: str = "1100", times: int = 1, **more: Any) -> None:
        for _ in range(times):
            self.venue.answer = replace(book(equity), positions=self._held(equity), **more)
            await self.runner.tick()
            await self.world.clock.sleep(1.0)

    def _held(self, equity: str) -> tuple[Position, ...] | None:
        return () if self.venue.sent else book(equity).positions

    def run(self, course: Callable[[], Awaitable[None]], stop_within: float = WAITS) -> tuple[str, ...]:
        """Start, tick once, follow the course, and stop; returns the problems of the stop."""

        async def whole() -> None:
            await self.runner.start()
            await self.tick()
            await course()
            await self.runner.finish()

        asyncio.run(whole())
        return self.sets.close(stop_within)

    def run_with(self, files: Sequence[PolicyFile], times: int) -> None:
        """A run with a set in shadow, through a fall of 6% of so many ticks."""

        async def course() -> None:
            self.sets.begin(files, ORIGIN, None, self.now)
            await self.tick("1034", times=times)

        assert self.run(course) == ()

    @property
    def record(self) -> ShadowRecord:
        (found,) = shadow_records(self.store)
        return found


def fired(desk: Desk) -> list[tuple[str | None, datetime]]:
    return [(each.stage, each.as_of) for each in past_of(desk.record).decisions if each.kind is None]


def test_a_stricter_set_would_have_fired_and_nothing_of_it_is_done(world: World) -> None:
    """A fall of 6%: the shadow set fires once, and there is no order, no lock of it, no message and no decision."""
    desk = Desk(world)

    async def course() -> None:
        desk.sets.begin(STRICT, ORIGIN, None, desk.now)
        reads = desk.venue.reads
        await desk.tick("1100")
        await desk.tick("1034", times=3)
        assert desk.venue.reads == reads + 4

    assert desk.run(course) == ()
    ((stage, at),) = fired(desk)
    assert (stage, at) == ("close-everything", desk.seen.reports[2].snapshot.as_of)
    assert desk.venue.sent == []
    assert desk.store.decisions(10) == []
    assert desk.store.deliveries(10) == []
    assert desk.store.journal() == []
    assert [file.name for file in desk.world.locks.folder.rglob("*.json") if '"locked": true' in file.read_text()] == []


def test_its_decisions_carry_its_own_digest_and_commit(world: World) -> None:
    """They are in the store of the set, and name the set that was in shadow."""
    desk = Desk(world)
    desk.run_with(STRICT, 2)
    (decision,) = past_of(desk.record).decisions
    digest = written(POLICY.format(at_least="5%")).digest
    assert (decision.policy_set, decision.commit) == (digest, "c0ffee")


def test_the_same_set_differs_in_nothing_from_the_deployed_one(world: World) -> None:
    """It begins with the states of the deployed set, and both fire at the same tick."""
    desk = Desk(world)

    async def course() -> None:
        await desk.tick("1100", times=3)
        desk.sets.begin(SAME, ORIGIN, None, desk.now)
        await desk.tick("1100")
        await desk.tick("900", times=2)
        assert await desk.runner.close_within(60.0)
        await desk.tick("900", times=2)

    desk.run(course)
    (report,) = shadow_reports(desk.store, desk.now)
    assert report.differences == ()
    assert [(each.shadow, each.deployed) for each in report.counts] == [(1, 1)]
    assert not report.is_partly_known


def test_a_latch_of_the_deployed_set_is_one_of_the_shadow_set(world: World) -> None:
    """What has fired before the set began is in force for it, and does not fire a second time."""
    desk = Desk(world)

    async def course() -> None:
        await desk.tick("900")
        assert await desk.runner.close_within(60.0)
        desk.sets.begin(STRICT, ORIGIN, None, desk.now)
        await desk.tick("900", times=3)

    desk.run(course)
    assert fired(desk) == []


def test_a_firing_is_a_line_of_the_log(world: World) -> None:
    """Nobody else is notified of it."""
    desk = Desk(world)

    async def course() -> None:
        desk.sets.begin(STRICT, ORIGIN, None, desk.now)
        await desk.tick("1034")
        deadline = asyncio.get_running_loop().time() + WAITS
        while not desk.lines and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
            await desk.tick("1034")

    desk.run(course)
    (line,) = desk.lines
    assert "close-everything of crash on account/main would have fired at 2024-01-01T00:00:01Z, with 1 order" in line


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A pipe that a blocked process waits for until the test lets it go."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    yield path
    opener = threading.Thread(target=lambda: path.open("wb").close(), daemon=True)
    opener.start()
    opener.join(1.0)


def test_a_set_that_hangs_delays_no_tick(world: World, gate: Path) -> None:
    """The process waits for an event that never comes: every tick completes, and what does not fit is dropped.

    Snapshots are large, so that they fill the pipe to the process as well as the queue in front of it.
    """
    desk = Desk(world, (sys.executable, "-c", f"open({str(gate)!r}).read()"))

    async def course() -> None:
        desk.sets.begin(STRICT, ORIGIN, None, desk.now)
        many = tuple(rules(f"S{number}") for number in range(150))
        for _ in range(700):
            await desk.tick("1100", instruments=many)
        await desk.tick("900", times=2)
        assert await desk.runner.close_within(60.0)

    (lost,) = desk.run(course, stop_within=1.0)
    assert lost.endswith("did not end within 1 s: its last ticks are lost")
    assert [decision.stage for report in desk.seen.reports for decision in report.decisions] == ["close-everything"]
    assert len(desk.venue.sent) == 1
    assert len(desk.seen.reports) == 703


FAILS = (sys.executable, "-c", "raise SystemExit(3)")
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28)); "
HOG = (sys.executable, "-c", LIMITED + "held = [bytearray(1 << 26) for _ in range(99)]")


@pytest.mark.parametrize("command", [FAILS, HOG, ("/nonexistent/program",)])
def test_a_set_that_fails_is_a_problem_on_record_and_the_run_goes_on(world: World, command: Sequence[str]) -> None:
    """An exception, too much memory, or no process at all: a warning, and the deployed set closes as ever."""
    desk = Desk(world, command)

    async def course() -> None:
        desk.sets.begin(STRICT, ORIGIN, None, desk.now)
        deadline = asyncio.get_running_loop().time() + WAITS
        while not desk.sets.alerts.found and asyncio.get_running_loop().time() < deadline:
            await desk.tick()
            await asyncio.sleep(0.02)
        await desk.tick("900", times=2)
        assert await desk.runner.close_within(60.0)

    desk.run(course)
    assert len(desk.venue.sent) == 1
    assert desk.record.problem is not None
    warnings = [it for report in desk.seen.reports for it in report.notices if "shadow set" in it.text]
    assert {it.severity for it in warnings} == {"warning"}


def test_a_set_that_does_not_compile_is_a_problem_with_its_place(world: World) -> None:
    desk = Desk(world)
    broken = (PolicyFile("crash.yaml", STRICT[0].content.replace(b"at_least", b"at_last")),)

    async def course() -> None:
        desk.sets.begin(broken, ORIGIN, None, desk.now)
        deadline = asyncio.get_running_loop().time() + WAITS
        while not desk.sets.alerts.found and asyncio.get_running_loop().time() < deadline:
            await desk.tick()
            await asyncio.sleep(0.05)
        await desk.tick()

    desk.run(course)
    problem = desk.record.problem or ""
    assert problem.startswith("it does not compile: ")
    assert "crash.yaml:9: KS" in problem


def test_a_set_ends_at_its_time_and_keeps_what_it_has_recorded(world: World) -> None:
    desk = Desk(world)

    async def course() -> None:
        desk.sets.begin(STRICT, ORIGIN, desk.now + timedelta(seconds=5), desk.now)
        await desk.tick("1034", times=10)
        assert desk.sets.active == ()

    desk.run(course)
    assert desk.record.ended_at is not None
    assert (desk.record.ended_at - desk.record.begun_at) >= timedelta(seconds=5)


def test_a_set_goes_on_in_the_next_run_and_the_time_between_is_a_gap(world: World) -> None:
    """Its own states are restored: it has fired, and does not fire again. The gap is not time in shadow."""
    first = Desk(world)
    first.run_with(STRICT, 4)
    asyncio.run(world.clock.sleep(600.0))
    second = Desk(world)

    async def goes_on() -> None:
        second.sets.resume(second.now)
        await second.tick("1034", times=4)

    second.run(goes_on)
    assert len(fired(second)) == 1
    (report,) = shadow_reports(second.store, second.now)
    assert len(report.gaps) == 1
    assert report.is_partly_known
    assert (report.ticks, report.seconds) == (8, 6.0)
    folder = second.record.origin.folder_digest
    assert time_in_shadow(second.store, folder) == timedelta(seconds=6)
    assert time_in_shadow(second.store, report.record.digest) == timedelta(seconds=6)
    assert time_in_shadow(second.store, "sha256:other") == timedelta()


def test_an_operators_command_reaches_the_shadow_set(world: World) -> None:
    """A reset of the scope resets it there, too: it fires again on the same fall."""
    desk = Desk(world)

    async def course() -> None:
        desk.sets.begin(STRICT, ORIGIN, None, desk.now)
        await desk.tick("1034", times=2)
        desk.store.put_event(operator_event("reset", "account/main", "desk", "seen", desk.now))
        await desk.tick("1034")
        await desk.tick("970", times=2)

    desk.run(course)
    assert len(fired(desk)) == 2


def test_no_more_than_four_sets_are_in_shadow(world: World) -> None:
    desk = Desk(world)

    async def course() -> None:
        for number in range(4):
            desk.sets.begin((PolicyFile(f"{number}.yaml", STRICT[0].content),), ORIGIN, None, desk.now)
        with pytest.raises(ShadowRefusedError, match="4 sets are in shadow"):
            desk.sets.begin(STRICT, ORIGIN, None, desk.now)

    desk.run(course)


@pytest.mark.parametrize("path", ["../crash.yaml", "/etc/crash.yaml", ""])
def test_no_file_of_a_set_leads_out_of_its_folder(world: World, path: str) -> None:
    desk = Desk(world)

    async def course() -> None:
        with pytest.raises(ShadowRefusedError, match="is no path in the folder"):
            desk.sets.begin((PolicyFile(path, b""),), ORIGIN, None, desk.now)

    desk.run(course)


def test_the_process_sees_no_credential(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment has what Python needs, and nothing else of the runner's."""
    monkeypatch.setenv("DESK_API_SECRET", "s3cret")
    found = tmp_path / "environment"
    desk = Desk(world, (sys.executable, "-c", f"import os; open({str(found)!r}, 'w').write(repr(dict(os.environ)))"))

    async def course() -> None:
        desk.sets.begin(STRICT, ORIGIN, None, desk.now)
        deadline = asyncio.get_running_loop().time() + WAITS
        while not desk.sets.alerts.found and asyncio.get_running_loop().time() < deadline:
            await desk.tick()
            await asyncio.sleep(0.02)

    desk.run(course)
    assert "PATH" in found.read_text()
    assert "s3cret" not in found.read_text()


def _keeping(received: Path, begins: threading.Event, most: int) -> ShadowProcess:
    """A process that keeps its input in a file, and begins at an event. `most`: snapshots in its queue."""

    def start() -> ShadowStart:
        assert begins.wait(WAITS)
        return ShadowStart(
            folder="", store_at="", source_at="", armed=(), commit=None, seed=ShadowSeed(0), longest_gap=5.0, memory=0
        )

    keep = f"import sys; open({str(received)!r}, 'wb').write(sys.stdin.buffer.read())"
    return ShadowProcess("x", start, (sys.executable, "-c", keep), most)


def test_a_dropped_snapshot_is_counted_and_its_commands_are_passed_on(tmp_path: Path) -> None:
    """The next snapshot that fits says how many are missing, and has the reset of the dropped one."""
    received = tmp_path / "received"
    go_on = threading.Event()

    process = _keeping(received, go_on, 1)  # the queue fills before the process is there
    reset = operator_event("reset", "account/main", "desk", "seen", after())
    process.put(snapshot(after(), book("1100")))
    process.put(snapshot(after(seconds=1), book("1100"), events=(reset,)))
    assert process.dropped == 1
    go_on.set()
    deadline, dropped = time.monotonic() + WAITS, 0
    while process.dropped > dropped and time.monotonic() < deadline:  # until the first one has left the queue
        dropped = process.dropped
        process.put(snapshot(after(seconds=2), book("1100")))
        time.sleep(0.01)
    process.stop(WAITS)
    snapshots = [decode_snapshot(line) for line in received.read_bytes().splitlines()[1:]]
    assert [each.missing for each in snapshots] == [0, dropped]
    assert [[event.id for event in each.events] for each in snapshots] == [[], [reset.id]]


def test_a_stop_before_the_process_is_there_loses_no_snapshot(tmp_path: Path) -> None:
    """A busy machine starts the process late: it gets what is queued, and has ended after the stop."""
    received = tmp_path / "received"
    stopped = threading.Event()

    process = _keeping(received, stopped, 2)
    process.put(snapshot(after(), book("1100")))
    threading.Timer(0.2, stopped.set).start()
    assert process.stop(WAITS)
    assert [decode_snapshot(line).as_of for line in received.read_bytes().splitlines()[1:]] == [after()]


def test_the_store_of_a_set_is_a_store_of_decisions(world: World) -> None:
    """`ksctl explain DECISION --store` reads it: the decision is there with its snapshot."""
    desk = Desk(world)
    desk.run_with(STRICT, 2)
    own = open_store(desk.record.store_at, read_only=True)
    (stored,) = own.decisions(5)
    kept = own.decision(stored.decision.id)
    own.close()
    assert kept is not None
    assert kept.snapshot is not None


def _differences(desk: Desk) -> list[str]:
    """The notices about differences, each once."""
    return [each.text for report in desk.seen.reports for each in report.notices if each.policy == "shadow"]


def test_files_of_a_set_are_removed_90_days_after_its_end(world: World) -> None:
    """And no others: the set that ended a day later stays."""
    desk = Desk(world)
    folder = world.folder / "store.sqlite.shadow"
    for name, days in (("old", 91), ("new", 89)):
        (folder / name).mkdir(parents=True)
        (folder / f"{name}.sqlite").write_bytes(b"")
        ended = ShadowRecord(
            id=name, reason="candidate", origin=ORIGIN, begun_at=desk.now - timedelta(days=100),
            ended_at=desk.now - timedelta(days=days), store_at=str(folder / f"{name}.sqlite"),
        )  # fmt: skip
        desk.store.put_live(f"{SHADOW}{name}", encode_record(ended))
    desk.sets.resume(desk.now)
    assert sorted(each.name for each in folder.iterdir()) == ["new", "new.sqlite"]
    assert [each.id for each in shadow_records(desk.store)] == ["new"]


def test_after_a_promotion_the_set_before_stays_in_shadow_with_its_states(world: World) -> None:
    """The stricter set is taken between two ticks; the old one goes on in shadow, and a difference is on record."""
    deployed = AppliedSet(
        digest=DEPLOYED.digest, at=after(), program="1", origin=PolicyOrigin(source="desk"), files=SAME
    )
    desk = Desk(world, deployed=deployed, previous_for=timedelta(hours=1))
    following = next_set(STRICT, ORIGIN, LoadedPolicies(DEPLOYED, (), ()))

    async def course() -> None:
        candidate = desk.sets.begin(STRICT, ORIGIN, None, desk.now)
        await desk.tick()
        proposal = desk.runner.reloads.propose(following)
        assert proposal.is_prepared.wait(WAITS)
        await desk.tick(times=2)
        assert proposal.answer.result(0).status == "taken"
        assert [(each.reason, each.id != candidate) for each in desk.sets.active] == [("previous", True)]
        await desk.tick("1034", times=2)
        assert await desk.runner.close_within(60.0)
        deadline = asyncio.get_running_loop().time() + WAITS
        while not _differences(desk) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
            await desk.tick("1034")

    desk.run(course)
    reports = {each.record.reason: each for each in shadow_reports(desk.store, desk.now)}
    assert reports["candidate"].record.ended_at is not None
    (difference,) = reports["previous"].differences
    assert (difference.stage, difference.what) == ("close-everything", "only the deployed set fires it")
    (text,) = _differences(desk)
    assert text.startswith("close-everything of crash on account/main at 2024-01-01T00:00:04Z: only the deployed set")
    assert reports["previous"].firings == ()


class Source:
    """A source that has its head in shadow for as long as `awaited`."""

    def __init__(self) -> None:
        self.head: Candidate | None = None
        self.counted: list[tuple[str, int]] = []

    @property
    def for_shadow(self) -> Candidate | None:
        return self.head

    def was_in_shadow(self, digest: str, micros: int) -> None:
        self.counted.append((digest, micros))


def head_of(files: tuple[PolicyFile, ...]) -> Candidate:
    return Candidate(
        source="desk", kind="git", ref="refs/heads/main", commit="c0ffee", files=files,
        folder_digest=folder_digest(files),
    )  # fmt: skip


def test_the_head_of_a_source_is_in_shadow_while_the_source_waits_for_it(world: World) -> None:
    """The source learns for how long it was; once it waits for another set or for none, the first one is ended."""
    desk, source = Desk(world), Source()
    observer = SourceShadows(desk.sets, source, "desk")

    def in_shadow() -> list[str]:
        return [record.origin.folder_digest for record in desk.sets.active]

    async def ticks(times: int) -> None:
        for _ in range(times):
            await desk.tick("1100")
            observer.ticked(desk.seen.reports[-1])

    async def course() -> None:
        await ticks(1)
        assert desk.sets.active == ()
        source.head = head_of(STRICT)
        await ticks(3)
        assert in_shadow() == [folder_digest(STRICT)]
        deadline = time.monotonic() + WAITS
        while source.counted[-1][1] < 3_000_000 and time.monotonic() < deadline:
            await ticks(1)
            await asyncio.sleep(0.05)
        source.head = head_of(SAME)
        await ticks(1)
        assert in_shadow() == [folder_digest(SAME)]
        source.head = None
        await ticks(1)
        assert desk.sets.active == ()

    desk.run(course)
    digest, micros = max(source.counted, key=lambda each: each[1])
    assert digest == folder_digest(STRICT)
    assert micros >= 3_000_000
    assert micros % 1_000_000 == 0


def test_a_head_that_cannot_be_in_shadow_is_a_warning_and_begins_once_it_can(world: World) -> None:
    """Four other sets are in shadow; one of them ends."""
    desk, source = Desk(world), Source()
    observer = SourceShadows(desk.sets, source, "desk")

    async def course() -> None:
        others = [
            desk.sets.begin((PolicyFile(f"{number}.yaml", b"{}"),), PolicyOrigin(source="x"), None, desk.now)
            for number in range(4)
        ]
        source.head = head_of(STRICT)
        await desk.tick()
        observer.ticked(desk.seen.reports[-1])
        (alert,) = observer.alerts.found
        assert (alert.severity, "4 sets are in shadow already" in alert.text) == ("warning", True)
        desk.sets.end(others[0], desk.now)
        await desk.tick()
        observer.ticked(desk.seen.reports[-1])
        assert observer.alerts.found == ()
        assert len(desk.sets.active) == 4

    desk.run(course)
