"""Scenarios of dead-man's switches: they act, they must not act, and what is heard is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.scenario.running import CaseResult, offset
from tests.unit.scenario.written import POLICY, loaded, result, scenario_text

SWITCH = """---
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, execution: live}
---
apiVersion: killswitch.dev/v1
kind: DeadMansSwitch
metadata: {name: maker}
spec:
  accounts: [main]
  at_venue: false
  watches: strategy
  beats: maker
  ways: [{file: /run/killswitch/beats}, {url: "http://10.0.0.7:8600/v1/heartbeats"}]
  every: 10s
  timeout: 60s
  check: 5s
  checks: 3
  pending: {limit: 2m, then: PENDING}
  on_one_way: page
  progress_timeout: 2m
  on_silence: close
"""


def played(folder: Path, heard: str, *expect: str, pending: str = "page") -> CaseResult:
    """Ten steps, a minute apart."""
    lines = ["notices: none", f"expect: [{', '.join(expect)}]", *([f"heard: {{maker: [{heard}]}}"] if heard else [])]
    return result(folder, scenario_text("10000 =x9", *lines), POLICY + SWITCH.replace("PENDING", pending))


def failures(found: CaseResult) -> list[tuple[str, str, str]]:
    """(time, wanted, seen) of every failure."""
    return [(offset(each.at), each.wanted, each.seen) for each in found.failures]


def test_a_switch_that_fires(tmp_path: Path) -> None:
    """The last heartbeat comes at 2:00: silent from 3:00 on, at the third check in a row, which is at 3:10."""
    found = played(
        tmp_path, "{from: 10s, until: 2m, progress: moves}",
        "{at: 1m, switch: maker, phase: armed}", "{at: 3m, switch: maker, phase: armed}",
        "{at: 4m, switch: maker, phase: fired}",
    )  # fmt: skip
    assert (found.outcome, failures(found)) == ("passed", [])


def test_a_switch_that_must_not_fire(tmp_path: Path) -> None:
    """A heartbeat every 10 s to the end."""
    found = played(
        tmp_path, "{from: 0s, until: 9m, progress: moves}", "{at: 9m, switch: maker, phase: armed}"
    )  # fmt: skip
    assert (found.outcome, failures(found)) == ("passed", [])


def test_a_loop_that_hangs_is_silent_although_its_thread_beats(tmp_path: Path) -> None:
    """Progress stands still at 3:00, counts as none after two minutes, and its silence began with the last change."""
    found = played(
        tmp_path, "{from: 0s, until: 3m, progress: moves}, {from: 3m10s, until: 9m, progress: same}",
        "{at: 4m, switch: maker, phase: armed}", "{at: 6m, switch: maker, phase: fired}",
    )  # fmt: skip
    assert (found.outcome, failures(found)) == ("passed", [])


def test_a_switch_that_cannot_be_heard_on_one_way_does_not_fire(tmp_path: Path) -> None:
    """One way has only errors and the other is silent: `on_one_way: page` decides that nothing is known."""
    found = played(
        tmp_path, "{from: 0s, until: 1m}, {from: 1m, until: 9m, way: 2, error: connection refused}",
        "{at: 9m, switch: maker, phase: armed}",
    )  # fmt: skip
    assert (found.outcome, failures(found)) == ("passed", [])


@pytest.mark.parametrize(("pending", "phase"), [("page", "pending"), ("fire", "fired")])
def test_a_switch_that_was_never_heard_follows_its_pending_limit(pending: str, phase: str, tmp_path: Path) -> None:
    """Two minutes, and then what the document says."""
    found = played(
        tmp_path, "", "{at: 1m, switch: maker, phase: pending}", f"{{at: 3m, switch: maker, phase: {phase}}}",
        pending=pending,
    )  # fmt: skip
    assert (found.outcome, failures(found)) == ("passed", [])


def test_another_phase_than_expected_is_shown(tmp_path: Path) -> None:
    """What is wanted, and what the watcher concludes."""
    found = played(tmp_path, "{from: 0s, until: 1m}", "{at: 5m, switch: maker, phase: armed}")
    assert failures(found) == [("5m", "switch maker is armed", "maker is fired")]


@pytest.mark.parametrize(
    ("heard", "expect", "code", "says"),
    [
        ("", "{at: 1m, switch: makr, phase: armed}", "KS7020", "did you mean `maker`?"),
        ("{from: 0s, until: 1m, way: 3}", "", "KS7020", "leave `way` out for all"),
        ("{from: 2m, until: 1m}", "", "KS7014", "write the end of the span after its beginning"),
        ("", "{at: 1m, switch: maker}", "KS7004", "write `switch: NAME` with `phase: pending`"),
        ("", "{at: 1m, in_force: none, phase: armed}", "KS7004", "write `switch: NAME` with `phase: pending`"),
    ],
)
def test_a_mistake_in_what_is_heard_or_expected(heard: str, expect: str, code: str, says: str, tmp_path: Path) -> None:
    """Each is an error before anything runs: it would make an expectation that nothing contradicts."""
    lines = [f"expect: [{expect}]", f"heard: {{maker: [{heard}]}}"]
    _, _, problems = loaded(
        tmp_path, scenario_text("10000 =x9", *lines), policy=POLICY + SWITCH.replace("PENDING", "page")
    )
    (problem,) = [each for each in problems if each.severity == "error"]
    assert (problem.code, says in problem.fix) == (code, True)
