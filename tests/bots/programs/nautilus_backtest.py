"""A backtest of nautilus_trader in which trading is locked in the middle; prints what became of each order.

Arguments: the page's class, the lock file, and `gate`, `late` (nothing that rests is cancelled), `broken`
(a defect in our class) or `bare` (no gate).
"""

import json
import sys
import time
from decimal import Decimal
from pathlib import Path

from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig
from nautilus_trader.examples.algorithms.twap import TWAPExecAlgorithm
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import (
    AccountType,
    OmsType,
    OrderSide,
    TriggerType,
)
from nautilus_trader.model.identifiers import ExecAlgorithmId, Venue
from nautilus_trader.model.objects import Money, Quantity
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.trading.strategy import Strategy

BUY, SELL = OrderSide.BUY, OrderSide.SELL


def write_lock(path, mode=None):
    """Replace the lock file: open, or locked in this mode."""
    record = {"locked": mode is not None, "mode": mode or "reduce_only", "alive_until": time.time() + 3600}
    Path(path).write_text(json.dumps(record), encoding="utf-8")


FIRST = 1_000_000
"""The second of the first quote: 1.221.0 ends with "double free" where the first time is 0."""


class BrokenPermits:
    """Whatever is asked fails."""

    def __getattr__(self, name):
        """Every method is a defect."""
        raise RuntimeError(f"a defect of the class in {name}")


class Schedule(Strategy):
    """Every way to send an order, before, while and after trading is locked."""

    def __init__(self, lock, btc, eth):
        super().__init__()
        self.lock, self.btc, self.eth = lock, btc, eth
        self.orders = {}
        self.seconds = 0

    def on_start(self):
        """Receive both instruments' quotes."""
        self.subscribe_quote_ticks(self.btc.id)
        self.subscribe_quote_ticks(self.eth.id)

    def on_quote_tick(self, tick):
        """A step each second of BTC's quotes."""
        if tick.instrument_id != self.btc.id:
            return
        self.seconds += 1
        step = getattr(self, f"at_{self.seconds}", None)
        if step is not None:
            step()

    def market(self, name, instrument, side, amount, **more):
        """Send a market order under a name."""
        order = self.order_factory.market(instrument.id, side, instrument.make_qty(Decimal(amount)), **more)
        self.orders[name] = order
        self.submit_order(order)

    def at_1(self):
        """Open, and rest what is to be stopped, or kept, later."""
        self.market("opened", self.btc, BUY, 10)

    def at_3(self):
        """A resting entry, a target, a stop, an emulated entry and the algorithm."""
        make, btc = self.order_factory, self.btc
        self.orders["resting entry"] = make.limit(btc.id, BUY, btc.make_qty(1), btc.make_price(50))
        self.orders["resized"] = make.limit(btc.id, BUY, btc.make_qty(1), btc.make_price(51))
        self.orders["target"] = make.limit(btc.id, SELL, btc.make_qty(2), btc.make_price(900), reduce_only=True)
        self.orders["plain stop"] = make.stop_market(btc.id, SELL, btc.make_qty(1), btc.make_price(40))
        self.orders["emulated"] = make.stop_market(
            btc.id, BUY, btc.make_qty(1), btc.make_price(110), emulation_trigger=TriggerType.BID_ASK
        )
        self.orders["emulated and resting"] = make.stop_market(
            btc.id, BUY, btc.make_qty(1), btc.make_price(800), emulation_trigger=TriggerType.BID_ASK
        )
        for name in ("resting entry", "resized", "target", "plain stop", "emulated", "emulated and resting"):
            self.submit_order(self.orders[name])
        self.market(
            "twap", btc, BUY, 6, exec_algorithm_id=ExecAlgorithmId("TWAP"),
            exec_algorithm_params={"horizon_secs": 12, "interval_secs": 4},
        )  # fmt: skip

    def at_5(self):
        """Lock, and try everything that opens in the same moment."""
        write_lock(self.lock, "reduce_only")
        self.market("add", self.btc, BUY, 1)
        self.market("open where flat", self.eth, BUY, 1)
        self.market("open short where flat", self.eth, SELL, 1)
        self.market("flip", self.btc, SELL, 25)
        bracket = self.order_factory.bracket(
            self.eth.id, BUY, self.eth.make_qty(1), sl_trigger_price=self.eth.make_price(50),
            tp_price=self.eth.make_price(900),
        )  # fmt: skip
        for number, order in enumerate(bracket.orders):
            self.orders[f"bracket {number}"] = order
        self.submit_order_list(bracket)
        self.modify_order(self.orders["resized"], quantity=self.btc.make_qty(9))

    def at_7(self):
        """Exits."""
        self.market("reduce-only", self.btc, SELL, 1, reduce_only=True)
        self.market("plain sale within", self.btc, SELL, 1)
        self.market("plain sale beyond what rests", self.btc, SELL, 9)

    def at_19(self):
        """What of the exits still rests."""
        self.kept = [name for name in ("target", "plain stop") if self.orders[name].is_open]

    def at_20(self):
        """After the emulated order would have triggered and the algorithm's children were due: close."""
        self.cancel_order(self.orders["target"])
        self.cancel_order(self.orders["plain stop"])

    def at_22(self):
        """The whole position."""
        for position in self.cache.positions_open(instrument_id=self.btc.id):
            self.close_position(position)

    def at_24(self):
        """Unlock, and ask for five at once, as executors do."""
        self.net = str(self.portfolio.net_position(self.btc.id))
        write_lock(self.lock)
        for number in range(5):
            self.market(f"after {number}", self.btc, BUY, 1)


