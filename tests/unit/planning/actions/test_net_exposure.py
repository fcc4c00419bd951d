"""The exposure that is not hedged: what is left of it by beta, what would take it out, when nothing is suggested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.incident.record.firing import exposure_lines
from killswitch.model.decision import HedgeOption, Intent, NetExposure
from killswitch.model.snapshot import AccountSnapshot, Snapshot, WatchedPrice, WrittenLock
from killswitch.operations.preview import encode_preview, preview
from killswitch.planning.actions.kind import KnownBook
from killswitch.planning.actions.net_exposure import net_exposure
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.targets.ranking import candidates
from tests.backtests import written
from tests.shown import plan_text
from tests.worlds import account, after, position, rules, snapshot

D = Decimal
POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: shown}}
spec:
  mode: enforce
  scope: {{each: account, match: {{account: [main], currency: USDT}}}}
  max_gap: 48h
  net_exposure:
    {{hub: 'BTC/USDT:USDT', window: 4h, sample: 1m, least: {least}, if_unknown: {unknown}{more}}}
  triggers:
    fall: {{signal: equity.value, below: 95000 USDT, on_unknown: hold}}
  stages:
    - name: cut
      level: 1
      any: [fall]
      cooldown: 0s
      reset: manual
      actions: [{{close: {{side: {side}, fraction: 100%}}}}]
"""
BETAS = {"BTC": 1.0, "ETH": 1.2, "DOGE": 2.0, "WEAK": 0.2}
DESK = ", instruments: [{{account: desk, instrument: '{symbol}', at_most: {most} USDT}}]"
MINUTES = 60


def shown_policy(least: int = 30, unknown: str = "nothing", side: str = "short", more: str = "") -> PolicySet:
    return written(POLICY.format(least=least, unknown=unknown, side=side, more=more))


def on_desk(symbol: str = "BTC/USDT:USDT", most: str = "1000000") -> str:
    return DESK.format(symbol=symbol, most=most)


def symbol_of(base: str) -> str:
    return f"{base}/USDT:USDT"


def walk() -> list[dict[str, float]]:
    """Prices a minute apart: each follows BTC by its beta, and has 3 bp of its own in each minute."""
    random, now, found = Random(11), dict.fromkeys(BETAS, 100.0), []
    for _ in range(MINUTES + 1):
        found.append({base: round(price, 6) for base, price in now.items()})
        market = random.gauss(0, 1e-3)
        for base, beta in BETAS.items():
            own = 0.0 if base == "BTC" else random.gauss(0, 3e-4)
            now[base] *= 1 + beta * market + own
    return found


PRICES = walk()
LAST = PRICES[-1]


def slope(base: str) -> float:
    """The least-squares slope of numpy over the same returns."""
    series = {each: np.array([p[each] for p in PRICES]) for each in (base, "BTC")}
    of, on = (np.diff(each) / each[:-1] for each in series.values()) if base != "BTC" else ([1.0, 2.0], [1.0, 2.0])
    return float(np.polyfit(on, of, 1)[0])


def main(prices: Mapping[str, float], sizes: Mapping[str, str], equity: str, **more: Any) -> AccountSnapshot:
    rows = [
        position(symbol_of(base), "short" if D(size) < 0 else "long", "0", contracts=str(abs(D(size))),
                 mark_price=str(prices[base]))
        for base, size in sizes.items() if D(size)
    ]  # fmt: skip
    known = [rules(symbol_of(base), amount_step="0.001", min_amount="0.001") for base in BETAS]
    watched = tuple(WatchedPrice(symbol_of(base), mark_price=D(str(prices[base]))) for base in BETAS)
    return account(equity, rows, **{"instruments": known, "watched": watched, **more})


