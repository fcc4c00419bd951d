"""`make test` and `make test-venues` together are everything, once; and each run says what it leaves out."""

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
def no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """However this run was started."""
    for name in ("KILLSWITCH_VENUE", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "TESTS", "K"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def small(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """What has pytest run a file with two tests that take turns and one that does not, as it runs this tree."""
    monkeypatch.setenv("PYTHONPATH", str(repository))
    (tmp_path / "test_small.py").write_text(SMALL, encoding="utf-8")
    return ("-p", "tests.conftest", "-c", str(repository / "pyproject.toml"), str(tmp_path))


def marked(parameters: list[object]) -> list[bool]:
    """Which of them are left to `make test-venues`."""
    return [any(mark.name == "venues" for mark in it.marks) for it in parameters]  # type: ignore[attr-defined]


def selections(repository: Path) -> dict[str, list[str]]:
    """What the Makefile gives pytest to select by, by target."""
    found = {}
    for target in ("test", "test-venues"):
        command = ["make", "--dry-run", "--silent", target]
        told = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout
        words = shlex.split(told.strip().splitlines()[-1])
        found[target] = words[words.index("-m") : words.index("-m") + 2]
    return found


def run(repository: Path, *words: str) -> str:
    """What pytest prints, of this tree."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout


def test_all_but_one_venue_are_left() -> None:
    """Each venue is there, and one is not marked; what else a test is given is handed through."""
    several = taking_turns(VENUES, "a test", 1, "two")
    assert [it.values for it in several] == [(venue, 1, "two") for venue in VENUES]
    assert sorted(marked(several)) == [False, *[True] * (len(VENUES) - 1)]
    each = each_taking_turns(VENUES, "a test", range(100))
    assert len({it.values for it in each}) == 100 * len(VENUES)
    assert marked(each).count(False) == 100


def test_different_tests_take_different_venues() -> None:
    """No venue is left out of a run, nor is one in most of it."""
    taken = Counter(at_its_turn(VENUES, f"test {number}") for number in range(700))
    assert set(taken) == set(VENUES)
    assert max(taken.values()) < 200


def test_another_commit_takes_another_venue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over some commits a test has been at every venue."""
    taken = set()
    for number in range(100):
        monkeypatch.setattr(rotation, "commit", lambda number=number: f"{number:040x}")
        taken.add(at_its_turn(VENUES, "a test"))
    assert taken == set(VENUES)


def test_whoever_names_a_venue_has_it_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the test is told there, under whatever name; elsewhere it is its turn. A name of no venue is refused."""
    turn = at_its_turn(["okx", "mexc"], "a test")
    monkeypatch.setenv("KILLSWITCH_VENUE", "binance")
    assert at_its_turn(["okx", "binanceusdm", "mexc"], "a test") == "binanceusdm"
    assert at_its_turn(["okx", "mexc"], "a test") == turn
    assert "at binance" in headline()
    monkeypatch.setenv("KILLSWITCH_VENUE", "binnance")
    with pytest.raises(ValueError, match="binnance"):
        headline()


def test_both_commands_together_are_everything_once(
    repository: Path, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one leaves out the other runs, whichever process says so and however it hashes."""
    listed: dict[str, list[str]] = {}
    for number, (target, selection) in enumerate([("all", []), *selections(repository).items()]):
        monkeypatch.setenv("PYTHONHASHSEED", str(number))
        told = run(repository, "--collect-only", "-o", "addopts=", "-q", *selection, *small)
        listed[target] = [line for line in told.splitlines() if "::" in line]
    assert len(listed["all"]) == 2 * len(VENUES) + 1
    assert sorted(listed["test"] + listed["test-venues"]) == sorted(listed["all"])
    assert len(listed["test"]) == 3


def test_a_run_says_which_venues_it_takes_and_how_many_tests_it_leaves(
    repository: Path, small: tuple[str, ...]
) -> None:
    """Also where processes of their own run the tests: these agree, and what they leave out is counted once."""
    for processes in ([], ["--numprocesses", "2", "--dist", "worksteal"]):
        told = run(repository, *small, *selections(repository)["test"], *processes).strip().splitlines()
        assert told[0] == headline()
        assert re.fullmatch(rf"3 passed, {2 * (len(VENUES) - 1)} deselected in .*", told[-1])


def test_a_file_that_hides_what_it_leaves_is_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make test-venues` reads only files that name the mark, so `make test` takes none that has it from elsewhere."""
    monkeypatch.setenv("PYTHONPATH", f"{repository}:{tmp_path}")
    (tmp_path / "elsewhere.py").write_text("from tests.rotation import LEFT", encoding="utf-8")
    hidden = "from elsewhere import LEFT\n\n@LEFT\ndef test_it():\n    pass\n"
    (tmp_path / "test_small.py").write_text(hidden, encoding="utf-8")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run(repository, "-p", "tests.conftest", "-c", str(repository / "pyproject.toml"), str(tmp_path))
    assert "test_small.py: has tests for `make test-venues`" in refused.value.stderr


def test_whoever_names_tests_gets_all_of_them(repository: Path) -> None:
    """`make test TESTS=path` and `K=words` leave nothing to another command."""
    for named in ("TESTS=tests/wire", "K=lost"):
        command = ["make", "--dry-run", "--silent", "test", named]
        told = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout
        words = shlex.split(told.strip().splitlines()[-1])
        assert "-m" not in words
        assert named.partition("=")[2] in words
