"""Groups the notices of unexplained changes of equity into one message with a count.

One crash may make such a change at every tick, each of which is recorded. A group is one policy, scope and subject. Its
first notice is sent immediately, and so is one that is more severe than all before it, or that is marked so
(`Notice.at_once`). The others are counted, and one message reports the count after `GROUP_INTERVAL`. A group without
notices for that long ends. (The terms are those of Alertmanager:
https://prometheus.io/docs/alerting/latest/configuration/#route)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.decision import Notice, Severity
from killswitch.model.snapshot import Instant

GROUP_INTERVAL = timedelta(minutes=5)
"""The interval between two messages of a group, unless a more severe notice arrives."""

_GRAVITY: dict[Severity, int] = {"info": 0, "warning": 1, "page": 2}

GroupKey = tuple[str, str, str | None]
"""Policy, scope and subject."""


class RepeatedNotice(Struct, frozen=True):
    """`count` notices since the last message: the newest of them, with the highest severity of all.

    `since` is when the group began; `total` counts the notices of the group so far.
    """

    newest: Notice
    count: int
    since: Instant
    total: int


class _Group(Struct):
    since: Instant
    sent_at: Instant
    """When the last message of the group was sent."""
    highest_severity: Severity
    """The highest severity of everything that was sent."""
    total: int = 1
    counted: int = 0
    newest: Notice | None = None
    """The newest counted notice, with the highest severity of the counted ones."""


class NoticeGroups:
    """Decides which notices of a run are sent immediately and which are counted."""

    def __init__(self) -> None:
        self._groups: dict[GroupKey, _Group] = {}

    def restore(self, notices: Iterable[Notice]) -> None:
        """Restore the groups of an earlier run from its recent notices, in any order."""
        for each in sorted(notices, key=lambda each: each.as_of):
            self.due(each.as_of)
            self.is_sent_at_once(each)

    def rename(self, renamed: Mapping[str, str]) -> None:
        """Continue the groups of policies under their next names. `renamed`: former name → name."""
        self._groups = {
            (renamed.get(policy, policy), scope, subject): group
            for (policy, scope, subject), group in self._groups.items()
        }

    def is_sent_at_once(self, notice: Notice) -> bool:
        """Whether the notice is sent immediately as a message of its own; otherwise it is counted."""
        if notice.kind != "unexplained" or notice.severity == "info":
            return True
        key = (notice.policy, notice.scope, notice.subject)
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = _Group(notice.as_of, notice.as_of, notice.severity)
            return True
        group.total += 1
        if notice.at_once or _GRAVITY[notice.severity] > _GRAVITY[group.highest_severity]:
            group.highest_severity, group.sent_at = _more_severe(notice.severity, group.highest_severity), notice.as_of
            return True
        group.counted += 1
        severity = notice.severity if group.newest is None else _more_severe(notice.severity, group.newest.severity)
        group.newest = replace(notice, severity=severity)
        return False

    def due(self, now: Instant) -> list[RepeatedNotice]:
        """Return the counts that are due for a message; end the groups that have been quiet for long."""
        found = []
        for key, group in list(self._groups.items()):
            if now - group.sent_at < GROUP_INTERVAL:
                continue
            if group.newest is None:
                del self._groups[key]
                continue
            found.append(RepeatedNotice(group.newest, group.counted, group.since, group.total))
            group.sent_at, group.counted, group.newest = now, 0, None
        return found


def _more_severe(one: Severity, other: Severity) -> Severity:
    return max(one, other, key=_GRAVITY.__getitem__)
