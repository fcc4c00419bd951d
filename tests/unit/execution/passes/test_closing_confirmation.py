"""Orders of ours at the venue held against the journal: what agrees is silent, what does not is told once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs

from killswitch.execution.client_order_id import client_order_id
from killswitch.journal.codec import decode, decode_all
from killswitch.journal.entries import Entry, OrderSending
from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot, Fill, Order, OrderSide
from killswitch.model.store import JournalEntry, JournalKind
from killswitch.model.venue import ClientIdRule
from killswitch.runner.order_reconciliation import CombinedClosingObserver, OrderReconciliation
from tests import incidents, worlds
from tests.incidents import FIRST, HandWritten, hand_written
from tests.worlds import after

OURS = client_order_id(FIRST, 0, 1)
HEX = client_order_id(FIRST, 0, 1, ClientIdRule("hex", 34))


@dataclass
class Watched:
    """A store with one decision at work, and a watch over its orders."""

    written: HandWritten
    decision: Decision
    watch: OrderReconciliation

    def writes(self, kind: JournalKind, at: datetime, name: str = OURS, **data: str | None) -> None:
        """The closing journals one entry, and tells the watch."""
        entry = JournalEntry(FIRST, kind, at, "main", "BTC", "long", name, 1, data)
        self.written.store.append(entry)
        self.watch.wrote(decode(entry))

    def answers(self, at: datetime, state: str) -> None:
        """The closing journals what the venue said about putting back the protective order s1."""
        entry = JournalEntry(FIRST, "guarded", at, "main", "BTC", "long", data={"for": "s1", "state": state})
        self.written.store.append(entry)
        self.watch.wrote(decode(entry))

    def restart(self) -> None:
        """A new process over the same store."""
        self.watch = OrderReconciliation(self.written.store)

    def says(self, at: datetime, *orders: Order, fills: tuple[Fill, ...] = ()) -> list[str]:
        """What a tick at `at` has to tell, whose notices are kept as a tick keeps them."""
        account = structs.replace(worlds.account("1000", ()), orders=orders, fills=fills)
        notices = self.watch.notices(worlds.snapshot(at, account))
        assert all(notice.severity == "page" for notice in notices)
        self.written.tick(at, notices=notices)
        return [notice.text for notice in notices]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    written = hand_written(tmp_path)
    decision = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "5", "5"))
    written.tick(after(), [decision], [incidents.entry(FIRST, "planned", after(), contracts="5", target="5")])
    watch = OrderReconciliation(written.store)
    watch.begun(decision, "main", decode_all(written.store.journal(FIRST)))
    yield Watched(written, decision, watch)
    written.store.close()


def resting(name: str = OURS, *, side: OrderSide = "sell", amount: str = "5", id_: str = "77") -> Order:
    """An order as the venue lists it."""
    return Order(id_, "BTC", side, Decimal(amount), client_order_id=name)


def fill(order: str, amount: str = "5", id_: str = "f1") -> Fill:
    return Fill(id_, after(), "BTC", "sell", Decimal(amount), Decimal(99), order=order)


def test_what_was_sent_and_rests_is_no_news(watched: Watched) -> None:
    """An order that is journaled and open, a stranger's order and one without a name: nothing is told."""
    watched.writes("sending", after(seconds=1), side="sell", amount="5")
    watched.writes("acknowledged", after(seconds=2), order="77")
    found = watched.says(
        after(minutes=5), resting(), resting("stop-1", id_="78"), Order("79", "BTC", "buy", Decimal(1))
    )
    assert found == []


@pytest.mark.parametrize("name", [client_order_id("ee" * 10, 0, 1), HEX], ids=["plain", "hex"])
def test_an_order_of_ours_that_the_journal_does_not_know_pages_once(watched: Watched, name: str) -> None:
    """It has our name and no journal: the first tick that sees it says so, later ones and a restart do not."""
    (text,) = watched.says(after(seconds=5), resting(name))
    assert text == (
        f"order {name} of ours (sell BTC on account main) is open at the venue, and the journal has no such order: "
        "another store or another process uses our order names; check at the venue"
    )
    assert watched.says(after(seconds=6), resting(name)) == []
    watched.restart()
    assert watched.says(after(seconds=7), resting(name)) == []


@pytest.mark.parametrize("name", [OURS, HEX], ids=["plain", "hex"])
def test_after_a_restart_the_journal_is_read_for_what_is_seen(watched: Watched, name: str) -> None:
    """An order of a decision that is not at work any more is looked up: it is known, and no news."""
    watched.writes("sending", after(seconds=1), name, side="sell", amount="5")
    watched.restart()
    assert watched.says(after(minutes=5), resting(name)) == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [("filled", "has ended"), ("rejected", "was refused or never arrived"), ("absent", "was refused or never arrived"),
     ("abandoned", "was abandoned with unknown status")],
)  # fmt: skip
def test_an_order_that_is_over_by_the_journal_and_open_at_the_venue_pages(
    watched: Watched, kind: JournalKind, words: str
) -> None:
    """Not at once, because a reading may be older than the journal; after half a minute, and once."""
    watched.writes("sending", after(seconds=1), side="sell", amount="5")
    watched.writes(kind, after(seconds=10), filled="5")
    early = watched.says(after(seconds=39), resting())
    assert [text for text in early if "still open" in text] == []
    (text,) = watched.says(after(seconds=40), resting())
    assert text.startswith(f"order {OURS} of ours (sell BTC on account main) is still open at the venue, ")
    assert words in text
    assert watched.says(after(seconds=41), resting()) == []


