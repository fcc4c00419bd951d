"""State machine of a position target: one decision's target on one position, with journal entries as events.

The journal is the only source of state: a running program and one that restarts after a kill -9 fold the same entries
through the same table and reach the same state.

| state       | means                                              | leaves it by                                     |
|-------------|----------------------------------------------------|--------------------------------------------------|
| `READY`     | nothing is in flight; may send                     | `sending`, `swept`, `verified`, `finished`       |
| `SENDING`   | journaled; the request may or may not have left    | the venue's answer, or the lack of one           |
| `UNKNOWN`   | order status unknown: query it, never resend       | the venue's answer to the query, `set_aside`     |
| `WORKING`   | the venue has the order, and it is not final       | `filled`                                         |
| `SETTLED`   | final at the venue; its effect is not verified yet | `verified`; the next slice after a full fill     |
| `AT_TARGET` | the venue's own positions show the target reached  | `verified` (it grew again), `finished`           |
| `OVER`      | the decision's work on the account has ended       | nothing                                          |

Journaled **before** the action: `planned` (with the decision, in the tick's transaction), `sending` and `swept` (before
the request is sent). Journaled **after** it, as the answer: `acknowledged`, `filled`, `rejected`, `unknown`, `absent`,
`verified`, `finished`. After a kill between an action and its answer the target is `SENDING` and its order is queried.

An intent is thus planned → journaled (`SENDING`) → sent → acknowledged (`WORKING`), unknown or rejected → filled,
fully or partly (`SETTLED`) → verified (`AT_TARGET`, or `READY` for the remainder). `finished` holds the final status:
flat, `residual`, `blocked` or `abandoned`.

An order of unknown status may be *set aside* (detached), so that its position does not wait for the venue's answer: the
target returns to `READY`, and the order continues independently. It still counts as the worst case, and is queried
until its status is known, or until the query times out and it is `abandoned`:

| answer about an order set aside    | the order                                                       |
|------------------------------------|-----------------------------------------------------------------|
| `acknowledged`, `unknown`          | remains set aside                                               |
| `filled`, `rejected`, `absent`     | is settled; its fills count                                     |
| `abandoned`                        | is no longer queried, and permanently counts as the worst case  |

An entry that cannot be decoded counts as the worst case: an order in flight has an unknown status, an unknown order is
tracked as if it had been set aside, and any other effect is unverified.

A client order id is used up once the venue has answered about the order, and when the order is set aside. After
`absent`, and after a refusal without processing, the same id is sent again. Venues that keep client order ids for ever
may report `absent` while the request is still valid (`early`): if it arrives after all, the venue refuses the second
order as a duplicate. At other venues `absent` is journaled once the request can no longer be executed, or once it can
have no effect: a detached order that may only reduce a position that other orders have closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Final

from killswitch.journal.entries import NEXT_SLICE, Entry, OrderSending, Undecodable, Verified, known

ZERO = Decimal(0)


class TargetState(Enum):
    __hash__ = object.__hash__  # members are unique, and the hash by the name is a Python call at each look-up

    READY = "ready"
    SENDING = "sending"
    UNKNOWN = "unknown"
    WORKING = "working"
    SETTLED = "settled"
    AT_TARGET = "at target"
    OVER = "over"


class TargetEvent(Enum):
    """A journal entry as an event of the state machine."""

    __hash__ = object.__hash__  # as `TargetState`

    SENDING = "sending"
    NEXT_SLICE = "sending the next slice"
    SWEPT = "swept"
    ACKNOWLEDGED = "acknowledged"
    STATUS_UNKNOWN = "unknown"
    FILLED = "filled"
    REJECTED = "rejected"
    ABSENT = "absent"
    SET_ASIDE = "set_aside"
    ABANDONED = "abandoned"
    VERIFIED_AT = "verified at target"
    VERIFIED_ABOVE = "verified above target"
    FINISHED = "finished"


_ANSWERS: Final = {
    TargetEvent.ACKNOWLEDGED: TargetState.WORKING,
    TargetEvent.FILLED: TargetState.SETTLED,
    TargetEvent.REJECTED: TargetState.READY,
    TargetEvent.ABSENT: TargetState.READY,
    TargetEvent.SET_ASIDE: TargetState.READY,
}
_VERDICTS: Final = {TargetEvent.VERIFIED_AT: TargetState.AT_TARGET, TargetEvent.VERIFIED_ABOVE: TargetState.READY}

TRANSITIONS: Final[Mapping[TargetState, Mapping[TargetEvent, TargetState]]] = {
    TargetState.READY: {
        TargetEvent.SENDING: TargetState.SENDING,
        TargetEvent.SWEPT: TargetState.SETTLED,
        TargetEvent.FINISHED: TargetState.OVER,
        **_VERDICTS,
    },
    TargetState.SENDING: {TargetEvent.STATUS_UNKNOWN: TargetState.UNKNOWN, **_ANSWERS},
    TargetState.UNKNOWN: {**_ANSWERS},
    TargetState.WORKING: {TargetEvent.FILLED: TargetState.SETTLED},
    TargetState.SETTLED: {TargetEvent.NEXT_SLICE: TargetState.SENDING, **_VERDICTS},
    TargetState.AT_TARGET: {TargetEvent.FINISHED: TargetState.OVER, **_VERDICTS},
    TargetState.OVER: {},
}
IN_FLIGHT: Final = frozenset({TargetState.SENDING, TargetState.UNKNOWN, TargetState.WORKING})

DETACHED_TRANSITIONS: Final[Mapping[TargetEvent, bool]] = {
    TargetEvent.ACKNOWLEDGED: True,
    TargetEvent.STATUS_UNKNOWN: True,
    TargetEvent.FILLED: False,
    TargetEvent.REJECTED: False,
    TargetEvent.ABSENT: False,
    TargetEvent.ABANDONED: False,
}
"""Event about an order that was set aside → whether the order is still queried after it."""


class ForbiddenTransitionError(Exception):
    """A journal entry is no valid transition: a defect of this program, or an entry of another writer."""


_EVENTS: Final = {event.value: event for event in TargetEvent}
"""Kind of entry → event, for kinds that map to one event regardless of their data."""


def event_of(entry: Entry) -> TargetEvent | None:
    """The event of `entry`; None for kinds that cause no transition (`planned`, `cancelled`, `locked`, …).

    It is also None for an entry that cannot be decoded, which `PositionTarget.replay` counts as the worst case.
    """
    if isinstance(entry, Verified):
        if entry.is_last:
            return None
        position, target = known(entry.position), known(entry.target)
        reached = position is not None and target is not None and position <= target
        return TargetEvent.VERIFIED_AT if reached else TargetEvent.VERIFIED_ABOVE
    if isinstance(entry, OrderSending) and entry.after == NEXT_SLICE:
        return TargetEvent.NEXT_SLICE
    return None if isinstance(entry, Undecodable) else _EVENTS.get(entry.kind)
