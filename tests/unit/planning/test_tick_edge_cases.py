"""A tick on abnormal input: invalid numbers, impossible books, duplicate rows, accounts that come and go."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import AttributionRule, Graph, ScopeRule, SignalRef
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.snapshot import AccountSnapshot, Closing, Order, Snapshot
from tests.graphs import FALL_1H, FALL_15M, close, graph, policy_set, stage, trigger
from tests.notifying import NotifyingInterpreter
from tests.worlds import account, after, fill, flow, operator_event, position, rules, snapshot

RULE = AttributionRule(0.65, "worst_ranked", "worst_ranked")


def close_all_policy(**more: Any) -> Graph:
    """Everything is closed at a fall of 10% in 15m."""
    actions = (LockTrading("reduce_only", None), CancelOrders("entry"), close(), CancelOrders("all"))
    fields: dict[str, Any] = {
        "triggers": (trigger("crash", 0, 0.10),),
        "stages": (stage("everything", 3, 0, cooldown=HOUR, actions=actions),),
    }
    return graph((FALL_15M, FALL_1H), **{**fields, **more})


def corroborated(**more: Any) -> Graph:
    return close_all_policy(
        stages=(stage("everything", 3, 0, cooldown=HOUR, corroborate=True, actions=(close(),)),), **more
    )


def long_and_short(pnl_b: str = "0", pnl_e: str = "0", **more_b: Any) -> list[Any]:
    """Long B and short E, ten contracts each."""
    common = {"contracts": "10", "notional": "50000", "margin": "10000"}
    return [position("B", "long", pnl_b, **{**common, **more_b}), position("E", "short", pnl_e, **common)]


def at(seconds: float, pnl: str, *, equity: str | None = None, positions: Any = None, **more: Any) -> Snapshot:
    extra = {key: more.pop(key) for key in ("events", "closings") if key in more}
    accounts = account(
        equity or str(100_000 + Decimal(pnl)), long_and_short(pnl) if positions is None else positions, **more
    )
    return snapshot(after(seconds=seconds), accounts, **extra)


def calm() -> list[Snapshot]:
    return [at(300 * n, "0") for n in range(13)]


def run(interpreter: NotifyingInterpreter, *snapshots: Snapshot) -> tuple[list[Decision], list[Notice]]:
    outcomes = [interpreter.tick(one) for one in snapshots]
    return [d for o in outcomes for d in o.decisions], [n for o in outcomes for n in o.notices]


INVALID_NUMBERS = ("NaN", "sNaN", "Infinity", "1E+400")
FIELDS = (
    "entry_price",
    "mark_price",
    "index_price",
    "last_price",
    "liquidation_price",
    "notional",
    "margin",
    "leverage",
)


@pytest.mark.parametrize("odd", INVALID_NUMBERS)
@pytest.mark.parametrize("field", FIELDS)
def test_c16_one_invalid_number_does_not_prevent_the_close_of_the_rest(field: str, odd: str) -> None:
    """The invalid number is unknown; both positions are closed all the same, with and without corroboration."""
    for policy in (close_all_policy(), corroborated()):
        interpreter = NotifyingInterpreter(policy_set(policy))
        fallen = long_and_short("-12000", **{field: odd})
        decisions, _ = run(interpreter, *calm(), at(3660, "-12000", positions=fallen))
        assert [{intent.symbol for intent in d.intents} for d in decisions] == [{"B", "E"}]


@pytest.mark.parametrize("odd", [*INVALID_NUMBERS, "-2"])
def test_c16_impossible_contracts_make_the_answer_malformed_and_not_flat(odd: str) -> None:
    """Unknown, with the reason; nothing latches, and the stage fires when the answer is valid."""
    interpreter = NotifyingInterpreter(policy_set(close_all_policy()))
    broken = long_and_short("-12000", contracts=odd)
    decisions, _ = run(interpreter, *calm(), at(3660, "-12000", positions=broken))
    assert decisions == []
    assert "contracts of B" in (interpreter.status()[0].triggers[0].unknown_because or "")
    decisions, _ = run(interpreter, at(3670, "-12000"))
    assert len(decisions[0].intents) == 2


@pytest.mark.parametrize("odd", INVALID_NUMBERS)
def test_invalid_flows_fees_and_rules_are_unknown(odd: str) -> None:
    """No exception and no wrong unit value: what cannot be counted is not counted."""
    interpreter = NotifyingInterpreter(policy_set(close_all_policy()))
    odd_flow = flow("w", after(seconds=3601), odd)
    odd_fill = fill("f", after(seconds=3601), "B", "sell", odd, "1", fee="NaN", fee_currency="USDT")
    steps = rules("B", amount_step=odd, min_notional=odd)
    abnormal = at(3660, "-12000", flows=[odd_flow], fills=[odd_fill], instruments=[steps])
    decisions, _ = run(interpreter, *calm(), abnormal)
    assert len(decisions) == 1
    assert [intent.exact for intent in decisions[0].intents if intent.symbol == "B"] == [False]


def test_c1_rows_of_zero_contracts_with_margin_in_use_are_not_a_flat_book() -> None:
    """ccxt#17961: the size is given as 0."""
    interpreter = NotifyingInterpreter(policy_set(close_all_policy()))
    zero = [position("B", "long", "0", contracts="0")]
    decisions, _ = run(interpreter, *calm(), at(3660, "-15000", positions=zero, margin_used="20000"))
    assert decisions == []
    assert interpreter.status()[0].level == 0


