"""The reference pages of all diagnostic codes: Markdown in `codes`, one section for each code.

A section is `## CODE: title`, an explanation, a fenced example (YAML that causes the problem, or a description), and
`**Fix**: ` with the fix. The files are read when a page is requested, never to validate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from msgspec import Struct

FOLDER: Final = Path(__file__).with_name("codes")
_FAMILY: Final = re.compile(r"# (?P<title>.+) \((?P<digits>KS\d\d)xx\)\n")
_SECTION: Final = re.compile(
    r"## (?P<code>KS\d{4}): (?P<title>.+)\n\n(?P<meaning>.+)\n\n"
    r"```(?P<language>text|yaml)\n(?P<example>(?:(?!```).*\n)+)```\n\n\*\*Fix\*\*: (?P<fix>.+)\n"
)


class DiagnosticPage(Struct, frozen=True):
    """The page of one code. `example` is YAML that causes the problem, or a description of the cause (text)."""

    code: str
    title: str
    meaning: str
    example: str
    fix: str
    language: str


class DiagnosticFamily(Struct, frozen=True):
    """A family of codes with the same prefix, `digits`, such as KS12."""

    digits: str
    title: str
    pages: tuple[DiagnosticPage, ...]


@cache
def families() -> tuple[DiagnosticFamily, ...]:
    """All pages, in the order of their codes.

    ValueError for a file that is no list of pages, for a code with two pages, and without any page.
    """
    found = tuple(_family(file) for file in sorted(FOLDER.glob("*.md")))
    codes = [one.code for family in found for one in family.pages]
    if not codes:
        raise ValueError(f"{FOLDER} holds no pages")
    if codes != sorted(set(codes)):
        raise ValueError("codes of diagnostics are out of order, or have two pages")
    return found


@cache
def pages() -> Mapping[str, DiagnosticPage]:
    """Code → its page."""
    return {one.code: one for family in families() for one in family.pages}


def page(code: str) -> str:
    """The page of a code as text, small letters accepted; LookupError, with the nearest code, if there is none."""
    known = pages()
    found = known.get(code.strip().upper())
    if found is None:
        from difflib import get_close_matches

        # with one digit off any code would be close; one digit too many or too few is a typing mistake
        near = get_close_matches(code.strip().upper(), known, n=1, cutoff=0.9)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise LookupError(f"unknown code {code}{hint}")
    example = "\n".join(f"    {line}".rstrip() for line in found.example.splitlines())
    return f"{found.code}: {found.title}\n\n{found.meaning}\n\nExample:\n\n{example}\n\nHow to fix it:\n\n{found.fix}\n"


def _family(file: Path) -> DiagnosticFamily:
    text = file.read_text(encoding="utf-8")
    head = _FAMILY.match(text)
    if head is None:
        raise ValueError(f"{file.name} does not begin with `# Title (KS12xx)`")
    sections = tuple(_sections(file.name, head["digits"], text[head.end() :]))
    return DiagnosticFamily(head["digits"], head["title"], sections)


def _sections(name: str, digits: str, text: str) -> Iterator[DiagnosticPage]:
    """The sections of a file, which contains nothing else after its head."""
    at = 0
    while at < len(text):
        at += len(text[at:]) - len(text[at:].lstrip("\n"))
        section = _SECTION.match(text, at)
        if section is None or not section["code"].startswith(digits):
            raise ValueError(f"{name}: no page of a {digits}xx code begins with {text[at : at + 60]!r}")
        at = section.end()
        part = section.groupdict()
        example = part["example"].rstrip("\n")
        yield DiagnosticPage(part["code"], part["title"], part["meaning"], example, part["fix"], part["language"])
