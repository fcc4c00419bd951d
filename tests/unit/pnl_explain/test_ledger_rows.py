"""Rows of the ledger on arrival: how they are valued, whose clock dates them, and which numbers are invalid."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.magnitude import sound_fill
from killswitch.model.snapshot import AccountSnapshot, Balance, Fill, Flow, Mark, Rate
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.pnl_explain.ledger import FillRow, ahead_of_venue
from killswitch.signals.history.rows import HistoryState, StoredUnitValueRow, encode_row
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import drawdown_from_peak
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.unit_value import UnitValueTrack
from tests.worlds import account, after, fill, flow, position, rules

TERMS = EquityTerms(10 * MINUTE, 0.001, 60 * SECOND)
BTC = "BTC/USD:BTC"


class StoredHistory(History):
    """A history whose rows are stored as they are appended, as a runner does."""

    def __init__(self) -> None:
        super().__init__((15 * MINUTE, HOUR), HOUR, TERMS)
        self.stored: list[StoredUnitValueRow] = []

    def see(self, at: datetime, *accounts: AccountSnapshot) -> None:
        known = {("main", it.symbol): it for each in accounts for it in each.instruments or ()}
        self.observe(ScopeView(to_micros(at), True, accounts, known, None))
        if self.unknown is None:
            self.stored.append(encode_row(self.rows[-1]))

    def restarted(self) -> StoredHistory:
        """The same history in another process, restored from the store's text."""
        text = msgspec.json.Encoder(decimal_format="string").encode(self.state())
        again = StoredHistory()
        again.restore(msgspec.json.decode(text, type=HistoryState), self.stored)
        again.stored = self.stored
        return again

    @property
    def fallen(self) -> float:
        low, high = drawdown_from_peak(self)
        assert low == pytest.approx(high)
        return low


def collateral(dollars: str, bitcoin: str, *, price: str = "50000", **more: Any) -> AccountSnapshot:
    """USDT and BTC of 50,000 as collateral; as at venues, an asset with a zero balance is not listed."""
    amounts = {"USDT": Decimal(dollars), "BTC": Decimal(bitcoin)}
    prices = {"USDT": Decimal(1), "BTC": Decimal(price)}
    held = tuple(
        Balance(asset, amount, prices[asset], wallet=amount) for asset, amount in amounts.items() if amount
    )  # fmt: skip
    equity = sum((amount * prices[asset] for asset, amount in amounts.items()), Decimal(0))
    return account(str(equity), [position("L", "long", "0")], balances=held, unrealized=Decimal(0), **more)


OUT = flow("w", after(seconds=9), "-0.3", currency="BTC")


# What rows are worth


def test_a_full_withdrawal_of_a_collateral_coin_is_no_loss() -> None:
    """0.3 BTC of 50,000 leave beside 85,000 USDT, with their row: 15,000 of 100,000 were redeemed."""
    past = StoredHistory()
    past.see(after(), collateral("85000", "0.3"))
    past.see(after(seconds=10), collateral("85000", "0", flows=[OUT]))
    assert past.fallen == 0
    assert past.changes.all == []
    assert past.track.units == pytest.approx(0.85)


@pytest.mark.parametrize("restart", [False, True], ids=["one run", "restarted"])
def test_a_late_row_of_a_coin_no_longer_held_is_valued_at_its_last_price(restart: bool) -> None:
    """The row comes 12 s after the balance is gone, possibly after a restart."""
    past = StoredHistory()
    past.see(after(), collateral("85000", "0.3"))
    past.see(after(seconds=10), collateral("85000", "0"))
    past = past.restarted() if restart else past
    past.see(after(seconds=22), collateral("85000", "0", flows=[OUT]))
    assert past.fallen == 0
    assert past.changes.all == []


def test_a_coin_withdrawn_between_two_runs_is_valued_at_the_last_known_price() -> None:
    """The balance and its row change between two runs."""
    past = StoredHistory()
    past.see(after(), collateral("85000", "0.3"))
    past = past.restarted()
    past.see(after(seconds=60), collateral("85000", "0", flows=[flow("w", after(seconds=30), "-0.3", currency="BTC")]))
    assert past.fallen == 0
    assert past.changes.all == []


