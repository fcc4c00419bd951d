"""The shipped set `venue-trouble` on generated outages: it locks first, and closes when the venue is back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.graph.compile import compile_policies
from killswitch.graph.nodes import PolicySet
from killswitch.model.snapshot import AccountSnapshot, Health, Snapshot
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.loader import load
from tests.worlds import account, after, position, rules

EVERY = 15
"""Seconds between ticks."""
WELL = Health(latency_ms=80, requests=6, errors=0, timeouts=0, malformed=0)


@pytest.fixture(scope="module")
def policies(repository: Path) -> PolicySet:
    found, problems = compile_policies(load([repository / "policies" / "venue-trouble"]).documents)
    assert found is not None and problems == ()
    return found


def answer(second: float, health: Health = WELL, *, down_since: float | None = None) -> AccountSnapshot:
    """The account at a tick; an outage repeats nothing and was last observed when it began."""
    held = [position("A", "long", "0", notional="10000", mark_price="100", contracts="100")]
    if down_since is not None:
        return account(None, None, quality="down", reason="no answer", observed_at=after(seconds=down_since))
    return account("100000", held, observed_at=after(seconds=second), health=health, instruments=[rules("A")])


def course(policies: PolicySet, of: Callable[[float], AccountSnapshot], seconds: int) -> list[tuple[str, int, int]]:
    """(stage, second, orders) of every decision in a run of so many seconds."""
    interpreter, found = Interpreter(policies), []
    for second in range(0, seconds, EVERY):
        made = interpreter.tick(Snapshot(after(seconds=second), (of(second),), "killswitch.snapshot/v1"))
        found += [
            (each.stage if each.kind is None or each.kind == "stage" else each.kind, second, len(each.intents))
            for each in made.decisions
        ]
    return [(stage or "", second, orders) for stage, second, orders in found]


def outage(length: int) -> Callable[[float], AccountSnapshot]:
    """Down from second 60 on for so long."""
    return lambda second: answer(second, down_since=45 if 60 <= second < 60 + length else None)


def test_an_outage_of_half_a_minute_does_nothing(policies: PolicySet) -> None:
    """Last read at second 45, and again at 90: an age of 30 s at most."""
    assert course(policies, outage(30), 600) == []


def test_an_outage_of_two_minutes_locks_and_ends_by_itself(policies: PolicySet) -> None:
    """45 s after the last answer it locks, with the next answer it cancels entries, and it ends ten minutes later."""
    assert course(policies, outage(120), 1200) == [
        ("lock-venue", 90, 0), ("lock-venue", 180, 0), ("reset", 795, 0),
    ]  # fmt: skip


def test_an_outage_of_half_an_hour_locks_and_closes_when_the_venue_is_back(policies: PolicySet) -> None:
    """The stage fires five minutes after the last answer; its order is planned with the first answer after it."""
    found = course(policies, outage(1800), 2400)
    assert [(stage, orders) for stage, _, orders in found if orders] == [("close-when-back", 1)]
    assert [second for _, second, orders in found if orders] == [1860]
    assert found[0] == ("lock-venue", 90, 0)
    assert ("close-when-back", 345, 0) in found


@pytest.mark.parametrize(
    ("health", "second"),
    [
        (Health(latency_ms=80, requests=6, errors=2, timeouts=0, malformed=0), 60),
        (Health(latency_ms=80, requests=6, errors=0, timeouts=2, malformed=0), 60),
        (Health(latency_ms=80, requests=6, errors=0, timeouts=0, malformed=1), 60),
        (Health(latency_ms=5000, requests=6, errors=0, timeouts=0, malformed=0), 120),
    ],
    ids=["errors", "timeouts", "malformed", "slow"],
)
def test_a_venue_that_answers_badly_is_locked_and_nothing_is_closed(
    policies: PolicySet, health: Health, second: int
) -> None:
    """A third of the requests, one malformed answer a tick, five seconds: each confirmed as declared."""
    assert course(policies, lambda at: answer(at, health), 900) == [("lock-venue", second, 0)]


@pytest.mark.parametrize(
    "health",
    [
        Health(latency_ms=4900, requests=10, errors=2, timeouts=0, malformed=0),
        Health(latency_ms=None, requests=None, errors=None, timeouts=None, malformed=None),
    ],
    ids=["below the limits", "unknown"],
)
def test_what_is_below_the_limits_or_unknown_locks_nothing(policies: PolicySet, health: Health) -> None:
    """A fifth of the requests and 4.9 s; a venue whose counts are not known, which is no trouble by itself."""
    assert course(policies, lambda at: answer(at, health), 900) == []


def test_a_single_slow_answer_in_a_minute_locks_nothing(policies: PolicySet) -> None:
    """The confirmation begins again with every good answer."""
    slow = Health(latency_ms=9000, requests=6, errors=3, timeouts=0, malformed=0)
    assert course(policies, lambda at: answer(at, slow if at % 60 == 0 else WELL), 900) == []
