"""What follows a stage, for its message: the stage above it, and who ends its latch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from killswitch.render.formats import duration_text

if TYPE_CHECKING:
    from killswitch.graph.nodes import Graph, Stage
    from killswitch.incident.record.checklist import StartedAs
    from killswitch.incident.record.source_places import TriggerText
    from killswitch.model.decision import Decision


def outlook(
    decision: Decision, graph: Graph | None, texts: Mapping[tuple[str, str], TriggerText], started: StartedAs
) -> Iterator[str]:
    """Yield the next stage with its thresholds, and how the scope returns to normal; nothing of a close by hand."""
    stages = () if graph is None or decision.kind is not None else graph.stages
    own = next((each for each in stages if each.name == decision.stage), None)
    if graph is None or own is None:
        return
    above = min((each for each in stages if each.level > own.level), key=lambda each: each.level, default=None)
    if above is None:
        yield "no stage is above this one"
    else:
        yield f"level {above.level} {above.name} follows at {_condition(above, graph, texts)}"
    if own.reset is None:
        command = started.command("reset", decision.scope)
        yield f"it stays latched until a person resets it: {command} --reason …"
    else:
        held = duration_text(timedelta(microseconds=own.reset.hold))
        yield f"it resets by itself once its condition has held for {held}"


def _condition(stage: Stage, graph: Graph, texts: Mapping[tuple[str, str], TriggerText]) -> str:
    """Return `fall-15m-2 >= 7% or fall-1h-2 >= 10%`, with the triggers of `all` behind it."""

    def shown(index: int) -> str:
        name = graph.triggers[index].name
        text = texts.get((graph.policy, name))
        return name if text is None or not text.threshold else f"{name} {text.threshold}"

    parts = [" or ".join(map(shown, stage.any_of)), " and ".join(map(shown, stage.all_of))]
    return ", and ".join(part for part in parts if part)
