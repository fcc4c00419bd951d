"""The declared reasons of a close by hand.

How fast, and at which price, a close for a reason is carried out is in `killswitch.graph.unwinding`, unless a document
claims the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, NamedTuple, cast

from killswitch.model.words import Cause


class CauseWords(NamedTuple):
    """`title` heads reports, `meaning` says when it applies, `urgency` how it is carried out unless a document differs.

    With `whole_book` everything of an account is meant to go: a narrower scope deserves a remark.
    """

    title: str
    meaning: str
    urgency: str
    whole_book: bool = False


WORDS: Final[Mapping[Cause, CauseWords]] = {
    "market": CauseWords(
        "Market", "prices run away",
        "as fast as the venue allows; one try within 3% of the mark, then at market",
    ),
    "system-failure": CauseWords(
        "System failure", "our own systems fail",
        "at once, at market",
    ),
    "exchange-breach": CauseWords(
        "Exchange breach", "the venue is broken into, or insolvent",
        "at once, at market, the whole book",
        whole_book=True,
    ),
    "regulatory": CauseWords(
        "Regulatory", "an authority or compliance demands it",
        "two tries within 1% of the mark, two within 2%, then at market",
    ),
    "counterparty": CauseWords(
        "Counterparty", "a bank, a broker or a stable coin fails",
        "two tries within 2% of the mark, two within 4%, then at market; stable coins are sold too",
    ),
    "drill": CauseWords(
        "Drill", "an exercise",
        "60 orders a minute; two tries within 0.5% of the mark, two within 1%, then at market",
    ),
    "operator": CauseWords(
        "Operator", "a person's own judgement",
        "at once, at market",
    ),
}  # fmt: skip
"""In the order in which they are offered."""


CAUSES: Final[tuple[str, ...]] = tuple(WORDS)


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
    if word in CAUSES:
        return Reason(cast("Cause", word), rest.strip() or word)
    near = _near(word, whole=bool(colon))
    meant = "" if near is None else f" Did you mean '{near}{': …' if colon or ' ' in written.strip() else ''}'?"
    remark = f"--reason begins with none of {', '.join(CAUSES)}, so it counts as 'operator: {written.strip()}'.{meant}"
    return Reason("operator", written.strip(), remark)


def too_narrow(cause: Cause, scope: str | None) -> str | None:
    """What to say where the reason asks for more than the scope; None where it does not."""
    if not WORDS[cause].whole_book or scope in (None, "portfolio"):
        return None
    return f"{cause}: {WORDS[cause].meaning}; only {scope} is closed, and what else is there stays open"


def _plain(head: str) -> str:
    """`Exchange breach` and `exchange_breach` are the word too."""
    return re.sub(r"[\s_]+", "-", head.strip().lower())


def _near(word: str, *, whole: bool) -> str | None:
    """The word that was probably meant: by what stands before a colon, else by how the text begins."""
    begins = [word] if whole else [word, word.split("-", maxsplit=1)[0], "-".join(word.split("-")[:2])]
    for each in begins:
        near = get_close_matches(each, CAUSES, 1, 0.75)
        if near:
            return near[0]
    return None
