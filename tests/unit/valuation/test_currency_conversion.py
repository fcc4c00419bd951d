"""Accounts of several currencies in one reference currency: agreement on a price, and conversion. Numbers by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Balance, Rate
from killswitch.model.words import ReferenceCurrency
from killswitch.planning.targets.ranking import candidates
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import drawdown, loss_from_start, pnl_change, unit_value
from killswitch.signals.signal_values import ColumnReader
from killswitch.valuation.currency_conversion import agreed_price, conversion, prices_by_venue
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, fill, flow, position

USD = ReferenceCurrency("USD", 2, Decimal("0.01"))


def prices(*each: str) -> dict[str, Decimal]:
    return {f"venue-{number}": Decimal(price) for number, price in enumerate(each)}


@pytest.mark.parametrize(
    ("given", "venues", "expected"),
    [
        (("0.99", "0.999"), 2, "0.9945"),
        (("0.98", "1.00"), 2, None),
        (("0.999", "1.00", "0.90"), 2, "0.9995"),
        (("0.999",), 2, None),
        (("0.97",), 1, "0.97"),
        ((), 1, None),
        (("0.95", "1.00", "1.05"), 2, None),
    ],
    ids=["agree", "differ", "one is off", "too few", "one is enough", "nobody", "all differ"],
)
def test_a_price_is_the_median_of_venues_that_agree(given: tuple[str, ...], venues: int, expected: str | None) -> None:
    """Within 1% of each other; of three, an outlier counts for nothing."""
    found = agreed_price(prices(*given), ReferenceCurrency("USD", venues, Decimal("0.01")))
    assert found == (None if expected is None else Decimal(expected))


def test_two_venues_exactly_at_the_tolerance_agree_and_a_little_beyond_do_not() -> None:
    """1.0 and 1.01 are 1% of their median of 1.005 apart, but for half a per mille."""
    assert agreed_price(prices("1", "1.01"), USD) == Decimal("1.005")
    assert agreed_price(prices("1", "1.0102"), USD) is None


def priced(venue: str, currency: str, **more: Any) -> AccountSnapshot:
    return account("1", [], name=venue, venue=venue, currency=currency, **more)


def test_a_venue_prices_a_currency_by_rates_and_balances_in_either_direction() -> None:
    """Four ways to state what a USDT costs in USD, and one answer for each venue; a venue that is down gives none."""
    seen = [
        priced("a", "USDT", rates=(Rate("USD", Decimal("0.99")), Rate("EUR", Decimal("0.9")))),
        priced("b", "USD", rates=(Rate("USDT", Decimal("1.25")),)),
        priced("c", "USD", balances=(Balance("USDT", Decimal(5), Decimal("0.98")), Balance("BTC", Decimal(1), None))),
        priced("d", "USDT", balances=(Balance("USD", Decimal(5), Decimal("0.5")),)),
        priced("e", "USDT", rates=(Rate("USD", Decimal(7)),), quality="down"),
        priced("f", "USDT", rates=(Rate("USD", Decimal("NaN")), Rate("USD", Decimal(0)))),
    ]
    assert prices_by_venue("USDT", "USD", seen) == {
        "a": Decimal("0.99"), "b": Decimal("0.8"), "c": Decimal("0.98"), "d": Decimal(2),
    }  # fmt: skip


def test_several_accounts_of_a_venue_have_one_vote() -> None:
    """Two accounts at one venue are no quorum of two."""
    seen = [account("1", [], name=name, venue="a", currency="USDT", rates=(Rate("USD", Decimal(1)),)) for name in "xyz"]
    found = conversion("USDT", USD, seen)
    assert found.rate is None
    assert found.unknown == ("the price of USDT in USD is unknown: 2 venues within 1% of each other are required (a 1)")


def test_the_declared_rate_is_used_only_if_too_few_venues_agree() -> None:
    """Declared 1, and the venues give 0.9."""
    declared = ReferenceCurrency("USD", 2, Decimal("0.01"), (("USDT", Decimal(1)),))
    off = [priced(venue, "USDT", rates=(Rate("USD", Decimal("0.9")),)) for venue in "ab"]
    assert conversion("USDT", declared, off).rate == Decimal("0.9")
    assert conversion("USDT", declared, off[:1]).rate == Decimal(1)
    assert conversion("USDC", declared, off).rate is None
    assert conversion("USD", declared, []).rate == Decimal(1)


# A scope of two currencies. EUR costs 1.20 USD, by two venues.


def desk(eur: str, usd: str, *, rate: str = "1.2", pnl: str = "0", **more: Any) -> tuple[AccountSnapshot, ...]:
    """`e` holds a position in EUR with this profit, `u` nothing; both venues price the EUR."""
    held = [position("L", "long", pnl, contracts="1", notional="50000")]
    e = account(
        eur, held, name="e", venue="one", currency="EUR", rates=(Rate("USD", Decimal(rate)),),
        maintenance_margin="5000", **more,
    )  # fmt: skip
    u = account(
        usd, [], name="u", venue="two", currency="USD", balances=(Balance("EUR", Decimal(0), Decimal(rate)),),
        maintenance_margin="0",
    )  # fmt: skip
    return e, u


def view(minute: float, accounts: tuple[AccountSnapshot, ...], reference: ReferenceCurrency | None = USD) -> ScopeView:
    return ScopeView(to_micros(after(minutes=minute)), True, accounts, {}, None, None, reference)


def watched(*each: tuple[AccountSnapshot, ...]) -> History:
    past = History((15 * MINUTE,), HOUR, EquityTerms(10 * MINUTE, 0.001, 60 * SECOND))
    for minute, accounts in enumerate(each):
        past.observe(view(minute, accounts))
    return past


def test_equity_exposure_and_margin_are_in_the_reference_currency() -> None:
    """100,000 EUR and 80,000 USD are 200,000 USD; 50,000 EUR gross are 60,000, and 5,000 EUR of margin 6,000."""
    names = ("equity.value", "exposure.gross", "exposure.net", "exposure.leverage", "exposure.margin_ratio")
    seen = view(0, desk("100000", "80000"))
    past = watched(desk("100000", "80000"))
    columns = ColumnReader([SignalRef(name) for name in names]).read(past, seen)
    assert columns.lo == columns.hi == [200_000.0, 60_000.0, 60_000.0, pytest.approx(0.3), pytest.approx(0.03)]
    assert seen.currency == "USD"


def test_a_loss_in_one_currency_is_a_fall_of_the_scope_and_a_withdrawal_is_not() -> None:
    """A loss of 20,000 EUR is 24,000 of 200,000 USD, 12%; 30,000 EUR that leave with their row are none."""
    assert drawdown(watched(desk("100000", "80000"), desk("80000", "80000", pnl="-20000")), 15 * MINUTE)[0] == (
        pytest.approx(0.12)
    )
    gone = flow("w", after(seconds=30), "-30000", currency="EUR")
    past = watched(desk("100000", "80000"), desk("70000", "80000", flows=[gone]))
    assert loss_from_start(past) == (0.0, 0.0)
    assert past.track.units == pytest.approx((200_000 - 36_000) / 200_000)


def test_a_withdrawal_whose_row_comes_late_is_no_loss_once_it_is_known() -> None:
    """30,000 EUR leave at minute 1, their row comes at minute 2: the unit value is what it was."""
    gone = flow("w", after(seconds=40), "-30000", currency="EUR")
    past = watched(desk("100000", "80000"), desk("70000", "80000"), desk("70000", "80000", flows=[gone]))
    assert unit_value(past, 0) == (pytest.approx(200_000), pytest.approx(200_000))
    assert past.changes.sum == 0


def test_an_unexplained_change_is_in_the_reference_currency() -> None:
    """30,000 EUR are missing: 36,000 USD."""
    past = watched(desk("100000", "80000"), desk("70000", "80000"))
    assert past.changes.sum == -36_000


def test_the_unexplained_share_is_in_the_reference_currency() -> None:
    """30,000 EUR are missing, 36,000 of what would be 200,000 USD: 18%, and not 30,000 of 194,000."""
    seen = desk("70000", "80000")
    past = watched(desk("100000", "80000"), seen)
    names = ("equity.unexplained", "equity.unexplained_share")
    columns = ColumnReader([SignalRef(name) for name in names]).read(past, view(1, seen))
    assert columns.lo == columns.hi == [-36_000.0, pytest.approx(0.18)]


def test_falls_in_two_currencies_are_added_in_the_reference_currency() -> None:
    """10,000 EUR and 8,000 USD are missing: 20,000 of 200,000 USD."""
    seen = desk("90000", "72000")
    columns = ColumnReader([SignalRef("equity.unexplained_share")]).read(
        watched(desk("100000", "80000"), seen), view(1, seen)
    )
    assert columns.lo == columns.hi == [pytest.approx(0.1)]


def test_a_depreciating_currency_is_a_loss() -> None:
    """The EUR falls from 1.20 to 0.90 at both venues: 30,000 of 200,000 USD, and nothing is unexplained."""
    past = watched(desk("100000", "80000"), desk("100000", "80000", rate="0.9"))
    assert drawdown(past, 15 * MINUTE)[0] == pytest.approx(0.15)
    assert past.changes.sum == 0


def test_the_profit_of_positions_is_in_the_reference_currency() -> None:
    """20,000 EUR lost on L are 24,000 USD."""
    calm = [desk("100000", "80000")] * 16
    past = watched(*calm, desk("80000", "80000", pnl="-20000"))
    assert pnl_change(past, 15 * MINUTE) == {("e", "L", "long"): Decimal("-24000.0")}


def test_venues_that_disagree_leave_the_scope_unknown_with_the_reason() -> None:
    """1.20 at one and 1.10 at the other: no plausible rate is invented."""
    e, _ = desk("100000", "80000")
    _, u = desk("100000", "80000", rate="1.1")
    seen = view(0, (e, u))
    assert seen.equity is None
    assert seen.unknown == (
        "the price of EUR in USD is unknown: 2 venues within 1% of each other are required (one 1.2, two 1.1)"
    )


def test_accounts_outside_of_the_scope_have_a_vote() -> None:
    """The scope holds only `e`; `u` is outside of it."""
    e, u = desk("100000", "80000")
    alone = ScopeView(0, True, (e,), {}, None, (e, u), USD)
    assert alone.equity == Decimal(120_000)
    assert ScopeView(0, True, (e,), {}, None, (e,), USD).equity is None


def test_without_a_reference_currency_a_mixed_scope_is_unknown() -> None:
    """As in a replay of a recording without documents."""
    seen = view(0, desk("100000", "80000"), None)
    assert seen.unknown == "the scope has accounts in EUR and USD, and no reference currency"


def test_an_unavailable_account_is_bounded_in_the_reference_currency() -> None:
    """`u` lost nothing and `e` is down; no mark of its L is visible, so its equity is unbounded."""
    _, u = desk("100000", "80000")
    other = account("1", [], name="x", venue="one", currency="EUR", rates=(Rate("USD", Decimal("1.2")),))
    down = account(None, None, name="e", venue="one", currency="EUR", quality="down", reason="timeout")
    past = watched(desk("100000", "80000"))
    past.observe(ScopeView(to_micros(after(minutes=1)), True, (down, u), {}, None, (down, u, other), USD))
    assert past.equity_range is not None
    assert (past.equity_range.low, past.equity_range.high) == (Decimal(80_000), Decimal("Infinity"))


def test_a_flat_unavailable_account_has_its_last_equity_at_the_current_rate() -> None:
    """100,000 EUR are 110,000 USD when the EUR costs 1.10."""
    _, u = desk("100000", "80000", rate="1.1")
    flat = account("100000", [], name="e", venue="one", currency="EUR", rates=(Rate("USD", Decimal("1.2")),))
    other = account("1", [], name="x", venue="one", currency="EUR", rates=(Rate("USD", Decimal("1.1")),))
    down = account(None, None, name="e", venue="one", currency="EUR", quality="down", reason="timeout")
    past = watched((flat, desk("1", "80000")[1]))
    past.observe(ScopeView(to_micros(after(minutes=1)), True, (down, u), {}, None, (down, u, other), USD))
    assert past.equity_range is not None
    assert past.equity_range.low == past.equity_range.high == Decimal(190_000)


# How old a rate may be, and what has none.


@pytest.mark.parametrize(("old", "rate"), [(60, Decimal("1.2")), (61, None)])
def test_a_rate_is_as_stale_as_the_equity_of_the_account_that_gives_it(old: int, rate: Decimal | None) -> None:
    """Both venues give 1.20; `two` was observed so many seconds ago, and the policy takes no data older than 60 s."""
    e, u = desk("100000", "80000")
    e, u = replace(e, observed_at=after(seconds=old)), replace(u, observed_at=after(seconds=0))
    seen = ScopeView(to_micros(after(seconds=old)), True, (e,), {}, 60 * SECOND, (e, u), USD)
    assert seen.conversion("EUR").rate == rate
    assert seen.equity == (None if rate is None else Decimal(120_000))


def test_an_unknown_rate_names_the_stale_answer() -> None:
    """The reason has the account that gave the missing price, and when."""
    e, u = desk("100000", "80000")
    e, u = replace(e, observed_at=after(hours=28)), replace(u, observed_at=after(seconds=0))
    seen = ScopeView(to_micros(after(hours=28)), True, (e,), {}, 60 * SECOND, (e, u), USD)
    assert seen.unknown == (
        "the price of EUR in USD is unknown: 2 venues within 1% of each other are required (one 1.2); "
        "u was last observed at 2024-01-01T00:00:00+00:00"
    )


def test_an_amount_without_a_rate_is_unknown() -> None:
    """Venues that disagree: neither an amount nor the rate is taken for one of the scope's currency."""
    e, _ = desk("100000", "80000")
    _, u = desk("100000", "80000", rate="1.1")
    seen = view(0, (e, u))
    with pytest.raises(LookupError, match="the price of EUR in USD is unknown"):
        seen.rate("e")
    with pytest.raises(LookupError, match="the price of EUR in USD is unknown"):
        seen.converted(Decimal(1), e)
    assert (seen.rate("u"), seen.converted(Decimal(7), u)) == (Decimal(1), Decimal(7))
    assert (seen.pnl(), seen.notionals(), seen.maintenance()) == (None, None, None)


