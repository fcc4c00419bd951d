"""How long an order is valid, in each venue's terms and by the venue's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import AccountSpec, OrderLife, OrderRequest
from killswitch_ccxt import adapter
from killswitch_ccxt.dialect import Dialect

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SPOT = {"binance", "kraken"}
KEYS = {
    "okx": ("key", "secret", "passphrase"), "bitget": ("key", "secret", "passphrase"),
    "hyperliquid": ("wallet_address", "private_key"),
}  # fmt: skip


class Clock:
    def now(self) -> datetime:
        return NOON


def spec(exchange: str, **options: object) -> AccountSpec:
    market = "spot" if exchange in SPOT else "swap"
    keys = dict.fromkeys(KEYS.get(exchange, ("key", "secret")), "0x" + "1" * 64)
    currency = {"deribit": "BTC", "krakenfutures": "USD", "kraken": "USD", "hyperliquid": "USDC"}.get(exchange, "USDT")
    return AccountSpec("main", "ccxt", market, currency, None, {"clock": Clock(), **options}, keys, exchange)


def dialect(exchange: str, skew_ms: float | None = None) -> Dialect:
    venue: Any = adapter(spec(exchange))
    venue.client.skew_ms = skew_ms
    dialect: Dialect = venue.dialect
    return dialect


def order(valid_for: float | None) -> OrderRequest:
    return OrderRequest("ks1", "BTC/USDT", "sell", "long", Decimal(1), reduce_only=True, valid_for=valid_for)


@pytest.mark.parametrize(
    ("exchange", "life"),
    [
        ("binanceusdm", OrderLife(longest=60.0, always=10.0, names="open")),
        ("binancecoinm", OrderLife(longest=60.0, always=10.0, names="open")),
        ("binance", OrderLife(longest=60.0, always=10.0, names="open")),
        ("okx", OrderLife(longest=30.0, always=30.0, names="open")),
        ("kraken", OrderLife(shortest=5.0, longest=60.0, names="open")),
        ("deribit", OrderLife(longest=60.0, names="none")),
        ("hyperliquid", OrderLife(longest=60.0, always=172_800.0, names="none")),
        ("bybit", OrderLife(always=5.0, names="ever")),
        ("mexc", OrderLife(always=10.0, names="open")),
        ("bitget", OrderLife(always=30.0, names="open")),
        ("krakenfutures", OrderLife(names="ever")),
        ("gate", OrderLife(names="none")),
    ],
)
def test_each_dialect_states_how_late_an_order_may_arrive(exchange: str, life: OrderLife) -> None:
    """From the venues' documentation of requests and client order ids; the generic dialect states nothing."""
    assert adapter(spec(exchange)).traits.order_life == life


def test_a_receive_window_in_the_account_options_sets_how_long_requests_are_valid() -> None:
    """`options.ccxt.recvWindow` is sent with every request that sets no other."""
    assert adapter(spec("bybit", ccxt={"recvWindow": 20_000})).traits.order_life.always == 20.0


@pytest.mark.parametrize(
    ("skew_ms", "window"), [(None, 3000), (0.0, 3000), (1500.0, 4500), (-800.0, 2200), (-5000.0, 1), (90_000.0, 60_000)]
)
def test_a_receive_window_ends_with_the_order_whatever_our_clock_shows(skew_ms: float | None, window: int) -> None:
    """It counts from our timestamp: if our clock is behind the venue's it is longer, if ahead shorter."""
    assert dialect("binanceusdm", skew_ms).window_of(order(3.0), order(6.0)) == {"recvWindow": window}


def test_an_order_without_a_validity_sends_neither_window_nor_deadline() -> None:
    """It is valid as long as the client's own window."""
    binance = dialect("binanceusdm")
    assert (binance.window_of(order(None)), binance.deadline_of(order(None))) == ({}, None)


@pytest.mark.parametrize("skew_ms", [None, -2000.0, 7000.0])
def test_a_deadline_is_by_the_venues_clock(skew_ms: float | None) -> None:
    """Three seconds after the call, by the venue's clock."""
    deadline = NOON + timedelta(seconds=3, milliseconds=skew_ms or 0.0)
    assert dialect("okx", skew_ms).deadline_of(order(3.0), order(6.0)) == int(deadline.timestamp() * 1000)
