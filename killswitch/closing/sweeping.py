"""When the venue's own "close everything" is the fastest way, and does nothing that was not decided. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.closing.ladder import MARKET
from killswitch.closing.life import State
from killswitch.closing.line import Line
from killswitch.closing.memory import Memory
from killswitch.closing.reconciliation import Reading
from killswitch.closing.requests import Requests
from killswitch.model.venue import BookClosingVenue, VenueAdapter, VenueTraits


def may_sweep(
    venue: VenueAdapter,
    traits: VenueTraits,
    requests: Requests,
    wanted: Sequence[Line],
    memory: Memory,
    reading: Reading,
) -> list[Line]:
    """The lines that one request closes all at once; empty where single orders are to be sent.

    Only where every position of the account is to be closed wholly, at market and at once, where nothing was sent for
    any of them yet, and where single orders would have to wait for room.
    """
    if not traits.whole_book or not isinstance(venue, BookClosingVenue) or len(wanted) < 2:
        return []
    if {line.key for line in wanted} != set(reading.positions) or reading.doubtful:
        return []
    for line in wanted:
        work = memory.works[line.decision]
        plain = work.ladder is MARKET and not work.timetable.declared
        fresh = line.state is State.READY and line.attempt == 0 and not line.swept and not line.aside
        if not (line.guarded and plain and fresh):
            return []
    has_room = requests.room("submit", [line.symbol for line in wanted]) >= len(wanted)
    return [] if has_room or requests.wait("close_book") > 0 else list(wanted)
