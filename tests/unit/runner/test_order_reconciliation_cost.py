"""An order is reconciled once, however long the run, and no later change is missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.execution.client_order_id import client_order_id
from killswitch.execution.query.order_discrepancies import LAG
from killswitch.journal.codec import decode
from killswitch.model.alert import Alerts
from killswitch.model.decision import Notice, decision_id
from killswitch.model.snapshot import Order, Snapshot
from killswitch.model.store import JournalEntry
from killswitch.model.venue import ClientIdRule
from killswitch.runner.fault_isolation import FaultIsolation
from killswitch.runner.observer_notification import Observers
from killswitch.runner.order_reconciliation import KEPT, OrderReconciliation
from killswitch.runner.tick_inputs import OwnOrders
from tests.worlds import account, fill, snapshot

START = datetime(2024, 1, 1, tzinfo=UTC)
MANY = KEPT + 36


class CountingStore:
    """A store that counts how often a journal is read."""

    def __init__(self) -> None:
        self.journals: dict[str, list[JournalEntry]] = {}
        self.reads = 0

    def journal(self, decision: str) -> list[JournalEntry]:
        self.reads += 1
        return self.journals.get(decision, [])

    def notices(self, _limit: int) -> list[Notice]:
        return []

    def decisions(self, _limit: int) -> list[object]:
        return []


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def name_of(number: int) -> str:
    return client_order_id(decision_id("p", "s", str(number), START), 0, 1, ClientIdRule("plain", 36))


def entry(kind: str, number: int, at: float = 0.0, **data: str) -> JournalEntry:
    decision = decision_id("p", "s", str(number), START)
    return JournalEntry(decision, kind, later(at), "main", "BTC", "long", name_of(number), 1, data)  # type: ignore[arg-type] # literal by the caller


def resting(number: int) -> Order:
    return Order(f"v{number}", "BTC", "sell", Decimal(1), client_order_id=name_of(number))


@pytest.fixture
def store() -> CountingStore:
    """A hundred decisions, each with one order that has filled."""
    found = CountingStore()
    for number in range(MANY):
        sent, answered = entry("sending", number, side="sell", amount="1"), entry("filled", number, filled="1")
        found.journals[sent.decision] = [sent, answered]
    return found


def reconciliation(store: CountingStore) -> OrderReconciliation:
    return OrderReconciliation(store)  # type: ignore[arg-type] # what it reads of a store


def findings(reconciled: OrderReconciliation, at: Snapshot) -> Alerts:
    reconciled.compare(at)
    return reconciled.alerts()


def fills(count: int, each: str = "1") -> tuple[object, ...]:
    return tuple(fill(f"f{each}{n}", START, "BTC", "sell", each, "1", order=name_of(n)) for n in range(count))


def test_a_quiet_tick_reads_no_journal(store: CountingStore) -> None:
    """More decisions have fills than are kept in memory: each is read once, when its fill is new."""
    reconciled = reconciliation(store)
    findings(reconciled, snapshot(later(3600), account("1", fills=fills(MANY))))  # type: ignore[arg-type] # fills
    assert store.reads <= 2 * MANY
    store.reads = 0
    for tick in range(3):
        assert findings(reconciled, snapshot(later(7200 + tick), account("1"))).found == ()
    assert store.reads == 0


def test_unchanged_open_orders_are_read_about_once(store: CountingStore) -> None:
    """Each is reported once, as open although it has ended, and costs nothing after that."""
    reconciled = reconciliation(store)
    orders = tuple(resting(number) for number in range(MANY))
    notices = findings(reconciled, snapshot(later(3600), account("1", orders=orders))).found
    assert len(notices) == MANY
    store.reads = 0
    assert findings(reconciled, snapshot(later(3601), account("1", orders=orders))).found == ()
    assert store.reads == 0


def test_an_order_too_recent_to_compare_is_compared_later() -> None:
    """Rejected at 0 s and filled all the same: reported from 30 s on, though no snapshot shows the fill any more."""
    store = CountingStore()
    sent, refused = entry("sending", 0, side="sell", amount="1"), entry("rejected", 0, reason="other")
    store.journals[sent.decision] = [sent, refused]
    reconciled = reconciliation(store)
    assert findings(reconciled, snapshot(later(1), account("1", fills=fills(1)))).found == ()  # type: ignore[arg-type] # fills
    assert findings(reconciled, snapshot(later(LAG - 1), account("1"))).found == ()
    (notice,) = findings(reconciled, snapshot(later(LAG), account("1"))).found
    assert "was filled, and by the journal it was refused or never arrived" in notice.text


def test_a_later_entry_is_compared_with_earlier_fills() -> None:
    """Two were filled while the order was in flight; the entry that it ended with one is written a minute later."""
    store = CountingStore()
    sent = entry("sending", 0, side="sell", amount="2")
    store.journals[sent.decision] = [sent]
    reconciled = reconciliation(store)
    assert findings(reconciled, snapshot(later(40), account("1", fills=fills(1, "2")))).found == ()  # type: ignore[arg-type] # fills
    answered = entry("filled", 0, at=60, filled="1")
    store.journals[sent.decision].append(answered)
    reconciled.wrote(decode(answered))
    assert findings(reconciled, snapshot(later(61), account("1"))).found == ()
    (notice,) = findings(reconciled, snapshot(later(60 + LAG), account("1"))).found
    assert "was filled beyond the 1 with which it had ended" in notice.text


def test_an_order_whose_amount_grows_is_reported() -> None:
    """One contract was sent; the venue shows one, and then three."""
    store = CountingStore()
    sent = entry("sending", 0, side="sell", amount="1")
    store.journals[sent.decision] = [sent]
    reconciled = reconciliation(store)
    assert findings(reconciled, snapshot(later(40), account("1", orders=(resting(0),)))).found == ()
    grown = Order("v0", "BTC", "sell", Decimal(3), client_order_id=name_of(0))
    (notice,) = findings(reconciled, snapshot(later(41), account("1", orders=(grown,)))).found
    assert "is of 3 contracts, and 1 were sent" in notice.text


class PartlyFailingStore(CountingStore):
    """A store of which the journal of one decision cannot be decoded, for a reason that nobody has thought of."""

    def journal(self, decision: str) -> list[JournalEntry]:
        if decision == entry("sending", 1).decision:
            raise KeyError(decision)
        return super().journal(decision)


def test_a_comparison_that_fails_loses_no_finding() -> None:
    """Neither what the journal reported before, nor what was compared on another account."""
    store, isolation = PartlyFailingStore(), FaultIsolation()
    reconciled = reconciliation(store)
    observers = Observers((), None, isolation, reconciled, OwnOrders(), (None, None), None, None)  # type: ignore[arg-type] # without outputs
    reconciled.wrote(decode(entry("abandoned", 2)))
    one = account("1", orders=(resting(0),))
    other = replace(account("1", orders=(resting(1),)), account="other")
    found = observers.findings(snapshot(later(40), one, other)).found
    assert {alert.key.split("/")[1] for alert in found} == {name_of(2), name_of(0)}
    assert [alert.key for alert in isolation.alerts.found] == ["part/orders to be confirmed"]
