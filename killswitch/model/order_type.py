"""Normalisation of order types across venues."""

from __future__ import annotations

from typing import Final

_LIMITS: Final = frozenset({"lmt", "ioc", "fok", "post", "post_only"})
_MARKETS: Final = frozenset({"mkt"})


def order_type(venue_type: str | None, *, conditional: bool, priced: bool, guards: bool | None = None) -> str | None:
    """The normalised type of an order.

    `limit`, `market`, `trailing_stop`, or `stop_…`, `take_profit_…` and `trigger_…` with `limit` or `market`;
    `trigger_…` is a conditional order of unknown purpose. An unrecognised type is returned unchanged, and None for
    none. `priced`: whether the order has a limit. `guards`: True for a stop, False for a take-profit, None if the venue
    reports neither.
    """
    name = (venue_type or "").strip().lower().replace("-", "_").replace(" ", "_")
    if not name and not conditional:
        return None
    if "trail" in name or name.startswith("move_order"):
        return "trailing_stop"
    if "take" in name or "profit" in name:
        guards = False
    elif "stop" in name or "stp" in name:
        guards = True
    market = "market" in name or name in _MARKETS
    limit = not market and (priced or "limit" in name or name in _LIMITS)
    if conditional or guards is not None:
        kind = "trigger" if guards is None else "stop" if guards else "take_profit"
        return f"{kind}_{'limit' if limit else 'market'}"
    return "market" if name in (*_MARKETS, "market") else "limit" if "limit" in name or name in _LIMITS else venue_type
