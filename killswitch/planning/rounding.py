"""Rounding of a target to orders that are exact in venue units.

Orders are rounded up to whole steps, so that at most the target is left: half of one minimum lot closes the lot instead
of rounding to zero. Orders never exceed the position, and a remainder that is too small to trade is closed with them.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from msgspec import Struct

from killswitch.model.snapshot import Instrument, Position
from killswitch.valuation.position_measures import ZERO

CLOSED_STATES = ("halted", "delisted", "cancel_only")
"""Market states in which a venue accepts no order."""

NOT_OPENING = (*CLOSED_STATES, "reduce_only")
"""Market states in which no position can be opened."""


class Reduction(Struct, frozen=True):
    """Orders that reduce a position to `target`: `parts` are their contracts, each within the venue's maximum.

    `blocked`: why the venue accepts none of them now, or not all. Dust has no parts; a halted symbol has parts, to be
    sent once it opens.
    """

    target: Decimal
    parts: tuple[Decimal, ...]
    exact: bool
    blocked: str | None = None


MOST_SLICES = 100
"""Maximum number of slices that limit market impact; beyond it the slices grow."""

MOST_ORDERS = 10_000
"""Maximum number of orders within the venue's maximum; beyond it there is one part, split when it is sent."""

MOST_STEPS = Decimal(10) ** 27
"""Maximum number of steps that is computed exactly; only corrupt venue data exceeds it."""


def reduction(
    position: Position,
    wanted: Decimal,
    instrument: Instrument | None,
    *,
    reduce_only: bool,
    greatest: Decimal | None = None,
) -> Reduction:
    """Compute the orders that reduce `position` to at most `wanted` contracts, in slices of at most `greatest`.

    The minimum notional does not apply to reduce-only orders (venues exempt them); the minimum amount does. A slice is
    never below the venue's minimum. Without a known step nothing is sliced.
    """
    held = position.contracts
    wanted = max(ZERO, min(wanted, held))
    if wanted == held:
        return Reduction(held, (), exact=True)
    if instrument is None or instrument.amount_step is None or instrument.amount_step <= ZERO:
        return Reduction(wanted, (held - wanted,), exact=False)
    if held / instrument.amount_step >= MOST_STEPS:
        why = f"{position.symbol} gives {held} contracts, too many to be counted in steps of {instrument.amount_step}"
        return Reduction(held, (), exact=True, blocked=why)
    tradable = whole_steps(held, instrument.amount_step)
    least = _minimum(position, instrument, reduce_only=reduce_only)
    amount = min(tradable, max(least, _ceiling(held - wanted, instrument.amount_step)))
    if held - amount < least:  # a remainder that could never be closed later is closed now
        amount = tradable
    if amount < least:
        why = f"dust: {held} of {position.symbol} is below the venue's minimum of {least}"
        return Reduction(held, (), exact=True, blocked=why)
    limit = _limit(least, instrument)
    parts = _split(amount, least, _most(amount, least, limit, instrument, greatest), limit)
    untradable = amount - sum(parts, ZERO)
    blocked = f"dust: {untradable} of {position.symbol} does not fit between the venue's minimum and maximum"
    closed = f"{position.symbol} is {instrument.state} at the venue" if instrument.state in CLOSED_STATES else None
    return Reduction(held - amount + untradable, parts, exact=True, blocked=closed or (blocked if untradable else None))


def greatest_order(position: Position, most: Decimal, instrument: Instrument | None, *, reduce_only: bool) -> Decimal:
    """The greatest amount up to `most` contracts that `reduction` sells as it is, rounded down; 0 if there is none.

    All of the position where `most` is all of it, unless it is dust. A part leaves at least the venue's minimum: a
    smaller remainder would be sold with it. A part of an unknown step is none, because no rounding of it is known.
    """
    held = position.contracts
    if most >= held:
        return held if reduction(position, ZERO, instrument, reduce_only=reduce_only).parts else ZERO
    if instrument is None or instrument.amount_step is None or instrument.amount_step <= ZERO:
        return ZERO
    if held / instrument.amount_step >= MOST_STEPS:
        return ZERO
    least = _minimum(position, instrument, reduce_only=reduce_only)
    amount = whole_steps(min(most, held - least), instrument.amount_step)
    return amount if amount >= least else ZERO


