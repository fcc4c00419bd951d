"""Exposure and P&L that an incident keeps: which ticks, how many assets, and how a report shows them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.incident.record.document import IncidentBook, NewestExposure
from killswitch.incident.record.incident_books import (
    MOST_ASSETS,
    NO_BOOKS,
    KeptBooks,
    books_key,
    books_of,
    encode_books,
    extended,
    kept_books,
    largest,
    newest_exposure,
)
from killswitch.model.decision import Decision
from killswitch.planning.exposures import Exposures, OpenExposure
from killswitch.store.sqlite import open_store
from tests.worlds import START, after

FIRED = Decision("d1", after(minutes=10), "p", "sha256:0", "account/main", "enforce", "half", 1, 0)
RESET = replace(FIRED, id="d2", as_of=after(minutes=30), kind="reset", level=0, stage=None)


def book(minute: int, *parts: OpenExposure) -> Exposures:
    return Exposures(after(minutes=minute), "USDT", parts)


def test_the_first_book_stays_and_the_newest_follows_until_the_reset() -> None:
    """Of ticks at 10, 20, 30 and 40 minutes, 10 is the first, and 30, that of the reset, the last."""
    kept = extended(NO_BOOKS, book(10), None, FIRED, None)
    kept = extended(kept, None, book(20), FIRED, None)
    assert kept == KeptBooks(book(10), book(20))
    kept = extended(kept, None, book(30), FIRED, RESET)
    assert extended(kept, None, book(40), FIRED, RESET) == KeptBooks(book(10), book(30))


def test_a_book_of_before_the_firing_or_an_older_one_is_not_taken() -> None:
    """The status of a run that was killed may be of an earlier tick; nothing is better than a wrong book."""
    assert extended(NO_BOOKS, None, book(9), FIRED, None) == NO_BOOKS
    kept = KeptBooks(book(10), book(20))
    assert extended(kept, None, book(15), FIRED, None) == kept


def test_of_many_assets_the_largest_are_kept_and_those_of_unknown_gross() -> None:
    """Assets 1 to 40 with as much gross, of which number 1 is unknown: it stays with the 29 largest."""
    assets = [OpenExposure("asset", f"A{n}", None if n == 1 else Decimal(n)) for n in range(1, 41)]
    shown = largest(book(10, OpenExposure("portfolio", "portfolio"), *assets))
    assert [each.name for each in shown.parts] == ["portfolio", "A1", *(f"A{n}" for n in range(12, 41))]
    assert len(shown.parts) == MOST_ASSETS + 1


def test_books_are_read_as_they_were_kept_and_a_store_of_an_older_version_has_none(tmp_path: Path) -> None:
    """Decimals and unknown reasons survive; one book is shown once."""
    part = OpenExposure("strategy", "grid", Decimal("1.50"), realised_unknown="a fill is missing", realised_since=START)
    store = open_store(str(tmp_path / "store.sqlite"))
    assert books_of(store, "d1", is_closed=False) == ()
    kept = KeptBooks(book(10, part), book(20))
    store.put_live(books_key("d1"), encode_books(kept))
    assert kept_books(store, "d1") == kept
    assert books_of(store, "d1", is_closed=True) == (
        IncidentBook("opened", book(10, part)), IncidentBook("closed", book(20)),
    )  # fmt: skip
    store.put_live(books_key("d1"), encode_books(KeptBooks(book(10), book(10))))
    assert books_of(store, "d1", is_closed=False) == (IncidentBook("opened", book(10)),)
    store.close()


@pytest.mark.parametrize(
    ("scope", "net"),
    [("account/main", -3), ("portfolio", 7), ("strategy/grid", 1), ("account/gone", None), ("venue/paper", None)],
)
def test_the_exposure_now_is_that_of_the_scope_in_the_newest_book(scope: str, net: int | None) -> None:
    """A book has no part for a venue, and one of the firing itself says nothing about now."""
    parts = (
        OpenExposure("portfolio", "portfolio", Decimal(9), Decimal(7)),
        OpenExposure("account", "main", Decimal(3), Decimal(-3)),
        OpenExposure("strategy", "grid", Decimal(1), Decimal(1)),
    )
    books = (IncidentBook("opened", book(10)), IncidentBook("newest", book(20, *parts)))
    found = newest_exposure(books, scope, after(minutes=10))
    assert (None if found is None else found.net) == (None if net is None else Decimal(net))
    assert newest_exposure(books, scope, after(minutes=20)) is None
    assert newest_exposure((), scope, after(minutes=10)) is None


def test_an_exposure_that_is_unknown_now_says_why() -> None:
    """The venue is down: what the book was before is no answer."""
    part = OpenExposure("account", "main", unknown="main is down")
    books = (IncidentBook("newest", book(20, part)),)
    expected = NewestExposure(after(minutes=20), None, None, "USDT", "main is down")
    assert newest_exposure(books, "account/main", after(minutes=10)) == expected
