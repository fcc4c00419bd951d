"""The interpreter: from snapshots to decisions, with the named failure cases of decisions."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from killswitch.engine.alerts import read_state
from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import (
    AttributionRule,
    AutoReset,
    Compare,
    EquityRule,
    Graph,
    Number,
    ScopeRule,
    SignalRead,
    SignalRef,
)
from killswitch.model.decision import Decision
from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.model.snapshot import Closing, Order, Position, Snapshot
from killswitch.model.store import HistoryRow, MachineState
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.planning.scopes.evaluator import notified_earlier
from killswitch.planning.stage_decision import Proposal, propose
from tests.graphs import FALL_1H, FALL_15M, close, graph, policy_set, stage, trigger
from tests.notifying import NotifyingInterpreter
from tests.worlds import account, after, fill, flow, operator_event, position, rules, snapshot

RULE = AttributionRule(0.65, "worst_ranked", "worst_ranked")


def policy(**more: Any) -> Graph:
    """Level 1 at 5% in 15m (halves the losing side), level 3 at 10% (everything, corroborated)."""
    fields: dict[str, Any] = {
        "triggers": (trigger("fall", 0, 0.05), trigger("crash", 0, 0.10)),
        "stages": (
            stage(
                "trim", 1, 0, attribution=RULE,
                actions=(LockTrading("reduce_only", 30 * MINUTE), CancelOrders("entry"), close("losing", "0.5")),
            ),
            stage(
                "everything", 3, 1, cooldown=6 * HOUR, corroborate=True,
                actions=(LockTrading("reduce_only", None), CancelOrders("entry"), close(), CancelOrders("all")),
            ),
        ),
    }  # fmt: skip
    return graph((FALL_15M, FALL_1H), **{**fields, **more})


def book(long_pnl: str, short_pnl: str = "0", **more: str) -> list[Position]:
    common = {"contracts": "10", "notional": "50000", "margin": "10000", **more}
    return [position("L", "long", long_pnl, **common), position("S", "short", short_pnl, **common)]


def at(minute: float, long_pnl: str, short_pnl: str = "0", **more: Any) -> Snapshot:
    """Equity 100,000 plus both P&Ls, `minute` minutes after the start."""
    equity = str(100_000 + Decimal(long_pnl) + Decimal(short_pnl))
    extra = {key: more.pop(key) for key in ("events", "closings", "scheduled") if key in more}
    positions: Sequence[Position] | None = more.pop("positions", book(long_pnl, short_pnl))
    return snapshot(after(minutes=minute), account(equity, positions, **more), **extra)


def run(interpreter: NotifyingInterpreter, *snapshots: Snapshot) -> list[Outcome]:
    return [interpreter.tick(one) for one in snapshots]


def fired(outcomes: list[Outcome]) -> list[Decision]:
    return [decision for outcome in outcomes for decision in outcome.decisions]


def calm(minutes: int = 15) -> list[Snapshot]:
    return [at(minute, "0") for minute in range(minutes + 1)]


def test_a_fall_of_the_longs_halves_the_longs() -> None:
    """Exact intents, lock, cooldown, attribution and book, as the decision record has them."""
    interpreter = NotifyingInterpreter(policy_set(policy()))
    first = replace(calm()[0], accounts=(replace(calm()[0].accounts[0], instruments=(rules("L"), rules("S"))),))
    (decision,) = fired(run(interpreter, first, *calm()[1:], at(16, "-7000", "1000")))
    assert (decision.level, decision.previous_level, decision.stage) == (1, 0, "trim")
    assert decision.attribution is not None
    assert (decision.attribution.source, decision.attribution.long_share) == ("LONG", "1")
    (intent,) = decision.intents
    assert (intent.symbol, intent.side, intent.contracts, intent.target, intent.reduce_only, intent.exact) == (
        "L", "sell", Decimal(5), Decimal(5), True, True,
    )  # fmt: skip
    assert decision.lock is not None
    assert decision.lock.until == after(minutes=46)
    assert decision.cooldown_until == after(minutes=46)
    assert decision.triggers[0].value == ("0.06", "0.06")
    assert decision.book is not None
    assert (decision.book.before.gross, decision.book.after.gross) == (Decimal("100000.00"), Decimal("75000.00"))
    assert (decision.book.before.net, decision.book.after.net) == (Decimal("0.00"), Decimal("-25000.00"))


def test_d4_a_still_profitable_position_that_fell_and_a_closed_one_are_attributed() -> None:
    """The long fell from +9,000 to +1,000; a second long was closed at a loss of 3,000; the short made 1,000."""
    positions = [position("L", "long", "9000"), position("M", "long", "0"), position("S", "short", "0")]
    before = [snapshot(after(minutes=m), account("109000", positions)) for m in range(16)]
    closed = fill("f", after(minutes=15.5), "M", "sell", "1", "1", realized_pnl="-3000", fee="0", fee_currency="USDT")
    left = [position("L", "long", "1000"), position("S", "short", "1000")]
    now = snapshot(after(minutes=16), account("99000", left, fills=[closed]))
    (decision,) = fired(run(NotifyingInterpreter(policy_set(policy())), *before, now))
    assert decision.attribution is not None
    assert decision.attribution.source == "LONG"
    assert [intent.symbol for intent in decision.intents] == ["L"]


def test_d7_a_first_cycle_attributes_nothing_from_zero() -> None:
    """Started during a crash: the observed fall fires, its source is UNKNOWN, not the whole P&L."""
    outcomes = run(NotifyingInterpreter(policy_set(policy())), at(0, "-30000", "-20000"), at(1, "-33000", "-20000"))
    (decision,) = fired(outcomes)
    assert decision.attribution is not None
    assert decision.attribution.source == "UNKNOWN"
    assert decision.attribution.reason == (
        "history reaches back 60 s of 15 min; therefore the worst ranked positions of both sides are selected"
    )


def restarted(interpreter: NotifyingInterpreter, rows: list[HistoryRow]) -> NotifyingInterpreter:
    """Another process that continues from the stored state."""
    again = NotifyingInterpreter(policy_set(policy()))
    kept = [row for row in rows if row.at >= 0]
    again.restore(
        interpreter.states(), lambda p, s, since: [r for r in kept if (r.policy, r.scope) == (p, s) and r.at >= since]
    )
    return again


def test_d7_a_restart_during_a_crash_continues_with_its_history() -> None:
    """State and rows from the store: the same decision as without the restart, attribution included."""
    straight, stopped = NotifyingInterpreter(policy_set(policy())), NotifyingInterpreter(policy_set(policy()))
    rows: list[HistoryRow] = []
    crash = [*calm(), at(16, "-3000")]
    for one in crash:
        straight.tick(one)
        stopped.tick(one)
        rows += stopped.rows()
    again = restarted(stopped, rows)
    assert again.tick(at(17, "-6000")) == straight.tick(at(17, "-6000"))
    assert again.states() == straight.states()


def test_a_latch_survives_restart_reload_and_edit() -> None:
    """A reload, a restart or an edit never un-latches."""
    interpreter = NotifyingInterpreter(policy_set(policy()))
    rows: list[HistoryRow] = []
    for one in [*calm(), at(16, "-6000")]:
        interpreter.tick(one)
        rows += interpreter.rows()
    again = restarted(interpreter, rows)
    assert fired(run(again, at(17, "-6000"), at(18, "-6500"))) == []
    assert again.status()[0].level == 1


def test_d14_an_equity_that_is_no_number_is_unknown_with_the_reason() -> None:
    """NaN neither fires nor clears; the reason is kept."""
    interpreter = NotifyingInterpreter(policy_set(policy()))
    run(interpreter, *calm(), at(16, "0"))
    broken = replace(at(17, "0").accounts[0], equity=Decimal("NaN"))
    assert fired(run(interpreter, snapshot(after(minutes=17), broken))) == []
    reading = interpreter.status()[0].triggers[0]
    assert reading.truth is None
    assert reading.unknown_because == "main reports an equity of NaN USDT"


@pytest.mark.parametrize(
    ("polled", "why"),
    [
        (account("50000", [], margin_used="9000"), "main reports no positions, but 9000 USDT of margin in use"),
        (account(None, None), "main reports no equity"),
        (account(None, None, quality="down", reason="timeout"), "main is down: timeout"),
        (account("50000", [], quality="stale", reason="feed stopped"), "main is stale: feed stopped"),
    ],
)
def test_c1_an_empty_or_failed_answer_is_unknown_and_never_flat(polled: Any, why: str) -> None:
    """No stage fires, none is recorded, and nothing counts as calm; when the venue answers, it fires."""
    interpreter = NotifyingInterpreter(policy_set(policy()))
    run(interpreter, *calm())
    assert fired(run(interpreter, snapshot(after(minutes=16), polled))) == []
    assert interpreter.status()[0].triggers[0].unknown_because == why
    (decision,) = fired(run(interpreter, at(17, "-6000")))
    assert len(decision.intents) == 1


def test_d15_the_crash_during_an_outage_fires_when_the_venue_is_back() -> None:
    """Half a minute without answers in the middle: the fall during it counts."""
    gone = snapshot(after(minutes=16), account(None, None, quality="down", reason="timeout"))
    outcomes = run(NotifyingInterpreter(policy_set(policy())), *calm(), gone, at(16.5, "-12000"))
    assert [decision.level for decision in fired(outcomes)] == [3]


def priced(mark: str, index: str | None, last: str | None, pnl: str) -> list[Position]:
    more = {"index_price": index, "last_price": last}
    given = {key: value for key, value in more.items() if value is not None}
    return [position("BCH", "long", pnl, contracts="100", mark_price=mark, entry_price="1000", **given)]


def prints(minute: float, mark: str, index: str | None, last: str | None) -> Snapshot:
    pnl = str((Decimal(mark) - 1000) * 100)
    polled = account(
        str(100_000 + Decimal(pnl)), priced(mark, index, last, pnl), instruments=[rules("BCH", contract_size="1")]
    )
    return snapshot(after(minutes=minute), polled)


def only_corroborated() -> Graph:
    return policy(stages=(policy().stages[0],))


def test_d16_one_stray_print_does_not_close_the_book() -> None:
    """A mark at half of index and last: level 3 does not fire, the print is named, once."""
    interpreter = NotifyingInterpreter(policy_set(only_corroborated()))
    steady = [prints(minute, "1000", "1000", "1000") for minute in range(16)]
    outcomes = run(interpreter, *steady, prints(16, "500", "995", "998"), prints(16.1, "500", "995", "998"))
    assert fired(outcomes) == []
    reported = [notice for outcome in outcomes for notice in outcome.notices if notice.kind == "uncorroborated"]
    assert [(notice.severity, notice.text) for notice in reported] == [
        (
            "warning",
            "everything did not fire: BCH mark 500 against index 995 and last 998; "
            "prices are fetched again at each tick",
        ),
    ]
    assert fired(run(interpreter, prints(17, "998", "998", "998"))) == []


def test_d16_a_fall_that_index_and_last_confirm_fires() -> None:
    """And so does one without other known prices: nothing contradicts it."""
    for index, last in (("505", "500"), (None, None)):
        interpreter = NotifyingInterpreter(policy_set(only_corroborated()))
        steady = [prints(minute, "1000", "1000", "1000") for minute in range(16)]
        (decision,) = fired(run(interpreter, *steady, prints(16, "500", index, last)))
        assert decision.level == 3


def test_d16_a_second_snapshot_without_a_fall_prevents_the_stage_from_firing() -> None:
    """A corroborating stage requests one more snapshot of its accounts only; without an answer the first one counts."""
    for again, fires in ((at(16.02, "-100"), False), (at(16.02, "-13000"), True), (None, True)):
        interpreter = NotifyingInterpreter(policy_set(only_corroborated()))
        run(interpreter, *calm())
        pending = interpreter.evaluate(at(16, "-12000"))
        assert pending is not None
        assert pending.reread == ("main",)
        outcome = interpreter.decide(pending, again)
        assert bool(outcome.decisions) is fires


def test_a_decision_that_selects_nothing_of_a_full_book_neither_latches_nor_cools_down_and_pages() -> None:
    """MIXED with `if_mixed: none`: one page, and the stage may fire at the next tick that has a side."""
    rule = AttributionRule(0.65, "none", "none")
    one = policy(stages=(stage("trim", 1, 0, attribution=rule, actions=(close("losing", "0.5"),)),))
    interpreter = NotifyingInterpreter(policy_set(one))
    outcomes = run(interpreter, *calm(), at(16, "-3000", "-3000"), at(16.5, "-3000", "-3000"))
    assert fired(outcomes) == []
    assert [n.kind for o in outcomes for n in o.notices if n.severity == "page"] == ["nothing_selected"]
    assert interpreter.status()[0].level == 0
    assert len(fired(run(interpreter, at(17, "-9000", "-3000")))) == 1


def test_a_stage_that_selects_nothing_yields_to_the_next_lower_one() -> None:
    """MIXED with `if_mixed: none` at level 3, both sides at level 1: half is closed at once, and level 3 pages once."""
    losing, both = AttributionRule(0.65, "none", "none"), (close("both", "0.5"),)
    one = policy(
        stages=(
            stage("losers", 3, 0, attribution=losing, actions=(close("losing", "1"),)),
            stage("trim", 1, 0, attribution=losing, actions=both),
        )
    )
    outcomes = run(NotifyingInterpreter(policy_set(one)), *calm(), at(16, "-3000", "-3000"), at(16.5, "-3000", "-3000"))
    assert [(decision.stage, len(decision.intents)) for decision in fired(outcomes)] == [("trim", 2)]
    pages = [n.kind for o in outcomes for n in o.notices if n.severity == "page"]
    assert pages == ["nothing_selected"]


def test_the_page_of_a_stage_that_selects_nothing_has_the_remarks_of_its_actions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No decision is recorded that could carry them."""

    def with_remark(*arguments: Any) -> Proposal:
        made = propose(*arguments)
        return replace(made, decision=replace(made.decision, reason="the notional of B is unknown"))

    monkeypatch.setattr("killswitch.planning.firing.propose", with_remark)
    rule = AttributionRule(0.65, "none", "none")
    one = policy(stages=(stage("trim", 1, 0, attribution=rule, actions=(close("losing", "0.5"),)),))
    outcomes = run(NotifyingInterpreter(policy_set(one)), *calm(), at(16, "-3000", "-3000"))
    (page,) = [n for o in outcomes for n in o.notices if n.severity == "page"]
    assert "(the notional of B is unknown)" in page.text