def quotes(instrument, prices):
    """A quote each second."""
    made = []
    for second, price in enumerate(prices):
        at = (FIRST + second) * 1_000_000_000
        bid, ask = instrument.make_price(price), instrument.make_price(price + Decimal("0.1"))
        size = Quantity(100, instrument.size_precision)
        made.append(QuoteTick(instrument.id, bid, ask, size, size, at, at))
    return made


def main(code, lock, kind):
    """Run, and print the statuses by name."""
    names = {}
    exec(compile(code, "page", "exec"), names)
    from killswitch.integrations import OrderPermits

    write_lock(lock)
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(log_level="ERROR")))
    engine.add_venue(Venue("BINANCE"), OmsType.NETTING, AccountType.MARGIN, [Money(10_000_000, USDT)])
    btc, eth = TestInstrumentProvider.btcusdt_perp_binance(), TestInstrumentProvider.ethusdt_perp_binance()
    for instrument in (btc, eth):
        engine.add_instrument(instrument)
        engine.add_data(quotes(instrument, [Decimal(120 if 8 <= second < 18 else 100) for second in range(40)]))
    strategy = Schedule(lock, btc, eth)
    more = {"cancels_every": None} if kind == "late" else {}
    if kind != "bare":
        permits = BrokenPermits() if kind == "broken" else OrderPermits(lock_file=lock)
        engine.add_actor(names["Gate"](permits, engine.kernel.exec_engine, **more))
    engine.add_strategy(strategy)
    engine.add_exec_algorithm(TWAPExecAlgorithm())
    engine.run()
    children = [it for it in engine.cache.orders() if it.exec_spawn_id is not None and not it.is_primary]
    # An emulated order becomes another object under the same id when it is released.
    orders = {name: engine.cache.order(order.client_order_id) for name, order in strategy.orders.items()}
    print(json.dumps({
        "status": {name: order.status_string() for name, order in orders.items()},
        "resized to": str(strategy.orders["resized"].quantity), "net before unlock": strategy.net,
        "kept": strategy.kept, "children": [[it.status_string(), it.ts_init // 10**9 - FIRST] for it in children],
        "held": str(strategy.portfolio.net_position(btc.id)), "eth": str(strategy.portfolio.net_position(eth.id)),
    }))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
