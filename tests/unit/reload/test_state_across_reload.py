"""The state of a policy under the next text of the policy, rule by rule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.engine.state import PartialFiring, PendingClose, StoredState, StoredTrigger, level_in_force
from killswitch.graph.nodes import AutoReset, Graph, ScopeRule, SignalRef
from killswitch.model.instant import MINUTE, SECOND
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.reload.continuation import PolicyLink, continuation
from killswitch.planning.reload.migration import migrated, numbered
from killswitch.planning.reload_preview import ReloadPreview, reload_preview
from killswitch.planning.scopes.migrated_states import ScopeState
from tests import graphs, worlds

FALL = SignalRef("equity.drawdown", (900 * SECOND,))
LOSS = SignalRef("equity.loss_from_start")
FIRED = 1_000 * SECOND


def policy(*stages: Any, threshold: float = 0.05, op: Any = ">=", signal: SignalRef = FALL, **more: Any) -> Graph:
    """A policy with one trigger, of these stages."""
    trigger = graphs.trigger("fall", 0, threshold, op=op, confirm=more.pop("confirm", 0),
                             on_unknown=more.pop("on_unknown", "hold"))  # fmt: skip
    return graphs.graph([signal], [trigger], stages or [graphs.stage("trim", 1, 0)], policy="desk", **more)


def link(before: Graph, after: Graph) -> PolicyLink:
    found = continuation(graphs.policy_set(before), graphs.policy_set(after))
    return found.links[before.policy]


def state(stage: str | None = "trim", level: int = 1, **more: Any) -> StoredState:
    """A state with this stage latched."""
    fields: dict[str, Any] = {
        "triggers": {}, "level": level, "stage": stage, "fired_at": FIRED, "fired_value": 1.0,
        "cooldown_until": FIRED + 30 * MINUTE, "reset_since": None, "barren": (), "acted": {}, "spent": ("fall",),
    }  # fmt: skip
    return StoredState(**fields | more)


HELD = StoredTrigger(held=True, confirmed=False, reported=False, since=5 * SECOND, ticks=None, unknown_since=None)


def test_r1_what_belongs_to_the_firing_is_kept() -> None:
    """R1: a partial firing, a pending close with its limits and accounts, and the time without a reset."""
    waiting = PendingClose("trim", ("fall",), FIRED, FIRED + MINUTE, ("main",))
    before = state(waiting=waiting, no_reset_before=FIRED + 9 * MINUTE, partial=PartialFiring("trim", 2, FIRED, "d"))
    after = migrated(before, link(policy(), policy(threshold=0.2)))
    assert (after.waiting, after.no_reset_before) == (waiting, FIRED + 9 * MINUTE)
    assert level_in_force(after) > 0


def test_r2_a_stage_latched_under_manual_stays_manual() -> None:
    """R2: the edit gives it a condition, which does not reset what is latched."""
    auto = policy(graphs.stage("trim", 1, 0, reset=AutoReset(1, 0)), reset_when=[below(0.01)])
    assert migrated(state(), link(policy(), auto)).by_hand


def below(value: float) -> Any:
    return graphs.trigger("reset", 0, value, op="<").condition


@pytest.mark.parametrize(
    ("hold", "value", "by_operator", "since"),
    [(60, 0.01, False, 7), (90, 0.01, False, 7), (30, 0.01, True, 7), (60, 0.03, True, None)],
)
def test_r2_another_condition_of_a_reset_does_not_reset_earlier(
    hold: int, value: float, by_operator: bool, since: int | None
) -> None:
    """R2, R4: the same condition held as long or longer goes on; anything else is an operator's, and its clock ends."""
    before = policy(graphs.stage("trim", 1, 0, reset=AutoReset(1, 60 * SECOND)), reset_when=[below(0.01)])
    after = policy(graphs.stage("trim", 1, 0, reset=AutoReset(1, hold * SECOND)), reset_when=[below(value)])
    found = migrated(state(reset_since=7), link(before, after))
    assert (found.by_hand, found.reset_since) == (by_operator, since)


