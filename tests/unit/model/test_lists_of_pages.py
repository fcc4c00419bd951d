"""A list of several pages is read whole, or is unreadable: a part of it never passes for the whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from killswitch.model.parsing import EndlessListError, UnreadableError, every_page
from killswitch.model.venue import VenueDownError

PAGES: Mapping[str | None, tuple[str, str | None]] = {None: ("ab", "b"), "b": ("cd", "d"), "d": ("e", None)}
"""Cursor → rows, and the cursor of the next page."""


class Venue:
    """A venue with a list in pages; `requested` are the cursors."""

    def __init__(self, pages: Mapping[str | None, tuple[str, str | None]]) -> None:
        self.pages = pages
        self.requested: list[str | None] = []

    async def page(self, cursor: str | None) -> tuple[str, str | None]:
        self.requested.append(cursor)
        if cursor not in self.pages:
            raise VenueDownError("no answer")
        return self.pages[cursor]

    def read(self, first: str | None = None, most: int = 3) -> str:
        return "".join(asyncio.run(every_page(self.page, first, most, "letters")))


def test_a_list_is_read_from_its_first_page_to_its_last() -> None:
    assert Venue(PAGES).read() == "abcde"
    assert Venue(PAGES).read(first="b") == "cde"


def test_a_list_of_more_pages_than_are_read_is_unreadable() -> None:
    """The error has the rows that were read, for a reader that continues there."""
    venue = Venue(PAGES)
    with pytest.raises(EndlessListError, match="letters: the list does not end after 4 rows") as caught:
        venue.read(most=2)
    assert caught.value.rows == ["a", "b", "c", "d"]
    assert venue.requested == [None, "b"]


@pytest.mark.parametrize("back_to", ["b", "d"])
def test_a_list_that_returns_to_a_page_that_was_read_is_unreadable_at_once(back_to: str) -> None:
    """Not only to the page before: three pages in a circle do not end either."""
    venue = Venue({**PAGES, "d": ("e", back_to)})
    with pytest.raises(UnreadableError, match="after 5 rows: a page is repeated, and there may be more") as caught:
        venue.read(most=9)
    assert not isinstance(caught.value, EndlessListError)
    assert venue.requested == [None, "b", "d"]


def test_a_page_that_fails_makes_the_whole_list_unknown() -> None:
    venue = Venue({None: ("ab", "b"), "b": ("cd", "lost")})
    with pytest.raises(VenueDownError, match="no answer"):
        venue.read()
