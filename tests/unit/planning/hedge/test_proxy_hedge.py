"""Proxy hedges: what cannot be closed is hedged once; suggested or opened, sized by beta, bounded, temporary."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.engine.alerts import AlertState, advance
from killswitch.graph.nodes import PolicySet
from killswitch.graph.unwinding import HedgeInstrument, HedgeRule, SlippageRule, UnwindingRule
from killswitch.model.decision import Decision, Rung
from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.model.snapshot import AccountSnapshot, Closing, ClosingStatus, Instrument, Residual
from killswitch.model.words import Cause
from killswitch.planning.interpreter import Interpreter, Outcome
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.worlds import START, account, operator_event, position, rules, snapshot

D = Decimal
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
INTENT_FIELDS = ("account", "symbol", "position_side", "side", "contracts", "reduce_only", "purpose")


def hedge(mode: str = "act", symbol: str = BTC, **more: Any) -> UnwindingRule:
    """An unwinding that allows `symbol` on the account `other` as a hedge, for at most 100,000 USDT."""
    fields: dict[str, Any] = {"max_notional": D(100_000), "currency": "USDT", **more}
    rule = HedgeRule(mode, MINUTE, (HedgeInstrument("other", symbol),), HOUR, **fields)  # type: ignore[arg-type]  # literal
    return UnwindingRule(
        "u",
        hedge=rule,
        slippage=(SlippageRule(None, D("0.01")),),
        ladder=(Rung("limit_ioc"), Rung("market")),
    )


def policies(rule: UnwindingRule, mode: str = "enforce") -> PolicySet:
    """Close everything of the account `main` at a fall of 10%, under this unwinding."""
    policy = graph(
        (FALL_15M,), (trigger("fall", 0, 0.1),), (stage("out", 3, 0, actions=(close("both", unwinding="u"),)),),
        mode=mode, scope=replace(graph((), (), ()).scope, accounts=("main",)),
    )  # fmt: skip
    return replace(policy_set(policy), unwindings=(rule,))


def main(pnl: str = "0", mark: str = "100", instruments: Sequence[Instrument] = (rules(BTC),)) -> AccountSnapshot:
    """Long 10 BTC at a mark of 100."""
    held = position(BTC, "long", pnl, contracts="10", mark_price=mark, notional=str(10 * D(mark)))
    return account(str(1000 + D(pnl)), [held], instruments=instruments)


def other(*marks: tuple[str, str], quality: str = "ok", **limits: str) -> AccountSnapshot:
    """The account for hedges, with one contract of each symbol that is given with its mark."""
    held = [position(s, "long", "0", contracts="1", mark_price=m, notional=m) for s, m in marks]
    known = [rules(symbol, **limits) for symbol in (BTC, ETH)]
    return account("5000", held, name="other", quality=quality, reason=None, instruments=known)


def down() -> AccountSnapshot:
    return account(None, None, quality="down", reason="no answer")


class World:
    """An interpreter and its clock: every step is one tick."""

    def __init__(self, made: PolicySet) -> None:
        self.interpreter = Interpreter(made)
        self.at = START
        self.closings: tuple[Closing, ...] = ()
        self.alerts = AlertState()

    def tick(self, *accounts: AccountSnapshot, after: timedelta = timedelta(seconds=1)) -> Outcome:
        """The outcome, with the notices of its alerts among its notices."""
        self.at += after
        outcome = self.interpreter.tick(snapshot(self.at, *accounts, closings=self.closings))
        notices, self.alerts = advance(self.alerts, outcome.alerts, to_micros(self.at))
        return replace(outcome, notices=outcome.notices + notices)

    def fall(self, hedge_account: AccountSnapshot) -> Decision:
        """The account loses a fifth, and the stage fires."""
        self.tick(main(), hedge_account)
        [decision] = self.tick(main("-200"), hedge_account).decisions
        return decision

    def ends(self, decision: Decision, status: ClosingStatus, contracts: str = "10") -> None:
        left = (Residual("main", BTC, "long", D(contracts)),)
        self.closings = (Closing(decision.id, status, left, scope=decision.scope),)


def orders(outcome: Outcome) -> list[tuple[Any, ...]]:
    return [
        tuple(getattr(intent, name) for name in INTENT_FIELDS) for each in outcome.decisions for intent in each.intents
    ]


@pytest.mark.parametrize("status", ["blocked", "residual", "abandoned"])
def test_what_could_not_be_closed_is_hedged_by_the_same_instrument_elsewhere(status: ClosingStatus) -> None:
    """10 long contracts are left: 10 are sold on the other account, once, and marked as temporary."""
    world = World(policies(hedge()))
    hedge_account = other((BTC, "100"))
    fired = world.fall(hedge_account)
    world.ends(fired, status)
    found = world.tick(main("-200"), hedge_account)
    assert orders(found) == [("other", BTC, "short", "sell", D(10), False, "hedge")]
    [made] = found.decisions
    assert (made.kind, made.policy, made.scope, made.level) == ("hedge", "test", "account/main", 3)
    assert made.unwinding is not None
    assert made.unwinding.ladder == fired.unwinding.ladder if fired.unwinding else ()
    assert made.intents[0].band == D("0.01")
    assert made.reason is not None
    assert made.reason.startswith(f"temporary: stands in for long 10 {BTC} on main, which could not be closed")
    [notice] = found.notices
    assert (notice.kind, notice.severity, notice.subject) == ("blocked", "page", BTC)
    assert notice.text.startswith("hedge:")
    assert "`ksctl close --scope account/other`" in notice.text
    again = world.tick(main("-200"), hedge_account)
    assert (again.decisions, again.notices) == ((), ())


def test_a_suggestion_is_reported_once_and_opens_nothing() -> None:
    """Mode `suggest`: the same size, as a notice only."""
    world = World(policies(hedge("suggest")))
    world.ends(world.fall(other((BTC, "100"))), "blocked")
    found = world.tick(main("-200"), other((BTC, "100")))
    assert found.decisions == ()
    assert [notice.text.partition("suggested")[2] for notice in found.notices] == [
        f" to stand in until it is closed: sell 10 {BTC} on other (1000.00 USDT at 100, the same instrument)"
    ]
    assert world.tick(main("-200"), other((BTC, "100"))).notices == ()


def test_a_suggestion_for_more_contracts_is_reported_again() -> None:
    """1 contract is left, then 6: without a second page somebody would have sold 1 of 6."""
    world = World(policies(hedge("suggest")))
    hedge_account = other((BTC, "100"))
    fired, texts = world.fall(hedge_account), []
    for left in ("1", "1", "6", "6", "2"):
        world.ends(fired, "residual", left)
        texts += [notice.text for notice in world.tick(main("-200"), hedge_account).notices]
    assert [text.partition(" BTC")[0] for text in texts] == ["hedge: long 1", "hedge: long 6"]


def test_an_account_that_cannot_be_read_is_hedged_after_the_declared_time_and_not_before() -> None:
    """Still closing and down: nothing for 59 s; the hedge of the last known position after 60 s."""
    world = World(policies(hedge()))
    hedge_account = other((BTC, "100"))
    world.ends(world.fall(hedge_account), "closing")
    assert orders(world.tick(down(), hedge_account)) == []
    assert orders(world.tick(down(), hedge_account, after=timedelta(seconds=59))) == []
    assert [order[4] for order in orders(world.tick(down(), hedge_account, after=timedelta(seconds=1)))] == [D(10)]


def test_c12_a_market_that_is_halted_is_hedged_after_the_declared_time_too() -> None:
    """The account answers, the closing goes on trying, and the market accepts no order: the hedge comes after 60 s."""
    world = World(policies(hedge()))
    hedge_account = other((BTC, "100"))
    world.ends(world.fall(hedge_account), "closing")
    halted = account("800", main("-200").positions, instruments=[rules(BTC, state="halted")])
    assert orders(world.tick(halted, hedge_account)) == []
    found = world.tick(main("-200", instruments=()), hedge_account, after=timedelta(seconds=60))
    assert [order[4] for order in orders(found)] == [D(10)]
    assert f"{BTC} is halted at the venue" in found.notices[0].text


def test_the_hedge_delay_restarts_when_the_account_was_readable_in_between() -> None:
    """40 s down, read once, 40 s down again: never 60 s in a row."""
    world = World(policies(hedge()))
    hedge_account = other((BTC, "100"))
    world.ends(world.fall(hedge_account), "closing")
    for step in (down(), down(), main("-200"), down(), down()):
        assert orders(world.tick(step, hedge_account, after=timedelta(seconds=40))) == []
    assert len(orders(world.tick(down(), hedge_account, after=timedelta(seconds=40)))) == 1


def test_no_more_is_hedged_than_the_position_still_holds() -> None:
    """The account shows 10 contracts and not the closing's 12; an account that is flat by now is not hedged at all."""
    world = World(policies(hedge()))
    fired = world.fall(other((BTC, "100")))
    world.ends(fired, "residual", contracts="12")
    assert orders(world.tick(account("800", []), other((BTC, "100")))) == []
    assert [order[4] for order in orders(world.tick(main("-200"), other((BTC, "100"))))] == [D(10)]


