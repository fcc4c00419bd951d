"""Sizes from an account's own numbers: what is read, its age, and what makes a size unknown."""

from __future__ import annotations

import json
from decimal import Decimal
from math import sqrt
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Liquidity, WatchedPrice
from killswitch.operations.book_sizing import (
    BookKelly,
    BookMarket,
    BookRequest,
    RiskParity,
    decode_request,
    sizes_of,
)
from killswitch.operations.sizing import (
    Consensus,
    FixedNotional,
    Kelly,
    SizeRequest,
    VolatilityTarget,
    size_of,
)
from killswitch.risk.sizing.answer import Size, SizingError
from tests.worlds import account, after, position, rules

D = Decimal
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
NOW = after(seconds=40)


def seen(**more: Any) -> AccountSnapshot:
    """100,000 USDT; a BTC position marked at 60,000 for 10,000, an ETH position of 30,000; read 30 s ago."""
    held = [
        position(BTC, "long", contracts="0.2", mark_price="60000", notional="12000"),
        position(ETH, "short", contracts="10", mark_price="3000", notional="30000"),
    ]
    found = account("100000", held, instruments=[rules(BTC), rules(ETH)], observed_at=after(seconds=10))
    return replace(found, marked_at=after(seconds=5), **more)


def of(request: SizeRequest, snapshot: AccountSnapshot | None) -> Size:
    return size_of(request, snapshot, NOW)


HALF = SizeRequest(BTC, FixedNotional(D("0.5")), D(3), "main")


def test_what_is_not_given_is_read_from_the_account_with_its_age() -> None:
    """50,000 ÷ 60,000 = 0.833 BTC; equity was read 30 s ago, the mark is of 35 s ago, the others are 30,000."""
    found = of(HALF, seen())
    assert found.contracts == D("0.833")
    read = {each.name: (each.value, each.source, each.age) for each in found.inputs}
    assert read["equity"] == (D(100000), "account main", 30.0)
    assert read["price"] == (D(60000), "account main", 35.0)
    assert read["other positions"] == (D(30000), "account main", 30.0)
    assert read["fraction of equity"] == (D("0.5"), "given", None)


def test_a_given_number_replaces_the_accounts_own() -> None:
    """50,000 of 100,000 at 50,000 instead of the mark: 1 BTC."""
    found = of(replace(HALF, price=D(50000), step=D("0.5")), seen())
    assert found.contracts == 1


def test_the_cap_counts_positions_in_other_symbols_and_not_the_one_that_is_sized() -> None:
    """Cap 1 leaves 100,000 − 30,000 = 70,000: 1.166 BTC, of which 0.2 are held."""
    found = of(replace(HALF, size_by=FixedNotional(D(2)), leverage_cap=D(1)), seen())
    assert (found.contracts, found.bound_by) == (D("1.166"), "leverage cap")


@pytest.mark.parametrize(
    ("snapshot", "why"),
    [
        (seen(quality="stale", reason="no answer for 9 s"), "account main is stale: no answer for 9 s"),
        (seen(equity=None), "account main has no equity"),
        (seen(positions=None), "account main neither holds nor watches BTC/USDT:USDT"),
        (seen(positions=(position(BTC, "long", mark_price="1"), position("X", "long"))), "has no other positions"),
        (seen(instruments=None), "the contract size of BTC/USDT:USDT is unknown"),
        (seen(currency="EUR"), "BTC/USDT:USDT settles in USDT, and account main counts in EUR"),
    ],
)
def test_what_the_account_does_not_show_makes_the_size_unknown(snapshot: AccountSnapshot, why: str) -> None:
    """Never the last known number, and never zero for what is not known."""
    found = of(HALF, snapshot)
    assert found.contracts is None
    assert why in (found.unknown or "")


def test_a_symbol_on_the_watch_list_has_a_price() -> None:
    """It need not be held."""
    watched = (WatchedPrice("SOL/USDT:USDT", mark_price=D(200), at=after(seconds=38)),)
    at = seen(watched=watched, instruments=(rules("SOL/USDT:USDT"),), positions=())
    found = of(replace(HALF, symbol="SOL/USDT:USDT"), at)
    assert (found.contracts, [each.age for each in found.inputs if each.name == "price"]) == (D(250), [2.0])


def test_the_venues_daily_volatility_is_scaled_to_a_year() -> None:
    """2% a day is 2% × √365 = 38.2% a year; a target of 20% is 0.5234 of equity: 0.872 BTC."""
    at = seen(liquidity=(Liquidity(BTC, volatility=0.02),))
    found = of(replace(HALF, size_by=VolatilityTarget(D("0.2"), D("0.1"))), at)
    assert found.contracts == int(0.2 / (0.02 * sqrt(365)) * 100_000 / 60_000 * 1000) * D("0.001")
    assert of(replace(HALF, size_by=VolatilityTarget(D("0.2"), D("0.1"))), seen()).unknown == (
        "account main has no volatility"
    )


def test_an_option_has_no_size() -> None:
    """Its price is a premium."""
    found = of(replace(HALF, symbol="BTC/USD:BTC-260327-60000-C", price=D(100), equity=D(1000)), None)
    assert "is an option" in (found.unknown or "")


def test_a_consensus_of_an_edge_and_no_edge_is_zero() -> None:
    """The record loses: a veto, whatever the volatility target says."""
    both = Consensus((FixedNotional(D(1)), Kelly(D(1), 40, 60, D("0.02"), D("0.02"))), 1)
    found = of(replace(HALF, size_by=both), seen())
    assert (found.contracts, found.bound_by) == (0, "no edge by kelly, which is a veto")


# Books


