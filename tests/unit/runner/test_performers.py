"""What an effect asks of a venue is asked before a runner starts, and only where it would be performed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from killswitch.model import effects
from killswitch.model.venue import SuspendingVenue
from killswitch.runner.performers import CapabilityError
from tests import graphs
from tests.runner_world import ScriptedVenue, World, book, crash_policy, observing


class SuspendingScript(ScriptedVenue):
    """A venue whose broker refuses orders on demand."""

    async def suspend_trading(self, suspended: bool) -> None: ...


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Where a lock asks for a broker that suspends."""
    asking = replace(effects.kind_named("lock"), needs=SuspendingVenue)
    monkeypatch.setitem(effects._BY_KEY, "lock", asking)
    made = World(tmp_path)
    yield made
    made.close()


def test_an_effect_that_an_account_cannot_perform_is_refused(world: World) -> None:
    """With the place, the action, the account and what its adapter lacks; no lease is taken, so nothing has begun."""
    sentence = (
        "policy.yaml:1: `lock_trading` of stage close-everything cannot be performed on account main: the adapter of "
        "venue paper is no SuspendingVenue; take the account out of the scope, or the action out of the stage"
    )
    store = world.open()
    with pytest.raises(CapabilityError) as refused:
        world.runner(store, [ScriptedVenue(book("1100"))])
    assert str(refused.value) == sentence
    world.runner(store, [SuspendingScript(book("1100"))])


def test_an_account_that_is_not_armed_is_asked_for_nothing(world: World) -> None:
    """Of an account that is not armed."""
    store = world.open()
    world.runner(store, [ScriptedVenue(book("1100"))], armed=False)


def test_a_policy_that_observes_asks_for_nothing(world: World) -> None:
    """Its decisions are recorded, and no effect of theirs is performed."""
    policies = graphs.policy_set(observing(crash_policy()))
    world.runner(world.open(), [ScriptedVenue(book("1100"))], policies=policies)
