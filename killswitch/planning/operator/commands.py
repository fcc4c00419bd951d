"""Operator commands in a tick: manual closes and saved plans, each carried out or refused with a reason.

A manual close closes the accounts that can be read, and waits for the others: each is closed on the first snapshot in
which it can be read, at most ten minutes after a tick accepted the command. It stays active until no account shows what
it names (`unfinished_closes.py`). Meanwhile its event is not consumed (`OperatorCommands.unfinished`), so that it
survives a restart: the next process continues after the decisions already made.

A stage may declare a time before which nobody resets its scope. It counts from the firing and is in the stored state,
so that no edit, reload or restart of a policy shortens it, also where the policy is gone. Meanwhile a reset or an
unlock is refused as a whole, and nothing of it is kept for later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from msgspec import Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.engine.state import reset_is_refused, stage_in_force
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, HoldCommand, Notice, decision_id
from killswitch.model.flags import is_of_policy
from killswitch.model.instant import SECOND, from_micros, to_micros
from killswitch.model.snapshot import Event
from killswitch.model.store import decoded
from killswitch.model.words import close_text
from killswitch.planning import notices
from killswitch.planning.operator.closes import (
    OPERATOR,
    ManualClose,
    Orphan,
    RefusedCommandError,
    accounts_in,
    applies,
    plan_manual_close,
)
from killswitch.planning.operator.holds import manual_hold, manual_lock, manual_unlock
from killswitch.planning.operator.reset_approvals import unapproved
from killswitch.planning.operator.saved_plan import LONGEST_WAIT, RefusedPlanError, apply_plan
from killswitch.planning.operator.unfinished_closes import PAUSES, CommandInput, Look, UnfinishedClose, look
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.planning.stage_decision import joined
from killswitch.render.formats import duration_text, instant
from killswitch.valuation.scope_view import PnlKey

SENTINEL: Final = "sentinel file"
"""The author of a halt that the existence of the sentinel has caused."""


class Commanded(Struct, frozen=True):
    """What commands bring about in a tick."""

    decisions: tuple[Decision, ...] = ()
    notices: tuple[Notice, ...] = ()

    def __add__(self, other: Commanded) -> Commanded:
        return Commanded(self.decisions + other.decisions, self.notices + other.notices)

    def add_to(self, decisions: list[Decision], issued: list[Notice]) -> None:
        """Add its decisions and notices to those of the tick."""
        decisions += self.decisions
        issued += self.notices


_NOTHING = Commanded()
_DROPPED: Final = msgjson.Decoder(dict[str, tuple[str, ...]])


def _refuse(tick: CommandInput, event: Event, text: str) -> Commanded:
    """The notice that the command was not carried out, and no decision."""
    return Commanded(notices=(notices.command_not_carried_out(event, tick.now, text),))


class OperatorCommands:
    """Applies operator commands that order something, and keeps the data that they need from earlier ticks."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies = policies
        self._applied: dict[str, Decision] = {}
        """The decisions of plans and other manual closes, by id: a plan is applied once."""
        self._by_hand: dict[str, str] = {}
        """Decision of a command that may lock → its scope."""
        self._earlier: tuple[Decision, ...] = ()
        """Manual closes of earlier runs that waited for accounts, oldest first."""
        self._given_up: dict[str, Event] = {}
        """Close → the command that gave it up."""
        self.unfinished: dict[str, UnfinishedClose] = {}
        """Event id → manual close that is not complete; the event must be kept."""
        self._stored: dict[str, tuple[str, ...]] = {}
        """Event id → the accounts that the close is no longer about, as stored."""
        self._by_sentinel: tuple[str, bool] | None = None
        """The halt that the sentinel has caused last, and whether its lock was seen in force; None: there was none."""
        self._outage: tuple[int, int] | None = None

    def reload(self, policies: PolicySet) -> None:
        """Carry out later commands by the next set; what waits goes on."""
        self._policies = policies

    def restore(
        self, past: Iterable[Decision], outage: tuple[int, int] | None = None, blob: bytes | None = None
    ) -> None:
        """Restore the applied plans and the unfinished manual closes.

        `blob`: the last one of `changed`. `outage`: start and end of the time without measurements, which does not
        shorten the wait of a close.
        """
        self._outage, self._stored = outage, decoded(_DROPPED.decode, blob) or {}
        by_hand = [decision for decision in past if decision.kind == "manual"]
        self._applied |= {decision.id: decision for decision in by_hand}
        self._by_hand |= {decision.id: decision.scope for decision in by_hand}
        self._earlier = tuple(sorted(by_hand, key=lambda each: each.as_of))
        halts = [each.id for each in self._earlier if each.author == SENTINEL and each.command == "halt"]
        self._by_sentinel = (halts[-1], True) if halts else None

    def changed(self) -> bytes | None:
        """The accounts that active closes are no longer about, to be stored with the tick; None if as at the last call.

        No restart may close again where somebody has given the close up, or what was opened after it was seen closed.
        """
        dropped = {id_: tuple(sorted(each.dropped)) for id_, each in self.unfinished.items() if each.dropped}
        if dropped == self._stored:
            return None
        self._stored = dropped
        return msgjson.encode(dropped)

    def apply(self, events: Iterable[Event], tick: CommandInput) -> Commanded:
        """Decisions and notices of new events, and of closes that are not complete."""
        events, done = tuple(events), _NOTHING
        continued = {event.id for event in events if event.kind == "close" and self._is_continued(event)}
        for event in events:
            if event.kind == "give_up" and event.decision is not None:
                done += self._give_up(event, event.decision, tick)
        for close in tuple(self.unfinished.values()):
            done += self._continue(close, tick)
        for event in events:
            if event.kind == "close" and event.id not in continued:
                done += self._close(event, tick)
            elif event.kind == "apply":
                done += self._apply(event, tick)
            elif event.kind == "lock":
                done += self._lock(event, tick)
            elif event.kind in ("halt", "cancel", "pause") and not is_of_policy(event):
                done += self._hold(event, event.kind, tick)
            elif event.kind in ("unlock", "resume") and not is_of_policy(event):
                done += self._unlock(event, tick)
        done += self._halt_by_sentinel(tick)
        self._by_hand |= {each.id: each.scope for each in done.decisions if each.kind == "manual"}
        return done

    def _halt_by_sentinel(self, tick: CommandInput) -> Commanded:
        """Halt everything while the sentinel is there, unless its last halt is in force or not written yet."""
        snapshot = tick.snapshot
        if self._by_sentinel is not None:
            halt, was_seen = self._by_sentinel
            is_seen = any(lock.decision == halt for lock in snapshot.locks)
            self._by_sentinel = (halt, was_seen or is_seen)
            if is_seen or not was_seen:
                return _NOTHING
        if snapshot.sentinel is None or not snapshot.accounts:
            return _NOTHING
        event = Event("sentinel", snapshot.as_of, "halt", author=SENTINEL, reason=snapshot.sentinel, lock="reduce_only")
        done = self._hold(event, "halt", tick)
        self._by_sentinel = (done.decisions[0].id, False)
        return done

    def _is_continued(self, event: Event) -> bool:
        """Whether an earlier run has carried out a part of the close, which goes on now."""
        before = [each for each in self._earlier if each.id == decision_id(OPERATOR, each.scope, event.id, each.as_of)]
        if not before:
            return False
        since = to_micros(before[0].as_of)
        if self._outage is not None and since <= self._outage[0] < since + LONGEST_WAIT:
            since += self._outage[1] - self._outage[0]
        dropped = set(self._stored.get(event.id, ()))
        close = UnfinishedClose(event, since, since + LONGEST_WAIT, frozenset(before[-1].waits_for) - dropped)
        close.is_continued, close.dropped = True, dropped
        for each in before:
            close.add_earlier(each)
        self.unfinished[event.id] = close
        return True

    def _close(self, event: Event, tick: CommandInput) -> Commanded:
        now = tick.now
        if event.id in self._given_up:
            scope = frozenset({event.scope or "portfolio"})
            return Commanded(notices=(notices.manual_close_given_up(self._given_up[event.id], now, scope),))
        waited = now - to_micros(event.at)
        if waited > LONGEST_WAIT:
            why = f"the command is {waited // SECOND} s old, and the book may have changed since: give it again"
            return _refuse(tick, event, f"the {close_text(event.cause)} was not carried out: {why}")
        try:
            found = self._plan(event, tick)
        except RefusedCommandError as refused:
            return _refuse(tick, event, f"the {close_text(event.cause)} was not carried out: {refused}")
        close = UnfinishedClose(event, now, now + LONGEST_WAIT, frozenset(found.unreadable))
        close.add(found.decision, found)
        if not look(close, tick, self._policies).is_complete:  # no account of it is armed
            self.unfinished[event.id] = close
        waits = (notices.manual_close_waits(event, now, why, close.until) for why in found.unreadable.values())
        return Commanded(notices=tuple(waits)) + _carried_out(event, tick, found)

    def _plan(
        self,
        event: Event,
        tick: CommandInput,
        only: Collection[str] | None = None,
        again: Collection[PnlKey] | None = None,
    ) -> ManualClose:
        found = plan_manual_close(
            event, tick.snapshot, tick.facts, tick.owners, self._policies, tick.known, only, again
        )
        if found.decision is not None:
            tick.owners.plan(found.decision)  # a further close of the tick continues below it
        return found

    def _continue(self, close: UnfinishedClose, tick: CommandInput) -> Commanded:
        """Close awaited accounts that can be read now, and what has appeared since; end the command if it is over."""
        event, done = close.event, self._close_awaited(close, tick) if close.accounts else _NOTHING
        try:
            seen = look(close, tick, self._policies)
        except RefusedCommandError:  # none of its accounts is in this snapshot
            return done
        if seen.is_complete:
            del self.unfinished[event.id]
            if close.looks:
                done += Commanded(notices=(notices.manual_close_complete(event, tick.now, close.looks),))
        elif tick.now > close.until:
            if not seen.is_closing and seen.remainder:
                del self.unfinished[event.id]
                done += Commanded(notices=(notices.manual_close_left(event, tick.now, seen.remainder),))
        elif seen.to_close and not done.decisions and tick.now >= close.again_at:
            done += self._close_further(close, seen, tick)
        return done

    def _close_further(self, close: UnfinishedClose, seen: Look, tick: CommandInput) -> Commanded:
        """Close what no earlier look showed, or what is open again; with `leverage`, look at the whole book again."""
        event, again = close.event, seen.to_close
        if event.leverage is not None:
            if seen.is_closing:
                return _NOTHING
            again = seen.shown
        try:
            found = self._plan(event, tick, {key[0] for key in again} if event.leverage is None else None, again)
        except RefusedCommandError:
            return _NOTHING  # what is left at the end is notified
        if found.decision is None:
            return _NOTHING
        close.looks += 1
        close.again_at = tick.now + int(PAUSES.after(close.looks))
        remark = f"given at {instant(from_micros(close.since))}: these positions have appeared since"
        decision = replace(found.decision, reason=joined(found.decision.reason, remark))
        close.add(decision, found)
        return _carried_out(event, tick, replace(found, decision=decision))

    def _close_awaited(self, close: UnfinishedClose, tick: CommandInput) -> Commanded:
        """Close the awaited accounts that can be read now; after the deadline none of them is waited for."""
        event, names = close.event, " and ".join(sorted(close.accounts))
        if tick.now > close.until:
            close.dropped |= close.accounts
            close.accounts = frozenset()
            text = f"the {close_text(event.cause)} no longer waits for {names}: nothing was closed there"
            return _refuse(tick, event, text)
        try:
            found = self._plan(event, tick, close.accounts)
        except RefusedCommandError:
            return _NOTHING  # none of them is in this snapshot
        if found.decision is None:
            return _NOTHING
        present = {account.account for account in tick.snapshot.accounts}
        close.accounts -= present & close.accounts - found.unreadable.keys()
        remark = f"given at {instant(from_micros(close.since))}, when {names} could not be read"
        reason = joined(found.decision.reason, remark)
        decision = replace(found.decision, reason=reason, waits_for=tuple(sorted(close.accounts)))
        close.add(decision, found)
        return _carried_out(event, tick, replace(found, decision=decision))

    def _give_up(self, event: Event, given_up: str, tick: CommandInput) -> Commanded:
        """End the wait of the close `given_up` (id of its event or of a decision) on the event's scope.

        A close that no tick has accepted yet does not start.
        """
        if event.scope is None:
            self._given_up[given_up] = event
        ended: list[Notice] = []
        for id_, close in tuple(self.unfinished.items()):
            if given_up != id_ and given_up not in close.decisions:
                continue
            named = {each.account for each in accounts_in(event.scope, tick.snapshot, self._policies)}
            awaited = close.accounts & named
            close.accounts -= awaited
            close.dropped |= named
            if awaited or given_up == id_:
                ended.append(notices.manual_close_given_up(event, tick.now, awaited or named))
            if event.scope is None:
                del self.unfinished[id_]
        return Commanded(notices=tuple(ended))

    def _lock(self, event: Event, tick: CommandInput) -> Commanded:
        if event.until is not None and to_micros(event.until) <= tick.now:
            over = f"it was to end at {instant(event.until)}, before this tick"
            return _refuse(tick, event, f"the lock by hand was not written: {over}")
        try:
            locked = manual_lock(event, tick.snapshot, tick.now, self._policies)
            return Commanded((locked,), self._names_not_held(event, tick))
        except RefusedCommandError as refused:
            return _refuse(tick, event, f"the lock by hand was not written: {refused}")

    def _hold(self, event: Event, command: HoldCommand, tick: CommandInput) -> Commanded:
        """A halt, which is a lock, or a cancel, with the cancel of what they name."""
        if event.until is not None and to_micros(event.until) <= tick.now:
            over = f"it was to end at {instant(event.until)}, before this tick"
            return _refuse(tick, event, f"the {command} was not carried out: {over}")
        try:
            found = manual_hold(event, command, tick.snapshot, tick.facts, self._policies)
        except RefusedCommandError as refused:
            return _refuse(tick, event, f"the {command} was not carried out: {refused}")
        remarks = (notices.held_with_remark(event, tick.now, each) for each in found.remarks)
        return Commanded((found.decision,), (*remarks, *self._names_not_held(event, tick)))

    def _unlock(self, event: Event, tick: CommandInput) -> Commanded:
        """The end of the locks that the command names. One that names what is no lock by hand there is refused."""
        scope = event.scope or "portfolio"
        known = self._by_hand | {it.decision: it.scope for it in tick.snapshot.locks if it.policy == OPERATOR}
        unknown = [id_ for id_ in event.ids or () if known.get(id_) != scope]
        if unknown:
            there = [it.decision for it in tick.snapshot.locks if (it.policy, it.scope) == (OPERATOR, scope)]
            listed = ", ".join(there) or "none"
            text = f"no lock by hand on {scope} is {' or '.join(unknown)}. There now: {listed}"
            return _refuse(tick, event, f"the {event.kind} was not carried out: {text}")
        return Commanded((manual_unlock(event, tick.now, self._policies),))

    def _names_not_held(self, event: Event, tick: CommandInput) -> tuple[Notice, ...]:
        """A notice if an account of the scope is known to hold none of a symbol that the command names."""
        kind, _, name = (event.scope or "").partition("/")
        named = event.symbols or ((name,) if kind == "symbol" else ())
        accounts = accounts_in(event.scope, tick.snapshot, self._policies) if named else ()
        if not accounts or any(each.positions is None or each.orders is None for each in accounts):
            return ()
        held = {row.symbol for each in accounts for row in each.positions or ()}
        held |= {order.symbol for each in accounts for order in each.orders or ()}
        missing = [symbol for symbol in named if symbol not in held]
        return (notices.symbols_not_held(event, tick.now, missing, held),) if missing else ()

    def _apply(self, event: Event, tick: CommandInput) -> Commanded:
        if event.plan is None:  # `ksctl apply` has refused it, and puts the attempt on record
            return _plan_refused(event, tick, event.reason or "no plan was given")
        try:
            decisions = apply_plan(event, tick.snapshot, tick.facts, self._policies)
        except RefusedPlanError as refused:
            return _plan_refused(event, tick, str(refused))
        before = next((self._applied[each.id] for each in decisions if each.id in self._applied), None)
        if before is not None:
            who, when = before.author or "unknown", instant(before.as_of)
            return _plan_refused(event, tick, f"it has been already, at {when} by {who}, as {before.id}")
        self._applied |= {decision.id: decision for decision in decisions}
        for decision in decisions:
            tick.owners.plan(decision)
        return Commanded(tuple(decisions))


