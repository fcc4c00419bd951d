"""What a run has seen of its policies: the events of the evaluator, as sets, from which coverage is computed.

Each set has one element for each different situation, so that a trace stays small, and traces of many runs are joined
in any order with the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from killswitch.engine.step import StepResult, is_confirmed
from killswitch.graph.lowering import ColumnsEvaluator, lower
from killswitch.graph.nodes import AllOf, AnyOf, ConditionNode, Graph, Not
from killswitch.planning.scopes.evaluator import ScopeEvaluator

Masks = tuple[int, int]
"""(mask of what is true, mask of what is unknown)."""


class PolicyTrace(Struct):
    """What was seen of one policy, by index in its graph.

    `conditions`: masks of the conditions; `clauses`: condition → masks of its clauses, of conditions with several;
    `confirmed`: masks of the confirmed triggers; `fired`, `refused`, `reset` (by a condition) and `reset_by_hand`:
    names of stages.
    """

    conditions: set[Masks] = set()
    clauses: dict[int, set[Masks]] = {}
    confirmed: set[int] = set()
    fired: set[str] = set()
    refused: set[str] = set()
    reset: set[str] = set()
    reset_by_hand: set[str] = set()

    def join(self, other: PolicyTrace) -> None:
        """Add what another run has seen."""
        self.conditions |= other.conditions
        self.confirmed |= other.confirmed
        self.fired |= other.fired
        self.refused |= other.refused
        self.reset |= other.reset
        self.reset_by_hand |= other.reset_by_hand
        for index, masks in other.clauses.items():
            self.clauses[index] = self.clauses.get(index, set()) | masks


class Trace(Struct):
    """What was seen of each policy, and the routes that a message has reached."""

    policies: dict[str, PolicyTrace] = {}
    routes: set[str] = set()

    def join(self, other: Trace) -> None:
        """Add what another run has seen."""
        self.routes |= other.routes
        for policy, trace in other.policies.items():
            self.policies.setdefault(policy, PolicyTrace()).join(trace)


def joined(traces: Iterable[Trace]) -> Trace:
    """One trace of all runs."""
    found = Trace()
    for each in traces:
        found.join(each)
    return found


def clauses_of(node: ConditionNode) -> tuple[ConditionNode, ...]:
    """The clauses of a condition: its parts that are neither `&&`, `||` nor `!`, each once, in their order."""
    if isinstance(node, Not):
        return clauses_of(node.part)
    if isinstance(node, AllOf | AnyOf):
        return tuple(dict.fromkeys(clause for part in node.parts for clause in clauses_of(part)))
    return (node,)


CompiledClauses = Mapping[str, tuple[tuple[int, ColumnsEvaluator], ...]]
"""Policy → (index of a condition with several clauses, the function that evaluates them)."""


def compile_clauses(graphs: Iterable[Graph]) -> CompiledClauses:
    """Compile the clauses of every condition that has several."""
    return {graph.policy: _lowered(graph) for graph in graphs}


class StepTracer:
    """Observes the steps of one run."""

    def __init__(self, clauses: CompiledClauses) -> None:
        """`clauses`: of the policies of the run, `compile_clauses`."""
        self.trace = Trace()
        self._clauses = clauses
        self._stepped: list[ScopeEvaluator] = []

    def observe(self, evaluator: ScopeEvaluator, moved: StepResult) -> None:
        """Record a step of a scope evaluator."""
        columns = evaluator.columns
        if columns is None:
            return
        trace = self._of(evaluator.policy)
        low, high, text = columns.lo, columns.hi, columns.text
        trace.conditions.add(evaluator.machine.evaluate(low, high, text))
        for index, evaluate in self._clauses[evaluator.policy]:
            trace.clauses.setdefault(index, set()).add(evaluate(low, high, text))
        confirmed = moved.state.triggers.confirmed
        trace.confirmed.add(confirmed)
        if confirmed:
            self._stepped.append(evaluator)

    def end_tick(self, fired: Iterable[tuple[str, str, str]], reset: Iterable[tuple[str, str, bool]]) -> None:
        """Record the stages that fired at this tick, (policy, scope, stage), and those that were reset, (policy, stage,
        whether by a person).

        A stage whose triggers are confirmed and that does not fire is refused.
        """
        now = set(fired)
        for policy, _, name in now:
            self._of(policy).fired.add(name)
        for policy, name, is_by_hand in reset:
            trace = self._of(policy)
            (trace.reset_by_hand if is_by_hand else trace.reset).add(name)
        for evaluator in self._stepped:
            policy, confirmed = evaluator.policy, evaluator.state.triggers.confirmed
            for stage in evaluator.compiled.graph.stages:
                if is_confirmed(stage, confirmed) and (policy, evaluator.scope, stage.name) not in now:
                    self._of(policy).refused.add(stage.name)
        self._stepped.clear()

    def _of(self, policy: str) -> PolicyTrace:
        found = self.trace.policies.get(policy)
        if found is None:
            found = self.trace.policies[policy] = PolicyTrace()
        return found


def _lowered(graph: Graph) -> tuple[tuple[int, ColumnsEvaluator], ...]:
    """The clauses of every condition that has several, compiled, with the index of the condition."""
    found = ((index, clauses_of(condition)) for index, condition in enumerate(graph.conditions))
    return tuple((index, lower(clauses)) for index, clauses in found if len(clauses) > 1)
