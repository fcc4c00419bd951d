"""hummingbot's Binance connector and a strategy with executors, driven by a test through lines of JSON.

Arguments: the page's class, the address of the venue, key and secret, and `gate` or `bare`.
"""

import asyncio
import json
import logging
import sys
from decimal import Decimal

import hummingbot.connector.derivative.binance_perpetual.binance_perpetual_constants as constants
from hummingbot.client.config.client_config_map import ClientConfigMap
from hummingbot.client.config.config_helpers import ClientConfigAdapter
from hummingbot.connector.derivative.binance_perpetual.binance_perpetual_derivative import BinancePerpetualDerivative
from hummingbot.connector.markets_recorder import MarketsRecorder
from hummingbot.core.clock import Clock, ClockMode
from hummingbot.core.data_type.common import OrderType, PositionAction, PositionMode, TradeType
from hummingbot.core.utils.async_utils import safe_ensure_future
from hummingbot.model.sql_connection_manager import SQLConnectionManager, SQLConnectionType
from hummingbot.strategy.strategy_v2_base import StrategyV2Base
from hummingbot.strategy_v2.executors.order_executor.data_types import ExecutionStrategy, OrderExecutorConfig
from hummingbot.strategy_v2.models.executor_actions import CreateExecutorAction

PAIR = "BTC-USDT"
NAME = "binance_perpetual"
SEEN = {}
"""The last state of each order."""


class Recording:
    """The strategy's own hooks: what became of each order."""

    def did_create_buy_order(self, event):
        """It rests, or is filled soon."""
        SEEN.setdefault(event.order_id, "OPEN")

    did_create_sell_order = did_create_buy_order

    def did_complete_buy_order(self, event):
        """It is filled."""
        SEEN[event.order_id] = "FILLED"

    did_complete_sell_order = did_complete_buy_order

    def did_cancel_order(self, event):
        """It is cancelled."""
        SEEN[event.order_id] = "CANCELED"

    def did_fail_order(self, event):
        """It was not sent, or refused."""
        SEEN[event.order_id] = "FAILED"


def main(code, address, key, secret, kind):
    """Make the connector and the strategy, and follow the test's lines."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    asyncio.run(run(code, address, key, secret, kind))


async def run(code, address, key, secret, kind):
    """As `main`, in hummingbot's loop."""
    constants.PERPETUAL_BASE_URL = f"{address}/fapi/"
    constants.PERPETUAL_WS_URL = "ws://127.0.0.1:9/"  # nobody listens: orders are polled
    names = {}
    exec(compile(code, "page", "exec"), names)
    connector = BinancePerpetualDerivative(
        binance_perpetual_api_key=key, binance_perpetual_api_secret=secret, trading_pairs=[PAIR]
    )
    connector.set_position_mode(PositionMode.ONEWAY)
    MarketsRecorder(
        SQLConnectionManager(ClientConfigAdapter(ClientConfigMap()), SQLConnectionType.TRADE_FILLS, db_name="test"),
        [connector], "test", "test", ClientConfigMap().market_data_collection,
    )  # fmt: skip
    base = names["MyStrategy"] if kind == "gate" else StrategyV2Base
    kind_of = type(base.__name__, (Recording, base), {"markets": {NAME: {PAIR}}})
    strategy = kind_of({NAME: connector})
    strategy.ready_to_trade = True
    clock = Clock(ClockMode.REALTIME, tick_size=1.0)
    clock.add_iterator(connector)
    clock.add_iterator(strategy)
    with clock:
        ticking = safe_ensure_future(clock.run())
        # The connector reads them by itself, and has no event for it.
        while not connector.trading_rules or not connector.get_all_balances():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.1)
        print(json.dumps({"ready": kind_of.__name__}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            try:
                answer = {"ok": await perform(strategy, connector, asked["method"], *asked["args"])}
            except Exception as error:  # noqa: BLE001 - the test reads what was raised
                answer = {"error": [each.__name__ for each in type(error).__mro__], "text": repr(error)}
            print(json.dumps(answer, default=str), flush=True)
        ticking.cancel()


async def perform(strategy, connector, method, *arguments):
    """One call of the test."""
    if method in ("buy", "sell"):
        amount, action, *price = arguments
        kind = OrderType.LIMIT if price else OrderType.MARKET
        return getattr(strategy, method)(
            NAME, PAIR, Decimal(amount), kind, Decimal(price[0] if price else "100"), PositionAction[action]
        )
    if method in ("connector_buy", "connector_sell"):
        call = getattr(connector, method.partition("_")[2])
        amount, action = arguments
        return call(PAIR, Decimal(amount), OrderType.MARKET, Decimal(100), position_action=PositionAction[action])
    if method == "executor":
        side, amount, action, *price = arguments
        config = OrderExecutorConfig(
            timestamp=strategy.current_timestamp, connector_name=NAME, trading_pair=PAIR, side=TradeType[side],
            amount=Decimal(amount), position_action=PositionAction[action], price=Decimal(price[0] if price else "100"),
            execution_strategy=ExecutionStrategy.LIMIT if price else ExecutionStrategy.MARKET,
        )  # fmt: skip
        strategy.executor_orchestrator.execute_actions([CreateExecutorAction(executor_config=config)])
        return config.id
    if method == "executors":
        executors = [each for some in strategy.executor_orchestrator.active_executors.values() for each in some]
        return [[each.status.name, each.is_trading] for each in executors]
    if method == "cancel_all":
        for order in list(connector.in_flight_orders.values()):
            connector.cancel(order.trading_pair, order.client_order_id)
        return None
    if method == "wait":
        return await asyncio.sleep(arguments[0])  # seconds of the strategy's clock, in which nothing must happen
    if method == "orders":
        return SEEN
    raise ValueError(method)


if __name__ == "__main__":
    main(*sys.argv[1:])
