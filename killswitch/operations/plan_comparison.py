"""What two policy sets decide on the same book: the head, and the set in force or another folder.

Both are previews of one snapshot with the state of the runner. The head continues that state as a reload would: stages
in force stay so, by their names, and what a reload would do to them is stated before it happens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from killswitch.accounts.next_set import last_good
from killswitch.accounts.opening import compiled
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, decision_record
from killswitch.model.effects import Orders
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import Store
from killswitch.operations.preview import Preview, from_store, preview
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.reload.continuation import continuation
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.policy.kinds import TESTS
from killswitch.policy.loader import load_texts

Key = tuple[str, str]
"""(policy, scope), by the names of the head."""


class NoDeployedSetError(Exception):
    """The store has no set in force: no runner of this version has ticked on it."""


class OtherSet(Struct, frozen=True):
    """A policy set that a head is compared with, and its name for people."""

    name: str
    policies: PolicySet


class AgainstSet(Struct, frozen=True):
    """The preview of the other set on the same snapshot.

    `renamed`: policy of that set → its name in the head. `reload`: what a reload of the head does to what is in force,
    one line each; empty without a store.
    """

    name: str
    preview: Preview
    renamed: Mapping[str, str] = {}
    reload: tuple[str, ...] = ()


class ScopeDifference(Struct, frozen=True):
    """One scope of a policy under both sets. `is_watched`: whether each has the policy at all, the head first."""

    policy: str
    scope: str
    kind: Literal["same", "differs", "only head", "only other"]
    head: tuple[Decision, ...]
    other: tuple[Decision, ...]
    head_machine: MachineStatus | None
    other_machine: MachineStatus | None


def deployed_set(store: Store) -> OtherSet:
    """The set in force on the store, compiled again from the files that it keeps.

    NoDeployedSetError without one; PolicyProblemsError if this version cannot compile it.
    """
    found = last_good(store)
    if found is None:
        raise NoDeployedSetError(
            "the store keeps no policy set: no runner of this version has ticked on it; name a folder instead"
        )
    loaded = compiled(load_texts(found.files, without=TESTS), found.origin.commit, files=found.files)
    return OtherSet("deployed", loaded.policies)


def preview_both(
    head: PolicySet, other: OtherSet, snapshot: Snapshot, store: Store | None, armed: frozenset[str]
) -> tuple[Preview, AgainstSet]:
    """The previews of both sets on the snapshot, each with its own copy of the runner's state."""
    running, memory = from_store(other.policies, store)
    continued, _ = from_store(other.policies, store)
    change = continuation(other.policies, head)
    if store is None:
        after: Interpreter = Interpreter(head)
    else:
        continued.reload(continued.prepare(head, store.states(), store.rows))
        after = continued
    shown = preview(head, snapshot, after, memory, armed)
    before = preview(other.policies, snapshot, running, memory, armed)
    lines = () if store is None else running.preview_reload(change).lines
    return shown, AgainstSet(other.name, before, change.renamed, lines)


def differences(head: Preview, against: AgainstSet) -> tuple[ScopeDifference, ...]:
    """Every scope of a policy of either set; those that differ first, in the order of the head."""
    found = list(_differences(head, against))
    return tuple(sorted(found, key=lambda each: each.kind == "same"))


def _differences(head: Preview, against: AgainstSet) -> Iterator[ScopeDifference]:
    mine, other = _by_scope(head, {}), _by_scope(against.preview, against.renamed)
    machines = {(each.policy, each.scope): each for each in head.machines}
    others = {(against.renamed.get(each.policy, each.policy), each.scope): each for each in against.preview.machines}
    for key in dict.fromkeys((*machines, *others, *mine, *other)):
        one, two = mine.get(key, ()), other.get(key, ())
        kind: Literal["same", "differs", "only head", "only other"] = "same"
        if key in machines and key not in others:
            kind = "only head"
        elif key in others and key not in machines:
            kind = "only other"
        elif tuple(map(_essence, one)) != tuple(map(_essence, two)) or _differ(machines.get(key), others.get(key)):
            kind = "differs"
        yield ScopeDifference(*key, kind, one, two, machines.get(key), others.get(key))


def _by_scope(shown: Preview, renamed: Mapping[str, str]) -> dict[Key, tuple[Decision, ...]]:
    found: dict[Key, tuple[Decision, ...]] = {}
    for each in shown.decisions:
        if each.kind != "manual":  # a command does the same under both
            key = (renamed.get(each.policy, each.policy), each.scope)
            found[key] = (*found.get(key, ()), each)
    return found


def _essence(decision: Decision) -> tuple[object, ...]:
    """What a decision does, without its ids, its policy set and its reasons."""
    others = tuple(each for each in decision.effects if not isinstance(each, Orders))
    intents = tuple(
        (each.account, each.symbol, each.position_side, each.side, each.contracts, each.target)
        for each in decision.intents
    )
    return decision.kind, decision.mode, decision.stage, decision.level, intents, others


def _differ(one: MachineStatus | None, other: MachineStatus | None) -> bool:
    """Whether triggers, thresholds or what is in force are not the same."""
    if one is None or other is None:
        return one is not other

    def seen(machine: MachineStatus) -> tuple[object, ...]:
        triggers = {each.name: (each.signal, each.window, each.threshold, each.truth) for each in machine.triggers}
        return machine.mode, machine.level, machine.stage, machine.disabled, machine.paused, triggers

    return seen(one) != seen(other)


def comparison_record(head: Preview, against: AgainstSet) -> dict[str, object]:
    """The comparison as JSON: the other set, and each scope where the two do not decide the same."""
    found = differences(head, against)
    return {
        "name": against.name,
        "policy_set": against.preview.policies.digest,
        "commit": against.preview.policies.commit,
        "same": sum(each.kind == "same" for each in found),
        "differences": [
            {
                "policy": each.policy,
                "scope": each.scope,
                "kind": each.kind,
                "head": [decision_record(decision) for decision in each.head],
                "other": [decision_record(decision) for decision in each.other],
            }
            for each in found
            if each.kind != "same"
        ],
        "reload": against.reload,
    }
