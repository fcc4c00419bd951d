"""Groups decisions into incidents, and keeps the facts of their beginning.

The facts are stored with the incident, because files change afterwards and a report must quote what was in force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

import msgspec
from msgspec import Struct, field

from killswitch.incident.record.document import RunbookFacts
from killswitch.incident.record.source_places import PolicyText, decode_or, read_places, store_if_changed
from killswitch.model.applied_set import name_now
from killswitch.model.decision import Decision
from killswitch.model.store import IncidentStore, Store

SUSPICION_WINDOW = timedelta(minutes=10)
"""The longest time before an incident at which a suspicion belongs to it."""
MOST_DECISIONS = 10_000
"""The number of newest decisions that are searched for incidents."""


class IncidentDecisions(Struct):
    """The decisions of one incident in their order. A manual close is an incident of its own."""

    decisions: list[Decision]
    reset: Decision | None = field(default=None)
    suspicions: list[Decision] = field(default_factory=list)
    """Suspicions of its policy on its scope, shortly before it or during it. None of them fired."""

    @property
    def id(self) -> str:
        """The id of the decision that opened it."""
        return self.decisions[0].id

    @property
    def is_manual(self) -> bool:
        """Whether a person closed, and no policy fired."""
        return self.decisions[0].kind == "manual"

    @property
    def highest(self) -> Decision:
        """The decision of the highest level; the first of several."""
        return max(self.decisions, key=lambda each: each.level)


class UnknownIncidentError(LookupError):
    """No incident or several match the request; the message names those that exist."""


def group_decisions(
    oldest_first: Iterable[Decision], name_of: Callable[[Decision], str] = lambda decision: decision.policy
) -> list[IncidentDecisions]:
    """Return every incident among the decisions, oldest first.

    A reset of what has not fired, a suspicion, and a lock of an operator open no incident. `name_of`: the name
    that the policy of a decision has by now, so that an incident goes on when its policy is renamed.
    """
    found: list[IncidentDecisions] = []
    active: dict[tuple[str, str], IncidentDecisions] = {}
    suspicions: dict[tuple[str, str], list[Decision]] = {}
    for decision in oldest_first:
        key = (name_of(decision), decision.scope)
        if decision.is_suspicion:
            (active[key].suspicions if key in active else suspicions.setdefault(key, [])).append(decision)
        elif decision.is_hold:
            continue
        elif decision.kind == "manual":
            found.append(IncidentDecisions([decision]))
        elif decision.kind == "reset":
            ended = active.pop(key, None)
            if ended is not None:
                ended.reset = decision
        elif key in active:
            active[key].decisions.append(decision)
        elif decision.kind == "hedge":
            _assign_hedge(found, decision)
        else:
            before = [each for each in suspicions.pop(key, ()) if decision.as_of - each.as_of <= SUSPICION_WINDOW]
            active[key] = IncidentDecisions([decision], suspicions=before)
            found.append(active[key])
    return found


def _assign_hedge(found: list[IncidentDecisions], hedge: Decision) -> None:
    """Assign a hedge without an active stage to the newest incident on its scope."""
    hedged = next((incident for incident in reversed(found) if incident.decisions[0].scope == hedge.scope), None)
    if hedged is None:
        found.append(IncidentDecisions([hedge]))
    else:
        hedged.decisions.append(hedge)


def read_incidents(store: Store) -> list[IncidentDecisions]:
    """Return every incident among the newest decisions of the store, oldest first."""
    changes = [each for each in store.set_changes(MOST_DECISIONS) if each.renamed]
    decisions = (stored.decision for stored in reversed(store.decisions(MOST_DECISIONS)))
    return group_decisions(decisions, lambda each: name_now(each.policy, each.as_of, changes))


def find_incident(store: Store, prefix: str | None) -> IncidentDecisions:
    """Return the incident whose id starts with `prefix`; the newest where it is None.

    The id of any of its decisions matches as well, because `history` and messages show those. UnknownIncidentError if
    none or several match.
    """
    found = read_incidents(store)
    if not found:
        raise UnknownIncidentError("no incident is recorded on this store: nothing has fired, and nobody has closed")
    if prefix is None:
        return found[-1]
    chosen = [incident for incident in found if incident.id.startswith(prefix)]
    if not chosen:
        chosen = [incident for incident in found if _includes(incident, prefix)]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise UnknownIncidentError(f"several incidents start with {prefix}: {_named(chosen)}")
    raise UnknownIncidentError(f"no incident starts with {prefix}; the newest are {_named(found)}")


def _includes(incident: IncidentDecisions, prefix: str) -> bool:
    others = (*incident.decisions, *incident.suspicions, *(() if incident.reset is None else (incident.reset,)))
    return any(decision.id.startswith(prefix) for decision in others)


_SHOWN = 5


def _named(found: list[IncidentDecisions]) -> str:
    """Return the newest few incidents with their policies and scopes."""
    newest = [
        f"{incident.id} ({incident.highest.policy} on {incident.highest.scope})"
        for incident in reversed(found[-_SHOWN:])
    ]
    more = len(found) - len(newest)
    return ", ".join(newest) + (f" and {more} more (ksctl report list)" if more else "")


Runbooks = Mapping[str, Mapping[str, RunbookFacts]]
"""Policy → stage → its runbook."""


class IncidentNote(Struct, frozen=True):
    """The facts that are stored with an incident: the lines of its policy, and the runbooks by stage."""

    policy: PolicyText | None
    runbooks: dict[str, RunbookFacts]


EMPTY_NOTE = IncidentNote(None, {})

_NOTE = msgspec.json.Decoder(IncidentNote)
_RUNBOOKS = msgspec.json.Decoder(dict[str, dict[str, RunbookFacts]])
encode_note = msgspec.json.Encoder().encode


def keep_runbooks(store: Store, digest: str, runbooks: Runbooks) -> None:
    """Store the runbooks of the policy set with this digest, unless they are stored already."""
    store_if_changed(store, f"runbooks/{digest}", msgspec.json.encode(runbooks, order="sorted"))


def stored_runbooks(store: Store, digest: str) -> Runbooks | None:
    """Return the runbooks of the policy set with this digest; None if no run on this store kept them."""
    blob = store.live(f"runbooks/{digest}")
    return None if blob is None else decode_or(_RUNBOOKS, blob, {})


def build_note(store: Store, decision: Decision) -> IncidentNote:
    """Return the note of an incident that begins with `decision`, from what the run on this store stored last."""
    lines = read_places(store, decision.policy_set).get(decision.policy)
    runbooks = decode_or(_RUNBOOKS, store.live(f"runbooks/{decision.policy_set}"), {})
    if decision.kind == "manual":  # no policy fired, so every contact of the policy set may be involved
        by_stage = {
            f"{policy}/{stage}": facts for policy, stages in runbooks.items() for stage, facts in stages.items()
        }
        return IncidentNote(lines, by_stage)
    return IncidentNote(lines, dict(runbooks.get(decision.policy, {})))


def read_note(store: IncidentStore, opening: Decision) -> IncidentNote:
    """Return the note kept with the incident that `opening` began; otherwise what the store still has."""
    blob = store.incident_note(opening.id)
    return build_note(store, opening) if blob is None else decode_or(_NOTE, blob, EMPTY_NOTE)
