"""How often each part of a snapshot is read, and how often it may be read before its time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ages:
    """How often each part of a snapshot is read, in seconds; equity and positions every time. See `reading`.

    They keep a snapshot inside the venue's documented limits at a tick of one second. `quotes`: None where they are
    not read, since the positions bring what is needed.
    """

    orders: float = 5.0
    fills: float = 15.0
    flows: float = 20.0
    quotes: float | None = 10.0
    mode: float = 60.0
    states: float = 60.0
    clock: float = 300.0
    orders_least: float = 2.0
    rows_least: float = 5.0
    """The least time between two readings of all orders, and of fills or flows, however much moves meanwhile."""
    rows_hurried: int = 6
    """How many readings of flows a minute may be earlier than their age, because money or a position has moved."""
    fills_hurried: int = 6
    """The same of fills; each symbol counts, where symbols must be named. Together they weigh at most a tenth of what
    the venue's limits leave to reading."""
    hurried_saved: int = 3
    """Hurried readings that even the smallest of these allowances saves up for the next movement."""
    rules: float = 3600.0
