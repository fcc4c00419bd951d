"""How acting rooms tell what they do while they do it: spans.

A room is handed a `Tracer`, and does not know whether anyone listens. It never raises, and never waits. Pure rooms are
never handed one: whoever calls them opens the span around the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Final, Protocol

from killswitch.model.instant import to_micros

Attribute = str | bool | int | float

AS_OF: Final = "killswitch.as_of"
"""The `as_of` of the tick that a span belongs to, in microseconds: all spans with the same one are one trace.

The span named `tick` is its root; every other span that a Tracer opens with it is a child of that one.
"""

NOTHING: Final[Mapping[str, Attribute]] = {}


class Span(Protocol):
    """Something that takes time. Used as a context manager: an exception that passes through makes it failed."""

    def set(self, name: str, value: Attribute | None) -> None:
        """Add an attribute; None is unknown, and sets nothing."""
        ...

    def fail(self, reason: str) -> None:
        """Say that it went wrong, and why. The reason is searched for credentials before anyone sees it."""
        ...

    def span(self, name: str, attributes: Mapping[str, Attribute] = NOTHING) -> Span:
        """Begin a part of it. A part may end after the whole."""
        ...

    def __enter__(self) -> Span: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tracer(Protocol):
    """Where spans begin."""

    def span(self, name: str, attributes: Mapping[str, Attribute] = NOTHING) -> Span:
        """Begin a span that is part of no other; with `AS_OF` among its attributes it is filed under that tick."""
        ...


class _Silence:
    """Tracer and Span that nobody listens to."""

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
    """The span of rendering the files of `incident`, in the trace of the decision that it began with.

    `as_of` is that decision's. May be called, entered and left in a thread of its own.
    """
    return tracer.span("report", {AS_OF: to_micros(as_of), "killswitch.incident": incident})


_SILENCE = _Silence()
NO_TRACER: Final[Tracer] = _SILENCE
NO_SPAN: Final[Span] = _SILENCE
