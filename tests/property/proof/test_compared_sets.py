"""`prove --against`, compared with its definition on the engine itself: in every situation, asked of both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from math import inf
from random import Random
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.state import StageMachineState, initial
from killswitch.engine.step import StageMachine, StepResult, latch, reset, step
from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.close import Close
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.lowering import lower
from killswitch.graph.nodes import Graph, Stage, Trigger
from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.model.snapshot import Position
from killswitch.planning.stage_decision import attribution_window
from killswitch.planning.targets.ranking import candidates
from killswitch.planning.targets.selection import select
from killswitch.signals.attribution_signals import Shares
from killswitch.valuation.scope_view import PnlKey, ScopeView
from tests.graphs import DEFAULT_RANKING
from tests.property.proof.random_pairs import SIGNALS, VALUES, compiled, edited, spec_in
from tests.worlds import START, account, position

pytest.importorskip("z3", reason="the extra `prove` is not installed")

PAIRS = int(os.environ.get("KILLSWITCH_PAIRS", "60"))
FIRST = int(os.environ.get("KILLSWITCH_FIRST_PAIR", "0"))
RUNS, EVALUATIONS = 24, 30


class Moment(Struct, frozen=True):
    """What one evaluation reads. `long`: by window, the share of the longs in the loss, None if it is unknown.

    `delta`: by window, the change of each position's P&L. `closed_today`: positions that capped closes have selected.
    """

    low: list[float]
    high: list[float]
    now: int
    scheduled: bool
    lost: bool
    corroborated: bool
    positions: list[Position]
    long: dict[int, float | None]
    delta: dict[int, dict[str, Decimal]]
    closed_today: int


def moment_in(random: Random, after: Moment | None) -> Moment:
    """The next evaluation, often like the one before."""
    now = 1 if after is None else after.now + random.choice([1, 1, 3, 5, 12])
    low, high = [0.0] * len(SIGNALS), [0.0] * len(SIGNALS)
    for i in range(len(SIGNALS)):
        if after is not None and random.random() < 0.5:
            low[i], high[i] = after.low[i], after.high[i]
            continue
        edges = [0.0, 1.0, 2.0, 3.0] if i > 2 else [0.0, 0.01, 0.3, *VALUES, *(each + 0.01 for each in VALUES)]
        ends = sorted(random.choice(edges) for _ in range(2))
        kind = random.random() if i < 4 else 1.0
        low[i], high[i] = (-inf, inf) if kind < 0.12 else (ends[0], ends[1]) if kind < 0.3 else (ends[0], ends[0])
    if low[1] != high[1] or low[0] != high[0] or low[0] > low[1]:
        # what the declarations state of windows: all unknown together, and the longer one is deeper
        if -inf in (low[0], low[1]):
            low[0], high[0], low[1], high[1] = -inf, inf, -inf, inf
        low[1], high[1] = max(low[0], low[1]), max(high[0], high[1])
    if low[3] != -inf:
        high[3] = low[3]  # leverage is never partly known
    positions, windows = _book_in(random), (0, 15 * MINUTE, HOUR)
    return Moment(
        low, high, now, random.random() < 0.7, random.random() < 0.4, random.random() < 0.8, positions,
        {each: random.choice([None, 0.1, 0.5, 0.9]) for each in windows},
        {each: {p.symbol: Decimal(random.randint(-5, 5)) for p in positions} for each in windows},
        random.choice([0, 0, 2]),
    )  # fmt: skip


def _book_in(random: Random) -> list[Position]:
    sides = random.choice([("long", "short"), ("long", "short"), ("long",), ("short",)])
    return [
        position(symbol, random.choice(sides), str(random.randint(-9, 9)), contracts="10", notional="1000")
        for symbol in "ABCD"[: random.randint(0, 4)]
    ]


class Done(Struct, frozen=True):
    """What a firing does: contracts left by symbol, the strictest lock, and its end, and the cancelled orders."""

    left: dict[str, Decimal]
    lock: int
    until: float
    cancels: int

    def is_as_hard_as(self, other: Done) -> bool:
        """Whether no position keeps more, no lock is weaker or shorter, and no order is left that the other cancels."""
        return (
            all(self.left[symbol] <= kept for symbol, kept in other.left.items())
            and self.lock >= other.lock and self.until >= other.until and self.cancels >= other.cancels
        )  # fmt: skip


class Answer(Struct, frozen=True):
    """The engine's answer to one situation."""

    stepped: StepResult
    fired: Stage | None
    reset: bool


