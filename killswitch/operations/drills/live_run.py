"""A live drill: opens the declared smallest position at the real venue, and has the runner close it.

The order is on record in the store before it is sent, under a client order id that is sent once. Whatever has no answer
is asked for and never sent again. The runner closes the position by an operator command that is refused for any larger
position of the symbol, so that the drill touches none but its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.execution.client_order_id import drill_order_id, lapses_after
from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.report_validation import validated_report
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Event, Instrument
from killswitch.model.store import LIVE_DRILLS, DamagedStateError, decoded
from killswitch.model.venue import (
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RateLimitedError,
    VenueAdapter,
    VenueDownError,
    VenueError,
)
from killswitch.operations.commands import answer_to, close_status, is_pending, operator_event
from killswitch.operations.drills.live_checks import LiveOrder, RefusedDrillError, opening_order
from killswitch.policy.schema.drill import LivePosition
from killswitch.store.sql import SqlStore

LOOKS_EVERY: Final = 0.5
"""Seconds between two looks into the store, and before the second request of a kind at the venue."""
LONGEST_PAUSES: Final = (8.0, 30.0)
"""The longest seconds between two snapshots, and between two queries of the order: the runner shares their limits."""
READ_WITHIN: Final = 30.0
"""Seconds for a usable snapshot, and for one that shows what was filled."""
SENT_WITHIN: Final = 20.0
"""Seconds for the answer to the order; after that it is asked for."""
ASKED_FOR: Final = 180.0
"""Seconds for which an order without an answer is asked for."""
CLOSED_WITHIN: Final = 300.0
"""Seconds that the runner has from the command until the venue shows nothing of the position."""
NOTIFIED_WITHIN: Final = 60.0

State = Literal["announced", "opened", "closing", "closed", "not_opened", "left", "unknown"]
ENDED: Final[frozenset[State]] = frozenset({"closed", "not_opened"})
"""The states in which nothing is left at the venue. A run in any other is continued before another one begins."""


class LiveRun(Struct, frozen=True):
    """One live drill as it is on record: `announced` before its order is sent, and each later state when it is known.

    `filled`: contracts, None while unknown. `command`: the event that had the runner close it. `spent`: the ids of the
    approvals, which count once. `why`: what is known of a run that has not ended as it should.
    """

    drill: str
    order: str
    account: str
    symbol: str
    amount: Decimal
    at: datetime
    author: str
    approved_by: tuple[str, ...]
    spent: tuple[str, ...]
    state: State = "announced"
    filled: Decimal | None = None
    command: Event | None = None
    decision: str | None = None
    why: str = ""


_ENCODE = msgspec.json.Encoder(decimal_format="string").encode
_DECODE = msgspec.json.Decoder(tuple[LiveRun, ...]).decode


def live_runs(store: SqlStore) -> tuple[LiveRun, ...]:
    """The live drills on record, the oldest first. DamagedStateError if the record cannot be read: then it is not known
    which approvals are spent, and what is left at the venue."""
    blob = store.live(LIVE_DRILLS)
    found = decoded(_DECODE, blob)
    if blob is not None and found is None:
        raise DamagedStateError("the record of live drills in the store cannot be read: no live drill can begin")
    return found or ()


def state_text(run: LiveRun) -> str:
    """What is known of the position of a live drill, as a clause."""
    what = f"{run.symbol} on {run.account}"
    known = {
        "announced": f"it is not known whether order {run.order} was sent; run it with --continue",
        "opened": f"{what} is open, and no command to close it was given; run it with --continue",
        "closing": f"the close of {what} goes on, or waits for a runner; run it with --continue",
        "closed": f"nothing of {what} is left",
        "not_opened": f"nothing of {what} was opened",
        "left": f"a position in {what} is left",
        "unknown": f"what is left of {what} is unknown; run it with --continue",
    }[run.state]
    return f"{known}: {run.why}" if run.why else known


def unfinished_run(store: SqlStore) -> LiveRun | None:
    """The live drill of which something may be left at the venue; None if there is none."""
    return next((each for each in live_runs(store) if each.state not in ENDED), None)


def run_to_continue(store: SqlStore, drill: str, live: LivePosition) -> LiveRun:
    """The run that `--continue` ends. RefusedDrillError if none is left, or if it is not of this drill and position.

    The venue of another account has neither its order nor its position, which would seem to be gone.
    """
    left = unfinished_run(store)
    if left is None:
        raise RefusedDrillError(drill, ("no live drill on this store is left to continue",))
    if (left.drill, left.account, left.symbol) != (drill, live.account, live.symbol):
        why = f"what is left is {left.symbol} on {left.account} of the live drill {left.drill}: continue that one, and "
        raise RefusedDrillError(drill, (f"{why}restore its document if it was edited",))
    return left


def _pauses(longest: float) -> Iterator[float]:
    """The seconds to wait before each next request at the venue: they double."""
    pause = LOOKS_EVERY
    while True:
        yield pause
        pause = min(2 * pause, longest)


class LiveDrill:
    """Runs one live drill over an adapter of its account, next to the runner on `store`."""

    def __init__(
        self,
        store: SqlStore,
        adapter: VenueAdapter,
        clock: Clock,
        real_event: Callable[[], str | None],
        show: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`real_event`: why a real event ends the drill now, else None. `show` prints each step for the person."""
        self._store = store
        self._adapter = adapter
        self._clock = clock
        self._real_event = real_event
        self._show = show
        self._rules: dict[str, Instrument] = {}
        """Symbol → its rules: an adapter reports them once, and then what has changed."""

    async def open_and_close(
        self, drill: str, live: LivePosition, author: str, approved_by: tuple[str, ...], spent: tuple[str, ...]
    ) -> LiveRun:
        """Open the position, have it closed, and return the run as it ended.

        RefusedDrillError where it may not begin: then nothing was sent.
        """
        if (left := unfinished_run(self._store)) is not None:
            why = f"the live drill {left.drill} of {left.at:%Y-%m-%d} has not ended: run it with --continue"
            raise RefusedDrillError(drill, (why,))
        found = opening_order(await self._read(live.account), live)
        if not isinstance(found, LiveOrder):
            raise RefusedDrillError(drill, found)
        if (event := self._real_event()) is not None:
            raise RefusedDrillError(drill, (f"a real event comes first: {event}",))
        at = self._clock.now()
        order = drill_order_id(f"{drill}/{live.account}/{to_micros(at)}", self._adapter.traits.client_ids)
        run = self._keep(
            LiveRun(drill, order, live.account, live.symbol, found.amount, at, author, approved_by, spent), is_new=True
        )
        self._show(f"opening {run.amount.normalize():f} {run.symbol} on {run.account} as order {run.order}")
        return await self._close(await self._opened(run, await self._submit(run)))

    async def finish(self, run: LiveRun) -> LiveRun:
        """End what an earlier run has left: ask for its order, never send it again, and have the position closed."""
        if run.state in ("announced", "unknown"):
            run = await self._opened(run, None)
        return await self._close(run)

    # Opening

    async def _submit(self, run: LiveRun) -> OrderReport | VenueError | None:
        """Send the order, once: its report, the error of a request that certainly had no effect, else None."""
        request = OrderRequest(run.order, run.symbol, "buy", "long", run.amount, reduce_only=False)
        try:
            async with asyncio.timeout(SENT_WITHIN):
                return validated_report(await self._adapter.submit(request), run.order, run.amount)
        except (OrderRejectedError, RateLimitedError, VenueDownError) as error:
            return error
        except (VenueError, TimeoutError) as error:
            self._show(f"the order has no answer ({error or 'it took too long'}): it is asked for, and not sent again")
            return None

    async def _opened(self, run: LiveRun, answer: OrderReport | VenueError | None) -> LiveRun:
        """The run once it is known what the order did. A market order that rests is cancelled."""
        if isinstance(answer, VenueError):
            return self._keep(replace(run, state="not_opened", filled=Decimal(0), why=f"the venue took none: {answer}"))
        report = await self._final(run, answer)
        if report is None:
            why = f"it is not known whether order {run.order} arrived; `ksctl drill live --continue` asks again"
            return self._keep(replace(run, state="unknown", why=why))
        if not report.filled:
            text = "the order was not filled" if report.state != "rejected" else "the venue has no such order"
            # A list of orders may lag, or forget: the account held nothing in the symbol before.
            if (shown := await self._shown(run, wanted=Decimal(0))) != 0:
                held = "cannot be read" if shown is None else f"shows {shown.normalize():f} contracts of {run.symbol}"
                return self._keep(replace(run, state="unknown", why=f"{text}, by the venue, but {run.account} {held}"))
            return self._keep(replace(run, state="not_opened", filled=Decimal(0), why=text))
        return self._keep(replace(run, state="opened", filled=report.filled))

    async def _final(self, run: LiveRun, report: OrderReport | None) -> OrderReport | None:
        """The report of the order once it is over, of state `rejected` where the venue has no such order for certain.

        None if that is still unknown when the time to ask for it is over.
        """
        traits, began, pauses = self._adapter.traits, self._clock.monotonic(), _pauses(LONGEST_PAUSES[1])
        lapsed = lapses_after(traits.order_life, ClosingPace(), None)
        sent_ago = max(0.0, (self._clock.now() - run.at).total_seconds())
        while report is None or report.state == "open":
            waited = self._clock.monotonic() - began
            if waited > ASKED_FOR:
                return None
            try:
                if report is not None and waited > READ_WITHIN:
                    await self._adapter.cancel(run.symbol, report.id)
                found = await self._adapter.find_order(run.symbol, run.order)
                found = None if found is None else validated_report(found, run.order, run.amount)
            except VenueError:
                found = report
            else:
                if found is None and report is None and sent_ago + waited > lapsed:
                    return OrderReport("", run.order, run.symbol, "rejected", run.amount, Decimal(0))
            report = found or report
            if report is None or report.state == "open":
                await self._clock.sleep(next(pauses))
        return report

    # Closing

    async def _close(self, run: LiveRun) -> LiveRun:
        """Have the runner close what was opened, and return the run when the venue shows nothing of it."""
        if run.state in ENDED or run.state == "unknown" or run.filled is None:
            return run
        if run.command is None or run.state == "left":
            shown = await self._shown(run)
            if shown == 0 and run.state != "opened":
                return self._keep(replace(run, state="closed", why="somebody closed it meanwhile"))
            if shown != run.filled:
                return self._keep(replace(run, state="left", why=self._why_left(run, shown)))
            run = self._commanded(run)
        deadline = self._clock.monotonic() + CLOSED_WITHIN
        assert run.command is not None  # it was given above, or by the run that is continued
        while is_pending(self._store, run.command):
            if self._clock.monotonic() > deadline:
                why = f"the command {run.command.id} waits for a runner, which will close the position at its next tick"
                return self._keep(replace(run, why=why))
            await self._clock.sleep(LOOKS_EVERY)
        answer = answer_to(self._store, run.command)
        decision = next(iter(answer.decisions), None)
        if decision is None:
            why = "; ".join(each.text for each in answer.notices) or "the runner answered nothing"
            return self._keep(replace(run, state="left", why=why))
        run = self._keep(replace(run, decision=decision.id))
        return await self._flat(run, decision, deadline)

    def _commanded(self, run: LiveRun) -> LiveRun:
        """Give the runner the command that closes exactly this position, and nothing larger."""
        who = f", approved by {' and '.join(run.approved_by)}" if run.approved_by else ""
        reason = f"drill: live drill {run.drill}, opened by order {run.order}{who}"
        command = operator_event(
            "close", f"account/{run.account}", run.author, reason, self._clock.now(), cause="drill", side="long",
            symbols=(run.symbol,), most=run.filled,
        )  # fmt: skip
        run = self._keep(replace(run, state="closing", command=command))
        self._store.put_event(command)
        self._show(f"the runner closes it by the command {command.id}")
        return run

    async def _flat(self, run: LiveRun, decision: Decision, deadline: float) -> LiveRun:
        """Wait until the close has ended, and the venue shows no position; then for the message about it."""
        while close_status(self._store, decision) == "closing" and self._clock.monotonic() < deadline:
            await self._clock.sleep(LOOKS_EVERY)
        shown = await self._shown(run, wanted=Decimal(0))
        if shown != 0:
            return self._keep(replace(run, state="left", why=self._why_left(run, shown)))
        run = self._keep(replace(run, state="closed"))
        until = self._clock.monotonic() + NOTIFIED_WITHIN
        while self._is_unsent(decision) and self._clock.monotonic() < until:
            await self._clock.sleep(LOOKS_EVERY)
        return run

    def _is_unsent(self, decision: Decision) -> bool:
        at = to_micros(decision.as_of)
        return any(each.state == "pending" and each.message.at == at for each in self._store.deliveries(100))

    @staticmethod
    def _why_left(run: LiveRun, shown: Decimal | None) -> str:
        opened = "unknown" if run.filled is None else f"{run.filled.normalize():f}"
        if shown is None:
            return (
                f"{run.account} cannot be read, and {opened} contracts of {run.symbol} were opened: look at the venue"
            )
        return (
            f"{run.account} shows {shown.normalize():f} contracts of {run.symbol}, and the drill opened {opened}: part "
            "of it may be somebody else's, so that nothing more was sent; close the rest by hand"
        )

    # Reading

    async def _read(self, account: str) -> AccountSnapshot:
        """A snapshot that is usable, or the last one within the time for it."""
        until, pauses = self._clock.monotonic() + READ_WITHIN, _pauses(LONGEST_PAUSES[0])
        while True:
            found = await self._adapter.snapshot()
            self._rules |= {each.symbol: each for each in found.instruments or ()}
            if found.quality == "ok" or self._clock.monotonic() > until:
                return replace(found, account=account, instruments=tuple(self._rules.values()))
            await self._clock.sleep(next(pauses))

    async def _shown(self, run: LiveRun, wanted: Decimal | None = None) -> Decimal | None:
        """The contracts of the symbol that the venue shows, both sides added; None if that is unknown.

        It waits for `wanted`, which is what was filled where it is left out: a snapshot may be older than a fill.
        """
        until, shown, pauses = self._clock.monotonic() + READ_WITHIN, None, _pauses(LONGEST_PAUSES[0])
        expected = run.filled if wanted is None else wanted
        while self._clock.monotonic() <= until:
            found = await self._adapter.snapshot()
            if found.quality == "ok" and found.positions is not None:
                held = (each.contracts for each in found.positions if each.symbol == run.symbol)
                shown = sum(held, Decimal(0))
                if shown == expected:
                    return shown
            await self._clock.sleep(next(pauses))
        return shown

    def _keep(self, run: LiveRun, *, is_new: bool = False) -> LiveRun:
        """Put the run on record in place of its last state."""
        before = live_runs(self._store)
        after = (*before, run) if is_new else tuple(run if each.order == run.order else each for each in before)
        self._store.put_live(LIVE_DRILLS, _ENCODE(after))
        return run
