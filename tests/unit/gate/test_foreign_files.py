"""Foreign files in the lock folder: none is waited for or followed, and none stops the files beside it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from killswitch.gate.changes import LockChanges, LockError, LockRecord, LockRequest, Stamp
from killswitch.gate.files import replace_file
from killswitch.gate.foreign_files import MOST, weaknesses
from killswitch.gate.lock_merge import union_of
from killswitch.gate.lock_reader import LARGEST, LockFile, read_file, read_lock
from killswitch.model.decision import LockOrder
from tests.lock_turns import LockFolder

NOW = datetime(2021, 5, 19, 12, 0, tzinfo=UTC)
MAIN, OTHER = "account/main", "account/other"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def folder(tmp_path: Path) -> LockFolder:
    made = LockFolder(tmp_path / "locks", tmp_path / "union.json", generation=1, alive_for=15)
    made.watch(MAIN, NOW)
    return made


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    """To an open lock file that somebody else keeps."""
    theirs = path.parent.parent / "theirs.json"
    theirs.write_text(json.dumps(json.loads((path.parent / "account__main.json").read_text()) | {"alive_until": 1e18}))
    path.symlink_to(theirs)


def dead_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def directory(path: Path) -> None:
    (path / "full").mkdir(parents=True)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS = pytest.mark.parametrize("put", [pipe, link, dead_link, directory, huge, device])


@KINDS
def test_an_entry_that_is_no_small_regular_file_is_a_lock_and_is_never_waited_for(
    folder: LockFolder, put: Callable[[Path], None]
) -> None:
    """The union counts it as locked without end, like every unreadable file; an operator lifts it."""
    path = folder.path_of("bot")
    put(path)
    assert read_file(path).problem is not None
    folder.renew(at(1))
    assert read_lock(folder.path_of(MAIN).parent.parent / "union.json", at(1)).locked
    assert not read_lock(folder.path_of(MAIN), at(1)).locked
    if put is not directory:
        folder.lift("bot", at(2))
        assert not read_lock(folder.path_of(MAIN).parent.parent / "union.json", at(2)).locked


@KINDS
def test_a_lock_replaces_it_and_those_beside_it_are_written_too(
    folder: LockFolder, put: Callable[[Path], None]
) -> None:
    """A folder of that name cannot be replaced: that is a problem as text, and the other scopes are locked."""
    path = folder.path_of(OTHER)
    put(path)
    requests = tuple(
        LockRequest(LockOrder(scope, "all", None), "stop", "fell", scope, is_new=True) for scope in (OTHER, MAIN)
    )
    outcome = folder.settle(LockChanges(requests), at(1))
    assert read_lock(folder.path_of(MAIN), at(1)).mode == "all"
    assert read_lock(path.parent.parent / "union.json", at(1)).mode == "all"
    if put is directory:
        assert outcome.in_file == {MAIN}
        assert "account/other" in outcome.problems[0].text
        assert read_lock(path, at(1)).mode == "reduce_only"
        return
    assert outcome.in_file == {MAIN, OTHER}
    assert outcome.problems == ()
    assert (read_lock(path, at(1)).mode, path.is_symlink()) == ("all", False)
    theirs = path.parent.parent / "theirs.json"
    assert not theirs.exists() or json.loads(theirs.read_text())["locked"] is False, "written through the link"


@pytest.mark.parametrize("put", [pipe, link, device])
def test_an_account_whose_file_was_replaced_by_another_kind_is_locked_until_an_operator_lifts_it(
    folder: LockFolder, put: Callable[[Path], None]
) -> None:
    """Bots that follow a link must not read whatever somebody else writes there."""
    path = folder.path_of(OTHER)
    put(path)
    folder.watch(OTHER, at(1))
    assert path.is_file()
    assert not path.is_symlink()
    assert read_lock(path, at(1)).locked
    folder.lift(OTHER, at(2))
    assert not read_lock(path, at(2)).locked


HALF_OPEN = json.dumps({"locked": False, "alive_until": NOW.timestamp() + 80_000})
"""Open for a day to the printed reader, which looks at few fields, and no lock file to ours."""


@pytest.mark.parametrize("content", [HALF_OPEN, "garbage", ""])
def test_an_unreadable_file_of_a_covered_account_is_replaced_by_the_lock_that_it_means(
    folder: LockFolder, content: str
) -> None:
    """Every reader then reads a lock, until an operator lifts it; until then it is a problem: nobody decided it."""
    path = folder.path_of(MAIN)
    path.write_text(content)
    for second in (1, 2):
        (problem,) = folder.settle(LockChanges(watch=frozenset({MAIN})), at(second)).problems
        assert (problem.subject, problem.is_warning) == (f"unreadable: {MAIN}", True)
        assert f"so that {MAIN} is locked (reduce_only) until `ksctl reset {MAIN}`" in problem.text
        written = json.loads(path.read_text())
        assert (written["locked"], written["mode"], written["details"]) == (True, "reduce_only", {"unreadable": "yes"})
    folder.lift(MAIN, at(3))
    assert not read_lock(path, at(3)).locked
    assert folder.settle(LockChanges(watch=frozenset({MAIN})), at(4)).problems == ()


def test_without_the_guard_an_unreadable_file_is_replaced_as_well(folder: LockFolder, tmp_path: Path) -> None:
    """It only locks more."""
    folder.path_of(MAIN).write_text(HALF_OPEN)
    with (tmp_path / "locks" / ".guard").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        folder.settle(LockChanges(watch=frozenset({MAIN})), at(1))
    assert json.loads(folder.path_of(MAIN).read_text())["locked"] is True


def test_an_unreadable_file_keeps_the_mode_that_the_printed_readers_see_in_it(folder: LockFolder) -> None:
    """A lock of a later version, for example: its replacement is never milder."""
    folder.path_of(MAIN).write_text('{"locked": true, "mode": "all", "generation": 99, "scope": {"kind": "account"}}')
    folder.renew(at(1))
    assert json.loads(folder.path_of(MAIN).read_text())["mode"] == "all"
    assert read_lock(folder.path_of(MAIN), at(1)).mode == "all"


def test_an_unreadable_file_does_not_replace_a_suspicion(folder: LockFolder) -> None:
    """For its 20 s the suspicion's mode holds; then the unreadable file is as strict as it was."""
    folder.path_of(MAIN).write_text(HALF_OPEN)
    request = LockRequest(LockOrder(MAIN, "all", at(20)), "stop", "suspicion", "s", on_suspicion=True)
    for second in (1, 2):
        changes = LockChanges((request,), watch=frozenset({MAIN}), known=frozenset({"s"}))
        outcome = folder.settle(changes, at(second))
        assert outcome.in_file == {"s"}
        assert outcome.superseded == frozenset()
        assert read_lock(folder.path_of(MAIN), at(second)).mode == "all"
    folder.settle(LockChanges(watch=frozenset({MAIN}), known=frozenset({"s"})), at(20))
    assert read_lock(folder.path_of(MAIN), at(20)).mode == "reduce_only"


