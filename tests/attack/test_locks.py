"""Hostile lock folders and dead mounts: a crash on the paper venue is closed all the same."""

from __future__ import annotations

import fcntl
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from killswitch.gate.lock_reader import read_lock
from killswitch.operations.status import StoreStatus
from tests.e2e.fork_client import begin, finish
from tests.e2e.processes import WAIT_LIMIT, Site, ksctl, paper, terminate, until

CRASHING = ("--crash", "7", "--skip", "240", "--speed", "60", "--begin-after-readings", "3")
"""A bar a second, directly before the crash, which lasts longer than a slow machine takes to start a runner."""

ON_A_DEAD_MOUNT = """
import os, sys, threading

dead, is_there = os.environ["DEAD_MOUNT"], os.path.exists

def hanging(real):
    def call(path, *arguments, **named):
        if not isinstance(path, int) and os.fspath(path).startswith(dead) and is_there(os.environ["SINCE"]):
            threading.Event().wait()
        return real(path, *arguments, **named)
    return call

for name in ("open", "stat", "lstat", "scandir", "listdir", "mkdir", "replace", "unlink", "readlink"):
    setattr(os, name, hanging(getattr(os, name)))

from killswitch.cli import main
main()
"""
"""`ksctl` in which every call on a folder hangs, as on a network mount without a server, once a file exists."""


def is_closed(site: Site) -> bool:
    """Whether a decision was made, and the venue itself shows no position."""
    return bool(site.decisions()) and site.venue().positions == ()


def test_a_crash_is_closed_although_the_lock_folder_is_full_of_other_things_than_lock_files(tmp_path: Path) -> None:
    """Pipes, a link, a folder and a terabyte instead of lock files, the guard held by a reader: locked and closed."""
    with paper(*CRASHING) as address:
        site = Site(tmp_path, address)
        site.locks.mkdir()
        os.mkfifo(site.locks / "bot.json")
        os.mkfifo(site.locks / "portfolio.json")
        (site.locks / "venue__paper.json").mkdir()
        (tmp_path / "mine.json").write_text('{"locked": false, "alive_until": 1e999}', encoding="utf-8")
        (site.locks / "account__main.json").symlink_to(tmp_path / "mine.json")
        with (site.locks / "huge.json").open("wb") as huge:
            huge.truncate(1 << 40)
        (site.locks / ".guard").touch(mode=0o644)
        with (site.locks / ".guard").open("rb") as guard:
            fcntl.flock(guard, fcntl.LOCK_SH)
            with site.running("--live") as runner:
                until(lambda: is_closed(site), "the book is closed")
                lock = read_lock(site.locks / "account__main.json", datetime.now(UTC))
                shown = ksctl("status", "--store", str(site.store))
                status, _, err = terminate(runner)
        assert (status, shown.returncode) == (0, 0), err
        assert (lock.locked, lock.mode) == (True, "reduce_only")
        assert not (site.locks / "account__main.json").is_symlink()
        assert "1e999" in (tmp_path / "mine.json").read_text(encoding="utf-8"), "written through the link"
        assert "another process holds" in shown.stdout.split("Problems")[1]


def test_a_crash_is_closed_although_the_lock_folder_is_on_a_dead_mount(tmp_path: Path) -> None:
    """Dead from the start: the run starts, closes, pages, and ends at SIGTERM; `status` answers as well."""
    with paper(*CRASHING) as address:
        site = Site(tmp_path, address)
        environment = os.environ | {"DEAD_MOUNT": str(site.locks), "SINCE": str(tmp_path)}
        arguments = ("run", *site.place, "--interval", "100ms", "--live")
        with begin(
            arguments, code=ON_A_DEAD_MOUNT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        ) as runner:
            try:
                until(lambda: runner.poll() is not None or site.store.exists(), "the runner starts")
                until(lambda: runner.poll() is not None or is_closed_so_far(site), "the book is closed")
                until(lambda: paged(site.status()), "it is paged")
                shown = finish(
                    ["status", "--store", str(site.store)], code=ON_A_DEAD_MOUNT, env=environment, timeout=WAIT_LIMIT
                )
                status, _, err = terminate(runner)
            finally:
                if runner.poll() is None:
                    runner.kill()
        assert (status, shown.returncode) == (0, 0), err
        assert "Continuing without locks" in err
        assert "locks has not answered" in shown.stdout.split("Problems")[1]


def test_a_crash_locks_the_accounts_although_the_file_for_all_scopes_is_on_a_mount_that_dies(tmp_path: Path) -> None:
    """The mount dies in mid-run; page and status name the file there, and not the folder of the accounts."""
    (tmp_path / "mount").mkdir()
    union, gone = tmp_path / "mount" / "union.json", tmp_path / "gone"
    with paper(*CRASHING) as address:
        site = Site(tmp_path, address)
        main = site.locks / "account__main.json"
        environment = os.environ | {"DEAD_MOUNT": str(union.parent), "SINCE": str(gone)}
        arguments = ("run", *site.place, "--interval", "100ms", "--live", "--lock-file", str(union))
        with begin(
            arguments, code=ON_A_DEAD_MOUNT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        ) as runner:
            try:
                until(lambda: runner.poll() is not None or union.exists(), "the runner writes locks")
                gone.touch()
                until(lambda: runner.poll() is not None or is_closed_so_far(site), "the book is closed")
                until(lambda: read_lock(main, datetime.now(UTC)).reason.startswith("stop: "), "the account is locked")
                until(lambda: any("has not answered" in each.text for each in site.status().notices), "it is paged")
                shown = finish(
                    ["status", "--store", str(site.store)], code=ON_A_DEAD_MOUNT, env=environment, timeout=WAIT_LIMIT
                )
                status, _, err = terminate(runner)
            finally:
                if runner.poll() is None:
                    runner.kill()
        assert (status, shown.returncode) == (0, 0), err
        problems = shown.stdout.split("Problems")[1]
        assert "union.json for all scopes has not answered" in problems
        assert "the lock folder" not in problems
        assert "the lock of account/main" not in problems


def is_closed_so_far(site: Site) -> bool:
    """As `is_closed`, on a store that may not be complete yet."""
    from killswitch.store.errors import StoreError

    try:
        return is_closed(site)
    except StoreError:
        return False


def paged(status: StoreStatus) -> bool:
    """Whether a notice reports that the account is not locked."""
    return any("the lock of account/main is not written" in each.text for each in status.notices)
