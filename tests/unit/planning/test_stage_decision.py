"""From a stage to its decision: whole records, the window of attribution, locks, and the combination of several
actions.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import AllOf, AttributionRule, Compare, Number, PolicySet, SignalRead, SignalRef
from killswitch.model.decision import Decision, LockOrder, decision_id
from killswitch.model.effects import Lock
from killswitch.model.instant import HOUR, MINUTE, SECOND, from_micros, to_micros
from killswitch.model.snapshot import Position, Snapshot
from killswitch.planning.actions.registry import certain_effects
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.stage_decision import duration
from tests.graphs import FALL_1H, FALL_15M, close, graph, policy_set, stage, trigger
from tests.worlds import START, account, after, position, rules, snapshot

D = Decimal
RULE = AttributionRule(0.65, "worst_ranked", "worst_ranked")


@pytest.mark.parametrize(
    ("micros", "words"),
    [
        (15 * MINUTE, "15m"), (60 * MINUTE, "1h"), (90 * MINUTE, "90m"), (90 * SECOND, "90s"), (24 * HOUR, "24h"),
        (1_500_000, "1500ms"), (2_001_000, "2001ms"), (1 * SECOND, "1s"),
    ],
)  # fmt: skip
def test_a_duration_is_written_in_the_largest_unit_that_divides_it(micros: int, words: str) -> None:
    """Hours, minutes or seconds; milliseconds where none of them divides it."""
    assert duration(micros) == words


@pytest.mark.parametrize(
    ("orders", "mode", "until"),
    [
        ((LockTrading("reduce_only", 30 * MINUTE),), "reduce_only", 30),
        ((LockTrading("all", 30 * MINUTE),), "all", 30),
        ((LockTrading("reduce_only", 60 * MINUTE), LockTrading("all", 30 * MINUTE)), "all", 60),
        ((LockTrading("all", 30 * MINUTE), LockTrading("reduce_only", 60 * MINUTE)), "all", 60),
        ((LockTrading("reduce_only", None), LockTrading("reduce_only", 30 * MINUTE)), "reduce_only", None),
    ],
)
def test_of_several_locks_the_strictest_mode_and_the_longest_time_apply(
    orders: tuple[LockTrading, ...], mode: str, until: int | None
) -> None:
    """In any order; a lock without an end makes the result one without an end."""
    made = certain_effects("account/main", stage("s", 1, 0, actions=(close(), *orders)), to_micros(START))
    ends = None if until is None else after(minutes=until)
    assert made == (Lock(LockOrder("account/main", mode, ends)),)  # type: ignore[arg-type]  # literal


def test_a_stage_without_a_lock_locks_nothing() -> None:
    """None, and not an empty lock."""
    assert certain_effects("account/main", stage("s", 1, 0, actions=(close(),)), 0) == ()


def book(long_pnl: str, short_pnl: str = "0") -> list[Position]:
    common = {"contracts": "10", "notional": "50000", "margin": "10000"}
    return [position("L", "long", long_pnl, **common), position("S", "short", short_pnl, **common)]


def at(minute: float, long_pnl: str, short_pnl: str = "0") -> Snapshot:
    """Equity 100,000 and both P&Ls, `minute` minutes after the start."""
    equity = str(100_000 + D(long_pnl) + D(short_pnl))
    known = (rules("L"), rules("S"))
    return snapshot(after(minutes=minute), account(equity, book(long_pnl, short_pnl), instruments=known))


def decided(policies: PolicySet, *path: tuple[int, str, str]) -> Decision:
    """The one decision on an hour of calm and then `path`: minute, long P&L, short P&L."""
    interpreter = Interpreter(policies)
    found = [decision for minute in range(61) for decision in interpreter.tick(at(minute, "0")).decisions]
    for step in path:
        found += interpreter.tick(at(*step)).decisions
    (decision,) = found
    return decision


def falling(*levels: tuple[int, float], **words: Any) -> PolicySet:
    """Falls over 15m (0) and 1h (1) that reach their levels: close what lost."""
    triggers = tuple(trigger(f"t{number}", signal, level) for number, (signal, level) in enumerate(levels))
    given: dict[str, Any] = {"attribution": RULE, "actions": (close("losing", "0.5"),)} | words
    made = graph((FALL_15M, FALL_1H), triggers, (stage("trim", 2, *range(len(levels)), **given),))
    return replace(policy_set(made), commit="c0ffee")


def test_a_decision_records_its_policy_set_scope_stage_and_id() -> None:
    """Policy set, commit, scope, stage, levels, cooldown, and its own id from policy, scope, stage and instant."""
    policies = falling((0, 0.05), cooldown=45 * MINUTE)
    made = decided(policies, (61, "-7000", "1000"))
    now = after(minutes=61)
    assert (made.policy_set, made.commit, made.scope, made.stage) == (
        policies.digest, "c0ffee", "account/main", "trim"
    )  # fmt: skip
    assert (made.level, made.previous_level, made.mode, made.as_of) == (2, 0, "enforce", now)
    assert made.id == decision_id("test", "account/main", "trim", now)
    assert made.cooldown_until == after(minutes=106)
    assert [reading.name for reading in made.triggers] == ["t0"]


def test_both_shares_of_a_loss_are_recorded() -> None:
    """The longs lost 7,000 and the shorts 1,000 of 8,000: 87.5% and 12.5%."""
    made = decided(falling((0, 0.05)), (61, "-7000", "-1000"))
    assert made.attribution is not None
    assert (made.attribution.source, made.attribution.long_share, made.attribution.short_share) == (
        "LONG", "0.875", "0.125"
    )  # fmt: skip
    assert [(intent.symbol, intent.contracts) for intent in made.intents] == [("L", D(5))]


def test_the_stage_declares_how_certain_attribution_must_be() -> None:
    """70% of the loss is enough for 65%, and not for 75%."""
    for sure, source in ((0.65, "LONG"), (0.75, "MIXED")):
        rule = AttributionRule(sure, "worst_ranked", "worst_ranked")
        made = decided(falling((0, 0.05), attribution=rule), (61, "-7000", "-3000"))
        assert made.attribution is not None
        assert made.attribution.source == source


def test_by_default_two_thirds_of_a_loss_identify_the_losing_side() -> None:
    """70% do, 60% do not."""
    for path, source in (((61, "-7000", "-3000"), "LONG"), ((61, "-6000", "-4000"), "MIXED")):
        made = decided(falling((0, 0.05), attribution=None, actions=(close(),)), path)
        assert made.attribution is not None
        assert made.attribution.source == source


@pytest.mark.parametrize(
    ("levels", "window"),
    [
        (((0, 0.05), (1, 0.02)), "1h"),
        (((0, 0.02), (1, 0.05)), "15m"),
        (((0, 0.05), (1, 0.05)), "15m"),
        (((1, 0.05), (0, 0.05)), "15m"),
        (((1, 0.05),), "1h"),
        (((0, 0.5), (1, 0.05)), "1h"),
    ],
)
def test_attribution_is_over_the_window_that_was_exceeded_by_most(
    levels: tuple[tuple[int, float], ...], window: str
) -> None:
    """By value over threshold; of equals the shortest; a trigger that did not fire does not count."""
    made = decided(falling(*levels), (61, "-10000", "0"))
    assert made.attribution is not None
    assert made.attribution.window == window


def test_a_threshold_of_zero_does_not_hide_the_triggers_after_it() -> None:
    """Nothing is divided by it: the window is that of the other one."""
    triggers = (trigger("any", 1, 0.0), trigger("fall", 0, 0.05))
    only = stage("trim", 2, all_of=(0, 1), attribution=RULE, actions=(close("losing"),))
    made = decided(policy_set(graph((FALL_15M, FALL_1H), triggers, (only,))), (61, "-10000", "0"))
    assert made.attribution is not None
    assert made.attribution.window == "15m"
    assert [reading.name for reading in made.triggers] == ["any", "fall"]


def test_where_only_expressions_fired_the_shortest_window_that_they_read_counts() -> None:
    """Both falls at once, compared in one expression."""
    both = AllOf((Compare(">=", SignalRead(1), Number(0.05)), Compare(">=", SignalRead(0), Number(0.05))))
    one = replace(trigger("both", 0, 0.05), condition=both, threshold=None)
    made = graph((FALL_15M, FALL_1H), (one,), (stage("trim", 1, 0, attribution=RULE, actions=(close("losing"),)),))
    decision = decided(policy_set(made), (61, "-7000", "1000"))
    assert decision.attribution is not None
    assert (decision.attribution.window, decision.attribution.source) == ("15m", "LONG")


def test_without_a_window_nothing_is_attributed_and_the_reason_is_recorded() -> None:
    """A trigger on the equity itself: the source is unknown, over no window; what is ranked worst is closed."""
    made = graph(
        (SignalRef("equity.value"),), (trigger("poor", 0, 95_000, op="<="),),
        (stage("trim", 1, 0, attribution=RULE, actions=(close("losing", worst=0.5),)),),
    )  # fmt: skip
    decision = decided(policy_set(made), (61, "-7000", "1000"))
    assert decision.attribution is not None
    assert (decision.attribution.source, decision.attribution.window) == ("UNKNOWN", "")
    assert "window" in (decision.attribution.reason or "")
    assert [intent.symbol for intent in decision.intents] == ["L"]


def test_of_several_actions_on_a_position_the_smallest_target_applies() -> None:
    """A half and a quarter of the longs: a half, in whichever order they are written."""
    for fractions in (("0.5", "0.25"), ("0.25", "0.5")):
        actions = tuple(close("long", fraction) for fraction in fractions)
        made = decided(falling((0, 0.05), actions=actions), (61, "-7000", "1000"))
        assert [(intent.symbol, intent.contracts, intent.target) for intent in made.intents] == [("L", D(5), D(5))]


def test_a_decision_that_locks_records_the_scope_and_the_end() -> None:
    """The scope's own lock, thirty minutes from the tick."""
    actions = (LockTrading("all", 30 * MINUTE), close("losing"))
    made = decided(falling((0, 0.05), actions=actions), (61, "-7000", "1000"))
    assert made.lock == LockOrder("account/main", "all", from_micros(to_micros(after(minutes=91))))
