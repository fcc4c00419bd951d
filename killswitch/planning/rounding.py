"""From a target to an order, exact in venue units.

The order is rounded up to whole steps, so that what is left is at most what was decided: half of one minimum
lot closes the lot instead of rounding to an order of nothing. It is never more than is held, and a remainder
that could never be traded again is closed with the rest.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from msgspec import Struct

from killswitch.model.snapshot import Instrument, Position
from killswitch.signals.position import ZERO

SHUT = ("halted", "delisted", "cancel_only")
"""States in which a venue takes no order for a symbol."""


class Reduction(Struct, frozen=True):
    """`parts` are the orders' contracts, each within the venue's maximum; their sum is what `target` leaves of it.

    `blocked` says why the venue takes none now, or not all. Dust has no parts; a halted symbol has, for when it is
    open again.
    """

    target: Decimal
    parts: tuple[Decimal, ...]
    exact: bool
    blocked: str | None = None


MOST_SLICES = 100
"""A position is not cut into more slices than this for its market's sake: they grow instead."""

MOST_ORDERS = 10_000
"""Nor into more than this for the venue's maximum's sake: then it is one part, and cut as it is sent."""

MOST_STEPS = Decimal(10) ** 27
"""Steps are counted exactly up to here. No position has more, but one that a venue has read out wrongly."""


def reduction(
    position: Position,
    wanted: Decimal,
    instrument: Instrument | None,
    *,
    reduce_only: bool,
    greatest: Decimal | None = None,
) -> Reduction:
    """How to bring `position` to at most `wanted` contracts, in slices of at most `greatest`.

    Minimum notional does not bind reduce-only orders (the venues exempt them); minimum amount does. A slice is at
    least the venue's minimum, whatever `greatest` says. Where the steps are unknown nothing is sliced.
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
    if held - amount < least:  # a remainder that could never be closed later goes with the rest
        amount = tradable
    if amount < least:
        why = f"dust: {held} of {position.symbol} is below the venue's minimum of {least}"
        return Reduction(held, (), exact=True, blocked=why)
    limit = _limit(least, instrument)
    parts = _split(amount, least, _most(amount, least, limit, instrument, greatest), limit)
    stays = amount - sum(parts, ZERO)
    blocked = f"dust: {stays} of {position.symbol} does not fit between the venue's minimum and maximum"
    closed = f"{position.symbol} is {instrument.state} at the venue" if instrument.state in SHUT else None
    return Reduction(held - amount + stays, parts, exact=True, blocked=closed or (blocked if stays else None))


def whole_steps(amount: Decimal, step: Decimal) -> Decimal:
    """`amount` rounded down to whole steps, as records and venues write quantities."""
    return _plain((amount / step).to_integral_value(rounding=ROUND_FLOOR) * step)


def _ceiling(amount: Decimal, step: Decimal) -> Decimal:
    return -whole_steps(-amount, step)


def _plain(amount: Decimal) -> Decimal:
    """Without a power of ten behind it: `50000`, not `5E+4`, as records and venues write quantities."""
    exponent = amount.as_tuple().exponent
    return Decimal(f"{amount:f}") if isinstance(exponent, int) and exponent > 0 else amount


def worth_of_contracts(amount: Decimal, position: Position, instrument: Instrument) -> Decimal | None:
    """Notional of `amount` contracts; unknown without price or contract size."""
    if not position.mark_price or instrument.contract_size is None:
        return None
    face = amount * instrument.contract_size
    return face if instrument.inverse else face * position.mark_price


def _minimum(position: Position, instrument: Instrument, *, reduce_only: bool) -> Decimal:
    """The smallest order that the venue takes, in whole steps."""
    step = instrument.amount_step or Decimal(1)
    least = max(instrument.min_amount or ZERO, step)
    unit = worth_of_contracts(Decimal(1), position, instrument)
    if not reduce_only and instrument.min_notional is not None and unit:
        least = max(least, instrument.min_notional / unit)
    return _ceiling(least, step)


def _limit(least: Decimal, instrument: Instrument) -> Decimal | None:
    """The venue's maximum in whole steps; None where there is none.

    A maximum below the minimum is no rule that an order can follow, and is taken for none.
    """
    if instrument.max_amount is None:
        return None
    limit = whole_steps(instrument.max_amount, instrument.amount_step or Decimal(1))
    return None if limit < least else limit


def _most(
    amount: Decimal, least: Decimal, limit: Decimal | None, instrument: Instrument, greatest: Decimal | None
) -> Decimal | None:
    """The greatest order: by the venue's maximum and by what the market takes; None where nothing bounds it."""
    if greatest is None or greatest >= amount:
        return limit
    step = instrument.amount_step or Decimal(1)
    slices = max(least, whole_steps(greatest, step), _ceiling(amount / MOST_SLICES, step))
    return slices if limit is None else min(limit, slices)


def _split(amount: Decimal, least: Decimal, most: Decimal | None, limit: Decimal | None) -> tuple[Decimal, ...]:
    """`amount` in orders of at most `most`, none of them below the venue's minimum nor above its maximum, `limit`.

    Where no number of orders keeps within both, there is one less and they grow: of a market only the last one is
    asked for more than it should take. What does not fit into the venue's maximum either is left out.
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
        if limit is not None:  # the ones after it could not carry the rest
            part = max(part, left - after * limit)
        parts.append(part)
        left -= part
    return (*parts, left)
