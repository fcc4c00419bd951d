"""Splits: which changes of size and price are one, and what is restated then."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Balance, Position
from killswitch.pnl_explain.splits import may_be_share_split, restated_for_splits
from killswitch.signals.history.windows import drawdown_from_peak, loss_from_start
from tests.unit.pnl_explain.test_hidden_losses import X, account, at, fall, held, history, observe

NOISE = Decimal(100)


def contract(size: str, mark: str, **more: Any) -> AccountSnapshot:
    leg = Position(X, "long", Decimal(size), entry_price=Decimal(100), mark_price=Decimal(mark))
    return account(0, "100000", [replace(leg, **more)])


def is_split(before: AccountSnapshot, after: AccountSnapshot, traded: tuple[str, ...] = ()) -> bool:
    return restated_for_splits(before, after, traded, NOISE) is not before


@pytest.mark.parametrize(
    ("size", "mark", "expected"),
    [
        ("10000", "10", True), ("100", "1000", True), ("1000000000000", "0.0000001", True), ("1000000", "0.1", True),
        ("10000", "12.5", True), ("10000", "7.5", True), ("10000", "12.51", False), ("10000", "7.49", False),
        ("10010", "10", True), ("10011", "10", False), ("9990", "10", True), ("9989", "10", False),
        ("1250", "80", False), ("2000", "50", False), ("500", "200", False), ("1500", "66.7", False),
        ("1000", "100", False), ("1000", "10", False), ("10000", "100", False), ("10000000000000", "0.00000001", False),
    ],
)  # fmt: skip
def test_a_contract_is_split_by_a_power_of_ten(size: str, mark: str, expected: bool) -> None:
    """1,000 contracts at 100: up to 10^9, within a tenth of a percent of the size and a quarter of the price."""
    assert is_split(contract("1000", "100"), contract(size, mark)) is expected


def test_a_trade_or_a_change_of_side_is_no_split() -> None:
    """A fill of the symbol, a short position, or both sides of one."""
    before, after = contract("1000", "100"), contract("10000", "10")
    assert not is_split(before, after, (X,))
    assert not is_split(before, contract("10000", "10", side="short"))
    both = replace(after, positions=(*(after.positions or ()), *(contract("5", "10", side="short").positions or ())))
    assert not is_split(before, both)


@pytest.mark.parametrize("wrong", [{"mark_price": None}, {"mark_price": Decimal("NaN")}, {"mark_price": Decimal(0)}])
def test_without_a_price_nothing_is_a_split(wrong: dict[str, Any]) -> None:
    """Before or after."""
    assert not is_split(contract("1000", "100", **wrong), contract("10000", "10"))
    assert not is_split(contract("1000", "100"), contract("10000", "10", **wrong))


def test_sizes_prices_and_entries_are_restated() -> None:
    """Ten for one: 1,000 at 100 become 10,000 at 10."""
    before = contract("1000", "100", index_price=Decimal(99), liquidation_price=Decimal(50), notional=Decimal(100_000))
    (leg,) = restated_for_splits(before, contract("10000", "10"), (), NOISE).positions or ()
    assert (leg.contracts, leg.mark_price, leg.entry_price) == (10_000, 10, 10)
    assert (leg.index_price, leg.liquidation_price, leg.notional) == (Decimal("9.9"), 5, 100_000)


def coins(size: str, price: str, cash: str) -> AccountSnapshot:
    amount, each = Decimal(size), Decimal(price)
    wallets = (Balance("USDT", Decimal(cash), price=Decimal(1)), Balance("BTC", amount, price=each))
    held_coins = Position("BTC/USDT", "long", amount, mark_price=each)
    return AccountSnapshot(
        "main",
        "v",
        "spot",
        "USDT",
        "ok",
        equity=Decimal(cash) + amount * each,
        balances=wallets,
        positions=(held_coins,),
    )


@pytest.mark.parametrize(("cash", "expected"), [("50000", True), ("49900", True), ("49899", False), ("50101", False)])
def test_coins_that_another_wallet_pays_are_bought(cash: str, expected: bool) -> None:
    """50,000 of cash: a move of more than noise, 100, may have paid."""
    assert is_split(coins("100", "100", "50000"), coins("1000", "10", cash)) is expected


def test_the_wallet_of_a_split_coin_is_restated_with_it() -> None:
    """100 BTC at 100 become 1,000 at 10."""
    found = restated_for_splits(coins("100", "100", "50000"), coins("1000", "10", "50000"), (), NOISE)
    assert [(each.asset, each.amount, each.price) for each in found.balances or ()] == [
        ("USDT", 50_000, 1), ("BTC", 1000, 10),
    ]  # fmt: skip


# Shares


def shares(size: str, price: str) -> AccountSnapshot:
    amount, each = Decimal(size), Decimal(price)
    profit = amount * each - 100_000
    leg = Position("AAPL", "long", amount, Decimal(100), each, notional=amount * each, unrealized_pnl=profit)
    return AccountSnapshot(
        "main", "v", "equity", "USD", "ok", equity=amount * each, positions=(leg,),
        balances=(Balance("USD", Decimal(0), wallet=Decimal(0)), Balance("AAPL", amount, price=each, wallet=amount)),
    )  # fmt: skip


RATIOS = {
    "2:1": ("2000", "50"), "3:1": ("3000", "33.33"), "20:1": ("20000", "5"), "1:2": ("500", "200"),
    "1:10": ("100", "1000"), "3:2": ("1500", "66.67"), "5:2": ("2500", "40"), "5:4": ("1250", "80"),
    "4:3": ("1333", "75"),
}  # fmt: skip


@pytest.mark.parametrize(("size", "price"), RATIOS.values(), ids=RATIOS)
def test_shares_split_by_the_ratios_of_the_list(size: str, price: str) -> None:
    """Pending: the earlier snapshot is not restated."""
    before, after = shares("1000", "100"), shares(size, price)
    assert may_be_share_split(before, after, ())
    assert not is_split(before, after)
    assert not may_be_share_split(before, after, ("AAPL",))


@pytest.mark.parametrize(
    ("size", "price"),
    [
        ("1998", "50"), ("2002", "50"), ("1600", "62.5"), ("1100", "90.9"), ("800", "125"),
        ("2000", "100"), ("2000", "62.51"), ("2000", "37.49"), ("1000", "50"),
        ("1250", "100"), ("1250", "99"), ("1334", "93"), ("500", "100"),
    ],
)  # fmt: skip
def test_near_misses_are_no_splits_of_shares(size: str, price: str) -> None:
    """Another ratio, another price, or a price that a transfer of shares explains better."""
    assert not may_be_share_split(shares("1000", "100"), shares(size, price), ())


@pytest.mark.parametrize(("size", "expected"), [("1501", True), ("1502", True), ("1500.5", False), ("1503", False)])
def test_cash_replaces_less_than_a_share(size: str, expected: bool) -> None:
    """1,001 shares, three for two: 1,501.5."""
    assert may_be_share_split(shares("1001", "100"), shares(size, "66.67"), ()) is expected


# In a history


def dated(seconds: float, seen: AccountSnapshot) -> AccountSnapshot:
    names = ("observed_at", "wallet_as_of", "positions_as_of", "fills_as_of", "flows_as_of")
    return replace(seen, **dict.fromkeys(names, at(seconds)))


def test_a_split_of_a_contract_loses_nothing_but_what_its_price_lost_besides() -> None:
    """Ten for one, and 9.5 instead of 10: 5%, and 11% at 8.9."""
    past = history()
    for second in range(60):
        if second < 5:
            seen = account(second, "100000", [held(1000, "100")])
        else:
            seen = account(second, "100000", [held(10_000, "9.5" if second < 20 else "8.9", "10")])
        observe(past, second, seen)
        if second == 19:
            assert fall(past) == pytest.approx(0.05)
    assert fall(past) == pytest.approx(0.11)


def test_a_split_of_shares_is_pending_and_then_counts_as_one() -> None:
    """Two for one without a row: 0 … 50,000 of 150,000, until it is known that nothing was lost and nothing came."""
    past = history()
    for second in range(60):
        observe(past, second, dated(second, shares("1000", "100") if second < 5 else shares("2000", "50")))
        if second == 10:
            assert drawdown_from_peak(past) == pytest.approx((0.0, 50 / 150))
    assert drawdown_from_peak(past) == (0.0, 0.0)
    assert not past.changes.unexplained


def test_a_transfer_of_a_quarter_more_shares_is_no_gain() -> None:
    """1,250 instead of 1,000 at 100, and 12% lost at 88: what came hides nothing."""
    past = history()
    for second in range(120):
        seen = shares("1000", "100") if second < 5 else shares("1250", "100" if second < 60 else "88")
        observe(past, second, dated(second, seen))
    assert fall(past) == pytest.approx(0.12)
    assert loss_from_start(past)[0] == pytest.approx(0.12)


def test_a_fifth_less_and_a_quarter_more_coins_is_a_deposit_that_refills_a_loss() -> None:
    """100 at 100 become 125 at 80: 2,000 came, and 2,000 of 12,000 are lost."""
    past = history()
    for second in range(10):
        observe(past, second, dated(second, coins("100", "100", "0") if second < 5 else coins("125", "80", "0")))
    assert fall(past) == pytest.approx(1 / 6)


def test_a_signalling_nan_as_an_entry_price_is_an_unknown_one() -> None:
    """It raises no error, and hides no fall."""
    past = history()
    for second, entry in enumerate(("100", "sNaN", "100", "sNaN", "100")):
        leg = replace(held(1000, "100" if second < 4 else "88"), entry_price=Decimal(entry))
        observe(past, second, account(second, "100000", [leg]))
    assert fall(past) == pytest.approx(0.12)
