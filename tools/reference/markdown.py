"""Markdown elements of the generated pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTE = "<!-- Generated from the code by `make reference`; manual changes are lost. -->"


def page(title: str, introduction: str, parts: Iterable[str]) -> str:
    """A page: note, title, introduction and parts, separated by blank lines."""
    return "\n\n".join([NOTE, f"# {title}", introduction.strip(), *(part.strip() for part in parts)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, whose cells are Markdown."""
    lines = [_row(head), _row(["---"] * len(head)), *(_row([cell(text) for text in row]) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(text: str) -> str:
    """Markdown for a table cell: on one line, with its bars escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """Text as code, with enough backticks around it."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def fence(text: str, language: str = "text") -> str:
    """A block of code."""
    return f"```{language}\n{text.rstrip()}\n```"


def sentence(text: str) -> str:
    """The text with a capital first letter and a full stop."""
    shown = text.strip()
    shown = shown[:1].upper() + shown[1:]
    return shown if not shown or shown[-1] in ".!?:" else f"{shown}."