@pytest.mark.parametrize("reference", [USD, None])
def test_an_account_that_is_not_in_the_view_has_no_rate(reference: ReferenceCurrency | None) -> None:
    """Its currency is not known."""
    _, u = desk("100000", "80000")
    with pytest.raises(LookupError, match="gone is not in the scope"):
        view(0, (u,), reference).rate("gone")


def test_a_position_without_a_rate_has_an_unknown_share_for_the_ranking() -> None:
    """Its value beside the others is unknown, and is not the number in its own currency."""
    e, _ = desk("100000", "80000", pnl="-10")
    _, u = desk("100000", "80000", rate="1.1")
    (found,) = candidates(view(0, (e, u)), None)
    assert (found.value, found.measured, found.notional_share, found.pnl) == (Decimal(50_000), None, None, None)


def test_realised_profit_of_an_account_leaves_the_scope_with_it() -> None:
    """`e` closes at a gain and an operator then removes it from the scope: the rest needs no rate of it."""
    gain = fill("f", after(seconds=30), "L", "sell", "1", "110", realized_pnl="10")
    e, u = desk("100000", "80000")
    past = watched((e, u), desk("100010", "80000", fills=[gain]))
    past.retain_members(frozenset({"u"}))
    past.observe(view(2, (u,)))
    assert past.rows[-1].pnl == {}
