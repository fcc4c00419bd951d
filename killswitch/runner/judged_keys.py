"""Which alerts of earlier runs this run can judge: that of a part which this run does not have is not over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

OPTIONAL = frozenset({
    "broker", "closing", "console", "dead-man", "disk", "events", "hedge", "locks", "outage", "part", "policies",
    "recording", "reports", "store", "stream", "telemetry", "unrouted", "unwatched",
})  # fmt: skip
"""How the keys of parts begin that not every run has, or not for every account."""


@runtime_checkable
class JudgesKeys(Protocol):
    """A part with alerts that not every run has."""

    @property
    def judges(self) -> tuple[str, ...]:
        """How the keys begin, up to a slash, that it finds, or knows to be unknown, in this run."""


def judged_by(parts: Iterable[object]) -> tuple[str, ...]:
    """How the keys begin that the parts of a run judge."""
    return tuple(start for part in parts if isinstance(part, JudgesKeys) for start in part.judges)


def unjudged(keys: Iterable[str], judged: Iterable[str]) -> tuple[str, ...]:
    """The keys of optional parts of which none begins as `judged` says."""
    starts = frozenset(judged)
    return tuple(key for key in keys if key.partition("/")[0] in OPTIONAL and not starts.intersection(_starts(key)))


def _starts(key: str) -> Iterable[str]:
    """The key, and each beginning of it that ends before a slash."""
    parts = key.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
