"""What closing knows on one account: its works, ledgers and protections, all of it folded from the journal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import chain

from killswitch.execution.patience import Pace
from killswitch.execution.state.account_job import Work
from killswitch.execution.state.protective_record import Protections
from killswitch.journal.codec import decode, decode_all, encode
from killswitch.journal.entries import (
    Charged,
    ClosingWatch,
    Entry,
    Filled,
    Planned,
    PositionKey,
    Rejected,
    Sending,
    Unknown,
    Verified,
    is_end,
    known,
)
from killswitch.journal.ledger import PositionLedger
from killswitch.journal.lifecycle import State
from killswitch.journal.targets import Line
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Closing
from killswitch.model.store import Journal, JournalEntry

REMEMBERED = 16
"""How many ended decisions `progress` still tells of, so that no tick misses how one ended."""


class Memory:
    """Everything that is remembered, and the one way in which it changes: an entry that is durable first."""

    def __init__(self, account: str, store: Journal, clock: Clock, pace: Pace, watch: ClosingWatch) -> None:
        self._account = account
        self._store = store
        self._clock = clock
        self._pace = pace
        self._watch = watch
        self.protections = Protections()
        self._ledgers: dict[PositionKey, PositionLedger] = {}
        self._prepared: dict[str, Work] = {}
        self._held: list[Entry] | None = None
        self._over: dict[PositionKey, float] = {}
        self._uncharged: dict[str, dict[str, Filled]] = {}
        self.moved_at = -math.inf
        """Monotonic seconds at which an order moved last."""
        self.works: dict[str, Work] = {}
        self.ended: dict[str, Closing] = {}
        self.written = 0
        """How many entries have been written."""
        self.moved = 0
        """How many of them were about orders, so that a look at the account before them is out of date."""
        self.sent = 0
        """How many orders have left."""

    def recover(self) -> None:
        """Take up everything unfinished from the journal."""
        recent = [self._work(stored.decision) for stored in reversed(self._store.decisions(REMEMBERED))]
        ended = [work for work in recent if work.finished is not None and not work.decision.is_suspicion]
        self.ended = {work.decision.id: work.closing({}) for work in ended}
        works = [self._work(stored.decision) for stored in self._store.unfinished()]
        self.works = {work.decision.id: work for work in works if work.planned is not None and not work.finished}
        self._recall(self._beside())
        known = self.works.keys() | self.ended.keys()
        self._uncharged = {decision: found for decision, found in self._uncharged.items() if decision in known}
        for work in self.works.values():
            self._watch.begun(work.decision, self._account, self._journal_of(work.decision.id))

    def prepare(self, decision: Decision, planned: Sequence[JournalEntry]) -> None:
        """Make ready what `adopt` will take up once `planned` is durable. Nothing is worked on before."""
        if decision.id not in self.works:
            work = self._prepared[decision.id] = Work(decision, self._account, decode_all(planned))
            self._count_from_now(work)

    def adopt(self, decision: Decision) -> bool:
        """Begin to work on a decision whose `planned` entries are committed; whether it was taken up."""
        if decision.id in self.works:
            return False
        work = self._prepared.pop(decision.id, None)
        if work is None:
            work = self._work(decision)
            self._count_from_now(work)
            self._leave_out_what_came_after(work)
        self._forget_old()
        if work.planned is None or work.finished is not None:
            return False
        self.works[decision.id] = work
        self._watch.begun(decision, self._account, ())
        return True

    def _count_from_now(self, work: Work) -> None:
        """What is closed of its positions from here on counts for a decision: from where its plan is in the journal."""
        for line in work.lines:
            line.closed_before = self.ledger(line.key).closed

    def lines(self) -> list[Line]:
        """Every line of every work."""
        return list(chain.from_iterable(work.lines for work in self.works.values()))

    def ledger(self, key: PositionKey) -> PositionLedger:
        return self._ledgers.setdefault(key, PositionLedger())

    def expected(self) -> dict[PositionKey, Decimal]:
        """What our own orders leave of each position at work, at least. Made before the first order: nothing dear."""
        found: dict[PositionKey, Decimal] = {}
        for line in self.lines():
            if line.purpose == "reduce":
                key = (line.symbol, line.position_side)
                ledger = self._ledgers.get(key)
                before = line.decided + line.target
                found[key] = before if ledger is None else ledger.least(before)
        return found

    def record(self, entries: Sequence[Entry]) -> None:
        """Make entries durable together, and only then let each move anything.

        One that could not be folded is refused, and all with it: ForbiddenTransitionError. StoreError.
        """
        if not entries:
            return
        for entry in entries:
            self.works[entry.decision].check(entry)
        if self._held is None:
            self.write(entries)
        else:
            self._held += entries
        self.written += len(entries)
        for entry in entries:
            if not isinstance(entry, Verified):
                self.moved, self.moved_at = self.moved + 1, self._clock.monotonic()
            self.sent += isinstance(entry, Sending)
            self.works[entry.decision].apply(entry)
            self.protections.apply(entry)
            self._apply_to_ledger(self.works[entry.decision], entry)
        self._count_uncharged(entries)

    def is_news(self, entry: Entry) -> bool:
        """Whether an answer that came late says anything of its order that asking has not told meanwhile."""
        work = self.works.get(entry.decision)
        line = None if work is None else work.line_of(entry)
        if line is None:
            return False
        if entry.client_order_id in line.aside:
            return isinstance(entry, Filled | Rejected)
        telling = {
            State.SENDING: True,
            State.UNKNOWN: not isinstance(entry, Unknown),
            State.WORKING: isinstance(entry, Filled),
        }
        return entry.client_order_id == line.client_order_id and telling.get(line.state, False)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is recorded inside becomes durable in one transaction at its end; StoreError then, as from `record`.

        Nothing may leave for the venue inside: what moves here has not happened before the end.
        """
        self._held = []
        try:
            yield
        finally:
            # Also where something failed inside: what has moved here must be in the journal.
            held, self._held = self._held, None
            if held:
                self.write(held)

    def write(self, entries: Sequence[Entry]) -> None:
        """Make entries durable together, and move nothing by them. StoreError."""
        if len(entries) == 1:
            self._store.append(encode(entries[0]))
        else:
            self._store.append_all([encode(entry) for entry in entries])
        for entry in entries:
            self._watch.wrote(entry)

    def take_uncharged(self, decision: str) -> tuple[Filled, ...]:
        """What was filled of each order of a decision, where nothing has told what it was charged; told only once.

        Kept as it is written: to read it from a long journal takes time that others wait for.
        """
        return tuple(self._uncharged.pop(decision, {}).values())

    def _count_uncharged(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            name = entry.client_order_id
            if name is None or entry.account != self._account or not isinstance(entry, Filled | Charged):
                continue
            if isinstance(entry, Filled) and entry.has_unknown_fee:
                self._uncharged.setdefault(entry.decision, {})[name] = entry
            else:
                self._uncharged.get(entry.decision, {}).pop(name, None)

    def end(self, work: Work, closing: Closing) -> None:
        """A work has ended: it is remembered for a while by how it did."""
        del self.works[work.decision.id]
        if not work.decision.is_suspicion:
            self.ended[work.decision.id] = closing
        while len(self.ended) > REMEMBERED:
            del self.ended[next(iter(self.ended))]
        self._over |= dict.fromkeys((line.key for line in work.lines), self._clock.monotonic())
        self._forget_old()

    def _leave_out_what_came_after(self, work: Work) -> None:
        """What has been closed since a decision was planned counts for it, though it was taken up later."""
        counted = [line for line in work.lines if line.closed_before > 0]
        for entry in self._journal_from(work.planned or 0) if counted else ():
            for line in counted:
                if isinstance(entry, Filled) and entry.account == self._account and entry.key == line.key:
                    filled = known(entry.filled)
                    # Of a fill that cannot be read nobody knows the amount: then everything counts as closed since.
                    line.closed_before = Decimal(0) if filled is None else line.closed_before - filled

    def _forget_old(self) -> None:
        """Drop the ledgers of positions that nobody works on any more, once the venue must show what was closed."""
        prepared = (line.key for work in self._prepared.values() for line in work.lines)
        held = {line.key for line in self.lines()}.union(prepared)
        oldest = self._clock.monotonic() - self._pace.lags_for
        self._over = {key: at for key, at in self._over.items() if at > oldest and key not in held}
        self._ledgers = {key: ledger for key, ledger in self._ledgers.items() if key in held or key in self._over}

    def _apply_to_ledger(self, work: Work, entry: Entry) -> None:
        line = work.line_of(entry)
        if line is None or line.by_fills:
            return
        if isinstance(entry, Planned):
            line.closed_before = self.ledger(line.key).closed
        self.ledger(line.key).apply(entry, line.decided)

    def _beside(self) -> dict[str, Work]:
        """Every decision that has been at work on the account since the oldest of those that still are."""
        begun = min((work.planned for work in self.works.values() if work.planned is not None), default=None)
        found = dict(self.works)
        if begun is None:
            return found
        for entry in self._journal_from(begun):
            if is_end(entry) and entry.account == self._account and entry.decision not in found:
                stored = self._store.decision(entry.decision)
                if stored is not None:
                    found[entry.decision] = self._work(stored.decision)
        return found

    def _recall(self, beside: dict[str, Work]) -> None:
        """Fold the ledgers of the positions at work, from every decision that has been at work beside these.

        What an ended one has closed meanwhile counts too: the venue's positions may not show it yet.
        """
        self._ledgers = {}
        keys = {line.key for line in self.lines()}
        entries = chain.from_iterable(self._journal_of(decision) for decision in beside)
        for entry in sorted(entries, key=lambda entry: entry.sequence):
            if entry.account != self._account:
                continue
            if entry.decision in self.works:
                self.protections.apply(entry)
            if entry.key in keys:
                self._apply_to_ledger(beside[entry.decision], entry)

    def _work(self, decision: Decision) -> Work:
        journal = self._journal_of(decision.id)
        self._count_uncharged(journal)
        return Work(decision, self._account, journal)

    def _journal_of(self, decision: str) -> Sequence[Entry]:
        return decode_all(self._store.journal(decision))

    def _journal_from(self, sequence: int) -> Iterator[Entry]:
        return map(decode, self._store.journal_from(sequence))
