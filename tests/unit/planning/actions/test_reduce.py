"""`reduce`: how much is sold, of what, what is in flight, what a withdrawal does, and what is unknown."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.actions.reduce import room
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, Intent
from killswitch.model.snapshot import AccountSnapshot, Closing, Position, Snapshot
from killswitch.planning.actions.reduce import to_sell
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.planning.stage_decision import new_decision
from tests.backtests import written
from tests.worlds import account, after, flow, position, rules, snapshot

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: geared}}
spec:
  mode: enforce
  scope: {{each: {each}, match: {{currency: USDT}}}}
  max_gap: 48h
  triggers:
    high: {{signal: {signal}, on_unknown: trip{confirm}}}
  stages:
    - name: cut
      level: 1
      any: [high]
      cooldown: 0s
      reset: {{auto: {{when: 'exposure.gross < 1e9', for: 0s}}}}
      actions:
        - lock_trading: {{mode: reduce_only}}
        - reduce: {{to: {to}, of: {of}, order: {order}, flows: {flows}{more}}}
"""
LIMIT = "exposure.leverage, at_least: 3"
ALWAYS = "exposure.gross, at_least: 1 USDT"
ROOM = ", adverse_move: 4%"


def policy(
    to: str = "2.5", of: str = "gross", order: str = "proportion", flows: str = "page", more: str = "",
    signal: str = ALWAYS, each: str = "account", confirm: str = "",
) -> PolicySet:  # fmt: skip
    """A policy that cuts whenever anything is held, or above a limit."""
    return written(
        POLICY.format(to=to, of=of, order=order, flows=flows, more=more, signal=signal, each=each, confirm=confirm)
    )


def row(symbol: str, notional: str, side: str = "long", **more: str | None) -> Position:
    """A position of contracts of 100 each."""
    size = Decimal(notional) / 100
    return position(symbol, side, "0", contracts=str(size), mark_price="100", notional=notional, **more)


def holder(equity: str | None, *held: Position, step: str = "0.001", **more: object) -> AccountSnapshot:
    """An account with these positions and the rules of their symbols."""
    known = [rules(each.symbol, amount_step=step, min_amount=step) for each in held]
    return account(equity, held, instruments=known, **more)  # type: ignore[arg-type]  # fields of an account


def tick(policies: PolicySet, *accounts: AccountSnapshot) -> Outcome:
    return Interpreter(policies).tick(snapshot(after(minutes=1), *accounts))


def sold(outcome: Outcome) -> dict[str, Decimal]:
    """Symbol → contracts that the decisions sell."""
    found: dict[str, Decimal] = {}
    for decision in outcome.decisions:
        for intent in decision.intents:
            assert intent.side == ("sell" if intent.position_side == "long" else "buy")
            found[intent.symbol] = found.get(intent.symbol, Decimal(0)) + intent.contracts
    return found


def made(outcome: Outcome) -> Decision:
    (decision,) = (each for each in outcome.decisions if each.stage == "cut")
    return decision


def test_a_book_of_300000_on_97000_is_cut_by_57500_to_2_5() -> None:
    """The numbers of the definition: (300,000 − 2.5 × 97,000) = 57,500, and ÷ (1 − 2.5 × 0.1%) = 57,644 at a cost."""
    book = holder("97000", row("A", "200000"), row("B", "100000", "short"), step="0.01")
    found = sold(tick(policy(), book))
    assert found == {"A": Decimal("383.34"), "B": Decimal("191.67")}  # 2/3 and 1/3 of 575, rounded up to the lot
    assert to_sell(Decimal(300_000), Decimal(97_000), Decimal("2.5")) == 57_500
    with_cost = to_sell(Decimal(300_000), Decimal(97_000), Decimal("2.5"), Decimal("0.001"))
    assert with_cost.quantize(Decimal(1)) == 57_644
    left, paid = 300_000 - with_cost, with_cost * Decimal("0.001")
    assert abs(left / (97_000 - paid) - Decimal("2.5")) < Decimal("1e-20")


def test_it_sells_once_whatever_the_latency_of_the_venue() -> None:
    """Three ticks that show no fill yet: 575 contracts in all, not 1,725, though the ranking changes in between."""
    policies = policy(order="rank", flows="reduce")
    interpreter, total = Interpreter(policies), Decimal(0)
    closings: list[Closing] = []
    for second, (first, other) in enumerate((("-900", "0"), ("0", "-900"), ("-900", "0"))):
        held = [
            position("A", "long", first, contracts="1500", mark_price="100", notional="150000"),
            position("B", "long", other, contracts="1500", mark_price="100", notional="150000"),
        ]
        seen = account("97000", held, instruments=[rules("A"), rules("B")])
        outcome = interpreter.tick(snapshot(after(minutes=1, seconds=second), seen, closings=closings))
        total += sum(sold(outcome).values(), Decimal(0))
        closings += [Closing(decision=each.id, status="closing") for each in outcome.decisions
                     if each.intents]  # fmt: skip
    assert total == 575