def test_a_partly_withdrawn_coin_is_valued_at_its_current_price() -> None:
    """0.2 of 0.3 BTC leave as the price goes to 40,000: 8,000 were redeemed, and 3,000 of 100,000 lost before."""
    past = StoredHistory()
    past.see(after(), collateral("85000", "0.3"))
    past.see(
        after(seconds=10),
        collateral("85000", "0.1", price="40000", flows=[flow("w", after(seconds=9), "-0.2", currency="BTC")]),
    )
    assert past.fallen == pytest.approx(0.03, abs=3e-3)
    assert past.changes.all == []


def test_a_spot_coin_listed_only_as_a_position_is_valued_by_its_mark() -> None:
    """0.3 BTC marked at 50,000 leave a spot account that lists only its money as a balance."""

    def spot(coins: bool, **more: Any) -> AccountSnapshot:
        held = (
            [position("BTC/USDT", "long", "0", contracts="0.3", mark_price="50000", notional="15000")] if coins else []
        )
        money = (Balance("USDT", Decimal(85_000), Decimal(1)),)
        return account("100000" if coins else "85000", held, market="spot", balances=money, **more)

    past = StoredHistory()
    past.see(after(), spot(coins=True))
    past.see(after(seconds=10), spot(coins=False, flows=[OUT]))
    assert past.fallen == 0
    assert past.changes.all == []


@pytest.mark.parametrize(
    "price", [{"marks": (Mark("BTC/USDT:USDT", Decimal(50_000)),)}, {"rates": (Rate("BTC", Decimal("0.00002")),)}],
    ids=["a mark", "a rate"],
)  # fmt: skip
@pytest.mark.parametrize("restart", [False, True], ids=["one run", "restarted"])
def test_a_row_without_any_price_waits_for_one(price: dict[str, Any], restart: bool) -> None:
    """An account without listed balances falls by 15,000 with a row of 0.3 BTC, whose price is known 20 s later."""
    past = StoredHistory()
    past.see(after(), account("100000", [position("L", "long", "0")]))
    past.see(after(seconds=10), account("85000", [position("L", "long", "0")], flows=[OUT]))
    assert len(past.changes.all) == 1
    past = past.restarted() if restart else past
    past.see(after(seconds=30), account("85000", [position("L", "long", "0")], **price))
    assert past.changes.all == []
    assert past.fallen == 0


def test_a_row_without_a_price_expires_after_a_minute_like_any_other() -> None:
    """It would otherwise explain any change of the same size, years later."""
    past = StoredHistory()
    past.see(after(), account("100000"))
    past.see(after(seconds=10), account("100000", flows=[OUT]))
    past.see(after(seconds=70), account("100000"))
    assert len(past.ledger.unpriced) == 1
    past.see(after(seconds=71), account("100000"))
    assert past.ledger.unpriced == []
    assert past.ledger.rows == []


# Whose clock dates rows


def dated(equity: str, at: datetime, venue: datetime, *rows: Flow, **more: Any) -> AccountSnapshot:
    """Observed `at` by our clock, and dated `venue` by the venue's."""
    held = (Balance("USDT", Decimal(equity), Decimal(1), wallet=Decimal(equity)),)
    return account(
        equity, [position("L", "long", "0")], flows=rows, balances=held, unrealized=Decimal(0),
        **({"observed_at": at, "wallet_as_of": venue, "positions_as_of": venue} | more),
    )  # fmt: skip


@pytest.mark.parametrize("restart", [False, True], ids=["one run", "restarted"])
def test_a_clock_that_was_an_hour_fast_at_the_start_hides_no_row(restart: bool) -> None:
    """Ticks continue an hour ahead once the clock is corrected; 12,000 leave 10 s later by the venue's clock."""
    past, ahead = StoredHistory(), timedelta(hours=1)
    past.see(after(seconds=0) + ahead, dated("100000", after(seconds=0) + ahead, after(seconds=0)))
    past.see(after(seconds=5) + ahead, dated("100000", after(seconds=5), after(seconds=5)))
    past = past.restarted() if restart else past
    row = flow("w", after(seconds=10), "-12000")
    past.see(after(seconds=11) + ahead, dated("88000", after(seconds=11), after(seconds=11), row))
    assert past.fallen == 0
    assert past.changes.all == []


