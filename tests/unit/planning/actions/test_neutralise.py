"""`neutralise`: betas from recorded returns, the guard of the variance, its fallbacks, and what is unknown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from random import Random

import numpy as np
import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.snapshot import AccountSnapshot, LockPart, Position, WatchedPrice, WrittenLock
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.planning.orders.net_hedge import is_locked_for_all
from tests.backtests import written
from tests.worlds import account, after, position, rules, snapshot

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: neutral}}
spec:
  mode: enforce
  scope: {{each: {each}, match: {{currency: {currency}}}}}
  max_gap: 48h
  triggers:
    fall: {{signal: equity.value, below: {below} {currency}, on_unknown: trip}}
  stages:
    - name: neutral
      level: 1
      any: [fall]
      cooldown: 0s
      reset: manual
      actions:
        - lock_trading: {{mode: reduce_only}}
        - neutralise:
            {{by: {by}{measure}, window: 4h, sample: 1m, least: {least},
              if_unknown: {unknown}, fallback: {fallback}{more}}}
{documents}"""
HUB = ", hub: BTC/USDT:USDT"
BETAS = {"BTC": 1.0, "ETH": 1.2, "DOGE": 2.0, "GOLD": 0.0, "INV": -0.8}


def policy(
    by: str = "beta", measure: str = HUB, unknown: str = "nothing", fallback: str = "nothing", more: str = "",
    least: int = 30, each: str = "account", documents: str = "", currency: str = "USDT", below: str = "95000",
) -> PolicySet:  # fmt: skip
    return written(
        POLICY.format(
            by=by, measure=measure, unknown=unknown, fallback=fallback, more=more, least=least, each=each,
            documents=documents, currency=currency, below=below,
        )
    )  # fmt: skip


def symbol_of(base: str) -> str:
    return f"{base}/USDT:USDT"


def walk(minutes: int, seed: int = 5) -> list[dict[str, float]]:
    """Prices a minute apart: each follows BTC by its beta, and has 3 bp of its own in each minute."""
    random, now, found = Random(seed), dict.fromkeys(BETAS, 100.0), []
    for _ in range(minutes):
        found.append(dict(now))
        market = random.gauss(0, 1e-3)
        for base, beta in BETAS.items():
            own = 0.0 if base == "BTC" else random.gauss(0, 3e-4)
            now[base] *= 1 + beta * market + own
    return found


PRICES = walk(61)


def at_price(prices: dict[str, float], sizes: dict[str, int], lot: str = "0.001") -> list[Position]:
    """Positions of so many base units, negative for short."""
    return [
        position(
            symbol_of(base), "long" if size > 0 else "short", "0", contracts=str(abs(size)),
            mark_price=f"{prices[base]:.6f}",
        )
        for base, size in sizes.items()
    ]  # fmt: skip


def holder(
    prices: dict[str, float], sizes: dict[str, int], equity: str, lot: str = "0.001", **more: object
) -> AccountSnapshot:
    known = [rules(symbol_of(base), amount_step=lot, min_amount=lot) for base in sizes]
    watched = (WatchedPrice(symbol_of("BTC"), mark_price=Decimal(f"{prices['BTC']:.6f}")),)
    return account(equity, at_price(prices, sizes), instruments=known, watched=watched, **more)  # type: ignore[arg-type]  # fields


def run(
    policies: PolicySet, sizes: dict[str, int], minutes: int = 60, lot: str = "0.001",
    last: Callable[[AccountSnapshot], Sequence[AccountSnapshot]] = lambda each: (each,),
) -> tuple[Interpreter, Outcome]:  # fmt: skip
    """An hour of prices, then a fall of equity of 10%. `last`: the accounts of the last snapshot."""
    interpreter = Interpreter(policies)
    for minute in range(minutes):
        interpreter.tick(snapshot(after(minutes=minute), *last(holder(PRICES[minute], sizes, "100000", lot))[:1]))
    fallen = holder(PRICES[minutes], sizes, "90000", lot)
    return interpreter, interpreter.tick(snapshot(after(minutes=minutes), *last(fallen)))


