"""Performs transfers of margin between accounts: each request is sent once, whatever becomes of its answer.

The end of the effect is journaled before its request, with the status `sent`: after a crash it is not sent again, since
nobody knows whether it arrived. A second entry has the answer: `moved`, `refused` or `unknown`. One that was not sent
within a minute of its decision is `expired`, because its amount was computed from balances that have changed since.

A transfer whose answer was lost, also by a crash, is looked up at the venue where that lists transfers, until the venue
states its fate or two minutes have passed. Whatever is found, it is not sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.execution.effects.performing import OncePerDecision, Performed, PerformerContext, Waiting
from killswitch.journal.codec import encode
from killswitch.journal.entries import Finished
from killswitch.model.alert import Alert, Alerts
from killswitch.model.decision import Decision
from killswitch.model.effects import Transfer, kind_of, of_kind, tag_of
from killswitch.model.legible import legible
from killswitch.model.snapshot import Snapshot
from killswitch.model.venue import (
    CredentialsRefusedError,
    OrderRejectedError,
    RateLimitedError,
    SentTransfer,
    TransferFate,
    Transfers,
)

TAG: Final = tag_of(Transfer)
VALID_FOR: Final = timedelta(minutes=1)
"""How long after its decision a transfer may be sent."""
SHOWN_FOR: Final = timedelta(days=1)
"""How long after its decision a start pages a transfer whose answer nobody has seen."""
TIMEOUT: Final = 10.0
"""Real seconds for the answer to a request; without one it is unknown whether the money has moved."""
LOOK_UP_FOR: Final = timedelta(minutes=2)
"""How long the venue is asked for a transfer whose answer was lost."""
LOOK_UP_EVERY: Final = timedelta(seconds=5)

_PROBLEMS: Final[Mapping[str, str]] = {
    "sent": "the run ended before the venue answered: it counts as made, and is not repeated",
    "unknown": "the venue's answer is unknown: it counts as made, and is not repeated",
    "refused": "the venue refused it, and nothing has moved",
    "unverified": "nothing was sent, since the venue does not confirm the accounts that the documents declare",
    "expired": "it was not sent within a minute of its decision, and is not sent any more",
    "no_run": "no runner was alive to send it",
}
"""Status → what an operator must know; `moved` is no problem."""


def transfer_id(decision: Decision) -> str:
    """The id of a decision's transfer at the venue: letters and digits, at most 32."""
    return f"kstr{decision.id}"


