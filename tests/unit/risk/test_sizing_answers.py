"""Sizes within the leverage cap and the venue's rules: rounded down, and unknown where an input is."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given as for_any
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.snapshot import Instrument, Side
from killswitch.risk.sizing.answer import (
    Size,
    SizedMarket,
    SizingError,
    SizingInput,
    Suggestion,
    bounded,
    given,
    share_gross,
)
from killswitch.risk.sizing.fixed_fractional import risk_to_stop, share_of_equity

D = Decimal
RULES = Instrument("BTC/USDT:USDT", contract_size=D(1), amount_step=D("0.001"), min_amount=D("0.001"))


def market(
    equity: str | None = "100000", price: str | None = "60000", cap: str = "3", rules: Instrument = RULES
) -> SizedMarket:
    return SizedMarket(
        given("equity", None if equity is None else D(equity)), given("price", None if price is None else D(price)),
        rules, D(cap),
    )  # fmt: skip


def to_stop(
    stop: str, *, side: Side = "long", costs: str = "0", equity: str = "100000", rules: Instrument = RULES
) -> Size:
    """2% of equity at risk from 60,000 to the stop, under a cap of 50."""
    found = market(equity, cap="50", rules=rules)
    suggested = risk_to_stop(D("0.02"), found.price, D(stop), side, D(costs), inverse=rules.inverse)
    return bounded(suggested, found)


def test_a_stop_costs_the_fraction_of_equity() -> None:
    """2% of 100,000 is 2,000; the stop is 3,000 away: 2,000 ÷ 3,000 = 0.666 BTC, rounded down to 0.001."""
    found = to_stop("57000")
    assert (found.contracts, found.notional, found.bound_by) == (D("0.666"), D("39960.000"), "fraction at risk")


def test_costs_are_part_of_the_loss() -> None:
    """0.1% of 60,000 is 60: 2,000 ÷ (3,000 + 60) = 0.6535… BTC."""
    assert to_stop("57000", costs="0.001").contracts == D("0.653")


def test_a_stop_nearby_leaves_the_decision_to_the_cap() -> None:
    """A stop 0.2% (120) away: 2% of 60,000 × 2 = 120,000 is 2,400, ÷ 120 = 20 BTC, a leverage of 10; a cap of 3: 6."""
    found = market(equity="120000", cap="10")
    suggested = risk_to_stop(D("0.02"), found.price, D("59880"), "long", D(0), inverse=False)
    assert bounded(suggested, found).contracts == 20
    capped = bounded(suggested, replace(found, leverage_cap=D(3)))
    assert (capped.contracts, capped.bound_by, capped.leverage) == (6, "leverage cap", 3)


@pytest.mark.parametrize(("side", "stop"), [("long", "60000"), ("long", "61000"), ("short", "60000"), ("short", "1")])
def test_a_stop_at_or_beyond_the_entry_is_an_error(side: Side, stop: str) -> None:
    """It would cost nothing, or gain."""
    with pytest.raises(SizingError, match="the stop of a"):
        to_stop(stop, side=side)


@pytest.mark.parametrize(("side", "stop", "contracts"), [("long", "48000", 960), ("short", "72000", 1440)])
def test_an_inverse_contract_is_sized_in_its_coin(side: Side, stop: str, contracts: int) -> None:
    """E 2 BTC, f 2%, face 100 USD: n = 0.04 ÷ (100 × |1/60,000 − 1/48,000|) = 96 contracts of 100; a short to 72,000
    144. With ten times the equity, ten times as many."""
    rules = replace(RULES, contract_size=D(100), inverse=True, amount_step=D(1))
    found = to_stop(stop, side=side, equity="20", rules=rules)
    assert found.contracts == contracts
    assert found.notional == pytest.approx(D(contracts) * 100 / 60000)


def test_a_size_in_whole_steps_is_not_rounded_below_them() -> None:
    """0.03 ÷ 0.01 are three steps, although a third of 0.09 is not exact as a float or a decimal."""
    found = bounded(Suggestion("m", Fraction(1, 3), "b"), market("5400", rules=replace(RULES, amount_step=D("0.01"))))
    assert found.contracts == D("0.03")


@pytest.mark.parametrize(
    ("rules", "bound"),
    [
        ({"amount_step": D(1)}, "below one step of the venue, 1"),
        ({"min_amount": D("0.7")}, "below the venue's minimum of 0.7 contracts"),
        ({"min_notional": D(40_000)}, "below the venue's minimum notional of 40000"),
    ],
)
def test_what_is_too_small_is_zero_and_never_enlarged(rules: dict[str, Decimal], bound: str) -> None:
    """0.666 BTC, 39,960 USDT, is below each of them."""
    found = to_stop("57000", rules=replace(RULES, **rules))
    assert (found.contracts, found.bound_by) == (0, bound)


def test_the_minimum_notional_of_an_inverse_contract_is_its_face_in_quote() -> None:
    """960 contracts of 100 USD are 96,000 USD, 1.6 BTC: more than 90,000, less than 100,000."""
    rules = replace(RULES, contract_size=D(100), inverse=True, amount_step=D(1))
    for least, contracts in ((90_000, 960), (100_000, 0)):
        found = to_stop("48000", equity="20", rules=replace(rules, min_notional=D(least)))
        assert found.contracts == contracts


@pytest.mark.parametrize("equity", ["0", "-5"])
def test_no_equity_is_no_size_whatever_else_is_unknown(equity: str) -> None:
    """At zero and below nothing can be bought, at any price."""
    assert bounded(share_of_equity(D(1)), market(equity=equity, price=None)).contracts == 0


@pytest.mark.parametrize(
    ("at", "why"),
    [
        (market(equity=None), "equity is not given"),
        (market(price=None), "price is not given"),
        (market(rules=replace(RULES, contract_size=None)), "the contract size of BTC/USDT:USDT is unknown"),
        (market(rules=replace(RULES, amount_step=None)), "the step of BTC/USDT:USDT is unknown"),
    ],
)
def test_a_missing_input_makes_the_size_unknown(at: SizedMarket, why: str) -> None:
    """Never zero, and never the size without it."""
    found = bounded(share_of_equity(D(1)), at)
    assert (found.contracts, found.notional, found.unknown) == (None, None, why)


@pytest.mark.parametrize("cap", ["0", "-1"])
def test_a_leverage_cap_is_above_zero(cap: str) -> None:
    """A cap is required, and one of zero is a mistake rather than a size."""
    with pytest.raises(SizingError, match="leverage cap"):
        bounded(share_of_equity(D(1)), market(cap=cap))


def test_the_cap_counts_what_the_account_holds_elsewhere() -> None:
    """Equity 100,000, cap 3, others 270,000: 30,000 are left, 0.5 BTC. With 310,000 nothing is."""
    held = replace(market(), others=SizingInput("other positions", D(270_000), "account main", 1.0))
    assert bounded(share_of_equity(D(2)), held).contracts == D("0.5")
    full = replace(held, others=SizingInput("other positions", D(310_000)))
    assert (bounded(share_of_equity(D(2)), full).contracts, bounded(share_of_equity(D(2)), full).bound_by) == (
        0, "leverage cap",
    )  # fmt: skip


def test_a_size_beyond_the_largest_order_names_it() -> None:
    """The venue's maximum is of one order, not of a position."""
    found = to_stop("57000", rules=replace(RULES, max_amount=D("0.5")))
    assert found.contracts == D("0.666")
    assert ("largest order", "0.5 contracts: the size takes several orders") in found.details


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e40"])
def test_a_number_that_is_none_is_refused(value: str) -> None:
    """Before anything is computed from it."""
    with pytest.raises(SizingError, match="not a usable number"):
        given("equity", D(value))


