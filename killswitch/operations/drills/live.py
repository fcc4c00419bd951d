"""Measures of live drills, from the record of the runner that closed them; and the real events that end a drill."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

from msgspec.structs import replace

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.document import Incident
from killswitch.incident.record.incident_decisions import UnknownIncidentError, find_incident
from killswitch.incident.record.results import read_decision
from killswitch.model.decision import Decision
from killswitch.operations.drills.live_run import LiveRun, state_text
from killswitch.operations.drills.measures import COMPLETED, DrillResult, Measure, measures_of
from killswitch.policy.schema.drill import DrillDocument, LivePosition
from killswitch.runner.status_blob import last_tick, last_view, started_as
from killswitch.store.errors import StoreError
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

SEARCHED = 20
"""The newest decisions of a live store that are searched for a real event."""


class NotADrillError(Exception):
    """The incident is not the close that the drill declares; the message says what differs."""


def measure_live(document: DrillDocument, store: SqlStore, store_at: str, prefix: str, now: datetime) -> DrillResult:
    """Return the measures of the recorded close. NotADrillError unless it is the one that the document declares."""
    live = document.spec.live
    if live is None:
        raise NotADrillError(f"{document.metadata.name} is no live drill: `ksctl drill run` runs it")
    try:
        chosen = find_incident(store, prefix)
    except UnknownIncidentError as error:
        raise NotADrillError(str(error)) from error
    incident = incident_of(store, chosen, started_as(store, store_at), last_tick(store))
    _require_declared(incident, live)
    recorded = [read_decision(store, each) for each in chosen.decisions]
    measures = measures_of(document, incident, recorded, store.deliveries(1_000))
    # A close by hand has no trigger: the way to the decision is a person's, and is not measured here.
    kept = tuple(each for each in measures if each.what != "time to decision")
    return DrillResult(
        document.metadata.name, "live", now, chosen.decisions[0].policy_set, None, (), kept, COMPLETED, incident.id
    )


def live_result(
    document: DrillDocument, run: LiveRun, store: SqlStore, store_at: str, now: datetime, *, interrupted: str | None
) -> DrillResult:
    """Return the result of a live drill that this program has run.

    `interrupted`: why it is not measured although the position is closed, such as a real event. What is not closed is
    not measured either: the result says in which state it is.
    """
    name, view = document.metadata.name, last_view(store)
    policy_set = "unknown" if view is None else view.policy_set
    if interrupted is None and run.state == "closed" and run.decision is not None and run.command is not None:
        found = measure_live(document, store, store_at, run.decision, now)
        decided = store.decision(run.decision)
        value = None if decided is None else (decided.decision.as_of - run.command.at).total_seconds()
        return replace(found, measures=(_time_of_command(document, value), *found.measures))
    ended = state_text(run) if interrupted is None else f"{interrupted}; {state_text(run)}"
    return DrillResult(name, "live", now, policy_set, None, (), (), ended, run.decision)


def _time_of_command(document: DrillDocument, value: float | None) -> Measure:
    """From the command that closes the position until the runner has decided on it; clocks may differ by a tick."""
    limit = document.spec.targets.decision / 1_000_000
    if value is None:
        return Measure("time to decision", None, limit, "seconds", None, "the decision is not in the store")
    return Measure("time to decision", max(0.0, value), limit, "seconds", value <= limit)


def _require_declared(incident: Incident, live: LivePosition) -> None:
    if incident.reason is None or incident.reason.cause != "drill":
        raise NotADrillError(
            f"incident {incident.id} is no drill: close by hand with a reason that begins with `drill:`"
        )
    for each in incident.positions:
        if each.account != live.account or each.symbol != live.symbol:
            raise NotADrillError(
                f"incident {incident.id} closed {each.symbol} on {each.account}; the drill names {live.symbol} on "
                f"{live.account}, and nothing else"
            )
        if each.start > live.most:
            held, most = f"{each.start.normalize():f}", f"{Decimal(live.most).normalize():f}"
            raise NotADrillError(
                f"incident {incident.id} closed {held} contracts of {each.symbol}; at most {most} may be"
            )


def real_event_since(store_at: str, since: datetime) -> Callable[[], str | None]:
    """Return what says whether a stage has fired, or somebody has closed for real, on a live store since then.

    A store that cannot be read ends a drill as well: then nobody knows whether something happens.
    """

    def found() -> str | None:
        try:
            store = open_store(store_at, read_only=True)
        except StoreError as error:
            return f"the store of the live runner cannot be read: {error}"
        try:
            newest = [each.decision for each in store.decisions(SEARCHED) if each.decision.as_of >= since]
        except StoreError as error:
            return f"the store of the live runner cannot be read: {error}"
        finally:
            store.close()
        real = next((each for each in newest if _is_real(each)), None)
        return None if real is None else f"decision {real.id}, {real.stage or 'a close by hand'} on {real.scope}"

    return found


def _is_real(decision: Decision) -> bool:
    """Whether people must turn to it: an enforced stage, or a close by hand that is no drill."""
    if decision.kind in ("reset", "suspicion") or decision.is_hold or decision.is_unlock:
        return False
    return decision.mode == "enforce" and decision.cause != "drill"
