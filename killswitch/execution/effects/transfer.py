"""Performs transfers of margin between accounts: each request is sent once, whatever becomes of its answer.

The end of the effect is journaled before its request, with the status `sent`: after a crash it is not sent again, since
nobody knows whether it arrived. A second entry has the answer: `moved`, `refused` or `unknown`. One that was not sent
within a minute of its decision is `expired`, because its amount was computed from balances that have changed since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from killswitch.execution.effects.performing import OncePerDecision, Performed, PerformerContext, Waiting
from killswitch.journal.codec import encode
from killswitch.journal.entries import Finished
from killswitch.model.alert import Alert, Alerts
from killswitch.model.decision import Decision
from killswitch.model.effects import Transfer, kind_of, of_kind, tag_of
from killswitch.model.legible import legible
from killswitch.model.snapshot import Snapshot
from killswitch.model.venue import CredentialsRefusedError, OrderRejectedError, RateLimitedError

TAG: Final = tag_of(Transfer)
VALID_FOR: Final = timedelta(minutes=1)
"""How long after its decision a transfer may be sent."""
SHOWN_FOR: Final = timedelta(days=1)
"""How long after its decision a start pages a transfer whose answer nobody has seen."""
TIMEOUT: Final = 10.0
"""Real seconds for the answer to a request; without one it is unknown whether the money has moved."""

_PROBLEMS: Final[Mapping[str, str]] = {
    "sent": "the run ended before the venue answered: it counts as made, and is not repeated",
    "unknown": "the venue's answer is unknown: it counts as made, and is not repeated",
    "refused": "the venue refused it, and nothing has moved",
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
        self._problems: list[Alert] = []
        """What has become of transfers since the last pass."""

    def recall(self, decision: Decision, status: str | None) -> None:
        is_recent = self._context.clock.now() - decision.as_of <= SHOWN_FOR
        effect = of_kind(decision.effects, Transfer)
        if status == "sent" and effect is not None and is_recent:
            self._problems.append(_problem(decision, effect, status, ""))

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> Alerts:
        alerts = await super().perform(decisions, snapshot)
        found, self._problems = tuple(self._problems), []
        return alerts + Alerts(found)

    async def attempt(self, decision: Decision, effect: Transfer) -> Performed | Waiting:
        request = self._requests.get(decision.id)
        if request is None:
            return self._send(decision, effect)
        if not request.done():
            return Waiting("the answer of the venue")
        del self._requests[decision.id]
        return self._ended(decision, effect, *request.result())

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
        request = _answer(source.send(target.name, effect.amount, transfer_id(decision)))
        self._requests[decision.id] = asyncio.create_task(request)
        return Waiting("the answer of the venue")

    def _ended(self, decision: Decision, effect: Transfer, status: str, words: str = "") -> Performed:
        if status in _PROBLEMS:
            self._problems.append(_problem(decision, effect, status, words))
        return Performed(status)

    async def abandon(self) -> None:
        for request in self._requests.values():
            request.cancel()
        await asyncio.gather(*self._requests.values(), return_exceptions=True)


async def _answer(request: Awaitable[None]) -> tuple[str, str]:
    """The status of a transfer by the venue's answer, and the words of a refusal or an error."""
    try:
        async with asyncio.timeout(TIMEOUT):
            await request
    except (OrderRejectedError, RateLimitedError, CredentialsRefusedError) as error:
        return "refused", legible(str(error) or type(error).__name__)
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises, the money may have moved
        return "unknown", legible(str(error) or type(error).__name__)
    return "moved", ""


def _problem(decision: Decision, effect: Transfer, status: str, words: str) -> Alert:
    """The page about a transfer that was not made, or may not have been."""
    what = f"{kind_of(effect).text(effect)} (decision {decision.id}): {_PROBLEMS[status]}"
    text = f"{what} ({words})" if words else what
    return Alert(f"effect/{TAG}/{decision.id}/{status}", "page", text, lasts=False)
