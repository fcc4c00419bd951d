"""The kind of an order in one spelling for all venues, where the venue's word for it is known."""

from __future__ import annotations

from typing import Final

_LIMITS: Final = frozenset({"lmt", "ioc", "fok", "post", "post_only"})
_MARKETS: Final = frozenset({"mkt"})


def order_type(told: str | None, *, conditional: bool, priced: bool, guards: bool | None = None) -> str | None:
    """`limit`, `market`, `stop_…` and `take_profit_…` with either, `trailing_stop`; `trigger_…` where nobody says which
    of the two a conditional order is. The venue's own word where none of these fits it, None for none.

    `priced`: whether it has a limit. `guards`: whether it waits for a loss or for a profit, where the venue tells that
    beside its word.
    """
    word = (told or "").strip().lower().replace("-", "_").replace(" ", "_")
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
    return "market" if word in (*_MARKETS, "market") else "limit" if "limit" in word or word in _LIMITS else told
