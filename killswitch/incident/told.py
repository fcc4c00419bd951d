"""Who was told of an incident: what the outbox of notifications says of its decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import msgspec

from killswitch.incident.message import Message, decode_message
from killswitch.incident.record import Item, Moment
from killswitch.model.instant import from_micros
from killswitch.model.spelling import instant
from killswitch.model.store import Delivery, Outbox

LOOKED_THROUGH = 10_000
"""How many of the newest notifications are looked through for those of an incident."""

_KEY, _TITLE = "notified", "Notifications sent"

Told = tuple[Delivery, Message]


def told_of(store: Outbox, decisions: Collection[str]) -> list[Told]:
    """Every notification about the decisions, oldest first."""
    found = []
    for delivery in reversed(store.deliveries(LOOKED_THROUGH)):
        try:
            message = decode_message(delivery.message.body)
        except msgspec.DecodeError:
            continue  # another version's: what it is about cannot be told
        if message.decision in decisions:
            found.append((delivery, message))
    return found


def item(told: Sequence[Told]) -> Item:
    """The checklist's line: proved where every message was delivered."""
    if not told:
        return Item(_KEY, _TITLE, "open", "no notification is recorded: tell the desk yourself")
    states = Counter(delivery.state for delivery, _ in told)
    targets = ", ".join(dict.fromkeys(delivery.message.target for delivery, _ in told))
    if states["delivered"] == len(told):
        newest = max(delivery.ended_at or delivery.message.at for delivery, _ in told)
        count = f"{len(told)} message{'' if len(told) == 1 else 's'}"
        return Item(_KEY, _TITLE, "proved", f"{count} delivered to {targets}, last at {instant(from_micros(newest))}")
    words = [f"{states['pending']} pending"] if states["pending"] else []
    words += [f"{states['given_up']} given up"] if states["given_up"] else []
    why = next((f": {delivery.error}" for delivery, _ in told if delivery.state != "delivered" and delivery.error), "")
    return Item(_KEY, _TITLE, "open", f"{' and '.join(words)} of {len(told)} to {targets}{why}")


def moments(told: Sequence[Told]) -> list[Moment]:
    """When each message arrived, or was given up."""
    words = {"delivered": "told", "given_up": "could not tell"}
    return [
        Moment(from_micros(delivery.ended_at), "told", None,
               f"{words[delivery.state]} {delivery.message.target}: {message.title}")
        for delivery, message in told
        if delivery.ended_at is not None and delivery.state in words
    ]  # fmt: skip
