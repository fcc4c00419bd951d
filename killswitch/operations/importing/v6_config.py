"""The configuration of killswitch version 6: YAML with anchors and merged mappings, and files of variables.

The format is that of `ConfigLoader` of its source. A mapping may be shared by an anchor or merged with `<<`, which
policies do not allow, so that the file is read by ruamel.yaml's round-trip loader: it keeps lines, shares what is
aliased instead of copying it, and makes no Python objects of tags.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Final

from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError, YAMLWarning

from killswitch.operations.importing.report import ImportedSetting, ImportRefusedError, Outcome, read_text

_OF_READER: Final = (ValueError, TypeError, AttributeError, LookupError, AssertionError, NotImplementedError)
"""What ruamel.yaml's loader raises by itself for damaged text, next to its own errors."""
_WINDOW: Final = re.compile(r"(\d{1,6})([mhd]?)")
_MINUTES: Final = {"": 1, "m": 1, "h": 60, "d": 24 * 60}
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]*_[A-Z0-9_]*")
_ASSIGNED: Final = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=")


class ConfigSection:
    """A mapping of the file with its path of keys; what is read of it is remembered, so that the rest can be listed."""

    def __init__(self, file: str, path: tuple[str, ...], content: CommentedMap) -> None:
        self.file = file
        self.path = path
        self._content = content
        self._read: set[object] = set()

    def value(self, key: str) -> object:
        """The value of a key; None if it is absent. It counts as read."""
        self._read.add(key)
        return self._content.get(key)

    def section(self, key: str) -> ConfigSection | None:
        """The mapping of a key; None if there is none. ImportRefusedError if the key has anything else."""
        found = self.value(key)
        if found is None:
            return None
        if not isinstance(found, CommentedMap):
            raise ImportRefusedError(f"{self.file}:{self.line(key)}: {self.name(key)} is not a mapping")
        return ConfigSection(self.file, (*self.path, key), found)

    def sections(self) -> Iterator[tuple[str, ConfigSection]]:
        """Every mapping in this one, by its key."""
        for key in list(self._content):
            if isinstance(key, str) and (found := self.section(key)) is not None:
                yield key, found

    def number(self, key: str, default: str) -> Decimal | None:
        """The number of a key, `default` if it is absent; None if it is no number."""
        found = self.value(key)
        return Decimal(default) if found is None else as_number(found)

    def flag(self, key: str, *, default: bool) -> bool:
        """Whether a key is true, `default` if it is absent; as Python's `bool`, as version 6 reads it."""
        found = self.value(key)
        return default if found is None else bool(found)

    def pairs(self) -> Iterator[tuple[str, object]]:
        """Every key, as text, with its value; all count as read."""
        for key in self._content:
            self._read.add(key)
            yield str(key), self._content[key]

    def unread(self) -> Iterator[str]:
        """The keys that nothing has read; keys that begin with `_` hold anchors."""
        return (str(key) for key in self._content if key not in self._read and not str(key).startswith("_"))

    def name(self, key: str) -> str:
        """The path of a key, with dots."""
        return ".".join((*self.path, key))

    def line(self, key: str) -> int:
        """The line of a key, counted from 1: where it is written, also behind an anchor; of the mapping, if nowhere."""
        return _line(self._content, key) or self._content.lc.line + 1


def _line(content: CommentedMap, key: str) -> int | None:
    wanted = next((each for each in content if str(each) == key), key)
    with suppress(KeyError):  # a key that was merged in has no line here
        if (place := content.lc.key(wanted)) is not None:
            return int(place[0]) + 1
    return next((line for each in _merged(content) if (line := _line(each, key)) is not None), None)


def _merged(content: CommentedMap) -> list[CommentedMap]:
    """The mappings that `<<` merges into one; ruamel.yaml keeps them in a list of its own, in pairs before 0.18.7."""
    found = getattr(content.merge, "value", content.merge)
    each_one = (each[1] if isinstance(each, tuple) else each for each in found)
    return [each for each in each_one if isinstance(each, CommentedMap)]


