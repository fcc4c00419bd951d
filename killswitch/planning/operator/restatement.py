"""Restatement of an unexplained change of equity by an operator who knows its cause.

A change belongs to one account and is kept by every policy on every scope that watches it, under the same id. As a
flow, units are issued as for a transfer: the drawdown follows, and no latch and no lock is lifted. As a loss, it counts
as profit or loss, and the triggers of this tick decide on it like on any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from killswitch.model.decision import Notice
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import Event
from killswitch.planning import notices
from killswitch.planning.operator.closes import applies
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.pnl_explain.pending_changes import UnexplainedChange

MOST_SHOWN = 20
"""The maximum number of changes that are shown of a policy on a scope."""

ChangeStatus = Literal["pending", "transfer", "loss", "gain"]


class KeptChange(Struct, frozen=True):
    """A change that an operator may restate, as one policy on one scope counts it; `amount` is in `currency`.

    `counts_as`: `pending` until its cause is known, `transfer` for money that moved, else profit or loss. `determined`:
    an operator has determined it.
    """

    id: str
    policy: str
    scope: str
    account: str
    at: datetime
    amount: Decimal
    currency: str
    counts_as: ChangeStatus
    determined: bool


def kept_changes(evaluator: ScopeEvaluator) -> tuple[KeptChange, ...]:
    """The newest changes that an operator may restate, newest first."""
    return tuple(
        KeptChange(
            change.id, evaluator.policy, evaluator.scope, change.account, from_micros(change.at),
            change.converted_amount, evaluator.currency or "", _counts_as(change), change.accepted,
        )
        for change in evaluator.history.changes.newest(MOST_SHOWN)
    )  # fmt: skip


def restate(evaluator: ScopeEvaluator, event: Event, now: int) -> Notice | None:
    """Restate the event's change on this scope, and say so; None if the scope keeps none that would change."""
    change = _change_of(evaluator, event)
    if change is None or event.restated_as is None or not applies(event, evaluator.scope) or _is_so(change, event):
        return None
    before = _counts_as(change)
    evaluator.restate(change.id, event.restated_as, now)
    return notices.restated(evaluator, now, event, change, before)


def refusal(event: Event, evaluators: Iterable[ScopeEvaluator], now: int) -> Notice:
    """The notice about a restatement that changed nothing: its reason, and a way out."""
    return notices.not_restated(event, now, f"{event.change} was not restated: {_why_refused(event, evaluators)}")


def _why_refused(event: Event, evaluators: Iterable[ScopeEvaluator]) -> str:
    found = [(evaluator, change) for evaluator in evaluators if (change := _change_of(evaluator, event)) is not None]
    if event.restated_as is None:
        return "the command does not say what it is: repeat it with `--as loss` or `--as flow`"
    if not found:
        return "no scope keeps a change of this id: `ksctl status` lists those of the last 48 hours"
    here = [change for evaluator, change in found if applies(event, evaluator.scope)]
    if not here:
        scopes = " and ".join(dict.fromkeys(evaluator.scope for evaluator, _ in found))
        account = found[0][1].account
        return f"it is of account {account}, which {event.scope} does not watch: leave out --scope, or name {scopes}"
    other = "flow" if event.restated_as == "loss" else "loss"
    return f"an operator has determined it as a {event.restated_as} already: `--as {other}` reverses that"


def _change_of(evaluator: ScopeEvaluator, event: Event) -> UnexplainedChange | None:
    return None if event.change is None else evaluator.history.changes.find(event.change)


def _is_so(change: UnexplainedChange, event: Event) -> bool:
    """Whether an operator has determined the change as this already; a cause that only the rule assumes is not so."""
    return change.accepted and change.lost == (event.restated_as == "loss")


def _counts_as(change: UnexplainedChange) -> ChangeStatus:
    if change.lost:
        return "loss" if change.amount < 0 else "gain"
    return "transfer" if change.moved or change.kind == "money" else "pending"
