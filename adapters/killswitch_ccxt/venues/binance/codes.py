"""Binance's error codes for futures, spot and margin, and the counters in its headers.

Where a code has several meanings the message decides, so messages are looked up before codes; a text that leaves the
outcome open goes before the code that it comes with. Where the documents of futures and spot differ, those of the
market apply: after an internal error with the documented text a request was surely not executed on futures, and may
have been on spot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from killswitch_ccxt.errors import (
    CLOCK,
    DENIED,
    DOWN,
    GONE,
    LIMITED,
    MODE_CHANGED,
    SAME,
    UNKNOWN,
    Meaning,
    VenueAnswer,
    coded,
    rejected,
)

CODES: Final[Mapping[str, Meaning]] = {
    # −1008 is an overload: the documents of the day call it failed, and orders with it have been seen to succeed.
    # −1010 is any error message, −1016 a service that shuts down, −2012 and −4083 a failed cancellation of all and a
    # failed batch: none of them states what was done before. `5xx` is a status with an unknown code.
    **coded(UNKNOWN, -1000, -1001, -1006, -1007, -1008, -1010, -1016, -2012, -3000, -3044, -4083, "open fate", "5xx",
           "Unknown error, please check your request or try again later."),
    # These texts come in place of an answer about an order: the order is not gone, but it must not be touched.
    **coded(DENIED, -1002, -1011, -1022, -1099, -2014, -2015, -2017, "Rest API trading is not enabled.",
           "This action is disabled on this account.", "This account may not place or cancel orders.",
           "This symbol is not permitted for this account.", "This symbol is restricted for this account."),
    **coded(LIMITED, -1003, -1015),
    **coded(CLOCK, -1021, -5028),
    **coded(GONE, -2011, -2013, "Unknown order sent."),
    **coded(SAME, -4046, -4059),
    **coded(MODE_CHANGED, -4061),
    # −1013 did not reach the matching engine; with −5025 only limit orders are accepted, and the next may be one. An
    # order that could not be cancelled rests as before.
    **coded(rejected("other"), -1013, -1106, -1111, -2010, -2021, -2023, -4015, -4028, -5025,
           "Order was not canceled due to cancel restrictions."),
    # −4087 accepts only orders that reduce, −4192 is a cooling-off period.
    **coded(rejected("market_closed"), -1121, -4087, -4108, -4140, -4141, -4192, -4400, -4401, "Market is closed."),
    # −5002 and −5013 refuse a transfer
    **coded(rejected("insufficient_margin"), -2018, -2019, -2028, -3041, -5002, -5013,
           "Account has insufficient balance for requested action."),
    **coded(rejected("already_flat"), -2022),  # also for conflicting open orders
    **coded(rejected("blocked_by_order"), -2024, -2025, -4118),  # −2024: resting orders take a part of the position
    **coded(rejected("duplicate_client_order_id"), -4116, "duplicated"),
    **coded(rejected("price_band"), -4002, -4013, -4016, -4024, -4131, -4183, -4184, -4210, -4211,
           "Filter failure: PERCENT_PRICE", "Filter failure: PERCENT_PRICE_BY_SIDE"),
    **coded(rejected("below_minimum"), -4003, -4004, -4164, "Filter failure: NOTIONAL", "Filter failure: MIN_NOTIONAL"),
    **coded(rejected("above_maximum"), -4005, "Filter failure: MARKET_LOT_SIZE"),
    # −4109 is an inactive account; −4402 and −4403 are products that are not offered in its region.
    **coded(rejected("permission"), -4088, -4109, -4402, -4403),
}  # fmt: skip
FORM: Final = re.compile(r"-[1-9]\d{3,4}")
_FAILED: Final = "Internal error; unable to process your request. Please try again."
FUTURES: Final[Mapping[str, Meaning]] = {**CODES, _FAILED: DOWN, "Service Unavailable.": DOWN}
COINM: Final[Mapping[str, Meaning]] = {
    **FUTURES,
    # What USD-M calls −4118, −4131, −4164, −5028, −5025, −4087, −4088, −4183, −4184, −4210 and −4211. −4087 and −4088
    # have other meanings here: a wrong pair, and a wrong time interval.
    **coded(rejected("blocked_by_order"), -4112),
    **coded(rejected("price_band"), -4113, -4151, -4152, -4154, -4155),
    **coded(rejected("below_minimum"), -4178),
    **coded(DOWN, -4188),
    **coded(rejected("other"), -4087, -4088, -4196),
    **coded(rejected("market_closed"), -4089, -4189),
    **coded(rejected("permission"), -4090),
}  # fmt: skip
"""Refusals that COIN-M numbers differently from USD-M, as its own list of error codes shows."""
SPOT: Final[Mapping[str, Meaning]] = {
    **CODES,
    **coded(UNKNOWN, -1004, -5041),  # −1004 concerns addresses on futures; with −5041 it waited too long in the queue
    **coded(GONE, -2026),  # archived without a fill
}
_OPEN: Final = re.compile(
    r"status unknown|unknown error|timeout waiting|timed? out|unexpected response|internal (server )?error"
    r"|(system|server) (is )?busy|overloaded|system abnormality",
    re.IGNORECASE,
)
"""Text of a refusal that leaves open whether something was done, whatever its code."""
_DEFINITE: Final = frozenset({"-1003", "-1015", "-1021", "-4188", "-5028"})
"""Codes that are definite whatever their text: rate limits, and expired requests."""

_COUNTERS: Final[Mapping[str, str]] = {
    "x-mbx-used-weight-1m": "weight",
    "x-sapi-used-ip-weight-1m": "wallet-weight",
    "x-mbx-order-count-10s": "orders-10s",
    "x-mbx-order-count-1m": "orders-1m",
    "x-mbx-order-count-1d": "orders-1d",
}


def codes_in(body: Any) -> Iterable[str]:
    """The codes of a refusal, or of a refused row of a batch; the most specific one first."""
    if not isinstance(body, Mapping):
        return ()
    text, code = str(body.get("msg") or ""), body.get("code")
    found = [text, *([] if code is None else [str(code)])]
    if _OPEN.search(text) and str(code) not in _DEFINITE:
        found.insert(1, "open fate")
    return ("duplicated", *found) if "duplicat" in text.lower() else tuple(found)


def codes_of(answer: VenueAnswer) -> Iterable[str]:
    """The codes of a whole answer, as `codes_in`; the refusal of a gateway has no readable body."""
    if answer.status in (418, 429):
        return ("-1003",)
    return (*codes_in(answer.body), *(["5xx"] if answer.status >= 500 else []))


LONGEST_COUNT: Final = 12
"""Most digits of a plausible count."""


def used_from(headers: Mapping[str, str]) -> Mapping[str, int]:
    """The venue's own count, limit → units."""
    found = {name: headers.get(header, "") for header, name in _COUNTERS.items()}
    return {name: int(units) for name, units in found.items() if len(units) <= LONGEST_COUNT and units.isdecimal()}
