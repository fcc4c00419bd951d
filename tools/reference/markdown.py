"""Markdown as the generated pages write it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTE = "<!-- Made from the code by `make reference`; what is changed here by hand is lost. -->"


def page(title: str, introduction: str, parts: Iterable[str]) -> str:
    """A page: its note, title and introduction, then its parts, a blank line between them."""
    return "\n\n".join([NOTE, f"# {title}", introduction.strip(), *(part.strip() for part in parts)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; what stands in a cell is Markdown."""
    lines = [_row(head), _row(["---"] * len(head)), *(_row([cell(text) for text in row]) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(text: str) -> str:
    """Markdown that may stand in a table's cell: on one line, its bars told from the table's."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """Text as code, with as many backticks around it as it needs."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def fence(text: str, language: str = "text") -> str:
    """A block of code."""
    return f"```{language}\n{text.rstrip()}\n```"


def sentence(text: str) -> str:
    """The text with a capital letter at its head and a full stop at its end."""
    shown = text.strip()
    shown = shown[:1].upper() + shown[1:]
    return shown if not shown or shown[-1] in ".!?:" else f"{shown}."
