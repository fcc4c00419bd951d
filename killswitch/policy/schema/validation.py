"""Validation of documents: every mistake of a document in one pass.

pydantic checks the values; this module turns each error into a diagnostic with code, place and fix. A document with
mistakes is validated again with fillers in place of the faulty values, so that the rest of it can be checked too. Only
documents with mistakes contain fillers, and no policy set is compiled from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, Final, Literal, get_args, get_origin

from msgspec import Struct
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.diagnostics.unsupported import nearest_of
from killswitch.policy.schema.cross_key_checks import COMPARISONS
from killswitch.policy.schema.part import (
    EMPTY_LIST,
    AtLeastOne,
    Filler,
    Key,
    MistakeError,
    Part,
    Scalar,
    below,
    is_confidential,
    is_part,
    keys_of,
    shape_of,
    shapes,
    unwrap,
)
from killswitch.policy.schema.scalars import quoted
from killswitch.policy.yaml.parser import Node, is_null, plain_value
from killswitch.policy.yaml.source_map import Path, SourceMap
from killswitch.signals.catalogue import ARGUMENTS

_FORM_KEYS = frozenset({"signal", "when", "is", *ARGUMENTS, *COMPARISONS})

_MAPPING, _LIST = "a mapping", "a list"
_SORTS = {
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dict_type": _MAPPING,
    "tuple_type": _LIST,
    "bool_type": "true or false",
    "string_type": "text",
    "int_type": "a whole number",
}
"""Type of a pydantic error → the type of value that is required."""
_FIXES = {
    _MAPPING: "write its keys below it, or {} for none",
    _LIST: "put it in brackets, or begin each line with a dash",
    "true or false": "write true or false",
    "text": "put it in quotes",
    "a whole number": "write a whole number",
}


def _as_it_is(path: Path) -> Path:
    return path


class Gaps(Struct, frozen=True):
    """The faulty places of a document: `holes` are the paths of fillers, `flaws` those of other mistakes."""

    holes: frozenset[Path] = frozenset()
    flaws: frozenset[Path] = frozenset()
    is_sound: bool = True
    """False when the YAML text itself has a problem, such as a duplicate key: names may then be missing anywhere."""
    as_written: Callable[[Path], Path] = _as_it_is
    """The path at which a value is written."""

    def is_hole(self, path: Path) -> bool:
        """Whether the value at `path` is a filler, or inside one."""
        if not self.holes:
            return False
        path = self.as_written(path)
        return any(path[:depth] in self.holes for depth in range(len(path) + 1))

    def has_flaw(self, path: Path) -> bool:
        """Whether there is a mistake in the value at `path`, inside it, or in a value that contains it."""
        if not self.is_sound or self.is_hole(path):
            return True
        path = self.as_written(path)
        return any(hole[: len(path)] == path for hole in self.holes) or any(
            flaw[: len(path)] == path or path[: len(flaw)] == flaw for flaw in self.flaws
        )


NO_GAPS: Final = Gaps()


class Validated(Struct, frozen=True):
    """A validated document and its problems. `holes` are the paths of values that could not be parsed and have a
    filler."""

    model: Part | None
    """None if not even the rest of it could be validated."""
    problems: tuple[Diagnostic, ...]
    holes: frozenset[Path]


def validate(document: type[Part], root: Node, source: SourceMap, forms: frozenset[Path]) -> Validated:
    """Validate one document. Problems that only follow from another one are omitted.

    `forms` are the triggers that are already reported to mix or lack a form.
    """
    faults = _Faults(document, source, forms)
    if _has_unreadable(root):
        for path, annotation, node in _declared(document, root):
            faults.unreadable(path, annotation, node)
    model: Part | None = None
    try:
        model = document.model_validate(plain_value(root))
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False, include_input=False):
            faults.invalid(error)
    faults.report_keys()
    if model is None or faults.holes:
        model = _with_fillers(document, plain_value(root), faults)
    return Validated(model, tuple(faults.problems), frozenset(faults.holes))


def _has_unreadable(root: Node) -> bool:
    """Whether a value was rejected by the YAML parser, or is null: few documents have one."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.refused or (node.text is not None and node.plain and is_null(node.text)):
            return True
        if node.pairs is not None:
            waiting += [value for _, value in node.pairs.values()]
        elif node.items is not None:
            waiting += node.items
    return False