def test_a_flat_book_latches_and_locks() -> None:
    """A flat book without a selection is no failure: the lock keeps it flat."""
    interpreter = NotifyingInterpreter(policy_set(policy()))
    lost = fill("f", after(minutes=15.5), "L", "sell", "10", "1", realized_pnl="-7000", fee="0", fee_currency="USDT")
    gone = fill("g", after(minutes=15.5), "S", "buy", "10", "1", realized_pnl="0", fee="0", fee_currency="USDT")
    (decision,) = fired(run(interpreter, *calm(), at(16, "-7000", positions=[], fills=[lost, gone])))
    assert decision.intents == ()
    assert decision.lock is not None
    assert interpreter.status()[0].level == 1


def test_entries_are_cancelled_and_protection_is_kept_until_the_end() -> None:
    """C7: only a true boolean is reduce-only; of a long of 10, a sale of 6 next to a bounded one of 4 protects it
    whatever its flag says, and a sale of 11 does not.
    """

    def order(id_: str, side: str, amount: str, reduce_only: bool | None) -> Order:
        return Order(id_, "L", side, Decimal(amount), reduce_only=reduce_only)  # type: ignore[arg-type]  # literal

    orders = [order("entry", "buy", "3", False), order("stop", "sell", "6", None), order("tp", "sell", "4", True),
              order("flip", "sell", "11", None)]  # fmt: skip
    (one,) = fired(run(NotifyingInterpreter(policy_set(policy())), *calm(), at(16, "-6000", orders=orders)))
    assert [(c.order, c.why) for c in one.cancels] == [("entry", "entry"), ("flip", "entry")]
    (three,) = fired(run(NotifyingInterpreter(policy_set(policy())), *calm(), at(16, "-12000", orders=orders)))
    assert {(c.order, c.why) for c in three.cancels} == {
        ("entry", "entry"), ("flip", "entry"), ("stop", "all"), ("tp", "all"),
    }  # fmt: skip


