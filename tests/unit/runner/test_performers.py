"""An effect's requirements of a venue are checked before a runner starts, and only where it would be performed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.model import effects
from killswitch.runner.performers import CapabilityError
from tests import graphs
from tests.runner_world import ScriptedVenue, World, book, crash_policy, observing


class SuspendingScript(ScriptedVenue):
    """A venue whose broker refuses orders on demand."""

    async def suspend_trading(self, suspended: bool) -> None: ...


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A lock asks for a broker that suspends trading."""
    asking = replace(effects.kind_named("lock"), needs="suspend_trading")
    monkeypatch.setattr(effects, "EFFECTS", tuple(asking if it.key == "lock" else it for it in effects.EFFECTS))
    made = World(tmp_path)
    yield made
    made.close()


def test_an_effect_that_an_account_cannot_perform_is_refused(world: World) -> None:
    """With the place, the action, the account and what its adapter lacks; no lease is acquired: nothing has started."""
    sentence = (
        "policy.yaml:1: `lock_trading` of stage close-everything cannot be performed on account main: the adapter of "
        "venue paper does not offer `suspend_trading`; take the account out of the scope, or the action out of the "
        "stage"
    )
    store = world.open()
    with pytest.raises(CapabilityError) as refused:
        world.runner(store, [ScriptedVenue(book("1100"))])
    assert str(refused.value) == sentence
    world.runner(store, [SuspendingScript(book("1100"))])


def test_an_unarmed_account_needs_no_capability(world: World) -> None:
    """No effect is performed on it."""
    store = world.open()
    world.runner(store, [ScriptedVenue(book("1100"))], armed=False)


def test_an_observing_policy_needs_no_capability(world: World) -> None:
    """Its decisions are recorded, and none of their effects is performed."""
    policies = graphs.policy_set(observing(crash_policy()))
    world.runner(world.open(), [ScriptedVenue(book("1100"))], policies=policies)
