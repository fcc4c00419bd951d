"""Hedges of one position: opened once, whichever decision asked for its close, and only where the hedge is certain."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.engine.alerts import encode_state, read_state
from killswitch.graph.nodes import Graph, PolicySet
from killswitch.graph.unwinding import HedgeInstrument, HedgeRule
from killswitch.model.decision import Decision, Intent
from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.snapshot import AccountSnapshot, Closing, ClosingStatus, Order, Residual
from killswitch.operations.preview import preview
from killswitch.planning.hedge.uncloseable import OUT_OF_BUDGET, Obstacles, TickAccounts
from killswitch.planning.interpreter import Interpreter, Outcome
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.unit.planning.hedge.test_proxy_hedge import BTC, ETH, World, down, hedge, main, orders, other, policies
from tests.worlds import START, account, operator_event, position, rules, snapshot

D = Decimal
HEDGE_ACCOUNT = other((BTC, "100"))
A_MINUTE = timedelta(seconds=61)


def closing_with_residual(decision: Decision, contracts: str, status: ClosingStatus = "blocked") -> Closing:
    return Closing(decision.id, status, (Residual("main", BTC, "long", D(contracts)),), scope=decision.scope)


def hedged_contracts(*outcomes: Outcome) -> Decimal:
    """How many contracts the hedges of these ticks open."""
    made = [each for outcome in outcomes for each in outcome.decisions if each.kind == "hedge"]
    return sum((intent.contracts for decision in made for intent in decision.intents), D(0))


def on_main(policy: Graph) -> Graph:
    return replace(policy, scope=replace(policy.scope, accounts=("main",)))


def of_stages(*stages: Any, **more: Any) -> PolicySet:
    triggers = (trigger("fall", 0, 0.1), trigger("crash", 0, 0.3))
    return replace(policy_set(on_main(graph((FALL_15M,), triggers, stages))), unwindings=(hedge(**more),))


# One hedge for each position


def test_a_second_decision_about_the_same_position_hedges_nothing_more() -> None:
    """10 contracts cannot be closed, and two decisions are to close them: 10 are sold, not 20."""
    world = World(policies(hedge()))
    first = world.fall(HEDGE_ACCOUNT)
    world.ends(first, "blocked")
    opened = world.tick(main("-200"), HEDGE_ACCOUNT)
    second = replace(first, id="f" * 20, as_of=world.at)
    world.interpreter.restore((), lambda _p, _s, _since: (), (), (second,))
    world.closings = (*world.closings, closing_with_residual(second, "10"))
    assert hedged_contracts(opened, world.tick(main("-200"), HEDGE_ACCOUNT)) == 10


def test_two_blocked_decisions_in_one_tick_make_one_hedge_of_the_larger_residual() -> None:
    """5 and 10 contracts of one position at the same tick: one decision over 10, whichever is listed first."""
    for first, second in (("5", "10"), ("10", "5")):
        world = World(policies(hedge()))
        fired = world.fall(HEDGE_ACCOUNT)
        other_decision = replace(fired, id="f" * 20)
        world.interpreter.restore((), lambda _p, _s, _since: (), (), (fired, other_decision))
        world.closings = (closing_with_residual(fired, first), closing_with_residual(other_decision, second))
        found = world.tick(main("-200"), HEDGE_ACCOUNT)
        assert [each.covers[0].contracts for each in found.decisions] == [D(10)]


def test_an_exhausted_bound_is_reported_once() -> None:
    """6 contracts are 600 USDT, which is the whole bound: 4 more are not opened."""
    world = World(policies(hedge(max_notional=D(600))))
    fired = world.fall(HEDGE_ACCOUNT)
    world.ends(fired, "residual", "6")
    assert hedged_contracts(world.tick(main("-200"), HEDGE_ACCOUNT)) == 6
    world.ends(fired, "residual", "10")
    found = world.tick(main("-200"), HEDGE_ACCOUNT)
    assert found.decisions == ()
    assert "existing hedges are already worth 600.00, and 600 is the bound" in found.notices[0].text
    assert world.tick(main("-200"), HEDGE_ACCOUNT).notices == ()


def test_a_higher_stage_hedges_only_the_additional_contracts() -> None:
    """A half is trimmed, then all is closed, on a market that is halted: 5 are sold, then 5, not 15."""
    trim = stage("trim", 1, 0, actions=(close("both", fraction="0.5", unwinding="u"),))
    world = World(of_stages(trim, stage("out", 3, 1, actions=(close("both", unwinding="u"),))))
    world.tick(main(), HEDGE_ACCOUNT)
    [first] = world.tick(main("-200"), HEDGE_ACCOUNT).decisions
    world.closings = (closing_with_residual(first, "5"),)
    half = world.tick(main("-200"), HEDGE_ACCOUNT)
    assert hedged_contracts(half) == 5
    [second] = world.tick(main("-400"), HEDGE_ACCOUNT).decisions
    world.closings += (closing_with_residual(second, "10"),)
    whole = world.tick(main("-400"), HEDGE_ACCOUNT)
    assert hedged_contracts(whole) == 5
    assert [each.covers for each in (*half.decisions, *whole.decisions)] == [(Residual("main", BTC, "long", D(5)),)] * 2
    assert half.decisions[0].id != whole.decisions[0].id
    assert hedged_contracts(*(world.tick(main("-400"), HEDGE_ACCOUNT) for _ in range(5))) == 0


def test_a_stage_that_fires_again_after_its_cooldown_does_not_hedge_again() -> None:
    """Every minute another decision about the same 10 contracts: 10 are sold in all."""
    out = stage("out", 3, 0, actions=(close("both", unwinding="u"),), cooldown=MINUTE)
    world = World(of_stages(out))
    fired = world.fall(HEDGE_ACCOUNT)
    world.ends(fired, "blocked")
    total, firings = D(0), 1
    for tick in range(40):
        found = world.tick(main(str(-200 - 10 * tick)), HEDGE_ACCOUNT, after=timedelta(seconds=10))
        total += hedged_contracts(found)
        for each in found.decisions:
            if each.kind is None:
                firings += 1
                world.closings += (closing_with_residual(each, "10"),)
    assert firings > 2
    assert total == 10


def test_a_restart_opens_only_the_difference_and_keeps_the_bound_over_the_sum() -> None:
    """Of 10 contracts 6 are covered by an earlier run; of a bound of 900 USDT 600 are used: 3 more are sold at 100."""
    made = policies(hedge(max_notional=D(900)))
    world = World(made)
    fired = world.fall(HEDGE_ACCOUNT)
    world.ends(fired, "residual", "6")
    [opened] = world.tick(main("-200"), HEDGE_ACCOUNT).decisions
    after = World(made)
    after.at = world.at
    after.interpreter.restore(world.interpreter.states(), lambda _p, _s, _since: (), past=(opened, fired))
    after.ends(fired, "residual", "6")
    assert hedged_contracts(after.tick(main("-200"), HEDGE_ACCOUNT)) == 0
    after.ends(fired, "residual", "10")
    assert hedged_contracts(after.tick(main("-200"), HEDGE_ACCOUNT)) == 3
    after.ends(fired, "residual", "10")
    assert hedged_contracts(after.tick(main("-200"), HEDGE_ACCOUNT)) == 0


def test_a_position_reopened_after_it_was_seen_flat_is_hedged_anew() -> None:
    """Hedged, finally closed, reopened by a strategy and blocked again: that position is hedged too."""
    world = World(policies(hedge()))
    fired = world.fall(HEDGE_ACCOUNT)
    world.ends(fired, "blocked")
    assert hedged_contracts(world.tick(main("-200"), HEDGE_ACCOUNT)) == 10
    assert (
        hedged_contracts(world.tick(down(), HEDGE_ACCOUNT), world.tick(main("-200"), HEDGE_ACCOUNT)) == 0
    )  # out of reach is not gone
    world.tick(account("800", ()), HEDGE_ACCOUNT)
    assert hedged_contracts(world.tick(main("-200"), HEDGE_ACCOUNT)) == 10


def test_an_increase_of_the_position_is_hedged_unless_it_is_dust() -> None:
    """Half a thousandth more is below the venue's minimum and not reported; a whole contract more is sold."""
    world = World(policies(hedge()))
    fired = world.fall(HEDGE_ACCOUNT)
    world.ends(fired, "residual", "9")
    assert hedged_contracts(world.tick(main("-200"), HEDGE_ACCOUNT)) == 9
    world.ends(fired, "residual", "9.0005")
    quiet = world.tick(main("-200"), HEDGE_ACCOUNT)
    assert (quiet.decisions, quiet.notices) == ((), ())
    world.ends(fired, "residual", "10")
    assert hedged_contracts(world.tick(main("-200"), HEDGE_ACCOUNT)) == 1


