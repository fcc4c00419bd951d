"""A person ends a close that would go on: nothing more is sent, it ends as residual, and who and why are on record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import structs

from killswitch.cli.live.status_sections import result_lines
from killswitch.cli.operate.verbs import close
from killswitch.graph.nodes import ScopeRule
from killswitch.incident.record.results import fold_result, newest_results, read_result
from killswitch.journal.codec import decode_all
from killswitch.model.store import JournalEntry
from killswitch.model.venue import OrderRejectedError, OrderReport, OrderRequest
from killswitch.operations.commands import operator_event
from tests import graphs
from tests.cases.test_full_close_persistence import RefusingExchange
from tests.faults.mishaps import Rule
from tests.faults.scene import Scene, long
from tests.runner_world import ScriptedVenue, World, book, crash_policy

BTC, ETH = long("BTC", "ETH")


def giving_up(scene: Scene, decision: str = "d1") -> Callable[[], None]:
    """What the tick does that takes the command."""

    def happens() -> None:
        entry = JournalEntry(
            decision=decision, kind="given_up", at=scene.time.now(), account="main",
            data={"author": "mia", "reason": "sold over the phone"},
        )  # fmt: skip
        scene.store.append(entry)
        scene.closer.give_up(entry)

    return happens


def test_nothing_more_is_sent_and_the_end_says_who_and_why() -> None:
    """BTC is refused for twenty minutes and given up after two; ETH was closed before."""
    scene = Scene({BTC: 10, ETH: 4}, exchange=RefusingExchange)
    scene.decide({BTC: 0, ETH: 0})
    scene.at(120.0, giving_up(scene))
    assert scene.play() == {"d1": "residual"}
    (finished,) = scene.entries("finished")
    assert finished.data["reason"] == "BTC: given up by mia: sold over the phone"
    assert finished.data["left long BTC"] == "10"
    last = max((entry.at - scene.time.start).total_seconds() for entry in scene.entries("sending"))
    assert last <= 120.0
    assert scene.ended_at is not None
    assert scene.ended_at < 123.0


def test_what_is_held_is_known_when_it_ends() -> None:
    """BTC is refused from the beginning, and somebody else takes 3 of its 10 after a minute; given up after two.

    The close took until the last look before that, at most half a minute, and not until ETH was closed.
    """
    scene = Scene({BTC: 10, ETH: 4}, exchange=RefusingExchange)
    decision = scene.decide({BTC: 0, ETH: 0})
    scene.at(60.0, lambda: scene.exchange.take_away(BTC, Decimal(3), "liquidation"))
    scene.at(120.0, giving_up(scene))
    scene.play()
    result = fold_result(decision, decode_all(scene.store.journal(decision.id)), None)
    (btc,) = (each for each in result.positions if each.symbol == BTC[0])
    assert (btc.left, btc.seen_at is not None) == (Decimal(7), True)
    assert result.totals.took is not None
    assert 90.0 < result.totals.took <= 123.0
    assert [(each.symbol, each.position) for each in result.verified if each.symbol == BTC[0]] == [(BTC[0], Decimal(7))]


def test_nothing_is_said_to_have_been_seen_where_nothing_can_be_read() -> None:
    """The account was never read: what is left of it stays unknown."""
    scene = Scene({BTC: 10}, Rule("submit", "down", times=10**6), Rule("snapshot", "down", times=10**6))
    decision = scene.decide({BTC: 0})
    scene.at(60.0, giving_up(scene))
    scene.play()
    assert [
        each.left for each in fold_result(decision, decode_all(scene.store.journal(decision.id)), None).positions
    ] == [None]


def test_a_close_that_cannot_read_its_account_can_be_given_up() -> None:
    """Neither orders nor positions get through."""
    scene = Scene({BTC: 10}, Rule("submit", "down", times=10**6), Rule("snapshot", "down", times=10**6))
    scene.decide({BTC: 0})
    scene.at(60.0, giving_up(scene))
    assert scene.play() == {"d1": "residual"}
    assert scene.ended_at is not None
    assert scene.ended_at < 75.0


def test_an_order_under_way_is_followed_to_its_end_first() -> None:
    """What became of it is asked until the venue says so; the close does not end before that."""
    scene = Scene(
        {BTC: 10}, Rule("submit", "done"), Rule("find_order", "lost", times=20), Rule("fills", "lost", times=20)
    )
    scene.decide({BTC: 5})
    scene.at(1.0, giving_up(scene))
    assert scene.play() == {"d1": "flat"}
    assert sum(order.filled for order in scene.orders()) == 5


def test_another_decision_on_the_position_goes_on() -> None:
    """The trim is given up, the full close is not."""
    scene = Scene({BTC: 10}, Rule("submit", "down", times=40))
    scene.decide({BTC: 5})
    scene.decide({BTC: 0})
    scene.at(1.0, giving_up(scene))
    assert scene.play()["d2"] == "flat"
    assert scene.held(BTC) == [0]


def test_a_restart_knows_that_it_was_given_up() -> None:
    """Killed right after the command was journaled: the next process sends nothing either."""
    scene = Scene({BTC: 10}, exchange=RefusingExchange)
    scene.decide({BTC: 0})
    scene.at(119.9, giving_up(scene))
    assert scene.play(kills=[120.0]) == {"d1": "residual"}
    assert max((entry.at - scene.time.start).total_seconds() for entry in scene.entries("sending")) <= 120.0


class Refusing(ScriptedVenue):
    async def submit(self, request: OrderRequest) -> OrderReport:
        self.sent.append(request)
        raise OrderRejectedError("permission", "this key may not trade")


@pytest.mark.parametrize("scope", [None, "account/main"])
def test_a_tick_journals_the_command_and_answers_it(tmp_path: Path, scope: str | None) -> None:
    """With the transaction in which the command is consumed; the venue is asked for no order after it."""

    async def course(world: World) -> tuple[int, int]:
        store, venue = world.open(), Refusing(book("1100"))
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.tick()
        venue.answer = book("900")
        await runner.tick()
        (open_one,) = store.unfinished()
        event = operator_event(
            "give_up", scope, "mia", "sold over the phone", world.clock.now(), decision=open_one.decision.id
        )
        store.put_event(event)
        sent = len(venue.sent)
        report = await runner.tick()
        assert [notice.subject for notice in report.notices if "is ended on" in notice.text] == [event.id]
        await runner.close_within(30.0)
        await runner.finish()
        await runner.shut_down()
        ((decision, result), *_) = newest_results(store, 1)
        (entry,) = (it for it in store.journal(decision.id) if it.kind == "given_up")
        assert entry.data == {"author": "mia", "reason": "sold over the phone", "event": event.id}
        assert (result.standing, result.endings[0].reason) == (
            "residual", "BTC: given up by mia: sold over the phone"
        )  # fmt: skip
        assert not store.pending_events()
        return sent, len(venue.sent)

    world = World(tmp_path)
    try:
        before, after = asyncio.run(course(world))
    finally:
        world.close()
    assert before == after >= 1


def test_a_command_for_what_is_not_being_closed_is_a_page(tmp_path: Path) -> None:
    """It is answered, and nothing is journaled."""

    async def course(world: World) -> None:
        store, venue = world.open(), ScriptedVenue(book("1100"))
        runner = world.runner(store, [venue])
        await runner.start()
        store.put_event(operator_event("give_up", None, "mia", "why not", world.clock.now(), decision="nobody"))
        report = await runner.tick()
        (notice,) = (it for it in report.notices if it.severity == "page")
        assert "nothing is being closed for nobody" in notice.text
        await runner.finish()
        await runner.shut_down()

    world = World(tmp_path)
    try:
        asyncio.run(course(world))
    finally:
        world.close()


def test_two_commands_of_one_tick_end_a_close_once(tmp_path: Path) -> None:
    """Two people give it up at the same time: both are answered, and one end is journaled."""

    async def course(world: World) -> None:
        store, venue = world.open(), Refusing(book("1100"))
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.tick()
        venue.answer = structs.replace(book("900"))
        await runner.tick()
        decision = store.unfinished()[0].decision.id
        for author in ("mia", "leo"):
            store.put_event(
                operator_event("give_up", None, author, "sold over the phone", world.clock.now(), decision=decision)
            )
        report = await runner.tick()
        assert [it.text.rpartition(" by ")[2] for it in report.notices if "is ended on" in it.text] == [
            "mia: sold over the phone", "leo: sold over the phone",
        ]  # fmt: skip
        ends = [it.data["author"] for it in store.journal(decision) if it.kind == "given_up"]
        assert ends == ["mia"]
        await runner.finish()
        await runner.shut_down()

    world = World(tmp_path)
    try:
        asyncio.run(course(world))
    finally:
        world.close()


@pytest.mark.parametrize("scope", [None, "venue/paper", "account/b"])
def test_each_account_is_told_of_by_itself_and_a_venue_names_its_accounts(tmp_path: Path, scope: str | None) -> None:
    """A route for account/b hears of the part that is given up there; `status` has no hint for a part that is over."""

    async def play(world: World) -> tuple[list[str], list[str], str]:
        store = world.open()
        venues = [Refusing(None, "main"), Refusing(None, "b")]
        portfolio = replace(crash_policy(), scope=ScopeRule("portfolio", None, None, None, None))
        runner = world.runner(store, venues, policies=graphs.policy_set(portfolio))
        await runner.start()
        for equity in ("1100", "900"):
            for venue in venues:
                venue.answer = book(equity, venue.account)
            await runner.tick()
        (open_one,) = store.unfinished()
        store.put_event(
            operator_event("give_up", scope, "mia", "over", world.clock.now(), decision=open_one.decision.id)
        )
        report = await runner.tick()
        await runner.close_within(5.0)
        given = sorted(it.account or "" for it in store.journal(open_one.decision.id) if it.kind == "given_up")
        scopes = sorted(notice.scope for notice in report.notices if "is ended on" in notice.text)
        words = "\n".join(result_lines(read_result(store, open_one.decision)))
        await runner.shut_down()
        return given, scopes, words

    world = World(tmp_path)
    try:
        given, scopes, words = asyncio.run(play(world))
    finally:
        world.close()
    named = ["b"] if scope == "account/b" else ["b", "main"]
    assert given == named
    assert scopes == [f"account/{each}" for each in named]
    assert words.count("left: ") == 2 - len(named)


def test_the_verb_takes_the_beginning_of_an_id_and_says_what_a_plain_reason_counts_as(tmp_path: Path) -> None:
    """As `explain` and `report` do, and as every close by hand does."""
    world = World(tmp_path)
    store = world.open()

    async def course() -> str:
        runner = world.runner(store, [venue := Refusing(book("1100"))])
        await runner.start()
        await runner.tick()
        venue.answer = book("900")
        await runner.tick()
        await runner.finish()
        await runner.shut_down()
        return store.unfinished()[0].decision.id

    try:
        decision = asyncio.run(course())
        asked = ["--give-up", decision[:6], "--reason", "foo", "--store", str(tmp_path / "store.sqlite")]
        told = CliRunner().invoke(close, asked)
        assert told.exit_code == 0, told.output
        assert "so it counts as 'operator: foo'" in told.output
        (event,) = store.pending_events()
        assert event.decision == decision
    finally:
        world.close()


def test_the_verb_refuses_what_is_not_under_way_and_leaves_the_rest_to_the_next_run(tmp_path: Path) -> None:
    """Where no runner lives, the command waits in the store."""
    world = World(tmp_path)
    store = world.open()
    store_at = str(tmp_path / "store.sqlite")

    async def course() -> str:
        venue = Refusing(book("1100"))
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.tick()
        venue.answer = structs.replace(book("900"))
        await runner.tick()
        await runner.finish()
        await runner.shut_down()
        return store.unfinished()[0].decision.id

    try:
        decision = asyncio.run(course())
        told = CliRunner().invoke(close, ["--give-up", "nobody", "--reason", "operator", "--store", store_at])
        assert told.exit_code == 1
        assert f"In progress: {decision} on main" in told.output
        told = CliRunner().invoke(close, ["--give-up", decision, "--reason", "operator", "--store", store_at])
        assert told.exit_code == 0, told.output
        assert "the first tick of the next run ends the close" in told.output
        (event,) = store.pending_events()
        assert (event.kind, event.decision, event.reason) == ("give_up", decision, "operator")
        told = CliRunner().invoke(
            close, ["--give-up", decision, "--force", "--reason", "operator", "--store", store_at]
        )  # fmt: skip
        assert told.exit_code != 0
        assert "--give-up sends nothing" in told.output
    finally:
        world.close()


def test_a_command_that_no_tick_has_taken_is_given_up_whole_only(tmp_path: Path) -> None:
    """It has no accounts yet, so that a scope would end nothing: the verb says so, and takes it without one."""
    world = World(tmp_path)
    store = world.open()
    try:
        command = operator_event("close", "portfolio", "carol", "operator", world.clock.now())
        store.put_event(command)
        asked = ["--give-up", command.id, "--reason", "operator", "--store", str(tmp_path / "store.sqlite")]
        answer = CliRunner().invoke(close, [*asked, "--scope", "account/main"])
        assert answer.exit_code == 1
        assert f"no tick has processed {command.id} yet" in answer.output
        assert "leave out --scope" in answer.output
        assert list(store.pending_events()) == [command]
        answer = CliRunner().invoke(close, asked)
        assert answer.exit_code == 0, answer.output
        assert [(event.kind, event.decision) for event in store.pending_events()][1:] == [("give_up", command.id)]
    finally:
        world.close()
