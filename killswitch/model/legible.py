"""Words of others as text that can be stored and printed."""

from __future__ import annotations


def legible(text: str) -> str:
    """`text` with lone surrogates, which no encoding can write, shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str) -> str:
    """`text` as a terminal shows it safely: line breaks, escape sequences and the like are spelled out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
