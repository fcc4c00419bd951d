"""The page of `ksctl venues list`: a table, or one venue in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import msgspec

from killswitch.accounts.plug_ins import AbsentPlugIn
from killswitch.model.inspection import Capability
from killswitch.model.venue import RateLimit, VenueListing
from killswitch.render.document import Items, Page, Section, Table, section
from killswitch.render.formats import count_of, duration_text

_PER = {1.0: "s", 60.0: "min", 3600.0: "h", 86_400.0: "day"}
_BY = {"account": "", "symbol": " a symbol", "address": " an address"}

EXPENDABLE = ("limits of orders", "whole book", "batch")
"""Columns that a narrow terminal leaves out, the least important first."""


def venues_page(listings: Sequence[VenueListing], others: Sequence[str]) -> Page:
    """One row per venue, and the legend. `others`: plug-ins that reach more venues than they list."""
    rows = [_row(each) for each in listings]
    rows += [{"adapter": each, "exchange": f"any other exchange of {each}", "markets": "as it has"} for each in others]
    head = tuple(rows[0])
    expendable = tuple(map(head.index, EXPENDABLE))
    table = Table(head, tuple(tuple(row.get(name, "") for name in head) for row in rows), expendable=expendable)
    everywhere = set.intersection(*({c.name for c in each.capabilities if c.can == "yes"} for each in listings))
    shared = f"Supported everywhere: {', '.join(sorted(everywhere))}." if everywhere and len(listings) > 1 else ""
    legend = Items(
        (
            "`ksctl venues list EXCHANGE` shows one of them in full, with its limits;",
            "capabilities in neither column are supported.",
        )
    )
    parts = (table, shared, legend)
    return Page("Venues", sections=tuple(each for part in parts for each in section("", part)))


def _row(each: VenueListing) -> dict[str, str]:
    return {
        "adapter": each.adapter,
        "exchange": each.exchange or "-",
        "markets": ", ".join(each.markets),
        "batch": str(each.traits.batch),
        "whole book": "yes" if each.traits.whole_book else "no",
        "dead man": dead_man(each),
        "limits of orders": limits(each),
        "partly": named(each.capabilities, "partly"),
        "not": named(each.capabilities, "no"),
    }


def venue_page(listings: Sequence[VenueListing]) -> Page:
    """Everything about these venues."""
    return Page("Venue", sections=tuple(each for listing in listings for each in _full(listing)))


def _full(listing: VenueListing) -> Iterator[Section]:
    exchange = "" if listing.exchange is None else f", exchange {listing.exchange}"
    head = [f"Adapter {listing.adapter}{exchange}: {', '.join(listing.markets)}"]
    if listing.tried:
        against = "It is " if listing.tried.startswith("not tried") else "Tried against "
        head.append(f"{against}{listing.tried}")
    yield from section("", Items(tuple(head)))
    yield from section("", capability_table(listing.capabilities))
    ids = listing.traits.client_ids
    longest = f", up to {ids.longest}" if ids.form == "plain" else ""
    facts = [
        f"Batches of {listing.traits.batch}" if listing.traits.batch > 1 else "No batches",
        "Closes a whole book in one request" if listing.traits.whole_book else "No request that closes a whole book",
        f"Dead-man timer: {dead_man(listing, full=True)}",
        f"Client order ids: {ids.form}{longest}",
    ]
    if not listing.traits.limits:
        facts.append("No request limits are known: requests are not metered")
    yield from section("", Items(tuple(facts)))
    rows = ((each.name, limit(each), ", ".join(_costs(listing, each.name)) or "-") for each in listing.traits.limits)
    yield from section("", Table(("limit", "allows", "a request takes"), tuple(rows)))


def _costs(listing: VenueListing, name: str) -> Iterator[str]:
    for cost in listing.traits.costs:
        if cost.limit == name:
            parts = [str(cost.units)] if cost.units or not cost.each else []
            parts += [f"{cost.each} an order"] if cost.each else []
            yield f"{cost.call} {' + '.join(parts)}"


def capability_table(capabilities: Sequence[Capability], caption: str = "") -> Table:
    """Capabilities of a venue, with notes."""
    rows = tuple((each.name, each.can, each.note) for each in capabilities)
    return Table(("capability", "supported", ""), rows, caption=caption)


def named(capabilities: Sequence[Capability], can: str) -> str:
    """Names of the capabilities with this value; `-` without any."""
    return ", ".join(each.name for each in capabilities if each.can == can) or "-"


def limits(listing: VenueListing) -> str:
    """Limits that orders count against, in one line; `none known` without any."""
    counted = {cost.limit for cost in listing.traits.costs if cost.call in ("submit", "submit_batch")}
    texts = [f"{each.name} {limit(each)}" for each in listing.traits.limits if each.name in counted]
    return "; ".join(texts) or "none known"


def limit(each: RateLimit) -> str:
    """`2,400/min an address`."""
    per = _PER.get(each.per, f"{each.per:g} s")
    return f"{each.allowed:,}/{per}{_BY[each.by]}"


def dead_man(listing: VenueListing, *, full: bool = False) -> str:
    """Scope of a dead-man timer; `none` without one."""
    rule = listing.traits.dead_man
    if rule is None:
        return "none"
    if not full:
        return rule.reach
    longest = "" if rule.longest is None else f" to {_time(rule.longest)}"
    parts = [f"one for each {rule.reach}, {_time(rule.shortest)}{longest or ' or more'}"]
    if rule.a_day is not None:
        parts.append(f"triggers at most {count_of(rule.a_day, 'time')} a day")
    stops = {True: "cancels stops too", False: "leaves stops untouched", None: "whether it cancels stops is unknown"}
    parts.append(stops[rule.takes_stops])
    if rule.quiet_for_maintenance:
        parts.append("to be disarmed before maintenance")
    return "; ".join(parts)


def _time(seconds: float) -> str:
    return duration_text(timedelta(seconds=seconds)) if seconds >= 1 else f"{seconds * 1000:g} ms"


def listings_json(listings: Sequence[VenueListing], absent: Sequence[AbsentPlugIn]) -> str:
    """All data as JSON."""
    answer = {
        "format": "killswitch.venues/v1",
        "venues": listings,
        "absent": [{"family": each.name, "why": each.why, "way_out": each.way_out} for each in absent],
    }
    return msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()
