"""Compiles `Invariant` documents: conditions over the signals of a policy and the level in force."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from killswitch.graph.expressions.arguments import Declarations
from killswitch.graph.nodes import (
    AllOf,
    AnyOf,
    Compare,
    ConditionNode,
    Graph,
    Not,
    Number,
    PolicySet,
    SignalRead,
    SignalRef,
)
from killswitch.graph.problems import NO_FAULTY_DOCUMENTS, Findings, unknown_name
from killswitch.graph.resolution.references import correlation_groups, declarations
from killswitch.graph.resolution.strategies import hedge_groups
from killswitch.graph.resolution.triggers import SignalIndex
from killswitch.graph.wording import signals_of
from killswitch.model.words import Place
from killswitch.policy.diagnostics.diagnostic import Diagnostic, in_order
from killswitch.policy.loader import Document
from killswitch.policy.schema.scalars import quoted
from killswitch.policy.schema.scenario import InvariantDocument

LEVEL = "stage.level"
"""What an invariant reads beside signals: the level in force after the evaluation, 0 for none."""
_LEVEL = SignalRef(LEVEL, ())


class Invariant(Struct, frozen=True):
    """One invariant of one policy. `signals`: its columns, those of the policy first; the level is the column after."""

    name: str
    policy: str
    text: str
    because: str
    condition: ConditionNode
    signals: tuple[SignalRef, ...]
    place: Place

    @property
    def level_column(self) -> int:
        """The column of the level in force."""
        return len(self.signals)


def compile_invariants(
    documents: tuple[Document, ...], policies: PolicySet
) -> tuple[tuple[Invariant, ...], tuple[Diagnostic, ...]]:
    """The invariants among the documents for each of their policies, and every problem with its place."""
    written = [each for each in documents if isinstance(each.model, InvariantDocument)]
    if not written:
        return (), ()
    groups, _ = correlation_groups(documents)
    declared = declarations(documents, groups, hedge_groups(documents), NO_FAULTY_DOCUMENTS)
    graphs = {graph.policy: graph for graph in policies.graphs}
    found: list[Invariant] = []
    problems: list[Diagnostic] = []
    for document in written:
        findings = Findings(document.source)
        found += _compiled(document, graphs, declared, findings)
        problems += dict.fromkeys(findings.diagnostics)
    return tuple(found), in_order(problems)


def _compiled(
    document: Document, graphs: dict[str, Graph], declared: Declarations, found: Findings
) -> Iterator[Invariant]:
    model = document.model
    assert isinstance(model, InvariantDocument)
    for number, name in enumerate(model.spec.policies):
        graph = graphs.get(name)
        if graph is None:
            message, fix = unknown_name("policy", name, graphs)
            found.error("KS7301", ("spec", "policies", number), message, fix)
            continue
        compiled = _condition(model.spec.holds, graph, declared, found)
        if compiled is not None:
            condition, signals = compiled
            text = " ".join(model.spec.holds.split())
            place = found.place(("spec", "holds"))
            yield Invariant(document.name, name, text, model.spec.because or "", condition, signals, place)


def _condition(
    text: str, graph: Graph, declared: Declarations, found: Findings
) -> tuple[ConditionNode, tuple[SignalRef, ...]] | None:
    """The condition and its columns, those of the policy first and the level last; None if it has a mistake."""
    from killswitch.graph.expressions.expression import condition  # CEL costs start-up time

    first, problems = condition(text, "scope", _index(graph.signals, declared).of, declared, (LEVEL,))
    at = ("spec", "holds")
    if first is None:
        found.within(at, problems)
        return None
    # Once more, now that all signals are known, so that the level has the last column.
    seen = _index(graph.signals, declared)
    condition(text, "scope", seen.of, declared, (LEVEL,))
    signals = tuple(each for each in seen.signals if each != _LEVEL)
    node, _ = condition(text, "scope", _index((*signals, _LEVEL), declared).of, declared, (LEVEL,))
    assert node is not None  # it was one before
    wrong = next((each for each in comparisons(node) if _misuses(each, len(signals))), None)
    if wrong is not None:
        fix = f"write `{LEVEL} >= 2`, or another comparison with a whole number"
        found.error("KS7302", at, f"{quoted(text)}: `{LEVEL}` is compared with something else than a level", fix)
        return None
    if not signals_of(node):
        message = "it reads no signal and no level, so that it says nothing about a policy"
        found.error("KS7303", at, message, f"write what is always true, such as `!(…) || {LEVEL} >= 1`")
        return None
    return node, signals


def _index(signals: Iterable[SignalRef], declared: Declarations) -> SignalIndex:
    index = SignalIndex(declared)
    for each in signals:
        index.of(each)
    return index


def comparisons(node: ConditionNode) -> Iterator[Compare]:
    """Every comparison of numbers inside a condition."""
    if isinstance(node, Compare):
        yield node
    elif isinstance(node, Not):
        yield from comparisons(node.part)
    elif isinstance(node, AllOf | AnyOf):
        for part in node.parts:
            yield from comparisons(part)


def _misuses(node: Compare, level: int) -> bool:
    """Whether the level is in a comparison with anything but a whole number."""
    if level not in signals_of(node):
        return False
    sides = sorted((node.left, node.right), key=lambda side: isinstance(side, Number))
    return sides[0] != SignalRead(level) or not (isinstance(sides[1], Number) and sides[1].value.is_integer())