def test_a_maximum_below_the_step_is_ignored_and_makes_no_endless_loop() -> None:
    """And slicing never leaves a last order below the minimum."""
    from killswitch.planning.rounding import reduction

    held = position("X", "long", contracts="2003")
    odd = reduction(held, Decimal(0), rules("X", amount_step="10", max_amount="5"), reduce_only=True)
    assert odd.parts == (Decimal(2000),)
    split = reduction(
        held, Decimal(0), rules("X", amount_step="1", min_amount="5", max_amount="1000"), reduce_only=True
    )
    assert split.parts == (Decimal(1000), Decimal(998), Decimal(5))


def test_a_stage_that_cannot_latch_without_data_cancels_no_protection() -> None:
    """The book is unknown: the lock is written, and the stop stays."""
    failing = SignalRef("venue.consecutive_failures")
    actions = (LockTrading("reduce_only", None), close(), CancelOrders("all"))
    policy = graph((failing,), (trigger("blind", 0, 2.0),), (stage("s", 1, 0, actions=actions),))
    stop = Order("stop", "B", "sell", Decimal(10), trigger_price=Decimal(90))
    without_positions = [
        snapshot(after(seconds=3600 + n), account(None, None, quality="down", reason="timeout", orders=[stop]))
        for n in range(3)
    ]
    interpreter = NotifyingInterpreter(policy_set(policy))
    decisions, notices = run(interpreter, *calm(), *without_positions)
    (decision,) = decisions
    assert (decision.cancels, decision.intents, decision.lock is not None) == ((), (), True)
    assert [n.kind for n in notices if n.severity == "page"] == ["nothing_selected"]
    assert not interpreter.status()[0].latched


def pair(seconds: float, a: AccountSnapshot, b: AccountSnapshot | None) -> Snapshot:
    return snapshot(after(seconds=seconds), *([a] if b is None else [a, b]))


def one_of_two(name: str, equity: str, pnl: str = "0") -> AccountSnapshot:
    return account(equity, long_and_short(pnl), name=name)


def test_c5_a_portfolio_with_an_account_down_closes_the_rest_and_latches_on_its_return() -> None:
    """Readable accounts are closed at once; the stage fires again for the others."""
    policy = graph(
        (SignalRef("venue.consecutive_failures"),),
        (trigger("failing", 0, 3.0),),
        (stage("close", 3, 0, actions=(close(),)),),
        scope=ScopeRule("portfolio", None, None, None, None),
    )
    interpreter = NotifyingInterpreter(policy_set(policy))
    down = account(None, None, name="b", quality="down", reason="timeout")
    decisions, notices = run(
        interpreter,
        *(pair(n, one_of_two("a", "100000"), one_of_two("b", "100000")) for n in range(3)),
        *(pair(n, one_of_two("a", "100000"), down) for n in range(3, 8)),
    )
    (decision,) = decisions
    assert {intent.account for intent in decision.intents} == {"a"}
    assert [n.severity for n in notices if n.kind == "nothing_selected"] == ["page"]
    assert not interpreter.status()[0].latched


