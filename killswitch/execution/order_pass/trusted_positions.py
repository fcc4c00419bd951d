"""The account as closing sees it: read from the venue, or taken from the tick that decided, and trusted or not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from killswitch.execution.account_context import AccountContext
from killswitch.execution.decide.position_trust import Distrust, Reading, Trust
from killswitch.execution.recorded_reports import sound_rules
from killswitch.journal.entries import PositionKey
from killswitch.model.snapshot import AccountSnapshot, Instrument
from killswitch.ratelimit.budget import Purpose


@dataclass(frozen=True, slots=True)
class _Seen:
    reading: Reading
    at: float
    moved: int


class Looking:
    """One account's readings."""

    def __init__(self, context: AccountContext) -> None:
        self._context = context
        self._trust = Trust(context.pace)
        self._given: tuple[AccountSnapshot, float] | None = None
        self._offered: tuple[AccountSnapshot, float] | None = None
        self._last: _Seen | None = None
        self._has_new_work = False
        self._begun: tuple[asyncio.Task[AccountSnapshot | str], int, float] | None = None
        self._told: dict[str, Instrument] = {}
        self._opened: set[str] = set()
        self.newest: AccountSnapshot | None = None
        """What was read last, by whomever and however good."""
        self.instruments: dict[str, Instrument] = {}
        self.is_blind = False
        """Whether the last look brought no positions."""
        self.distrust: str | None = None
        """Why the last look could not rely on what the venue said; None if it could."""

    def learn(self, account: AccountSnapshot) -> None:
        """Take the instruments' rules from a snapshot that someone else has read."""
        self.newest, self._context.currency = account, account.currency
        for instrument in account.instruments or ():
            before = self._told.get(instrument.symbol)
            if before != instrument:
                if before is not None and before.state == "halted" and instrument.state != "halted":
                    self._opened.add(instrument.symbol)
                self._told[instrument.symbol] = instrument
                self.instruments[instrument.symbol] = sound_rules(instrument)

    def take_opened(self) -> frozenset[str]:
        """The symbols that were halted and are so no longer, each told once."""
        opened, self._opened = frozenset(self._opened), set()
        return opened

    def give(self, account: AccountSnapshot, at: float) -> None:
        """What the tick asked for at `at` and has read, while nothing of ours was under way.

        Decisions on it need not wait for another look.
        """
        self._given = (account, at)

    def offer(self, account: AccountSnapshot, at: float) -> None:
        """What a tick asked for at `at` and has read while something of ours was under way.

        It stands for a look of closing's own where that has no room, if nothing has moved since it was asked for.
        """
        self._offered = (account, at)

    @property
    def was_unreadable(self) -> bool:
        """Whether the tick could not read the account a moment ago: asking once more would only take time."""
        return self._given is not None and self._is_fresh(self._given[1]) and self._given[0].quality != "ok"

    def _is_fresh(self, at: float) -> bool:
        return self._context.clock.monotonic() - at <= self._context.pace.given_for

    def take_given(self, expected: Mapping[PositionKey, Decimal]) -> Reading | None:
        """The reading of the tick that decided, once, if it is fresh and can be trusted."""
        given, self._given = self._given, None
        if given is None or not self._is_fresh(given[1]):
            return None
        found = self._trust.take(given[0], expected, self._context.clock.monotonic())
        return found if isinstance(found, Reading) and not found.doubtful else None

    def again(self, moved: int) -> Reading | None:
        """The last reading, if it is fresh and no order has moved since."""
        last = self._last
        return last.reading if last is not None and self._is_fresh(last.at) and last.moved == moved else None

    def adopted(self) -> None:
        """There is new work, whose orders wait for the next look."""
        self._has_new_work = True

    def begin(self, sent: int) -> None:
        """Ask for the account now that every order has been answered, while their answers are written down.

        `sent`: how many orders have ever left; once there are more, this look came too early.
        """
        if self._begun is not None:
            self._begun[0].cancel()  # slices have left after it
        look = asyncio.create_task(self._context.snapshot("closing"))
        self._begun = (look, sent, self._context.clock.monotonic())

    def purpose(self, moved: int) -> Purpose:
        """A look that follows orders is a part of closing; one more at what has not moved is not, for a while.

        Where requests keep failing, new orders wait for a look: nothing else that may leave can show that they would
        arrive, and questions about another order may be the ones that fail.
        """
        last = self._last
        if self._has_new_work and self._context.broken_for > 0:
            return "closing"
        news = (
            last is None
            or last.moved != moved
            or self._context.clock.monotonic() - last.at >= 6 * self._context.pace.look_again
        )
        return "closing" if news else "reading"

    @property
    def has_begun(self) -> bool:
        """Whether a look is on its way that nobody has taken."""
        return self._begun is not None

    async def abandon(self) -> None:
        """Call off a look that nobody has taken."""
        if self._begun is not None:
            self._begun[0].cancel()
            await asyncio.gather(self._begun[0], return_exceptions=True)
            self._begun = None

    def take_offered(self, expected: Mapping[PositionKey, Decimal], moved: int, moved_at: float) -> Reading | None:
        """The last tick's reading, once, if it was asked for after the last order moved and can be trusted."""
        offered, self._offered = self._offered, None
        if offered is None or offered[1] <= moved_at or (self._last is not None and offered[1] <= self._last.at):
            return None
        return self._taken(offered[0], expected, moved)

    async def look(self, expected: Mapping[PositionKey, Decimal], moved: int, sent: int) -> Reading | None:
        """The account's positions, if the venue's answer can be trusted."""
        self._given = self._offered = None
        if self._begun is not None and self._begun[1] == sent and self._is_fresh(self._begun[2]):
            answer = await self._begun[0]
            self._begun = None
        else:
            await self.abandon()
            answer = await self._context.snapshot(self.purpose(moved))
        return self._taken(answer, expected, moved)

    def _taken(
        self, answer: AccountSnapshot | str, expected: Mapping[PositionKey, Decimal], moved: int
    ) -> Reading | None:
        self.is_blind = True
        if isinstance(answer, str):
            self.distrust = answer
            return None
        self.learn(answer)
        now = self._context.clock.monotonic()
        found = self._trust.take(answer, expected, now)
        if isinstance(found, Distrust):
            self.distrust = found.reason
            return None
        self.is_blind = False
        gone = ", ".join(sorted(" ".join(key) for key in found.doubtful))
        self.distrust = f"gone from the venue's answer, and not by our own orders: {gone}" if gone else None
        self._last, self._has_new_work = _Seen(found, now, moved), False
        return found