def opening_parts(amount: Decimal, unit: Decimal, instrument: Instrument) -> list[Decimal]:
    """Split the hedge into orders of at most the venue's maximum, rounded down; none below the minimum."""
    step = instrument.amount_step or Decimal(1)
    amount = whole_steps(amount, step)
    least = max(instrument.min_amount or ZERO, (instrument.min_notional or ZERO) / unit)
    most = amount if instrument.max_amount is None else whole_steps(instrument.max_amount, step)
    parts = []
    while amount > ZERO and min(amount, most) >= least and most > ZERO:
        parts.append(min(amount, most))
        amount -= parts[-1]
    return parts


def whole_steps(amount: Decimal, step: Decimal) -> Decimal:
    """Round `amount` down to whole steps."""
    return _plain((amount / step).to_integral_value(rounding=ROUND_FLOOR) * step)


def _ceiling(amount: Decimal, step: Decimal) -> Decimal:
    return -whole_steps(-amount, step)


def _plain(amount: Decimal) -> Decimal:
    """Remove a positive exponent: `50000` instead of `5E+4`, as records and venues write quantities."""
    exponent = amount.as_tuple().exponent
    return Decimal(f"{amount:f}") if isinstance(exponent, int) and exponent > 0 else amount


def value_of_contracts(amount: Decimal, position: Position, instrument: Instrument) -> Decimal | None:
    """Notional of `amount` contracts; None without mark price or contract size."""
    if not position.mark_price or instrument.contract_size is None:
        return None
    face = amount * instrument.contract_size
    return face if instrument.inverse else face * position.mark_price


def _minimum(position: Position, instrument: Instrument, *, reduce_only: bool) -> Decimal:
    """Smallest order that the venue accepts, in whole steps."""
    step = instrument.amount_step or Decimal(1)
    least = max(instrument.min_amount or ZERO, step)
    unit = value_of_contracts(Decimal(1), position, instrument)
    if not reduce_only and instrument.min_notional is not None and unit:
        least = max(least, instrument.min_notional / unit)
    return _ceiling(least, step)


def _limit(least: Decimal, instrument: Instrument) -> Decimal | None:
    """The venue's maximum in whole steps; None if there is none.

    A maximum below the minimum is ignored, because no order can satisfy both.
    """
    if instrument.max_amount is None:
        return None
    limit = whole_steps(instrument.max_amount, instrument.amount_step or Decimal(1))
    return None if limit < least else limit


def _most(
    amount: Decimal, least: Decimal, limit: Decimal | None, instrument: Instrument, greatest: Decimal | None
) -> Decimal | None:
    """Largest order by the venue's maximum and by `greatest`; None if unbounded."""
    if greatest is None or greatest >= amount:
        return limit
    step = instrument.amount_step or Decimal(1)
    slices = max(least, whole_steps(greatest, step), _ceiling(amount / MOST_SLICES, step))
    return slices if limit is None else min(limit, slices)


def _split(amount: Decimal, least: Decimal, most: Decimal | None, limit: Decimal | None) -> tuple[Decimal, ...]:
    """Split `amount` into orders of at most `most`, none below the venue's minimum or above its maximum, `limit`.

    If no number of orders satisfies both bounds, there is one order less, and the orders grow beyond `most`. The amount
    that does not fit into the venue's maximum is omitted.
    """
    if most is None or amount <= most or amount / most > MOST_ORDERS:
        return (amount,)
    count = int((amount / most).to_integral_value(rounding=ROUND_CEILING))
    if count * least > amount:
        count -= 1
    left = amount if limit is None else min(amount, count * limit)
    parts: list[Decimal] = []
    for after in range(count - 1, 0, -1):
        part = min(most, left - after * least)
        if limit is not None:  # the following orders could not hold the rest
            part = max(part, left - after * limit)
        parts.append(part)
        left -= part
    return (*parts, left)