def desk(
    prices: Mapping[str, float], free: str | None = "1000000", state: str = "open", held: str = "0"
) -> AccountSnapshot:
    """Another account, on which a hedge could be opened."""
    known = [rules(symbol_of(base), amount_step="0.001", min_amount="0.001", state=state) for base in BETAS]
    watched = tuple(
        WatchedPrice(symbol_of(base), mark_price=price, bid=price, ask=price)
        for base in BETAS if (price := D(str(prices[base])))
    )  # fmt: skip
    rows = [position(symbol_of("BTC"), "short", "0", contracts=held, mark_price=str(prices["BTC"]))]
    return account(
        "1000000", rows if D(held) else [], name="desk", free=free, instruments=known, watched=watched
    )  # fmt: skip


def observed(
    policies: PolicySet, sizes: Mapping[str, str], minutes: int = MINUTES,
    last: Sequence[AccountSnapshot] | None = None, equity: str = "100000", **more: Any,
) -> tuple[Interpreter, Snapshot]:  # fmt: skip
    """The interpreter before the last of so many minutes of prices, and the last snapshot. `more`: of that one."""
    interpreter = Interpreter(policies)
    for minute in range(minutes):
        each = PRICES[minute]
        interpreter.tick(snapshot(after(minutes=minute), main(each, sizes, "100000"), desk(each)))
    accounts = (main(PRICES[minutes], sizes, equity), desk(PRICES[minutes])) if last is None else last
    return interpreter, replace(snapshot(after(minutes=minutes), *accounts), **more)


def present(*of: Any, **more: Any) -> NetExposure:
    """The exposure now, of the only scope."""
    interpreter, last = observed(*of, **more)
    interpreter.tick(last)
    (found,) = interpreter.net_exposures()
    return found.exposure


def options(found: NetExposure) -> dict[str, HedgeOption]:
    return {each.kind: each for each in found.options}


# It is shown, with what would take it out


def test_exposure_is_the_sum_of_beta_and_notional_and_one_order_takes_it_out() -> None:
    """Long 100 BTC and 50 ETH, short 40 DOGE: Σβx, and what is sold of BTC for it leaves less than a lot."""
    found = present(shown_policy(), {"BTC": "100", "ETH": "50", "DOGE": "-40"})
    net = 100 * LAST["BTC"] + slope("ETH") * 50 * LAST["ETH"] - slope("DOGE") * 40 * LAST["DOGE"]
    assert found.net == pytest.approx(D(str(net)), abs=D(1))
    assert {each.base: each.returns for each in found.bases} == {"BTC": 60, "DOGE": 60, "ETH": 60}
    reducing = options(found)["reduce"]
    (order,) = reducing.orders
    assert (order.side, order.symbol) == ("sell", symbol_of("BTC"))
    assert float(order.contracts) == pytest.approx(net / LAST["BTC"], abs=0.02)
    assert reducing.feasible == "yes"
    assert reducing.leaves is not None
    assert reducing.variance is not None
    assert abs(reducing.leaves) <= D("0.2")
    assert reducing.variance < D("0.2")


def test_firing_records_what_its_orders_leave_and_what_would_take_that_out() -> None:
    """A close of the shorts leaves 100 BTC naked: the other side of a hedge that was there."""
    interpreter, last = observed(shown_policy(side="short"), {"BTC": "100", "ETH": "-80"}, equity="90000")
    (decision,) = interpreter.tick(last).decisions
    left = decision.net_exposure
    assert left is not None
    before = 100 * LAST["BTC"] - slope("ETH") * 80 * LAST["ETH"]
    assert left.before == pytest.approx(D(str(before)), abs=D(1))
    assert left.net == pytest.approx(D(str(100 * LAST["BTC"])), abs=D("0.01"))
    (order,) = options(left)["reduce"].orders
    assert (order.symbol, order.contracts) == (symbol_of("BTC"), D(100))
    assert any("before" in line for line in exposure_lines(left))