NO_EQUIVALENT: Final[Mapping[str, str]] = {
    "state_db": "the store is another one: `ksctl run --store FILE`",
    "spot_routing": "a sale over two markets sells what its first order brought, and nothing else",
    "regime_guard": "of version 7: the shipped set slow-bleed-published has its layers",
    "account_mode": "version 6 does not use it",
    **dict.fromkeys(
        (
            "source_mode",
            "source_threshold",
            "top_n",
            "close_fraction",
            "full_close_if_liq_distance_below_pct",
            "blacklist",
            "set_trading_lock",
            "cancel_entry_orders_before_close",
        ),
        "version 6 does not use it in this mode",
    ),
}


class V6Import(Struct, frozen=True):
    """What all accounts of a configuration share; `settings` collects what became of each setting."""

    root: ConfigSection
    poll: int
    stables: tuple[str, ...]
    settings: list[ImportedSetting]

    def note(self, outcome: Outcome, at: ConfigSection, key: str, text: str, document: str | None = None) -> None:
        self.settings.append(ImportedSetting(outcome, at.name(key), at.file, at.line(key), text, document))


def list_rest(reading: V6Import, section: ConfigSection) -> None:
    """List the keys of a mapping that nothing has read."""
    for key in section.unread():
        reading.note("no equivalent", section, key, NO_EQUIVALENT.get(key, "not known here"))


def read_v6(path: Path) -> ConfigSection:
    """The configuration. ImportRefusedError for a file that cannot be read, or that is no YAML mapping."""
    loader = YAML(typ="rt")
    text = read_text(path)
    try:
        with warnings.catch_warnings():  # an anchor that is there twice is an error for version 6, too
            warnings.simplefilter("error", YAMLWarning)
            found = loader.load(text)
    except (YAMLError, YAMLWarning, RecursionError, *_OF_READER) as error:
        mark = getattr(error, "problem_mark", None)
        line = 1 if mark is None else mark.line + 1
        why = getattr(error, "problem", None) or str(error).partition("\n")[0] or type(error).__name__
        raise ImportRefusedError(f"{path}:{line}: not YAML: {why}") from error
    if not isinstance(found, CommentedMap):
        raise ImportRefusedError(f"{path}:1: a configuration is a mapping with `exchanges`")
    return ConfigSection(str(path), (), found)


def as_number(value: object) -> Decimal | None:
    """A finite number of YAML as written, or a text of one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = Decimal(str(value))
    except ArithmeticError:
        return None
    return found if found.is_finite() and abs(found) < 10**12 else None


def window_minutes(value: object) -> int | None:
    """The minutes of a window such as `15m`, `1h`, `1d` or 15; None for anything else, and for 0."""
    found = _WINDOW.fullmatch(str(value).lower())
    minutes = int(found[1]) * _MINUTES[found[2]] if found else 0
    return minutes or None


def variable_of(value: object) -> str | None:
    """The environment variable that a credential names, by the rules of version 6: `$NAME`, or words in capitals."""
    if not isinstance(value, str):
        return None
    name = value.removeprefix("$")
    return name if _NAME.fullmatch(name) or (value.startswith("$") and name.isidentifier()) else None


def variable_names(paths: Sequence[Path]) -> Mapping[str, str]:
    """The variables that files in the format of `.env` assign, each with its file; their values are not kept."""
    found: dict[str, str] = {}
    for path in paths:
        for line in read_text(path).splitlines():
            if (name := _ASSIGNED.match(line)) is not None:
                found[name[1]] = str(path)
    return found


def asset_names(value: object) -> tuple[str, ...] | None:
    """A list of names of assets; None for anything else."""
    if not isinstance(value, list) or not all(isinstance(each, str) and each.isalnum() for each in value):
        return None
    return tuple(value)
