"""A mixin for freqtrade strategies: no order that opens or adds is sent while trading is locked; exits and stops are.

    class MyStrategy(KillswitchFreqtrade, IStrategy):
        ...

with `"killswitch": {"account": "main", "gate": "http://127.0.0.1:8600", "lock_file": "…"}` in the configuration
(without `gate`, the lock file alone decides). In a dry run and live; backtests and hyperopt are untouched.

freqtrade asks a strategy's callbacks on some roads of an order only, and takes an exception in one for a yes. So
`Exchange.create_order`, which all orders but stops on the exchange pass, is replaced on the bot's exchange when it
starts. The callbacks of the class are wrapped in addition: they see entries that rest, and keep the bot from trying.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar, Final

from killswitch.integrations.permission import OrderPermits, is_refusal, new_client_order_id, permits_of

_LOG: Final = logging.getLogger("killswitch.integrations")
_RUNNING: Final = ("dry_run", "live")


class KillswitchFreqtrade:
    """Put it before `IStrategy` in the bases. `names_orders`: whether orders get a client order id of ours."""

    names_orders: ClassVar[bool] = True
    killswitch: OrderPermits | None = None
    """Set at the start of a bot that trades."""

    def __init_subclass__(cls, **more: Any) -> None:
        """Wrap what the class itself defines: a method of the class would hide one of the mixin."""
        super().__init_subclass__(**more)
        for name, wrap in _WRAPPERS.items():
            own = cls.__dict__.get(name)
            if callable(own):
                setattr(cls, name, wrap(own))

    def bot_start(self, **more: Any) -> None:
        """Freqtrade's hook at the start of the bot, after the configuration and the exchange are known."""
        guard_exchange(self)

    def confirm_trade_entry(self, pair: str, *_: Any, side: str = "", **__: Any) -> bool:
        """Freqtrade's hook before a first entry."""
        return not _is_not_sent(self, pair, "sell" if side == "short" else "buy")

    def check_entry_timeout(self, pair: str, trade: Any, *_: Any, **__: Any) -> bool:
        """Freqtrade's hook for each entry that rests, in every loop: True cancels it."""
        return _must_end(self, pair, trade.entry_side)


def guard_exchange(strategy: Any) -> None:
    """Put the judgement in front of the bot's exchange, once. Errors of the settings end the start of the bot."""
    if strategy.dp.runmode.value not in _RUNNING:
        return
    settings = strategy.config.get("killswitch")
    if settings is None:
        raise ValueError("the configuration has no `killswitch`: name a lock_file, or an account and a gate")
    strategy.killswitch = permits_of(settings)
    exchange = strategy.dp._exchange
    if not callable(getattr(exchange, "create_order", None)):
        raise TypeError("this version of freqtrade has no Exchange.create_order: the gate cannot stop its orders")
    guard = getattr(exchange, "killswitch_guard", None)
    if guard is None:
        exchange.killswitch_guard = guard = _ExchangeGuard(exchange, is_naming=type(strategy).names_orders)
        exchange.create_order = guard.create_order
        if hasattr(exchange, "_get_params"):
            exchange._get_params = guard.params
    guard.permits = strategy.killswitch
    _LOG.info("killswitch: every order of this bot is judged")


