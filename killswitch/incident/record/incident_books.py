"""Exposure and P&L of the whole book at the beginning of an incident, and at its end or as last seen.

The status of a run has those of its newest tick only, so an incident keeps two of them. Of many assets the largest are
kept: a table of hundreds is read by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.incident.record.document import IncidentBook, NewestExposure
from killswitch.incident.record.source_places import decode_or
from killswitch.model.decision import Decision
from killswitch.model.store import IncidentStore, Store
from killswitch.planning.exposures import Exposures

MOST_ASSETS = 30
"""The number of assets that are kept of a book: those with the largest gross."""


class KeptBooks(Struct, frozen=True, omit_defaults=True):
    """The book in the tick that opened the incident, and in the newest one until its reset; None: not known."""

    opened: Exposures | None = None
    newest: Exposures | None = None


NO_BOOKS = KeptBooks()
_KEPT = msgspec.json.Decoder(KeptBooks)
encode_books = msgspec.json.Encoder(decimal_format="string").encode


def books_key(incident: str) -> str:
    """The name of the blob with the books of an incident."""
    return f"books/{incident}"


def kept_books(store: IncidentStore | Store, incident: str) -> KeptBooks:
    """The books that are kept with the incident; none in the store of an older version."""
    return decode_or(_KEPT, store.live(books_key(incident)), NO_BOOKS)


def extended(
    kept: KeptBooks, opened: Exposures | None, newest: Exposures | None, opening: Decision, reset: Decision | None
) -> KeptBooks:
    """The kept books with newer ones. A book of before the firing or after the reset is none of the incident's."""
    if newest is not None and (newest.as_of < opening.as_of or (reset is not None and newest.as_of > reset.as_of)):
        newest = None
    if newest is not None and kept.newest is not None and newest.as_of < kept.newest.as_of:
        newest = None
    first = kept.opened or opened or newest
    return KeptBooks(None if first is None else largest(first), kept.newest if newest is None else largest(newest))


def largest(book: Exposures) -> Exposures:
    """The book without all but its largest assets; those of unknown gross stay."""
    assets = [each for each in book.parts if each.of == "asset"]
    if len(assets) <= MOST_ASSETS:
        return book
    ranked = sorted(assets, key=lambda each: Decimal("Infinity") if each.gross is None else each.gross, reverse=True)
    shown = {each.name for each in ranked[:MOST_ASSETS]}
    return replace(book, parts=tuple(each for each in book.parts if each.of != "asset" or each.name in shown))


def books_of(store: IncidentStore, incident: str, *, is_closed: bool) -> tuple[IncidentBook, ...]:
    """The books of the incident, oldest first: one, if no later tick was seen."""
    kept = kept_books(store, incident)
    found = [] if kept.opened is None else [IncidentBook("opened", kept.opened)]
    if kept.newest is not None and (kept.opened is None or kept.newest.as_of > kept.opened.as_of):
        found.append(IncidentBook("closed" if is_closed else "newest", kept.newest))
    return tuple(found)


def newest_exposure(books: Sequence[IncidentBook], scope: str, fired_at: datetime) -> NewestExposure | None:
    """The exposure of the scope in the newest of the books; None where it is not newer than the last firing.

    A book has parts for the portfolio, accounts and strategies: of a venue, a label or a symbol it says nothing.
    """
    found = books[-1].book if books else None
    if found is None or found.as_of <= fired_at:
        return None
    kind, _, name = scope.partition("/")
    part = next((each for each in found.parts if (each.of, each.name) == (kind, name or kind)), None)
    if part is None or kind not in ("portfolio", "account", "strategy"):
        return None
    return NewestExposure(found.as_of, part.net, part.gross, found.currency, part.unknown)
