"""Runs a world through the product and compares its decisions with the naive truth.

A close is *false* if it fires while the true drawdown never came to 80% of the threshold before it. The delay of a loss
that is real counts from the instant at which the true drawdown was clearly beyond the threshold (by 5%, for two ticks),
because between two polls a venue shows less than the truth; while no runner lives or the venue is down, from the end of
that. It is *missed* when nothing fires within 120 s or before the world's end, and *late* when it took longer than the
world allows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

from msgspec import Struct, field

from killswitch.graph.compile import compile_loaded
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import HistoryRow, MachineState
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.policy.loader import load
from tests.worlds.reference import Reference
from tests.worlds.truth import Truth
from tests.worlds.venue_view import Feed, View
from tests.worlds.world import World

THRESHOLD = 0.10
NEAR = 0.8
CLEAR = 1.05
HELD = 2.0
MISSED = 120.0
LATCHED = 3
"""The level of the stage that closes."""


class Setup(Struct):
    """A world, how it is polled, and what is required of the reader in it."""

    world: World
    views: dict[str, View]
    scope: str = "account"
    """`account` or `portfolio`: which policy watches."""
    restarts: list[tuple[float, float]] = field(default_factory=list)
    tick: float = 1.0
    allowed: float = 2.5
    """The longest delay of a real loss, in seconds."""
    still_seen: bool = False
    """Delays count also while one of the venues is down: the rest tells enough."""
    text: str = ""
    flat_counts: bool = False
    """A close that has nothing to send is false as well, where nothing was lost: it locks and latches."""
    policy: str | None = None
    """The policy's file, if it is another one than the scope's."""
    resets: list[float] = field(default_factory=list)
    """When an operator resets every account: what is lost by then is accepted, and what comes later is judged alone."""
    ends_within: float | None = None
    """How far the trigger's value may be from the true fall at the end, where every row is known by then."""
    owes: list[tuple[float, float]] = field(default_factory=list)
    """When the account is below zero: a value of the trigger that is known and less than 100% is wrong then."""


class Fired(Struct, frozen=True):
    """A close that the product decided."""

    at: float
    scope: str
    intents: int
    true_fall: float
    worst: float
    """The deepest true drawdown up to then."""


class Locked(Struct, frozen=True):
    """A lock without orders: permitted on suspicion, but not often."""

    at: float
    scope: str
    true_fall: float


class Verdict(Struct):
    """The outcome of one world. `delays` has one entry for each scope that truly lost."""

    family: str
    seed: int
    fired: list[Fired] = field(default_factory=list)
    false: list[Fired] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    locked: list[Locked] = field(default_factory=list)
    misread: list[str] = field(default_factory=list)
    """Latches that were lost, stages that fired twice, and values that are known and wrong."""
    notices: dict[str, int] = field(default_factory=dict)
    worst: float = 0.0
    moved: float = 0.0
    allowed: float = 0.0
    text: str = ""

    def __str__(self) -> str:
        parts = [f"family {self.family!r} seed {self.seed}"]
        if self.text:
            parts.append(self.text)
        parts.append(f"true drawdown at most {self.worst:.2%}, {self.moved:,.0f} merely moved")
        for each in self.false:
            parts.append(
                f"FALSE CLOSE of {each.scope} at {each.at:.2f} s ({each.intents} orders), "
                f"true drawdown {each.true_fall:.2%}, never deeper than {each.worst:.2%}"
            )
        parts += [f"MISSED: {each}" for each in self.missed]
        parts += [f"WRONG: {each}" for each in self.misread[:3]]
        parts += [f"LATE: {each:.1f} s, {self.allowed:.1f} s allowed" for each in self.late]
        parts.append(f"look: python -m tests.worlds --show {self.family!r} --seed {self.seed}")
        return "\n    ".join(parts)

    @property
    def bad(self) -> bool:
        return bool(self.false or self.missed or self.late or self.misread)


@cache
def policies(name: str) -> PolicySet:
    """The policy of a file: a drawdown of 10% over 15m, or another measure of a tenth lost, closes all at once."""
    found, problems = compile_loaded(load([Path(__file__).parent / f"{name}.yaml"]))
    assert found is not None, problems
    return found