def test_a_first_answer_dated_by_our_fast_clock_hides_rows_only_until_the_next() -> None:
    """The venue's clock is unknown when an account joins; two seconds later it is known."""
    past, ahead = StoredHistory(), timedelta(hours=1)
    past.see(after() + ahead, dated("100000", after() + ahead, after() + ahead))
    past.see(after(seconds=2) + ahead, dated("100000", after(seconds=2) + ahead, after(seconds=2)))
    row = flow("w", after(seconds=10), "-12000")
    past.see(after(seconds=11) + ahead, dated("88000", after(seconds=11) + ahead, after(seconds=11), row))
    assert past.fallen == 0
    assert past.changes.all == []


def test_a_row_from_before_an_account_joined_is_in_its_equity_for_any_venue_clock() -> None:
    """The venue's clock is 20 s ahead: what it dates 10 s after our start had happened 10 s before it."""
    past, skew = StoredHistory(), timedelta(seconds=20)
    past.see(after(), dated("100000", after(), after() + skew))
    row = flow("d", after(seconds=-10) + skew, "50000", "deposit")
    past.see(after(seconds=5), dated("100000", after(seconds=5), after(seconds=5) + skew, row))
    assert past.ledger.rows == []
    past.see(after(seconds=6), dated("150000", after(seconds=6), after(seconds=6) + skew))
    assert [change.amount for change in past.changes.all] == [50_000]


@pytest.mark.parametrize("skew", [-3600, -40, 20, 3600])
def test_a_row_explains_a_part_of_a_simultaneous_change_by_any_clock(skew: int) -> None:
    """12,000 leave with a row, and 1,000 with none, between two snapshots of a second."""
    past, venue = StoredHistory(), timedelta(seconds=skew)
    past.see(after(), dated("100000", after(), after() + venue))
    row = flow("w", after(seconds=0.5) + venue, "-12000")
    past.see(after(seconds=1), dated("87000", after(seconds=1), after(seconds=1) + venue, row))
    assert [change.amount for change in past.changes.all] == [-1_000]


@pytest.mark.parametrize(
    ("venue", "observed", "as_of", "expected"),
    [(0, 0, 0, 0), (4, 0, 0, 0), (6, 0, 0, -6), (0, 29, 30, 0), (0, 40, 41, 40), (3600, 0, 1, -3600),
     (0, 0, 59, 0), (0, 0, 3600, 3600), (20, 0, 3600, 3580)],
)  # fmt: skip
def test_clock_skew_is_distinguished_from_slow_answers(venue: int, observed: int, as_of: int, expected: int) -> None:
    """An answer may take half a minute, and be evaluated a minute later; none precedes its request.

    In seconds; `expected`: how far ticks are ahead of the venue's clock."""
    seen = dated("1", after(seconds=observed), after(seconds=venue))
    assert ahead_of_venue(seen, to_micros(after(seconds=as_of))) == expected * SECOND


def test_without_dates_clocks_are_assumed_to_agree() -> None:
    """Nothing shows a difference; numbers that are not fresh are of another time."""
    now = to_micros(after(hours=1))
    assert ahead_of_venue(account("1", observed_at=after()), now) == 0
    assert ahead_of_venue(account("1", wallet_as_of=after()), now) == 0
    assert ahead_of_venue(dated("1", after(), after(), quality="stale"), now) == 0


# Numbers that are none


@pytest.mark.parametrize("odd", ["NaN", "sNaN", "Infinity", "-Infinity", "1e400000", "1e30"])
def test_a_non_finite_fee_is_unknown(odd: str) -> None:
    """100 of 1,000 are sold at the mark, and a real loss of a fifth follows, also after a restart."""
    past = StoredHistory()
    held = {"contracts": "1000", "mark_price": "100", "notional": "100000"}
    past.see(after(), account("100000", [position("L", "long", "0", **held)], instruments=[rules("L")]))
    sold = fill("1", after(seconds=9), "L", "sell", "100", "100", fee=Decimal(odd), fee_currency="USDT")
    less = {"contracts": "900", "mark_price": "100", "notional": "90000"}
    past.see(
        after(seconds=10),
        account("100000", [position("L", "long", "0", **less)], fills=[sold], instruments=[rules("L")]),
    )
    assert past.fallen == pytest.approx(0)
    past = past.restarted()
    fallen = {"contracts": "900", "mark_price": "80", "notional": "72000"}
    past.see(after(seconds=20), account("82000", [position("L", "long", "-18000", **fallen)], instruments=[rules("L")]))
    assert past.fallen == pytest.approx(0.18)


