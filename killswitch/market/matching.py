"""Order matching: at which price, with which randomness, and in which currency orders fill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import ROUND_UP, Decimal

from killswitch.market.account import PaperAccount
from killswitch.market.holding import MONEY_STEP, ZERO
from killswitch.market.order import PaperOrder
from killswitch.market.rules import MarketRules, base_asset, lots_down, quote_asset
from killswitch.market.tape import Tape
from killswitch.model.snapshot import Fill, FillCause, OrderSide, Rate, Side
from killswitch.model.venue import OrderRequest


class Matching:
    """Fills orders of any account against the tapes, and books the fills."""

    def __init__(
        self,
        rules: MarketRules,
        tapes: Mapping[str, Tape],
        quotes: Quotes,
        rng: SplitMix64,
        next_id: Callable[[str], str],
    ) -> None:
        self.rules = rules
        self.tapes = tapes
        self.quotes = quotes
        self.rng = rng
        self.next_id = next_id

    def enter(self, account: PaperAccount, order: PaperOrder, tape: Tape, at: datetime) -> None:
        """Enter the order into the book: the part that crosses fills at once, and an immediate-or-cancel order then
        ends."""
        if order.request.type == "market" or self.is_marketable(order.request, tape):
            self.fill_now(account, order, tape, at)
        order.expire_rest()

    def is_marketable(self, request: OrderRequest, tape: Tape) -> bool:
        """Whether a limit order would trade with resting orders."""
        bid, ask = tape.bid(self.rules), tape.ask(self.rules)
        if request.price is None or bid is None or ask is None:
            return False
        return request.price >= ask if request.side == "buy" else request.price <= bid

    def fill_now(self, account: PaperAccount, order: PaperOrder, tape: Tape, at: datetime) -> None:
        """Fill what can be filled of `order` at once, at the last price and worse, never beyond its limit."""
        if tape.last is None:
            return
        amount = self._fillable(account, order, tape)
        if amount <= 0:
            return
        price = self._taker_price(order, tape, amount)
        amount = self._payable(account, order, tape, amount, price)
        if amount > 0:
            self.book(account, tape, order, order.request.side, amount, price, self.rules.taker_fee, at)

    def fill_resting(self, account: PaperAccount, order: PaperOrder, tape: Tape, to: Decimal, at: datetime) -> None:
        """Move the price to `to`: a resting limit order strictly before it fills at its own price.

        Touching the limit is not enough: the queue ahead of the order is unknown.
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

        Proceeds in another asset than the account's currency, less the fee, become a holding of that asset at its
        current value; realised P&L is in the account's currency. `position_side`: in hedge mode, the position of a fill
        without an order.
        """
        symbol, quantity = tape.instrument.symbol, amount * tape.size
        signed = quantity if side == "buy" else -quantity
        opens: Side = "long" if signed > 0 else "short"
        of: Side = position_side or (order.request.position_side if order else opens)
        held = account.open_quantity(symbol, of)
        closes = held * signed < 0
        fee = charged = (quantity * price * fee_rate).quantize(MONEY_STEP, ROUND_UP)
        bridge = self.quotes.bridge(account, symbol)
        if bridge is None:
            realized = account.trade(symbol, of, signed, price, fee, at)
        else:
            fee = min(fee, quantity * price)  # the fee is deducted from the proceeds
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
            client_order_id=order.request.client_order_id if order else None,
            trigger_price=order.request.trigger_price if order else None,
        )
        account.fills.add(fill)
        if cause == "trade":
            tape.traded[side] += quantity
        if order is not None:
            order.add(fill, charged)
        account.expire_exits(symbol)
        return fill

    def _fillable(self, account: PaperAccount, order: PaperOrder, tape: Tape) -> Decimal:
        """Contracts of the order that may fill now: the remainder, within the bar's volume.

        An exit fills at most the position that it reduces, so that it never reverses it.
        """
        amount = order.left
        if account.is_exit(order.request):
            amount = min(amount, account.reducible(order) / tape.size)
        amount = min(amount, tape.available(self.rules.participation))
        request = order.request
        if request.time_in_force == "ioc" and request.price is not None:
            # A resting order fills at its own price later; at once only the book up to the limit is available.
            amount = min(amount, tape.within(request.side, request.price, self.rules))
        return amount

    def _taker_price(self, order: PaperOrder, tape: Tape, amount: Decimal) -> Decimal:
        side = order.request.side
        assert tape.last is not None  # fill_now() has checked
        slippage = tape.slippage(side, amount * tape.size, self.rules)
        if self.rules.jitter:
            slippage *= self.rng.between(1 - self.rules.jitter, 1 + self.rules.jitter)
        worse = self.rules.half_spread + slippage
        price = tape.to_tick(tape.last * (1 + worse if side == "buy" else 1 - worse), side)
        limit = order.request.price
        if limit is None:
            return price
        return min(price, limit) if side == "buy" else max(price, limit)

    def _payable(
        self, account: PaperAccount, order: PaperOrder, tape: Tape, amount: Decimal, price: Decimal
    ) -> Decimal:
        """The part of `amount` that a cash account can pay at `price`; an order that it cannot pay at all expires."""
        if amount <= 0 or order.request.side == "sell" or not account.is_cash:
            return amount
        each = tape.size * price * (1 + self.rules.taker_fee) + MONEY_STEP  # the fee is rounded up
        amount = min(amount, lots_down(max(ZERO, account.cash) / each, tape.step))
        if amount <= 0:
            order.state = "expired"
        return amount


_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_RANGE = Decimal(1 << 64)


class SplitMix64:
    """Pseudorandom numbers after Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
    figure 16."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def next(self) -> int:
        """The next 64 bits."""
        self._state = (self._state + _GOLDEN) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def between(self, low: Decimal, high: Decimal) -> Decimal:
        """A number in [low, high)."""
        return low + (high - low) * (Decimal(self.next()) / _RANGE)