def _declared(document: type[Part], root: Node) -> Iterator[tuple[Path, Any, Node]]:
    """Every written value that has a declaration, with its shape; nothing below a rejected value."""
    waiting: list[tuple[Path, Any, Node]] = [((), document, root)]
    while waiting:
        path, annotation, node = waiting.pop()
        if shapes(annotation):
            annotation = shape_of(annotation, plain_value(node))
        yield path, annotation, node
        for step, value in _inside(node):
            if (inner := below(annotation, step)) is not None:
                waiting.append(((*path, step), inner, value))


def _inside(node: Node) -> Iterator[tuple[str | int, Node]]:
    if node.pairs is not None:
        for key, (_, value) in node.pairs.items():
            yield key, value
    elif node.items is not None and not node.refused:
        yield from enumerate(node.items)


class _Place(Struct, frozen=True):
    """The place of an error: the annotation at its path, None if there is none, and the annotation of its container."""

    path: Path
    annotation: Any
    holder: Any


def _located(document: type[Part], loc: Iterable[str | int]) -> _Place:
    """The place of a pydantic `loc`, which also contains the tag of a selected shape."""
    path: list[str | int] = []
    annotation: Any = document
    holder: Any = None
    for step in loc:
        if options := shapes(annotation):
            annotation = options[str(step)]
            continue
        holder, annotation = annotation, below(annotation, step)
        path.append(step)
    return _Place(tuple(path), annotation, holder)


