"""Validates venue answers about orders before they are journaled: only numbers and text that can be read back."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from msgspec.structs import replace

from killswitch.journal.lifecycle import ZERO
from killswitch.journal.orders import unrecognised_state_text
from killswitch.model.legible import shortened
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import Fill, Instrument
from killswitch.model.venue import MalformedAnswerError, OrderReport

_STATES = frozenset({"open", "filled", "canceled", "rejected", "expired"})
_LONGEST = 500
"""Maximum length of venue text that is kept, in characters."""


def validated_report(report: object, name: str, most: Decimal) -> OrderReport:
    """`report`, if it can be true of the order `name`, which may fill at most `most` contracts.

    A price or a fee that is not a number is unknown. More than `most` counts as `most`: a venue that rounds up must not
    keep the order open for ever, and its positions show what is left. MalformedAnswerError for anything else that is
    invalid: the status of such an order is unknown, and it is queried.
    """
    if not isinstance(report, OrderReport):
        raise MalformedAnswerError(f"the answer about order {name} is of type {type(report).__name__}, not a report")
    if report.client_order_id not in (None, name):
        other = venue_text(report.client_order_id)
        raise MalformedAnswerError(f"queried order {name}, and the venue returned order {other}")
    if report.state not in _STATES:
        raise MalformedAnswerError(unrecognised_state_text(name, venue_text(report.state)))
    filled = finite(report.filled)
    if filled is None or filled < ZERO:
        raise MalformedAnswerError(f"order {name} has an invalid filled amount: {venue_text(report.filled)}")
    if report.state == "filled" and filled == ZERO:
        raise MalformedAnswerError(f"order {name} is reported filled with a filled amount of 0")
    return replace(
        report,
        id=venue_text(report.id),
        filled=min(filled, most),
        average_price=finite(report.average_price),
        fee=finite(report.fee),
    )


def validated_fills(fills: Iterable[Fill]) -> tuple[Fill, ...]:
    """`fills`, each once, if every amount, price and fee is valid; else MalformedAnswerError.

    Pages overlap when trades come in between: a fill that is listed twice was neither filled nor charged twice.
    """
    found: list[Fill] = []
    for fill in fills:
        if not isinstance(fill, Fill):
            raise MalformedAnswerError(f"malformed answer: the fills contain a {type(fill).__name__}")
        asset = fill.fee_currency
        numbers = [fill.amount, fill.price] + ([] if fill.fee is None else [fill.fee])
        has_valid_asset = asset is None or isinstance(asset, str)
        if not has_valid_asset or not all(map(_is_summable, numbers)) or fill.amount < ZERO:
            fee = "" if fill.fee is None else f", charged {venue_text(fill.fee)} {venue_text(asset)}"
            text = f"fill {venue_text(fill.id)} of {venue_text(fill.amount)} at {venue_text(fill.price)}{fee}"
            raise MalformedAnswerError(f"malformed answer: {text}")
        if not fill.id or fill not in found:
            found.append(fill)
    return tuple(found)


def validated_rules(instrument: Instrument) -> Instrument:
    """The instrument's rules; a rule that is not a number is unknown."""
    return replace(
        instrument,
        amount_step=finite(instrument.amount_step),
        min_amount=finite(instrument.min_amount),
        max_amount=finite(instrument.max_amount),
    )


def finite(value: object) -> Decimal | None:
    """`value` if it is a finite number, else None: unknown."""
    return value if isinstance(value, Decimal) and value.is_finite() else None


def _is_summable(value: object) -> bool:
    """Whether the value can be used in sums."""
    number = finite(value)
    return number is not None and sane(number)


def venue_text(text: object) -> str:
    """A venue's text, safe to store and print anywhere: valid characters, limited length."""
    return shortened(str(text).encode("utf-8", "replace").decode("utf-8"), _LONGEST)
