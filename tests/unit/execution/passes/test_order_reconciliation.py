"""Order reconciliation: our orders at the venue against the journal. Agreement is silent; a discrepancy pages once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.alerts import AlertState, advance, encode_state, read_state
from killswitch.execution.client_order_id import client_order_id
from killswitch.journal.codec import decode, decode_all
from killswitch.journal.entries import Entry, OrderSending
from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Fill, Order, OrderSide
from killswitch.model.store import ALERTS, JournalEntry, JournalKind
from killswitch.model.venue import ClientIdRule
from killswitch.runner.order_reconciliation import CombinedClosingObserver, OrderReconciliation
from killswitch.store.errors import StoreError
from tests import incidents, worlds
from tests.incidents import FIRST, FilledStore, filled_store
from tests.worlds import after

OURS = client_order_id(FIRST, 0, 1)
HEX = client_order_id(FIRST, 0, 1, ClientIdRule("hex", 34))


class ReconciliationBench(Struct):
    """A store with one adopted decision, and the reconciliation of its orders."""

    written: FilledStore
    decision: Decision
    observer: OrderReconciliation
    state: AlertState

    def journal_entry(self, kind: JournalKind, at: datetime, name: str = OURS, **data: str | None) -> None:
        """The executor journals one entry, and notifies the reconciliation."""
        entry = JournalEntry(FIRST, kind, at, "main", "BTC", "long", name, 1, data)
        self.written.store.append(entry)
        self.observer.wrote(decode(entry))

    def journal_protection(self, at: datetime, state: str) -> None:
        """The executor journals the venue's answer about restoring the protective order s1."""
        entry = JournalEntry(FIRST, "guarded", at, "main", "BTC", "long", data={"for": "s1", "state": state})
        self.written.store.append(entry)
        self.observer.wrote(decode(entry))

    def restart(self) -> None:
        """A new process over the same store."""
        self.state = read_state(self.written.store.live(ALERTS))
        self.observer = OrderReconciliation(self.written.store)

    def notices_at(self, at: datetime, *orders: Order, fills: tuple[Fill, ...] = ()) -> list[str]:
        """The notices of a tick at `at`, which are kept as a tick keeps them."""
        account = replace(worlds.account("1000", ()), orders=orders, fills=fills)
        self.observer.compare(worlds.snapshot(at, account))
        notices, self.state = advance(self.state, self.observer.alerts(), to_micros(at))
        assert all(notice.severity == "page" for notice in notices)
        self.written.store.put_live(ALERTS, encode_state(self.state))
        return [notice.text for notice in notices]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ReconciliationBench]:
    written = filled_store(tmp_path)
    decision = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "5", "5"))
    written.tick(after(), [decision], [incidents.entry(FIRST, "planned", after(), contracts="5", target="5")])
    observer = OrderReconciliation(written.store)
    observer.begun(decision, "main", decode_all(written.store.journal(FIRST)))
    yield ReconciliationBench(written, decision, observer, AlertState())
    written.store.close()


def resting(name: str = OURS, *, side: OrderSide = "sell", amount: str = "5", id_: str = "77") -> Order:
    """An order as the venue lists it."""
    return Order(id_, "BTC", side, Decimal(amount), client_order_id=name)


def fill(order: str, amount: str = "5", id_: str = "f1") -> Fill:
    return Fill(id_, after(), "BTC", "sell", Decimal(amount), Decimal(99), order=order)


def test_a_sent_order_that_rests_causes_no_notice(bench: ReconciliationBench) -> None:
    """An order that is journaled and open, a foreign order and one without a client order id: no notice."""
    bench.journal_entry("sending", after(seconds=1), side="sell", amount="5")
    bench.journal_entry("acknowledged", after(seconds=2), order="77")
    found = bench.notices_at(
        after(minutes=5), resting(), resting("stop-1", id_="78"), Order("79", "BTC", "buy", Decimal(1))
    )
    assert found == []


@pytest.mark.parametrize("name", [client_order_id("ee" * 10, 0, 1), HEX], ids=["plain", "hex"])
def test_an_order_of_ours_that_the_journal_does_not_know_pages_once(bench: ReconciliationBench, name: str) -> None:
    """It has our form of id and no entry: the first tick that sees it pages, later ones and a restart do not."""
    (text,) = bench.notices_at(after(seconds=5), resting(name))
    assert text == (
        f"order {name} of ours (sell BTC on account main) is open at the venue, and the journal has no such order: "
        "another store or another process uses our order names; check at the venue"
    )
    assert bench.notices_at(after(seconds=6), resting(name)) == []
    bench.restart()
    assert bench.notices_at(after(seconds=7), resting(name)) == []