@pytest.mark.parametrize(("minutes", "ends"), [(10, 10), (60, 30)])
def test_r2_a_running_cooldown_ends_at_the_earlier_of_both(minutes: int, ends: int) -> None:
    """R2: the stage fired with a cooldown of 30 minutes."""
    after = policy(graphs.stage("trim", 1, 0, cooldown=minutes * MINUTE))
    assert migrated(state(), link(policy(), after)).cooldown_until == FIRED + ends * MINUTE


def test_r3_the_level_in_force_is_the_new_number_of_the_stage_of_that_name() -> None:
    """R3: `trim` was 1, and is 4 now; a stage below it is not above it."""
    after = policy(graphs.stage("trim", 4, 0), graphs.stage("warn", 2, 0))
    found = migrated(state(), link(policy(), after))
    assert (found.stage, found.level) == ("trim", 4)


CLOCKS: Sequence[tuple[str, dict[str, Any], dict[str, Any], bool]] = (
    ("the same", {}, {}, True),
    ("a number that is reached earlier", {"threshold": 0.05}, {"threshold": 0.04}, True),
    ("a number that is reached later", {"threshold": 0.05}, {"threshold": 0.06}, False),
    ("a falling number that is reached earlier", {"op": "<", "threshold": 1.0}, {"op": "<", "threshold": 2.0}, True),
    ("a falling number that is reached later", {"op": "<", "threshold": 2.0}, {"op": "<", "threshold": 1.0}, False),
    ("unknown counted as true", {"on_unknown": "trip"}, {"on_unknown": "hold"}, False),
    ("unknown counts as true now", {"on_unknown": "hold"}, {"on_unknown": "trip"}, True),
    ("a longer confirmation", {"confirm": SECOND}, {"confirm": MINUTE}, True),
)


@pytest.mark.parametrize(
    ("before", "after", "goes_on"), [each[1:] for each in CLOCKS], ids=[each[0] for each in CLOCKS]
)
def test_r4_a_clock_goes_on_only_if_what_was_watched_implies_the_condition(
    before: dict[str, Any], after: dict[str, Any], goes_on: bool
) -> None:
    """R4: the trigger has been true for a while."""
    extra = {"stages": (graphs.stage("trim", 1, 0), graphs.stage("more", 2, 0))}  # so that the text is another one
    old, new = policy(**before), replace(policy(**after), **extra)
    found = migrated(state(stage=None, level=0, triggers={"fall": HELD}), link(old, new))
    assert found.triggers["fall"].since == (HELD.since if goes_on else None)


@pytest.mark.parametrize(
    "changed", [{"signal": LOSS}, {"signal": SignalRef("equity.drawdown", (60 * SECOND,))}, {"op": ">"}]
)
def test_r5_a_trigger_that_watches_something_else_is_another_trigger(changed: dict[str, Any]) -> None:
    """R5: signal, window or comparison differ: no clock, and nothing is spent."""
    found = migrated(state(triggers={"fall": HELD}), link(policy(), policy(**changed)))
    assert (found.triggers, found.spent) == ({}, ())


def test_r5_another_number_is_the_same_trigger_and_stays_spent() -> None:
    """R5: else an edit of a limit would let the stage fire a second time."""
    assert migrated(state(), link(policy(), policy(threshold=0.06))).spent == ("fall",)