def test_the_bound_and_the_steps_of_the_venue_hold() -> None:
    """At most 455 USDT are 4.55 contracts: 4.5 in steps of 0.5, in orders of at most 2."""
    world = World(policies(hedge(max_notional=D(455))))
    hedge_account = other((BTC, "100"), amount_step="0.5", max_amount="2")
    world.ends(world.fall(hedge_account), "blocked")
    assert [order[4] for order in orders(world.tick(main("-200"), hedge_account))] == [D(2), D(2), D("0.5")]


def sampled(world: World, moves: Sequence[tuple[str, str]]) -> None:
    """A minute for each pair of marks of BTC on `main` and ETH on `other`."""
    for btc, eth in moves:
        world.tick(main(mark=btc), other((ETH, eth)), after=timedelta(minutes=1))


UP_AND_DOWN = [("100", "50"), ("102", "50.5")] * 20
"""BTC moves 2% up when ETH moves 1% up, and back."""


def test_a_correlated_instrument_is_sized_by_beta() -> None:
    """Up 2% and down 2/102 against up 1% and down 1/101: β = 0.0396078… ÷ 0.0199010… = 1.9902."""
    world = World(policies(hedge(symbol=ETH)))
    sampled(world, UP_AND_DOWN)
    hedge_account = other((ETH, "50"))
    world.ends(world.fall(hedge_account), "blocked")
    found = world.tick(main("-200"), hedge_account)
    # 1,000 USDT × 1.9902 ÷ 50 = 39.804 contracts
    assert orders(found) == [("other", ETH, "short", "sell", D("39.804"), False, "hedge")]
    assert "beta 1.9902 by 39 returns in 1h" in found.notices[0].text


