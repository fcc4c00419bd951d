"""The net of a declared hedge, and the order that would take it out: reducing, else opening, else none."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.orders.hedge_nets import HedgeNet, hedge_nets
from killswitch.signals.arguments import HedgeLegs, LegOfHedge
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import START, account, position, rules

D = Decimal
PAIR = HedgeLegs("pair", (LegOfHedge("a", "BTC_USDT", D(1)), LegOfHedge("b", "XBT_USD", D("0.001"))))


def leg(name: str, contracts: str, symbol: str, *, quality: str = "ok", **limits: str) -> AccountSnapshot:
    """An account that holds this many contracts, short below zero; a contract is one unit."""
    size = D(contracts)
    held = position(symbol, "short" if size < 0 else "long", "0", contracts=str(abs(size)), mark_price="100")
    rows = None if quality != "ok" else [held] if size else []
    return account("1000" if rows is not None else None, rows, name=name, quality=quality,
                   instruments=[rules(symbol, **limits)])  # fmt: skip


def net_of(*accounts: AccountSnapshot) -> HedgeNet:
    known = {(each.account, rule.symbol): rule for each in accounts for rule in each.instruments or ()}
    (found,) = hedge_nets([PAIR], ScopeView(to_micros(START), True, accounts, known, None))
    return found


def test_heavier_side_is_reduced_by_the_net_and_no_more() -> None:
    """Long 10 against short 8,000 × 0.001 = 8: 2 of the long leg."""
    found = net_of(leg("a", "10", "BTC_USDT"), leg("b", "-8000", "XBT_USD"))
    assert (found.net, found.larger) == (D(2), D(10))
    assert found.suggestion == "sell 2 BTC_USDT on a, which reduces it"


def test_other_leg_is_opened_where_the_heavier_side_cannot_be_reduced() -> None:
    """A halted long leg leaves 2 naked: 2,000 contracts more of the short one."""
    found = net_of(leg("a", "10", "BTC_USDT", state="halted"), leg("b", "-8000", "XBT_USD"))
    assert found.suggestion == (
        "sell 2000 XBT_USD on b, which opens a position; "
        "not sell 2 BTC_USDT on a, which reduces it: it is halted at the venue"
    )


@pytest.mark.parametrize("state", ["halted", "reduce_only"])
def test_nothing_feasible_is_said_with_each_reason(state: str) -> None:
    found = net_of(leg("a", "10", "BTC_USDT", state="halted"), leg("b", "-8000", "XBT_USD", state=state))
    assert found.suggestion is not None
    assert found.suggestion.startswith("not feasible now: sell 2 BTC_USDT on a")
    assert ("accepts reducing orders only" if state == "reduce_only" else "XBT_USD on b") in found.suggestion


def test_hedge_without_a_net_needs_nothing() -> None:
    assert net_of(leg("a", "8", "BTC_USDT"), leg("b", "-8000", "XBT_USD")).suggestion is None


def test_leg_that_cannot_be_read_leaves_the_net_unknown() -> None:
    found = net_of(leg("a", "10", "BTC_USDT"), leg("b", "-8000", "XBT_USD", quality="down"))
    assert (found.net, found.suggestion) == (None, None)
    assert "XBT_USD on b" in (found.unknown or "")


def test_hedge_of_which_nothing_is_held_is_left_out() -> None:
    accounts = (leg("a", "0", "BTC_USDT"), leg("b", "0", "XBT_USD"))
    assert hedge_nets([PAIR], ScopeView(to_micros(START), True, accounts, {}, None)) == ()


SIZES = st.decimals(min_value="0.01", max_value="50", places=2)


@given(SIZES, SIZES)
def test_suggestion_never_turns_the_net_around(long: Decimal, short: Decimal) -> None:
    """The order takes out at most the net, in whole steps of 0.001."""
    found = net_of(leg("a", str(long), "BTC_USDT"), leg("b", str(-1000 * short), "XBT_USD"))
    assert found.net == long - short
    if found.suggestion is not None and found.suggestion.startswith("sell "):
        assert abs(found.net) - D("0.001") < D(found.suggestion.split()[1]) <= abs(found.net)
