"""The comparison of the policy files with those of a run sits in no tick."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from killswitch.accounts.opening import read_policies
from killswitch.engine.alerts import AlertState, advance
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import Snapshot
from killswitch.runner.observers import TickReport
from killswitch.runner.policy_files import PolicyFiles
from tests.e2e.processes import POLICY, until
from tests.worlds import START

REPORT = TickReport(Snapshot(START, (), "killswitch.snapshot/v1"), (), (), (), (), 0.0)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "p" / "policy.yaml"
    path.parent.mkdir()
    path.write_text(POLICY, encoding="utf-8")
    return path


def watched(policy: Path, loaded_at: float) -> PolicyFiles:
    """The files of a run that loaded them after `loaded_at`, looked at whenever a tick has none under way."""
    hours = iter(range(10**6))
    loaded = read_policies((policy.parent,))
    return PolicyFiles((policy.parent,), loaded, loaded_at, lambda: 3600.0 * next(hours))


def shown(files: PolicyFiles) -> str | None:
    files.ticked(REPORT)
    return files.state


def test_a_file_that_was_edited_while_the_run_started_is_found(policy: Path) -> None:
    """Between the load and the first look: the first look compares by content, unless no file is newer."""
    files = watched(policy, loaded_at=0.0)
    policy.write_text(POLICY.replace("2%", "3%"), encoding="utf-8")
    until(lambda: shown(files) == "changed", "the edit is found")
    assert [(each.key, each.severity) for each in files.alerts.found] == [("policies/changed", "warning")]


def test_a_deleted_folder_is_a_page(policy: Path) -> None:
    """Nothing else would tell: the run goes on, and so does a restart, with the last good set."""
    files = watched(policy, loaded_at=time.time() + 60)
    until(lambda: shown(files) == "as loaded", "they are the same")
    policy.unlink()
    until(lambda: shown(files) == "broken", "the loss is found")
    (alert,) = files.alerts.found
    assert (alert.key.startswith("policies/broken/"), alert.severity) == (True, "page")
    assert "and so does a restart" in alert.text


def test_w5_another_mistake_is_another_page_and_no_end_of_the_first(policy: Path) -> None:
    """W5: the culprit is named; the same one pages once, however often the file is saved."""
    files, state = watched(policy, loaded_at=0.0), AlertState()
    pages = []
    for second, (before, after, seen) in enumerate(
        [("kind: Policy", "kind: Polcy", "Polcy"), ("kind: Policy", "kind: Plicy", "Plicy"), ("2%", "much", "KS2")]
    ):
        policy.write_text(POLICY.replace(before, after), encoding="utf-8")
        until(lambda seen=seen: shown(files) == "broken" and seen in files.alerts.texts[0], f"{seen} is found")  # type: ignore[misc] # a bound name
        issued, state = advance(state, files.alerts, second * SECOND)
        pages.append([each.text for each in issued])
    assert [len(each) for each in pages] == [1, 0, 1]
    assert ("KS1206" in pages[0][0], "KS2" in pages[2][0]) == (True, True)


def test_an_edit_that_no_longer_compiles_is_not_reported_as_over(policy: Path) -> None:
    """From changed to broken and back to changed: nothing says that the files are those that run."""
    files, state = watched(policy, loaded_at=0.0), AlertState()
    said = []
    edits = [("2%", "3%", "changed"), ("kind: Policy", "kind: Polcy", "broken"), ("2%", "4%", "changed")]
    for second, (before, after, expected) in enumerate(edits):
        policy.write_text(POLICY.replace(before, after), encoding="utf-8")
        until(lambda expected=expected: shown(files) == expected, f"they are {expected}")  # type: ignore[misc] # a bound name
        issued, state = advance(state, files.alerts, second * SECOND)
        said.append([each.text.split(":")[0].split(" (")[0].partition(", after")[0] for each in issued])
    assert said == [
        ["the policy files have changed"],
        ["the policy files have changed and do not compile"],
        ["the policy files have changed", "the policy files compile again"],
    ]


def test_files_on_a_disk_that_hangs_delay_no_tick(policy: Path) -> None:
    """The state is unknown, which ends no alert; one thread hangs, however many ticks go by."""
    answers, looks = threading.Event(), []

    class HangingPath(type(policy)):  # type: ignore[misc] # the class of the system's paths
        """A folder whose disk does not answer."""

        def is_file(self) -> bool:
            looks.append(threading.current_thread())
            answers.wait()
            return False

    files = PolicyFiles((HangingPath(policy.parent),), read_policies((policy.parent,)), 0.0, time.monotonic)
    for _ in range(5):
        assert shown(files) is None
    until(lambda: looks, "the look has begun")
    assert (len(looks), looks[0] is threading.main_thread()) == (1, False)
    assert (files.alerts.found, files.alerts.unknown) == ((), ("policies",))
    answers.set()
