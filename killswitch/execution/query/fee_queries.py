"""Order fees, read from fills where the venue's order reports leave them out.

Fees are queried in the background, only while nothing is being closed, and within the polls' share of the rate limits,
so no order waits for them. A fee that cannot be read stays unknown, and the journal gives the reason.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from killswitch.execution.account_context import AccountContext, BudgetExhaustedError
from killswitch.execution.report_validation import venue_text
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.entries import Charged, Filled, known
from killswitch.journal.lifecycle import ZERO
from killswitch.model.backoff import Backoff
from killswitch.model.snapshot import Fill
from killswitch.model.venue import MalformedAnswerError, RateLimitedError, VenueError

TRIES: Final = 6
"""Answers or failures for one order, after which its fee stays unknown."""
MOST_REFUSALS: Final = 2
"""Rate-limit refusals after which all pending fees stay unknown: each refusal pauses every request to the venue."""
REFUSAL_PAUSE: Final = 300.0
"""Minimum seconds without a query after a rate-limit refusal; twice the pause that the venue asks for, if that is
longer."""
CONCURRENT_QUERIES: Final = 5
"""Orders that are queried at the same time; few, because fees are not urgent."""
RECENT: Final = timedelta(hours=1)
"""After a restart, only orders that ended within this time are queried: venues keep fills, but reports are read the
same day."""

_Fee = tuple[Decimal | None, str | None]
"""The fee of an order; or None, with a text that says what is known of it."""


class _PendingFee(Struct):
    """One order whose fee is unknown."""

    entry: Filled
    filled: Decimal
    since: float
    due: float
    tries: int = 0


class FeeQueries:
    """Queries the fees of one account's orders, where the adapter declares that fills show them."""

    def __init__(self, account: AccountContext, state: ExecutionState) -> None:
        self._account = account
        # Failed fee queries must not hold orders back, so they have a circuit breaker of their own.
        self._context, self._pace = account.with_own_breaker(), account.pace
        self._state = state
        self._pending: dict[str, _PendingFee] = {}
        self._query_task: asyncio.Task[list[tuple[_PendingFee, _Fee | str | VenueError]]] | None = None
        self._due = -math.inf
        self._refusals = 0
        self._paused_until = -math.inf

    def recover(self) -> None:
        """After a restart, queue the orders of recent decisions that may not have been queried."""
        since = self._context.clock.now() - RECENT
        for decision in self._state.ended:
            self.enqueue(decision, since)

    def enqueue(self, decision: str, since: datetime | None = None) -> None:
        """Queue a finished decision's orders of unknown fee, of those filled at `since` or later."""
        now, wanted = self._context.monotonic(), self._context.traits.fees_by_fills
        for entry in self._state.pop_without_fee(decision):
            filled, name = known(entry.filled), entry.client_order_id
            if wanted and filled and name is not None and (since is None or entry.at >= since):
                self._pending[name] = _PendingFee(entry, filled, now, now + self._pace.poll_interval)
        self._due = min(self._due, now + self._pace.poll_interval)

    @property
    def is_pending(self) -> bool:
        """Whether any fee is still to be queried."""
        return bool(self._pending)

    @property
    def wait(self) -> float:
        """Seconds until the next step is due; infinite while no fee is pending."""
        return max(0.0, self._due - self._context.monotonic()) if self._pending else math.inf

    async def advance(self) -> None:
        """Run one step, which never waits for the venue. StoreError."""
        if (wait := self.wait) > 0:
            if wait < math.inf:
                await self._context.clock.sleep(min(wait, self._pace.longest_sleep))
            return
        now = self._context.monotonic()
        if self._query_task is None:
            self._begin(now)
        elif self._query_task.done():
            completed, self._query_task = self._query_task, None
            self._apply_answers(() if completed.cancelled() else completed.result(), now)
        else:
            self._due = now + self._pace.longest_sleep

    def abandon(self) -> asyncio.Future[Any] | None:
        """Cancel the queries in flight; returns the task that ends with them. The next run queries again."""
        task, self._query_task = self._query_task, None
        if task is not None:
            task.cancel()
        return task

    def _begin(self, now: float) -> None:
        """Start queries that are due, if there is budget; nothing waits for the answers."""
        if now >= self._paused_until and self._context.paused_for > 0:
            # The venue requested a pause: the next request must not be a fee query, which can wait.
            self._pause(now)
        pause = self._paused_until - now
        overdue = [it for it in self._pending.values() if now - it.since > self._pace.abandon_after]
        paused = "the venue rate-limited requests, and no further fee was queried"
        late = "the venue did not return it in time"
        self._record((it, None, paused if self._paused_until > it.since else late) for it in overdue)
        due = sorted((it for it in self._pending.values() if it.due <= now), key=lambda it: it.due)[:CONCURRENT_QUERIES]
        if pause > 0:
            wait = pause
        elif not due:
            wait = min((it.due - now for it in self._pending.values()), default=0.0)
        elif self._account.currency is None:
            wait = self._pace.poll_interval
        else:
            wait = self._context.wait("fills", (due[0].entry.symbol or "",), "reading")
        if due and wait <= 0:
            self._query_task = asyncio.create_task(self._query(due))
        self._due = now + min(max(wait, self._pace.longest_sleep), self._pace.longest_wait)

    def _pause(self, now: float) -> None:
        self._paused_until = max(self._paused_until, now + max(REFUSAL_PAUSE, 2 * self._context.paused_for))

    async def _query(self, due: Sequence[_PendingFee]) -> list[tuple[_PendingFee, _Fee | str | VenueError]]:
        answers = await asyncio.gather(*map(self._fee_of, due))
        return list(zip(due, answers, strict=True))

    async def _fee_of(self, pending: _PendingFee) -> _Fee | str | VenueError:
        """The fee of an order; a text if the venue does not show all fills yet; or the error of the query."""
        try:
            fills = await self._context.fills(
                pending.entry.symbol or "", pending.entry.client_order_id or "", "reading"
            )
            if (listed := sum((fill.amount for fill in fills), ZERO)) < pending.filled:
                return f"the venue lists fills of {listed:f} contracts, and {pending.filled:f} were filled"
            return total_fee(fills, self._account.currency)
        except VenueError as error:
            return error
        except Exception as error:  # noqa: BLE001 - an adapter's defect leaves this fee unknown, and nothing else
            return MalformedAnswerError(f"malformed answer: {type(error).__name__}: {error}")

    def _apply_answers(self, answers: Iterable[tuple[_PendingFee, _Fee | str | VenueError]], now: float) -> None:
        pace = self._context.pace
        answered: list[tuple[_PendingFee, Decimal | None, str | None]] = []
        refused: RateLimitedError | None = None
        for pending, answer in answers:
            if isinstance(answer, tuple):
                answered.append((pending, *answer))
                continue
            if isinstance(answer, BudgetExhaustedError):
                pending.due = now + min(pace.longest_wait, max(pace.poll_interval, answer.retry_after or 0.0))
                continue
            if isinstance(answer, RateLimitedError):
                refused = answer
            pending.tries += 1
            pending.due = now + Backoff(pace.poll_interval, pace.longest_wait).after(pending.tries)
            if pending.tries >= TRIES:
                prefix = f"the fee was queried {TRIES} times: " if isinstance(answer, VenueError) else ""
                answered.append((pending, None, prefix + venue_text(answer)))
        self._record(answered)
        if refused is not None:
            # Each refusal pauses closes, too, so a second one must be rare.
            self._refusals += 1
            self._pause(now)
            if self._refusals >= MOST_REFUSALS:
                why = f"the venue rate-limited {MOST_REFUSALS} fee queries: {venue_text(refused)}"
                self._record([(it, None, why) for it in self._pending.values()])
        self._due = min((it.due for it in self._pending.values()), default=now)

    def _record(self, answered: Iterable[tuple[_PendingFee, Decimal | None, str | None]]) -> None:
        now, account = self._context.clock.now(), self._context.account
        entries = []
        for pending, fee, why in answered:
            filled = pending.entry
            place = (account, filled.symbol, filled.position_side, filled.client_order_id, filled.attempt)
            entries.append(Charged(filled.decision, now, *place, fee=fee, text=why))
        if entries:
            self._state.write(entries)
        for entry in entries:
            del self._pending[entry.client_order_id or ""]
        if not self._pending:
            self._refusals = 0


def total_fee(fills: Sequence[Fill], currency: str | None) -> tuple[Decimal | None, str | None]:
    """The total fee of `fills` in the account's `currency`; or None, with a text that says what is known of it.

    Amounts in different assets are never added: another asset has no price here. A fee without an asset is in
    `currency`.
    """
    paid: dict[str | None, Decimal] = {}
    for fill in fills:
        if fill.fee is None:
            return None, "the venue's fills carry no fee"
        asset = currency if fill.fee_currency is None else fill.fee_currency
        paid[asset] = paid.get(asset, ZERO) + fill.fee
    amounts = {asset: amount for asset, amount in paid.items() if amount}
    if amounts.keys() <= {currency}:
        return paid.get(currency, ZERO), None
    text = " and ".join(f"{amount.normalize():f} {asset}" for asset, amount in amounts.items())
    return None, venue_text(f"charged {text}")