def test_c23_two_policies_that_each_halve_leave_a_half() -> None:
    """One position, one target: the smallest, never the sum."""
    same = NotifyingInterpreter(policy_set(policy(policy="a"), policy(policy="b")))
    both = fired(run(same, *calm(), at(16, "-6000")))
    assert len(both) == 2
    assert sum(intent.contracts for decision in both for intent in decision.intents) == Decimal(5)


def test_c23_a_target_in_progress_is_not_ordered_twice() -> None:
    """While a close to 0 is running, another policy's half adds no order; afterwards it would."""
    slow = policy(policy="slow", triggers=(trigger("late", 0, 0.05, confirm=2 * MINUTE), trigger("never", 0, 2.0)))
    fast = policy(
        policy="fast", stages=(stage("all", 1, 0, actions=(close("both"),)),),
    )  # fmt: skip
    for status, orders in (("closing", 0), ("flat", 1)):
        interpreter = NotifyingInterpreter(policy_set(fast, slow))
        first = fired(run(interpreter, *calm(), at(16, "-6000")))
        working = (Closing(first[0].id, status),)  # type: ignore[arg-type]  # literal
        (second,) = fired(run(interpreter, at(17, "-6100", closings=working), at(18, "-6200", closings=working)))
        assert (second.policy, len(second.intents)) == ("slow", orders)


