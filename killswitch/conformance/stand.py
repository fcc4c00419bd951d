"""What a tester of an adapter must bring: the venue, real or rehearsed, in the tester's hands."""

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
    "held",  # the connection breaks, and the request arrives 8 s later: it is done if the venue takes it then
    "held_long",  # the same, and 40 s later
    "garbled",  # it is done, and the answer is no JSON
    "down",  # the venue says that it is in maintenance: nothing is done
    "limited",  # the venue says that there were too many requests: nothing is done
    "redirected",  # a status of 3xx that names another place, which would do it: nothing is done
    "mispacked",  # it is done, and the answer says that it is compressed, which it is not
    "huge",  # it is done, and the answer, a good one, unpacks to more than 64 MB
]
Offer = Literal["faults", "hostile", "hedge", "stops", "flows", "minimum", "maximum", "answers"]


class Stand(Protocol):
    """One account at a venue that does what it is told. All symbols are as the adapter names them."""

    offers: frozenset[Offer]
    """What can be tried here. Guarantees about anything else are shown as not tried, by name."""
    symbols: tuple[str, str]
    """Two symbols that trade at 100 and whose rules the venue tells; amounts of three decimals are exact in both."""
    contract_size: Decimal
    amount_step: Decimal
    """The truth about these symbols."""
    more: tuple[str, ...]
    """Further symbols like them: so many that positions in all of them fill more than one page of the venue's answers,
    where it has pages. May be empty."""
    signed: frozenset[str]
    """Fields of the answers whose sign is the side of a position, by the venue's documents: with another one it is
    another position."""
    mutations: int
    """How many changes of its answers a test tries; the whole of them is for a command."""
    secrets: tuple[str, ...]
    """The credentials in use: none of them may ever be said."""
    patience: float
    """Seconds within which a change must show in snapshots that are read once a second."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to the end, in a loop and a time of the stand's choice."""
        ...

    async def open(self, book: Mapping[Key, Decimal], *, hedge: bool = False) -> VenueAdapter:
        """Start the venue with this book and nothing else, and connect the adapter to it."""
        ...

    async def connect(self, change: Change) -> VenueAdapter:
        """Another adapter of the account, as in a process that has just begun: it knows nothing that the first one has
        learned. Until the next one is connected, `change` makes of every answer (question, JSON) what arrives."""
        ...

    async def close(self) -> None:
        """Stop the venue. The adapter has been closed before."""
        ...

    def now(self) -> datetime:
        """The venue's time, which is the adapter's too."""
        ...

    def equity(self) -> Decimal:
        """The truth: what the account is worth, in its currency."""
        ...

    def held(self, key: Key) -> Decimal:
        """The truth: contracts of a position, 0 for none."""
        ...

    def taken(self, client_order_id: str) -> int:
        """The truth: how many orders of that id the venue has ever taken."""
        ...

    def resting(self) -> int:
        """The truth: how many orders rest now."""
        ...

    async def trade(self, key: Key, contracts: Decimal) -> None:
        """Somebody else's order grows the position, or takes from it (negative)."""
        ...

    async def rest(self, symbol: str, side: OrderSide, contracts: Decimal, *, trigger: Decimal | None = None) -> None:
        """Somebody's order rests: a limit far from the market, or with `trigger` a reduce-only stop."""
        ...

    async def flow(self, amount: Decimal) -> None:
        """Money arrives (+) or is withdrawn (−), in the account's currency."""
        ...

    def breaks(self, call: Call, mishap: Mishap) -> None:
        """The next call of this kind goes wrong so, once. The hostile ones: for who offers `hostile`."""
        ...

    def strayed(self) -> int:
        """The truth: how many requests have reached the place that a redirect named. For who offers `hostile`."""
        ...
