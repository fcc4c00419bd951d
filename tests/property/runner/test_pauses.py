"""While a policy is paused nothing new fires, and everything that has begun goes on, on any course of two accounts."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from killswitch.graph.nodes import Graph, ScopeRule, SignalRef
from killswitch.model.decision import Decision
from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.snapshot import AccountSnapshot, Event
from killswitch.planning.interpreter import Interpreter
from tests.graphs import close, graph, policy_set, stage, trigger
from tests.worlds import account, after, operator_event, position, snapshot

NAMES = ("a", "b")


def portfolio() -> Graph:
    """Halve both accounts after three failed polls of one, or at a leverage of three."""
    return graph(
        (SignalRef("venue.consecutive_failures"), SignalRef("exposure.leverage")),
        (trigger("failing", 0, 3.0, rearms=True), trigger("geared", 1, 3.0, rearms=True)),
        (stage("halve", 1, 0, 1, cooldown=HOUR, close_within=10 * MINUTE, actions=(close("both", "0.5"),)),),
        scope=ScopeRule("portfolio", None, None, None, None),
    )


def seen(name: str, state: str) -> AccountSnapshot:
    """`calm` at a leverage of a half, `geared` at eight, or `down`: not readable."""
    if state == "down":
        return account(None, None, name=name, quality="down", reason="timeout")
    notional = "50000" if state == "calm" else "800000"
    held = [position("L", "long", "0", contracts="10", notional=notional, margin="5000")]
    return account("100000", held, name=name)


class PausedPolicy(RuleBasedStateMachine):
    """Its own account of the pause, of the accounts that a firing could not close, and of the latch."""

    def __init__(self) -> None:
        super().__init__()
        self.interpreter = Interpreter(policy_set(portfolio()))
        self.second = 0
        self.paused_until = 0
        self.awaited: set[str] = set()
        """Accounts that could not be read when the stage last decided: it goes on with them once they can be."""
        self.closed: set[str] = set()
        """Accounts that the firing has closed already, and rests on for an hour."""
        self.is_latched = False
        self.tick(("calm", "calm"))

    def tick(self, states: tuple[str, str], *commands: Event) -> None:
        """The next snapshot a second later."""
        self.second += 1
        for command in commands:
            until = command.until
            self.paused_until = (
                0 if until is None else self.second + round((until - after(seconds=self.second)).seconds)
            )
        is_paused = self.second < self.paused_until
        polled = snapshot(
            after(seconds=self.second), *map(seen, NAMES, states), events=[*commands]
        )  # fmt: skip
        decided = [each for each in self.interpreter.tick(polled).decisions if each.kind is None]
        up = {name for name, state in zip(NAMES, states, strict=True) if state != "down"}
        self.check(decided, up, is_paused=is_paused)

    def check(self, decided: list[Decision], up: set[str], *, is_paused: bool) -> None:
        closed = {intent.account for decision in decided for intent in decision.intents}
        answering = (self.awaited & up) - self.closed
        assert answering <= closed, "a close that has begun goes on, paused or not"
        if is_paused:
            assert closed <= answering, "nothing new is closed during a pause"
            assert not decided or self.awaited, "nothing fires during a pause"
        if decided:
            self.awaited = {name for name in NAMES if name not in up}
            self.closed |= closed
            self.is_latched = not self.awaited

    @rule(one=st.sampled_from(("calm", "calm", "geared", "down")), other=st.sampled_from(("calm", "geared", "down")))
    def poll(self, one: str, other: str) -> None:
        self.tick((one, other))

    @rule(one=st.sampled_from(("calm", "geared", "down")), ticks=st.integers(2, 5))
    def poll_often(self, one: str, ticks: int) -> None:
        """An outage, long enough to fire."""
        for _ in range(ticks):
            self.tick((one, "down"))

    @rule(seconds=st.integers(1, 20), one=st.sampled_from(("calm", "geared", "down")))
    def pause(self, seconds: int, one: str) -> None:
        at = after(seconds=self.second + 1)
        until = at + timedelta(seconds=seconds)
        self.tick((one, "calm"), operator_event("pause", at, "policy/test", f"pause-{self.second}", until=until))

    @precondition(lambda self: self.second < self.paused_until)
    @rule(one=st.sampled_from(("calm", "geared")))
    def resume(self, one: str) -> None:
        """What holds in this tick fires in it, unless it has fired already."""
        before = (self.is_latched, bool(self.awaited))
        at = after(seconds=self.second + 1)
        self.tick((one, "calm"), operator_event("resume", at, "policy/test", f"pause-{self.second}"))
        if one == "geared":
            assert self.is_latched or any(before)

    @invariant()
    def a_latch_stays(self) -> None:
        """A pause ends no latch, and makes none."""
        (status,) = self.interpreter.status()
        assert (status.level == 1 and status.latched) == self.is_latched


PausedPolicy.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestPausedPolicy = PausedPolicy.TestCase
