"""What every store must do, whatever its database. A store joins by a line in `STORES`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.decision import Decision, Intent, Notice
from killswitch.model.snapshot import Event
from killswitch.model.store import (
    SAMPLES,
    Delivery,
    EquityCurvePoint,
    HistoryRow,
    HistoryTrim,
    IncidentStore,
    JournalEntry,
    JournalKind,
    MachineState,
    Outgoing,
    PendingCount,
    RouteCount,
    Store,
    StoreBusyError,
    TickRecord,
)
from killswitch.store.errors import StoreError
from killswitch.store.sqlite import open_store

NOW = datetime(2021, 5, 19, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = 1_000_000

Opener = Callable[[], IncidentStore]
"""Opens the same store again, as another process would."""

STORES: dict[str, Callable[[Path], Opener]] = {
    "sqlite": lambda folder: lambda: open_store(str(folder / "store.sqlite")),
}


@pytest.fixture(params=sorted(STORES))
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens one store, as often as called; all of them are closed at the end."""
    opened: list[Store] = []
    make = STORES[request.param](tmp_path)

    def open_it() -> Store:
        opened.append(make())
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(opener: Opener) -> Store:
    """One open store, empty."""
    return opener()


def decision(name: str, at: datetime = NOW) -> Decision:
    intent = Intent("main", "BTC", "long", "sell", Decimal("0.750"), Decimal("0.750"), True, 1, "0.71")
    return Decision(
        id=name, as_of=at, policy="p", policy_set="sha256:0", scope="account/main", mode="enforce",
        stage="trim", level=1, previous_level=0, intents=(intent,),
    )  # fmt: skip


def tick(
    *,
    at: datetime = NOW,
    states: tuple[MachineState, ...] = (),
    rows: tuple[HistoryRow, ...] = (),
    decisions: tuple[Decision, ...] = (),
    notices: tuple[Notice, ...] = (),
    journal: tuple[JournalEntry, ...] = (),
    snapshot: bytes | None = None,
    consumed: tuple[str, ...] = (),
    prune_before: int = 0,
    messages: tuple[Outgoing, ...] = (),
) -> TickRecord:
    return TickRecord(
        at, "sha256:0", states, rows, decisions, notices, journal, snapshot, consumed, prune_before, messages
    )  # fmt: skip


def entry(name: str, kind: JournalKind, account: str | None = "main") -> JournalEntry:
    return JournalEntry(decision=name, kind=kind, at=NOW, account=account)


def test_a_new_store_is_empty(store: Store) -> None:
    """Every read of a new store returns nothing, and nothing raises."""
    assert list(store.states()) == []
    assert list(store.rows("p", "s", 0)) == []
    assert list(store.journal()) == []
    assert list(store.unfinished()) == []
    assert list(store.decisions(10)) == []
    assert list(store.notices(10)) == []
    assert list(store.pending_events()) == []
    assert (store.decision("abc"), store.live("tick"), store.lease()) == (None, None, None)


def test_a_tick_is_visible_to_the_next_process(opener: Opener) -> None:
    """All that a tick wrote is found by a store opened afterwards, as it was written."""
    state, row = MachineState("p", "account/main", b"\x00\xff state"), HistoryRow("p", "account/main", 7, b"\x00row")
    notice = Notice(NOW, "p", "account/main", "unknown", "page", "equity is unknown")
    made = decision("d1")
    opener().commit_tick(
        tick(
            states=(state,),
            rows=(row,),
            decisions=(made,),
            notices=(notice,),
            journal=(entry("d1", "planned"),),
            snapshot=b'{"format": 1}',
        )
    )
    later = opener()
    assert list(later.states()) == [state]
    assert list(later.rows("p", "account/main", 0)) == [row]
    assert list(later.notices(10)) == [notice]
    assert [(each.decision, each.snapshot) for each in later.unfinished()] == [(made, b'{"format": 1}')]
    found = later.decision("d")
    assert found is not None
    assert (found.decision, found.snapshot) == (made, b'{"format": 1}')


