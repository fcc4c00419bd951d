"""From what the validator says to diagnostics in the words of a policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import ErrorDetails, ValidationError

from killswitch.policy.checks import COMPARISONS
from killswitch.policy.diagnostics import Diagnostic
from killswitch.policy.scalars import spelled
from killswitch.policy.shape import Part, declared, part_at, unwrap, written_keys
from killswitch.policy.source import Path, SourceMap

_WANTED = {
    "dict_type": ("a mapping", "write its keys below it, or {} for none"),
    "tuple_type": ("a list", "put it in brackets, or begin each line with a dash"),
    "string_type": ("text", "put it in quotes"),
    "int_type": ("a whole number", "write a whole number"),
    "bool_type": ("true or false", "write true or false"),
}


_FORM_KEYS = frozenset({"signal", "window", "when", *COMPARISONS})


def diagnostics(
    error: ValidationError, part: type[Part], source: SourceMap, forms: frozenset[Path]
) -> Iterator[Diagnostic]:
    """One diagnostic for each thing that is wrong; what only follows from another is left out.

    `forms` are the triggers of which it has already been said that they mix or lack a form.
    """
    details = error.errors(include_url=False)
    misspelt = {
        (one["loc"][:-1], near)
        for one in details
        if one["type"] == "extra_forbidden" and (near := _near_key(one, part)) is not None
    }
    for one in details:
        path = _path(one["loc"])
        node = source.node(path[:-1] if one["type"] == "missing" else path)
        follows = (one["loc"][:-1], str(one["loc"][-1])) in misspelt if one["loc"] else False
        if (node is not None and node.refused) or (one["type"] == "missing" and follows):
            continue
        if path[:-1] in forms and path[-1] in _FORM_KEYS and one["type"] in ("missing", "extra_forbidden"):
            continue
        if one["type"] == "too_short" and one["input"]:
            continue  # its items were refused, each with a diagnostic of its own
        yield _diagnostic(one, path, part, source)


def _diagnostic(one: ErrorDetails, path: Path, part: type[Part], source: SourceMap) -> Diagnostic:
    if one["type"] == "missing":
        return _missing_key(one, path, part, source)
    if one["type"] == "extra_forbidden":
        return _unknown_key(one, path, part, source)
    if one["input"] is None:
        what = f"`{path[-1]}`" if _has_key(path) else "this item"
        message, fix = f"{what} has no value", "write a value, or take the key out if it may be left out"
        return source.diagnostic("KS2005", path, message, fix, key=_has_key(path))
    return _wrong_value(one, path, source)


def _missing_key(one: ErrorDetails, path: Path, part: type[Part], source: SourceMap) -> Diagnostic:
    where = "the document"
    if len(path) > 1:
        where = f"`{path[-2]}`" if isinstance(path[-2], str) else "this item"
    message = f"`{path[-1]}` is missing in {where}"
    return source.diagnostic("KS2002", path[:-1], message, _missing_fix(one, part), key=_has_key(path[:-1]))


def _wrong_value(one: ErrorDetails, path: Path, source: SourceMap) -> Diagnostic:
    kind = one["type"]
    context: Mapping[str, Any] = one.get("ctx", {})
    if kind == "literal_error":
        return _not_one_of(one, path, context, source)
    if kind == "too_short":
        return source.diagnostic("KS2007", path, f"`{path[-1]}` is empty", "name at least one")
    if kind in _WANTED:
        wanted, fix = _WANTED[kind]
        return source.diagnostic("KS2003", path, f"{spelled(one['input'])} is not {wanted}", fix)
    on_key = isinstance(one["input"], dict) and _has_key(path)
    return source.diagnostic(kind, path, context["message"], context["fix"], key=on_key)


def _has_key(path: Path) -> bool:
    """Items of a list have no key to point at; a document neither."""
    return bool(path) and isinstance(path[-1], str)


def _path(location: tuple[int | str, ...]) -> Path:
    """As written: without the tags of choices."""
    return tuple(step for step in location if not (isinstance(step, str) and step.startswith("\0")))


def _unknown_key(one: ErrorDetails, path: Path, part: type[Part], source: SourceMap) -> Diagnostic:
    near = _near_key(one, part)
    known = ", ".join(_keys(one, part))
    message = f"unknown key `{path[-1]}`"
    if near is not None:
        message += f", did you mean `{near}`?"
    fix = f"write `{near}`" if near else f"take it out; known here: {known}"
    return source.diagnostic("KS2001", path, message, fix, key=True)


def _not_one_of(one: ErrorDetails, path: Path, context: Mapping[str, Any], source: SourceMap) -> Diagnostic:
    allowed = [word.strip("' ") for word in str(context["expected"]).replace(" or ", ", ").split(",")]
    near = closest(str(one["input"]), allowed)
    message = f"{spelled(one['input'])} is not one of {', '.join(allowed)}" if len(allowed) > 1 else (
        f"{spelled(one['input'])} is not `{allowed[0]}`"
    )  # fmt: skip
    if near is not None:
        message += f"; did you mean `{near}`?"
    return source.diagnostic("KS2004", path, message, f"write {' or '.join([near] if near else allowed)}")


def _missing_fix(one: ErrorDetails, part: type[Part]) -> str:
    """What the key is for, from the schema."""
    holder = part_at(part, one["loc"][:-1])
    key = str(one["loc"][-1])
    if holder is not None:
        _, metadata = unwrap(declared(holder)[written_keys(holder)[key]])
        for mark in metadata[::-1]:
            if isinstance(mark, str):
                return f"add `{key}:` — {mark}"
    return f"add `{key}:`"


def _keys(one: ErrorDetails, part: type[Part]) -> list[str]:
    holder = part_at(part, one["loc"][:-1])
    return list(written_keys(holder)) if holder is not None else []


def _near_key(one: ErrorDetails, part: type[Part]) -> str | None:
    return closest(str(one["loc"][-1]), _keys(one, part))


def closest(word: str, known: list[str]) -> str | None:
    """The known word that was probably meant."""
    from difflib import get_close_matches

    folded = word.lower().replace("-", "_").replace(" ", "_")
    lowered = {each.lower(): each for each in known}
    near = get_close_matches(folded, lowered, n=1, cutoff=0.6)
    return lowered[near[0]] if near else None
