"""A policy set as plain text, one fact a line: the format of the compiler's golden files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from killswitch.graph.nodes import PolicySet
from killswitch.model.words import Place


def as_text(policy_set: PolicySet) -> str:
    """Every field of every node by its path; digests and source lines are left out, places are `line:column`.

    Unwindings and timers appear only where there are any: nearly every policy set has none.
    """
    return "".join(f"{line}\n" for line in _lines("set", policy_set))


def _lines(path: str, node: object) -> Iterator[str]:
    if isinstance(node, Place):
        yield f"{path} @ {node.line}:{node.column}"
    elif is_dataclass(node) and not isinstance(node, type):
        inner = [each for each in fields(node) if _is_written(each.name, getattr(node, each.name))]
        if all(not _has_nodes(getattr(node, each.name)) for each in inner):
            flat = ", ".join(f"{each.name}={getattr(node, each.name)!r}" for each in inner)
            yield f"{path} = {type(node).__name__}({flat})"
            return
        yield f"{path}: {type(node).__name__}"
        for each in inner:
            yield from _lines(f"{path}.{each.name}", getattr(node, each.name))
    elif isinstance(node, tuple) and any(map(_has_nodes, node)):
        for number, each in enumerate(node):
            yield from _lines(f"{path}[{number}]", each)
    else:
        yield f"{path} = {node!r}"


def _is_written(field: str, value: object) -> bool:
    return field not in ("digest", "commit") and not (field in ("unwinding", "unwindings", "timers") and not value)


def _has_nodes(value: object) -> bool:
    return is_dataclass(value) or (isinstance(value, tuple) and any(map(_has_nodes, value)))
