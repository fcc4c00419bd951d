"""What a restart or a person still needs of a store, which retention therefore keeps, however old it is."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from killswitch.incident.record.incident_decisions import IncidentDecisions, group_decisions
from killswitch.incident.record.timeline import LOCK_ENDS
from killswitch.journal.codec import decode_all
from killswitch.journal.entries import Finished
from killswitch.model.applied_set import name_now
from killswitch.model.decision import Decision, without_details
from killswitch.model.effects import Lock, of_kind
from killswitch.model.store import LIVE_DRILLS
from killswitch.record.line import keys_of
from killswitch.store.sql import SqlStore

_ALL: Final = (1 << 31) - 1
"""As many changes of the set as there are."""


class Need(Struct, frozen=True, order=True):
    """Why a store keeps everything from a time on, and the files of an incident, by the id of its first decision."""

    since: datetime
    why: str
    incident: str


def needs_of(store: SqlStore, now: datetime) -> tuple[Need, ...]:
    """What a restart or a person still needs: closes under way, open incidents, latches, and locks in force."""
    decisions = [without_details(each) for each in store.decisions_in_order()]
    changes = [each for each in store.set_changes(_ALL) if each.renamed]
    incidents = group_decisions(decisions, lambda each: name_now(each.policy, each.as_of, changes))
    opening = {each.id: incident.decisions[0] for incident in incidents for each in incident.decisions}
    machines = {(each.policy, each.scope) for each in store.states()}
    found = [_need(each.decision, opening, "its close has not ended") for each in store.unfinished()]
    for incident in incidents:
        last = incident.decisions[-1]
        is_open = incident.reset is None and not incident.is_manual
        if is_open and (name_now(last.policy, last.as_of, changes), last.scope) in machines:
            found += [_need(each, opening, "its stage was not reset") for each in _all_of(incident)]
    memories = [_open_drills(body) if name == LIVE_DRILLS else body for name, body in store.memories()]
    memories += [_state_memory(each.blob) for each in store.states()]
    remembered = b"\0".join(memories)
    for decision in decisions:
        if _holds_lock(store, decision, now):
            found.append(_need(decision, opening, "its lock is in force"))
        elif decision.id.encode() in remembered:
            found.append(_need(decision, opening, "a restart remembers it"))
    return tuple(found)


def _state_memory(body: bytes) -> bytes:
    """What a machine remembers. At rest it still names its last firing, whose costs may be corrected: no need of it."""
    keys = keys_of(body) or {}
    engine = keys.get("engine")
    if not isinstance(engine, dict) or engine.get("level") != 0:
        return body
    return msgspec.json.encode({name: value for name, value in keys.items() if name not in ("decision", "costs")})


def _open_drills(body: bytes) -> bytes:
    """What is remembered of live drills, without those of which nothing is left: they are remembered for ever."""
    try:
        found = msgspec.json.decode(body, type=list[dict[str, object]])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body
    return msgspec.json.encode([each for each in found if each.get("state") not in ("closed", "not_opened")])


def _need(decision: Decision, opening: dict[str, Decision], why: str) -> Need:
    """The need of a decision, from the beginning of its incident on."""
    first = opening.get(decision.id, decision)
    return Need(min(first.as_of, decision.as_of), f"decision {decision.id} is needed: {why}", first.id)


def _all_of(incident: IncidentDecisions) -> tuple[Decision, ...]:
    return (*incident.suspicions, *incident.decisions)


def _holds_lock(store: SqlStore, decision: Decision, now: datetime) -> bool:
    """Whether a decision has a lock that is neither over nor lifted. One that was only recorded has no journal."""
    lock = of_kind(decision.effects, Lock)
    if lock is None or (lock.order.until is not None and lock.order.until <= now):
        return False
    journal = decode_all(store.journal(decision.id))
    return bool(journal) and not any(isinstance(each, Finished) and each.status in LOCK_ENDS for each in journal)
