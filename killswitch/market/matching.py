"""How orders fill: at once against the last price, and out of the book as prices move through a bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_UP, Decimal

from killswitch.market.account import PaperAccount
from killswitch.market.chance import SplitMix64
from killswitch.market.holding import MONEY_STEP, ZERO
from killswitch.market.instruments import base_asset, lots_down
from killswitch.market.order import PaperOrder
from killswitch.market.quotes import Quotes
from killswitch.market.rules import MarketRules
from killswitch.market.tape import Tape
from killswitch.model.snapshot import Fill, FillCause, OrderSide, Side
from killswitch.model.venue import OrderRequest


@dataclass(slots=True)
class Matching:
    """Fills orders of any account against the tapes, and books the fills."""

    rules: MarketRules
    chance: SplitMix64
    next_id: Callable[[str], str]
    quotes: Quotes

    def begin(self, account: PaperAccount, order: PaperOrder, tape: Tape, at: datetime) -> None:
        """The order comes to the book: what crosses is taken at once, and an immediate-or-cancel then ends."""
        if order.request.type == "market" or self.is_marketable(order.request, tape):
            self.take(account, order, tape, at)
        order.expire_rest()

    def is_marketable(self, request: OrderRequest, tape: Tape) -> bool:
        """Whether a limit order would trade with what rests."""
        bid, ask = tape.bid(self.rules), tape.ask(self.rules)
        if request.price is None or bid is None or ask is None:
            return False
        return request.price >= ask if request.side == "buy" else request.price <= bid

    def take(self, account: PaperAccount, order: PaperOrder, tape: Tape, at: datetime) -> None:
        """Fill what can be filled of `order` at once, at the last price and worse; a limit is never passed."""
        if tape.last is None:
            return
        amount = self._fillable(account, order, tape)
        if amount <= 0:
            return
        price = self._taker_price(order, tape, amount)
        amount = self._payable(account, order, tape, amount, price)
        if amount > 0:
            self.book(account, tape, order, order.request.side, amount, price, self.rules.taker_fee, at)

    def touch(self, account: PaperAccount, order: PaperOrder, tape: Tape, to: Decimal, at: datetime) -> None:
        """The price moves to `to`: a resting limit order that lies strictly before it fills at its own price.

        Touching the limit is not enough: the queue before the order is unknown.
        """
        limit = order.request.price
        if limit is None:
            return
        passed = to < limit if order.request.side == "buy" else to > limit
        amount = self._fillable(account, order, tape) if passed else ZERO
        amount = self._payable(account, order, tape, amount, limit)
        if amount > 0:
            self.book(account, tape, order, order.request.side, amount, limit, self.rules.maker_fee, at)

    def book(
        self,
        account: PaperAccount,
        tape: Tape,
        order: PaperOrder | None,
        side: OrderSide,
        amount: Decimal,
        price: Decimal,
        fee_rate: Decimal,
        at: datetime,
        cause: FillCause = "trade",
        position_side: Side | None = None,
    ) -> Fill:
        """Book one fill of `amount` contracts. Fees are rounded up to a hundred-millionth.

        Sold for another asset than the account's currency, what it brought less the fee becomes a holding of that
        asset, at what it is worth at this moment; realised P&L is in the account's currency. `position_side`: in hedge
        mode, which of the two, for what no order is about.
        """
        symbol = tape.instrument.symbol
        quantity = amount * tape.size
        signed = quantity if side == "buy" else -quantity
        opens: Side = "long" if signed > 0 else "short"
        of: Side = position_side or (order.request.position_side if order else opens)
        held = account.open_quantity(symbol, of)
        closes = held * signed < 0
        fee = (quantity * price * fee_rate).quantize(MONEY_STEP, ROUND_UP)
        bridge = self.quotes.bridge(account, symbol)
        charged = fee
        if bridge is None:
            realized = account.trade(symbol, of, signed, price, fee, at)
        else:
            fee = min(fee, quantity * price)  # it is kept back from what the sale brings
            rate = bridge.last or ZERO
            charged = fee * rate
            realized = account.trade(symbol, of, signed, price * rate, charged, at)
            gained = quantity * price - fee
            account.receive(bridge.instrument.symbol, gained, gained * rate)
        fill = Fill(
            id=self.next_id("f"),
            at=at,
            symbol=symbol,
            side=side,
            amount=amount,
            price=price,
            order=order.id if order else None,
            # In one-way mode a fill belongs to the position that it closes, else to the one that it makes.
            position_side=("long" if held > 0 else "short") if closes else opens,
            fee=fee,
            fee_currency=account.currency if bridge is None else base_asset(bridge.instrument.symbol),
            realized_pnl=realized,
            cause=cause,
        )
        account.fills.add(fill)
        if cause == "trade":
            tape.taken[side] += quantity
        if order is not None:
            order.add(fill, charged)
        account.expire_exits(symbol)
        return fill

    def _fillable(self, account: PaperAccount, order: PaperOrder, tape: Tape) -> Decimal:
        """Contracts of the order that may fill now: what is left, within the bar's volume.

        An exit gets no more than the position it reduces, so that it never turns it round.
        """
        amount = order.left
        if account.is_exit(order.request):
            amount = min(amount, account.reducible(order) / tape.size)
        amount = min(amount, tape.available(self.rules.participation))
        request = order.request
        if request.time_in_force == "ioc" and request.price is not None:
            # What rested gets its own price some time; at once there is only what the book has up to the limit.
            amount = min(amount, tape.within(request.side, request.price, self.rules))
        return amount

    def _taker_price(self, order: PaperOrder, tape: Tape, amount: Decimal) -> Decimal:
        side = order.request.side
        assert tape.last is not None  # take() has looked
        slippage = tape.slippage(side, amount * tape.size, self.rules)
        if self.rules.jitter:
            slippage *= self.chance.between(1 - self.rules.jitter, 1 + self.rules.jitter)
        worse = self.rules.half_spread + slippage
        price = tape.to_tick(tape.last * (1 + worse if side == "buy" else 1 - worse), side)
        limit = order.request.price
        if limit is None:
            return price
        return min(price, limit) if side == "buy" else max(price, limit)

    def _payable(
        self, account: PaperAccount, order: PaperOrder, tape: Tape, amount: Decimal, price: Decimal
    ) -> Decimal:
        """What of `amount` a cash account can pay at `price`; an order that it cannot pay at all expires."""
        if amount <= 0 or order.request.side == "sell" or not account.is_cash:
            return amount
        each = tape.size * price * (1 + self.rules.taker_fee) + MONEY_STEP  # the fee is rounded up
        amount = min(amount, lots_down(max(ZERO, account.cash) / each, tape.step))
        if amount <= 0:
            order.state = "expired"
        return amount
