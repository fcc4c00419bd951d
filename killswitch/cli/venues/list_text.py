"""The venues that are supported, in words: a row each, or one in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import msgspec

from killswitch.accounts.plug_ins import Absent
from killswitch.cli.wording import fitted, hanging, lasting, width
from killswitch.model.inspection import Capability, VenueListing
from killswitch.model.venue import RateLimit

_PER = {1.0: "s", 60.0: "min", 3600.0: "h", 86_400.0: "day"}
_BY = {"account": "", "symbol": " a symbol", "address": " an address"}


WIDE = 140
"""Columns from which on the limits have one of their own."""


def in_short(listings: Sequence[VenueListing], others: Sequence[str] = ()) -> str:
    """A table with a row for each venue, and how to read it. `others`: families that reach more than they list."""
    if not listings:
        return ""
    head: tuple[str, ...] = (
        "adapter",
        "exchange",
        "markets",
        "batch",
        "whole book",
        "dead man",
        "limits of orders",
        "partly",
        "not",
    )
    rows: list[tuple[str, ...]] = [(each.adapter, each.exchange or "-", *_cells(each)) for each in listings]
    rows += [(family, f"any other exchange of {family}", "as it has", *[""] * (len(head) - 3)) for family in others]
    if width() < WIDE:
        head, rows = _without_limits(head), [_without_limits(row) for row in rows]
    yes = sorted({name for each in listings for name in _names(each.capabilities, "yes")})
    everywhere = [name for name in yes if all(name in _names(each.capabilities, "yes") for each in listings)]
    lines = [fitted(head, rows, width(), indent="")]
    if everywhere and len(listings) > 1:
        lines.append("\n" + hanging(f"Everywhere: {', '.join(everywhere)}.", "", width()))
    lines.append("\n`ksctl venues list EXCHANGE` shows one of them in full, with its limits;")
    lines.append("what is in no column it does wholly.")
    return "\n".join(lines)


def _cells(each: VenueListing) -> tuple[str, ...]:
    return (
        ", ".join(each.markets), str(each.traits.batch), "yes" if each.traits.whole_book else "no", dead_man(each),
        limits(each), named(each.capabilities, "partly"), named(each.capabilities, "no"),
    )  # fmt: skip


def _without_limits(row: tuple[str, ...]) -> tuple[str, ...]:
    return row[:6] + row[7:]


def in_full(listing: VenueListing) -> str:
    """Everything about one venue."""
    return "\n".join(_full(listing))


def _full(listing: VenueListing) -> Iterator[str]:
    exchange = "" if listing.exchange is None else f", exchange {listing.exchange}"
    yield f"Adapter {listing.adapter}{exchange}: {', '.join(listing.markets)}"
    if listing.tried:
        against = "It is " if listing.tried.startswith("not tried") else "Tried against "
        yield hanging(f"{against}{listing.tried}", "  ", width())
    yield ""
    if listing.capabilities:
        yield capability_table(listing.capabilities)
        yield ""
    yield f"Batches of {listing.traits.batch}" if listing.traits.batch > 1 else "No batches"
    yield "Closes a whole book in one request" if listing.traits.whole_book else "No request that closes a whole book"
    yield hanging(f"Dead-man timer: {dead_man(listing, in_words=True)}", "  ", width())
    ids = listing.traits.client_ids
    longest = f", up to {ids.longest}" if ids.form == "plain" else ""
    yield f"Client order ids: {ids.form}{longest}"
    if not listing.traits.limits:
        yield "No request limits are known: nothing is metered"
        return
    yield ""
    rows = [(each.name, limit(each), ", ".join(_costs(listing, each.name)) or "-") for each in listing.traits.limits]
    yield fitted(("limit", "allows", "a request takes"), rows, width())


def _costs(listing: VenueListing, name: str) -> Iterator[str]:
    for cost in listing.traits.costs:
        if cost.limit == name:
            parts = [str(cost.units)] if cost.units or not cost.each else []
            parts += [f"{cost.each} an order"] if cost.each else []
            yield f"{cost.call} {' + '.join(parts)}"


def capability_table(capabilities: Sequence[Capability]) -> str:
    """What the switch can do there, and what must be known about it."""
    return fitted(("capability", "can", ""), [(each.name, each.can, each.note) for each in capabilities], width())


def named(capabilities: Sequence[Capability], can: str) -> str:
    """The names of those that are so; `-` for none."""
    return ", ".join(_names(capabilities, can)) or "-"


def _names(capabilities: Sequence[Capability], can: str) -> list[str]:
    return [each.name for each in capabilities if each.can == can]


def limits(listing: VenueListing) -> str:
    """Those that an order counts against, in one line; `none known` without any."""
    counted = {cost.limit for cost in listing.traits.costs if cost.call in ("submit", "submit_batch")}
    told = [f"{each.name} {limit(each)}" for each in listing.traits.limits if each.name in counted]
    return "; ".join(told) or "none known"


def limit(each: RateLimit) -> str:
    """`2,400/min an address`."""
    per = _PER.get(each.per, f"{each.per:g} s")
    return f"{each.allowed:,}/{per}{_BY[each.by]}"


def dead_man(listing: VenueListing, *, in_words: bool = False) -> str:
    """What one timer covers; `none` without one."""
    rule = listing.traits.dead_man
    if rule is None:
        return "none"
    if not in_words:
        return rule.reach
    longest = "" if rule.longest is None else f" to {_time(rule.longest)}"
    parts = [f"one for each {rule.reach}, {_time(rule.shortest)}{longest or ' or more'}"]
    if rule.a_day is not None:
        parts.append(f"goes off at most {rule.a_day} times a day")
    stops = {True: "cancels stops too", False: "leaves stops alone", None: "whether it cancels stops is unknown"}
    parts.append(stops[rule.takes_stops])
    if rule.quiet_for_maintenance:
        parts.append("to be disarmed before maintenance")
    return "; ".join(parts)


def _time(seconds: float) -> str:
    return lasting(timedelta(seconds=seconds)) if seconds >= 1 else f"{seconds * 1000:g} ms"


def as_json(listings: Sequence[VenueListing], absent: Sequence[Absent]) -> str:
    """Everything, for programs."""
    answer = {
        "format": "killswitch.venues/v1",
        "venues": listings,
        "absent": [{"family": each.family, "why": each.why, "way_out": each.way_out} for each in absent],
    }
    return msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()
