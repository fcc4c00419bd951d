"""Commands that hold trading back and close nothing: `lock`, `halt`, `cancel`, `pause`, and what ends locks by hand.

A halt is a lock with the cancel of every resting order that can add risk. Which orders those are is judged over the
whole account, whatever part of it the command names: an order that fits the position of its account is an exit, whoever
sent it. Of the entries, those of the command's symbols and of its side are cancelled: what would open or enlarge a
position of that side. Stops and exits are cancelled only where the command says `all_orders`. A pause of a scope is a
lock that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, HoldCommand, with_effects
from killswitch.model.effects import Cancel, Cancels, Effect
from killswitch.model.snapshot import AccountSnapshot, Event, Snapshot
from killswitch.planning.operator.closes import (
    RefusedCommandError,
    accounts_in,
    command_record,
    lock_of_command,
    part_of_command,
)
from killswitch.planning.reducing import reduced_by
from killswitch.planning.resting_orders import concerns_side, entry_indexes
from killswitch.render.formats import count_of
from killswitch.valuation.snapshot_facts import BookPart, SnapshotFacts


class ManualHold(Struct, frozen=True):
    """A halt or a cancel: its decision, and remarks on what it does not reach, and on what it leaves without a stop."""

    decision: Decision
    remarks: tuple[str, ...] = ()


def manual_lock(event: Event, snapshot: Snapshot, now: int, policies: PolicySet) -> Decision:
    """The lock that an operator puts on a scope. RefusedCommandError if no account is in the scope.

    A strategy or a symbol has a lock file of its own, whichever accounts it is traded in.
    """
    _accounts(event, snapshot, policies)
    scope = event.scope or "portfolio"
    return with_effects(command_record(event, scope, now, policies), lock_of_command(event, scope))


def manual_unlock(event: Event, now: int, policies: PolicySet) -> Decision:
    """The end of the locks that the event names, or of every lock that operators put on the scope.

    Also those of manual closes and pauses. Latches and other locks stay.
    """
    record = command_record(event, event.scope or "portfolio", now, policies)
    return replace(record, kind="reset", lifts=event.ids)


def manual_hold(
    event: Event, command: HoldCommand, snapshot: Snapshot, facts: SnapshotFacts, policies: PolicySet
) -> ManualHold:
    """A halt, a cancel or a pause of the event's scope; a pause cancels nothing. `facts`: those of the snapshot.

    RefusedCommandError if no account is in the scope. A halt locks also where no order can be read.
    """
    scope, accounts = event.scope or "portfolio", _accounts(event, snapshot, policies)
    part = part_of_command(scope, policies)
    effects: list[Effect] = [*lock_of_command(event, scope)]
    found: list[Cancel] = []
    remarks: list[str] = []
    for account in accounts if command != "pause" else ():
        if account.orders is None:
            remarks.append(f"the resting orders of {account.account} are unknown: none of them is cancelled yet")
            continue
        chosen = to_cancel(account, event, facts, part)
        found += chosen
        remarks += _unprotected(account, chosen)
    effects.append(Cancels(tuple(found)))
    record = replace(command_record(event, scope, facts.as_of, policies), command=command, cause=None)
    return ManualHold(with_effects(record, effects), tuple(remarks))


def to_cancel(
    account: AccountSnapshot, event: Event, facts: SnapshotFacts, part: BookPart | None = None
) -> tuple[Cancel, ...]:
    """The resting orders of the account that the command cancels, entries first. `part`: of the account's book.

    With unknown positions nothing plain is an entry that could be an exit.
    """
    whole = facts.of(account)
    seen = whole.sound if whole.positions_unusable is None else replace(whole.sound, positions=None)
    entries = entry_indexes(seen)
    of_part = None if part is None else {it.id for it in facts.part_of(account, part)[0].orders or ()}
    chosen = [
        Cancel(account.account, order.symbol, order.id, "entry" if index in entries else "all")
        for index, order in enumerate(seen.orders or ())
        if (event.all_orders or index in entries)
        and (of_part is None or order.id in of_part)
        and (event.symbols is None or order.symbol in event.symbols)
        and concerns_side(order, event.side, is_entry=index in entries)
    ]
    return tuple(sorted(chosen, key=lambda cancel: cancel.why != "entry"))


def _accounts(event: Event, snapshot: Snapshot, policies: PolicySet) -> Sequence[AccountSnapshot]:
    found = accounts_in(event.scope, snapshot, policies)
    if not found:
        raise RefusedCommandError(f"{event.scope or 'portfolio'} names no account of this snapshot")
    return found


def _unprotected(account: AccountSnapshot, cancels: Sequence[Cancel]) -> Iterator[str]:
    """Each position of which the cancels leave no order that reduces it, although one rests now."""
    gone = {cancel.order for cancel in cancels if cancel.why != "entry"}
    if not gone:
        return
    entries = {cancel.order for cancel in cancels if cancel.why == "entry"}
    exits = [order for order in account.orders or () if order.id not in entries]
    for position in account.positions or ():
        guards = [order for order in exits if reduced_by(order) == position.key]
        left = [order for order in guards if order.id not in gone]
        if guards and not left:
            yield (
                f"{position.contracts.normalize():f} {position.symbol} {position.side} on {account.account} is left "
                f"without a stop or an exit: {count_of(len(guards), 'order')} cancelled"
            )
