"""`ksctl status` lists manual closes, with or without a runner: time, author, scope and result."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from msgspec import json

from killswitch.cli.operate.command_output import CommandRequest, print_outcome
from killswitch.cli.operate.single_tick import run_one_tick
from killswitch.incident.record.closed_positions import ClosedPosition
from killswitch.incident.record.order_outcomes import OrderOutcome
from killswitch.incident.record.results import Result, newest_results
from killswitch.model.words import Cause
from killswitch.operations.commands import answer_to, operator_event
from killswitch.operations.pages.outcome import result_lines
from killswitch.operations.status import StoreStatus, encode_status, store_status
from killswitch.store.sql import SqlStore
from tests import worlds
from tests.runner_world import ScriptedVenue, World, book
from tests.shown import status_text

DAY = 86_400.0


def close_manually(world: World, store: SqlStore, author: str, reason: str, cause: Cause = "drill") -> None:
    """Close the account with a command that runs a single tick: 10 BTC at 110, for a fee of 1."""
    runner = world.runner(store, [ScriptedVenue(book("1100"))])
    event = operator_event("close", "account/main", author, reason, world.clock.now(), cause=cause)
    asyncio.run(run_one_tick(runner, store, event, 600.0))


def advance_clock(world: World, seconds: float) -> None:
    asyncio.run(world.clock.sleep(seconds))


def status_of(world: World, store: SqlStore) -> StoreStatus:
    return store_status(store, world.clock.now(), 0)


def manual_close_rows(status: StoreStatus) -> list[str]:
    """The rows of the block `Closes by hand`, without its header."""
    text = status_text(status, "s")
    if "Closes by hand\n" not in text:
        return []
    return text.partition("Closes by hand\n")[2].partition("\n\n")[0].splitlines()[1:]


def test_status_shows_the_result_of_a_close_without_a_runner(world: World) -> None:
    """The snapshot of its tick precedes the close; this block shows the result."""
    store = world.open()
    assert manual_close_rows(status_of(world, store)) == []
    began = world.clock.now()
    close_manually(world, store, "risk-desk", "order 12")
    (row,) = manual_close_rows(status_of(world, store))
    assert row.strip().startswith(began.strftime("%Y-%m-%dT%H:%M:%S"))
    for text in ("risk-desk", "account/main (order 12)", "flat, 1 position reduced, fees 1.00"):
        assert text in row
    (closed,) = json.decode(encode_status(status_of(world, store)))["by_hand"]
    assert (closed["author"], closed["scope"], closed["reason"], closed["cause"]) == (
        "risk-desk", "account/main", "order 12", "drill",
    )  # fmt: skip
    assert closed["result"]["standing"] == "flat"


def test_a_close_of_a_dead_mans_switch_is_not_called_one_by_hand(world: World) -> None:
    """Neither in the heading nor in the row: nobody's hand gave it."""
    store = world.open()
    close_manually(world, store, "deadman/bots", "silent for 60 s", "dead-man")
    text = status_text(status_of(world, store), "s")
    assert "Closes by hand and by dead-man's switches\n" in text
    assert "dead-man close: account/main (silent for 60 s)" in text
    assert "close by hand" not in text


def test_status_shows_no_positions_that_a_close_without_a_runner_has_closed(world: World) -> None:
    """The tick of the command saw one position before its close: the view shows what the close saw last."""
    store = world.open()
    close_manually(world, store, "risk-desk", "order 12")
    status = status_of(world, store)
    assert status.view is not None
    assert [each.positions for each in status.view.accounts] == [0]
    assert [each.status for each in status.view.closings] == ["flat"]


