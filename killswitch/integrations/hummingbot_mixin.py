"""A mixin for hummingbot strategies with executors and controllers: nothing that opens is sent while trading is locked.

    class MyStrategy(KillswitchHummingbot, StrategyV2Base):
        killswitch = OrderPermits(lock_file="/var/lib/killswitch/account__main.json")

Every order of a connector passes its `_place_order_and_process_update`, which is replaced on each connector of the
strategy: raising there fails the order as a rejection of the venue does. Executors that are refused try again, so while
entries are held back none is created, those that hold nothing are stopped, and resting entries are cancelled.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final

from killswitch.integrations.permission import OrderNotSentError, OrderPermits

FLAGGING: Final = frozenset(
    f"{venue}_perpetual"
    for venue in ("binance", "bybit", "kucoin", "hyperliquid", "aevo", "grvt", "lighter", "pacifica")
)
"""Connectors of 20260922 that send reduce-only for a CLOSE in one-way mode; of the others it is a claim."""
_LOG: Final = logging.getLogger("killswitch.integrations")
_REFUSED: Final = re.compile(r"HTTP status is (4\d\d)")
_UNREADABLE: Final = ("408", "429", "418")


class KillswitchHummingbot:
    """Put it before `StrategyV2Base` in the bases, and set `killswitch` on the class."""

    killswitch: ClassVar[OrderPermits | None] = None
    symbols: ClassVar[Mapping[str, str]] = {}
    """The Account document's symbol by trading pair, where it is not `BASE/QUOTE:QUOTE`, or `BASE/QUOTE` on spot."""

    def __init__(self, connectors: dict[str, Any], *arguments: Any, **named: Any) -> None:
        """As `StrategyV2Base`. ValueError without permits, TypeError where a connector cannot be guarded."""
        if self.killswitch is None:
            raise ValueError("set `killswitch = OrderPermits(...)` on the class of the strategy")
        initialise: Any = super().__init__
        initialise(connectors, *arguments, **named)
        for connector in connectors.values():
            guard_connector(connector, self.killswitch, self.symbols)
        orchestrator: Any = getattr(self, "executor_orchestrator", None)
        if orchestrator is not None:
            orchestrator.execute_action = self._without_new_entries(orchestrator.execute_action)

    def tick(self, timestamp: float) -> None:
        """Each second, before the strategy's own: stop what would try again, and cancel what rests."""
        try:
            self._stop_waiting_executors()
            self._cancel_entries()
        except Exception:  # noqa: BLE001 - each order is judged all the same
            _LOG.exception("killswitch: executors and resting entries could not be looked at")
        onward: Any = super().tick  # type: ignore[misc] # a method of the bot's class
        onward(timestamp)

    def _without_new_entries(self, execute: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def execute_action(action: Any) -> Any:
            config = getattr(action, "executor_config", None)
            if config is not None and _opens(config) and self._is_held_back(config.connector_name, config):
                _LOG.warning("killswitch: an executor of %s is not created: entries are held back", config.trading_pair)
                return None
            return execute(action)

        return execute_action

    def _stop_waiting_executors(self) -> None:
        """Stop executors that hold nothing and would open; one that holds something manages its exit, and stays."""
        orchestrator: Any = getattr(self, "executor_orchestrator", None)
        for executor in [] if orchestrator is None else _executors(orchestrator):
            if not executor.is_active or executor.is_trading or not _opens(executor.config):
                continue
            if self._is_held_back(executor.config.connector_name, executor.config):
                executor.early_stop(keep_position=True)

    def _cancel_entries(self) -> None:
        connectors: Mapping[str, Any] = self.connectors  # type: ignore[attr-defined] # an attribute of the bot's class
        for connector in connectors.values():
            for order in list(connector.in_flight_orders.values()):
                asked = question_about(order, connector, self.symbols)
                is_exit = asked.get("reduce_only") or asked.get("is_exit")
                if order.is_open and not is_exit and self._held_back(asked["symbol"], asked["side"]):
                    connector.cancel(order.trading_pair, order.client_order_id)

    def _is_held_back(self, connector_name: str, config: Any) -> bool:
        side = getattr(config, "side", None)
        pair = getattr(config, "trading_pair", "")
        symbol = symbol_of(pair, connector_name, self.symbols)
        return self._held_back(symbol, "sell" if getattr(side, "name", "BUY") == "SELL" else "buy")

    def _held_back(self, symbol: str, side: str) -> bool:
        assert self.killswitch is not None
        return self.killswitch.held_back(symbol, side) is not None


def guard_connector(connector: Any, permits: OrderPermits, symbols: Mapping[str, str]) -> None:
    """Put the judgement in front of a connector's orders, once. TypeError where it has no such place."""
    if getattr(connector, "killswitch_guard", None) is permits:
        return
    send: Callable[..., Awaitable[Any]] | None = getattr(connector, "_place_order_and_process_update", None)
    if send is None:
        raise TypeError(f"the connector {connector.name} sends its orders by another road: the gate cannot stop them")

    async def judged(order: Any, **more: Any) -> Any:
        """As `_place_order_and_process_update`; OrderNotSentError for what is not sent."""
        import asyncio  # the bot has it; a program that only imports this module pays nothing

        try:
            asked = question_about(order, connector, symbols)
        except Exception as error:
            raise OrderNotSentError(f"killswitch: the order could not be judged: {error}") from error
        permission = await asyncio.to_thread(permits.ask, asked)
        if not permits.may_still_send(permission):
            reason = permission.text if not permission.may_send else "a lock came between"
            text = f"killswitch: {asked['side']} {order.trading_pair} is not sent: {reason}"
            _LOG.warning("%s", text)  # hummingbot itself shows "Check API key and network connection"
            raise OrderNotSentError(text)
        try:
            return await send(order=order, **more)
        except Exception as error:
            found = _REFUSED.search(str(error))
            if found is not None and found[1] not in _UNREADABLE:
                await asyncio.to_thread(permits.report, permission, "refused")
            raise

    connector._place_order_and_process_update = judged
    connector.killswitch_guard = permits


def question_about(order: Any, connector: Any, symbols: Mapping[str, str]) -> dict[str, Any]:
    """An in-flight order as the gate reads it: hummingbot's amounts are in units of the base asset."""
    is_buy, position = order.trade_type.name == "BUY", order.position.name
    is_market = order.order_type.name == "MARKET"
    asked: dict[str, Any] = {
        "symbol": symbol_of(order.trading_pair, connector.name, symbols), "side": "buy" if is_buy else "sell",
        "amount": format(Decimal(order.amount), "f"), "unit": "base", "type": "market" if is_market else "limit",
        "client_order_id": order.client_order_id,
    }  # fmt: skip
    if not is_market and order.price is not None and order.price > 0:
        asked["price"] = format(Decimal(order.price), "f")
    mode = getattr(getattr(connector, "position_mode", None), "name", "")
    if position == "NIL":
        return asked if is_buy else {**asked, "is_exit": True}  # on spot a sale within the balance is the exit
    if mode == "HEDGE":
        is_long = is_buy is (position == "OPEN")
        asked["position_side"] = "long" if is_long else "short"
    if position == "CLOSE":
        asked["reduce_only" if mode != "HEDGE" and connector.name in FLAGGING else "is_exit"] = True
    return asked


def symbol_of(trading_pair: str, connector_name: str, symbols: Mapping[str, str]) -> str:
    """The symbol of the Account document of a trading pair."""
    base, _, quote = trading_pair.partition("-")
    derived = f"{base}/{quote}:{quote}" if "perpetual" in connector_name else f"{base}/{quote}"
    return symbols.get(trading_pair, derived)


def _opens(config: Any) -> bool:
    """Whether an executor opens something: all do but those that are made to close."""
    return bool(getattr(getattr(config, "position_action", None), "name", "OPEN") != "CLOSE")


def _executors(orchestrator: Any) -> Iterator[Any]:
    for each in list(orchestrator.active_executors.values()):
        yield from list(each)
