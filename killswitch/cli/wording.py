"""How the verbs put things: aligned tables, numbers with their units, and one line for what happened."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import datetime
from shutil import get_terminal_size
from textwrap import wrap
from typing import TYPE_CHECKING

from killswitch.incident.notify.message import Written as Written
from killswitch.incident.notify.message import as_written as as_written
from killswitch.incident.notify.message import reading as reading
from killswitch.incident.record.close_causes import by_hand, intended
from killswitch.model.effects import Orders, kind_of, of_kind
from killswitch.model.legible import one_line
from killswitch.render.formats import INFINITY as INFINITY
from killswitch.render.formats import instant as instant
from killswitch.render.formats import interval as interval
from killswitch.render.formats import lasting as lasting
from killswitch.render.formats import money as money
from killswitch.render.formats import number as number

if TYPE_CHECKING:
    from killswitch.model.decision import Decision, Notice
    from killswitch.runner.status_blob import MachineView, OrphanView


def table(head: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows under their heads, columns aligned by width, without trailing blanks.

    On a terminal it keeps to its width: the widest columns are narrowed, and where even that is too wide, each row
    becomes a paragraph with a line for each column. Elsewhere a row is a line, which can be searched.
    """
    if sys.stdout.isatty():
        return on_a_terminal(head, rows, width(), indent)
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )


def on_a_terminal(head: Sequence[str], rows: Sequence[Sequence[str]], within: int, indent: str) -> str:
    """A table of at most `within` columns, as far as its longest words allow."""
    made = fitted(head, rows, within, indent)
    if max(map(len, made.splitlines())) <= within:
        return made
    longest = max(map(len, head))
    paragraphs = [
        "\n".join(
            hanging(
                f"{indent}{name.ljust(longest)}  {one_line(cell)}".rstrip(), " " * (len(indent) + longest + 2), within
            )
            for name, cell in zip(head, row, strict=True)
        )
        for row in rows
    ]
    return "\n\n".join(paragraphs)


def fit(text: str) -> str:
    """Text as it is printed: on a terminal, lines that are too long go on below themselves."""
    if not sys.stdout.isatty():
        return text
    within = width()
    return "\n".join(hanging(line, _below(line), within) if len(line) > within else line for line in text.splitlines())


def _below(line: str) -> str:
    """Where a line goes on: below what stands beside its label, as in `Runner   not running`, or two columns in."""
    label = re.match(r" *\S+ {2,}(?=\S)", line)
    return " " * (label.end() if label else len(line) - len(line.lstrip()) + 2)


SHORT_REASON = 32
"""A reason of so many characters may stand in a cell."""

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
    if decision.is_withdrawal:
        return f"end of the suspicion of {decision.stage}: {where}"
    if decision.is_suspicion:
        return f"suspicion of {decision.stage}, a lock until {instant(decision.until)} and nothing else: {where}"
    return f"level {decision.level} {decision.stage}: {where}"


def share(of_the_loss: str | None) -> str:
    """One side's part of a loss."""
    return "unknown" if of_the_loss is None else f"{float(of_the_loss):.1%}"


def decision_lines(decision: Decision, written: Written | None = None) -> list[str]:
    """A decision with its reasons and its orders, a line each. `written`: the thresholds of its policies."""
    lines = [f"{instant(decision.as_of)}  {headline(decision)}"]
    lines += [f"    {each.name}: {reading(decision, each, written or {})}" for each in decision.triggers]
    found = decision.attribution
    if found is not None and found.window:
        shares = f"long {share(found.long_share)}, short {share(found.short_share)}"
        lines.append(f"    the loss is {found.source}: {shares}, over {found.window}")
    if decision.kind in (None, "suspicion") and decision.reason:
        lines.append(f"    note: {decision.reason}")
    orders = of_kind(decision.effects, Orders)
    lines += [f"    {one_line(order)}" for order in intended(() if orders is None else orders.intents)]
    return lines + [f"    {one_line(kind_of(effect).text(effect))}" for effect in decision.further]


class Below:
    """Reasons that are too long for a cell of a table: each is said once below it, and the cell points there."""

    def __init__(self) -> None:
        self._found: dict[str, int] = {}

    def point(self, reason: str) -> str:
        """The reason itself where it fits into a cell, else its mark."""
        if len(reason) <= SHORT_REASON:
            return reason
        return f"[{self._found.setdefault(reason, len(self._found) + 1)}]"

    def lines(self, indent: str = "  ") -> list[str]:
        """Each mark with its reason."""
        return [one_line(f"{indent}[{number}] {reason}") for reason, number in self._found.items()]


def orphan_line(orphan: OrphanView) -> str:
    """A latch whose policy is gone, and the way out, in one line."""
    return (
        f"level {orphan.level} {orphan.stage or 'unnamed'} of {orphan.policy} on {orphan.scope} is still latched, but "
        f"that policy or account is not in the files any more: `ksctl reset {orphan.scope}` ends it and lifts its lock"
    )


def stage_words(machine: MachineView) -> str:
    """The stage that has fired and was not reset, and whether it has latched."""
    return f"{machine.stage or 'normal'}{'' if machine.latched else ' (fired, not latched)'}"


def meanwhile(machine: MachineView, now: datetime) -> list[str]:
    """What a policy does on a scope although nothing of it is latched: a close that waits, a lock on suspicion."""
    lines = []
    if (waiting := machine.waiting) is not None:
        whom = " and ".join(waiting.accounts) or "the scope's account"
        lines.append(
            f"{waiting.stage} fired at {instant(waiting.since)}, and its close waits for {whom}, which cannot be read: "
            f"until {instant(waiting.until)}, and longer while its triggers hold"
        )
    suspected = machine.suspected
    if suspected is not None and (suspected.until is None or suspected.until > now):
        lines.append(
            f"lock on suspicion, {suspected.mode} until {instant(suspected.until)}: {suspected.stage} fires if a fall "
            "of equity was a loss, and has not fired"
        )
    return [one_line(line) for line in lines]


def notice_line(notice: Notice) -> str:
    """A notice in one line without its time."""
    return one_line(f"{notice.severity}: {notice.policy} on {notice.scope}: {notice.text}")
