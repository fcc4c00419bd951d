"""Declared reasons of a manual close.

`killswitch.graph.unwinding` defines the speed and the price limits of a close for each reason, unless a document does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final, cast

from msgspec import Struct

from killswitch.model.words import Cause

MEANINGS: Final[Mapping[Cause, str]] = {
    "market": "prices run away",
    "system-failure": "our own systems fail",
    "exchange-breach": "the venue is broken into, or insolvent",
    "regulatory": "an authority or compliance demands it",
    "counterparty": "a bank, a broker or a stable coin fails",
    "dead-man": "whoever a dead-man's switch listens to is silent",
    "drill": "an exercise",
    "operator": "a person's own judgement",
}
"""Meaning of each reason, in the order of the help."""

WHOLE_BOOK: Final[frozenset[Cause]] = frozenset({"exchange-breach"})
"""Reasons to close whole accounts: a narrower scope prints a warning."""


class CloseReason(Struct, frozen=True):
    """Reason of a manual close. `remark`: a warning if no declared reason was given."""

    cause: Cause
    text: str
    remark: str | None = None


def reason_of(text: str) -> CloseReason:
    """Parse `WORD` or `WORD: text`.

    Any other text counts as `operator`, with a warning that lists the declared reasons.
    """
    head, colon, detail = text.partition(":")
    name = re.sub(r"[\s_]+", "-", head.strip().lower())  # `Exchange breach` and `exchange_breach` are the same reason
    if name in MEANINGS:
        return CloseReason(cast("Cause", name), detail.strip() or name)
    near = _closest(name, exact=bool(colon))
    hint = "" if near is None else f" Did you mean '{near}{': …' if colon or ' ' in text.strip() else ''}'?"
    known = ", ".join(MEANINGS)
    remark = f"--reason does not begin with one of {known}, so it counts as 'operator: {text.strip()}'.{hint}"
    return CloseReason("operator", text.strip(), remark)


def scope_warning(cause: Cause, scope: str | None) -> str | None:
    """Warning if the reason calls for a wider scope; None if it does not."""
    if cause not in WHOLE_BOOK or scope in (None, "portfolio"):
        return None
    return f"{cause}: {MEANINGS[cause]}; only {scope} is closed, the rest of the account stays open"


def _closest(name: str, *, exact: bool) -> str | None:
    """The closest declared reason: by the part before a colon, else by the beginning of the text."""
    begins = [name] if exact else [name, name.split("-", maxsplit=1)[0], "-".join(name.split("-")[:2])]
    return next((near for each in begins for near in get_close_matches(each, MEANINGS, 1, 0.75)), None)
