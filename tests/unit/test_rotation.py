"""`make test` and `make test-venues` together run every test once, and each run reports what it leaves out."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests import rotation
from tests.rotation import VENUES, at_its_turn, each_taking_turns, headline, taking_turns

SMALL = """
import pytest
from tests.rotation import VENUES, taking_turns

@pytest.mark.parametrize("venue", taking_turns(VENUES, "rises"))
def test_rises(venue):
    pass

@pytest.mark.parametrize("venue", taking_turns(VENUES, "falls"))
def test_falls(venue):
    pass

def test_alone():
    pass
"""


@pytest.fixture(autouse=True)
def no_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the selection with which this run was started."""
    for name in ("KILLSWITCH_VENUE", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "TESTS", "K"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def small_suite(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Pytest arguments for a file with two rotating tests and one other, with the configuration of this tree."""
    monkeypatch.setenv("PYTHONPATH", str(repository))
    (tmp_path / "test_small.py").write_text(SMALL, encoding="utf-8")
    return ("-p", "tests.conftest", "-c", str(repository / "pyproject.toml"), str(tmp_path))


def are_left_to_venues(parameters: list[object]) -> list[bool]:
    """For each parameter set whether it is left to `make test-venues`."""
    return [any(mark.name == "venues" for mark in it.marks) for it in parameters]  # type: ignore[attr-defined]  # parameter sets of pytest


def selections(repository: Path) -> dict[str, list[str]]:
    """The pytest selection of the Makefile, by target."""
    found = {}
    for target in ("test", "test-venues"):
        command = ["make", "--dry-run", "--silent", target]
        output = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout
        words = shlex.split(output.strip().splitlines()[-1])
        found[target] = words[words.index("-m") : words.index("-m") + 2]
    return found


def run_pytest(repository: Path, *words: str) -> str:
    """The output of pytest with this tree."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout


def test_all_venues_but_one_are_left_to_the_other_target() -> None:
    """Each venue has a parameter set, and one is not marked; further values are passed through."""
    several = taking_turns(VENUES, "a test", 1, "two")
    assert [it.values for it in several] == [(venue, 1, "two") for venue in VENUES]
    assert sorted(are_left_to_venues(several)) == [False, *[True] * (len(VENUES) - 1)]
    each = each_taking_turns(VENUES, "a test", range(100))
    assert len({it.values for it in each}) == 100 * len(VENUES)
    assert are_left_to_venues(each).count(False) == 100


def test_different_tests_run_at_different_venues() -> None:
    """A run leaves out no venue, and no venue dominates it."""
    venues = Counter(at_its_turn(VENUES, f"test {number}") for number in range(700))
    assert set(venues) == set(VENUES)
    assert max(venues.values()) < 200


def test_another_commit_selects_another_venue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over some commits a test runs at every venue."""
    venues = set()
    for number in range(100):
        monkeypatch.setattr(rotation, "commit", lambda number=number: f"{number:040x}")
        venues.add(at_its_turn(VENUES, "a test"))
    assert venues == set(VENUES)


def test_a_named_venue_is_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the test has that venue, under any of its names; else the rotation applies. An unknown name is refused."""
    turn = at_its_turn(["okx", "mexc"], "a test")
    monkeypatch.setenv("KILLSWITCH_VENUE", "binance")
    assert at_its_turn(["okx", "binanceusdm", "mexc"], "a test") == "binanceusdm"
    assert at_its_turn(["okx", "mexc"], "a test") == turn
    assert "at binance" in headline()
    monkeypatch.setenv("KILLSWITCH_VENUE", "binnance")
    with pytest.raises(ValueError, match="binnance"):
        headline()


def test_both_targets_together_run_every_test_once(
    repository: Path, small_suite: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one target leaves out the other runs, in any process and with any hash seed."""
    listed: dict[str, list[str]] = {}
    for number, (target, selection) in enumerate([("all", []), *selections(repository).items()]):
        monkeypatch.setenv("PYTHONHASHSEED", str(number))
        output = run_pytest(repository, "--collect-only", "-o", "addopts=", "-q", *selection, *small_suite)
        listed[target] = [line for line in output.splitlines() if "::" in line]
    assert len(listed["all"]) == 2 * len(VENUES) + 1
    assert sorted(listed["test"] + listed["test-venues"]) == sorted(listed["all"])
    assert len(listed["test"]) == 3


def test_a_run_reports_its_venues_and_the_number_of_deselected_tests(
    repository: Path, small_suite: tuple[str, ...]
) -> None:
    """Also with several worker processes: they agree, and a deselected test is counted once."""
    for processes in ([], ["--numprocesses", "2", "--dist", "worksteal"]):
        output = run_pytest(repository, *small_suite, *selections(repository)["test"], *processes).strip().splitlines()
        assert output[0] == headline()
        assert re.fullmatch(rf"3 passed, {2 * (len(VENUES) - 1)} deselected in .*", output[-1])


def test_a_file_that_hides_its_mark_is_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make test-venues` reads only files that name the mark, so `make test` refuses a mark imported indirectly."""
    monkeypatch.setenv("PYTHONPATH", f"{repository}:{tmp_path}")
    (tmp_path / "elsewhere.py").write_text("from tests.rotation import LEFT", encoding="utf-8")
    hidden = "from elsewhere import LEFT\n\n@LEFT\ndef test_it():\n    pass\n"
    (tmp_path / "test_small.py").write_text(hidden, encoding="utf-8")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run_pytest(repository, "-p", "tests.conftest", "-c", str(repository / "pyproject.toml"), str(tmp_path))
    assert "test_small.py: has tests for `make test-venues`" in refused.value.stderr


def test_named_tests_are_all_run(repository: Path) -> None:
    """`make test TESTS=path` and `K=words` leave nothing to the other target."""
    for named in ("TESTS=tests/wire", "K=lost"):
        command = ["make", "--dry-run", "--silent", "test", named]
        output = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout
        words = shlex.split(output.strip().splitlines()[-1])
        assert "-m" not in words
        assert named.partition("=")[2] in words
