"""Stores that are locked, damaged or out of descriptors during a run: the crash is closed all the same."""

from __future__ import annotations

import resource
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.attack.test_disks import FALLING, ROUTE
from tests.e2e.processes import Site, ksctl, paper, terminate, until

LIMITED = 4
"""Descriptors that a run may open beyond those that it has, none of them for one more connection to the store."""


def site_with_pages(folder: Path, address: str) -> tuple[Site, Path]:
    site, pages = Site(folder, address), folder / "pages.txt"
    (site.policies / "route.yaml").write_text(ROUTE.replace("PLACE", str(pages)), encoding="utf-8")
    return site, pages


def paged(pages: Path, text: str) -> bool:
    return pages.exists() and text in pages.read_text(encoding="utf-8")


def close_statuses(site: Site) -> list[str | None]:
    return [entry.data["status"] for entry in site.journal() if entry.kind == "finished" and entry.account]


def test_a_crash_is_closed_despite_a_write_lock_and_stored_once_that_is_released(tmp_path: Path) -> None:
    """A forgotten shell holds a transaction open: closed and paged from memory, stored once the shell rolls back."""
    with paper(*FALLING) as address:
        site, pages = site_with_pages(tmp_path, address)
        with site.running("--live") as runner, closing(sqlite3.connect(site.store, isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            until(lambda: runner.poll() is not None or not site.venue().positions, "the venue is flat")
            assert runner.poll() is None, runner.communicate()
            assert site.journal() == [], "it was closed despite the lock"
            until(lambda: paged(pages, "another process holds its write lock"), "it is paged")
            shell.execute("ROLLBACK")
            until(lambda: close_statuses(site), "what was done is in the store")
            status, _, err = terminate(runner)
        assert status == 0, err
        assert close_statuses(site) == ["flat"]
        assert [decision.stage for decision in site.decisions()] == ["close-everything"]


def test_a_crash_is_closed_despite_a_damaged_page_of_the_store(tmp_path: Path) -> None:
    """The outbox, which no close needs, is overwritten on the disk, and an unreadable command follows."""
    with paper(*FALLING) as address:
        site, pages = site_with_pages(tmp_path, address)
        with site.running("--live") as runner:
            with closing(sqlite3.connect(site.store, isolation_level=None, timeout=60)) as shell:
                until(lambda: shell.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, "all is in the file")
                (root,) = shell.execute("SELECT rootpage FROM sqlite_master WHERE name = 'outbox'").fetchone()
                (size,) = shell.execute("PRAGMA page_size").fetchone()
                garble(site.store, (root - 1) * size, size)
                shell.execute("INSERT INTO events (id, body) VALUES ('hand-1', ?)", (b'{"kind": "freeze"}',))
            until(lambda: runner.poll() is not None or not site.venue().positions, "the venue is flat")
            assert runner.poll() is None, runner.communicate()
            until(lambda: paged(pages, "is damaged"), "it is paged")
            until(lambda: paged(pages, "hand-1 cannot be read and is discarded"), "so is the command")
            status, _, err = terminate(runner)
        assert status == 0, err
        assert 'journal, in memory only: {"decision":' in err
        refused = ksctl("run", *site.place, "--live", "--ticks", "1")
        assert refused.returncode == 69
        assert "--journal memory" in refused.stderr


def test_a_crash_is_closed_without_a_descriptor_to_spare(tmp_path: Path) -> None:
    """The store needs no descriptors beyond those held from the start: everything is stored, no reserve is used."""
    with paper(*FALLING) as address:
        site, _ = site_with_pages(tmp_path, address)
        with site.running("--live", fresh=True) as runner:  # late imports must work without spare descriptors
            _, hard = resource.prlimit(runner.pid, resource.RLIMIT_NOFILE)
            open_now = len(list(Path(f"/proc/{runner.pid}/fd").iterdir()))
            resource.prlimit(runner.pid, resource.RLIMIT_NOFILE, (open_now + LIMITED, hard))
            reserve = site.store.with_name("store.sqlite.reserve").stat().st_size
            until(lambda: runner.poll() is not None or not site.venue().positions, "the venue is flat")
            assert runner.poll() is None, runner.communicate()
            resource.prlimit(runner.pid, resource.RLIMIT_NOFILE, (hard, hard))
            until(lambda: close_statuses(site), "the closing ends")
            status, _, err = terminate(runner)
        assert status == 0, err
        assert close_statuses(site) == ["flat"]
        assert site.store.with_name("store.sqlite.reserve").stat().st_size == reserve


def garble(path: Path, at: int, size: int) -> None:
    """Overwrite a part of a file as a failing disk does. That releases the locks of this process on the file."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * size)