class Asked:
    """The engine on one graph."""

    def __init__(self, policy: Graph) -> None:
        self.graph = policy
        self.machine = StageMachine.of(policy, lower(policy.conditions))

    def answer(self, state: StageMachineState, seen: Moment) -> Answer:
        """What fires, or whether it resets; a stage declines without corroboration, or if it selects nothing."""
        value = (0.5, 0.5) if seen.lost else (1.0, 1.0)
        columns: Any = (seen.low, seen.high, [None] * len(SIGNALS))
        found = step(self.machine, state, columns, seen.now, scheduled=seen.scheduled, unit_value=value)
        for each in found.eligible:
            if not (each.corroborate and not seen.corroborated) and not self.selects_nothing(found.state, each, seen):
                return Answer(found, each, False)
        return Answer(found, None, found.reset)

    def selects_nothing(self, state: StageMachineState, each: Stage, seen: Moment) -> bool:
        """Whether its closes select nothing of a non-empty book."""
        closes = any(isinstance(it, Close) for it in each.actions)
        return closes and bool(seen.positions) and not self.targets(each, seen, self.window(state, each, seen))

    def window(self, state: StageMachineState, each: Stage, seen: Moment) -> int | None:
        """The window of the attribution, by the engine."""
        evaluator: Any = SimpleNamespace(
            compiled=SimpleNamespace(graph=self.graph), columns=SimpleNamespace(lo=seen.low),
            fired_on=lambda _: state.triggers.confirmed,
        )  # fmt: skip
        return attribution_window(evaluator, each)[0]

    def targets(self, each: Stage, seen: Moment, window: int | None) -> dict[str, Decimal]:
        """Contracts to be left of each selected position."""
        long = None if window is None else seen.long[window]
        source = Shares(long, None if long is None else 1 - long).source(0.65)
        chosen = window or DEFAULT_RANKING.window
        view = ScopeView(to_micros(START), True, (account("100000", seen.positions),), {}, None)
        delta: dict[PnlKey, Decimal] = {
            ("main", p.symbol, p.side): seen.delta[chosen][p.symbol] for p in seen.positions
        }
        found: dict[str, Decimal] = {}
        for action in each.actions:
            if isinstance(action, Close):
                most = None if action.daily_cap is None else max(0, action.daily_cap - seen.closed_today)
                made = select(
                    self.graph, action, candidates(view, delta), source, each.attribution, {}, most_today=most
                )
                for target in made.targets:
                    symbol = target.ranked.candidate.position.symbol
                    found[symbol] = min(target.contracts, found.get(symbol, target.contracts))
        return found

    def done(self, each: Stage, seen: Moment, window: int | None) -> Done:
        """What the stage does to this book; nothing where the policy only observes."""
        left = {p.symbol: p.contracts for p in seen.positions}
        if self.graph.mode == "observe":
            return Done(left, 0, 0.0, 0)
        locks = [it for it in each.actions if isinstance(it, LockTrading)]
        ends = [inf if it.duration is None else float(it.duration) for it in locks]
        kinds = [1 + (it.kind == "all") for it in each.actions if isinstance(it, CancelOrders)]
        return Done(
            left | self.targets(each, seen, window), max((1 + (it.mode == "all") for it in locks), default=0),
            max(ends, default=0.0), max(kinds, default=0),
        )  # fmt: skip


def lacks(one: Asked, fired: Answer, other: Asked, answer: Answer, seen: Moment) -> str | None:
    """In which way `other` does less than `one` in this situation; None if it does at least as much."""
    if fired.fired is None:
        if fired.reset != answer.reset and answer.fired is None:
            return f"only one resets at {seen.now}"
        return None
    stage = fired.fired
    does = one.done(stage, seen, one.window(fired.stepped.state, stage, seen))
    nothing = Done({p.symbol: p.contracts for p in seen.positions}, 0, 0.0, 0)
    if answer.fired is None:
        return None if nothing.is_as_hard_as(does) else f"{stage.name} fires at {seen.now}, and nothing in the other"
    its = answer.fired
    window = other.window(answer.stepped.state, its, seen)
    found = other.done(its, seen, window)
    own = [s for s in one.graph.stages if s.level == its.level]
    if its.level < stage.level:
        ok = nothing.is_as_hard_as(does)
    elif its.level == stage.level or not own:
        ok = found.is_as_hard_as(does)
    else:
        ok = any(found.is_as_hard_as(one.done(s, seen, window)) for s in own)
    return None if ok else f"{stage.name} fires at {seen.now}, and {its.name} of the other does less"


