"""A runner that takes a renamed policy between two ticks, and kills itself with SIGKILL while it records that.

    python -m tests.unit.reload.killed_reloader FOLDER KILL_AT

KILL_AT: as of `tests.faults.killed_runner`, counted from the tick that takes the set. Its policy is latched before.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from msgspec.structs import replace

from killswitch.accounts.next_set import NextSet
from killswitch.accounts.opening import LoadedPolicies
from killswitch.model.applied_set import PolicyFile, PolicyOrigin
from tests import graphs
from tests.faults.killed_runner import Death, observe_writes
from tests.runner_world import ScriptedVenue, World, book, crash_policy

RENAMED = "plunge"
DIGEST = "sha256:next"


def following() -> NextSet:
    """The policy of the start under another name."""
    policies = replace(graphs.policy_set(replace(crash_policy(), policy=RENAMED, formerly="crash")), digest=DIGEST)
    return NextSet(LoadedPolicies(policies, (), ()), (PolicyFile("p.yaml", b"plunge"),), PolicyOrigin(source="desk"))


async def take(world: World, death: Death) -> None:
    """Latch the policy, propose the renamed one, and take it."""
    venue = ScriptedVenue(book("1100"))
    runner = world.runner(world.open(), [venue])
    await runner.start()
    for equity in ("1100", "980", "980", "980"):
        venue.answer = book(equity) if equity == "1100" or not venue.sent else venue.answer
        await runner.tick()
        await world.clock.sleep(1.0)
    assert runner.propose(following()).is_prepared.wait(30.0)
    observe_writes(death)
    await runner.tick()
    await runner.finish()
    await runner.shut_down()


if __name__ == "__main__":
    asyncio.run(take(World(Path(sys.argv[1])), Death(sys.argv[2])))