def test_instrument_on_another_account_is_judged_as_neutralise_would_open_it() -> None:
    found = options(present(shown_policy(more=on_desk()), {"ETH": "50"}))["open"]
    (order,) = found.orders
    assert (order.account, order.side, order.symbol) == ("desk", "sell", symbol_of("BTC"))
    assert float(order.contracts) == pytest.approx(slope("ETH") * 50 * LAST["ETH"] / LAST["BTC"], abs=0.01)
    assert found.feasible == "yes"
    assert found.leaves is not None
    assert abs(found.leaves) <= D("0.2")
    assert found.variance is not None
    assert found.variance < 1
    assert found.cost == 0  # the quote is the mark
    assert found.lacks == ("impact",)


def test_bound_of_an_instrument_leaves_the_rest() -> None:
    found = options(present(shown_policy(more=on_desk(most="3000")), {"BTC": "50"}))["open"]
    assert found.why == ("bounded by its bound",)
    assert found.leaves == pytest.approx(D(str(50 * LAST["BTC"])) - 3000, abs=D("0.2"))


def test_hedge_that_is_held_on_the_other_account_counts() -> None:
    """50 BTC are hedged by 50 that `desk` is short: nothing is exposed, and nothing is suggested."""
    last = (main(LAST, {"BTC": "50"}, "100000"), desk(LAST, held="50"))
    found = present(shown_policy(more=on_desk()), {"BTC": "50"}, last=last)
    assert (found.net, found.options) == (D("0.00"), ())


def test_firing_of_neutralise_leaves_what_is_shown_to_be_left() -> None:
    """ETH is halted, so that the stage opens BTC on `desk`: the suggestion before it is the order that it sends."""
    text = POLICY.format(least=30, unknown="nothing", side="both", more=on_desk())
    action = (
        "neutralise: {by: beta, hub: 'BTC/USDT:USDT', window: 4h, sample: 1m, least: 30, if_unknown: nothing, "
        "fallback: nothing, open: {account: desk, instrument: 'BTC/USDT:USDT', at_most: 1000000 USDT}}"
    )
    policies = written(text.replace("close: {side: both, fraction: 100%}", action))
    halted = [rules(symbol_of("ETH"), amount_step="0.001", min_amount="0.001", state="halted")]
    last = (main(LAST, {"ETH": "50"}, "90000", instruments=halted), desk(LAST))
    interpreter, seen = observed(policies, {"ETH": "50"}, last=last)
    fired, hedge = interpreter.tick(seen).decisions
    (shown,) = interpreter.net_exposures()
    (order,) = options(shown.exposure)["open"].orders
    (intent,) = hedge.intents
    assert (order.account, order.symbol, order.side, order.contracts) == (
        intent.account, intent.symbol, intent.side, intent.contracts,
    )  # fmt: skip
    left = fired.net_exposure
    assert left is not None
    assert left.net is not None
    assert left.before == shown.exposure.net
    assert abs(left.net) <= D("0.2")
    assert hedge.net_exposure is None


@pytest.mark.parametrize(("sold", "left"), [("80", "4"), ("98", "2"), ("100", "0")])
def test_smaller_of_what_closes_in_progress_and_new_orders_leave_counts(sold: str, left: str) -> None:
    """Of 100 BTC a close in progress leaves 4."""
    interpreter, last = observed(shown_policy(), {"BTC": "100"})
    interpreter.tick(last)
    evaluator = interpreter.evaluator("shown", "account/main")
    assert evaluator is not None
    view, rule = evaluator.history.view, evaluator.compiled.graph.net_exposure
    assert view is not None
    assert rule is not None
    key = ("main", symbol_of("BTC"), "long")
    evaluator.under_way = {key: D(4)}
    book = KnownBook(evaluator, view, candidates(view, None), "UNKNOWN", interpreter.policies, is_partial=False)
    order = Intent("main", key[1], "long", "sell", D(sold), D(100) - D(sold), True, 1)
    found = net_exposure(rule, book, view, [order])
    assert found.before == pytest.approx(D(str(4 * LAST["BTC"])), abs=D("0.01"))
    assert found.net == pytest.approx(D(str(float(left) * LAST["BTC"])), abs=D("0.01"))


# It suggests nothing