def test_r6_declared_names_of_stage_and_trigger_move_and_may_change_places() -> None:
    """R6: from one copy, so that an exchange works."""
    before = graphs.graph(
        [FALL], [graphs.trigger("a", 0, 0.05), graphs.trigger("b", 0, 0.05)],
        [graphs.stage("one", 1, 0), graphs.stage("two", 2, 1)], policy="desk",
    )  # fmt: skip
    a, b = before.triggers
    two, one = before.stages
    after = replace(
        before,
        triggers=(replace(a, name="b", formerly="a"), replace(b, name="a", formerly="b")),
        stages=(replace(two, name="one", formerly="two"), replace(one, name="two", formerly="one")),
    )
    found = migrated(state(stage="two", level=2, triggers={"a": HELD}, spent=("b",)), link(before, after))
    assert (found.stage, found.level, list(found.triggers), found.spent) == ("one", 2, ["b"], ("a",))
    again = migrated(found, link(after, replace(after, mode="observe")))
    assert (again.stage, list(again.triggers)) == ("one", ["b"]), "a declaration counts once"


def test_r7_a_stage_that_is_gone_stays_in_force_and_covers_what_it_covered() -> None:
    """R7: `trim` was below it, and cannot fire; `flat` was above it, and can."""
    before = policy(graphs.stage("trim", 1, 0), graphs.stage("halve", 2, 0), graphs.stage("flat", 3, 0))
    after = policy(graphs.stage("trim", 4, 0), graphs.stage("flat", 6, 0))
    found = migrated(state(stage="halve", level=2), link(before, after), "d1")
    assert found.partial == PartialFiring("halve", 5, FIRED, "d1", is_orphan=True)
    assert (found.level, found.by_hand) == (4, True)


def test_r7_of_two_stages_that_are_gone_the_higher_stays_the_one_in_force() -> None:
    """R7: `halve` is gone since an earlier reload, and `trim`, latched below it, goes too."""
    orphan = PartialFiring("halve", 3, FIRED, "d1", is_orphan=True)
    before = policy(graphs.stage("trim", 2, 0), graphs.stage("alert", 1, 0))
    found = migrated(state(partial=orphan, level=2), link(before, policy(graphs.stage("alert", 1, 0))), "d2")
    assert found.partial is not None
    assert (found.partial.stage, found.partial.level, found.level) == ("halve", 2, 1)


def test_r7_a_stage_that_is_gone_stays_above_what_it_was_above_whatever_the_numbers_become() -> None:
    """R3, R7: after a restart onto a text in which only the stage below it is left, with a higher number."""
    orphan = PartialFiring("halve", 3, FIRED, "d1", is_orphan=True)
    found = numbered(state(partial=orphan, level=2), (graphs.stage("trim", 7, 0),))
    assert (found.level, found.partial) == (7, replace(orphan, level=8))


@pytest.mark.parametrize("is_orphan", [True, False])
def test_r7_a_stage_that_comes_back_is_latched_if_it_was(is_orphan: bool) -> None:
    """R7: after a reload and after a restart onto its text; one that had not latched may still close what is left."""
    in_force = PartialFiring("halve", 2, FIRED, "d1", is_orphan=is_orphan)
    stored = state(stage=None, level=0, partial=in_force, by_hand=True)
    after = policy(graphs.stage("trim", 4, 0), graphs.stage("halve", 6, 0))
    reloaded = migrated(stored, link(policy(graphs.stage("trim", 1, 0)), after))
    restarted = numbered(stored, after.stages)
    for found in (reloaded, restarted):
        if is_orphan:
            assert (found.stage, found.level, found.partial, found.by_hand) == ("halve", 6, None, True)
        else:
            assert (found.level, found.partial) == (0, replace(in_force, level=6))


def previewed(before: Graph, after: Graph, engine: StoredState, **more: Any) -> ReloadPreview:
    change = continuation(graphs.policy_set(before), graphs.policy_set(after))
    present = (("main", "paper", "swap", "USDT"),)
    return reload_preview(change, [ScopeState("desk", "account/main", engine, **more)], present, now=FIRED)


def test_r7_a_pending_close_holds_a_set_that_would_drop_it() -> None:
    """R7: until the close is over; the stage it belongs to is gone."""
    waiting = PendingClose("trim", ("fall",), FIRED, FIRED + MINUTE, ("main",))
    after = replace(policy(graphs.stage("trim", 1, 0)), policy="desk", mode="observe")
    (held,) = previewed(policy(), after, state(waiting=waiting)).held
    assert (held.subject, "the policy only observes" in held.text) == ("trim", True)


