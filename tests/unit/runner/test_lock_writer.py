"""A lock folder that hangs: closing continues, people are paged, and the lock is written when it answers again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import Iterable, Iterator
from errno import EACCES, EIO, ENOSPC
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.deadline import DeadlineError, call_within
from killswitch.gate.files import replace_file
from killswitch.gate.lock_reader import read_lock
from killswitch.operations.status import locks_at, store_status
from killswitch.runner.loop import Runner
from tests.runner_world import PACE, ScriptedVenue, Seen, World, book
from tests.shown import status_text
from tests.threads import NoThreads

SHORT = replace(PACE, lock_timeout=0.01, stop_timeout=0.05)
PATIENT = replace(SHORT, lock_timeout=0.5)
"""Where a folder that does not hang must not be taken for one that does: it has three such times to make progress."""


class Mount:
    """The file system of a folder, as far as replacing a file goes; while it hangs, no call returns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.answers = threading.Event()
        self.writes = 0
        self._patch = monkeypatch
        self.answer()

        def replace_file_there(path: Path, content: bytes) -> None:
            if path.parent == folder:
                self.writes += not self.answers.is_set()
                self.answers.wait()
            replace_file(path, content)

        monkeypatch.setattr("killswitch.gate.lock_file_writer.replace_file", replace_file_there)

    def hang(self) -> None:
        """Hang from now on; a caller that waits for the result is told so at once."""
        self._patch.setattr("killswitch.runner.locks.lock_writer.DEADLINE", 0.0)
        self.answers.clear()

    def answer(self) -> None:
        """Release every call, hanging or future; however slow this machine is, nothing is given up."""
        self._patch.setattr("killswitch.runner.locks.lock_writer.DEADLINE", 3600.0)
        self.answers.set()


