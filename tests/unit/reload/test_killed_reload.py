"""A runner that is killed at every step of taking another set: the store has one whole state on either side (P2)."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

from killswitch.accounts.next_set import last_good
from tests import graphs
from tests.e2e.fork_client import REPOSITORY
from tests.runner_world import ScriptedVenue, World, book, crash_policy
from tests.unit.reload.killed_reloader import DIGEST, RENAMED, following

CHANGES_AT_MOST = 200
"""More writes than any tick has."""


def died(folder: Path, kill_at: str) -> bool:
    """Whether the runner died there; False if it ended before."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.unit.reload.killed_reloader", str(folder), kill_at]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode != 0


def found_after(folder: Path) -> str:
    """The name that every part of the store has for the policy; AssertionError if two parts differ."""
    world = World(folder)
    store = world.open()
    good = last_good(store)
    name = RENAMED if good is not None and good.digest == DIGEST else "crash"
    assert {each.policy for each in store.states()} == {name}
    other = "crash" if name == RENAMED else RENAMED
    assert (len(store.rows(name, "account/main", 0)) > 2, store.rows(other, "account/main", 0)) == (True, [])
    assert (store.policy_files(DIGEST) is not None) == (name == RENAMED)
    _require_latched(world, name)
    world.close()
    return name


def _require_latched(world: World, name: str) -> None:
    """The next runner on the store has the latch, under that name, and closes nothing a second time."""

    async def run() -> None:
        venue = ScriptedVenue(book("980"))
        policy = following().loaded.policies if name == RENAMED else graphs.policy_set(crash_policy())
        await world.clock.sleep(600.0)  # the lease of the dead runner is over
        runner = world.runner(world.open(), [venue], policies=policy)
        await runner.start()
        await runner.tick()
        (status,) = runner.interpreter.status()
        assert (status.policy, status.stage, status.level) == (name, "close-everything", 3)
        assert venue.sent == []
        await runner.finish()
        await runner.shut_down()

    asyncio.run(run())


def test_a_reload_that_is_killed_at_any_step_leaves_one_whole_state(tmp_path: Path) -> None:
    """P2: before and after each write of the tick, the store has all of the former set or all of the next one."""
    seen: list[str] = []
    for number in count(1):
        assert number < CHANGES_AT_MOST
        folder = tmp_path / f"{number}"
        if not died(folder, f"{number}-before"):
            break
        seen.append(found_after(folder))
    assert len(seen) > 8, "the tick records the set, its states, rows and blobs"
    assert seen == sorted(seen, key=["crash", RENAMED].index), "once recorded, it stays so"
    assert set(seen) == {"crash", RENAMED}
