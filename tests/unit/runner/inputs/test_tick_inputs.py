"""What the runner adds to a snapshot: when a tick was due, the fates of our own orders, heartbeats."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.execution.state.intents import planned_entries
from killswitch.journal.codec import encode
from killswitch.journal.entries import (
    Abandoned,
    Absent,
    Acknowledged,
    Entry,
    Filled,
    Finished,
    OrderSending,
    Rejected,
    Unknown,
)
from killswitch.model.snapshot import OrderFate, OwnOrder
from killswitch.model.store import HEARTBEAT, HEARTBEAT_DATES, TickRecord
from killswitch.model.venue import OrderRejectedError
from killswitch.operations.status import store_status
from killswitch.runner.tick_inputs import Heartbeat, HeartbeatDates, OwnOrders, beat, last_heartbeats, own_orders_in
from tests.decisions import cut
from tests.runner_world import PACE, ScriptedVenue, Seen, World, book, refusing
from tests.worlds import START, after

DECISION, NAME = "d" * 20, "ks" + "0" * 29


def sending(second: float = 0, name: str = NAME, account: str = "main") -> OrderSending:
    return OrderSending(
        DECISION, after(seconds=second), account, "BTC", "long", name, 0, side="sell", amount=Decimal(1)
    )


def answer(kind: type[Entry], second: float, name: str = NAME, **more: Any) -> Entry:
    return kind(DECISION, after(seconds=second), "main", "BTC", "long", name, 0, **more)


def fates(rows: tuple[OwnOrder, ...]) -> list[tuple[str, OrderFate]]:
    return [(row.client_order_id, row.fate) for row in rows]


# Own orders


@pytest.mark.parametrize(
    ("entry", "fate", "reason"),
    [
        pytest.param(None, "pending", None, id="no answer yet"),
        pytest.param(answer(Acknowledged, 1, order="o1"), "accepted", None, id="accepted"),
        pytest.param(answer(Unknown, 1, text="no answer within 5 s"), "unconfirmed", None, id="no answer in time"),
        pytest.param(answer(Abandoned, 1), "unconfirmed", None, id="no longer queried"),
        pytest.param(
            answer(Rejected, 1, reason="other", text="-2019 margin"), "rejected", "-2019 margin", id="refused"
        ),
        pytest.param(answer(Rejected, 1, reason="rate_limited"), "rejected", "rate_limited", id="too many requests"),
        pytest.param(answer(Rejected, 1, reason="already_flat", text="-2022"), "done", "-2022", id="already flat"),
        pytest.param(answer(Filled, 1, filled=Decimal(1)), "done", None, id="filled"),
        pytest.param(answer(Absent, 1), "done", None, id="it never arrived"),
    ],
)
def test_the_fate_of_an_order_is_that_of_its_last_entry(
    entry: Entry | None, fate: OrderFate, reason: str | None
) -> None:
    """At second 5; a refusal of a reduce-only order because nothing is left is a success."""
    orders = OwnOrders()
    orders.wrote(sending())
    if entry is not None:
        orders.wrote(entry)
    (row,) = orders.rows(after(seconds=5), scheduled=True)
    known = entry is not None and fate in ("accepted", "rejected", "done")
    assert row == OwnOrder(NAME, "main", "BTC", fate, START, after(seconds=1 if known else 5), reason)


def test_a_fate_is_repeated_until_a_scheduled_tick_has_it() -> None:
    """A pass woken by a push skips the scopes whose accounts it did not poll."""
    orders = OwnOrders()
    orders.wrote(sending())
    orders.wrote(answer(Rejected, 1, reason="other"))
    for scheduled, expected in ((False, 1), (False, 1), (True, 1), (True, 0)):
        assert len(orders.rows(after(seconds=5), scheduled=scheduled)) == expected


def test_an_order_that_is_sent_again_under_its_name_is_pending_again() -> None:
    """After a refusal without processing both are shown: the refusal, and the order on its way."""
    orders = OwnOrders()
    for entry in (sending(), answer(Rejected, 1, reason="venue_down"), sending(2)):
        orders.wrote(entry)
    assert fates(orders.rows(after(seconds=3), scheduled=True)) == [(NAME, "rejected"), (NAME, "pending")]


def test_the_end_of_the_work_ends_an_order_that_nobody_queries_any_longer() -> None:
    """Otherwise it would be unconfirmed for ever."""
    orders = OwnOrders()
    for entry in (sending(), answer(Abandoned, 60)):
        orders.wrote(entry)
    assert fates(orders.rows(after(seconds=61), scheduled=True)) == [(NAME, "unconfirmed")]
    orders.wrote(Finished(DECISION, after(seconds=62), "main", status="residual"))
    assert orders.rows(after(seconds=63), scheduled=True) == ()


def test_a_restart_continues_from_the_journal() -> None:
    """An order without an answer is not confirmed; what the last tick of the run before had is not repeated."""
    journal = [
        sending(name="ksa"), answer(Rejected, 1, "ksa", reason="other"), sending(2, name="ksb"),
        sending(3, name="ksc"), answer(Rejected, 8, "ksc", reason="other"), sending(3, "ksd", "other"),
    ]  # fmt: skip
    orders = OwnOrders(since=after(seconds=5))
    orders.begun(cut({}), "main", journal)
    rows = orders.rows(after(seconds=10), scheduled=True)
    assert fates(rows) == [("ksc", "rejected"), ("ksb", "unconfirmed")]
    assert rows[1].sent_at == after(seconds=2)


def test_the_snapshots_of_a_run_contain_its_own_orders(world: World) -> None:
    """A close that the venue refuses, then one that fills: both in the recording, once."""
    store, seen = world.open(), Seen()
    venue = refusing(book("900"), OrderRejectedError("other", "no margin"))

    async def run() -> None:
        venue.answer = book("1100")
        runner = world.runner(store, [venue], witnesses=(seen,))
        await runner.start()
        for equity in ("1100", "900", "900", "900"):
            venue.answer = book(equity)
            await runner.tick()
            await runner.close_within(5.0)
            await world.clock.sleep(1.0)
        await runner.finish()

    asyncio.run(run())
    rows = [row for report in seen.reports for row in report.snapshot.own_orders or ()]
    refused = [row for row in rows if row.fate == "rejected"]
    assert refused
    assert {(row.account, row.symbol, row.reason) for row in refused} == {("main", "BTC", "no margin")}
    assert len({(row.client_order_id, row.at) for row in refused}) == len(refused)
    assert seen.reports[0].snapshot.own_orders == ()


def test_a_plan_reads_the_rows_of_the_next_tick_from_the_store(world: World) -> None:
    """After each tick of a close that the venue refuses: what is read then is what the next snapshot of the run has."""
    store, seen = world.open(), Seen()
    venue = refusing(book("900"), OrderRejectedError("other", "no margin"))
    read: list[tuple[OwnOrder, ...]] = []

    async def run() -> None:
        runner = world.runner(store, [venue], witnesses=(seen,))
        await runner.start()
        for equity in ("1100", "900", "900", "900"):
            venue.answer = book(equity)
            read.append(own_orders_in(store, START, is_alive=True))
            await runner.tick()
            await runner.close_within(5.0)
            await world.clock.sleep(1.0)
        await runner.finish()

    asyncio.run(run())
    ticked = [report.snapshot.own_orders or () for report in seen.reports]
    assert any(fate == "rejected" for rows in ticked for _, fate in fates(rows))
    assert [sorted(fates(rows)) for rows in read] == [sorted(fates(rows)) for rows in ticked]


@pytest.mark.parametrize(("is_alive", "fate"), [(True, "pending"), (False, "unconfirmed")])
def test_an_order_on_its_way_is_not_confirmed_where_no_runner_waits_for_it(
    world: World, is_alive: bool, fate: OrderFate
) -> None:
    """A journal of an order that was sent and has no answer; the runner is alive, or has died."""
    store = world.open()
    decision = cut({"BTC": ("long", Decimal(1), Decimal(1))})
    store.commit_tick(
        TickRecord(
            as_of=START, policy_set="sha256:0", states=(), rows=(), decisions=(decision,), notices=(),
            journal=(*planned_entries(decision), encode(replace(sending(), decision=decision.id))),
            snapshot=None, consumed_events=(), prune_before=0, messages=(),
        )
    )  # fmt: skip
    (row,) = own_orders_in(store, after(seconds=5), is_alive=is_alive)
    assert row == OwnOrder(NAME, "main", "BTC", fate, START, after(seconds=5), None)


# Due times


def test_a_tick_is_due_an_interval_after_the_one_before(world: World) -> None:
    """The first is due when it comes. The second tick waits half a second for a venue that does not answer, and so its
    snapshot is complete half a second late."""
    store, seen = world.open(), Seen()
    venue = ScriptedVenue(book("1100"))

    async def run() -> None:
        runner = world.runner(store, [venue], witnesses=(seen,))
        await runner.run(asyncio.Event(), 3)

    asyncio.run(run())
    snapshots = [report.snapshot for report in seen.reports]
    assert snapshots[0].due == snapshots[0].as_of
    late = [each.as_of - each.due for each in snapshots if each.due is not None]
    assert len(late) == 3
    assert all(timedelta(0) <= each < timedelta(seconds=PACE.interval) for each in late)


# Heartbeats


def test_a_heartbeat_is_in_the_next_snapshot_and_outlives_a_restart(world: World) -> None:
    """Sent by another process between two ticks; the next run has it from its first tick."""
    store, seen = world.open(), Seen()

    async def run() -> None:
        runner = world.runner(store, [ScriptedVenue(book("1100"))], witnesses=(seen,))
        await runner.start()
        await runner.tick()
        beat(world.open(), "bot", world.clock.now(), None)
        await runner.tick()
        await runner.finish()

    asyncio.run(run())
    sent = world.clock.now()
    asyncio.run(run())
    assert [report.snapshot.heartbeats for report in seen.reports] == [{}, {"bot": sent}, {"bot": sent}, {"bot": sent}]


def test_a_heartbeat_without_new_progress_does_not_count(world: World) -> None:
    """A thread that beats next to a loop that hangs; a bot that starts over counts from its first loop."""
    store = world.open()
    counted = [beat(store, "bot", after(seconds=at), progress).moved_at for at, progress in
               enumerate([7, 7, 8, 8, 0, None, None])]  # fmt: skip
    assert counted == [after(seconds=each) for each in (0, 0, 2, 2, 4, 5, 6)]


def test_w1_a_heartbeat_of_a_clock_that_was_ahead_ages_from_the_first_tick_that_has_it() -> None:
    """Two hours ahead, then right: a bot that died is not fresh for two hours, nor again once they are over."""
    ahead, dates = {"bot": Heartbeat(after(hours=2), after(hours=2))}, HeartbeatDates()
    ticks = (after(), after(minutes=10), after(hours=2, minutes=1))
    assert [dates.dated(ahead, at) for at in ticks] == [{"bot": START}] * 3
    right = {"bot": Heartbeat(after(minutes=130), after(minutes=130))}
    assert dates.dated(right, after(minutes=131)) == {"bot": after(minutes=130)}


def test_w1_a_run_dates_a_heartbeat_no_later_than_its_tick(world: World) -> None:
    """In the snapshots that signals read and recordings keep."""
    store, seen = world.open(), Seen()
    beat(store, "bot", world.clock.now() + timedelta(hours=2), None)
    asyncio.run(world.runner(store, [ScriptedVenue(book("1100"))], witnesses=(seen,)).run(asyncio.Event(), 3))
    first = seen.reports[0].snapshot.as_of
    assert [report.snapshot.heartbeats for report in seen.reports] == [{"bot": first}] * 3


def test_w1_a_restart_does_not_date_a_heartbeat_of_a_clock_ahead_anew(world: World) -> None:
    """Two hours ahead: three runs, each an hour after the other, and `status` in between, count from the first tick.

    A bot that died looked alive again after each restart. A right heartbeat after it counts from its own time.
    """
    store, seen = world.open(), Seen()
    beat(store, "bot", world.clock.now() + timedelta(hours=2), None)
    first = None
    for _ in range(3):
        asyncio.run(
            world.runner(world.open(), [ScriptedVenue(book("1100"))], witnesses=(seen,)).run(asyncio.Event(), 2)
        )
        first = first or seen.reports[0].snapshot.as_of
        (shown,) = store_status(world.open(), world.clock.now(), 0).heartbeats
        assert shown.counts_from == first
        asyncio.run(world.clock.sleep(3600))
    assert [report.snapshot.heartbeats for report in seen.reports] == [{"bot": first}] * 6
    right = world.clock.now()
    beat(world.open(), "bot", right, None)
    asyncio.run(world.runner(world.open(), [ScriptedVenue(book("1100"))], witnesses=(seen,)).run(asyncio.Event(), 1))
    assert seen.reports[-1].snapshot.heartbeats == {"bot": right}
    assert world.open().live(HEARTBEAT_DATES) == b"{}"


def test_an_unreadable_heartbeat_is_left_out(world: World) -> None:
    """Of a later version: unknown, and no error of a tick."""
    store = world.open()
    store.put_live(f"{HEARTBEAT}odd", b'{"at": 1}')
    beat(store, "bot", START, None)
    assert list(last_heartbeats(store)) == ["bot"]
