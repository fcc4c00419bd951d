"""A hedge over two accounts through a running runner: both legs are closed, each by the executor of its account."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet, SignalRef
from killswitch.model.snapshot import AccountSnapshot
from killswitch.signals.arguments import HedgeLegs, LegOfHedge
from tests import graphs
from tests.runner_world import ScriptedVenue, World, book
from tests.worlds import account, position, rules

PAIR = HedgeLegs("pair", (LegOfHedge("main", "BTC", Decimal(1)), LegOfHedge("other", "BTC", Decimal(1))))


def policies(fraction: str = "1") -> PolicySet:
    """Close `main`, and no other account, at a loss of 10%; its long BTC is hedged on `other`."""
    stage = graphs.stage("out", 3, 0, actions=(graphs.close("both", fraction),))
    policy = graphs.graph(
        [SignalRef("equity.loss_from_start")], [graphs.trigger("fall", 0, 0.10)], [stage],
        scope=replace(graphs.graph((), (), ()).scope, accounts=("main",)), hedges=(PAIR,),
    )  # fmt: skip
    return graphs.policy_set(policy)


def short(contracts: str = "10") -> AccountSnapshot:
    held = position("BTC", "short", "0", contracts=contracts, entry_price="110", mark_price="110", notional="1100")
    return account("5000", [held], name="other", instruments=(rules("BTC"),))


async def fallen(world: World, venues: list[ScriptedVenue], made: PolicySet, seconds: int = 10) -> None:
    runner = world.runner(world.open(), venues, policies=made)
    await runner.start()
    await runner.tick()
    venues[0].answer = book("900")
    for _ in range(seconds):
        await runner.tick()
        await runner.advance()
        await world.clock.sleep(1.0)
    await runner.finish()
    await runner.shut_down()


def test_leg_on_an_account_that_the_policy_does_not_watch_is_closed_too(tmp_path: Path) -> None:
    """10 long on `main` are sold, and 10 short on `other` bought back, once each; both ends are verified."""
    main, other = ScriptedVenue(book("1100")), ScriptedVenue(short(), account="other")
    world = World(tmp_path)
    asyncio.run(fallen(world, [main, other], policies()))
    assert [(sent.side, sent.amount, sent.reduce_only) for sent in main.sent] == [("sell", Decimal(10), True)]
    assert [(sent.side, sent.amount, sent.reduce_only) for sent in other.sent] == [("buy", Decimal(10), True)]
    store = world.open()
    assert list(store.unfinished()) == []
    (decision,) = [each.decision for each in store.decisions(10)]
    assert (decision.scope, decision.accounts) == ("account/main", ("main", "other"))
    world.close()


def test_leg_that_cannot_be_read_is_left_and_the_rest_is_closed(tmp_path: Path) -> None:
    main, other = ScriptedVenue(book("1100")), ScriptedVenue(short(), account="other")
    world = World(tmp_path)

    async def run() -> None:
        other.answer = None
        await fallen(world, [main, other], policies())

    asyncio.run(run())
    assert [(sent.side, sent.amount) for sent in main.sent] == [("sell", Decimal(10))]
    assert other.sent == []
    store = world.open()
    assert any("the hedge pair is left naked" in each.text for each in store.notices(20))
    world.close()
