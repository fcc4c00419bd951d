"""Renames: the names that policies, stages and triggers had in the set before, each claimed once.

What is in force moves with a declared rename when a runner reloads. So a former name must not leave open which of two
continues it: one that still exists, and is not renamed itself, continues under its own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from killswitch.graph.problems import FaultyDocuments, Findings
from killswitch.graph.resolution.references import Documents, diagnostics_of, of_kind
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.schema.policy import AnyPolicy, PolicyDocument
from killswitch.policy.yaml.source_map import Path

_Claim = tuple[str, str | None, Findings, Path]
"""A name, the former name that it claims, and where that is written."""


def check_former_policies(everything: Documents, _others: FaultyDocuments) -> list[Diagnostic]:
    """Report former names of policies that are still in use, or claimed twice."""
    written = sorted(of_kind(everything, PolicyDocument), key=lambda each: each[0].metadata.name)
    claims = [
        (document.metadata.name, document.spec.formerly, found, ("spec", "formerly"))
        for document, found in written
        if not found.gaps.is_hole(("spec", "formerly"))
    ]
    _check("policy", claims)
    return diagnostics_of(written)


def check_former_parts(policy: AnyPolicy, found: Findings) -> None:
    """Report former names of stages and triggers that are still in use, or claimed twice, in one policy."""
    stages: Sequence[_Claim] = [
        (stage.name, stage.formerly, found, ("spec", "stages", number, "formerly"))
        for number, stage in enumerate(policy.stages)
    ]
    triggers: Sequence[_Claim] = [
        (name, trigger.formerly, found, ("spec", "triggers", name, "formerly"))
        for name, trigger in policy.triggers.items()
    ]
    _check("stage", [each for each in stages if not found.gaps.is_hole(each[3])])
    _check("trigger", [each for each in triggers if not found.gaps.is_hole(each[3])])


def _check(what: str, claims: Iterable[_Claim]) -> None:
    claims = tuple(claims)
    kept = {name for name, former, _, _ in claims if former is None}
    claimed: dict[str, str] = {}
    for name, former, found, path in claims:
        if former is None:
            continue
        first = claimed.setdefault(former, name)
        if former == name:
            fix = "name the one that it had before, or remove `formerly`"
            found.error("KS8401", path, f"the {what} `{name}` has this name still", fix)
        elif former in kept:
            fix = "correct the name, or give the other one its own `formerly` if the two have changed places"
            found.error("KS8401", path, f"there is still a {what} `{former}`", fix)
        elif first != name:
            message = f"the {what} `{first}` was formerly `{former}`, too"
            found.error("KS8402", path, message, "one of the two continues it: remove the other `formerly`")