def test_a_reset_is_applied_once_however_often_its_event_arrives() -> None:
    """The record has author and reason; windows restart, so the old peak fires nothing (D18)."""
    interpreter = NotifyingInterpreter(policy_set(policy()))
    run(interpreter, *calm(), at(16, "-12000"))
    outcomes = run(
        interpreter,
        at(17, "-12000", events=[operator_event("reset", after(minutes=16.5))]),
        at(18, "-12000", events=[operator_event("reset", after(minutes=16.5))]),
    )
    (record,) = fired(outcomes)
    assert (record.kind, record.level, record.previous_level, record.author) == ("reset", 0, 3, "operator-1")
    assert interpreter.status()[0].level == 0


def test_an_operator_close_closes_the_whole_scope_and_refuses_an_unknown_scope() -> None:
    """Every position to zero, every order cancelled; a wrong scope pages instead of closing something else."""
    interpreter = NotifyingInterpreter(policy_set(policy()))
    run(interpreter, *calm(3))
    command = operator_event("close", after(minutes=4))
    (decision,) = fired(run(interpreter, at(4, "0", events=[command])))
    assert (decision.kind, decision.policy, decision.author) == ("manual", "operator", "operator-1")
    assert {(i.symbol, i.target) for i in decision.intents} == {("L", Decimal(0)), ("S", Decimal(0))}
    (outcome,) = run(interpreter, at(5, "0", events=[operator_event("close", after(minutes=5), "account/other", "e2")]))
    assert outcome.decisions == ()
    assert outcome.notices[0].severity == "page"


