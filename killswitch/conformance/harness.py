"""The harness that an adapter's author provides: a venue, real or simulated, that the test controls."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeVar

from killswitch.conformance.mutations import Change
from killswitch.model.snapshot import OrderSide, Side
from killswitch.model.venue import Call, VenueAdapter

T = TypeVar("T")
Key = tuple[str, Side]

Mishap = Literal[
    "lost",  # the connection breaks before the request has arrived: nothing is done
    "done",  # it is done, and the connection breaks before the answer
    "silent",  # it never arrives, and no answer ever comes
    "done_silent",  # it is done, and no answer ever comes
    "held",  # the connection breaks, and the request arrives 8 s later: it is done if the venue accepts it then
    "held_long",  # the same, and 40 s later
    "garbled",  # it is done, and the answer is no JSON
    "down",  # the venue answers that it is in maintenance: nothing is done
    "limited",  # the venue answers that there were too many requests: nothing is done
    "redirected",  # a status of 3xx that names another place, which would do it: nothing is done
    "mispacked",  # it is done, and the answer claims to be compressed, but is not
    "huge",  # it is done, and the answer, a good one, unpacks to more than 64 MB
]
Offer = Literal["faults", "hostile", "hedge", "stops", "flows", "minimum", "maximum", "answers", "watch", "transfers"]


class VenueHarness(Protocol):
    """One account at a venue that a test controls. Symbols are written as the adapter writes them."""

    offers: frozenset[Offer]
    """What can be tested here. Guarantees about anything else are reported as not tried, by name."""
    symbols: tuple[str, str]
    """Two symbols that trade at 100 and whose rules the venue publishes; amounts with three decimals are exact in
    both."""
    contract_size: Decimal
    amount_step: Decimal
    """The true rules of these symbols."""
    more: tuple[str, ...]
    """More symbols like them: enough that positions in all of them fill more than one page of the venue's answers,
    where it has pages. May be empty."""
    signed: frozenset[str]
    """Fields of answers whose sign is the side of a position, by the venue's documentation: another sign is another
    position."""
    mutations: int
    """How many changes of its answers a test tries; a command tries all of them."""
    secrets: tuple[str, ...]
    """The credentials in use, which must never appear in any text."""
    patience: float
    """Seconds within which a change must show in snapshots that are taken once a second."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, in the harness's event loop and with its clock."""

    async def open(self, book: Mapping[Key, Decimal], *, hedge: bool = False, watch: bool = False) -> VenueAdapter:
        """Start the venue with this book and nothing else, and connect the adapter to it.

        `watch`: with `symbols` as the account's watch list. Needs the offer `watch`.
        """

    async def connect(self, change: Change) -> VenueAdapter:
        """Connect another adapter of the account, as a new process would: without the state of the first one.
        Until the next connection, the adapter receives `change(question, answer)` in place of every answer (JSON)."""

    async def close(self) -> None:
        """Stop the venue. The adapter is closed before."""

    def now(self) -> datetime:
        """The time of the venue and of the adapter."""

    def equity(self) -> Decimal:
        """The true equity of the account, in its currency."""

    def held(self, key: Key) -> Decimal:
        """The true size of a position in contracts, 0 for none."""

    def taken(self, client_order_id: str) -> int:
        """The true number of orders with this id that the venue has ever accepted."""

    def resting(self) -> int:
        """The true number of orders that rest now."""

    async def trade(self, key: Key, contracts: Decimal) -> None:
        """Add contracts to the position by another trader's order, or remove them (negative)."""

    async def rest(self, symbol: str, side: OrderSide, contracts: Decimal, *, trigger: Decimal | None = None) -> None:
        """Place another trader's resting order: a limit far from the market, or with `trigger` a reduce-only stop."""

    async def flow(self, amount: Decimal) -> None:
        """Make a deposit (+) or withdrawal (−), in the account's currency."""

    def breaks(self, call: Call, mishap: Mishap) -> None:
        """Make the next call of this kind fail once, in this way. Hostile failures need the offer `hostile`."""

    @property
    def transfer_target(self) -> str:
        """The name of another account of the venue that transfers reach. Needs the offer `transfers`."""

    def moved(self) -> Decimal:
        """The true amount that has left the account by transfers. Needs the offer `transfers`."""

    def strayed(self) -> int:
        """The true number of requests that reached the target of a redirect. Needs the offer `hostile`."""
