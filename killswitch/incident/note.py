"""What was so when an incident began: the policy's lines as they were written, and who was to be reached.

Kept with the incident, because files are edited afterwards and a report must not quote what was not yet there.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from killswitch.incident.places import PolicyText, places_of
from killswitch.incident.record import RunbookFacts as RunbookFacts
from killswitch.model.course import IncidentStore
from killswitch.model.decision import Decision
from killswitch.model.store import Store

Runbooks = Mapping[str, Mapping[str, RunbookFacts]]
"""Policy → stage → its runbook."""


class Note(Struct, frozen=True):
    """What is kept with an incident."""

    policy: PolicyText | None
    runbooks: dict[str, RunbookFacts]


EMPTY = Note(None, {})

_NOTE = msgspec.json.Decoder(Note)
_RUNBOOKS = msgspec.json.Decoder(dict[str, dict[str, RunbookFacts]])
encode_note = msgspec.json.Encoder().encode


def keep_runbooks(store: Store, digest: str, runbooks: Runbooks) -> None:
    """Write down the runbooks of the policy set with this digest, unless they stand there."""
    blob = msgspec.json.encode(runbooks, order="sorted")
    if store.live(_name(digest)) != blob:
        store.put_live(_name(digest), blob)


def note_now(store: Store, decision: Decision) -> Note:
    """The note of an incident that begins with `decision`, from what the run on this store last wrote down."""
    lines = places_of(store, decision.policy_set).get(decision.policy)
    blob = store.live(_name(decision.policy_set))
    try:
        runbooks = {} if blob is None else _RUNBOOKS.decode(blob)
    except msgspec.DecodeError:
        runbooks = {}  # written by another version: then nobody is known, and the report says so
    if decision.kind == "manual":  # no policy fired, so everyone whom the policy set names may be asked
        whole = {f"{policy}/{stage}": facts for policy, stages in runbooks.items() for stage, facts in stages.items()}
        return Note(lines, whole)
    return Note(lines, dict(runbooks.get(decision.policy, {})))


def note_of(store: IncidentStore, opening: Decision) -> Note:
    """The note kept with the incident that `opening` began; else what the store still knows."""
    blob = store.incident_note(opening.id)
    if blob is not None:
        try:
            return _NOTE.decode(blob)
        except msgspec.DecodeError:
            return EMPTY
    return note_now(store, opening)


def _name(digest: str) -> str:
    return f"runbooks/{digest}"
