"""Random runs of whole policies over a venue's own payloads: a hedge, `neutralise`, a close of everything, and stops.

The runner, the real client and a venue on loopback play a falling market in virtual time. For the first part of a run
requests fail by chance, others trade, and the run is stopped in the middle of its work and begun again; then nothing
fails any more, and everything must come to rest. What must never be is checked at each change at the exchange, and what
must be in the end at the end. As a program: `python -m tests.faults.whole_policies.simulation VENUE FIRST COUNT`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Final

from msgspec import Struct

from killswitch.accounts.arming import ArmedAccount
from killswitch.graph.nodes import PolicySet
from killswitch.model.venue import AccountSpec, is_catastrophe_stop
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.loop import RunnerPace
from killswitch.runner.observers import TickReport
from killswitch.store.sqlite import open_store
from killswitch_ccxt import adapter
from tests.backtests import written
from tests.faults.exchange import ZERO, Exchange, Key, Market
from tests.faults.mishaps import Chance, Mishap, Occasion
from tests.faults.statement import LIES
from tests.virtual_time import VirtualTime
from tests.wire.closing_venues import CLOSING_VENUES

D = Decimal
BTC, ETH, SOL = (f"{base}/USDT:USDT" for base in ("BTC", "ETH", "SOL"))
BOOK: Final[dict[Key, Decimal]] = {(BTC, "long"): D(10), (ETH, "short"): D(8), (SOL, "long"): D(20)}
RATIO: Final = D("1.25")
"""ETH per BTC of the hedge: 10 long against 8 short is a net of 0."""
TROUBLE_ENDS: Final = 25.0
"""Seconds after which nothing fails, and nobody trades."""
LENGTH: Final = 180
"""Ticks of a run, of a second each: a stop whose request was lost is placed again after 60 s at the latest."""
PACE = RunnerPace(1.0, 0.5, stop_timeout=0.5)
_NUMBERS = count()
DOCUMENTS: Final = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: book}
spec:
  mode: enforce
  scope: {each: account, match: {account: [main]}}
  max_gap: 10m
  triggers:
    fall: {signal: equity.drawdown_from_peak, at_least: 3%, on_unknown: hold}
    crash: {signal: equity.drawdown_from_peak, at_least: 18%, on_unknown: hold}
  stages:
    - name: neutralise
      level: 1
      any: [fall]
      cooldown: 1h
      reset: manual
      actions:
        - lock_trading: {mode: reduce_only, for: 1h}
        - neutralise: {by: notional, window: 24h, sample: 1m, least: 10, if_unknown: notional, fallback: nothing}
    - name: close
      level: 3
      any: [crash]
      cooldown: 1h
      reset: manual
      actions:
        - lock_trading: {mode: all, for: 1h}
        - close: {side: both, fraction: 100%}
---
apiVersion: killswitch.dev/v1
kind: HedgeGroup
metadata: {name: pair}
spec:
  legs:
    - {account: main, symbol: 'BTC/USDT:USDT', ratio: 1}
    - {account: main, symbol: 'ETH/USDT:USDT', ratio: 1.25}
---
apiVersion: killswitch.dev/v1
kind: CatastropheStop
metadata: {name: far}
spec: {accounts: [main], distance: 20%, from: entry, trigger: mark, band: 10%, if_refused: none, pairs: accept}
---
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: ccxt, exchange: bybit, market: swap, currency: USDT, execution: live, allow_withdrawal_keys: false}
"""


class HonestBooks(Chance):
    """Chance that fails requests, and never answers them with a book that has no longer, or not yet, been true.

    A command is carried out by one snapshot: a position that a venue leaves out of it is not closed, whoever asks.
    """

    def at(self, occasion: Occasion, now: float) -> Mishap:
        mishap = super().at(occasion, now)
        if mishap in LIES:
            del self.happened[occasion]
            return "none"
        return mishap


class Played(Struct, frozen=True):
    """How a run went. `fired`: the stages, in order; `violations` must be empty."""

    seed: int
    violations: tuple[str, ...]
    fired: tuple[str, ...]
    filled_stops: int
    mishaps: int
    held: dict[Key, Decimal]


