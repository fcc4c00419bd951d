"""Variants of a policy: the same triggers with other thresholds, checked like the policy itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from killswitch.graph.actions.kind import Surroundings
from killswitch.graph.analysis.checks import check
from killswitch.graph.nodes import Stage, Trigger
from killswitch.graph.problems import Findings, unknown_name
from killswitch.graph.resolution.triggers import trigger
from killswitch.model.words import Place
from killswitch.policy.diagnostics.diagnostic import Severity
from killswitch.policy.loader import Document
from killswitch.policy.schema.part import Part
from killswitch.policy.schema.policy import AnyPolicy, PolicyDocument
from killswitch.policy.schema.trigger import COMPARISONS, ExpressionTrigger, Override
from killswitch.policy.yaml.source_map import Path

P = TypeVar("P", bound=Part)
Compiled = Mapping[str, Trigger | None]


class NoSuchVariantError(Exception):
    """No policy declares the requested variant; the message lists the declared ones."""


def selecting(variant: str, documents: Sequence[Document]) -> Sequence[Document]:
    """The documents with `variant` selected in every policy that declares it.

    NoSuchVariantError if none declares it.
    """
    owners: dict[str, list[str]] = {}
    found = []
    for document in documents:
        model = document.model
        if isinstance(model, PolicyDocument):
            for name in model.spec.variants:
                owners.setdefault(name, []).append(document.name)
            if variant in model.spec.variants:
                document = replace(document, model=_with(model, spec=_with(model.spec, variant=variant)))  # noqa: PLW2901 - the same document, selecting
        found.append(document)
    if variant not in owners:
        declared = "; ".join(f"`{name}` ({', '.join(policies)})" for name, policies in sorted(owners.items()))
        raise NoSuchVariantError(f"no policy declares a variant `{variant}`; there is {declared or 'none at all'}")
    return found


def variants(policy: AnyPolicy, base: Compiled, stages: Sequence[Stage], around: Surroundings) -> dict[str, Compiled]:
    """Compile the triggers of every variant; faults of a variant that the policy does not have are reported for it.

    `base`: the policy's own triggers, in order. `stages`: its stages in the order written.
    """
    found = around.found
    gaps, selected = found.gaps, policy.variant
    is_unreadable = gaps.is_hole(("spec", "variant")) or gaps.has_flaw(("spec", "variants"))
    if selected is not None and selected not in policy.variants and not is_unreadable:
        found.error("KS3015", ("spec", "variant"), *unknown_name("variant", selected, policy.variants))
    made: dict[str, Compiled] = {}
    for name, variant in policy.variants.items():
        path: Path = ("spec", "variants", name)
        if found.gaps.has_flaw(path):
            continue
        if not variant.triggers:
            fix = "write what should differ, or take it out"
            found.warning("KS5012", path, f"the variant `{name}` changes nothing", fix, key=True)
        overrides = _valid_overrides(variant.triggers, (*path, "triggers"), policy, base, found)
        inside = _InVariant(found, (*path, "triggers"), overrides)
        changed = {each: _overridden(policy, each, override) for each, override in overrides.items()}
        varied = _with(policy, triggers={**policy.triggers, **changed})
        triggers = {
            each: trigger(each, varied, around.columns, inside) if each in overrides else own
            for each, own in base.items()
        }
        check(varied, list(triggers.values()), stages, replace(around, found=inside))
        found.diagnostics += [
            replace(each, message=f"in the variant `{name}`, {each.message}") for each in inside.diagnostics
        ]
        made[name] = triggers
    return made


def _valid_overrides(
    written: Mapping[str, Override], path: Path, policy: AnyPolicy, compiled: Compiled, found: Findings
) -> dict[str, Override]:
    """The valid overrides; invalid ones are reported."""
    valid = {}
    for name, override in written.items():
        if name not in policy.triggers:
            if not found.gaps.is_hole(("spec", "triggers")) and found.gaps.is_sound:
                message, fix = unknown_name("trigger", name, policy.triggers)
                found.error("KS3010", (*path, name), message, fix, key=True)
        elif compiled[name] is not None and _compares_alike(override, (*path, name), policy, found):
            valid[name] = override
            if _overridden(policy, name, override) == policy.triggers[name]:
                message = f"this changes nothing of the trigger `{name}`"
                found.warning("KS5012", (*path, name), message, "write what should differ, or take it out", key=True)
    return valid


def _compares_alike(override: Override, path: Path, policy: AnyPolicy, found: Findings) -> bool:
    """Whether an override has the comparison of its trigger; an expression has no threshold to override."""
    written = policy.triggers[str(path[-1])]
    key = next((each for each in COMPARISONS if getattr(override, each) is not None), None)
    if key is None:
        return True
    if isinstance(written, ExpressionTrigger):
        message = f"`{path[-1]}` is an expression, and has no threshold that a variant could change"
        fix = "write it in the threshold form (`signal`, its arguments, `at_least`), or change its confirmation only"
        found.error("KS3016", (*path, key), message, fix, key=True)
        return False
    own = written.comparison
    if own != key:
        found.error("KS3016", (*path, key), f"`{path[-1]}` compares with `{own}`", f"write `{own}`", key=True)
    return own == key


def _overridden(policy: AnyPolicy, name: str, override: Override) -> Part:
    overrides = {key: value for key, value in override if value is not None}
    return _with(policy.triggers[name], **overrides)


def _with(part: P, **values: object) -> P:
    return part.model_copy(update=values)


class _InVariant(Findings):
    """Findings of a variant that the policy itself does not have, placed at the override or the variant's name."""

    def __init__(self, outer: Findings, path: Path, overrides: Mapping[str, Override]) -> None:
        super().__init__(outer.source, outer.gaps)
        self._path = path
        self._overrides = overrides
        self._before = frozenset(outer.diagnostics)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Place of the value at `path`, or of its key."""
        return super().place(self._written(path) or path, key=key)

    def _written(self, path: Path) -> Path | None:
        """Path of the variant's override of the policy's `path`, or None."""
        if path[:2] != ("spec", "triggers") or len(path) < 3 or path[2] not in self._overrides:
            return None
        below = path[3:]
        is_overridden = not below or getattr(self._overrides[str(path[2])], str(below[0]), None) is not None
        return (*self._path, path[2], *below) if is_overridden else None

    def _add(self, code: str, path: Path, message: str, fix: str, severity: Severity, key: bool) -> None:
        if self.source.diagnostic(code, path, message, fix, key=key, severity=severity) in self._before:
            return
        written = self._written(path)
        super()._add(code, written or self._path[:-1], message, fix, severity, key or written is None)
