"""Generates docs/reference/guarantees.md from the conformance tests of adapters."""

from __future__ import annotations

from collections.abc import Iterator

from killswitch.conformance.guarantees import AdapterGuarantees
from tools.reference.markdown import page, table

INTRODUCTION = """\
The guarantees that every venue adapter must keep. Each is a test in `killswitch.conformance`; see [how to test an
adapter against them](../conformance.md). A number is never reused."""


def guarantees_page() -> str:
    """The page: a table of the guarantees with their numbers and exact texts."""
    return page("Guarantees of adapters", INTRODUCTION, [table(("", "kept", "exactly"), guarantees())])


def guarantees() -> Iterator[tuple[str, str, str]]:
    """Number, name and text of each guarantee, by number."""
    found = []
    for name, test in ((name, getattr(AdapterGuarantees, name)) for name in dir(AdapterGuarantees)):
        for mark in getattr(test, "pytestmark", ()):
            if mark.name == "guarantee":
                words = " ".join((test.__doc__ or "").split())
                found.append((str(mark.args[0]), name.removeprefix("test_").replace("_", " "), words))
    yield from sorted(found)
