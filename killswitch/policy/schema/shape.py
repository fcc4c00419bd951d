"""How the shape of a document is declared: annotated classes, as for pydantic, read by `validation`.

They are no pydantic models because importing `BaseModel` and building one class costs more than reading every
shipped policy does, and `ksctl validate` runs at every save; docs/adr has the numbers. What is gained beside
speed: the reader walks the written nodes, so that each mistake is found where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from inspect import get_annotations
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, NamedTuple, NoReturn, Union, dataclass_transform, get_args, get_origin


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


class MistakeError(ValueError):
    """A written value that does not mean anything: the code, what is wrong, and the way out."""

    def __init__(self, code: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fix = fix


class Scalar:
    """One written value with a meaning of its own: how it is read (or a MistakeError), and its JSON Schema."""

    __slots__ = ("json", "parse")

    def __init__(self, parse: Callable[[object], object], json: Mapping[str, object]) -> None:
        self.parse = parse
        self.json = json


class Choice:
    """Which of several shapes is meant: `pick` looks at what was written and gives the place in `shapes`."""

    __slots__ = ("pick", "shapes")

    def __init__(self, pick: Callable[[object], int], *shapes: object) -> None:
        self.pick = pick
        self.shapes = shapes


class AtLeastOne:
    """Marks a list that must not be empty."""

    __slots__ = ()


class Field(NamedTuple):
    """One key of a part. `meaning` is for people; `required` has no value to fall back on."""

    key: str
    attribute: str
    annotation: Any
    meaning: str
    required: bool


_FIELDS: dict[type[Part], Mapping[str, Field]] = {}


def fields(part: type[Part]) -> Mapping[str, Field]:
    """Key as written → field, in the order declared."""
    if part not in _FIELDS:
        _FIELDS[part] = {field.key: field for field in _declared(part)}
    return _FIELDS[part]


def _declared(part: type[Part]) -> Iterator[Field]:
    for cls in reversed(part.__mro__):
        if cls is Part or not issubclass(cls, Part):
            continue
        for name, annotation in get_annotations(cls).items():
            if not _of_class(annotation):
                words = [mark for mark in unwrap(annotation)[1] if isinstance(mark, str)]
                required = not hasattr(part, name)
                yield Field(part.KEYS.get(name, name), name, annotation, words[-1] if words else "", required)


def _of_class(annotation: Any) -> bool:
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def as_values(part: Part) -> dict[str, object]:
    """Attribute → value of every declared attribute, left-out ones included."""
    return {field.attribute: getattr(part, field.attribute) for field in fields(type(part)).values()}


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
