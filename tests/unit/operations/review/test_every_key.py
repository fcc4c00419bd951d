"""A2: no edit of a policy set is EQUIVALENT unless it is one of layout or documentation."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from time import perf_counter

import pytest

from killswitch.model.applied_set import PolicyFile
from killswitch.operations.impact.policy_side import PolicySide
from killswitch.operations.review.reviewing import FoundClass, classified, side_of_files, unchanged_files
from killswitch.operations.review.uncompared_keys import differing
from killswitch.policy.schema.policy import PolicyDocument
from killswitch.policy.yaml.parser import DocumentRoot, YamlProblem, parse
from tests.unit.operations.review.edits import Key, documents, edits, files, keys

pytest.importorskip("z3", reason="the extra `prove` is not installed")

DOCUMENTATION = {"Metadata.annotations", "Disabled.reason"}
"""Keys that nothing reads but people."""
HOLDERS = {
    "BreakerSpec.scope", "Scope.match", "BreakerSpec.breaker", "CircuitBreaker.trip", "CircuitBreaker.recovery",
    "Action.lock_trading", "PolicySpec.scope", "PolicySpec.triggers", "PolicySpec.stages", "Stage.reset",
    "Stage.actions", "PolicySpec.reference", "Variant.triggers", "AutoReset.auto", "Stage.attribution",
    "Action.cancel_orders", "Action.close", "Stage.breach", "Action.exit_process", "CircuitBreaker.attribution",
    "CircuitBreaker.breach", "Adaptive.of", "PolicySpec.disabled", "BreakerSpec.disabled", "Action.top_up_margin",
    "Action.reduce", "Action.neutralise",
}  # fmt: skip
"""Keys that are required and hold others, which are edited themselves."""
NOT_ALONE = {
    "ThresholdTrigger.signal", "SignalOf.signal", "Stage.any", "Reference.currency", "ThresholdTrigger.group",
    "TopUpMargin.from", "TopUpMargin.at_most", "TopUpMargin.keep", "Neutralise.by",
    "ThresholdTrigger.hedge", "ThresholdTrigger.days", "Stage.on_breach", "CircuitBreaker.on_breach",
}  # fmt: skip
"""Keys of which no other value compiles without a second edit; `EDITS` has one for each."""
MOST = 9
"""Edits of one key that are tried until one compiles."""


@cache
def base() -> tuple[tuple[PolicyFile, ...], PolicySide]:
    """The set that writes each key once, compiled."""
    written = files()
    return written, side(written)


_PARSED: dict[str, tuple[list[DocumentRoot], list[YamlProblem]]] = {}


def parsed_once(text: str, report: Callable[[YamlProblem], None]) -> list[DocumentRoot]:
    """As `parse`, which the unchanged files need once."""
    if text not in _PARSED:
        found: list[YamlProblem] = []
        _PARSED[text] = parse(text, found.append), found
    roots, problems = _PARSED[text]
    for each in problems:
        report(each)
    return roots


def side(written: tuple[PolicyFile, ...]) -> PolicySide:
    """One side, compiled."""
    return side_of_files(written, None, "a set", parse_text=parsed_once)


def verdict_of(written: tuple[PolicyFile, ...]) -> FoundClass | None:
    """The class of an edit of the base; None if it does not compile, or changes nothing."""
    before, one = base()
    other = side(written)
    if not other.compiles:
        return None
    found = classified(one, other, unchanged_files(before, written), perf_counter() + 10.0, perf_counter)
    return None if found.verdict == "EQUIVALENT" and not found.why else found


@pytest.mark.venues
@pytest.mark.parametrize("key", [each for each in keys() if each.file.startswith("policy")], ids=lambda each: each.name)
def test_a2_no_edit_of_a_key_is_equivalent(key: Key) -> None:
    """A2: every key of the schema of policies, one by one, but those that only people read."""
    tried = (found for _, each in zip(range(MOST), edits(key), strict=False) if (found := verdict_of(each)) is not None)
    found = next(tried, None)
    if key.name in DOCUMENTATION:
        assert found is not None and found.verdict == "EQUIVALENT"
    elif key.name in HOLDERS | NOT_ALONE:
        assert found is None or found.verdict != "EQUIVALENT"
    else:
        assert found is not None, "no edit of it compiles: write one in EDITS"
        assert found.verdict != "EQUIVALENT", found.why


def without(kind: str, *of_it: str) -> tuple[PolicyFile, ...]:
    """The set without the first document of a kind, and without those of the kinds that depend `of_it`."""
    name = next(name for name, each in documents().items() if each["kind"] == kind)
    return files({name: None} | {name: None for name, each in documents().items() if each["kind"] in of_it})


def named(name: str) -> str:
    """The file of the document of that name."""
    return next(file for file, each in documents().items() if each["metadata"]["name"] == name)


def changed(kind: str, *path: str | int, value: object) -> tuple[PolicyFile, ...]:
    """The set with another value in a document of a kind: `swaps` of the policies, else the first."""
    of_kind = {name: each for name, each in documents().items() if each["kind"] == kind}
    name = next((name for name, each in of_kind.items() if each["metadata"]["name"] == "swaps"), next(iter(of_kind)))
    document = deepcopy(documents()[name])
    into = document
    for step in path[:-1]:
        into = into[step]
    into[path[-1]] = value
    return files({name: document})


KINDS_OF_A2 = {
    "account": lambda: changed("Account", "spec", "closing_share", value="40%"),
    "ranking": lambda: changed("Ranking", "spec", "window", value="7h"),
    "unwinding": lambda: changed("Unwinding", "spec", "pause", value="33s"),
    "assets kept": lambda: changed("Unwinding", "spec", "spot", "keep", value=[]),
    "route": lambda: changed("NotificationRoute", "spec", "give_up_after", value="2h"),
    "no route": lambda: files({named("desk"): None}),
    "notification tree": lambda: changed("NotificationTree", "spec", "group_wait", value="20s"),
    "silence": lambda: changed("Silence", "spec", "reason", value="another"),
    "no silence": lambda: without("Silence"),
    "dead man's switch": lambda: changed("DeadMansSwitch", "spec", "timeout", value="90s"),
    "no dead man's switch": lambda: without("DeadMansSwitch"),
    "catastrophe stop": lambda: changed("CatastropheStop", "spec", "distance", value="25%"),
    "no catastrophe stop": lambda: without("CatastropheStop"),
    "session": lambda: changed("Session", "spec", "closes", value="15:00"),
    "limits": lambda: changed("Limits", "spec", "leverage", value=4),
    "no limits": lambda: without("Limits", "RecoveryPlan"),
    "way back": lambda: changed("RecoveryPlan", "spec", "health", "for", value="31m"),
    "steps of a way back": lambda: changed("RecoveryPlan", "spec", "ramp", "every", value="23h"),
    "no way back": lambda: without("RecoveryPlan"),
    "strategy": lambda: changed("Strategy", "spec", "symbols", value=["DOT_USDT"]),
    "hedge group": lambda: changed("HedgeGroup", "spec", "legs", 1, "ratio", value=2),
    "correlation group": lambda: changed("CorrelationGroup", "spec", "order", value=11),
    "runbook": lambda: changed("Runbook", "spec", "escalation", value=[]),
    "scenario": lambda: changed("Scenario", "spec", "notices", value="none"),
    "no scenario": lambda: without("Scenario"),
    "invariant": lambda: changed("Invariant", "spec", "because", value="of something else"),
    "no invariant": lambda: without("Invariant"),
}
"""What A2 lists besides the keys of policies, each with an edit."""


@pytest.mark.parametrize("name", KINDS_OF_A2)
def test_a2_no_document_is_changed_or_removed_unseen(name: str) -> None:
    """A2: whatever the proof does not compare is a difference that needs approvals."""
    found = verdict_of(KINDS_OF_A2[name]())
    assert found is not None, "the edit does not compile, or is none"
    assert found.verdict not in ("EQUIVALENT", "TIGHTENING")


EDITS: dict[str, tuple[tuple[str | int, ...], object]] = {
    "mode": (("mode",), "observe"), "scope": (("scope", "match", "account"), ["main"]),
    "level": (("stages", 2, "level"), 4), "cooldown": (("stages", 1, "cooldown"), "91m"),
    "reset": (("stages", 0, "reset"), "manual"), "corroborate": (("stages", 6, "corroborate"), False),
    "unexplained": (("unexplained", "flow_grace"), "91s"), "stale": (("stale_after",), "31s"),
    "notify": (("stages", 0, "notify"), []), "runbook": (("stages", 0, "runbook"), "stop"),
    "expect": (("expect", "positions"), "at most 30%"), "variant": (("variant",), "tight"),
    "variants": (("variants", "tight", "triggers", "leverage", "above"), 5),
    "on_unknown": (("triggers", "small", "on_unknown"), "hold"), "grace": (("triggers", "one-side", "grace"), "6m"),
    "confirm": (("triggers", "one-side", "confirm"), "4 ticks"), "window": (("triggers", "moving", "horizon"), "5h"),
    "ThresholdTrigger.signal": (("triggers", "leverage", "signal"), "exposure.margin_ratio"),
    "Stage.any": (("stages", 2, "any"), ["small"]), "ThresholdTrigger.days": (("triggers", "night", "days"), "mon-thu"),
    "Stage.on_breach": (("stages", 2, "on_breach"), "cancel"),
    "Neutralise.by": (
        ("stages", 3, "actions", 0),
        {"neutralise": {"by": "notional", "window": "24h", "sample": "5m", "least": 100, "if_unknown": "notional",
                        "fallback": "nothing"}},
    ),
    "TopUpMargin.at_most": (("stages", 5, "actions", 0, "top_up_margin", "at_most"), "2000 USDT"),
    "TopUpMargin.keep": (("stages", 5, "actions", 0, "top_up_margin", "keep"), "400 USDT"),
    "lock": (("stages", 0, "actions", 0), {"lock_trading": {"mode": "reduce_only"}}),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_a2_keys_of_policies_that_are_no_threshold(name: str) -> None:
    """A2: some of the keys in every run; the test above has all of them."""
    path, value = EDITS[name]
    found = verdict_of(changed("Policy", "spec", *path, value=value))
    assert found is not None, "the edit does not compile, or is none"
    assert found.verdict != "EQUIVALENT"


def test_differing_keys_are_named_by_their_path() -> None:
    """The path of keys, with the names of stages; an order and what is gone are differences of their own."""
    policy = next(each for each in base()[1].loaded.documents if each.name == "swaps").model
    assert isinstance(policy, PolicyDocument)
    stages = policy.spec.stages
    turned = policy.spec.model_copy(update={"stages": stages[::-1]})
    assert list(differing(policy, policy)) == []
    assert list(differing(policy.spec, turned)) == [("stages", "(order)")]
    fewer = policy.spec.model_copy(update={"stages": stages[1:]})
    assert list(differing(policy.spec, fewer)) == [("stages", f"{stages[0].name} (gone)")]