def sold(outcome: Outcome) -> dict[str, Decimal]:
    """Base asset → contracts of the orders, all of which reduce."""
    found: dict[str, Decimal] = {}
    for decision in outcome.decisions:
        for intent in decision.intents:
            assert intent.purpose == "reduce"
            assert intent.side == ("sell" if intent.position_side == "long" else "buy")
            base = intent.symbol.partition("/")[0]
            found[base] = found.get(base, Decimal(0)) + intent.contracts
    return found


def reason(outcome: Outcome) -> str:
    (decision,) = (each for each in outcome.decisions if each.stage == "neutral")
    return decision.reason or ""


def slope(base: str, minutes: int = 60) -> float:
    """The least-squares slope of numpy over the same returns."""
    moves = {each: np.diff([round(p[each], 6) for p in PRICES[: minutes + 1]]) for each in (base, "BTC")}
    of, on = (moves[each] / np.array([round(p[each], 6) for p in PRICES[:minutes]]) for each in (base, "BTC"))
    return float(np.polyfit(on, of, 1)[0])


def test_the_net_of_beta_is_brought_to_0_with_one_order() -> None:
    """Long 100 BTC and 50 ETH, short 40 DOGE: Σβx = 100 + 1.2 × 50 − 2 × 40; what is left is less than a lot."""
    _, outcome = run(policy(), {"BTC": 100, "ETH": 50, "DOGE": -40})
    prices = PRICES[60]
    net = 100 * prices["BTC"] + slope("ETH") * 50 * prices["ETH"] - slope("DOGE") * 40 * prices["DOGE"]
    cut = sold(outcome)
    assert list(cut) == ["BTC"]
    assert float(cut["BTC"]) == pytest.approx(net / prices["BTC"], abs=0.02)
    assert "with 1 order" in reason(outcome)


def test_by_notional_counts_money() -> None:
    """Net 100 + 50 − 100 = 50 units of about 100 each: from the largest long."""
    _, outcome = run(policy("notional", ""), {"BTC": 100, "ETH": 50, "DOGE": -60})
    prices = PRICES[60]
    net = 100 * prices["BTC"] + 50 * prices["ETH"] - 60 * prices["DOGE"]
    assert float(sold(outcome)["BTC"]) == pytest.approx(net / prices["BTC"], abs=0.002)


def test_where_money_and_beta_disagree_the_guard_refuses_money() -> None:
    """Long 100 BTC, short 80 DOGE of beta 2: the net of money is +20, that of beta −60. Selling BTC makes it worse."""
    _, outcome = run(policy("notional", ""), {"BTC": 100, "DOGE": -80})
    assert not sold(outcome)
    (page,) = (each for each in outcome.alerts.found if each.key.startswith("unfired/"))
    assert page.severity == "page"
    assert "the variance of the book would be" in page.text
    assert any(decision.lock is not None for decision in outcome.decisions)  # its lock is written
    _, by_beta = run(policy(), {"BTC": 100, "DOGE": -80})
    assert list(sold(by_beta)) == ["DOGE"]
    _, closed = run(policy("notional", "", fallback="close"), {"BTC": 100, "DOGE": -80})
    assert sold(closed) == {"BTC": Decimal(100), "DOGE": Decimal(80)}


def test_a_beta_within_two_standard_errors_of_0_counts_as_0_and_is_listed() -> None:
    """GOLD goes its own way: it is no candidate, and the decision says that it is not neutralised."""
    _, outcome = run(policy(), {"BTC": 50, "GOLD": 500})
    assert list(sold(outcome)) == ["BTC"]
    assert "GOLD/USDT:USDT" not in sold(outcome)
    assert "GOLD is not neutralised: its beta of" in reason(outcome)


