"""The tracing interface: spans of operations.

A package receives a `Tracer` and does not know whether spans are exported. A tracer never raises and never blocks. Pure
packages receive none: their caller opens the span around the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Final, Protocol

from killswitch.model.instant import to_micros

Attribute = str | bool | int | float

AS_OF: Final = "killswitch.as_of"
"""The attribute with the `as_of` of a span's tick, in microseconds: all spans with the same value form one trace.

The span named `tick` is its root; every other span that a Tracer opens with the attribute is a child of it.
"""

NOTHING: Final[Mapping[str, Attribute]] = {}


class Span(Protocol):
    """An operation in progress. As a context manager, it fails with an exception that passes through."""

    def set(self, name: str, value: Attribute | None) -> None:
        """Set an attribute; None is unknown and sets nothing."""

    def fail(self, reason: str) -> None:
        """Mark the span as failed. Credentials are redacted from the reason."""

    def span(self, name: str, attributes: Mapping[str, Attribute] = NOTHING) -> Span:
        """Start a child span, which may end after this span."""

    def __enter__(self) -> Span: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tracer(Protocol):
    """Opens spans."""

    def span(self, name: str, attributes: Mapping[str, Attribute] = NOTHING) -> Span:
        """Start a span without a parent; with the attribute `AS_OF` it belongs to the trace of that tick."""


class _Silence:
    """A Tracer and Span that records nothing."""

    __slots__ = ()

    def set(self, name: str, value: Attribute | None) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass

    def span(self, name: str, attributes: Mapping[str, Attribute] = NOTHING) -> _Silence:
        return self

    def __enter__(self) -> _Silence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def report_span(tracer: Tracer, incident: str, as_of: datetime) -> Span:
    """The span of rendering the files of an incident, in the trace of its first decision.

    `as_of` is that decision's. Usable from any thread.
    """
    return tracer.span("report", {AS_OF: to_micros(as_of), "killswitch.incident": incident})


_SILENCE = _Silence()
NO_TRACER: Final[Tracer] = _SILENCE
NO_SPAN: Final[Span] = _SILENCE