def test_a_portfolios_members_are_kept_over_a_restart() -> None:
    """Started again without one account: unknown, not half the equity; an operator reset accepts the others."""
    whole = close_all_policy(scope=ScopeRule("portfolio", None, None, None, None))
    interpreter = NotifyingInterpreter(policy_set(whole))
    rows = []
    for n in range(13):
        interpreter.tick(pair(300 * n, one_of_two("a", "100000"), one_of_two("b", "100000")))
        rows += interpreter.rows()
    again = NotifyingInterpreter(policy_set(whole))
    again.restore(interpreter.states(), lambda p, s, since: [row for row in rows if row.at >= since])
    decisions, _ = run(again, pair(3660, one_of_two("a", "100000"), None), pair(3800, one_of_two("a", "100000"), None))
    assert decisions == []
    assert again.status()[0].triggers[0].truth is None


def test_an_operator_close_closes_readable_accounts_and_pages_for_the_rest() -> None:
    """C12: one account down blocks nothing else; an empty book with margin in use is not flat."""
    interpreter = NotifyingInterpreter(policy_set(close_all_policy()))
    empty = account("50000", [], name="b", margin_used="9000")
    command = operator_event("close", after(seconds=1), "portfolio")
    polled = replace(pair(2, one_of_two("a", "100000"), empty), events=(command,))
    decisions, notices = run(interpreter, polled)
    assert {intent.account for intent in decisions[0].intents} == {"a"}
    assert decisions[0].waits_for == ("b",)
    (notice,) = notices
    assert notice.severity == "page"
    assert notice.text.startswith("the close by hand waits: b reports no positions, but 9000 USDT of margin in use; --")
    alone = replace(
        snapshot(after(seconds=3), empty), events=(operator_event("close", after(seconds=3), "account/b", "e2"),)
    )
    decisions, notices = run(interpreter, alone)
    assert decisions == []
    assert notices[0].severity == "page"


def test_c12_a_halted_symbol_is_ordered_all_the_same_and_pages() -> None:
    """Its order is in the decision, for when the venue opens the market again; the others are not held up."""
    interpreter = NotifyingInterpreter(policy_set(close_all_policy()))
    halted = at(3660, "-12000", instruments=[rules("B", state="halted"), rules("E")])
    decisions, notices = run(interpreter, *calm(), halted)
    assert {intent.symbol for intent in decisions[0].intents} == {"B", "E"}
    assert [(n.severity, n.text) for n in notices if n.kind == "blocked"] == [("page", "B is halted at the venue")]


def test_a_position_that_vanished_without_a_fill_makes_attribution_unknown_and_not_the_other_side() -> None:
    """D4: the long vanished between two snapshots and no fill says what it lost."""
    policy = close_all_policy(stages=(stage("trim", 1, 0, attribution=RULE, actions=(close("losing", "0.5"),)),))
    interpreter = NotifyingInterpreter(policy_set(policy))
    left = [position("E", "short", "-1000", contracts="10", notional="50000")]
    decisions, _ = run(interpreter, *calm(), at(3660, "-12000", positions=left), at(3730, "-12000", positions=left))
    (decision,) = decisions
    assert decision.attribution is not None
    assert decision.attribution.source == "UNKNOWN"
    assert decision.attribution.reason == (
        "the profit or loss of closed B is unknown; therefore the worst ranked positions of both sides are selected"
    )


def test_two_rows_of_one_symbol_and_side_are_one_position() -> None:
    """Two strategies hold the same contract: one order for both, and no unexplained change."""

    def split(pnl: str) -> list[Any]:
        half = str(Decimal(pnl) / 2)
        return [
            position("B", "long", half, contracts=c, notional="1000", strategy=s) for c, s in (("3", "x"), ("1", "y"))
        ]

    interpreter = NotifyingInterpreter(policy_set(close_all_policy()))
    quiet = [at(300 * n, "0", positions=split("0")) for n in range(13)]
    decisions, notices = run(interpreter, *quiet, at(3660, "-12000", positions=split("-12000")))
    assert [(i.symbol, i.contracts) for i in decisions[0].intents] == [("B", Decimal(4))]
    assert notices == []


