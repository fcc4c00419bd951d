"""Closing while any request, response or process fails, in any order, with restarts at any time."""

from __future__ import annotations

import asyncio
import tempfile
from decimal import Decimal
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.store import JournalEntry
from killswitch.store.sqlite import open_store
from tests.closing_cases import commit, decide, drive
from tests.faulty_venue import FAULTS, Fault, FaultyVenue
from tests.honest_venue import VirtualClock

START = {"BTC": Decimal(100), "ETH": Decimal(-40), "SOL": Decimal(7)}
FRACTIONS = ("0", "0.25", "0.5", "0.9")


class ClosingUnderFaults(RuleBasedStateMachine):
    """Decisions are committed, passes run, requests fail, the process dies and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = str(Path(self.folder.name) / "store.sqlite")
        self.store = open_store(self.path)
        self.clock = VirtualClock()
        self.venue = FaultyVenue(START, clock=self.clock, store=self.store)
        self.executor = self.new_executor()
        self.targets: dict[str, Decimal] = {}
        self.decisions = 0
        self.read = 0

    def new_executor(self) -> AccountExecutor:
        return AccountExecutor("main", self.venue, self.store, self.clock)

    @precondition(lambda self: self.decisions < 6)
    @rule(
        symbols=st.lists(st.sampled_from(sorted(START)), min_size=1, max_size=3, unique=True),
        left=st.sampled_from(FRACTIONS),
        resting=st.booleans(),
    )
    def commit_decision(self, symbols: list[str], left: str, resting: bool) -> None:
        """About the positions really held, as the interpreter would decide on a good snapshot."""
        held = [symbol for symbol in symbols if self.venue.position(symbol) != 0]
        if not held:
            return
        self.decisions += 1
        order = f"o{self.decisions}"
        self.venue.state["resting"][order] = held[0]
        targets = {symbol: abs(self.venue.position(symbol)) * Decimal(left) for symbol in held}
        decision = decide(
            self.venue,
            targets,
            name=f"d{self.decisions}",
            cancels={order: (held[0], "all" if resting else "entry")},
        )
        self.executor.adopt(commit(self.store, decision))
        for symbol, target in targets.items():
            self.targets[symbol] = min(target, self.targets.get(symbol, target))

    @rule(plan=st.lists(st.sampled_from(FAULTS), max_size=6), passes=st.integers(1, 4))
    def run_passes(self, plan: list[Fault], passes: int) -> None:
        """A few passes, in which the next requests fail as planned."""
        self.venue.plan = list(plan)
        asyncio.run(drive(self.executor, passes))

    @rule(plan=st.lists(st.sampled_from(FAULTS), max_size=3))
    def restart_process(self, plan: list[Fault]) -> None:
        """Only the journal survives."""
        self.store.close()
        self.store = open_store(self.path)
        self.venue.store = self.store
        self.venue.plan = list(plan)
        self.executor = self.new_executor()
        asyncio.run(self.executor.recover())

    @rule(seconds=st.sampled_from([0.3, 1.5, 40.0]))
    def pass_time(self, seconds: float) -> None:
        """Long enough for late requests to arrive, or not."""
        self.clock.elapsed += seconds
        asyncio.run(self.venue.arrive())

    @invariant()
    def never_more_is_closed_than_decided(self) -> None:
        """What is left of each position is at least the smallest target of all decisions."""
        for symbol, start in START.items():
            assert abs(self.venue.position(symbol)) >= self.targets.get(symbol, abs(start)), symbol

    @invariant()
    def no_position_is_ever_reversed(self) -> None:
        """A long stays long until it is flat, a short stays short."""
        for symbol, start in START.items():
            assert self.venue.position(symbol) * start >= 0, symbol

    @invariant()
    def flat_is_journaled_only_when_it_is_true(self) -> None:
        """When `finished: flat` is journaled, the venue holds no more than the targets."""
        journal = self.store.journal()
        news, self.read = journal[self.read :], len(journal)
        for entry in news:
            if entry.kind == "finished" and entry.data["status"] == "flat":
                self.assert_reached(entry)

    def assert_reached(self, finished: JournalEntry) -> None:
        stored = self.store.decision(finished.decision)
        assert stored is not None
        for intent in stored.decision.intents:
            assert abs(self.venue.position(intent.symbol)) <= intent.target
        for cancel in stored.decision.cancels:
            assert cancel.order not in self.venue.state["resting"]

    def teardown(self) -> None:
        """After the last fault, every decision finishes."""
        try:
            self.assert_every_decision_finishes()
        finally:
            self.store.close()
            self.folder.cleanup()

    def assert_every_decision_finishes(self) -> None:
        self.venue.plan = []
        asyncio.run(drive(self.executor))
        self.pass_time(40.0)
        assert asyncio.run(drive(self.executor)), "the work has no end"
        self.never_more_is_closed_than_decided()
        self.no_position_is_ever_reversed()
        self.flat_is_journaled_only_when_it_is_true()
        ends = [entry.data["status"] for entry in self.store.journal() if entry.kind == "finished"]
        assert len(ends) == self.decisions
        if set(ends) <= {"flat"}:
            for symbol, target in self.targets.items():
                assert abs(self.venue.position(symbol)) == target


TestClosingUnderFaults = ClosingUnderFaults.TestCase
TestClosingUnderFaults.settings = settings(max_examples=60, stateful_step_count=25)
