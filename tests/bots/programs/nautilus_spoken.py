"""A live node of nautilus_trader with a sandbox for orders, driven by a test through lines of JSON.

Arguments: the page's class, the page's lines for a node, the lock file, and the control of a venue on loopback, where
each order that the sandbox has filled is executed as well: the gate judges what that venue holds.
"""

import asyncio
import json
import os
import sys
import threading
import urllib.parse
import urllib.request
from concurrent.futures import Future
from decimal import Decimal

from nautilus_backtest import FIRST, QuoteTick
from nautilus_node import BTC, ETH, QuoteClient, QuoteFactory
from nautilus_trader.adapters.sandbox.config import SandboxExecutionClientConfig
from nautilus_trader.adapters.sandbox.factory import SandboxLiveExecClientFactory
from nautilus_trader.config import LiveDataClientConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.enums import OrderSide, TriggerType
from nautilus_trader.model.objects import Quantity
from nautilus_trader.trading.strategy import Strategy

BEAT = 0.2
"""Seconds between two quotes of one price."""
SYMBOLS = {"BTC": BTC, "ETH": ETH}


class SteadyQuotes(QuoteClient):
    """Quotes of both instruments at 100, until the node ends."""

    async def _quote(self):
        beat = 0
        while True:
            for instrument in (ETH, BTC):
                at = (FIRST + beat) * 1_000_000_000
                bid, ask = instrument.make_price(Decimal(100)), instrument.make_price(Decimal("100.1"))
                size = Quantity(100, instrument.size_precision)
                self._handle_data(QuoteTick(instrument.id, bid, ask, size, size, at, at))
            beat += 1
            await asyncio.sleep(BEAT)


class SteadyFactory(QuoteFactory):
    """Makes the client of steady quotes."""

    client = SteadyQuotes


class Spoken(Strategy):
    """Sends what the test asks for, and executes at the venue what was filled."""

    def __init__(self, control):
        super().__init__()
        self.control = control
        self.quoted = threading.Event()
        self.reasons = {}

    def on_start(self):
        """Receive both instruments' quotes."""
        for instrument in (BTC, ETH):
            self.subscribe_quote_ticks(instrument.id)

    def on_quote_tick(self, tick):
        """The node works."""
        self.quoted.set()

    def on_order_denied(self, event):
        """The reason, by the order."""
        self.reasons[event.client_order_id.value] = event.reason

    def on_order_filled(self, event):
        """The same order at the venue, under its own name."""
        order = self.cache.order(event.client_order_id)
        if order.is_closed:
            base = "BTC" if event.instrument_id == BTC.id else "ETH"
            query = {"name": event.client_order_id.value, "symbol": f"{base}/USDT:USDT",
                     "side": "buy" if order.is_buy else "sell", "amount": str(order.quantity)}  # fmt: skip
            address = f"{self.control}/order?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=10):
                pass

    def market(self, base, side, amount, reduce_only):
        """Send a market order; its name."""
        instrument = SYMBOLS[base]
        order = self.order_factory.market(
            instrument.id, OrderSide[side], instrument.make_qty(Decimal(amount)), reduce_only=reduce_only
        )
        self.submit_order(order)
        return order.client_order_id.value

    def emulated(self, base, side, amount, trigger):
        """Send a stop that the node itself watches; its name."""
        instrument = SYMBOLS[base]
        order = self.order_factory.stop_market(
            instrument.id, OrderSide[side], instrument.make_qty(Decimal(amount)), instrument.make_price(trigger),
            emulation_trigger=TriggerType.BID_ASK,
        )  # fmt: skip
        self.submit_order(order)
        return order.client_order_id.value

    def status(self, name):
        """The status of an order, and the reason where it was denied."""
        order = next(each for each in self.cache.orders() if each.client_order_id.value == name)
        return [order.status_string(), self.reasons.get(name)]


def main(code, lines, lock, control):
    """Run the node, and follow the test's lines until they end."""
    node = TradingNode(TradingNodeConfig(
        trader_id="TESTER-001", logging=LoggingConfig(log_level="ERROR"),
        data_clients={"BINANCE": LiveDataClientConfig()},
        exec_clients={"BINANCE": SandboxExecutionClientConfig(venue="BINANCE", starting_balances=["10000000 USDT"])},
        timeout_disconnection=2.0, timeout_post_stop=1.0,
    ))  # fmt: skip
    node.add_data_client_factory("BINANCE", SteadyFactory)
    node.add_exec_client_factory("BINANCE", SandboxLiveExecClientFactory)
    names = {"node": node, "LOCK_FILE": lock}
    exec(compile(code, "page", "exec"), names)
    exec(compile(lines, "page", "exec"), names)
    for instrument in (BTC, ETH):
        node.cache.add_instrument(instrument)
    strategy = Spoken(control)
    node.trader.add_strategy(strategy)
    node.build()
    threading.Thread(target=follow, args=(strategy, node.kernel.loop), daemon=True).start()
    node.run()


def follow(strategy, loop):
    """Perform each line in the node's loop, and print its answer; then end, as a node waits for threads of its own."""
    strategy.quoted.wait()
    print(json.dumps({"ready": type(strategy).__name__}), flush=True)
    for line in sys.stdin:
        asked, done = json.loads(line), Future()
        loop.call_soon_threadsafe(answer, strategy, asked, done)
        print(json.dumps(done.result()), flush=True)
    os._exit(0)


def answer(strategy, asked, done):
    """One call of the strategy."""
    try:
        done.set_result({"ok": getattr(strategy, asked["method"])(*asked["args"])})
    except Exception as error:  # noqa: BLE001 - the test reads what was raised
        done.set_result({"error": [each.__name__ for each in type(error).__mro__], "text": repr(error)})


if __name__ == "__main__":
    main(*sys.argv[1:])