def test_a_tick_is_written_whole_or_not_at_all(store: Store) -> None:
    """A tick that cannot be written leaves no state, row, notice, journal entry or consumed event behind."""
    store.commit_tick(tick(decisions=(decision("d1"),)))
    store.put_event(Event(id="e1", at=NOW, kind="reset"))
    twice = tick(
        states=(MachineState("p", "s", b"new"),),
        rows=(HistoryRow("p", "s", 1, b"new"),),
        decisions=(decision("d2"), decision("d1")),
        notices=(Notice(NOW, "p", "s", "warning", "info", "new"),),
        journal=(entry("d2", "planned"),),
        consumed=("e1",),
    )
    with pytest.raises(StoreError, match="d1"):
        store.commit_tick(twice)
    assert list(store.states()) == []
    assert list(store.rows("p", "s", 0)) == []
    assert list(store.notices(10)) == []
    assert list(store.journal()) == []
    assert [event.id for event in store.pending_events()] == ["e1"]
    assert [stored.decision.id for stored in store.decisions(10)] == ["d1"]


def test_a_state_replaces_the_one_before(store: Store) -> None:
    """A machine has one state, its newest; another machine's stays."""
    store.commit_tick(tick(states=(MachineState("p", "a", b"1"), MachineState("p", "b", b"1"))))
    store.commit_tick(tick(states=(MachineState("p", "a", b"2"),)))
    assert list(store.states()) == [MachineState("p", "a", b"2"), MachineState("p", "b", b"1")]


def test_rows_come_oldest_first_from_the_given_instant_on(store: Store) -> None:
    """`since` is included, other machines' rows are not."""
    store.commit_tick(tick(rows=tuple(HistoryRow("p", scope, at, b"x") for at in (30, 10, 20) for scope in ("a", "b"))))
    assert [(row.scope, row.at) for row in store.rows("p", "a", 20)] == [("a", 20), ("a", 30)]


def test_rows_older_than_the_given_instant_are_pruned(store: Store) -> None:
    """Pruning drops what is before the instant, of every machine, and keeps the instant itself."""
    store.commit_tick(tick(rows=tuple(HistoryRow("p", "a", at, b"x") for at in (10, 20, 30))))
    store.commit_tick(tick(prune_before=20))
    assert [row.at for row in store.rows("p", "a", 0)] == [20, 30]


def test_samples_of_prices_are_kept_where_other_rows_are_trimmed(store: Store) -> None:
    """A policy samples prices for 30 days and unit values for one hour: only the samples are kept for 30 days."""
    scopes = ("account/a", f"account/a{SAMPLES}")
    store.commit_tick(tick(rows=tuple(HistoryRow("p", scope, at, b"x") for at in (10, 20, 30) for scope in scopes)))
    store.commit_tick(replace(tick(prune_before=15), trim=HistoryTrim(15, 30)))
    assert [[row.at for row in store.rows("p", scope, 0)] for scope in scopes] == [[30], [20, 30]]


def test_the_journal_numbers_its_entries(opener: Opener) -> None:
    """Sequence numbers grow in the order of writing, across processes, and are what `append` returned."""
    first, second = opener(), opener()
    numbers = [first.append(entry("d1", "sending")), second.append(entry("d2", "sending"))]
    numbers.append(first.append(entry("d1", "filled")))
    assert numbers == sorted(set(numbers))
    assert [each.sequence for each in second.journal()] == numbers
    assert [(each.sequence, each.kind) for each in second.journal("d1")] == [
        (numbers[0], "sending"),
        (numbers[2], "filled"),
    ]


def test_a_journal_entry_comes_back_as_it_was_written(store: Store) -> None:
    """Every field survives, to the microsecond, unknown ones as None."""
    full = JournalEntry(
        "d1", "filled", NOW, "main", "BTC/USDT:USDT", "long", "ks1", 3, {"filled": "0.10", "fee": None, "ü": "–"}
    )  # fmt: skip
    bare = JournalEntry("d1", "finished", NOW)
    numbers = [store.append(full), store.append(bare)]
    assert list(store.journal("d1")) == [
        replace(full, sequence=numbers[0]),
        replace(bare, sequence=numbers[1]),
    ]


