"""Generates docs/reference/diagnostics.md from the pages that `ksctl explain KS1203` prints."""

from __future__ import annotations

from killswitch.policy.diagnostics.pages import DiagnosticPage, families
from tools.reference.markdown import fence, page, sentence

INTRODUCTION = """\
`ksctl validate` finds every mistake in one pass; checks that depend on an unreadable key run once it is readable, and
the last line of the output reports that. A diagnostic has a place, the line with a caret below it, a permanent code,
and a fix. `ksctl explain KS2001` prints an entry of this page."""


def diagnostics_page() -> str:
    """The page: every code in order, by family."""
    parts = []
    for family in families():
        parts.append(f"## {family.title} ({family.digits}xx)")
        parts += [_entry(one) for one in family.pages]
    return page("Diagnostics", INTRODUCTION, parts)


def _entry(one: DiagnosticPage) -> str:
    title = f"### {one.code}: {one.title[:1].upper()}{one.title[1:]} {{ #{one.code.lower()} }}"
    example = fence(one.example, one.language)
    return "\n\n".join([title, sentence(one.meaning), example, f"**Fix**: {one.fix}"])
