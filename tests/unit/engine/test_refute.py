"""`refute`: what only a refuted price made true was never true; what good prices made true stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.engine.state import initial
from killswitch.engine.step import StageMachine, StepResult, overdue, refute, step
from killswitch.graph.lowering import lower
from killswitch.graph.nodes import OnUnknown
from killswitch.model.instant import MINUTE, SECOND
from tests.graphs import FALL_15M, graph, stage, trigger

UNKNOWN = (float("-inf"), float("inf"))
SMALL, LARGE = 0b01, 0b10


class Machine:
    """5% confirmed for a minute, and 10% at once; `print_` is a fall that a refuted price shows."""

    def __init__(self, on_unknown: OnUnknown = "hold") -> None:
        self.state = initial()
        triggers = (
            trigger("small", 0, 0.05, confirm=MINUTE, on_unknown=on_unknown, grace=MINUTE),
            trigger("large", 0, 0.10, on_unknown=on_unknown, grace=MINUTE),
        )
        compiled = graph((FALL_15M,), triggers, (stage("one", 1, 0), stage("two", 2, 1)))
        self.machine = StageMachine.of(compiled, lower(compiled.conditions))

    def at(self, seconds: int, fall: float | None) -> StepResult:
        low, high = UNKNOWN if fall is None else (fall, fall)
        found = step(self.machine, self.state, ([low], [high], []), seconds * SECOND + 1, unit_value=None)
        self.state = found.state
        return found

    def print_(self, seconds: int, fall: float, refuted: int) -> None:
        before = self.state.triggers
        self.at(seconds, fall)
        self.state = refute(self.state, before, refuted)


def names(found: StepResult) -> list[str]:
    return [each.name for each in found.eligible]


def test_a_refuted_print_leaves_no_trace() -> None:
    """Nothing is held, nothing confirms, and an unknown afterwards holds nothing."""
    run = Machine()
    run.at(0, 0.0)
    before = run.state.triggers
    run.print_(1, 0.5, SMALL | LARGE)
    found = run.state.triggers
    assert (found.held, found.confirmed, found.since) == (before.held, before.confirmed, before.since) == (0, 0, {})
    assert names(run.at(2, None)) == []
    assert names(run.at(120, None)) == []


def test_without_its_refutation_the_same_print_is_held() -> None:
    """`hold` keeps the truth of the last known price, so that the stage may fire while nothing is known."""
    run = Machine()
    run.at(0, 0.0)
    run.at(1, 0.5)
    assert names(run.at(2, None)) == ["two"]


def test_a_confirmation_that_good_prices_began_is_not_begun_again() -> None:
    """6% since 0 s; a print at 30 s makes 50% of it, of which the good price refutes only the 10%."""
    run = Machine()
    run.at(0, 0.06)
    run.print_(30, 0.5, LARGE)
    assert names(run.at(59, 0.06)) == []
    assert names(run.at(60, 0.06)) == ["one"]


def test_a_print_completes_no_confirmation() -> None:
    """At 60 s only the print is beyond 5%: it confirms nothing, and the next good price does."""
    run = Machine()
    run.at(0, 0.06)
    run.print_(60, 0.06, SMALL)
    assert run.state.triggers.confirmed == 0
    assert names(run.at(61, 0.06)) == ["one"]


def test_a_print_begins_no_confirmation() -> None:
    """The minute begins with the first good price."""
    run = Machine()
    run.at(0, 0.0)
    run.print_(1, 0.06, SMALL)
    run.at(2, 0.06)
    assert names(run.at(61, 0.06)) == []
    assert names(run.at(62, 0.06)) == ["one"]


def test_what_was_confirmed_by_good_prices_stays_confirmed() -> None:
    """Confirmed at 60 s; a print at 61 s that is refuted takes nothing of it back."""
    run = Machine()
    run.at(0, 0.06)
    run.at(60, 0.06)
    run.print_(61, 0.5, SMALL | LARGE)
    assert (run.state.triggers.held, run.state.triggers.confirmed) == (SMALL, SMALL)


def test_a_refuted_print_does_not_end_an_unknown() -> None:
    """Unknown since 0 s: overdue after its grace of a minute, although a print at 30 s was known."""
    run = Machine()
    run.at(0, None)
    run.print_(30, 0.5, SMALL | LARGE)
    for seconds, expected in ((59, ()), (60, (0, 1))):
        run.at(seconds, None)
        assert overdue(run.machine, run.state.triggers, seconds * SECOND + 1) == expected


FALLS = st.none() | st.sampled_from([0.0, 0.04, 0.06, 0.09, 0.11, 0.5])


@given(st.lists(st.tuples(FALLS, st.sampled_from([0.06, 0.11, 0.5])), min_size=1, max_size=20))
def test_prints_that_are_refuted_wholly_change_no_course(course: list[tuple[float | None, float]]) -> None:
    """A refuted print before each evaluation: every step has the same result as without them."""
    plain, printed = Machine(), Machine()
    for i, (fall, wrong) in enumerate(course):
        printed.print_(i * 20 + 10, wrong, SMALL | LARGE)
        one, other = plain.at(i * 20 + 20, fall), printed.at(i * 20 + 20, fall)
        assert (names(other), other.reset) == (names(one), one.reset)
        assert (printed.state.triggers.held, printed.state.triggers.since) == (
            plain.state.triggers.held, plain.state.triggers.since,
        )  # fmt: skip


@pytest.mark.parametrize("refuted", [0, SMALL, LARGE, SMALL | LARGE])
def test_only_the_refuted_triggers_go_back(refuted: int) -> None:
    """The other ones keep what the step made of them."""
    run = Machine()
    run.at(0, 0.0)
    run.print_(1, 0.5, refuted)
    assert run.state.triggers.held == (SMALL | LARGE) & ~refuted
    assert set(run.state.triggers.since) == {i for i in (0, 1) if not refuted >> i & 1}
