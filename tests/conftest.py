"""Fixtures for every test, Hypothesis without deadlines, and the header and summary of a run: its venues, and the
number of deferred tests."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.rotation import headline, may_leave

if TYPE_CHECKING:
    from killswitch.store.sql import SqlStore
    from tests.incidents import FilledStore
    from tests.runner_world import World

REPOSITORY = Path(__file__).resolve().parent.parent

# Hundreds of tests start the program. In an environment that writes no bytecode (common in images) each of them, and
# pytest for its tests, would compile everything again, which takes longer than the tests themselves.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Tests that run next to each other may arm accounts of one name at one address.
os.environ["KSCTL_RUN_DIR"] = RUN_DIR = tempfile.mkdtemp(prefix="killswitch-claims-")
atexit.register(shutil.rmtree, RUN_DIR, ignore_errors=True)

# Parsed texts of one test are nothing that another one may depend on.
os.environ["KSCTL_CACHE"] = CACHE = tempfile.mkdtemp(prefix="killswitch-cache-")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)

# No example fails because of its duration. In CI the examples are the same each time.
settings.register_profile(
    "house",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared material: $KILLSWITCH_SHARED, else `shared` next to the repository, else skip."""
    named = os.environ.get("KILLSWITCH_SHARED")
    folder = Path(named) if named else REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the shared material: no folder {folder.name}/ (set KILLSWITCH_SHARED)")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """An empty store on disk."""
    from killswitch.store.sqlite import open_store  # only tests of stores import SQLAlchemy

    opened = open_store(str(tmp_path / "store.sqlite"))
    yield opened
    opened.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A store on disk, and runners on it in virtual time."""
    from tests.runner_world import World  # only tests of the runner import the runner

    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def written(tmp_path: Path) -> Iterator[FilledStore]:
    """A store that a test fills as a run would have left it."""
    from tests.incidents import filled_store  # only tests of incidents import these

    filled = filled_store(tmp_path)
    yield filled
    filled.store.close()


@pytest.fixture(autouse=True, scope="module")
def litter_of_its_own() -> Iterator[None]:
    """Collect garbage after each file, so that an unclosed resource is an error in the file that left it.

    What is alive then is no litter of a file: the next collections need not visit it again.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def rules_of_its_own() -> Iterator[None]:
    """Discard the market rules that another test has loaded: a different venue may use their port now."""
    yield
    if "killswitch_ccxt.rules" in sys.modules:
        sys.modules["killswitch_ccxt.rules"].SHARED.clear()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Print the venues of the run; pytest does not print its own header with `-q`."""
    try:
        line = headline()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):
        reporter.write_line(line)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make test-venues` collects only files that may have deferred tests."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if is_test and config.option.markexpr == "venues" and not may_leave(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check that `make test-venues` collects every file with deferred tests, so that no test is lost."""
    leaving = {item.path for item in items if item.get_closest_marker("venues")}
    for path in sorted(leaving):
        if not may_leave(path):
            raise pytest.UsageError(
                f"{path}: has tests for `make test-venues`, which does not collect this file: use the mark by its name"
            )


def pytest_collection_finish() -> None:
    """Exclude everything that exists before the first test from garbage collection, and collect less often.

    Both together save a sixth of the time of a test of closing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


_LEFT_OUT: list[pytest.Item] = []
"""The tests that this process deselected."""


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Record them: xdist does not report what its worker processes deselect."""
    _LEFT_OUT.extend(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the number to the process that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = len(_LEFT_OUT)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the deselected tests to pytest's last line, once: every process deselects the same ones."""
    reporter = node.config.pluginmanager.get_plugin("terminalreporter")
    left_out = getattr(node, "workeroutput", {}).get("left_out", 0)
    if reporter is not None and left_out and "deselected" not in reporter.stats:
        # pytest uses only their number, but other plugins inspect each of them.
        reporter.stats["deselected"] = [SimpleNamespace()] * left_out