# Uncloseable positions


def test_dust_is_not_hedged() -> None:
    """Half a thousandth of a contract stays, and the closing reports it: nobody is paged for a hedge of it."""
    world = World(policies(hedge()))
    world.ends(world.fall(HEDGE_ACCOUNT), "blocked", "0.0005")
    found = world.tick(main("-200"), HEDGE_ACCOUNT)
    assert (found.decisions, found.notices) == ((), ())


def test_rows_of_two_strategies_are_one_position() -> None:
    """3 and 7 contracts of one symbol and side are the 10 that cannot be closed."""

    def two(pnl: str) -> AccountSnapshot:
        held = [
            position(BTC, "long", share, contracts=c, mark_price="100", notional=c + "00", strategy=name)
            for c, name, share in (("3", "a", pnl), ("7", "b", "0"))
        ]
        return account(str(1000 + D(pnl)), held, instruments=(rules(BTC),))

    world = World(policies(hedge()))
    world.tick(two("0"), HEDGE_ACCOUNT)
    [fired] = world.tick(two("-200"), HEDGE_ACCOUNT).decisions
    world.ends(fired, "blocked")
    assert hedged_contracts(world.tick(two("-200"), HEDGE_ACCOUNT)) == 10


def test_a_closing_that_has_reached_its_target_is_not_hedged() -> None:
    """A half is closed, a cancel is still open, and the account goes down: the other half was never to be closed."""
    world = World(of_stages(stage("out", 3, 0, actions=(close("both", fraction="0.5", unwinding="u"),))))
    fired = world.fall(HEDGE_ACCOUNT)
    half = position(BTC, "long", "-100", contracts="5", mark_price="100", notional="500")
    world.closings = (Closing(fired.id, "closing", (), scope=fired.scope),)
    world.tick(account("800", [half], instruments=(rules(BTC),)), HEDGE_ACCOUNT)
    world.tick(down(), HEDGE_ACCOUNT)
    assert hedged_contracts(world.tick(down(), HEDGE_ACCOUNT, after=A_MINUTE)) == 0


