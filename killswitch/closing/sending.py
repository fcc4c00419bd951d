"""Which orders leave in a pass, and in which order: the acting line of each position, the worst rank first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal

from killswitch.closing.departures import Departure
from killswitch.closing.dispatch import Dispatch
from killswitch.closing.executor import Executor
from killswitch.closing.guarding import Guarding
from killswitch.closing.halts import Halts
from killswitch.closing.judging import Judging, Verdicts
from killswitch.closing.ladder import before_the_last
from killswitch.closing.life import ZERO
from killswitch.closing.line import Line, LineName
from killswitch.closing.looking import Looking
from killswitch.closing.memory import Memory
from killswitch.closing.ordering import departure, next_slice, untouched
from killswitch.closing.pace import Pace
from killswitch.closing.reconciliation import Reading
from killswitch.closing.requests import Requests
from killswitch.closing.schedule import Do, acting
from killswitch.closing.sweeping import may_sweep
from killswitch.closing.work import Work
from killswitch.model.clock import Clock
from killswitch.model.venue import VenueAdapter, VenueTraits

SLICING = 0.25
"""Seconds for which one pass lets slices follow one another, before anything else has its turn."""


class Sending:
    """Sends the orders of one account, at the pace that lines, timetables and budget leave."""

    def __init__(
        self,
        venue: VenueAdapter,
        traits: VenueTraits,
        clock: Clock,
        pace: Pace,
        requests: Requests,
        memory: Memory,
        looking: Looking,
        judging: Judging,
        executor: Executor,
        dispatch: Dispatch,
        guarding: Guarding,
        halts: Halts,
    ) -> None:
        self._venue = venue
        self._traits = traits
        self._clock = clock
        self._pace = pace
        self._requests = requests
        self._memory = memory
        self._looking = looking
        self._judging = judging
        self._executor = executor
        self._dispatch = dispatch
        self._guarding = guarding
        self._halts = halts
        self._not_before: dict[LineName, float] = {}
        self._left: dict[LineName, float] = {}
        self.held_back = False
        """Whether the last pass had an order that could not leave yet."""
        self._more_slices = False
        """Whether an order of the wave is a slice that others follow: then it is too early for a look."""
        self.room_at = math.inf
        """Monotonic seconds at which the venue may have room for what was held back; infinite if it had room."""

    async def send(self, verdicts: Verdicts, *, fresh: bool) -> None:
        """Send for the line with the smallest target on each position, the worst rank first.

        `fresh`: whether the reading is closing's own. The whole book is closed on no other.
        """
        lines = acting(self._memory.lines(), lambda line: verdicts.of(line).ends)
        self.held_back, self.room_at = False, math.inf
        if self._traits.whole_book and fresh and await self._swept(lines, verdicts):
            return
        await self._clear_the_way(lines, verdicts)
        began = self._clock.monotonic()
        self._more_slices = False
        sent = await self._leave(self._departures(lines, verdicts))
        while sent and self._clock.monotonic() - began < SLICING:
            self._more_slices = False
            slices = self._slices([each.line for each in sent], verdicts)
            sent = await self._leave(iter(slices)) if slices else ()

    def _departures(self, lines: Sequence[Line], verdicts: Verdicts) -> Iterator[Departure]:
        for line in lines:
            verdict = verdicts.of(line)
            if verdict.do is Do.SEND:
                if self._may_leave(line) and self._has_its_turn(line, verdicts):
                    held_now = self._judging.believed(line, verdicts.reading)
                    yield self._order(line, verdict.amount, held_now, verdicts.reading)
                else:
                    self.held_back = True

    async def _leave(self, due: Iterator[Departure]) -> Sequence[Departure]:
        """Send what there is room for; what has left, or nothing where something had to stay behind."""
        sent = await self._dispatch.send(due, self._look_ahead)
        now = self._clock.monotonic()
        for each in reversed(sent.stayed):
            self._memory.works[each.line.decision].timetable.stayed(each.line)
        for each in sent.departures:
            self._judging.forget(each.line)
            self._not_before[each.line.name] = now + self._pause_after(each.line)
            self._left[each.line.name] = now
        if sent.room_in is None:
            return sent.departures
        self.held_back = True
        self.room_at = now + sent.room_in
        return ()

    async def _swept(self, lines: Sequence[Line], verdicts: Verdicts) -> bool:
        """Ask the venue to close its whole book, where that is the fastest way; whether it was asked."""
        wanted = [line for line in lines if verdicts.of(line).do is Do.SEND]
        found = may_sweep(self._venue, self._traits, self._requests, wanted, self._memory, verdicts.reading)
        if found:
            await self._executor.sweep(sorted({line.decision for line in found}))
        return bool(found)

    def _has_its_turn(self, line: Line, verdicts: Verdicts) -> bool:
        turn = self._memory.works[line.decision].turn(lambda each: verdicts.of(each).ends)
        return turn is None or turn == line.key

    def _slices(self, lines: list[Line], verdicts: Verdicts) -> list[Departure]:
        """The slices that follow at once on those that filled wholly."""
        found = []
        for line in lines:
            ledger = self._memory.ledger(line.key)
            amount = next_slice(line, ledger, self._looking.instruments.get(line.symbol))
            if amount is not None and self._may_leave(line) and self._has_its_turn(line, verdicts):
                held = line.remaining if line.by_fills else ledger.anchor or ZERO
                found.append(self._order(line, amount, held, verdicts.reading, slice_after=True))
        return found

    def _order(
        self, line: Line, amount: Decimal, held: Decimal, reading: Reading | None, *, slice_after: bool = False
    ) -> Departure:
        work = self._memory.works[line.decision]
        self._more_slices |= amount + line.target < held and line.largest < line.decided
        work.timetable.left(line, self._clock.monotonic())
        seen = None if reading is None else reading.positions.get(line.key)
        instrument = self._looking.instruments.get(line.symbol)
        rule = self._traits.client_ids
        return departure(work, line, amount, held, seen, instrument, rule, slice_after=slice_after)

    async def send_on_the_decisions_word(self) -> None:
        """The account cannot be read: first orders of fresh decisions go out on the reading they were made on.

        Only where the venue itself keeps the order from opening anything, and where nothing of ours is in play.
        """
        due = (
            self._order(line, min(line.decided, line.largest), line.decided + line.target, None)
            for line in acting(self._memory.lines(), lambda _: False)
            if untouched(line, self._memory.ledger(line.key))
            and line.reduce_only
            and not line.by_fills
            and self._fresh(line)
            and self._may_leave(line)
        )
        await self._leave(due)

    def _fresh(self, line: Line) -> bool:
        decided_at = self._memory.works[line.decision].decision.as_of
        return 0 <= (self._clock.now() - decided_at).total_seconds() <= self._pace.fresh_for

    def _may_leave(self, line: Line) -> bool:
        return self._clock.monotonic() >= self.departs(self._memory.works[line.decision], line)

    def departs(self, work: Work, line: Line) -> float:
        """Monotonic seconds from which on the next order of the line may leave; infinite before its market opens."""
        if self._halts.waits(line):
            return math.inf
        return max(self._not_before.get(line.name, -math.inf), work.timetable.due(line), self._reopens(work, line))

    def _reopens(self, work: Work, line: Line) -> float:
        """When a line is tried again whose market is said to be closed, and of which no reading tells whether it is."""
        if not self._halts.refused(line) or self._halts.state(line.symbol) is not None:
            return -math.inf
        beyond = line.fruitless - before_the_last(work.ladder)
        return self._left.get(line.name, -math.inf) + self._pace.wait_after(max(1, beyond), closed=True)

    # Protection

    async def _clear_the_way(self, lines: Sequence[Line], verdicts: Verdicts) -> None:
        """Take away the protective orders that the venue says block a close, when its next order may leave."""
        refused = [line for line in lines if line.is_blocked and self._may_leave(line)]
        blocked = [line for line in refused if verdicts.of(line).do is Do.SEND]
        if blocked:
            every = self._memory.lines()
            ours = {line.client_order_id for line in every} | {name for line in every for name in line.aside}
            names = frozenset(name for name in ours if name is not None)
            await self._guarding.clear_the_way(blocked, names, verdicts.reading.positions)

    def _pause_after(self, line: Line) -> float:
        """Seconds until the line's next order: longer after each that closed nothing, once the ladder has been walked.

        One that only found no price that good is followed by the next at once; so is one that has rested.
        """
        work = self._memory.works[line.decision]
        beyond = line.fruitless - before_the_last(work.ladder)
        if line.fruitless == 0 or (line.refusal is None and (line.rests or (line.bounded and beyond <= 0))):
            return 0.0
        return self._pace.wait_after(max(1, beyond))

    def forget(self, line: Line) -> None:
        """The line is over: its waits are beside the point."""
        self._not_before.pop(line.name, None)
        self._left.pop(line.name, None)

    def _look_ahead(self) -> None:
        """Every order of a wave is answered: ask for the account while the answers are written down."""
        if not self._more_slices and self._requests.quiet_for <= 0 and self._requests.wait("snapshot") <= 0:
            self._looking.begin(self._memory.sent)
