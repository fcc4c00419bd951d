"""Words of others as text that can be stored and printed."""

from __future__ import annotations


def legible(text: str) -> str:
    """`text` with lone surrogates, which no encoding can write, shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
