"""The mixin of hummingbot without hummingbot: how it reads an order, which executors it stops, and its own defects."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from killswitch.integrations import OrderNotSentError, OrderPermits
from killswitch.integrations.hummingbot_mixin import KillswitchHummingbot, guard_connector, question_about
from tests.unit.integrations.asked_gate import AskedGate, lock_at


def named(name: str) -> Any:
    """A member of an enumeration."""
    return SimpleNamespace(name=name)


def order(side: str = "BUY", position: str = "OPEN", kind: str = "MARKET", **more: Any) -> Any:
    """An in-flight order of 0.5 BTC."""
    fields = {"trading_pair": "BTC-USDT", "amount": Decimal("0.5"), "price": Decimal(90), "client_order_id": "c1"}
    return SimpleNamespace(
        trade_type=named(side), position=named(position), order_type=named(kind), **fields, is_open=True, **more
    )


class Connector:
    """What a connector has of interest."""

    def __init__(self, name: str = "binance_perpetual", mode: str = "ONEWAY") -> None:
        self.name = name
        self.position_mode = named(mode)
        self.in_flight_orders: dict[str, Any] = {}
        self.sent: list[Any] = []
        self.cancelled: list[str] = []
        self.fails: Exception | None = None
        self.__dict__["_place_order_and_process_update"] = self.send

    async def send(self, order: Any, **_: Any) -> str:
        """The place that all orders pass."""
        if self.fails is not None:
            raise self.fails
        self.sent.append(order)
        return "1"

    def cancel(self, _: str, name: str) -> None:
        """Cancel an order."""
        self.cancelled.append(name)

    def place(self, order: Any) -> Any:
        """As the connector does it."""
        return asyncio.run(self.__dict__["_place_order_and_process_update"](order=order))


class Base:
    """In the place of StrategyV2Base."""

    def __init__(self, connectors: dict[str, Any]) -> None:
        self.connectors = connectors
        self.ticks = 0
        self.executed: list[Any] = []
        self.executor_orchestrator = SimpleNamespace(active_executors={}, execute_action=self.executed.append)

    def tick(self, timestamp: float) -> None:
        """Each second."""
        self.ticks += 1


def executor(*, is_trading: bool, action: str = "OPEN") -> Any:
    """An executor that records that it was stopped."""
    config = SimpleNamespace(connector_name="binance_perpetual", trading_pair="BTC-USDT", side=named("BUY"),
                             position_action=named(action))  # fmt: skip
    made = SimpleNamespace(is_active=True, is_trading=is_trading, config=config, stopped=None)
    made.early_stop = lambda keep_position: setattr(made, "stopped", keep_position)
    return made


@pytest.mark.parametrize(
    ("name", "mode", "side", "position", "claims"),
    [
        ("binance_perpetual", "ONEWAY", "BUY", "OPEN", {}),
        ("binance_perpetual", "ONEWAY", "SELL", "CLOSE", {"reduce_only": True}),
        ("okx_perpetual", "ONEWAY", "SELL", "CLOSE", {"is_exit": True}),
        ("binance_perpetual", "HEDGE", "SELL", "CLOSE", {"is_exit": True, "position_side": "long"}),
        ("binance_perpetual", "HEDGE", "SELL", "OPEN", {"position_side": "short"}),
        ("binance", "", "SELL", "NIL", {"is_exit": True}),
        ("binance", "", "BUY", "NIL", {}),
    ],
)
def test_an_order_claims_what_its_connector_sends(name: str, mode: str, side: str, position: str, claims: Any) -> None:
    """A flag only where the connector sends one; a sale on spot is the exit; a perpetual has its settlement."""
    asked = question_about(order(side, position), Connector(name, mode), {})
    symbol = "BTC/USDT:USDT" if "perpetual" in name else "BTC/USDT"
    assert asked == {"symbol": symbol, "side": side.lower(), "amount": "0.5", "unit": "base", "type": "market",
                     "client_order_id": "c1"} | claims  # fmt: skip
    assert question_about(order(kind="LIMIT"), Connector(), {"BTC-USDT": "XBT"})["symbol"] == "XBT"


def test_what_is_locked_fails_like_a_refusal_and_closes_pass(tmp_path: Path) -> None:
    """And an order that cannot be read is not sent."""
    connector = Connector()
    guard_connector(connector, OrderPermits(lock_file=lock_at(tmp_path / "lock.json", "reduce_only")), {})
    for unsent in (order(), order("SELL", "OPEN"), SimpleNamespace()):
        with pytest.raises(OrderNotSentError):
            connector.place(unsent)
    connector.place(order("SELL", "CLOSE"))
    assert len(connector.sent) == 1
    with pytest.raises(TypeError, match="another road"):
        guard_connector(SimpleNamespace(name="paper"), OrderPermits(lock_file="x"), {})


def test_only_a_readable_refusal_is_reported() -> None:
    """A 5xx and a limit of requests are none."""
    gate, connector = AskedGate("allowed"), Connector()
    guard_connector(connector, OrderPermits("main", gate=gate), {})
    for status in (503, 429, 400):
        connector.fails = OSError(f"Error executing request POST. HTTP status is {status}. Error: x")
        with pytest.raises(OSError, match="HTTP status"):
            connector.place(order())
    assert gate.reported == ["refused"]


def test_while_locked_what_waits_is_stopped_and_what_holds_a_position_stays(tmp_path: Path) -> None:
    """Executors try again, and would all send in the second in which the lock lifts."""

    class Mine(KillswitchHummingbot, Base):
        killswitch = OrderPermits(lock_file=lock_at(tmp_path / "lock.json", "reduce_only"))

    connector = Connector()
    connector.in_flight_orders = {"c1": order(), "c2": order("SELL", "CLOSE")}
    connector.in_flight_orders["c2"].client_order_id = "c2"
    strategy = Mine({"binance_perpetual": connector})
    waiting, holding, closing = (
        executor(is_trading=False),
        executor(is_trading=True),
        executor(is_trading=False, action="CLOSE"),
    )
    strategy.executor_orchestrator.active_executors = {"main": [waiting, holding, closing]}
    strategy.tick(1.0)
    assert (waiting.stopped, holding.stopped, closing.stopped) == (True, None, None)
    assert connector.cancelled == ["c1"]
    for action in (executor(is_trading=False).config, executor(is_trading=False, action="CLOSE").config):
        strategy.executor_orchestrator.execute_action(SimpleNamespace(executor_config=action))
    strategy.executor_orchestrator.execute_action(SimpleNamespace(executor_id="1"))
    assert len(strategy.executed) == 2, "one that closes, and the stop of another"
    connector.in_flight_orders = {"broken": None}
    strategy.tick(2.0)
    assert strategy.ticks == 2, "a defect of the class ends no tick"


def test_a_strategy_without_permits_does_not_start() -> None:
    """A gate that was forgotten is no gate."""

    class Mine(KillswitchHummingbot, Base):
        pass

    with pytest.raises(ValueError, match="killswitch = OrderPermits"):
        Mine({})
