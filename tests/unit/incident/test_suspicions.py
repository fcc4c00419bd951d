"""A suspicion opens no incident, and is told in the one that follows it or is open."""

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


def told(*decisions: Decision) -> list[list[str]]:
    """Of each incident the ids of the suspicions that it is told with."""
    return [[each.id for each in life.suspicions] for life in group_decisions(decisions)]


def fires(minutes: float, name: str = "aa") -> Decision:
    return firing(name * 10, after(minutes=minutes), "trim", 1, 0)


def test_a_suspicion_alone_is_no_incident() -> None:
    """Nothing has fired, and nobody has closed."""
    assert group_decisions([suspicion(after())]) == []


@pytest.mark.parametrize(("minutes", "with_it"), [(0.5, True), (10, True), (10.1, False)])
def test_a_suspicion_of_the_last_ten_minutes_is_told_with_what_follows(minutes: float, with_it: bool) -> None:
    """What was suspected longer ago was something else."""
    before = suspicion(after())
    assert told(before, fires(minutes)) == [[before.id] if with_it else []]


def test_a_suspicion_while_an_incident_is_open_belongs_to_it_and_is_none_of_its_firings() -> None:
    """Its level and its decisions stay what they were."""
    during = suspicion(after(minutes=5))
    (life,) = group_decisions([fires(0), during, reset(after(minutes=11))])
    assert ([each.id for each in life.decisions], life.suspicions) == (["aa" * 10], [during])


def test_a_suspicion_after_the_reset_belongs_to_the_next_incident_only() -> None:
    """Each suspicion is told once."""
    between = suspicion(after(minutes=12))
    first, second = fires(0), fires(13, "bb")
    assert told(first, reset(after(minutes=11)), between, second) == [[], [between.id]]


@pytest.mark.parametrize("other", [{"policy": "other"}, {"scope": "account/other"}])
def test_a_suspicion_of_another_policy_or_scope_is_not_told(other: dict[str, str]) -> None:
    """An incident is one policy's on one scope."""
    assert told(suspicion(after(), **other), fires(1)) == [[]]


def test_the_id_of_a_suspicion_does_not_make_it_the_incidents() -> None:
    """The incident goes by the decision that fired first."""
    (life,) = group_decisions([suspicion(after()), fires(1)])
    assert isinstance(life, IncidentDecisions)
    assert life.id == "aa" * 10
