"""A suspicion opens no incident, and is listed in the incident that is open or follows it."""

from __future__ import annotations

from datetime import datetime

import pytest

from killswitch.incident.record.incident_decisions import IncidentDecisions, group_decisions
from killswitch.model.decision import Decision, LockOrder
from tests.incidents import POLICY, SCOPE, SET, firing, reset
from tests.worlds import after


def suspicion(at: datetime, policy: str = POLICY, scope: str = SCOPE) -> Decision:
    return Decision(
        f"suspicion-{policy}-{at:%H%M%S}", at, policy, SET, scope, "enforce", "trim", 0, 0, kind="suspicion",
        lock=LockOrder(scope, "reduce_only", after(hours=1)), reason="suspicion: equity fell by 300 USDT",
    )  # fmt: skip


def suspicions_of(*decisions: Decision) -> list[list[str]]:
    """For each incident the ids of its suspicions."""
    return [[each.id for each in incident.suspicions] for incident in group_decisions(decisions)]


def firing_at(minutes: float, name: str = "aa") -> Decision:
    return firing(name * 10, after(minutes=minutes), "trim", 1, 0)


def test_a_suspicion_alone_is_no_incident() -> None:
    """No stage has fired, and there is no manual close."""
    assert group_decisions([suspicion(after())]) == []


@pytest.mark.parametrize(("minutes", "is_included"), [(0.5, True), (10, True), (10.1, False)])
def test_a_suspicion_of_the_last_ten_minutes_belongs_to_the_next_incident(minutes: float, is_included: bool) -> None:
    """An older suspicion had another cause."""
    before = suspicion(after())
    assert suspicions_of(before, firing_at(minutes)) == [[before.id] if is_included else []]


def test_a_suspicion_during_an_incident_belongs_to_it_and_is_no_firing() -> None:
    """The decisions of the incident stay the same."""
    during = suspicion(after(minutes=5))
    (incident,) = group_decisions([firing_at(0), during, reset(after(minutes=11))])
    assert ([each.id for each in incident.decisions], incident.suspicions) == (["aa" * 10], [during])


def test_a_suspicion_after_the_reset_belongs_to_the_next_incident_only() -> None:
    """Each suspicion is listed once."""
    between = suspicion(after(minutes=12))
    first, second = firing_at(0), firing_at(13, "bb")
    assert suspicions_of(first, reset(after(minutes=11)), between, second) == [[], [between.id]]


@pytest.mark.parametrize("other", [{"policy": "other"}, {"scope": "account/other"}])
def test_a_suspicion_of_another_policy_or_scope_is_not_listed(other: dict[str, str]) -> None:
    """An incident belongs to one policy on one scope."""
    assert suspicions_of(suspicion(after(), **other), firing_at(1)) == [[]]


def test_the_id_of_a_suspicion_is_not_the_id_of_the_incident() -> None:
    """The id of the incident is that of the decision that fired first."""
    (incident,) = group_decisions([suspicion(after()), firing_at(1)])
    assert isinstance(incident, IncidentDecisions)
    assert incident.id == "aa" * 10
