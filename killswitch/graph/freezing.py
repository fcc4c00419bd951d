"""Nodes that are frozen from parts of documents: a key of the part becomes a field of the node.

`frozen_from` on a node names its parts, and the keys of fields that are named otherwise. `freeze` makes the node; only
what is resolved (names to indexes, groups to symbols, places) is passed to it. `tests/unit/graph/test_freezing.py`
compares every node with its parts: each key has a field of its type, or is listed as resolved by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, Final, TypeVar

from msgspec import Struct

from killswitch.policy.schema.part import Part, keys_of

S = TypeVar("S", bound=Struct)

Source = str | tuple[str, Callable[[Any], object]]
"""The key of a field (`match.account` is inside another part), with a conversion of its value if there is one."""


class Origin(Struct, frozen=True):
    """The parts of a node, the keys that are resolved by hand, and the sources of fields that no key is named after."""

    parts: tuple[type[Part], ...]
    by_hand: frozenset[str]
    sources: Mapping[str, Source]

    def source(self, field: str) -> tuple[str, Callable[[Any], object]]:
        """The key of a field, and the conversion of its value."""
        source = self.sources.get(field, field)
        return (source, _frozen) if isinstance(source, str) else source


ORIGINS: Final[dict[type[Struct], Origin]] = {}
"""Every node that is frozen from parts."""
_NODES: Final[dict[type[Part], type[Struct]]] = {}


def frozen_from(*parts: type[Part], by_hand: Collection[str] = (), **sources: Source) -> Callable[[type[S]], type[S]]:
    """Declare that a node is frozen from these parts. `by_hand`: keys that the caller of `freeze` resolves or uses."""

    def declare(node: type[S]) -> type[S]:
        ORIGINS[node] = Origin(parts, frozenset(by_hand), sources)
        _NODES.update(dict.fromkeys(parts, node))
        return node

    return declare


def freeze(part: Part, node: type[S], **resolved: object) -> S:
    """The node of a part, with the `resolved` fields.

    Parts inside it are frozen too, and a mapping becomes its sorted pairs. A key that is left out leaves the default of
    its field. TypeError if a field has no key and is not resolved.
    """
    values = dict(resolved)
    for field in _fields(node):
        if field.name not in resolved:
            value = _value(part, field)
            if value is not None or not field.has_default:
                values[field.name] = value
    return node(**values)


class _Field(Struct, frozen=True):
    """A field of a node: the steps to its key, the conversion of its value, and whether it has a default."""

    name: str
    steps: tuple[str, ...]
    convert: Callable[[Any], object]
    has_default: bool
    by_hand: frozenset[str]


@cache
def _fields(node: type[Struct]) -> tuple[_Field, ...]:
    """The fields of a node, computed once: a set has thousands of nodes of a few kinds."""
    origin, names = ORIGINS[node], node.__struct_fields__
    first_default = len(names) - len(node.__struct_defaults__)
    found = []
    for number, name in enumerate(names):
        path, convert = origin.source(name)
        found.append(_Field(name, tuple(path.split(".")), convert, number >= first_default, origin.by_hand))
    return tuple(found)


def _value(part: Part, field: _Field) -> object:
    value: object = part
    for step in field.steps:
        if isinstance(value, Part):
            keys = keys_of(type(value))
            if step not in keys or (value is part and step in field.by_hand):
                raise TypeError(f"`{field.name}` is no key of {type(part).__name__}, and is not resolved")
            value = getattr(value, keys[step].attribute)
        elif value is not None:
            value = getattr(value, step)
    return None if value is None else field.convert(value)


def _frozen(value: object) -> object:
    if isinstance(value, Part):
        return freeze(value, _NODES[type(value)])
    if isinstance(value, dict):
        return tuple(sorted(value.items()))
    return tuple(map(_frozen, value)) if isinstance(value, tuple) else value
