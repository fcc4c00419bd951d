"""freqtrade's configuration: JSON with comments and trailing commas, files that it names, and FREQTRADE__ variables.

`add_config_files` are read relative to the file that names them, and what that file says itself wins. Of several
configurations the later wins. Variables such as FREQTRADE__EXCHANGE__NAME override all of them; their values are read
from files in the format of `.env`, never from the environment of the importer.

Each setting keeps the file and line where it is written. The text is read by the reader of policies: JSON without its
comments and trailing commas is YAML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from killswitch.operations.importing.report import ImportRefusedError, read_text
from killswitch.policy.yaml.parser import Node, YamlProblem, parse, plain_value

Keys = tuple[str, ...]

ADDED: Final = "add_config_files"
PREFIX: Final = "FREQTRADE__"
MOST_FILES: Final = 50
"""Files of one configuration; more is a circle."""

_STRING: Final = r'"(?:[^"\\\n]|\\.)*"'
_COMMENT: Final = re.compile(rf"(?P<text>{_STRING})|//[^\n]*|/\*.*?\*/", re.DOTALL)
_COMMA: Final = re.compile(rf"(?P<text>{_STRING})|,(?=\s*[}}\]])|\t")
_LINE: Final = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")


class ConfigSetting(Struct, frozen=True):
    """A value that is no mapping, or an empty one, and where it is written. `variable`: its source, if it is one."""

    value: object
    file: str
    line: int
    variable: str | None = None


Settings = Mapping[Keys, ConfigSetting]
"""Path of keys → setting."""


def read_config(configs: Sequence[Path], variables: Sequence[Path]) -> dict[Keys, ConfigSetting]:
    """All settings of the files, merged. ImportRefusedError for a file that cannot be read or that is no JSON."""
    found: dict[Keys, ConfigSetting] = {}
    for path in configs:
        merge(found, _file(path, ()))
    for path in variables:
        merge(found, dict(_variables(path)))
    return found


def merge(under: dict[Keys, ConfigSetting], over: Settings) -> None:
    """Put settings over others: a value replaces what is at its keys, below them, and a value above them."""
    for keys, setting in over.items():
        for other in [each for each in under if each[: len(keys)] == keys or keys[: len(each)] == each]:
            del under[other]
        under[keys] = setting


def _file(path: Path, above: tuple[Path, ...]) -> dict[Keys, ConfigSetting]:
    if path.resolve() in above or len(above) > MOST_FILES:
        raise ImportRefusedError(f"{path}: names itself by {ADDED}; remove it there")
    own = dict(_settings(str(path), _root(path), ()))
    added, found = own.pop((ADDED,), None), dict[Keys, ConfigSetting]()
    if added is not None:
        if not isinstance(added.value, list) or not all(isinstance(each, str) for each in added.value):
            raise ImportRefusedError(f"{path}:{added.line}: {ADDED} is a list of file names")
        for name in added.value:
            merge(found, _file(path.parent / name, (*above, path.resolve())))
    merge(found, own)
    return found


def _root(path: Path) -> Node:
    problems: list[YamlProblem] = []
    documents = parse(without_comments(read_text(path)), problems.append)
    if problems:
        first = problems[0]
        raise ImportRefusedError(
            f"{path}:{first.span.line + 1}: not JSON as freqtrade reads it: {first.message}; {first.fix}"
        )
    if len(documents) != 1 or documents[0].node.pairs is None:
        raise ImportRefusedError(f"{path}:1: a configuration is one JSON object")
    return documents[0].node


def without_comments(text: str) -> str:
    """The text without comments, trailing commas and tabs; every line keeps its number."""
    bare = _COMMENT.sub(lambda found: found["text"] or re.sub(r"[^\n]", " ", found[0]), text)
    return _COMMA.sub(lambda found: found["text"] or " ", bare)


def _settings(file: str, node: Node, keys: Keys) -> Iterator[tuple[Keys, ConfigSetting]]:
    for key, (at, value) in (node.pairs or {}).items():
        if value.pairs:
            yield from _settings(file, value, (*keys, key))
        else:
            yield (*keys, key), ConfigSetting(plain_value(value), file, at.span.line + 1)


def _variables(path: Path) -> Iterator[tuple[Keys, ConfigSetting]]:
    """The FREQTRADE__ variables of a file; others are the system's, and are not read."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ImportRefusedError(f"{path}:{number}: not NAME=VALUE")
        name, value = found[1], found[2]
        if name.upper().startswith(PREFIX):
            keys = tuple(each.lower() for each in name[len(PREFIX) :].split("__"))
            yield keys, ConfigSetting(_typed(_unquoted(value)), str(path), number, name)


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _typed(value: str) -> object:
    """A variable's value as freqtrade reads it: a number, true or false, else a text."""
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    if re.fullmatch(r"[+-]?\d{1,18}", value):
        return int(value)
    try:
        return float(value)
    except ValueError:
        return value