def test_a_hedge_of_negative_beta_is_suggested_and_not_opened() -> None:
    """A beta below zero: another long would hedge a long. People decide whether to open it, also in mode `act`."""
    world = World(policies(hedge(symbol=ETH)))
    sampled(world, [("100", "50.5"), ("102", "50")] * 20)
    world.ends(world.fall(other((ETH, "50"))), "blocked")
    found = world.tick(main("-200"), other((ETH, "50")))
    assert found.decisions == ()
    [notice] = found.notices
    assert "suggested to stand in until it is closed: buy " in notice.text
    assert "not opened: its beta is -1.99" in notice.text
    assert notice.text.endswith("the two have moved against each other")


def test_with_too_few_returns_no_hedge_is_sized_and_one_notice_is_sent() -> None:
    """No beta: reported, and checked again; with enough samples later the hedge comes."""
    world = World(policies(hedge(symbol=ETH)))
    world.ends(world.fall(other((ETH, "50"))), "blocked")
    found = world.tick(main("-200"), other((ETH, "50")))
    assert found.decisions == ()
    assert "its beta is unknown: 0 returns of both in 1h, and 30 are needed" in found.notices[0].text
    assert world.tick(main("-200"), other((ETH, "50"))).notices == ()
    made = [
        bool(orders(world.tick(main("-200", mark=btc), other((ETH, eth)), after=timedelta(minutes=1))))
        for btc, eth in UP_AND_DOWN
    ]
    # the first mark was taken before the first minute: the thirtieth return is that of the thirtieth minute
    assert (made.index(True) + 1, made.count(True)) == (30, 1)


@pytest.mark.parametrize(
    ("hedge_account", "why"),
    [
        (other((BTC, "100"), quality="down"), "other is down"),
        (other((BTC, "100"), min_amount="50"), "1000.00 USDT is less than it trades"),
        (account("1", name="other", instruments=[rules(BTC, state="reduce_only")]), "it is reduce_only at the venue"),
        (account("1", name="other"), "the venue's rules for it are unknown"),
        (account("1", name="other", currency="USD", instruments=[rules(BTC)]), "nothing converts"),
        (account("1", name="elsewhere"), "the account is not there"),
        (account("1", name="other", market="spot", instruments=[rules(BTC)]), "nothing can be sold short on a spot"),
    ],
)
def test_an_unsuitable_hedge_account_is_reported_with_the_reason(hedge_account: AccountSnapshot, why: str) -> None:
    """Nothing is opened on an account that is not sound, or on a market that accepts no new positions."""
    world = World(policies(hedge()))
    world.ends(world.fall(hedge_account), "blocked")
    found = world.tick(main("-200"), hedge_account)
    assert found.decisions == ()
    assert why in found.notices[0].text


