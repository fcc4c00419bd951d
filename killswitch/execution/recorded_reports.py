"""What of a venue's answer about an order may be written down: nothing that cannot be read back and reckoned with."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from msgspec import structs

from killswitch.journal.lifecycle import ZERO
from killswitch.model.legible import shortened
from killswitch.model.magnitude import sane
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
    """`fills`, each once, if every amount and price is a number and no fee is a wrong one; else MalformedAnswerError.

    Pages overlap where trades come in between: one that is told twice was neither filled nor charged twice.
    """
    found: list[Fill] = []
    for fill in fills:
        if not isinstance(fill, Fill):
            raise MalformedAnswerError(
                f"the answer makes no sense: among the fills is {type(fill).__name__}, which is none"
            )
        asset = fill.fee_currency
        numbers = [fill.amount, fill.price] + ([] if fill.fee is None else [fill.fee])
        named = asset is None or isinstance(asset, str)
        if not named or not all(map(_reckoned, numbers)) or fill.amount < ZERO:
            fee = "" if fill.fee is None else f", charged {said(fill.fee)} {said(asset)}"
            text = f"fill {said(fill.id)} of {said(fill.amount)} at {said(fill.price)}{fee}"
            raise MalformedAnswerError(f"the answer makes no sense: {text}")
        if not fill.id or fill not in found:
            found.append(fill)
    return tuple(found)


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


def _reckoned(value: object) -> bool:
    """Whether sums can be made with it."""
    number = finite(value)
    return number is not None and sane(number)


def said(words: object) -> str:
    """A venue's words as text that can be stored and printed anywhere: whole characters, and not too many."""
    return shortened(str(words).encode("utf-8", "replace").decode("utf-8"), _LONGEST)
