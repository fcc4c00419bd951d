"""Environments with the real packages of bots, pinned, cached between runs, and skipped with their reason.

`KILLSWITCH_BOTS` names the folder (`make test-bots` sets it); left out, `killswitch-bots` in the user's cache folder.
The name of an environment has the digest of its pins, so that a change makes another one. Killswitch itself is
installed as the documentation says, without its dependencies, from a wheel of this tree.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from msgspec import Struct

from tests.e2e.fork_client import REPOSITORY

PINS: Final = REPOSITORY / "tests" / "bots" / "pins"
INSTALL_LIMIT: Final = 900.0
"""Seconds for an installation; hummingbot compiles for four minutes."""


DAY: Final = 86400.0


class BotPackage(Struct, frozen=True):
    """A package as its page installs it. `alone`: the requirement that is installed without its dependencies.

    `pythons`: the versions that it has wheels for, the preferred one first; left out, that of the tests.
    """

    name: str
    pythons: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    alone: str | None = None
    environment: Mapping[str, str] = {}


PACKAGES: Final = {
    "ccxt": BotPackage("ccxt"),
    "freqtrade": BotPackage("freqtrade"),
    "nautilus": BotPackage("nautilus", pythons=("3.12", "3.13"), options=("--only-binary=:all:",)),
    # The last version with a wheel for it.
    "nautilus-3.11": BotPackage("nautilus-3.11", pythons=("3.11",), options=("--only-binary=:all:",)),
    # Its own requirements cannot be resolved: the pins are what it needs to run a strategy.
    "hummingbot": BotPackage("hummingbot", alone="hummingbot", environment={"WITHOUT_CYTHON_OPTIMIZATIONS": "1"}),
}


class BotEnvironment(Struct, frozen=True):
    """A Python with a bot's package, and Killswitch next to it."""

    python: Path
    killswitch: Path

    def variables(self, **more: str) -> dict[str, str]:
        """The environment of its processes: Killswitch's folder and nothing of this tree on the path."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "KILLSWITCH_"))}
        return {**kept, "PYTHONPATH": str(self.killswitch), "PYTHONUNBUFFERED": "1", **more}


def folder() -> Path:
    """Where environments are kept."""
    named = os.environ.get("KILLSWITCH_BOTS")
    return Path(named) if named else Path.home() / ".cache" / "killswitch-bots"


@cache
def environment_of(name: str) -> BotEnvironment:
    """The environment of a package, installed if it is not there. Skips the test where that fails."""
    package = PACKAGES[name]
    pins = (PINS / f"{name}.txt").read_text(encoding="utf-8")
    version, python = _interpreter(package)
    digest = hashlib.sha256(f"{version}\n{package.options}\n{pins}".encode()).hexdigest()[:12]
    place = folder() / f"{name}-{digest}"
    with _alone(folder() / f"{name}-{digest}.lock"):
        if not (place / ".installed").exists():
            shutil.rmtree(place, ignore_errors=True)
            problem = _install(package, python, pins, place)
            if problem is not None:
                shutil.rmtree(place, ignore_errors=True)
                pytest.skip(f"{name} cannot be installed here: {problem}")
            (place / ".installed").touch()
    return BotEnvironment(place / "bin" / "python", _killswitch())


@cache
def _killswitch() -> Path:
    """Killswitch, installed without dependencies: a folder for the path of a bot's Python."""
    tree = hashlib.sha256()
    for each in sorted((REPOSITORY / "killswitch").rglob("*.py")):
        tree.update(each.read_bytes())
    place = folder() / f"killswitch-{tree.hexdigest()[:12]}"
    with _alone(folder() / "killswitch.lock"):
        if not place.exists():
            for older in folder().glob("killswitch-*"):
                if time.time() - older.stat().st_mtime > DAY:  # another tree may use one that is younger
                    shutil.rmtree(older, ignore_errors=True)
            wheels = place.with_suffix(".wheel")
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
            _run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(REPOSITORY)])
            (wheel,) = wheels.glob("*.whl")
            unfinished = place.with_suffix(".new")
            _run([*pip, "install", "--no-deps", "--target", str(unfinished), str(wheel)])
            unfinished.rename(place)
            shutil.rmtree(wheels)
    return place


def _interpreter(package: BotPackage) -> tuple[str, str]:
    """The version and the path of a Python that the package has wheels for. Skips the test where there is none."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in package.pythons or (own,):
        kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        places = [shutil.which(f"python{version}"), *map(str, sorted(kept.glob(f"{version}.*/bin/python{version}")))]
        for each in [sys.executable] if version == own else places:
            if each is not None and _can_run(each):
                return version, each
    pytest.skip(f"{package.name} needs Python {' or '.join(package.pythons)}, which is not on this machine")


def _can_run(python: str) -> bool:
    """Whether it starts: the name of a version that pyenv has not selected does not."""
    return subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode == 0


def _install(package: BotPackage, base: str, pins: str, place: Path) -> str | None:
    """Create an environment; what went wrong, or None."""
    place.parent.mkdir(parents=True, exist_ok=True)
    python = str(place / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    listed = place.parent / f"{package.name}.pins"
    alone = [line for line in pins.splitlines() if package.alone and line.startswith(f"{package.alone}==")]
    listed.write_text("".join(f"{line}\n" for line in pins.splitlines() if line not in alone), encoding="utf-8")
    try:
        _run([base, "-m", "venv", str(place)])
        if alone:
            _run([*pip, "setuptools", "wheel"], package.environment)
            _run([*pip, "--no-deps", *alone], package.environment)
        _run([*pip, *package.options, "--requirement", str(listed)], package.environment)
    except subprocess.CalledProcessError as error:
        return (error.stderr or error.stdout).strip().splitlines()[-1][:300] if error.stderr or error.stdout else "?"
    except subprocess.TimeoutExpired:
        return f"it takes longer than {INSTALL_LIMIT:g} s"
    finally:
        listed.unlink(missing_ok=True)
    return None


def _run(command: list[str], more: Mapping[str, str] | None = None) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    subprocess.run(command, env={**kept, **(more or {})}, check=True, capture_output=True, text=True,
                   timeout=INSTALL_LIMIT)  # fmt: skip


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time; another one waits until the environment is complete."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
