"""The paper venue in the same process: no network between, so nothing can be lost on the way."""

from __future__ import annotations

from killswitch.market.paper import PaperMarket
from killswitch.model.clock import Clock
from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import OrderReport, OrderRequest, VenueDownError


class LocalVenue:
    """One account of a `PaperMarket`, as a VenueAdapter. `submit` may raise OrderRejectedError; before the first bar
    the venue is down; nothing else goes wrong."""

    def __init__(self, account: str, market: PaperMarket, clock: Clock | None) -> None:
        """Without a clock the account is observed when the last bar closed. ValueError for an unknown account."""
        if account not in market.accounts:
            raise ValueError(f"the paper market has no account {account}; it has {', '.join(market.accounts)}")
        self.account = account
        self._market = market
        self._clock = clock
        self._known_rules = 0

    async def snapshot(self) -> AccountSnapshot:
        """Instruments are given the first time, and again when one has changed."""
        if self._market.now is None:
            raise VenueDownError("the market has not begun: no bar yet")
        fresh = self._known_rules != self._market.rules_version
        self._known_rules = self._market.rules_version
        at = self._clock.now() if self._clock else None
        return self._market.snapshot(self.account, at, instruments=fresh)

    async def submit(self, request: OrderRequest) -> OrderReport:
        return self._market.submit(self.account, request)

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        return self._market.find_order(self.account, symbol, client_order_id)

    async def open_orders(self) -> tuple[Order, ...]:
        return self._market.open_orders(self.account)

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        return self._market.fills(self.account, symbol, client_order_id)

    async def cancel(self, symbol: str, order_id: str) -> None:
        self._market.cancel(self.account, symbol, order_id)

    async def close(self) -> None:
        """There is nothing to give back."""
