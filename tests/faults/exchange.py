"""The true state of a venue: one account, its markets, its orders, and every change with its actor and time.

The exchange is always honest; every fault between it and us is in `tests.faults.wire`. Every change of a position is
a deed in `deeds`, so that a test can check afterwards who closed what, and how far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.model.snapshot import Fill, FillCause, InstrumentState, Order, OrderSide, Side
from killswitch.model.venue import OrderRejectedError, OrderReport, OrderRequest, OrderState

Key = tuple[str, Side]
Actor = Literal["ours", "sweep", "venue", "hand", "liquidation", "adl"]
Mode = Literal["one_way", "hedge", "spot"]
ZERO = Decimal(0)
FEE = Decimal("0.0005")
"""Of the value traded."""


class Market(Struct):
    """One symbol's market. `slip`: how far from `last_price` a taker trades; `shares`: of what the next takers get.

    `price` is the mark; `index` and `last` are the same where they are not set.
    """

    symbol: str
    price: Decimal = Decimal(100)
    step: Decimal | None = Decimal("0.001")
    minimum: Decimal = Decimal("0.001")
    maximum: Decimal | None = None
    state: InstrumentState = "open"
    slip: Decimal = ZERO
    band: Decimal | None = None
    """Market orders are refused while they would slip further than this."""
    shares: list[Decimal] = field(default_factory=list)
    index: Decimal | None = None
    last: Decimal | None = None

    @property
    def index_price(self) -> Decimal:
        return self.price if self.index is None else self.index

    @property
    def last_price(self) -> Decimal:
        return self.price if self.last is None else self.last

    def taken_at(self, side: OrderSide) -> Decimal:
        return self.last_price * (1 - self.slip if side == "sell" else 1 + self.slip)


class Placed(Struct):
    """An order as the venue has it."""

    id: str
    name: str | None
    symbol: str
    side: OrderSide
    key: Key
    amount: Decimal
    reduce_only: bool
    type: Literal["market", "limit"] = "market"
    price: Decimal | None = None
    ioc: bool = False
    trigger_price: Decimal | None = None
    trigger_when: Literal["falls", "rises"] | None = None
    state: OrderState = "open"
    filled: Decimal = ZERO
    paid: Decimal = ZERO
    by: Actor = "ours"

    @property
    def waits(self) -> bool:
        """Whether it is conditional, and its condition is not yet met."""
        return self.state == "open" and self.trigger_price is not None


class Deed(Struct, frozen=True):
    """A change of one position. Positions are never negative; a one-way position that turns is two deeds."""

    at: float
    actor: Actor
    key: Key
    before: Decimal
    after: Decimal
    name: str | None = None

    @property
    def closed(self) -> Decimal:
        return self.before - self.after


class Books(Protocol):
    """The ledger of an exchange's account."""

    def filled(self, fill: Fill) -> None:
        """A fill is booked; the change of its position follows."""

    def changed(self, key: Key, before: Decimal, after: Decimal, price: Decimal | None, fill: Fill | None) -> None:
        """A position has changed at a price; None: it was moved without a trade."""

    def repriced(self) -> None:
        """A mark has moved."""


