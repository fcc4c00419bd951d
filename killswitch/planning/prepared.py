"""A graph made ready to run: conditions and position conditions as code, signals as readers."""

from __future__ import annotations

from dataclasses import dataclass

from killswitch.engine.step import Machine
from killswitch.graph.lowering import lower, lower_one
from killswitch.graph.nodes import Close, Graph, Stage
from killswitch.planning.selection import AllIf
from killswitch.signals.columns import ColumnReader, longest_window
from killswitch.signals.explanation import EquityTerms


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything of a policy that does not change from tick to tick."""

    graph: Graph
    machine: Machine
    reader: ColumnReader
    windows: tuple[int, ...]
    keep: int
    """How far back history is kept: the longest window that anything reads (microseconds)."""
    terms: EquityTerms
    all_if: dict[tuple[str, int], AllIf]
    """(stage, index of the action) → the compiled `all_if`."""
    sample: int | None
    """How often marks are recorded: the shortest that any ranking asks for (microseconds); None where none does."""
    corroborates: bool
    """Whether any stage holds prints against other prices before it acts."""

    @property
    def trigger_names(self) -> tuple[str, ...]:
        return tuple(trigger.name for trigger in self.graph.triggers)


def prepare(graph: Graph) -> Prepared:
    """Compile what runs at every tick."""
    windows = {ref.window for ref in graph.signals if ref.window is not None and ref.name == "equity.drawdown"}
    keep = max(longest_window(graph.signals), *(rule.window for rule in graph.rankings), 0)
    return Prepared(
        graph=graph,
        machine=Machine.of(graph, lower(graph.conditions)),
        reader=ColumnReader(graph.signals),
        windows=tuple(sorted(windows)),
        keep=keep,
        terms=EquityTerms(
            graph.equity.max_gap, graph.equity.tolerance, graph.equity.flow_grace, graph.equity.closes_unexplained
        ),
        all_if=_position_conditions(graph.stages),
        sample=min((rule.sample for rule in graph.rankings if rule.sample is not None), default=None),
        corroborates=any(stage.corroborate for stage in graph.stages),
    )


def _position_conditions(stages: tuple[Stage, ...]) -> dict[tuple[str, int], AllIf]:
    return {
        (stage.name, index): lower_one(action.all_if)
        for stage in stages
        for index, action in enumerate(stage.actions)
        if isinstance(action, Close) and action.all_if is not None
    }
