"""Start-up time of `ksctl validate policies/` and `ksctl --help`, measured as whole processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Measure, best_of

ROUNDS = 40
KSCTL = Path(sys.executable).parent / "ksctl"
POLICIES = Path(__file__).resolve().parents[2] / "policies"


def measures() -> Iterator[Measure]:
    """Each against a Python with only the named imports; `validate`, run at every save, also against a second."""
    yield _process(
        "ksctl validate policies/",
        [str(KSCTL), "validate", str(POLICIES)],
        "click, pydantic, ruamel.yaml",
        6.0,
    )
    yield _within_a_second("ksctl validate policies/", [str(KSCTL), "validate", str(POLICIES)])
    yield _process("ksctl --help", [str(KSCTL), "--help"], "click", 1.3)


def _process(name: str, command: list[str], imports: str, limit: float) -> Measure:
    reference = [sys.executable, "-c", f"import {imports}"]
    ours, against = best_of(ROUNDS, lambda: _run(command), lambda: _run(reference))
    return Measure(name, ours * 1000, against * 1000, f"python importing {imports}", limit)


def _within_a_second(name: str, command: list[str]) -> Measure:
    ours, _ = best_of(ROUNDS, lambda: _run(command), lambda: None)
    return Measure(f"{name}, at every save", ours * 1000, 1000.0, "one second", 1.0)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
