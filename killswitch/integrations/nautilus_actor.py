"""An actor for nautilus_trader in front of the endpoint that every order passes on its way to a venue.

    class Gate(KillswitchNautilus, Actor):
        pass

    node.trader.add_actor(Gate(OrderPermits(lock_file=...), node.kernel.exec_engine))

Strategies, order lists, execution algorithms, re-sizings and emulated orders that trigger all go through
`ExecEngine.execute`. The risk engine is passed by some of them, and its HALTED stops exits. What is not sent ends as
`OrderDenied` or `OrderModifyRejected`, which strategies handle already. While entries are held back, those that rest
or are emulated are cancelled.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from killswitch.integrations.permission import OrderPermits, Permission

ENDPOINT: Final = "ExecEngine.execute"
PASSING: Final = frozenset(["CancelOrder", "CancelAllOrders", "BatchCancelOrders", "QueryOrder", "QueryAccount"])
"""Commands that send no order."""
_LOG: Final = logging.getLogger("killswitch.integrations")
_STOPS: Final = ("STOP", "TRAILING")
ZERO: Final = Decimal(0)


class KillswitchNautilus:
    """Put it before `Actor` in the bases. It works in a `TradingNode` and in a `BacktestEngine`."""

    def __init__(
        self,
        permits: OrderPermits,
        engine: Any,
        config: Any = None,
        *,
        symbols: Mapping[str, str] | None = None,
        cancels_every: timedelta | None = timedelta(seconds=1),
    ) -> None:
        """`engine`: `node.kernel.exec_engine`; the message bus does not show it.

        `symbols`: the symbol in the Account document by instrument id, where it is not `BASE/QUOTE:SETTLEMENT`.
        `cancels_every`: how often entries that rest are looked at; None: never.
        """
        initialise: Any = super().__init__
        initialise(config)
        self._permits = permits
        self._engine = engine
        self._symbols = dict(symbols or {})
        self._cancels_every = cancels_every
        self._is_in_front = False
        self._let_through: dict[str, Any] = {}

    def on_start(self) -> None:
        """Step in front of the endpoint; it stays there when the actor stops. Raises where the version has none."""
        if not self._is_in_front:
            bus: Any = self.msgbus  # type: ignore[attr-defined] # an attribute of the bot's class
            bus.deregister(ENDPOINT, self._engine.execute)
            bus.register(ENDPOINT, self.judge)
            self._is_in_front = True
        if self._cancels_every is not None:
            clock: Any = self.clock  # type: ignore[attr-defined] # an attribute of the bot's class
            clock.set_timer("killswitch-entries", self._cancels_every, callback=self._cancel_entries)

    def judge(self, command: Any) -> None:
        """Execute a command, or deny its orders. Never raises for what is judged here."""
        kind = type(command).__name__
        if kind in PASSING:
            self._engine.execute(command)
            return
        try:
            orders, asked = self._asked(kind, command)
            permission = self._permits.ask(*asked)
        except Exception as error:  # noqa: BLE001 - what cannot be judged is not sent, unless the venue bounds it
            _LOG.exception("killswitch: a command could not be judged")
            orders, asked = _orders_in(command), ()
            permission = Permission(_is_bounded(orders), "error", f"the command could not be judged: {error}")
        is_sent = permission.may_send and (not asked or self._permits.may_still_send(permission))
        if not is_sent:
            reason = permission.text if not permission.may_send else "a lock came between"
            self._deny(kind, command, orders, f"killswitch: {reason}")
            return
        for order in orders:
            self._let_through[order.client_order_id.value] = order
        self._engine.execute(command)

    def _asked(self, kind: str, command: Any) -> tuple[Sequence[Any], tuple[dict[str, Any], ...]]:
        """The orders of a command, and the question about them. ValueError for a command that is not known."""
        if kind == "ModifyOrder":
            order = self._cached().order(command.client_order_id)
            amount = order.quantity if command.quantity is None else command.quantity
            asked = self._question(order, amount, command.price if command.price is not None else _price(order))
            return [order], ({**asked, "change": "amend", "order": order.client_order_id.value},)
        orders = _orders_in(command)
        if not orders:
            raise ValueError(f"{kind} is not known")
        rooms: dict[tuple[str, bool], Decimal] = {}
        places = {each.client_order_id: index for index, each in enumerate(orders)}
        made = []
        for index, each in enumerate(orders):
            one = self._question(each, each.quantity, _price(each), rooms)
            parent = places.get(each.parent_order_id) if each.parent_order_id is not None else None
            made.append({**one, "parent": parent} if parent is not None and parent < index else one)
        return orders, tuple(made)

    def _question(
        self, order: Any, quantity: Any, price: Any, rooms: dict[tuple[str, bool], Decimal] | None = None
    ) -> dict[str, Any]:
        """An order as the gate reads it. `rooms`: what is left to reduce, over the orders of one list."""
        amount = quantity.as_decimal()
        asked: dict[str, Any] = {
            "symbol": self._symbol(order.instrument_id), "side": "buy" if order.is_buy else "sell",
            "amount": str(amount), "unit": "contracts", "type": _type(order),
            "client_order_id": order.client_order_id.value,
        }  # fmt: skip
        if order.is_quote_quantity:
            asked |= {"unit": "money", "currency": self._cached().instrument(order.instrument_id).quote_currency.code}
        if price is not None:
            asked["price"] = str(price)
        if order.has_trigger_price:
            asked["trigger_price"] = str(order.trigger_price)
        if order.is_reduce_only:
            asked["reduce_only"] = True
        elif not order.is_quote_quantity:
            rooms = {} if rooms is None else rooms
            key = (str(order.instrument_id), order.is_buy)
            room = rooms.get(key)
            room = self._room(order.instrument_id, is_buy=order.is_buy, but=order) if room is None else room
            rooms[key] = room - amount
            if amount <= room:
                asked["is_exit"] = True
        return asked

    def _room(self, instrument_id: Any, *, is_buy: bool, but: Any = None) -> Decimal:
        """What an order on this side can reduce: what is held, less everything on the side that may still fill."""
        held = self._held(instrument_id)
        room = -held if is_buy else held
        if room <= ZERO:
            return ZERO
        waiting = {each.client_order_id.value: each for each in self._at_venue(instrument_id)}
        for name, each in list(self._let_through.items()):
            if each.is_closed or each.is_open or each.is_inflight:
                del self._let_through[name]
            elif each.instrument_id == instrument_id:
                waiting[name] = each
        names = {None if but is None else but.client_order_id.value}
        return room - sum((each.leaves_qty.as_decimal() for name, each in waiting.items()
                           if each.is_buy == is_buy and name not in names), ZERO)  # fmt: skip

    def _held(self, instrument_id: Any) -> Decimal:
        """The net position of an instrument, of all strategies."""
        positions = self._cached().positions_open(instrument_id=instrument_id)
        return sum((Decimal(str(each.signed_qty)) for each in positions), ZERO)

    def _at_venue(self, instrument_id: Any) -> list[Any]:
        cached = self._cached()
        return [*cached.orders_open(instrument_id=instrument_id), *cached.orders_inflight(instrument_id=instrument_id)]

    def _symbol(self, instrument_id: Any) -> str:
        """The symbol of the Account document; the instrument's id where it cannot be derived."""
        own = self._symbols.get(str(instrument_id))
        instrument = self._cached().instrument(instrument_id)
        if own is not None or instrument is None:
            return own if own is not None else str(instrument_id)
        kind = type(instrument).__name__
        if kind == "CurrencyPair":
            return f"{instrument.base_currency.code}/{instrument.quote_currency.code}"
        if kind == "CryptoPerpetual":
            settled = instrument.settlement_currency.code
            return f"{instrument.base_currency.code}/{instrument.quote_currency.code}:{settled}"
        return str(instrument.raw_symbol.value) if kind == "Equity" else str(instrument_id)

    def _deny(self, kind: str, command: Any, orders: Sequence[Any], reason: str) -> None:
        """End the orders of a command that is not executed, as a venue's refusal does."""
        _LOG.warning("%s is not sent: %s", kind, reason)
        events, bus, now = sys.modules["nautilus_trader.model.events"], self._bus(), self._now()
        uuid = sys.modules["nautilus_trader.core.uuid"].UUID4
        if kind == "ModifyOrder":
            order = self._cached().order(command.client_order_id)
            bus.send("ExecEngine.process", events.OrderModifyRejected(
                command.trader_id, command.strategy_id, command.instrument_id, command.client_order_id,
                None if order is None else order.venue_order_id, None if order is None else order.account_id, reason,
                uuid(), now, now,
            ))  # fmt: skip
            return
        for order in orders:
            if self._cached().order(order.client_order_id) is None:
                self._cached().add_order(order)
            bus.send("ExecEngine.process", events.OrderDenied(
                order.trader_id, order.strategy_id, order.instrument_id, order.client_order_id, reason, uuid(), now,
            ))  # fmt: skip

    def _cancel_entries(self, _: Any = None) -> None:
        """While entries are held back, cancel those that rest at a venue or in the emulator."""
        try:
            cached = self._cached()
            resting = [each for each in (*cached.orders_open(), *cached.orders_emulated())
                       if not each.is_pending_cancel]  # fmt: skip
            for instrument_id in {each.instrument_id for each in resting}:
                mine = [each for each in resting if each.instrument_id == instrument_id]
                for is_buy in (True, False):
                    side = [each for each in mine if each.is_buy == is_buy and not each.is_reduce_only]
                    bounded = [each for each in mine if each.is_buy == is_buy and each.is_reduce_only]
                    if side and self._permits.held_back(self._symbol(instrument_id), "buy" if is_buy else "sell"):
                        for order in self._entries(instrument_id, side, bounded, is_buy=is_buy):
                            self._cancel(order)
        except Exception:  # noqa: BLE001 - a timer of the bot must not end
            _LOG.exception("killswitch: resting entries could not be looked at; what triggers is judged all the same")

    def _entries(self, instrument_id: Any, plain: Iterable[Any], bounded: Iterable[Any], *, is_buy: bool) -> list[Any]:
        """Those of the plain resting orders of a side that are not needed to reduce: stops first, then targets."""
        held = self._held(instrument_id)
        room = max(-held if is_buy else held, ZERO) - sum((each.leaves_qty.as_decimal() for each in bounded), ZERO)
        found = []
        for each in sorted(plain, key=lambda one: not _type_name(one).startswith(_STOPS)):
            amount = each.leaves_qty.as_decimal()
            if amount > room:
                found.append(each)
            else:
                room -= amount
        return found

    def _cancel(self, order: Any) -> None:
        messages = sys.modules["nautilus_trader.execution.messages"]
        command = messages.CancelOrder(
            order.trader_id, order.strategy_id, order.instrument_id, order.client_order_id, order.venue_order_id,
            sys.modules["nautilus_trader.core.uuid"].UUID4(), self._now(),
        )  # fmt: skip
        if order.is_emulated:
            self._bus().send("OrderEmulator.execute", command)
        else:
            self._engine.execute(command)

    def _cached(self) -> Any:
        return self.cache  # type: ignore[attr-defined] # an attribute of the bot's class

    def _bus(self) -> Any:
        return self.msgbus  # type: ignore[attr-defined] # an attribute of the bot's class

    def _now(self) -> int:
        now: int = self.clock.timestamp_ns()  # type: ignore[attr-defined] # an attribute of the bot's class
        return now


def _orders_in(command: Any) -> Sequence[Any]:
    """The orders of a command: one, or those of its list."""
    if hasattr(command, "order_list"):
        orders: Sequence[Any] = command.order_list.orders
        return orders
    return [command.order] if hasattr(command, "order") else []


def _is_bounded(orders: Sequence[Any]) -> bool:
    return bool(orders) and all(each.is_reduce_only is True for each in orders)


def _price(order: Any) -> Any:
    return order.price if order.has_price else None


def _type_name(order: Any) -> str:
    name: str = order.type_string()
    return name


def _type(order: Any) -> str:
    """The gate's type of an order."""
    name = _type_name(order)
    if name.startswith("TRAILING"):
        return "trailing_stop"
    if name.startswith("STOP"):
        return "stop"
    if "TOUCHED" in name:
        return "take_profit"
    return "market" if name.startswith("MARKET") else "limit"