@pytest.mark.parametrize("name", [OURS, HEX], ids=["plain", "hex"])
def test_after_a_restart_the_journal_is_read_for_orders_at_the_venue(bench: ReconciliationBench, name: str) -> None:
    """An order of a decision that is no longer open is looked up: it is known, and causes no notice."""
    bench.journal_entry("sending", after(seconds=1), name, side="sell", amount="5")
    bench.restart()
    assert bench.notices_at(after(minutes=5), resting(name)) == []


@pytest.mark.parametrize(("name", "answered"), [(OURS, 0), (HEX, 0), (HEX, 1)], ids=["plain", "hex", "hex-2nd-read"])
def test_after_a_read_of_the_store_that_failed_the_order_is_looked_up_again(
    bench: ReconciliationBench, monkeypatch: pytest.MonkeyPatch, name: str, answered: int
) -> None:
    """The search for its decision fails at one of its reads: the next tick finds it, and compares the side."""
    bench.journal_entry("sending", after(seconds=1), name, side="sell", amount="5")
    bench.restart()
    store, reads = bench.written.store, count()

    def failing(read: Callable[..., object]) -> Callable[..., object]:
        def failed(*args: object) -> object:
            if next(reads) >= answered:
                raise StoreError("disk I/O error")
            return read(*args)

        return failed

    with monkeypatch.context() as patched:
        patched.setattr(store, "journal", failing(store.journal))
        patched.setattr(store, "decisions", failing(store.decisions))
        with pytest.raises(StoreError):
            bench.notices_at(after(minutes=5), resting(name, side="buy"))
    (text,) = bench.notices_at(after(minutes=5, seconds=1), resting(name, side="buy"))
    assert "was sent as sell BTC" in text


@pytest.mark.parametrize(
    ("kind", "words"),
    [("filled", "has ended"), ("rejected", "was refused or never arrived"), ("absent", "was refused or never arrived"),
     ("abandoned", "was abandoned with unknown status")],
)  # fmt: skip
def test_an_order_that_ended_in_the_journal_and_is_open_at_the_venue_pages(
    bench: ReconciliationBench, kind: JournalKind, words: str
) -> None:
    """Not at once, because a snapshot may be older than the journal; after half a minute, and once."""
    bench.journal_entry("sending", after(seconds=1), side="sell", amount="5")
    bench.journal_entry(kind, after(seconds=10), filled="5")
    early = bench.notices_at(after(seconds=39), resting())
    assert [text for text in early if "still open" in text] == []
    (text,) = bench.notices_at(after(seconds=40), resting())
    assert text.startswith(f"order {OURS} of ours (sell BTC on account main) is still open at the venue, ")
    assert words in text
    assert bench.notices_at(after(seconds=41), resting()) == []


def test_an_order_sent_again_under_its_id_is_open_again(bench: ReconciliationBench) -> None:
    """Refused because the venue was busy, and then sent again: it may rest."""
    bench.journal_entry("sending", after(seconds=1), side="sell", amount="5")
    bench.journal_entry("rejected", after(seconds=2), reason="rate_limited")
    bench.journal_entry("sending", after(seconds=3), side="sell", amount="5")
    assert bench.notices_at(after(minutes=5), resting()) == []


@pytest.mark.parametrize(
    ("order", "words"),
    [(resting(side="buy"), "was sent as sell BTC"), (resting(amount="6"), "is of 6 contracts, and 5 were sent")],
    ids=["side", "amount"],
)
def test_an_order_that_differs_from_what_was_sent_pages(bench: ReconciliationBench, order: Order, words: str) -> None:
    """Another side, or more than was ever sent under its id."""
    bench.journal_entry("sending", after(seconds=1), side="sell", amount="5")
    (text,) = bench.notices_at(after(seconds=2), order)
    assert words in text


