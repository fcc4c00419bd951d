"""How the verbs put things: aligned tables, numbers with their units, and one line for what happened."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from shutil import get_terminal_size
from textwrap import wrap
from typing import TYPE_CHECKING

from killswitch.incident.causes import by_hand, intended
from killswitch.model.legible import one_line
from killswitch.model.spelling import INFINITY as INFINITY
from killswitch.model.spelling import instant as instant
from killswitch.model.spelling import interval as interval
from killswitch.model.spelling import lasting as lasting
from killswitch.model.spelling import money as money
from killswitch.model.spelling import number as number

if TYPE_CHECKING:
    from killswitch.model.decision import Decision, Notice
    from killswitch.runner.status import OrphanView


def table(head: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows under their heads, columns aligned by width, without trailing blanks."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )


NARROWEST = 12
"""Columns that a cell keeps however narrow the terminal is."""


def width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return get_terminal_size((80, 24)).columns


def hanging(text: str, indent: str, within: int) -> str:
    """`text`, which begins at the left margin, in lines of at most `within`; those after the first begin with `indent`.

    Words are never broken: an address stays one that can be copied.
    """
    room = max(within, len(indent) + 2 * NARROWEST)
    lines = wrap(text, room, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def fitted(head: Sequence[str], rows: Sequence[Sequence[str]], within: int, indent: str = "  ") -> str:
    """As `table`, its widest columns narrowed until the rows fit `within`; their cells go on below themselves."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    least = [max((len(word) for row in (head, *rows) for word in row[i].split()), default=0) for i in range(len(head))]
    over = len(indent) + sum(widths) + 2 * (len(widths) - 1) - within
    while over > 0:
        spare, widest = max((widths[i] - max(least[i], min(NARROWEST, widths[i])), i) for i in range(len(widths)))
        if spare <= 0:
            break
        widths[widest] -= 1
        over -= 1
    lines: list[str] = []
    for row in (head, *rows):
        cells = [wrap(cell, max(1, room), break_long_words=False, break_on_hyphens=False) or [""]
                 for cell, room in zip(row, widths, strict=True)]  # fmt: skip
        for below in range(max(map(len, cells))):
            parts = [cell[below] if below < len(cell) else "" for cell in cells]
            filled = "  ".join(part.ljust(room) for part, room in zip(parts, widths, strict=True))
            lines.append((indent + filled).rstrip())
    return "\n".join(lines)


def ago(at: datetime, now: datetime) -> str:
    """`12s ago`; an instant that is still to come says so."""
    return f"{lasting(now - at)} ago" if at <= now else f"in {lasting(at - now)}"


def headline(decision: Decision) -> str:
    """What a decision is, in one line without its time."""
    return one_line(_headline(decision))


def _headline(decision: Decision) -> str:
    where = f"{decision.policy} on {decision.scope}"
    if decision.kind == "reset":
        return f"reset from level {decision.previous_level} by {decision.author or 'its own condition'}: {where}"
    if decision.kind == "manual":
        what = by_hand(decision.cause)
        return f"{what} by {decision.author or 'unknown'}: {decision.scope} ({decision.reason or 'no reason'})"
    if decision.kind == "hedge":
        return f"temporary hedge: {where} ({decision.reason or 'no reason'})"
    return f"level {decision.level} {decision.stage}: {where}"


def decision_lines(decision: Decision) -> list[str]:
    """A decision with its reasons and its orders, a line each."""
    lines = [f"{instant(decision.as_of)}  {headline(decision)}"]
    for trigger in decision.triggers:
        low, high = trigger.value or (None, None)
        value = low if low == high else f"[{low}, {high}]"
        lines.append(f"    {trigger.name}: {value} against {trigger.threshold}")
    if decision.attribution is not None:
        found = decision.attribution
        shares = f"long {found.long_share or 'unknown'}, short {found.short_share or 'unknown'}"
        lines.append(f"    the loss is {found.source}: {shares}, over {found.window or 'no window'}")
    if decision.kind is None and decision.reason:
        lines.append(f"    note: {decision.reason}")
    return lines + [f"    {one_line(order)}" for order in intended(decision.intents)]


def orphan_line(orphan: OrphanView) -> str:
    """A latch whose policy is gone, and the way out, in one line."""
    return (
        f"level {orphan.level} {orphan.stage or 'unnamed'} of {orphan.policy} on {orphan.scope} is still latched, but "
        f"that policy or account is not in the files any more: `ksctl reset {orphan.scope}` ends it and lifts its lock"
    )


def notice_line(notice: Notice) -> str:
    """A notice in one line without its time."""
    return one_line(f"{notice.severity}: {notice.policy} on {notice.scope}: {notice.text}")
