"""A bot that does not obey the lock: what it buys is paged at the next tick, and closed where a stage declares it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace

from killswitch.graph.nodes import BreachRule
from killswitch.graph.routing import Route, RouteRule, RouteTarget
from killswitch.incident.notify.message import decode_message
from killswitch.model.decision import Notice
from killswitch.model.instant import HOUR, SECOND
from killswitch.model.snapshot import AccountSnapshot
from killswitch.runner.loop import Runner
from tests import graphs, worlds
from tests.runner_world import ScriptedVenue, World, book, crash_policy


def seen_now(world: World, venue: ScriptedVenue, number: int, bought: str = "", mark: str = "950") -> None:
    """Let the venue show ten contracts (or none without `bought`), and the purchase as a fill."""
    now = world.clock.now()
    fills = [worlds.fill(f"b{number}", now, "BTC", "buy", bought, "95")] if bought else []
    venue.answer = replace(book(mark, fills=fills), observed_at=now)


async def notices_of(runner: Runner, world: World, venue: ScriptedVenue, ticks: int) -> list[Notice]:
    """The notices of this many ticks; the venue's answer is observed at each."""
    found: list[Notice] = []
    for _ in range(ticks):
        await world.clock.sleep(1)
        assert not isinstance(venue.answer, BaseException | None)
        venue.answer = replace(venue.answer, observed_at=world.clock.now())
        found += (await runner.tick()).notices
        venue.answer = replace(venue.answer, fills=())
        await runner.close_within(5)
    return [each for each in found if "lock breach" in each.text]


def test_a_bot_that_buys_back_under_the_lock_is_paged_once_over_a_restart(tmp_path: Path) -> None:
    """The book is closed and locked; ten contracts are bought; the page names them; after a restart there is no second
    page, and when they are gone, it is over."""
    world = World(tmp_path)

    async def run() -> list[list[str]]:
        venue = ScriptedVenue(book("1100"))
        runner = world.runner(store := world.open(), [venue])
        await runner.start()
        await notices_of(runner, world, venue, 2)
        seen_now(world, venue, 0, mark="850")
        found = [await notices_of(runner, world, venue, 4)]
        assert venue.answer.positions == ()  # type: ignore[union-attr]  # a snapshot by now
        seen_now(world, venue, 1, bought="10")
        found.append(await notices_of(runner, world, venue, 3))
        await runner.finish()
        await runner.shut_down()
        store.close()
        again = world.runner(world.open(), [venue])
        await again.start()
        found.append(await notices_of(again, world, venue, 3))
        venue.answer = replace(venue.answer, positions=())  # type: ignore[type-var]  # a snapshot by now
        found.append(await notices_of(again, world, venue, 3))
        await again.finish()
        await again.shut_down()
        return [[f"{each.severity} {each.policy} {each.scope}: {each.text[:64]}" for each in part] for part in found]

    try:
        closed, bought, restarted, gone = asyncio.run(run())
    finally:
        world.close()
    assert closed == []
    assert len(bought) == 1
    assert bought[0].startswith("page crash account/main: lock breached: main is locked since")
    assert restarted == []
    assert len(gone) == 1


def test_a_breach_that_is_answered_sends_one_page(tmp_path: Path) -> None:
    """The page of the breach says that it is closed again; neither the answer nor its end sends another message."""
    world = World(tmp_path)
    made = crash_policy()
    limits = BreachRule(ceiling=Decimal("0.1"), cost_per_hour=Decimal(1), pause=10 * SECOND)
    stages = tuple(replace(each, on_breach="close", breach=limits) for each in made.stages)
    rule = RouteRule(None, None, None, None, None, None, ())
    route = Route("desk", rule, (RouteTarget("file", str(tmp_path / "messages")),), HOUR, graphs.HERE)
    policies = replace(graphs.policy_set(replace(made, stages=stages)), routes=(route,))

    async def run() -> list[str]:
        venue = ScriptedVenue(book("1100"))
        runner = world.runner(store := world.open(), [venue], policies=policies)
        await runner.start()
        await notices_of(runner, world, venue, 2)
        seen_now(world, venue, 0, mark="850")
        await notices_of(runner, world, venue, 4)
        before = len(store.deliveries(100))
        seen_now(world, venue, 1, bought="10")
        (notice,) = await notices_of(runner, world, venue, 1)
        assert notice.text.endswith("The stage closes it again (on_breach: close); stop the bot")
        messages = [decode_message(each.message.body) for each in store.deliveries(100)[: -before or None]]
        await notices_of(runner, world, venue, 2)
        late = [decode_message(each.message.body) for each in store.deliveries(100)]
        assert [each.title for each in late if "answer to a lock breach" in each.title] == []
        await runner.finish()
        await runner.shut_down()
        return [each.title for each in messages if "breach" in each.title]

    try:
        titles = asyncio.run(run())
    finally:
        world.close()
    assert len(titles) == 1, titles
    assert titles[0].startswith("[page]")


def test_what_the_bot_buys_under_the_lock_is_closed_again_and_again(tmp_path: Path) -> None:
    """The stage declares `on_breach: close`: ten contracts are sold each time; the journal has each order once."""
    world = World(tmp_path)
    made = crash_policy()
    limits = BreachRule(ceiling=Decimal("0.1"), cost_per_hour=Decimal(1), pause=10 * SECOND)
    stages = tuple(replace(each, on_breach="close", breach=limits) for each in made.stages)
    policies = graphs.policy_set(replace(made, stages=stages))

    async def run() -> tuple[list[tuple[str, Decimal]], list[str | None]]:
        venue = ScriptedVenue(book("1100"))
        runner = world.runner(store := world.open(), [venue], policies=policies)
        await runner.start()
        await notices_of(runner, world, venue, 2)
        seen_now(world, venue, 0, mark="850")
        await notices_of(runner, world, venue, 4)
        for number in (1, 2, 3):
            seen_now(world, venue, number, bought="10")
            await notices_of(runner, world, venue, 4)
            assert isinstance(venue.answer, AccountSnapshot)
            assert venue.answer.positions == ()
        await runner.finish()
        await runner.shut_down()
        sent = [(order.side, order.amount) for order in venue.sent]
        return sent, [stored.decision.kind for stored in reversed(store.decisions(10))]

    try:
        sent, kinds = asyncio.run(run())
    finally:
        world.close()
    assert sent == [("sell", Decimal(10))] * 4
    assert kinds == [None, "breach", "breach", "breach"]
