"""Baselines of documents and recordings: digests, diagrams, schemas, replays, a saved plan, a backtest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from killswitch.planning.operator.plan_file import decode_plan, encode_plan
from tests.baselines.dumps import normalized
from tests.baselines.scenarios import PLAN
from tests.baselines.site import START
from tests.baselines.verbs import REPOSITORY, ksctl, ksctl_at

SHIPPED = REPOSITORY / "policies"
RECORDED = Path(__file__).parent / "recorded"
OWN = Path(__file__).parent / "policies"
REPLAYED = {
    "closed": (OWN / "staged", SHIPPED / "futures-drawdown", SHIPPED / "circuit-breaker"),
    "waiting": (OWN / "waiting", OWN / "stop"),
    "hops": (OWN / "spot", SHIPPED / "spot-drawdown"),
}
"""Recording → the policies that it is replayed with."""


def shipped(folder: Path) -> dict[str, str]:
    """`validate` and each diagram of each shipped policy set, with every variant, as text."""
    found = []
    for each in [*sorted(path.parent for path in SHIPPED.glob("*/policy.yaml")), SHIPPED]:
        copy = _copied(each, folder)
        found.append(_in(folder, "validate", str(copy), "--output", "json"))
        if each != SHIPPED:
            for variant in ((), ("--variant", "tight")):
                for form in ("mermaid", "dot"):
                    found.append(_in(folder, "graph", str(copy), "--format", form, *variant, "--output", "json"))
    return {"policies.txt.gz": "\n".join(found)}


def schemas(folder: Path) -> dict[str, str]:
    """The schema of all documents together and of each kind, the catalogue of signals, and the list of venues."""
    listed = ksctl("schema")
    kinds = json.loads(listed.partition("\n")[2])["properties"]["kind"]["enum"]
    texts = [listed, *(ksctl("schema", kind, "--output", "json") for kind in kinds)]
    texts += [ksctl("schema", "signals", "--output", "json"), ksctl("venues", "list", "--output", "json")]
    return {"schemas.txt.gz": "\n".join(texts)}


def routes(folder: Path) -> dict[str, str]:
    """The stdout of `notify test` for a route to the log; the log itself depends on the process."""
    policies = str(_copied(OWN / "stop", folder))
    forms = ("json", "text")
    texts = [
        ksctl_at(START, "notify", "test", "--policies", policies, "--output", form, folder=folder) for form in forms
    ]
    return {"routes.txt": "\n".join(each.partition("--- stderr")[0] for each in texts)}


def replays(folder: Path) -> dict[str, str]:
    """The decisions that each recording gives, under its own and under other policies; a plan on each."""
    found = []
    for name, sets in REPLAYED.items():
        recording = folder / f"{name}.jsonl.gz"
        shutil.copy(RECORDED / f"{name}.recording.jsonl.gz", recording)
        for policies in sets:
            options = ("--policies", str(_copied(policies, folder)), "--output", "json")
            found.append(_in(folder, "replay", *options, "--snapshots", str(recording)))
            found.append(_in(folder, "plan", *options, "--snapshot", str(recording)))
    return {"replays.txt.gz": "\n".join(found)}


def saved_plan(folder: Path) -> dict[str, str]:
    """A plan that an earlier version saved is the same after reading and writing it."""
    return {"plan.json": encode_plan(decode_plan(PLAN.read_bytes())).decode()}


def backtest(folder: Path) -> dict[str, str]:
    """One generated crash under one shipped set: every number of every rule."""
    policies = _copied(SHIPPED / "futures-drawdown", folder)
    result = _in(folder, "backtest", "--policies", str(policies), "--crash", "7", "--quiet", "--output", "json")
    return {"backtest.txt.gz": result}


def _in(folder: Path, *arguments: str) -> str:
    return normalized(ksctl(*arguments), folder)


def _copied(path: Path, folder: Path) -> Path:
    """A copy in a folder without version control, because the output would otherwise contain a commit."""
    copy = folder / path.name
    if not copy.exists():
        shutil.copytree(path, copy)
    return copy
