"""Line charts over time as SVG text, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment worth seeing: `at` in microseconds, a short label, and the level that gives it its colour."""

    at: int
    label: str
    level: int
