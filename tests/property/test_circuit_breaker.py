"""C15: five failures open a breaker whose reset lies behind the fetch that it skips, and it is dead until a restart.

This breaker, in contrast, lets a probe through in bounded time in every state, and one success closes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from killswitch.ratelimit.breaker import Breaker

LONGEST = 30.0
STEPS = st.lists(
    st.tuples(st.floats(0, 40, allow_nan=False), st.sampled_from(["order", "order lost", "snapshot", "straggler"]),
              st.booleans()),
    max_size=80,
)  # fmt: skip

Steps = list[tuple[float, str, bool]]


def after(steps: Steps) -> tuple[Breaker, float]:
    """A breaker after these steps: orders ask for permission, snapshots and late answers from before do not."""
    breaker, now = Breaker(failures=5, first_wait=1.0, longest=LONGEST), 0.0
    for pause, what, fine in steps:
        now += pause
        if what.startswith("order") and (not breaker.allows(now) or what == "order lost"):
            continue
        (breaker.succeeded if fine else breaker.failed)(now)
    return breaker, now


@given(STEPS)
def test_c15_it_lets_a_probe_through_in_bounded_time(steps: Steps) -> None:
    """After any history an order may leave within the longest wait, without any other request or result."""
    breaker, now = after(steps)
    assert breaker.wait(now) <= LONGEST
    assert breaker.allows(now + LONGEST + 1e-6)


@given(STEPS)
def test_c15_a_successful_snapshot_closes_it(steps: Steps) -> None:
    """A poll never asks for permission, so its success closes the breaker in whatever state it is."""
    breaker, now = after(steps)
    breaker.succeeded(now)
    assert breaker.state == "closed"
    assert all(breaker.allows(now) for _ in range(10))


@given(STEPS, st.floats(0, 29, allow_nan=False))
def test_an_open_breaker_lets_one_order_through_and_no_second(steps: Steps, pause: float) -> None:
    """While it is not closed, at most one order may leave before the outcome of the last is known."""
    breaker, now = after([*steps, *[(0.0, "straggler", False)] * 5])
    assert breaker.state != "closed"
    assert sum(breaker.allows(now + pause * part / 10) for part in range(10)) <= 1


@given(st.integers(1, 12))
def test_failed_probes_wait_twice_as_long_each_up_to_the_longest(probes: int) -> None:
    """The waits between probes are 1, 2, 4, … seconds, and never more than the longest."""
    breaker, now = Breaker(failures=1, first_wait=1.0, longest=LONGEST), 0.0
    breaker.failed(now)
    waits = []
    for _ in range(probes):
        waits.append(breaker.probe_at - now)
        now = breaker.probe_at
        assert breaker.allows(now)
        breaker.failed(now)
    assert waits == [min(2.0**n, LONGEST) for n in range(probes)]


def test_it_opens_at_the_declared_number_of_failures_in_a_row() -> None:
    """Four failures and a success do not count as a row; five in a row stop the orders until the first wait is over."""
    breaker = Breaker(failures=5, first_wait=1.0)
    for _ in range(4):
        breaker.failed(0.0)
    breaker.succeeded(0.0)
    for _ in range(4):
        breaker.failed(1.0)
    assert breaker.allows(1.0)
    breaker.failed(1.0)
    assert not breaker.allows(1.999)
    assert breaker.allows(2.0)


def test_failures_while_it_is_open_do_not_delay_the_probe() -> None:
    """Requests that left before it opened may fail late, and snapshots may fail meanwhile: the probe keeps its time."""
    breaker = Breaker(failures=1, first_wait=4.0)
    breaker.failed(0.0)
    for tenth in range(39):
        breaker.failed(tenth / 10)
    assert breaker.probe_at == 4.0
    assert breaker.allows(4.0)
