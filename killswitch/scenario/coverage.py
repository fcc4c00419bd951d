"""Coverage of policies by scenarios, as data: what was seen, what was not and why.

A point is one thing that scenarios can show of a policy. A clause of `any`, `all` or an expression counts where it
alone decides the outcome (masking MC/DC): with the other clauses as they were, the opposite truth of it gives the
opposite outcome. Points are of the compiled policy, so that its layout changes no figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Literal

from msgspec import Struct

from killswitch.engine.step import is_confirmed
from killswitch.graph.nodes import AllOf, ConditionNode, Constant, Graph, Not, PolicySet, Stage
from killswitch.graph.wording import condition_text, signals_of
from killswitch.model.words import Place
from killswitch.render.formats import count_of
from killswitch.scenario.trace import Masks, PolicyTrace, Trace, clauses_of
from killswitch.signals.catalogue import BY_NAME

Kind = Literal["trigger", "clause", "stage", "reset", "route"]
Status = Literal["covered", "missed", "excluded"]
Kleene = bool | None
"""True, false, or None: unknown."""


MOST_SHOWN = 3
"""Clauses that are named where another one decided."""
UNEVALUATED = "the policy was never evaluated"


class CoveragePoint(Struct, frozen=True):
    """One point: `subject` is what was to show `what`. `why`: why it was not seen, or why it cannot be."""

    policy: str
    kind: Kind
    subject: str
    what: str
    status: Status
    place: Place
    why: str = ""


class PolicyCoverage(Struct, frozen=True):
    """Every point of a policy set, in the order of the policies and of what they contain."""

    points: tuple[CoveragePoint, ...]

    @property
    def missed(self) -> tuple[CoveragePoint, ...]:
        """The points that no scenario has shown."""
        return tuple(point for point in self.points if point.status == "missed")

    @property
    def covered(self) -> int:
        """The number of points that a scenario has shown."""
        return sum(point.status == "covered" for point in self.points)

    @property
    def share(self) -> Fraction:
        """The exact share of the points that were shown, without those that are excluded; 1 without any."""
        total = self.covered + len(self.missed)
        return Fraction(self.covered, total) if total else Fraction(1)


def coverage(policies: PolicySet, trace: Trace) -> PolicyCoverage:
    """The coverage of all policies and routes of the set by what the runs have seen."""
    points = [
        point
        for graph in policies.graphs
        for point in _of_policy(graph, trace.policies.get(graph.policy) or PolicyTrace())
    ]
    points += [
        _point(
            "", "route", f"route {route.name}", "hit", route.name in trace.routes, route.place, "no message reached it"
        )
        for route in policies.routes
    ]
    return PolicyCoverage(tuple(points))


def _point(
    policy: str, kind: Kind, subject: str, what: str, is_covered: bool, place: Place, why: str = ""
) -> CoveragePoint:
    return CoveragePoint(
        policy, kind, subject, what, "covered" if is_covered else "missed", place, "" if is_covered else why
    )


def _of_policy(graph: Graph, trace: PolicyTrace) -> Iterator[CoveragePoint]:
    for index, trigger in enumerate(graph.triggers):
        yield from _of_trigger(graph, index, trace)
        subject = f"trigger {trigger.name}"
        yield from _of_condition(graph, index, subject, trigger.place, trace)
    for stage in graph.stages:
        yield from _of_stage(graph, stage, trace)


def _of_trigger(graph: Graph, index: int, trace: PolicyTrace) -> Iterator[CoveragePoint]:
    """Seen true, seen false, seen unknown."""
    trigger, subject = graph.triggers[index], f"trigger {graph.triggers[index].name}"
    seen = {_truth(masks, index) for masks in trace.conditions}
    never = UNEVALUATED if not trace.conditions else ""
    for what, truth in (("true", True), ("false", False), ("unknown", None)):
        why = never or f"it was never {what}"
        point = _point(graph.policy, "trigger", subject, f"seen {what}", truth in seen, trigger.place, why)
        if truth is None and point.status == "missed" and _is_always_known(graph, trigger.condition):
            why = "its signals are never unknown"
            point = CoveragePoint(graph.policy, "trigger", subject, "seen unknown", "excluded", trigger.place, why)
        yield point


def _is_always_known(graph: Graph, condition: ConditionNode) -> bool:
    """Whether every signal of the condition declares that it is never unknown, nor partly known."""
    specs = [BY_NAME[graph.signals[index].name] for index in signals_of(condition)]
    return all(spec.unknown.startswith("never") and spec.partly_known.startswith("never") for spec in specs)


def _of_condition(
    graph: Graph, index: int, subject: str, place: Place, trace: PolicyTrace
) -> Iterator[CoveragePoint]:  # fmt: skip
    """Each clause of a condition with several seen to decide it, both ways."""
    condition = graph.conditions[index]
    clauses = clauses_of(condition)
    if len(clauses) < 2 and index < len(graph.triggers):
        return  # a trigger that is one clause: seen true and seen false say the same
    texts = [condition_text(clause, graph.signals) for clause in clauses]
    places = {clause: number for number, clause in enumerate(clauses)}

    def outcome(truths: Sequence[Kleene]) -> Kleene:
        return _outcome(condition, lambda clause: truths[places[clause]])

    if len(clauses) < 2:
        known = {_truth(masks, index) for masks in trace.conditions}
        seen: list[list[Kleene]] = [[truth] for truth in (False, None, True) if truth in known]
    else:
        seen = [_truths(masks, len(clauses)) for masks in sorted(trace.clauses.get(index, ()))]
    yield from _deciding(graph.policy, f"clause of {subject}", texts, seen, outcome, place)


def _of_stage(graph: Graph, stage: Stage, trace: PolicyTrace) -> Iterator[CoveragePoint]:
    subject, place = f"stage {stage.name}", stage.place
    triggers = tuple(dict.fromkeys((*stage.any_of, *stage.all_of)))
    if len(triggers) > 1:
        names = [graph.triggers[index].name for index in triggers]
        seen = [[bool(mask >> index & 1) for index in triggers] for mask in sorted(trace.confirmed)]

        def outcome(truths: Sequence[Kleene]) -> Kleene:
            mask = sum(1 << index for index, truth in zip(triggers, truths, strict=True) if truth)
            return is_confirmed(stage, mask)

        yield from _deciding(graph.policy, f"trigger of {subject}", names, seen, outcome, place)
    entered = stage.name in trace.fired
    confirmed = any(is_confirmed(stage, mask) for mask in trace.confirmed)
    why = "its triggers were confirmed, and it never fired" if confirmed else "its triggers were never confirmed"
    yield _point(graph.policy, "stage", subject, "entered", entered, place, why)
    why = "it fired whenever its triggers were confirmed" if confirmed else "its triggers were never confirmed"
    yield _point(graph.policy, "stage", subject, "refused", stage.name in trace.refused, place, why)
    how, reset, other = "by its condition", trace.reset, trace.reset_by_hand
    if stage.reset is None:
        how, reset, other = "by a person", trace.reset_by_hand, trace.reset
    why = (
        "it was reset by a person only"
        if stage.name in other
        else "it was never reset"
        if entered
        else "it never fired"
    )
    yield _point(graph.policy, "reset", f"reset of {subject}", how, stage.name in reset, place, why)
    if stage.reset is not None:
        yield from _of_condition(graph, stage.reset.condition, f"reset of {subject}", place, trace)


def _deciding(
    policy: str, subject: str, texts: Sequence[str], seen: Sequence[Sequence[Kleene]],
    outcome: Callable[[Sequence[Kleene]], Kleene], place: Place,
) -> Iterator[CoveragePoint]:  # fmt: skip
    """Two points for each clause: it decides the outcome where it is true, and where it is false."""
    for index, text in enumerate(texts):
        for truth in (True, False):
            situations = [truths for truths in seen if truths[index] is truth]
            decides = any(_decides(truths, index, outcome) for truths in situations)
            why = "" if decides else _why_not(index, texts, seen, outcome, truth=truth)
            what = f"decides as {str(truth).lower()}"
            yield _point(policy, "clause", f"{subject}: {text}", what, decides, place, why)


def _decides(truths: Sequence[Kleene], index: int, outcome: Callable[[Sequence[Kleene]], Kleene]) -> bool:
    """Whether the opposite truth of the clause gives the opposite outcome."""
    opposite = list(truths)
    opposite[index] = not truths[index]
    now, otherwise = outcome(truths), outcome(opposite)
    return now is not None and otherwise is not None and now != otherwise


def _why_not(
    index: int, texts: Sequence[str], seen: Sequence[Sequence[Kleene]], outcome: Callable[[Sequence[Kleene]], Kleene],
    *, truth: bool,
) -> str:  # fmt: skip
    """Which clauses decided where this one was `truth`: in the situation that lacks least of it deciding."""
    situations = [truths for truths in seen if truths[index] is truth]
    if not seen:
        return "it was never evaluated"
    if not situations:
        is_unknown = all(truths[index] is None for truths in seen)
        return f"it was never {_truth_text(truth)}{', always unknown' if is_unknown else ''}"
    found = [(truths, _deciding_instead(truths, index, outcome)) for truths in situations]
    truths, others = min(found, key=lambda each: (not each[1], len(each[1])))
    shown = others or [other for other in range(len(texts)) if other != index]
    where = f"it was {str(truth).lower()} only where"
    if not others and len(shown) > MOST_SHOWN:
        return f"{where} several of the other clauses decided together"
    around = [f"`{texts[other]}` was {_truth_text(truths[other])}" for other in shown[:MOST_SHOWN]]
    more = f" and {count_of(len(shown) - MOST_SHOWN, 'more clause')}" if len(shown) > MOST_SHOWN else ""
    return f"{where} another clause decided: {', '.join(around)}{more}"


def _deciding_instead(
    truths: Sequence[Kleene], index: int, outcome: Callable[[Sequence[Kleene]], Kleene]
) -> list[int]:  # fmt: skip
    """The other clauses each of which, with another truth alone, would let clause `index` decide."""
    found = []
    for other in range(len(truths)):
        changed = [[*truths[:other], truth, *truths[other + 1 :]] for truth in (True, False) if truth != truths[other]]
        if other != index and any(_decides(each, index, outcome) for each in changed):
            found.append(other)
    return found


def _truth_text(truth: Kleene) -> str:
    return "unknown" if truth is None else str(truth).lower()


def _truth(masks: Masks, index: int) -> Kleene:
    true, unknown = masks
    return None if unknown >> index & 1 else bool(true >> index & 1)


def _truths(masks: Masks, count: int) -> list[Kleene]:
    return [_truth(masks, index) for index in range(count)]


def _outcome(node: ConditionNode, truth_of: Callable[[ConditionNode], Kleene]) -> Kleene:
    """The truth of a condition by Kleene's logic, from those of its clauses."""
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, Not):
        inner = _outcome(node.part, truth_of)
        return None if inner is None else not inner
    parts = getattr(node, "parts", None)
    if parts is None:
        return truth_of(node)
    found = [_outcome(part, truth_of) for part in parts]
    decisive = not isinstance(node, AllOf)
    if decisive in found:
        return decisive
    return None if None in found else not decisive


def by_line(points: Iterable[CoveragePoint]) -> dict[tuple[str, int], list[CoveragePoint]]:
    """(file, line) → the points that are written there."""
    found: dict[tuple[str, int], list[CoveragePoint]] = {}
    for point in points:
        found.setdefault((point.place.file, point.place.line), []).append(point)
    return found
