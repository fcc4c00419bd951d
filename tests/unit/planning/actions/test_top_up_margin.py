"""`top_up_margin`: how much is moved, what bounds it, what is on the way, and what is unknown."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision
from killswitch.model.effects import Transfer, of_kind
from killswitch.model.snapshot import AccountSnapshot, Closing, Flow
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.planning.margin_transfers import MarginNeed
from tests.backtests import written
from tests.worlds import START, account, after, flow, position, rules, snapshot

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  mode: enforce
  scope: {{each: account, match: {{account: [{accounts}]}}}}
  max_gap: 48h
  triggers:
    high: {{signal: exposure.margin_ratio, at_least: 50%, on_unknown: trip}}
  stages:
    - name: top-up
      level: 1
      any: [high]
      cooldown: 0s
      reset: {{auto: {{when: 'exposure.gross >= 0.0', for: 0s}}}}
      actions:
        - lock_trading: {{mode: reduce_only}}
        - top_up_margin: {{from: treasury, to_ratio: 30%, at_most: {bound} USDT, keep: 500 USDT{more}}}
"""
CLOSE = """
---
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: a-close}
spec:
  mode: enforce
  scope: {each: account, match: {account: [main], currency: USDT}}
  max_gap: 48h
  triggers:
    low: {signal: equity.value, below: 700 USDT, on_unknown: hold}
  stages:
    - name: out
      level: 1
      any: [low]
      cooldown: 1h
      reset: manual
      actions: [{close: {side: both, fraction: 100%}}]
"""


def policy(bound: str = "1000", accounts: str = "main", more: str = "") -> PolicySet:
    """A policy that tops up margin whenever the ratio is at 50% or above."""
    return written(POLICY.format(name="margin", bound=bound, accounts=accounts, more=more))


def holder(name: str, equity: str | None, maintenance: str | None, **more: object) -> AccountSnapshot:
    """An account with a position, this equity and this maintenance margin."""
    held = position("BTC_USDT", "long", "0", contracts="10", mark_price="100", notional="1000")
    made = account(equity, [held], instruments=[rules("BTC_USDT")], name=name)
    known = None if maintenance is None else Decimal(maintenance)
    return replace(made, maintenance_margin=known, **more)


def treasury(free: str | None = "5000", **more: object) -> AccountSnapshot:
    """The source, without positions."""
    made = account("5000", [], name="treasury")
    return replace(made, free=None if free is None else Decimal(free), **more)


def tick(interpreter: Interpreter, at: datetime, *accounts: AccountSnapshot, **more: object) -> Outcome:
    return interpreter.tick(snapshot(at, *accounts, **more))  # type: ignore[arg-type]  # keys of a snapshot


def moved(outcome: Outcome) -> list[Transfer]:
    found = (of_kind(decision.effects, Transfer) for decision in outcome.decisions)
    return [each for each in found if each is not None]


def amounts(outcome: Outcome) -> list[Decimal]:
    return [each.amount for each in moved(outcome)]


def decided(outcome: Outcome) -> Decision:
    (decision,) = (each for each in outcome.decisions if each.stage == "top-up" and each.kind is None)
    return decision


def restarted(policies: PolicySet, interpreter: Interpreter) -> Interpreter:
    """An interpreter that has the stored states of one that was killed after its tick."""
    again = Interpreter(policies)
    again.restore(interpreter.states(), lambda _policy, _scope, _since: ())
    return again


def once(*accounts: AccountSnapshot, policies: PolicySet | None = None) -> Outcome:
    return tick(Interpreter(policies or policy()), after(minutes=1), *accounts)


def test_maintenance_of_450_on_750_needs_750_for_a_ratio_of_30_per_cent() -> None:
    """450 ÷ 30% = 1,500, and 750 is there."""
    outcome = once(holder("main", "750", "450"), treasury())
    assert moved(outcome) == [Transfer("treasury", "main", "USDT", Decimal(750))]
    assert "750.00 USDT is moved from treasury" in (decided(outcome).reason or "")
    assert decided(outcome).accounts == ("treasury", "main")


def test_the_amount_is_rounded_up_so_that_the_ratio_is_reached() -> None:
    """100 ÷ 30% = 333.33…, so that 133.33333334 is the smallest amount of 8 decimals after which 30% is reached."""
    assert amounts(once(holder("main", "200", "100"), treasury())) == [Decimal("133.33333334")]


