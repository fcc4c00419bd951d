"""The trading lock that bots obey. Cases L1, L2, L4 and L6 of the field's failures by name."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.gate.changes import LockChanges, LockError, LockRecord, LockRequest
from killswitch.gate.foreign_files import require_writable
from killswitch.gate.lock_reader import read_lock
from killswitch.model.decision import LockMode, LockOrder
from killswitch.model.snapshot import LockPart
from tests.lock_turns import LockFolder

NOW = datetime(2021, 5, 19, 12, 0, tzinfo=UTC)
MAIN = "account/main"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def folder_in(tmp_path: Path, generation: int = 1, alive_for: float = 15) -> LockFolder:
    return LockFolder(tmp_path / "locks", tmp_path / "v6.json", generation=generation, alive_for=alive_for)


def lock(
    folder: LockFolder,
    now: datetime,
    *,
    scope: str = MAIN,
    mode: LockMode = "reduce_only",
    until: datetime | None = None,
) -> LockRecord:
    return folder.write(LockOrder(scope, mode, until), "trim", "fell", "d1", now)


def is_locked_for_v6(path: Path, now: datetime) -> bool:
    """The reader of version 6: a boolean, and an end that must exist and lie in the future."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return bool(content.get("locked")) and float(content.get("expires_ts") or 0) > now.timestamp()