def test_a_decision_is_unfinished_until_every_account_has_finished(store: Store) -> None:
    """A decision on two accounts is finished once both have their `finished` entry."""
    journal = (entry("d1", "planned", "a"), entry("d1", "planned", "b"))
    store.commit_tick(tick(decisions=(decision("d1"),), journal=journal))
    store.append(entry("d1", "finished", "a"))
    assert [stored.decision.id for stored in store.unfinished()] == ["d1"]
    store.append(entry("d1", "finished", "b"))
    assert list(store.unfinished()) == []


def test_unfinished_decisions_come_oldest_first_and_only_planned_ones(store: Store) -> None:
    """A decision that planned nothing is not unfinished; the others come in the order in which they were made."""
    for name in ("z", "m", "a"):
        journal = () if name == "m" else (entry(name, "planned"),)
        store.commit_tick(tick(decisions=(decision(name),), journal=journal))
    assert [stored.decision.id for stored in store.unfinished()] == ["z", "a"]


def test_decisions_come_newest_first_without_their_snapshots(store: Store) -> None:
    """History shows the last ones, as many as requested."""
    for name in ("d1", "d2", "d3"):
        store.commit_tick(tick(decisions=(decision(name),), snapshot=b"x"))
    assert [(stored.decision.id, stored.snapshot) for stored in store.decisions(2)] == [("d3", None), ("d2", None)]


def test_a_decision_is_found_by_the_start_of_its_id(store: Store) -> None:
    """One match is found, none is None, several are a LookupError; `%` and capitals mean themselves."""
    for name in ("abc1", "abd2", "b_e3"):
        store.commit_tick(tick(decisions=(decision(name),)))
    found = store.decision("abc")
    assert found is not None
    assert found.decision.id == "abc1"
    assert [store.decision(prefix) for prefix in ("x", "ABC", "%", "a_")] == [None] * 4
    with pytest.raises(LookupError, match="several decisions start with 'ab'"):
        store.decision("ab")


def test_an_operator_command_waits_until_a_tick_consumes_it(opener: Opener) -> None:
    """An event that one process puts, another one's tick finds, in order, and consumes once; a repeat counts once."""
    hand, runner = opener(), opener()
    events = [Event(id=name, at=NOW, kind="reset", scope="account/main", author="o") for name in ("e2", "e1")]
    for event in (*events, events[0]):
        hand.put_event(event)
    assert list(runner.pending_events()) == events
    runner.commit_tick(tick(consumed=("e2",)))
    assert list(hand.pending_events()) == [events[1]]
    hand.put_event(events[0])
    assert list(runner.pending_events()) == [events[1]]


def test_a_live_blob_is_replaced(store: Store) -> None:
    """`status` reads the newest."""
    store.put_live("tick", b"1")
    store.put_live("tick", b"\x002")
    assert (store.live("tick"), store.live("other")) == (b"\x002", None)


def test_one_owner_at_a_time_holds_the_lease(opener: Opener) -> None:
    """A second owner is refused, by name, until the first one's lease has run out."""
    first, second = opener(), opener()
    held = first.acquire("runner-a", 0, 10 * SECOND)
    assert (held.owner, held.generation, held.expires_at) == ("runner-a", 1, 10 * SECOND)
    with pytest.raises(StoreBusyError, match="runner-a"):
        second.acquire("runner-b", 9 * SECOND, 10 * SECOND)
    assert second.lease() == held
    assert second.acquire("runner-b", 10 * SECOND, 10 * SECOND).generation == 2
    with pytest.raises(StoreBusyError, match="runner-b"):
        first.acquire("runner-a", 11 * SECOND, 10 * SECOND)


