"""An operator gives up a running close: no further order is sent, and its residual end names author and reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from killswitch.cli.operate.verbs import close
from killswitch.graph.nodes import ScopeRule
from killswitch.incident.record.results import fold_result, newest_results, read_result
from killswitch.journal.codec import decode_all
from killswitch.model.store import JournalEntry
from killswitch.model.venue import OrderRejectedError
from killswitch.operations.commands import operator_event
from killswitch.operations.pages.outcome import result_lines
from tests import graphs
from tests.cases.test_full_close_persistence import RefusingExchange
from tests.faults.mishaps import Rule
from tests.faults.scene import Scene, long
from tests.runner_world import ScriptedVenue, World, book, crash_policy, refusing

NOT_ALLOWED = OrderRejectedError("permission", "this key may not trade")

BTC, ETH = long("BTC", "ETH")


def give_up(scene: Scene, decision: str = "d1") -> Callable[[], None]:
    """What the tick that processes the command does."""

    def journal_and_give_up() -> None:
        entry = JournalEntry(
            decision=decision, kind="given_up", at=scene.time.now(), account="main",
            data={"author": "mia", "reason": "sold over the phone"},
        )  # fmt: skip
        scene.store.append(entry)
        scene.closer.give_up(entry)

    return journal_and_give_up


def test_no_further_order_is_sent_and_the_final_entry_names_author_and_reason() -> None:
    """BTC orders are refused for twenty minutes and the close is given up after two; ETH is closed before."""
    scene = Scene({BTC: 10, ETH: 4}, exchange=RefusingExchange)
    scene.decide({BTC: 0, ETH: 0})
    scene.at(120.0, give_up(scene))
    assert scene.play() == {"d1": "residual"}
    (finished,) = scene.entries("finished")
    assert finished.data["reason"] == "BTC: given up by mia: sold over the phone"
    assert finished.data["left long BTC"] == "10"
    last = max((entry.at - scene.time.start).total_seconds() for entry in scene.entries("sending"))
    assert last <= 120.0
    assert scene.ended_at is not None
    assert scene.ended_at < 123.0


def test_the_remaining_position_is_known_at_the_end() -> None:
    """BTC orders are refused throughout; another party takes 3 of its 10 after a minute; given up after two.

    The duration counts to the last poll before that, at most half a minute earlier, not to the close of ETH.
    """
    scene = Scene({BTC: 10, ETH: 4}, exchange=RefusingExchange)
    decision = scene.decide({BTC: 0, ETH: 0})
    scene.at(60.0, lambda: scene.exchange.take_away(BTC, Decimal(3), "liquidation"))
    scene.at(120.0, give_up(scene))
    scene.play()
    result = fold_result(decision, decode_all(scene.store.journal(decision.id)), None)
    (btc,) = (each for each in result.positions if each.symbol == BTC[0])
    assert (btc.left, btc.seen_at is not None) == (Decimal(7), True)
    assert result.totals.took is not None
    assert 90.0 < result.totals.took <= 123.0
    assert [(each.symbol, each.position) for each in result.verified if each.symbol == BTC[0]] == [(BTC[0], Decimal(7))]


def test_the_remaining_position_is_unknown_if_the_account_was_never_read() -> None:
    """Every poll fails: the remaining position is absent, not guessed."""
    scene = Scene({BTC: 10}, Rule("submit", "down", times=10**6), Rule("snapshot", "down", times=10**6))
    decision = scene.decide({BTC: 0})
    scene.at(60.0, give_up(scene))
    scene.play()
    assert [
        each.left for each in fold_result(decision, decode_all(scene.store.journal(decision.id)), None).positions
    ] == [None]


def test_a_close_of_an_unavailable_account_can_be_given_up() -> None:
    """Neither orders nor polls reach the venue."""
    scene = Scene({BTC: 10}, Rule("submit", "down", times=10**6), Rule("snapshot", "down", times=10**6))
    scene.decide({BTC: 0})
    scene.at(60.0, give_up(scene))
    assert scene.play() == {"d1": "residual"}
    assert scene.ended_at is not None
    assert scene.ended_at < 75.0


def test_an_order_in_flight_is_first_followed_to_its_final_status() -> None:
    """The order is queried until the venue returns its status; the close does not end before that."""
    scene = Scene(
        {BTC: 10}, Rule("submit", "done"), Rule("find_order", "lost", times=20), Rule("fills", "lost", times=20)
    )
    scene.decide({BTC: 5})
    scene.at(1.0, give_up(scene))
    assert scene.play() == {"d1": "flat"}
    assert sum(order.filled for order in scene.orders()) == 5


def test_another_decision_on_the_same_position_continues() -> None:
    """The trim is given up, the full close is not."""
    scene = Scene({BTC: 10}, Rule("submit", "down", times=40))
    scene.decide({BTC: 5})
    scene.decide({BTC: 0})
    scene.at(1.0, give_up(scene))
    assert scene.play()["d2"] == "flat"
    assert scene.held(BTC) == [0]


def test_a_close_stays_given_up_after_a_restart() -> None:
    """The process is killed right after the command was journaled: the next process sends nothing either."""
    scene = Scene({BTC: 10}, exchange=RefusingExchange)
    scene.decide({BTC: 0})
    scene.at(119.9, give_up(scene))
    assert scene.play(kills=[120.0]) == {"d1": "residual"}
    assert max((entry.at - scene.time.start).total_seconds() for entry in scene.entries("sending")) <= 120.0


@pytest.mark.parametrize("scope", [None, "account/main"])
def test_a_tick_journals_the_command_and_answers_it(tmp_path: Path, scope: str | None) -> None:
    """In the transaction that consumes the command; no order is sent to the venue after it."""

    async def run(world: World) -> tuple[int, int]:
        store, venue = world.open(), refusing(book("1100"), NOT_ALLOWED)
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.tick()
        venue.answer = book("900")
        await runner.tick()
        (unfinished,) = store.unfinished()
        event = operator_event(
            "give_up", scope, "mia", "sold over the phone", world.clock.now(), decision=unfinished.decision.id
        )
        store.put_event(event)
        sent = venue.requests_of("submit")
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
        return sent, venue.requests_of("submit")

    world = World(tmp_path)
    try:
        before, after = asyncio.run(run(world))
    finally:
        world.close()
    assert before == after >= 1


def test_a_command_for_a_decision_without_a_close_is_a_page(tmp_path: Path) -> None:
    """The command is answered, and nothing is journaled."""

    async def run(world: World) -> None:
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
        asyncio.run(run(world))
    finally:
        world.close()


def test_two_commands_of_one_tick_end_a_close_once(tmp_path: Path) -> None:
    """Two operators give it up at the same time: both are answered, and one entry is journaled."""

    async def run(world: World) -> None:
        store, venue = world.open(), refusing(book("1100"), NOT_ALLOWED)
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.tick()
        venue.answer = replace(book("900"))
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
        asyncio.run(run(world))
    finally:
        world.close()


@pytest.mark.parametrize("scope", [None, "venue/paper", "account/b"])
def test_each_account_has_its_own_notice_and_a_venue_scope_names_its_accounts(
    tmp_path: Path, scope: str | None
) -> None:
    """A route for account/b gets the notice of that account; `status` has no hint for an account that has ended."""

    async def run(world: World) -> tuple[list[str], list[str], str]:
        store = world.open()
        venues = [refusing(None, NOT_ALLOWED), refusing(None, NOT_ALLOWED, "b")]
        portfolio = replace(crash_policy(), scope=ScopeRule("portfolio", None, None, None, None))
        runner = world.runner(store, venues, policies=graphs.policy_set(portfolio))
        await runner.start()
        for equity in ("1100", "900"):
            for venue in venues:
                venue.answer = book(equity, venue.account)
            await runner.tick()
        (unfinished,) = store.unfinished()
        store.put_event(
            operator_event("give_up", scope, "mia", "over", world.clock.now(), decision=unfinished.decision.id)
        )
        report = await runner.tick()
        await runner.close_within(5.0)
        given_up = sorted(it.account or "" for it in store.journal(unfinished.decision.id) if it.kind == "given_up")
        scopes = sorted(notice.scope for notice in report.notices if "is ended on" in notice.text)
        lines = "\n".join(result_lines(read_result(store, unfinished.decision)))
        await runner.shut_down()
        return given_up, scopes, lines

    world = World(tmp_path)
    try:
        given_up, scopes, lines = asyncio.run(run(world))
    finally:
        world.close()
    expected = ["b"] if scope == "account/b" else ["b", "main"]
    assert given_up == expected
    assert scopes == [f"account/{each}" for each in expected]
    assert lines.count("left: ") == 2 - len(expected)


def test_the_verb_accepts_an_id_prefix_and_prints_the_cause_of_a_free_text_reason(tmp_path: Path) -> None:
    """The prefix as in `explain` and `report`, the cause as in every manual close."""
    world = World(tmp_path)
    store = world.open()

    async def run() -> str:
        runner = world.runner(store, [venue := refusing(book("1100"), NOT_ALLOWED)])
        await runner.start()
        await runner.tick()
        venue.answer = book("900")
        await runner.tick()
        await runner.finish()
        await runner.shut_down()
        return store.unfinished()[0].decision.id

    try:
        decision = asyncio.run(run())
        arguments = ["--give-up", decision[:6], "--reason", "foo", "--store", str(tmp_path / "store.sqlite")]
        result = CliRunner().invoke(close, arguments)
        assert result.exit_code == 0, result.output
        assert "so it counts as 'operator: foo'" in result.output
        (event,) = store.pending_events()
        assert event.decision == decision
    finally:
        world.close()


def test_the_verb_refuses_an_unknown_close_and_leaves_the_others_to_the_next_run(tmp_path: Path) -> None:
    """Without a living runner, the command stays pending in the store."""
    world = World(tmp_path)
    store = world.open()
    store_at = str(tmp_path / "store.sqlite")

    async def run() -> str:
        venue = refusing(book("1100"), NOT_ALLOWED)
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.tick()
        venue.answer = replace(book("900"))
        await runner.tick()
        await runner.finish()
        await runner.shut_down()
        return store.unfinished()[0].decision.id

    try:
        decision = asyncio.run(run())
        result = CliRunner().invoke(close, ["--give-up", "nobody", "--reason", "operator", "--store", store_at])
        assert result.exit_code == 1
        assert f"In progress: {decision} on main" in result.output
        result = CliRunner().invoke(close, ["--give-up", decision, "--reason", "operator", "--store", store_at])
        assert result.exit_code == 0, result.output
        assert "the first tick of the next run ends the close" in result.output
        (event,) = store.pending_events()
        assert (event.kind, event.decision, event.reason) == ("give_up", decision, "operator")
        result = CliRunner().invoke(
            close, ["--give-up", decision, "--force", "--reason", "operator", "--store", store_at]
        )  # fmt: skip
        assert result.exit_code != 0
        assert "--give-up sends nothing" in result.output
    finally:
        world.close()


def test_a_command_that_no_tick_has_processed_can_only_be_given_up_as_a_whole(tmp_path: Path) -> None:
    """It has no accounts yet, so a scope would end nothing: the verb says so, and accepts it without a scope."""
    world = World(tmp_path)
    store = world.open()
    try:
        command = operator_event("close", "portfolio", "carol", "operator", world.clock.now())
        store.put_event(command)
        arguments = ["--give-up", command.id, "--reason", "operator", "--store", str(tmp_path / "store.sqlite")]
        answer = CliRunner().invoke(close, [*arguments, "--scope", "account/main"])
        assert answer.exit_code == 1
        assert f"no tick has processed {command.id} yet" in answer.output
        assert "leave out --scope" in answer.output
        assert list(store.pending_events()) == [command]
        answer = CliRunner().invoke(close, arguments)
        assert answer.exit_code == 0, answer.output
        assert [(event.kind, event.decision) for event in store.pending_events()][1:] == [("give_up", command.id)]
    finally:
        world.close()
