"""Limits rules: what an order must pass at the gate before a bot sends it, resolved for named accounts.

Times are whole microseconds, shares Decimal fractions. They are stored in the gate's view as JSON, so that the gate
needs no policy files: a field is never renamed, and a new one has a default.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from msgspec import Struct

from killswitch.graph.freezing import frozen_from
from killswitch.policy.schema import limits as schema
from killswitch.policy.schema.scalars import Quantity
from killswitch.signals.sessions import TradingSession


class _OfSymbols(Struct, frozen=True):
    """A limit of some symbols or base assets; None: of every symbol."""

    symbols: tuple[str, ...] | None = None

    def covers(self, symbol: str, base: str) -> bool:
        """Whether it limits the symbol, with base asset `base`."""
        return self.symbols is None or symbol in self.symbols or base in self.symbols


class LimitAmount(Struct, frozen=True):
    """A size: a share of equity (`percent`), or money in `currency`, which may name a base asset."""

    value: Decimal
    unit: Literal["percent", "money"]
    currency: str | None = None


def limit_amount(size: Quantity) -> LimitAmount:
    """The amount of a written size."""
    return LimitAmount(size.value, "percent" if size.unit == "percent" else "money", size.currency)


@frozen_from(schema.SizeLimit, at_most=("at_most", limit_amount))
class SizeRule(_OfSymbols, frozen=True, kw_only=True):
    """A largest size of one order or of one position."""

    at_most: LimitAmount


@frozen_from(schema.BandLimit)
class BandRule(_OfSymbols, frozen=True, kw_only=True):
    """A largest distance of a price from the mark."""

    at_most: Decimal


@frozen_from(schema.DayLimits, fees="fees.value", loss=("loss", limit_amount))
class DayRule(Struct, frozen=True):
    """Limits of the UTC day; None: no limit."""

    loss: LimitAmount | None = None
    trades: int | None = None
    fees: Decimal | None = None
    fee_rate: Decimal | None = None


@frozen_from(schema.MaintenanceWindow)
class WindowRule(Struct, frozen=True):
    """A time in which nothing may be opened, from `begins` to before `ends`."""

    begins: int
    ends: int
    reason: str


@frozen_from(
    schema.LimitsSpec, by_hand=["match", "session", "maintenance_in"], gross=("gross", limit_amount),
    concentration=("concentration", limit_amount), free_margin=("free_margin", limit_amount),
)  # fmt: skip
class LimitsRule(Struct, frozen=True):
    """The limits of some accounts. None, and an empty tuple, is no limit."""

    name: str
    accounts: tuple[str, ...]
    stale_after: int
    valid_for: int
    request_timeout: int
    cash: tuple[str, ...]
    banned: tuple[str, ...] | None = None
    sessions: tuple[TradingSession, ...] = ()
    """Entries pass while one of them is open; empty: at any time."""
    maintenance: tuple[WindowRule, ...] = ()
    maintenance_in: tuple[TradingSession, ...] = ()
    price_band: tuple[BandRule, ...] = ()
    order_size: tuple[SizeRule, ...] = ()
    position_size: tuple[SizeRule, ...] = ()
    gross: LimitAmount | None = None
    leverage: Decimal | None = None
    concentration: LimitAmount | None = None
    free_margin: LimitAmount | None = None
    day: DayRule | None = None
    orders_per_minute: int | None = None
    latency: int | None = None
    spread: Decimal | None = None