class _ExchangeGuard:
    """`create_order` of an exchange, judged."""

    permits: OrderPermits

    def __init__(self, exchange: Any, *, is_naming: bool) -> None:
        self._exchange = exchange
        self._is_naming = is_naming
        self._send: Callable[..., Any] = exchange.create_order
        self._params: Callable[..., dict[str, Any]] | None = getattr(exchange, "_get_params", None)
        self._order = threading.local()

    def create_order(self, **call: Any) -> Any:
        """As `Exchange.create_order`. What is not sent raises freqtrade's DependencyException, which it handles."""
        name = new_client_order_id() if self._is_naming else None
        try:
            permission = self.permits.ask(self._asked(call, name))
            is_sent = self.permits.may_still_send(permission)
        except Exception as error:
            _LOG.exception("killswitch: an order could not be judged")
            if call.get("reduceOnly") is not True:
                raise _dependency_error(f"the order could not be judged: {error}") from error
            return self._send(**call)
        if not is_sent:
            reason = permission.text if not permission.may_send else "a lock came between"
            raise _dependency_error(f"killswitch: {call['side']} {call['pair']} is not sent: {reason}")
        self._order.name = name
        try:
            sent = self._send(**call)
        except Exception as error:
            if is_refusal(error):
                self.permits.report(permission, "refused")
            raise
        finally:
            self._order.name = None
        if self._exchange._config.get("dry_run"):
            self.permits.report(permission, "not_sent")  # it never reaches the venue
        return sent

    def params(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """As `Exchange._get_params`, with the client order id of the order that is being sent."""
        assert self._params is not None
        found = self._params(*arguments, **named)
        name = getattr(self._order, "name", None)
        return found if name is None or "clientOrderId" in found else {**found, "clientOrderId": name}

    def _asked(self, call: dict[str, Any], name: str | None) -> dict[str, Any]:
        """The order as the gate reads it: freqtrade's amounts are in units of the base asset."""
        is_market = "market" in str(call["ordertype"])
        order: dict[str, Any] = {
            "symbol": call["pair"], "side": call["side"], "amount": _number(call["amount"]), "unit": "base",
            "type": "market" if is_market else "limit",
        }  # fmt: skip
        if not is_market and call.get("rate"):
            order["price"] = _number(call["rate"])
        if call.get("reduceOnly") is True:
            order["reduce_only"] = True
        elif self._is_spot and call["side"] == "sell":
            order["is_exit"] = True  # freqtrade sells on spot what it has bought
        return order if name is None else {**order, "client_order_id": name}

    @property
    def _is_spot(self) -> bool:
        mode = getattr(self._exchange, "trading_mode", "")
        return str(getattr(mode, "value", mode)) == "spot"


def _number(value: Any) -> str:
    return format(Decimal(str(value)), "f")


def _dependency_error(text: str) -> Exception:
    """Freqtrade's own error, of the module that the bot has loaded: all its callers catch it."""
    kind: type[Exception] = sys.modules["freqtrade.exceptions"].DependencyException
    return kind(text)


def _is_not_sent(strategy: Any, pair: str, side: str) -> bool:
    """Whether an entry that would be sent now is held back, with the reason in the bot's log."""
    return _held_back(strategy, pair, side, f"{side} {pair} is not sent")


def _must_end(strategy: Any, pair: str, side: str) -> bool:
    """Whether an entry that rests is held back, with the reason in the bot's log."""
    return _held_back(strategy, pair, side, f"the entry of {pair} that rests is cancelled")


def _held_back(strategy: Any, pair: str, side: str, outcome: str) -> bool:
    """Whether entries are held back; then the log has the outcome and the reason, as freqtrade asks for no reason.

    Never raises; False where nothing is judged (a backtest).
    """
    permits: OrderPermits | None = strategy.killswitch
    try:
        reason = None if permits is None else permits.held_back(pair, side)
    except Exception:  # noqa: BLE001 - freqtrade would take it for a yes
        _LOG.exception("killswitch: whether entries are held back could not be found out")
        return True
    if reason is not None:
        _LOG.warning("killswitch: %s: %s", outcome, reason)
    return reason is not None


def _guarding_start(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def bot_start(self: Any, *arguments: Any, **named: Any) -> Any:
        guard_exchange(self)
        return own(self, *arguments, **named)

    return bot_start


def _confirming(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def confirm_trade_entry(self: Any, pair: str, *arguments: Any, **named: Any) -> bool:
        if _is_not_sent(self, pair, "sell" if named.get("side") == "short" else "buy"):
            return False
        try:
            return bool(own(self, pair, *arguments, **named))
        except Exception:  # noqa: BLE001 - freqtrade would take it for a yes
            _LOG.exception("killswitch: confirm_trade_entry failed, which is no consent")
            return False

    return confirm_trade_entry


def _timing_out(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def check_entry_timeout(self: Any, pair: str, trade: Any, *arguments: Any, **named: Any) -> bool:
        if _must_end(self, pair, trade.entry_side):
            return True
        return bool(own(self, pair, trade, *arguments, **named))

    return check_entry_timeout


def _adding(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def adjust_trade_position(self: Any, trade: Any, *arguments: Any, **named: Any) -> Any:
        wanted = own(self, trade, *arguments, **named)
        stake = wanted[0] if isinstance(wanted, tuple) and wanted else wanted
        adds = stake is not None and not stake < 0
        return None if adds and stake and _is_not_sent(self, trade.pair, trade.entry_side) else wanted

    return adjust_trade_position


def _repricing(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def adjust_price(self: Any, trade: Any, *arguments: Any, **named: Any) -> Any:
        if named.get("is_entry", True) is not False and _must_end(self, trade.pair, trade.entry_side):
            return None  # cancels the entry
        return own(self, trade, *arguments, **named)

    return adjust_price


_WRAPPERS: Final[dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]]] = {
    "bot_start": _guarding_start, "confirm_trade_entry": _confirming, "check_entry_timeout": _timing_out,
    "adjust_trade_position": _adding, "adjust_entry_price": _repricing, "adjust_order_price": _repricing,
}  # fmt: skip