def _plan_refused(event: Event, tick: CommandInput, why: str) -> Commanded:
    """The notice that a saved plan was not applied, and whose attempt it was."""
    return _refuse(
        tick, event, f"the saved plan was not applied: {why}; the attempt was by {event.author or 'unknown'}"
    )


def _carried_out(event: Event, tick: CommandInput, found: ManualClose) -> Commanded:
    """The decision of a close, if any, and the notices of its problems and remarks."""
    done = Commanded(() if found.decision is None else (found.decision,))
    for problem in found.problems:
        done += _refuse(tick, event, f"not closed by hand: {problem}")
    forced = (notices.forced_close(event, tick.now, f"closed by force: {it}") for it in found.remarks)
    return done + Commanded(notices=tuple(forced))


REFUSED = ("reset", "unlock", "resume")
"""The kinds of commands that are refused meanwhile."""


class Hindrances(Struct, frozen=True):
    """What of the surroundings refuses commands: each with its cause; None where there is none.

    `sentinel`: the file that halts everything. `unwritten`: records are in memory only.
    """

    sentinel: str | None = None
    unwritten: str | None = None


NO_HINDRANCES = Hindrances()


def refusals(
    events: Iterable[Event],
    evaluators: Iterable[ScopeEvaluator],
    orphans: Iterable[Orphan],
    now: int,
    hindrances: Hindrances = NO_HINDRANCES,
) -> dict[str, Notice]:
    """Event id of each command that is refused at `now` (microseconds) → the notice that says why, and until when."""
    sentinel, unwritten = hindrances.sentinel, hindrances.unwritten
    given = tuple(events)
    unrecorded = {} if unwritten is None else {
        event.id: _unrecorded(event, unwritten, now) for event in given if loosens(event)
    }  # fmt: skip
    commands = [
        event for event in given if event.kind in REFUSED and not is_of_policy(event) and event.id not in unrecorded
    ]
    if not commands:
        return unrecorded
    halted = {} if sentinel is None else {
        event.id: _halted(event, sentinel, now) for event in commands if event.scope in (None, "portfolio")
    }  # fmt: skip
    holding = [
        *((each.scope, each.state.no_reset_before, _declared_by(each))
          for each in evaluators if reset_is_refused(each.state, now)),
        *((each.scope, each.no_reset_before, f"{each.stage or 'a stage'} of {each.policy}, which is gone,")
          for each in orphans if each.no_reset_before is not None and now < each.no_reset_before),
    ]  # fmt: skip
    found = unrecorded | halted
    evaluators = tuple(evaluators)
    for event in commands:
        refusal = unapproved(event, evaluators, now)
        if refusal is not None:
            found.setdefault(event.id, refusal)
        why = [(end or now, scope, stage) for scope, end, stage in holding if applies(event, scope)]
        if why:
            found[event.id] = _refusal(event, sorted(why), now)
    return found


