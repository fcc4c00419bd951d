"""The reasons for a close by hand: what each is called, and what it asks of whoever gives it.

How fast, and at which price, a close for a reason is carried out is in `killswitch.graph.unwinding`, unless a document
claims the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

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
