"""Closes by hand of a part of an account's book: a strategy's own contracts, a symbol, the accounts of a label.

In every book two strategies share one net position at 100 a contract; worked by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.decision import Decision
from killswitch.model.snapshot import Event, Order, Snapshot
from killswitch.operations.preview import Preview, plan_of, preview
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.planning.operator.plan_file import SavedPlan, encode_plan, make_plan
from killswitch.planning.operator.saved_plan import applied_ids
from tests.unit.planning.scopes.test_owners import book, buy, net, orders_of, policies, policy, sell
from tests.worlds import after, operator_event, rules

QUIET = policies(policy(trigger="signal: exposure.gross, above: 90000 USDT"))
"""Watches the strategy `grid` and never fires; `trend` is declared and not watched."""


def command(minute: int, scope: str, id_: str = "e1", **more: Any) -> Event:
    return replace(operator_event("close", after(minutes=minute), scope, id_), lock="reduce_only", **more)


def closed(seen: Snapshot, *events: Event, start: Snapshot | None = None) -> Outcome:
    """The outcome of the commands on a book that has grown from nothing, or from `start`."""
    interpreter = Interpreter(QUIET)
    interpreter.tick(start or book(0, []))
    return interpreter.tick(replace(seen, events=events))


def only(outcome: Outcome) -> Decision:
    (decision,) = outcome.decisions
    return decision


def test_a_close_by_hand_of_a_strategy_takes_its_own_part_and_locks_its_file() -> None:
    """Of a net position of 10, of which 4 are its own, 4 are closed; only its own resting order is cancelled."""
    resting = [
        Order(id=name, symbol="BTC_USDT", side="buy", amount=Decimal(1), price=Decimal(90), client_order_id=client)
        for name, client in (("a", "grid-9"), ("b", "trend-9"), ("c", None))
    ]
    seen = book(1, net("10"), buy("1", "4", "grid-1"), buy("2", "6", "trend-1"), orders=resting)
    outcome = closed(seen, command(1, "strategy/grid"))
    made = only(outcome)
    assert (made.kind, made.policy, made.scope) == ("manual", "operator", "strategy/grid")
    assert orders_of(made) == [("BTC_USDT", "sell", "4", "6")]
    assert [(part.strategy, part.contracts) for part in made.intents[0].parts] == [("grid", 4)]
    assert [each.order for each in made.cancels] == ["a"]
    assert made.lock is not None
    assert (made.lock.scope, made.lock.mode) == ("strategy/grid", "reduce_only")
    assert outcome.notices == ()


def test_what_others_hold_against_a_strategy_is_reported_and_not_closed() -> None:
    """An own 7 against another's -3 is a net of 4: 4 are closed, never through zero, and 3 are paged."""
    seen = book(1, net("4"), buy("1", "7", "grid-1"), sell("2", "3", "trend-1"))
    outcome = closed(seen, command(1, "strategy/grid"))
    assert orders_of(only(outcome)) == [("BTC_USDT", "sell", "4", "0")]
    (page,) = outcome.notices
    assert (page.severity, page.kind) == ("page", "nothing_selected")
    assert page.text == (
        "not closed by hand: 3 of BTC_USDT long in main is not closable: owned by others, or held against them"
    )


def test_a_strategy_whose_part_is_against_the_position_is_locked_and_nothing_is_bought() -> None:
    """The short 3 in a net long of 4 cannot be bought back without enlarging the other's."""
    seen = book(1, net("4"), sell("1", "3", "grid-1"), buy("2", "7", "trend-1"))
    outcome = closed(seen, command(1, "strategy/grid"))
    assert only(outcome).intents == ()
    assert only(outcome).lock is not None
    assert "3 of BTC_USDT short in main is not closable" in outcome.notices[0].text


@pytest.mark.parametrize("force", [False, True])
def test_nothing_of_unknown_owners_is_closed_by_hand_and_the_scope_is_locked(force: bool) -> None:
    """What was held at the first snapshot may be anybody's: the close waits, also by force, and says why."""
    outcome = closed(book(1, net("10")), command(1, "strategy/grid", force=force), start=book(0, net("10")))
    made = only(outcome)
    assert (made.intents, made.cancels) == ((), ())
    assert made.waits_for == ("main",)
    assert made.lock is not None
    (page,) = outcome.notices
    assert "it is unknown whose 10 BTC_USDT are, which were held at the first snapshot (account main)" in page.text


def test_a_close_by_hand_waits_for_a_fill_that_comes_late() -> None:
    """The position is seen before its fill: its owner is known a minute later, and the own 4 are closed then."""
    interpreter = Interpreter(QUIET)
    interpreter.tick(book(0, []))
    first = interpreter.tick(replace(book(1, net("4")), events=(command(1, "strategy/grid"),)))
    assert only(first).intents == ()
    assert orders_of(only(interpreter.tick(book(2, net("4"), buy("1", "4", "grid-1"))))) == [
        ("BTC_USDT", "sell", "4", "0")
    ]


def test_closes_by_hand_of_two_strategies_in_one_tick_add_up() -> None:
    """The second continues below the first: of the two targets of the position its 0 applies, for both parts."""
    seen = book(1, net("10"), buy("1", "4", "grid-1"), buy("2", "6", "trend-1"))
    found = closed(seen, command(1, "strategy/grid"), command(1, "strategy/trend", "e2")).decisions
    assert [orders_of(each) for each in found] == [[("BTC_USDT", "sell", "4", "6")], [("BTC_USDT", "sell", "10", "0")]]
    assert {(part.strategy, part.contracts) for part in found[1].intents[0].parts} == {("grid", 4), ("trend", 6)}


