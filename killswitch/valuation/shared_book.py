"""One position that several owners share: their parts by fills, whether these add up, and whose part a fill is."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Fill
from killswitch.valuation.ownership import NOBODY, OwnPart
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.realised_profits import FilledPart, fee_of


class SharedBook(Struct, omit_defaults=True):
    """One position of an account: the parts by owner, and why they are unknown for good, or None.

    `side` is `net` in one-way mode, where a part is negative for short. `held`: the position at the last snapshot.
    """

    account: str
    symbol: str
    side: str
    parts: dict[str, OwnPart] = {}
    unknown: str | None = None
    held: Decimal = ZERO
    outside: Decimal | None = None
    """What was held before the first fill that is in `parts`; None in what an older version stored."""
    fees: Decimal | None = ZERO
    """Fees of orders that closed what everybody owned, until the position is flat; None if one is unknown."""


def sum_of(book: SharedBook) -> Decimal:
    """The contracts of all parts together."""
    return sum((part.contracts for part in book.parts.values()), ZERO)


def settled(book: SharedBook, resident: str | None, *, is_missing: bool) -> SharedBook:
    """The book with the part of the symbol's declared owner; unknown if the parts do not add up to the position."""
    if resident is not None:
        others = {owner: part for owner, part in book.parts.items() if owner != resident}
        left = book.held - sum((part.contracts for part in others.values()), ZERO)
        own = book.parts.get(resident)
        entry = own.entry if own is not None and own.contracts == left else None
        parts = {**others, resident: OwnPart(left, entry)} if left else others
        return replace(book, parts=parts, unknown=book.unknown if others else None)
    different = book.held - sum_of(book)
    if book.unknown is not None or not different:
        return book
    why = "the fills are unknown" if is_missing else "no fill explains them yet"
    return replace(book, unknown=f"it is unknown whose {abs(different)} {book.symbol} are: {why}")


def unexplained(book: SharedBook) -> Decimal:
    """The contracts of the position that neither its fills nor what was held before them explain."""
    return ZERO if book.outside is None else book.held - book.outside - sum_of(book)


def begin_where_flat(book: SharedBook, resident: str | None) -> None:
    """Begin anew where the position is flat and nobody else has a part; take over what an older version stored."""
    if book.outside is None:
        book.outside = book.held - sum_of(book)
    if not book.held and not unexplained(book) and set(book.parts) <= {resident}:
        book.parts, book.outside, book.fees = {}, ZERO, ZERO


def with_resident(book: SharedBook, resident: str | None) -> dict[str, OwnPart]:
    """The parts of all owners, with what the owner of the symbol held before its fills, whose entry is unknown."""
    if not book.outside or resident is None:
        return dict(book.parts)
    own = book.parts.get(resident, OwnPart(ZERO))
    return {**book.parts, resident: OwnPart(own.contracts + book.outside)}


def filled_parts(book: SharedBook, owners: Sequence[tuple[str, Decimal]], resident: str | None) -> list[FilledPart]:
    """The part of each owner in a fill of this position, before it is applied."""
    held = with_resident(book, resident)
    unclear = None
    if book.outside or book.outside is None:
        held_before = f"{abs(book.outside or ZERO)} {book.symbol}"
        unclear = f"the entry of {held_before}, which were held before the first fill, is unknown"
    found = []
    for owner, size in owners:
        is_alone = len(owners) == 1 and not any(part.contracts for name, part in held.items() if name != owner)
        is_alone = is_alone and (unclear is None or owner == resident) and book.unknown is None
        why = unclear if owner == resident else book.unknown
        found.append(FilledPart(owner, size, held.get(owner, OwnPart(ZERO)), is_alone, why))
    return found


def add_closing_fee(book: SharedBook, account: AccountSnapshot, fill: Fill, change: Decimal) -> None:
    """Keep the fee of what the fill closes beyond nobody's own part, for the owners of the rest."""
    own = book.parts.get(NOBODY, OwnPart(ZERO)).contracts
    beyond = abs(change) - min(abs(own), abs(change)) if own * change < ZERO else abs(change)
    fee = fee_of(account, fill)
    if isinstance(fee, str) or book.fees is None or not change:
        book.fees = None
    else:
        book.fees += fee * beyond / abs(change)