def test_a_closing_that_has_not_begun_is_hedged_in_full() -> None:
    """`planned` has no residual: after a minute without an answer the whole position counts."""
    world = World(policies(hedge()))
    fired = world.fall(HEDGE_ACCOUNT)
    world.closings = (Closing(fired.id, "planned", (), scope=fired.scope),)
    world.tick(down(), HEDGE_ACCOUNT)
    assert hedged_contracts(world.tick(down(), HEDGE_ACCOUNT, after=A_MINUTE)) == 10


@pytest.mark.parametrize(
    ("why", "shrinks", "expected"),
    [(OUT_OF_BUDGET, False, 0), ("no answer", True, 0), ("no answer", False, 10)],
)
def test_a_closing_that_makes_progress_without_snapshots_is_not_hedged(why: str, shrinks: bool, expected: int) -> None:
    """An account out of request budget, or whose residual shrinks, is being closed; one without answers is not."""
    world = World(policies(hedge()))
    fired = world.fall(HEDGE_ACCOUNT)
    unavailable = account(None, None, quality="down", reason=why)
    total = D(0)
    for second in range(70):
        world.closings = (closing_with_residual(fired, str(D(10) - D(second) / 10 if shrinks else 10), "closing"),)
        total += hedged_contracts(world.tick(unavailable, HEDGE_ACCOUNT))
    assert total == expected


