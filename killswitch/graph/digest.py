"""The content digest of a policy set: what the documents say, however it is written.

Comments, the order of keys, the layout of files, quoting, and two spellings of one value (`4.5%` and `0.045`, `90s`
and `1m30s`, a default written out or left out) do not change it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from hashlib import sha256

from killswitch.policy.loader import Document
from killswitch.policy.scalars import Quantity
from killswitch.policy.shape import Part, as_values

EXPRESSIONS = frozenset({"when", "all_if"})

_LAYOUT = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|//[^\n]*|\s+""")


def digest(documents: Iterable[Document]) -> str:
    """`sha256:` and 64 hexadecimal digits over all documents, sorted by kind and name."""
    ordered = sorted(documents, key=lambda document: (document.kind, document.name))
    text = canonical([document.model for document in ordered])
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def canonical(value: object) -> str:
    """An unambiguous text of a value: texts carry their length, numbers have one spelling, keys are sorted."""
    if isinstance(value, Quantity):
        value = {"value": value.value, "currency": value.currency}
    elif isinstance(value, Part):
        value = {key: _unlaid(each) if key in EXPRESSIONS else each for key, each in _said(value)}
    if isinstance(value, Mapping):
        inside = sorted((canonical(key), canonical(each)) for key, each in value.items())
        return "{" + "".join(key + each for key, each in inside) + "}"
    if isinstance(value, list | tuple):
        return "[" + "".join(canonical(each) for each in value) + "]"
    return _scalar(value)


def _said(part: Part) -> Iterator[tuple[str, object]]:
    """The values that differ from what leaving them out means: so a key that is new one day changes no digest."""
    for key, value in as_values(part).items():
        if not (hasattr(type(part), key) and getattr(type(part), key) == value):
            yield key, value


def _scalar(value: object) -> str:
    if isinstance(value, str):
        return f"t{len(value)}:{value}"
    if value is None or isinstance(value, bool):
        return f"{value};"
    if isinstance(value, int | Decimal):
        return f"n{_spelled(Decimal(value))};"
    raise TypeError(f"a policy holds no {type(value).__name__}")


def _spelled(number: Decimal) -> str:
    return "0" if number == 0 else f"{number.normalize():f}"


def _unlaid(expression: object) -> object:
    """An expression without its layout and comments; texts inside it stay as they are."""
    if not isinstance(expression, str):
        return expression
    return _LAYOUT.sub(lambda found: found[1] or " ", expression).strip()
