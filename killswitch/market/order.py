"""An order at the paper venue."""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal

from msgspec import Struct, field

from killswitch.market.holding import MONEY_STEP, ZERO
from killswitch.model.snapshot import Fill, Order
from killswitch.model.venue import OrderReport, OrderRequest, OrderState


class PaperOrder(Struct):
    """One order from its submission on, with all its fills."""

    id: str
    request: OrderRequest
    created_at: datetime
    state: OrderState = "open"
    filled: Decimal = ZERO
    fee: Decimal = ZERO
    """In the account's currency; a fee in another asset is converted at the price of its payment."""
    is_waiting: bool = False
    """Whether it waits for its trigger, and is in no book yet."""
    fills: list[Fill] = field(default_factory=list)

    @property
    def left(self) -> Decimal:
        """Contracts still to fill."""
        return self.request.amount - self.filled

    def add(self, fill: Fill, fee: Decimal) -> None:
        """Add a fill, whose fee is `fee` in the account's currency; the order is filled when nothing is left."""
        self.fills.append(fill)
        self.fee += fee or ZERO  # a zero without its decimals
        self.filled += fill.amount
        if self.left == 0:
            self.state = "filled"

    def expire_rest(self) -> None:
        """Expire what an immediate-or-cancel order could not fill at once."""
        if self.request.time_in_force == "ioc" and self.state == "open":
            self.state = "expired"

    def report(self) -> OrderReport:
        """The report of the order."""
        return OrderReport(
            id=self.id,
            client_order_id=self.request.client_order_id,
            symbol=self.request.symbol,
            state=self.state,
            amount=self.request.amount,
            filled=self.filled,
            average_price=self._average_price(),
            fee=self.fee,
        )

    def resting(self) -> Order:
        """The order as a snapshot lists it. Once triggered it is listed as a plain order."""
        request = self.request
        return Order(
            id=self.id,
            symbol=request.symbol,
            side=request.side,
            amount=request.amount,
            client_order_id=request.client_order_id,
            position_side=request.position_side,
            type=request.type,
            price=request.price,
            trigger_price=request.trigger_price if self.is_waiting else None,
            filled=self.filled,
            reduce_only=request.reduce_only,
            created_at=self.created_at,
        )

    def _average_price(self) -> Decimal | None:
        if not self.fills:
            return None
        if len(self.fills) == 1:
            return self.fills[0].price
        value = sum((fill.amount * fill.price for fill in self.fills), ZERO)
        return (value / self.filled).quantize(MONEY_STEP, ROUND_HALF_EVEN)
