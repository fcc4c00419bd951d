"""Polls that wait for their turn, compared with a plain log: closing keeps its share, and no window overflows."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.venue import Cost, RateLimit, VenueTraits
from killswitch.ratelimit.budget import RequestBudget, RequestBudgets

ALLOWED, PER, READING, ACCOUNTS = 60, 10.0, 20, 3
TRAITS = VenueTraits(
    (RateLimit("weight", ALLOWED, PER, "address"),),
    (Cost("snapshot", "weight", units=READING), Cost("submit", "weight", units=1)),
)
# Whole eighths of a second add up without rounding, so that the log may compare times exactly.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 24).map(lambda eighths: eighths / 8),
        st.integers(0, ACCOUNTS - 1),
        st.sampled_from(["wait", "read", "order", "orders"]),
    ),
    max_size=80,
)

Log = list[tuple[float, int, str]]


def accounts() -> list[RequestBudget]:
    budgets = RequestBudgets()
    return [budgets.of(str(each), "venue", TRAITS, Decimal("0.5")) for each in range(ACCOUNTS)]


def held(log: Log, now: float, *kinds: str) -> int:
    """Units of calls of these kinds that were answered less than `PER` ago."""
    return sum(units for at, units, kind in log if kind in kinds and at + PER > now)


def step(budget: RequestBudget, now: float, what: str, log: Log) -> None:
    """A poll waits from now on, or is sent if it fits; orders leave one at a time, or all that fit."""
    if what == "wait" or (what == "read" and budget.wait(now, "snapshot", purpose="turn") > 0):
        budget.claim(now, "snapshot", overdue=now + 1.0, until=now + 20.0)
    elif what == "read":
        budget.answered(now, budget.reserve(now, "snapshot", purpose="turn"))
        log.append((now, READING, "read"))
    else:
        for _ in range(min(budget.room(now, "submit", ("X",) * ALLOWED), 1 if what == "order" else ALLOWED)):
            budget.answered(now, budget.reserve(now, "submit", ("X",)))
            log.append((now, 1, "order"))


@given(STEPS)
def test_closing_has_its_share_whichever_polls_wait(steps: list[tuple[float, int, str]]) -> None:
    """Orders that hold less than half of the limit always fit into the rest of that half."""
    now, log, budgets = 0.0, Log(), accounts()
    for pause, who, what in steps:
        now += pause
        step(budgets[who], now, what, log)
        free = budgets[who].room(now, "submit", ("X",) * ALLOWED)
        assert free >= ALLOWED // 2 - held(log, now, "order")
        assert held(log, now, "order", "read") + free <= ALLOWED
        assert held(log, now, "read") <= ALLOWED // 2


@given(STEPS, st.integers(0, ACCOUNTS - 1))
def test_a_waiting_poll_is_sent_in_bounded_time(steps: list[tuple[float, int, str]], who: int) -> None:
    """After any history, and with orders that use all they get: after one window for each account before it."""
    now, log, budgets = 0.0, Log(), accounts()
    for pause, account, what in steps:
        now += pause
        step(budgets[account], now, what, log)
    end, made = now + 1.0 + (ACCOUNTS + 1) * PER, len(log)
    while (now, READING, "read") not in log[made:]:
        assert now <= end
        now += 0.125
        for other, budget in enumerate(budgets):
            step(budget, now, "orders", log)
            if other != who:
                step(budget, now, "read", log)
        made = len(log)
        step(budgets[who], now, "read", log)
