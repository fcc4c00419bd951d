"""What a plan says that a level would sell is what the tick sells in which that level fires, on the same snapshot.

Two policies differ in their thresholds only: of one no trigger can be true, so that a plan of it shows its levels; of
the other they are true, and its tick decides. Nothing of the plan is used by the tick.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.accounts.opening import compiled
from killswitch.graph.nodes import PolicySet
from killswitch.model.applied_set import PolicyFile
from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot, Liquidity, Order, Snapshot
from killswitch.operations.preview import preview
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.loader import load_texts
from tests.worlds import START, account, position, rules

SYMBOLS = ("A", "B", "C", "D")

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: levels}}
spec:
  mode: enforce
  scope: {{each: {scope}, match: {{currency: USDT}}}}
  max_gap: 10m
  triggers:
    low: {{signal: equity.drawdown, window: 15m, at_least: {low}%, on_unknown: hold}}
    deep: {{signal: equity.drawdown, window: 30m, at_least: {deep}%, on_unknown: hold}}
  stages:
    - name: first
      level: 1
      any: [low]
      cooldown: 1h
      reset: manual
      attribution: {{source_at_least: 66%, if_mixed: both, if_unknown: larger_side}}
      actions: [{{close: {{side: {side}, fraction: {fraction}%}}}}, {{cancel_orders: {{kind: all}}}}]
    - name: second
      level: 2
      any: [deep]
      cooldown: 1h
      reset: manual
      actions: [{{close: {{side: both, fraction: 100%}}}}, {{lock_trading: {{mode: reduce_only}}}}]
"""


def policies(scope: str, side: str, fraction: int, low: str, deep: str) -> PolicySet:
    """The policy with these thresholds; no book falls by 98%, and most by 0.01%."""
    text = POLICY.format(scope=scope, side=side, fraction=fraction, low=low, deep=deep)
    file = PolicyFile("policy.yaml", text.encode())
    return compiled(load_texts((file,)), None, files=(file,)).policies


@st.composite
def books(draw: st.DrawFn) -> tuple[AccountSnapshot, ...]:
    """One or two accounts with up to four positions, some of which the venue's minimum or a missing rule stops."""
    found = []
    for name in ("main", "other")[: draw(st.integers(1, 2))]:
        held = [
            position(
                symbol, draw(st.sampled_from(["long", "short"])), str(draw(st.integers(-50, 50))),
                contracts=str(draw(st.integers(1, 40))), mark_price="10", notional=str(draw(st.integers(1, 400))),
                bid=draw(st.sampled_from(["9.9", "9.99"])), ask="10.1",
            )
            for symbol in draw(st.lists(st.sampled_from(SYMBOLS), unique=True, max_size=4))
        ]  # fmt: skip
        known = [rules(symbol, min_amount=draw(st.sampled_from(["0.001", "3"]))) for symbol in SYMBOLS[:3]]
        orders = [Order("o1", "A", "buy", Decimal(1), price=Decimal(9))] if draw(st.booleans()) else []
        liquidity = (Liquidity("A", volume=Decimal(1000), over=60.0, volatility=0.05),)
        found.append(account(
            str(draw(st.integers(500, 1500))), held, name=name, instruments=known, orders=orders,
            liquidity=draw(st.sampled_from([None, liquidity])),
        ))  # fmt: skip
    return tuple(found)


def does(decision: Decision) -> tuple[object, ...]:
    """What a decision sells, cancels and leaves."""
    return decision.intents, decision.cancels, decision.lock, decision.book, decision.unwinding


def after_fall(before: AccountSnapshot, falls: list[int]) -> AccountSnapshot:
    """The account after each of its positions has lost one of these amounts."""
    positions = before.positions or ()
    lost = tuple(
        replace(row, unrealized_pnl=(row.unrealized_pnl or Decimal(0)) - fall)
        for row, fall in zip(positions, falls, strict=False)
    )
    return replace(before, positions=lost, equity=(before.equity or Decimal(0)) - sum(falls[: len(positions)]))


def watching(policy_set: PolicySet, accounts: tuple[AccountSnapshot, ...]) -> Interpreter:
    """An interpreter that has seen the accounts without a change for longer than its windows."""
    found = Interpreter(policy_set)
    for minute in range(0, 40, 5):
        assert found.tick(seen(accounts, minute)).decisions == ()
    return found


def seen(accounts: tuple[AccountSnapshot, ...], minute: int) -> Snapshot:
    return Snapshot(START + timedelta(minutes=minute), accounts, "killswitch.snapshot/v1")


@settings(max_examples=60, deadline=None)
@given(books(), st.sampled_from(["account", "portfolio"]), st.sampled_from(["both", "long", "losing"]),
       st.integers(1, 100), st.lists(st.integers(-5, 20), min_size=4, max_size=4))  # fmt: skip
def test_a_level_would_sell_what_the_tick_sells_in_which_it_fires(
    accounts: tuple[AccountSnapshot, ...], scope: str, side: str, fraction: int, falls: list[int]
) -> None:
    """For the first level alone, and for the second, which fires in its place; the losses decide the side."""
    fallen = tuple(after_fall(each, falls) for each in accounts)
    quiet = policies(scope, side, fraction, "98", "99")
    planned = preview(quiet, seen(fallen, 40), watching(quiet, accounts), "", frozenset())
    assert planned.decisions == ()
    levels = {(each.decision.scope, each.decision.stage): each.decision for each in planned.levels}
    for stage, deep in (("first", "99"), ("second", "0.01")):
        firing = policies(scope, side, fraction, "0.005", deep)
        fired = watching(firing, accounts).tick(seen(fallen, 40)).decisions
        assert {each.stage for each in fired} <= {stage, "first"}
        for decision in fired:
            assert does(levels[decision.scope, decision.stage]) == does(decision)


@settings(max_examples=30, deadline=None)
@given(books())
def test_a_preview_of_levels_changes_nothing(accounts: tuple[AccountSnapshot, ...]) -> None:
    """The states after a tick are the same, whether somebody looked at the levels or not."""
    policy_set = policies("account", "both", 50, "98", "99")
    one, other = Interpreter(policy_set), Interpreter(policy_set)
    for minute in range(3):
        one.tick(seen(accounts, minute))
        other.tick(seen(accounts, minute))
        one.levels()
        one.headrooms()
        one.positions()
    assert one.states() == other.states()
    assert one.status() == other.status()


@settings(max_examples=30, deadline=None)
@given(books())
def test_an_expected_cost_is_the_amount_times_the_distance_from_the_mark(accounts: tuple[AccountSnapshot, ...]) -> None:
    """In a linear contract of size one, of which the venue gives another notional, the cost scales with that."""
    quiet = policies("account", "both", 100, "98", "99")
    planned = preview(quiet, seen(accounts, 0), Interpreter(quiet), "", frozenset())
    held = {(each.account, row.symbol): row for each in accounts for row in each.positions or ()}
    for order in (order for level in planned.levels for order in level.expected):
        row = held[order.account, order.symbol]
        quote = row.bid if order.side == "sell" else row.ask
        assert order.price is not None
        assert order.cost is not None
        assert quote is not None
        assert row.notional is not None
        worse = (10 - order.price if order.side == "sell" else order.price - 10) / 10
        assert abs(order.cost - order.contracts / row.contracts * row.notional * worse) < Decimal("1e-9")
        has_impact = "impact" not in order.lacks
        assert (order.price != quote) == has_impact
