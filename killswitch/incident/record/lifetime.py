"""Groups decisions into incidents, and keeps the facts of their beginning.

The facts are stored with the incident, because files change afterwards and a report must quote what was in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec
from msgspec import Struct

from killswitch.incident.record.document import RunbookFacts as RunbookFacts
from killswitch.incident.record.source_places import PolicyText, decoded, keep, places_of
from killswitch.model.decision import Decision
from killswitch.model.store import IncidentStore, Store

SUSPECTED_BEFORE = timedelta(minutes=10)
"""The longest time before an incident at which a suspicion belongs to it."""
REMEMBERED = 10_000
"""The number of newest decisions that are searched for incidents."""


@dataclass(slots=True)
class Life:
    """The decisions of one incident in their order. A close by hand is an incident of its own."""

    decisions: list[Decision]
    reset: Decision | None = field(default=None)
    suspicions: list[Decision] = field(default_factory=list)
    """Suspicions of its policy on its scope, shortly before it or during it. None of them fired."""

    @property
    def id(self) -> str:
        """The id of the decision that opened it."""
        return self.decisions[0].id

    @property
    def by_hand(self) -> bool:
        """Whether a person closed, and no policy fired."""
        return self.decisions[0].kind == "manual"

    @property
    def highest(self) -> Decision:
        """The decision of the highest level; the first of several."""
        return max(self.decisions, key=lambda each: each.level)


class UnknownIncidentError(LookupError):
    """No incident or several match the request; the message names those that exist."""


def lives(oldest_first: Iterable[Decision]) -> list[Life]:
    """Return every incident among the decisions, oldest first.

    A reset of what has not fired, and a suspicion, open none.
    """
    found: list[Life] = []
    standing: dict[tuple[str, str], Life] = {}
    suspicions: dict[tuple[str, str], list[Decision]] = {}
    for decision in oldest_first:
        key = (decision.policy, decision.scope)
        if decision.is_suspicion:
            (standing[key].suspicions if key in standing else suspicions.setdefault(key, [])).append(decision)
        elif decision.kind == "manual":
            found.append(Life([decision]))
        elif decision.kind == "reset":
            ended = standing.pop(key, None)
            if ended is not None:
                ended.reset = decision
        elif key in standing:
            standing[key].decisions.append(decision)
        elif decision.kind == "hedge":
            _stand_in(found, decision)
        else:
            before = [each for each in suspicions.pop(key, ()) if decision.as_of - each.as_of <= SUSPECTED_BEFORE]
            standing[key] = Life([decision], suspicions=before)
            found.append(standing[key])
    return found


def _stand_in(found: list[Life], hedge: Decision) -> None:
    """Assign a hedge without an active stage to the newest incident on its scope."""
    stood_for = next((life for life in reversed(found) if life.decisions[0].scope == hedge.scope), None)
    if stood_for is None:
        found.append(Life([hedge]))
    else:
        stood_for.decisions.append(hedge)


def lives_in(store: Store) -> list[Life]:
    """Return every incident among the newest decisions of the store, oldest first."""
    return lives(stored.decision for stored in reversed(store.decisions(REMEMBERED)))


def life_of(store: Store, prefix: str | None) -> Life:
    """Return the incident whose id starts with `prefix`; the newest where it is None.

    The id of any of its decisions matches as well, because `history` and messages show those. UnknownIncidentError if
    none or several match.
    """
    found = lives_in(store)
    if not found:
        raise UnknownIncidentError("no incident is recorded on this store: nothing has fired, and nobody has closed")
    if prefix is None:
        return found[-1]
    chosen = [life for life in found if life.id.startswith(prefix)]
    if not chosen:
        chosen = [life for life in found if _speaks_of(life, prefix)]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise UnknownIncidentError(f"several incidents start with {prefix}: {_named(chosen)}")
    raise UnknownIncidentError(f"no incident starts with {prefix}; the newest are {_named(found)}")


def _speaks_of(life: Life, prefix: str) -> bool:
    others = (*life.decisions, *life.suspicions, *(() if life.reset is None else (life.reset,)))
    return any(decision.id.startswith(prefix) for decision in others)


_SHOWN = 5


def _named(found: list[Life]) -> str:
    """Return the newest few incidents with their policies and scopes."""
    newest = [f"{life.id} ({life.highest.policy} on {life.highest.scope})" for life in reversed(found[-_SHOWN:])]
    more = len(found) - len(newest)
    return ", ".join(newest) + (f" and {more} more (ksctl report list)" if more else "")


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
    """Store the runbooks of the policy set with this digest, unless they are stored already."""
    keep(store, f"runbooks/{digest}", msgspec.json.encode(runbooks, order="sorted"))


def note_now(store: Store, decision: Decision) -> Note:
    """Return the note of an incident that begins with `decision`, from what the run on this store stored last."""
    lines = places_of(store, decision.policy_set).get(decision.policy)
    runbooks = decoded(_RUNBOOKS, store.live(f"runbooks/{decision.policy_set}"), {})
    if decision.kind == "manual":  # no policy fired, so every contact of the policy set may be involved
        whole = {f"{policy}/{stage}": facts for policy, stages in runbooks.items() for stage, facts in stages.items()}
        return Note(lines, whole)
    return Note(lines, dict(runbooks.get(decision.policy, {})))


def note_of(store: IncidentStore, opening: Decision) -> Note:
    """Return the note kept with the incident that `opening` began; otherwise what the store still has."""
    blob = store.incident_note(opening.id)
    return note_now(store, opening) if blob is None else decoded(_NOTE, blob, EMPTY)