def stray(mark: str, index: str | None, last: str | None, **more: Any) -> Snapshot:
    prices = {"mark_price": mark, "index_price": index, "last_price": last, "entry_price": "10000"}
    given = {key: value for key, value in prices.items() if value is not None}
    pnl = str((Decimal(mark) - 10000) * 5)
    fallen = [position("B", "long", pnl, contracts="5", notional=str(Decimal(mark) * 5), **given)]
    return at(more.pop("seconds", 3660), pnl, positions=fallen, **more)


def test_d16_a_stray_print_is_checked_without_the_venues_rules_and_against_the_index_first() -> None:
    """Without instruments the notional gives the size; a last price that strays with the mark does not confirm it."""
    for index, last in (("10000", "10000"), ("10000", "5000"), (None, "10000")):
        interpreter = NotifyingInterpreter(policy_set(corroborated()))
        steady = [stray("10000", "10000", "10000", seconds=300 * n) for n in range(13)]
        decisions, notices = run(interpreter, *steady, stray("5000", index, last))
        assert decisions == [], (index, last)
        assert [n.kind for n in notices] == ["uncorroborated"]


def test_d16_a_second_snapshot_is_evaluated_by_every_signal_and_its_flows_count() -> None:
    """A trigger on equity itself; and a deposit within the two seconds does not hide a real fall."""
    value = graph(
        (SignalRef("equity.value"),), (trigger("poor", 0, 90_000.0, op="<="),),
        (stage("s", 1, 0, corroborate=True, actions=(close(),)),),
    )  # fmt: skip
    interpreter = NotifyingInterpreter(policy_set(value))
    run(interpreter, *calm())
    pending = interpreter.evaluate(at(3660, "-12000"))
    assert pending is not None
    assert interpreter.decide(pending, at(3661, "0")).decisions == ()
    interpreter = NotifyingInterpreter(policy_set(corroborated()))
    run(interpreter, *calm())
    pending = interpreter.evaluate(at(3660, "-12000"))
    assert pending is not None
    paid = flow("d", after(seconds=3660.5), "20000", "deposit")
    again = at(3661, "-12000", equity="108000", flows=[paid])
    assert len(interpreter.decide(pending, again).decisions) == 1
    run(interpreter, at(3670, "-12000", equity="108000"))
    assert interpreter.status()[0].triggers[0].value == (pytest.approx(0.12), pytest.approx(0.12))


def test_d18_the_cost_of_a_close_is_unchanged_by_a_withdrawal_and_kept_when_orders_were_merged() -> None:
    """500 paid on 100,000 stay half a percent of a unit; and the policy whose orders another one sent pays too."""
    again = close_all_policy(stages=(stage("all", 1, 0, cooldown=MINUTE, actions=(close(),)),), policy="p2")
    first = close_all_policy(stages=(stage("all", 1, 0, cooldown=2 * HOUR, actions=(close(),)),), policy="p1")
    interpreter = NotifyingInterpreter(policy_set(first, again))
    decisions, _ = run(interpreter, *calm(), at(3660, "-12000"))
    assert [len(d.intents) for d in decisions] == [2, 0]
    cost = (Closing(decisions[0].id, "flat", cost=Decimal(400)),)
    decisions, _ = run(interpreter, at(3730, "-12400", closings=cost), at(3740, "-12500", closings=cost))
    fired = [(d.policy, d.as_of) for d in decisions]
    assert fired == [("p2", after(seconds=3740))], "the first 400 were the close's own"


