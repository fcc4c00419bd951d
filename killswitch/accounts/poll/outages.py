"""Outages of accounts: a page when an armed account cannot be polled for long, and one when it can be again.

A single failed poll is not reported: venues limit and restart. An outage is reported once the account has not been
polled for as long as three polls may take, and at least 15 s: by then bots treat the lock file of a silent runner as
locked. A venue that refuses the key is reported at once, since repeating the request does not help.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from killswitch.accounts.poll.poller import Polls
from killswitch.model.alert import Alert, Alerts
from killswitch.model.clock import Clock
from killswitch.model.instant import rfc3339, to_micros
from killswitch.model.legible import legible
from killswitch.model.snapshot import AccountSnapshot

POLLS = 3
"""Consecutive failed polls, each as slow as allowed, that are not reported."""
LEAST = 15.0
"""Seconds; the least time for which polls may fail without a report."""


def unreported_seconds(interval: float, read_timeout: float) -> float:
    """Seconds for which polls of an account may fail before the outage is reported."""
    return max(LEAST, POLLS * (interval + read_timeout))


class _Outage(Struct):
    """The outage of one account: since when its polls fail, by the runner's clock in seconds, and in ticks."""

    failing: float
    since: datetime
    alert: Alert | None = None


class Outages:
    """Tracks the outages of a runner's accounts."""

    def __init__(self, names: Iterable[str], polls: Polls, clock: Clock, unreported: float) -> None:
        """`names`: the armed accounts. `unreported`: seconds for which polls may fail without a report."""
        self._polls = polls
        self._clock = clock
        self._unreported = unreported
        self._armed = tuple(names)
        self._outages: dict[str, _Outage] = {}
        self._polled: set[str] = set()

    @property
    def judges(self) -> tuple[str, ...]:
        return tuple(f"outage/{name}" for name in self._armed)

    @property
    def alerts(self) -> Alerts:
        """A page for each armed account that cannot be polled; unknown until its first poll, and at first failures."""
        outages = [(name, self._outages.get(name)) for name in self._armed]
        found = tuple(outage.alert for _, outage in outages if outage is not None and outage.alert is not None)
        unknown = (
            f"outage/{name}"
            for name, outage in outages
            if name not in self._polled or (outage is not None and outage.alert is None)
        )
        return Alerts(found, tuple(unknown))

    def update(self, accounts: Iterable[AccountSnapshot], as_of: datetime) -> tuple[str, ...]:
        """Record new snapshots; return the accounts that can be polled again after at least one failure."""
        return tuple(account.account for account in accounts if self._is_back(account, as_of))

    def _is_back(self, account: AccountSnapshot, as_of: datetime) -> bool:
        name = account.account
        self._polled.add(name)
        if account.quality == "ok":
            return self._outages.pop(name, None) is not None
        outage = self._outages.setdefault(name, _Outage(self._clock.monotonic(), as_of))
        if name in self._armed and not self._polls[name].is_awaiting_first:
            self._report(account, outage)
        return False

    def _report(self, account: AccountSnapshot, outage: _Outage) -> None:
        """Report the outage once it has lasted; its text is unchanged, unless it turns out to be a refused key."""
        denied = self._polls[account.account].is_denied
        measure = (Decimal(denied),)
        if outage.alert is not None and outage.alert.measure is not None and outage.alert.measure >= measure:
            return
        if denied or self._clock.monotonic() - outage.failing >= self._unreported:
            outage.alert = Alert(
                f"outage/{account.account}",
                "page",
                _message(account, outage.since, denied=denied),
                over=f"account {account.account} can be read again",
                since=to_micros(outage.since),
                measure=measure,
            )


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
