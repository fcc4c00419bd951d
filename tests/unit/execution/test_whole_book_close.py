"""When the venue's own "close everything" is used: where it does what was decided, and single orders would wait."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.store import Store
from killswitch.model.venue import Cost, FateUnknownError, OrderRequest, RateLimit, VenueTraits
from killswitch.ratelimit.budget import RequestBudgets
from tests.closing_cases import commit, decide, drive
from tests.honest_venue import HonestVenue, VirtualClock

D = Decimal
BOOK = {"BTC": D(100), "ETH": D(-30), "SOL": D(7)}


class WholeBookVenue(HonestVenue):
    """Accepts two orders a minute, and closes its whole book in one request."""

    traits = VenueTraits(
        limits=(RateLimit("orders", 2, 60.0),), costs=(Cost("submit", "orders", each=1),), enforces_reduce_only=True
    )
    lost = False
    closes = True

    async def close_book(self) -> None:
        self.state["log"].append("close book")
        if self.closes:
            self.state["positions"] = {}
        if self.lost:
            raise FateUnknownError("no answer")


def calls_of_close(
    venue: WholeBookVenue, store: Store, targets: dict[str, Decimal], *, metered: bool = True
) -> list[str]:
    """The venue's log of closing `targets`."""
    clock = VirtualClock()
    budget = RequestBudgets().of("main", "venue", venue.traits) if metered else None
    closer = AccountExecutor("main", venue, store, clock, budget=budget)
    closer.adopt(commit(store, decide(venue, targets)))
    assert asyncio.run(drive(closer))
    return [line.split()[0] for line in venue.state["log"]]


def statuses(store: Store) -> list[str | None]:
    return [entry.data["status"] for entry in store.journal() if entry.kind == "finished"]


def test_a_whole_book_that_would_have_to_wait_is_closed_in_one_request(store: Store) -> None:
    """Three orders at two a minute: one request closes the book, no order leaves, and the positions prove the end."""
    assert calls_of_close(WholeBookVenue(BOOK), store, dict.fromkeys(BOOK, D(0))) == ["close"]
    assert statuses(store) == ["flat"]
    kinds = [entry.kind for entry in store.journal() if entry.kind != "planned"]
    assert kinds == ["swept", "verified", "verified", "verified", "finished"]


@pytest.mark.parametrize("closes", [True, False])
def test_a_lost_answer_is_resolved_by_the_positions(store: Store, closes: bool) -> None:
    """They show whether it was executed; what is left goes in single orders, without a second whole-book close."""
    venue = WholeBookVenue(BOOK)
    venue.lost, venue.closes = True, closes
    log = calls_of_close(venue, store, dict.fromkeys(BOOK, D(0)))
    assert (log.count("close"), log.count("submit")) == (1, 0 if closes else 3)
    assert statuses(store) == ["flat"]


@pytest.mark.parametrize(
    ("targets", "metered"),
    [
        ({"BTC": D(0), "ETH": D(0)}, True),
        ({"BTC": D(0), "ETH": D(0), "SOL": D(1)}, True),
        ({"BTC": D(0), "ETH": D(0), "SOL": D(0)}, False),
    ],
    ids=["a position is to stay", "a part is to stay", "single orders need not wait"],
)
def test_single_orders_are_sent_where_a_whole_book_close_is_not_decided_or_not_needed(
    store: Store, targets: dict[str, Decimal], metered: bool
) -> None:
    """The venue's request would close what nobody decided to close, or is no faster."""
    venue = WholeBookVenue(BOOK)
    log = calls_of_close(venue, store, targets, metered=metered)
    assert (log.count("close"), log.count("submit")) == (0, len(targets))
    assert {symbol: venue.position(symbol) for symbol in BOOK} == BOOK | targets


def test_positions_without_reduce_only_are_not_closed_as_a_whole_book(store: Store) -> None:
    """Spot holdings go in orders of their own."""

    class Spot(WholeBookVenue):
        async def submit(self, request: OrderRequest):  # type: ignore[no-untyped-def]  # as HonestVenue's
            assert not request.reduce_only
            return await super().submit(request)

    venue = Spot(BOOK)
    clock = VirtualClock()
    closer = AccountExecutor("main", venue, store, clock, budget=RequestBudgets().of("main", "venue", venue.traits))
    closer.adopt(commit(store, decide(venue, dict.fromkeys(BOOK, D(0)), reduce_only=False)))
    assert asyncio.run(drive(closer))
    assert "close book" not in venue.state["log"]
