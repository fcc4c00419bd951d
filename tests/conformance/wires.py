"""The wire-level venues, each with the adapter that reaches it and what can be tested there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from killswitch.conformance.harness import Offer
from killswitch_alpaca import adapter as alpaca
from killswitch_ccxt import adapter as ccxt
from tests.conformance import ledger_rows
from tests.conformance.harnesses import Wired
from tests.wire.alpaca.venue import AlpacaWire
from tests.wire.binance.venue import BinanceWire
from tests.wire.bitget.venue import BitgetWire
from tests.wire.bybit.venue import BybitWire
from tests.wire.krakenfutures.venue import KrakenFuturesWire
from tests.wire.mexc.venue import MexcWire
from tests.wire.okx.venue import OkxWire
from tests.wire.server import KEY, PASSPHRASE, SECRET

KEYS: Final = {"key": KEY, "secret": SECRET}
WITH_PHRASE: Final = {**KEYS, "passphrase": PASSPHRASE}
IN_BASE64: Final = {"key": KEY, "secret": "U0VDUkVULVBMQU5URUQ="}
EVERYTHING: Final[frozenset[Offer]] = frozenset(
    {"faults", "hostile", "hedge", "stops", "flows", "minimum", "maximum", "answers", "watch"}
)
NO_HEDGE: Final[frozenset[Offer]] = EVERYTHING - {"hedge"}
USDT: Final = ("BTC/USDT:USDT", "ETH/USDT:USDT")
USD: Final = ("BTC/USD:USD", "ETH/USD:USD")
SHARES: Final = ("AAPL", "MSFT")
MANY_USDT: Final = tuple(f"C{number:03}/USDT:USDT" for number in range(130))
MANY_USD: Final = tuple(f"C{number:03}/USD:USD" for number in range(130))
MANY_SHARES: Final = tuple(f"S{chr(65 + number // 26)}{chr(65 + number % 26)}" for number in range(130))
OPEN_MARKET: Final = datetime(2021, 5, 19, 15, tzinfo=UTC)

WIRES: Final[Mapping[str, Wired]] = {
    "binance": Wired(
        BinanceWire, ccxt, "ccxt", "binanceusdm", USDT, "USDT", KEYS, EVERYTHING | {"transfers"},
        more=MANY_USDT, flow=ledger_rows.binance, transfer_target="MAIN",
    ),
    "bybit": Wired(
        BybitWire, ccxt, "ccxt", "bybit", USDT, "USDT", KEYS, EVERYTHING | {"transfers"},
        more=MANY_USDT, flow=ledger_rows.bybit, transfer_target="24600001",
        options={"main_uid": "24600000", "uid": "24600000"},
    ),
    "bitget": Wired(
        BitgetWire, ccxt, "ccxt", "bitget", USDT, "USDT", WITH_PHRASE, EVERYTHING,
        more=MANY_USDT, flow=ledger_rows.bitget,
    ),
    "okx": Wired(
        OkxWire, ccxt, "ccxt", "okx", USDT, "USDT", WITH_PHRASE, EVERYTHING, more=MANY_USDT, flow=ledger_rows.okx,
        signed=frozenset({"pos", "slOrdPx", "tpOrdPx", "ordPx"}),  # a price of -1 is "at the market"
    ),
    # No hedge mode; its rules have no minimum, and one error code covers every wrong size.
    "krakenfutures": Wired(
        KrakenFuturesWire, ccxt, "ccxt", "krakenfutures", USD, "USD", IN_BASE64, NO_HEDGE - {"minimum"},
        more=MANY_USD, flow=ledger_rows.krakenfutures,
        signed=frozenset({"contractValueTradePrecision"}),  # less than zero where the step is more than one
    ),
    "mexc": Wired(
        MexcWire, ccxt, "ccxt", "mexc", USDT, "USDT", KEYS, EVERYTHING,
        contract_size=Decimal("0.0001"), more=MANY_USDT, flow=ledger_rows.mexc,
    ),
    "alpaca": Wired(
        AlpacaWire, alpaca, "alpaca", None, SHARES, "USD", KEYS, NO_HEDGE, market="equity",
        amount_step=Decimal("1E-9"), more=MANY_SHARES, flow=ledger_rows.alpaca, begins=OPEN_MARKET,
    ),
}  # fmt: skip
