"""Reading the pages of docs/ as tests do: their tables and their blocks, by section."""

from __future__ import annotations

import re
from typing import NamedTuple

Rows = list[dict[str, str]]


class Section(NamedTuple):
    """What stands below a heading: its tables, each row by column, and its YAML blocks."""

    tables: list[Rows]
    yaml: list[str]


def sections(page: str) -> dict[str, Section]:
    """The sections of a page by the words of their headings."""
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    found = {"": Section(_tables(parts[0]), _yaml(parts[0]))}
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        found[heading] = Section(_tables(text), _yaml(text))
    return found


def _yaml(text: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def _tables(text: str) -> list[Rows]:
    tables = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()]
        tables.append([dict(zip(head, row, strict=True)) for row in rows])
    return tables
