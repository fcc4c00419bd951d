"""An example of each kind of document, with every key once; a test compares them with the models."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from msgspec import Struct
from ruamel.yaml import YAML

from killswitch.policy.kinds import KINDS
from killswitch.policy.schema.part import Part, keys_of, shape_of, unwrap

FOLDER = Path(__file__).resolve().parent
LONGEST = 60
"""The maximum length of an example in the table, in characters."""


class Examples(Struct, frozen=True):
    """`texts`: kind → its example as written. `values`: part → key → the first value written for it."""

    texts: Mapping[str, str]
    values: Mapping[type[Part], Mapping[str, object]]

    def of(self, part: type[Part], key: str) -> str:
        """The key with its example, in one line; empty if there is none, or if it is too long."""
        value = self.values.get(part, {}).get(key)
        if value is None or _nested(value):
            return ""
        stream = io.StringIO()
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = True
        yaml.width = 1000
        yaml.dump({key: value}, stream)
        line = stream.getvalue().strip().removeprefix("{").removesuffix("}")
        return line if len(line) <= LONGEST else ""


def read_examples() -> Examples:
    """The examples of all kinds that have one: KIND.yaml here, and KIND-*.yaml of keys that exclude others."""
    texts: dict[str, str] = {}
    values: dict[type[Part], dict[str, object]] = {}
    for kind, document in KINDS.items():
        paths = [FOLDER / f"{kind}.yaml", *sorted(FOLDER.glob(f"{kind}-*.yaml"))]
        found = [path.read_text(encoding="utf-8") for path in paths if path.exists()]
        if found:
            texts[kind] = "---\n".join(found)
        for text in found:
            for written in YAML(typ="safe", pure=True).load_all(text):
                for part, key, value in walk(document, written):
                    values.setdefault(part, {}).setdefault(key, value)
    return Examples(texts, values)


def walk(annotation: Any, written: object) -> Iterator[tuple[type[Part], str, object]]:
    """Every (part, key, value) of a written document; the shapes determine the parts."""
    plain, _ = unwrap(shape_of(annotation, written))
    if isinstance(plain, type) and issubclass(plain, Part) and isinstance(written, dict):
        for name, key in keys_of(plain).items():
            if name in written:
                yield plain, name, written[name]
                yield from walk(key.annotation, written[name])
    elif get_origin(plain) is tuple and isinstance(written, list):
        for each in written:
            yield from walk(get_args(plain)[0], each)
    elif get_origin(plain) is dict and isinstance(written, dict):
        for each in written.values():
            yield from walk(get_args(plain)[1], each)


def _nested(value: object) -> bool:
    """Whether a mapping or list is empty or contains mappings or lists."""
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    if inside is None:
        return False
    return not inside or any(isinstance(each, dict | list) for each in inside)
