"""Decisions on partial snapshots: a venue that is down, and positions that are not given."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.nodes import Graph, ScopeRule, SignalRef
from killswitch.model.decision import Decision
from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.snapshot import AccountSnapshot, Order, Rate
from killswitch.model.venue import Prices
from killswitch.model.words import ReferenceCurrency
from tests.graphs import FALL_1H, FALL_15M, close, graph, policy_set, stage, trigger
from tests.notifying import NotifyingInterpreter
from tests.worlds import account, after, position, snapshot

BTC = "BTC/USDT:USDT"


def crash(each: str = "portfolio", fraction: str = "1", **more: Any) -> Graph:
    """Everything is closed at a fall of 15% in 15m."""
    close_it = stage(
        "everything", 3, 0, cooldown=HOUR, close_within=10 * MINUTE, actions=(close("both", fraction),), **more
    )
    return graph(
        (FALL_15M, FALL_1H), (trigger("crash", 0, 0.15),), (close_it,),
        scope=ScopeRule(each, None, None, None, None),  # type: ignore[arg-type]  # literal by the caller
    )  # fmt: skip


def long(name: str, equity: str, mark: str, contracts: str, **more: Any) -> AccountSnapshot:
    pnl = str((Decimal(mark) - 50_000) * Decimal(contracts))
    held = position(
        BTC, "long", pnl, contracts=contracts, entry_price="50000", mark_price=mark, margin="5000",
        notional=str(Decimal(mark) * Decimal(contracts)), **more,
    )  # fmt: skip
    return account(equity, [held], name=name, observed_at=after())


def down(name: str) -> AccountSnapshot:
    return account(None, None, name=name, quality="down", reason="timeout")


def calm(interpreter: NotifyingInterpreter, *accounts: AccountSnapshot) -> None:
    for minute in range(17):
        assert interpreter.tick(snapshot(after(minutes=minute), *accounts)).decisions == ()


def intents(decisions: tuple[Decision, ...]) -> list[tuple[str, Decimal, bool]]:
    return [(one.account, one.contracts, one.reduce_only) for decision in decisions for one in decision.intents]


def two_accounts(**more: Any) -> NotifyingInterpreter:
    interpreter = NotifyingInterpreter(policy_set(crash(**more)))
    calm(interpreter, long("a", "100000", "50000", "4"), long("b", "100000", "50000", "1"))
    return interpreter


def test_one_venue_down_and_the_other_loses_42_percent() -> None:
    """20.75% of both are lost in the best case: `a` is closed at once, and `b` when it answers."""
    interpreter = two_accounts()
    fallen = long("a", "58000", "39500", "4")
    outcome = interpreter.tick(snapshot(after(minutes=17), fallen, down("b")))
    assert intents(outcome.decisions) == [("a", Decimal(4), True)]
    (reading,) = outcome.decisions[0].triggers
    assert reading.value == ("0.2075", "0.265")
    back = interpreter.tick(snapshot(after(minutes=18), fallen, long("b", "89500", "39500", "1")))
    assert intents(back.decisions) == [("b", Decimal(1), True)]
    assert interpreter.status()[0].stage == "everything"


def test_a_loss_that_may_be_less_than_the_threshold_does_not_fire() -> None:
    """`a` loses 32,000 of 200,000 by a fall of 16%; `b`, short 1, may have gained 8,000, and 500: at least 11.75%."""
    interpreter = NotifyingInterpreter(policy_set(crash()))
    short = position(
        BTC, "short", "0", contracts="1", entry_price="50000", mark_price="50000", margin="5000", notional="50000"
    )
    calm(interpreter, long("a", "100000", "50000", "4"), account("100000", [short], name="b", observed_at=after()))
    outcome = interpreter.tick(snapshot(after(minutes=17), long("a", "68000", "42000", "4"), down("b")))
    assert outcome.decisions == ()


def test_a_second_price_fetch_bounds_the_unavailable_account_as_before() -> None:
    """The readable venue returns its prices again, which are corroborated; the other one is bounded as before."""
    interpreter = two_accounts(corroborate=True)
    pending = interpreter.evaluate(snapshot(after(minutes=17), long("a", "58000", "39500", "4"), down("b")))
    assert pending is not None
    refetched = Prices(Decimal(39_400), Decimal(39_400), Decimal(39_400))
    outcome = interpreter.decide(pending, prices={"a": {BTC: refetched}})
    assert intents(outcome.decisions) == [("a", Decimal(4), True)]


def test_a_stray_print_fires_nothing_while_another_account_is_unavailable() -> None:
    """The mark fell by 21%, index and last price did not: a corroborating stage does not fire."""
    interpreter = two_accounts(corroborate=True)
    stray = long("a", "58000", "39500", "4", index_price="50000", last_price="50000")
    outcome = interpreter.tick(snapshot(after(minutes=17), stray, down("b")))
    assert outcome.decisions == ()
    assert [notice.kind for notice in outcome.notices if notice.kind == "uncorroborated"] == ["uncorroborated"]


def test_with_unknown_positions_and_known_equity_the_last_known_positions_are_closed() -> None:
    """20% are lost; the four contracts held a minute ago are closed, reduce-only, and the stage latches."""
    interpreter = NotifyingInterpreter(policy_set(crash("account")))
    calm(interpreter, long("main", "100000", "50000", "4"))
    blind = replace(long("main", "80000", "45000", "4"), positions=None, unrealized=Decimal(-20_000))
    outcome = interpreter.tick(snapshot(after(minutes=17), blind))
    assert intents(outcome.decisions) == [("main", Decimal(4), True)]
    assert outcome.decisions[0].reason == (
        "main has unknown positions: the last known ones at 2024-01-01T00:00:00+00:00 are closed, reduce-only"
    )
    assert interpreter.status()[0].stage == "everything"


def test_with_unknown_positions_no_order_is_judged_by_the_last_known_ones() -> None:
    """Sales of 9 and a purchase: with the 4 contracts of a minute ago all are entries; unknown, each may be an exit."""
    made = crash("account")
    (everything,) = made.stages
    made = replace(made, stages=(replace(everything, actions=(CancelOrders("entry"), *everything.actions)),))
    sides = (("sale", "sell"), ("stop", "sell"), ("bought", "buy"))
    orders = tuple(Order(id=name, symbol=BTC, side=side, amount=Decimal(9)) for name, side in sides)  # type: ignore[arg-type]  # literal
    for seen in (True, False):
        interpreter = NotifyingInterpreter(policy_set(made))
        calm(interpreter, replace(long("main", "100000", "50000", "4"), orders=orders))
        polled = replace(long("main", "80000", "45000", "4"), unrealized=Decimal(-20_000), orders=orders)
        outcome = interpreter.tick(snapshot(after(minutes=17), polled if seen else replace(polled, positions=None)))
        (decision,) = outcome.decisions
        assert [each.order for each in decision.cancels] == (["sale", "stop", "bought"] if seen else [])


def test_unknown_spot_holdings_are_not_sold_from_the_last_known_ones() -> None:
    """At spot nothing is reduce-only: the close waits until the account returns its holdings."""
    interpreter = NotifyingInterpreter(policy_set(crash("account", "0.5")))
    coin = account("100000", [position("BTC/USDT", "long", contracts="2", mark_price="50000", notional="100000")])
    calm(interpreter, replace(coin, market="spot"))
    blind = replace(coin, market="spot", equity=Decimal(80_000), positions=None)
    for minute in (17, 18, 19):
        assert intents(interpreter.tick(snapshot(after(minutes=minute), blind)).decisions) == []


def test_unknown_positions_leave_exposure_unknown_and_never_flat() -> None:
    """Leverage, gross and shares are unknown; the fall of 20% is not."""
    names = (
        "exposure.gross", "exposure.leverage", "exposure.largest_share", "exposure.net", "equity.loss_from_start"
    )  # fmt: skip
    made = graph(
        tuple(SignalRef(name) for name in names),
        tuple(trigger(name, place, 0.1) for place, name in enumerate(names)),
        (stage("s", 1, *range(5)),),
    )
    interpreter = NotifyingInterpreter(policy_set(made))
    interpreter.tick(snapshot(after(), long("main", "100000", "50000", "4")))
    blind = replace(long("main", "80000", "45000", "4"), positions=None, unrealized=Decimal(-20_000))
    interpreter.tick(snapshot(after(minutes=1), blind))
    readings = interpreter.status()[0].triggers
    assert [reading.truth for reading in readings] == [None] * 4 + [True]
    assert readings[-1].value == (0.2, 0.2)


def in_coins(equity: str, pnl: str, name: str, coin: str, price: str) -> AccountSnapshot:
    """An account in a stable coin, whose venue prices both coins in dollars."""
    held = [position("L", "long", pnl, contracts="10", notional="50000", margin="5000")]
    rates = (Rate("USD", Decimal(price)),)
    return account(equity, held, name=name, venue=name, currency=coin, rates=rates)


def test_accounts_in_usdt_and_usdc_fire_together_in_dollars() -> None:
    """100,000 USDT and 50,000 USDC; 24,000 of 150,000 USD are lost, 16%. Without a reference nothing ever fires."""
    reference = ReferenceCurrency("USD", 1, Decimal("0.01"))
    fired = []
    for rule in (reference, None):
        made = crash()
        made = replace(made, equity=replace(made.equity, reference=rule))
        interpreter = NotifyingInterpreter(policy_set(made))
        calm(interpreter, in_coins("100000", "0", "a", "USDT", "1"), in_coins("50000", "0", "b", "USDC", "1"))
        outcome = interpreter.tick(
            snapshot(after(minutes=17), in_coins("84000", "-16000", "a", "USDT", "1"),
                     in_coins("42000", "-8000", "b", "USDC", "1"))
        )  # fmt: skip
        fired.append([one.account for one in (outcome.decisions[0].intents if outcome.decisions else ())])
    assert sorted(fired[0]) == ["a", "b"]
    assert fired[1] == []
