"""What a dialect declares: the ages of the parts of a snapshot, capabilities, and the cost of each call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from killswitch.model.inspection import Capability
from killswitch.model.venue import Call, Cost


@dataclass(frozen=True, slots=True)
class Ages:
    """How often each part of a snapshot is read, in seconds; equity and positions every time. See `snapshot_reader`.

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


CAPABILITIES: Final = (
    "equity", "positions", "orders", "trigger orders", "fills", "flows", "prices", "market orders", "limit orders",
    "reduce only", "put back stops", "batch orders", "close book", "position mode", "find by client id", "dead man",
    "push", "key rights", "clock", "bars", "sandbox", "demo",
)  # fmt: skip
"""Names of all capabilities, in the order in which they are listed."""


def capability_table(noted: Mapping[str, str], *plain: str) -> tuple[Capability, ...]:
    """All capabilities of a venue, in their usual order.

    `noted`: name → `yes`, `partly` or `no`, followed by a comma and a note where there is one. `plain`: names that are
    a yes without a note. ValueError for an unknown name and for one that is missing: none is assumed.
    """
    found = dict.fromkeys(plain, "yes") | dict(noted)
    if found.keys() != set(CAPABILITIES):
        raise ValueError(f"unknown or missing capabilities: {', '.join(sorted(found.keys() ^ set(CAPABILITIES)))}")
    return tuple(_capability(name, *found[name].partition(", ")) for name in CAPABILITIES)


def _capability(name: str, can: str, _: str, note: str) -> Capability:
    if can not in ("yes", "partly", "no"):
        raise ValueError(f"capability {name}: {can!r} is neither yes, partly nor no")
    return Capability(name, cast("Literal['yes', 'partly', 'no']", can), note)


def charge(limit: str, **units: int) -> tuple[Cost, ...]:
    """What each call takes of a rate limit: call → units."""
    return tuple(Cost(cast("Call", call), limit, units) for call, units in units.items())
