"""A dead man's switch as it is run."""

from __future__ import annotations

from killswitch.model.place import Place
from killswitch.model.record import Record, record


@record
class TimerRule(Record):
    """A timer at the venue, for each of `accounts`. Times are whole microseconds."""

    name: str
    accounts: tuple[str, ...]
    timeout: int
    """Without a refresh for so long the venue cancels the account's resting orders."""
    refresh: int
    """How often it is started anew."""
    accept_unprotected: bool
    """Whether it may run while it would cancel protective stops of open positions."""
    place: Place
