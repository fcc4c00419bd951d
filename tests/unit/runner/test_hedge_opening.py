"""Hedges through a running runner: opened once on the other account, and legs of declared ones closed on both."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.graph.nodes import PolicySet, SignalRef
from killswitch.graph.unwinding import HedgeInstrument, HedgeRule, UnwindingRule
from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import OrderReport, OrderRequest, VenueDownError
from killswitch.planning.hedge.uncloseable import OUT_OF_BUDGET
from killswitch.runner.assembly import assemble
from killswitch.runner.loop import Runner
from killswitch.signals.arguments import HedgeLegs, LegOfHedge
from tests import graphs
from tests.runner_world import PACE, ScriptedVenue, World, book
from tests.unit.accounts.test_poll_budget import LimitedVenue, poller_of
from tests.worlds import account, position, rules


class FailingVenue(ScriptedVenue):
    """A venue that goes down at the first order."""

    async def submit(self, request: OrderRequest) -> OrderReport:
        self.answer = VenueDownError("maintenance")
        raise VenueDownError("maintenance")


class FillingVenue(ScriptedVenue):
    """An account that fills every order at once and in full."""

    async def submit(self, request: OrderRequest) -> OrderReport:
        self.sent.append(request)
        return OrderReport(
            f"o{len(self.sent)}", request.client_order_id, request.symbol, "filled", request.amount, request.amount,
            Decimal(110), Decimal(0),
        )  # fmt: skip


def policies() -> PolicySet:
    """Close `main` at a loss of 10%, and let BTC on `other` hedge it after a minute."""
    stage = graphs.stage("out", 3, 0, actions=(graphs.close(unwinding="u"),))
    policy = graphs.graph(
        [SignalRef("equity.loss_from_start")], [graphs.trigger("fall", 0, 0.10)], [stage],
        scope=replace(graphs.graph((), (), ()).scope, accounts=("main",)),
    )  # fmt: skip
    rule = HedgeRule("act", MINUTE, (HedgeInstrument("other", "BTC"),), HOUR, Decimal(5000), "USDT")
    return replace(graphs.policy_set(policy), unwindings=(UnwindingRule("u", hedge=rule),))


async def seconds(runner: Runner, world: World, count: int) -> None:
    """A tick each second, with the closing work that follows it."""
    for _ in range(count):
        await runner.tick()
        await runner.advance()
        await world.clock.sleep(1.0)


def test_an_account_that_goes_down_in_its_close_is_hedged_once_across_a_restart(tmp_path: Path) -> None:
    """10 contracts are hedged by 10 of the same, whatever their marks: sold on `other` after a minute, by two runs."""
    main = FailingVenue(book("1100"))
    other = FillingVenue(book("1100", name="other"), account="other")
    world = World(tmp_path)

    async def runs() -> None:
        first = world.runner(world.open(), [main, other], policies=policies())
        await first.start()
        await first.tick()
        main.answer = book("900")
        await seconds(first, world, 58)
        assert other.sent == []
        await seconds(first, world, 10)
        await first.finish()
        await first.shut_down()
        assert [(sent.symbol, sent.side, sent.amount) for sent in other.sent] == [("BTC", "sell", Decimal(10))]
        second = world.runner(world.open(), [main, other], policies=policies())
        await second.start()
        await seconds(second, world, 90)
        await second.finish()
        await second.shut_down()

    asyncio.run(runs())
    assert len(other.sent) == 1
    store = world.open()
    [hedge] = [each.decision for each in store.decisions(10) if each.decision.kind == "hedge"]
    assert (hedge.policy, hedge.scope, hedge.stage) == ("test", "account/main", "out")
    ended = [entry for entry in store.journal(hedge.id) if entry.kind == "finished"]
    assert [(entry.account, entry.data["status"]) for entry in ended] == [("other", "flat")]
    notices = [notice.text for notice in store.notices(100) if notice.text.startswith("hedge:")]
    assert len(notices) == 1
    world.close()


def test_a_hedge_that_cannot_be_sent_is_suggested_and_not_recorded(tmp_path: Path) -> None:
    """`other` is observed and not armed: no decision records an opening, and the reason is notified once."""
    main, other = FailingVenue(book("1100")), FillingVenue(book("1100", name="other"), account="other")
    world = World(tmp_path)
    accounts = {v.account: ArmedAccount(v.account, "paper", "swap", "USDT", v, armed=v is main) for v in (main, other)}

    async def runs() -> None:
        for _ in range(2):  # the second run sees the account for a moment, and then it is down again
            runner = assemble(policies(), accounts, world.open(), world.clock, PACE, live=True, locks=world.locks)
            await runner.start()
            await runner.tick()
            main.answer = book("900")
            await seconds(runner, world, 130)
            await runner.finish()
            await runner.shut_down()

    asyncio.run(runs())
    assert other.sent == []
    store = world.open()
    assert [each for each in store.decisions(10) if each.decision.kind == "hedge"] == []
    [notice] = [notice.text for notice in store.notices(100) if notice.text.startswith("hedge:")]
    assert "suggested to stand in until it is closed: sell 10 BTC on other" in notice
    assert notice.endswith("not opened: other is not armed")
    world.close()


def test_an_account_without_request_budget_has_the_reason_that_planning_recognises() -> None:
    """The reason of a skipped poll is the one by which planning does not take the account for uncloseable."""

    async def story() -> None:
        poller, _ = poller_of(LimitedVenue(account("1")))
        accounts = [(await poller.gather())[0] for _ in range(3)]
        assert accounts[-1].reason == OUT_OF_BUDGET

    asyncio.run(story())


# Declared hedges over two accounts

PAIR = HedgeLegs("pair", (LegOfHedge("main", "BTC", Decimal(1)), LegOfHedge("other", "BTC", Decimal(1))))


def netting_policies(fraction: str = "1") -> PolicySet:
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
    asyncio.run(fallen(world, [main, other], netting_policies()))
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
        await fallen(world, [main, other], netting_policies())

    asyncio.run(run())
    assert [(sent.side, sent.amount) for sent in main.sent] == [("sell", Decimal(10))]
    assert other.sent == []
    store = world.open()
    assert any("the hedge pair is left naked" in each.text for each in store.notices(20))
    world.close()
