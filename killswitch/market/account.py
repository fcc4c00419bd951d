"""One account of the paper venue: wallet, positions, orders, and recent fills and flows."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Generic, TypeVar

from msgspec import Struct, field

from killswitch.market.holding import ZERO, Margin, PaperHolding, initial_margin, margin_of
from killswitch.market.order import PaperOrder
from killswitch.market.rules import base_asset
from killswitch.market.tape import Tape
from killswitch.model.snapshot import Fill, Flow, Market, Side
from killswitch.model.venue import OrderRequest

R = TypeVar("R", Fill, Flow)


class DelayedRows(Generic[R]):
    """Rows in order of time, each shown `lag` after its own time."""

    def __init__(self) -> None:
        self.lag = timedelta(0)
        self._rows: deque[R] = deque()
        self._shown_from: dict[str, datetime] = {}
        """By id; only of late rows."""

    def add(self, row: R, lag: timedelta | None = None) -> None:
        """Add a row, shown `lag` later; by default the lag of these rows."""
        late = self.lag if lag is None else lag
        if late:
            self._shown_from[row.id] = row.at + late
        self._rows.append(row)

    def shown(self, at: datetime) -> tuple[R, ...]:
        """The rows visible in a snapshot taken at `at`; late rows appear later."""
        if not self._shown_from:
            return tuple(self._rows)
        return tuple(row for row in self._rows if self._shown_from.get(row.id, row.at) <= at)

    def forget_before(self, oldest: datetime) -> None:
        """Drop the rows that are shown since before `oldest`."""
        if not self._shown_from:
            while self._rows and self._rows[0].at < oldest:
                self._rows.popleft()
            return
        self._rows = deque(row for row in self._rows if self._shown_from.get(row.id, row.at) >= oldest)
        kept = {row.id for row in self._rows}
        self._shown_from = {name: at for name, at in self._shown_from.items() if name in kept}


CASH_MARKETS: frozenset[Market] = frozenset({"spot", "equity"})
"""Markets in which holdings are paid in full: no leverage, margin, short side or liquidation."""
REMEMBERED = timedelta(minutes=5)
"""Time for which snapshots give the price of a closed position."""


class PaperAccount(Struct):
    """`wallet` is money in `currency` including all realised P&L; equity is it plus unrealised P&L.

    In a cash market the wallet counts holdings at cost, so that the same sum holds: cash = wallet − Σ cost, and equity
    = cash + Σ quantity × price = wallet + Σ (quantity × price − cost).
    """

    name: str
    venue: str
    market: Market
    currency: str
    wallet: Decimal
    leverage: Decimal
    """Of symbols that were opened without their own; 1 in cash markets."""
    is_hedged: bool = False
    """Whether both sides of a symbol may be held at once, as two positions: hedge mode."""
    holdings: dict[str, PaperHolding] = field(default_factory=dict)
    """By `key`."""
    orders: dict[str, PaperOrder] = field(default_factory=dict)
    """Every order ever sent, by client order id: a repeated id is refused for ever."""
    working: list[PaperOrder] = field(default_factory=list)
    """Open orders in order of arrival."""
    fills: DelayedRows[Fill] = field(default_factory=DelayedRows)
    flows: DelayedRows[Flow] = field(default_factory=DelayedRows)
    vanished: dict[str, datetime] = field(default_factory=dict)
    """Symbols of closed positions, and when the last one was closed; some may be held again."""

    @property
    def is_cash(self) -> bool:
        return self.market in CASH_MARKETS

    @property
    def cash(self) -> Decimal:
        """Money of a cash account."""
        return self.wallet - sum((holding.cost for holding in self.holdings.values()), ZERO)

    def key(self, symbol: str, side: Side) -> str:
        """Key of a position: one for each symbol, or in hedge mode for each of its sides."""
        return f"{symbol} short" if self.is_hedged and side == "short" else symbol

    def is_exit(self, request: OrderRequest) -> bool:
        """Whether the order can only reduce. In hedge mode an order against its position side never does anything
        else."""
        closes = "long" if request.side == "sell" else "short"
        return request.reduce_only or (self.is_hedged and request.position_side == closes)

    def open_quantity(self, symbol: str, side: Side) -> Decimal:
        """Signed base quantity held; zero when flat. Of a cash account, the quantity that a sale of the symbol could
        sell.

        `side` selects one of two positions of hedge mode, and is ignored otherwise.
        """
        holding = self.holdings.get(self.held_as(symbol) if self.is_cash else self.key(symbol, side))
        return holding.quantity if holding else ZERO

    def held_as(self, symbol: str) -> str:
        """The symbol of the holding that a sale of `symbol` reduces, in whichever market of the asset."""
        if symbol in self.holdings:
            return symbol
        asset = base_asset(symbol)
        return next((held for held in self.holdings if base_asset(held) == asset), symbol)

    def leverage_of(self, symbol: str) -> Decimal:
        holding = self.holdings.get(symbol) or self.holdings.get(self.key(symbol, "short"))
        return holding.leverage if holding else self.leverage

    def margin(self, marks: Mapping[str, Decimal], maintenance_rate: Decimal) -> Margin:
        """Margin at `marks`, which must include every symbol held."""
        held = ((holding, marks[holding.symbol]) for holding in self.holdings.values())
        return margin_of(self.wallet, held, maintenance_rate)

    def order_margin(self, tapes: Mapping[str, Tape]) -> Decimal:
        """Money reserved by open entry orders: their initial margin, in a cash market the cost of the buys."""
        held = ZERO
        for order in self.working:
            if self.is_exit(order.request) or (self.is_cash and order.request.side == "sell"):
                continue
            tape = tapes[order.request.symbol]
            price = order.request.price or order.request.trigger_price or tape.last or ZERO
            held += initial_margin(order.left * tape.size * price, self.leverage_of(order.request.symbol))
        return held

    def trade(self, symbol: str, side: Side, quantity: Decimal, price: Decimal, fee: Decimal, at: datetime) -> Decimal:
        """Book a fill of signed base `quantity`; return the realised P&L before the fee, in the account's currency."""
        key = self.held_as(symbol) if self.is_cash and quantity < 0 else self.key(symbol, side)
        holding = self.holdings.setdefault(key, PaperHolding(symbol, ZERO, ZERO, self.leverage))
        realized = holding.trade(quantity, price)
        self.wallet += realized - fee
        if holding.quantity == 0:
            del self.holdings[key]
            self.vanished[holding.symbol] = at
        return realized

    def receive(self, symbol: str, quantity: Decimal, cost: Decimal) -> None:
        """Add the proceeds of a sale in another asset than money: held under `symbol` at their current value."""
        if quantity == 0:
            return
        holding = self.holdings.setdefault(symbol, PaperHolding(symbol, ZERO, ZERO, self.leverage))
        holding.quantity += quantity
        holding.cost += cost

    def reducible(self, order: PaperOrder) -> Decimal:
        """Base quantity that an exit may close: at or below zero when there is nothing on its side."""
        held = self.open_quantity(order.request.symbol, order.request.position_side)
        return -held if order.request.side == "buy" else held

    def expire_exits(self, symbol: str) -> None:
        """Expire exits with nothing left to reduce."""
        for order in self.working:
            exits = self.is_exit(order.request) and order.request.symbol == symbol
            if exits and order.state == "open" and self.reducible(order) <= 0:
                order.state = "expired"

    def drop_done(self) -> None:
        """Remove orders that are no longer open from the working list."""
        self.working = [order for order in self.working if order.state == "open"]

    def forget_before(self, oldest: datetime) -> None:
        """Drop fills and flows from before `oldest` from what snapshots show."""
        self.fills.forget_before(oldest)
        self.flows.forget_before(oldest)

    def vanished_since(self, at: datetime) -> tuple[str, ...]:
        """Symbols that are not held at `at` and were in the five minutes before; older ones are dropped."""
        if not self.vanished:
            return ()
        self.vanished = {symbol: left for symbol, left in self.vanished.items() if at - left <= REMEMBERED}
        held = {holding.symbol for holding in self.holdings.values()}
        return tuple(symbol for symbol in self.vanished if symbol not in held)
