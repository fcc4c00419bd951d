"""`ksctl validate` of 1,000 triggers in 200 files, 1.3 MB in all, as whole processes: what a save costs at the desk.

Each of 200 books has five triggers and five stages, with the comments of a policy that people read; the thresholds
differ from book to book. Cold: no parsed text is kept. Changed: one file differs from the run before. `startup`: the
same command on the shipped policies, and `ksctl --help`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.measure import Measure, best_of

FILES, PER_FILE, ROUNDS, STARTS = 200, 5, 5, 40
KSCTL = Path(sys.executable).parent / "ksctl"
POLICIES = Path(__file__).resolve().parents[2] / "policies"
SIZE = 1_300_000
COLD, CHANGED = 3.0, 1.0
"""Seconds."""

TRIGGER = """\
    # Level {level}: a fall over {window} minutes. Confirmed, because one print is no fall; held while data is missing.
    fall-{level}:
      signal: equity.drawdown
      window: {window}m
      at_least: {threshold}%
      confirm: 2m
      on_unknown: hold
      grace: {grace}m
"""
STAGE = """\
    - name: level-{level}
      level: {level}
      any: [fall-{level}]
      cooldown: {cooldown}m
      reset: {{auto: {{when: 'equity.drawdown("1h") < 0.0{book} && exposure.leverage < 2.0', for: 60m}}}}
      # With so much of the losses on one side, that side is the problem, and what hedges it must stay.
      attribution: {{source_at_least: 65%, if_mixed: worst_ranked, if_unknown: worst_ranked}}
      actions:
        - lock_trading: {{mode: reduce_only, for: {cooldown}m}}
        # Resting entries would be filled by the same fall just after the close, and open again what was closed.
        - cancel_orders: {{kind: entry}}
        # What is closed first: the ranking of the desk, by the loss of each position and its distance to liquidation.
        # Half of each, because the desk looks at the book after the first cut, within the cooldown of the stage.
        - close: {{side: losing, top: {level}, fraction: 50%, all_if: 'position.liquidation_distance <= 0.03'}}
      notify: [risk-desk]
      runbook: trim-top-risk
"""
POLICY = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: book-{book}, labels: {{owner: risk-desk}}}}
spec:
  mode: enforce
  scope: {{each: account, match: {{account: [account-{book}]}}}}
  max_gap: 10m
  triggers:
{triggers}  stages:
{stages}"""


def measures() -> Iterator[Measure]:
    """Against the promised seconds, and twice as many files against half of them."""
    with TemporaryDirectory() as folder:
        whole, half, cache = Path(folder) / "whole", Path(folder) / "half", Path(folder) / "cache"
        size = write_set(whole, FILES)
        write_set(half, FILES // 2)
        if not 0.9 * SIZE < size < 1.1 * SIZE:
            raise AssertionError(f"the set has {size} bytes, and is not the promised one")
        cold, of_half = best_of(ROUNDS, lambda: _cold(whole, cache), lambda: _cold(half, cache))
        yield Measure(f"validate of {FILES} files, nothing kept", cold * 1e3, COLD * 1e3, "promised", 1.0)
        yield Measure("a file of 200", cold / FILES * 1e3, of_half / (FILES // 2) * 1e3, "a file of 100", 1.3)
        edits = iter(range(ROUNDS))
        validate(whole, cache)
        changed, _ = best_of(ROUNDS, lambda: _changed(whole, cache, next(edits)), lambda: None)
        yield Measure("after one file has changed", changed * 1e3, CHANGED * 1e3, "promised", 1.0)


def write_set(folder: Path, files: int) -> int:
    """Write the set; returns its bytes."""
    folder.mkdir()
    for book in range(files):
        (folder / f"book-{book:03}.yaml").write_text(policy_text(book), encoding="utf-8")
    return sum(file.stat().st_size for file in folder.iterdir())


def policy_text(book: int) -> str:
    """The policy of one book."""
    levels = range(1, PER_FILE + 1)
    triggers = (
        TRIGGER.format(level=each, window=10 + 7 * each, threshold=f"{4 + each}.{book:03}", grace=20 + 8 * each)
        for each in levels
    )
    stages = (STAGE.format(level=each, cooldown=30 * each, book=f"{book + 100}") for each in levels)
    return POLICY.format(book=book, triggers="".join(triggers), stages="".join(stages))


def validate(folder: Path, cache: Path) -> None:
    """Run the command; CalledProcessError if the set is not valid."""
    command = [sys.executable, "-c", "from killswitch.cli import main; main()", "validate", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "KSCTL_CACHE": str(cache)})


def _cold(folder: Path, cache: Path) -> None:
    shutil.rmtree(cache, ignore_errors=True)
    validate(folder, cache)


def _changed(folder: Path, cache: Path, edit: int) -> None:
    text = policy_text(7).replace("confirm: 2m", f"confirm: {3 + edit}m")
    (folder / "book-007.yaml").write_text(text, encoding="utf-8")
    validate(folder, cache)


def startup() -> Iterator[Measure]:
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
    ours, against = best_of(STARTS, lambda: _run(command), lambda: _run(reference))
    return Measure(name, ours * 1000, against * 1000, f"python importing {imports}", limit)


def _within_a_second(name: str, command: list[str]) -> Measure:
    ours, _ = best_of(STARTS, lambda: _run(command), lambda: None)
    return Measure(f"{name}, at every save", ours * 1000, 1000.0, "one second", 1.0)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