class TransferPerformer(OncePerDecision[Transfer]):
    """Sends each decided transfer once, in the background, and pages what was not moved, or may not have been."""

    def __init__(self, context: PerformerContext) -> None:
        super().__init__(Transfer, context)
        self._requests: dict[str, asyncio.Task[tuple[str, str]]] = {}
        """Decision → its request, which returns the status and the words of the answer."""
        self._lost: dict[str, _LostAnswer] = {}
        """Decision → since when its transfer is looked up, and what of it is known."""
        self._problems: list[Alert] = []
        """What has become of transfers since the last pass."""

    def recall(self, decision: Decision, status: str | None) -> None:
        now, effect = self._context.clock.now(), of_kind(decision.effects, Transfer)
        if status != "sent" or effect is None or now - decision.as_of > SHOWN_FOR:
            return
        source, target = self._context.transfers.get(effect.source), self._context.transfers.get(effect.account)
        if source is None or source.find is None or target is None or not self._context.acts_on(decision):
            self._problems.append(_problem(decision, effect, status, ""))
            return
        self._open[decision.id] = (decision, effect)
        self._lost[decision.id] = _LostAnswer(now, "the run ended before the venue answered")

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> Alerts:
        alerts = await super().perform(decisions, snapshot)
        found, self._problems = tuple(self._problems), []
        return alerts + Alerts(found)

    async def attempt(self, decision: Decision, effect: Transfer) -> Performed | Waiting:
        request = self._requests.get(decision.id)
        if request is None:
            is_lost = decision.id in self._lost
            return self._look_up(decision, effect) if is_lost else self._send(decision, effect)
        if not request.done():
            return Waiting("the answer of the venue")
        del self._requests[decision.id]
        status, words = request.result()
        lost = self._lost.get(decision.id)
        if status == "unknown":
            source = self._context.transfers.get(effect.source)
            if source is not None and source.find is not None:
                self._lost[decision.id] = lost or _LostAnswer(self._context.clock.now(), words)
                return self._look_up(decision, effect)
        return self._ended(decision, effect, status, words)

    def _look_up(self, decision: Decision, effect: Transfer) -> Performed | Waiting:
        """Ask the venue for the transfer, whose answer was lost, unless that was done long enough."""
        lost, now = self._lost[decision.id], self._context.clock.now()
        if now - lost.since > LOOK_UP_FOR:
            del self._lost[decision.id]
            return self._ended(decision, effect, "unknown", lost.why)
        source, target = self._context.transfers.get(effect.source), self._context.transfers.get(effect.account)
        is_due = lost.asked is None or now - lost.asked >= LOOK_UP_EVERY
        if is_due and source is not None and source.find is not None and target is not None:
            self._lost[decision.id] = replace(lost, asked=now)
            sent = SentTransfer(target.name, effect.amount, transfer_id(decision), decision.as_of)
            self._requests[decision.id] = asyncio.create_task(_fate(source.find(sent)))
        return Waiting("the venue's list of transfers, since the answer was lost")

    def _send(self, decision: Decision, effect: Transfer) -> Performed | Waiting:
        """Send the request, unless it cannot or must not be sent any more."""
        context = self._context
        if not context.is_run:
            return self._ended(decision, effect, "no_run")
        if context.clock.now() - decision.as_of > VALID_FOR:
            return self._ended(decision, effect, "expired")
        if (why := context.store.in_memory_because) is not None:  # a restart would know nothing of it, and repeat it
            return Waiting(f"the store, whose records would be lost with the process: {why}")
        source, target = context.transfers.get(effect.source), context.transfers.get(effect.account)
        if source is None or target is None or source.place != target.place:
            return self._ended(decision, effect, "refused", "no adapter of this run moves money between the two")
        context.store.append(encode(Finished(decision.id, context.clock.now(), effect=TAG, status="sent")))
        request = _answer(source, target, effect.amount, transfer_id(decision))
        self._requests[decision.id] = asyncio.create_task(request)
        return Waiting("the answer of the venue")

    def _ended(self, decision: Decision, effect: Transfer, status: str, words: str = "") -> Performed:
        self._lost.pop(decision.id, None)
        if status in _PROBLEMS:
            self._problems.append(_problem(decision, effect, status, words))
        return Performed(status)

    async def abandon(self) -> None:
        for request in self._requests.values():
            request.cancel()
        await asyncio.gather(*self._requests.values(), return_exceptions=True)


class _LostAnswer(Struct, frozen=True):
    """A transfer that is looked up since a time, and why; `asked`: when the venue was asked last."""

    since: datetime
    why: str
    asked: datetime | None = None


async def _answer(source: Transfers, target: Transfers, amount: Decimal, transfer: str) -> tuple[str, str]:
    """Send a transfer. Its status by the venue's answer, and the words of a refusal or an error."""
    try:
        async with asyncio.timeout(TIMEOUT):
            for check in (source.check, target.check):
                if check is not None:
                    await check()
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises, nothing was sent
        return "unverified", legible(str(error) or type(error).__name__)
    try:
        async with asyncio.timeout(TIMEOUT):
            await source.send(target.name, amount, transfer)
    except (OrderRejectedError, RateLimitedError, CredentialsRefusedError) as error:
        return "refused", legible(str(error) or type(error).__name__)
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises, the money may have moved
        return "unknown", legible(str(error) or type(error).__name__)
    return "moved", ""


async def _fate(query: Awaitable[TransferFate]) -> tuple[str, str]:
    """The status of a transfer by the venue's list; `unknown` while that does not state it, or cannot be read."""
    try:
        async with asyncio.timeout(TIMEOUT):
            fate = await query
    except Exception as error:  # noqa: BLE001 - a failed query is repeated
        return "unknown", legible(str(error) or type(error).__name__)
    return {"moved": "moved", "failed": "refused"}.get(fate, "unknown"), ""


def _problem(decision: Decision, effect: Transfer, status: str, words: str) -> Alert:
    """The page about a transfer that was not made, or may not have been."""
    what = f"{kind_of(effect).text(effect)} (decision {decision.id}): {_PROBLEMS[status]}"
    text = f"{what} ({words})" if words else what
    return Alert(f"effect/{TAG}/{decision.id}/{status}", "page", text, lasts=False)
