"""The kinds of alerts: a short title of each, and which of them not every run can judge.

A title is what kind of thing is wrong, as the first line on a phone says it. The text of a notice has the details; a
title repeats none of them but the account, where the key of the alert has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from killswitch.model.decision import Notice, NoticeKind

OVER: Final = "over: "
"""Begins the title of the notice that an alert has ended."""

TITLES: Final = {
    # accounts and what is read of them
    "outage": "account {1} cannot be read",
    "stream": "the private stream of account {1} is down",
    "unwatched": "no enforcing policy watches account {1}",
    "anchor": "the record is not anchored at {1}",
    "retention": "the declared retention is not carried out",
    "wall-clock": "the clock of this machine is wrong",
    # policies on scopes
    "trigger": "a trigger is unknown",
    "uncorroborated": "a stage is held back by its prices",
    "near": "a circuit breaker is near its trip",
    "recoveries": "a circuit breaker recovers no more by itself",
    "unfired": "a stage fires and selects nothing",
    "blocked": "a position cannot be reduced",
    "unacted": "a latched stage was only observed",
    "orphan": "a firing is in force and its stage is gone",
    "paused": "a policy is paused",
    "paused-stage": "a pause keeps a stage from firing",
    "shadow": "a shadow set is not evaluated",
    "shadow/difference": "a set in shadow differs from the deployed one",
    "policies": "the policy files have changed",
    "policies/broken": "the policy files do not compile",
    "reload": "a policy set waits to be taken",
    "source": "the source of the policies has a problem",
    "source/arrival": "a change of the policies would close at once",
    "source/suspended": "the source of the policies is suspended",
    # closes and orders
    "closing": "the close on account {1} has a problem",
    "closing/*/retried": "the close on account {1} is retried",
    "closing/*/uncloseable": "a position on account {1} is not closed yet",
    "shortfall": "a close has left positions",
    "unfinished": "a close of an earlier run is unfinished",
    "order": "an order must be checked at the venue",
    "protection": "a position on account {1} is without its protective order",
    "journal": "a journal entry cannot be decoded",
    "effect": "an effect cannot be performed",
    "hedge": "a position on account {1} has no hedge",
    "command": "a command cannot be read",
    # locks
    "breach": "a lock is breached on account {1}",
    "breach-unknown": "a position grew under a lock on account {1}",
    "breach-owner": "a locked strategy may have traded on account {1}",
    "breach-fight": "the lock of account {1} is fought",
    "breach-cost": "the answer to a lock breach is held back by its cost",
    "gate-view": "the gate's view is not written",
    "locks": "lock files have a problem",
    "sentinel": "the sentinel file halts everything",
    "broker": "the broker's suspension of account {1} has a problem",
    "stops": "a catastrophe stop on account {1} has a problem",
    "dead-man": "the dead-man timer of account {1} has a problem",
    "silence": "the dead man's switch {1} has fired",
    "heartbeat": "the dead man's switch {1} cannot be relied on",
    "server": "the server of the API does not stay up",
    "spool": "commands of the server cannot be taken",
    "token": "a token that may let risk in was issued",
    "ping": "the outgoing heartbeat is not taken",
    "expect": "a policy touches more than it expects",
    # the program
    "store": "the store cannot be written",
    "store/displaced": "the file of the store was replaced",
    "disk": "disk space is short",
    "disk/reserve": "no disk space is reserved",
    "notifications": "notifications are not delivered",
    "unrouted": "nobody is notified",
    "reports": "reports of incidents are not written",
    "recording": "the recording is incomplete",
    "events": "the event stream is incomplete",
    "telemetry": "telemetry is not delivered",
    "console": "output to the console is lost",
    "part": "a part of the program fails",
}
"""Beginning of a key → title; `*` is any one part, and `{1}` the second part of the key."""

URGENT: Final = frozenset({
    "blocked", "breach", "breach-fight", "breach-unknown", "closing", "shortfall", "silence", "unfinished", "unfired",
})  # fmt: skip
"""How the titles of alerts begin that no route may hold or delay while they are pages: risk that opens under a lock, a
close that fails, a stage that selects nothing, a dead man's switch that has fired."""
_URGENT_TITLES: Final = frozenset(TITLES[kind] for kind in TITLES if kind.split("/")[0] in URGENT)


def is_urgent(notice: Notice) -> bool:
    """Whether no route may hold or delay the notice: a page about what is worst, or a fall that grew."""
    if notice.severity != "page" or notice.is_over or notice.title.startswith(OVER):
        return False
    if notice.kind == "unexplained":
        return notice.at_once
    urgent_kind = notice.kind in ("nothing_selected", "blocked")
    return urgent_kind or any(_is_title(notice.title, title) for title in _URGENT_TITLES)


def _is_title(title: str, pattern: str) -> bool:
    begin, _, end = pattern.partition("{1}")
    return bool(title) and title.startswith(begin) and title.endswith(end)


OF_ACCOUNT: Final = frozenset({"broker", "closing", "dead-man", "hedge", "outage", "stops", "stream", "unwatched"})
"""How the keys begin that not every run has for every account, whose name is their second part."""
OPTIONAL: Final = OF_ACCOUNT | {
    "anchor", "console", "disk", "events", "expect", "gate-view", "heartbeat", "locks", "part", "ping", "policies",
    "recording", "reload", "reports", "retention", "sentinel", "server", "shadow", "silence", "source", "spool",
    "store", "telemetry", "token", "unrouted",
}  # fmt: skip
"""How the keys of parts begin that not every run has, or not for every account: a part with `judges` is one."""


def alert_title(key: str, *, is_over: bool = False) -> str:
    """Return the title of the alert with this key, or of its end; empty for a kind without a title of its own."""
    parts = key.split("/")
    starts = [parts[0]]
    if len(parts) > 1:
        starts.append(f"{parts[0]}/{parts[1]}")
        starts += (f"{parts[0]}/*/{kind}" for kind in parts[2:3])
    title = next((TITLES[start] for start in reversed(starts) if start in TITLES), "")
    return f"{OVER if is_over else ''}{title.format(*parts)}" if title else ""


KIND_TITLES: Final[Mapping[NoticeKind, str]] = {
    "unknown": "a trigger is unknown",
    "unexplained": "equity changed without an explanation",
    "uncorroborated": "a stage is held back by its prices",
    "nothing_selected": "nothing was closed",
    "blocked": "a position cannot be reduced",
    "warning": "a warning",
}
"""Titles of notices without one of their own."""


def notice_title(notice: Notice) -> str:
    """Return what kind of thing the notice is about and whose it is, without the words of its text."""
    title = notice.title or KIND_TITLES[notice.kind]
    if notice.policy == notice.scope:  # of the runner, or of a recording
        return title if notice.title else f"{title} of the {notice.policy}"
    return f"{title}: {notice.policy} on {notice.scope}"
