"""Every diagnostic code has a page here, from whichever room it comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from killswitch.policy.diagnostics.account_pages import OF_TARGETS, OF_VENUES
from killswitch.policy.diagnostics.account_pages import ROUTE_SCHEMA_PAGES as OF_ROUTES
from killswitch.policy.diagnostics.account_pages import TIMER_SCHEMA_PAGES as OF_TIMERS
from killswitch.policy.diagnostics.graph_pages import PAGES as OF_GRAPH
from killswitch.policy.diagnostics.problem import Page
from killswitch.policy.diagnostics.runbook_pages import PAGES as OF_RUNBOOKS
from killswitch.policy.diagnostics.schema_pages import PAGES as OF_SCHEMA
from killswitch.policy.diagnostics.text_pages import PAGES as OF_TEXT
from killswitch.policy.diagnostics.unwinding_pages import OF_SCHEMA as OF_UNWINDINGS


def _by_code(pages: Iterable[Page]) -> Mapping[str, Page]:
    found: dict[str, Page] = {}
    for one in pages:
        if one.code in found:
            raise ValueError(f"{one.code} has two pages")
        found[one.code] = one
    return dict(sorted(found.items()))


PAGES: Mapping[str, Page] = _by_code(
    (*OF_TEXT, *OF_SCHEMA, *OF_GRAPH, *OF_VENUES, *OF_RUNBOOKS, *OF_ROUTES, *OF_TARGETS, *OF_UNWINDINGS, *OF_TIMERS)
)


def page(code: str) -> str:
    """The page of a code as text, small letters accepted; LookupError, with the nearest code, if there is none."""
    found = PAGES.get(code.strip().upper())
    if found is None:
        from difflib import get_close_matches

        # one digit off is a guess that anybody can make; a digit too many or too few is a slip
        near = get_close_matches(code.strip().upper(), PAGES, n=1, cutoff=0.9)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise LookupError(f"there is no code {code}{hint}")
    example = "\n".join(f"    {line}".rstrip() for line in found.example.strip("\n").splitlines())
    return f"{found.code}: {found.title}\n\n{found.meaning}\n\nExample:\n\n{example}\n\nHow to fix it:\n\n{found.fix}\n"
