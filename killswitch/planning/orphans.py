"""Latches whose policy or scope is gone: an edit never un-latches, so somebody has to be able to see and end them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from killswitch.engine.state import StoredState, initial, level_in_force, stage_in_force, to_stored
from killswitch.model.decision import Decision, decision_id
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import Event
from killswitch.model.store import DamagedMemoryError, MachineState


class _Kept(msgspec.Struct):
    """The part of a stored watch that says what is latched."""

    engine: StoredState


_DECODER = msgspec.json.Decoder(_Kept)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A latched stage that no machine answers for: its policy was renamed or removed, or its account is gone."""

    policy: str
    scope: str
    level: int
    stage: str | None


def orphans_in(stored: Mapping[tuple[str, str], bytes]) -> tuple[Orphan, ...]:
    """Those among stored memories in which a stage is in force, and that no watch has taken up."""
    found = []
    for (policy, scope), blob in stored.items():
        try:
            state = _DECODER.decode(blob).engine
        except msgspec.DecodeError as error:
            what = f"what was kept of {policy} on {scope} cannot be read ({error})"
            raise DamagedMemoryError(what) from error
        level = level_in_force(state)
        if level > 0:
            found.append(Orphan(policy, scope, level, stage_in_force(state)))
    return tuple(found)


def end(orphan: Orphan, blob: bytes, now: int, digest: str, event: Event) -> tuple[Decision, MachineState]:
    """The record of a hand's reset of an orphan, and the memory that is left of it: nothing latched."""
    as_of = from_micros(now)
    record = Decision(
        id=decision_id(orphan.policy, orphan.scope, f"reset/{orphan.stage}", as_of),
        as_of=as_of,
        policy=orphan.policy,
        policy_set=digest,
        scope=orphan.scope,
        mode="enforce",
        stage=orphan.stage,
        level=0,
        previous_level=orphan.level,
        kind="reset",
        author=event.author,
        reason=event.reason,
    )
    memory: dict[str, object] = msgspec.json.decode(blob)
    memory["engine"] = msgspec.to_builtins(to_stored(initial(), ()))
    history = memory["history"]
    assert isinstance(history, dict)  # a stored watch always has one
    history["rebase_due"] = True  # should the policy come back, the hand has accepted the loss
    return record, MachineState(orphan.policy, orphan.scope, msgspec.json.encode(memory))
