"""Outages of accounts: a page when an armed account cannot be polled for long, and one when it can be again.

A single failed poll is not reported: venues limit and restart. An outage is reported once the account has not been
polled for as long as three polls may take, and at least 15 s: by then bots treat the lock file of a silent runner as
locked. A venue that refuses the key is reported at once, since repeating the request does not help.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct, field

from killswitch.accounts.poll.poller import Polls
from killswitch.model.backoff import Backoff
from killswitch.model.clock import Clock
from killswitch.model.decision import Notice
from killswitch.model.instant import rfc3339
from killswitch.model.legible import legible
from killswitch.model.snapshot import AccountSnapshot
from killswitch.render.formats import rounded_duration

POLLS = 3
"""Consecutive failed polls, each as slow as allowed, that are not reported."""
LEAST = 15.0
"""Seconds; the least time for which polls may fail without a report."""
REMEMBERED = 3600.0
"""Seconds for which each report doubles the time before the next one: a flapping account is not paged each time."""
LONGEST = 64
"""The longest such time, as a multiple of the first."""


def unreported_seconds(interval: float, read_timeout: float) -> float:
    """Seconds for which polls of an account may fail before the outage is reported."""
    return max(LEAST, POLLS * (interval + read_timeout))


class _Outage(Struct):
    """The outage of one account. `failing` and `reported_at` are in seconds of the runner's clock."""

    failing: float | None = None
    since: datetime | None = None
    problem: str | None = None
    is_denied: bool = False
    reported_at: list[float] = field(default_factory=list)


class Outages:
    """Tracks the outages of a runner's accounts."""

    def __init__(self, names: Iterable[str], polls: Polls, clock: Clock, unreported: float) -> None:
        """`names`: the armed accounts. `unreported`: seconds for which polls may fail without a report."""
        self._polls = polls
        self._clock = clock
        self._waits = Backoff(unreported, unreported * LONGEST)
        self._armed = frozenset(names)
        self._outages: dict[str, _Outage] = {}
        self._cleared: list[str] = []

    @property
    def problems(self) -> tuple[str, ...]:
        """One message per account that cannot be polled, unchanged until it can be."""
        return tuple(each.problem for each in self._outages.values() if each.problem is not None)

    def update(self, accounts: Iterable[AccountSnapshot], as_of: datetime) -> tuple[str, ...]:
        """Record new snapshots; return the accounts that can be polled again after at least one failure."""
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
        if account.account in self._armed and not self._polls[account.account].is_awaiting_first:
            self._report(account, outage, now, outage.since)
        return False

    def notices(self, as_of: datetime) -> tuple[Notice, ...]:
        """A page, once, for each outage that is over: it reaches those who were paged."""
        cleared, self._cleared = self._cleared, []
        return tuple(Notice(as_of, "runner", "runner", "warning", "page", text) for text in cleared)

    def _report(self, account: AccountSnapshot, outage: _Outage, now: float, since: datetime) -> None:
        assert outage.failing is not None
        outage.reported_at = [at for at in outage.reported_at if now - at < REMEMBERED]
        denied = self._polls[account.account].is_denied
        again = len(outage.reported_at) - (outage.problem is not None)
        wait = 0.0 if denied and not again else self._waits.after(again + 1)
        if now - outage.failing < wait or (outage.problem is not None and (outage.is_denied or not denied)):
            return
        if outage.problem is None:
            outage.reported_at.append(now)
        outage.is_denied = denied
        outage.problem = _message(account, since, denied=denied)

    def _over(self, name: str, outage: _Outage, as_of: datetime) -> None:
        if outage.problem is not None and outage.since is not None:
            self._cleared.append(f"account {name} can be read again, after {rounded_duration(as_of - outage.since)}")
        outage.failing = outage.since = outage.problem = None
        outage.is_denied = False


def _message(account: AccountSnapshot, since: datetime, *, denied: bool) -> str:
    reason = legible(account.reason or "no reason given")
    if denied:
        return (
            f"the venue refuses the key of account {account.account}: {reason}; nothing can be read or closed there: "
            "put a valid key where the document's credentials point to, and restart the runner"
        )
    when = rfc3339(since.replace(microsecond=0))
    return (
        f"account {account.account} cannot be read since {when} ({account.quality}: {reason}); until it is, its "
        "triggers go by their on_unknown"
    )
