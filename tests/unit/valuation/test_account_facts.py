"""Facts of an account are computed once, shared, and never used after what they depend on has changed.

Expected values by hand: 2 × 100 long are 200, 3 × 50 short are 150."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from killswitch.model.instant import to_micros
from killswitch.model.magnitude import are_sane, sound_account
from killswitch.model.snapshot import AccountSnapshot, Balance, Instrument, Position, Rate
from killswitch.model.words import ReferenceCurrency
from killswitch.valuation.account_facts import AccountFacts
from killswitch.valuation.held_positions import BookExposure
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.snapshot_facts import SnapshotFacts
from tests.worlds import START, account, after, position, rules, snapshot

D = Decimal
NOW = to_micros(START)
NO_RULES: Mapping[tuple[str, str], Instrument] = {}
BTC = position("BTC/USDT:USDT", "long", "8", contracts="2", mark_price="100", entry_price="96", notional="200",
               liquidation_price="80")  # fmt: skip
ETH = position("ETH/USDT:USDT", "short", "-3", contracts="3", mark_price="50", entry_price="49", notional="-150",
               liquidation_price="60")  # fmt: skip


def facts(*positions: Position, **more: Any) -> AccountFacts:
    return AccountFacts(account("1000", positions, **more), NO_RULES)


def view(*accounts: AccountSnapshot, reference: ReferenceCurrency | None = None) -> ScopeView:
    return ScopeView(NOW, True, accounts, NO_RULES, None, None, reference)


def moved(before: Position, mark: str) -> Position:
    return replace(before, mark_price=D(mark))


def later(
    before: AccountFacts, seen: AccountSnapshot, known: Mapping[tuple[str, str], Instrument] = NO_RULES
) -> AccountFacts:
    """Facts of the account in the snapshot after that of `before`."""
    first = SnapshotFacts(NOW, (before.account,), known)
    first.by_name["main"] = before
    return first.next(NOW + 1, snapshot(after(), seen)).of(seen)


# What is shared


def test_the_same_snapshot_has_the_same_facts() -> None:
    first = facts(BTC)
    assert later(first, first.account) is first


def test_equal_positions_keep_their_measures_while_the_rest_of_the_account_changes() -> None:
    """Another time, equity and equal positions of another object, as a venue's next answer has them."""
    first = facts(BTC, ETH)
    second = later(first, account("1001", (replace(BTC), replace(ETH)), observed_at=after(seconds=1)))
    assert second is not first
    assert second.held is first.held


def test_sizes_are_one_object_until_something_is_traded() -> None:
    first = facts(BTC, ETH)
    priced = later(first, account("1000", (moved(BTC, "101"), ETH)))
    traded = later(priced, account("1000", (replace(BTC, contracts=D("2.1")), ETH)))
    assert priced.held is not first.held
    assert priced.sizes is first.sizes
    assert traded.sizes == {("BTC/USDT:USDT", "long"): D("2.1"), ("ETH/USDT:USDT", "short"): D(3)}


@pytest.mark.parametrize(
    "changed",
    [
        {"instruments": (rules("BTC/USDC:USDC"),)},
        {"balances": (Balance("USDC", D(1), D("0.9")),)},
        {"rates": (Rate("USDC", D(2)),)},
        {"currency": "EUR"},
        {"market": "spot"},
    ],
    ids=lambda words: next(iter(words)),
)
def test_rules_and_prices_of_the_settlement_coin_make_positions_new(changed: dict[str, Any]) -> None:
    """A contract's size and its coin's price are part of its value, although the position is reported unchanged."""
    first = facts(BTC)
    assert later(first, account("1000", (BTC,), **changed)).held is not first.held


def test_a_signalling_nan_equals_nothing_and_raises_nothing() -> None:
    first = facts(replace(BTC, mark_price=D("sNaN")))
    assert later(first, account("1000", (replace(BTC, mark_price=D("sNaN")),))).held is not first.held
    broken = facts(replace(BTC, contracts=D("sNaN")))
    assert later(broken, account("1000", (replace(BTC, contracts=D("sNaN")),))).positions_unusable is not None


