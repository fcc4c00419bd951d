"""Transfers of margin: one request for each decision, whatever the answer, the restarts and the kills are."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.execution.effects.transfer import TransferPerformer, transfer_id
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.decision import Decision
from killswitch.model.effects import Transfer
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import JournalEntry, TickRecord
from killswitch.model.venue import (
    FateUnknownError,
    OrderRejectedError,
    SentTransfer,
    TransferFate,
    Transfers,
    VenueDownError,
    VenueError,
)
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.performing import context
from tests.worlds import START

SNAPSHOT = Snapshot(START, (), "killswitch.snapshot/v1")
MOVE = Transfer("treasury", "main", "USDT", Decimal(750))
DECIDED = Decision("d1", START, "p", "sha256:0", "account/main", "enforce", "s", 1, 0, further=(MOVE,))


class Killed(BaseException):
    """The process ends here."""


class Bank:
    """A venue that moves money between its accounts, once under an id, and answers as it is scripted to."""

    def __init__(self, answer: VenueError | None = None, *, is_silent: bool = False) -> None:
        self.requests: list[tuple[str, Decimal, str]] = []
        self.answer, self.is_silent = answer, is_silent

    async def send(self, account: str, amount: Decimal, transfer: str) -> None:
        self.requests.append((account, amount, transfer))
        if self.is_silent:
            await asyncio.Event().wait()
        if self.answer is not None:
            raise self.answer

    def transfers(self, place: str = "one") -> dict[str, Transfers]:
        return {name: Transfers(place, name, self.send) for name in ("treasury", "main")}


def performer(
    store: SqlStore, bank: Bank, *, later: float = 0.0, is_run: bool = True, clock: VirtualClock | None = None
) -> TransferPerformer:
    """A performer whose clock is `later` seconds after the decision, or this one."""
    made = context(store, transfers=bank.transfers(), is_run=is_run)
    return TransferPerformer(replace(made, clock=clock or VirtualClock(START + timedelta(seconds=later))))


def commit(store: SqlStore, one: TransferPerformer, decision: Decision = DECIDED) -> None:
    """The tick that stores the decision with its planned entries."""
    journal = one.planned(decision, SNAPSHOT)
    store.commit_tick(TickRecord(START, "sha256:0", (), (), (decision,), (), journal, None, (), 0))


async def passes(one: TransferPerformer, number: int = 3) -> list[str]:
    """The texts of the alerts of passes of which the first has the decision."""
    texts: list[str] = []
    for index in range(number):
        texts += (await one.perform((DECIDED,) if index == 0 else (), SNAPSHOT)).texts
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await one.abandon()
    return texts


def statuses(store: SqlStore) -> list[str | None]:
    return [entry.data.get("status") for entry in store.journal("d1") if entry.kind == "finished"]


def test_a_transfer_is_journaled_sent_once_under_its_own_id_and_ends_with_the_answer(store: SqlStore) -> None:
    bank = Bank()
    one = performer(store, bank)
    commit(store, one)
    assert asyncio.run(passes(one, 5)) == []
    assert bank.requests == [("main", Decimal(750), "kstrd1")]
    assert statuses(store) == ["sent", "moved"]
    assert len(transfer_id(replace(DECIDED, id="f" * 20))) <= 32


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (OrderRejectedError("insufficient_margin", "too little"), "refused", "nothing has moved (too little)"),
        (FateUnknownError("cut off"), "unknown", "counts as made, and is not repeated (cut off)"),
        (VenueDownError("no answer"), "unknown", "counts as made, and is not repeated (no answer)"),
    ],
)
def test_what_was_not_moved_or_may_not_have_been_pages_and_is_not_repeated(
    store: SqlStore, answer: VenueError, status: str, words: str
) -> None:
    bank = Bank(answer)
    one = performer(store, bank)
    commit(store, one)
    (text,) = asyncio.run(passes(one, 5))
    assert text.startswith("move 750 USDT of margin from treasury to main (decision d1): ") and words in text
    assert (len(bank.requests), statuses(store)) == (1, ["sent", status])


@pytest.mark.parametrize(("later", "place", "status"), [(61.0, "one", "expired"), (0.0, "another", "refused")])
def test_nothing_is_sent_too_late_or_where_no_adapter_moves_it(
    store: SqlStore, later: float, place: str, status: str
) -> None:
    bank = Bank()
    one = performer(store, bank, later=later)
    if place != "one":
        elsewhere = bank.transfers() | {"main": Transfers(place, "main", bank.send)}
        one = TransferPerformer(context(store, transfers=elsewhere))
    commit(store, one)
    assert len(asyncio.run(passes(one))) == 1
    assert (bank.requests, statuses(store)) == ([], [status])


def test_a_command_that_ticks_once_sends_nothing(store: SqlStore) -> None:
    bank = Bank()
    one = performer(store, bank, is_run=False)
    commit(store, one)
    assert len(asyncio.run(passes(one))) == 1
    assert (bank.requests, statuses(store)) == ([], ["no_run"])


def test_a_restart_before_the_request_sends_it_once_and_after_it_never(store: SqlStore) -> None:
    """In a run that is killed between the journal and the answer the money may have moved: it pages."""
    bank = Bank(is_silent=True)
    commit(store, performer(store, bank))
    first = performer(store, bank, later=30)

    async def resumed(one: TransferPerformer) -> tuple[str, ...]:
        await one.recover()
        texts = (await one.perform((), SNAPSHOT)).texts
        await asyncio.sleep(0)
        await one.abandon()
        return texts

    assert asyncio.run(resumed(first)) == ()
    assert (len(bank.requests), statuses(store)) == (1, ["sent"])
    (text,) = asyncio.run(resumed(performer(store, bank, later=40)))
    assert "the run ended before the venue answered" in text
    assert (len(bank.requests), statuses(store)) == (1, ["sent"])


class Listed(Bank):
    """A bank with a list of its transfers: what it states of one, in order, the last for ever."""

    def __init__(self, answer: VenueError | None, *fates: TransferFate | VenueError, is_silent: bool = False) -> None:
        super().__init__(answer, is_silent=is_silent)
        self.fates = list(fates)
        self.queries: list[SentTransfer] = []

    async def find(self, sent: SentTransfer) -> TransferFate:
        self.queries.append(sent)
        fate = self.fates.pop(0) if len(self.fates) > 1 else self.fates[0]
        if isinstance(fate, VenueError):
            raise fate
        return fate

    def transfers(self, place: str = "one") -> dict[str, Transfers]:
        return {name: replace(it, find=self.find) for name, it in super().transfers(place).items()}


async def watched(one: TransferPerformer, clock: VirtualClock, seconds: int, *, first: bool = True) -> list[str]:
    """The texts of the alerts of a pass each second, of which the first has the decision."""
    texts: list[str] = []
    await one.recover()
    for second in range(seconds):
        texts += (await one.perform((DECIDED,) if first and second == 0 else (), SNAPSHOT)).texts
        for _ in range(3):
            await asyncio.sleep(0)
        await clock.sleep(1.0)
    await one.abandon()
    return texts


LOST = FateUnknownError("cut off")


@pytest.mark.parametrize(
    ("fates", "end", "queries", "page"),
    [
        (("moved",), "moved", 1, None),
        (("open", VenueDownError("down"), "moved"), "moved", 3, None),
        (("open", "failed"), "refused", 2, "nothing has moved"),
        (("open",), "unknown", 25, "it counts as made, and is not repeated (cut off)"),
    ],
)
def test_a_transfer_whose_answer_was_lost_is_looked_up_and_never_sent_again(
    store: SqlStore, fates: tuple[TransferFate | VenueError, ...], end: str, queries: int, page: str | None
) -> None:
    """Every five seconds for two minutes, under the id and from the time of its decision."""
    bank, clock = Listed(LOST, *fates), VirtualClock(START)
    one = performer(store, bank, clock=clock)
    commit(store, one)
    texts = asyncio.run(watched(one, clock, 130))
    assert (len(bank.requests), statuses(store)) == (1, ["sent", end])
    assert bank.queries == [SentTransfer("main", Decimal(750), "kstrd1", START)] * queries
    assert [page in text for text in texts if page is not None] == ([] if page is None else [True])
    assert page is not None or texts == []


def test_a_restart_looks_up_the_transfer_of_the_run_before(store: SqlStore) -> None:
    """The run ended before the answer: the next one asks, and pages nobody where the money has moved."""
    bank, clock = Listed(None, "moved", is_silent=True), VirtualClock(START)
    first = performer(store, bank, clock=clock)
    commit(store, first)
    assert asyncio.run(watched(first, clock, 3)) == []
    assert statuses(store) == ["sent"] and bank.queries == []
    assert asyncio.run(watched(performer(store, bank, clock=clock), clock, 5, first=False)) == []
    assert (len(bank.requests), statuses(store), len(bank.queries)) == (1, ["sent", "moved"], 1)


@pytest.mark.parametrize("wrong", ["treasury", "main"])
def test_nothing_is_sent_where_the_venue_does_not_confirm_a_declared_account(store: SqlStore, wrong: str) -> None:
    """The money would go to another account than the document names."""
    bank = Bank()

    async def refuse() -> None:
        raise OrderRejectedError("permission", "the key is of account 7")

    ways = bank.transfers()
    ways[wrong] = replace(ways[wrong], check=refuse)
    one = TransferPerformer(context(store, transfers=ways))
    commit(store, one)
    (text,) = asyncio.run(passes(one))
    assert "nothing was sent" in text and "the key is of account 7" in text
    assert (bank.requests, statuses(store)) == ([], ["sent", "unverified"])


def _killing(store: SqlStore, at: int, patch: pytest.MonkeyPatch) -> None:
    """End the process at its write number `at` to the journal."""
    append, left = store.append, [at]

    def dying(entry: JournalEntry) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return append(entry)

    patch.setattr(store, "append", dying)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 30)), min_size=1, max_size=5
    ),
    st.sampled_from([None, FateUnknownError("lost"), OrderRejectedError("other", "no")]),
    st.booleans(),
    st.sampled_from(["moved", "failed", "open", None]),
)  # fmt: skip
def test_no_sequence_of_kills_sends_a_transfer_twice(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, int, float]], answer: VenueError | None,
    is_silent: bool, listed: TransferFate | None,
) -> None:  # fmt: skip
    """Each run is killed at some write, or ends cleanly, after some passes; a further run ends in peace."""
    folder: Path = tmp_path_factory.mktemp("store")
    bank = Bank(answer, is_silent=is_silent) if listed is None else Listed(answer, listed, is_silent=is_silent)
    store, now = open_store(str(folder / "store.sqlite")), 0.0
    commit(store, performer(store, bank))

    async def run(later: float, number: int) -> None:
        one = performer(store, bank, later=later)
        await one.recover()
        for _ in range(number):
            await one.perform((), SNAPSHOT)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await one.abandon()

    for killed_at, number, elapsed in [*runs, (9, 3, 0.0)]:
        now += elapsed
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            _killing(store, killed_at, patch)
            asyncio.run(run(now, number))
    assert len(bank.requests) <= 1
    assert {request[2] for request in bank.requests} <= {"kstrd1"}
    store.close()