def test_a_sure_negative_beta_is_a_hedge() -> None:
    """Long 100 BTC and long 50 INV of β −0.8: 60 of BTC go, and the hedge stays."""
    _, outcome = run(policy(), {"BTC": 100, "INV": 50})
    prices = PRICES[60]
    net = 100 * prices["BTC"] + slope("INV") * 50 * prices["INV"]
    assert list(sold(outcome)) == ["BTC"]
    assert float(sold(outcome)["BTC"]) == pytest.approx(net / prices["BTC"], abs=0.02)


@pytest.mark.parametrize(
    ("unknown", "expected"),
    [("nothing", {}), ("close", {"ETH": "50", "BTC": "100"}), ("notional", {"BTC": "100", "ETH": "20"})],
)
def test_too_few_returns_take_the_declared_answer(unknown: str, expected: dict[str, str]) -> None:
    """Ten minutes for the 30 returns that are needed; only the hub's own beta needs none, and its returns do."""
    _, outcome = run(policy(unknown=unknown), {"BTC": 100, "ETH": 50}, minutes=10)
    found = sold(outcome)
    if unknown == "notional":  # everything is long: counted by notional both go
        assert found == {"BTC": Decimal(100), "ETH": Decimal(50)}
        assert "it counts by notional" in reason(outcome)
        assert "without the guard of the variance" in reason(outcome)
    else:
        assert found == {base: Decimal(size) for base, size in expected.items()}


def test_a_scope_on_one_side_is_closed_and_the_decision_says_so() -> None:
    """Nothing hedges anything."""
    _, outcome = run(policy("notional", ""), {"BTC": 10, "ETH": 5})
    assert sold(outcome) == {"BTC": Decimal(10), "ETH": Decimal(5)}
    assert "every position is on one side, so that this is a close" in reason(outcome)


def test_what_rounding_leaves_is_reported_and_never_turns() -> None:
    """Lots of 10 units: 10 of the 12.3 or so, and the rest of the net stays on its side."""
    _, outcome = run(policy("notional", ""), {"BTC": 62, "ETH": -50}, lot="10")
    assert sold(outcome) == {"BTC": Decimal(10)}
    text = reason(outcome)
    assert "net by notional from" in text and " to -" not in text


def test_dust_is_no_order() -> None:
    """The net is less than a lot: nothing is sent, the stage latches, and the decision shows the net."""
    _, outcome = run(policy("notional", ""), {"BTC": 53, "ETH": -50}, lot="10")
    assert not sold(outcome)
    assert "with 0 orders" in reason(outcome)


def test_an_unknown_price_of_a_leg_is_no_order_by_money() -> None:
    """SOL has no mark and no notional: its part of the net is not known."""

    def unpriced(seen: AccountSnapshot) -> Sequence[AccountSnapshot]:
        row = position("SOL/USDT:USDT", "long", "0", contracts="5")
        return (account(
            str(seen.equity), (*(seen.positions or ()), row), watched=seen.watched,
            instruments=(*(seen.instruments or ()), rules("SOL/USDT:USDT")),
        ),)  # fmt: skip

    _, outcome = run(policy("notional", ""), {"BTC": 62, "ETH": -50}, last=unpriced)
    assert not sold(outcome)
    assert any("the price of SOL is unknown" in each.text for each in outcome.alerts.found)


def test_an_account_that_cannot_be_read_may_hold_the_other_leg() -> None:
    """Nothing is reduced while `other` is down; once it answers with the other leg the net is known: nothing to do."""

    def with_other(seen: AccountSnapshot) -> Sequence[AccountSnapshot]:
        return (seen, account(None, None, name="other", quality="down", reason="timeout"))

    _, outcome = run(policy("notional", "", each="portfolio"), {"BTC": 50}, last=with_other)
    assert not sold(outcome)


