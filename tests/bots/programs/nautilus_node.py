"""A live node of nautilus_trader with a sandbox for orders and quotes of its own; the schedule of the backtest.

Arguments: the page's class, the page's two lines for a node, and the lock file.
"""

import asyncio
import json
import os
import sys
from decimal import Decimal
from functools import partial

from nautilus_backtest import Schedule, quotes, write_lock
from nautilus_trader.adapters.sandbox.config import SandboxExecutionClientConfig
from nautilus_trader.adapters.sandbox.factory import SandboxLiveExecClientFactory
from nautilus_trader.common.providers import InstrumentProvider
from nautilus_trader.config import LiveDataClientConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.examples.algorithms.twap import TWAPExecAlgorithm
from nautilus_trader.live.data_client import LiveMarketDataClient
from nautilus_trader.live.factories import LiveDataClientFactory
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.identifiers import ClientId, Venue
from nautilus_trader.test_kit.providers import TestInstrumentProvider

BTC, ETH = TestInstrumentProvider.btcusdt_perp_binance(), TestInstrumentProvider.ethusdt_perp_binance()
BEAT, LAST = 0.5, 28
"""Seconds between two quotes, and the number of them."""


WORLD = {}
"""What the client of the quotes calls after the last one."""


class QuoteClient(LiveMarketDataClient):
    """Hands out quotes of both instruments, once somebody has subscribed."""

    async def _connect(self):
        for instrument in (BTC, ETH):
            self._handle_data(instrument)

    async def _disconnect(self):
        pass

    async def _subscribe_quote_ticks(self, command):
        if command.instrument_id == ETH.id:
            self.create_task(self._quote())

    async def _subscribe_order_book_deltas(self, command):
        pass

    async def _unsubscribe_quote_ticks(self, command):
        pass

    async def _unsubscribe_order_book_deltas(self, command):
        pass

    async def _request_instrument(self, request):
        pass

    async def _quote(self):
        prices = [Decimal(120 if 8 <= second < 18 else 100) for second in range(LAST)]
        for pair in zip(quotes(ETH, prices), quotes(BTC, prices), strict=True):
            for tick in pair:
                self._handle_data(tick)
            await asyncio.sleep(BEAT)
        WORLD["report"]()


class QuoteFactory(LiveDataClientFactory):
    """Makes the client."""

    client = QuoteClient

    @classmethod
    def create(cls, loop, name, config, msgbus, cache, clock):
        """One of the venue BINANCE."""
        provider = InstrumentProvider()
        provider.add_bulk([BTC, ETH])
        return cls.client(loop, ClientId(name), Venue(name), msgbus, cache, clock, provider, config)


def main(code, lines, lock):
    """Run the node, and print the statuses by name."""
    write_lock(lock)
    sandbox = SandboxExecutionClientConfig(venue="BINANCE", starting_balances=["10000000 USDT"])
    node = TradingNode(TradingNodeConfig(
        trader_id="TESTER-001", logging=LoggingConfig(log_level="ERROR"),
        data_clients={"BINANCE": LiveDataClientConfig()}, exec_clients={"BINANCE": sandbox},
        timeout_disconnection=2.0, timeout_post_stop=1.0,
    ))  # fmt: skip
    node.add_data_client_factory("BINANCE", QuoteFactory)
    node.add_exec_client_factory("BINANCE", SandboxLiveExecClientFactory)
    names = {"node": node, "LOCK_FILE": lock}
    exec(compile(code, "page", "exec"), names)
    exec(compile(lines, "page", "exec"), names)
    for instrument in (BTC, ETH):
        node.cache.add_instrument(instrument)
    strategy = Schedule(lock, BTC, ETH)
    node.trader.add_strategy(strategy)
    node.trader.add_exec_algorithm(TWAPExecAlgorithm())
    node.build()
    WORLD["report"] = partial(report, node, strategy)
    node.run()


def report(node, strategy):
    """Print what became of the orders, and end: a node waits for threads of its own."""
    orders = {name: node.cache.order(order.client_order_id) for name, order in strategy.orders.items()}
    children = [it for it in node.cache.orders() if it.exec_spawn_id is not None and not it.is_primary]
    print(json.dumps({
        "status": {name: order.status_string() for name, order in orders.items()},
        "resized to": str(strategy.orders["resized"].quantity), "net before unlock": strategy.net,
        "kept": strategy.kept, "children": [it.status_string() for it in children],
        "held": str(strategy.portfolio.net_position(BTC.id)), "eth": str(strategy.portfolio.net_position(ETH.id)),
    }), flush=True)  # fmt: skip
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
