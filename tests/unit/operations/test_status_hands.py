"""`ksctl status` tells of a close by hand, whoever carried it out: when, by whom, of what, and with which result."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import json

from killswitch.cli.live.status_sections import result_lines
from killswitch.cli.live.status_text import status_text
from killswitch.cli.operate.command_output import CommandRequest, print_outcome
from killswitch.cli.operate.single_tick import run_one_tick
from killswitch.incident.record.closed_positions import ClosedPosition
from killswitch.incident.record.order_lines import OrderLine
from killswitch.incident.record.results import Result, newest_results
from killswitch.operations.commands import answer_to, operator_event
from killswitch.operations.status import StoreStatus, encode_status, store_status
from killswitch.store.sql import SqlStore
from tests import worlds
from tests.runner_world import ScriptedVenue, World, book

DAY = 86_400.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def close(world: World, store: SqlStore, author: str, reason: str) -> None:
    """A close of the account by hand, which is the runner of one tick: 10 BTC at 110, for a fee of 1."""
    runner = world.runner(store, [ScriptedVenue(book("1100"))])
    event = operator_event("close", "account/main", author, reason, world.clock.now(), cause="drill")
    asyncio.run(run_one_tick(runner, store, event, 600.0))


def pass_by(world: World, seconds: float) -> None:
    asyncio.run(world.clock.sleep(seconds))


def told(world: World, store: SqlStore) -> StoreStatus:
    return store_status(store, world.clock.now(), 0)


def lines(standing: StoreStatus) -> list[str]:
    """The block of closes by hand, without its head."""
    text = status_text(standing, "s")
    if "Closes by hand\n" not in text:
        return []
    return text.partition("Closes by hand\n")[2].partition("\n\n")[0].splitlines()[1:]


def test_a_close_without_a_runner_is_told_afterwards(world: World) -> None:
    """The tick that took it shows the book as it was before; this shows what became of it."""
    store = world.open()
    assert lines(told(world, store)) == []
    began = world.clock.now()
    close(world, store, "risk-desk", "order 12")
    (row,) = lines(told(world, store))
    assert row.strip().startswith(began.strftime("%Y-%m-%dT%H:%M:%S"))
    for words in ("risk-desk", "account/main (order 12)", "flat, 1 position reduced, fees 1.00"):
        assert words in row
    (found,) = json.decode(encode_status(told(world, store)))["by_hand"]
    assert (found["author"], found["scope"], found["reason"], found["cause"]) == (
        "risk-desk", "account/main", "order 12", "drill",
    )  # fmt: skip
    assert found["result"]["standing"] == "flat"


def test_the_answer_to_a_close_and_status_tell_what_history_tells(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Held 10 BTC from 110, sold at its mark of 120: all three tell 100 realised before fees."""
    store = world.open()
    runner = world.runner(store, [ScriptedVenue(book("1200"))])
    event = operator_event("close", "account/main", "risk-desk", "order 12", world.clock.now(), cause="drill")
    asyncio.run(run_one_tick(runner, store, event, 600.0))
    order = CommandRequest("close", "account/main", "risk-desk", "order 12", 0.0, json=True)
    print_outcome(order, store, answer_to(store, event), None)
    (answered,) = json.decode(capsys.readouterr().out)["decisions"]
    (found,) = json.decode(encode_status(told(world, store)))["by_hand"]
    ((_, recorded),) = newest_results(store, 1)
    assert recorded.realised == Decimal(100)
    assert answered["result"] == found["result"] == json.decode(json.encode(recorded))


def test_the_last_one_stays_where_no_runner_lives(world: World) -> None:
    """Two closes, two days ago: of the newer one it is told; after a further one of today of that alone."""
    store = world.open()
    close(world, store, "first", "morning")
    pass_by(world, 3600.0)
    close(world, store, "second", "noon")
    assert [row.split()[1] for row in lines(told(world, store))] == ["second", "first"]
    pass_by(world, 2 * DAY)
    assert [row.split()[1] for row in lines(told(world, store))] == ["second"]
    close(world, store, "third", "today")
    assert [row.split()[1] for row in lines(told(world, store))] == ["third"]


def test_beside_a_runner_an_old_one_is_no_news(world: World) -> None:
    """A runner lives, and ticks: what was closed by hand two days ago is in `history`."""
    store = world.open()
    close(world, store, "risk-desk", "order 12")
    pass_by(world, 2 * DAY)

    async def live() -> list[str]:
        runner = world.runner(store, [ScriptedVenue(book("1100"))])
        await runner.start()
        await runner.tick()
        found = lines(told(world, store))
        await runner.finish()
        await runner.shut_down()
        return found

    assert asyncio.run(live()) == []


def held_up(outcome_of_order: str, text: str | None = None) -> Result:
    """10 AAPL were to be closed, one order has left, and this is what the venue said of it last."""
    position = ClosedPosition("main", "AAPL", "long", Decimal(10), Decimal(0), None, None, None, None, None, None)
    order = OrderLine(
        "main", "AAPL", "long", "sell", 1, "ks1", worlds.START, Decimal(10), outcome_of_order, text=text
    )  # fmt: skip
    return Result("closing", (order,), (), (), None, (), 0, None, None, positions=(position,))


@pytest.mark.parametrize(
    ("said", "text", "why", "hint"),
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
def test_what_a_halt_holds_up_is_said_with_what_a_person_can_do(
    said: str, text: str | None, why: str, hint: str
) -> None:
    """Which position, what the venue said of its order, and how it goes on."""
    first, left, *hints = result_lines(held_up(said, text))
    assert first == "closing, 0 positions reduced, fees unknown"
    assert left == why
    assert "".join(hints).endswith(hint)
