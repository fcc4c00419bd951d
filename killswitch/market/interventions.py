"""Actions of the venue itself: it takes positions over, closes whole books, and closes markets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from killswitch.market.account import PaperAccount
from killswitch.market.holding import ZERO, PaperHolding
from killswitch.market.matching import Matching
from killswitch.market.order import PaperOrder
from killswitch.market.rules import lots_down
from killswitch.market.tape import Tape
from killswitch.model.snapshot import Fill, FillCause, Flow, FlowKind, OrderSide, Side
from killswitch.model.venue import OrderRejectedError, OrderRequest


class Interventions:
    """The venue's own actions. Contracts are at most what is held."""

    def __init__(self, matching: Matching) -> None:
        self._matching = matching

    def transfer(
        self, account: PaperAccount, kind: FlowKind, amount: Decimal, currency: str, at: datetime, lag: timedelta | None
    ) -> Flow:
        """Deposit (+) or withdraw (−) money, or in a cash account a coin, without an order or a fill.

        Raises ValueError for an asset that the account cannot hold, and for more of a coin than it holds.
        """
        value = amount if currency == account.currency else self._transfer_coin(account, amount, currency, at)
        row = Flow(self._matching.next_id("w"), at, kind, amount, currency)
        account.wallet += value
        account.flows.add(row, lag)
        return row

    def _transfer_coin(self, account: PaperAccount, amount: Decimal, asset: str, at: datetime) -> Decimal:
        """The value of the coin, which is bought for, or sold for, that much money."""
        symbol = self._matching.quotes.market_of(asset, account)
        price = self._matching.quotes.price(account, symbol) if symbol else None
        if symbol is None or not price:
            raise ValueError(f"{account.name}: {asset} has no price in {account.currency}, or cannot be held there")
        held = account.open_quantity(symbol, "long")
        if held + amount < 0:
            raise ValueError(f"{account.name} holds {held} {asset}, and cannot withdraw {-amount}")
        account.trade(symbol, "long", amount, price, ZERO, at)
        account.expire_exits(symbol)
        account.drop_done()
        return amount * price

    def take_over(
        self,
        account: PaperAccount,
        symbol: str,
        side: Side,
        contracts: Decimal | None,
        price: Decimal,
        cause: FillCause,
        at: datetime,
    ) -> Fill:
        """Take over `contracts` of a position at `price`, all of it for None. Only a liquidation has a fee.

        Raises ValueError in a cash account, which has no debt, and for more than is held.
        """
        holding, tape = account.holdings.get(account.key(symbol, side)), self._matching.tapes[symbol]
        held = abs(holding.quantity) / tape.size if holding else ZERO
        amount = held if contracts is None else contracts
        if account.is_cash:
            raise ValueError(f"{account.name}: a {account.market} account cannot be liquidated or deleveraged")
        if holding is None or not 0 < amount <= held:
            raise ValueError(f"{account.name} holds {held} of {symbol}, not {amount}")
        closes: OrderSide = "sell" if holding.side == "long" else "buy"
        fee = self._matching.rules.liquidation_fee if cause == "liquidation" else ZERO
        fill = self._matching.book(account, tape, None, closes, amount, price, fee, at, cause, holding.side)
        account.drop_done()
        return fill

    def close_book(self, account: PaperAccount, at: datetime) -> None:
        """Close every position at market, as far as each market's state and volume allow; the rest stays as working
        orders.

        Raises OrderRejectedError in a cash account: its holdings are not positions of the venue's book.
        """
        if account.is_cash:
            raise OrderRejectedError("permission", f"a {account.market} account has no book to close")
        for holding in tuple(account.holdings.values()):
            tape = self._matching.tapes[holding.symbol]
            if tape.is_shut or not tape.has_market_orders:
                continue
            order = self._exit(holding, tape, at)
            account.orders[order.request.client_order_id] = order
            account.working.append(order)
            self._matching.fill_now(account, order, tape, at)
        account.drop_done()

    def _exit(self, holding: PaperHolding, tape: Tape, at: datetime) -> PaperOrder:
        order_id = self._matching.next_id("o")
        request = OrderRequest(
            client_order_id=f"venue-{order_id}",
            symbol=holding.symbol,
            side="sell" if holding.side == "long" else "buy",
            position_side=holding.side,
            amount=lots_down(abs(holding.quantity) / tape.size, tape.step),
            reduce_only=True,
        )
        return PaperOrder(order_id, request, at)

    def delist(
        self, accounts: Mapping[str, PaperAccount], symbol: str, price: Decimal | None, at: Callable[[], datetime]
    ) -> None:
        """Cancel all orders of a delisted symbol; with a `price`, deliver positions on margin at it."""
        for account in accounts.values():
            for order in account.working:
                if order.request.symbol == symbol:
                    order.state = "canceled"
            account.drop_done()
            held = [holding for holding in account.holdings.values() if holding.symbol == symbol]
            if price is not None and not account.is_cash:
                for holding in held:
                    self.take_over(account, symbol, holding.side, None, price, "delivery", at())