def test_a_fill_of_an_order_that_was_refused_pages(bench: ReconciliationBench) -> None:
    """The venue refused it, and fills it: by our client order id, or by the order id under which it rested."""
    bench.journal_entry("sending", after(seconds=1), side="sell", amount="5")
    bench.journal_entry("rejected", after(seconds=2), reason="other")
    assert bench.notices_at(after(seconds=3), resting()) == []
    (text,) = bench.notices_at(after(minutes=1), fills=(fill("77"),))
    assert text == (
        f"order {OURS} of ours on account main was filled, and by the journal it was refused or never arrived: check "
        f"at the venue, and see ksctl explain {FIRST}"
    )


def test_fills_beyond_the_final_amount_of_an_order_page(bench: ReconciliationBench) -> None:
    """It ended with 3; two fills sum to 5, one of them listed twice. Up to 3 there is no notice."""
    bench.journal_entry("sending", after(seconds=1), side="sell", amount="5")
    bench.journal_entry("filled", after(seconds=2), order="77", state="canceled", filled="3")
    assert bench.notices_at(after(minutes=1), fills=(fill("77", "3"),)) == []
    assert bench.notices_at(after(minutes=2), fills=(fill("77", "3"),)) == []
    (text,) = bench.notices_at(after(minutes=3), fills=(fill("77", "2", "f2"),))
    assert "was filled beyond the 3 with which it had ended" in text


def test_restored_protection_may_rest_and_refused_protection_may_not(bench: ReconciliationBench) -> None:
    """Its id is ours too: journaled as protection it may rest for any time; refused, it must not.

    A position that is left without pages by itself.
    """
    bench.journal_entry("protected", after(seconds=1), side="sell", amount="5", **{"for": "s1"})
    bench.journal_protection(after(seconds=2), "resting")
    assert bench.notices_at(after(minutes=9), resting()) == []
    bench.journal_protection(after(minutes=10), "refused: too close")
    bare, still = bench.notices_at(after(minutes=11), resting())
    assert bare == "BTC long on account main is without its protective order s1: refused: too close"
    assert "still open at the venue" in still


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("set_aside", "it may have filled: look at the venue, which is still queried"),
        ("abandoned", "is no longer queried: check the order at the venue"),
    ],
)
def test_an_abandoned_order_of_unknown_status_pages_once(
    bench: ReconciliationBench, kind: JournalKind, words: str
) -> None:
    """When it is journaled, and not again after a restart adopts the decision."""
    bench.journal_entry("sending", after(seconds=1), side="sell", amount="5")
    bench.journal_entry(kind, after(seconds=9))
    (text,) = bench.notices_at(after(seconds=10))
    assert words in text
    assert OURS in text
    bench.restart()
    bench.observer.begun(bench.decision, "main", decode_all(bench.written.store.journal(FIRST)))
    assert bench.notices_at(after(seconds=11)) == []


@pytest.mark.parametrize("kind", ["unknown", "set_aside", "abandoned"])
def test_an_unknown_order_state_pages(bench: ReconciliationBench, kind: JournalKind) -> None:
    """The venue reports a state that the adapter does not know: one page with the venue's word."""
    bench.journal_entry("sending", after(seconds=1), side="sell", amount="5")
    words = f"MalformedAnswerError: order {OURS} is said to be pondering"
    bench.journal_entry(kind, after(seconds=2), text=words)
    assert len([text for text in bench.notices_at(after(seconds=3)) if "an unknown state, pondering" in text]) == 1
    bench.journal_entry("filled", after(seconds=4), filled="5")
    assert bench.notices_at(after(seconds=5)) == []


def test_a_snapshot_of_bad_quality_causes_no_notice(bench: ReconciliationBench) -> None:
    """An account that is down shows the last known orders: they are not compared."""
    account = AccountSnapshot("main", "paper", "swap", "USDT", "down", reason="no answer", orders=(resting(),))
    bench.observer.compare(worlds.snapshot(after(minutes=5), account))
    assert bench.observer.alerts().found == ()


def test_combined_observers_are_both_notified() -> None:
    """In the order in which they were given."""
    told: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def begun(self, decision: Decision, account: str, journal: object) -> None:
            told.append(f"{self.name} begun {account}")

        def wrote(self, entry: Entry) -> None:
            told.append(f"{self.name} {entry.kind}")

    both = CombinedClosingObserver(Named("a"), Named("b"))
    both.begun(incidents.firing(FIRST, after(), "trim", 1, 0), "main", ())
    both.wrote(OrderSending(FIRST, after()))
    assert told == ["a begun main", "b begun main", "a sending", "b sending"]
