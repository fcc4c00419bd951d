"""Circuit breakers: warnings before the threshold, trips, recoveries and times switched off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import pytest

from killswitch.graph.nodes import PolicySet
from killswitch.lab.recording import replay
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import HOUR, to_micros
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import HistoryRow
from killswitch.operations.pages.wording import pending_lines
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.scopes.compiled_policy import compile_policy
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from tests.backtests import written
from tests.worlds import START, account, after, operator_event, position, snapshot

LOSS = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: loss}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  DISABLED
  breaker:
    trip: {signal: equity.loss_from_start, at_least: 5%, warn_at: [60%, 80%], on_unknown: hold}
    cooldown: 1h
    recovery: RECOVERY
    actions: [{lock_trading: {mode: reduce_only}}, {close: {side: both, fraction: 100%}}]
"""
LEVERAGE = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: leverage}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  breaker:
    trip: {signal: exposure.leverage, at_least: 3, on_unknown: hold}
    cooldown: 15m
    recovery: {auto: {when: 'exposure.leverage < 2.0', for: 10m, at_most: 2}}
    actions: [{lock_trading: {mode: reduce_only}}]
"""
FOR_A_MONTH = "disabled: {reason: x, until: 2024-02-01T00:00:00Z}"


def no_rows(_policy: str, _scope: str, _since: int) -> list[HistoryRow]:
    """A store without rows of histories."""
    return []


def loss(recovery: str = "manual", disabled: str = "") -> PolicySet:
    return written(LOSS.replace("RECOVERY", recovery).replace("DISABLED", disabled))


def of_equity(*equities: str, every: int = 1) -> list[Snapshot]:
    """A book of one position, polled every so many minutes: equity falls by its profit, as prices move it."""
    found = []
    for number, equity in enumerate(equities):
        profit = str(float(equity) - float(equities[0]))
        held = [position("A", "long", profit, notional="10000", mark_price="100")]
        at = after(minutes=every * number)
        found.append(snapshot(at, account(equity, held, observed_at=at)))
    return found


def of_leverage(*levels: str | None) -> list[Snapshot]:
    """An account of 1,000 with this leverage, a minute apart; None: its positions are unknown."""
    found = []
    for number, level in enumerate(levels):
        at = after(minutes=number)
        held = None if level is None else [position("A", "long", "0", notional=str(1000 * float(level)))]
        found.append(snapshot(at, account("1000", held, observed_at=at)))
    return found


def minutes(at: datetime) -> int:
    return int((at - START) / timedelta(minutes=1))


def course(policies: PolicySet, snapshots: Iterable[Snapshot]) -> list[tuple[int, str]]:
    """Minute and kind of everything that a replay decides and notifies: a warning with its text."""
    found = []
    for each in replay(policies, snapshots):
        if isinstance(each, Decision):
            found.append((minutes(each.as_of), "reset" if each.kind == "reset" else "trip"))
        elif isinstance(each, Notice) and ("threshold" in each.text or "by hand" in each.text):
            found.append((minutes(each.as_of), f"{each.severity}: {each.text.partition(' (')[0]}"))
    return found


def test_a_breaker_warns_at_its_shares_and_trips_at_its_threshold() -> None:
    """10,000 → 9,800 → 9,650 (3.5%: above 3%) → 9,580 (4.2%: above 4%) → 9,450 (5.5%): two warnings, and a trip."""
    assert course(loss(), of_equity("10000", "9800", "9650", "9580", "9450")) == [
        (2, "warning: trip has reached 60% of its threshold"),
        (3, "warning: trip has reached 80% of its threshold"),
        (4, "trip"),
    ]


def test_a_fall_through_everything_is_one_trip_and_no_warning() -> None:
    """From active to tripped in one tick."""
    assert course(loss(), of_equity("10000", "9400", "9390")) == [(1, "trip")]


def test_a_warning_is_sent_once_an_episode() -> None:
    """It lasts until the value has been below 90% of the share for five minutes: 2.7% for a share of 3%."""
    near = ["10000", "9690", "9710", "9690", "9720", "9690"]  # 3.1%, 2.9%, 3.1%, 2.8%, 3.1%: never below 2.7%
    below = ["9740"] * 7  # 2.6%
    found = course(loss(), of_equity(*near, *below, "9690"))
    assert [text for _, text in found if "60%" in text] == ["warning: trip has reached 60% of its threshold"] * 2
    assert [at for at, text in found if "60%" in text] == [1, 13]
    assert [at for at, text in found if "below 54%" in text] == [10]  # near it last at minute 5


def test_a_breaker_recovers_when_its_condition_held_and_its_cooldown_is_over() -> None:
    """The cooldown counts from the trip, and the ten minutes may run in it."""
    assert course(written(LEVERAGE), of_leverage("1", "3.5", *["1"] * 20)) == [(1, "trip"), (16, "reset")]


@pytest.mark.parametrize("broken", ["2.5", None])
def test_a_recovery_begins_at_zero_when_its_condition_is_false_or_unknown(broken: str | None) -> None:
    """At minute 14 it is not below 2, or not known: ten minutes from minute 15 on."""
    levels = ["1", "3.5", *["1"] * 12, broken, *["1"] * 15]
    assert course(written(LEVERAGE), of_leverage(*levels)) == [(1, "trip"), (25, "reset")]


def test_after_as_many_recoveries_as_allowed_a_person_resets_it() -> None:
    """Two recoveries in 24 hours: the third trip stays, and pages once."""
    once = ["3.5", *["1"] * 16]
    found = course(written(LEVERAGE), of_leverage("1", *once * 3, *["1"] * 60))
    kinds = [what for _, what in found]
    assert [what for what in kinds if what in ("trip", "reset")] == ["trip", "reset", "trip", "reset", "trip"]
    assert [what for what in kinds if what.startswith("page")] == [
        "page: tripped has fired after 2 automatic resets within 24 hours: it stays until it is reset by hand"
    ]


def test_a_day_after_a_recovery_another_one_is_automatic() -> None:
    """At most two in a rolling 24 hours: those of minutes 16 and 33 no longer count at minute 1475."""
    levels = ["1", *["3.5", *["1"] * 16] * 2, *["1"] * 1440, "3.5", *["1"] * 20]
    found = course(written(LEVERAGE), of_leverage(*levels))
    assert found == [(1, "trip"), (16, "reset"), (18, "trip"), (33, "reset"), (1475, "trip"), (1490, "reset")]


def test_recoveries_and_warnings_outlast_a_restart() -> None:
    """The interpreter is stored and restored between the second and the third trip."""
    policies = written(LEVERAGE)
    levels = of_leverage("1", *["3.5", *["1"] * 16] * 3, *["1"] * 60)
    first, second = Interpreter(policies), Interpreter(policies)
    for each in levels[:30]:
        first.tick(each)
    second.restore(first.states(), no_rows)
    reset = [each for each in levels[30:] for one in second.tick(each).decisions if one.kind == "reset"]
    assert len(reset) == 1  # that of the second trip


def test_a_disabled_breaker_neither_trips_nor_warns_until_its_time() -> None:
    """It evaluates meanwhile, so that it trips at the first evaluation after it."""
    disabled = "disabled: {reason: margin test, until: 2024-01-01T00:05:00Z}"
    found = course(loss(disabled=disabled), of_equity("10000", "9650", "9400", "9400", "9400", "9400", "9400"))
    assert found == [(5, "trip")]


def test_disabling_a_tripped_breaker_ends_neither_its_trip_nor_its_lock() -> None:
    """The state that a run left is restored with a policy that is disabled since."""
    snapshots = of_equity("10000", "9400", "9400", "9400")
    before, after_edit = Interpreter(loss()), Interpreter(loss(disabled=FOR_A_MONTH))
    for each in snapshots[:2]:
        before.tick(each)
    after_edit.restore(before.states(), no_rows)
    assert [after_edit.tick(each).decisions for each in snapshots[2:]] == [(), ()]
    (status,) = after_edit.status()
    assert (status.breaker, status.level) == ("tripped", 1)
    assert status.disabled is not None and status.disabled.reason == "x"
    shown = [*pending_lines(status, after(minutes=4))]
    assert shown == ["disabled until 2024-02-01T00:00:00Z, it fires nothing: x"]


@pytest.mark.parametrize("signal", ["equity.loss_from_start", "equity.loss_from_capital, capital: 10000 USDT"])
def test_an_accepted_recovery_counts_the_next_loss_from_what_is_left(signal: str) -> None:
    """5.5% of 10,000, and after the recovery 4.9% of 9,450, which is no trip, and 5.3% of it, which is one."""
    recovery = "{auto: {when: 'exposure.leverage < 9.0', for: 1m, at_most: 3, accept: true}}"
    text = LOSS.replace("RECOVERY", recovery).replace("DISABLED", "").replace("equity.loss_from_start", signal)
    policies = written(text.replace("match: {}", "match: {currency: USDT}"))
    fallen = ["10000", "9450", *["9450"] * 61, "8990", "8950"]
    assert [each for each in course(policies, of_equity(*fallen)) if "warning" not in each[1]] == [
        (1, "trip"), (61, "reset"), (64, "trip"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("policies", "snapshots", "state"),
    [
        (loss(), of_equity("10000", "9900"), "active"),
        (loss(), of_equity("10000", "9650"), "warning"),
        (loss(), of_equity("10000", "9400"), "tripped"),
        (written(LEVERAGE), of_leverage("3.5", *["1"] * 8), "tripped"),
        (written(LEVERAGE), of_leverage("3.5", *["1"] * 4, *["2.5"] * 5, *["1"] * 7), "recovering"),
        (loss(disabled=FOR_A_MONTH), of_equity("10000", "9400"), "disabled"),
    ],
)
def test_the_status_names_the_state_of_a_breaker(
    policies: PolicySet, snapshots: Sequence[Snapshot], state: str
) -> None:
    """Tripped, cooldown over, and the condition running is recovering."""
    interpreter = Interpreter(policies)
    for each in snapshots:
        interpreter.tick(each)
    assert [each.breaker for each in interpreter.status()] == [state]


def test_an_operator_resets_a_tripped_breaker() -> None:
    """By hand it is active again at once, and measures from the equity that is left."""
    snapshots = of_equity("10000", "9400", "9400", "9400")
    reset = operator_event("reset", snapshots[2].as_of)
    snapshots[2] = snapshot(snapshots[2].as_of, *snapshots[2].accounts, events=[reset])
    assert course(loss(), snapshots) == [(1, "trip"), (2, "reset")]


def test_a_daily_cap_is_not_freed_by_a_clock_that_was_ahead_at_a_boot() -> None:
    """Two positions of the last hour, and a leap of two days that only a wall clock has measured: none is left."""
    (graph,) = loss().graphs
    before, restored = (ScopeEvaluator(compile_policy(graph), "account/main") for _ in range(2))
    since, now = to_micros(after(hours=1)), to_micros(after(days=2))
    before.count_today(2, to_micros(after()))
    restored.restore(before.serialised(), [], (since, now))
    assert (restored.left_today(2, now), restored.left_today(2, now + 23 * HOUR)) == (0, 2)