class Exchange:
    """One account. `now` returns the seconds and the instant of the present."""

    def __init__(
        self,
        positions: Mapping[Key, Decimal],
        now: Callable[[], tuple[float, datetime]],
        *,
        account: str = "main",
        mode: Mode = "one_way",
        markets: Iterable[Market] = (),
        resting_exits_block: bool = False,
    ) -> None:
        """`resting_exits_block`: no reduce-only order beyond what resting reduce-only ones leave (Binance −4118)."""
        self.account = account
        self.mode = mode
        self.now = now
        self.held: dict[Key, Decimal] = dict(positions)
        self.markets = {symbol: Market(symbol) for symbol, _ in positions} | {it.symbol: it for it in markets}
        self.resting_exits_block = resting_exits_block
        self.keeps_names: Literal["ever", "open"] = "ever"
        """Whether a name is refused again for ever, or only while its order is open."""
        self.orders: dict[str, Placed] = {}
        """By id."""
        self.names: dict[str, str] = {}
        self.fills: list[Fill] = []
        self.deeds: list[Deed] = []
        self.turned: list[str] = []
        """Orders of ours that turned a position, which must never be."""
        self.watchers: list[Callable[[], object]] = []
        """Called after every change, for a venue's private stream."""
        self.books: list[Books] = []
        self._last_id = 0

    # Requests of a client

    def next_id(self) -> str:
        self._last_id += 1
        return f"x{self._last_id}"

    def place(self, request: OrderRequest, by: Actor = "ours") -> OrderReport:
        """Accept an order. Raises OrderRejectedError with the venue's own reason."""
        known = self.orders.get(self.names.get(request.client_order_id, ""))
        if known is not None and (self.keeps_names == "ever" or known.state == "open"):
            raise OrderRejectedError("duplicate_client_order_id", f"there is an order {request.client_order_id}")
        self.admit(request)
        order = Placed(
            id=self.next_id(), name=request.client_order_id, symbol=request.symbol, side=request.side,
            key=self._key(request), amount=request.amount, reduce_only=request.reduce_only, type=request.type,
            price=request.price, ioc=request.time_in_force == "ioc", trigger_price=request.trigger_price,
            trigger_when=request.trigger_when, by=by,
        )  # fmt: skip
        self.orders[order.id] = order
        if order.name is not None:
            self.names[order.name] = order.id
        if not order.waits:
            self.match(order)
        self.notify_listeners()
        return report_of(order)

    def find(self, name: str) -> OrderReport | None:
        return report_of(self.orders[self.names[name]]) if name in self.names else None

    def resting(self) -> tuple[Order, ...]:
        """All open orders, conditional ones included."""
        return tuple(
            Order(
                id=it.id, symbol=it.symbol, side=it.side, amount=it.amount, client_order_id=it.name,
                position_side=it.key[1], type=it.type, price=it.price, trigger_price=it.trigger_price,
                filled=it.filled, reduce_only=it.reduce_only,
            )
            for it in self.orders.values()
            if it.state == "open"
        )  # fmt: skip

    def fills_of(self, name: str) -> tuple[Fill, ...]:
        order = self.names.get(name)
        return tuple(fill for fill in self.fills if fill.order == order) if order else ()

    def cancel(self, order: str, symbol: str = "") -> None:
        """Cancelling an order that is already gone is no error; one of another symbol is not found, and stays."""
        placed = self.orders.get(order)
        if placed is not None and placed.state == "open" and symbol in ("", placed.symbol):
            placed.state = "canceled"
            self.notify_listeners()

    def close_book(self) -> None:
        """Close every position at market, whatever rests."""
        for key, amount in list(self.held.items()):
            if amount > ZERO and self.markets[key[0]].state == "open":
                side: OrderSide = "sell" if key[1] == "long" else "buy"
                order = Placed(self.next_id(), None, key[0], side, key, amount, reduce_only=True, by="sweep")
                self.orders[order.id] = order
                self.match(order)

    # Changes by others

    def rest(self, symbol: str, side: OrderSide, amount: Decimal, **more: object) -> str:
        """Place an order that somebody placed before; returns its id."""
        position_side: Side = "long" if side == "sell" else "short"
        if not more.get("reduce_only"):
            position_side = "long" if side == "buy" else "short"
        order = Placed(
            self.next_id(), None, symbol, side, (symbol, position_side), amount, reduce_only=False, by="hand"
        )
        self.orders[order.id] = replace(order, **more)
        return order.id

    def trade(self, key: Key, by: Decimal, actor: Actor = "hand") -> None:
        """Someone else increases the position, or reduces it (by no more than there is)."""
        before = self.held.get(key, ZERO)
        self._set(key, max(ZERO, before + by), actor, None, price=self.markets[key[0]].price)

    def take_away(self, key: Key, amount: Decimal, cause: FillCause, price: Decimal | None = None) -> None:
        """The venue liquidates or deleverages `amount` contracts, at the mark if no price is named."""
        taken = min(amount, self.held.get(key, ZERO))
        if taken > ZERO:
            side: OrderSide = "sell" if key[1] == "long" else "buy"
            price = self.markets[key[0]].price if price is None else price
            fill = self._book_fill(self.next_id(), key, side, taken, price, cause)
            actor: Actor = "adl" if cause == "adl" else "liquidation"
            self._set(key, self.held[key] - taken, actor, None, price=price, fill=fill)

    def reprice(self, symbol: str, price: Decimal) -> None:
        """The mark moves: conditional orders whose condition is met are sent, and what rests there is filled."""
        market = self.markets[symbol]
        market.price = price
        for books in self.books:
            books.repriced()
        for order in [it for it in self.orders.values() if it.symbol == symbol and it.waits]:
            assert order.trigger_price is not None
            falls = order.trigger_when == "falls"
            if price <= order.trigger_price if falls else price >= order.trigger_price:
                order.trigger_price = None
                self.match(order)
        for order in [it for it in self.orders.values() if it.symbol == symbol and it.state == "open"]:
            if order.price is None or order.trigger_price is not None or market.state in ("halted", "delisted"):
                continue
            if price >= order.price if order.side == "sell" else price <= order.price:
                self._fill(order, self._fillable(order), order.price)
                order.state = "filled"

    # Rules

    def _key(self, request: OrderRequest) -> Key:
        if self.mode == "hedge":
            return (request.symbol, request.position_side)
        side: Side = "long" if request.side == "sell" else "short"
        if self.mode == "spot":
            return (request.symbol, "long")
        if not request.reduce_only and not self.held.get((request.symbol, side)):
            side = "short" if side == "long" else "long"
        return (request.symbol, side)

    def _closes(self, side: OrderSide, key: Key) -> bool:
        return (side == "sell") is (key[1] == "long")

    def admit(self, request: OrderRequest) -> None:
        market = self.markets.get(request.symbol)
        if market is None or market.state in ("halted", "delisted", "cancel_only"):
            raise OrderRejectedError("market_closed", f"{request.symbol} is {market.state if market else 'unknown'}")
        if request.trigger_price is None:
            self._admit_kind(request, market)
        if request.amount < market.minimum:
            raise OrderRejectedError("below_minimum", f"at least {market.minimum}")
        if market.maximum is not None and request.amount > market.maximum:
            raise OrderRejectedError("above_maximum", f"at most {market.maximum}")
        if market.step and request.amount % market.step:
            raise OrderRejectedError("other", f"{request.amount} is no multiple of {market.step}")
        key = self._key(request)
        held = self.held.get(key, ZERO)
        if self.mode == "spot" and request.side == "sell" and request.amount > held:
            raise OrderRejectedError("insufficient_margin", f"{request.amount} to sell, and {held} held")
        if request.reduce_only and self.mode != "spot":
            self.admit_reduction(request, key, held)

    def _admit_kind(self, request: OrderRequest, market: Market) -> None:
        if request.type == "market" and market.state in ("limit_only", "post_only"):
            raise OrderRejectedError("market_closed", f"{market.symbol} is {market.state}: no market orders")
        if market.state == "reduce_only" and not request.reduce_only:
            raise OrderRejectedError("market_closed", f"{market.symbol} takes reduce-only orders only")
        if request.type == "market" and market.band is not None and market.slip > market.band:
            raise OrderRejectedError("price_band", f"{market.symbol} would trade {market.slip} away")

    def admit_reduction(self, request: OrderRequest, key: Key, held: Decimal) -> None:
        if held <= ZERO:
            raise OrderRejectedError("already_flat", "nothing to reduce")
        if self.resting_exits_block and request.trigger_price is None:
            exits = (it for it in self.orders.values() if it.state == "open" and it.key == key and it.reduce_only)
            covered = sum((it.amount - it.filled for it in exits), ZERO)
            if covered + request.amount > held:
                raise OrderRejectedError("blocked_by_order", f"resting orders cover {covered} of {held}")

    # Matching

    def match(self, order: Placed) -> None:
        """Fill what can be filled now."""
        market = self.markets[order.symbol]
        price = market.taken_at(order.side)
        crosses = order.price is None or (order.price <= price if order.side == "sell" else order.price >= price)
        wanted = self._fillable(order)
        if market.state == "post_only" or not crosses:
            wanted = ZERO
        elif market.shares:
            share = market.shares.pop(0)
            wanted = wanted if share == 1 else _floor(wanted * share, market.step)
        if wanted > ZERO:
            self._fill(order, wanted, price)
        if order.filled == order.amount:
            order.state = "filled"
        elif order.type == "market" or order.ioc:
            order.state = "expired"

    def _fillable(self, order: Placed) -> Decimal:
        left = order.amount - order.filled
        return min(left, self.held.get(order.key, ZERO)) if order.reduce_only else left

    def _fill(self, order: Placed, amount: Decimal, price: Decimal) -> None:
        order.filled += amount
        order.paid += amount * price
        fill = self._book_fill(order.id, order.key, order.side, amount, price, "trade")
        held = self.held.get(order.key, ZERO)
        if not self._closes(order.side, order.key):
            self._set(order.key, held + amount, order.by, order.name, price=price, fill=fill)
            return
        self._set(order.key, max(ZERO, held - amount), order.by, order.name, price=price, fill=fill)
        if amount > held:
            self.turned.append(f"{order.name}: {amount} of {held} {order.key}")
            other: Key = (order.key[0], "short" if order.key[1] == "long" else "long")
            self._set(other, self.held.get(other, ZERO) + amount - held, order.by, order.name, price=price, fill=fill)
        if self.mode == "spot":
            self._pay_out(order, amount * price * (1 - FEE))

    def _pay_out(self, order: Placed, proceeds: Decimal) -> None:
        """The proceeds of a sale of X against BTC are a holding of BTC, where BTC has a market of its own."""
        quote = order.symbol.partition("/")[2]
        for symbol in self.markets:
            if symbol.partition("/")[0] == quote:
                key: Key = (symbol, "long")
                self._set(key, self.held.get(key, ZERO) + proceeds, order.by, order.name)
                return

    def _book_fill(
        self, order: str, key: Key, side: OrderSide, amount: Decimal, price: Decimal, cause: FillCause
    ) -> Fill:
        fill = Fill(
            f"f{len(self.fills) + 1}", self.now()[1], key[0], side, amount, price, order=order,
            position_side=key[1], fee=amount * price * FEE, fee_currency="USDT", cause=cause,
        )  # fmt: skip
        self.fills.append(fill)
        for books in self.books:
            books.filled(fill)
        return fill

    def notify_listeners(self) -> None:
        for watcher in self.watchers:
            watcher()

    def _set(
        self, key: Key, amount: Decimal, actor: Actor, name: str | None, *, price: Decimal | None = None,
        fill: Fill | None = None,
    ) -> None:  # fmt: skip
        """`price` at which the change was traded, by `fill` where one is booked."""
        before = self.held.get(key, ZERO)
        if amount == before:
            return
        self.held[key] = amount
        for books in self.books:
            books.changed(key, before, amount, price, fill)
        self.deeds.append(Deed(self.now()[0], actor, key, before, amount, name))
        self.notify_listeners()
        if amount == ZERO:
            for order in self.orders.values():
                if order.key == key and order.reduce_only and order.state == "open":
                    order.state = "expired"


def report_of(order: Placed) -> OrderReport:
    """The venue's account of an order."""
    average = order.paid / order.filled if order.filled else None
    return OrderReport(
        order.id, order.name, order.symbol, order.state, order.amount, order.filled, average, order.paid * FEE
    )


def _floor(amount: Decimal, step: Decimal | None) -> Decimal:
    return amount if not step else (amount // step) * step


class WithoutReduceOnly(Exchange):
    """An exchange that ignores reduce-only, and names the client order id of each fill."""

    def place(self, request: OrderRequest, by: Actor = "ours") -> OrderReport:
        return super().place(replace(request, reduce_only=False), by)