def test_an_account_that_is_being_closed_is_not_used_for_hedges() -> None:
    """A hedge there would be closed with the rest, or stay behind a lock."""
    world = World(policies(hedge()))
    hedge_account = other((BTC, "100"))
    fired = world.fall(hedge_account)
    world.ends(fired, "closing")
    world.at += timedelta(seconds=1)
    commands = [operator_event("close", START, scope="account/other")]
    commanded = snapshot(world.at, main("-200"), hedge_account, events=commands, closings=world.closings)
    [operator_close] = world.interpreter.tick(commanded).decisions
    world.ends(fired, "blocked")
    world.closings += (Closing(operator_close.id, "closing", (Residual("other", BTC, "long", D(1)),)),)
    found = world.tick(main("-200"), hedge_account)
    assert "the account is being closed itself" in found.notices[0].text
    world.closings = world.closings[:1]
    assert len(orders(world.tick(main("-200"), hedge_account))) == 1


def after_operator_close(cause: Cause, rule: UnwindingRule) -> Outcome:
    """The tick after an operator close of `main` for this reason has ended blocked."""
    world = World(policies(rule))
    hedge_account = other((BTC, "100"))
    event = replace(operator_event("close", START, scope="account/main"), cause=cause)
    [made] = world.interpreter.tick(snapshot(world.at, main(), hedge_account, events=[event])).decisions
    world.ends(made, "blocked")
    return world.tick(main(), hedge_account)


def test_an_operator_close_is_hedged_by_the_document_that_claims_its_reason() -> None:
    """Not for another reason, and not by a document that is named like a reason and does not claim it."""
    claiming = replace(hedge(), reasons=("counterparty",))
    assert len(orders(after_operator_close("counterparty", claiming))) == 1
    assert orders(after_operator_close("regulatory", claiming)) == []
    assert orders(after_operator_close("regulatory", replace(hedge(), name="regulatory"))) == []


def test_a_closing_that_is_no_longer_listed_is_not_hedged() -> None:
    """Nothing works on it: a later closing of the same name is not the one that was watched."""
    world = World(policies(hedge()))
    hedge_account = other((BTC, "100"))
    fired = world.fall(hedge_account)
    world.tick(main("-200"), hedge_account)
    world.ends(fired, "blocked")
    assert orders(world.tick(main("-200"), hedge_account)) == []


def test_a_policy_that_only_observes_hedges_nothing() -> None:
    """It closes nothing, so no close of it can fail."""
    world = World(policies(hedge(), mode="observe"))
    world.ends(world.fall(other((BTC, "100"))), "blocked")
    found = world.tick(main("-200"), other((BTC, "100")))
    assert (found.decisions, found.notices) == ((), ())


def test_without_hedge_instruments_only_the_shortfall_is_reported() -> None:
    """The runner pages for every closing that ends short; a second page without a remedy helps nobody."""
    rule = UnwindingRule("u", hedge=HedgeRule("suggest", MINUTE, (), HOUR, None))
    world = World(policies(rule))
    world.ends(world.fall(other((BTC, "100"))), "blocked")
    found = world.tick(main("-200"), other((BTC, "100")))
    assert (found.decisions, found.notices) == ((), ())


def test_a_restart_does_not_hedge_a_second_time() -> None:
    """The same position of the same closing has the same hedge id, whenever it is evaluated."""
    made = policies(hedge())
    world = World(made)
    hedge_account = other((BTC, "100"))
    fired = world.fall(hedge_account)
    world.ends(fired, "blocked")
    [opened] = world.tick(main("-200"), hedge_account).decisions
    for past, expected in (((fired,), [opened.id]), ((opened, fired), [])):
        after = World(made)
        after.at, after.closings = world.at, world.closings
        after.interpreter.restore(world.interpreter.states(), lambda _p, _s, _since: (), past=past)
        assert [decision.id for decision in after.tick(main("-200"), hedge_account).decisions] == expected


def test_c23_targets_in_progress_at_a_restart_are_not_ordered_a_second_time() -> None:
    """A decision whose closing continues keeps its targets over the restart: a second policy orders none of them."""
    first = policies(hedge())
    world = World(first)
    fired = world.fall(other())
    late = graph(
        (FALL_15M,), (trigger("fall", 0, 0.1),), (stage("late", 1, 0, actions=(close("both", unwinding="u"),)),),
        policy="late",
    )  # fmt: skip
    both = replace(first, graphs=(*first.graphs, late))
    for active, expected in (((fired,), ()), ((), ("main",))):
        after = World(both)
        after.at = world.at
        after.interpreter.restore(world.interpreter.states(), lambda _p, _s, _since: (), active=active)
        after.ends(fired, "closing")
        after.tick(main("0"), other())
        found = after.tick(main("-200"), other())
        mine = [decision for decision in found.decisions if decision.policy == "late"]
        assert [tuple(intent.account for intent in decision.intents) for decision in mine] == [expected]
