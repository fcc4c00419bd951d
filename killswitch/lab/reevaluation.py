"""A stored decision, evaluated again from a recording with the set that decided: the same bytes, or what differs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, decision_record, encode_decision
from killswitch.model.legible import legible, one_line
from killswitch.model.snapshot import Snapshot, decode_snapshot, encode_snapshot
from killswitch.model.store import StoredDecision
from killswitch.planning.replayed_ticks import ReplayedTicks

REEVALUATION_FORMAT: Final = "killswitch.reevaluation/v1"
ABSENT: Final = "absent"
MOST_SHOWN: Final = 200
"""Maximum length of a value in a difference."""


class FieldDifference(Struct, frozen=True):
    """A field with another value: its path, such as `intents.0.contracts`, and both values as JSON."""

    field: str
    stored: str
    evaluated: str


class Reevaluation(Struct, frozen=True, kw_only=True):
    """What evaluating a decision again has shown.

    `problem`: why it could not be evaluated, or did not fire; then nothing is compared. `missing`: snapshots before it
    that the recording lacks.
    """

    format: str = REEVALUATION_FORMAT
    decision: str
    policy_set: str
    commit: str | None
    snapshots: int
    missing: int
    is_identical: bool
    differences: tuple[FieldDifference, ...] = ()
    problem: str | None = None


class ReplayedSet(Struct, frozen=True):
    """A set that was in force from the tick at `at` on; None: from the beginning."""

    at: datetime | None
    policies: Callable[[], PolicySet]
    """Compiles it, when the replay reaches it."""


def reevaluate(
    sets: Sequence[ReplayedSet], stored: StoredDecision, snapshots: Iterable[Snapshot],
    armed: Collection[str] | None = None,
) -> Reevaluation:  # fmt: skip
    """Evaluate a recording up to the tick of the decision, and compare.

    `sets`: those in force, oldest first; each is taken between two ticks, as the run took it. `armed`: the accounts
    that the run acted on; None: all. The recording must begin where the run did, or earlier than everything that its
    windows and latches go back to.
    """
    decision, stream = stored.decision, iter(snapshots)
    following = next(stream, None)
    begins = decision.as_of if following is None else following.as_of
    first = max((i for i, it in enumerate(sets) if it.at is None or it.at <= begins), default=0)
    later = list(sets[first + 1 :])
    policies = replace(sets[first].policies(), commit=decision.commit)
    ticks = ReplayedTicks(policies, keeps_rows=bool(later))
    if armed is not None:
        ticks.interpreter.restrict_orders_to(armed)
    count = missing = 0

    def look() -> Snapshot | None:
        nonlocal following
        following = next(stream, None)
        return following

    while (snapshot := following or next(stream, None)) is not None and snapshot.as_of <= decision.as_of:
        following = None
        while later and (later[0].at or snapshot.as_of) <= snapshot.as_of:
            policies = replace(later.pop(0).policies(), commit=decision.commit)
            ticks.reload(policies)
        count, missing = count + 1, missing + snapshot.missing
        decided = ticks.tick(snapshot, look).decisions
        if snapshot.as_of == decision.as_of:
            return _compared(stored, snapshot, decided, policies, count, missing)
    problem = f"the recording has no snapshot of {decision.as_of.isoformat()}, when it was decided"
    return _result(decision, policies, count, missing, problem=problem)


def _compared(
    stored: StoredDecision, snapshot: Snapshot, decided: Collection[Decision], policies: PolicySet, count: int,
    missing: int,
) -> Reevaluation:  # fmt: skip
    decision = stored.decision
    found = next((each for each in decided if each.id == decision.id), None)
    if found is None:
        others = ", ".join(f"{each.stage or each.kind} of {each.policy} on {each.scope}" for each in decided)
        problem = f"it is not decided on the recorded snapshot, which decides {others or 'nothing'}"
        return _result(decision, policies, count, missing, problem=problem)
    differing = tuple(_differences("", decision_record(decision), decision_record(found)))
    if stored.snapshot is not None and not _is_same(stored.snapshot, snapshot):
        text = "the snapshot in the store is another one"
        differing += (FieldDifference("snapshot", text, "the snapshot of the recording"),)
    is_identical = encode_decision(decision) == encode_decision(found) and not differing
    return _result(decision, policies, count, missing, is_identical=is_identical, differences=differing)


def _is_same(stored: bytes, recorded: Snapshot) -> bool:
    """Whether both are the same snapshot; a recording adds how many are missing before it."""
    return encode_snapshot(decode_snapshot(stored)) == encode_snapshot(replace(recorded, missing=0))


def _result(
    decision: Decision, policies: PolicySet, count: int, missing: int, *, is_identical: bool = False,
    differences: tuple[FieldDifference, ...] = (), problem: str | None = None,
) -> Reevaluation:  # fmt: skip
    return Reevaluation(
        decision=decision.id, policy_set=policies.digest, commit=decision.commit, snapshots=count, missing=missing,
        is_identical=is_identical, differences=differences, problem=problem,
    )  # fmt: skip


def _differences(path: str, stored: object, evaluated: object) -> Iterator[FieldDifference]:
    """The fields in which two JSON values differ, down to single values."""
    if isinstance(stored, dict) and isinstance(evaluated, dict):
        pairs = {key: (stored.get(key, _MISSING), evaluated.get(key, _MISSING)) for key in {**stored, **evaluated}}
    elif isinstance(stored, list) and isinstance(evaluated, list):
        longest = range(max(len(stored), len(evaluated)))
        pairs = {str(i): (_at(stored, i), _at(evaluated, i)) for i in longest}
    elif stored != evaluated:
        yield FieldDifference(path, _text(stored), _text(evaluated))
        return
    else:
        return
    for key, both in pairs.items():
        yield from _differences(f"{path}.{key}" if path else key, *both)


_MISSING: Final = object()


def _at(values: list[object], index: int) -> object:
    return values[index] if index < len(values) else _MISSING


def _text(value: object) -> str:
    if value is _MISSING:
        return ABSENT
    return one_line(legible(msgspec.json.encode(value).decode()))[:MOST_SHOWN]
