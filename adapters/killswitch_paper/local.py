"""The paper venue in the same process, without a network, so that no request can be lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal

from msgspec.structs import replace

from killswitch.market.meter import NEVER
from killswitch.market.paper import PaperMarket
from killswitch.market.terms import ONE_PRICE
from killswitch.model.clock import Clock
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import (
    Batching,
    Call,
    OrderReport,
    OrderRequest,
    Prices,
    RateLimitedError,
    SentTransfer,
    TransferFate,
    Transfers,
    VenueAdapter,
    VenueDownError,
    VenueError,
)


class LocalVenue(VenueAdapter):
    """One account of a `PaperMarket`, as a VenueAdapter. `submit` may raise OrderRejectedError; before the first bar
    the venue is down; where its terms have limits, any call may raise RateLimitedError. Nothing else fails."""

    def __init__(self, account: str, market: PaperMarket, clock: Clock | None, watch: Sequence[str] = ()) -> None:
        """Without a clock the account is observed at the close of the last bar. Raises ValueError for an unknown
        account."""
        if account not in market.accounts:
            raise ValueError(f"the paper market has no account {account}; it has {', '.join(market.accounts)}")
        self.account = account
        self._market = market
        self._clock = clock
        self._watch = watch
        self._known_rules = 0
        terms = market.terms.traits
        self.traits = replace(terms, conditional_orders=ONE_PRICE)
        self.close_book = self._close_book if terms.whole_book else None
        self.transfers = Transfers(f"paper market {id(market)}", account, self._transfer, self._transfer_fate)
        self.batches = Batching(terms.batch, self._submit_batch) if terms.batch > 1 else None

    def used(self) -> Mapping[str, int]:
        """The market's request count; empty before its first bar."""
        at = self._micros()
        return {} if at is None else self._market.meter.used(self.account, at)

    async def snapshot(self) -> AccountSnapshot:
        """Instruments are included the first time, and again after a change."""
        self._charge("snapshot")
        if self._market.now is None:
            raise VenueDownError("the market has not begun: no bar yet")
        fresh = self._known_rules != self._market.rules_version
        self._known_rules = self._market.rules_version
        at = self._clock.now() if self._clock else None
        return self._market.snapshot(self.account, at, instruments=fresh, watch=self._watch)

    async def prices(self, symbols: Collection[str]) -> Mapping[str, Prices]:
        """Prices of the market. They cost nothing of any limit."""
        if self._clock is not None:
            self._market.move_clock(self._clock.now())
        return self._market.prices(symbols)

    async def submit(self, request: OrderRequest) -> OrderReport:
        self._charge("submit", request.symbol)
        return self._market.submit(self.account, request)

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        self._charge("find_order", symbol)
        return self._market.find_order(self.account, symbol, client_order_id)

    async def open_orders(self) -> tuple[Order, ...]:
        self._charge("open_orders")
        return self._market.open_orders(self.account)

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        self._charge("fills", symbol)
        return self._market.fills(self.account, symbol, client_order_id)

    async def cancel(self, symbol: str, order_id: str) -> None:
        self._charge("cancel", symbol)
        self._market.cancel(self.account, symbol, order_id)

    async def _submit_batch(self, requests: Sequence[OrderRequest]) -> Sequence[OrderReport | VenueError]:
        self._charge("submit_batch", *(request.symbol for request in requests))
        return self._market.submit_batch(self.account, requests)

    async def _close_book(self) -> None:
        self._charge("close_book")
        self._market.close_book(self.account)

    async def _transfer(self, account: str, amount: Decimal, transfer: str) -> None:
        if self._clock is not None:
            self._market.move_clock(self._clock.now())
        self._market.move(self.account, account, amount, transfer)

    async def _transfer_fate(self, sent: SentTransfer) -> TransferFate:
        """A call of this market is never under way: what it does not have was never made."""
        return "moved" if self._market.has_moved(sent.id) else "failed"

    async def close(self) -> None:
        """Nothing to release."""

    def _charge(self, call: Call, *symbols: str) -> None:
        """Advance the market's clock, and count the call, with one order for each symbol."""
        if self._clock is not None:
            self._market.move_clock(self._clock.now())
        at = self._micros()
        if at is None or not self._market.terms.traits.limits:
            return
        wait = self._market.meter.charge(self.account, call, symbols, at)
        if wait is not None:
            raise RateLimitedError(f"{call}: too many requests", None if wait == NEVER else wait)

    def _micros(self) -> int | None:
        now = self._clock.now() if self._clock else self._market.now
        return None if now is None else to_micros(now)
