"""Builders of the tables that a dialect declares: capabilities, and the cost of each call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, cast

from killswitch.model.inspection import Capability
from killswitch.model.venue import Call, Cost

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