def test_a_portfolio_with_an_account_missing_is_unknown_not_poorer() -> None:
    """The equity of some accounts is not that of the portfolio."""
    whole = policy(scope=ScopeRule("portfolio", None, None, None, None))
    interpreter = NotifyingInterpreter(policy_set(whole))

    def two(minute: float, second: str | None) -> Snapshot:
        accounts = [account("50000", book("0"), name="a")]
        if second is not None:
            accounts.append(account(second, book("0"), name="b"))
        return snapshot(after(minutes=minute), *accounts)

    assert fired(run(interpreter, *(two(minute, "50000") for minute in range(16)), two(16, None))) == []
    assert interpreter.status()[0].triggers[0].truth is None


def test_a_scope_matches_by_account_venue_market_and_currency() -> None:
    """A policy for swaps leaves a spot account alone."""
    swaps = policy(scope=ScopeRule("account", None, None, ("swap", "future"), None))
    interpreter = NotifyingInterpreter(policy_set(swaps))
    interpreter.tick(snapshot(after(), account("1", name="s", market="spot"), account("1", name="f", market="future")))
    assert [status.scope for status in interpreter.status()] == ["account/f"]


def test_the_same_snapshots_make_the_same_decisions_with_the_same_ids() -> None:
    """A decision is a function of its inputs."""
    crash = [*calm(), at(16, "-6000"), at(17, "-12000")]
    assert run(NotifyingInterpreter(policy_set(policy())), *crash) == run(
        NotifyingInterpreter(policy_set(policy())), *crash
    )


