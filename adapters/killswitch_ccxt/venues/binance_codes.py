"""Binance's codes: what each means, for futures, spot and margin alike, and what its headers count.

Of two codes with several meanings the message decides, so messages are looked up before codes. Where the documents of
futures and of spot differ, those of the market are used: on futures −1001 is surely not done, on spot it may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from killswitch_ccxt.client import Answer
from killswitch_ccxt.errors import DENIED, DOWN, GONE, LIMITED, MODE_CHANGED, SAME, UNKNOWN, Meaning, rejected

CODES: Final[Mapping[str, Meaning]] = {
    "duplicated": rejected("duplicate_client_order_id"),
    # The request itself
    "-1000": UNKNOWN,
    "-1002": DENIED,
    "-1003": LIMITED,
    "-1006": UNKNOWN,
    "-1007": UNKNOWN,
    "-1008": UNKNOWN,  # overloaded: the documents of the day say "failed", orders have been seen to succeed
    "-1013": rejected("other"),
    "-1015": LIMITED,
    "-1016": DOWN,
    "-1021": DOWN,
    "-1022": DENIED,
    "-1106": rejected("other"),
    "-1111": rejected("other"),
    "-1121": rejected("market_closed"),
    # The order
    "-2010": rejected("other"),
    "-2011": GONE,
    "-2013": GONE,
    "-2014": DENIED,
    "-2015": DENIED,
    "-2017": DENIED,
    "-2018": rejected("insufficient_margin"),
    "-2019": rejected("insufficient_margin"),
    "-2021": rejected("other"),
    "-2022": rejected("already_flat"),
    "-2023": rejected("other"),
    "-2024": rejected("already_flat"),
    "-3041": rejected("insufficient_margin"),
    "-4003": rejected("below_minimum"),
    "-4004": rejected("below_minimum"),
    "-4005": rejected("above_maximum"),
    "-4015": rejected("other"),
    "-4016": rejected("price_band"),
    "-4024": rejected("price_band"),
    "-4028": rejected("other"),
    "-4046": SAME,
    "-4059": SAME,
    "-4061": MODE_CHANGED,
    "-4108": rejected("market_closed"),
    "-4109": rejected("market_closed"),
    "-4116": rejected("duplicate_client_order_id"),
    "-4118": rejected("blocked_by_order"),
    "-4131": rejected("price_band"),
    "-4140": rejected("market_closed"),
    "-4141": rejected("market_closed"),
    "-4164": rejected("below_minimum"),
    "-4400": rejected("market_closed"),
    "-4401": rejected("market_closed"),
    "-4402": rejected("market_closed"),
    "-4403": rejected("market_closed"),
    "-5028": DOWN,
    # Words that come without a code, or that tell apart what one code says
    "Unknown error, please check your request or try again later.": UNKNOWN,
    "Account has insufficient balance for requested action.": rejected("insufficient_margin"),
    "Market is closed.": rejected("market_closed"),
    "Filter failure: NOTIONAL": rejected("below_minimum"),
    "Filter failure: MIN_NOTIONAL": rejected("below_minimum"),
    "Filter failure: MARKET_LOT_SIZE": rejected("above_maximum"),
    "Filter failure: PERCENT_PRICE": rejected("price_band"),
    "Filter failure: PERCENT_PRICE_BY_SIDE": rejected("price_band"),
}
FUTURES: Final[Mapping[str, Meaning]] = {**CODES, "-1001": DOWN, "Service Unavailable.": DOWN}
SPOT: Final[Mapping[str, Meaning]] = {**CODES, "-1001": UNKNOWN}

_COUNTERS: Final[Mapping[str, str]] = {
    "x-mbx-used-weight-1m": "weight",
    "x-sapi-used-ip-weight-1m": "wallet-weight",
    "x-mbx-order-count-10s": "orders-10s",
    "x-mbx-order-count-1m": "orders-1m",
    "x-mbx-order-count-1d": "orders-1d",
}


def codes_in(body: Any) -> Iterable[str]:
    """What a refusal, or a refused row of a batch, says of itself; the most telling word first."""
    if not isinstance(body, Mapping):
        return ()
    text, code = str(body.get("msg") or ""), body.get("code")
    said = ["duplicated"] if "duplicat" in text.lower() else []
    return (*said, text, *([] if code is None else [str(code)]))


def codes_of(answer: Answer) -> Iterable[str]:
    """As `codes_in`, of a whole answer; a gateway's own refusal has no body that could be read."""
    if answer.status in (418, 429):
        return ("-1003",)
    return codes_in(answer.body)


def used_from(headers: Mapping[str, str]) -> Mapping[str, int]:
    """The venue's own count, limit → units."""
    return {name: int(headers[header]) for header, name in _COUNTERS.items() if headers.get(header, "").isdecimal()}
