"""The tracing interface: spans of operations.

A package receives a `Tracer` and does not know whether spans are exported. A tracer never raises and never blocks. Pure
packages receive none: their caller opens the span around the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Final, Protocol

from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros

Attribute = str | bool | int | float

AS_OF: Final = "killswitch.as_of"
"""The attribute with the `as_of` of a span's tick, in microseconds: all spans with the same value form one trace.

The span named `tick` is its root; every other span that a Tracer opens with the attribute is a child of it.
"""

INCIDENT: Final = "killswitch.incident"
"""The attribute with the id of an incident: one search by it finds the tick, its decisions, closes, orders, messages
and reports."""

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


class Incidents:
    """The incident of each decision, followed over decisions in their order, for spans and log lines.

    A stage that fires from normal opens one with its own id, and so does a manual close. A decision that continues an
    incident which began before the first one that is known has none: nothing is guessed.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], str] = {}
        """Policy and scope → the incident in progress."""
        self._newest: dict[str, str] = {}
        """Scope → its newest incident, which a hedge belongs to."""
        self._known: dict[str, str | None] = {}

    def follow(self, decisions: Iterable[Decision]) -> None:
        """Follow decisions, oldest first; those that are known are passed over."""
        for each in decisions:
            self.of(each)

    def of(self, decision: Decision) -> str | None:
        """The incident of a decision, which is followed if it is new; None without one, and where it is not known."""
        if decision.id not in self._known:
            if len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[decision.id] = self._followed(decision)
        return self._known[decision.id]

    def of_id(self, decision: str) -> str | None:
        """The incident of a decision that was followed."""
        return self._known.get(decision)

    def at(self, policy: str | None, scope: str | None) -> str | None:
        """The incident in progress of a policy on a scope."""
        return self._open.get((policy or "", scope or ""))

    def _followed(self, decision: Decision) -> str | None:
        place = (decision.policy, decision.scope)
        if decision.is_hold:
            return None
        if decision.is_suspicion:
            return self._open.get(place)
        if decision.kind == "manual":
            return decision.id
        if decision.kind == "reset":
            return self._open.pop(place, None)
        if decision.kind == "hedge" and place not in self._open:
            return self._newest.get(decision.scope)
        if decision.previous_level == 0 and place not in self._open:
            self._open[place] = self._newest[decision.scope] = decision.id
        return self._open.get(place)


MOST_KNOWN: Final = 10_000
"""Decisions whose incident is remembered."""


def report_span(tracer: Tracer, incident: str, as_of: datetime) -> Span:
    """The span of rendering the files of an incident, in the trace of its first decision.

    `as_of` is that decision's. Usable from any thread.
    """
    return tracer.span("report", {AS_OF: to_micros(as_of), INCIDENT: incident})


_SILENCE = _Silence()
NO_TRACER: Final[Tracer] = _SILENCE
NO_SPAN: Final[Span] = _SILENCE