def test_no_order_is_suggested_after_which_the_variance_is_larger() -> None:
    """WEAK moves 0.2 times as BTC, and 3 bp a minute by itself: five times the net of it varies more than the net."""
    found = options(present(shown_policy(more=on_desk(symbol_of("WEAK"))), {"BTC": "50"}))["open"]
    assert (found.feasible, found.orders) == ("no", ())
    assert "the variance of the book would be" in found.why[0]


@pytest.mark.parametrize(
    ("changed", "feasible", "why"),
    [
        ({"state": "halted"}, "no", "it is halted at the venue"),
        ({"free": "0"}, "no", "(the free margin) is less than it trades"),
        ({"free": None}, "unknown", "the free margin of the account is unknown"),
    ],
)
def test_instrument_that_cannot_be_opened_says_why(changed: dict[str, Any], feasible: str, why: str) -> None:
    last = (main(LAST, {"BTC": "50"}, "100000"), desk(LAST, **changed))
    found = options(present(shown_policy(more=on_desk()), {"BTC": "50"}, last=last))["open"]
    assert (found.feasible, found.orders) == (feasible, ())
    assert why in found.why[0]


def test_account_that_is_locked_for_every_order_opens_nothing() -> None:
    lock = WrittenLock("d1", "operator", "account/desk", after(minutes=1), ("desk",))
    found = options(present(shown_policy(more=on_desk()), {"BTC": "50"}, locks=(lock,)))["open"]
    assert (found.feasible, found.orders) == ("no", ())
    assert "locked for every order" in found.why[0]


def test_halted_market_takes_no_order_that_reduces() -> None:
    halted = [rules(symbol_of("BTC"), amount_step="0.001", min_amount="0.001", state="halted")]
    last = (main(LAST, {"BTC": "50"}, "100000", instruments=halted), desk(LAST))
    found = options(present(shown_policy(), {"BTC": "50"}, last=last))["reduce"]
    assert (found.feasible, found.orders) == ("no", ())


# Its input is unknown


def test_few_returns_make_the_exposure_unknown() -> None:
    found = present(shown_policy(), {"BTC": "100", "ETH": "50"}, minutes=10)
    assert (found.net, found.options) == (None, ())
    assert "ETH has only 10 returns of the 30 that are needed" in (found.unknown or "")


def test_declared_fallback_counts_by_notional_and_suggests_nothing_without_a_covariance() -> None:
    found = present(shown_policy(unknown="notional"), {"BTC": "100", "ETH": "50"}, minutes=10)
    prices = PRICES[10]
    assert found.net == pytest.approx(D(str(100 * prices["BTC"] + 50 * prices["ETH"])), abs=D("0.02"))
    assert all(each.beta == 1 and "it counts by notional" in (each.note or "") for each in found.bases)
    reducing = options(found)["reduce"]
    assert (reducing.feasible, reducing.orders) == ("unknown", ())
    assert "whether the variance grows is unknown" in reducing.why[0]


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ((account(None, None, quality="down", reason="timeout"), desk(LAST)), "cannot be read"),
        ((main(LAST, {"BTC": "50"}, "100000"), account(None, None, name="desk", quality="down")), "what desk holds"),
        ((main(LAST, {"BTC": "50"}, "100000"),), "what desk holds of BTC/USDT:USDT is unknown"),
    ],
)
def test_account_that_cannot_be_read_makes_it_unknown(last: Sequence[AccountSnapshot], why: str) -> None:
    found = present(shown_policy(more=on_desk()), {"BTC": "50"}, last=last)
    assert (found.net, found.options) == (None, ())
    assert why in (found.unknown or "")


def test_price_that_is_unknown_makes_it_unknown() -> None:
    bare = replace(main(LAST, {}, "100000"), positions=(position(symbol_of("ETH"), "long", "0", contracts="5"),))
    found = present(shown_policy(), {"BTC": "50"}, last=(bare, desk(LAST)))
    assert found.net is None
    assert "the price of ETH is unknown" in (found.unknown or "")


