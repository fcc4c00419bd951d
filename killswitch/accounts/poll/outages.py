"""Accounts that cannot be read: what a person must know of an armed one when it lasts, and when it is over.

A single reading that fails is no news: venues limit, restart and stumble. It is news once the account has not been
read for as long as three readings may take, and 15 s at least: by then bots take a silent runner's lock file for a
lock, and this is an account on which the runner is as good as silent. A venue that refuses the key is told at once,
since asking again brings the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from killswitch.accounts.poll.poller import Readers
from killswitch.model.clock import Clock
from killswitch.model.decision import Notice
from killswitch.model.instant import rfc3339
from killswitch.model.legible import legible
from killswitch.model.snapshot import AccountSnapshot

READINGS = 3
"""So many readings in a row, each as slow as it may be, may fail without a word."""
LEAST = 15.0
"""Seconds for which they may fail at least, however fast readings are."""
REMEMBERED = 3600.0
"""Seconds for which an account that was told is given twice as long before it is told again: one that comes and goes
is no page each time."""
MOST_DOUBLINGS = 6


def patience(interval: float, read_timeout: float) -> float:
    """Seconds for which an account may be unread before it is a problem."""
    return max(LEAST, READINGS * (interval + read_timeout))


@dataclass(slots=True)
class _Outage:
    """What is known of one account. Times of `failing` and `told_at` are seconds of the runner's clock."""

    failing: float | None = None
    since: datetime | None = None
    problem: str | None = None
    denied: bool = False
    told_at: list[float] = field(default_factory=list)


class Unread:
    """The accounts of one runner."""

    def __init__(self, names: Iterable[str], readers: Readers, clock: Clock, patience: float) -> None:
        """`names`: the armed accounts. `patience`: seconds for which one may be unread without a word."""
        self._readers = readers
        self._clock = clock
        self._patience = patience
        self._armed = frozenset(names)
        self._outages: dict[str, _Outage] = {}
        self._cleared: list[str] = []

    @property
    def problems(self) -> tuple[str, ...]:
        """The accounts that are not read, each in words that stay the same until it is."""
        return tuple(each.problem for each in self._outages.values() if each.problem is not None)

    def look(self, accounts: Iterable[AccountSnapshot], as_of: datetime) -> tuple[str, ...]:
        """Take in what was read anew; which accounts are read again, after at least one reading that failed."""
        return tuple(account.account for account in accounts if self._is_back(account, as_of))

    def _is_back(self, account: AccountSnapshot, as_of: datetime) -> bool:
        now = self._clock.monotonic()
        outage = self._outages.setdefault(account.account, _Outage())
        if account.quality == "ok":
            was = outage.failing is not None
            self._over(account.account, outage, as_of)
            return was
        if outage.failing is None or outage.since is None:
            outage.failing, outage.since = now, as_of
        if account.account in self._armed and not self._readers[account.account].awaits_first:
            self._judge(account, outage, now, outage.since)
        return False

    def notices(self, as_of: datetime) -> tuple[Notice, ...]:
        """What is over, each once: as a page, so that it reaches those who were paged."""
        told, self._cleared = self._cleared, []
        return tuple(Notice(as_of, "runner", "runner", "warning", "page", text) for text in told)

    def _judge(self, account: AccountSnapshot, outage: _Outage, now: float, since: datetime) -> None:
        assert outage.failing is not None
        outage.told_at = [at for at in outage.told_at if now - at < REMEMBERED]
        denied = self._readers[account.account].denied
        again = len(outage.told_at) - (outage.problem is not None)
        wait = 0.0 if denied and not again else self._patience * 2.0 ** min(again, MOST_DOUBLINGS)
        if now - outage.failing < wait or (outage.problem is not None and (outage.denied or not denied)):
            return
        if outage.problem is None:
            outage.told_at.append(now)
        outage.denied = denied
        outage.problem = _words(account, since, denied=denied)

    def _over(self, name: str, outage: _Outage, as_of: datetime) -> None:
        if outage.problem is not None and outage.since is not None:
            self._cleared.append(f"account {name} is read again, after {_length(as_of - outage.since)}")
        outage.failing = outage.since = outage.problem = None
        outage.denied = False


def _words(account: AccountSnapshot, since: datetime, *, denied: bool) -> str:
    reason = legible(account.reason or "no reason given")
    if denied:
        return (
            f"the venue refuses the key of account {account.account}: {reason}; nothing can be seen or closed there: "
            "put a good key where the document's credentials point to, and start the runner anew"
        )
    when = rfc3339(since.replace(microsecond=0))
    return (
        f"account {account.account} cannot be read since {when} ({account.quality}: {reason}); until it is, its "
        "triggers go by their on_unknown"
    )


def _length(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
