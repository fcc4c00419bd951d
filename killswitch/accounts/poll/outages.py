"""Outages of accounts: a page when an armed account cannot be polled for long, and one when it can be again.

A single failed poll is not reported: venues limit and restart. An outage is reported once the account has not been
polled for as long as three polls may take, and at least 15 s: by then bots treat the lock file of a silent runner as
locked. It is reported at once if an order there got no answer, and if the venue refuses the key, since repeating the
request does not help then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.accounts.poll.poller import Polls
from killswitch.model.alert import Alert, Alerts
from killswitch.model.clock import Clock
from killswitch.model.instant import rfc3339, to_micros
from killswitch.model.legible import legible
from killswitch.model.snapshot import AccountSnapshot
from killswitch.render.formats import count_of

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
    unanswered: set[str] = set()
    """The orders that got no answer during it, by the keys of what was found of them."""
    closes: bool = False
    """Whether anything is left to close there."""


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

    def note_closes(self, found: Alerts, closing: Collection[str], accounts: Iterable[AccountSnapshot]) -> None:
        """Add to the outages of a tick which orders got no answer (of what was `found`) and where a close is under way.

        An outage in which an order got no answer is reported at once: the order has waited for its own answer long
        enough, and its page would have the outage as its cause.
        """
        for account in accounts:
            outage = self._outages.get(account.account)
            if outage is None or account.quality == "ok" or account.account not in self._armed:
                continue
            key = f"outage/{account.account}"
            orders = {alert.key for alert in found.found if key in alert.part_of and not alert.lasts}
            before = outage.unanswered, outage.closes
            outage.unanswered, outage.closes = outage.unanswered | orders, account.account in closing
            if orders and outage.alert is None:
                self._report(account, outage, at_once=True)
            elif outage.alert is not None and before != (outage.unanswered, outage.closes):
                denied = self._polls[account.account].is_denied
                text = _message(account, outage, denied=denied)
                outage.alert = replace(outage.alert, text=text, closing_on=_closing_on(account, outage))

    def _is_back(self, account: AccountSnapshot, as_of: datetime) -> bool:
        name = account.account
        self._polled.add(name)
        if account.quality == "ok":
            return self._outages.pop(name, None) is not None
        outage = self._outages.setdefault(name, _Outage(self._clock.monotonic(), as_of))
        if name in self._armed and not self._polls[name].is_awaiting_first:
            self._report(account, outage)
        return False

    def _report(self, account: AccountSnapshot, outage: _Outage, *, at_once: bool = False) -> None:
        """Report the outage once it has lasted, or `at_once`; that it turns out to be a refused key is worse."""
        denied = self._polls[account.account].is_denied
        measure = (Decimal(denied),)
        if outage.alert is not None and outage.alert.measure is not None and outage.alert.measure >= measure:
            return
        if denied or at_once or self._clock.monotonic() - outage.failing >= self._unreported:
            outage.alert = Alert(
                f"outage/{account.account}",
                "page",
                _message(account, outage, denied=denied),
                over=f"account {account.account} can be read again",
                since=to_micros(outage.since),
                measure=measure,
                closing_on=_closing_on(account, outage),
            )


def _closing_on(account: AccountSnapshot, outage: _Outage) -> str:
    """The account, if the outage concerns a close: its page then says what is left and whom to call."""
    return account.account if outage.closes or outage.unanswered else ""


def _message(account: AccountSnapshot, outage: _Outage, *, denied: bool) -> str:
    reason = legible(account.reason or "no reason given")
    if denied:
        return (
            f"the venue refuses the key of account {account.account}: {reason}; nothing can be read or closed there: "
            "put a valid key where the document's credentials point to, and restart the runner"
        )
    when = rfc3339(outage.since.replace(microsecond=0))
    orders = count_of(len(outage.unanswered), "order")
    work = f"{orders} without an answer" if outage.unanswered else ""
    if outage.closes:
        work += f"{', ' if work else ''}the close there is not finished and goes on once it can be read"
    return (
        f"account {account.account} cannot be read since {when} ({account.quality}: {reason})"
        f"{f': {work}' if work else ''}; until it is, its triggers go by their on_unknown"
    )
