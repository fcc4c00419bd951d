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
    word = (venue_type or "").strip().lower().replace("-", "_").replace(" ", "_")
    if not word and not conditional:
        return None
    if "trail" in word or word.startswith("move_order"):
        return "trailing_stop"
    if "take" in word or "profit" in word:
        guards = False
    elif "stop" in word or "stp" in word:
        guards = True
    market = "market" in word or word in _MARKETS
    limit = not market and (priced or "limit" in word or word in _LIMITS)
    if conditional or guards is not None:
        kind = "trigger" if guards is None else "stop" if guards else "take_profit"
        return f"{kind}_{'limit' if limit else 'market'}"
    return "market" if word in (*_MARKETS, "market") else "limit" if "limit" in word or word in _LIMITS else venue_type