def test_attribution_is_over_the_window_that_was_exceeded_by_most() -> None:
    """15m at 6%/5% against 1h at 8%/7%: the 15m window, by value ÷ threshold."""
    two = policy(
        triggers=(trigger("short", 0, 0.05), trigger("long", 1, 0.07)),
        stages=(stage("trim", 1, 0, 1, attribution=RULE, actions=(close("losing", "0.5"),)),),
    )
    hour = [at(minute, "0") for minute in range(61)]
    slide = [at(61, "-2000"), at(62, "-2100"), *(at(m, "-2100") for m in range(63, 80))]
    (decision,) = fired(run(NotifyingInterpreter(policy_set(two)), *hour, *slide, at(80, "-8000")))
    assert decision.attribution is not None
    assert decision.attribution.window == "15m"


def test_unknown_past_its_grace_pages_with_the_reason() -> None:
    """A trigger that stays unknown is reported."""
    one = policy(triggers=(trigger("fall", 0, 0.05, grace=2 * MINUTE), trigger("crash", 0, 0.1)))
    interpreter = NotifyingInterpreter(policy_set(one))
    down = [snapshot(after(minutes=m), account(None, None, quality="down", reason="timeout")) for m in range(1, 5)]
    outcomes = run(interpreter, at(0, "0"), *down)
    reported = [(o.notices[0].as_of, o.notices[0].severity, o.notices[0].text) for o in outcomes if o.notices]
    assert reported == [(after(minutes=2), "page", "fall is unknown (hold): main is down: timeout")]


def test_the_state_of_an_evaluator_does_not_grow_with_ticks() -> None:
    """After hours of ticks the stored state and rows are as large as after one window."""
    interpreter = NotifyingInterpreter(policy_set(policy()))
    sizes = []
    for minute in range(400):
        paid = flow(f"w{minute}", after(minutes=minute), "1", "funding")
        interpreter.tick(at(minute, "0", flows=[paid] if minute < 3 else []))
        sizes.append(len(interpreter.states()[0].blob))
    assert max(sizes[100:]) <= max(sizes[:100]) + 8


def test_the_fall_is_attributed_from_its_peak_inside_the_window() -> None:
    """The longs gained 8,000 and gave back 7,500: against the window's start nobody lost, but the longs did."""
    climb = [at(15 + minute, str(1600 * minute)) for minute in range(1, 6)]
    (decision,) = fired(run(NotifyingInterpreter(policy_set(policy())), *calm(), *climb, at(21, "500", "200")))
    assert decision.attribution is not None
    assert (decision.attribution.source, decision.attribution.long_share) == ("LONG", "1")


def test_d18_an_operator_reset_accepts_the_loss_and_an_automatic_one_does_not() -> None:
    """Loss of initial capital: after an operator reset it counts from there; six automatic resets hide nothing."""
    start = SignalRef("equity.loss_from_start")
    breaker = graph(
        (start,),
        (trigger("warn", 0, 0.03), trigger("trip", 0, 0.05)),
        (
            stage("warn", 1, 0, cooldown=MINUTE, reset=AutoReset(2, MINUTE)),
            stage("trip", 2, 1, cooldown=MINUTE, actions=(close(),)),
        ),
        reset_when=(Compare("<", SignalRead(0), Number(0.028)),),
    )
    interpreter = NotifyingInterpreter(policy_set(breaker))
    swings = [at(2 * n + half, "-3500" if not half else "-2500") for n in range(1, 7) for half in (0, 1)]
    run(interpreter, at(0, "0"), *swings)
    tripped = fired(run(interpreter, at(20, "-5100")))
    assert [decision.stage for decision in tripped] == ["trip"]
    by_hand = at(30, "-5100", events=[operator_event("reset", after(minutes=29))])
    outcomes = run(interpreter, by_hand, at(31, "-5200"), at(32, "-7900"), at(33, "-10000"))
    assert [(d.kind, d.stage) for d in fired(outcomes)] == [("reset", "trip"), (None, "trip")]


def unknown_notices(outcomes: list[Outcome]) -> list[tuple[object, str]]:
    """When a trigger was reported as unknown, and with which severity."""
    return [(notice.as_of, notice.severity) for out in outcomes for notice in out.notices if notice.kind == "unknown"]


def held(**more: Any) -> Graph:
    """One fall in 15 minutes, whose unknown is reported after one; the gaps that count are of two minutes."""
    equity = EquityRule(2 * MINUTE, 0.001, MINUTE, None)
    triggers = (trigger("fall", 0, 0.10, grace=MINUTE, **more),)
    return graph((FALL_15M,), triggers, (stage("one", 1, 0, actions=(close(),)),), equity=equity)


