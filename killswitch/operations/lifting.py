"""What holds a scope now, by id, which of it a `resume`, an `unlock` or a `reset` ends, and what follows a reset.

A command that loosens names the decisions that it ends, which its author has seen. So it cannot end a halt that
somebody else orders at the same moment, in whatever order the two are carried out. Where only one thing is there,
`ksctl` names it; where there are several, it lists them, and the author chooses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct

from killswitch.graph.nodes import PolicySet
from killswitch.incident.record.close_causes import command_text
from killswitch.incident.record.timeline import LOCK_ENDS
from killswitch.journal.codec import decode_all
from killswitch.journal.entries import Finished
from killswitch.model.decision import Decision
from killswitch.model.effects import Lock, locked_place, of_kind
from killswitch.model.store import Store
from killswitch.render.formats import count_of, instant
from killswitch.runner.status_blob import RunnerView
from killswitch.signals.arguments import span

Verb = Literal["resume", "unlock", "reset"]
LOOK_BACK: Final = 10_000
"""Number of the newest decisions that are searched: as many as a start restores the locks of."""
LEAST_ID: Final = 6
"""Digits by which a decision may be named."""
MEASURED: Final = "losses are measured from the equity of that moment on"
"""What it means that a reset accepts the loss."""


class ScopeHold(Struct, frozen=True):
    """One thing that holds a scope: a lock by hand, or a stage that has fired. `until`: None without end."""

    decision: str
    scope: str
    kind: Literal["hand", "pause", "stage"]
    what: str
    author: str | None
    reason: str | None
    since: datetime
    until: datetime | None = None

    @property
    def line(self) -> str:
        """The hold in one line, its id first."""
        who = f" by {self.author}" if self.author else ""
        why = f" ({self.reason})" if self.reason else ""
        end = "" if self.until is None else f", until {instant(self.until)}"
        return f"{self.decision}  {self.what}{who}{why}, since {instant(self.since)}{end}"


class UnnamedError(Exception):
    """A command that loosens does not say what it ends; the message lists what is there."""

    def __init__(self, verb: Verb, scope: str, why: str, holds: Sequence[ScopeHold]) -> None:
        self.holds = tuple(holds)
        listed = "; ".join(each.line for each in holds) or "nothing that can be named"
        super().__init__(f"{verb} of {scope}: {why}. There now: {listed}")


def manual_holds(store: Store, now: datetime) -> tuple[ScopeHold, ...]:
    """Every lock by hand in force at `now`, as ticks are dated, newest first: of locks, halts, pauses and closes."""
    return tuple(_manual_holds((each.decision for each in store.decisions(LOOK_BACK)), store, now))


def _manual_holds(newest: Iterable[Decision], store: Store, now: datetime) -> Iterator[ScopeHold]:
    for decision in newest:
        lock = of_kind(decision.effects, Lock) if decision.kind == "manual" else None
        if lock is None or (lock.order.until is not None and lock.order.until <= now):
            continue
        journal = decode_all(store.journal(decision.id))
        is_over = any(isinstance(entry, Finished) and entry.status in LOCK_ENDS for entry in journal)
        if is_over or not journal:  # without an entry it was only recorded
            continue
        yield ScopeHold(
            decision.id, decision.scope, "pause" if decision.command == "pause" else "hand",
            f"{command_text(decision)} of {locked_place(lock.order)}", decision.author, decision.reason,
            decision.as_of, lock.order.until,
        )  # fmt: skip


def holds_of(store: Store, view: RunnerView | None, scope: str, now: datetime) -> tuple[ScopeHold, ...]:
    """What holds the scope: locks by hand, and the stage in force of each policy as of the last tick (`view`)."""
    by_hand = (each for each in manual_holds(store, now) if each.scope == scope)
    stages = (
        ScopeHold(
            machine.decision, scope, "stage", f"{machine.stage} of {machine.policy}", None, None, machine.fired_at
        )
        for machine in (() if view is None else view.machines)
        if machine.scope == scope and machine.level and machine.decision and machine.fired_at
    )
    return (*by_hand, *stages)


def named(verb: Verb, scope: str, ids: Sequence[str], holds: Sequence[ScopeHold]) -> tuple[str, ...]:
    """The decisions that a command ends, by the beginnings of their ids. UnnamedError if one is of nothing there."""
    found = []
    for begin in ids:
        matching = [each.decision for each in holds if each.decision.startswith(begin) and len(begin) >= LEAST_ID]
        if len(matching) != 1:
            raise UnnamedError(verb, scope, f"{begin} names {'several' if matching else 'nothing there'}", holds)
        found += matching
    return tuple(dict.fromkeys(found))


def chosen(verb: Verb, scope: str, ids: Sequence[str], holds: Sequence[ScopeHold]) -> tuple[str, ...]:
    """The decisions that a command ends: those it names, else the only one there is. UnnamedError for several.

    None of a kind that the verb is for is no error: a lock of another program has no id.
    """
    if ids:
        return named(verb, scope, ids, holds)
    meant = [each for each in holds if verb == "reset" or (each.kind == "pause" if verb == "resume" else
                                                           each.kind != "stage")]  # fmt: skip
    if len(meant) > 1:
        every = " ".join(f"--id {each.decision}" for each in meant)
        raise UnnamedError(verb, scope, f"several things hold it, so name what it ends; all of them: {every}", meant)
    if not meant and verb == "resume":
        raise UnnamedError(verb, scope, "no pause of it is in force", holds)
    return tuple(each.decision for each in meant)


def after_resets(decisions: Collection[Decision], policies: PolicySet) -> Iterator[str]:
    """What follows each reset of these decisions: the loss is accepted, and the way back that the policies demand."""
    yield from (
        f"the reset of {each.policy} accepts the loss: {MEASURED}" for each in decisions if _is_manual_reset(each)
    )
    graphs = {each.policy: each for each in policies.graphs}
    for each in decisions:
        graph = graphs.get(each.policy)
        if graph is None or each.kind != "reset" or each.level:
            continue
        rule = graph.recovery
        if rule is None or each.previous_level < rule.level:
            yield f"{each.policy} demands no way back: its reset leaves the limits whole"
            continue
        ramp = rule.ramp
        by = f" and {count_of(ramp.approvals, 'approval')}" if ramp.approvals else ""
        yield (
            f"{each.policy} demands the way back {rule.name}: nothing is opened until its health condition has held "
            f"for {span(rule.health.hold)}, then {count_of(ramp.last, 'step')} to the whole limits, each after "
            f"{span(ramp.every)} without a warning{by}"
        )


def _is_manual_reset(decision: Decision) -> bool:
    return decision.kind == "reset" and not decision.is_unlock and not decision.level and decision.author is not None
