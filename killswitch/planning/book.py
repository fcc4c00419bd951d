"""The book before and after: gross and net notional, and margin ratio."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal

from killswitch.model.decision import Book, BookChange
from killswitch.signals.position import ZERO
from killswitch.signals.view import PnlKey, ScopeView

_WIDE = Context(prec=200)
"""Digits for whatever sound numbers multiply to: a venue that reads one out wrongly must not end the tick."""


def book_change(view: ScopeView, left: Mapping[PnlKey, Decimal]) -> BookChange:
    """The scope's book as it is, and with the positions in `left` brought to those contracts at the mark.

    Maintenance margin afterwards is taken in proportion to gross: the venue's tiers are not in a snapshot.
    """
    rows = None if view.unknown is not None else view.notionals()
    if rows is None:
        nothing = Book(None, None, None)
        return BookChange(nothing, nothing)
    gross = net = gross_after = net_after = ZERO
    for account, position, value in rows:
        signed = value if position.side == "long" else -value
        kept = left.get((account.account, position.symbol, position.side), position.contracts)
        share = kept / position.contracts
        gross += value
        net += signed
        gross_after += value * share
        net_after += signed * share
    ratio = _margin_ratio(view)
    after = ratio * gross_after / gross if ratio is not None and gross else ratio
    return BookChange(_book(gross, net, ratio), _book(gross_after, net_after, after))


def _margin_ratio(view: ScopeView) -> Decimal | None:
    """Maintenance margin ÷ equity; unknown where either is, or equity is not above zero."""
    total = view.maintenance()
    return total / view.equity if total is not None and view.equity is not None and view.equity > ZERO else None


def _book(gross: Decimal, net: Decimal, ratio: Decimal | None) -> Book:
    cents, basis = Decimal("0.01"), Decimal("0.0001")
    return Book(
        gross.quantize(cents, context=_WIDE),
        net.quantize(cents, context=_WIDE),
        None if ratio is None else ratio.quantize(basis, context=_WIDE),
    )