def test_the_answer_to_a_close_and_status_show_the_result_of_history(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """10 BTC bought at 110 are sold at the mark of 120: all three show 100 realised before fees."""
    store = world.open()
    runner = world.runner(store, [ScriptedVenue(book("1200"))])
    event = operator_event("close", "account/main", "risk-desk", "order 12", world.clock.now(), cause="drill")
    asyncio.run(run_one_tick(runner, store, event, 600.0))
    order = CommandRequest(event, 0.0, json=True)
    print_outcome(order, store, answer_to(store, event), None)
    (decision,) = json.decode(capsys.readouterr().out)["decisions"]
    (closed,) = json.decode(encode_status(status_of(world, store)))["by_hand"]
    ((_, recorded),) = newest_results(store, 1)
    assert recorded.realised == Decimal(100)
    assert decision["result"] == closed["result"] == json.decode(json.encode(recorded))


def test_without_a_runner_the_last_manual_close_stays_listed(world: World) -> None:
    """Of two closes two days ago the newer is listed; after a further one today, only that."""
    store = world.open()
    close_manually(world, store, "first", "morning")
    advance_clock(world, 3600.0)
    close_manually(world, store, "second", "noon")
    assert [row.split()[1] for row in manual_close_rows(status_of(world, store))] == ["second", "first"]
    advance_clock(world, 2 * DAY)
    assert [row.split()[1] for row in manual_close_rows(status_of(world, store))] == ["second"]
    close_manually(world, store, "third", "today")
    assert [row.split()[1] for row in manual_close_rows(status_of(world, store))] == ["third"]


def test_with_a_runner_an_old_manual_close_is_not_listed(world: World) -> None:
    """A runner is alive and ticks: a manual close of two days ago is only in `history`."""
    store = world.open()
    close_manually(world, store, "risk-desk", "order 12")
    advance_clock(world, 2 * DAY)

    async def rows_with_runner() -> list[str]:
        runner = world.runner(store, [ScriptedVenue(book("1100"))])
        await runner.start()
        await runner.tick()
        closed = manual_close_rows(status_of(world, store))
        await runner.finish()
        await runner.shut_down()
        return closed

    assert asyncio.run(rows_with_runner()) == []


def held_up_result(outcome_of_order: str, text: str | None = None) -> Result:
    """10 AAPL are to be closed, one order was sent, and this is its last outcome at the venue."""
    position = ClosedPosition("main", "AAPL", "long", Decimal(10), Decimal(0), None, None, None, None, None, None)
    order = OrderOutcome(
        number=1, decision="d", stage="close by hand", account="main", symbol="AAPL", position_side="long",
        side="sell", attempt=1, client_order_id="ks1", sent_at=worlds.START, amount=Decimal(10),
        outcome=outcome_of_order, text=text,
    )  # fmt: skip
    return Result("closing", (order,), (), (), None, (), 0, None, None, positions=(position,))


@pytest.mark.parametrize(
    ("outcome", "text", "why", "hint"),
    [
        (
            "resting at the venue", None, "left: 10 AAPL long: the venue holds the order and has not filled it",
            "a resting order fills when trading resumes; cancel it at the venue to withdraw it",
        ),
        (
            "accepted by the venue", None, "left: 10 AAPL long: the venue holds the order and has not filled it",
            "a resting order fills when trading resumes; cancel it at the venue to withdraw it",
        ),
        (
            "rejected: market_closed", "Alpaca: 403 40310000: trading halt on AAPL",
            "left: 10 AAPL long: the venue accepts no orders for it now: the market is closed or trading is "
            "halted (Alpaca: 403 40310000: trading halt on AAPL)",
            "rejected orders are sent again when trading resumes, while a runner is alive",
        ),
        ("rejected: other", "no", "left: 10 AAPL long: its last order: rejected: other (no)", ""),
    ],
)  # fmt: skip
def test_a_position_held_up_by_a_halt_is_listed_with_what_an_operator_can_do(
    outcome: str, text: str | None, why: str, hint: str
) -> None:
    """The position, the venue's answer to its order, and how it continues."""
    first, left, *hints = result_lines(held_up_result(outcome, text))
    assert first == "closing, 0 positions reduced, fees unknown"
    assert left == why
    assert "".join(hints).endswith(hint)