class Runner:
    """A sequence of interpreters, each restored from what the last one stored."""

    def __init__(self, policy: str) -> None:
        self._policies = policies(policy)
        self.interpreter = Interpreter(self._policies)
        self._states: dict[tuple[str, str], MachineState] = {}
        self._rows: list[HistoryRow] = []
        self._keeps = False

    def keep(self) -> None:
        """Store the state after each tick, as a run does; worlds without restarts save the time."""
        self._keeps = True

    def restart(self) -> None:
        self.interpreter = Interpreter(self._policies)
        rows = list(self._rows)

        def since(policy: str, scope: str, at: int) -> list[HistoryRow]:
            return [row for row in rows if (row.policy, row.scope) == (policy, scope) and row.at >= at]

        self.interpreter.restore(list(self._states.values()), since)

    def tick(self, snapshot: Snapshot) -> Outcome:
        outcome = self.interpreter.tick(snapshot)
        if self._keeps:
            self._states.update(((state.policy, state.scope), state) for state in self.interpreter.states())
            self._rows += self.interpreter.rows()
        return outcome


TickObserver = Callable[[float, Snapshot, Interpreter, Outcome], None]


def play(setup: Setup, seed: int, on_tick: TickObserver | None = None) -> Iterator[tuple[float, Decision | Notice]]:
    """Every decision and notice of the world, with its time."""
    rng = Random(seed ^ 0x5EED)
    feed = Feed(setup.world, setup.views, rng, tick=setup.tick, restarts=setup.restarts, resets=setup.resets)
    runner = Runner(setup.policy or setup.scope)
    if setup.restarts:
        runner.keep()
    for at, snapshot, fresh in feed:
        if fresh:
            runner.restart()
        outcome = runner.tick(snapshot)
        if on_tick is not None:
            on_tick(at, snapshot, runner.interpreter, outcome)
        for each in (*outcome.decisions, *outcome.notices):
            yield at, each


def is_close(decision: Decision) -> bool:
    """Whether the decision is a stage that fires and closes; with a flat book it has nothing to send."""
    return decision.kind is None and decision.level >= 3


def is_lock(decision: Decision) -> bool:
    """Whether the decision locks and sends nothing: the hook for locks on suspicion."""
    return decision.lock is not None and not decision.intents and not is_close(decision)


def judge_reference(setup: Setup, family: str, seed: int) -> Verdict:
    """The same for the naive first rule (`reference.py`): it shows what a world allows to be seen."""
    verdict = Verdict(family, seed, allowed=setup.allowed, text=setup.text)
    truths = {_scope(truth.scope): truth for truth, _ in setup.world.truths}
    feed = Feed(setup.world, setup.views, Random(seed ^ 0x5EED), tick=setup.tick, restarts=setup.restarts)
    reader = Reference(setup.scope, THRESHOLD)
    first: dict[str, float] = {}
    for at, snapshot, _ in feed:
        for scope in reader.tick(snapshot):
            first[scope] = at
            shot = Fired(at, scope, 1, truths[scope].fall(at), truths[scope].worst(at))
            verdict.fired.append(shot)
            if shot.worst < NEAR * THRESHOLD:
                verdict.false.append(shot)
    for scope, truth in truths.items():
        if (scope == "portfolio") == (setup.scope == "portfolio"):
            _compare(verdict, setup, scope, truth, first.get(scope), (0.0, setup.world.seconds + 1.0))
    verdict.moved = setup.world.moved
    return verdict


