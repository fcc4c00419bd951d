"""The fees of a close at Binance, over the wire: no answer about an order contains them, its trades do."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.model.venue import AccountSpec, VenueDescription
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.venues.binance.coinm import BinanceCoinm
from killswitch_ccxt.venues.binance.spot import BinanceSpot
from killswitch_ccxt.venues.binance.usdm import BinanceUsdm
from tests.faults.mishaps import Rule
from tests.faults.scene import Scene, long
from tests.wire.adapter_wire import closing_over
from tests.wire.binance.venue import BinanceWire

BTC, ETH = long("BTC", "ETH")
TRADES = "GET /fapi/v1/userTrades"


def closed_scene(*rules: Rule, fees_in: tuple[str, Decimal] | None = None) -> Scene:
    """A scene with 10 and 4 contracts at 100, closed."""
    with closing_over("binanceusdm"):
        scene = Scene({BTC: 10, ETH: 4}, *rules, traits=VenueDescription(fees_by_fills=True))

        def set_fee_asset() -> None:
            assert isinstance(scene.wire.server, BinanceWire)
            scene.wire.server.fees_in = fees_in

        scene.decide({BTC: 0, ETH: 0})
        scene.at(0.9, set_fee_asset)
        assert scene.play() == {"d1": "flat"}
    return scene


def test_the_commission_of_each_order_is_read_after_the_close() -> None:
    """0.05% of 1000 and of 400; by then every request of the close has been answered."""
    scene = closed_scene()
    assert [it.data["fee"] for it in scene.entries("filled")] == [None, None]
    charges = {it.symbol: it.data["fee"] for it in scene.entries("charged")}
    assert charges == {"BTC": "0.5000", "ETH": "0.2000"}
    calls = [it.call for it in scene.wire.travelled]
    assert calls.index("fills") > max(at for at, call in enumerate(calls) if call in ("submit", "snapshot", "cancel"))
    assert isinstance(scene.wire.server, BinanceWire)
    trades = [it.ask.params for it in scene.wire.server.seen if it.ask.route == TRADES]
    assert sum("orderId" in it for it in trades) == 2


def test_a_commission_in_bnb_is_reported_in_bnb() -> None:
    """At 500 for one BNB, 0.5 and 0.2 USDT are 0.001 and 0.0004 BNB."""
    scene = closed_scene(fees_in=("BNB", Decimal(500)))
    charges = {it.symbol: (it.data["fee"], it.data["text"]) for it in scene.entries("charged")}
    assert charges == {"BTC": (None, "charged 0.001 BNB"), "ETH": (None, "charged 0.0004 BNB")}


def test_unreadable_trades_leave_the_fee_unknown_and_the_close_unchanged() -> None:
    """The venue fails every query about one of the two."""
    scene = closed_scene(Rule("fills", "down", "BTC", times=99))
    charges = {it.symbol: (it.data["fee"], (it.data["text"] or "")[:30]) for it in scene.entries("charged")}
    assert charges == {"BTC": (None, "the fee was queried 6 times: b"), "ETH": ("0.2000", "")}


@pytest.mark.parametrize("dialect", [BinanceUsdm, BinanceCoinm, BinanceSpot])
def test_all_three_systems_declare_fees_by_fills_and_the_cost_of_the_query(dialect: type[Dialect]) -> None:
    """The runner then queries the fees, and counts the query."""
    market = "spot" if dialect is BinanceSpot else "swap"
    traits = dialect.traits_for(AccountSpec("main", "ccxt", market, "USDT", None, {}, {}, exchange=dialect.exchange))
    assert traits.fees_by_fills
    assert [it.units for it in traits.costs if it.call == "fills" and it.units] != []
