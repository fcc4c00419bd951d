"""Recording of spans, which are exported when they end.

A tick is exported whole at its end: only then is it known whether it decided anything, which determines whether it is
sampled, and which trace it belongs to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol

from msgspec import Struct, field

from killswitch.model.tracing import NOTHING, Attribute


class SpanRecord(Struct):
    """One span: times in nanoseconds since 1970, `ended` 0 while it is open; `failure` is why it failed."""

    name: str
    began: int
    attributes: dict[str, Attribute]
    ended: int = 0
    failure: str | None = None
    events: list[tuple[str, int, dict[str, Attribute]]] = field(default_factory=list)
    parts: list[SpanRecord] = field(default_factory=list)
    context: object = None
    """The sink's reference to the exported span."""

    def set(self, name: str, value: Attribute | None) -> None:
        """Add an attribute; None is unknown, and sets nothing."""
        if value is not None:
            self.attributes[name] = value


class SpanExport(Protocol):
    """Receives ended spans."""

    def export(self, record: SpanRecord) -> None:
        """Export a span without a parent, with all its children that have ended."""
        ...

    def export_late(self, record: SpanRecord, parent: SpanRecord) -> None:
        """Export a child that ended after its `parent` was exported."""
        ...


class SpanRecorder:
    """A Tracer that records spans for a sink."""

    def __init__(self, sink: SpanExport, now: Callable[[], int]) -> None:
        """`now` returns nanoseconds since 1970."""
        self._sink = sink
        self._now = now

    def span(self, name: str, attributes: Mapping[str, Attribute] = NOTHING) -> LiveSpan:
        return LiveSpan(SpanRecord(name, self._now(), dict(attributes)), None, self._sink, self._now)


class LiveSpan:
    """An open span."""

    __slots__ = ("_now", "_parent", "_sink", "record")

    def __init__(self, record: SpanRecord, parent: SpanRecord | None, sink: SpanExport, now: Callable[[], int]) -> None:
        """`parent` is None for a span without one."""
        self.record = record
        self._parent = parent
        self._sink = sink
        self._now = now

    def set(self, name: str, value: Attribute | None) -> None:
        self.record.set(name, value)

    def fail(self, reason: str) -> None:
        self.record.failure = reason

    def span(self, name: str, attributes: Mapping[str, Attribute] = NOTHING) -> LiveSpan:
        part = SpanRecord(name, self._now(), dict(attributes))
        self.record.parts.append(part)
        return LiveSpan(part, self.record, self._sink, self._now)

    def __enter__(self) -> LiveSpan:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self.fail(_reason(error))
        self.record.ended = self._now()
        if self._parent is None:
            self._sink.export(self.record)
        elif self._parent.context is not None:
            self._sink.export_late(self.record, self._parent)


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "cancelled before it ended"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
