"""One edit of each key of the schema, on a policy set that writes each key once."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from copy import deepcopy
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal, get_args, get_origin

from msgspec import Struct
from ruamel.yaml import YAML

from killswitch.model.applied_set import PolicyFile
from killswitch.policy.kinds import KINDS
from killswitch.policy.schema.part import Part, keys_of, shape_of, unwrap
from killswitch.signals.catalogue import ARGUMENTS
from tools.reference.examples import FOLDER

Path = tuple[str | int, ...]
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Key(Struct, frozen=True):
    """A key of the schema, and a place where the examples write it."""

    part: str
    key: str
    file: str
    path: Path

    @property
    def name(self) -> str:
        """Part and key."""
        return f"{self.part}.{self.key}"


@cache
def documents() -> dict[str, Any]:
    """The examples, one document in each file; all triggers of the first policy are used, as they are written."""
    found: dict[str, Any] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for number, each in enumerate(YAML(typ="safe", pure=True).load_all(path.read_text())):
            if each is not None:
                found[f"{path.stem.lower()}-{number}.yaml"] = each
    swaps = next(each for each in found.values() if each["metadata"]["name"] == "swaps" and each["kind"] == "Policy")
    swaps["spec"]["stages"][0]["any"] = [each for each in swaps["spec"]["triggers"] if each != "negative"]
    del swaps["spec"]["variant"]  # it would overrule what the triggers say
    return found


def files(edited: dict[str, Any] | None = None) -> tuple[PolicyFile, ...]:
    """The files of the set, with other documents in place of some."""
    written = [PolicyFile(path.name, path.read_bytes()) for path in sorted(FOLDER.glob("*.j2"))]
    for name, document in (documents() | (edited or {})).items():
        if document is not None:
            written.append(PolicyFile(name, _text(document)))
    return tuple(written)


def _text(document: Any) -> bytes:
    out = io.BytesIO()
    YAML(typ="safe", pure=True).dump(document, out)
    return out.getvalue()


@cache
def keys() -> tuple[Key, ...]:
    """Every key of every part that the examples write, once."""
    found: dict[str, Key] = {}
    for file, document in documents().items():
        for part, key, path in _walk(KINDS[document["kind"]], document, ()):
            each = Key(part.__name__, key, file, path)
            if key not in ("apiVersion", "kind", "metadata", "spec"):
                found.setdefault(each.name, each)
    return tuple(found.values())


def _walk(annotation: Any, written: Any, path: Path) -> Iterator[tuple[type[Part], str, Path]]:
    plain, _ = unwrap(shape_of(annotation, written))
    if isinstance(plain, type) and issubclass(plain, Part) and isinstance(written, dict):
        for key, value in written.items():
            declared = keys_of(plain).get(key)
            if declared is not None:
                yield plain, key, (*path, key)
                yield from _walk(declared.annotation, value, (*path, key))
    elif get_origin(plain) is dict and isinstance(written, dict):
        for key, value in written.items():
            yield from _walk(get_args(plain)[1], value, (*path, key))
    elif get_origin(plain) is tuple and isinstance(written, list):
        for number, value in enumerate(written):
            yield from _walk(get_args(plain)[0], value, (*path, number))


def edits(key: Key) -> Iterator[tuple[PolicyFile, ...]]:
    """The set without the key, and with other values of it."""
    document = documents()[key.file]

    def holder_in(whole: Any) -> Any:
        for step in key.path[:-1]:
            whole = whole[step]
        return whole

    without = deepcopy(document)
    del holder_in(without)[key.path[-1]]
    yield files({key.file: without})
    for value in _others(holder_in(document)[key.path[-1]], _words(key)):
        changed = deepcopy(document)
        holder_in(changed)[key.path[-1]] = value
        yield files({key.file: changed})


def _words(key: Key) -> tuple[str, ...]:
    """The words that the annotation of the key declares."""
    part = next(each for each in _parts() if each.__name__ == key.part and key.key in keys_of(each))
    of_signals = (word for argument in ARGUMENTS.get(key.key, ()) for word in argument.words)
    return tuple(dict.fromkeys((*_literals(keys_of(part)[key.key].annotation), *of_signals)))


@cache
def _parts() -> tuple[type[Part], ...]:
    found: list[type[Part]] = []
    waiting: list[Any] = list(KINDS.values())
    while waiting:
        each = waiting.pop()
        if isinstance(each, type) and issubclass(each, Part):
            if each not in found:
                found.append(each)
                waiting += [key.annotation for key in keys_of(each).values()]
        else:
            waiting += get_args(each)
    return tuple(found)


def _literals(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from (each for each in get_args(annotation) if isinstance(each, str))
        return
    for each in get_args(annotation):
        yield from _literals(each)


def _others(value: Any, words: tuple[str, ...]) -> Iterator[Any]:
    """Other values of the same kind."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
        yield value * 0.9
        yield value - 1
    elif isinstance(value, datetime):
        yield value + timedelta(days=365)
    elif isinstance(value, str):
        yield from (each for each in words if each != value)
        for more in (1.0, -1.0, 0.1, 10.0):
            changed = _NUMBER.sub(lambda found, more=more: f"{float(found[0]) + more:g}", value, count=1)  # type: ignore[misc]  # bound at once
            yield from (changed,) if changed != value else ()
        yield f"{value}-other"
        yield f"{value} other"
        yield from ("BTC/USDC", "USDC", "ETH", "Europe/Paris", "main", "desk")
    elif isinstance(value, list):
        yield from (value[:-1], [*value, "ETH_USDT"], [*value, "other"], value[1:])
        for other in _others(value[0], words) if value else ():
            yield [other, *value[1:]]
    elif isinstance(value, dict) and all(isinstance(each, str) for each in value.values()):
        yield {**value, "other": "1"}
