"""What a running close looks like: a block that is redrawn, or one line for each change."""

from __future__ import annotations

from datetime import timedelta

from killswitch.cli.wording import instant, lasting
from killswitch.model.legible import one_line
from killswitch.runner.progress import OpenPosition, Progress

WORST_SHOWN = 8
"""How many of the positions that are held up a block names."""


def block(shown: Progress) -> list[str]:
    """A close as it stands, a few lines."""
    held = [f"  held up    {_open(each)}" for each in shown.blocked[:WORST_SHOWN]]
    if len(shown.blocked) > WORST_SHOWN:
        held.append(f"             and {len(shown.blocked) - WORST_SHOWN} more")
    return [
        f"{_what(shown)}  [{shown.decision}]",
        f"  positions  {shown.done} done, {shown.open} open of {shown.positions}",
        f"  orders     {_orders(shown)}",
        f"  time       {_time(shown)}",
        *held,
    ]


def line(shown: Progress) -> str:
    """A close as it stands, in one line."""
    held = f"; held up: {', '.join(_open(each) for each in shown.blocked[:WORST_SHOWN])}" if shown.blocked else ""
    return (
        f"{instant(shown.at)}  {shown.decision}  {shown.standing}: {shown.done} of {shown.positions} positions done; "
        f"orders: {_orders(shown)}; {_time(shown)}{held}"
    )


def _what(shown: Progress) -> str:
    if shown.stage is not None:
        return f"{shown.stage} on {shown.scope}"
    cause = f"{shown.cause}: " if shown.cause and shown.cause != shown.reason else ""
    why = f"{cause}{shown.reason or 'no reason'}"
    return one_line(f"close by hand by {shown.author or 'unknown'} of {shown.scope} ({why})")


def _orders(shown: Progress) -> str:
    counts = shown.orders
    partly = f" ({counts.partly} in part)" if counts.partly else ""
    parts = [f"{counts.sent} sent", f"{counts.filled} filled{partly}", f"{counts.unknown} unknown"]
    parts += [f"{counts.empty} ended without a fill"] if counts.empty else []
    return ", ".join(parts + ([f"{counts.refused} refused"] if counts.refused else []))


def _time(shown: Progress) -> str:
    elapsed = lasting(timedelta(seconds=shown.elapsed))
    if shown.standing != "closing":
        return f"ended {shown.standing} after {elapsed}"
    if shown.expected_end is None:
        return f"{elapsed} elapsed, end unknown: {shown.unknown_because or 'nothing to expect it by'}"
    return f"{elapsed} elapsed, end expected in {lasting(shown.expected_end - shown.at)}"


def _open(each: OpenPosition) -> str:
    left = "?" if each.left is None else f"{each.left:f}"
    return f"{left} {each.symbol} {each.position_side} on {each.account}: {each.why}"
