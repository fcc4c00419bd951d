"""Building blocks of documents: `Part`, a pydantic model that rejects unknown keys, and its values.

A value with its own syntax is `Annotated[T, Scalar(parse, json)]`, a list that must not be empty has `AtLeastOne()`,
and a key with several shapes is a union of `Tag`ged shapes under a `Discriminator`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from inspect import get_annotations, getsource
from itertools import pairwise
from sys import modules
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Discriminator, GetCoreSchemaHandler, GetJsonSchemaHandler, Tag
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

EMPTY_LIST = "empty_list"
"""The type of error of a list that must not be empty."""


class Part(BaseModel):
    """A part of a document: frozen, and compared by content. Its validator is built when the first document needs it.

    Checks across keys use the document as written (`cross_key_checks`), because a validator of the whole part does not
    run once one of its values has a mistake. The docstring below a key is its description, in the JSON Schema and in
    diagnostics. It is read from the source when it is needed: pydantic would parse all sources at each start.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    without_unknown_key: ClassVar[str] = "remove it"
    """How the fix for a key that is not known begins, where no known key was probably meant."""

    @classmethod
    def instead_of(cls, key: str) -> str | None:
        """The fix for the unknown `key`, where people expect it and another form works; else None."""
        return None


class MistakeError(ValueError):
    """An invalid value: the diagnostic code, the message, and the fix."""

    def __init__(self, code: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fix = fix


class Filler(Struct, frozen=True):
    """A placeholder for a value that cannot be parsed, so that the rest of its document can be checked."""

    value: object


class Scalar:
    """A value with its own syntax: the function that parses it or raises MistakeError, and its JSON Schema.

    `is_confidential`: the value may be a secret written there by mistake, so that no message repeats it.
    """

    __slots__ = ("is_confidential", "json", "parse")

    def __init__(
        self, parse: Callable[[object], object], json: Mapping[str, object], *, is_confidential: bool = False
    ) -> None:
        self.parse = parse
        self.json = json
        self.is_confidential = is_confidential

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.json)

    def _read(self, value: object) -> object:
        return value.value if isinstance(value, Filler) else self.parse(value)


class AtLeastOne:
    """Marks a list that must not be empty.

    It replaces `min_length`, for which pydantic also reports a list as too short if an item is invalid.
    """

    __slots__ = ()

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(_not_empty, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "minItems": 1}


def _not_empty(value: object, handler: Callable[[object], object]) -> object:
    if isinstance(value, Filler):
        return value.value
    if value == []:
        raise PydanticCustomError(EMPTY_LIST, "the list is empty")
    return handler(value)


class Key(Struct, frozen=True):
    """One key of a part. `required` has no value to fall back on; `description` is a declared one, not a docstring."""

    key: str
    attribute: str
    annotation: Any
    holder: type[Part]
    description: str | None
    required: bool

    @property
    def meaning(self) -> str:
        """What it is, for people; empty if nothing is written."""
        return self.description if self.description is not None else _docstring(self.holder, self.attribute)


@cache
def keys_of(part: type[Part]) -> Mapping[str, Key]:
    """The keys of a part by their written names, in the order declared."""
    hints = get_type_hints(part, include_extras=True)
    return {
        info.alias or name: Key(info.alias or name, name, hints[name], part, info.description, info.is_required())
        for name, info in part.model_fields.items()
    }


def _docstring(part: type[Part], attribute: str) -> str:
    """The docstring below the attribute in the class that declares it; empty without one."""
    for holder in part.__mro__:
        found = _docstrings(holder.__module__).get(holder.__name__, {}) if attribute in get_annotations(holder) else {}
        if attribute in found:
            return found[attribute]
    return ""


@cache
def _docstrings(module: str) -> Mapping[str, Mapping[str, str]]:
    """Class → attribute → the docstring below it in the source of the module, in one line."""
    classes = [each for each in ast.parse(getsource(modules[module])).body if isinstance(each, ast.ClassDef)]
    return {each.name: dict(_described(each.body)) for each in classes}


def _described(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    """The attributes of a class that a docstring follows, with its text."""
    for declared, below_it in pairwise(body):
        match declared, below_it:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())


R = TypeVar("R")


def _once(function: Callable[[Any], R]) -> Callable[[Any], R]:
    """The function of an annotation, computed once for each: a document asks for the same ones at each of its values.

    Annotations are compared by identity, because hashing one costs as much as the function.
    """
    known: dict[int, tuple[object, R]] = {}

    def computed(annotation: Any) -> R:
        found = known.get(id(annotation))
        if found is None or found[0] is not annotation:
            found = known[id(annotation)] = (annotation, function(annotation))  # kept, so that its id stays its own
        return found[1]

    return computed


@_once
def unwrap(annotation: Any) -> tuple[Any, tuple[object, ...]]:
    """The type of an annotation without `Annotated` and `| None`, and its metadata."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        unwrapped, more = unwrap(inner)
        return unwrapped, (*more, *metadata)
    if get_origin(annotation) in (Union, UnionType):
        real = [option for option in get_args(annotation) if option is not NoneType]
        if len(real) == 1:
            return unwrap(real[0])
    return annotation, ()


@_once
def shapes(annotation: Any) -> Mapping[str, Any]:
    """Tag → shape of a value with several possible shapes; empty for any other."""
    unwrapped, _ = unwrap(annotation)
    if get_origin(unwrapped) not in (Union, UnionType):
        return {}
    return {mark.tag: option for option in get_args(unwrapped) for mark in unwrap(option)[1] if isinstance(mark, Tag)}


def shape_of(annotation: Any, written: object) -> Any:
    """The shape of the written value if it has several possible shapes; else the annotation itself."""
    while options := shapes(annotation):
        pick = next(mark for mark in unwrap(annotation)[1] if isinstance(mark, Discriminator)).discriminator
        if not callable(pick):
            raise TypeError(f"{annotation} picks its shape by a key")
        annotation = options[str(pick(written))]
    return annotation


def below(annotation: Any, step: str | int) -> Any:
    """The annotation of a key or an item of a part, mapping or list; None if nothing is declared."""
    unwrapped, _ = unwrap(annotation)
    if is_part(unwrapped):
        key = keys_of(unwrapped).get(str(step))
        return None if key is None else key.annotation
    if isinstance(step, str):
        return get_args(unwrapped)[1] if get_origin(unwrapped) is dict else None
    return get_args(unwrapped)[0] if get_origin(unwrapped) is tuple else None


def is_confidential(annotation: Any) -> bool:
    """Whether a written value of this annotation, or one inside it, may be a secret by mistake."""
    unwrapped, metadata = unwrap(annotation)
    if any(isinstance(mark, Scalar) for mark in metadata):
        return any(isinstance(mark, Scalar) and mark.is_confidential for mark in metadata)
    if options := shapes(annotation):
        return any(map(is_confidential, options.values()))
    if is_part(unwrapped):
        return any(is_confidential(key.annotation) for key in keys_of(unwrapped).values())
    return any(map(is_confidential, get_args(unwrapped))) if get_origin(unwrapped) in (dict, tuple) else False


@_once
def is_part(annotation: Any) -> bool:
    """Whether a value of this annotation is a part."""
    unwrapped, _ = unwrap(annotation)
    return isinstance(unwrapped, type) and issubclass(unwrapped, Part)
