"""Holdings without a price: what remains known of a spot account, and when its equity is known nevertheless."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.snapshot import Position
from killswitch.model.venue import AccountSpec
from killswitch_ccxt import adapter
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.holdings import ValuationInputs, holdings
from killswitch_ccxt.instruments import Quote
from killswitch_ccxt.unpriced import LastPrices
from tests.unit.ccxt.binance.test_binance import SPOT_QUIET, snapshot_of

D = Decimal
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HELD = {"USDT": "5000", "BTC": "0.1", "PUMP": "400"}
"""0.1 BTC at 50,000 and 5,000 USDT are 10,000: 2% of it are 200."""


class Desk:
    """A spot account in USDT whose venue lists BTC and PUMP, and their prices."""

    def __init__(self, **options: Any) -> None:
        self.spec = AccountSpec("main", "ccxt", "spot", "USDT", None, options, {}, exchange="binance")
        self.prices = {"BTC/USDT": "50000", "PUMP/USDT": "0.25"}
        self.rules: dict[str, Mapping[str, Any]] = {"BTC/USDT": {}, "PUMP/USDT": {}}
        self._last = LastPrices()

    def read(self, at: datetime = NOON, **held: str) -> tuple[AccountEquity, dict[str, Position]]:
        async def prices(symbols: Any) -> Mapping[str, Quote]:
            return {it: Quote(last=D(self.prices[it])) for it in symbols if it in self.prices}

        balance = {"total": held or HELD}
        market = ValuationInputs(self.rules, prices, self._last, at)
        equity, positions = asyncio.run(holdings(balance, self.spec, market))
        return equity, {it.symbol: it for it in positions}

    def halt(self, symbol: str = "PUMP/USDT") -> None:
        del self.prices[symbol]


def test_a_holding_that_never_had_a_price_leaves_other_positions_known() -> None:
    """400 airdropped tokens: the bitcoin is a position with a price, which can be closed; the equity is unknown."""
    desk = Desk()
    desk.halt()
    account, positions = desk.read()
    assert (account.equity, account.unrealized) == (None, None)
    assert (positions["BTC/USDT"].contracts, positions["BTC/USDT"].notional) == (D("0.1"), 5000)
    assert (positions["PUMP/USDT"].contracts, positions["PUMP/USDT"].mark_price) == (400, None)
    assert "no price for PUMP in USDT, so the account's equity is unknown" in str(account.why)


def test_an_airdrop_without_a_market_is_no_position() -> None:
    """It cannot be sold, so no close waits for it; it appears in the balances."""
    desk = Desk()
    desk.halt()
    del desk.rules["PUMP/USDT"]
    account, positions = desk.read()
    assert (list(positions), account.equity) == (["BTC/USDT"], None)
    assert [(it.asset, it.price) for it in account.balances or ()] == [("USDT", 1), ("BTC", 50_000), ("PUMP", None)]


@pytest.mark.parametrize(("bound", "equity"), [("200", 10_000), ("200.01", None)])
def test_a_holding_with_a_documented_bound_up_to_two_per_cent_counts_as_zero(bound: str, equity: int | None) -> None:
    """200 of 10,000 are 2%. When it gets a price it rises from zero, which is no loss."""
    desk = Desk(unpriced={"PUMP": bound})
    desk.halt()
    account, positions = desk.read()
    assert account.equity == equity
    assert "PUMP" in str(account.why)
    assert positions["PUMP/USDT"].mark_price is None


def test_a_holding_in_a_halted_market_counts_at_its_last_price() -> None:
    """400 at 0.25 are 100, 0.99% of 10,100: counting it as zero would show a fall; the price keeps its time."""
    desk = Desk()
    assert desk.read()[0].equity == 10_100
    desk.halt()
    account, positions = desk.read(NOON + timedelta(hours=47))
    pump = positions["PUMP/USDT"]
    assert (account.equity, pump.mark_price, pump.notional, pump.mark_at) == (10_100, D("0.25"), 100, NOON)
    assert "PUMP, counted at its price 0.25 USDT of 2026-05-01 12:00 UTC" in str(account.why)


def test_a_last_price_is_used_for_two_days() -> None:
    """After that the equity is unknown; the position remains."""
    desk = Desk()
    desk.read()
    desk.halt()
    account, positions = desk.read(NOON + timedelta(hours=49))
    assert (account.equity, positions["PUMP/USDT"].contracts, positions["PUMP/USDT"].mark_price) == (None, 400, None)


def test_a_large_holding_that_loses_its_price_makes_the_equity_unknown_and_remains_a_position() -> None:
    """The bitcoins are half of the equity. Even without their market in the rules they have not been sold."""
    desk = Desk()
    desk.read()
    desk.halt("BTC/USDT")
    del desk.rules["BTC/USDT"]
    account, positions = desk.read()
    assert (account.equity, positions["BTC/USDT"].contracts, positions["BTC/USDT"].mark_price) == (None, D("0.1"), None)


def test_several_holdings_without_a_price_are_bounded_together() -> None:
    """150 and 150 together are 3%, though each is 1.5%."""
    desk = Desk(unpriced={"PUMP": 150, "DUST": 150})
    desk.halt()
    assert desk.read(**HELD, DUST="1")[0].equity is None


def test_a_documented_bound_does_not_apply_to_a_debt_without_a_price() -> None:
    """Buying it back may cost more than the documented bound."""
    desk = Desk(unpriced={"PUMP": 1})
    desk.halt()
    assert desk.read(USDT="10000", PUMP="-400")[0].equity is None


@pytest.mark.parametrize("option", ["PUMP", {"PUMP": "nonsense"}, {"PUMP": -1}, {"PUMP": None}, {"PUMP": "NaN"}])
def test_an_option_of_another_form_is_rejected_with_an_example(option: object) -> None:
    """Before any request to the venue."""
    spec = AccountSpec("main", "ccxt", "spot", "USDT", None, {"unpriced": option}, {}, exchange="binance")
    with pytest.raises(ValueError, match=r"unpriced: \{PUMP: 250\}"):
        adapter(spec)


def test_an_airdrop_at_binance_leaves_the_account_known() -> None:
    """2 BTC and a token that is missing from the venue's rules."""
    balances = [{"asset": "BTC", "free": "2", "locked": "0"}, {"asset": "PUMP", "free": "400", "locked": "0"}]
    answers = {**SPOT_QUIET, "/api/v3/account": {"balances": balances}}
    seen = snapshot_of(answers, exchange="binance", market="spot")
    assert (seen.quality, seen.equity) == ("ok", None)
    assert [(it.symbol, it.contracts, it.notional) for it in seen.positions or ()] == [("BTC/USDT", 2, 100_000)]
    assert "PUMP" in str(seen.reason)
    bounded = snapshot_of(answers, exchange="binance", market="spot", options={"unpriced": {"PUMP": 300}})
    assert (bounded.equity, "worth at most 300 USDT" in str(bounded.reason)) == (100_000, True)