class _Faults:
    """The faults of one document: the problems, and the paths that could not be parsed."""

    def __init__(self, document: type[Part], source: SourceMap, forms: frozenset[Path]) -> None:
        self.problems: list[Diagnostic] = []
        self.values: set[Path] = set()
        """Paths of values that could not be parsed."""
        self.unknown: set[Path] = set()
        """Paths of unknown keys."""
        self.missing: dict[Path, Key] = {}
        self.holes: set[Path] = set()
        self._document = document
        self._source = source
        self._forms = forms
        self._parts: dict[Path, type[Part]] = {}
        """Parts with unknown keys, each of which may be any of the missing ones."""
        self._refused: set[Path] = set()

    def unreadable(self, path: Path, annotation: Any, node: Node) -> None:
        """Record a value that the YAML parser has rejected, and report a null value."""
        if node.refused and node.pairs is not None:
            self._refused.add(path)
            if is_part(annotation):
                self._parts[path] = unwrap(annotation)[0]
        elif node.refused:
            self._hole(path)
        elif node.text is not None and plain_value(node) is None:
            self._hole(path)
            fix = "write a value, or remove the key if it is optional"
            self._report("KS2005", path, f"{_key_name(path)} has no value", fix, key=True)

    def invalid(self, error: ErrorDetails) -> None:
        """Report a pydantic error; errors about keys are collected for `report_keys`."""
        place = _located(self._document, error["loc"])
        path, part = place.path, unwrap(place.holder)[0]
        if any(path[:depth] in self.values for depth in range(len(path) + 1)):
            return
        if error["type"] == "extra_forbidden":
            self.unknown.add(path)
            self._parts[path[:-1]] = part
        elif error["type"] == "missing":
            self.missing[path] = keys_of(part)[str(path[-1])]
        else:
            self._hole(path)
            self._value(error, place)

    def report_keys(self) -> None:
        """Report unknown keys, and missing keys unless an unknown key is probably a misspelling of one."""
        suggested = {(*path[:-1], self._unknown_key(path)) for path in self.unknown}
        for path, key in self.missing.items():
            self.holes.add(path)
            if path not in suggested and path[:-1] not in self._refused:
                self._missing_key(path[:-1], key)
        for path, part in self._parts.items():
            # an unknown key may be any of the missing ones
            node = self._source.node(path)
            written = node.pairs if node is not None and node.pairs is not None else {}
            self.holes.update((*path, key) for key in keys_of(part) if key not in written)

    def _hole(self, path: Path) -> None:
        self.values.add(path)
        self.holes.add(path)

    def _unknown_key(self, path: Path) -> str | None:
        """Report an unknown key; returns the known key that was probably meant."""
        key, known = str(path[-1]), tuple(keys_of(self._parts[path[:-1]]))
        if path[:-1] in self._forms and "when" not in known:  # no form is written yet: both are possible
            known = (*known, "when")
        near = closest(key, known)
        if not (path[:-1] in self._forms and key in _FORM_KEYS):
            message = f"unknown key `{key}`" + (f", did you mean `{near}`?" if near else "")
            keys = f"known keys: {', '.join(known)}" if known else "no key is known here: write `{}`"
            missing = None if near else nearest_of(key, "action", "key")
            part = self._parts[path[:-1]]
            fix = f"write `{near}`" if near else f"{part.without_unknown_key}; {missing or keys}"
            fix = part.instead_of(key) or fix
            self._report("KS2001", path, message, fix, key=True)
        return near

    def _missing_key(self, path: Path, key: Key) -> None:
        if path in self._forms and key.key in _FORM_KEYS:
            return
        where = _key_name(path) if path else "the document"
        fix = f"add `{key.key}:`" + (f" — {key.meaning}" if key.meaning else "")
        self._report("KS2002", path, f"`{key.key}` is missing in {where}", fix, key=True)

    def _value(self, error: ErrorDetails, place: _Place) -> None:
        path, kind = place.path, error["type"]
        node = self._source.node(path)
        value = None if node is None else plain_value(node)
        mistake = error.get("ctx", {}).get("error")
        if isinstance(mistake, MistakeError):
            self._report(mistake.code, path, mistake.message, mistake.fix, key=isinstance(value, dict))
        elif kind == EMPTY_LIST:
            self._report("KS2007", path, f"{_key_name(path)} is empty", "name at least one")
        elif kind == "literal_error":
            self._one_of(get_args(unwrap(place.annotation)[0]), value, path)
        else:
            wanted = _SORTS.get(kind)
            # a secret is written next to its key as easily as below it
            is_hidden = not isinstance(value, dict | list) and is_confidential(place.annotation)
            what = "this" if is_hidden else quoted(value)
            message = f"{what} is not {wanted}" if wanted else f"{what} does not fit: {error['msg']}"
            fix = _FIXES[wanted] if wanted else f"see the values of `{path[-1]}` in the reference of documents"
            keys = tuple(keys_of(unwrap(place.annotation)[0])) if is_part(place.annotation) else ()
            if wanted is _MAPPING and len(keys) == 1:
                inside = "…" if is_hidden or not str(value).isalnum() else value
                fix = f"write it below its key: `{path[-1]}: {{{keys[0]}: {inside}}}`"
            elif wanted is _MAPPING and (needed := _required(unwrap(place.annotation)[0])):
                fix = f"write its keys below it, at least {' and '.join(f'`{each}`' for each in needed)}"
            self._report("KS2003", path, message, fix, key=not isinstance(value, str | int))

    def _one_of(self, allowed: tuple[str, ...], value: object, path: Path) -> None:
        near = closest(str(value), allowed) if isinstance(value, str) else None
        message = f"{quoted(value)} is not one of {', '.join(allowed)}"
        if len(allowed) == 1:
            message = f"{quoted(value)} is not `{allowed[0]}`"
        elif near is not None:
            message += f"; did you mean `{near}`?"
        missing = nearest_of(str(value), "scope") if near is None and path[-1] == "each" else None
        fix = f"write {' or '.join([near] if near else allowed)}" + (f"; {missing}" if missing else "")
        self._report("KS2004", path, message, fix)

    def _report(self, code: str, path: Path, message: str, fix: str, *, key: bool = False) -> None:
        on_key = key and bool(path) and isinstance(path[-1], str)
        self.problems.append(self._source.diagnostic(code, path, message, fix, key=on_key))


