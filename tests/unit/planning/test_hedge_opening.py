"""One position is hedged once, whoever asked for its close, and only by what is sure to stand in for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from msgspec import structs

from killswitch.graph.nodes import Graph, PolicySet
from killswitch.graph.unwinding import HedgeInstrument, HedgeRule
from killswitch.model.decision import Decision, Intent
from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.snapshot import AccountSnapshot, Closing, ClosingStatus, Order, Residual
from killswitch.operations.preview import preview
from killswitch.planning.hedge.uncloseable import OUT_OF_BUDGET, Obstacles, TickAccounts
from killswitch.planning.tick import Interpreter, Outcome
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.unit.planning.test_proxy_hedge import BTC, ETH, World, down, hedge, main, orders, other, policies
from tests.worlds import START, account, hand, position, rules, snapshot

D = Decimal
BESIDE = other((BTC, "100"))
A_MINUTE = timedelta(seconds=61)


def shut(decision: Decision, contracts: str, status: ClosingStatus = "blocked") -> Closing:
    return Closing(decision.id, status, (Residual("main", BTC, "long", D(contracts)),), scope=decision.scope)


def sold(*outcomes: Outcome) -> Decimal:
    """How many contracts the hedges of these ticks open."""
    made = [each for outcome in outcomes for each in outcome.decisions if each.kind == "hedge"]
    return sum((intent.contracts for decision in made for intent in decision.intents), D(0))


def on_main(policy: Graph) -> Graph:
    return replace(policy, scope=replace(policy.scope, accounts=("main",)))


def of_stages(*stages: Any, **more: Any) -> PolicySet:
    triggers = (trigger("fall", 0, 0.1), trigger("crash", 0, 0.3))
    return replace(policy_set(on_main(graph((FALL_15M,), triggers, stages))), unwindings=(hedge(**more),))


# Once


def test_a_second_decision_about_the_same_position_hedges_nothing_more() -> None:
    """10 contracts are stuck, and two decisions want them gone: 10 are sold, not 20."""
    world = World(policies(hedge()))
    first = world.fall(BESIDE)
    world.ends(first, "blocked")
    opened = world.tick(main("-200"), BESIDE)
    second = structs.replace(first, id="f" * 20, as_of=world.at)
    world.interpreter.restore((), lambda _p, _s, _since: (), (), (second,))
    world.closings = (*world.closings, shut(second, "10"))
    assert sold(opened, world.tick(main("-200"), BESIDE)) == 10


def test_two_decisions_that_are_stuck_at_once_make_one_hedge_of_the_greater() -> None:
    """5 and 10 contracts of one position at the same tick: one decision over 10, whichever is listed first."""
    for first, second in (("5", "10"), ("10", "5")):
        world = World(policies(hedge()))
        fired = world.fall(BESIDE)
        twin = structs.replace(fired, id="f" * 20)
        world.interpreter.restore((), lambda _p, _s, _since: (), (), (fired, twin))
        world.closings = (shut(fired, first), shut(twin, second))
        found = world.tick(main("-200"), BESIDE)
        assert [each.covers[0].contracts for each in found.decisions] == [D(10)]


def test_a_bound_that_is_used_up_is_told_once() -> None:
    """6 contracts are 600 USDT, which is all that may stand in: 4 more are not opened."""
    world = World(policies(hedge(max_notional=D(600))))
    fired = world.fall(BESIDE)
    world.ends(fired, "residual", "6")
    assert sold(world.tick(main("-200"), BESIDE)) == 6
    world.ends(fired, "residual", "10")
    found = world.tick(main("-200"), BESIDE)
    assert found.decisions == ()
    assert "existing hedges are already worth 600.00, and 600 is the bound" in found.notices[0].text
    assert world.tick(main("-200"), BESIDE).notices == ()


def test_a_deeper_stage_hedges_only_what_comes_on_top() -> None:
    """A half is trimmed, then all is closed, of a market that is halted: 5 are sold, then 5, not 15."""
    trim = stage("trim", 1, 0, actions=(close("both", fraction="0.5", unwinding="u"),))
    world = World(of_stages(trim, stage("out", 3, 1, actions=(close("both", unwinding="u"),))))
    world.tick(main(), BESIDE)
    [first] = world.tick(main("-200"), BESIDE).decisions
    world.closings = (shut(first, "5"),)
    half = world.tick(main("-200"), BESIDE)
    assert sold(half) == 5
    [second] = world.tick(main("-400"), BESIDE).decisions
    world.closings += (shut(second, "10"),)
    whole = world.tick(main("-400"), BESIDE)
    assert sold(whole) == 5
    assert [each.covers for each in (*half.decisions, *whole.decisions)] == [(Residual("main", BTC, "long", D(5)),)] * 2
    assert half.decisions[0].id != whole.decisions[0].id
    assert sold(*(world.tick(main("-400"), BESIDE) for _ in range(5))) == 0


def test_a_stage_that_fires_again_after_its_cooldown_does_not_hedge_again() -> None:
    """Every minute another decision about the same 10 contracts: 10 are sold in all."""
    out = stage("out", 3, 0, actions=(close("both", unwinding="u"),), cooldown=MINUTE)
    world = World(of_stages(out))
    fired = world.fall(BESIDE)
    world.ends(fired, "blocked")
    total, firings = D(0), 1
    for tick in range(40):
        found = world.tick(main(str(-200 - 10 * tick)), BESIDE, after=timedelta(seconds=10))
        total += sold(found)
        for each in found.decisions:
            if each.kind is None:
                firings += 1
                world.closings += (shut(each, "10"),)
    assert firings > 2
    assert total == 10


def test_a_restart_opens_only_the_difference_and_keeps_the_bound_over_the_sum() -> None:
    """Of 10 contracts 6 are covered by an earlier run; of a bound of 900 USDT 600 are used: 3 more are sold at 100."""
    made = policies(hedge(max_notional=D(900)))
    world = World(made)
    fired = world.fall(BESIDE)
    world.ends(fired, "residual", "6")
    [opened] = world.tick(main("-200"), BESIDE).decisions
    after = World(made)
    after.at = world.at
    after.interpreter.restore(world.interpreter.states(), lambda _p, _s, _since: (), past=(opened, fired))
    after.ends(fired, "residual", "6")
    assert sold(after.tick(main("-200"), BESIDE)) == 0
    after.ends(fired, "residual", "10")
    assert sold(after.tick(main("-200"), BESIDE)) == 3
    after.ends(fired, "residual", "10")
    assert sold(after.tick(main("-200"), BESIDE)) == 0


def test_what_is_held_after_the_position_was_seen_gone_is_another_one() -> None:
    """Hedged, closed at last, opened anew by a strategy and stuck once more: that is hedged again."""
    world = World(policies(hedge()))
    fired = world.fall(BESIDE)
    world.ends(fired, "blocked")
    assert sold(world.tick(main("-200"), BESIDE)) == 10
    assert sold(world.tick(down(), BESIDE), world.tick(main("-200"), BESIDE)) == 0  # out of reach is not gone
    world.tick(account("800", ()), BESIDE)
    assert sold(world.tick(main("-200"), BESIDE)) == 10


def test_what_came_to_the_position_since_is_dust_or_worth_a_hedge() -> None:
    """Half a thousandth more is less than the venue trades and no news; a whole contract more is sold."""
    world = World(policies(hedge()))
    fired = world.fall(BESIDE)
    world.ends(fired, "residual", "9")
    assert sold(world.tick(main("-200"), BESIDE)) == 9
    world.ends(fired, "residual", "9.0005")
    quiet = world.tick(main("-200"), BESIDE)
    assert (quiet.decisions, quiet.notices) == ((), ())
    world.ends(fired, "residual", "10")
    assert sold(world.tick(main("-200"), BESIDE)) == 1


# What is stuck


def test_dust_is_not_stuck() -> None:
    """Half a thousandth of a contract stays, and closing tells that: nobody is woken for a hedge of it."""
    world = World(policies(hedge()))
    world.ends(world.fall(BESIDE), "blocked", "0.0005")
    found = world.tick(main("-200"), BESIDE)
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
    world.tick(two("0"), BESIDE)
    [fired] = world.tick(two("-200"), BESIDE).decisions
    world.ends(fired, "blocked")
    assert sold(world.tick(two("-200"), BESIDE)) == 10


def test_a_closing_that_has_reached_its_target_has_nothing_that_is_stuck() -> None:
    """A half is closed, a cancel is still open, and the account goes down: the other half was never to go."""
    world = World(of_stages(stage("out", 3, 0, actions=(close("both", fraction="0.5", unwinding="u"),))))
    fired = world.fall(BESIDE)
    half = position(BTC, "long", "-100", contracts="5", mark_price="100", notional="500")
    world.closings = (Closing(fired.id, "closing", (), scope=fired.scope),)
    world.tick(account("800", [half], instruments=(rules(BTC),)), BESIDE)
    world.tick(down(), BESIDE)
    assert sold(world.tick(down(), BESIDE, after=A_MINUTE)) == 0


def test_a_closing_that_has_not_begun_is_stuck_with_all_that_was_decided() -> None:
    """`planned` gives no residual: after a minute of silence the whole position counts."""
    world = World(policies(hedge()))
    fired = world.fall(BESIDE)
    world.closings = (Closing(fired.id, "planned", (), scope=fired.scope),)
    world.tick(down(), BESIDE)
    assert sold(world.tick(down(), BESIDE, after=A_MINUTE)) == 10


@pytest.mark.parametrize(
    ("why", "shrinks", "expected"),
    [(OUT_OF_BUDGET, False, 0), ("no answer", True, 0), ("no answer", False, 10)],
)
def test_what_is_being_closed_out_of_sight_is_not_stuck(why: str, shrinks: bool, expected: int) -> None:
    """An account that we had no request left for, or whose residual goes down, is closing; a silent one is not."""
    world = World(policies(hedge()))
    fired = world.fall(BESIDE)
    unread = account(None, None, quality="down", reason=why)
    total = D(0)
    for second in range(70):
        world.closings = (shut(fired, str(D(10) - D(second) / 10 if shrinks else 10), "closing"),)
        total += sold(world.tick(unread, BESIDE))
    assert total == expected


def test_an_answer_that_makes_no_sense_does_not_make_the_position_vanish() -> None:
    """Contracts that are no number: unreadable for a minute, and hedged by what was read before."""
    world = World(policies(hedge()))
    world.ends(world.fall(BESIDE), "closing")
    row = structs.replace(position(BTC, "long", "-200", mark_price="100"), contracts=D("NaN"))
    senseless = account("800", [row], instruments=(rules(BTC),))
    world.tick(senseless, BESIDE)
    assert sold(world.tick(senseless, BESIDE, after=A_MINUTE)) == 10


def test_a_holding_that_is_sold_on_another_market_is_stuck_where_it_is_listed() -> None:
    """100 X, listed as X/USDT, could not be sold as X/BTC."""
    held = account("1", [position("X/USDT", "long", contracts="100", mark_price="1")], market="spot")
    hop = Intent("main", "X/BTC", "long", "sell", D(100), D(0), False, 1, purpose="hop")
    decision = Decision("d", START, "p", "s", "account/main", "enforce", "s", 1, 0, intents=(hop,))
    closing = Closing("d", "blocked", (Residual("main", "X/BTC", "long", D(100)),))
    rule = HedgeRule("act", 0, (HedgeInstrument("other", "X/USDT"),), HOUR, D(1))
    [found] = Obstacles().uncloseable([(closing, decision, rule)], TickAccounts(0, {"main": held}, {"main": held}, {}))
    assert (found.key, found.contracts) == (("main", "X/USDT", "long"), D(100))


# What stands in


def test_the_same_instrument_is_hedged_contract_for_contract_whatever_the_prices() -> None:
    """The mark of the account that is down is an old one: 10 BTC are 10 BTC at half the price, in contracts of 0.1."""
    for size, expected in (("1", 10), ("0.1", 100)):
        world = World(policies(hedge()))
        world.ends(world.fall(BESIDE), "closing")
        world.tick(down(), BESIDE)
        found = world.tick(down(), other((BTC, "50"), contract_size=size), after=A_MINUTE)
        assert sold(found) == expected


def priced_in(symbol: str) -> AccountSnapshot:
    held = [position(symbol, "long", "0", contracts="1", mark_price="20", notional="50000")]
    return account("5000", held, name="other", instruments=[rules(symbol)])


def test_a_stand_in_that_is_priced_in_another_asset_is_refused() -> None:
    """BTC/ETH at 20 is not 20 USDT, which is what the account counts in."""
    world = World(policies(hedge(symbol="BTC/ETH")))
    world.ends(world.fall(priced_in("BTC/ETH")), "blocked")
    found = world.tick(main("-200"), priced_in("BTC/ETH"))
    assert found.decisions == ()
    assert "BTC/ETH is priced in ETH, and nothing converts that to USDT" in found.notices[0].text


def test_a_position_that_is_priced_in_another_asset_is_not_sized_either() -> None:
    """What it is worth, and how it moves, is said in ETH, and the hedge would be counted in USDT."""

    def crossed(pnl: str) -> AccountSnapshot:
        held = [position("BTC/ETH", "long", pnl, contracts="10", mark_price="20")]
        return account(str(1000 + D(pnl)), held, instruments=[rules("BTC/ETH")])

    world = World(policies(hedge()))
    world.tick(crossed("0"), BESIDE)
    [fired] = world.tick(crossed("-200"), BESIDE).decisions
    world.closings = (Closing(fired.id, "blocked", (Residual("main", "BTC/ETH", "long", D(10)),)),)
    found = world.tick(crossed("-200"), BESIDE)
    assert found.decisions == ()
    assert "BTC/ETH is priced in ETH" in found.notices[0].text


def walk(world: World, random: Random, minutes: int, *, frozen_from: int | None = None) -> tuple[str, AccountSnapshot]:
    """ETH moves exactly as BTC, whose market is halted, and its mark with it, from a minute on."""
    price, mark, beside = 100.0, "100", other((ETH, "100"))
    for minute in range(minutes):
        price *= 1 + random.uniform(-0.01, 0.01)
        frozen = frozen_from is not None and minute >= frozen_from
        mark = mark if frozen else f"{price:.6f}"
        beside = other((ETH, f"{price:.6f}"))
        state = rules(BTC, state="halted" if frozen else "open")
        world.tick(main("0", mark, [state]), beside, after=timedelta(minutes=1))
    return mark, beside


def test_the_mark_of_a_market_that_does_not_trade_makes_no_returns() -> None:
    """40 minutes that moved together, then 15 halted: β is 1 by the first, and not less by what was frozen."""
    world = World(policies(hedge(symbol=ETH)))
    mark, beside = walk(world, Random(1), 55, frozen_from=40)
    halted = [rules(BTC, state="halted")]
    [fired] = world.tick(main("-200", mark, halted), beside).decisions
    world.ends(fired, "blocked")
    [made] = world.tick(main("-200", mark, halted), beside).decisions
    assert made.reason is not None
    assert "beta 1.0000 by 39 returns" in made.reason


def test_a_beta_that_may_be_noise_is_suggested_with_the_reason_and_not_opened() -> None:
    """Two walks that have nothing to do with each other: nothing is opened unless β is two standard errors from 0."""
    opened, suggested = 0, 0
    for seed in range(20):
        random = Random(seed)
        world = World(policies(hedge(symbol=ETH)))
        beside = other((ETH, "100"))
        for _ in range(33):
            beside = other((ETH, f"{100 * (1 + random.uniform(-0.01, 0.01)):.4f}"))
            mark = f"{100 * (1 + random.uniform(-0.01, 0.01)):.4f}"
            world.tick(main("0", mark), beside, after=timedelta(minutes=1))
        [fired] = world.tick(main("-200"), beside).decisions
        world.ends(fired, "blocked")
        found = world.tick(main("-200"), beside)
        assert all(order[2] == "short" for order in orders(found))
        opened += bool(orders(found))
        suggested += "standard errors" in found.notices[0].text
    assert opened <= 3  # a normal error lies two standard errors above 0 once in 44
    assert suggested >= 15


def test_an_instrument_that_is_sure_is_taken_before_one_that_is_doubtful() -> None:
    """The first declared is on an account that is not armed, the second is armed: that one is opened."""
    third = structs.replace(BESIDE, account="third")
    two = (HedgeInstrument("other", BTC), HedgeInstrument("third", BTC))
    rule = replace(hedge(), hedge=replace(hedge().hedge, instruments=two))
    world = World(policies(rule))
    world.interpreter = Interpreter(policies(rule), armed=("main", "third"))
    world.tick(main(), BESIDE, third)
    [fired] = world.tick(main("-200"), BESIDE, third).decisions
    world.ends(fired, "blocked")
    assert [order[0] for order in orders(world.tick(main("-200"), BESIDE, third))] == ["third"]


def test_on_an_account_that_is_not_armed_a_hedge_is_suggested_and_opened_once_it_is() -> None:
    """No order could leave for it, so nothing is recorded as opened: the run that is armed opens it."""
    made = policies(hedge())
    world = World(made)
    world.interpreter = Interpreter(made, armed=("main",))
    fired = world.fall(BESIDE)
    world.ends(fired, "blocked")
    found = world.tick(main("-200"), BESIDE)
    assert found.decisions == ()
    assert "suggested to stand in" in found.notices[0].text
    assert found.notices[0].text.endswith("; not opened: other is not armed")
    after = World(made)
    after.at, after.closings = world.at, world.closings
    after.interpreter = Interpreter(made, armed=("main", "other"), earlier_notices=found.notices)
    after.interpreter.restore(world.interpreter.states(), lambda _p, _s, _since: (), past=(fired,))
    assert sold(after.tick(main("-200"), BESIDE)) == 10


def test_nothing_is_opened_on_an_account_that_the_same_tick_begins_to_close() -> None:
    """`other` falls by a fifth when the close of `main` has ended short: it is closed, and not opened on."""

    def policy(name: str, scope: str, unwinding: str | None) -> Graph:
        out = stage("out", 3, 0, actions=(close("both", unwinding=unwinding),))
        made = graph((FALL_15M,), (trigger("fall", 0, 0.1),), (out,), policy=name)
        return replace(made, scope=replace(made.scope, accounts=(scope,)))

    def beside(equity: str) -> AccountSnapshot:
        held = position(BTC, "long", str(D(equity) - 5000), contracts="30", mark_price="100", notional="3000")
        return account(equity, [held], name="other", instruments=(rules(BTC),))

    two = policy_set(policy("one", "main", "u"), policy("two", "other", None))
    world = World(replace(two, unwindings=(hedge(),)))
    world.tick(main(), beside("5000"))
    [fired] = world.tick(main("-200"), beside("5000")).decisions
    world.ends(fired, "blocked")
    found = world.tick(main("-200"), beside("4000"))
    assert [(each.policy, each.kind) for each in found.decisions] == [("two", None)]
    assert "the account is being closed itself" in found.notices[0].text


def test_nothing_is_opened_where_the_same_tick_cancels_orders() -> None:
    """A hand clears `other`, which holds nothing but an order."""
    resting = Order("r1", BTC, "buy", D(1))
    beside = account("5000", (), name="other", instruments=[rules(BTC)], orders=[resting])
    world = World(policies(hedge()))
    fired = world.fall(beside)
    world.ends(fired, "blocked")
    world.at += timedelta(seconds=1)
    events = [hand("close", world.at, scope="account/other")]
    found = world.interpreter.tick(snapshot(world.at, main("-200"), beside, events=events, closings=world.closings))
    assert [(each.kind, len(each.cancels)) for each in found.decisions] == [("manual", 1)]
    assert sold(world.tick(main("-200"), beside)) == 10


def test_a_preview_opens_nothing_on_accounts_that_are_not_armed() -> None:
    """`plan` shows what would be done: of the accounts whose documents arm them."""
    made = policies(hedge())
    for armed, expected in ((frozenset({"main"}), 0), (frozenset({"main", "other"}), 10)):
        world = World(made)
        world.ends(world.fall(BESIDE), "blocked")
        seen = snapshot(world.at, main("-200"), BESIDE, closings=world.closings)
        shown = preview(made, seen, world.interpreter, "", armed)
        assert sold(Outcome(shown.decisions)) == expected


# What is told


def restarted(world: World, made: PolicySet, past: Sequence[Decision], told: Any) -> Outcome:
    after = World(made)
    after.at, after.closings = world.at, world.closings
    after.interpreter = Interpreter(made, earlier_notices=told)
    after.interpreter.restore(world.interpreter.states(), lambda _p, _s, _since: (), past=past)
    return after.tick(main("-200"), BESIDE)


def test_a_suggestion_is_not_told_again_by_the_next_run() -> None:
    """Where the notices of earlier runs are known they decide; where not, what had ended is taken to be told."""
    made = policies(hedge("suggest"))
    world = World(made)
    fired = world.fall(BESIDE)
    world.ends(fired, "blocked")
    [told] = world.tick(main("-200"), BESIDE).notices
    assert restarted(world, made, (fired,), None).notices == ()
    assert restarted(world, made, (fired,), (told,)).notices == ()
    assert [each.text for each in restarted(world, made, (fired,), ()).notices] == [told.text]
    earlier = structs.replace(told, as_of=START - timedelta(days=1))
    assert len(restarted(world, made, (fired,), (earlier,)).notices) == 1
