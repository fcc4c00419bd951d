"""docs/reference/guarantees.md, from the tests that hold adapters against them."""

from __future__ import annotations

from collections.abc import Iterator

from killswitch.conformance.guarantees import AdapterGuarantees
from tools.reference.markdown import page, table

INTRODUCTION = """\
What every venue adapter must keep. Each guarantee is a test in `killswitch.conformance`; [how to hold an adapter of
your own against them](../conformance.md) is a page of its own. A number is never used again for something else."""


def guarantees_page() -> str:
    """The page: a table of numbers, what is kept, and in which words exactly."""
    return page("Guarantees of adapters", INTRODUCTION, [table(("", "kept", "exactly"), guarantees())])


def guarantees() -> Iterator[tuple[str, str, str]]:
    """Number, name and words of each guarantee, by number."""
    found = []
    for name, test in ((name, getattr(AdapterGuarantees, name)) for name in dir(AdapterGuarantees)):
        for mark in getattr(test, "pytestmark", ()):
            if mark.name == "guarantee":
                words = " ".join((test.__doc__ or "").split())
                found.append((str(mark.args[0]), name.removeprefix("test_").replace("_", " "), words))
    yield from sorted(found)