def judge(setup: Setup, family: str, seed: int, on_tick: TickObserver | None = None) -> Verdict:
    """Run the world to its end and return the verdict."""
    verdict = Verdict(family, seed, allowed=setup.allowed, text=setup.text)
    truths = {_scope(truth.scope): truth for truth, _ in setup.world.truths}
    raw: list[tuple[float, Decision]] = []
    watched = _Watched(setup, verdict, on_tick)
    for at, each in play(setup, seed, watched):
        if isinstance(each, Notice):
            verdict.notices[each.kind] = verdict.notices.get(each.kind, 0) + 1
        elif each.kind is None:
            raw.append((at, each))
    for at, decision in raw:
        truth = truths[decision.scope]
        if is_close(decision):
            since = max((it for it in setup.resets if it <= at), default=0.0)
            shot = Fired(at, decision.scope, len(decision.intents), truth.fall(at), truth.worst(at, since))
            verdict.fired.append(shot)
            if shot.worst < NEAR * THRESHOLD and (shot.intents or setup.flat_counts):
                verdict.false.append(shot)
        elif is_lock(decision):
            verdict.locked.append(Locked(at, decision.scope, truth.fall(at)))
    bounds = [0.0, *setup.resets, setup.world.seconds + 1.0]
    for scope, truth in truths.items():
        if (scope == "portfolio") != (setup.scope == "portfolio"):
            continue
        for episode in pairwise(bounds):
            times = [shot.at for shot in verdict.fired if shot.scope == scope and episode[0] <= shot.at < episode[1]]
            _compare(verdict, setup, scope, truth, times[0] if times else None, episode)
            reachable = not any(view.down for view in setup.views.values())  # else its close may wait for an account
            if len(times) > 1 and reachable:
                verdict.misread.append(f"{scope} fired again at {times[1]:.2f} s, and nobody had reset it")
            if times and episode[1] > setup.world.seconds and watched.levels().get(scope, 0) < LATCHED:
                verdict.misread.append(f"{scope} is not latched at the end")
    if setup.ends_within is not None:
        for scope, (low, high) in watched.values().items():
            fall = truths[scope].fall(setup.world.seconds)
            if not low - setup.ends_within <= fall <= high + setup.ends_within:
                verdict.misread.append(f"{scope} reads {low:.4%} ... {high:.4%} at the end, and {fall:.4%} is true")
    verdict.moved = setup.world.moved
    return verdict


class _Watched:
    """Looks at the interpreter after each tick."""

    def __init__(self, setup: Setup, verdict: Verdict, on_tick: TickObserver | None) -> None:
        self._owes, self._verdict, self._on_tick = setup.owes, verdict, on_tick
        self._interpreter: Interpreter | None = None

    def __call__(self, at: float, snapshot: Snapshot, interpreter: Interpreter, outcome: Outcome) -> None:
        self._interpreter = interpreter
        if any(begin <= at < end for begin, end in self._owes):
            values = [each.value for status in interpreter.status() for each in status.triggers]
            self._verdict.misread += [
                f"at {at:.2f} s the fall is {value[1]:.2%} at most, and the account owes money"
                for value in values if value is not None and value[1] is not None and value[1] < 1.0
            ]  # fmt: skip
        if self._on_tick is not None:
            self._on_tick(at, snapshot, interpreter, outcome)

    def values(self) -> dict[str, tuple[float, float]]:
        """The value of each scope's trigger after the last tick, as an interval."""
        found = {}
        for status in [] if self._interpreter is None else self._interpreter.status():
            (trigger,) = status.triggers
            low, high = trigger.value or (None, None)
            found[status.scope] = (0.0 if low is None else low, 1.0 if high is None else high)
        return found

    def levels(self) -> dict[str, int]:
        """The level of each scope after the last tick."""
        return {} if self._interpreter is None else {each.scope: each.level for each in self._interpreter.status()}


def _compare(
    verdict: Verdict, setup: Setup, scope: str, truth: Truth, fired: float | None, episode: tuple[float, float]
) -> None:
    """Compare the first close of a scope within an episode with the time of its true loss."""
    since, before = episode
    end = min(before, setup.world.seconds)
    verdict.worst = max(verdict.worst, truth.worst(end, since))
    clear = truth.crossed(THRESHOLD * CLEAR, HELD * setup.tick, since=since, before=before)
    if clear is None:
        return
    outages = list(setup.restarts)
    if not setup.still_seen:
        outages += (gap for view in setup.views.values() for gap in view.down)
    if fired is None or fired - clear > MISSED:
        if end - clear > setup.allowed:
            verdict.missed.append(f"{scope} lost {truth.worst(end, since):.2%}, from {clear:.2f} s on")
        return
    for begin, over in sorted(outages):
        if begin <= clear < over:
            clear = over  # nobody could see it before
    delay = max(fired - clear, 0.0)
    verdict.delays.append(delay)
    if delay > setup.allowed:
        verdict.late.append(delay)


def _scope(name: str) -> str:
    return name if name == "portfolio" else f"account/{name}"


def seeded(family: str, seed: int) -> Random:
    """The randomness of one world: the same for the same family and seed, on every machine."""
    digest = hashlib.blake2b(f"{family}/{seed}".encode(), digest_size=8).digest()
    return Random(int.from_bytes(digest, "big"))
