"""From a push to the first tick on the new set: a live runner follows a git repository (part `push`).

The host is a folder, whose branch moves in a single write: that is the push. The commits before it are signed by a real
key. The end is when the store has the pushed commit in force, which the transaction of the first tick on its set
writes. Promised are the poll interval and two seconds, for up to 50 new commits.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from killswitch.operations.policy_sources import source_status
from killswitch.store.sqlite import open_store
from tests.bench.measure import Measure
from tests.e2e.processes import paper, terminate, until
from tests.source.signed_repositories import KeyRing
from tests.source.test_live_directory import UNMOVING
from tests.source.test_live_repository import RepositorySite

POLL, ALLOWED = 1.0, 2.0
"""Seconds between two polls of the source, and what is allowed beyond them."""
ROUNDS = ((1, 10), (50, 4))
"""Commits of a push, and how often it is pushed. The pauses differ, so that pushes meet the poll at any time."""
GIVE_UP = 60.0


def pushes() -> Iterator[Measure]:
    """The longest time from a push to its set in force."""
    with tempfile.TemporaryDirectory() as folder, paper(*UNMOVING) as address:
        (Path(folder) / "keys").mkdir()
        keys = KeyRing(Path(folder) / "keys")
        site = RepositorySite(Path(folder), address, keys)
        with site.following() as runner:
            until(lambda: site.is_now(sync="synced", health="healthy"), "the anchor is in force")
            share = 2.0
            for commits, rounds in ROUNDS:
                took = []
                for number in range(rounds):
                    share -= 0.001
                    time.sleep(POLL * number / rounds)
                    took.append(_push(site, commits, share))
                print(f"pushes of {commits} commits, to the first tick: {', '.join(f'{each:.2f}' for each in took)} s")
                name = f"push of {commits} commits: to the first tick on the new set, longest of {rounds}"
                yield Measure(name, max(took), POLL + ALLOWED, f"a poll and {ALLOWED:g} s", 1.0, "s")
            terminate(runner)
        keys.close()


def _push(site: RepositorySite, commits: int, share: float) -> float:
    """Seconds from the push of so many tightenings until the last one is in force."""
    site.host.git("checkout", "-q", "-B", "work", "main")
    for number in range(commits):
        head = site.push(f"{share - number * 1e-5:.5f}%", "alice")
    site.host.put(head)
    begun = time.monotonic()
    while not _is_in_force(site, head):
        if time.monotonic() - begun > GIVE_UP:
            raise TimeoutError(f"{head} is not in force: {site.source()}")
        time.sleep(0.02)
    return time.monotonic() - begun


def _is_in_force(site: RepositorySite, commit: str) -> bool:
    store = open_store(str(site.store), read_only=True)
    try:
        status = source_status(store, datetime.now(UTC))
    finally:
        store.close()
    return status is not None and status.commit == commit
