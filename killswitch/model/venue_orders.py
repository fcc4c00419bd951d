"""Orders of venues as adapters read them: their types, and those that an adapter has sent or seen resting."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.snapshot import Fill, Order
from killswitch.model.venue import OrderReport, OrderRequest

_LIMITS: Final = frozenset({"lmt", "ioc", "fok", "post", "post_only"})
_MARKETS: Final = frozenset({"mkt"})
MOST = 4096
"""How many orders are kept; the oldest are dropped."""


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


class _Known(Struct, frozen=True):
    client_order_id: str | None
    trigger_price: Decimal | None


class KnownOrders:
    """The orders of one account, by symbol and the venue's id, which some venues count for each symbol.

    They tell whose fills are theirs where the venue's fills do not state it, and cost no request. An order of somebody
    else that never rested in a snapshot stays unknown.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Known] = {}

    def sent(self, request: OrderRequest, report: OrderReport) -> None:
        """Remember an order that the venue has accepted."""
        self._remember(report.symbol, report.id, _Known(request.client_order_id, request.trigger_price))

    def rest(self, orders: Iterable[Order]) -> None:
        """Remember open orders. A triggered order may be listed without its trigger, which it keeps here."""
        for order in orders:
            known = self._known.get((order.symbol, order.id))
            if known is None:
                self._remember(order.symbol, order.id, _Known(order.client_order_id, order.trigger_price))
            elif known.trigger_price is None and order.trigger_price is not None:
                self._known[order.symbol, order.id] = replace(known, trigger_price=order.trigger_price)

    def named(self, fills: tuple[Fill, ...] | None) -> tuple[Fill, ...] | None:
        """The fills with what their own order is known to have; what the venue states of a fill is kept."""
        return fills if not fills or not self._known else tuple(map(self._named, fills))

    def _named(self, fill: Fill) -> Fill:
        known = None if fill.order is None else self._known.get((fill.symbol, fill.order))
        if known is None:
            return fill
        return replace(
            fill,
            client_order_id=fill.client_order_id or known.client_order_id,
            trigger_price=known.trigger_price if fill.trigger_price is None else fill.trigger_price,
        )

    def _remember(self, symbol: str, number: str, known: _Known) -> None:
        self._known[symbol, number] = known
        if len(self._known) > MOST:
            del self._known[next(iter(self._known))]
