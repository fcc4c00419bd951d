"""Sanitising of foreign text for storage and display."""

from __future__ import annotations

import shlex
from typing import Final

CUT: Final = "…"
"""The mark at the end of a shortened text."""


def legible(text: str) -> str:
    """`text` with lone surrogates, which cannot be encoded, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(text: str, most: int) -> str:
    """At most `most` characters of `text`; a shortened text ends in "…".

    `Redactor` also removes the beginning of a secret that is cut off at the mark.
    """
    return text if len(text) <= most else f"{text[: most - 1]}{CUT}"


def one_line(text: str) -> str:
    """`text` on one line, safe for terminals: line breaks and other control characters are escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Beginnings of a cell that a spreadsheet computes, or skips (OWASP, CSV Injection)."""


def harmless_cell(text: str) -> str:
    """`text` for a cell of CSV: one that a spreadsheet would take for a formula has an apostrophe in front."""
    return f"'{text}" if text.startswith(_FORMULA) else text


STORE_OPTION: Final = "--store STORE"
"""What a command in a text has where its writer does not know the store."""


def with_store(text: str, store: str) -> str:
    """The text with `store` in its commands; unchanged where it is empty, that is, unknown."""
    return text.replace(STORE_OPTION, shlex.join(("--store", store))) if store else text