@pytest.mark.parametrize("known", [True, False], ids=["rules", "no rules"])
def test_an_inverse_contract_that_is_delivered_at_zero_has_no_price(known: bool) -> None:
    """One over zero is no number. The profit of the delivery is unknown, and the tick continues."""
    held = {"contracts": "1000", "mark_price": "100", "notional": "10"}
    contract = [rules(BTC, inverse=True)] if known else []
    past = StoredHistory()
    past.see(after(), account("100000", [position(BTC, "long", "0", **held)], instruments=contract))
    delivered = fill("1", after(seconds=9), BTC, "sell", "1000", "0", cause="delivery")
    past.see(after(seconds=10), account("100000", [], fills=[delivered], instruments=contract))
    assert past.ledger.fills == []
    assert past.ledger.unknown == {("main", BTC, "long"): to_micros(after(seconds=10))}
    assert past.fallen == 0


def test_a_fill_in_an_untrusted_answer_is_counted_and_raises_nothing() -> None:
    """A spot account reports an infinite amount of a coin, and a fill with a fee in coins; the next answer is sound."""
    money = (Balance("USDT", Decimal(50_000), Decimal(1)),)

    def spot(equity: str, amount: str, *fills: Fill) -> AccountSnapshot:
        held = [position("BTC/USDT", "long", "0", contracts=amount, mark_price="50000")]
        return account(equity, held, market="spot", balances=money, fills=fills)

    past = StoredHistory()
    past.see(after(), spot("100000", "1"))
    bought = fill("1", after(seconds=9), "BTC/USDT", "buy", "0.1", "50000", fee=Decimal("0.001"), fee_currency="BTC")
    bad = spot("100000", "Infinity", bought)
    twice = replace(bad, positions=(*(bad.positions or ()), *(spot("1", "-Infinity").positions or ())))
    past.see(after(seconds=10), twice)
    assert past.unknown is not None
    assert past.ledger.fills == [FillRow("main", bought, Decimal(-50))]
    past.see(after(seconds=20), spot("100000", "1.1"))
    assert past.unknown is None


@pytest.mark.parametrize(
    ("symbol", "inverse", "amount", "price", "expected"),
    [
        ("L", False, "1", "0", True), ("L", True, "1", "0", False), ("L", True, "1", "-1", False),
        ("L", True, "1", "1", True), (BTC, None, "1", "0", False), ("BTC/USDT:USDT", None, "1", "0", True),
        ("L", None, "1", "0", True), ("BTC/USD:BTC-261225", None, "1", "0", False), ("L", False, "-1", "1", False),
        ("L", False, "NaN", "1", False), ("L", False, "1", "sNaN", False), ("L", False, "Infinity", "1", False),
        ("L", False, "1", "1e30", False), ("L", False, "1e-30", "1", False),
    ],
)  # fmt: skip
def test_a_fill_counts_if_its_size_and_price_are_possible(
    symbol: str, inverse: bool | None, amount: str, price: str, expected: bool
) -> None:
    """An option that ends worthless is delivered at 0; a contract that is settled in its coin has no such price."""
    known = None if inverse is None else rules(symbol, inverse=inverse)
    found = sound_fill(fill("1", after(), symbol, "buy", amount, price), known)
    assert (found is not None) == expected


def test_invalid_optional_fields_of_a_valid_fill_are_unknown() -> None:
    """Its size and price still count."""
    odd = fill("1", after(), "L", "buy", "1", "2", fee=Decimal("NaN"), realized_pnl=Decimal("1e40"))
    assert sound_fill(odd, None) == fill("1", after(), "L", "buy", "1", "2")


@pytest.mark.parametrize("odd", [float("inf"), float("-inf"), float("nan")])
def test_units_stay_finite_for_any_issue(odd: float) -> None:
    """What is stored must be readable again."""
    track = UnitValueTrack([])
    track.open(0, 100.0)
    track.issue(odd, 100.0)
    track.correct(0, odd, 100.0)
    track.revert_correction(0, odd, 100.0, 100.0, 100.0)
    assert (track.units, track.value) == (1.0, 100.0)
