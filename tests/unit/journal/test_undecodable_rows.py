"""Undecodable rows in a close that continues: they count at their worst and stop nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.execution.account_context import AccountContext
from killswitch.execution.account_executor import AccountExecutor
from killswitch.execution.client_order_id import client_order_id
from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.order_pass.order_builder import build_order
from killswitch.execution.state.account_job import AccountJob
from killswitch.incident.record.results import read_result
from killswitch.journal.codec import decode, encode
from killswitch.journal.entries import Filled, OrderSending, Unreadable
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.alert import NO_ALERTS
from killswitch.model.decision import Decision
from killswitch.model.effects import Intent
from killswitch.model.instant import to_micros
from killswitch.model.store import JournalEntry
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudget
from killswitch.runner.order_reconciliation import OrderReconciliation
from killswitch.store.sql import SqlStore
from tests import worlds
from tests.closing_cases import commit, decide, drive
from tests.honest_venue import NOW, HonestVenue, VirtualClock

D = Decimal
THEIRS = client_order_id("d1", 0, 7)
"""An order of which only a row that cannot be read speaks."""


def append_foreign_row(
    store: SqlStore, kind: str, data: str, *, name: str | None = None, symbol: str | None = "BTC"
) -> None:
    """A row as another version, or a damaged disk, has left it."""
    with sqlite3.connect(store.place) as raw:
        raw.execute(
            "INSERT INTO journal (decision, kind, at, account, symbol, position_side, client_order_id, data)"
            " VALUES ('d1', ?, ?, 'main', ?, 'long', ?, ?)",
            (kind, to_micros(NOW), symbol, name, data),
        )


def half_closed(store: SqlStore) -> tuple[HonestVenue, Decision]:
    """A close of 100 contracts of which a tenth has filled when its process is killed."""
    venue = HonestVenue({"BTC": D(100)}, fill_shares=("0.1",))
    decision = commit(store, decide(venue, {"BTC": D(0)}))
    closer = AccountExecutor("main", venue, store, VirtualClock())
    closer.adopt(decision)
    asyncio.run(drive(closer, 1))
    assert venue.position("BTC") == D(90)
    return venue, decision


def resumed(store: SqlStore, venue: HonestVenue) -> None:
    heir = AccountExecutor("main", venue, store, VirtualClock(NOW.replace(hour=13)))
    asyncio.run(heir.recover())
    assert asyncio.run(drive(heir))


@pytest.mark.parametrize(
    ("kind", "data", "symbol"),
    [
        ("of a later version", "{}", "BTC"),
        ("of a later version", "{}", None),
        ("filled", '{"filled": 10}', "BTC"),
        ("verified", "garbled", "BTC"),
        ("sending", '{"legs": []}', None),
    ],
)
def test_a_close_finishes_despite_an_undecodable_row(store: SqlStore, kind: str, data: str, symbol: str | None) -> None:
    """The venue's own positions decide; the cost of the close is unknown, and so is what cannot be reported."""
    venue, decision = half_closed(store)
    append_foreign_row(store, kind, data, symbol=symbol)
    resumed(store, venue)
    assert venue.position("BTC") == 0
    (ending,) = read_result(store, decision).endings
    assert (ending.status, ending.cost) == ("flat", None)


def test_an_order_known_only_from_an_undecodable_row_is_queried_before_the_close_ends(store: SqlStore) -> None:
    """The venue never had it: once it has answered so the close ends, flat, and nothing was closed twice."""
    venue, decision = half_closed(store)
    append_foreign_row(store, "sending", '{"amount": 50}', name=THEIRS)
    (before,) = [each for each in read_result(store, decision).orders if each.client_order_id == THEIRS]
    assert (before.fate, before.amount, before.was_unknown) == ("in flight", None, True)
    assert read_result(store, decision).fees is None
    resumed(store, venue)
    assert f"ask {THEIRS}" in venue.state["log"]
    assert venue.position("BTC") == 0
    result = read_result(store, decision)
    assert [ending.status for ending in result.endings] == ["flat"]
    (after,) = [each for each in result.orders if each.client_order_id == THEIRS]
    assert (after.fate, after.is_absent) == ("final", True)


def garble(store: SqlStore, kind: str) -> None:
    """Overwrite the data of the rows of a kind."""
    with sqlite3.connect(store.place) as raw:
        raw.execute("UPDATE journal SET data = 'garbled' WHERE kind = ?", (kind,))


def test_a_close_with_an_unreadable_plan_is_recovered_and_ends(store: SqlStore) -> None:
    """By the kind of the row, which is all that the store itself uses."""
    venue, decision = half_closed(store)
    garble(store, "planned")
    assert read_result(store, decision).standing == "closing"
    resumed(store, venue)
    assert venue.position("BTC") == 0
    assert read_result(store, decision).standing == "flat"


