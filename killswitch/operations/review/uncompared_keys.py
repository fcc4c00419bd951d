"""Keys of policies in which two sets differ although no proof has compared them: such a change is never equivalent.

The proof reads compiled policies. Of a key that it reads by its meaning (a threshold, a condition), it may state that a
difference has no effect. Of all others a difference without any change of the proof is undecided, and so is a key that
it does not know: a new key of the schema is one of these until it is listed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from killswitch.graph.compile import canonical
from killswitch.operations.impact.policy_side import PolicySide
from killswitch.policy.schema.part import Part, keys_of
from killswitch.policy.schema.policy import PolicyDocument
from killswitch.policy.schema.trigger import COMPARISONS
from killswitch.signals.catalogue import ARGUMENTS

Path = tuple[str, ...]

DOCUMENTATION: frozenset[Path] = frozenset({("metadata", "annotations"), ("spec", "disabled", "reason")})
"""Keys that nothing reads but people."""
_TRIGGER = frozenset({"when", "signal", "is", "confirm", "on_unknown", *ARGUMENTS, *COMPARISONS})
_MESSAGES = frozenset({"grace", "warn_at", "notify", "runbook", "labels"})
"""Keys of messages, of which the comparison states each difference itself."""
_STAGE = frozenset({"any", "all"})
"""A level is none of them: what is latched and cools down has the number of its level."""
_RESPONSE = frozenset(
    {
        "reset", "recovery", "cooldown", "no_reset_for", "no_reset_before", "reset_approvals", "corroborate",
        "attribution", "actions", "when_unreachable", "on_breach", "breach",
    }
)  # fmt: skip
_WATCH = frozenset(
    {
        "mode", "scope", "max_gap", "unexplained", "on_unexplained", "on_suspicion", "stale_after", "reference",
        "disabled",
    }
)  # fmt: skip


def uncompared(base: PolicySide, head: PolicySide, reported: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Policy and text of each difference that no proof covers. `reported`: policies with a change that is no message.

    A trigger or a stage that is gone belongs to them: its clock, its latch and its history are lost with its name.
    """
    before, after = _policies(base), _policies(head)
    known = set(reported)
    for name in sorted(before.keys() & after.keys()):
        for path in differing(before[name], after[name]):
            text = _uncovered(path, is_reported=name in known)
            if text is not None:
                yield name, text


def _policies(side: PolicySide) -> Mapping[str, PolicyDocument]:
    return {each.name: each.model for each in side.loaded.documents if isinstance(each.model, PolicyDocument)}


def _uncovered(path: Path, *, is_reported: bool) -> str | None:
    """Why a difference at a path is not covered; None if it is."""
    shown = ".".join(part.removesuffix(GONE) for part in path)
    if any(path[: len(each)] == each for each in DOCUMENTATION):
        return None
    if path[-1].endswith(GONE):
        return f"{shown} is removed, and what it remembers with it"
    if path[-1] == ORDER:
        return f"the order of {'.'.join(path[:-1])} differs, which no proof compares"
    key = _deciding_key(path)
    if key in _TRIGGER or key in _STAGE or key in _MESSAGES:
        return None
    if key in _RESPONSE or key in _WATCH:
        return None if is_reported else f"{shown} differs, and no proof finds what that changes"
    return f"{shown} differs, which no proof compares"


def _deciding_key(path: Path) -> str:
    """The key of a trigger, of a stage, of a breaker or of the policy that a path is inside of."""
    if path[:2] in (("spec", "triggers"), ("spec", "stages")) and len(path) > 2:
        return path[3] if len(path) > 3 else "signal"  # a new trigger or stage, which the proof reads as a whole
    if path[:2] == ("spec", "breaker") and len(path) > 2:
        return path[3] if path[2] == "trip" and len(path) > 3 else path[2]
    return path[1] if len(path) > 1 else path[0]


GONE = " (gone)"
"""The end of the name of a trigger or stage that the other document lacks."""
ORDER = "(order)"


def differing(one: object, other: object, path: Path = ()) -> Iterator[Path]:
    """The paths at which two values differ, by the names of keys; stages are compared by their names."""
    if canonical(one) == canonical(other):
        return
    if isinstance(one, Part) and type(one) is type(other):
        for name, key in keys_of(type(one)).items():
            yield from differing(getattr(one, key.attribute), getattr(other, key.attribute), (*path, name))
        return
    parts = _named(one), _named(other)
    if parts[0] is None or parts[1] is None:
        yield path
        return
    names = tuple(parts[0]), tuple(parts[1])
    yield from ((*path, f"{name}{GONE}") for name in names[0] if name not in parts[1])
    yield from ((*path, name) for name in names[1] if name not in parts[0])
    if isinstance(one, tuple) and [n for n in names[0] if n in names[1]] != [n for n in names[1] if n in names[0]]:
        yield (*path, ORDER)
    for name in names[0]:
        if name in parts[1]:
            yield from differing(parts[0][name], parts[1][name], (*path, name))


def _named(value: object) -> Mapping[str, object] | None:
    """The parts of a mapping, or of a list of parts with different names; None for anything else."""
    if isinstance(value, dict):
        return {str(key): each for key, each in value.items()}
    if isinstance(value, tuple) and all(isinstance(each, Part) and hasattr(each, "name") for each in value):
        found = {str(getattr(each, "name", "")): each for each in value}
        return found if len(found) == len(value) else None
    return None