@pytest.mark.parametrize(
    ("bound", "free", "more", "expected"),
    [
        ("1000", "1250", "", ["750"]),  # 1,250 − 500 is just enough
        ("1000", "1249", "", []),
        ("749", "5000", "", []),  # the bound is too small for the whole amount, and no smaller one is declared
        ("600", "5000", ", partial_to: 40%", ["600"]),  # 450 ÷ 1,350 = 33.3%
        ("374", "5000", ", partial_to: 40%", []),  # 450 ÷ 1,124 = 40.04%
        ("375", "5000", ", partial_to: 40%", ["375"]),  # 450 ÷ 1,125 = 40%
        ("1000", "400", ", partial_to: 40%", []),  # the source is below its own limit
    ],
)
def test_a_smaller_amount_is_moved_only_if_it_reaches_the_ratio_that_is_declared_for_it(
    bound: str, free: str, more: str, expected: list[str]
) -> None:
    outcome = once(holder("main", "750", "450"), treasury(free), policies=policy(bound, more=more))
    assert amounts(outcome) == [Decimal(each) for each in expected]
    if not expected:
        assert "no margin is moved" in (decided(outcome).reason or "") or decided(outcome).lock is not None
        assert any("750.00 USDT is needed" in each.text for each in outcome.alerts.found)


@pytest.mark.parametrize(
    ("main", "source", "why"),
    [
        (holder("main", "750", None), treasury(), "the maintenance margin of main is unknown"),
        (holder("main", "750", "450"), treasury(None), "what treasury has free is unknown"),
        (holder("main", "750", "450"), treasury(quality="down", reason="no answer"), "treasury"),
        (holder("main", "750", "450", margin_mode="isolated"), treasury(), "isolated"),
        (holder("main", "750", "450"), treasury(currency="USDC"), "treasury is in USDC, and not in USDT"),
    ],
)
def test_what_is_unknown_moves_nothing_and_pages(main: AccountSnapshot, source: AccountSnapshot, why: str) -> None:
    outcome = once(main, source)
    assert moved(outcome) == []
    assert any(each.severity == "page" and why in each.text for each in outcome.alerts.found)


def test_a_source_that_is_not_in_the_snapshot_moves_nothing_and_pages() -> None:
    outcome = once(holder("main", "750", "450"))
    assert moved(outcome) == []
    assert any("treasury is not in the snapshot" in each.text for each in outcome.alerts.found)


def test_nothing_is_moved_to_an_account_of_which_a_close_is_decided() -> None:
    """By another policy in the same tick, and while that close is in progress."""
    interpreter = Interpreter(written(CLOSE.removeprefix("\n---") + "---" + POLICY.format(
        name="margin", bound="1000", accounts="main", more="")))  # fmt: skip
    first = tick(interpreter, after(minutes=1), holder("main", "600", "450"), treasury())
    closing = next(each for each in first.decisions if each.intents)
    later = tick(
        interpreter, after(minutes=2), holder("main", "750", "450"), treasury(),
        closings=[Closing(decision=closing.id, status="closing")],
    )  # fmt: skip
    assert moved(first) == moved(later) == []
    assert any("a close of main is decided" in each.text for each in later.alerts.found)


def test_what_the_venue_does_not_show_yet_counts_as_moved() -> None:
    """Ten more ticks with an unchanged balance move nothing: whether the request was answered is not asked."""
    interpreter = Interpreter(policy("10000"))
    book = holder("main", "750", "450"), treasury()
    seen = [amounts(tick(interpreter, after(minutes=1 + minute), *book)) for minute in range(11)]
    assert seen == [[Decimal(750)]] + [[]] * 10


def test_what_the_venue_shows_is_in_the_balance_and_the_next_loss_is_topped_up_within_the_bound() -> None:
    """After 750 of 1,000 only 250 is left: 150 ÷ 30% − 300 = 200 is moved, and 168 ÷ 30% − 500 = 60 more is not."""
    interpreter = Interpreter(policy("1000"))
    tick(interpreter, after(minutes=1), holder("main", "750", "450"), treasury())
    rows = flow("t1", after(minutes=1, seconds=5), "750"), flow("t1", after(minutes=1, seconds=5), "-750")
    shown = [replace(each, kind="transfer") for each in rows]
    seen = tick(
        interpreter, after(minutes=2), holder("main", "1500", "450", flows=(shown[0],)),
        treasury("4250", flows=(shown[1],)),
    )  # fmt: skip
    assert amounts(seen) == []
    second = tick(interpreter, after(minutes=3), holder("main", "300", "150"), treasury("4250"))
    assert amounts(second) == [Decimal(200)]
    tick(interpreter, after(minutes=4), holder("main", "300", "168"), treasury("4250"))  # the stage is reset
    third = tick(interpreter, after(minutes=5), holder("main", "300", "168"), treasury("4250"))
    assert amounts(third) == []
    assert any("60.00 USDT is needed, and 50.00 USDT is left" in each.text for each in third.alerts.found)