def test_a_short_of_coin_margined_contracts_nets_with_the_equity_of_its_wallet() -> None:
    """Short 60,000 USD on 1 BTC from 60,000, at 54,000: −1.111 BTC of contracts, 1.111 BTC of equity. Nothing to do."""
    mark = Decimal(54_000)
    equity = 1 + 60_000 * (1 / mark - 1 / Decimal(60_000))

    def coin(price: Decimal, amount: Decimal) -> AccountSnapshot:
        short = position("BTC/USD:BTC", "short", contracts="600", mark_price=str(price), entry_price="60000")
        return account(
            str(amount), [short], currency="BTC",
            instruments=[rules("BTC/USD:BTC", contract_size="100", amount_step="1", min_amount="1", inverse=True)],
        )  # fmt: skip

    interpreter = Interpreter(policy("notional", "", unknown="notional", currency="BTC", below="1.25"))
    for minute in range(3):
        interpreter.tick(snapshot(after(minutes=minute), coin(Decimal(60_000), Decimal("1.3"))))
    outcome = interpreter.tick(snapshot(after(minutes=3), coin(mark, equity)))
    assert not sold(outcome)
    assert "with 0 orders" in reason(outcome)


def test_a_group_is_neutralised_alone() -> None:
    """Only BTC and ETH are counted: 50 of BTC go, and DOGE is neither counted nor sold."""
    group = """---
apiVersion: killswitch.dev/v1
kind: CorrelationGroup
metadata: {name: majors}
spec: {symbols: ['BTC/USDT:USDT', 'ETH/USDT:USDT'], order: 1}
"""
    _, outcome = run(
        policy("notional", "", more=", group: majors", documents=group), {"BTC": 100, "ETH": -50, "DOGE": 500}
    )
    assert list(sold(outcome)) == ["BTC"]


def test_component_risk_keeps_the_declared_share_of_the_gross() -> None:
    """Half of a long BTC and DOGE book, of which DOGE has the larger variance: more of DOGE goes."""
    _, outcome = run(policy("component-risk", ", keep: 50%"), {"BTC": 100, "DOGE": 100})
    prices, cut = PRICES[60], {base: float(size) for base, size in sold(outcome).items()}
    gross = 100 * (prices["BTC"] + prices["DOGE"])
    assert sum(size * prices[base] for base, size in cut.items()) == pytest.approx(gross / 2, rel=1e-4)
    assert cut["DOGE"] > cut.get("BTC", 0)


def test_a_hedge_whose_legs_are_cut_apart_is_named() -> None:
    """BTC against ETH is a declared hedge; only BTC is reduced, which changes its net."""
    pair = """---
apiVersion: killswitch.dev/v1
kind: HedgeGroup
metadata: {name: pair}
spec:
  legs:
    - {account: main, symbol: 'BTC/USDT:USDT', ratio: 1}
    - {account: main, symbol: 'ETH/USDT:USDT', ratio: 1}
"""
    _, outcome = run(policy(documents=pair), {"BTC": 100, "ETH": -40})
    assert list(sold(outcome)) == ["BTC"]
    assert "the legs of the hedge pair are cut apart: BTC/USDT:USDT on main by" in reason(outcome)


def test_hedge_on_another_account_has_the_beta_of_its_symbol_in_the_scope() -> None:
    """`desk` is short 40 BTC against 100 ETH on `main`, which only watches BTC: what is left of the net is cut."""
    wide = ", open: {account: desk, instrument: 'BTC/USDT:USDT', at_most: 5000 USDT}"

    def seen(each: AccountSnapshot) -> Sequence[AccountSnapshot]:
        mark = f"{PRICES[60]['BTC']:.6f}"
        rows = [position(symbol_of("BTC"), "short", "0", contracts="40", mark_price=mark)]
        return each, account("100000", rows, name="desk", instruments=[rules(symbol_of("BTC"))])

    _, outcome = run(policy(more=wide), {"ETH": 100}, last=seen)
    left = 100 - 40 * PRICES[60]["BTC"] / (slope("ETH") * PRICES[60]["ETH"])
    assert float(sold(outcome)["ETH"]) == pytest.approx(left, abs=0.02)


OPEN = ", open: {account: desk, instrument: 'BTC/USDT:USDT', at_most: 3000 USDT}"