def test_close_of_one_of_two_legs_without_a_price_is_decided_and_leaves_the_unknown() -> None:
    """Long and short 5 ETH cancel each other without a price. Once the short is closed the rest has none: it is not
    known what is exposed, and the close goes on."""
    future = "ETH/USDT:USDT-261225"
    rows = (position(symbol_of("ETH"), "long", "0", contracts="5"), position(future, "short", "0", contracts="5"))
    known = [rules(symbol, amount_step="0.001", min_amount="0.001") for symbol in (symbol_of("ETH"), future)]
    bare = replace(main(LAST, {}, "90000", instruments=known), positions=rows, watched=())
    interpreter, last = observed(shown_policy(side="short"), {"BTC": "50"}, last=(bare, desk(LAST)))
    (decision,) = interpreter.tick(last).decisions
    assert [(each.symbol, each.contracts) for each in decision.intents] == [(future, D(5))]
    left = decision.net_exposure
    assert left is not None
    assert (left.net, left.options) == (None, ())
    assert "the price of ETH is unknown" in (left.unknown or "")


def test_mark_of_a_size_that_no_market_has_does_not_keep_a_close_from_being_decided() -> None:
    """10**27 is a number that sums can use; in cents the exposure has more digits than the context of sums."""
    prices = LAST | {"BTC": 1e27}
    interpreter, last = observed(
        shown_policy(),
        {"BTC": "50", "ETH": "-5"},
        equity="90000",
        last=(main(prices, {"BTC": "50", "ETH": "-5"}, "90000"), desk(LAST)),
    )
    (decision,) = interpreter.tick(last).decisions
    assert [each.symbol for each in decision.intents] == [symbol_of("ETH")]


def test_policy_without_the_key_shows_nothing() -> None:
    policies = shown_policy()
    bare = replace(policies, graphs=tuple(replace(each, net_exposure=None) for each in policies.graphs))
    interpreter, last = observed(bare, {"BTC": "50"}, equity="90000", minutes=2)
    (decision,) = interpreter.tick(last).decisions or (None,)
    assert decision is None or decision.net_exposure is None
    assert interpreter.net_exposures() == ()


# What must always hold

SIZES = st.integers(-200, 200).map(lambda tenths: str(D(tenths) / 10))
STEP = D("0.001")


@settings(max_examples=25, deadline=None)
@given(SIZES, SIZES, SIZES)
def test_suggested_orders_leave_at_most_their_rounding_and_never_a_larger_variance(
    btc: str, eth: str, doge: str
) -> None:
    found = present(shown_policy(more=on_desk()), {"BTC": btc, "ETH": eth, "DOGE": doge})
    assert found.net is not None
    largest = max(abs(float(each.beta or 0)) * float(each.price) for each in found.bases) if found.bases else 0.0
    for each in found.options:
        assert each.feasible != "unknown"
        if each.feasible == "no":
            assert not each.orders
            continue
        assert each.leaves is not None
        assert each.variance is None or each.variance <= 1
        steps = 1 if each.kind == "open" else 2  # a remainder below the minimum is never left behind
        assert abs(each.leaves) <= D(str(max(largest, LAST["BTC"]))) * STEP * steps + D("0.01")
        assert each.leaves * found.net >= D("-0.01")


# Where it is shown


def test_plan_shows_it_now_and_after_each_stage_in_text_and_as_json() -> None:
    policies = shown_policy(side="short", more=on_desk())
    interpreter, last = observed(policies, {"BTC": "100", "ETH": "-80"})
    found = preview(policies, last, interpreter, "a test", frozenset({"main"}))
    page = plan_text(found)
    assert "Exposed to the market, shown on account/main; nothing is sent for it" in page
    assert "To reduce it: sell" in page
    assert "after cut: Net exposure to BTC/USDT:USDT by beta" in page
    record = msgjson.decode(encode_preview(found))
    assert record["net_exposures"][0]["exposure"]["hub"] == "BTC/USDT:USDT"
    assert D(record["levels"][0]["net_exposure"]["net"]) > D(record["levels"][0]["net_exposure"]["before"])