def test_a_restart_remembers_what_was_moved() -> None:
    """The state of the policy has it: after a kill nothing is moved a second time, for a day."""
    policies = policy("1000")
    interpreter = Interpreter(policies)
    first = tick(interpreter, after(minutes=1), holder("main", "750", "450"), treasury())
    assert amounts(first) == [Decimal(750)]
    later = tick(restarted(policies, interpreter), after(minutes=2), holder("main", "750", "450"), treasury())
    assert moved(later) == []


def test_a_reload_remembers_what_was_moved() -> None:
    """A larger bound in the next text of the policy leaves 750 on the way, with which nothing more is needed."""
    interpreter = Interpreter(policy("1000"))
    book = holder("main", "750", "450"), treasury()
    assert amounts(tick(interpreter, after(minutes=1), *book)) == [Decimal(750)]
    ready = interpreter.prepare(policy("5000"), interpreter.states(), lambda _policy, _scope, _since: ())
    interpreter.reload(ready)
    assert [amounts(tick(interpreter, after(minutes=minute), *book)) for minute in (2, 3, 4)] == [[], [], []]


def test_two_accounts_do_not_take_the_same_money_of_one_source() -> None:
    """Each needs 750, and 1,100 is free above 500: the second account gets none, rather than what is not there."""
    policies = policy(accounts="first, second")
    outcome = once(holder("first", "750", "450"), holder("second", "750", "450"), treasury("1600"), policies=policies)
    assert [(each.account, each.amount) for each in moved(outcome)] == [("first", Decimal(750))]


money = st.decimals(min_value="0", max_value="100000", places=2)


@given(money, money, money, st.integers(1, 99))
def test_the_amount_is_the_closed_form(maintenance: Decimal, balance: Decimal, available: Decimal, ratio: int) -> None:
    """In fractions: M ÷ r − B, rounded up to 8 decimals, and moved wholly wherever it is there."""
    need = MarginNeed(maintenance, balance, Decimal(ratio) / 100, Decimal("0.999"))
    exact = max(Fraction(0), Fraction(maintenance) / Fraction(ratio, 100) - Fraction(balance))
    assert 0 <= Fraction(need.whole) - exact < Fraction(1, 10**8)
    amount = need.amount(available)
    assert amount is None or 0 <= amount <= available
    if Fraction(available) >= exact + Fraction(1, 10**8):
        assert amount == need.whole


@given(
    st.lists(
        st.tuples(
            st.integers(1, 300),  # minutes until the next tick
            st.integers(200, 1500), st.integers(50, 900), st.integers(400, 3000),  # equity, maintenance, free
            st.booleans(),  # whether the venue shows what was moved before
            st.booleans(),  # whether the runner is killed and started again
        ),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_the_bound_of_any_24_hours_and_the_limit_of_the_source_hold(
    steps: list[tuple[int, int, int, int, bool, bool]],
) -> None:
    """Whatever the balances are, whatever is shown, and whenever the process is killed."""
    policies = policy("1000", more=", partial_to: 45%")
    interpreter, at, made = Interpreter(policies), START, list[tuple[datetime, Decimal]]()
    waiting: list[Transfer] = []
    for number, (minutes, equity, maintenance, free, shows, is_killed) in enumerate(steps):
        at += timedelta(minutes=minutes)
        rows = [(f"t{number}-{place}", each.amount) for place, each in enumerate(waiting if shows else [])]
        going = Decimal(0) if shows else sum((each.amount for each in waiting), Decimal(0))
        main = holder("main", str(equity), str(maintenance), flows=_rows(rows, 1, at))
        outcome = tick(interpreter, at, main, treasury(str(free), flows=_rows(rows, -1, at)))
        waiting = [] if shows else waiting
        for each in moved(outcome):
            recent = [each for moment, each in made if at - moment < timedelta(hours=24)]
            assert sum(recent, each.amount) <= 1000
            assert free - going - each.amount >= 500 or _is_older(made, at)
            made.append((at, each.amount))
            waiting.append(each)
        if is_killed:
            interpreter = restarted(policies, interpreter)


def _rows(rows: list[tuple[str, Decimal]], sign: int, at: datetime) -> tuple[Flow, ...]:
    return tuple(Flow(name, at, "transfer", sign * amount, "USDT") for name, amount in rows)


def _is_older(made: list[tuple[datetime, Decimal]], at: datetime) -> bool:
    """Whether a transfer of more than a day ago may still be on the way: that is forgotten with its bound."""
    return any(at - moment >= timedelta(hours=24) for moment, _ in made)
