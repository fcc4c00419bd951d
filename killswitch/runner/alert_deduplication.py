"""Deduplicates the runner's alerts: a problem is reported once when it appears, and not again while it lasts.

A flapping problem is reported again at growing intervals, with the number of its returns, so that it does not hide
others. Closings that end short of their target are not deduplicated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from killswitch.model.decision import Notice
from killswitch.model.instant import rfc3339
from killswitch.model.snapshot import Closing, Snapshot
from killswitch.model.words import Severity
from killswitch.runner.observers import shortfall_message

FIRST_PAUSE = timedelta(minutes=1)
"""The pause between two notices of a flapping problem; it doubles with each."""
LONGEST_PAUSE = timedelta(minutes=32)


@dataclass(slots=True)
class _Trouble:
    """One problem, from its appearance until it has been absent for a whole pause."""

    text: str
    severity: Severity
    noticed: datetime
    """When it was last reported."""
    reports_end: bool
    pause: timedelta = FIRST_PAUSE
    returns: int = 0
    """How often it has returned since the last notice."""
    gone: datetime | None = None


class AlertDeduplication:
    """The alerts of one run."""

    def __init__(self, before: tuple[tuple[Severity, str], ...] = ()) -> None:
        """`before`: notices from before the run, which the first tick reports once."""
        self._before = before
        self._reported: frozenset[str] = frozenset()
        self._troubles: dict[str, _Trouble] = {}

    def remember(self, notices: Iterable[Notice], closings: Iterable[Closing]) -> None:
        """Restore the ends of closings that an earlier run has reported."""
        reported = {notice.text for notice in notices}
        self._reported = frozenset(reported.intersection(map(shortfall_message, closings)))

    def alerts(
        self,
        snapshot: Snapshot,
        problems: tuple[str, ...],
        warnings: Collection[str],
        subjects: Mapping[str, str] | None = None,
    ) -> tuple[Notice, ...]:
        """A page for every new problem, and for every closing that ended short of its target.

        `warnings`: the problems that are warnings. `subjects`: message → subject of the problems whose text may change
        while they last; their end is reported as well.
        """
        found, self._before = [*self._before], ()
        found += self._of_problems(snapshot.as_of, problems, warnings, subjects or {})
        ends = [text for each in snapshot.closings if (text := shortfall_message(each)) is not None]
        found += [("page", text) for text in ends if text not in self._reported]
        self._reported = frozenset(ends)
        return tuple(Notice(snapshot.as_of, "runner", "runner", "warning", *each) for each in found)

    def _of_problems(
        self, now: datetime, problems: tuple[str, ...], warnings: Collection[str], subjects: Mapping[str, str]
    ) -> list[tuple[Severity, str]]:
        alerts: list[tuple[Severity, str]] = []
        present = {subjects.get(text, text): text for text in problems}
        for subject, text in present.items():
            severity: Severity = "warning" if text in warnings else "page"
            trouble = self._troubles.get(subject)
            if trouble is None:
                self._troubles[subject] = _Trouble(text, severity, noticed=now, reports_end=text in subjects)
                alerts.append((severity, text))
                continue
            if trouble.gone is not None:
                trouble.gone = None
                trouble.returns += 1
            trouble.text = text
            if trouble.returns and now - trouble.noticed >= trouble.pause:
                alerts.append((severity, f"{text} (it has returned {_times(trouble)} since {_when(trouble.noticed)})"))
                trouble.noticed, trouble.returns = now, 0
                trouble.pause = min(trouble.pause * 2, LONGEST_PAUSE)
        for subject in self._troubles.keys() - present.keys():
            alerts += self._absent(subject, now)
        return alerts

    def _absent(self, subject: str, now: datetime) -> list[tuple[Severity, str]]:
        """Report the end of a problem that has been absent for a whole pause."""
        trouble = self._troubles[subject]
        trouble.gone = trouble.gone or now
        if now - trouble.gone < trouble.pause:
            return []
        del self._troubles[subject]
        if not trouble.reports_end:
            return []
        return [(trouble.severity, f"over since {_when(trouble.gone)}: {trouble.text}")]


def _times(trouble: _Trouble) -> str:
    return "once" if trouble.returns == 1 else f"{trouble.returns} times"


def _when(instant: datetime) -> str:
    return rfc3339(instant.replace(microsecond=0))
