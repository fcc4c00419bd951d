"""What every test may ask for: the shared material, and Hypothesis without a stopwatch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent

# Hundreds of tests start the program. Where an environment keeps no bytecode (images often say so) each of them would
# compile it anew, and so would pytest all its tests: that takes longer than the tests themselves.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

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


@pytest.fixture(autouse=True)
def rules_of_its_own() -> Iterator[None]:
    """No test is given market rules that another has loaded: their port may be another venue's by now."""
    yield
    if "killswitch_ccxt.rules" in sys.modules:
        sys.modules["killswitch_ccxt.rules"]._SHARED.clear()
