"""A print that does not hold, at its edges: how far a mark may lie off, and what the account is worth without it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.model.snapshot import AccountSnapshot, Instrument
from killswitch.planning.corroboration import corroborate
from killswitch.signals.view import ScopeView
from tests.worlds import account, position, rules

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


def view(*accounts: AccountSnapshot, known: tuple[Instrument, ...] = ()) -> ScopeView:
    return ScopeView(7, True, accounts, {("main", each.symbol): each for each in known}, None)


def failing(mark: str, index: str | None, last: str | None = None, contracts: str = "1") -> int:
    """How many prints of one position with these prices do not hold."""
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
def test_a_mark_may_lie_five_hundredths_of_the_index_off(mark: str, index: str, last: str, fails: int) -> None:
    """To either side, that far included; the last price counts only where no index is given, a price of 0 never."""
    assert failing(mark, index, last) == fails


def test_a_position_of_nothing_has_no_print_to_hold() -> None:
    """Whatever its mark says, nothing depends on it."""
    assert failing("300", "100", contracts="0") == 0


def test_a_scope_whose_prints_hold_is_left_as_it_is() -> None:
    """The very same view, with nothing named."""
    seen = view(account("1000", [position(BTC, "long", mark_price="100", index_price="100")]))
    found = corroborate(seen)
    assert found.view is seen
    assert found.failing == ()


def test_the_account_is_supposed_at_the_prices_that_hold() -> None:
    """Long 2 of face 10 marked 90 where the index says 100: 200 more of equity and of P&L; the sound leg stays."""
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


def test_the_legs_after_a_stray_print_are_held_against_their_index_too() -> None:
    """A sound leg first, then two that fail, one long and one short: both are named, and both count."""
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


def test_a_print_whose_worth_cannot_be_computed_leaves_no_account_to_suppose() -> None:
    """No contract size and no notional, or no equity: it is named, and later legs are held all the same."""
    unknown = position(BTC, "long", mark_price="90", index_price="100")
    stray = position(ETH, "long", mark_price="90", index_price="100", notional="90")
    found = corroborate(view(account("1000", [unknown, stray])))
    assert (found.view, len(found.failing)) == (None, 2)
    assert corroborate(view(account(None, [stray]))).view is None


def test_one_account_that_cannot_be_supposed_spoils_the_scope() -> None:
    """Half a portfolio is no portfolio."""
    good = account("1000", [position(BTC, "long", mark_price="90", index_price="100", notional="90")], name="good")
    bad = account("1000", [position(BTC, "long", mark_price="90", index_price="100")], name="bad")
    assert corroborate(view(good, bad)).view is None
    supposed = corroborate(view(good)).view
    assert supposed is not None
    assert supposed.equity == Decimal(1010)