def test_a_fall_through_a_restated_past_may_fire_again() -> None:
    """After a wipe-out and new money the same level fires when the new money falls."""
    interpreter = NotifyingInterpreter(
        policy_set(close_all_policy(stages=(stage("all", 1, 0, cooldown=MINUTE, actions=(close(),)),)))
    )
    paid = flow("d", after(seconds=3700), "150000", "deposit")
    steps = [
        at(3660, "-100010"), at(3710, "-100010", equity="49990", flows=[paid]),
        *(at(3710 + 300 * n, "-100010", equity="49990") for n in range(1, 13)),
        at(7600, "-120010", equity="29990"),
    ]  # fmt: skip
    decisions, _ = run(interpreter, *calm(), *steps)
    assert [d.as_of for d in decisions] == [after(seconds=3660), after(seconds=7600)]


def test_a_reset_during_an_outage_begins_the_windows_when_the_venue_answers() -> None:
    """D18: the row from before the outage does not fire the stage again."""
    interpreter = NotifyingInterpreter(policy_set(close_all_policy()))
    down = account(None, None, quality="down", reason="timeout")
    outage = [
        snapshot(after(seconds=3700), down),
        replace(snapshot(after(seconds=3710), down), events=(operator_event("reset", after()),)),
    ]
    decisions, _ = run(interpreter, *calm(), at(3660, "-12000"), *outage, at(3720, "-25000"), at(3730, "-25100"))
    assert [d.kind for d in decisions] == [None, "reset"]


def test_a_reset_of_a_scope_without_a_policy_is_reported() -> None:
    """A misspelt scope is reported."""
    interpreter = NotifyingInterpreter(policy_set(close_all_policy()))
    wrong = operator_event("reset", after(), "account/mian")
    _, notices = run(interpreter, *calm(), at(3660, "0", events=[wrong]))
    assert [n.text for n in notices] == [
        "a reset was received for account/mian, but no policy watches it and nothing is latched there; no lock by hand "
        "is left"
    ]


def test_the_latch_of_a_renamed_policy_is_listed_and_a_reset_ends_it() -> None:
    """An edit never un-latches: the orphan is listed until an operator resets its scope, and then for good."""
    interpreter = NotifyingInterpreter(policy_set(close_all_policy(policy="old")))
    run(interpreter, *calm(), at(3660, "-12000"))
    renamed = NotifyingInterpreter(policy_set(close_all_policy(policy="new")))
    renamed.restore(interpreter.states(), lambda _p, _s, _since: ())
    run(renamed, at(3670, "-12000"))
    assert [(o.policy, o.scope, o.level, o.stage) for o in renamed.orphans()] == [
        ("old", "account/main", 3, "everything")
    ]
    decisions, _ = run(renamed, at(3680, "-12000", events=[operator_event("reset", after())]))
    assert [(d.kind, d.policy, d.previous_level) for d in decisions] == [("reset", "old", 3)]
    left = renamed.states()
    assert renamed.orphans() == ()
    third = NotifyingInterpreter(policy_set(close_all_policy(policy="new")))
    third.restore(left, lambda _p, _s, _since: ())
    run(third, at(3690, "-12000"))
    assert third.orphans() == ()


def test_two_refused_stages_page_once_each_and_a_new_print_pages_again() -> None:
    """One notice for each period of uncorroborated prices, one for its end, and not one a tick."""
    rule = AttributionRule(0.65, "none", "none")
    policy = close_all_policy(
        triggers=(trigger("fall", 0, 0.05), trigger("crash", 0, 0.10)),
        stages=(
            stage("trim", 1, 0, attribution=rule, actions=(close("losing", "0.5"),)),
            stage("all", 3, 1, corroborate=True, actions=(close(),)),
        ),
    )
    interpreter = NotifyingInterpreter(policy_set(policy))
    steady = [stray("10000", "10000", "10000", seconds=300 * n) for n in range(13)]
    bad = [stray("5000", "10000", "10000", seconds=3660 + n) for n in range(3)]
    good = [stray("10000", "10000", "10000", seconds=3670)]
    worse = [stray("5000", "10000", "10000", seconds=3680 + n) for n in range(2)]
    _, notices = run(interpreter, *steady, *bad, *good, *worse)
    found = [(n.subject, n.text.partition(":")[0]) for n in notices if n.kind == "uncorroborated"]
    begun, over = "all did not fire", "uncorroborated prices no longer keep all from firing, after 10 s"
    assert found == [("all", begun), ("all", over), ("all", begun)]


