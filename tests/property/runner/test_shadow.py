"""A set in shadow of itself differs in nothing, on any course of a book, wherever on the course it begins."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from hypothesis import event, given, settings
from hypothesis import strategies as st

from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Event, Snapshot
from killswitch.model.store import TickRecord
from killswitch.planning.interpreter import Interpreter
from killswitch.runner.shadow.comparison import differences
from killswitch.runner.shadow.evaluation import ShadowEvaluation, ShadowSeed, plant
from killswitch.runner.shadow.record import of_shadow
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_empty_in_memory
from tests.backtests import written
from tests.worlds import account, after, operator_event, position, snapshot

POLICIES = written("""
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: steps}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    fall: {signal: equity.drawdown, window: 10m, at_least: 4%, on_unknown: hold}
    deep: {signal: equity.drawdown, window: 10m, at_least: 10%, confirm: 2m, on_unknown: hold}
    geared: {signal: exposure.leverage, at_least: 3, on_unknown: hold}
  stages:
    - {name: close-everything, level: 2, any: [deep], cooldown: 5m, reset: manual,
       actions: [{lock_trading: {mode: reduce_only}}, {close: {side: both, fraction: 100%}}]}
    - {name: trim, level: 1, any: [fall, geared], cooldown: 1m,
       reset: {auto: {when: 'equity.drawdown("10m") < 0.02', for: 1m}},
       actions: [{close: {side: both, fraction: 50%}}]}
""")
ENTRY = Decimal(100)


def seen(minute: int, price: Decimal, state: str, events: tuple[Event, ...]) -> Snapshot:
    """One account of 10,000 with a long of 200 entered at 100; `down`: not readable; `geared`: twice as much."""
    if state == "down":
        polled = account(None, None, quality="down", reason="timeout")
    else:
        size = Decimal(200 if state == "held" else 500)
        pnl = Decimal(200) * (price - ENTRY)
        held = position(
            "L", "long", str(pnl), contracts=str(size), entry_price=str(ENTRY), mark_price=str(price),
            notional=str(size * price), margin="1000",
        )  # fmt: skip
        polled = account(str(10_000 + pnl), [held])
    return snapshot(after(minutes=minute), polled, events=events)


class Deployed:
    """The runner's part: an interpreter whose ticks are stored."""

    def __init__(self) -> None:
        self.store: SqlStore = open_empty_in_memory()
        self.interpreter = Interpreter(POLICIES)
        self.fired: list[Decision] = []

    def tick(self, polled: Snapshot) -> None:
        interpreter = self.interpreter
        decisions = interpreter.tick(polled).decisions
        self.store.commit_tick(
            TickRecord(
                as_of=polled.as_of, policy_set=POLICIES.digest, states=interpreter.states(), rows=interpreter.rows(),
                decisions=decisions, notices=(), journal=(), snapshot=None, consumed_events=(), prune_before=0,
                live=interpreter.live(),
            )
        )  # fmt: skip
        self.fired += of_shadow(decisions)


COURSE = st.lists(
    st.tuples(
        st.sampled_from((-6, -3, -1, 0, 0, 1, 3, 6)),
        st.sampled_from(("held", "held", "held", "geared", "down")),
        st.sampled_from((False, False, False, False, True)),
    ),
    min_size=2,
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(COURSE, st.integers(1, 12))
def test_a_shadow_of_the_same_set_reports_no_difference(course: list[tuple[int, str, bool]], begins: int) -> None:
    """Prices walk, polls fail, operators reset: every firing is at the same tick, with the same orders."""
    deployed, own = Deployed(), open_empty_in_memory()
    price, shadow = ENTRY, None
    mine: list[Decision] = []
    since = 0
    for minute, (step, state, resets) in enumerate(course):
        price = max(price * (100 + step) / 100, Decimal(60))
        reset = operator_event("reset", after(minutes=minute), id_=f"reset-{minute}")
        polled = seen(minute, price, state, (reset,) if resets else ())
        if minute == min(begins, len(course) - 1):
            at = to_micros(after(minutes=minute - 1))
            live = {name: blob for name in ("flags", "locked_books") if (blob := deployed.store.live(name))}
            plant(own, ShadowSeed(at, tuple(deployed.store.states()), live), deployed.store, POLICIES.digest)
            shadow = ShadowEvaluation(POLICIES, own, (), timedelta(minutes=5))
            since = len(deployed.fired)
        deployed.tick(polled)
        if shadow is not None:
            mine += shadow.tick(polled, lambda: None)
    assert differences(mine, deployed.fired[since:]) == ()
    event(f"{len(mine)} firings in shadow")
    deployed.store.close()
    own.close()
