"""Closing on one account: passes over all decisions at work, until the venue itself shows every target reached.

A pass, in this order: cancel entries; ask about what is in flight; read the account; verify; send what may be
sent, the worst rank first; cancel what is left once nothing is to be closed; end what has come to an end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import chain

from killswitch.closing.cancelling import Cancelling
from killswitch.closing.executor import Executor
from killswitch.closing.ledger import PositionLedger
from killswitch.closing.life import Line, LineName, PositionKey, State
from killswitch.closing.pace import PACE, Pace
from killswitch.closing.reconciliation import Distrust, Reading, Trust
from killswitch.closing.reports import sound_rules
from killswitch.closing.schedule import WAIT, Do, Verdict, acting, judge
from killswitch.closing.work import Work, key_of
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot, Closing, Instrument
from killswitch.model.store import Journal, JournalEntry
from killswitch.model.tracing import NO_WATCH, ClosingWatch
from killswitch.model.venue import VenueAdapter

REMEMBERED = 16
"""How many ended decisions `progress` still tells of, so that no tick misses how one ended."""


class Closer:
    """Brings one account to the targets of all its decisions. Everything it knows is in the journal."""

    def __init__(
        self,
        account: str,
        venue: VenueAdapter,
        store: Journal,
        clock: Clock,
        *,
        pace: Pace = PACE,
        watch: ClosingWatch = NO_WATCH,
    ) -> None:
        """`watch` is told of every decision taken up, and of every entry once it is durable."""
        self._account = account
        self._store = store
        self._clock = clock
        self._pace = pace
        self._watch = watch
        self._works: dict[str, Work] = {}
        self._ended: dict[str, Closing] = {}
        self._ledgers: dict[PositionKey, PositionLedger] = {}
        self._instruments: dict[str, Instrument] = {}
        self._shown: dict[PositionKey, Decimal] = {}
        self._doubts: dict[LineName, tuple[int, float]] = {}
        self._not_before: dict[LineName, float] = {}
        self._trust = Trust(pace)
        self._executor = Executor(account, venue, clock, pace, self._record)
        self._cancelling = Cancelling(self._executor, clock, pace)
        self._due = 0.0
        self._written = 0
        self.distrust: str | None = None
        """Why the last pass could not rely on what the venue said; None if it could."""
        self.passes = 0
        """How many passes have been made; waiting is none."""

    async def recover(self) -> None:
        """Take up everything unfinished from the journal, and ask about every order of unknown fate once."""
        recent = [self._work(stored.decision) for stored in reversed(self._store.decisions(REMEMBERED))]
        ended = [work for work in recent if work.finished is not None]
        self._ended = {work.decision.id: work.closing({}) for work in ended}
        works = [self._work(stored.decision) for stored in self._store.unfinished()]
        self._works = {work.decision.id: work for work in works if work.planned is not None and not work.finished}
        self._recall([*self._works.values(), *ended])
        for work in self._works.values():
            self._watch.begun(work.decision, self._account, self._store.journal(work.decision.id))
        await self._ask_in_flight()

    def adopt(self, decision: Decision) -> None:
        """Begin to work on a decision whose `planned` entries are committed. One without any is not worked on."""
        if decision.id in self._works:
            return
        work = self._work(decision)
        if work.planned is not None and work.finished is None:
            self._works[decision.id] = work
            self._due = 0.0
            self._watch.begun(decision, self._account, ())

    def learn(self, account: AccountSnapshot) -> None:
        """Take the instruments' rules from a snapshot that someone else has read."""
        for instrument in account.instruments or ():
            self._instruments[instrument.symbol] = sound_rules(instrument)

    def progress(self) -> tuple[Closing, ...]:
        """What every decision at work has reached, and how the last ones ended, for the next snapshot."""
        return (*self._ended.values(), *(work.closing(self._shown) for work in self._works.values()))

    @property
    def stuck(self) -> str | None:
        """What is still being tried and achieves nothing, for a person to look at; None if there is nothing such."""
        found = (line.stuck(self._clock.now(), self._pace) for line in self._lines())
        return "; ".join(text for text in found if text is not None) or None

    async def advance(self) -> bool:
        """One pass: at most one order for each line. True while work remains.

        No error of the venue comes out of it. StoreError does, and then nothing was sent that is not journaled.
        """
        if not self._works:
            return False
        now = self._clock.monotonic()
        wait = max(self._due, self._executor.quiet_until) - now
        if wait > 0:
            await self._clock.sleep(min(wait, self._pace.breath))
            return True
        written = self._written
        await self._pass()
        self.passes += 1
        if self._written == written:
            self._due = self._clock.monotonic() + self._pace.poll
        return bool(self._works)

    async def _pass(self) -> None:
        await self._cancel(after_closing=False)
        await self._ask_in_flight()
        reading = await self._read()
        if reading is None:
            await self._send_on_the_decisions_word()
            return
        self._shown |= {line.key: reading.contracts(line.key) for line in self._lines() if self._told(line, reading)}
        self._verify(reading)
        verdicts = {line.name: self._judge(line, reading) for line in self._lines()}
        await self._send(reading, verdicts)
        await self._end(reading, verdicts)

    # Looking

    async def _ask_in_flight(self) -> None:
        for line in self._lines():
            if line.in_flight and not self._hushed():
                await self._executor.ask(line)

    async def _read(self) -> Reading | None:
        """The account's positions, if the venue's answer can be trusted."""
        if self._hushed():
            return None
        answer = await self._executor.snapshot()
        if isinstance(answer, str):
            self.distrust = answer
            return None
        self.learn(answer)
        found = self._trust.take(answer, self._expected(), self._clock.monotonic())
        if isinstance(found, Distrust):
            self.distrust = found.reason
            return None
        gone = ", ".join(sorted(" ".join(key) for key in found.doubtful))
        self.distrust = f"gone from the venue's answer, and not by our own orders: {gone}" if gone else None
        return found

    def _expected(self) -> dict[PositionKey, Decimal]:
        """What our own orders leave of each position at work, at least."""
        return {line.key: self._ledger(line.key).least(line.decided + line.target) for line in self._lines()}

    def _verify(self, reading: Reading) -> None:
        """Journal what the reading says about every line where that is news."""
        for line in self._lines():
            if not self._told(line, reading):
                continue
            shown = reading.contracts(line.key)
            reached = shown <= line.target
            if line.state is State.SETTLED or (not line.in_flight and reached is not (line.state is State.AT_TARGET)):
                self._executor.verified(line, shown)

    def _told(self, line: Line, reading: Reading) -> bool:
        return line.key not in reading.doubtful

    def _judge(self, line: Line, reading: Reading) -> Verdict:
        """The verdict on a line; one that the venue keeps contradicting our fills for is given in its favour."""
        if not self._told(line, reading):
            return WAIT
        believe = self._doubted_enough(line)
        verdict = self._verdict(line, reading, believe_venue=believe)
        if verdict.do is Do.DOUBT:
            count, since = self._doubts.get(line.name, (0, self._clock.monotonic()))
            self._doubts[line.name] = (count + 1, since)
        elif verdict.do is Do.NOTHING or not believe:
            self._doubts.pop(line.name, None)
        return verdict

    def _verdict(self, line: Line, reading: Reading, *, believe_venue: bool) -> Verdict:
        return judge(
            line,
            reading.contracts(line.key),
            self._ledger(line.key),
            self._instruments.get(line.symbol),
            attempts=self._pace.fruitless_attempts,
            believe_venue=believe_venue,
        )

    def _doubted_enough(self, line: Line) -> bool:
        count, since = self._doubts.get(line.name, (0, 0.0))
        return count >= self._pace.doubt_reads and self._clock.monotonic() - since >= self._pace.doubt_for

    # Acting

    async def _cancel(self, *, after_closing: bool, only: Work | None = None) -> None:
        if self._hushed():
            return
        works = [only] if only else list(self._works.values())
        await self._cancelling.run(
            [(work, cancel) for work in works for cancel in work.due_cancels(after_closing=after_closing)]
        )

    async def _send(self, reading: Reading, verdicts: dict[LineName, Verdict]) -> None:
        """Send for the line with the smallest target on each position, the worst rank first."""
        chosen = acting(self._lines(), verdicts)
        for line in sorted(chosen.values(), key=lambda line: (line.rank, line.index)):
            verdict = verdicts[line.name]
            if verdict.do is not Do.SEND or not self._may_send(line):
                continue
            shown = reading.contracts(line.key)
            position = shown if self._doubted_enough(line) else self._ledger(line.key).believed(shown)
            self._doubts.pop(line.name, None)
            await self._executor.send(line, verdict.amount, position, reading.positions.get(line.key))
            self._wait_after(line)

    async def _send_on_the_decisions_word(self) -> None:
        """The account cannot be read: first orders of fresh decisions go out on the reading they were made on.

        Only where the venue itself keeps the order from opening anything, and where nothing of ours is in play.
        """
        for line in sorted(acting(self._lines(), {}).values(), key=lambda line: (line.rank, line.index)):
            untouched = line.state is State.READY and self._ledger(line.key).anchor is None
            if untouched and line.reduce_only and self._fresh(line) and self._may_send(line):
                amount = min(line.decided, line.largest)
                await self._executor.send(line, amount, line.decided + line.target, None)
                self._wait_after(line)

    def _fresh(self, line: Line) -> bool:
        decided_at = self._works[line.decision].decision.as_of
        return 0 <= (self._clock.now() - decided_at).total_seconds() <= self._pace.fresh_for

    def _may_send(self, line: Line) -> bool:
        return not self._hushed() and self._clock.monotonic() >= self._not_before.get(line.name, 0.0)

    def _wait_after(self, line: Line) -> None:
        """After an order that closed nothing, the next one waits longer."""
        self._not_before[line.name] = self._clock.monotonic() + self._pace.wait_after(line.fruitless)

    def _hushed(self) -> bool:
        return self._clock.monotonic() < self._executor.quiet_until

    # Ending

    async def _end(self, reading: Reading, verdicts: dict[LineName, Verdict]) -> None:
        """End every decision whose lines the reading shows at their targets, or that can go no further.

        What it has to cancel after closing comes first; an entry may have filled meanwhile, so a pass that
        cancelled something leaves the ending to the next one, with a reading of its own.
        """
        for work in list(self._works.values()):
            found = [verdicts[line.name] for line in work.lines]
            if any(line.in_flight or line.state is State.SETTLED for line in work.lines):
                continue
            if not all(verdict.do is Do.NOTHING or verdict.ends for verdict in found):
                continue
            if work.due_cancels(after_closing=True):
                await self._cancel(after_closing=True, only=work)
                continue
            self._finish(work, found)

    def _finish(self, work: Work, verdicts: list[Verdict]) -> None:
        self._record(
            JournalEntry(
                decision=work.decision.id,
                kind="finished",
                at=self._clock.now(),
                account=self._account,
                data=work.result(verdicts, self._shown),
            )
        )
        del self._works[work.decision.id]
        self._ended[work.decision.id] = work.closing(self._shown)
        while len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]
        for line in work.lines:
            self._not_before.pop(line.name, None)
            self._doubts.pop(line.name, None)
        held = {line.key for line in self._lines()}
        self._ledgers = {key: ledger for key, ledger in self._ledgers.items() if key in held}
        self._shown = {key: shown for key, shown in self._shown.items() if key in held}

    # Remembering

    def _record(self, entry: JournalEntry) -> None:
        """Make an entry durable, and only then let it move anything; one that could not be folded is refused."""
        self._works[entry.decision].check(entry)
        self._store.append(entry)
        self._written += 1
        self._watch.wrote(entry)
        self._works[entry.decision].apply(entry)
        if (key := key_of(entry)) is not None:
            self._ledger(key).apply(entry)

    def _recall(self, works: Sequence[Work]) -> None:
        """Fold the ledgers of the positions at work, from every decision that has ever been at work beside these.

        What an ended one has closed meanwhile counts too: the venue's positions may not show it yet.
        """
        begun = min((work.planned for work in self._works.values() if work.planned is not None), default=0)
        beside = [work for work in works if work.finished is None or work.finished.sequence > begun]
        keys = {line.key for line in self._lines()}
        entries = chain.from_iterable(self._store.journal(work.decision.id) for work in beside)
        for entry in sorted(entries, key=lambda entry: entry.sequence):
            if entry.account == self._account and (key := key_of(entry)) in keys:
                self._ledger(key).apply(entry)

    def _work(self, decision: Decision) -> Work:
        return Work(decision, self._account, self._store.journal(decision.id))

    def _ledger(self, key: PositionKey) -> PositionLedger:
        return self._ledgers.setdefault(key, PositionLedger())

    def _lines(self) -> Iterator[Line]:
        return chain.from_iterable([*work.lines] for work in list(self._works.values()))
