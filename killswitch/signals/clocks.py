"""Two clocks in one snapshot: ours, which ticks are dated by, and the venue's, which dates rows and answers."""

from __future__ import annotations

from killswitch.model.instant import SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot

BEHIND = 5 * SECOND
"""A venue's clock that is ahead of ours by less is taken for ours: answers are not dated more exactly."""
AHEAD = 30 * SECOND
"""The same of one that is behind: so long an answer may have been under way."""
OLD = 60 * SECOND
"""No good answer is so old when it is judged: where one seems to be, ticks are dated ahead of our clock."""


def venue_time(account: AccountSnapshot) -> int | None:
    """The venue's time of the account's newest answer (microseconds); None where it dates none."""
    wallet, positions = account.wallet_as_of, account.positions_as_of
    if wallet is None or (positions is not None and positions > wallet):
        wallet = positions
    return None if wallet is None else to_micros(wallet)


def ahead_of_venue(account: AccountSnapshot, as_of: int) -> int:
    """By how much ticks are dated ahead of the venue's clock (microseconds); 0 where they agree, or nothing shows it.

    To be added to the venue's times where they are held against a tick's.
    """
    venue = venue_time(account)
    if venue is None or account.observed_at is None or account.quality != "ok":
        return 0
    observed = to_micros(account.observed_at)
    skew, drift = observed - venue, as_of - observed
    return (skew if skew < -BEHIND or skew > AHEAD else 0) + (drift if drift > OLD else 0)
