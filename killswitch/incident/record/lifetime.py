"""Which decisions belong to one incident, and what was so when it began.

Kept with the incident, because files are edited afterwards and a report must not quote what was not yet there.
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
"""A suspicion so long before an incident is told with it."""
REMEMBERED = 10_000
"""How many decisions back incidents are looked for."""


@dataclass(slots=True)
class Life:
    """One incident's decisions, in the order in which they were made. A close by hand is an incident of its own."""

    decisions: list[Decision]
    reset: Decision | None = field(default=None)
    suspicions: list[Decision] = field(default_factory=list)
    """On what its policy suspected on its scope, shortly before it or during it. None of them fired."""

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
        """The decision of the highest level; of several, the first."""
        return max(self.decisions, key=lambda each: each.level)


class UnknownIncidentError(LookupError):
    """No incident, or several, go by what was asked for; the message names those that there are."""


def lives(oldest_first: Iterable[Decision]) -> list[Life]:
    """Every incident among the decisions, oldest first. A reset of what has not fired, and a suspicion, open none."""
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
    """A hedge without a stage that stands belongs to the newest incident on its scope: what it stands in for."""
    stood_for = next((life for life in reversed(found) if life.decisions[0].scope == hedge.scope), None)
    if stood_for is None:
        found.append(Life([hedge]))
    else:
        stood_for.decisions.append(hedge)


def lives_in(store: Store) -> list[Life]:
    """Every incident among the newest decisions of the store, oldest first."""
    return lives(stored.decision for stored in reversed(store.decisions(REMEMBERED)))


def life_of(store: Store, prefix: str | None) -> Life:
    """The incident whose id starts so, the newest where `prefix` is None.

    The id of any of its decisions will do, because that is what `history` and messages show. UnknownIncidentError
    if there is none or several.
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
    """The newest few, with what they are."""
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
    """Write down the runbooks of the policy set with this digest, unless they stand there."""
    keep(store, f"runbooks/{digest}", msgspec.json.encode(runbooks, order="sorted"))


def note_now(store: Store, decision: Decision) -> Note:
    """The note of an incident that begins with `decision`, from what the run on this store last wrote down."""
    lines = places_of(store, decision.policy_set).get(decision.policy)
    runbooks = decoded(_RUNBOOKS, store.live(f"runbooks/{decision.policy_set}"), {})
    if decision.kind == "manual":  # no policy fired, so everyone whom the policy set names may be asked
        whole = {f"{policy}/{stage}": facts for policy, stages in runbooks.items() for stage, facts in stages.items()}
        return Note(lines, whole)
    return Note(lines, dict(runbooks.get(decision.policy, {})))


def note_of(store: IncidentStore, opening: Decision) -> Note:
    """The note kept with the incident that `opening` began; else what the store still knows."""
    blob = store.incident_note(opening.id)
    return note_now(store, opening) if blob is None else decoded(_NOTE, blob, EMPTY)