def test_a_second_cut_by_rank_leaves_what_the_first_has_in_flight() -> None:
    """Equity falls to 93,000 while 575 of A are in flight: (242,500 − 232,500) = 100 more contracts, of B by then."""
    interpreter = Interpreter(policy(order="rank", flows="reduce"))

    def seen(second: int, first: str, other: str, equity: str, *closings: Closing) -> Snapshot:
        held = [
            position("A", "long", first, contracts="1500", mark_price="100", notional="150000"),
            position("B", "long", other, contracts="1500", mark_price="100", notional="150000"),
        ]
        known = account(equity, held, instruments=[rules("A"), rules("B")])
        return snapshot(after(minutes=1, seconds=second), known, closings=closings)

    first = interpreter.tick(seen(0, "-900", "0", "97000"))
    assert sold(first) == {"A": Decimal(575)}
    working = Closing(decision=made(first).id, status="closing")
    assert sold(interpreter.tick(seen(1, "0", "-4900", "93000", working))) == {"B": Decimal(100)}


def test_the_net_is_cut_on_the_heavier_side() -> None:
    """Long 300,000 and short 50,000 on 97,000: net 250,000, so that 7,500 of the longs go; the short stays."""
    book = holder("97000", row("A", "200000"), row("B", "100000"), row("C", "50000", "short"))
    assert sum(sold(tick(policy(of="net"), book)).values()) == 75
    assert set(sold(tick(policy(of="net"), book))) == {"A", "B"}
    turned = holder("97000", row("A", "200000", "short"), row("C", "50000"))
    assert sold(tick(policy(to="1", of="net"), turned)) == {"A": Decimal(530)}


def test_by_rank_the_worst_goes_before_the_next() -> None:
    """A has lost more than B: all of its 400 contracts before 175 of B."""
    lost = position("A", "long", "-900", contracts="400", mark_price="100", notional="40000")
    book = holder("97000", row("B", "260000"), lost)
    assert sold(tick(policy(order="rank"), book)) == {"A": Decimal(400), "B": Decimal(175)}


@pytest.mark.parametrize("equity", ["0", "-5"])
def test_with_no_equity_everything_is_sold(equity: str) -> None:
    """Both sides, also where only the net was to be cut."""
    book = holder(equity, row("A", "3000"), row("B", "2000", "short"))
    for of in ("gross", "net"):
        assert sold(tick(policy(of=of), book)) == {"A": Decimal(30), "B": Decimal(20)}


def test_below_the_target_nothing_is_sold_and_nothing_is_added() -> None:
    """100,000 on 97,000: the stage latches, writes its lock, and says what the leverage is."""
    decision = made(tick(policy(), holder("97000", row("A", "100000"))))
    assert not decision.intents
    assert "gross of 100000.00 USDT on an equity of 97000.00 USDT: not above 2.5 times it" in (decision.reason or "")


def test_a_value_that_is_unknown_sells_nothing_and_pages() -> None:
    """The stage neither latches nor sells a part of a book that it cannot measure."""
    unknown = position("B", "long", "0", contracts="1")
    outcome = tick(policy(signal="equity.value, below: 1000000 USDT"), holder("97000", row("A", "300000"), unknown))
    assert not sold(outcome)
    (page,) = (each for each in outcome.alerts.found if each.key.startswith("unfired/"))
    assert page.severity == "page"
    assert "the value of B on main is unknown" in page.text


def test_the_part_of_an_equity_that_is_surely_missing_is_sold_and_the_rest_when_it_is_known() -> None:
    """`other` stops answering with 10,000 and no position: its equity is still 10,000 at most. The portfolio has at
    most 107,000, so that 300,000 − 267,500 is needed whatever it is."""
    interpreter = Interpreter(policy(each="portfolio", flows="reduce", signal="exposure.gross, at_least: 200000 USDT"))
    rich = holder("97000", row("A", "100000"))
    other = account("10000", (), name="other", free="10000")
    interpreter.tick(snapshot(after(minutes=1), rich, other))
    held = holder("97000", row("A", "300000"))
    first = interpreter.tick(snapshot(after(minutes=2), held, other))
    assert sold(first) == {"A": Decimal(325)}


def test_what_was_withdrawn_is_not_a_loss_with_flows_page() -> None:
    """20,000 of 120,000 are withdrawn: on 100,000 a gross of 300,000 is 3 times, and with the money 2.5 times."""
    for flows, expected in (("page", {}), ("reduce", {"A": Decimal(500)})):
        interpreter = Interpreter(policy(flows=flows, signal=ALWAYS.replace("1 USDT", "250000 USDT")))
        interpreter.tick(snapshot(after(minutes=1), holder("120000", row("A", "200000"))))
        moved = flow("w", after(minutes=1.5), "-20000")
        outcome = interpreter.tick(
            snapshot(
                after(minutes=2), holder("100000", row("A", "300000"), flows=[moved], wallet_as_of=after(minutes=2))
            )
        )
        assert sold(outcome) == expected, flows
        if flows == "page":
            (page,) = (each for each in outcome.alerts.found if each.key.startswith("unfired/"))
            assert "50000.00 USDT more would be sold for what was withdrawn" in page.text


