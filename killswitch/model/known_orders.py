"""Orders that an adapter has sent or seen resting: whose fills are theirs, where the venue's fills do not state it.

It costs no request. An order of somebody else that never rested in a snapshot stays unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.snapshot import Fill, Order
from killswitch.model.venue import OrderReport, OrderRequest

MOST = 4096
"""How many orders are kept; the oldest are dropped."""


class _Known(Struct, frozen=True):
    client_order_id: str | None
    trigger_price: Decimal | None


class KnownOrders:
    """The orders of one account, by symbol and the venue's id, which some venues count for each symbol."""

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
