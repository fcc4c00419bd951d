"""The currency that a scope with accounts of several is measured in."""

from __future__ import annotations

from decimal import Decimal

from killswitch.model.record import Record, record


@record
class ReferenceCurrency(Record):
    """A rate to `currency` wants `venues` that agree: none further than the fraction `within` from the others.

    `declared`: what one unit of a currency is taken for where they do not, sorted by currency.
    """

    currency: str
    venues: int
    within: Decimal
    declared: tuple[tuple[str, Decimal], ...] = ()
