"""What templates may do with a value: the whole list, because a template can do nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from markupsafe import Markup

from killswitch.incident.markdown import code, escape, fenced
from killswitch.incident.numbering import numbered
from killswitch.incident.record import Command, WrittenAt
from killswitch.model import spelling

_ONE_LINE = 60
"""Characters of a command that stand on one line."""
_MOST_DECIMALS = 20


def money(amount: Decimal | None, currency: str | None = "") -> str:
    """An amount with two decimals and its currency; unknown where it is."""
    return spelling.money(amount, currency or "")


def percent(share: str | float | Decimal | None) -> str:
    """A fraction as per cent with one decimal."""
    return "unknown" if share is None else f"{float(share):.1%}"


def fixed(value: float | None, digits: int = 1) -> str:
    """A number with so many decimals; ValueError for more than there can be of a float."""
    if not 0 <= digits <= _MOST_DECIMALS:
        raise ValueError(f"a number has 0 to {_MOST_DECIMALS} decimals, not {digits}")
    return "unknown" if value is None else f"{value:,.{digits}f}"


def price(value: Decimal | None) -> str:
    """A price to eight significant digits, without an exponent; a dash where there is none."""
    if value is None:
        return "–"
    shown = f"{value:.8g}"
    return f"{Decimal(shown):f}"


def amount(value: Decimal | None) -> str:
    """An amount without an exponent and trailing zeros; a dash where there is none."""
    if value is None:
        return "–"
    shown = f"{value:f}"
    return (shown.rstrip("0").rstrip(".") if "." in shown else shown) or "0"


def clock(at: datetime | None, day: datetime | None = None) -> str:
    """The time of day in UTC, to the second; with the date where it is another one than that of `day`."""
    if at is None:
        return "–"
    same = day is None or at.date() == day.date()
    return f"{at:%H:%M:%S}" if same else f"{at:%Y-%m-%d %H:%M:%S}"


def lasting(seconds: float) -> str:
    """Seconds as a duration in its two largest units."""
    return spelling.lasting(timedelta(seconds=seconds))


def quoted(line: WrittenAt | None) -> Markup:
    """A policy's line: its words in code type, and where it stands."""
    if line is None:
        return Markup("the policy's line is not known")
    where = escape(f"{line.file}:{line.line}")
    return Markup(f"{code(line.text)} ({where})") if line.text else where


def shell(command: Command) -> Markup:
    """A command as a block to copy, a line for each option where it is long."""
    lines: list[str] = []
    for word in command.words:
        quoted_word = shlex.quote(word)
        if lines and (not word.startswith("--") or len(command.line) <= _ONE_LINE):
            lines[-1] += f" {quoted_word}"
        else:
            lines.append(f"  {quoted_word}" if lines else quoted_word)
    return fenced(" \\\n".join(lines), "sh")


def join(values: Iterable[object], between: str = ", ") -> Markup:
    """Each value escaped, with text of the template between them."""
    return Markup(between).join(escape(value) for value in values)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "amount": amount,
    "clock": clock,
    "code": code,
    "fenced": fenced,
    "fixed": fixed,
    "join": join,
    "lasting": lasting,
    "money": money,
    "numbered": numbered,
    "percent": percent,
    "price": price,
    "quoted": quoted,
    "shell": shell,
}
"""Ours. `length`, `first`, `last`, `lower`, `upper` and `trim` are Jinja2's own."""

OWN_OF_JINJA = ("length", "first", "last", "lower", "upper", "trim")
TESTS = ("none", "true", "false", "string", "number", "eq", "ne", "lt", "le", "gt", "ge", "in")
