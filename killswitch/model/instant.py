"""Instants as whole microseconds since 1970, so that window edges compare exactly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def to_micros(at: datetime) -> int:
    """Whole microseconds since the epoch of an aware `at`; a naive one is a TypeError."""
    return (at - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The UTC datetime `micros` after the epoch."""
    return _EPOCH + timedelta(microseconds=micros)


def rfc3339(at: datetime) -> str:
    """`at` as RFC 3339 in UTC with a `Z`, without a fraction when it has none."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