def test_what_is_sent_again_under_its_name_is_open_again(watched: Watched) -> None:
    """Refused because the venue was busy, and then sent anew: it may rest."""
    watched.writes("sending", after(seconds=1), side="sell", amount="5")
    watched.writes("rejected", after(seconds=2), reason="rate_limited")
    watched.writes("sending", after(seconds=3), side="sell", amount="5")
    assert watched.says(after(minutes=5), resting()) == []


@pytest.mark.parametrize(
    ("order", "words"),
    [(resting(side="buy"), "was sent as sell BTC"), (resting(amount="6"), "is of 6 contracts, and 5 were sent")],
    ids=["side", "amount"],
)
def test_an_order_that_is_not_as_it_was_sent_pages(watched: Watched, order: Order, words: str) -> None:
    """Another side, or more than was ever sent under its name."""
    watched.writes("sending", after(seconds=1), side="sell", amount="5")
    (text,) = watched.says(after(seconds=2), order)
    assert words in text


def test_a_fill_of_an_order_that_was_refused_pages(watched: Watched) -> None:
    """The venue refused it, and fills it: by our own name, or by the id under which it was seen to rest."""
    watched.writes("sending", after(seconds=1), side="sell", amount="5")
    watched.writes("rejected", after(seconds=2), reason="other")
    assert watched.says(after(seconds=3), resting()) == []
    (text,) = watched.says(after(minutes=1), fills=(fill("77"),))
    assert text == (
        f"order {OURS} of ours on account main was filled, and by the journal it was refused or never arrived: check "
        f"at the venue, and see ksctl explain {FIRST}"
    )


def test_fills_beyond_what_an_order_had_ended_with_page(watched: Watched) -> None:
    """It ended with 3; two fills come to 5, one of them told twice. Up to 3 there is nothing to tell."""
    watched.writes("sending", after(seconds=1), side="sell", amount="5")
    watched.writes("filled", after(seconds=2), order="77", state="canceled", filled="3")
    assert watched.says(after(minutes=1), fills=(fill("77", "3"),)) == []
    assert watched.says(after(minutes=2), fills=(fill("77", "3"),)) == []
    (text,) = watched.says(after(minutes=3), fills=(fill("77", "2", "f2"),))
    assert "was filled beyond the 3 with which it had ended" in text


def test_protection_that_was_put_back_may_rest_and_one_that_was_refused_may_not(watched: Watched) -> None:
    """Its name is ours too: journaled as protection it rests for as long as it likes; refused, it must not.

    A position that is left without pages by itself.
    """
    watched.writes("protected", after(seconds=1), side="sell", amount="5", **{"for": "s1"})
    watched.answers(after(seconds=2), "resting")
    assert watched.says(after(minutes=9), resting()) == []
    watched.answers(after(minutes=10), "refused: too close")
    bare, still = watched.says(after(minutes=11), resting())
    assert bare == "BTC long on account main is without its protective order s1: refused: too close"
    assert "still open at the venue" in still


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("set_aside", "it is detached, and the venue is still queried"),
        ("abandoned", "is no longer queried: check the order at the venue"),
    ],
)
def test_an_order_of_unknown_fate_that_is_given_up_pages_once(watched: Watched, kind: JournalKind, words: str) -> None:
    """When it is journaled, and not again after a restart takes the decision up."""
    watched.writes("sending", after(seconds=1), side="sell", amount="5")
    watched.writes(kind, after(seconds=9))
    (text,) = watched.says(after(seconds=10))
    assert words in text
    assert OURS in text
    watched.restart()
    watched.watch.begun(watched.decision, "main", decode_all(watched.written.store.journal(FIRST)))
    assert watched.says(after(seconds=11)) == []


@pytest.mark.parametrize("kind", ["unknown", "set_aside", "abandoned"])
def test_a_state_that_we_do_not_know_pages(watched: Watched, kind: JournalKind) -> None:
    """The venue calls the order something that is in no book of ours: a person is told the word, once."""
    watched.writes("sending", after(seconds=1), side="sell", amount="5")
    words = f"MalformedAnswerError: order {OURS} is said to be pondering"
    watched.writes(kind, after(seconds=2), text=words)
    assert len([text for text in watched.says(after(seconds=3)) if "an unknown state, pondering" in text]) == 1
    watched.writes("filled", after(seconds=4), filled="5")
    assert watched.says(after(seconds=5)) == []


def test_a_reading_that_is_not_good_tells_nothing(watched: Watched) -> None:
    """An account that is down shows the last known orders: they are no news."""
    account = AccountSnapshot("main", "paper", "swap", "USDT", "down", reason="no answer", orders=(resting(),))
    assert watched.watch.notices(worlds.snapshot(after(minutes=5), account)) == ()


def test_two_watches_are_both_told() -> None:
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