def own_lock_file(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "account__main.json"


@pytest.mark.parametrize("kept", range(0, 300, 7))
def test_l1_a_half_written_lock_file_is_a_lock(tmp_path: Path, kept: int) -> None:
    """A lock file truncated anywhere means locked, and leaves exits allowed."""
    folder = folder_in(tmp_path)
    folder.lift(MAIN, NOW)
    whole = own_lock_file(tmp_path).read_bytes()
    own_lock_file(tmp_path).write_bytes(whole[: min(kept, len(whole) - 1)])
    verdict = read_lock(own_lock_file(tmp_path), NOW)
    assert verdict.locked
    assert verdict.allows(reduces_risk=True)


def test_l1_an_unreadable_scope_is_locked_in_the_union_until_it_is_lifted(tmp_path: Path) -> None:
    """An unreadable file counts as a lock without end, also for readers of the union."""
    folder = folder_in(tmp_path)
    folder.lift(MAIN, NOW)
    own_lock_file(tmp_path).write_bytes(b'{"locked": fal')
    folder.renew(at(1))
    assert is_locked_for_v6(tmp_path / "v6.json", at(10_000_000))
    folder.lift(MAIN, at(2))
    assert not is_locked_for_v6(tmp_path / "v6.json", at(3))


def test_l1_a_reader_during_a_write_always_sees_a_whole_file(tmp_path: Path) -> None:
    """The name in the folder always refers to a complete file: an open file stays whole after a rewrite."""
    folder = folder_in(tmp_path)
    lock(folder, NOW)
    with own_lock_file(tmp_path).open("rb") as reader:
        folder.lift(MAIN, at(1))
        assert json.loads(reader.read())["locked"] is True
    assert json.loads(own_lock_file(tmp_path).read_text())["locked"] is False


def test_l2_readers_with_different_clocks_agree_about_the_end(tmp_path: Path) -> None:
    """Past `expires_ts` the file stays locked for every clock until the runner writes that the lock has ended."""
    folder = folder_in(tmp_path, alive_for=60)
    lock(folder, NOW, until=at(30))
    fast, slow = at(45), at(20)
    assert read_lock(own_lock_file(tmp_path), fast).locked is read_lock(own_lock_file(tmp_path), slow).locked is True
    folder.renew(at(31))
    assert read_lock(own_lock_file(tmp_path), fast).locked is read_lock(own_lock_file(tmp_path), slow).locked is False
    assert not is_locked_for_v6(tmp_path / "v6.json", slow)


def test_l2_a_manual_lock_never_expires(tmp_path: Path) -> None:
    """A lock without end holds for the reader of version 6 and for ours, a thousand years later."""
    folder = folder_in(tmp_path)
    lock(folder, NOW, until=None)
    much_later = NOW.replace(year=3021)
    folder.renew(much_later)
    assert is_locked_for_v6(tmp_path / "v6.json", much_later)
    assert read_lock(own_lock_file(tmp_path), much_later).locked


def test_l2_the_last_scope_to_write_does_not_win(tmp_path: Path) -> None:
    """The union keeps the strictest mode and the latest end, whichever was written last."""
    folder = folder_in(tmp_path)
    lock(folder, NOW, scope="account/a", mode="all", until=at(600))
    lock(folder, at(1), scope="account/b", mode="reduce_only", until=at(60))
    union = json.loads((tmp_path / "v6.json").read_text())
    assert (union["mode"], union["expires_ts"]) == ("all", at(600).timestamp())
    folder.lift("account/b", at(2))
    assert is_locked_for_v6(tmp_path / "v6.json", at(3))


def test_l2_a_shorter_lock_on_the_same_scope_does_not_shorten(tmp_path: Path) -> None:
    """A second policy's less strict lock leaves mode and end of the first unchanged."""
    folder = folder_in(tmp_path)
    lock(folder, NOW, mode="all", until=at(600))
    written = lock(folder, at(1), mode="reduce_only", until=at(60))
    assert (written.mode, written.expires_ts) == ("all", at(600).timestamp())


def test_l4_a_reduce_only_lock_allows_exits(tmp_path: Path) -> None:
    """Mode `reduce_only` forbids new risk and allows orders that reduce; `all` forbids both."""
    folder = folder_in(tmp_path)
    lock(folder, NOW)
    verdict = read_lock(own_lock_file(tmp_path), NOW)
    assert (verdict.allows(reduces_risk=True), verdict.allows(reduces_risk=False)) == (True, False)
    lock(folder, NOW, mode="all")
    verdict = read_lock(own_lock_file(tmp_path), NOW)
    assert (verdict.allows(reduces_risk=True), verdict.allows(reduces_risk=False)) == (False, False)


def test_l6_every_lock_has_an_end_that_version_6_reads(tmp_path: Path) -> None:
    """Scope file and union both have `expires_ts`, so that the old reader does not treat them as unlocked."""
    folder = folder_in(tmp_path)
    lock(folder, NOW, until=None)
    assert is_locked_for_v6(own_lock_file(tmp_path), at(10**9))
    assert is_locked_for_v6(tmp_path / "v6.json", at(10**9))


def test_l6_a_file_that_no_runner_keeps_alive_is_a_lock(tmp_path: Path) -> None:
    """An open file whose `alive_until` has passed means locked: the runner died."""
    folder = folder_in(tmp_path, alive_for=15)
    folder.watch(MAIN, NOW)
    assert not read_lock(own_lock_file(tmp_path), at(14)).locked
    assert read_lock(own_lock_file(tmp_path), at(16)).locked
    folder.renew(at(14))
    assert not read_lock(own_lock_file(tmp_path), at(16)).locked


def test_l6_a_dead_runners_lock_does_not_expire(tmp_path: Path) -> None:
    """A lock whose runner died before its end stays in force."""
    folder = folder_in(tmp_path)
    lock(folder, NOW, until=at(30))
    assert read_lock(own_lock_file(tmp_path), at(3600)).locked


def test_a_missing_file_is_a_lock(tmp_path: Path) -> None:
    """Trading is locked until a runner has written that it is open."""
    assert read_lock(tmp_path / "nothing.json", NOW).locked


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b'"open"', b"\xff\xfe", b'{"locked": "false", "alive_until": 9e9}', b'{"locked": false}',
     b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
    ids=["empty", "null", "list", "text", "not UTF-8", "texts", "half", "deep"],
)  # fmt: skip
def test_an_invalid_lock_file_is_a_lock(tmp_path: Path, content: bytes) -> None:
    """Only a complete, well-typed `locked: false` that is kept alive opens trading."""
    path = tmp_path / "lock.json"
    path.write_bytes(content)
    assert read_lock(path, NOW).locked


def test_an_older_runner_never_overwrites_a_newer_ones_lock(tmp_path: Path) -> None:
    """After a newer generation has written, an older one can neither lock, lift nor renew that file."""
    old, new = folder_in(tmp_path, generation=1), folder_in(tmp_path, generation=2)
    lock(new, NOW, mode="all")
    before = own_lock_file(tmp_path).read_bytes()
    for act in (lambda: lock(old, at(1)), lambda: old.lift(MAIN, at(1)), lambda: old.renew(at(100))):
        with pytest.raises(LockError, match=re.escape("generation 2")):
            act()
    assert own_lock_file(tmp_path).read_bytes() == before