def loosens(event: Event) -> bool:
    """Whether a command by hand lets risk in again, whatever is in force."""
    match event.kind:
        case "reset" | "unlock":
            return True
        case "pause" | "resume":
            return (event.kind == "pause") == is_of_policy(event)  # a paused policy protects no longer
        case "flag":
            return event.is_set is False
        case "restate":
            return event.restated_as != "loss"
    return False


def _unrecorded(event: Event, unwritten: str, now: int) -> Notice:
    text = (
        f"the {event.kind} by {event.author or 'unknown'} was not carried out: it lets risk in again, and the store "
        f"cannot be written, so that a restart would not know of it ({unwritten}). Free space on its disk, "
        "or end what locks it, then give the command again. Closing, halting and stricter locks are possible meanwhile"
    )
    return notices.command_not_carried_out(event, now, text)


def _halted(event: Event, sentinel: str, now: int) -> Notice:
    text = (
        f"the {event.kind} by {event.author or 'unknown'} was not carried out: {sentinel}, and it halts everything. "
        "Remove the file first, then give the command again"
    )
    return notices.command_not_carried_out(event, now, text)


def _declared_by(evaluator: ScopeEvaluator) -> str:
    """The stage that has fired, its policy, and its place in the files."""
    stage = evaluator.machine.in_force(evaluator.state)
    name = stage_in_force(evaluator.state) or "a stage"
    place = "" if stage is None else f" ({stage.place.file}:{stage.place.line})"
    return f"{name} of {evaluator.policy}{place}"


def _refusal(event: Event, holding: Sequence[tuple[int, str, str]], now: int) -> Notice:
    last = from_micros(max(end for end, _, _ in holding))
    stages = " and ".join(f"{stage} allows none on {scope} before {instant(from_micros(end))}"
                          for end, scope, stage in holding)  # fmt: skip
    what = event.kind
    text = (
        f"the {what} by {event.author or 'unknown'} was not carried out: {stages}, in "
        f"{duration_text(last - from_micros(now))}. Nobody can lift that earlier, and the command is not kept: give it "
        "again from then on. Closing, cancelling and stricter locks are possible meanwhile"
    )
    return notices.command_not_carried_out(event, now, text)
