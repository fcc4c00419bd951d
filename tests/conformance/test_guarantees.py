"""Every adapter of the house, held against the guarantees that any adapter must keep."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from killswitch.conformance import AdapterGuarantees, Stand
from killswitch.conformance.stand import Offer
from killswitch_alpaca import adapter as alpaca
from killswitch_ccxt import adapter as ccxt
from tests.conformance import ledgers
from tests.conformance.stands import PaperStand, Wired, WireStand
from tests.wire.alpaca import AlpacaWire
from tests.wire.binance import BinanceWire
from tests.wire.bitget import BitgetWire
from tests.wire.bybit import BybitWire
from tests.wire.krakenfutures import KrakenFuturesWire
from tests.wire.mexc import MexcWire
from tests.wire.okx import OkxWire
from tests.wire.server import KEY, PASSPHRASE, SECRET

KEYS = {"key": KEY, "secret": SECRET}
EVERYTHING: frozenset[Offer] = frozenset({"faults", "hedge", "stops", "flows", "minimum", "maximum"})
USDT = ("BTC/USDT:USDT", "ETH/USDT:USDT")


class TestPaperInProcess(AdapterGuarantees):
    """The paper venue without a network between."""

    @pytest.fixture
    def stand(self) -> Stand:
        return PaperStand(http=False)


class TestPaperOverHttp(AdapterGuarantees):
    """The paper venue in another process, as far as the wire is concerned."""

    @pytest.fixture
    def stand(self) -> Stand:
        return PaperStand(http=True)


class TestBinance(AdapterGuarantees):
    """ccxt's binanceusdm against a server that speaks its wire format."""

    @pytest.fixture
    def stand(self) -> Stand:
        return WireStand(
            Wired(BinanceWire, ccxt, "ccxt", "binanceusdm", USDT, "USDT", KEYS, EVERYTHING, flow=ledgers.binance)
        )


class TestBybit(AdapterGuarantees):
    """ccxt's bybit against a server that speaks its wire format."""

    @pytest.fixture
    def stand(self) -> Stand:
        return WireStand(Wired(BybitWire, ccxt, "ccxt", "bybit", USDT, "USDT", KEYS, EVERYTHING, flow=ledgers.bybit))


class TestBitget(AdapterGuarantees):
    """ccxt's bitget against a server that speaks its wire format."""

    @pytest.fixture
    def stand(self) -> Stand:
        return WireStand(
            Wired(
                BitgetWire, ccxt, "ccxt", "bitget", USDT, "USDT", {**KEYS, "passphrase": PASSPHRASE}, EVERYTHING,
                flow=ledgers.bitget,
            )
        )  # fmt: skip


class TestOkx(AdapterGuarantees):
    """ccxt's okx against a server that speaks its wire format."""

    @pytest.fixture
    def stand(self) -> Stand:
        return WireStand(
            Wired(
                OkxWire,
                ccxt,
                "ccxt",
                "okx",
                USDT,
                "USDT",
                {**KEYS, "passphrase": PASSPHRASE},
                EVERYTHING,
                flow=ledgers.okx,
            )
        )


class TestMexc(AdapterGuarantees):
    """ccxt's mexc against a server that speaks its wire format."""

    @pytest.fixture
    def stand(self) -> Stand:
        return WireStand(Wired(MexcWire, ccxt, "ccxt", "mexc", USDT, "USDT", KEYS, EVERYTHING, flow=ledgers.mexc))


class TestKrakenFutures(AdapterGuarantees):
    """ccxt's krakenfutures against a server that speaks its wire format.

    The venue has no hedge mode; its rules tell no minimum, and one word stands for every wrong size.
    """

    @pytest.fixture
    def stand(self) -> Stand:
        keys = {"key": KEY, "secret": "U0VDUkVULVBMQU5URUQ="}
        symbols = ("BTC/USD:USD", "ETH/USD:USD")
        offers = EVERYTHING - {"hedge", "minimum"}
        return WireStand(
            Wired(
                KrakenFuturesWire, ccxt, "ccxt", "krakenfutures", symbols, "USD", keys, offers,
                flow=ledgers.krakenfutures,
            )
        )  # fmt: skip


class TestAlpaca(AdapterGuarantees):
    """alpaca-py against a server that speaks the wire format of the trading API. Positions have one side each."""

    @pytest.fixture
    def stand(self) -> Stand:
        offers = EVERYTHING - {"hedge", "maximum"}
        return WireStand(
            Wired(
                AlpacaWire, alpaca, "alpaca", None, ("AAPL", "MSFT"), "USD", KEYS, offers, market="equity",
                flow=ledgers.alpaca, begins=datetime(2021, 5, 19, 15, tzinfo=UTC),
            )
        )  # fmt: skip
