"""From nodes to documents: every key and value held against the declared shape, every mistake in one pass.

Where a value had a mistake in it a filler stands in the model: it has the right type and no meaning, and nothing may
be said about it. Only documents with mistakes come here; no policy set is ever made of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

from killswitch.policy.diagnostics.problem import Diagnostic
from killswitch.policy.schema.cross_key_checks import COMPARISONS
from killswitch.policy.schema.scalars import spelled
from killswitch.policy.schema.shape import AtLeastOne, Choice, Field, MistakeError, Part, Scalar, fields, unwrap
from killswitch.policy.yaml.source import Path, SourceMap
from killswitch.policy.yaml.tree import Node, plain_value

_FORM_KEYS = frozenset({"signal", "window", "when", *COMPARISONS})


class _Refused:
    """What a value is that had a mistake in it; `rest` is what of it could be read, fillers where nothing could."""

    __slots__ = ("rest",)

    def __init__(self, rest: object = None) -> None:
        self.rest = rest


_REFUSED: Final = _Refused()

_PLAIN = {str: "text", int: "a whole number", bool: "true or false"}
_FIXES = {
    "a mapping": "write its keys below it, or {} for none",
    "a list": "put it in brackets, or begin each line with a dash",
    "text": "put it in quotes",
    "a whole number": "write a whole number",
    "true or false": "write true or false",
}


class Reader:
    """Reads one document. `problems` gathers what is wrong; what only follows from another mistake is left out.

    `forms` are the triggers of which it has already been said that they mix or lack a form. `holes` are the paths of
    what could not be read; `rest` is the document around them, where it is a mapping at all.
    """

    def __init__(self, source: SourceMap, forms: frozenset[Path]) -> None:
        self.problems: list[Diagnostic] = []
        self.holes: set[Path] = set()
        self.rest: Part | None = None
        self._source = source
        self._forms = forms

    def document(self, part: type[Part], root: Node) -> Part | None:
        """The document, or None when something in it is wrong."""
        made = self._part(part, root, ())
        if isinstance(made, _Refused):
            self.rest = made.rest if isinstance(made.rest, Part) else None
        return made if isinstance(made, Part) else None

    def _value(self, annotation: Any, node: Node, path: Path) -> object:
        if node.refused and node.pairs is None:
            return _REFUSED
        if node.text is not None and plain_value(node) is None:
            return self._no_value(path)
        bare, metadata = unwrap(annotation)
        for mark in metadata:
            if isinstance(mark, Scalar):
                return self._scalar(mark, node, path)
            if isinstance(mark, Choice):
                return self._value(mark.shapes[mark.pick(plain_value(node))], node, path)
        return self._shaped(bare, node, path, any(isinstance(mark, AtLeastOne) for mark in metadata))

    def _shaped(self, bare: Any, node: Node, path: Path, not_empty: bool) -> object:
        if isinstance(bare, type) and issubclass(bare, Part):
            return self._part(bare, node, path)
        if get_origin(bare) is Literal:
            return self._one_of(get_args(bare), node, path)
        if get_origin(bare) is tuple:
            return self._list(get_args(bare)[0], node, path, not_empty)
        if get_origin(bare) is dict:
            return self._mapping(get_args(bare)[1], node, path)
        value = plain_value(node)
        return value if bare is object or type(value) is bare else self._wrong_sort(node, path, _PLAIN[bare])

    def _scalar(self, scalar: Scalar, node: Node, path: Path) -> object:
        try:
            return scalar.parse(plain_value(node))
        except MistakeError as mistake:
            self._say(mistake.code, path, mistake.message, mistake.fix, key=node.pairs is not None)
            return _REFUSED

    def _mapping(self, item: Any, node: Node, path: Path) -> object:
        if node.pairs is None:
            return self._wrong_sort(node, path, "a mapping")
        items = {key: self._value(item, below, (*path, key)) for key, (_, below) in node.pairs.items()}
        if node.refused or _any_refused(items.values()):
            return _Refused({key: self._or_filler(value, item, (*path, key)) for key, value in items.items()})
        return items

    def _list(self, item: Any, node: Node, path: Path, not_empty: bool) -> object:
        if node.items is None:
            return self._wrong_sort(node, path, "a list")
        if not_empty and not node.items:
            self._say("KS2007", path, f"`{path[-1]}` is empty", "name at least one")
            return _REFUSED
        items = tuple(self._value(item, below, (*path, number)) for number, below in enumerate(node.items))
        if _any_refused(items):
            return _Refused(tuple(self._or_filler(each, item, (*path, number)) for number, each in enumerate(items)))
        return items

    def _part(self, part: type[Part], node: Node, path: Path) -> object:
        if node.pairs is None:
            return self._wrong_sort(node, path, "a mapping")
        known = fields(part)
        values: dict[str, object] = {}
        meant = set()
        for key, (_, below) in node.pairs.items():
            field = known.get(key)
            if field is None:
                meant.add(self._unknown_key(key, known, path))
            else:
                values[field.attribute] = self._value(field.annotation, below, (*path, key))
        absent = [field for field in known.values() if field.key not in node.pairs]
        missing = [field for field in absent if field.required]
        for field in missing:
            if field.key not in meant and not node.refused:
                self._missing_key(field, path)
        if meant or missing or node.refused or _any_refused(values.values()):
            # a key that nobody knows may be any of those that are not there
            self.holes.update((*path, field.key) for field in (absent if meant or node.refused else missing))
            return _Refused(self._rest(part, values, path))
        return part(**values)

    def _rest(self, part: type[Part], values: dict[str, object], path: Path) -> Part:
        """What of a part could be read; a hole for each value that could not."""
        known = {field.attribute: field for field in fields(part).values()}
        read = {name: value for name, value in values.items() if not _nothing(value)}
        self.holes.update((*path, known[name].key) for name in values if name not in read)
        return filled(part, {name: v.rest if isinstance(v, _Refused) else v for name, v in read.items()})

    def _or_filler(self, value: object, annotation: Any, path: Path) -> object:
        """One of several values; a filler and a hole where it could not be read."""
        if _nothing(value):
            self.holes.add(path)
            return filler(annotation)
        return value.rest if isinstance(value, _Refused) else value

    def _unknown_key(self, key: str, known: Iterable[str], path: Path) -> str | None:
        """Says so; the key that was probably meant."""
        near = closest(key, known)
        if path in self._forms and key in _FORM_KEYS:
            return near
        message = f"unknown key `{key}`" + (f", did you mean `{near}`?" if near else "")
        fix = f"write `{near}`" if near else f"take it out; known here: {', '.join(known)}"
        self._say("KS2001", (*path, key), message, fix, key=True)
        return near

    def _missing_key(self, field: Field, path: Path) -> None:
        if path in self._forms and field.key in _FORM_KEYS:
            return
        where = "the document"
        if path:
            where = f"`{path[-1]}`" if isinstance(path[-1], str) else "this item"
        fix = f"add `{field.key}:`" + (f" — {field.meaning}" if field.meaning else "")
        self._say("KS2002", path, f"`{field.key}` is missing in {where}", fix, key=True)

    def _no_value(self, path: Path) -> object:
        what = f"`{path[-1]}`" if path and isinstance(path[-1], str) else "this item"
        fix = "write a value, or take the key out if it may be left out"
        self._say("KS2005", path, f"{what} has no value", fix, key=True)
        return _REFUSED

    def _one_of(self, allowed: tuple[str, ...], node: Node, path: Path) -> object:
        value = plain_value(node)
        if value in allowed:
            return value
        near = closest(str(value), allowed) if isinstance(value, str) else None
        message = f"{spelled(value)} is not one of {', '.join(allowed)}"
        if len(allowed) == 1:
            message = f"{spelled(value)} is not `{allowed[0]}`"
        elif near is not None:
            message += f"; did you mean `{near}`?"
        self._say("KS2004", path, message, f"write {' or '.join([near] if near else allowed)}")
        return _REFUSED

    def _wrong_sort(self, node: Node, path: Path, wanted: str) -> object:
        value = plain_value(node)
        fix = _FIXES[wanted]
        self._say("KS2003", path, f"{spelled(value)} is not {wanted}", fix, key=not isinstance(value, str | int))
        return _REFUSED

    def _say(self, code: str, path: Path, message: str, fix: str, *, key: bool = False) -> None:
        on_key = key and bool(path) and isinstance(path[-1], str)
        self.problems.append(self._source.diagnostic(code, path, message, fix, key=on_key))


def _any_refused(values: Iterable[object]) -> bool:
    return any(isinstance(value, _Refused) for value in values)


def _nothing(value: object) -> bool:
    """Whether a value was refused as a whole."""
    return isinstance(value, _Refused) and value.rest is None


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    from difflib import get_close_matches

    folded = word.lower().replace("-", "_").replace(" ", "_")
    lowered = {each.lower(): each for each in known}
    near = get_close_matches(folded, lowered, n=1, cutoff=0.6)
    return lowered[near[0]] if near else None


class Gaps(NamedTuple):
    """`holes` are the paths at which a filler stands, `flaws` those at which something else is wrong."""

    holes: frozenset[Path] = frozenset()
    flaws: frozenset[Path] = frozenset()
    sound: bool = True
    """False when the text itself has had a note, such as a key given twice: names may then be missing anywhere."""

    def unread(self, path: Path) -> bool:
        """Whether the value at `path` is a filler, or inside one."""
        return any(path[:depth] in self.holes for depth in range(len(path) + 1))

    def flawed(self, path: Path) -> bool:
        """Whether anything is wrong with the value at `path`, inside it, or with what holds it."""
        if not self.sound or self.unread(path):
            return True
        return any(hole[: len(path)] == path for hole in self.holes) or any(
            flaw[: len(path)] == path or path[: len(flaw)] == flaw for flaw in self.flaws
        )


NO_GAPS = Gaps()


def filler(annotation: Any) -> object:
    """A value of the annotated type that says nothing; None where several shapes may stand."""
    bare, _ = unwrap(annotation)
    if isinstance(bare, type) and issubclass(bare, Part):
        return filled(bare, {})
    if get_origin(bare) is Literal:
        return get_args(bare)[0]
    made: dict[Any, object] = {tuple: (), dict: {}, str: "", int: 0, bool: False, Decimal: Decimal(0)}
    return made.get(get_origin(bare) or bare)


def filled(part: type[Part], values: dict[str, object]) -> Part:
    """The part with `values`, by attribute, and fillers for every other one that may not be left out."""
    required = {field.attribute: field for field in fields(part).values() if field.required}
    fillers = {name: filler(field.annotation) for name, field in required.items() if name not in values}
    return part(**values, **fillers)