amounts = st.decimals(D("0.01"), D("1e9"), places=2)


@for_any(amounts, amounts, st.decimals(D("0.001"), D(20), places=3), st.sampled_from(["0.001", "0.01", "1", "10"]))
def test_a_size_is_whole_steps_and_never_above_cap_and_suggestion(
    equity: Decimal, price: Decimal, leverage: Decimal, step: str
) -> None:
    """And one step more would be above one of them: exact in fractions."""
    at = SizedMarket(
        given("equity", equity), given("price", price), replace(RULES, amount_step=D(step), min_amount=None), D(3)
    )
    found = bounded(Suggestion("m", Fraction(leverage), "b"), at)
    assert found.contracts is not None
    assert found.contracts % D(step) == 0
    most = min(Fraction(leverage), Fraction(3)) * Fraction(equity)
    one = Fraction(D(step)) * Fraction(price)
    assert Fraction(found.contracts) * Fraction(price) <= most < Fraction(found.contracts) * Fraction(price) + one


def test_a_book_shares_its_cap_in_proportion() -> None:
    """Leverages 2 and 4 under a cap of 3: 1 and 2."""
    pair = (Suggestion("m", Fraction(2), "b"), Suggestion("m", Fraction(4), "b"))
    assert [each.leverage for each in share_gross(pair, D(3))] == [1, 2]
    assert share_gross(pair, D(6)) == pair
