"""Words of others as text that can be stored and printed."""

from __future__ import annotations

from typing import Final

CUT: Final = "…"
"""Ends a text that was cut off."""


def legible(text: str) -> str:
    """`text` with lone surrogates, which no encoding can write, shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(text: str, most: int) -> str:
    """At most `most` characters of `text`. What is cut off ends in "…".

    Where a secret was cut in two the mark shows it: `Redactor` takes the beginning of one out that ends there.
    """
    return text if len(text) <= most else f"{text[: most - 1]}{CUT}"


def one_line(text: str) -> str:
    """`text` as a terminal shows it safely: line breaks, escape sequences and the like are spelled out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
