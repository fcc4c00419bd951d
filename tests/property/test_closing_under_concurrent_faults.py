"""The venue's truth compared with the journal, under any order of requests, operators, interventions and crashes.

Calls overlap in virtual time, and a request in flight arrives whether or not anyone waits for it. Outcomes other than a
crash are checked in `tests.faults.journal_checker`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.decision import Unwinding
from killswitch.model.snapshot import FillCause, InstrumentState
from killswitch.model.venue import Call, VenueDescription
from tests.faults.exchange import ZERO, Exchange, Key, Market, Mode
from tests.faults.journal_checker import Bound, JournalChecker, MemoryJournal, orphans, overclosed, wrong_stops
from tests.faults.mishaps import MISHAPS, Mishap, Occasion
from tests.faults.plans import CAREFUL
from tests.faults.scene import committed, decision_on
from tests.faults.wire import BatchingWire, BookClosingWire, Wire
from tests.virtual_time import VirtualTime

SYMBOLS = ("BTC", "ETH", "SOL")
WIRES: Mapping[str, tuple[type[Wire], VenueDescription]] = {
    "plain": (Wire, VenueDescription()),
    "batching": (BatchingWire, VenueDescription(batch=2)),
    "book-closing": (BookClosingWire, VenueDescription(batch=2, whole_book=True)),
}
Planned = tuple[Call, Mishap]


class PlannedFaults:
    """The faults to come: the first entry for the call takes its turn."""

    def __init__(self) -> None:
        self.plan: list[Planned] = []

    def at(self, occasion: Occasion, now: float) -> Mishap:
        for index, (call, mishap) in enumerate(self.plan):
            if call == occasion[0]:
                del self.plan[index]
                return mishap
        return "none"


def mishaps() -> st.SearchStrategy[list[Planned]]:
    one = st.sampled_from(sorted(MISHAPS)).flatmap(
        lambda call: st.tuples(st.just(call), st.sampled_from(MISHAPS[call]))
    )
    return st.lists(one, max_size=5)


class ClosingUnderConcurrentFaults(RuleBasedStateMachine):
    """Decisions are committed, time passes, requests fail, others trade, the process dies and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.time = VirtualTime()
        self.runner = self.time.runner()
        self.runner.__enter__()
        self.mishaps = PlannedFaults()
        self.bounds: dict[Key, Bound] = {}
        self.decided = 0

    @initialize(
        mode=st.sampled_from(["one_way", "hedge", "spot"]),
        wire=st.sampled_from(sorted(WIRES)),
        sides=st.tuples(*[st.sampled_from(["long", "short"])] * 3),
        shares=st.lists(st.sampled_from(["0", "0.25", "1"]), max_size=4),
        slip=st.sampled_from(["0", "0.01"]),
        stops=st.booleans(),
        unwinding=st.sampled_from([None, CAREFUL]),
    )
    def open_book(
        self, mode: Mode, wire: str, sides: tuple[str, ...], shares: list[str], slip: str, stops: bool,
        unwinding: Unwinding | None,
    ) -> None:  # fmt: skip
        """Three positions, on a venue of some kind, with stops or without; closed at market or within bounds."""
        book: dict[Key, Decimal] = {
            (symbol, "long" if mode == "spot" or side == "long" else "short"): Decimal(10)
            for symbol, side in zip(SYMBOLS, sides, strict=True)
        }
        taken = [Decimal(share) for share in shares]
        markets = [Market(symbol, shares=taken[:], slip=Decimal(slip)) for symbol in SYMBOLS]
        now = lambda: (self.time.elapsed, self.time.now())  # noqa: E731 - one line of a world
        self.exchange = Exchange(book, now, mode=mode, markets=markets, resting_exits_block=True)
        self.unwinding = unwinding
        self.stopped = sorted(book) if stops and mode != "spot" else []
        for key in self.stopped:
            falls = key[1] == "long"
            self.exchange.rest(
                key[0], "sell" if falls else "buy", book[key], reduce_only=True,
                trigger_price=Decimal(50 if falls else 200), trigger_when="falls" if falls else "rises",
            )  # fmt: skip
        kind, traits = WIRES[wire]
        self.wire = kind(self.exchange, self.time, self.mishaps, traits=traits)
        self.store = MemoryJournal()
        self.checker = JournalChecker(self.store, self.exchange)
        self.wire.watch = self.checker.watch
        self.checker.misled_since = self.wire.misled_since
        self.executor = self.new_executor()

    def new_executor(self) -> AccountExecutor:
        return AccountExecutor("main", self.wire, self.checker, self.time)

    @precondition(lambda self: self.decided < 5)
    @rule(
        symbols=st.lists(st.sampled_from(SYMBOLS), min_size=1, unique=True), left=st.sampled_from(["0", "0.25", "0.5"])
    )
    def commit_decision(self, symbols: list[str], left: str) -> None:
        """About the positions really held, as the interpreter would decide on a good snapshot."""
        held = {key: amount for key, amount in self.exchange.held.items() if key[0] in symbols and amount > ZERO}
        targets = {key: (amount * Decimal(left)).quantize(Decimal("0.001")) for key, amount in held.items()}
        if not targets:
            return
        self.decided += 1
        spot = self.exchange.mode == "spot"
        plain = decision_on(self.exchange, f"d{self.decided}", self.time.now(), targets, reduce_only=not spot)
        bounded = (replace(intent, band=Decimal("0.005")) for intent in plain.intents)
        decision = replace(plain, intents=tuple(bounded), unwinding=self.unwinding)
        self.executor.adopt(committed(self.store, decision))
        now = self.time.elapsed
        for key, target in targets.items():
            self.bounds.setdefault(key, Bound(held[key], target, now, now)).also(target, now)

    @rule(plan=mishaps(), seconds=st.sampled_from([0.02, 0.05, 0.1, 1.0, 12.0]))
    def run_passes(self, plan: list[Planned], seconds: float) -> None:
        """For so long, in which the next requests fail as planned; at the end of it the process may be cut off."""
        self.mishaps.plan = list(plan)
        self.runner.run(self.run_passes_for(seconds))

    async def run_passes_for(self, seconds: float) -> bool:
        """Run passes for so long. True if nothing is left to do."""
        end = self.time.elapsed + seconds
        while self.time.elapsed < end:
            if not await self.executor.advance():
                return True
            if (pause := getattr(self.executor, "wait", 0.0)) > 0:
                await self.time.sleep(min(pause, 1.0))
        return False

    @rule(plan=mishaps(), after=st.sampled_from([0.0, 0.01, 0.03, 0.07]))
    def restart_process(self, plan: list[Planned], after: float) -> None:
        """In the middle of any operation; only the journal survives."""
        self.mishaps.plan = list(plan)

        async def die() -> None:
            life = asyncio.ensure_future(self.run_passes_for(60.0))
            await asyncio.wait({life}, timeout=after)
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
            self.executor = self.new_executor()
            await self.executor.recover()

        self.runner.run(die())

    @rule(seconds=st.sampled_from([0.3, 2.5, 40.0]))
    def pass_time(self, seconds: float) -> None:
        """Long enough for late requests to arrive, or not."""
        self.runner.run(self.time.sleep(seconds))

    @rule(symbol=st.sampled_from(SYMBOLS), by=st.sampled_from([-20, -4, 3]))
    def others_trade(self, symbol: str, by: int) -> None:
        """An operator, or a bot."""
        for key in [key for key in self.exchange.held if key[0] == symbol]:
            self.exchange.trade(key, Decimal(by))

    @rule(symbol=st.sampled_from(SYMBOLS), cause=st.sampled_from(["liquidation", "adl"]))
    def venue_reduces_position(self, symbol: str, cause: FillCause) -> None:
        """It liquidates, or deleverages."""
        for key in [key for key in self.exchange.held if key[0] == symbol]:
            self.exchange.take_away(key, Decimal(2), cause)

    @rule(symbol=st.sampled_from(SYMBOLS), state=st.sampled_from(["open", "halted", "limit_only", "reduce_only"]))
    def change_market_mode(self, symbol: str, state: InstrumentState) -> None:
        """Until it changes again, or the faults are over."""
        self.exchange.markets[symbol].state = state

    @invariant()
    def no_forbidden_outcome(self) -> None:
        """Closed beyond the decision, reversed, sent without a journal entry, or called flat that is not."""
        if not hasattr(self, "exchange"):
            return
        assert self.checker.violations == []
        assert self.exchange.turned == []
        assert orphans(self.exchange, self.checker) == []
        for key, bound in self.bounds.items():
            assert overclosed(self.exchange, key, bound) is None

    def teardown(self) -> None:
        """After the last fault, every decision finishes, and its record is true."""
        try:
            if hasattr(self, "exchange"):
                self.assert_every_decision_finishes()
        finally:
            self.runner.__exit__(None, None, None)

    def assert_every_decision_finishes(self) -> None:
        self.mishaps.plan = []
        for market in self.exchange.markets.values():
            market.state, market.shares = "open", []
        assert self.runner.run(self.run_passes_for(900.0)), "the work has no end"
        self.no_forbidden_outcome()
        ends = {entry.decision: entry.data["status"] for entry in self.store.entries if entry.kind == "finished"}
        assert len(ends) == self.decided
        assert wrong_stops(self.exchange, self.store.entries, self.stopped) == []
        grown = {deed.key for deed in self.exchange.deeds if deed.actor == "hand" and deed.closed < ZERO}
        if set(ends.values()) <= {"flat"}:
            for key, bound in self.bounds.items():
                assert key in grown or self.exchange.held[key] <= bound.target


TestClosingUnderConcurrentFaults = ClosingUnderConcurrentFaults.TestCase
TestClosingUnderConcurrentFaults.settings = settings(max_examples=60, stateful_step_count=20)
