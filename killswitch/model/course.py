"""What a store remembers of an incident beyond its decisions: what was so when it fired, and the course of equity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from killswitch.model.store import Store


class CoursePoint(Struct, frozen=True, gc=False):
    """The value of a unit at an instant (microseconds)."""

    at: int
    value: float


class IncidentStore(Store, Protocol):
    """A store that remembers incidents too. Every write is durable when the call returns."""

    def keep_incident(self, incident: str, note: bytes, points: Sequence[CoursePoint]) -> None:
        """Write the note of an incident, unless it has one, and add to its course; points that are there stay."""
        ...

    def incident_note(self, incident: str) -> bytes | None: ...

    def course(self, incident: str) -> Sequence[CoursePoint]:
        """The kept points of an incident, oldest first."""
        ...
