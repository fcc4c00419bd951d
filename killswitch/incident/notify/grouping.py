"""Notices that repeat become one message with a count: the first leaves at once, the rest are counted for a while.

A group is what one policy says on one scope of one subject. Its first notice leaves at once, and so does one that is
graver than all before it, or that says so itself (`Notice.at_once`). The others are counted, and after `GROUP_INTERVAL`
one message says how many there were. A group that was quiet for as long is over. Every notice is in the store whatever
leaves. (The terms are those of Alertmanager: https://prometheus.io/docs/alerting/latest/configuration/#route)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from msgspec import structs

from killswitch.model.decision import Decision, Notice, NoticeKind, Severity
from killswitch.model.snapshot import Instant

GROUP_INTERVAL = timedelta(minutes=5)
"""Between two messages of a group, unless a graver one comes."""

GROUPED: frozenset[NoticeKind] = frozenset({"unexplained", "unknown", "uncorroborated"})
"""Kinds that one event may bring about at every tick; of all others each notice leaves by itself."""

_GRAVITY: dict[Severity, int] = {"info": 0, "warning": 1, "page": 2}

GroupKey = tuple[str, str, NoticeKind, str | None]
"""Policy, scope, kind and subject."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """`count` notices that were counted since the last message: the newest of them, at the gravest severity of all.

    `since`: when the group began; `total`: the notices of the group so far.
    """

    newest: Notice
    count: int
    since: Instant
    total: int


@dataclass(slots=True)
class _Group:
    since: Instant
    left_at: Instant
    """When the last message of the group left."""
    gravest: Severity
    """Of everything that has left."""
    total: int = 1
    counted: int = 0
    newest: Notice | None = None
    """Of those that were counted, with the gravest severity of these."""


class NoticeGroups:
    """What of the notices of a run leaves at once, and what is counted."""

    def __init__(self) -> None:
        self._groups: dict[GroupKey, _Group] = {}

    def recall(self, notices: Iterable[Notice], decisions: Iterable[Decision]) -> None:
        """Take up what an earlier run has counted: its notices and decisions of late, in any order."""
        past: list[Notice | Decision] = [*notices, *decisions]
        for each in sorted(past, key=lambda each: each.as_of):
            self.due(each.as_of)
            if isinstance(each, Notice):
                self.leaves(each)
            else:
                self.fired(each)

    def leaves(self, notice: Notice) -> bool:
        """Whether the notice leaves at once as a message of its own; else it is counted."""
        if notice.kind not in GROUPED or notice.severity == "info":
            return True
        key = (notice.policy, notice.scope, notice.kind, notice.subject)
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = _Group(notice.as_of, notice.as_of, notice.severity)
            return True
        group.total += 1
        if notice.at_once or _GRAVITY[notice.severity] > _GRAVITY[group.gravest]:
            group.gravest, group.left_at = _graver(notice.severity, group.gravest), notice.as_of
            return True
        group.counted += 1
        severity = notice.severity if group.newest is None else _graver(notice.severity, group.newest.severity)
        group.newest = structs.replace(notice, severity=severity)
        return False

    def due(self, now: Instant) -> list[Repeats]:
        """What was counted and is to be told by now; groups that were quiet for long are over."""
        found = []
        for key, group in list(self._groups.items()):
            if now - group.left_at < GROUP_INTERVAL:
                continue
            if group.newest is None:
                del self._groups[key]
                continue
            found.append(Repeats(group.newest, group.counted, group.since, group.total))
            group.left_at, group.counted, group.newest = now, 0, None
        return found

    def fired(self, decision: Decision) -> Instant | None:
        """A stage has fired: since when people were told that it did not; None if they were not. Ends that group."""
        if decision.kind is not None:
            return None
        group = self._groups.pop((decision.policy, decision.scope, "uncorroborated", decision.stage), None)
        return None if group is None else group.since


def _graver(one: Severity, other: Severity) -> Severity:
    return max(one, other, key=_GRAVITY.__getitem__)
