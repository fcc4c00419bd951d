"""What orders were charged, where the venue's answers about them leave that out: read from their fills.

Asked only once nothing is being closed, beside the passes and within the share of the limits that reading has: no order
waits for it. What cannot be read stays unknown, and the journal says why.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from killswitch.closing.breaker import Breaker
from killswitch.closing.budget import Budget
from killswitch.closing.life import ZERO, number
from killswitch.closing.memory import Memory
from killswitch.closing.pace import Pace
from killswitch.closing.reports import said, sound_fills
from killswitch.closing.requests import Requests
from killswitch.model.clock import Clock
from killswitch.model.snapshot import Fill
from killswitch.model.store import Journal, JournalEntry
from killswitch.model.venue import RateLimitedError, VenueAdapter, VenueError, traits_of

TRIES: Final = 6
"""Answers, or failures, about one order, after which what it was charged stays unknown."""
AT_ONCE: Final = 5
"""So many orders are asked about at the same time: there is no hurry."""
RECENT: Final = timedelta(hours=1)
"""After a restart only what ended so lately is asked about: venues keep fills, but a report is read on the day."""


@dataclass(slots=True)
class _Owed:
    """One order whose charge nobody has told."""

    entry: JournalEntry
    filled: Decimal
    since: float
    due: float
    tries: int = 0


class Charges:
    """The charges of one account's orders. Only where the adapter says that fills tell them is anything asked."""

    def __init__(
        self,
        account: str,
        venue: VenueAdapter,
        store: Journal,
        clock: Clock,
        pace: Pace,
        budget: Budget,
        memory: Memory,
        currency: Callable[[], str | None],
    ) -> None:
        """`currency`: what the account is counted in, as far as it has been read."""
        self._account = account
        self._venue = venue
        self._store = store
        self._clock = clock
        self._pace = pace
        # Their failures say nothing of orders: a breaker of their own keeps them from holding any back.
        self._requests = Requests(venue, clock, pace, budget, Breaker())
        self._memory = memory
        self._currency = currency
        self._wanted = traits_of(venue).fees_by_fills
        self._ended: list[tuple[str, datetime | None]] = []
        self._owed: dict[str, _Owed] = {}
        self._asking: asyncio.Task[list[tuple[_Owed, Sequence[Fill] | VenueError]]] | None = None
        self._due = -math.inf

    def recall(self) -> None:
        """After a restart: the decisions of late, whose orders may not have been asked about."""
        if self._wanted:
            since = self._clock.now() - RECENT
            self._ended = [(decision, since) for decision in self._memory.ended]

    def ended(self, decision: str) -> None:
        """The work on a decision is over."""
        if self._wanted:
            self._ended.append((decision, None))

    @property
    def wait(self) -> float:
        """Seconds until the next step makes sense; infinite while nothing is owed."""
        if not (self._ended or self._owed):
            return math.inf
        return max(0.0, self._due - self._clock.monotonic())

    async def advance(self) -> bool:
        """One step, which never waits for the venue; True while anything is owed. StoreError."""
        if (wait := self.wait) > 0:
            if wait < math.inf:
                await self._clock.sleep(min(wait, self._pace.breath))
            return wait < math.inf
        ended, self._ended = self._ended, []
        for decision, since in ended:
            self._look_up(decision, since)
        now = self._clock.monotonic()
        if self._asking is None:
            self._begin(now)
        elif self._asking.done():
            asked, self._asking = self._asking, None
            self._take(() if asked.cancelled() else asked.result(), now)
        else:
            self._due = now + self._pace.breath
        return bool(self._owed)

    def _look_up(self, decision: str, since: datetime | None) -> None:
        journal = [it for it in self._store.journal(decision) if it.account == self._account]
        told = {it.client_order_id for it in journal if it.kind == "charged"}
        now = self._clock.monotonic()
        for entry in journal:
            filled, name = number(entry.data.get("filled")), entry.client_order_id
            if entry.kind != "filled" or not filled or name is None or name in told:
                continue
            if number(entry.data.get("fee")) is None and (since is None or entry.at >= since):
                self._owed[name] = _Owed(entry, filled, now, now + self._pace.poll)

    def _begin(self, now: float) -> None:
        """Ask about some of those that are due, if there is room for it; nobody waits for the answers."""
        lost = [it for it in self._owed.values() if now - it.since > self._pace.asked_for]
        self._note((it, None, "the venue did not tell it in time") for it in lost)
        due = sorted((it for it in self._owed.values() if it.due <= now), key=lambda it: it.due)[:AT_ONCE]
        if not due or self._currency() is None:
            waits = [max(it.due - now, self._pace.breath) for it in self._owed.values()]
            self._due = now + min(waits, default=0.0)
            return
        symbols = [it.entry.symbol or "" for it in due]
        if (wait := max(self._requests.quiet_for, self._requests.wait("fills", symbols[:1], "reading"))) > 0:
            self._due = now + min(max(wait, self._pace.breath), self._pace.longest_wait)
            return
        self._asking = asyncio.create_task(self._ask(due))
        self._due = now + self._pace.breath

    async def _ask(self, due: Sequence[_Owed]) -> list[tuple[_Owed, Sequence[Fill] | VenueError]]:
        answers = await asyncio.gather(*(self._fills_of(it.entry) for it in due))
        return list(zip(due, answers, strict=True))

    async def _fills_of(self, entry: JournalEntry) -> Sequence[Fill] | VenueError:
        try:
            asked = self._venue.fills(entry.symbol or "", entry.client_order_id or "")
            return sound_fills(await self._requests.make("fills", asked, purpose="reading"))
        except VenueError as error:
            return error
        except (TypeError, AttributeError) as error:
            return VenueError(f"the answer makes no sense: {error}")

    def _take(self, answers: Iterable[tuple[_Owed, Sequence[Fill] | VenueError]], now: float) -> None:
        known: list[tuple[_Owed, Decimal | None, str | None]] = []
        for owed, answer in answers:
            if isinstance(answer, RateLimitedError):
                owed.due = now + max(self._pace.poll, answer.retry_after or 0.0)
                continue
            owed.tries += 1
            owed.due = now + min(self._pace.longest_wait, self._pace.poll * 2.0 ** (owed.tries - 1))
            if isinstance(answer, VenueError):
                why = f"asked {TRIES} times what it was charged: {said(answer)}"
            elif (listed := sum((fill.amount for fill in answer), ZERO)) < owed.filled:
                why = f"the venue lists fills of {listed:f} of it, and {owed.filled:f} were filled"
            else:
                known.append((owed, *charged(answer, self._currency())))
                continue
            if owed.tries >= TRIES:
                known.append((owed, None, why))
        self._note(known)
        self._due = min((it.due for it in self._owed.values()), default=now)

    def _note(self, known: Iterable[tuple[_Owed, Decimal | None, str | None]]) -> None:
        entries = [self._entry(owed.entry, fee, why) for owed, fee, why in known]
        if entries:
            self._memory.note(entries)
        for entry in entries:
            del self._owed[entry.client_order_id or ""]

    def _entry(self, filled: JournalEntry, fee: Decimal | None, why: str | None) -> JournalEntry:
        return JournalEntry(
            decision=filled.decision,
            kind="charged",
            at=self._clock.now(),
            account=self._account,
            symbol=filled.symbol,
            position_side=filled.position_side,
            client_order_id=filled.client_order_id,
            attempt=filled.attempt,
            data={"fee": None if fee is None else str(fee), "text": why},
        )


def charged(fills: Sequence[Fill], currency: str | None) -> tuple[Decimal | None, str | None]:
    """What `fills` were charged in the account's `currency`; or None, with what is known of it in words.

    Assets are never added up: what was paid in another one has no price here. A fee without one is in the currency.
    """
    paid: dict[str | None, Decimal] = {}
    for fill in fills:
        if fill.fee is None:
            return None, "the venue tells no fee of its fills"
        asset = currency if fill.fee_currency is None else fill.fee_currency
        paid[asset] = paid.get(asset, ZERO) + fill.fee
    others = {asset: amount for asset, amount in paid.items() if asset != currency and amount}
    if not others:
        return paid.get(currency, ZERO), None
    amounts = {asset: amount for asset, amount in paid.items() if amount}
    return None, "charged " + " and ".join(f"{amount.normalize():f} {asset}" for asset, amount in amounts.items())