def test_renewing_keeps_the_generation(store: Store) -> None:
    """The holder stays the same writer, with a later end."""
    store.acquire("a", 0, 10)
    renewed = store.acquire("a", 5, 10)
    assert (renewed.generation, renewed.expires_at) == (1, 15)


def test_generations_only_grow(store: Store) -> None:
    """The owner of a lease that was released and taken again is a new writer, even under the old name."""
    assert store.acquire("a", 0, 10).generation == 1
    store.release("b")
    assert store.lease() is not None
    store.release("a")
    assert store.lease() is None
    assert store.acquire("a", 1, 10).generation == 2


def test_a_reader_sees_a_tick_whole_while_the_writer_works(opener: Opener) -> None:
    """A read between two ticks finds the first; it never blocks the second."""
    writer, reader = opener(), opener()
    for number in range(5):
        writer.commit_tick(tick(states=(MachineState("p", "a", b"%d" % number),)))
        assert [state.blob for state in reader.states()] == [b"%d" % number]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    data=st.dictionaries(st.text(min_size=1), st.none() | st.text(), max_size=5),
    at=st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9999, 12, 30)),  # noqa: DTZ001 - made aware below
)
def test_any_text_and_any_instant_survive_the_journal(store: Store, data: dict[str, str | None], at: datetime) -> None:
    """Whatever a venue's message holds, at any instant: the journal returns what it stored."""
    number = store.append(JournalEntry("any", "rejected", at.replace(tzinfo=UTC), data=data))
    assert store.journal("any")[-1] == JournalEntry(
        "any", "rejected", at.replace(tzinfo=UTC), data=data, sequence=number
    )


def test_a_thousand_ticks_leave_no_more_history_than_the_window(store: Store) -> None:
    """The stored history is bounded by the window, not by how long the runner has run."""
    for number in range(300):
        at = NOW + timedelta(seconds=number)
        rows = (HistoryRow("p", "a", number, b"x"),)
        store.commit_tick(tick(at=at, rows=rows, prune_before=number - 10))
    assert len(store.rows("p", "a", 0)) == 11


def test_a_fenced_handle_writes_nothing_once_the_lease_has_passed_on(opener: Opener) -> None:
    """An owner whose lease has expired adds nothing to another owner's history, nor after that one has released it."""
    old, new = opener(), opener()
    old.fence(old.acquire("runner-a", 0, 10 * SECOND).generation)
    old.commit_tick(tick(decisions=(decision("d1"),), journal=(entry("d1", "planned"),)))
    new.fence(new.acquire("runner-b", 10 * SECOND, 10 * SECOND).generation)
    for released in (False, True):
        if released:
            new.release("runner-b")
        with pytest.raises(StoreError, match="passed to generation 2"):
            old.append(entry("d1", "sending"))
        with pytest.raises(StoreError, match="passed to generation 2"):
            old.commit_tick(tick(decisions=(decision("d2"),)))
        with pytest.raises(StoreError, match="passed to generation 2"):
            old.put_live("tick", b"old")
    new.append(entry("d1", "sending"))
    assert [each.kind for each in new.journal()] == ["planned", "sending"]
    assert (new.decision("d2"), new.live("tick")) == (None, None)
    old.put_event(Event(id="e1", at=NOW, kind="reset"))
    assert [event.id for event in new.pending_events()] == ["e1"], "a hand needs no lease"


def outgoing(name: str, at: int = 1, target: str = "log warning", route: str = "desk") -> Outgoing:
    return Outgoing(name, at, route, target, b"\x00 body of " + name.encode())


def test_a_message_is_stored_with_its_tick(opener: Opener) -> None:
    """It is visible to the next process if its tick is, and not if its tick is not; a repeat counts once."""
    first = opener()
    first.commit_tick(tick(decisions=(decision("d1"),), messages=(outgoing("m1"),)))
    with pytest.raises(StoreError, match="d1"):
        first.commit_tick(tick(decisions=(decision("d1"),), messages=(outgoing("m2"),)))
    first.commit_tick(tick(messages=(outgoing("m1"), outgoing("m3"))))
    assert [each.message for each in opener().deliveries(10)] == [outgoing("m3"), outgoing("m1")]


