"""Turns a decision into the targets of one account and the entries that are journaled with it."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal

from killswitch.execution.client_order_id import client_order_id as client_order_id
from killswitch.execution.report_validation import finite
from killswitch.journal.codec import encode
from killswitch.journal.entries import PlannedWork, PositionKey
from killswitch.journal.targets import PositionTarget
from killswitch.model.decision import Decision, Intent, urgency_of
from killswitch.model.snapshot import Position, Snapshot
from killswitch.model.store import JournalEntry

UNBOUNDED = Decimal("Infinity")
"""The largest order of a target where only the venue's maximum bounds it."""


def planned_entries(
    decision: Decision, *, snapshot: Snapshot | None = None, accounts: Collection[str] | None = None
) -> tuple[JournalEntry, ...]:
    """The `planned` entries committed with `decision`: one for each position, one for an account's cancels.

    There are none for a decision that only observes, and none for accounts outside `accounts` (the armed ones; None
    means all). The marks of `snapshot`, on which the decision was made, are the base for measuring delay.
    """
    if decision.mode == "observe" or decision.kind == "reset":
        return ()
    seen = () if snapshot is None else snapshot.accounts
    held = {(account.account, *each.key): each for account in seen for each in account.positions or ()}
    entries = [
        _planned(decision, target, held.get((account, *target.key)))
        for account in dict.fromkeys(intent.account for intent in decision.intents)
        for target in position_targets(decision, account)
    ]
    planned = {entry.account for entry in entries}
    entries += [PlannedWork(decision.id, decision.as_of, it) for it in decision.accounts_at_work if it not in planned]
    return tuple(encode(entry) for entry in entries if accounts is None or entry.account in accounts)


def position_targets(decision: Decision, account: str, *, is_enforced: bool = False) -> list[PositionTarget]:
    """One target for each position of `account` that the decision reduces, by rank.

    `is_enforced`: whether the account's venue is known to enforce reduce-only.

    Several intents on one position are slices of one order. What is added to the position meanwhile is closed in slices
    of that size, and in one order where the decision has only one intent for it that liquidity did not bound. A hop
    into a position that the decision closes itself is part of that close.
    """
    targets: dict[PositionKey, PositionTarget] = {}
    is_sliced = decision.unwinding is not None and decision.unwinding.is_sliced is not False
    urgency = (*urgency_of(decision.unwinding), -decision.level)
    for index, intent in enumerate(decision.intents):
        if intent.account != account:
            continue
        key = (intent.symbol, intent.position_side)
        target = targets.get(key)
        if target is None:
            targets[key] = PositionTarget(
                decision=decision.id,
                account=account,
                symbol=intent.symbol,
                position_side=intent.position_side,
                side=intent.side,
                target_size=intent.target if intent.purpose == "reduce" else Decimal(0),
                decided=_decided(intent),
                largest=intent.contracts if is_sliced or intent.purpose != "reduce" else UNBOUNDED,
                reduce_only=intent.reduce_only,
                is_enforced=is_enforced,
                rank=intent.rank,
                index=index,
                purpose=intent.purpose,
                after=intent.after,
                band=intent.band,
                at_market=intent.at_market,
                urgency=urgency,
                kept_holding=Decimal(0) if intent.after is None else intent.target,
                is_own_part=bool(intent.parts),
            )
        elif intent.purpose == target.purpose:
            before = target.largest if target.largest.is_finite() else target.decided
            target.largest = max(before, intent.contracts)
            target.decided += _decided(intent)
            target.target_size = (
                min(target.target_size, intent.target) if intent.purpose == "reduce" else target.target_size
            )
    return sorted(targets.values(), key=lambda target: (target.rank, target.index))


def _decided(intent: Intent) -> Decimal:
    """The amount that the intent trades; 0 for a second hop, whose amount is known once the sale before it is paid.

    A hop without a predecessor sells a holding on a market other than the one where it is listed.
    """
    return intent.contracts if intent.after is None else Decimal(0)


def _planned(decision: Decision, target: PositionTarget, position: Position | None) -> PlannedWork:
    mark, value = mark_and_value(position)
    head = (decision.id, decision.as_of, target.account, *target.key)
    return PlannedWork(*head, contracts=target.decided, target=target.target_size, mark=mark, value=value)


def mark_and_value(position: Position | None) -> tuple[Decimal | None, Decimal | None]:
    """The mark, and the value of one contract in account currency; None for both where one of them is unknown."""
    if position is None:
        return None, None
    mark, notional, contracts = finite(position.mark_price), finite(position.notional), finite(position.contracts)
    if mark is None or notional is None or contracts is None or contracts <= Decimal(0):
        return None, None
    return mark, abs(notional) / contracts
