"""How numbers, amounts and times are written for people, the same on every screen and page."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from killswitch.model.instant import rfc3339

INFINITY = "∞"
Span = tuple[float | None, float | None]


def number(value: float | None, unit: str | None, unbounded: str = INFINITY) -> str:
    """A signal value as people write it: `4.51%`, `12.3 s`, `10,000.00`."""
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


def interval(span: Span | None, unit: str | None) -> str:
    """`4.51%` where known, `[4.51%, ∞]` where partly known, `unknown` where there is nothing."""
    if span is None or span == (None, None):
        return "unknown"
    low, high = number(span[0], unit, "-" + INFINITY), number(span[1], unit)
    return low if span[0] == span[1] else f"[{low}, {high}]"


def money(amount: Decimal | None, currency: str = "") -> str:
    """An amount with two decimals and its thousands apart; unknown where it is None."""
    return "unknown" if amount is None else f"{amount:,.2f} {currency}".rstrip()


def instant(at: datetime | None) -> str:
    """UTC to the second; `-` for none."""
    return "-" if at is None else rfc3339(at.replace(microsecond=0))


def lasting(length: timedelta) -> str:
    """A duration in its two largest units: `1h 30m`, `45s`."""
    seconds = int(length.total_seconds())
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    return " ".join([f"{count}{unit}" for count, unit in parts if count][:2]) or "0s"
