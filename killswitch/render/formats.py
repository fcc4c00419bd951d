"""Formats of numbers, amounts, times and lists of orders."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from killswitch.model.instant import rfc3339

INFINITY = "∞"
NumberRange = tuple[float | str | None, float | str | None]
"""Two bounds, as numbers or as the decimal texts of a record; None for an unknown bound."""


def number(value: float | None, unit: str | None, unbounded: str = INFINITY) -> str:
    """Format a signal value: `4.51%`, `12.3 s`, `10,000.00`."""
    if value is None:
        return unbounded
    if unit == "fraction":
        return f"{value:.2%}"
    if unit == "seconds":
        return f"{value:.1f} s"
    if unit == "milliseconds":
        return f"{value:.0f} ms"
    if unit == "money":
        return f"{value:,.2f}"
    return f"{value:.4g}"


def interval(span: NumberRange | None, unit: str | None) -> str:
    """Format an interval in words: `4.51%` if exact, `at least 4.51%`, `at most 3 s`, `between 1% and 3%`, `unknown`.

    A fraction that may be as much as 1 has no known upper end.
    """
    least, most = (None, None) if span is None else (None if end is None else float(end) for end in span)
    if most == 1.0 and least != most and unit == "fraction":
        most = None
    if least is None:
        return "unknown" if most is None else f"at most {number(most, unit)}"
    if most is None:
        return f"at least {number(least, unit)}"
    return number(least, unit) if least == most else f"between {number(least, unit)} and {number(most, unit)}"


def money(amount: Decimal | None, currency: str | None = None) -> str:
    """Format an amount with two decimals and thousands separators; `unknown` for None."""
    return "unknown" if amount is None else f"{amount:,.2f} {currency or ''}".rstrip()


def amount_text(value: Decimal, currency: str | None = None) -> str:
    """Format an amount of any size with at least two decimals, and at least four digits that say something.

    `11,243.86 USDT`, `-5.00`, `0.004568 BTC`: a small amount does not become 0.00.
    """
    places = max(2, 3 - value.adjusted()) if value else 2
    whole, _, rest = f"{value:,.{places}f}".partition(".")
    return f"{whole}.{rest.rstrip('0'):0<2} {currency or ''}".rstrip()


def exact(value: Decimal | None, nothing: str = "unknown") -> str:
    """A number with all digits and no exponent; `nothing` for None."""
    return nothing if value is None else f"{value:f}"


def instant(at: datetime | None) -> str:
    """Format a UTC time to the second; `-` for None."""
    return "-" if at is None else rfc3339(at.replace(microsecond=0))


def duration_text(length: timedelta) -> str:
    """Format a duration in its two largest units: `1h 30m`, `45s`."""
    seconds = int(length.total_seconds())
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    return " ".join([f"{count}{unit}" for count, unit in parts if count][:2]) or "0s"


def rounded_duration(length: timedelta) -> str:
    """Format a duration roughly: `76 s`, and from two minutes, hours and days on `12 min`, `30 h`, `3 d`."""
    seconds = round(length.total_seconds())
    units = ((2 * 86400, 86400, "d"), (2 * 3600, 3600, "h"), (120, 60, "min"))
    return next((f"{seconds // size} {name}" for least, size, name in units if seconds >= least), f"{seconds} s")


def count_of(number: int, noun: str) -> str:
    """A number with its noun: `1 order`, `1,200 orders`, `2 policies`, `3 switches`."""
    several = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}{'es' if noun.endswith('ch') else 's'}"
    return f"{number:,} {noun if number == 1 else several}"


_RANGES = 6
"""Maximum numbers and ranges that are listed."""


def order_numbers(numbers: Sequence[int]) -> str:
    """Format order numbers: `order 3`, `orders 1 to 25`, `orders 1, 4 and 7 to 9`; many end in `and 12 more`."""
    found = sorted(set(numbers))
    ranges: list[list[int]] = []
    for number in found:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    # Two neighbours are listed as two numbers.
    parts = [part for run in ranges for part in ([run] if len(run) > 2 else [[number] for number in run])]
    texts = [str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts[:_RANGES]]
    more = sum(map(len, parts[_RANGES:]))
    if more:
        texts.append(f"{more} more")
    return f"order{'' if len(found) == 1 else 's'} {listed(texts)}"


def listed(items: Sequence[str]) -> str:
    """Format words, at least one, as a list: `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
