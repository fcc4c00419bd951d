"""docs/reference/diagnostics.md, from the pages that `ksctl explain KS1203` prints."""

from __future__ import annotations

from killswitch.policy.diagnostics.pages import DiagnosticPage, families
from tools.reference.markdown import fence, page, sentence

INTRODUCTION = """\
`ksctl validate` finds every mistake in one pass; what hangs on a key that cannot be read is checked once it can, and
the last line says so. Each has its place, the line with a caret below it, a code that stays what it is, and the way
out. `ksctl explain KS2001` prints what stands here."""


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