def test_a_close_by_hand_of_a_symbol_closes_it_for_everybody_and_nothing_else() -> None:
    """All 10 of one symbol are closed, whoever holds them, and the 3 of another stay."""
    held = [*net("10"), *net("3", "ETH_USDT")]
    seen = book(1, held, buy("1", "4", "grid-1"), buy("2", "6", "trend-1"))
    made = only(closed(seen, command(1, "symbol/BTC_USDT")))
    assert orders_of(made) == [("BTC_USDT", "sell", "10", "0")]
    assert made.lock is not None
    assert made.lock.scope == "symbol/BTC_USDT"


def test_a_close_of_a_strategy_that_no_document_declares_is_refused() -> None:
    """Also if its name is that of a venue."""
    for scope in ("strategy/nobody", "strategy/binance"):
        outcome = closed(book(1, net("4"), buy("1", "4", "grid-1")), command(1, scope))
        assert outcome.decisions == ()
        assert f"{scope} names no account of this snapshot" in outcome.notices[0].text


def with_rules(seen: Snapshot) -> Snapshot:
    """The snapshot of a command, which reads the rules of the markets itself."""
    (one,) = seen.accounts
    return replace(seen, accounts=(replace(one, instruments=(rules("BTC_USDT"),)),))


def shown(interpreter: Interpreter, seen: Snapshot) -> Preview:
    return preview(QUIET, seen, interpreter, "test", frozenset({"main"}))


def saved(scope: str) -> tuple[SavedPlan, Interpreter]:
    """The plan of a close by hand at minute 1, and an interpreter that has seen the same book."""
    first, second = Interpreter(QUIET), Interpreter(QUIET)
    seen = with_rules(book(1, net("10"), buy("1", "4", "grid-1"), buy("2", "6", "trend-1")))
    for each in (first, second):
        each.tick(book(0, []))
    made = shown(first, replace(seen, events=(command(1, scope),)))
    plan = plan_of(made, made.decisions)
    assert plan is not None
    second.tick(seen)
    return plan, second


def application(plan: SavedPlan, minute: float) -> Event:
    event = operator_event("apply", after(minutes=minute), plan.scope, "apply-1")
    return replace(event, plan=encode_plan(plan).decode())


@pytest.mark.parametrize(
    ("scope", "order"),
    [("strategy/grid", ("BTC_USDT", "sell", "4", "6")), ("symbol/BTC_USDT", ("BTC_USDT", "sell", "10", "0"))],
)
def test_a_saved_close_of_a_part_is_applied_as_it_was_planned(scope: str, order: tuple[str, ...]) -> None:
    """The orders, their parts and the lock are those of the plan."""
    plan, interpreter = saved(scope)
    outcome = interpreter.tick(replace(book(2, net("10")), events=(application(plan, 2),)))
    assert [each.text for each in outcome.notices] == []
    made = only(outcome)
    assert made.id in applied_ids(plan)
    assert orders_of(made) == [order]
    assert made.lock == plan.decisions[0].lock
    assert made.intents[0].parts == plan.decisions[0].intents[0].parts


def test_a_saved_close_of_a_strategy_is_refused_once_its_part_is_another() -> None:
    """It sells 1 and the other buys 1: the position is the same, and the plan would close 1 of the other's."""
    plan, interpreter = saved("strategy/grid")
    changed = book(2, net("10"), sell("3", "1", "grid-2"), buy("4", "1", "trend-2"))
    outcome = interpreter.tick(replace(changed, events=(application(plan, 2),)))
    assert outcome.decisions == ()
    assert "grid has 3 of BTC_USDT long on main, and the plan closes 4 of its part" in outcome.notices[0].text


def forged(plan: SavedPlan) -> Iterator[tuple[SavedPlan, str]]:
    """The plan with other parts than planning makes, and why each is refused."""
    (decision,) = plan.decisions
    (intent,) = decision.intents
    (part,) = intent.parts
    for parts, why in (
        ((), "is not of the part of grid"),
        ((replace(part, strategy="trend"),), "is not of the part of grid"),
        ((replace(part, contracts=Decimal(3)),), "takes 4 contracts, and its parts are others"),
    ):
        orders = replace(decision, intents=(replace(intent, parts=parts),))
        yield make_plan(plan.as_of, plan.policy_set, plan.commit, (orders,), plan.basis), why


@pytest.mark.parametrize("place", range(3))
def test_a_plan_whose_parts_were_altered_is_refused(place: int) -> None:
    """A digest is no signature: the parts are checked against the owners."""
    plan, interpreter = saved("strategy/grid")
    altered, why = list(forged(plan))[place]
    outcome = interpreter.tick(replace(book(2, net("10")), events=(application(altered, 2),)))
    assert outcome.decisions == ()
    assert why in outcome.notices[0].text


def test_the_saved_plan_of_a_stage_that_closes_for_a_strategy_is_applied() -> None:
    """`ksctl plan --out` of a stage above 350 USDT: its 4 of 10 are closed when the plan is applied."""
    firing = policies()
    first, second = Interpreter(firing), Interpreter(firing)
    first.tick(book(0, []))
    seen = with_rules(book(1, net("10"), buy("1", "4", "grid-1"), buy("2", "6", "trend-1")))
    made = preview(firing, seen, first, "test", frozenset({"main"}))
    plan = plan_of(made, made.decisions)
    assert plan is not None
    second.tick(book(0, []))
    second.tick(seen)  # its stage is latched, and does not fire again
    outcome = second.tick(replace(book(2, net("10")), events=(application(plan, 2),)))
    (applied,) = [each for each in outcome.decisions if each.kind == "manual"]
    assert orders_of(applied) == [("BTC_USDT", "sell", "4", "6")]
