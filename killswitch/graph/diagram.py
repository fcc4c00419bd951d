"""Diagrams of the graph as Mermaid and DOT: signals → triggers → stages → actions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from killswitch.graph.actions.registry import action_kind
from killswitch.graph.nodes import Graph, PolicySet, Stage, Trigger
from killswitch.graph.wording import condition_text, signal_text, signals_of, span
from killswitch.render.formats import count_of

Shape = Literal["signal", "trigger", "stage", "action"]


class _Box(Struct, frozen=True):
    key: str
    shape: Shape
    lines: tuple[str, ...]


class _Arrow(Struct, frozen=True):
    start: str
    end: str
    label: str = ""


def mermaid(policy_set: PolicySet) -> str:
    """Render a Mermaid flowchart with one subgraph for each policy."""
    ends = {"signal": ("([", "])"), "trigger": ("[", "]"), "stage": ("{{", "}}"), "action": ("[/", "/]")}
    lines = ["flowchart LR"]
    for number, graph in enumerate(policy_set.graphs):
        lines.append(f'  subgraph p{number}["{_mermaid_text(_title(graph))}"]')
        for part in _parts(graph, f"p{number}"):
            if isinstance(part, _Box):
                left, right = ends[part.shape]
                text = "<br/>".join(map(_mermaid_text, part.lines))
                lines.append(f'    {part.key}{left}"{text}"{right}')
            else:
                label = f'|"{_mermaid_text(part.label)}"|' if part.label else ""
                lines.append(f"    {part.start} -->{label} {part.end}")
        lines.append("  end")
    return "\n".join(lines) + "\n"


def dot(policy_set: PolicySet) -> str:
    """Render a DOT digraph with one cluster for each policy."""
    shapes = {"signal": "oval", "trigger": "box", "stage": "hexagon", "action": "note"}
    lines = ["digraph killswitch {", "  rankdir=LR;"]
    for number, graph in enumerate(policy_set.graphs):
        lines += [f"  subgraph cluster_{number} {{", f'    label="{_dot_text(_title(graph))}";']
        for part in _parts(graph, f"p{number}"):
            if isinstance(part, _Box):
                text = "\\n".join(map(_dot_text, part.lines))
                lines.append(f'    {part.key} [shape={shapes[part.shape]}, label="{text}"];')
            else:
                label = f' [label="{_dot_text(part.label)}"]' if part.label else ""
                lines.append(f"    {part.start} -> {part.end}{label};")
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def _title(graph: Graph) -> str:
    variant = "" if graph.variant is None else f"variant {graph.variant}, "
    return f"{graph.policy} ({variant}{graph.mode}, each {graph.scope.each})"


def _parts(graph: Graph, prefix: str) -> Iterator[_Box | _Arrow]:
    for number, signal in enumerate(graph.signals):
        yield _Box(f"{prefix}_s{number}", "signal", (signal_text(signal),))
    for number, trigger in enumerate(graph.triggers):
        yield _Box(f"{prefix}_t{number}", "trigger", _trigger(trigger, graph))
        for index in sorted(signals_of(trigger.condition)):
            yield _Arrow(f"{prefix}_s{index}", f"{prefix}_t{number}")
    for number, stage in enumerate(graph.stages):
        yield from _stage(stage, graph, prefix, number)


def _stage(stage: Stage, graph: Graph, prefix: str, number: int) -> Iterator[_Box | _Arrow]:
    key = f"{prefix}_g{number}"
    yield _Box(key, "stage", (f"level {stage.level}: {stage.name}", *_ending(stage, graph)))
    for index in stage.any_of:
        yield _Arrow(f"{prefix}_t{index}", key, "any" if len(stage.any_of) > 1 or stage.all_of else "")
    for index in stage.all_of:
        yield _Arrow(f"{prefix}_t{index}", key, "all")
    if stage.actions:
        texts = tuple(action_kind(action).text(action, graph.position_signals) for action in stage.actions)
        yield _Box(f"{key}_a", "action", texts)
        yield _Arrow(key, f"{key}_a")


def _trigger(trigger: Trigger, graph: Graph) -> tuple[str, ...]:
    """Name, condition and confirmation of a trigger."""
    shown = condition_text(trigger.condition, graph.signals)
    if trigger.threshold is not None:
        shown = f"{trigger.threshold.op} {trigger.threshold.written}"
    confirmed = f"for {span(trigger.confirm)}" if trigger.confirm else "at once"
    if trigger.confirm_ticks:
        confirmed = f"for {count_of(trigger.confirm_ticks, 'tick')}"
    return trigger.name, shown, f"{confirmed}; unknown: {trigger.on_unknown}"


def _ending(stage: Stage, graph: Graph) -> tuple[str, ...]:
    """Cooldown, reset and corroboration of a stage."""
    reset = "reset by hand"
    if stage.reset is not None:
        condition = condition_text(graph.conditions[stage.reset.condition], graph.signals)
        reset = f"reset when {condition} for {span(stage.reset.hold)}"
    marks = ("corroborated",) if stage.corroborate else ()
    return f"cooldown {span(stage.cooldown)}", reset, *marks


def _mermaid_text(text: str) -> str:
    """Escape text for Mermaid quotes, where `#` and `"` have a meaning."""
    for char, entity in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("&", "#amp;")):
        text = text.replace(char, entity)
    return text


def _dot_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
