"""Proofs at the desk: all shipped policies, a comparison of one changed policy, and a set of 200 triggers.

The first two are whole processes of `ksctl prove`, start-up included; the third is the proof alone, of one policy with
25 triggers at each of eight levels over 20 windows.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from killswitch.graph.compile import compile_loaded
from killswitch.graph.nodes import Graph
from killswitch.policy.loader import load
from killswitch.proof.properties import prove
from killswitch.proof.solver import Prover
from tests.bench.measure import Measure, best_of

KSCTL = (sys.executable, "-c", "from killswitch.cli import main; main()", "prove")
POLICIES = Path(__file__).resolve().parents[2] / "policies"
LEVELS, EACH, WINDOWS = 8, 25, 20
HEAD = """apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: many}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
"""


def measures() -> Iterator[Measure]:
    """Seconds of each, against the seconds that were promised."""
    seconds, _ = best_of(1, lambda: _run(str(POLICIES)), lambda: None)
    yield Measure("ksctl prove policies/", seconds, 10.0, "ten seconds", 1.0, "s")
    with TemporaryDirectory() as folder:
        changed = Path(folder) / "policy.yaml"
        written = (POLICIES / "futures-drawdown/policy.yaml").read_text(encoding="utf-8")
        changed.write_text(written.replace("at_least: 14%", "at_least: 13%"), encoding="utf-8")
        base = str(POLICIES / "futures-drawdown/policy.yaml")
        seconds, _ = best_of(3, lambda: _run(str(changed), "--against", base), lambda: None)
        yield Measure("ksctl prove --against of one changed policy", seconds, 2.0, "two seconds", 1.0, "s")
        graph = _many(Path(folder) / "many.yaml")
    seconds, _ = best_of(1, lambda: prove(Prover(perf_counter), graph), lambda: None)
    yield Measure(f"proof of {len(graph.triggers)} triggers", seconds, 30.0, "thirty seconds", 1.0, "s")


def _run(*arguments: str) -> None:
    """Run the verb; it exits 1 where a shipped policy is refuted."""
    done = subprocess.run([*KSCTL, *arguments], check=False, stdout=subprocess.DEVNULL)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"ksctl prove exits {done.returncode}")


def _many(path: Path) -> Graph:
    triggers = [
        f"    t{i}: {{signal: equity.drawdown, window: {15 + i % WINDOWS * 15}m, "
        f"at_least: {4 + i // EACH * 2 + i % EACH * 0.05:.2f}%, confirm: {1 + i // EACH % 3}m, on_unknown: hold, "
        "grace: 9h}"
        for i in range(LEVELS * EACH)
    ]
    reset = "{auto: {when: 'equity.drawdown(\"5h\") < 0.02', for: 60m}}"
    stages = [
        f"    - {{name: s{k}, level: {k + 1}, any: [{', '.join(f't{i}' for i in range(k * EACH, k * EACH + EACH))}], "
        f"cooldown: 30m, reset: {reset}, actions: [{{close: {{side: both, fraction: 100%}}}}]}}"
        for k in range(LEVELS)
    ]
    path.write_text("\n".join([f"{HEAD}  triggers:", *triggers, "  stages:", *stages, ""]), encoding="utf-8")
    compiled, diagnostics = compile_loaded(load([path]))
    if compiled is None:
        raise RuntimeError("; ".join(each.message for each in diagnostics))
    return compiled.graphs[0]
