"""What every test may ask for: the shared material, and Hypothesis without a stopwatch. And what a run says of itself:
which venues it takes, and how many tests it leaves out."""

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

# Hundreds of tests start the program. Where an environment keeps no bytecode (images often say so) each of them would
# compile it anew, and so would pytest all its tests: that takes longer than the tests themselves.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Tests that run next to each other may arm accounts of one name at one address.
os.environ["KSCTL_RUN_DIR"] = RUN_DIR = tempfile.mkdtemp(prefix="killswitch-claims-")
atexit.register(shutil.rmtree, RUN_DIR, ignore_errors=True)

# A slow machine is no defect: no example fails for its time. In CI the examples are the same each time.
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
    """The folder of shared material: $KILLSWITCH_SHARED, else `shared` beside the repository, else skip."""
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
    """What a file leaves unclosed is found, and is an error, in that file: not where the collector next comes by."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def rules_of_its_own() -> Iterator[None]:
    """No test is given market rules that another has loaded: their port may be another venue's by now."""
    yield
    if "killswitch_ccxt.rules" in sys.modules:
        sys.modules["killswitch_ccxt.rules"]._SHARED.clear()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say which venues the run takes; pytest's own header is not printed with `-q`."""
    try:
        line = headline()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):
        reporter.write_line(line)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make test-venues` reads only files that may have tests for it."""
    told = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if told and config.option.markexpr == "venues" and not may_leave(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No test is lost between the two commands: the other one finds every file that leaves something to it."""
    leaving = {item.path for item in items if item.get_closest_marker("venues")}
    for path in sorted(leaving):
        if not may_leave(path):
            raise pytest.UsageError(
                f"{path}: has tests for `make test-venues`, which does not find them: name the mark"
            )


def pytest_collection_finish() -> None:
    """What is there before the first test stays: the collector of garbage need not look through it again and again.

    It looks for what tests leave less often, too. Both together are a sixth of the time of a test of closing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


_LEFT_OUT: list[pytest.Item] = []
"""What this process has not selected."""


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remember it: where tests run in processes of their own, xdist does not say what these leave out."""
    _LEFT_OUT.extend(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = len(_LEFT_OUT)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Count what was left out into pytest's last line, once: every process leaves out the same."""
    reporter = node.config.pluginmanager.get_plugin("terminalreporter")
    left_out = getattr(node, "workeroutput", {}).get("left_out", 0)
    if reporter is not None and left_out and "deselected" not in reporter.stats:
        # Of these pytest reads no more than how many there are, but other plugins look at each.
        reporter.stats["deselected"] = [SimpleNamespace()] * left_out