def test_r6_a_stage_that_is_gone_while_another_is_new_is_refused() -> None:
    """R6: it may be a rename that nobody has declared; at rest it is a removal."""
    after = policy(graphs.stage("reduce", 1, 0))
    (refused,) = previewed(policy(), after, state()).refused
    assert "formerly: trim" in refused.text
    assert previewed(policy(), after, state(stage=None, level=0)).refused == ()


def test_r6_the_content_of_another_policy_counts_as_an_undeclared_rename() -> None:
    """R6: two policies change places without saying so, while one of them is in force."""
    one, other = policy(), replace(policy(threshold=0.2), policy="other")
    swapped = graphs.policy_set(replace(other, policy="desk"), replace(one, policy="other"))
    change = continuation(graphs.policy_set(one, other), swapped)
    states = [ScopeState("desk", "account/main", state())]
    assert len(reload_preview(change, states).refused) == 2
    declared = graphs.policy_set(
        replace(other, policy="desk", formerly="other"), replace(one, policy="other", formerly="desk")
    )
    assert reload_preview(continuation(graphs.policy_set(one, other), declared), states).refused == ()


def test_r9_the_preview_says_until_when_a_longer_window_is_partly_known() -> None:
    """R9: the history began 100 seconds ago, and the window becomes an hour."""
    after = policy(signal=SignalRef("equity.drawdown", (3600 * SECOND,)))
    quiet = state(stage=None, level=0)
    (young,) = previewed(policy(), after, quiet, known_since=FIRED - 100 * SECOND).windows
    assert "partly known until 1970-01-01T01:15" in young.text


def test_r10_the_preview_says_what_happens_to_each_stage_and_clock() -> None:
    """R10: the stage stays at another level, and the confirmation begins again."""
    after = policy(graphs.stage("trim", 3, 0), threshold=0.2)
    found = previewed(policy(), after, state(triggers={"fall": HELD}))
    assert [each.text for each in found.stays] == ["trim stays in force at level 3 (it was 1)"]
    assert [each.text for each in found.clocks] == ["the confirmation of fall begins again"]


# R8


def book(second: int, *accounts: AccountSnapshot) -> Snapshot:
    return Snapshot(worlds.START + timedelta(seconds=second), accounts, "killswitch.snapshot/v1")


def of_all(*names: str) -> Graph:
    """A policy over the portfolio of these accounts."""
    scope = ScopeRule("portfolio", names, None, None, None)
    return replace(policy(signal=LOSS, threshold=0.5), scope=scope)


@pytest.mark.parametrize(("before", "after"), [(("a", "b"), ("a",)), (("a",), ("a", "b"))], ids=["out", "in"])
def test_r8_an_account_drawn_out_or_in_is_no_loss_no_gain_and_not_unknown(
    before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    """R8: the unit value stays, and a later fall counts against the accounts that are left."""
    interpreter = Interpreter(graphs.policy_set(of_all(*before)))
    accounts = [worlds.account("1000", (), name=name) for name in ("a", "b")]
    interpreter.tick(book(1, *accounts))
    interpreter.tick(book(2, *accounts))
    interpreter.reload(interpreter.prepare(graphs.policy_set(of_all(*after)), interpreter.states(), lambda *_: []))
    interpreter.tick(book(3, *accounts))
    evaluator = interpreter.evaluator("desk", "portfolio")
    assert evaluator is not None
    history = evaluator.history
    start = float(1000 * len(before))
    assert (history.unknown, history.track.value) == (None, start)
    assert history.current_equity == Decimal(1000 * len(after))
    interpreter.tick(book(4, replace(accounts[0], equity=Decimal(900)), accounts[1]))
    assert history.track.value == pytest.approx(start * (1 - 100 / (1000 * len(after))))
