"""What a venue does of its own accord: it takes positions away, closes whole books, and shuts markets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal

from killswitch.market.account import PaperAccount
from killswitch.market.holding import ZERO
from killswitch.market.instruments import lots_down
from killswitch.market.matching import Matching
from killswitch.market.order import PaperOrder
from killswitch.market.tape import Tape
from killswitch.model.snapshot import Fill, FillCause, OrderSide
from killswitch.model.venue import OrderRejectedError, OrderRequest


class Interventions:
    """The venue's own hand. All contracts are at most what is held."""

    def __init__(self, tapes: Mapping[str, Tape], matching: Matching) -> None:
        self._tapes = tapes
        self._matching = matching

    def take(
        self,
        account: PaperAccount,
        symbol: str,
        contracts: Decimal | None,
        price: Decimal,
        cause: FillCause,
        at: datetime,
    ) -> Fill:
        """Take `contracts` of a position at `price`, all of it for None. Only a liquidation costs a fee.

        ValueError in a cash account, which owes nobody, and for more than is held.
        """
        holding, tape = account.holdings.get(symbol), self._tapes[symbol]
        held = abs(holding.quantity) / tape.size if holding else ZERO
        amount = held if contracts is None else contracts
        if account.is_cash:
            raise ValueError(f"{account.name}: nothing is taken from a {account.market} account")
        if holding is None or not 0 < amount <= held:
            raise ValueError(f"{account.name} holds {held} of {symbol}, not {amount}")
        side: OrderSide = "sell" if holding.quantity > 0 else "buy"
        fee = self._matching.rules.liquidation_fee if cause == "liquidation" else ZERO
        fill = self._matching.book(account, tape, None, side, amount, price, fee, at, cause)
        account.drop_done()
        return fill

    def close_book(self, account: PaperAccount, at: datetime) -> None:
        """Close every position at market, as far as each market's state and volume let it; the rest works on.

        OrderRejectedError in a cash account: what is held there is not a position of the venue's book.
        """
        if account.is_cash:
            raise OrderRejectedError("permission", f"a {account.market} account has no book to close")
        for symbol, holding in tuple(account.holdings.items()):
            tape = self._tapes[symbol]
            if tape.is_shut or tape.instrument.state in {"limit_only", "post_only"}:
                continue
            order = self._exit(symbol, holding.quantity, tape, at)
            account.orders[order.request.client_order_id] = order
            account.working.append(order)
            self._matching.take(account, order, tape, at)
        account.drop_done()

    def _exit(self, symbol: str, quantity: Decimal, tape: Tape, at: datetime) -> PaperOrder:
        order_id = self._matching.next_id("o")
        request = OrderRequest(
            client_order_id=f"venue-{order_id}",
            symbol=symbol,
            side="sell" if quantity > 0 else "buy",
            position_side="long" if quantity > 0 else "short",
            amount=lots_down(abs(quantity) / tape.size, tape.step),
            reduce_only=True,
        )
        return PaperOrder(order_id, request, at)

    def delist(
        self, accounts: Mapping[str, PaperAccount], symbol: str, price: Decimal | None, at: Callable[[], datetime]
    ) -> None:
        """Cancel all orders of a symbol that has gone; with a `price`, positions on margin are delivered at it."""
        for account in accounts.values():
            for order in account.working:
                if order.request.symbol == symbol:
                    order.state = "canceled"
            account.drop_done()
            if price is not None and symbol in account.holdings and not account.is_cash:
                self.take(account, symbol, None, price, "delivery", at())