def test_c23_of_a_half_and_a_whole_only_the_whole_is_ordered() -> None:
    """The smallest target gets the orders, whichever policy comes first."""
    half = close_all_policy(stages=(stage("half", 1, 0, actions=(close("both", "0.5"),)),), policy="a")
    whole = close_all_policy(stages=(stage("whole", 1, 0, actions=(close(),)),), policy="b")
    for policies in ((half, whole), (whole, half)):
        decisions, _ = run(NotifyingInterpreter(policy_set(*policies)), *calm(), at(3660, "-12000"))
        ordered = {d.policy: sum(intent.contracts for intent in d.intents) for d in decisions}
        assert ordered == {"a": 0, "b": Decimal(20)}


def test_a_reset_during_an_outage_accepts_the_loss_found_when_the_venue_answers() -> None:
    """The reset comes while the equity is unknown: counting begins at the equity that is found afterwards."""
    start = SignalRef("equity.loss_from_start")
    policy = graph((start,), (trigger("loss", 0, 0.05),), (stage("s", 1, 0, cooldown=MINUTE, actions=(close(),)),))
    interpreter = NotifyingInterpreter(policy_set(policy))
    down = account(None, None, quality="down", reason="timeout")
    reset = replace(snapshot(after(seconds=3710), down), events=(operator_event("reset", after()),))
    later = [at(3720, "-20000"), at(3730, "-21000")]
    decisions, _ = run(interpreter, *calm(), at(3660, "-6000"), reset, *later)
    assert [d.kind for d in decisions] == [None, "reset"]


def flapping() -> NotifyingInterpreter:
    policy = graph(
        (SignalRef("venue.consecutive_failures"),),
        (trigger("failing", 0, 2.0),),
        (stage("halve", 3, 0, actions=(close("both", "0.5"),)),),
        scope=ScopeRule("portfolio", None, None, None, None),
    )
    return NotifyingInterpreter(policy_set(policy))


def test_a_stage_that_cannot_latch_acts_on_an_account_once_in_its_cooldown() -> None:
    """b comes and goes every few seconds: a is halved once, not again and again."""
    a, up = one_of_two("a", "100000"), one_of_two("b", "100000")
    down = account(None, None, name="b", quality="down", reason="timeout")
    snapshots = [pair(5 * n, a, up if n % 4 == 0 else down) for n in range(24)]
    decisions, _ = run(flapping(), *snapshots)
    assert [{intent.account for intent in d.intents} for d in decisions if d.intents] == [{"a"}]


def test_an_account_that_answers_again_while_another_does_not_is_closed() -> None:
    """Both are down at first; then a answers and is closed."""
    gone = account(None, None, name="a", quality="down", reason="timeout")
    down = account(None, None, name="b", quality="down", reason="timeout")
    both = [pair(n, one_of_two("a", "100000"), one_of_two("b", "100000")) for n in range(2)]
    decisions, _ = run(
        flapping(),
        *both,
        *(pair(n, gone, down) for n in range(2, 5)),
        pair(6, one_of_two("a", "80000", "-20000"), down),
    )
    assert [{intent.account for intent in d.intents} for d in decisions] == [set(), {"a"}]


def test_an_operator_reset_removes_a_missing_account_from_the_scope_without_a_latch_too() -> None:
    """The portfolio continues without it: no page about lost money, and a fall of the rest fires."""
    whole = close_all_policy(scope=ScopeRule("portfolio", None, None, None, None))
    interpreter = NotifyingInterpreter(policy_set(whole))
    both = [pair(300 * n, one_of_two("a", "100000"), one_of_two("b", "100000")) for n in range(13)]
    reset = replace(
        pair(3660, one_of_two("a", "100000"), None), events=(operator_event("reset", after(), "portfolio"),)
    )
    quiet = [pair(3670 + 300 * n, one_of_two("a", "100000"), None) for n in range(5)]
    decisions, notices = run(interpreter, *both, reset, *quiet, pair(5000, one_of_two("a", "80000", "-20000"), None))
    assert [d.stage for d in decisions] == ["everything"]
    assert [n.kind for n in notices if n.kind == "unexplained"] == []