# What they are


def test_rows_of_one_symbol_and_side_are_one_position() -> None:
    """Two strategies hold 2 and 1 long; a row of zero contracts is no position."""
    other = replace(BTC, contracts=D(1), notional=D(100), unrealized_pnl=D(4), strategy="b")
    found = facts(BTC, other, position("SOL/USDT:USDT", "long", "0", contracts="0"))
    assert found.sizes == {("BTC/USDT:USDT", "long"): D(3)}
    assert found.entries == {("BTC/USDT:USDT", "long"): D(96)}
    assert found.unrealised == D(12)
    assert found.held.exposure == BookExposure(D(300), D(300), D(300))


@pytest.mark.parametrize("value", ["NaN", "sNaN", "Infinity", "1e30", "1e-30", "-1e40"])
def test_an_insane_number_of_one_position_is_unknown(value: str) -> None:
    """With entry and mark and no rules nothing else gives the profit or the notional."""
    found = facts(replace(BTC, notional=D(value), unrealized_pnl=D(value)), ETH)
    assert (found.pnl, found.unrealised, found.held.exposure) == (None, None, None)
    assert found.held.notionals == [None, D(150)]
    assert "main" in (found.unrealised_unknown or "")
    assert [each.notional for each in found.positions or ()] == [None, D(-150)]
    assert found.sound.positions == found.positions
    assert not are_sane([D(1), D(value)])


def test_a_sound_account_is_itself() -> None:
    seen = account("1000", (BTC, ETH))
    assert sound_account(seen) is seen


def test_positions_that_are_not_reported_are_unknown_and_not_none() -> None:
    found = AccountFacts(account("1000", None), NO_RULES)
    assert (found.positions, found.sizes, found.entries, found.pnl, found.unrealised) == (None,) * 5
    assert found.unrealised_unknown == "main reports no positions"
    assert view(found.account).columns is None


# Changes


def test_a_change_is_computed_once_for_everything_that_reads_it() -> None:
    calls: list[tuple[AccountFacts, AccountFacts]] = []

    def counted(before: AccountFacts, after: AccountFacts) -> int:
        calls.append((before, after))
        return len(calls)

    first = facts(BTC)
    second = later(first, account("1000", (moved(BTC, "101"),)))
    third = later(second, account("1000", (replace(BTC, contracts=D(1)),)))
    assert [second.since(first).once(counted) for _ in range(3)] == [1, 1, 1]
    assert not second.since(first).has_traded
    assert third.since(second).has_traded


def test_a_change_keeps_no_earlier_snapshot_than_the_one_before() -> None:
    """A run has a change each tick: if each kept the one before it, all snapshots of the run would stay in memory."""
    first = facts(BTC)
    second = later(first, account("1000", (moved(BTC, "101"),)))
    third = later(second, account("1000", (moved(BTC, "102"),)))
    oldest = weakref.ref(first)
    assert second.since(first).before is first
    change = third.since(second)
    del first
    gc.collect()
    assert oldest() is None
    assert change.before is second


# Columns


def test_columns_of_a_scope_are_in_its_currency() -> None:
    """A second account in EUR at 2 dollars: 200 of EUR are 400, a profit of 8 is 16; shares are of 750 in all."""
    reference = ReferenceCurrency("USDT", 1, D("0.01"), (("EUR", D(2)),))
    euro = account("10", (BTC,), name="euro", currency="EUR")
    columns = view(account("1000", (BTC, ETH)), euro, reference=reference).columns
    assert columns is not None
    assert columns.accounts == ("main", "main", "euro")
    assert columns.symbols == (BTC.symbol, ETH.symbol, BTC.symbol)
    assert columns.sides == ("long", "short", "long")
    for column, expected in (
        (columns.sign, [1, -1, 1]),
        (columns.contracts, [2, 3, 2]),
        (columns.notional, [200, 150, 400]),
        (columns.unrealised, [8, -3, 16]),
        (columns.liquidation_distance, [0.2, 0.2, 0.2]),
        (columns.share, [200 / 750, 150 / 750, 400 / 750]),
    ):
        np.testing.assert_allclose(column, expected, rtol=1e-15)
    assert columns.exposure == BookExposure(D(750), D(450), D(400))
    assert len(columns) == 3
    assert columns.reason("notional") is None