def test_a_window_longer_than_the_history_is_no_failure() -> None:
    """A new store: the window of 15 minutes is not known before minute 15, and that pages nobody."""
    assert unknown_notices(run(NotifyingInterpreter(policy_set(held())), *calm(30))) == []


def test_a_fall_inside_a_young_history_fires() -> None:
    """What is known of the window is a lower bound."""
    (decision,) = fired(run(NotifyingInterpreter(policy_set(held())), *calm(2), at(3, "-10000")))
    assert decision.stage == "one"


def test_an_account_that_is_down_while_the_history_is_young_pages_after_the_grace() -> None:
    """Down from minute 5 to 7: unknown since minute 5 for another reason than youth, which was the last at minute 4."""
    down = [snapshot(after(minutes=m), account(None, None, quality="down", reason="timeout")) for m in (5, 6, 7)]
    again = [at(minute, "0") for minute in range(8, 30)]
    outcomes = run(NotifyingInterpreter(policy_set(held())), *calm(4), *down, *again)
    assert unknown_notices(outcomes)[:1] == [(after(minutes=5), "page")]


@pytest.mark.parametrize(("was_reported", "expected"), [(b"true", []), (b"false", [(after(minutes=23), "page")])])
def test_an_unknown_that_an_earlier_version_has_notified_is_not_notified_again(
    was_reported: bytes, expected: list[object]
) -> None:
    """It kept that in the state of the scope, and had no alert of it. The trigger is unknown since minute 20."""
    down = [snapshot(after(minutes=m), account(None, None, quality="down", reason="timeout")) for m in range(20, 26)]
    before, again = Interpreter(policy_set(held())), NotifyingInterpreter(policy_set(held()))
    for one in (*calm(18), *down[:3]):
        before.tick(one)
    (state,) = before.states()
    stored = state.blob.replace(b'"reported":false', b'"reported":' + was_reported)
    again.restore([replace(state, blob=stored)], lambda *_: ())
    again.alerts_known = read_state(b"{}", (), to_micros(after(minutes=23)), again.notified_earlier)
    assert unknown_notices(run(again, *down[3:])) == expected


def test_an_earlier_version_had_notified_what_its_state_of_a_scope_names() -> None:
    """Literally as it stored it: a trigger, a stage held back for long, one without latch, and a close that waits."""
    engine = {
        "triggers": {
            "a": {"held": False, "confirmed": False, "reported": True, "since": None, "unknown_since": 5},
            "b": {"held": True, "confirmed": False, "reported": False, "since": 5, "unknown_since": None},
        },
        "barren": ["all/uncorroborated", "all/uncorroborated for long", "trim/uncorroborated", "halve/main,other"],
        "waiting": {
            "stage": "close", "triggers": ["a"], "since": 7, "until": 9, "accounts": ["b"],
            "reported": ["main", "other"],
        },
    }  # fmt: skip
    blob = msgspec.json.encode({"engine": engine, "history": {}})
    assert notified_earlier(MachineState("p", "account/main", blob)) == {
        "trigger/p/account/main/a": "page",
        "uncorroborated/p/account/main/all": "page",
        "uncorroborated/p/account/main/trim": "warning",
        "unfired/p/account/main/halve/main,other": "page",
        "unfired/p/account/main/close/7/main": "page",
        "unfired/p/account/main/close/7/other": "page",
    }


def test_a_gap_in_a_young_history_pages_after_the_grace() -> None:
    """Nothing was read from minute 2 to 6: an older history would not know the window either."""
    outcomes = run(NotifyingInterpreter(policy_set(held())), *calm(2), *[at(minute, "0") for minute in range(6, 12)])
    assert unknown_notices(outcomes) == [(after(minutes=6), "page")]


def test_a_trigger_with_on_unknown_warn_is_reported_for_a_young_history_too() -> None:
    """`on_unknown: warn` counts the unknown as false, which people must know from the start."""
    assert unknown_notices(run(NotifyingInterpreter(policy_set(held(on_unknown="warn"))), *calm(5))) == [
        (after(minutes=1), "warning")
    ]
