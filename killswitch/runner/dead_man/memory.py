"""What a store remembers of the venues' timers, so that a restart and an audit know when one ran."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec
from msgspec import Struct

from killswitch.model.decision import Notice
from killswitch.model.words import Severity

LIVE_NAME = "deadman"
KEPT = 200
"""So many of the newest happenings are kept."""
A_DAY = timedelta(days=1)


class TimerView(Struct, frozen=True):
    """What `status` shows of one account's timer. `until`: when it goes off unless it is refreshed.

    `refreshed_at`: when the last word that the venue has confirmed had left; None for one that is not surely armed.
    """

    account: str
    switch: str
    state: Literal["armed", "off", "unknown"]
    until: datetime | None = None
    why: str | None = None
    refreshed_at: datetime | None = None


class Running(Struct):
    """A timer that was started, or may have been: until when at the latest word that left for the venue."""

    until: datetime
    symbols: list[str] = []


class Happening(Struct, frozen=True):
    """Something that a timer did, and whether a notice has told it."""

    at: datetime
    account: str
    text: str
    severity: Severity


class Memory(Struct):
    """The blob. `untold` is how many of the newest happenings no tick has told yet."""

    running: dict[str, Running] = {}
    went_off: dict[str, list[datetime]] = {}
    happenings: list[Happening] = []
    untold: int = 0

    def add(self, happening: Happening) -> None:
        """Something has happened."""
        self.happenings = [*self.happenings, happening][-KEPT:]
        self.untold = min(self.untold + 1, KEPT)

    def gone_off(self, account: str, at: datetime) -> None:
        """A timer has run out."""
        self.went_off[account] = [*self.went_off.get(account, []), at][-KEPT:]

    def in_a_day(self, account: str, now: datetime) -> int:
        """How often the account's timer has gone off in the last 24 hours."""
        return sum(now - at < A_DAY for at in self.went_off.get(account, ()))

    def notices(self) -> tuple[Notice, ...]:
        """Everything untold, each with the time at which it happened; it counts as told from then on."""
        fresh = self.happenings[len(self.happenings) - self.untold :]
        self.untold = 0
        return tuple(Notice(each.at, "runner", "runner", "warning", each.severity, each.text) for each in fresh)


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Memory)

encode_memory = _ENCODER.encode


def decode_memory(blob: bytes | None) -> Memory:
    """The memory as stored; an empty one where there is none that this version can read."""
    try:
        return Memory() if blob is None else _DECODER.decode(blob)
    except msgspec.DecodeError:
        return Memory()
