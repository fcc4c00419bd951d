"""Descriptions of the values of keys, from the annotations that validation uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, get_args, get_origin

from msgspec import Struct

from killswitch.policy.schema import expectation, limits, scalars, session, unwinding
from killswitch.policy.schema.part import AtLeastOne, Part, Scalar, is_part, shapes, unwrap


class Words(Struct, frozen=True):
    """The description of a type of value: its name in tables, its meaning, and examples."""

    name: str
    meaning: str
    examples: Sequence[str]


VALUES: Mapping[Callable[[object], object], Words] = {
    scalars.duration: Words(
        "duration", "A number with its unit (`ms`, `s`, `m`, `h`, `d`), or several in a row. More than zero and at "
        "most 3660d.", ("90s", "15m", "1h30m", "250ms"),
    ),
    scalars.duration_or_zero: Words("duration or 0s", "As a duration; `0s` is at once.", ("0s", "30m")),
    scalars.local_time: Words(
        "time of day", "Hours and minutes, followed by an IANA time zone.", ("08:00 Europe/Berlin", "22:30 UTC"),
    ),
    scalars.fraction: Words(
        "fraction", "Above 0 and at most 1, as a percentage or as a plain number.", ("4.5%", "0.045"),
    ),
    scalars.proper_share: Words("share", "A fraction below 1, so that something is left over.", ("50%", "0.5")),
    scalars.majority: Words("majority", "A fraction above one half, so that only one side can reach it.", ("65%",)),
    scalars.weight: Words("weight", "A plain number, 0 or more.", ("0.25", "0")),
    scalars.quantity: Words(
        "threshold", "A number with the unit of [its signal](signals.md): a percentage, money, a time, or a plain "
        "number for a count or a ratio.", ("4.5%", "10000 USDT", "30s", "3"),
    ),
    scalars.money: Words(
        "money", "An amount above zero, followed by its currency.", ("50000 USDT",),
    ),
    limits.limit_size: Words(
        "size", "A percentage of equity, money, or an amount of a base asset; above zero.",
        ("10%", "10000 USDT", "2 BTC"),
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
        "word", "A name used by a venue (a symbol, an account, a currency), without blanks.", ("BTC_USDT", "USDT"),
    ),
    scalars.text: Words(
        "text", "Text that is not empty; text that YAML reads as a number must be in quotes.", ("on call",),
    ),
    scalars.reference: Words(
        "reference", "The location of a secret, never the secret itself.", ("env:BINANCE_KEY", "file:/run/secrets/key"),
    ),
    session.time_of_day: Words("time of day", "Hours and minutes of the local day, 00:00 to 23:59.", ("09:30",)),
    session.calendar_date: Words("date", "Year, month and day.", ("2026-12-25",)),
    session.time_zone: Words(
        "time zone", "A name of the IANA time zone database.", ("America/New_York", "UTC"),
    ),
    expectation.at_most: Words(
        "bound", "`at most`, followed by a number, or by a share of all as a percentage.", ("at most 3", "at most 20%"),
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
    """The description of a key's value; `link` returns the Markdown of a reference to a part's section."""
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
    raise TypeError(f"{plain} is not a shape of a document")


def _either(options: Mapping[str, Any], link: Callable[[type[Part]], str]) -> str:
    """The alternatives; a single value or a list of such values has a shorter text."""
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
