"""The status and stored state of a scope evaluator: all fields, why a trigger is unknown, and number formats."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.engine.step import latch
from killswitch.graph.nodes import Compare, Number, SignalRead, SignalRef
from killswitch.model.decision import TriggerReading
from killswitch.model.instant import MINUTE, SECOND, from_micros
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.scopes.compiled_policy import compile_policy
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.planning.scopes.trigger_status import number, status, status_of_trigger, trigger_reading, why_unknown
from killswitch.valuation.scope_view import ScopeView
from tests.graphs import FALL_1H, FALL_15M, graph, stage, trigger
from tests.worlds import account, after, position, snapshot
from tests.worlds.signals import view_of

NOW = 1_600_000_000 * SECOND
CONDITION = Compare(">=", SignalRead(1), Number(0.5))


def account_with_equity(equity: str | None) -> AccountSnapshot:
    """An account that began with 1000, and whose one position has made or lost the difference."""
    pnl = None if equity is None else str(Decimal(equity) - 1000)
    return account(equity, [position("BTC/USDT:USDT", "long", pnl)])


def evaluator_after(*equities: str | None, interval: int = MINUTE, start: int = NOW) -> ScopeEvaluator:
    """An evaluator after these equities, the last of them at `start`; None is an account that is down."""
    made = graph(
        (FALL_15M, FALL_1H),
        (trigger("short", 0, 0.05), trigger("long", 1, 0.10)),
        (stage("one", 1, 0, cooldown=30 * MINUTE), stage("two", 2, 1)),
        policy="p",
    )
    evaluator = ScopeEvaluator(compile_policy(made), "account/main")
    for index, equity in enumerate(equities, start=1 - len(equities)):
        view = ScopeView(start + index * interval, True, [account_with_equity(equity)], {}, None)
        evaluator.observe(view, ())
        evaluator.step(view)
    return evaluator


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.05, "0.05"),
        (0.00001, "0.00001"),
        (-0.00001, "-0.00001"),
        (0.0000123, "0.0000123"),
        (1e-13, "0"),
        (0.0, "0"),
        (1.0, "1"),
        (10000000000.0, "1e+10"),
        (1.5e12, "1.5e+12"),
        (100.0, "100"),
        (float("inf"), None),
        (float("-inf"), None),
    ],
)
def test_a_value_is_written_without_an_exponent_where_it_is_small(value: float, text: str | None) -> None:
    """To ten digits, or twelve places; an unbounded end has no number."""
    assert number(value) == text


def test_a_status_shows_every_field_of_the_stage_machine() -> None:
    """Policy and scope, level, start, cooldown and decision."""
    evaluator = evaluator_after("1000", "1000", "940")
    quiet = status(evaluator)
    assert (quiet.policy, quiet.scope, quiet.mode) == ("p", "account/main", "enforce")
    assert (quiet.level, quiet.stage, quiet.fired_at, quiet.cooldown_until, quiet.decision) == (
        0,
        None,
        None,
        None,
        None,
    )
    evaluator.state = latch(evaluator.state, evaluator.compiled.graph.stages[-1], NOW, (940.0, 940.0))
    evaluator.fired("d1")
    latched = status(evaluator)
    assert (latched.level, latched.stage, latched.decision) == (1, "one", "d1")
    assert latched.fired_at == from_micros(NOW)
    assert latched.cooldown_until == from_micros(NOW + 30 * MINUTE)
    assert [each.name for each in latched.triggers] == ["short", "long"]


def test_a_trigger_status_has_the_value_its_truth_and_its_confirmation() -> None:
    """A fall of 6% in a window without a known start: at least that, so 5% is true and 10% is unknown."""
    evaluator = evaluator_after("1000", "940")
    true, unknown = status_of_trigger(evaluator, 0), status_of_trigger(evaluator, 1)
    assert (true.value, true.truth, true.held, true.confirmed) == (pytest.approx((0.06, 1.0)), True, True, True)
    assert true.headroom == pytest.approx((0.05 - 1.0, 0.05 - 0.06))
    assert (true.true_since, true.unknown_because) == (from_micros(NOW), None)
    assert (unknown.truth, unknown.held, unknown.true_since) == (None, False, None)
    assert unknown.unknown_because == "history reaches back 60 s of 60 min"


def test_a_possible_withdrawal_is_reported_in_addition_to_the_short_history() -> None:
    """150 of 1,000 are gone with a position of 1,000: both causes are given, and what the second one waits for."""
    evaluator = ScopeEvaluator(compile_policy(evaluator_after().compiled.graph), "account/main")
    for minute, equity in enumerate(("1000", "850")):
        gone = [] if minute else [position("BTC/USDT:USDT", "long", "0", notional="1000", mark_price="1000")]
        held = account(equity, gone)
        view = ScopeView(NOW + minute * MINUTE, True, [held], {}, None)
        evaluator.observe(view, ())
        evaluator.step(view)
    shown = status_of_trigger(evaluator, 1)
    assert (shown.value, shown.truth) == ((0.0, 1.0), None)
    assert shown.unknown_because == (
        "history reaches back 60 s of 60 min; a change of -150.00 USDT that no row explains yet leaves two "
        "values possible: a fall may be a withdrawal, and counts as a loss once the ledger has been read past it"
    )


def test_an_unexplained_rise_is_not_reported_as_a_possible_loss() -> None:
    """150 more with a position of 1,000 that vanished: it waits for the ledger."""
    evaluator = ScopeEvaluator(compile_policy(evaluator_after().compiled.graph), "account/main")
    for minute, equity in enumerate(("1000", "1150")):
        gone = [] if minute else [position("BTC/USDT:USDT", "long", "0", notional="1000", mark_price="1000")]
        evaluator.observe(ScopeView(NOW + minute * MINUTE, True, [account(equity, gone)], {}, None), ())
    assert why_unknown(evaluator, evaluator.compiled.graph.triggers[0]).endswith(
        "; a change of 150.00 USDT that no row explains yet leaves two values possible"
    )


def test_a_trigger_reading_has_its_numbers_as_text() -> None:
    """Both ends, the threshold, since when, and why it is not exact; an end at one is written as 1."""
    evaluator = evaluator_after("1000", "940")
    since = from_micros(NOW)
    short, long = ("history reaches back 60 s of 15 min", "history reaches back 60 s of 60 min")
    assert trigger_reading(evaluator, 0) == TriggerReading("short", ("0.06", "1"), "0.05", since, short)
    assert trigger_reading(evaluator, 1) == TriggerReading("long", ("0.06", "1"), "0.1", None, long)


def test_without_a_snapshot_a_trigger_has_no_value() -> None:
    """No value and no truth; the threshold is known all the same."""
    evaluator = evaluator_after()
    assert trigger_reading(evaluator, 0) == TriggerReading("short", None, "0.05", None, None)
    assert status_of_trigger(evaluator, 0).truth is None
    assert status_of_trigger(evaluator, 0).headroom is None


def test_an_account_that_is_down_is_the_reason_of_every_unknown() -> None:
    """Its reason takes precedence over those about windows."""
    evaluator = evaluator_after("1000", None)
    assert evaluator.history.unknown is not None
    assert why_unknown(evaluator, evaluator.compiled.graph.triggers[0]) == evaluator.history.unknown


def test_a_heartbeat_that_was_never_sent_has_a_reason_of_its_own() -> None:
    """No account states it: it was watched for 60 s, and none was sent."""
    made = graph(
        (SignalRef("heartbeat.age", ("bot",)),),
        (trigger("silent", 0, 90.0, op=">"),),
        (stage("one", 1, 0),),
        policy="p",
    )
    evaluator = ScopeEvaluator(compile_policy(made), "account/main")
    for second in (0, 60):
        view = view_of(snapshot(after(seconds=second), account("1000")))
        evaluator.observe(view, ())
        evaluator.step(view)
    assert why_unknown(evaluator, made.triggers[0]) == (
        "heartbeat.age: none was ever sent: it is at least the time since the scope watches it"
    )


def test_a_condition_without_a_threshold_is_explained_by_the_signal_that_it_compares() -> None:
    """By the window of that signal, not of another one."""
    made = graph((FALL_15M, FALL_1H), (trigger("short", 0, 0.05),), (stage("one", 1, 0),))
    bare = replace(made.triggers[0], condition=CONDITION, threshold=None)
    evaluator = ScopeEvaluator(compile_policy(replace(made, triggers=(bare,), conditions=(CONDITION,))), "account/main")
    for minute in range(31):
        view = ScopeView(NOW + minute * MINUTE, True, [account("1000")], {}, None)
        evaluator.observe(view, ())
        evaluator.step(view)
    assert why_unknown(evaluator, bare) == "history reaches back 30 min of 60 min"
    shown = trigger_reading(evaluator, 0)
    assert (shown.value, shown.threshold) == (None, None)


def test_accounts_closed_without_a_latch_rest_until_the_stage_has_cooled_down() -> None:
    """By stage and account, whatever slashes a name has; accounts that still rest are kept, the others are dropped."""
    evaluator = evaluator_after("1000")
    one, two = evaluator.compiled.graph.stages[1], evaluator.compiled.graph.stages[0]
    evaluator.act_without_latching(one, ["main", "desk/eu"], NOW)
    end = NOW + 30 * MINUTE
    assert evaluator.cooling_down("one", end - 1) == {"main", "desk/eu"}
    assert evaluator.cooling_down("one", end) == frozenset()
    assert evaluator.cooling_down("two", NOW) == frozenset()
    evaluator.act_without_latching(two, ["main"], end - 1)
    assert (evaluator.cooling_down("one", end - 1), evaluator.cooling_down("two", end - 1)) == (
        {"main", "desk/eu"},
        {"main"},
    )
    evaluator.act_without_latching(two, ["main"], end)
    assert set(evaluator.state.acted) == {"two/main"}


def test_a_restored_evaluator_has_its_decision_and_costs() -> None:
    """Decision, costs by decision, cost in unit value, and the rows: the restored one continues where it was."""
    evaluator = evaluator_after("1000", "990")
    evaluator.fired("d1")
    assert (evaluator.costs, evaluator.cost) == ({"d1": Decimal(0)}, 0.0)
    evaluator.share_cost("d2", Decimal(3))
    evaluator.share_cost("d2", Decimal(9))
    evaluator.cost = 0.25
    row = evaluator.newest_row(NOW)
    assert row is not None
    assert evaluator.newest_row(NOW + 1) is None
    assert evaluator_after().newest_row(NOW) is None
    again = evaluator_after()
    again.restore(evaluator.serialised(), [row])
    assert (again.decision, again.costs, again.cost) == ("d1", {"d1": Decimal(0), "d2": Decimal(3)}, 0.25)
    assert again.serialised() == evaluator.serialised()