def test_messages_can_be_skipped(opener: Opener) -> None:
    """The oldest besides those named, each attempt counted as ever; nothing if all are named."""
    store = opener()
    messages = (outgoing("z"), outgoing("a"), outgoing("m"))
    store.commit_tick(tick(messages=messages))
    assert store.claim("log warning", 9, ["z"]) == Delivery(messages[1], attempts=1)
    assert store.claim("log warning", 9, {"z", "a"}) == Delivery(messages[2], attempts=1)
    assert store.claim("log warning", 9, ["a", "m", "z"]) is None
    assert store.claim("log warning", 9) == Delivery(messages[0], attempts=1)


def test_a_target_gets_its_messages_in_their_order(opener: Opener) -> None:
    """One at a time, each attempt counted before it is made; a failed one is the next again, others overtake it."""
    store = opener()
    messages = (outgoing("z"), outgoing("other", target="file /x"), outgoing("a"))
    store.commit_tick(tick(messages=messages))
    assert store.claim("log warning", 9) == Delivery(messages[0], attempts=1)
    store.settle("z", 5, "refused")
    assert opener().claim("log warning", 9) == Delivery(messages[0], attempts=2, error="refused")
    assert store.claim("file /x", 9) == Delivery(messages[1], attempts=1)
    store.settle("z", 6, None)
    assert store.claim("log warning", 9) == Delivery(messages[2], attempts=1)
    store.settle("a", 7, None)
    store.settle("a", 8, "an answer that came too late")
    assert (store.claim("log warning", 9), store.claim("nowhere", 9)) == (None, None)
    assert store.deliveries(1) == [Delivery(messages[2], "delivered", 1, None, 7)]


def test_a_message_that_is_not_due_keeps_its_place_and_counts_no_attempt(opener: Opener) -> None:
    """The next process waits for it as this one does, at the instant it is due and not before."""
    store = opener()
    messages = (outgoing("z"), outgoing("a"))
    store.commit_tick(tick(messages=messages))
    store.claim("log warning", 10)
    store.settle("z", 11, "refused", due_at=20)
    assert opener().claim("log warning", 19) == Delivery(messages[0], attempts=1, error="refused", due_at=20)
    assert opener().claim("log warning", 20) == Delivery(messages[0], attempts=2, error="refused")


def test_a_refused_message_is_passed_until_it_is_due(opener: Opener) -> None:
    """Among several, the one that is due first is next; each is counted, with the reason of one of them."""
    store = opener()
    messages = (outgoing("z"), outgoing("y"), outgoing("a"))
    store.commit_tick(tick(messages=messages))
    store.settle("z", 11, "too long", due_at=30, is_refused=True)
    store.settle("y", 11, "too long", due_at=20, is_refused=True)
    assert store.waiting("log warning") == PendingCount(3, 2, "too long")
    assert store.claim("log warning", 12) == Delivery(messages[2], attempts=1)
    store.settle("a", 13, None)
    refused = Delivery(messages[1], error="too long", due_at=20, is_refused=True)
    assert opener().claim("log warning", 19) == refused
    assert store.claim("log warning", 20) == Delivery(messages[1], attempts=1, error="too long", is_refused=True)
    assert store.waiting("nowhere") == PendingCount(0, 0, None)


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_message_of_a_clock_that_was_ahead_is_due_at_once(store: Store, *, is_refused: bool) -> None:
    """Later than any pause lasts: the clock of that run was set back since, and nobody waits two hours for a page."""
    store.commit_tick(tick(messages=(outgoing("z"),)))
    store.settle("z", 11, "down", due_at=100 + 60 * SECOND, is_refused=is_refused)
    waits, due = store.claim("log warning", 100), store.claim("log warning", 99)
    assert (waits, due) == (
        Delivery(outgoing("z"), error="down", due_at=100 + 60 * SECOND, is_refused=is_refused),
        Delivery(outgoing("z"), attempts=1, error="down", is_refused=is_refused),
    )


