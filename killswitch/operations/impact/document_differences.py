"""Differences of two sets of documents, and what may be stated of those that the proof does not compare.

The proof compares compiled policies. What it does not compare (accounts, rankings, routes, sessions, runbooks, …) and
differs is undecided, never equivalent, and a document that is no longer loaded is a loosening, for whatever reason it
is not. Texts are compared as they are read: comments, layout and the spelling of a value are no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from killswitch.graph.compile import canonical
from killswitch.model.applied_set import ChangeClass
from killswitch.model.legible import shortened
from killswitch.operations.impact.policy_side import PolicySide
from killswitch.policy.kinds import TESTS
from killswitch.policy.loader import Document, FaultyDocument
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.yaml.parser import Node

DocumentChange = Literal["no longer loaded", "changed", "added"]
HIDDEN = "(not shown)"
SHOWN = frozenset(
    {
        "Policy",
        "Ranking",
        "CorrelationGroup",
        "Unwinding",
        "DeadMansSwitch",
        "CatastropheStop",
        "Strategy",
        "HedgeGroup",
        "Session",
        "Limits",
        "RecoveryPlan",
    }
)
"""The kinds whose values are shown: those of accounts and routes may name what is not for every reader."""
PROVED = frozenset({"Policy"})
"""The kinds whose changes the proof classifies."""
OUTSIDE_PROOF: Mapping[str, str] = {
    "Account": "which accounts there are, and how they are read and armed, is outside the proof",
    "Ranking": "the proof compares a ranking only where a policy closes by it",
    "CorrelationGroup": "the proof compares a group only where a policy closes by it",
    "HedgeGroup": "the proof compares a hedge only where a policy closes a part of the book",
    "Session": "the hours of a session are outside the proof",
    "NotificationRoute": "who is notified is outside the proof",
    "NotificationTree": "who is notified is outside the proof",
    "Silence": "who is notified is outside the proof",
    "Runbook": "what a page instructs people to do is outside the proof",
    "Unwinding": "the proof compares an unwinding only where a policy closes by it",
    "DeadMansSwitch": "the proof compares a switch as it is written",
    "CatastropheStop": "the proof compares a stop as it is written",
    "Limits": "the proof compares limits as they are written",
    "RecoveryPlan": "the proof compares a way back as it is written",
    "Strategy": "what a strategy owns changes the signals themselves",
}
"""Kind → why the proof alone cannot state that a change of it is none."""
LONGEST_VALUE = 60


class KeyDifference(Struct, frozen=True):
    """One key that differs; None where it is not written. `path`: keys and names, joined by dots."""

    path: str
    base: str | None
    head: str | None
    is_whole: bool = False
    """Whether it is a trigger or a stage with all its keys."""

    @property
    def is_removed_trigger(self) -> bool:
        """Whether it is a trigger that head no longer has."""
        return self.is_whole and self.head is None and self.path.startswith("spec.triggers.")


class DocumentDifference(Struct, frozen=True):
    """One document that differs. `verdict`: of what the proof does not compare; None where the proof classifies it."""

    kind: str
    name: str
    change: DocumentChange
    place: str
    keys: tuple[KeyDifference, ...]
    verdict: ChangeClass | None
    why: str


def document_differences(base: PolicySide, head: PolicySide) -> tuple[DocumentDifference, ...]:
    """All documents that differ: those with removed triggers and those that are no longer loaded first."""
    before, after = _named(base), _named(head)
    found = []
    for key in sorted({*before, *after}):
        one, other = before.get(key), after.get(key)
        if one is None and other is not None:
            found.append(_added(head, other))
        elif one is not None and other is None:
            found.append(_no_longer_loaded(base, head, one))
        elif one is not None and other is not None and _differ(one, other):
            found.append(_changed(head, one, other))
    return tuple(sorted(found, key=_rank))


def combined(verdicts: Iterable[ChangeClass]) -> ChangeClass:
    """The class of several changes together."""
    found = set(verdicts)
    if "NEITHER" in found or {"LOOSENING", "TIGHTENING"} <= found:
        return "NEITHER"
    order: tuple[ChangeClass, ...] = ("UNDECIDED", "LOOSENING", "TIGHTENING")
    return next((each for each in order if each in found), "EQUIVALENT")


def _rank(each: DocumentDifference) -> tuple[int, str, str]:
    removed = any(key.is_removed_trigger for key in each.keys)
    ranks = {"no longer loaded": 1, "changed": 2, "added": 3}
    return 0 if removed else ranks[each.change], each.kind, each.name


def _named(side: PolicySide) -> dict[tuple[str, str], Document | FaultyDocument]:
    everything: Sequence[Document | FaultyDocument] = (*side.loaded.documents, *side.loaded.faulty)
    return {(each.kind, each.name): each for each in everything if each.name is not None}


def _differ(one: Document | FaultyDocument, other: Document | FaultyDocument) -> bool:
    if isinstance(one, FaultyDocument) or isinstance(other, FaultyDocument):
        return True
    if one.kind in TESTS:  # they have no canonical text, because no digest contains them
        return one.model != other.model
    return canonical(one.model) != canonical(other.model)


def _added(head: PolicySide, each: Document | FaultyDocument) -> DocumentDifference:
    verdict: ChangeClass | None = None if each.kind in PROVED else "UNDECIDED"
    why = "" if each.kind in PROVED else OUTSIDE_PROOF.get(each.kind, "its kind is outside the proof")
    if each.kind in TESTS:
        verdict, why = "TIGHTENING", "one more demand on the policies; it is no part of what runs"
    return DocumentDifference(each.kind, each.name or "", "added", head.place(each), (), verdict, why)


def _no_longer_loaded(base: PolicySide, head: PolicySide, each: Document | FaultyDocument) -> DocumentDifference:
    why = _why_not_loaded(base, head, each)
    return DocumentDifference(each.kind, each.name or "", "no longer loaded", base.place(each), (), "LOOSENING", why)


def _why_not_loaded(base: PolicySide, head: PolicySide, each: Document | FaultyDocument) -> str:
    """Why head does not load a document of base."""
    file = base.place(each).rpartition(":")[0]
    behind = next((it for it in head.skipped if file == it.path or file.startswith(f"{it.path}/")), None)
    if behind is not None:
        return f"{behind.path} is {behind.why} now, which is not followed"
    if file in head.paths:
        renamed = next((it for it in head.left_out if it.name is None and file in it.problem), None)
        return f"{file} no longer holds it" if renamed is None else f"it cannot be read: {renamed.problem}"
    return f"{file} is not there any more, or is not read under its new name"


def _changed(head: PolicySide, one: Document | FaultyDocument, other: Document | FaultyDocument) -> DocumentDifference:
    keys = tuple(_key_differences(one, other))
    verdict: ChangeClass | None = "UNDECIDED"
    why = OUTSIDE_PROOF.get(one.kind, "its kind is outside the proof")
    if isinstance(one, FaultyDocument) or isinstance(other, FaultyDocument):
        why = "it does not compile on one side"
    elif one.kind in PROVED:
        verdict, why = None, ""
    elif one.kind in TESTS:
        why = "it demands something else of the policies; whether less is not known"
    elif isinstance(one.model, AccountDocument) and isinstance(other.model, AccountDocument):
        verdict, why = _of_accounts(one.model, other.model, why)
    return DocumentDifference(one.kind, one.name or "", "changed", head.place(other), keys, verdict, why)


def _of_accounts(one: AccountDocument, other: AccountDocument, why: str) -> tuple[ChangeClass, str]:
    executions = (one.spec.execution, other.spec.execution)
    same = one.model_copy(update={"spec": one.spec.model_copy(update={"execution": other.spec.execution})}) == other
    if executions == ("live", "observe"):
        return ("LOOSENING" if same else "NEITHER"), "the account is only observed: nothing is closed on it any more"
    if executions == ("observe", "live") and same:
        return "TIGHTENING", "the account is armed"
    return "UNDECIDED", why


# -- keys --------------------------------------------------------------------------------------------------------


def _key_differences(one: Document | FaultyDocument, other: Document | FaultyDocument) -> Iterator[KeyDifference]:
    """Every key that differs as written; lists of named things are compared by name, and a trigger or a stage that is
    on one side only is one difference."""
    before, after = (dict(_leaves(each.source.node(()))) for each in (one, other))
    wholes = [{path[:3] for path in leaves if path[:2] in _WHOLE} for leaves in (before, after)]
    for whole in sorted(wholes[0] ^ wholes[1]):
        texts = [
            _summary(leaves, whole) if whole in known else None
            for leaves, known in zip((before, after), wholes, strict=True)
        ]
        yield KeyDifference(".".join(whole), _value(texts[0], one.kind), _value(texts[1], one.kind), is_whole=True)
    for path in sorted({*before, *after}):
        ours, theirs = before.get(path), after.get(path)
        if ours != theirs and path[:3] not in wholes[0] ^ wholes[1]:
            yield KeyDifference(".".join(path), _value(ours, one.kind), _value(theirs, one.kind))


Leaf = tuple[str, ...]
_WHOLE = (("spec", "triggers"), ("spec", "stages"))


def _summary(leaves: Mapping[Leaf, str], whole: Leaf) -> str:
    parts = (f"{'.'.join(path[3:])}: {text}" for path, text in leaves.items() if path[:3] == whole)
    return ", ".join(part for part in parts if not part.startswith("name: "))


def _value(text: str | None, kind: str) -> str | None:
    if text is None or kind in SHOWN:
        return None if text is None else shortened(text, LONGEST_VALUE)
    return HIDDEN


def _leaves(node: Node | None, path: Leaf = ()) -> Iterator[tuple[Leaf, str]]:
    """Every scalar, and every list of scalars, with its path."""
    if node is None:
        return
    if node.pairs is not None:
        for key, (_, value) in node.pairs.items():
            yield from _leaves(value, (*path, key))
    elif node.items is not None:
        names = [_name_of(each, number) for number, each in enumerate(node.items)]
        if all(each.text is not None for each in node.items):
            yield path, f"[{', '.join(each.text or '' for each in node.items)}]"
            return
        for name, value in zip(names, node.items, strict=True):
            yield from _leaves(value, (*path, name))
    else:
        yield path, node.text or ""


def _name_of(node: Node, number: int) -> str:
    if node.pairs is None:
        return str(number)
    named = node.pairs.get("name")
    if named is not None and named[1].text:
        return named[1].text
    return next(iter(node.pairs), str(number))
