"""Full disks and damaged stores: the book is closed all the same."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.processes import Site, ksctl, paper, terminate, until

FALLING = ("--crash", "7", "--skip", "225", "--speed", "240", "--begin-after-readings", "20")
"""Four bars a second, and some seconds before the crash in which to fill the disk."""
TRADING = ("--crash", "7", "--skip", "100", "--speed", "600", "--begin-after-readings", "1")
"""A calm market with ten bars of volume a second, so that an operator close fills."""
ROUTE = """
apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {name: desk}
spec: {match: {}, targets: [{file: {path: PLACE}}]}
"""


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of that size; skip the test where this process may not mount one."""
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    result = subprocess.run(mount, check=False, capture_output=True)
    if result.returncode:
        pytest.skip("file systems may not be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path) -> None:
    """Write until the disk is full."""
    with (folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(b"x" * 4096):
            pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_reported_and_a_crash_is_closed_and_journaled_out_of_the_reserve(tmp_path: Path) -> None:
    """The disk fills up during a run: the crash is closed and stored on the disk, and `status` shows the problem."""
    with paper(*FALLING) as address, small_disk(tmp_path / "disk", "40m") as disk:
        site = Site(tmp_path, address)
        site.store = disk / "store.sqlite"
        with site.running("--live", "--min-free", "39MB") as runner:
            assert (disk / "store.sqlite.reserve").stat().st_size == 16 * 1024 * 1024
            fill(disk)
            until(lambda: runner.poll() is not None or _ended(site), "the closing ends, on the disk")
            problems = "\n".join(site.status().view.problems)  # type: ignore[union-attr]  # a runner has ticked
            status, _, err = terminate(runner)
        assert status == 0, err
        assert site.venue().positions == ()
        assert _ended(site) == "flat"
        assert "the disk of the store is filling up" in err
        assert "reserve of the store" in problems
        assert 0 < (disk / "store.sqlite.reserve").stat().st_size < 16 * 1024 * 1024
        assert "in memory only" not in err


def test_a_crash_is_closed_from_memory_and_stored_once_there_is_space(tmp_path: Path) -> None:
    """No write can make a file longer, reserve or not: the book is closed, paged, and stored as soon as that ends."""
    pages = tmp_path / "pages.txt"
    with paper(*FALLING) as address:
        site = Site(tmp_path, address)
        (site.policies / "route.yaml").write_text(ROUTE.replace("PLACE", str(pages)), encoding="utf-8")
        with site.running("--live", "--min-free", "0") as runner:
            _, hard = resource.prlimit(runner.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(runner.pid, resource.RLIMIT_FSIZE, (8192, hard))
            until(lambda: runner.poll() is not None or not site.venue().positions, "the venue is flat")
            assert runner.poll() is None, runner.communicate()
            assert site.journal() == [], "it was closed without the disk"
            until(lambda: pages.exists() and "in memory only" in pages.read_text(encoding="utf-8"), "it is paged")
            resource.prlimit(runner.pid, resource.RLIMIT_FSIZE, (hard, hard))
            until(lambda: _ended(site), "what was done is in the store")
            status, _, err = terminate(runner)
        assert status == 0, err
        assert _ended(site) == "flat"
        assert [decision.stage for decision in site.decisions()] == ["close-everything"]
        assert 'journal, in memory only: {"decision":' in err


def test_journal_memory_closes_the_book_although_the_store_is_damaged(tmp_path: Path) -> None:
    """At a damaged store a close fails with the cause and the option to use; with the option it closes, and warns."""
    with paper(*TRADING) as address:
        site = Site(tmp_path, address)
        site.store.write_bytes(b"no database at all\n" * 500)
        close = ("close", *site.place, "--live", "--reason", "system-failure: disk", "--wait", "60s")
        refused = ksctl(*close)
        assert refused.returncode == 1
        assert f"{site.store} is a text file and no store" in refused.stderr
        assert "--journal memory" in refused.stderr
        assert len(site.venue().positions or ()) == 8
        closed = ksctl(*close, "--journal", "memory")
        assert closed.returncode == 0, closed.stderr
        assert "EMERGENCY: the journal is in memory only" in closed.stderr
        assert 'journal, in memory only: {"decision":' in closed.stderr
        assert site.venue().positions == ()


def _ended(site: Site) -> str | None:
    ends = [entry.data["status"] for entry in site.journal() if entry.kind == "finished" and entry.account]
    return ends[-1] if ends else None
