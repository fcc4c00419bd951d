"""What of a venue's answer about an order may be written down: nothing that cannot be read back and reckoned with."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from msgspec import structs

from killswitch.closing.life import ZERO
from killswitch.model.snapshot import Fill, Instrument
from killswitch.model.venue import MalformedAnswerError, OrderReport

_STATES = frozenset({"open", "filled", "canceled", "rejected", "expired"})
_LONGEST = 500
"""Characters of a venue's own words that are kept."""


def sound(report: object, name: str, most: Decimal) -> OrderReport:
    """`report`, if it can be true of the order `name`, which may fill at most `most` contracts.

    A price or a fee that is no number is unknown. More than `most` counts as `most`: a venue that rounds up must
    not keep the order open for ever; its positions show what is left. MalformedAnswerError for anything else that
    makes no sense: what such an order has done is unknown, and is asked about.
    """
    if not isinstance(report, OrderReport):
        raise MalformedAnswerError(f"the answer about order {name} is {type(report).__name__}, not a report")
    if report.client_order_id not in (None, name):
        raise MalformedAnswerError(f"asked about order {name}, the answer is about {said(report.client_order_id)}")
    if report.state not in _STATES:
        raise MalformedAnswerError(f"order {name} is said to be {said(report.state)}")
    filled = finite(report.filled)
    if filled is None or filled < ZERO:
        raise MalformedAnswerError(f"order {name} is said to have filled {said(report.filled)}")
    if report.state == "filled" and filled == ZERO:
        raise MalformedAnswerError(f"order {name} is said to be filled, and to have filled nothing")
    return structs.replace(
        report,
        id=said(report.id),
        filled=min(filled, most),
        average_price=finite(report.average_price),
        fee=finite(report.fee),
    )


def sound_fills(fills: Iterable[Fill]) -> tuple[Fill, ...]:
    """`fills`, if every amount and price is a number and no fee is a wrong one; else MalformedAnswerError."""
    found = tuple(fills)
    for fill in found:
        amount, fee = finite(fill.amount), fill.fee
        if amount is None or amount < ZERO or finite(fill.price) is None or (fee is not None and finite(fee) is None):
            raise MalformedAnswerError(f"fill {said(fill.id)} of {said(fill.amount)} at {said(fill.price)}")
    return found


def sound_rules(instrument: Instrument) -> Instrument:
    """A symbol's rules; a rule that is no number is an unknown one."""
    return structs.replace(
        instrument,
        amount_step=finite(instrument.amount_step),
        min_amount=finite(instrument.min_amount),
        max_amount=finite(instrument.max_amount),
    )


def finite(value: object) -> Decimal | None:
    """`value` if it is a number to reckon with, else None: unknown."""
    return value if isinstance(value, Decimal) and value.is_finite() else None


def said(words: object) -> str:
    """A venue's words as text that can be stored and printed anywhere: whole characters, and not too many."""
    return str(words).encode("utf-8", "replace").decode("utf-8")[:_LONGEST]