def test_renewal_takes_over_the_locks_of_an_older_runner(tmp_path: Path) -> None:
    """A restarted runner keeps the locks in force under its own generation."""
    lock(folder_in(tmp_path, generation=1), NOW, until=at(600))
    folder_in(tmp_path, generation=2).watch(MAIN, at(100))
    content = json.loads(own_lock_file(tmp_path).read_text())
    assert (content["locked"], content["generation"], content["alive_until"]) == (True, 2, at(115).timestamp())


def test_renewal_writes_only_after_half_of_the_lifetime(tmp_path: Path) -> None:
    """A tick each second must not sync a rewrite of every file each second."""
    folder = folder_in(tmp_path, alive_for=60)
    lock(folder, NOW)
    files = [own_lock_file(tmp_path), tmp_path / "v6.json"]
    inodes = [path.stat().st_ino for path in files]
    folder.renew(at(29))
    assert [path.stat().st_ino for path in files] == inodes
    folder.renew(at(31))
    assert [json.loads(path.read_text())["alive_until"] for path in files] == [at(91).timestamp()] * 2


@pytest.mark.parametrize(
    ("content", "is_kept"),
    [
        ('{"locked": true, "scope": "x", "expires_ts": 9999999999}', True),
        ('{"locked": true, "scope": "x"}', True),
        ('{"locked": tru', True),
        ('{"locked": true, "expires_ts": 1000}', False),
        ('{"locked": false}', False),
    ],
)
def test_taking_over_the_union_path_does_not_open_another_programs_lock(
    tmp_path: Path, content: str, is_kept: bool
) -> None:
    """A lock left there by version 6 still holds after our first write, until it is lifted as `foreign`."""
    (tmp_path / "v6.json").write_text(content)
    folder = folder_in(tmp_path)
    folder.renew(NOW)
    assert is_locked_for_v6(tmp_path / "v6.json", NOW) is is_kept
    folder.lift("foreign", at(1))
    assert not is_locked_for_v6(tmp_path / "v6.json", at(1))


@pytest.mark.parametrize("generation", [1, 3])
def test_another_stores_lock_at_the_same_union_path_is_kept(tmp_path: Path, generation: int) -> None:
    """A runner of another lock folder neither opens the existing lock nor is stopped by its generation."""
    first = LockFolder(tmp_path / "first", tmp_path / "v6.json", generation=generation, alive_for=15)
    lock(first, NOW, mode="all")
    second = LockFolder(tmp_path / "second", tmp_path / "v6.json", generation=1, alive_for=15)
    second.watch("account/other", at(1))
    assert read_lock(tmp_path / "v6.json", at(1)).mode == "all"
    second.lift("foreign", at(2))
    assert not read_lock(tmp_path / "v6.json", at(2)).locked


def test_a_folder_that_cannot_be_created_is_a_lock_error(tmp_path: Path) -> None:
    """A failing disk is an error with its reason, and nothing is assumed to be locked."""
    (tmp_path / "locks").write_text("a file in the way")
    with pytest.raises(LockError, match="could not be written"):
        lock(folder_in(tmp_path), NOW)


def test_a_folder_held_by_a_stopped_process_is_a_lock_error_without_a_wait(tmp_path: Path) -> None:
    """The holder of the guard prevents writing and nothing else: LockError names the file."""
    folder = folder_in(tmp_path)
    lock(folder, NOW)
    with (tmp_path / "locks" / ".guard").open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(LockError, match=r"another process holds .*/locks/\.guard"):
            folder.renew(at(10))
    folder.renew(at(10))


def test_a_union_inside_the_folder_is_no_scope_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a relative path, the union is still distinguished from the scopes' files and opens after a lift."""
    monkeypatch.chdir(tmp_path)
    folder = LockFolder(tmp_path / "locks", Path("locks/union.json"), generation=1, alive_for=15)
    lock(folder, NOW)
    folder.lift(MAIN, at(1))
    folder.renew(at(10))
    assert [file.path.name for file in folder.locks()] == ["account__main.json"]
    assert not read_lock(tmp_path / "locks" / "union.json", at(10)).locked


@pytest.mark.parametrize("name", ["account__main.json", "venue__x.json", "portfolio.json", "foreign.json"])
def test_a_union_with_the_name_of_a_scopes_file_is_refused(tmp_path: Path, name: str) -> None:
    """It would be overwritten, and merged with itself."""
    with pytest.raises(LockError, match=f"{name} cannot be the file for all scopes"):
        LockFolder(tmp_path, tmp_path / name, generation=1, alive_for=15)
    LockFolder(tmp_path, tmp_path.parent / name, generation=1, alive_for=15)


