"""The life of a decision's target on one position: a state machine whose events are journal entries.

What is not in the journal did not happen: the running program and the one that restarts after a kill -9 fold
the same entries through the same table, so that both know the same.

| state       | means                                              | leaves it by                                     |
|-------------|----------------------------------------------------|--------------------------------------------------|
| `READY`     | nothing is in flight; may send                     | `sending`, `swept`, `verified`, `finished`       |
| `SENDING`   | journaled; the request may or may not have left    | the venue's answer, or the lack of one           |
| `UNKNOWN`   | no answer said what happened: ask, never resend    | what the venue says when asked, `set_aside`      |
| `WORKING`   | the venue has the order, and it is not final       | `filled`                                         |
| `SETTLED`   | final at the venue; its effect is not verified yet | `verified`; the next slice after a full fill     |
| `AT_TARGET` | the venue's own positions show the target reached  | `verified` (it grew again), `finished`           |
| `OVER`      | the decision's work on the account has ended       | nothing                                          |

Journaled **before** the deed: `planned` (with the decision, in the tick's transaction), `sending` and `swept` (before
the request leaves). Journaled **after** it, as the answer: `acknowledged`, `filled`, `rejected`, `unknown`, `absent`,
`verified`, `finished`. Killed between a deed and its answer, the line is `SENDING`, and is asked about.

An intent is thus planned → journaled (`SENDING`) → sent → acknowledged (`WORKING`), unknown or rejected → filled,
wholly or in part (`SETTLED`) → verified (`AT_TARGET`, or `READY` for what is left). How the work ends is in `finished`:
flat, `residual`, `blocked` or `abandoned`.

An order of unknown fate may be *set aside*, so that its position need not wait for the venue's answer: the line is
`READY` again, and the order goes on by itself. It still counts at its worst, and is asked about until the venue says
what became of it, or until asking has lasted long enough to be `abandoned`:

| set aside, and then the venue says | the order                                                       |
|------------------------------------|-----------------------------------------------------------------|
| `acknowledged`, `unknown`          | is still aside                                                  |
| `filled`, `rejected`, `absent`     | is settled; its fills count                                     |
| `abandoned`                        | is asked about no longer, and counts at its worst for ever      |

An entry that cannot be decoded counts at its worst: an order in flight is of unknown fate, one that the line does not
know by its name is followed as if it had been set aside, and whatever else it was, its effect is not verified yet.

A client order id is spent once the venue has answered about it, and when it is set aside. After `absent`, and after a
refusal to listen, the same id is sent again. Where a venue keeps names for ever, `absent` may come while the request is
still valid (`EARLY`): should it arrive after all, the venue refuses the second of the two as a duplicate. Elsewhere
`absent` comes when the request can no longer be carried out.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Final

from killswitch.journal.entries import (
    NEXT_SLICE,
    Entry,
    Sending,
    Undecodable,
    Verified,
    known,
)

ZERO = Decimal(0)


class State(Enum):
    READY = "ready"
    SENDING = "sending"
    UNKNOWN = "unknown"
    WORKING = "working"
    SETTLED = "settled"
    AT_TARGET = "at target"
    OVER = "over"


class Event(Enum):
    """A journal entry, as far as it moves the machine."""

    SENDING = "sending"
    NEXT_SLICE = "sending the next slice"
    SWEPT = "swept"
    ACKNOWLEDGED = "acknowledged"
    FATE_UNKNOWN = "unknown"
    FILLED = "filled"
    REJECTED = "rejected"
    ABSENT = "absent"
    SET_ASIDE = "set_aside"
    ABANDONED = "abandoned"
    VERIFIED_AT = "verified at target"
    VERIFIED_ABOVE = "verified above target"
    FINISHED = "finished"


_ANSWERS: Final = {
    Event.ACKNOWLEDGED: State.WORKING,
    Event.FILLED: State.SETTLED,
    Event.REJECTED: State.READY,
    Event.ABSENT: State.READY,
    Event.SET_ASIDE: State.READY,
}
_VERDICTS: Final = {Event.VERIFIED_AT: State.AT_TARGET, Event.VERIFIED_ABOVE: State.READY}

TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.READY: {Event.SENDING: State.SENDING, Event.SWEPT: State.SETTLED, Event.FINISHED: State.OVER, **_VERDICTS},
    State.SENDING: {Event.FATE_UNKNOWN: State.UNKNOWN, **_ANSWERS},
    State.UNKNOWN: {**_ANSWERS},
    State.WORKING: {Event.FILLED: State.SETTLED},
    State.SETTLED: {Event.NEXT_SLICE: State.SENDING, **_VERDICTS},
    State.AT_TARGET: {Event.FINISHED: State.OVER, **_VERDICTS},
    State.OVER: {},
}
IN_FLIGHT: Final = frozenset({State.SENDING, State.UNKNOWN, State.WORKING})

ASIDE: Final[Mapping[Event, bool]] = {
    Event.ACKNOWLEDGED: True,
    Event.FATE_UNKNOWN: True,
    Event.FILLED: False,
    Event.REJECTED: False,
    Event.ABSENT: False,
    Event.ABANDONED: False,
}
"""What an entry about an order that was set aside does: whether the order is asked about after it."""


class ForbiddenTransitionError(Exception):
    """A journal entry does not follow from the ones before it: a defect of this program, or a foreign hand."""


_EVENTS: Final = {event.value: event for event in Event}
"""Kind of entry → event, for the kinds that are one whatever they say."""


def event_of(entry: Entry) -> Event | None:
    """What `entry` does to a line; None for kinds that do nothing to it (`planned`, `cancelled`, `locked`, …).

    An entry that cannot be decoded is none of these: `Line.recall` counts it at its worst.
    """
    if isinstance(entry, Verified):
        if entry.is_last:
            return None
        position, target = known(entry.position), known(entry.target)
        reached = position is not None and target is not None and position <= target
        return Event.VERIFIED_AT if reached else Event.VERIFIED_ABOVE
    if isinstance(entry, Sending) and entry.after == NEXT_SLICE:
        return Event.NEXT_SLICE
    return None if isinstance(entry, Undecodable) else _EVENTS.get(entry.kind)