BOOK = BookRequest(
    (
        BookMarket(BTC, "long", D("0.6"), mean=D("0.2"), price=D(60000), contract_size=D(1), step=D("0.001")),
        BookMarket(ETH, "long", D("1.2"), mean=D("0.3"), price=D(3000), contract_size=D(1), step=D("0.01")),
    ),
    RiskParity(D("0.3")), D(3), ((BTC, ETH, D(0)),), equity=D(100000),
)  # fmt: skip


def test_risk_parity_brings_the_book_to_its_target() -> None:
    """σ 60% and 120%, ρ 0: weights 2/3 and 1/3, σ of the book √2 × 0.4 = 0.5657, factor 0.3 ÷ 0.5657 = 0.5303."""
    btc, eth = sizes_of(BOOK, None, NOW)
    assert btc.contracts == D("0.589")  # 100,000 × 0.5303 × 2/3 ÷ 60,000 = 0.5892
    assert eth.contracts == D("5.89")


def test_a_book_is_scaled_down_together_at_its_cap() -> None:
    """Gross 0.53 under a cap of 0.3: 20,000 and 10,000."""
    sizes = sizes_of(replace(BOOK, leverage_cap=D("0.3")), None, NOW)
    assert [(each.contracts, each.bound_by) for each in sizes] == [
        (D("0.333"), "leverage cap"), (D("3.33"), "leverage cap"),
    ]  # fmt: skip


def test_positions_outside_of_the_book_use_up_its_cap() -> None:
    """A cap of 0.5 less 30,000 of SOL is 0.2: 13,333 of BTC. 60,000 leave nothing."""
    for others, size in ((30_000, D("0.222")), (60_000, D(0))):
        request = replace(BOOK, leverage_cap=D("0.5"), others=D(others))
        assert sizes_of(request, None, NOW)[0].contracts == size


def test_a_hedged_pair_that_cancels_is_unknown() -> None:
    """Long and short of markets with ρ 1."""
    short = replace(BOOK.markets[1], side="short")
    request = replace(BOOK, markets=(BOOK.markets[0], short), correlations=((BTC, ETH, D(1)),))
    assert [each.contracts for each in sizes_of(request, None, NOW)] == [None, None]


def test_kelly_of_a_book_is_its_excess_over_variance() -> None:
    """ρ 0: (0.2 − 0.04) ÷ 0.36 = 0.444 and (0.3 − 0.04) ÷ 1.44 = 0.18; half of both."""
    btc, eth = sizes_of(replace(BOOK, size_by=BookKelly(D("0.5"), D("0.04"))), None, NOW)
    assert (btc.contracts, eth.contracts) == (D("0.370"), D("3.00"))


def test_a_market_against_its_side_gets_nothing() -> None:
    """Short of a market that is expected to rise."""
    short = replace(BOOK.markets[1], side="short")
    sizes = sizes_of(replace(BOOK, markets=(BOOK.markets[0], short), size_by=BookKelly(D(1), D(0))), None, NOW)
    assert [(each.contracts, each.bound_by) for each in sizes] == [
        (D("0.925"), "fraction of Kelly"), (D(0), "no edge"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"correlations": ()}, "the correlation of BTC/USDT:USDT and ETH/USDT:USDT is missing"),
        ({"correlations": ((BTC, ETH, D(0)), (ETH, BTC, D(1)))}, "there twice"),
        ({"correlations": ((BTC, ETH, D(2)),)}, "correlations are from -1 to 1"),
        ({"markets": ()}, "at least one market"),
        ({"markets": (BOOK.markets[0], BOOK.markets[0])}, "each symbol once"),
        ({"leverage_cap": D(0)}, "leverage cap"),
    ],
)
def test_a_book_that_contradicts_itself_is_refused(change: dict[str, Any], what: str) -> None:
    """A missing correlation is not zero."""
    with pytest.raises(SizingError, match=what):
        sizes_of(replace(BOOK, **change), None, NOW)


# The request as JSON


def test_a_request_is_read_from_json_with_numbers_or_decimal_texts() -> None:
    """Both forms: a market, and a book."""
    body = {"symbol": BTC, "leverage_cap": 3, "size_by": {"method": "fixed-notional", "fraction": "0.5"}}
    assert decode_request(json.dumps(body).encode()) == SizeRequest(BTC, FixedNotional(D("0.5")), D(3))
    book = {
        "markets": [{"symbol": BTC, "side": "long", "volatility": "0.6"}], "leverage_cap": "3",
        "size_by": {"method": "risk-parity", "target": 0.3},
    }  # fmt: skip
    assert isinstance(decode_request(json.dumps(book).encode()), BookRequest)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"\xff", b'{"symbol": "A"}', b"[" * 100_000,
        b'{"symbol":"A","leverage_cap":3,"size_by":{"method":"martingale"}}',
        b'{"symbol":"A","leverage_cap":3,"size_by":{"method":"fixed-notional","fraction":1},"levrage_cap":1}',
        b'{"symbol":"A","leverage_cap":"three","size_by":{"method":"fixed-notional","fraction":1}}',
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(body: bytes) -> None:
    """An unknown method, an unknown key, a word for a number, half a text."""
    with pytest.raises(SizingError, match="the request cannot be read"):
        decode_request(body)


@pytest.mark.parametrize("number", ["1e40", "NaN", "-Infinity", "1e999999"])
def test_a_number_that_cannot_be_computed_with_is_refused(number: str) -> None:
    """In JSON it arrives as a text."""
    body = {"symbol": BTC, "leverage_cap": number, "size_by": {"method": "fixed-notional", "fraction": number}}
    with pytest.raises(SizingError):
        sizes_of(decode_request(json.dumps(body).encode()), None, NOW)
