"""`venue.age` while venues answer, during outages, and for an account that was never observed."""

from __future__ import annotations

from typing import Any

import pytest

from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import Graph, ScopeRule, SignalRef
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.scopes.trigger_status import Span
from tests.graphs import graph, policy_set, stage, trigger
from tests.worlds import account, after, position, snapshot


def silence_policy(seconds: float, scope: str = "portfolio") -> Graph:
    """Locks as soon as an account of the scope has not been observed for so long."""
    return graph(
        (SignalRef("venue.age"),),
        (trigger("silent", 0, seconds, rearms=True),),
        (stage("stop", 1, 0, actions=(LockTrading("all", None),)),),
        scope=ScopeRule(scope, None, None, None, None),  # type: ignore[arg-type]  # literal by the caller
    )


def up(name: str, second: float, **more: Any) -> AccountSnapshot:
    held = [position("L", "long", "0", contracts="10", notional="50000", margin="5000")]
    return account("100000", held, name=name, observed_at=after(seconds=second), **more)


def unavailable(name: str, quality: str = "down") -> AccountSnapshot:
    return account(None, None, name=name, quality=quality, reason="timeout", observed_at=None)


def age(interpreter: Interpreter, second: float, *accounts: AccountSnapshot) -> Span | None:
    """The signal's interval after a tick at `second`."""
    interpreter.tick(snapshot(after(seconds=second), *accounts))
    return interpreter.status()[0].triggers[0].value


@pytest.mark.parametrize("quality", ["down", "stale", "malformed"])
def test_it_grows_from_the_last_observation_while_an_account_cannot_be_read(quality: str) -> None:
    """Observed at second 9 and not after that; the next answer resets it."""
    interpreter = Interpreter(policy_set(silence_policy(1000)))
    assert age(interpreter, 10, up("main", 9)) == (1, 1)
    assert age(interpreter, 11, unavailable("main", quality)) == (2, 2)
    assert age(interpreter, 70, unavailable("main", quality)) == (61, 61)
    assert age(interpreter, 71, up("main", 70.5)) == (0.5, 0.5)


def test_a_trigger_on_it_fires_while_the_venue_is_down() -> None:
    """It fires once, 30 s after the last observation at second 10."""
    interpreter = Interpreter(policy_set(silence_policy(30, "account")))
    age(interpreter, 10, up("main", 10))
    fired = [
        (second, decision.stage)
        for second in range(11, 60)
        for decision in interpreter.tick(snapshot(after(seconds=second), unavailable("main"))).decisions
    ]
    assert fired == [(40, "stop")]


def test_a_never_observed_account_is_at_least_as_old_as_its_first_evaluation() -> None:
    """How long its venue was silent before is unknown: no upper bound, so that nothing is taken for fresh."""
    interpreter = Interpreter(policy_set(silence_policy(30, "account")))
    assert age(interpreter, 10, unavailable("main")) == (0, None)
    assert interpreter.status()[0].triggers[0].truth is None
    assert age(interpreter, 39, unavailable("main")) == (29, None)
    assert [each.stage for each in interpreter.tick(snapshot(after(seconds=40), unavailable("main"))).decisions] == [
        "stop"
    ]
    assert age(interpreter, 41, up("main", 41)) == (0, 0)


def test_the_oldest_account_of_a_scope_counts() -> None:
    """`a` answers, `b` did at second 4, and `c` never has."""
    interpreter = Interpreter(policy_set(silence_policy(1000)))
    assert age(interpreter, 5, up("a", 5), up("b", 4)) == (1, 1)
    assert age(interpreter, 9, up("a", 9), unavailable("b")) == (5, 5)
    assert age(interpreter, 10, up("a", 9), unavailable("b"), unavailable("c")) == (6, None)


def test_it_survives_a_restart() -> None:
    """For an account that was observed, and for one that never was."""
    before = Interpreter(policy_set(silence_policy(1000)))
    age(before, 10, up("a", 9), unavailable("b"))
    again = Interpreter(policy_set(silence_policy(1000)))
    again.restore(before.states(), lambda *_: ())
    assert age(again, 100, unavailable("a"), up("b", 100)) == (91, 91)
    assert age(again, 101, up("a", 101), up("b", 100)) == (1, 1)
    third = Interpreter(policy_set(silence_policy(1000)))
    third.restore(before.states(), lambda *_: ())
    assert age(third, 100, up("a", 100), unavailable("b")) == (90, None)


def test_an_observed_account_without_a_time_is_unknown() -> None:
    """It was observed, but the observation has no time."""
    interpreter = Interpreter(policy_set(silence_policy(30, "account")))
    undated = account("100000", [], name="main", observed_at=None)
    assert age(interpreter, 10, undated) == (None, None)
