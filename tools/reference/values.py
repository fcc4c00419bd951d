"""What a key's value is, in words: from the annotation that the reader of documents goes by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, get_args, get_origin

from killswitch.policy.schema import scalars, unwinding
from killswitch.policy.schema.part import AtLeastOne, Part, Scalar, is_part, shapes, unwrap


class Words(NamedTuple):
    """A written value in words: its name in tables, and what the section on values says and shows of it."""

    name: str
    meaning: str
    examples: Sequence[str]


VALUES: Mapping[Callable[[object], object], Words] = {
    scalars.duration: Words(
        "duration", "A number with its unit (`ms`, `s`, `m`, `h`, `d`), or several in a row. More than zero and at "
        "most 3660d.", ("90s", "15m", "1h30m", "250ms"),
    ),
    scalars.duration_or_zero: Words("duration or 0s", "As a duration; `0s` is at once.", ("0s", "30m")),
    scalars.fraction: Words(
        "fraction", "Above 0 and at most 1, as a percentage or as a plain number.", ("4.5%", "0.045"),
    ),
    scalars.proper_share: Words("share", "A fraction below 1, so that something is left over.", ("50%", "0.5")),
    scalars.majority: Words("majority", "A fraction above one half, so that not both sides can have it.", ("65%",)),
    scalars.weight: Words("weight", "A plain number, 0 or more.", ("0.25", "0")),
    scalars.quantity: Words(
        "threshold", "A number with the unit of [its signal](signals.md): a percentage, money, a time, or a plain "
        "number for a count or a ratio.", ("4.5%", "10000 USDT", "30s", "3"),
    ),
    unwinding.money: Words(
        "money", "More than zero of a currency, whose name stands behind the number.", ("50000 USDT",),
    ),
    unwinding.widening: Words(
        "multiple", "A plain number above 0 and at most 100.", ("1", "2.5"),
    ),
    scalars.confirm: Words(
        "confirmation", "A duration, or a count of scheduled ticks; `0s` is at once.", ("2m", "3 ticks"),
    ),
    scalars.name: Words(
        "name", "Small letters, digits, `-` and `.`, at most 63, beginning and ending with a letter or a digit.",
        ("risk-desk",),
    ),
    scalars.venue_name: Words(
        "word", "A name that a venue gives (a symbol, an account, a currency): no blanks.", ("BTC_USDT", "USDT"),
    ),
    scalars.text: Words(
        "text", "Text that says something; what YAML reads as a number goes in quotes.", ("on call",),
    ),
    scalars.reference: Words(
        "reference", "Where a secret is, never the secret itself.", ("env:BINANCE_KEY", "file:/run/secrets/key"),
    ),
    scalars.endpoint: Words(
        "address", "An http, https, ws or wss address without user and password in it.", ("http://127.0.0.1:8700",),
    ),
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
    plain, metadata = unwrap(annotation)
    if options := shapes(annotation):
        return _either(options, link)
    for mark in metadata:
        if isinstance(mark, Scalar):
            return _scalar(mark)
    if is_part(plain):
        return link(plain)
    if get_origin(plain) is None:
        return PLAIN[plain]
    return _composed(plain, any(isinstance(mark, AtLeastOne) for mark in metadata), link)


def _composed(plain: Any, not_empty: bool, link: Callable[[type[Part]], str]) -> str:
    arguments = get_args(plain)
    if get_origin(plain) is Literal:
        return " or ".join(f"`{word}`" for word in arguments)
    if get_origin(plain) is tuple:
        return f"list of {value_words(arguments[0], link)}{', at least one' if not_empty else ''}"
    if get_origin(plain) is dict:
        return f"mapping of names to {value_words(arguments[1], link)}"
    raise TypeError(f"{plain} is no shape of a document")


def _either(options: Mapping[str, Any], link: Callable[[type[Part]], str]) -> str:
    """The choices; where a single value may stand for a list of it, that is said in fewer words."""
    if options.keys() == {"one", "several"}:
        return f"{value_words(get_args(unwrap(options['several'])[0])[0], link)}, or a list of them"
    return ", or ".join(value_words(shape, link) for shape in options.values())


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
    return PLAIN[str] if json.get("type") == "string" else "value"


def anchor(name: str) -> str:
    """The anchor of a value's entry."""
    return "value-" + name.replace(" ", "-")
