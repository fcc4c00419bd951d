"""Frozen dataclasses that are cheap to declare, attributes computed once, and consistency checks of registries.

`dataclass(frozen=True)` generates and compiles half a dozen methods for each class, which takes one to two milliseconds
a class; `ksctl validate`, which runs at every save, imports about sixty. Records share one set of methods instead.
`dataclasses.replace`, `fields` and `match` work on them as on any dataclass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, Self, TypeVar, dataclass_transform, overload

T = TypeVar("T")
R = TypeVar("R", bound="Record")


class Record:
    """The base class of records. Defaults are class attributes; records of one class with equal fields are equal."""

    __match_args__: tuple[str, ...] = ()

    def __init__(self, *args: object, **named: object) -> None:
        cls = type(self)
        fields = cls.__match_args__
        values = dict(zip(fields, args, strict=False))
        twice = values.keys() & named.keys()
        unknown = named.keys() - set(fields)
        missing = [name for name in fields if name not in values and name not in named and not hasattr(cls, name)]
        if len(args) > len(fields) or twice or unknown or missing:
            raise TypeError(f"{cls.__name__}: {', '.join(fields)} are required, each once")
        self.__dict__.update(values, **named)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed: records are frozen")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted: records are frozen")

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in type(self).__match_args__)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        cls = type(self)
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in cls.__match_args__)
        return f"{cls.__qualname__}({inside})"


@dataclass_transform(frozen_default=True)
def record(cls: type[R]) -> type[R]:
    """Declare a subclass of Record: its annotations are its fields, in order."""
    if cls.__doc__ is None:
        # without a docstring, dataclass would compute a signature for it, which is slow
        cls.__doc__ = f"{cls.__name__}."
    return dataclass(init=False, repr=False, eq=False)(cls)


@dataclass_transform(frozen_default=True)
class RecordNode(Record):
    """A record by inheritance: every subclass is one, with its annotations as its fields."""

    def __init_subclass__(cls) -> None:
        record(cls)


class computed_once(Generic[T]):  # noqa: N801 - it is used as a decorator, like `property`
    """Decorate a method without arguments: its result replaces the attribute when it is first read.

    `functools.cached_property` takes a lock at every first read until Python 3.12, which costs more than most of what
    is computed so. An object with such attributes belongs to one thread.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object, owner: type) -> Self | T:
        if instance is None:
            return self
        found = instance.__dict__[self._name] = self._compute(instance)
        return found


class RegistryError(TypeError):
    """A kind is registered in one registry and missing in another; the message names both."""


def require_same_keys(registry: str, keys: Iterable[str], reference: str, wanted: Iterable[str]) -> None:
    """Raise RegistryError unless `registry` has exactly the keys of `reference`, each once."""
    keys, wanted = tuple(keys), tuple(wanted)
    for key in wanted:
        if key not in keys:
            raise RegistryError(f"`{key}` is in {reference}, and {registry} lacks it")
    for place, key in enumerate(keys):
        if key not in wanted:
            raise RegistryError(f"`{key}` is in {registry}, and {reference} lacks it")
        if key in keys[:place]:
            raise RegistryError(f"`{key}` is in {registry} twice")
