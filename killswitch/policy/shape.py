"""From annotated classes to a validator: how a document's shape is declared once and checked by pydantic's engine.

The classes of `documents` are declared as for `pydantic.BaseModel`, and checked by the same `pydantic_core`.
`BaseModel` itself is left out because importing it and building one class costs as much as parsing every
shipped policy twice over; `docs/adr` says more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import get_annotations
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Union, cast, dataclass_transform, get_args, get_origin

from pydantic_core import PydanticCustomError, SchemaValidator, core_schema
from pydantic_core.core_schema import CoreSchema


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Part:
    """A piece of a document: frozen, compared by content, its left-out keys read from the class."""

    KEYS: ClassVar[Mapping[str, str]] = {}
    """Attribute → key as written, where the key is no fit name for an attribute (`for`, `any`, `apiVersion`)."""

    SCHEMA: ClassVar[Mapping[str, object]] = {}
    """What its JSON Schema says beyond its keys: what must hold between them."""

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed: documents are what was written")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and as_values(self) == as_values(other)

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in as_values(self).items())
        return f"{type(self).__name__}({inside})"


class Scalar:
    """One written value with a meaning of its own: how it is read, and its JSON Schema."""

    __slots__ = ("json", "parse")

    def __init__(self, parse: Callable[[object], object], json: Mapping[str, object]) -> None:
        self.parse = parse
        self.json = json


class Choice:
    """Which of several shapes is meant: `pick` looks at what was written and names one of `shapes`."""

    __slots__ = ("pick", "shapes")

    def __init__(self, pick: Callable[[object], str], shapes: Mapping[str, object]) -> None:
        self.pick = pick
        self.shapes = shapes


class AtLeastOne:
    """Marks a list that must not be empty."""

    __slots__ = ()


def mistake(code: str, message: str, fix: str) -> PydanticCustomError:
    """The error that reading a scalar raises: its code, what is wrong, and the way out."""
    return PydanticCustomError(cast("Any", code), "{message}", {"message": message, "fix": fix})


def as_values(part: Part) -> dict[str, object]:
    """Attribute → value of every declared attribute, left-out ones included."""
    return {name: getattr(part, name) for name in declared(type(part))}


def declared(part: type[Part]) -> dict[str, Any]:
    """Attribute → annotation of a part, in the order declared, without class variables."""
    found: dict[str, Any] = {}
    for cls in reversed(part.__mro__):
        if cls is not Part and issubclass(cls, Part):
            found |= get_annotations(cls)
    return {name: annotation for name, annotation in found.items() if not _of_class(annotation)}


def _of_class(annotation: Any) -> bool:
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def written_keys(part: type[Part]) -> dict[str, str]:
    """Key as written → attribute."""
    return {part.KEYS.get(name, name): name for name in declared(part)}


def part_at(part: type[Part], path: tuple[str | int, ...]) -> type[Part] | None:
    """The part that stands at `path` (with the tags of choices, as the validator gives it); None if none does."""
    here: Any = part
    for step in path:
        bare, metadata = unwrap(here)
        choice = next((mark for mark in metadata if isinstance(mark, Choice)), None)
        if choice is not None:
            here = choice.shapes.get(str(step))
        elif isinstance(bare, type) and issubclass(bare, Part):
            here = declared(bare).get(written_keys(bare).get(str(step), ""))
        else:
            here = get_args(bare)[-1] if get_origin(bare) is dict else next(iter(get_args(bare)), None)
    bare, _ = unwrap(here)
    return bare if isinstance(bare, type) and issubclass(bare, Part) else None


def validator(part: type[Part]) -> SchemaValidator:
    """What turns plain values (dict, list, str, int, Decimal, bool, None) into a `part`, or says what is wrong."""
    return SchemaValidator(_part(part), core_schema.CoreConfig(loc_by_alias=True))


def unwrap(annotation: Any) -> tuple[Any, tuple[object, ...]]:
    """The bare type of an annotation, its `| None` taken off, and its metadata."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        bare, more = unwrap(inner)
        return bare, (*more, *metadata)
    if get_origin(annotation) in (Union, UnionType):
        real = [option for option in get_args(annotation) if option is not NoneType]
        if len(real) == 1:
            return unwrap(real[0])
    return annotation, ()


def _part(part: type[Part]) -> CoreSchema:
    fields = {
        part.KEYS.get(name, name): core_schema.typed_dict_field(_schema(annotation), required=not hasattr(part, name))
        for name, annotation in declared(part).items()
    }
    attributes = written_keys(part)

    def build(values: dict[str, object]) -> Part:
        return part(**{attributes[key]: value for key, value in values.items()})

    shape = core_schema.typed_dict_schema(fields, extra_behavior="forbid", strict=True)
    return core_schema.no_info_after_validator_function(build, shape)


def _schema(annotation: Any) -> CoreSchema:
    bare, metadata = unwrap(annotation)
    for mark in metadata:
        if isinstance(mark, Scalar):
            return core_schema.no_info_plain_validator_function(mark.parse)
        if isinstance(mark, Choice):
            return _choice(mark)
    if isinstance(bare, type) and issubclass(bare, Part):
        return _part(bare)
    if get_origin(bare) is not None:
        return _composed(bare, any(isinstance(mark, AtLeastOne) for mark in metadata))
    return _PLAIN[bare]


def _composed(bare: Any, not_empty: bool) -> CoreSchema:
    arguments = get_args(bare)
    if get_origin(bare) is Literal:
        return core_schema.literal_schema(list(arguments))
    if get_origin(bare) is tuple:
        # a list is what YAML has; lax mode takes it for a tuple
        return core_schema.tuple_schema(
            [_schema(arguments[0])], variadic_item_index=0, min_length=1 if not_empty else None, strict=False
        )
    return core_schema.dict_schema(core_schema.str_schema(strict=True), _schema(arguments[1]), strict=True)


def _choice(choice: Choice) -> CoreSchema:
    shapes: dict[Any, CoreSchema] = {name: _schema(shape) for name, shape in choice.shapes.items()}
    return core_schema.tagged_union_schema(shapes, choice.pick)


_PLAIN: dict[Any, CoreSchema] = {
    str: core_schema.str_schema(strict=True),
    int: core_schema.int_schema(strict=True),
    bool: core_schema.bool_schema(strict=True),
    object: core_schema.any_schema(),
}
