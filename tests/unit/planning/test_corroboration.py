"""Corroboration of prices at its edges: permitted deviation of a mark, and revaluation without the stray print."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Instrument, Position
from killswitch.model.venue import Prices
from killswitch.planning.scopes.corroboration import corroborate, repriced
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, position, rules

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


def view(*accounts: AccountSnapshot, known: tuple[Instrument, ...] = ()) -> ScopeView:
    return ScopeView(7, True, accounts, {("main", each.symbol): each for each in known}, None)


def failing(mark: str, index: str | None, last: str | None = None, contracts: str = "1") -> int:
    """How many prices of one position with these values are not corroborated."""
    held = position(BTC, "long", mark_price=mark, index_price=index, last_price=last, contracts=contracts)
    return len(corroborate(view(account("1000", [held]))).failing)


@pytest.mark.parametrize(
    ("mark", "index", "last", "fails"),
    [
        ("105", "100", None, 0),
        ("105.01", "100", None, 1),
        ("95", "100", None, 0),
        ("94.99", "100", None, 1),
        ("100", "100", None, 0),
        ("300", None, "100", 1),
        ("100", None, "100", 0),
        ("300", "300", "100", 0),
        ("300", None, None, 0),
        ("300", "0", None, 0),
    ],
)
def test_a_mark_may_deviate_five_percent_from_the_index(mark: str, index: str, last: str, fails: int) -> None:
    """To either side, 5% included; the last price counts only where no index is given, a price of 0 never."""
    assert failing(mark, index, last) == fails


def test_a_position_of_zero_contracts_is_not_checked() -> None:
    """Whatever its mark is, nothing depends on it."""
    assert failing("300", "100", contracts="0") == 0


def test_a_scope_with_corroborated_prices_is_unchanged() -> None:
    """The same view object, with no position named."""
    scope = view(account("1000", [position(BTC, "long", mark_price="100", index_price="100")]))
    found = corroborate(scope)
    assert found.view is scope
    assert found.failing == ()


def test_the_account_is_revalued_at_the_corroborated_prices() -> None:
    """Long 2 of face 10 marked 90 at an index of 100: 200 more of equity and of P&L; the corroborated leg stays."""
    wrong = position(BTC, "long", "-150", contracts="2", mark_price="90", index_price="100", notional="1800")
    right = position(ETH, "short", "5", mark_price="50", index_price="50", notional="50")
    known = (rules(BTC, contract_size="10"), rules(ETH))
    found = corroborate(view(account("1000", [wrong, right]), known=known))
    assert found.failing == (f"{BTC} mark 90 against index 100 and last None",)
    assert found.view is not None
    assert (found.view.as_of, found.view.scheduled, found.view.equity) == (7, True, Decimal(1200))
    assert found.view.instruments == {("main", each.symbol): each for each in known}
    again, other = found.view.sound[0].positions or ()
    assert (again.mark_price, again.unrealized_pnl, again.notional) == (Decimal(100), Decimal(50), None)
    assert other == right


def test_legs_after_a_stray_print_are_checked_against_their_index_too() -> None:
    """One corroborated leg, then two stray ones, long and short: both are named, and both count."""
    legs = [
        position("SOL/USDT:USDT", "long", mark_price="10", index_price="10"),
        position(BTC, "long", mark_price="90", index_price="100"),
        position(ETH, "short", mark_price="40", index_price="50"),
    ]
    found = corroborate(view(account("1000", legs), known=(rules(BTC), rules(ETH))))
    assert len(found.failing) == 2
    assert found.view is not None
    assert found.view.equity == Decimal(1000) + 10 - 10
    assert [each.unrealized_pnl for each in found.view.sound[0].positions or ()] == [None, None, None]


@pytest.mark.parametrize(("side", "equity"), [("long", Decimal(1100)), ("short", Decimal(900))])
def test_without_the_contracts_rules_the_move_is_in_proportion_to_the_notional(side: str, equity: Decimal) -> None:
    """1000 of notional at a mark of 50, the index at 55: a tenth of it, for or against the position."""
    held = position(BTC, side, mark_price="50", index_price="55", notional="1000")
    found = corroborate(view(account("1000", [held])))
    assert found.view is not None
    assert found.view.equity == equity


def test_a_stray_print_whose_value_is_unknown_prevents_a_revaluation() -> None:
    """No contract size and no notional, or no equity: it is named, and later legs are checked all the same."""
    unknown = position(BTC, "long", mark_price="90", index_price="100")
    stray = position(ETH, "long", mark_price="90", index_price="100", notional="90")
    found = corroborate(view(account("1000", [unknown, stray])))
    assert (found.view, len(found.failing)) == (None, 2)
    assert corroborate(view(account(None, [stray]))).view is None


def test_one_account_that_cannot_be_revalued_prevents_the_scopes_revaluation() -> None:
    """A part of a portfolio is not a portfolio."""
    good = account("1000", [position(BTC, "long", mark_price="90", index_price="100", notional="90")], name="good")
    bad = account("1000", [position(BTC, "long", mark_price="90", index_price="100")], name="bad")
    assert corroborate(view(good, bad)).view is None
    revalued = corroborate(view(good)).view
    assert revalued is not None
    assert revalued.equity == Decimal(1010)


# Contracts that settle in another currency than the account's: 1,000 of 100 USD each, at a mark of 50,000.

COIN = "BTC/USD:BTC"
FACE = rules(COIN, contract_size="100", inverse=True)


def coin_margined(side: str, notional: str | None = "100000", **more: str) -> Position:
    return position(COIN, side, "0", contracts="1000", mark_price="50000", notional=notional, **more)


def at_second_prices(held: Position, mark: str, known: Instrument, **more: Any) -> AccountSnapshot | None:
    """The account at the prices of a second fetch."""
    scope = view(account("90000", [held], unrealized=Decimal(0), **more), known=(known,))
    found = repriced(scope, {"main": {held.symbol: Prices(Decimal(mark), Decimal(mark), None, None)}})
    return None if found is None else found.sound[0]


@pytest.mark.parametrize(("side", "gain"), [("long", 10_000), ("short", -10_000)])
def test_a_contract_that_settles_in_coins_is_valued_in_the_accounts_dollars(side: str, gain: int) -> None:
    """100,000 × (1/50,000 − 1/55,000) = 2/11 BTC, and at 55,000 that is 10,000 USD. Its face stays 100,000 USD."""
    again = at_second_prices(coin_margined(side), "55000", FACE, currency="USD")
    assert again is not None
    assert again.equity == pytest.approx(Decimal(90_000 + gain))
    assert again.unrealized == pytest.approx(Decimal(gain))
    (held,) = again.positions or ()
    assert (held.mark_price, held.notional) == (Decimal(55_000), Decimal(100_000))
    assert held.unrealized_pnl == pytest.approx(Decimal(gain))


def test_a_stray_print_of_a_contract_that_settles_in_coins_is_replaced_in_the_accounts_dollars() -> None:
    """A mark of 50,000 against an index of 55,000: 10,000 USD more, and not 2/11."""
    found = corroborate(
        view(account("90000", [coin_margined("long", index_price="55000")], currency="USD"), known=(FACE,))
    )
    assert found.view is not None
    assert found.view.equity == pytest.approx(Decimal(100_000))
    assert found.view.notionals() == [(*found.view.positions()[0], Decimal(100_000))]


def test_in_an_account_of_coins_it_is_valued_in_coins() -> None:
    """2/11 BTC by the contract's rules."""
    again = at_second_prices(coin_margined("long", notional="2"), "55000", FACE, currency="BTC")
    assert again is not None
    assert again.equity is not None
    assert again.equity - 90_000 == pytest.approx(Decimal(2) / 11)


def test_a_linear_contract_of_another_currency_is_valued_by_its_notional() -> None:
    """45,000 EUR of a contract in USDT, whose mark rises by a tenth: 4,500 EUR, and then 49,500 of notional."""
    held = position(BTC, "long", "0", mark_price="50000", notional="45000")
    again = at_second_prices(held, "55000", rules(BTC), currency="EUR")
    assert again is not None
    assert again.equity == Decimal(94_500)
    assert [each.notional for each in again.positions or ()] == [Decimal(49_500)]


@pytest.mark.parametrize("held", [coin_margined("long", None), position(BTC, "long", "0", mark_price="50000")])
def test_without_a_notional_a_contract_that_settles_in_another_currency_is_unknown(held: Position) -> None:
    """The value of a coin in the account's currency is unknown."""
    known = FACE if held.symbol == COIN else rules(BTC)
    assert at_second_prices(held, "55000", known, currency="USD") is None
    stray = replace(held, index_price=Decimal(55_000))
    found = corroborate(view(account("90000", [stray], currency="USD"), known=(known,)))
    assert (found.view, len(found.failing)) == (None, 1)