def test_a_bound_of_a_day_ends_the_fight_with_a_bot() -> None:
    """The bot is back at 3 times at each minute: two cuts, then a page; a day after the first there is one again."""
    interpreter = Interpreter(policy(more=", at_most_per_day: 2"))
    cuts = []
    for minute in (1, 2, 3, 4, 24 * 60 + 1.5):
        outcome = interpreter.tick(snapshot(after(minutes=minute), holder("100000", row("A", "300000"))))
        cuts.append(bool(sold(outcome)))
        interpreter.tick(snapshot(after(minutes=minute + 0.25), holder("100000", row("A", "0.1"))))
        if minute == 3:
            (page,) = (each for each in outcome.alerts.found if each.key.startswith("unfired/"))
            assert "it has sold 2 times within 24 hours, which is its bound" in page.text
    assert cuts == [True, True, False, False, True]


def test_the_leverage_of_another_account_is_reduced() -> None:
    """The trigger is of `main`, the cut of `second`; one that cannot be read is not touched, and pages."""
    policies = policy(
        flows="reduce", more=", account: second", signal="equity.value, below: 1000 USDT",
    )  # fmt: skip
    poor, second = account("500"), holder("97000", row("A", "300000"), name="second")
    outcome = tick(policies, poor, second)
    assert sold(outcome) == {"A": Decimal(575)}
    assert {intent.account for decision in outcome.decisions for intent in decision.intents} == {"second"}
    down = tick(policies, poor, account(None, None, name="second", quality="down", reason="timeout"))
    assert not sold(down)
    assert any("the leverage is unknown" in each.text for each in down.alerts.found)


def test_the_room_below_a_limit_of_3_is_10_percent_for_a_long_book_and_5_for_a_short_one() -> None:
    """The numbers of the definition; the check takes the smaller one."""
    assert room(Decimal(3), Decimal("2.5")) == Decimal("0.05")
    limit, target = Fraction(3), Fraction(5, 2)
    assert (limit - target) / (target * (limit - 1)) == Fraction(1, 10)
    for sign, move in ((-1, Fraction(1, 10)), (1, Fraction(1, 20))):
        assert target * (1 + sign * move) / (1 - target * move) == limit


MONEY = st.decimals(min_value=0, max_value=10**9, places=2)


@given(MONEY, st.decimals(min_value=-(10**9), max_value=10**9, places=2), st.integers(1, 100), st.integers(0, 90))
def test_what_is_sold_is_within_the_book_and_enough(notional: Decimal, equity: Decimal, tenths: int, cost: int) -> None:
    """0 ≤ Δ ≤ A, and what is left is at most T times what is left of the equity, unless everything is sold."""
    target, rate = Decimal(tenths) / 10, Decimal(cost) / 1000
    amount = to_sell(notional, equity, target, rate)
    assert 0 <= amount <= notional
    if amount < notional:
        assert notional - amount <= target * (equity - rate * amount) + Decimal("1e-9")
    if amount and amount < notional:  # and no more than needed
        assert abs(notional - amount - target * (equity - rate * amount)) < Decimal("1e-9")


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.booleans(), st.integers(0, 5000)), min_size=1, max_size=5),
    st.integers(-1000, 200_000), st.sampled_from(["gross", "net"]), st.sampled_from(["proportion", "rank"]),
)  # fmt: skip
def test_it_never_sells_more_than_there_is_with_any_orders_in_flight(
    held: list[tuple[int, bool, int]], equity: int, of: str, order: str
) -> None:
    """Each position ends between nothing and what closes in progress leave of it, on its own side."""
    rows = [row(f"S{i}", str(size * 100), "long" if side else "short") for i, (size, side, _) in enumerate(held)]
    flying = {f"S{i}": Decimal(min(left, size)) for i, (size, _, left) in enumerate(held)}
    other = replace(
        new_decision(policy(), "other", "account/main", "close", 0),
        intents=tuple(
            Intent("main", it.symbol, it.side, "sell" if it.side == "long" else "buy", it.contracts - flying[it.symbol],
                   flying[it.symbol], reduce_only=True, rank=1)
            for it in rows
        ),
    )  # fmt: skip
    interpreter = Interpreter(policy(of=of, order=order, flows="reduce"))
    interpreter.restore((), lambda *_: (), active=[other])
    working = Closing(decision=other.id, status="closing")
    outcome = interpreter.tick(snapshot(after(minutes=2), holder(str(equity), *rows), closings=[working]))
    for decision in outcome.decisions:
        for intent in decision.intents:
            assert Decimal(0) <= intent.target <= flying[intent.symbol]
