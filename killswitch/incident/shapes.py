"""What a template may ask of a value, from the declared types of the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from msgspec import Struct


@dataclass(frozen=True, slots=True)
class Value:
    """A text, a number, an instant: nothing can be asked of it."""


@dataclass(frozen=True, slots=True)
class Anything:
    """What is not known, and so not judged."""


@dataclass(frozen=True, slots=True)
class ListOf:
    """Several values of one shape."""

    item: Shape


@dataclass(frozen=True, slots=True)
class Parts:
    """A record: the shape of each of its parts."""

    name: str
    of: Mapping[str, Shape]

    def __hash__(self) -> int:
        return hash(self.name)


Shape = Value | Anything | ListOf | Parts

LOOP = Parts(
    "loop",
    {
        **dict.fromkeys(("index", "index0", "revindex", "revindex0", "first", "last", "length", "depth"), Value()),
        "previtem": Anything(),
        "nextitem": Anything(),
    },
)
"""What Jinja2 says of a loop inside it."""


@cache
def shape_of(declared: Any) -> Shape:
    """The shape of an annotation of the record."""
    if get_origin(declared) is Annotated:
        return shape_of(get_args(declared)[0])
    if get_origin(declared) in (Union, UnionType):
        real = [option for option in get_args(declared) if option is not NoneType]
        return shape_of(real[0]) if len(real) == 1 else Value()
    if get_origin(declared) in (tuple, list):
        return ListOf(shape_of(get_args(declared)[0]))
    if isinstance(declared, type) and issubclass(declared, Struct):
        hints = get_type_hints(declared, include_extras=True)
        return Parts(declared.__name__, {name: shape_of(hints[name]) for name in declared.__struct_fields__})
    return Value()