def test_a_malformed_answer_does_not_remove_the_position() -> None:
    """Contracts that are no number: unreadable for a minute, then hedged by the last known position."""
    world = World(policies(hedge()))
    world.ends(world.fall(HEDGE_ACCOUNT), "closing")
    row = replace(position(BTC, "long", "-200", mark_price="100"), contracts=D("NaN"))
    malformed = account("800", [row], instruments=(rules(BTC),))
    world.tick(malformed, HEDGE_ACCOUNT)
    assert hedged_contracts(world.tick(malformed, HEDGE_ACCOUNT, after=A_MINUTE)) == 10


def test_an_uncloseable_holding_is_identified_by_the_market_where_it_is_listed() -> None:
    """100 X, listed as X/USDT, could not be sold as X/BTC."""
    held = account("1", [position("X/USDT", "long", contracts="100", mark_price="1")], market="spot")
    hop = Intent("main", "X/BTC", "long", "sell", D(100), D(0), False, 1, purpose="hop")
    decision = Decision("d", START, "p", "s", "account/main", "enforce", "s", 1, 0, intents=(hop,))
    closing = Closing("d", "blocked", (Residual("main", "X/BTC", "long", D(100)),))
    rule = HedgeRule("act", 0, (HedgeInstrument("other", "X/USDT"),), HOUR, D(1))
    [found] = Obstacles().uncloseable([(closing, decision, rule)], TickAccounts(0, {"main": held}, {"main": held}, {}))
    assert (found.key, found.contracts) == (("main", "X/USDT", "long"), D(100))


# Hedge instruments


def test_the_same_instrument_is_hedged_contract_for_contract_whatever_the_prices() -> None:
    """The mark of the account that is down is an old one: 10 BTC are 10 BTC at half the price, in contracts of 0.1."""
    for size, expected in (("1", 10), ("0.1", 100)):
        world = World(policies(hedge()))
        world.ends(world.fall(HEDGE_ACCOUNT), "closing")
        world.tick(down(), HEDGE_ACCOUNT)
        found = world.tick(down(), other((BTC, "50"), contract_size=size), after=A_MINUTE)
        assert hedged_contracts(found) == expected


def priced_in(symbol: str) -> AccountSnapshot:
    held = [position(symbol, "long", "0", contracts="1", mark_price="20", notional="50000")]
    return account("5000", held, name="other", instruments=[rules(symbol)])


def test_a_hedge_instrument_priced_in_another_asset_is_refused() -> None:
    """BTC/ETH at 20 is not 20 USDT, the account's currency."""
    world = World(policies(hedge(symbol="BTC/ETH")))
    world.ends(world.fall(priced_in("BTC/ETH")), "blocked")
    found = world.tick(main("-200"), priced_in("BTC/ETH"))
    assert found.decisions == ()
    assert "BTC/ETH is priced in ETH, and nothing converts that to USDT" in found.notices[0].text


def test_a_position_priced_in_another_asset_is_not_sized() -> None:
    """Its value and its moves are in ETH, and the hedge would be counted in USDT."""

    def crossed(pnl: str) -> AccountSnapshot:
        held = [position("BTC/ETH", "long", pnl, contracts="10", mark_price="20")]
        return account(str(1000 + D(pnl)), held, instruments=[rules("BTC/ETH")])

    world = World(policies(hedge()))
    world.tick(crossed("0"), HEDGE_ACCOUNT)
    [fired] = world.tick(crossed("-200"), HEDGE_ACCOUNT).decisions
    world.closings = (Closing(fired.id, "blocked", (Residual("main", "BTC/ETH", "long", D(10)),)),)
    found = world.tick(crossed("-200"), HEDGE_ACCOUNT)
    assert found.decisions == ()
    assert "BTC/ETH is priced in ETH" in found.notices[0].text


def walk(world: World, random: Random, minutes: int, *, frozen_from: int | None = None) -> tuple[str, AccountSnapshot]:
    """ETH moves exactly as BTC, whose market is halted and whose mark is frozen from a given minute on."""
    price, mark, hedge_account = 100.0, "100", other((ETH, "100"))
    for minute in range(minutes):
        price *= 1 + random.uniform(-0.01, 0.01)
        frozen = frozen_from is not None and minute >= frozen_from
        mark = mark if frozen else f"{price:.6f}"
        hedge_account = other((ETH, f"{price:.6f}"))
        state = rules(BTC, state="halted" if frozen else "open")
        world.tick(main("0", mark, [state]), hedge_account, after=timedelta(minutes=1))
    return mark, hedge_account


