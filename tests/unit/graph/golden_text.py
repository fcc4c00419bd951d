"""A policy set as plain text, one fact a line: the format of the compiler's golden files."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from killswitch.graph.nodes import PolicySet, ScopeRule
from killswitch.model.words import Place


def as_text(policy_set: PolicySet) -> str:
    """Every field of every node by its path; digests and source lines are left out, places are `line:column`.

    Unwindings, timers, strategies, limits and what only scopes of strategies, symbols and labels have appear only where
    there are any: nearly every policy set has none.
    """
    return "".join(f"{line}\n" for line in _lines("set", policy_set))


def _lines(path: str, node: object) -> Iterator[str]:
    if isinstance(node, Place):
        yield f"{path} @ {node.line}:{node.column}"
    elif isinstance(node, Struct):
        inner = [name for name in node.__struct_fields__ if _is_written(node, name)]
        if all(not _has_nodes(getattr(node, name)) for name in inner):
            flat = ", ".join(f"{name}={getattr(node, name)!r}" for name in inner)
            yield f"{path} = {type(node).__name__}({flat})"
            return
        yield f"{path}: {type(node).__name__}"
        for name in inner:
            yield from _lines(f"{path}.{name}", getattr(node, name))
    elif isinstance(node, tuple) and any(map(_has_nodes, node)):
        for number, each in enumerate(node):
            yield from _lines(f"{path}[{number}]", each)
    else:
        yield f"{path} = {node!r}"


def _is_written(node: Struct, field: str) -> bool:
    rare = ("unwinding", "unwindings", "timers", "strategies", "silences", "limits")
    if isinstance(node, ScopeRule):
        rare += ("symbols", "labels")
    return field not in ("digest", "commit") and bool(field not in rare or getattr(node, field))


def _has_nodes(value: object) -> bool:
    return isinstance(value, Struct) or (isinstance(value, tuple) and any(map(_has_nodes, value)))
