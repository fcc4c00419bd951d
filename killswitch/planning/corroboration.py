"""Holding a mark against the index and the last price before acting on it.

A mark that lies further than `MARK_TOLERANCE` from every other price that the snapshot gives of it is a print
that does not hold. It is named, and equity is supposed as it would be at the nearest of the other prices; a
stage that would not fire on that equity is not corroborated. Nothing is averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from killswitch.model.snapshot import Position
from killswitch.signals.position import ZERO, move_value
from killswitch.signals.view import ScopeView

MARK_TOLERANCE = Decimal("0.05")
"""Marks of liquid contracts stay within 1–2% of the index even in a crash; a stray print is off by tens."""


@dataclass(frozen=True, slots=True)
class Corroborated:
    """`equity` as it would be with the failing prints replaced; `failing` names them."""

    equity: Decimal | None
    failing: tuple[str, ...]


def corroborate(view: ScopeView) -> Corroborated:
    """Hold every mark of the scope against its index and last price, where they are given."""
    equity, failing = view.equity, []
    for account, position in view.positions():
        reference = _nearest(position)
        if reference is None or position.mark_price is None:
            continue
        if abs(position.mark_price - reference) <= MARK_TOLERANCE * reference:
            continue
        failing.append(
            f"{position.symbol} mark {position.mark_price} against index {position.index_price}"
            f" and last {position.last_price}"
        )
        instrument = view.instrument(account.account, position.symbol)
        move = move_value(position, instrument, position.mark_price, reference)
        equity = None if equity is None or move is None else equity + move
    return Corroborated(equity, tuple(failing))


def _nearest(position: Position) -> Decimal | None:
    """Of index and last price, the one nearest to the mark; None where neither is given."""
    mark = position.mark_price
    others = [p for p in (position.index_price, position.last_price) if p is not None and p > ZERO]
    if mark is None or not others:
        return None
    return min(others, key=lambda price: abs(price - mark))