def test_marks_of_a_halted_market_make_no_returns() -> None:
    """40 minutes of common moves, then 15 halted: β is 1 by the first, and the frozen marks do not lower it."""
    world = World(policies(hedge(symbol=ETH)))
    mark, hedge_account = walk(world, Random(1), 55, frozen_from=40)
    halted = [rules(BTC, state="halted")]
    [fired] = world.tick(main("-200", mark, halted), hedge_account).decisions
    world.ends(fired, "blocked")
    [made] = world.tick(main("-200", mark, halted), hedge_account).decisions
    assert made.reason is not None
    assert "beta 1.0000 by 39 returns" in made.reason


def test_a_hedge_with_an_insignificant_beta_is_suggested_and_not_opened() -> None:
    """Two independent walks: nothing is opened unless β is two standard errors from 0; the suggestion says why."""
    opened, suggested = 0, 0
    for seed in range(20):
        random = Random(seed)
        world = World(policies(hedge(symbol=ETH)))
        hedge_account = other((ETH, "100"))
        for _ in range(33):
            hedge_account = other((ETH, f"{100 * (1 + random.uniform(-0.01, 0.01)):.4f}"))
            mark = f"{100 * (1 + random.uniform(-0.01, 0.01)):.4f}"
            world.tick(main("0", mark), hedge_account, after=timedelta(minutes=1))
        [fired] = world.tick(main("-200"), hedge_account).decisions
        world.ends(fired, "blocked")
        found = world.tick(main("-200"), hedge_account)
        assert all(order[2] == "short" for order in orders(found))
        opened += bool(orders(found))
        suggested += "standard errors" in found.notices[0].text
    assert opened <= 3  # a normal error lies two standard errors above 0 once in 44
    assert suggested >= 15


def test_a_certain_instrument_is_chosen_before_a_doubtful_one() -> None:
    """The first declared is on an account that is not armed, the second is armed: that one is opened."""
    third = replace(HEDGE_ACCOUNT, account="third")
    two = (HedgeInstrument("other", BTC), HedgeInstrument("third", BTC))
    rule = replace(hedge(), hedge=replace(hedge().hedge, instruments=two))
    world = World(policies(rule))
    world.interpreter = Interpreter(policies(rule), armed=("main", "third"))
    world.tick(main(), HEDGE_ACCOUNT, third)
    [fired] = world.tick(main("-200"), HEDGE_ACCOUNT, third).decisions
    world.ends(fired, "blocked")
    assert [order[0] for order in orders(world.tick(main("-200"), HEDGE_ACCOUNT, third))] == ["third"]


def test_on_an_unarmed_account_a_hedge_is_suggested_and_opened_once_it_is_armed() -> None:
    """No order could be sent there, so nothing is recorded as opened: the run in which it is armed opens it."""
    made = policies(hedge())
    world = World(made)
    world.interpreter = Interpreter(made, armed=("main",))
    fired = world.fall(HEDGE_ACCOUNT)
    world.ends(fired, "blocked")
    found = world.tick(main("-200"), HEDGE_ACCOUNT)
    assert found.decisions == ()
    assert "suggested to stand in" in found.notices[0].text
    assert found.notices[0].text.endswith("; not opened: other is not armed")
    after = World(made)
    after.at, after.closings = world.at, world.closings
    after.interpreter = Interpreter(made, armed=("main", "other"))
    after.interpreter.restore(world.interpreter.states(), lambda _p, _s, _since: (), past=(fired,))
    assert hedged_contracts(after.tick(main("-200"), HEDGE_ACCOUNT)) == 10


