"""Whether withdrawals are suspended, by each venue's list of its coins, over the wire and by documented answers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from killswitch.model.parsing import UnreadableError
from killswitch.model.snapshot import AccountSnapshot, Withdrawals
from killswitch_ccxt.traits import Exchange
from killswitch_ccxt.venues.bitget.dialect import Bitget
from killswitch_ccxt.venues.bybit.dialect import Bybit
from killswitch_ccxt.venues.kraken.dialect import Kraken
from killswitch_ccxt.venues.okx.dialect import Okx
from tests.wire.binance.venue import BinanceWire
from tests.wire.bitget.venue import BitgetWire
from tests.wire.bybit.desk import Desk
from tests.wire.bybit.venue import BybitWire
from tests.wire.okx.desk import BTC
from tests.wire.okx.venue import OkxWire
from tests.wire.server import WireVenue

VENUES = [
    pytest.param("binanceusdm", BinanceWire, "/sapi/v1/capital/config/getall", id="binance"),
    pytest.param("bybit", BybitWire, "/v5/asset/coin/query-info", id="bybit"),
    pytest.param("okx", OkxWire, "/api/v5/asset/currencies", id="okx"),
    pytest.param("bitget", BitgetWire, "/api/v2/spot/public/coins", id="bitget"),
]


def hour_at(desk: Desk, suspended_after: int | None = None) -> list[AccountSnapshot]:
    """A snapshot each minute for an hour; from the minute `suspended_after` on no chain of USDT lets anything out."""

    async def main() -> list[AccountSnapshot]:
        found = []
        async with desk.open():
            for minute in range(60):
                desk.wire.is_suspended = suspended_after is not None and minute >= suspended_after
                found.append(await desk.venue.snapshot())
                await asyncio.sleep(60.0)
        return found

    return desk.time.run(main())


@pytest.mark.parametrize(("exchange", "server", "path"), VENUES)
def test_withdrawals_are_read_every_ten_minutes(exchange: str, server: type[WireVenue], path: str) -> None:
    """Unknown at the start, then known; one chain of two that is shut is no suspension, and two are, ten minutes later
    at most. In an hour it is read six or seven times, so that it costs a request in ten minutes."""
    desk = Desk(exchange, server, {(BTC, "long"): "5"})
    seen = hour_at(desk, suspended_after=30)
    assert [each.reason for each in seen] == [None] * 60
    states = [None if each.withdrawals is None else Withdrawals("USDT", True) in each.withdrawals for each in seen]
    assert states[0] is None
    assert states[2:30] == [False] * 28
    assert states[41:] == [True] * 19
    assert all(it.asset in ("USDT", "BTC") for each in seen for it in each.withdrawals or ())
    assert 6 <= sum(it.ask.path == path for it in desk.wire.seen) <= 7


@pytest.mark.parametrize(("exchange", "server", "path"), VENUES)
def test_a_key_that_may_not_read_them_costs_no_more(exchange: str, server: type[WireVenue], path: str) -> None:
    """After a failure it is asked again in ten minutes and not in five seconds; it is unknown, with the reason."""
    desk = Desk(exchange, server, {(BTC, "long"): "5"})

    def change(route: str, body: Any) -> Any:
        return {"nothing": "of it"} if route.endswith(path) else body

    desk.wire.change = change
    seen = hour_at(desk)
    assert {each.quality for each in seen} == {"ok"}
    assert {each.withdrawals for each in seen} == {None}
    assert "withdrawals: " in (seen[-1].reason or "")
    assert 6 <= sum(it.ask.path == path for it in desk.wire.seen) <= 7


def read(venue: type[Exchange], answer: Any, assets: Collection[str] = ("USDT", "BTC")) -> dict[str, bool]:
    """Asset → whether it is suspended, by the venue's answer; the names are those of the answer, and XXBT is BTC."""
    assert venue.coin_list is not None
    names: Mapping[str, str] = {"XXBT": "BTC"}
    found = venue.coin_list.read(answer, lambda name: names.get(name, name), assets)
    return {each.asset: each.suspended for each in found}


def chains(*flags: str) -> dict[str, Any]:
    """Bybit's answer about USDT with chains of these flags."""
    return {"result": {"rows": [{"coin": "USDT", "chains": [{"chainWithdraw": flag} for flag in flags]}]}}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("1",), {"USDT": False}),
        (("0",), {"USDT": True}),
        (("0", "0"), {"USDT": True}),
        (("0", "1"), {"USDT": False}),
        (("0", "?"), {}),  # it may be open
        (("1", "?"), {"USDT": False}),
        ((), {}),  # no chain is no suspension
    ],
)
def test_an_asset_is_suspended_if_all_of_its_chains_are(flags: tuple[str, ...], expected: dict[str, bool]) -> None:
    """A chain whose flag cannot be read, and a coin without chains, are unknown."""
    assert read(Bybit, chains(*flags)) == expected


def test_the_rows_of_each_venue() -> None:
    """In the form of their documents; other assets than those of the account are left out."""
    rows = [{"ccy": "USDT", "canWd": False}, {"ccy": "USDT", "canWd": True}, {"ccy": "BTC", "canWd": False}]
    assert read(Okx, {"code": "0", "data": [*rows, {"ccy": "ETH", "canWd": False}]}) == {"BTC": True, "USDT": False}
    coin = {"coin": "USDT", "chains": [{"withdrawable": "false"}]}
    assert read(Bitget, {"data": [coin]}) == {"USDT": True}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("enabled", {"BTC": False}),
        ("withdrawal_only", {"BTC": False}),
        ("deposit_only", {"BTC": True}),
        ("funding_temporarily_disabled", {"BTC": True}),
        ("another", {}),
    ],
)
def test_krakens_assets(status: str, expected: dict[str, bool]) -> None:
    """The statuses of Kraken's documents, under its own names of assets; an unknown one is unknown."""
    answer = {"error": [], "result": {"XXBT": {"aclass": "currency", "altname": "XBT", "status": status}}}
    assert read(Kraken, answer) == expected


@pytest.mark.parametrize("answer", [{}, {"result": None}, {"result": {"rows": {}}}, {"result": {"rows": ["?"]}}])
def test_an_answer_without_rows_is_unreadable(answer: Any) -> None:
    """It is no list in which nothing is suspended."""
    with pytest.raises(UnreadableError):
        read(Bybit, answer)