def _key_name(path: Path) -> str:
    return f"`{path[-1]}`" if path and isinstance(path[-1], str) else "this item"


_SYNONYMS = {
    **dict.fromkeys(
        ("only_if", "onlyif", "only", "only_when", "only_where", "when", "if", "filter", "condition"), "where"
    ),
    **dict.fromkeys(("except", "exclude", "exclude_assets", "excluding", "without", "keep_assets"), "except_assets"),
    **dict.fromkeys(("expr", "expression", "cel"), "when"),
    "limit": "top",
    "max": "top",
}
"""Words of other products, and the key that means the same."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant: a misspelling, or a synonym.

    A word that is only similar may mean the opposite, or more risk (`only_if` and `all_if`), so that it is no
    suggestion.
    """
    from difflib import get_close_matches

    names = {_folded(each): each for each in known}
    meant = _SYNONYMS.get(_folded(word))
    if meant in names:
        return meant
    near = get_close_matches(_folded(word), names, n=1, cutoff=0.75)
    return names[near[0]] if near else None


def _required(annotation: Any) -> list[str]:
    """The keys that a part requires; none of anything else."""
    if not is_part(annotation):
        return []
    return [key for key, field in annotation.model_fields.items() if field.is_required()]


def _folded(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")


def _with_fillers(document: type[Part], written: Any, faults: _Faults) -> Part | None:
    """The document with fillers in place of its mistakes; None if it is still invalid."""
    for path in sorted(faults.values, key=len, reverse=True):
        holder = _at(written, path[:-1])
        place = _located_in(document, path, written)
        key = keys_of(unwrap(place.holder)[0]).get(str(path[-1])) if is_part(place.holder) else None
        if key is None or key.required:
            holder[path[-1]] = filler(place.annotation)
        else:
            del holder[path[-1]]
    for path in faults.unknown:
        del _at(written, path[:-1])[path[-1]]
    for path, key in faults.missing.items():
        _at(written, path[:-1])[key.key] = filler(key.annotation)
    try:
        return document.model_validate(written)
    except ValidationError:
        return None


def _located_in(document: type[Part], path: Path, written: Any) -> _Place:
    """The place of a path as written."""
    annotation: Any = document
    holder: Any = None
    for depth, step in enumerate(path):
        holder = shape_of(annotation, _at(written, path[:depth]))
        annotation = below(holder, step)
    return _Place(path, annotation, holder)


def _at(written: Any, path: Path) -> Any:
    for step in path:
        written = written[step]
    return written


def filler(annotation: Any) -> object:
    """A placeholder of the annotated type; of the first shape where there are several."""
    if options := shapes(annotation):
        return filler(next(iter(options.values())))
    unwrapped, metadata = unwrap(annotation)
    origin = get_origin(unwrapped) or unwrapped
    if any(isinstance(mark, Scalar | AtLeastOne) for mark in metadata):
        return Filler(_NOTHING.get(origin))
    if is_part(unwrapped):
        return {key.key: filler(key.annotation) for key in keys_of(unwrapped).values() if key.required}
    if origin is Literal:
        return get_args(unwrapped)[0]
    return {tuple: [], dict: {}, bool: False}.get(origin)


_NOTHING: dict[object, object] = {tuple: (), str: "", int: 0, Decimal: Decimal(0)}