def test_nothing_is_opened_on_an_account_that_the_same_tick_begins_to_close() -> None:
    """`other` falls by a fifth when the close of `main` has ended short: it is closed, and no hedge is opened on it."""

    def policy(name: str, scope: str, unwinding: str | None) -> Graph:
        out = stage("out", 3, 0, actions=(close("both", unwinding=unwinding),))
        made = graph((FALL_15M,), (trigger("fall", 0, 0.1),), (out,), policy=name)
        return replace(made, scope=replace(made.scope, accounts=(scope,)))

    def hedge_account(equity: str) -> AccountSnapshot:
        held = position(BTC, "long", str(D(equity) - 5000), contracts="30", mark_price="100", notional="3000")
        return account(equity, [held], name="other", instruments=(rules(BTC),))

    two = policy_set(policy("one", "main", "u"), policy("two", "other", None))
    world = World(replace(two, unwindings=(hedge(),)))
    world.tick(main(), hedge_account("5000"))
    [fired] = world.tick(main("-200"), hedge_account("5000")).decisions
    world.ends(fired, "blocked")
    found = world.tick(main("-200"), hedge_account("4000"))
    assert [(each.policy, each.kind) for each in found.decisions] == [("two", None)]
    assert "the account is being closed itself" in found.notices[0].text


def test_nothing_is_opened_where_the_same_tick_cancels_orders() -> None:
    """An operator closes `other`, which holds nothing but an order."""
    resting = Order("r1", BTC, "buy", D(1))
    hedge_account = account("5000", (), name="other", instruments=[rules(BTC)], orders=[resting])
    world = World(policies(hedge()))
    fired = world.fall(hedge_account)
    world.ends(fired, "blocked")
    world.at += timedelta(seconds=1)
    events = [operator_event("close", world.at, scope="account/other")]
    found = world.interpreter.tick(
        snapshot(world.at, main("-200"), hedge_account, events=events, closings=world.closings)
    )
    assert [(each.kind, len(each.cancels)) for each in found.decisions] == [("manual", 1)]
    assert hedged_contracts(world.tick(main("-200"), hedge_account)) == 10


def test_a_preview_opens_nothing_on_accounts_that_are_not_armed() -> None:
    """`plan` shows what would be done on the accounts whose documents arm them."""
    made = policies(hedge())
    for armed, expected in ((frozenset({"main"}), 0), (frozenset({"main", "other"}), 10)):
        world = World(made)
        world.ends(world.fall(HEDGE_ACCOUNT), "blocked")
        polled = snapshot(world.at, main("-200"), HEDGE_ACCOUNT, closings=world.closings)
        shown = preview(made, polled, world.interpreter, "", armed)
        assert hedged_contracts(Outcome(shown.decisions)) == expected


# Notices


def test_a_suggestion_is_not_repeated_by_the_next_run() -> None:
    """It has the stored state of the alerts; its first ticks do not know yet what cannot be closed."""
    made = policies(hedge("suggest"))
    world = World(made)
    fired = world.fall(HEDGE_ACCOUNT)
    world.ends(fired, "blocked")
    assert len(world.tick(main("-200"), HEDGE_ACCOUNT).notices) == 1
    after = World(made)
    after.at, after.alerts = world.at, read_state(encode_state(world.alerts))
    after.interpreter.restore(world.interpreter.states(), lambda _p, _s, _since: (), past=(fired,))
    assert after.tick(main("-200"), HEDGE_ACCOUNT).notices == ()
    after.closings = world.closings
    assert after.tick(main("-200"), HEDGE_ACCOUNT).notices == ()
    assert after.tick(down(), HEDGE_ACCOUNT).notices == ()


def test_a_position_that_is_gone_needs_no_hedge_any_more() -> None:
    """Its alert is over at the first snapshot without it; a later position of the same symbol is another one."""
    world = World(policies(hedge("suggest")))
    fired = world.fall(HEDGE_ACCOUNT)
    world.ends(fired, "blocked")
    assert len(world.tick(main("-200"), HEDGE_ACCOUNT).notices) == 1
    [over] = world.tick(account("800", (), name="main"), HEDGE_ACCOUNT).notices
    assert over.text == f"hedge: long {BTC} on main needs no hedge any more, after 1 s"
    [again] = world.tick(main("-200"), HEDGE_ACCOUNT).notices
    assert "suggested to stand in" in again.text
