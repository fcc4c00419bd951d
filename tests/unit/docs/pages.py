"""Reads the pages of docs/ for tests: tables and blocks by section."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

from msgspec import Struct

from killswitch.graph.compile import compile_loaded
from killswitch.graph.nodes import PolicySet
from killswitch.policy.loader import load

Rows = list[dict[str, str]]


class Section(Struct, frozen=True):
    """The content of a section: its tables, each row by column, and its YAML blocks."""

    tables: list[Rows]
    yaml: list[str]


def sections(page: str) -> dict[str, Section]:
    """The sections of a page by the text of their headings, without their anchors."""
    parts = re.split(r"^## (.+?)(?: \{ #[\w-]+ \})?$", page, flags=re.MULTILINE)
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


def compiled(folder: Path, *texts: str) -> PolicySet:
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text, encoding="utf-8")
    policies, problems = compile_loaded(load([folder]))
    assert problems == ()
    assert policies is not None
    return policies


def number(text: str) -> Decimal:
    """A number as the page writes it: `−4,000`, `10%`."""
    plain = text.replace("−", "-").replace(",", "")
    return Decimal(plain[:-1]) / 100 if plain.endswith("%") else Decimal(plain)


def percent(share: float) -> str:
    return f"{round(share * 100, 6):g}%"