def test_an_unreadable_end_is_abandoned_and_not_continued(store: SqlStore) -> None:
    """The store counts the work as finished, so nobody continues it; it is reported as abandoned, with the cause."""
    venue, decision = half_closed(store)
    resumed(store, venue)
    garble(store, "finished")
    assert store.unfinished() == []
    result = read_result(store, decision)
    assert (result.standing, [ending.cost for ending in result.endings]) == ("abandoned", [None])
    assert "cannot be read" in (result.endings[0].reason or "")


def test_no_slice_follows_at_once_on_an_undecodable_row() -> None:
    """The order before it filled completely, and then an unknown row follows: the position is queried first."""
    target = PositionTarget("d1", "main", "BTC", "long", "sell", D(0), D(10), D(4), True, 1, 0)
    order = ("d1", NOW, "main", "BTC", "long", "o1", 1)
    target.replay(OrderSending(*order, amount=D(4), position=D(10)))
    target.replay(Filled(*order, filled=D(4), price=D(1), fee=D(0)))
    assert (target.state, target.is_fully_filled) == (TargetState.SETTLED, True)
    target.replay(decode(JournalEntry("d1", "of a later version", NOW, "main", "BTC", "long")))
    assert (target.state, target.is_fully_filled) == (TargetState.SETTLED, False)


def test_an_undecodable_row_is_a_page() -> None:
    """Once, with its position and the cause."""
    watch = OrderReconciliation(None)  # type: ignore[arg-type] # what it reads of a store
    watch.wrote(decode(JournalEntry("d1", "of a later version", NOW, "main", "BTC", "long")))
    (notice,) = watch.alerts().found
    assert notice.severity == "page"
    assert all(part in notice.text for part in ("BTC", "main", "of a later version", "ksctl explain d1"))
    assert watch.alerts() == NO_ALERTS


def test_each_undecodable_row_is_a_page_of_its_own() -> None:
    """Two rows of one kind on one symbol may be about two orders."""
    watch = OrderReconciliation(None)  # type: ignore[arg-type] # what it reads of a store
    rows = [JournalEntry("d1", "of a later version", NOW, "main", "BTC", "long", sequence=number) for number in (4, 5)]
    for row in rows:
        watch.wrote(decode(row))
    one, other = watch.alerts().found
    assert one.key != other.key


def test_a_client_order_id_used_in_a_row_of_a_later_version_is_not_used_again(store: SqlStore) -> None:
    """A fill is counted once per name: what a second order of it trades would be sent again."""
    hedge = Intent("main", "BTC", "short", "sell", D(10), D(0), False, 1, purpose="hedge")
    decision = replace(decide(HonestVenue({}), {}), id="d1", kind="hedge", intents=(hedge,))
    spent = client_order_id("d1", 0, 1)

    def row(number: int, kind: str, name: str | None = None, **data: str) -> JournalEntry:
        at = worlds.after(seconds=number)
        return JournalEntry("d1", kind, at, "main", "BTC", "short", name, 1 if name else None, {**data}, number)

    rows = [
        row(1, "planned", contracts="10", target="0"),
        row(2, "sending_v2", spent, side="sell", amount="4"),
        row(3, "filled", spent, order="v1", state="filled", filled="4", price="9", fee="0"),
        row(4, "verified", position="4", target="0"),
    ]
    work = AccountJob(decision, "main", [decode(each) for each in rows])
    (target,) = work.targets
    assert (target.filled, target.remaining) == (D(4), D(6))
    venue = HonestVenue({"BTC": D(10)})
    context = AccountContext(
        "main", venue, VirtualClock(), ClosingPace(), lambda _: None, RequestBudget.unlimited(), Breaker()
    )
    sent = build_order(context, work, target, target.remaining, D(4), None, None)
    assert sent.request.client_order_id != spent
    work.apply(sent.entry)
    name = sent.request.client_order_id
    work.apply(decode(row(6, "filled", name, order="v2", state="filled", filled="6", price="9", fee="0")))
    assert (target.filled, target.remaining) == (D(10), D(0))


def test_an_execution_step_of_five_thousand_digits_stops_no_recovery() -> None:
    """Python itself refuses to parse such a number."""
    row = JournalEntry("d1", "sending", NOW, "main", "BTC", "long", THEIRS, 7, {"rung": "9" * 5000, "amount": "1"})
    entry = decode(row)
    assert isinstance(entry, OrderSending)
    assert entry.rung == Unreadable("9" * 5000)
    assert encode(entry).data["rung"] == "9" * 5000