@pytest.fixture
def mount(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    """The disk of the lock folder; the file for all scopes is on another one."""
    made = Mount(monkeypatch, world.locks.folder)
    yield made
    made.answers.set()


async def ticks(world: World, runner: Runner, count: int) -> None:
    for _ in range(count):
        await world.clock.sleep(1.0)
        await runner.tick()


async def written_once(world: World, runner: Runner) -> None:
    """Tick until the account's file is written: a tick waits for it for a moment only."""
    await ticks(world, runner, 1)
    while not (world.locks.folder / "account__main.json").exists():
        await asyncio.sleep(0.01)
        await ticks(world, runner, 1)


def of_the_folder(texts: Iterable[str]) -> list[str]:
    """Without those about the file for all scopes: on a busy machine it may be late too."""
    return [text for text in texts if "for all scopes" not in text]


def test_l3_a_close_starts_in_the_tick_that_decides_it_though_the_lock_folder_hangs(world: World, mount: Mount) -> None:
    """It is paged and shown that the account is not locked; the end of the run does not wait for the folder either."""
    store, venue, seen = world.open(), ScriptedVenue(book("1100")), Seen()

    async def story() -> None:
        runner = world.runner(store, [venue], pace=SHORT, witnesses=(seen,))
        await runner.start()
        await written_once(world, runner)
        mount.hang()
        venue.answer = book("850")
        await ticks(world, runner, 1)
        assert len(venue.sent) == 1, "the order did not leave in the tick of the decision"
        await ticks(world, runner, 4)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    (hangs, missing) = of_the_folder(seen.reports[-1].problems)
    assert "locks has not answered since 2024-01-01 00:00:0" in hangs
    text = (
        r"the lock of account/main is not written yet: bots may still trade there until 00:00:\d\d, when their files "
        "are stale, which reads as locked"
    )
    assert re.fullmatch(text, missing), "when depends on how far virtual time was while a thread wrote the file"
    pages = [notice.text for notice in store.notices(20) if notice.severity == "page" and notice.policy == "runner"]
    assert sorted(of_the_folder(pages)) == sorted([hangs, missing]), "each is paged once"
    assert mount.writes == 1, "one thread hangs, however many ticks go by"


def test_a_union_on_a_mount_that_hangs_keeps_no_lock_of_the_folder_from_being_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locked, renewed and lifted as usual; the trouble is reported for the union, and none for the folder."""
    union, locks = world.folder / "mount" / "union.json", world.locks.folder
    world.locks = replace(world.locks, union=union)
    union.parent.mkdir()
    mount = Mount(monkeypatch, union.parent)
    store, venue, seen = world.open(), ScriptedVenue(book("1100")), Seen()

    async def story() -> None:
        runner = world.runner(store, [venue], pace=PATIENT, witnesses=(seen,))
        await runner.start()
        await ticks(world, runner, 1)
        mount.hang()
        venue.answer = book("850")
        await ticks(world, runner, 3)
        while not read_lock(locks / "account__main.json", world.clock.now()).locked:
            await asyncio.sleep(0.01)
            await ticks(world, runner, 1)
        lived_to = json.loads((locks / "account__main.json").read_text())["alive_until"]
        while json.loads((locks / "account__main.json").read_text())["alive_until"] == lived_to:
            await asyncio.sleep(0.01)
            await ticks(world, runner, 1)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(asyncio.wait_for(story(), 60))
    mount.answers.set()
    (hangs,) = seen.reports[-1].problems
    assert f"the lock file {union} for all scopes has not answered since" in hangs
    assert mount.writes == 1, "one thread hangs, however many ticks go by"
    assert read_lock(locks / "account__main.json", world.clock.now()).mode == "reduce_only"
    pages = [notice.text for notice in store.notices(20) if notice.severity == "page" and notice.policy == "runner"]
    assert pages == [hangs]


def test_the_union_locks_though_the_lock_folder_hangs(world: World, mount: Mount) -> None:
    """A bot of version 6 reads nothing else: the requested lock is enough to lock it."""
    store, venue = world.open(), ScriptedVenue(book("1100"))
    assert world.locks.union is not None
    union = world.locks.union

    async def story() -> None:
        runner = world.runner(store, [venue], pace=SHORT)
        await runner.start()
        await ticks(world, runner, 1)
        while read_lock(union, world.clock.now()).locked:
            await asyncio.sleep(0.01)
            await ticks(world, runner, 1)
        mount.hang()
        venue.answer = book("850")
        while not read_lock(union, world.clock.now()).locked:
            await asyncio.sleep(0.01)
            await ticks(world, runner, 1)
        await runner.shut_down()

    asyncio.run(asyncio.wait_for(story(), 60))
    assert json.loads(union.read_text())["details"]["scopes"] == "account/main"


def test_a_lock_folder_that_refuses_is_one_page_and_its_recovery_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minutes of ticks in which the stage fires: the firing is reported separately, at once.

    The files are stale by then, since they could not be renewed for a minute: no page says that bots may trade."""
    store, venue = world.open(), ScriptedVenue(book("1100"))

    def refuse(path: Path, _: bytes) -> None:
        raise PermissionError(EACCES, "Permission denied", f"{path.parent}/.killswitch-{os.urandom(8).hex()}.tmp")

    async def story() -> None:
        runner = world.runner(store, [venue])
        await runner.start()
        await ticks(world, runner, 1)
        with monkeypatch.context() as refusing:
            refusing.setattr("killswitch.gate.lock_file_writer.replace_file", refuse)
            await ticks(world, runner, 60)
            venue.answer = book("850")
            await ticks(world, runner, 60)
        await ticks(world, runner, 62)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    pages = [notice.text for notice in store.notices(500) if notice.policy == "runner"]
    unwritten = "locks could not be written and are retried (Permission denied)"
    assert sorted(pages) == sorted([
        f"{unwritten}: account/main",
        f"the lock file {world.locks.union} could not be written and is retried: Permission denied",
        "the lock of account/main is not written yet, and its files are stale or locked already: bots that read them "
        "are locked out",
        *(page for page in pages if page.removeprefix(f"{unwritten}: ").startswith("over since 2024-01-01T00:02:0")),
    ])  # fmt: skip
    assert len(pages) == 6


def test_a_second_scope_that_is_not_written_is_paged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another account, for the same cause: it is not held back because the first one is known."""
    store, full = world.open(), {"account__main.json"}

    def refuse(path: Path, content: bytes) -> None:
        if path.name in full:
            raise OSError(ENOSPC, "No space left on device")
        replace_file(path, content)

    monkeypatch.setattr("killswitch.gate.lock_file_writer.replace_file", refuse)

    async def story() -> None:
        venues = [ScriptedVenue(book("1100", name), name) for name in ("main", "other")]
        runner = world.runner(store, venues)
        await runner.start()
        await ticks(world, runner, 5)
        full.add("account__other.json")
        await ticks(world, runner, 30)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    heading = "locks could not be written and are retried (No space left on device)"
    pages = [notice.text for notice in store.notices(500) if notice.text.startswith("locks")]
    assert pages == [f"{heading}: account/other", f"{heading}: account/main"], "newest first"


@pytest.mark.parametrize("broken", ["guarded", "read_file"])
def test_an_unwritten_lock_is_not_over_while_the_whole_folder_fails(
    broken: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full, and then the folder: nothing is known of the lock until the folder answers again."""
    store, venue = world.open(), ScriptedVenue(book("1100"))

    def fail(*_: object, errno: int = EIO) -> None:
        raise OSError(errno, os.strerror(errno)) if errno == ENOSPC or broken == "guarded" else ValueError("a defect")

    async def story() -> None:
        runner = world.runner(store, [venue])
        await runner.start()
        await ticks(world, runner, 1)
        venue.answer = book("850")
        with monkeypatch.context() as full:
            full.setattr("killswitch.gate.lock_file_writer.replace_file", partial(fail, errno=ENOSPC))
            await ticks(world, runner, 3)
            with full.context() as whole:
                whole.setattr(f"killswitch.gate.lock_folder.{broken}", fail)
                await ticks(world, runner, 3)
            assert [each.text for each in store.notices(20) if "over since" in each.text] == []
        await ticks(world, runner, 3)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    ends = [notice.text for notice in store.notices(20) if "over since" in notice.text]
    assert any("account/main" in text and "No space left" in text for text in ends)


def test_a_folder_that_timed_out_is_not_waited_for_again(world: World, mount: Mount) -> None:
    """However patient the runner is: a folder that hangs costs its patience once, and not in every tick."""
    store, venue = world.open(), ScriptedVenue(book("1100"))

    async def story() -> None:
        mount.hang()
        runner = world.runner(store, [venue], pace=SHORT)
        await runner.start()
        await ticks(world, runner, 3)
        assert runner.effects.lock_writer is not None
        await runner.effects.lock_writer.settle(3600.0)
        problems = runner.effects.lock_writer.alerts.texts
        assert "has not answered" in problems[0]
        await runner.shut_down()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_lock_that_waited_for_a_hung_folder_is_written_when_the_folder_answers(world: World, mount: Mount) -> None:
    """In the same run, and without an operator; then nothing is wrong any more."""
    store, venue, seen = world.open(), ScriptedVenue(book("1100")), Seen()

    async def story() -> None:
        runner = world.runner(store, [venue], pace=SHORT, witnesses=(seen,))
        await runner.start()
        await ticks(world, runner, 1)
        mount.hang()
        venue.answer = book("850")
        await ticks(world, runner, 5)
        assert seen.reports[-1].problems != ()
        mount.answer()
        while seen.reports[-1].problems:
            await asyncio.sleep(0.01)
            await ticks(world, runner, 1)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(asyncio.wait_for(story(), 60))
    assert read_lock(world.locks.folder / "account__main.json", world.clock.now()).mode == "reduce_only"
    assert store.unfinished() == []


def test_a_write_that_timed_out_writes_nothing_when_the_folder_answers(world: World, mount: Mount) -> None:
    """Its content is minutes old by then: the next write knows better."""
    store = world.open()
    venues = [ScriptedVenue(book("1100", name), name) for name in ("one", "two")]

    async def story() -> None:
        runner = world.runner(store, venues, pace=SHORT)
        mount.hang()
        await runner.start()
        await ticks(world, runner, 3)
        mount.answer()
        await runner.shut_down()
        await asyncio.sleep(0)

    asyncio.run(story())
    for thread in threading.enumerate():
        if thread.name == "lock folder":
            thread.join(60)
    assert len(list(world.locks.folder.glob("*.json"))) <= 1, "more than the write that had begun"


def test_an_impossible_generation_in_a_lock_file_ends_no_run_and_opens_nothing(world: World) -> None:
    """Otherwise anyone who may write there could stop the switch, or keep trading open, with one number: it pages."""
    store, venue, seen = world.open(), ScriptedVenue(book("1100")), Seen()
    path = world.locks.folder / "account__main.json"

    async def story() -> None:
        runner = world.runner(store, [venue], witnesses=(seen,))
        await runner.start()
        await ticks(world, runner, 1)
        forged = path.read_bytes().replace(b'"generation":1', b'"generation":99')
        path.write_bytes(forged)
        await ticks(world, runner, 1)
        assert path.read_bytes() == forged
        assert "was written in generation 99, this runner is of 1" in seen.reports[-1].problems[0]
        venue.answer = book("850")
        await ticks(world, runner, 1)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    assert len(venue.sent) == 1
    assert read_lock(path, world.clock.now()).mode == "reduce_only"


def test_an_undecodable_file_name_and_control_characters_in_a_reason_do_no_harm(world: World) -> None:
    """A byte that no encoding knows would end the run at the union; `status` prints no control characters."""
    store, venue, seen = world.open(), ScriptedVenue(book("1100")), Seen()

    async def story() -> None:
        runner = world.runner(store, [venue], witnesses=(seen,))
        await runner.start()
        await ticks(world, runner, 1)
        (world.locks.folder / "bot.json").write_bytes(
            (world.locks.folder / "account__main.json").read_bytes().replace(b'"open"', b'"\\u001b[2J"')
        )
        (world.locks.folder / os.fsdecode(b"account__\xff\x1b[2J.json")).write_bytes(b"garbage")
        venue.answer = book("850")
        await ticks(world, runner, 2)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    assert len(venue.sent) == 1
    (strange,) = seen.reports[-1].problems
    assert "has 2 files of no account that is armed" in strange
    assert "\x1b" not in strange
    assert read_lock(world.locks.folder / "account__main.json", world.clock.now()).locked
    shown = status_text(store_status(store, world.clock.now(), 20), "store.sqlite")
    assert "account/\\udcff" in shown
    assert "\x1b" not in shown


def test_a_defect_of_ours_in_the_lock_folder_is_a_page_and_keeps_no_position_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever others put there to trigger it."""
    store, venue, seen = world.open(), ScriptedVenue(book("1100")), Seen()

    def stumble(*_: object) -> None:
        raise ValueError("nobody thought of this")

    async def story() -> None:
        monkeypatch.setattr("killswitch.gate.lock_folder.read_file", stumble)
        runner = world.runner(store, [venue], witnesses=(seen,))
        await runner.start()
        await ticks(world, runner, 1)
        venue.answer = book("850")
        await ticks(world, runner, 1)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    assert len(venue.sent) == 1
    assert "nobody thought of this" in seen.reports[-1].problems[0]


def test_status_does_not_wait_for_a_lock_folder_that_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so among the problems, and everything else as usual."""
    store, venue = world.open(), ScriptedVenue(book("1100"))

    async def story() -> None:
        runner = world.runner(store, [venue])
        await runner.start()
        await ticks(world, runner, 1)
        await runner.finish()

    asyncio.run(story())
    hangs = threading.Event()
    monkeypatch.setattr("killswitch.operations.status.read_lock", lambda *_: hangs.wait())
    monkeypatch.setattr("killswitch.operations.status.LOCK_FOLDER_TIMEOUT", 0.01)
    status = store_status(store, world.clock.now(), 0)
    assert [(view.scope, view.locked, view.file) for view in status.locks] == [
        (None, True, str(world.locks.folder)),
        (None, True, str(world.locks.union)),
    ]
    assert any("locks did not answer within 0.01 s" in problem for problem in status.problems)
    hangs.set()
    assert locks_at(None, None, world.clock.now()) == ()


def test_a_call_with_a_deadline_passes_on_its_result_or_error() -> None:
    """A call that takes longer than it may is an error that names what was waited for."""
    hangs = threading.Event()
    assert call_within(60, "it", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call_within(60, "it", lambda: 1 // 0)
    with pytest.raises(DeadlineError, match="the folder did not answer"):
        call_within(0.01, "the folder", hangs.wait)
    hangs.set()


def test_a_close_continues_and_locks_are_written_later_where_no_thread_can_be_started(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the start of the run, for two ticks: it is a problem and ends nothing; then the lock is there."""
    store, venue, seen = world.open(), ScriptedVenue(book("1100")), Seen()
    no_threads = NoThreads(monkeypatch)

    async def story() -> None:
        runner = world.runner(store, [venue], pace=SHORT, witnesses=(seen,))
        no_threads.begin()
        await runner.start()
        await ticks(world, runner, 1)
        venue.answer = book("850")
        await ticks(world, runner, 1)
        no_threads.end()
        monkeypatch.setattr("killswitch.runner.locks.lock_writer.DEADLINE", 3600.0)
        await ticks(world, runner, 1)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    assert len(venue.sent) == 1
    problem, *_ = seen.reports[1].problems
    assert "locks is not written: cannot start a thread: can't start new thread" in problem
    assert problem.endswith("closing continues")
    assert read_lock(world.folder / "locks" / "account__main.json", world.clock.now()).locked


def test_a_foreign_lock_survives_writes_that_end_after_their_timeout(world: World) -> None:
    """The union becomes the sum of all before the folder keeps another program's lock: it stays locked."""
    store, venue = world.open(), ScriptedVenue(book("1100"))
    union = world.locks.union
    assert union is not None
    union.write_text('{"locked": true}')
    foreign = world.locks.folder / "foreign.json"

    async def story() -> None:
        runner = world.runner(store, [venue], pace=replace(SHORT, lock_timeout=0.0))
        await runner.start()
        while not foreign.exists():  # its write has ended
            await asyncio.sleep(0.01)
            await ticks(world, runner, 1)
            assert json.loads(union.read_text())["locked"] is True
        await ticks(world, runner, 6)
        assert json.loads(union.read_text())["locked"] is True
        await runner.finish()
        await runner.shut_down()

    asyncio.run(asyncio.wait_for(story(), 60))
    assert json.loads(foreign.read_text())["locked"] is True
    assert json.loads(union.read_text())["locked"] is True
