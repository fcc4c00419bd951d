"""The spaces within one line: what is written stays, and the punctuation between is spaced."""

from __future__ import annotations

from msgspec import Struct


class KeptSpan(Struct, frozen=True):
    """Columns of a line that stay as they are, a key or a value; an empty one only says where something begins.

    `keeps_gap`: the spaces before it stay.
    """

    start: int
    end: int
    keeps_gap: bool = False


KeptSpans = tuple[KeptSpan, ...]
NO_SPANS: KeptSpans = ()

COMMENT_GAP = 2
"""The fewest spaces before a comment behind a value."""


def spaced(line: str, spans: KeptSpans) -> str:
    """The line without its indentation, spaced. `spans`: its keys and values."""
    line = line if spans and spans[-1].end == len(line) else line.rstrip()
    kept = {span.start for span in spans if span.keeps_gap}
    parts: list[str] = []
    at = len(line) - len(line.lstrip(" \t"))
    for span in sorted(spans, key=lambda each: (each.start, each.end)):
        if span.start == span.end or span.end <= at:
            continue
        parts += [_gap(line[at : span.start], kept, at, parts), line[span.start : span.end]]
        at = span.end
    parts.append(_tail(line[at:], kept, at, parts))
    return "".join(parts)


def _tail(text: str, kept: set[int], at: int, before: list[str]) -> str:
    """What follows the last value: brackets, and a comment."""
    mark = text.find("#")
    if mark < 0:
        return _gap(text, kept, at, before).rstrip(" ")
    head, comment = text[:mark], text[mark:]
    shown = _gap(head, kept, at, before).rstrip(" ")
    if not shown and not any(before):
        return comment
    spaces = len(head) - len(head.rstrip(" \t"))
    return f"{shown}{' ' * max(COMMENT_GAP, spaces)}{comment}"


def _gap(text: str, kept: set[int], at: int, before: list[str]) -> str:
    """The punctuation between two values. `at`: the column where it begins."""
    shown = ""
    for number, char in enumerate(text):
        if char in " \t":
            continue
        if char in "}]" or char in ",:":
            shown = shown.rstrip(" ")
        if char in "{[" and (at + number) in kept:
            shown = shown.rstrip(" ") + _written_gap(text, number)
        shown += char + ("" if char in "{[}]" else " ")
    if text and (at + len(text)) in kept and text[-1] in " \t":
        return shown.rstrip(" ") + _written_gap(text, len(text))
    if not shown and text and any(before):
        return " "
    return shown


def _written_gap(text: str, end: int) -> str:
    """The spaces before column `end` of the text."""
    return " " * (end - len(text[:end].rstrip(" \t")))