def _is_answered(policy: Graph, spent: int, each: Trigger) -> bool:
    """Whether a firing of this policy answered a trigger of another one: that of its name, or else of its condition."""
    alike = [(i, t) for i, t in enumerate(policy.triggers) if t.condition == each.condition]
    named = [(i, t) for i, t in alike if t.name == each.name]
    return any(spent >> i & 1 for i, _ in named or alike)


def recorded(leader: Asked, led: StageMachineState, answer: Answer, other: Asked, its: Answer, now: int) -> Any:
    """Both states after the leader's firing: the other has its record, with the triggers that it answered."""
    assert answer.fired is not None
    after = latch(answer.stepped.state, answer.fired, now, (1.0, 1.0))
    own = [s for s in other.graph.stages if s.level == answer.fired.level]
    if not own:
        return None
    place = [s for s in leader.graph.stages if s.level == answer.fired.level].index(answer.fired)
    same = own[min(place, len(own) - 1)]
    spent = sum(1 << i for i, each in enumerate(other.graph.triggers) if _is_answered(leader.graph, after.spent, each))
    theirs = replace(latch(its.stepped.state, same, now, (1.0, 1.0)), spent=its.stepped.state.spent | spent)
    return after, theirs


def lacking(base: Asked, head: Asked, random: Random, *, led_by_head: bool) -> Iterator[tuple[str, str]]:
    """`softer` or `harder`, and where, on one random history that one of the two leads."""
    leader, other = (head, base) if led_by_head else (base, head)
    states, seen = (initial(), initial()), None
    for _ in range(EVALUATIONS):
        seen = moment_in(random, seen)
        answers = leader.answer(states[0], seen), other.answer(states[1], seen)
        ours, theirs = answers[::-1] if led_by_head else answers
        for word, found in (
            ("softer", lacks(base, ours, head, theirs, seen)),
            ("harder", lacks(head, theirs, base, ours, seen)),
        ):
            if found is not None:
                yield word, found
        if answers[0].fired is not None:
            both = recorded(leader, states[0], answers[0], other, answers[1], seen.now)
            if both is None:
                return  # nothing is claimed of a record whose level the other lacks
            states = both
        elif answers[0].reset:
            states = tuple(reset(each.stepped.state, seen.now, automatic=True) for each in answers)  # type: ignore[assignment] # of two
        else:
            states = answers[0].stepped.state, answers[1].stepped.state


def contradiction(seed: int, runs: int = RUNS) -> tuple[str, str | None]:
    """The verdict on one random pair, and where a history of the engine contradicts it."""
    from killswitch.proof.against import SetComparison, compare
    from killswitch.proof.solver import Prover

    random = Random(seed)
    spec = spec_in(random)
    base, head = compiled(spec), compiled(edited(random, spec))
    verdict = SetComparison(tuple(compare(Prover(perf_counter, 3.0), base, head)), ()).verdict()
    excluded = {"TIGHTENING": {"softer"}, "LOOSENING": {"harder"}, "EQUIVALENT": {"softer", "harder"}}
    for number in range(runs):
        for word, text in lacking(Asked(base), Asked(head), random, led_by_head=number % 2 == 1):
            if word in excluded.get(verdict, set()):
                return verdict, f"pair {seed}: {verdict}, and head is {word}: {text}"
    return verdict, None


@pytest.mark.parametrize("first", range(FIRST, FIRST + PAIRS, 20))
def test_no_history_of_the_engine_contradicts_the_verdict_on_a_random_edit(first: int) -> None:
    """A pair called TIGHTENING, LOOSENING or EQUIVALENT is so in each situation, led by base and led by head."""
    found = [contradiction(seed) for seed in range(first, first + 20)]
    assert [text for _, text in found if text is not None] == []
    assert {"TIGHTENING", "LOOSENING", "EQUIVALENT"} & {verdict for verdict, _ in found}
