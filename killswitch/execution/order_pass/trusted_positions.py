"""The account's positions for closing, from a poll or from the runner's snapshot, and whether they are trusted."""

from __future__ import annotations

import asyncio
import math

from msgspec import Struct

from killswitch.execution.account_context import AccountContext
from killswitch.execution.decide.position_trust import Contracts, Distrust, PositionTrust, TrustedBook
from killswitch.execution.report_validation import validated_rules
from killswitch.model.snapshot import AccountSnapshot, Instrument
from killswitch.ratelimit.budget import Purpose


class _TrustedSnapshot(Struct, frozen=True):
    book: TrustedBook
    at: float
    order_changes: int


class TrustedPositions:
    """The snapshots of one account, and whether they can be trusted."""

    def __init__(self, context: AccountContext) -> None:
        self._context = context
        self._trust = PositionTrust(context.pace)
        self.deciding_snapshot: tuple[AccountSnapshot, float] | None = None
        """The runner's snapshot, and when it was polled, while none of our orders was in flight.

        Decisions on it need not wait for another poll.
        """
        self.runner_snapshot: tuple[AccountSnapshot, float] | None = None
        """The runner's snapshot, and when it was polled, while orders of ours were in flight.

        It replaces a poll for which there is no budget, if no order has changed since.
        """
        self._last: _TrustedSnapshot | None = None
        self.has_new_job = False
        """Whether a decision was adopted whose orders wait for the next poll."""
        self._started_poll: tuple[asyncio.Task[AccountSnapshot | str], int, float] | None = None
        self._rules: dict[str, Instrument] = {}
        self._opened: set[str] = set()
        self.newest: AccountSnapshot | None = None
        """The newest snapshot, from the executor or the runner, of any quality."""
        self.instruments: dict[str, Instrument] = {}
        self.has_poll_failed = False
        """Whether the last poll returned no positions."""
        self.distrust: str | None = None
        """Why the last poll could not be trusted; None if it could."""

    def apply_rules(self, account: AccountSnapshot) -> None:
        """Apply the instrument rules of a snapshot."""
        self.newest, self._context.currency = account, account.currency
        for instrument in account.instruments or ():
            before = self._rules.get(instrument.symbol)
            if before != instrument:
                if before is not None and before.state == "halted" and instrument.state != "halted":
                    self._opened.add(instrument.symbol)
                self._rules[instrument.symbol] = instrument
                self.instruments[instrument.symbol] = validated_rules(instrument)

    def pop_opened(self) -> frozenset[str]:
        """The symbols that were halted and are no longer; each is returned once."""
        opened, self._opened = frozenset(self._opened), set()
        return opened

    @property
    def is_unreadable(self) -> bool:
        """Whether the runner could not poll the account a moment ago: another poll would only take time."""
        return (
            self.deciding_snapshot is not None
            and self._is_fresh(self.deciding_snapshot[1])
            and self.deciding_snapshot[0].quality != "ok"
        )

    def _is_fresh(self, at: float) -> bool:
        return self._context.monotonic() - at <= self._context.pace.longest_snapshot_age

    def pop_deciding_positions(self, expected: Contracts) -> TrustedBook | None:
        """The snapshot of the tick that decided, once, if it is fresh and can be trusted."""
        snapshot, self.deciding_snapshot = self.deciding_snapshot, None
        if snapshot is None or not self._is_fresh(snapshot[1]):
            return None
        found = self._trust.evaluate(snapshot[0], expected, self._context.monotonic())
        return found if isinstance(found, TrustedBook) and not found.unconfirmed else None

    def last_if_fresh(self, order_changes: int) -> TrustedBook | None:
        """The last trusted snapshot, if it is fresh and no order has changed since."""
        last = self._last
        return (
            last.book if last is not None and self._is_fresh(last.at) and last.order_changes == order_changes else None
        )

    def begin_poll(self, sent: int) -> None:
        """Start an account poll once every order is answered, while the answers are journaled.

        `sent`: number of orders ever sent; if more are sent, this poll is outdated.
        """
        if self._started_poll is not None:
            self._started_poll[0].cancel()  # slices were sent after it
        poll = asyncio.create_task(self._context.snapshot("closing"))
        self._started_poll = (poll, sent, self._context.monotonic())

    def purpose(self, order_changes: int) -> Purpose:
        """Closing's budget for a poll that follows orders; the polls' budget for repeated polls without changes.

        While the circuit breaker is open, new orders wait for a poll: no other request can show that the venue is back.
        """
        last = self._last
        has_waiting_job = self.has_new_job and self._context.breaker_open_for > 0
        if has_waiting_job or last is None or last.order_changes != order_changes:
            return "closing"
        age = self._context.monotonic() - last.at
        return "closing" if age >= 6 * self._context.pace.idle_poll_interval else "reading"

    @property
    def is_polling(self) -> bool:
        """Whether an account poll is in flight."""
        return self._started_poll is not None

    async def abandon(self) -> None:
        """Cancel the poll in flight."""
        if self._started_poll is not None:
            self._started_poll[0].cancel()
            await asyncio.gather(self._started_poll[0], return_exceptions=True)
            self._started_poll = None

    def pop_runner_positions(
        self, expected: Contracts, order_changes: int, order_changed_at: float, most: float = math.inf
    ) -> TrustedBook | None:
        """The runner's last snapshot, once, if it was polled after the last order change and can be trusted.

        `most`: its greatest age in seconds.
        """
        snapshot, self.runner_snapshot = self.runner_snapshot, None
        if (
            snapshot is None
            or self._context.monotonic() - snapshot[1] > most
            or snapshot[1] <= order_changed_at
            or (self._last is not None and snapshot[1] <= self._last.at)
        ):
            return None
        return self._evaluate(snapshot[0], expected, order_changes)

    async def poll(self, expected: Contracts, order_changes: int, sent: int) -> TrustedBook | None:
        """Poll the account; returns its positions if they can be trusted."""
        self.deciding_snapshot = self.runner_snapshot = None
        if self._started_poll is not None and self._started_poll[1] == sent and self._is_fresh(self._started_poll[2]):
            answer = await self._started_poll[0]
            self._started_poll = None
        else:
            await self.abandon()
            answer = await self._context.snapshot(self.purpose(order_changes))
        return self._evaluate(answer, expected, order_changes)

    def _evaluate(self, answer: AccountSnapshot | str, expected: Contracts, order_changes: int) -> TrustedBook | None:
        self.has_poll_failed = True
        if isinstance(answer, str):
            self.distrust = answer
            return None
        self.apply_rules(answer)
        now = self._context.monotonic()
        found = self._trust.evaluate(answer, expected, now)
        if isinstance(found, Distrust):
            self.distrust = found.reason
            return None
        self.has_poll_failed = False
        missing = ", ".join(sorted(" ".join(key) for key in found.unconfirmed))
        self.distrust = f"missing from the venue's answer, and not by our own orders: {missing}" if missing else None
        self._last, self.has_new_job = _TrustedSnapshot(found, now, order_changes), False
        return found
