"""The incident that spans and log lines name is that of the report, and goes on after a restart."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.incident.record.incident_decisions import group_decisions
from killswitch.model.decision import Decision
from killswitch.model.tracing import Incidents
from tests import incidents, worlds

SCOPES = ("account/main", "account/hedge")
steps = st.lists(
    st.tuples(st.sampled_from(["fire", "reset", "manual", "suspicion", "lock", "hedge"]), st.sampled_from(SCOPES)),
    max_size=25,
)


def decisions_of(path: list[tuple[str, str]]) -> list[Decision]:
    """Decisions of a run that began with every scope at normal, one a second."""
    levels = dict.fromkeys(SCOPES, 0)
    found = []
    for number, (kind, scope) in enumerate(path):
        at, level = worlds.after() + timedelta(seconds=number), levels[scope]
        more: dict[str, Any] = {"scope": scope}
        match kind:
            case "fire":
                levels[scope] = level + 1
            case "reset":
                levels[scope] = 0
                more |= {"kind": "reset"}
            case "manual":
                more |= {"kind": "manual", "policy": "operator", "cause": "system-failure"}
            case "lock":
                more |= {"kind": "manual", "policy": "operator", "intents": ()}
            case "hedge":
                if not level:
                    continue  # nothing is left to be hedged
                more |= {"kind": "hedge"}
            case _:
                more |= {"kind": "suspicion"}
        fired = incidents.firing(f"{number:020x}", at, "stage", levels[scope], level)
        found.append(replace(fired, **more))
    return found


@given(steps)
def test_the_incident_of_a_decision_is_the_one_whose_report_has_it(path: list[tuple[str, str]]) -> None:
    """By the grouping that the reports are made by, which reads all decisions at once."""
    decisions = decisions_of(path)
    followed = Incidents()
    named = {each.id: followed.of(each) for each in decisions}
    for incident in group_decisions(decisions):
        about = (*incident.decisions, *(() if incident.reset is None else (incident.reset,)))
        assert {named[each.id] for each in about} == {incident.id}
    holds = [each for each in decisions if each.is_hold]
    assert {named[each.id] for each in holds} <= {None}


@given(steps, st.integers(0, 25))
def test_a_run_that_reads_the_decisions_before_it_names_the_same(path: list[tuple[str, str]], cut: int) -> None:
    """Wherever the runs are divided; a decision that is followed twice changes nothing."""
    decisions = decisions_of(path)
    whole, second = Incidents(), Incidents()
    whole.follow(decisions)
    second.follow(decisions[:cut])
    assert [second.of(each) for each in decisions] == [whole.of(each) for each in decisions]


def test_what_began_before_everything_that_is_known_has_no_incident() -> None:
    """A second stage of an incident whose first is not in the store: nothing is guessed."""
    later = incidents.firing(incidents.FIRST, worlds.after(), "stage", 2, 1)
    followed = Incidents()
    assert followed.of(later) is None
    assert followed.at(later.policy, later.scope) is None
