"""The timeline tells what came before what: the order of a close's cancels, orders and answers is the journal's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.incident_decisions import find_incident
from killswitch.incident.record.order_lines import order_lines
from killswitch.incident.record.timeline import cancel_kind
from killswitch.journal.codec import decode_all
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Order
from killswitch.model.store import JournalEntry
from tests import incidents
from tests.incidents import FIRST, HandWritten, entry, hand_written
from tests.worlds import after

STOP = Order("s1", "BTC", "sell", Decimal("2.50"), trigger_price=Decimal(90), reduce_only=True)
TAKE = Order("x1", "BTC", "sell", Decimal(1), price=Decimal(120), reduce_only=True)
ENTRY = Order("e1", "BTC", "buy", Decimal(1), price=Decimal(50))


@pytest.fixture
def written(tmp_path: Path) -> Iterator[HandWritten]:
    made = hand_written(tmp_path)
    yield made
    made.store.close()


def at(millis: int) -> datetime:
    """So long after the decision."""
    return after() + timedelta(milliseconds=millis)


def cancelled(millis: int, order: str, why: str) -> JournalEntry:
    return entry(FIRST, "cancelled", at(millis), order=order, why=why)


def order(number: int, kind: str, millis: int, symbol: str = "BTC", **data: str | None) -> JournalEntry:
    """What is journaled of order `number`."""
    return structs.replace(entry(FIRST, kind, at(millis), symbol, **data), client_order_id=f"ks{number}")


def sent(number: int, millis: int, symbol: str = "BTC", kind: str = "market") -> JournalEntry:
    return order(number, "sending", millis, symbol, side="sell", amount="1", order=kind)


def decided() -> Decision:
    """A close of ten BTC."""
    return incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "10", "0"))


def told(written: HandWritten, journal: Sequence[JournalEntry], *orders: Order) -> list[str]:
    """What the timeline says after the firing. `orders`: what rested when it was decided."""
    made = decided()
    seen = incidents.snapshot(after())
    accounts = tuple(structs.replace(each, orders=orders) for each in seen.accounts)
    plan = [entry(FIRST, "planned", after(), contracts="10", target="0", mark="100", value="100")]
    written.tick(after(), [made], plan, snapshot=structs.replace(seen, accounts=accounts))
    for each in journal:
        written.store.append(each)
    found = incident_of(written.store, find_incident(written.store, None), StartedAs("store.sqlite")).timeline
    return [each.text for each in found if each.kind not in ("trigger", "fired")]


def test_protective_stops_that_were_cancelled_after_the_close_are_told_after_it(written: HandWritten) -> None:
    """Two entries at .005 and .013, orders at .019, flat at .037, an exit at .049, a stop at .062: in that order.

    All of it lies in one second, and four of the six are cancels.
    """
    journal = [
        cancelled(5, "e1", "entry"), cancelled(13, "e2", "entry"), sent(1, 19),
        entry(FIRST, "verified", at(37), position="0", target="0"),
        cancelled(49, "x1", "all"), cancelled(62, "s1", "all"),
    ]  # fmt: skip
    assert told(written, journal, ENTRY, TAKE, STOP) == [
        "resting entry order e1 of BTC on main is cancelled: buy 1 at 50",
        "resting entry order e2 of BTC on main is cancelled",
        "order sent: sell 1 BTC long on main",
        "the venue shows 0 (target 0) of BTC long on main",
        "resting exit order x1 of BTC on main is cancelled: sell 1 at 120",
        "resting protective order s1 of BTC on main is cancelled: sell 2.5, trigger 90",
    ]


def test_many_cancels_of_one_kind_are_one_line_and_those_of_another_kind_are_not_in_it(written: HandWritten) -> None:
    """Four entries and four stops follow each other in one second: a line for each kind."""
    stops = tuple(structs.replace(STOP, id=f"s{number}") for number in range(4))
    journal = [cancelled(number, f"e{number}", "entry") for number in range(4)]
    journal += [cancelled(10 + number, f"s{number}", "all") for number in range(4)]
    assert told(written, journal, *stops) == [
        "4 times: a resting entry order is cancelled (BTC)",
        "4 times: a resting protective order is cancelled (BTC)",
    ]


def test_what_came_between_two_like_moments_parts_them(written: HandWritten) -> None:
    """Four orders, a rejection, four orders: nine moments of one second in three lines."""
    journal = [sent(number, number) for number in range(1, 5)]
    journal.append(order(1, "rejected", 5, reason="price_band"))
    journal += [sent(number, number) for number in range(6, 10)]
    assert told(written, journal) == [
        "4 times: an order was sent (BTC)",
        "the order on BTC long on main was rejected: price_band",
        "4 times: an order was sent (BTC)",
    ]


def test_like_moments_of_two_seconds_are_two_lines(written: HandWritten) -> None:
    """Four orders at the end of a second and four at the beginning of the next."""
    journal = [sent(number, 990 + number) for number in range(1, 5)] + [sent(n, 1000 + n) for n in range(5, 9)]
    assert told(written, journal) == ["4 times: an order was sent (BTC)"] * 2


def test_two_slices_of_one_size_sent_at_one_instant_are_two_orders(written: HandWritten) -> None:
    """The clock of a journal may stand still for a wave of orders."""
    assert told(written, [sent(1, 5), sent(2, 5)]) == ["order sent: sell 1 BTC long on main"] * 2


def test_only_a_limit_order_rests_and_a_market_order_is_accepted(written: HandWritten) -> None:
    """The venue has taken both; the one at market waits for nothing."""
    journal = [
        sent(1, 1), order(1, "acknowledged", 2, order="v1", filled="0"),
        sent(2, 3, kind="limit"), order(2, "acknowledged", 4, order="v2", filled="0"),
    ]  # fmt: skip
    timeline = told(written, journal)
    lines = order_lines(decided(), decode_all(journal), None)
    assert [each.outcome for each in lines] == ["accepted by the venue", "resting at the venue"]
    assert [text for text in timeline if "the order on" in text] == [
        "the order on BTC long on main was accepted by the venue",
        "the order on BTC long on main rests at the venue",
    ]


@pytest.mark.parametrize(
    ("why", "order", "kind"),
    [
        ("entry", STOP, "entry"),
        ("entry", None, "entry"),
        ("all", STOP, "protective"),
        ("all", TAKE, "exit"),
        ("all", None, "exit or protective"),
        ("blocks the close", None, "protective"),
        (None, TAKE, ""),
    ],
)
def test_a_cancelled_order_is_called_what_it_is_known_to_be(why: str | None, order: Order | None, kind: str) -> None:
    """An order that opened at a trigger is an entry; without the order itself the rest cannot be told apart."""
    assert cancel_kind(why, order) == kind


def test_an_effect_that_has_ended_is_a_moment_of_its_own(written: HandWritten) -> None:
    """By its key and how it ended; the end of a lock is told as one."""
    journal = [
        JournalEntry(FIRST, "finished", at(10), data={"scope": "account/main", "status": "lifted"}),
        JournalEntry(FIRST, "finished", at(20), data={"effect": "mark", "status": "set"}),
    ]
    assert told(written, journal) == ["lock of account/main: lifted", "mark: set"]