def test_a_message_that_waits_for_too_long_is_given_up(store: Store) -> None:
    """Only one that was decided before the instant and still waits, with the error it had, or the reason."""
    store.commit_tick(tick(messages=tuple(outgoing(f"m{at}", at) for at in (10, 20, 30))))
    store.claim("log warning", 9)
    store.settle("m10", 11, "refused")
    assert store.give_up("log warning", 30, 40, "too late") == 2
    assert store.give_up("log warning", 30, 41, "too late") == 0
    assert [(each.message.id, each.state, each.error, each.ended_at) for each in store.deliveries(10)] == [
        ("m30", "pending", None, None),
        ("m20", "given_up", "too late", 40),
        ("m10", "given_up", "refused", 40),
    ]


def test_the_outbox_counts_by_route_and_target(store: Store) -> None:
    """`status` reads how many wait, since when and why, and what became of the others; old ends are forgotten."""
    store.commit_tick(tick(messages=(outgoing("m1", 1), outgoing("m2", 2), outgoing("m3", 3, route="b"))))
    assert list(store.outbox()) == [
        RouteCount("b", "log warning", 1, 0, 0, 3, None),
        RouteCount("desk", "log warning", 2, 0, 0, 1, None),
    ]
    store.settle("m1", 5, None)
    store.settle("m2", 6, "refused")
    assert list(store.outbox())[1] == RouteCount("desk", "log warning", 1, 1, 0, 2, "refused")
    store.forget(5)
    assert len(store.deliveries(10)) == 3
    store.forget(6)
    assert [each.message.id for each in store.deliveries(10)] == ["m3", "m2"], "what waits is never forgotten"


def test_a_fenced_handle_sends_nothing_any_more(opener: Opener) -> None:
    """An owner that has lost its lease gets no message to send, so that the next owner's are not sent twice."""
    old, new = opener(), opener()
    old.fence(old.acquire("runner-a", 0, 10 * SECOND).generation)
    old.commit_tick(tick(messages=(outgoing("m1"),)))
    new.fence(new.acquire("runner-b", 10 * SECOND, 10 * SECOND).generation)
    for write in (
        lambda: old.claim("log warning", 9),
        lambda: old.settle("m1", 1, None),
        lambda: old.give_up("log warning", 9, 9, "x"),
        lambda: old.forget(9),
    ):
        with pytest.raises(StoreError, match="passed to generation 2"):
            write()
    assert new.claim("log warning", 9) == Delivery(outgoing("m1"), attempts=1)


def test_an_incident_keeps_its_first_context_and_every_point_once(opener: Opener) -> None:
    """The context of its beginning is not overwritten, and an equity curve stored in parts has no point twice."""
    store = opener()
    assert (store.incident_note("i"), list(store.equity_curve("i"))) == (None, [])
    store.keep_incident("i", b"first", [EquityCurvePoint(2, 0.5), EquityCurvePoint(1, 1.25)])
    store.keep_incident("i", b"second", [EquityCurvePoint(2, 9.0), EquityCurvePoint(3, 0.1)])
    store.keep_incident("other", b"other", [EquityCurvePoint(1, 7.0)])
    assert store.incident_note("i") == b"first"
    assert list(opener().equity_curve("i")) == [
        EquityCurvePoint(1, 1.25),
        EquityCurvePoint(2, 0.5),
        EquityCurvePoint(3, 0.1),
    ]


def test_a_fenced_handle_stores_no_incident(opener: Opener) -> None:
    """An owner whose lease has passed to another writes no equity curve any more."""
    old, new = opener(), opener()
    old.fence(old.acquire("runner-a", 0, 10 * SECOND).generation)
    new.fence(new.acquire("runner-b", 10 * SECOND, 10 * SECOND).generation)
    with pytest.raises(StoreError, match="passed to generation 2"):
        old.keep_incident("i", b"note", [EquityCurvePoint(1, 1.0)])
    assert new.incident_note("i") is None