def test_a_reset_of_an_orphaned_latch_accepts_its_loss() -> None:
    """The policy is restored at the same equity: it does not fire at once."""
    start = SignalRef("equity.loss_from_start")
    loss = graph(
        (start,), (trigger("loss", 0, 0.10),), (stage("s", 1, 0, actions=(close(),)),), policy="breaker"
    )  # fmt: skip
    interpreter = NotifyingInterpreter(policy_set(loss))
    run(interpreter, *calm(), at(3660, "-15000"))
    without = NotifyingInterpreter(policy_set(close_all_policy(policy="other")))
    without.restore(interpreter.states(), lambda _p, _s, _since: ())
    run(without, at(3670, "-15000", events=[operator_event("reset", after())]))
    back = NotifyingInterpreter(policy_set(loss))
    back.restore(without.states(), lambda _p, _s, _since: ())
    decisions, _ = run(back, at(3680, "-15000"), at(3690, "-15000"))
    assert decisions == []


def test_the_cost_of_a_closing_in_progress_is_no_new_loss() -> None:
    """p2's orders were left to p1's closing; its further cost is not p2's new loss."""
    first = close_all_policy(stages=(stage("all", 1, 0, cooldown=2 * HOUR, actions=(close(),)),), policy="p1")
    late = close_all_policy(
        triggers=(trigger("late", 0, 0.05, confirm=5 * MINUTE // 60),),
        stages=(stage("all", 1, 0, cooldown=MINUTE, actions=(close(),)),),
        policy="p2",
    )
    interpreter = NotifyingInterpreter(policy_set(first, late))
    (one,), _ = run(interpreter, *calm(), at(3660, "-12000"))
    working = (Closing(one.id, "closing", cost=Decimal(100)),)
    (two_,), _ = run(interpreter, at(3670, "-12000", closings=working))
    assert (two_.policy, two_.intents) == ("p2", ())
    done = (Closing(one.id, "flat", cost=Decimal(1100)),)
    decisions, _ = run(interpreter, at(3740, "-13000", closings=done))
    assert decisions == []


def test_d16_a_stray_print_upwards_is_no_peak_to_fall_from() -> None:
    """One tick at 1.5 times the price, index and last unmoved: back to normal nothing fell, also after a restart."""
    interpreter = NotifyingInterpreter(policy_set(corroborated()))
    rows = []
    steady = [stray("10000", "10000", "10000", seconds=300 * n) for n in range(13)]
    for one in [*steady, stray("15000", "10000", "10000", seconds=3610)]:
        interpreter.tick(one)
        rows += interpreter.rows()
    again = NotifyingInterpreter(policy_set(corroborated()))
    again.restore(interpreter.states(), lambda _p, _s, since: [row for row in rows if row.at >= since])
    for each in (interpreter, again):
        decisions, _ = run(each, stray("10000", "10000", "10000", seconds=3620))
        assert decisions == []
        assert each.status()[0].triggers[0].value == (0.0, 0.0)


@pytest.mark.parametrize(("contracts", "notional"), [("1", "1e27"), ("5e28", "5"), ("5e28", None)])
def test_c16_one_absurd_number_does_not_stop_the_close_of_the_rest(contracts: str, notional: str | None) -> None:
    """A row that no market could hold: the valid positions are closed by the policy and by an operator."""
    bad = position("X", "long", "0", contracts=contracts, mark_price="1", notional=notional)
    interpreter = NotifyingInterpreter(policy_set(close_all_policy()))

    def snapshot_at(seconds: float, pnl: str, **more: Any) -> Snapshot:
        return at(
            seconds,
            pnl,
            positions=[*long_and_short(pnl), bad],
            instruments=(rules("B"), rules("E"), rules("X")),
            **more,
        )

    run(interpreter, *(snapshot_at(300 * n, "0") for n in range(13)))
    for commands in ((), (operator_event("close", after(seconds=3661)),)):
        decisions, _ = run(interpreter, snapshot_at(3660 + len(commands), "-20000", events=commands))
        [decision] = decisions
        assert {"B", "E"} <= {intent.symbol for intent in decision.intents}