def test_an_unknown_number_is_nan_with_its_reason() -> None:
    columns = view(account("1000", (BTC, replace(ETH, notional=None)))).columns
    assert columns is not None
    assert np.isnan(columns.notional).tolist() == [False, True]
    assert np.isnan(columns.share).all()
    assert columns.reason("notional") == "the notional of ETH/USDT:USDT in main is unknown"
    assert columns.reason("share") == "the share of ETH/USDT:USDT in main is unknown"
    assert columns.exposure is None


def test_positions_without_value_have_no_share() -> None:
    """0 of 0 is unknown, not 0: a share of 0 would read as a small position of a book."""
    columns = view(account("1000", (replace(BTC, notional=D(0)), replace(ETH, notional=D(0))))).columns
    assert columns is not None
    assert np.isnan(columns.share).all()
    assert columns.reason("share") == "no position has a share: their notionals are all 0"
    assert columns.reason("notional") is None


def test_columns_of_an_empty_book_are_empty() -> None:
    columns = view(account("1000", ())).columns
    assert columns is not None
    assert (len(columns), columns.share.tolist(), columns.exposure) == (0, [], BookExposure())
    assert columns.reason("share") is None


def test_sums_of_money_are_exact() -> None:
    """0.1 + 0.2 is 0.3, which a threshold of 0.3 reaches; as floats the sum is above it."""
    book = [replace(BTC, notional=D("0.1")), replace(ETH, side="long", notional=D("0.2"))]
    columns = view(account("1000", book)).columns
    assert columns is not None
    assert columns.exposure is not None
    assert float(columns.exposure.gross) == 0.3
    assert float(columns.notional.sum()) != 0.3


def test_a_column_cannot_be_changed_by_a_reader() -> None:
    """It is shared with other policies and later ticks."""
    columns = view(account("1000", (BTC, ETH))).columns
    assert columns is not None
    with pytest.raises(ValueError, match="read-only"):
        columns.notional[0] = 0.0


def test_views_of_a_snapshot_share_facts() -> None:
    around = SnapshotFacts(NOW, (account("1000", (BTC,)), account("5", (ETH,), name="b")), NO_RULES)
    one, other = (ScopeView(NOW, True, around.accounts, NO_RULES, age, around=around) for age in (None, 60))
    assert [id(each) for each in one.facts] == [id(each) for each in other.facts]


def values_of_two_accounts() -> Sequence[AccountSnapshot]:
    return account("1000", (BTC,)), account("5", (ETH,), name="b")


def test_the_profit_of_an_account_is_that_of_its_own_positions() -> None:
    assert view(*values_of_two_accounts()).profits() == {"main": D(8), "b": D(-3)}
    withheld = account("5", (replace(ETH, unrealized_pnl=None),), name="b")
    assert view(account("1000", (BTC,)), withheld).profits() == {"main": D(8), "b": None}


def test_entry_values_follow_an_entry_price_that_changes_while_the_size_stays() -> None:
    """2 × 96 at first, and 2 × 97 once the venue has moved the entry price."""
    known = {("main", BTC.symbol): rules(BTC.symbol)}
    first = AccountFacts(account("1000", (BTC,)), known)
    assert first.held.floats("entry_value").tolist() == [192]
    same = later(first, account("1000", (moved(BTC, "101"),)), known)
    assert same.held.floats("entry_value") is first.held.floats("entry_value")
    other = later(same, account("1000", (replace(BTC, entry_price=D("97")),)), known)
    assert other.held.floats("entry_value").tolist() == [194]
