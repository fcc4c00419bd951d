"""Random closes under random faults, the same each time for the same seed: `random_run(seed)`.

As a program: `python -m tests.faults.campaign FIRST COUNT` runs so many seeds and prints their violations.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.decision import Cancel, Decision, Intent
from killswitch.model.snapshot import OrderSide
from killswitch.model.venue import VenueDescription, is_catastrophe_stop
from killswitch.planning.resting_orders import entry_indexes
from killswitch.ratelimit.budget import RequestBudgets
from tests.faults.exchange import ZERO, Exchange, Key, Market
from tests.faults.journal_checker import Bound, JournalChecker, MemoryJournal, orphans, overclosed, wrong_stops
from tests.faults.mishaps import Chance, Mishap, Occasion
from tests.faults.plans import IN_TURN, Plan, disturbed_plan, halted_plan, neutral_plan, plain_plan
from tests.faults.scene import committed, decision_on, hedge_on
from tests.faults.statement import statement
from tests.faults.wire import BatchingWire, BookClosingWire, Travelled, Wire
from tests.virtual_time import VirtualTime

TROUBLE_ENDS = 20.0
"""Seconds after which nothing goes wrong any more."""
LONGEST = 400.0
"""Seconds of trouble-free time within which everything must have come to an end."""


class Outcome(Struct, frozen=True):
    """The result of one run. `seconds`: from the first decision's commit to the last `finished`; None: never ended.

    `travelled` are all requests in order; `violations` must be empty.
    """

    seed: int
    seconds: float | None
    violations: tuple[str, ...]
    mishaps: Mapping[Occasion, Mishap]
    travelled: tuple[Travelled, ...]
    first_sent: float | None
    statuses: Mapping[str, str]
    plan: Plan

    @property
    def requests(self) -> Counter[str]:
        return Counter(it.call for it in self.travelled)

    def __str__(self) -> str:
        script = "\n".join(f"    {occasion}: {mishap}" for occasion, mishap in self.mishaps.items())
        violations = "\n".join(f"  {violation}" for violation in self.violations)
        return f"seed {self.seed} ({self.seconds} s, {self.statuses}):\n{violations}\n  {self.plan}\n  with\n{script}"


def in_turn(intents: Sequence[Intent], slices: int) -> list[Intent]:
    """Each intent in so many parts, whole contracts but for the last one, a part of all of them in turn."""
    parts: list[tuple[int, int, Intent]] = []
    for place, intent in enumerate(intents):
        each = intent.contracts // slices
        sizes = [*[each] * (slices - 1), intent.contracts - each * (slices - 1)]
        parts += [(number, place, replace(intent, contracts=size)) for number, size in enumerate(sizes) if size]
    return [intent for _, _, intent in sorted(parts, key=lambda part: part[:2])]


def random_run(
    seed: int,
    *,
    failing: float = 0.2,
    disturbed: bool = True,
    neutral: bool = False,
    halted: bool = False,
    positions: int | None = None,
    only: Collection[Occasion] | None = None,
    traits: VenueDescription | None = None,
    slices: int = 1,
) -> Outcome:
    """One account's close. `failing`: the share of calls that fail in the first 20 s.

    `disturbed`: also restarts, trades of others, several decisions, partial fills and odd account modes; without,
    `positions` are closed whole by one decision and only calls fail. `neutral`: the decisions neutralise the book, and
    open a hedge. `halted`: a halt comes in the middle of the close. `only`: of the mishaps of the seed, those at these
    occasions. `slices`: parts of each position that go in turn, as an unwinding with `slices` sends them.
    """
    made = halted_plan if halted else neutral_plan if neutral else disturbed_plan if disturbed else plain_plan
    plan = made(random.Random(seed), positions)
    if traits is not None:
        plan = replace(plan, traits=traits)
    if slices > 1:
        plan = replace(plan, slices=slices, unwinding=IN_TURN)
    return VirtualTimeRun(seed, plan, Chance(seed, failing, TROUBLE_ENDS, only)).outcome()


def smallest(seed: int, **options: Any) -> Outcome:
    """The run of a failing seed with as few mishaps as still make it fail."""
    worst = random_run(seed, **options)
    kept = list(worst.mishaps)
    for occasion in list(kept):
        fewer = [it for it in kept if it != occasion]
        tried = random_run(seed, **options, only=frozenset(fewer))
        if tried.violations:
            worst, kept = tried, [it for it in fewer if it in tried.mishaps]
    return worst


class VirtualTimeRun:
    """One run: the world of a plan, driven to its end."""

    def __init__(self, seed: int, plan: Plan, chance: Chance) -> None:
        self._seed = seed
        self._plan = plan
        self._chance = chance
        self.time = VirtualTime()
        markets = [
            Market(symbol, shares=list(plan.shares.get(symbol, ())), slip=plan.slips.get(symbol, ZERO))
            for symbol, _ in sorted(plan.book)
        ]
        markets += [] if plan.hedge is None else [Market(plan.hedge[1][0])]
        self.exchange = Exchange(
            plan.book, lambda: (self.time.elapsed, self.time.now()), mode=plan.mode, markets=markets,
            resting_exits_block=True,
        )  # fmt: skip
        for number, key in enumerate(plan.stops):
            falls = key[1] == "long"
            order = self.exchange.rest(
                key[0], "sell" if falls else "buy", plan.book[key], reduce_only=True,
                trigger_price=Decimal(50 if falls else 200), trigger_when="falls" if falls else "rises",
            )  # fmt: skip
            if seed % 2:  # the stops of every second run are catastrophe stops of ours
                self._name_catastrophe_stop(order, number)
        kind = BookClosingWire if plan.traits.whole_book else BatchingWire if plan.traits.batch > 1 else Wire
        self.wire = kind(self.exchange, self.time, chance, seed=seed, traits=plan.traits)
        self.store = MemoryJournal()
        self.checker = JournalChecker(self.store, self.exchange)
        self.wire.watch = self.checker.watch
        self.checker.misled_since = self.wire.misled_since
        self._decided: dict[str, Decision] = {}
        self._bounds: dict[Key, Bound] = {}
        self._ended_at: float | None = None
        self._closer: AccountExecutor | None = None
        self._is_hedged = False
        self._halts = list(plan.halts)
        self._entries: list[str] = []
        self._exits = [self._rest_exit(key, is_stop=is_stop) for key in plan.exits for is_stop in (True, False)]

    def _rest_exit(self, key: Key, *, is_stop: bool) -> str:
        """A stop or a target of a bot over half of the position."""
        falls = (key[1] == "long") is is_stop
        price = Decimal(50 if falls else 200)
        more: dict[str, object] = {"trigger_price": price, "trigger_when": "falls" if falls else "rises"}
        more = more if is_stop else {"type": "limit", "price": price}
        side: OrderSide = "sell" if key[1] == "long" else "buy"
        return self.exchange.rest(key[0], side, self._plan.book[key] / 2, reduce_only=True, **more)

    def _send_entry(self, key: Key, contracts: Decimal) -> None:
        """An order of a bot, far from the market."""
        buys = key[1] == "long"
        price = Decimal(1 if buys else 10_000)
        self._entries.append(
            self.exchange.rest(key[0], "buy" if buys else "sell", contracts, type="limit", price=price)
        )

    def _misjudged(self) -> list[str]:
        """Exits that are gone, and entries that rest, after the last cancel of a halt."""
        orders = self.exchange.orders
        gone = [f"the exit {each} is {orders[each].state}" for each in self._exits if orders[each].state != "open"]
        return gone + [f"the entry {each} rests" for each in self._entries if orders[each].state == "open"]

    def _name_catastrophe_stop(self, order: str, number: int) -> None:
        name = f"kscstop{number:024d}"
        self.exchange.orders[order].name = name
        self.exchange.names[name] = order

    def _misnamed_stops(self) -> list[str]:
        """Replacements of catastrophe stops that a later run would not recognise."""
        placed = [each for each in self.exchange.orders.values() if each.by == "ours" and each.waits]
        return [
            f"{each.name} replaces a catastrophe stop"
            for each in placed
            if self._seed % 2 and not is_catastrophe_stop(each.name)
        ]

    def outcome(self) -> Outcome:
        """Run it, and return its result."""
        self.time.run(self._run())
        violations = [*self.checker.violations, *self.exchange.turned]
        violations += [
            f"an order that the journal does not know: {deed}" for deed in orphans(self.exchange, self.checker)
        ]
        for key, bound in self._bounds.items():
            violation = overclosed(self.exchange, key, bound)
            violations += [violation] if violation else []
        violations += self._overhedged()
        statuses = {it.decision: it.data["status"] or "" for it in self.store.entries if it.kind == "finished"}
        violations += [f"{name} has no end" for name in self._decided if name not in statuses]
        violations += self._misnamed_stops() + self._misjudged()
        violations += self._unreported(statuses) + wrong_stops(self.exchange, self.store.entries, self._plan.stops)
        return Outcome(
            self._seed, self._ended_at, tuple(violations), dict(self._chance.happened), tuple(self.wire.travelled),
            self.checker.first_sent, statuses, self._plan,
        )  # fmt: skip

    def _overhedged(self) -> list[str]:
        """A hedge larger than decided: an order of unknown status must never be sent again as a new one."""
        if self._plan.hedge is None:
            return []
        _, key, contracts = self._plan.hedge
        held = self.exchange.held.get(key, ZERO)
        return [f"the hedge of {contracts} {key} is {held}"] if held > contracts else []

    def _unreported(self, statuses: Mapping[str, str]) -> list[str]:
        """Positions above their targets, whose decisions all report flat."""
        touched = {deed.key for deed in self.exchange.deeds if deed.actor == "hand" and deed.closed < ZERO}
        return [
            f"{key} is {self.exchange.held[key]}, and nobody says so"
            for key, bound in self._bounds.items()
            if key not in touched and self.exchange.held[key] > bound.target and set(statuses.values()) <= {"flat"}
        ]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for at, key, change in self._plan.hands:
            loop.call_later(at, self.exchange.trade, key, change)
        for at, key, amount in self._plan.takings:
            loop.call_later(at, self.exchange.take_away, key, amount, "adl")
        for at, key, contracts in self._plan.entries:
            loop.call_later(at, self._send_entry, key, contracts)
        await self._live(list(self._plan.targets), sorted(self._plan.deaths))

    async def _live(self, moments: list[tuple[float, Mapping[Key, Decimal]]], deaths: list[float]) -> None:
        while True:
            life = asyncio.ensure_future(self._one_life(moments, last=not deaths))
            if not deaths:
                await life
                return
            await asyncio.wait({life}, timeout=max(0.0, deaths.pop(0) - self.time.elapsed))
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
            if life.done() and not life.cancelled() and (error := life.exception()) is not None:
                raise error

    async def _one_life(self, moments: list[tuple[float, Mapping[Key, Decimal]]], *, last: bool) -> None:
        budget = RequestBudgets().of("main", "exchange", self._plan.traits, Decimal("0.5"))
        closer = AccountExecutor("main", self.wire, self.checker, self.time, budget=budget)
        await closer.recover()
        end = TROUBLE_ENDS + LONGEST
        passes = 0
        while self.time.elapsed < end and passes < 20_000:
            while moments and moments[0][0] <= self.time.elapsed:
                self._decide(closer, moments.pop(0)[1])
            if self._plan.hedge is not None and not self._is_hedged and self._plan.hedge[0] <= self.time.elapsed:
                self._is_hedged = True
                closer.adopt(self._hedged(self._plan.hedge))
            while self._halts and self._halts[0] <= self.time.elapsed:
                self._halts.pop(0)
                self._halt(closer)
            passes += 1
            busy = await closer.advance()
            if not self.store.unfinished() and self._decided and self._ended_at is None and not moments:
                self._ended_at = self.time.elapsed
            ahead = [at for at, _ in moments[:1]]
            ahead += [self._plan.hedge[0]] if self._plan.hedge is not None and not self._is_hedged else []
            ahead += self._halts[:1]
            if not busy and ahead:
                await self.time.sleep(max(0.0, min(ahead) - self.time.elapsed))
            elif not busy and last:
                return
            elif not busy:
                await self.time.sleep(1.0)
            elif (pause := getattr(closer, "wait", 0.0)) > 0:
                await self.time.sleep(min(pause, 1.0))

    def _hedged(self, hedge: tuple[float, Key, Decimal]) -> Decision:
        decision = self._decided["h1"] = hedge_on(self.exchange, "h1", self.time.now(), hedge[1], hedge[2])
        return committed(self.store, decision)

    def _halt(self, closer: AccountExecutor) -> None:
        """Cancel what adds risk on the account as it is; nothing if nothing does."""
        account = statement(self.exchange)
        orders = account.orders or ()
        found = tuple(Cancel("main", orders[it].symbol, orders[it].id, "entry") for it in entry_indexes(account))
        if not found:
            return
        name = f"halt{len(self._decided)}"
        plain = decision_on(self.exchange, name, self.time.now(), {})
        decision = replace(plain, kind="manual", command="halt", stage=None, cancels=found)
        self._decided[name] = decision
        closer.adopt(committed(self.store, decision))

    def _decide(self, closer: AccountExecutor, targets: Mapping[Key, Decimal]) -> None:
        held = {key: target for key, target in targets.items() if self.exchange.held[key] > target}
        if not held:
            return
        name = f"d{len(self._decided) + 1}"
        order = self.exchange.rest(next(iter(held))[0], "buy", Decimal(1), type="limit", price=Decimal(1))
        plain = decision_on(self.exchange, name, self.time.now(), held, reduce_only=self._plan.reduce_only)
        band = Decimal("0.005") if self._plan.unwinding is not None and self._plan.unwinding.ladder else None
        decision = replace(
            plain,
            intents=tuple(replace(intent, band=band) for intent in in_turn(plain.intents, self._plan.slices)),
            unwinding=self._plan.unwinding,
            cancels=(Cancel("main", next(iter(held))[0], order, "entry"),),
        )
        self._decided[name] = decision
        for key, target in held.items():
            new = Bound(self.exchange.held[key], target, self.time.elapsed, self.time.elapsed)
            self._bounds.setdefault(key, new).also(target, self.time.elapsed)
        closer.adopt(committed(self.store, decision))


def main() -> None:
    """Run a range of seeds; a failing one is printed with the fewest mishaps that make it fail."""
    first, count = int(sys.argv[1]), int(sys.argv[2])
    began, failed = time.perf_counter(), 0
    for seed in range(first, first + count):
        if random_run(seed).violations:
            failed += 1
            print(smallest(seed), flush=True)
    print(f"{count} runs, {failed} failed, {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