class Quotes:
    """Finds the market that converts a quote asset into the account's currency.

    Only cash accounts need one: the proceeds of a sale are a holding of the quote asset. Where there is no market
    between the two, the quote counts as the currency itself (a book in USD with symbols in USDT).
    """

    def __init__(self, tapes: Mapping[str, Tape]) -> None:
        self._tapes = tapes
        spot = (symbol for symbol in tapes if ":" not in symbol)
        self._markets = {(base_asset(symbol), quote_asset(symbol)): tapes[symbol] for symbol in spot}

    def bridge(self, account: PaperAccount, symbol: str) -> Tape | None:
        """The market of the symbol's quote asset against the account's currency; None where none is needed."""
        if not account.is_cash:
            return None
        quote = quote_asset(symbol)
        return None if quote in {None, account.currency} else self._markets.get((quote or "", account.currency))

    def price(self, account: PaperAccount, symbol: str) -> Decimal:
        """The last price in the account's currency; zero where there is none yet."""
        last = self._tapes[symbol].last or ZERO
        bridge = self.bridge(account, symbol)
        return last if bridge is None else last * (bridge.last or ZERO)

    def market_of(self, asset: str, account: PaperAccount) -> str | None:
        """The symbol under which a cash account holds an asset; None where it cannot."""
        if not account.is_cash:
            return None
        tape = self._markets.get((asset, account.currency)) or self._markets.get((asset, None))
        return None if tape is None else account.held_as(tape.instrument.symbol)

    def rates(self, currency: str) -> tuple[Rate, ...]:
        """Price of one unit of a currency in others, from the spot markets here."""
        found = ((quote, tape.last) for (base, quote), tape in self._markets.items() if base == currency)
        return tuple(Rate(quote, last) for quote, last in found if quote is not None and last)

    def prices(self, account: PaperAccount) -> dict[str, Decimal]:
        """`price` of everything that is held."""
        if not account.is_cash:  # the usual case, once for every snapshot
            return {held.symbol: self._tapes[held.symbol].last or ZERO for held in account.holdings.values()}
        return {symbol: self.price(account, symbol) for symbol in account.holdings}  # a cash account's keys
