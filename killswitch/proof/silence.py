"""Silence while latched: the falls that get no response at each level in force, as ranges that can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from killswitch.graph.nodes import Graph, Stage, Threshold, step_of
from killswitch.graph.wording import signal_text
from killswitch.render.range_chart import RangeBand, RangeRow
from killswitch.signals.catalogue import BY_NAME

SHOWN_TO = 0.4
"""The greatest fall that is drawn."""


def least_threshold(graph: Graph, index: int, stages: Sequence[Stage]) -> Threshold | None:
    """The lowest threshold on this signal that alone fires one of the stages."""
    own = [
        graph.triggers[i].threshold
        for stage in stages
        for i in (stage.any_of if not stage.all_of else ())
        if step_of(graph.triggers[i].condition) is not None
    ]
    fitting = [each for each in own if each is not None and each.index == index and each.op in (">=", ">")]
    return min(fitting, key=lambda each: each.value, default=None)


def silent_ranges(graph: Graph) -> tuple[str, ...]:
    """For each level in force and each signal that measures the size of a loss: the falls that get no response."""
    levels = sorted({stage.level for stage in graph.stages})
    found = []
    for level in (0, *levels):
        for index, signal in enumerate(graph.signals):
            if not BY_NAME[signal.name].is_loss_size:
                continue
            above = least_threshold(graph, index, [s for s in graph.stages if s.level > level])
            again = least_threshold(graph, index, [s for s in graph.stages if s.level == level])
            if above is None and again is None and least_threshold(graph, index, graph.stages) is None:
                continue
            found.append(_sentence(level, signal_text(signal), above, again))
    return tuple(found)


def _sentence(level: int, name: str, above: Threshold | None, again: Threshold | None) -> str:
    state = "In normal state" if level == 0 else f"While level {level} is in force"
    if above is None and again is None:
        return f"{state}, {name} of any size gets no response of its own."
    if again is None:
        assert above is not None
        return f"{state}, {name} below {above.written} gets no response."
    lowest = again if above is None or again.value <= above.value else above
    text = f"{state}, {name} below {lowest.written} gets no response"
    if lowest is again:
        text += f"; from {again.written} only after the cooldown and at a lower unit value"
    return f"{text}; from {above.written} a higher level fires." if above is not None else f"{text}."


def silence_rows(graph: Graph) -> tuple[RangeRow, ...]:
    """For each level in force and each loss signal that fires a stage alone: the fall from which each level fires.

    What is below the first band gets no response. The band of the level in force fires again only after the cooldown
    and at a lower unit value.
    """
    rows = []
    for level in (0, *sorted({stage.level for stage in graph.stages})):
        for index, signal in enumerate(graph.signals):
            if not BY_NAME[signal.name].is_loss_size or least_threshold(graph, index, graph.stages) is None:
                continue
            ends = _ends(graph, index, level)
            bands = [
                RangeBand(begins, min(following, SHOWN_TO), each)
                for (begins, each), (following, _) in pairwise([*ends, (SHOWN_TO, level)])
                if begins < SHOWN_TO
            ]
            state = "normal" if level == 0 else f"level {level}"
            rows.append(RangeRow(state, signal_text(signal), tuple(bands)))
    return tuple(rows)


def _ends(graph: Graph, index: int, level: int) -> list[tuple[float, int]]:
    """(fall, level) from each fall on, up to the next one, the highest level fires whose threshold is reached."""
    found: list[tuple[float, int]] = []
    for stage in sorted(graph.stages, key=lambda each: each.level):
        limit = least_threshold(graph, index, [stage]) if stage.level >= level else None
        if limit is not None:
            found = [each for each in found if each[0] < limit.value]
            found.append((limit.value, stage.level))
    return found