def test_after_a_clock_steps_back_an_open_file_goes_stale_in_its_usual_time(tmp_path: Path) -> None:
    """A lifetime that ends later than a whole one from now was written before the step, and is shortened."""
    folder = folder_in(tmp_path, alive_for=15)
    folder.watch(MAIN, at(3600))
    folder.renew(NOW)
    assert not read_lock(own_lock_file(tmp_path), at(14)).locked
    assert read_lock(own_lock_file(tmp_path), at(16)).locked
    assert read_lock(tmp_path / "v6.json", at(16)).locked


def test_a_scope_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    """Whatever the name of a scope, its file is in the lock folder."""
    folder = folder_in(tmp_path)
    for scope in ("account/../../etc", "account/a b:c", "../x", "account/ü"):
        assert folder.path_of(scope).parent == tmp_path / "locks"


@given(
    orders=st.lists(
        st.tuples(
            st.sampled_from(["account/a", "account/b", "portfolio"]),
            st.sampled_from(["reduce_only", "all"]),
            st.none() | st.integers(1, 1000),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_union_is_as_strict_as_the_strictest_in_any_order(orders: list[tuple[str, Any, int | None]]) -> None:
    """In any order of the locks, the union has the strictest mode and the latest end of all."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = folder_in(Path(name))
        for scope, mode, seconds in orders:
            lock(folder, NOW, scope=scope, mode=mode, until=None if seconds is None else at(seconds))
        union = folder.union_lock(NOW)
    assert union.mode == ("all" if any(mode == "all" for _, mode, _ in orders) else "reduce_only")
    ends = [253402300799.0 if seconds is None else at(seconds).timestamp() for _, _, seconds in orders]
    assert union.expires_ts == max(ends)


def documented(repository: Path, language: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", (repository / "docs" / "lock.md").read_text(), re.DOTALL)
    return str(blocks[0])


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """One file for each case that a reader can meet; those kept alive are alive in real time."""
    now, folder = datetime.now(UTC), LockFolder(tmp_path / "locks", None, generation=1, alive_for=3600)
    folder.lift("open", now)
    folder.write(LockOrder("reduce_only", "reduce_only", None), None, None, "d", now)
    folder.write(LockOrder("all", "all", None), None, None, "d", now)
    LockFolder(tmp_path / "locks", None, generation=1, alive_for=-1).lift("stale", now)
    half = folder.path_of("open").read_bytes()[:20]
    folder.path_of("half").write_bytes(half)
    folder.path_of("texts").write_text('{"locked": "false", "alive_until": "9999999999"}')
    folder.path_of("text-life").write_text('{"locked": false, "alive_until": "9999999999"}')
    folder.path_of("list").write_text("[]")
    whole = folder.path_of("open").read_text()
    folder.path_of("two").write_text(whole * 2)
    folder.path_of("garbage behind").write_text(whole + "x")
    folder.path_of("deep").write_text('{"x":' + "[" * 100_000 + "]" * 100_000 + "}")
    folder.path_of("for ever").write_text(re.sub(r'"alive_until":[0-9.]+', '"alive_until":1e999', whole))
    folder.path_of("two days").write_text(
        re.sub(r'"alive_until":[0-9.]+', f'"alive_until":{now.timestamp() + 172_800}', whole)
    )
    os.mkfifo(folder.path_of("pipe"))
    folder.path_of("folder").mkdir()
    names: tuple[str, ...] = ("two", "garbage behind", "deep", "for ever", "two days", "pipe", "folder")
    names += ("open", "reduce_only", "all", "stale", "half", "texts", "text-life", "list", "missing")
    return {name: folder.path_of(name) for name in names}


def test_the_documented_python_reader_agrees_with_ours(repository: Path, files: dict[str, Path]) -> None:
    """The ten lines in docs/lock.md, run unchanged, agree with `read_lock` on every file."""
    names: dict[str, Any] = {}
    exec(documented(repository, "python"), names)
    for name, path in files.items():
        assert (name, names["trading_lock"](path)) == (name, read_lock(path, datetime.now(UTC)).mode)


def test_the_documented_reader_of_parts_agrees_with_ours(
    repository: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    """Run unchanged, on every file and on files with parts, also such that nobody writes."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (repository / "docs" / "lock.md").read_text(), re.DOTALL):
        exec(block, names)
    now, folder = datetime.now(UTC), LockFolder(tmp_path / "parts", None, generation=1, alive_for=3600)
    long, btc = LockPart("reduce_only", None, "long"), LockPart("all", None, None, ("BTC_USDT",))
    for scope, parts in {"side": [long], "symbol": [btc], "both": [long, btc]}.items():
        folder.write(LockOrder.of(scope, parts), None, None, "d", now)
        files[scope] = folder.path_of(scope)
    for number, only in enumerate(['"long"', "[]", "{}", "[1]", "null", '[{"side": "up", "mode": "all"}]']):
        files[only] = folder.path_of(f"odd{number}")
        files[only].write_text(re.sub(r'"only":.*\]', f'"only":{only}', files["side"].read_text()))
    for name, path in files.items():
        verdict = read_lock(path, datetime.now(UTC))
        for side, symbol in [("long", "BTC_USDT"), ("short", "BTC_USDT"), ("long", "ETH_USDT"), ("short", "ETH_USDT")]:
            documented_answer = names["may_open"](path, side, symbol)
            assert (name, side, symbol, documented_answer) == (name, side, symbol, verdict.may_open(side, symbol))  # type: ignore[arg-type] # literals
    assert names["may_open"](files["both"], "short", "ETH_USDT")


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_the_documented_shell_reader_agrees_with_ours(repository: Path, files: dict[str, Path]) -> None:
    """The shell function in docs/lock.md, run unchanged, agrees with `read_lock` on every file."""
    script = documented(repository, "sh") + '\ntrading_open "$1"'
    for name, path in files.items():
        ended = subprocess.run(["sh", "-c", script, "sh", os.fspath(path)], check=False).returncode
        assert (name, ended != 0) == (name, read_lock(path, datetime.now(UTC)).locked)


@pytest.mark.parametrize("existing", ["store", "policy", "fifo"])
def test_a_file_that_is_no_lock_is_refused_as_the_lock_file(tmp_path: Path, existing: str) -> None:
    """The first lock would replace it; a pipe would not even answer."""
    path = tmp_path / "v6.json"
    if existing == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(b"SQLite format 3\x00" if existing == "store" else b"policy: trim\n")
    with pytest.raises(LockError, match=r"v6\.json"):
        require_writable(tmp_path / "locks", path, NOW)


@pytest.mark.parametrize("text", ["", "{"])
def test_an_empty_or_a_torn_lock_file_may_be_written_again(tmp_path: Path, text: str) -> None:
    """Both may be left by a crash of a program that writes locks."""
    path = tmp_path / "v6.json"
    path.write_text(text)
    require_writable(tmp_path / "locks", path, NOW)


def suspect(folder: LockFolder, now: datetime, mode: LockMode = "all", scope: str = MAIN) -> LockRecord:
    order = LockOrder(scope, mode, now + timedelta(seconds=20))
    return folder.write(order, "trim", "suspicion", "s1", now, on_suspicion=True)


def test_a_lock_on_suspicion_is_never_merged_with_another_one(tmp_path: Path) -> None:
    """The other lock stays unchanged, or replaces the suspicion unchanged: mode, end and reason."""
    folder = folder_in(tmp_path)
    firm = lock(folder, NOW, until=at(5))
    assert suspect(folder, at(1)) == firm
    assert json.loads(own_lock_file(tmp_path).read_text())["reason"] == "fell"
    folder.lift(MAIN, at(2))
    suspect(folder, at(2))
    assert lock(folder, at(3), until=at(6)).expires_ts == at(6).timestamp()
    assert read_lock(own_lock_file(tmp_path), at(3)).mode == "reduce_only"


def test_a_lock_on_suspicion_does_not_replace_the_lock_of_a_firing(tmp_path: Path) -> None:
    """However strict and long it is: it ends when the cause of the fall is known."""
    folder = folder_in(tmp_path)
    suspect(folder, NOW)
    order = LockOrder(MAIN, "reduce_only", at(5))
    folder.settle(LockChanges((LockRequest(order, "trim", "fell", "d1", is_new=False),)), NOW)
    assert json.loads(own_lock_file(tmp_path).read_text())["details"] == {"decision": "d1"}


def test_the_union_is_on_suspicion_only_if_every_lock_in_it_is(tmp_path: Path) -> None:
    """A lock of another scope, although less strict, makes the union one of a fired stage."""
    folder = folder_in(tmp_path)
    suspect(folder, NOW)
    assert "on_suspicion" in folder.union_lock(NOW).details
    lock(folder, NOW, scope="venue/paper", until=at(60))
    assert "on_suspicion" not in folder.union_lock(NOW).details