def hedging(
    free: str | None = "100000", held: str = "0", state: str = "halted"
) -> Callable[..., Sequence[AccountSnapshot]]:
    """ETH is halted, so that nothing reduces it; `desk` may hedge with BTC."""

    def seen(each: AccountSnapshot) -> Sequence[AccountSnapshot]:
        shut = [rules(symbol_of("ETH"), state=state), rules(symbol_of("BTC"))]
        rows = [position(symbol_of("BTC"), "short", "0", contracts=held, mark_price="100")] if held != "0" else []
        watched = (WatchedPrice(symbol_of("BTC"), mark_price=Decimal(100)),)
        desk = account("100000", rows, name="desk", free=free, watched=watched, instruments=[rules(symbol_of("BTC"))])
        return replace(each, instruments=tuple(shut)), desk

    return seen


def opened(outcome: Outcome) -> list[tuple[str, str, str, Decimal]]:
    """Account, side, symbol and size of each order that opens."""
    return [
        (intent.account, intent.side, intent.symbol, intent.contracts)
        for decision in outcome.decisions
        if decision.kind == "hedge"
        for intent in decision.intents
    ]


def hedge_run(**more: str | None) -> Outcome:
    """A book of 50 ETH that cannot be sold, hedged by notional."""
    policies = policy("notional", "", more=OPEN, unknown="notional")
    policies = replace(
        policies, graphs=tuple(replace(it, scope=replace(it.scope, accounts=("main",))) for it in policies.graphs)
    )
    return run(policies, {"ETH": 50}, minutes=2, last=hedging(**more))[1]  # type: ignore[arg-type]  # by the caller


def test_what_no_reduction_removes_may_be_hedged_up_to_the_bound() -> None:
    """50 ETH of about 100 are halted. The bound of 3,000 USDT is 30 BTC at 100: less than the net of about 50."""
    outcome = hedge_run()
    assert opened(outcome) == [("desk", "sell", "BTC/USDT:USDT", Decimal(30))]
    (decision,) = (each for each in outcome.decisions if each.kind == "hedge")
    assert "bounded by its bound" in (decision.reason or "")
    assert all(not intent.reduce_only for intent in decision.intents)


def test_free_margin_bounds_the_hedge() -> None:
    """2,000 USDT are free: 20 BTC. Nothing is known to be free: none."""
    assert opened(hedge_run(free="2000")) == [("desk", "sell", "BTC/USDT:USDT", Decimal(20))]
    assert opened(hedge_run(free=None)) == []


def test_what_the_account_holds_already_counts_in_the_net_and_in_the_bound() -> None:
    """A short of 25 BTC of before: the bound has 500 USDT left, 5 BTC. With 30 there is nothing left."""
    assert opened(hedge_run(held="25")) == [("desk", "sell", "BTC/USDT:USDT", Decimal(5))]
    assert opened(hedge_run(held="30")) == []


def test_nothing_is_opened_where_reductions_reach_zero() -> None:
    """ETH trades: all 50 are sold, and there is no net to hedge."""
    outcome = hedge_run(state="open")
    assert opened(outcome) == []
    assert {i.symbol for d in outcome.decisions for i in d.intents} == {"ETH/USDT:USDT"}


def test_nothing_is_opened_while_the_account_is_locked_for_every_order() -> None:
    """A lock by hand, whose mode only its file has, counts as one of every order."""
    policies = policy("notional", "", more=OPEN, unknown="notional")
    by_hand = WrittenLock("d1", "operator", "account/desk", after(minutes=0), ("desk",))
    assert is_locked_for_all(by_hand, "desk", policies)
    assert not is_locked_for_all(by_hand, "main", policies)
    own = WrittenLock("d2", "neutral", "account/main", after(minutes=0), ("main",), stage="neutral")
    assert not is_locked_for_all(own, "main", policies)  # it is reduce_only
    part = WrittenLock("d3", "x", "account/desk", after(minutes=0), ("desk",), only=(LockPart("all", None, "long"),))
    assert is_locked_for_all(part, "desk", policies)