def test_a_file_with_a_transient_read_error_is_left_unchanged(
    folder: LockFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its content is unknown: an account is not locked for good because a process ran out of descriptors."""
    before = folder.path_of(MAIN).read_bytes()

    def refuse(*_: object, **__: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as starved:
        starved.setattr("killswitch.gate.lock_reader.content_of", refuse)
        with pytest.raises(LockError, match="it cannot be read: Too many open files"):
            folder.renew(at(1))
    assert folder.path_of(MAIN).read_bytes() == before
    folder.renew(at(2))
    assert not read_lock(folder.path_of(MAIN), at(2)).locked


@pytest.mark.parametrize("kind", ["garbage", "open", "locked"])
def test_unrelated_files_are_read_last_bounded_and_never_written(
    folder: LockFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A thousand of them: the lock is written before the first of them is read, and only a few are read at all."""
    valid = json.dumps(json.loads(folder.path_of(MAIN).read_text()) | {"locked": kind == "locked", "expires_ts": 9e9})
    junk = [tmp_path / "locks" / f"account__0-{number}.json" for number in range(1000)]
    for each in junk:
        each.write_text("x" if kind == "garbage" else valid)
    locked_before: list[bool] = []

    def read_and_record(path: Path) -> LockFile:
        if path in junk:
            locked_before.append(json.loads(folder.path_of(MAIN).read_text())["mode"] == "all")
        return read_file(path)

    monkeypatch.setattr("killswitch.gate.foreign_files.read_file", read_and_record)
    order = LockOrder(MAIN, "all", at(60))
    changes = LockChanges((LockRequest(order, None, None, "d"),), watch=frozenset({MAIN}), known=frozenset({"d"}))
    before = [each.stat().st_ino for each in junk]
    outcome = folder.settle(changes, at(10))
    assert (len(locked_before), all(locked_before)) == (MOST, True)
    assert [each.stat().st_ino for each in junk] == before
    (strange, many) = outcome.problems
    assert "has 1000 files of no account that is armed" in strange.text
    assert "account__0-0.json, account__0-1.json, account__0-10.json, …" in strange.text
    assert (strange.is_warning, many.is_warning) == (True, False)
    assert f"more than {MOST} such files" in many.text
    # The rest cannot be known.
    assert read_lock(tmp_path / "union.json", at(10)).locked
    folder.settle(LockChanges(lift=frozenset({MAIN}), watch=frozenset({MAIN})), at(11))
    assert not read_lock(folder.path_of(MAIN), at(11)).locked
    assert read_lock(tmp_path / "union.json", at(11)).locked


def test_the_problem_of_a_folder_that_refuses_does_not_change_from_write_to_write(
    folder: LockFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary file has another name each time, which is in the message of the error."""

    def refuse(path: Path, _: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", f"{path.parent}/.killswitch-{os.urandom(8).hex()}.tmp")

    monkeypatch.setattr("killswitch.gate.lock_file_writer.replace_file", refuse)
    scopes = frozenset(f"account/{name}" for name in "abcde")
    first, second = (folder.settle(LockChanges(watch=scopes), at(second)).problems for second in (10, 11))
    assert first == second
    *locks, union = first
    unwritten = [f"account/{name}" for name in ("a", "b", "c", "d", "e", "main")]
    assert sorted((each.subject, each.text) for each in locks) == [(f"write/{scope}", scope) for scope in unwritten]
    assert {each.heading for each in locks} == {"locks could not be written and are retried (Permission denied)"}
    assert union.text == (
        f"the lock file {folder.path_of(MAIN).parent.parent / 'union.json'} could not be written and is retried: "
        "Permission denied"
    )


@KINDS
def test_a_union_that_was_replaced_is_a_foreign_lock(folder: LockFolder, put: Callable[[Path], None]) -> None:
    """A file of ours replaces it, which stays locked until an operator lifts it."""
    union = folder.path_of(MAIN).parent.parent / "union.json"
    folder.renew(at(1))
    union.unlink()
    (union.parent / "locks" / "x").mkdir()
    if put is link:
        (union.parent / "mine.json").write_text('{"locked": false, "alive_until": 1e12}')
        union.symlink_to(union.parent / "mine.json")
    else:
        put(union)
    if put is directory:
        with pytest.raises(LockError, match=r"union\.json could not be written"):
            folder.renew(at(2))
        return
    folder.renew(at(2))
    assert read_lock(union, at(2)).locked
    assert not union.is_symlink()
    folder.lift("foreign", at(3))
    assert not read_lock(union, at(3)).locked


def test_no_planted_link_is_written_through(tmp_path: Path) -> None:
    """Neither the guard nor a temporary file is opened through a link; both are the owner's alone until complete."""
    (tmp_path / "locks").mkdir()
    victim = tmp_path / "store.sqlite"
    victim.write_bytes(b"precious")
    (tmp_path / "locks" / ".guard").symlink_to(victim)
    (tmp_path / "locks" / ".account__main.json.tmp").symlink_to(victim)
    folder = LockFolder(tmp_path / "locks", None, generation=1, alive_for=15)
    outcome = folder.settle(LockChanges((LockRequest(LockOrder(MAIN, "all", None), None, None, "d"),)), NOW)
    assert victim.read_bytes() == b"precious"
    assert read_lock(folder.path_of(MAIN), NOW).mode == "all"
    assert "not a regular file: remove it" in outcome.problems[0].text


@pytest.mark.parametrize("put", [pipe, directory, device])
def test_a_guard_of_another_kind_prevents_no_lock(tmp_path: Path, put: Callable[[Path], None]) -> None:
    """Locks are written without it; what opens waits, and the files go stale, which locks as well."""
    (tmp_path / "locks").mkdir()
    put(tmp_path / "locks" / ".guard")
    folder = LockFolder(tmp_path / "locks", tmp_path / "union.json", generation=1, alive_for=15)
    request = LockRequest(LockOrder(MAIN, "all", None), None, None, "d")
    outcome = folder.settle(LockChanges((request,), watch=frozenset({OTHER})), NOW)
    assert outcome.in_file == {"d"}
    assert ".guard" in outcome.problems[0].text
    assert read_lock(folder.path_of(MAIN), NOW).mode == "all"
    assert read_lock(tmp_path / "union.json", NOW).mode == "all"
    assert not folder.path_of(OTHER).exists()


def test_a_held_guard_prevents_no_lock_and_blocks_every_lift(folder: LockFolder, tmp_path: Path) -> None:
    """The wider scope's lock reaches the account as well; when the guard is free, all changes are made."""
    with (tmp_path / "locks" / ".guard").open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        outcome = folder.settle(
            LockChanges((LockRequest(LockOrder("portfolio", "all", at(60)), None, None, "d"),)), NOW
        )
        assert outcome.in_file == {"d"}
        assert [read_lock(folder.path_of(scope), NOW).mode for scope in ("portfolio", MAIN)] == ["all", "all"]
        outcome = folder.settle(LockChanges(lift=frozenset({"portfolio"})), at(1))
        assert outcome.lifted == frozenset()
        assert read_lock(folder.path_of(MAIN), at(1)).mode == "all"
    folder.lift("portfolio", at(2))
    assert not read_lock(folder.path_of(MAIN), at(2)).locked


def test_without_the_guard_no_write_locks_less(folder: LockFolder, tmp_path: Path) -> None:
    """Two writers at once may both lock; neither may open what the other has just locked."""
    folder.write(LockOrder(MAIN, "all", at(60)), None, None, "d1", NOW)
    before = folder.path_of(MAIN).read_bytes()
    with (tmp_path / "locks" / ".guard").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        folder.settle(LockChanges((LockRequest(LockOrder(MAIN, "reduce_only", at(30)), None, None, "d2"),)), at(1))
        assert folder.path_of(MAIN).read_bytes() == before
        folder.settle(LockChanges(), at(100))  # it has expired, and nobody may say so
        assert read_lock(folder.path_of(MAIN), at(100)).locked


def test_only_its_owner_can_open_the_guard_also_one_of_an_earlier_version(tmp_path: Path) -> None:
    """A process that can open a file can hold a lock on it."""
    (tmp_path / "locks").mkdir()
    guard = tmp_path / "locks" / ".guard"
    guard.touch(mode=0o644)
    LockFolder(tmp_path / "locks", None, generation=1, alive_for=15).watch(MAIN, NOW)
    assert stat.S_IMODE(guard.stat().st_mode) == 0o600
    guard.unlink()
    LockFolder(tmp_path / "locks", None, generation=1, alive_for=15).watch(OTHER, NOW)
    assert stat.S_IMODE(guard.stat().st_mode) == 0o600


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0, 0o644)])
def test_the_umask_decides_who_reads_a_lock_and_only_the_owner_may_write_it(
    tmp_path: Path, umask: int, mode: int
) -> None:
    """Even with an empty umask."""
    before = os.umask(umask)
    try:
        replace_file(tmp_path / "lock.json", b"{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "lock.json").stat().st_mode) == mode
    assert [each.name for each in tmp_path.iterdir()] == ["lock.json"]


def test_temporary_files_of_a_killed_writer_are_removed_at_the_next_start(tmp_path: Path) -> None:
    """A minute later: by then nobody writes them any more."""
    (tmp_path / "locks").mkdir()
    temporary = tmp_path / "locks" / ".killswitch-0123456789abcdef.tmp"
    for age, there in ((30.0, True), (90.0, False)):
        temporary.touch()
        os.utime(temporary, (NOW.timestamp() - age,) * 2)
        LockFolder(tmp_path / "locks", None, generation=1, alive_for=15).watch(MAIN, NOW)
        assert temporary.exists() is there


def test_a_world_writable_folder_is_reported(tmp_path: Path) -> None:
    """A user who may replace files there may open trading; in a folder with the sticky bit they may not."""
    locks = tmp_path / "locks"
    locks.mkdir()
    found = {}
    for mode in (0o755, 0o775, 0o777, 0o1777):
        locks.chmod(mode)
        found[mode] = len(weaknesses(locks, locks / "union.json"))
    assert found == {0o755: 0, 0o775: 0, 0o777: 1, 0o1777: 0}


def test_the_union_of_a_thousand_locked_accounts_can_be_read() -> None:
    """It is read again as a lock, and not refused for its size."""
    reason = "equity.drawdown 15m 5.1% ≥ 4.5%; " * 4
    locks = [
        LockRecord(True, f"account/book-{number}", "stop", reason, 0.0, 1e12, {"decision": "d"}, "all", 1, 1e12)
        for number in range(1000)
    ]
    assert len(msgspec.json.encode(union_of(locks, Stamp(NOW, 1, 1e12)))) < LARGEST / 2
