"""The stored record of dead-man timers, from which a restart and an audit see when one ran."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec
from msgspec import Struct

from killswitch.model.decision import Notice
from killswitch.model.store import decoded
from killswitch.model.words import Severity

LIVE_NAME = "deadman"
KEPT = 200
"""Number of the newest events that are kept."""
A_DAY = timedelta(days=1)


class TimerView(Struct, frozen=True):
    """One account's timer as `status` shows it. `until`: when it fires unless it is refreshed.

    `refreshed_at`: when the last refresh that the venue confirmed was sent; None unless it is known to be armed.
    """

    account: str
    switch: str
    state: Literal["armed", "off", "unknown"]
    until: datetime | None = None
    why: str | None = None
    refreshed_at: datetime | None = None


class Running(Struct):
    """A timer that was started, or may have been. `until`: when it fires after the last request sent."""

    until: datetime
    symbols: list[str] = []


class TimerEvent(Struct, frozen=True):
    """An event of a timer, reported by a notice."""

    at: datetime
    account: str
    text: str
    severity: Severity


class TimerRecord(Struct):
    """The stored blob, with the keys of earlier versions. `unreported`: the newest events that no tick has reported."""

    running: dict[str, Running] = {}
    fired: dict[str, list[datetime]] = msgspec.field(default_factory=dict, name="went_off")
    happenings: list[TimerEvent] = []
    unreported: int = msgspec.field(default=0, name="untold")

    def add(self, happening: TimerEvent) -> None:
        """Record an event."""
        self.happenings = [*self.happenings, happening][-KEPT:]
        self.unreported = min(self.unreported + 1, KEPT)

    def record_fired(self, account: str, at: datetime) -> None:
        """Record that a timer has fired."""
        self.fired[account] = [*self.fired.get(account, []), at][-KEPT:]

    def in_a_day(self, account: str, now: datetime) -> int:
        """How often the account's timer has fired in the last 24 hours."""
        return sum(now - at < A_DAY for at in self.fired.get(account, ()))

    def notices(self) -> tuple[Notice, ...]:
        """A notice for each unreported event, dated by the event; they count as reported from then on."""
        fresh = self.happenings[len(self.happenings) - self.unreported :]
        self.unreported = 0
        return tuple(
            Notice(each.at, "runner", "runner", "warning", each.severity, each.text, title="a venue's dead-man timer")
            for each in fresh
        )


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(TimerRecord)

encode_record = _ENCODER.encode


def decode_record(blob: bytes | None) -> TimerRecord:
    """The stored record; an empty one if there is none that this version can read."""
    return decoded(_DECODER.decode, blob) or TimerRecord()
