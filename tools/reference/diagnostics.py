"""docs/reference/diagnostics.md, from the pages that `ksctl explain KS1203` prints."""

from __future__ import annotations

from itertools import groupby

from killswitch.policy.diagnostics.pages import PAGES
from killswitch.policy.diagnostics.problem import Page
from tools.reference.markdown import fence, page, sentence

FAMILIES = {
    "KS10": "Files",
    "KS11": "YAML",
    "KS12": "Documents",
    "KS20": "Keys and their values",
    "KS21": "Written values",
    "KS22": "Keys that belong together",
    "KS30": "References, units and stages",
    "KS40": "Expressions",
    "KS50": "Warnings: sound, but hardly meant",
    "KS61": "Runbooks and their templates",
}

INTRODUCTION = """\
`ksctl validate` finds every mistake in one pass; what hangs on a key that cannot be read is checked once it can, and
the last line says so. Each has its place, the line with a caret below it, a code that stays what it is, and the way
out. `ksctl explain KS2001` prints what stands here."""


def diagnostics_page() -> str:
    """The page: every code in order, by family; a family without a title goes by its digits."""
    parts = []
    for digits, codes in groupby(PAGES.values(), key=lambda one: one.code[:4]):
        parts.append(f"## {FAMILIES.get(digits, digits)} ({digits}xx)")
        parts += [_entry(one) for one in codes]
    return page("Diagnostics", INTRODUCTION, parts)


def _entry(one: Page) -> str:
    title = f"### {one.code}: {one.title[:1].upper()}{one.title[1:]} {{ #{one.code.lower()} }}"
    language = "text" if one.code < "KS12" else "yaml"  # below that it is the file, or the YAML, that is broken
    example = fence(one.example.strip("\n"), language)
    return "\n\n".join([title, sentence(one.meaning), example, f"**Fix**: {one.fix}"])
