"""Recording of spans, which are exported when they end.

A tick is exported whole at its end: only then is it known whether it decided anything, which determines whether it is
sampled, and which trace it belongs to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from killswitch.model.tracing import NOTHING, Attribute


@dataclass(slots=True)
class Course:
    """One span: times in nanoseconds since 1970, `ended` 0 while it is open; `failure` is why it failed."""

    name: str
    began: int
    attributes: dict[str, Attribute]
    ended: int = 0
    failure: str | None = None
    events: list[tuple[str, int, dict[str, Attribute]]] = field(default_factory=list)
    parts: list[Course] = field(default_factory=list)
    place: object = None
    """The sink's reference to the exported span."""

    def set(self, name: str, value: Attribute | None) -> None:
        """Add an attribute; None is unknown, and sets nothing."""
        if value is not None:
            self.attributes[name] = value


class Sink(Protocol):
    """Receives ended spans."""

    def whole(self, course: Course) -> None:
        """Export a span without a parent, with all its children that have ended."""
        ...

    def late(self, course: Course, whole: Course) -> None:
        """Export a child that ended after its parent `whole` was exported."""
        ...


class Recorder:
    """A Tracer that records."""

    def __init__(self, sink: Sink, now: Callable[[], int]) -> None:
        """`now` in nanoseconds since 1970."""
        self._sink = sink
        self._now = now

    def span(self, name: str, attributes: Mapping[str, Attribute] = NOTHING) -> LiveSpan:
        return LiveSpan(Course(name, self._now(), dict(attributes)), None, self._sink, self._now)


class LiveSpan:
    """An open span."""

    __slots__ = ("_now", "_sink", "_whole", "course")

    def __init__(self, course: Course, whole: Course | None, sink: Sink, now: Callable[[], int]) -> None:
        """`whole`: its parent, if any."""
        self.course = course
        self._whole = whole
        self._sink = sink
        self._now = now

    def set(self, name: str, value: Attribute | None) -> None:
        self.course.set(name, value)

    def fail(self, reason: str) -> None:
        self.course.failure = reason

    def span(self, name: str, attributes: Mapping[str, Attribute] = NOTHING) -> LiveSpan:
        part = Course(name, self._now(), dict(attributes))
        self.course.parts.append(part)
        return LiveSpan(part, self.course, self._sink, self._now)

    def __enter__(self) -> LiveSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(_reason(error))
        self.course.ended = self._now()
        if self._whole is None:
            self._sink.whole(self.course)
        elif self._whole.place is not None:
            self._sink.late(self.course, self._whole)


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "cancelled before it ended"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