class Run:
    """One seed at one venue: a market that falls and turns, somebody who trades, and stops of the run in between."""

    def __init__(self, seed: int, venue: str, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.seed, self.folder = seed, folder
        self.time = VirtualTime()
        self.exchange = Exchange(
            BOOK, lambda: (self.time.elapsed, self.time.now()), markets=[Market(it) for it in (BTC, ETH, SOL)]
        )
        self.mishaps = HonestBooks(seed, 0.15, TROUBLE_ENDS)
        self.closing_venue = CLOSING_VENUES[venue]
        self.server = self.closing_venue.server(self.exchange, mishaps=self.mishaps, equity=D(4000))
        self.store = open_store(str(folder / "store.sqlite"))
        self.violations: list[str] = []
        self.texts: list[str] = []
        self.changes = dict(self._changes())
        self.stopped_at = sorted(self.chance.sample(range(4, 30), self.chance.choice((0, 1, 2))))
        self._quiet: dict[Key, float] = dict.fromkeys(BOOK, 0.0)
        """Position → since when it has not changed."""
        self._last = dict(BOOK)
        self.exchange.watchers.append(self._check_change)

    def _changes(self) -> Iterator[tuple[int, tuple[str, Decimal, Decimal]]]:
        """Tick → symbol, its factor of price, and what somebody trades of it."""
        moves = {
            BTC: ("0.96", "0.9", "0.79", "1.03"),
            ETH: ("1.04", "1.1", "1.21", "0.97"),
            SOL: ("0.94", "0.85", "0.7"),
        }
        for tick in self.chance.sample(range(3, int(TROUBLE_ENDS)), self.chance.randint(4, 9)):
            symbol = self.chance.choice((BTC, ETH, SOL))
            traded = D(self.chance.randint(-8, 8)) if symbol == SOL else ZERO  # others leave the hedge as it is
            yield tick, (symbol, D(self.chance.choice(moves[symbol])), traded)

    # The run

    def play(self) -> Played:
        """Play it to its end."""
        self.time.run(self._lives())
        self._check_end()
        stops = sum(1 for it in self.exchange.orders.values() if is_catastrophe_stop(it.name) and it.filled > ZERO)
        fired = [
            it.decision.stage
            for it in reversed(self.store.decisions(50))
            if it.decision.stage is not None and it.decision.kind is None
        ]
        self.store.close()
        return Played(
            self.seed, tuple(self.violations), tuple(fired), stops, len(self.mishaps.happened), dict(self.exchange.held)
        )

    async def _lives(self) -> None:
        await self.server.start()
        try:
            begin = 0
            for end in (*self.stopped_at, LENGTH):
                await self._life(begin, end)
                begin = end
        finally:
            await self.server.stop()

    async def _life(self, begin: int, end: int) -> None:
        """One process, from a tick to another: the next one has its store, and nothing else."""
        options: dict[str, object] = {"clock": self.time, "timeout": 5, "ccxt": {"numberOfTheTest": next(_NUMBERS)}}
        keys = dict(self.closing_venue.credentials)
        spec = AccountSpec(
            "main", "ccxt", "swap", "USDT", self.server.address, options, keys, self.closing_venue.exchange
        )
        venue = adapter(spec)
        accounts = {"main": ArmedAccount("main", self.closing_venue.exchange, "swap", "USDT", venue, armed=True)}
        try:
            runner = assemble(
                POLICIES, accounts, self.store, self.time, PACE, live=True, observers=(self,), timers=True, is_run=True,
                locks=LockPaths(self.folder / "locks", None),
            )  # fmt: skip
            running = asyncio.ensure_future(runner.run(asyncio.Event(), end - begin))
            for tick in range(begin, end):
                await asyncio.sleep(0.5)
                self._change(tick)
                await asyncio.sleep(0.5)
            await running
        finally:
            await venue.close()

    def _change(self, tick: int) -> None:
        if tick in self.changes:
            symbol, factor, traded = self.changes[tick]
            price = (self.exchange.markets[symbol].price * factor).quantize(D("0.01"))
            self.exchange.reprice(symbol, price)
            if traded and self.exchange.held[symbol, "long"] > ZERO:
                self.exchange.trade((symbol, "long"), traded)

    def ticked(self, report: TickReport) -> None:
        self.texts += [*report.problems, *(it.text for it in report.notices)]
        self.texts += [it.reason or "" for it in report.decisions]

    # What must never be, and what must be in the end

    def _stops(self, key: Key) -> Decimal:
        """Contracts of the position for which a stop of ours rests."""
        side = "sell" if key[1] == "long" else "buy"
        resting = (it for it in self.exchange.resting() if is_catastrophe_stop(it.client_order_id))
        return sum((it.amount - (it.filled or ZERO) for it in resting if it.symbol == key[0] and it.side == side), ZERO)

    def _check_change(self) -> None:
        now = self.time.elapsed
        for key, before in self._last.items():
            held = self.exchange.held.get(key, ZERO)
            if held != before:
                self._quiet[key] = now
            elif now - self._quiet[key] > 5 and now > TROUBLE_ENDS + 65 and self._stops(key) > held:
                self._violated(f"at {now:.1f} s stops for {self._stops(key)} rest on {held} of {key[0]}")
        self._last = {key: self.exchange.held.get(key, ZERO) for key in BOOK}
        for deed in self.exchange.deeds:
            if deed.actor == "ours" and deed.after > deed.before:
                self._violated(f"an order of ours has opened {deed.after - deed.before} of {deed.key[0]}")
        if self.exchange.turned:
            self._violated(f"an order of ours has turned a position: {self.exchange.turned}")

    def _check_end(self) -> None:
        for key in BOOK:
            held, covered = self.exchange.held.get(key, ZERO), self._stops(key)
            if covered > held:
                self._violated(f"at the end stops for {covered} rest on {held} of {key[0]}")
            is_reported = any(f"{key[0]} has no catastrophe stop" in text for text in self.texts)
            if covered < held * D("0.9") and not is_reported:
                self._violated(f"at the end {held - covered} of {key[0]} has no stop, and nobody was notified")
        net = self.exchange.held[BTC, "long"] - RATIO * self.exchange.held[ETH, "short"]
        if abs(net) > D("0.002") and not any("hedge pair" in text for text in self.texts):
            self._violated(f"at the end the hedge has a net of {net}, and nobody was notified")
        known = {it.client_order_id for it in self.store.journal()}
        strange = [it.name for it in self.exchange.orders.values() if it.by == "ours" and it.name not in known]
        if strange:
            self._violated(f"orders of ours are not in the journal: {strange}")
        if any(key not in BOOK and amount > ZERO for key, amount in self.exchange.held.items()):
            self._violated(f"a position of another side was opened: {self.exchange.held}")

    def _violated(self, text: str) -> None:
        if text not in self.violations:
            self.violations.append(text)


POLICIES: Final[PolicySet] = written(DOCUMENTS)


def played(seed: int, venue: str) -> Played:
    """One run in a folder of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return Run(seed, venue, Path(folder)).play()


def main(venue: str, first: int, number: int) -> int:
    """Play seeds and print each; the number of those with violations."""
    found = [played(seed, venue) for seed in range(first, first + number)]
    for each in found:
        print(each)
    return sum(bool(each.violations) for each in found)


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
