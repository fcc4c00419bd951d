"""The closed vocabularies that policies and decisions share, and places in policy files.

They stand apart from the message types because importing msgspec costs what parsing a whole policy set costs,
and a verb that only reads policies needs no message.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from killswitch.model.record import Record, record

LockMode = Literal["reduce_only", "all"]
Source = Literal["LONG", "SHORT", "MIXED", "UNKNOWN"]
PolicyMode = Literal["enforce", "observe"]
CancelWhy = Literal["entry", "all"]
Market = Literal["swap", "future", "spot", "margin", "equity"]
Cause = Literal["market", "system-failure", "exchange-breach", "regulatory", "counterparty", "drill", "operator"]
"""Why a hand closes. market: prices run away. system-failure: our own systems fail. exchange-breach: the venue is
broken into or insolvent. regulatory: an authority or compliance demands it. counterparty: a bank, a broker or a stable
coin fails. drill: an exercise. operator: a person's own judgement."""
Severity = Literal["info", "warning", "page"]
NotificationEvent = Literal["fired", "closed", "residual", "reset", "notice"]
"""fired: a stage, or a close by hand. closed: at target. residual: ended and left something. reset: back to normal."""


@record
class ReferenceCurrency(Record):
    """A rate to `currency` wants `venues` that agree: none further than the fraction `within` from the others.

    `declared`: what one unit of a currency is taken for where they do not, sorted by currency.
    """

    currency: str
    venues: int
    within: Decimal
    declared: tuple[tuple[str, Decimal], ...] = ()


@record
class Place(Record):
    """Where in the policy text a node was written; lines and columns count from 1."""

    file: str
    line: int
    column: int
    text: str
    """The source line, for `explain`."""
