"""The declared reasons of a close by hand.

How fast, and at which price, a close for a reason is carried out is in `killswitch.graph.unwinding`, unless a document
claims the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, cast

from killswitch.model.words import Cause

MEANINGS: Final[Mapping[Cause, str]] = {
    "market": "prices run away",
    "system-failure": "our own systems fail",
    "exchange-breach": "the venue is broken into, or insolvent",
    "regulatory": "an authority or compliance demands it",
    "counterparty": "a bank, a broker or a stable coin fails",
    "drill": "an exercise",
    "operator": "a person's own judgement",
}
"""When each applies, in the order in which they are offered."""

WHOLE_BOOK: Final[frozenset[Cause]] = frozenset({"exchange-breach"})
"""Everything of an account is meant to go: a narrower scope deserves a remark."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a person closes. `remark`: what to say where no declared word was given."""

    cause: Cause
    text: str
    remark: str | None = None


def reason_of(written: str) -> Reason:
    """`WORD`, or `WORD: text`; anything else is an operator's own judgement, with a remark that lists the words."""
    head, colon, rest = written.partition(":")
    word = _plain(head)
    if word in MEANINGS:
        return Reason(cast("Cause", word), rest.strip() or word)
    near = _near(word, whole=bool(colon))
    meant = "" if near is None else f" Did you mean '{near}{': …' if colon or ' ' in written.strip() else ''}'?"
    known = ", ".join(MEANINGS)
    remark = f"--reason does not begin with one of {known}, so it counts as 'operator: {written.strip()}'.{meant}"
    return Reason("operator", written.strip(), remark)


def too_narrow(cause: Cause, scope: str | None) -> str | None:
    """What to say where the reason asks for more than the scope; None where it does not."""
    if cause not in WHOLE_BOOK or scope in (None, "portfolio"):
        return None
    return f"{cause}: {MEANINGS[cause]}; only {scope} is closed, the rest of the account stays open"


def _plain(head: str) -> str:
    """`Exchange breach` and `exchange_breach` are the word too."""
    return re.sub(r"[\s_]+", "-", head.strip().lower())


def _near(word: str, *, whole: bool) -> str | None:
    """The word that was probably meant: by what stands before a colon, else by how the text begins."""
    begins = [word] if whole else [word, word.split("-", maxsplit=1)[0], "-".join(word.split("-")[:2])]
    for each in begins:
        near = get_close_matches(each, MEANINGS, 1, 0.75)
        if near:
            return near[0]
    return None
