"""What a key's value is, in words: from the annotation that the reader of documents goes by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, get_args, get_origin

from killswitch.policy import scalars
from killswitch.policy.shape import AtLeastOne, Choice, Part, Scalar, unwrap


class Words(NamedTuple):
    """A written value in words: its name in tables, and what the section on values says about it."""

    name: str
    meaning: str


VALUES: Mapping[Callable[[object], object], Words] = {
    scalars.duration: Words("duration", "A number with its unit (`ms`, `s`, `m`, `h`, `d`), or several in a row. More "
                            "than zero and at most 3660d."),
    scalars.duration_or_zero: Words("duration or 0s", "As a duration; `0s` is at once."),
    scalars.fraction: Words("fraction", "Above 0 and at most 1, as a percentage or as a plain number."),
    scalars.majority: Words("majority", "A fraction above one half, so that not both sides can have it."),
    scalars.weight: Words("weight", "A plain number, 0 or more."),
    scalars.quantity: Words("threshold", "A number with the unit of [its signal](signals.md): a percentage, money, a "
                            "time, or a plain number for a count or a ratio."),
    scalars.confirm: Words("confirmation", "A duration, or a count of scheduled ticks; `0s` is at once."),
    scalars.name: Words("name", "Small letters, digits, `-` and `.`, at most 63, beginning and ending with a letter "
                        "or a digit."),
    scalars.word: Words("word", "A name that a venue gives (a symbol, an account, a currency): no blanks."),
    scalars.text: Words("text", "Text that says something; what YAML reads as a number goes in quotes."),
    scalars.reference: Words("reference", "Where a secret is: `env:NAME` or `file:PATH`. Never the secret itself."),
    scalars.endpoint: Words("address", "An http, https, ws or wss address without user and password in it."),
}  # fmt: skip
"""By the function that reads it. A value that is not here is shown by its JSON Schema."""

PLAIN: Mapping[object, str] = {
    str: "text",
    int: "whole number",
    bool: "`true` or `false`",
    Decimal: "number",
    object: "anything",
}


def value_words(annotation: Any, link: Callable[[type[Part]], str]) -> str:
    """A key's value in words; `link` gives the Markdown of a reference to a part's own section."""
    bare, metadata = unwrap(annotation)
    for mark in metadata:
        if isinstance(mark, Choice):
            return _either(mark.shapes, link)
        if isinstance(mark, Scalar):
            return _scalar(mark)
    if isinstance(bare, type) and issubclass(bare, Part):
        return link(bare)
    if get_origin(bare) is None:
        return PLAIN[bare]
    return _composed(bare, any(isinstance(mark, AtLeastOne) for mark in metadata), link)


def _composed(bare: Any, not_empty: bool, link: Callable[[type[Part]], str]) -> str:
    arguments = get_args(bare)
    if get_origin(bare) is Literal:
        return " or ".join(f"`{word}`" for word in arguments)
    if get_origin(bare) is tuple:
        return f"list of {value_words(arguments[0], link)}{', at least one' if not_empty else ''}"
    if get_origin(bare) is dict:
        return f"mapping of names to {value_words(arguments[1], link)}"
    raise TypeError(f"{bare} is no shape of a document")


def _either(shapes: Sequence[object], link: Callable[[type[Part]], str]) -> str:
    """The choices; where a single value may stand for a list of it, that is said in fewer words."""
    said = [value_words(shape, link) for shape in shapes]
    if len(said) == 2 and said[1].startswith(f"list of {said[0]}"):
        return f"{said[0]}, or a list of them"
    return ", or ".join(said)


def _scalar(scalar: Scalar) -> str:
    known = VALUES.get(scalar.parse)
    if known is not None:
        return f"[{known.name}](#{anchor(known.name)})"
    json = scalar.json
    if "const" in json:
        return f"`{json['const']}`"
    if isinstance(words := json.get("enum"), Sequence):
        return " or ".join(f"`{word}`" for word in words)
    if "minimum" in json and "maximum" in json:
        return f"{json['minimum']} to {json['maximum']}"
    same = next((words for parse, words in VALUES.items() if _ALIKE.get(scalar.parse) is parse), None)
    return f"[{same.name}](#{anchor(same.name)})" if same else str(json.get("type", "a value"))


_ALIKE: Mapping[Callable[[object], object], Callable[[object], object]] = {scalars.one_word: scalars.word}
"""A value read otherwise that is written the same."""


def examples_of(parse: Callable[[object], object]) -> Sequence[object]:
    """The examples that the JSON Schema of a value gives."""
    for candidate in vars(scalars).values():
        for mark in getattr(candidate, "__metadata__", ()):
            if isinstance(mark, Scalar) and mark.parse is parse:
                found = mark.json.get("examples", ())
                return found if isinstance(found, Sequence) else ()
    return ()


def anchor(name: str) -> str:
    """The anchor of a value's entry."""
    return "value-" + name.replace(" ", "-")
