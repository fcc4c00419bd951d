"""The request budget, compared with a plain log of requests and answers: no window of a venue ever overflows."""

from __future__ import annotations

import math
from decimal import Decimal
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.venue import Call, Cost, RateLimit, VenueDescription
from killswitch.ratelimit.budget import Purpose, RequestBudget, RequestBudgets, Reservation

TRAITS = VenueDescription(
    limits=(
        RateLimit("weight", 60, 10.0, "address"),
        RateLimit("orders", 20, 4.0),
        RateLimit("symbol", 3, 2.0, "symbol"),
    ),
    costs=(
        Cost("snapshot", "weight", units=20),
        Cost("submit", "weight", units=1),
        Cost("submit", "orders", each=1),
        Cost("submit", "symbol", each=1),
        Cost("submit_batch", "weight", units=5),
        Cost("submit_batch", "orders", each=1),
        Cost("submit_batch", "symbol", each=1),
    ),
    batch=5,
)
SYMBOLS = ("A", "B", "C")
SHARE = Decimal("0.5")

# Whole eighths of a second add up without rounding, so that the log may compare times exactly.
EIGHTHS = st.integers(0, 24).map(lambda eighths: eighths / 8)
CALLS = st.one_of(
    st.tuples(st.just("snapshot"), st.just(()), st.just("reading")),
    st.tuples(st.just("snapshot"), st.just(()), st.just("closing")),
    st.tuples(st.just("submit"), st.sampled_from(SYMBOLS).map(lambda s: (s,)), st.just("closing")),
    st.tuples(
        st.just("submit_batch"),
        st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=5).map(tuple),
        st.just("closing"),
    ),
)
STEPS = st.lists(
    st.tuples(EIGHTHS, st.integers(0, 1), CALLS, EIGHTHS.map(lambda more: more + 0.125)), min_size=1, max_size=60
)


Steps = list[tuple[float, int, tuple[Call, tuple[str, ...], Purpose], float]]


class Log:
    """Requests with the times of sending and answer: the venue counts each at some moment in between."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, int, Call, tuple[str, ...], Purpose]] = []

    def units(self, limit: RateLimit, account: int, symbol: str) -> list[tuple[float, float, int, Purpose]]:
        """Sent, answered and units of each call, by the costs above written out once more."""
        found = []
        for left, answered, who, call, symbols, purpose in self.rows:
            if limit.name == "weight":
                units = {"snapshot": 20, "submit": 1, "submit_batch": 5}[call]
            elif who != account:
                continue
            elif limit.name == "orders":
                units = len(symbols)
            else:
                units = symbols.count(symbol)
            found.append((left, answered, units, purpose))
        return found


def fullest(rows: list[tuple[float, float, int, Purpose]], per: float) -> int:
    """The most units that any window of `per` seconds, its end excluded, may contain.

    A call can fall into the window [x, x + per) if it left before x + per and was answered at x or after. Moving x on
    loses nothing until an answer is passed, so the fullest window begins at an answer."""
    starts = [answered for _, answered, _, _ in rows]
    return max((sum(n for left, answered, n, _ in rows if left < x + per and answered >= x) for x in starts), default=0)


def played(steps: Steps) -> tuple[Log, list[RequestBudget]]:
    """Each step: some time passes, and a call leaves as soon as its budget says, to be answered later."""
    budgets = RequestBudgets()
    accounts = [budgets.of(name, "venue", TRAITS, SHARE) for name in ("one", "two")]
    log, now, open_calls = Log(), 0.0, list[tuple[float, int, Reservation]]()

    def let_answer(until: float) -> None:
        for due in sorted(open_calls, key=lambda row: row[0]):
            if due[0] <= until:
                accounts[due[1]].answered(due[0], due[2])
                open_calls.remove(due)

    for pause, who, (call, symbols, purpose), takes in steps:
        now += pause
        let_answer(now)
        while (wait := accounts[who].wait(now, call, symbols, purpose)) > 0:
            if wait == math.inf:
                break
            now += wait
            let_answer(now)
        if wait == math.inf:
            continue
        ticket = accounts[who].reserve(now, call, symbols, purpose)
        log.rows.append((now, now + takes, who, call, symbols, purpose))
        open_calls.append((now + takes, who, ticket))
    return log, accounts


@given(STEPS)
def test_no_window_ever_exceeds_its_limit(steps: Steps) -> None:
    """Wherever between sending and answer the venue counts each call, no window of a limit overflows."""
    log, _ = played(steps)
    for limit in TRAITS.limits:
        for account in (0, 1):
            for symbol in SYMBOLS:
                assert fullest(log.units(limit, account, symbol), limit.per) <= limit.allowed


@given(STEPS)
def test_polls_leave_the_reserved_share_of_every_window(steps: Steps) -> None:
    """In no window do polls use more than the unreserved part, over both accounts of one address."""
    log, _ = played(steps)
    for limit in TRAITS.limits:
        polls = [row for row in log.units(limit, 0, "") if row[3] == "reading"]
        assert fullest(polls, limit.per) <= limit.allowed - int(limit.allowed * SHARE)


@given(STEPS)
def test_nothing_waits_for_ever(steps: Steps) -> None:
    """A call without a known answer is lost after two minutes: then, and `per` later, everything fits again."""
    log, accounts = played(steps)
    end = max((left for left, *_ in log.rows), default=0.0) + 120.0 + 10.0
    for budget in accounts:
        assert budget.wait(end, "snapshot", (), "reading") == 0
        assert budget.wait(end, "submit_batch", ("A", "B", "C", "A", "B"), "closing") == 0


@given(STEPS, EIGHTHS)
def test_polls_never_delay_an_order(steps: Steps, later: float) -> None:
    """With nothing else at the venue, the reserved share is available for closing at once, however much is polled."""
    budgets = RequestBudgets()
    budget = budgets.of("one", "venue", TRAITS, SHARE)
    now = 0.0
    for pause, _, _, _ in steps:
        now += pause
        if budget.wait(now, "snapshot", (), "reading") == 0:
            budget.answered(now, budget.reserve(now, "snapshot", (), "reading"))
    now += later
    taken = [budget.reserve(now, "submit", (symbol,)) for symbol in SYMBOLS for _ in range(3)]
    assert len(taken) == 9


@given(STEPS, st.lists(st.integers(0, 80), min_size=1, max_size=5))
def test_the_venues_own_count_only_tightens_the_budget(steps: Steps, counts: list[int]) -> None:
    """A number from the venue never lets anything leave earlier than without it, however small it is."""
    _, counted = played(steps)
    log, uncounted = played(steps)
    now = max((answered for _, answered, *_ in log.rows), default=0.0)
    for count in counts:
        counted[0].observed(now, {"weight": count, "orders": count})
        for call, symbols in (("snapshot", ()), ("submit", ("A",)), ("submit_batch", SYMBOLS)):
            assert counted[0].wait(now, call, symbols) >= uncounted[0].wait(now, call, symbols)


@given(STEPS, st.lists(st.sampled_from(SYMBOLS), max_size=30))
def test_room_is_the_longest_prefix_that_fits(steps: Steps, symbols: list[str]) -> None:
    """`room` counts exactly the calls that `wait` lets go together, and one more does not fit."""
    log, accounts = played(steps)
    now = max((left for left, *_ in log.rows), default=0.0)
    for call in ("submit", "submit_batch"):
        room = accounts[0].room(now, call, symbols)
        fits = [accounts[0].wait(now, call, symbols[:n]) == 0 for n in range(len(symbols) + 1)]
        assert all(earlier or not later for earlier, later in pairwise(fits[1:]))
        assert room == sum(fits[1:])
