"""The order of the timeline: cancels, orders and answers of a close are listed in the order of the journal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.incident_decisions import find_incident
from killswitch.incident.record.order_outcomes import order_outcomes
from killswitch.incident.record.timeline import cancel_kind
from killswitch.journal.codec import decode_all
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Order
from killswitch.model.store import JournalEntry
from tests import incidents
from tests.incidents import FIRST, FilledStore, entry
from tests.worlds import after

STOP = Order("s1", "BTC", "sell", Decimal("2.50"), trigger_price=Decimal(90), reduce_only=True)
TAKE = Order("x1", "BTC", "sell", Decimal(1), price=Decimal(120), reduce_only=True)
ENTRY = Order("e1", "BTC", "buy", Decimal(1), price=Decimal(50))


def at(millis: int) -> datetime:
    """The time `millis` after the decision."""
    return after() + timedelta(milliseconds=millis)


def cancelled(millis: int, order: str, why: str) -> JournalEntry:
    return entry(FIRST, "cancelled", at(millis), order=order, why=why)


def order(number: int, kind: str, millis: int, symbol: str = "BTC", **data: str | None) -> JournalEntry:
    """A journal entry of order `number`."""
    return replace(entry(FIRST, kind, at(millis), symbol, **data), client_order_id=f"ks{number}")


def sent(number: int, millis: int, symbol: str = "BTC", kind: str = "market") -> JournalEntry:
    return order(number, "sending", millis, symbol, side="sell", amount="1", order=kind)


def close_decision() -> Decision:
    """A close of ten BTC."""
    return incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "10", "0"))


def timeline_texts(written: FilledStore, journal: Sequence[JournalEntry], *orders: Order) -> list[str]:
    """The texts of the timeline after the firing. `orders`: the resting orders at the decision."""
    made = close_decision()
    seen = incidents.snapshot(after())
    accounts = tuple(replace(each, orders=orders) for each in seen.accounts)
    plan = [entry(FIRST, "planned", after(), contracts="10", target="0", mark="100", value="100")]
    written.tick(after(), [made], plan, snapshot=replace(seen, accounts=accounts))
    for each in journal:
        written.store.append(each)
    found = incident_of(written.store, find_incident(written.store, None), StartedAs("store.sqlite")).timeline
    return [each.text for each in found if each.kind not in ("trigger", "fired")]


def test_protective_stops_cancelled_after_the_close_are_listed_after_it(written: FilledStore) -> None:
    """Two entries at .005 and .013, orders at .019, flat at .037, an exit at .049, a stop at .062: in that order.

    All moments lie in one second, and four of the six are cancels.
    """
    journal = [
        cancelled(5, "e1", "entry"), cancelled(13, "e2", "entry"), sent(1, 19),
        entry(FIRST, "verified", at(37), position="0", target="0"),
        cancelled(49, "x1", "all"), cancelled(62, "s1", "all"),
    ]  # fmt: skip
    assert timeline_texts(written, journal, ENTRY, TAKE, STOP) == [
        "resting entry order e1 of BTC on main is cancelled: buy 1 at 50",
        "resting entry order e2 of BTC on main is cancelled",
        "order sent: sell 1 BTC long on main",
        "the venue shows 0 (target 0) of BTC long on main",
        "resting exit order x1 of BTC on main is cancelled: sell 1 at 120",
        "resting protective order s1 of BTC on main is cancelled: sell 2.5, trigger 90",
    ]


def test_many_cancels_of_one_kind_are_one_line_without_those_of_other_kinds(written: FilledStore) -> None:
    """Four entries and four stops follow each other within a second: one line for each kind."""
    stops = tuple(replace(STOP, id=f"s{number}") for number in range(4))
    journal = [cancelled(number, f"e{number}", "entry") for number in range(4)]
    journal += [cancelled(10 + number, f"s{number}", "all") for number in range(4)]
    assert timeline_texts(written, journal, *stops) == [
        "4 times: a resting entry order is cancelled (BTC)",
        "4 times: a resting protective order is cancelled (BTC)",
    ]


def test_a_different_moment_between_equal_ones_separates_them(written: FilledStore) -> None:
    """Four orders, a rejection, four orders: nine moments of one second are three lines."""
    journal = [sent(number, number) for number in range(1, 5)]
    journal.append(order(1, "rejected", 5, reason="price_band"))
    journal += [sent(number, number) for number in range(6, 10)]
    assert timeline_texts(written, journal) == [
        "4 times: an order was sent (BTC)",
        "the order on BTC long on main was rejected: price_band",
        "4 times: an order was sent (BTC)",
    ]


def test_equal_moments_in_two_seconds_are_two_lines(written: FilledStore) -> None:
    """Four orders at the end of a second and four at the beginning of the next."""
    journal = [sent(number, 990 + number) for number in range(1, 5)] + [sent(n, 1000 + n) for n in range(5, 9)]
    assert timeline_texts(written, journal) == ["4 times: an order was sent (BTC)"] * 2


def test_two_slices_of_one_size_sent_at_one_instant_are_two_orders(written: FilledStore) -> None:
    """All orders of a batch may have the same journal time."""
    assert timeline_texts(written, [sent(1, 5), sent(2, 5)]) == ["order sent: sell 1 BTC long on main"] * 2


def test_only_a_limit_order_rests_and_a_market_order_is_accepted(written: FilledStore) -> None:
    """The venue has accepted both; a market order does not rest."""
    journal = [
        sent(1, 1), order(1, "acknowledged", 2, order="v1", filled="0"),
        sent(2, 3, kind="limit"), order(2, "acknowledged", 4, order="v2", filled="0"),
    ]  # fmt: skip
    timeline = timeline_texts(written, journal)
    lines = order_outcomes(close_decision(), decode_all(journal), None)
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
def test_a_cancelled_order_is_named_by_what_is_known_of_it(why: str | None, order: Order | None, kind: str) -> None:
    """An order that would open at a trigger is an entry; without the order itself, the others are not distinguished."""
    assert cancel_kind(why, order) == kind


def test_the_end_of_an_effect_is_its_own_moment(written: FilledStore) -> None:
    """With its key and how it ended; the end of a lock is named as such."""
    journal = [
        JournalEntry(FIRST, "finished", at(10), data={"scope": "account/main", "status": "lifted"}),
        JournalEntry(FIRST, "finished", at(20), data={"effect": "mark", "status": "set"}),
    ]
    assert timeline_texts(written, journal) == ["lock of account/main: lifted", "mark: set"]
