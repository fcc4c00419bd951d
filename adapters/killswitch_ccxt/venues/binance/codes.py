"""Binance's codes: what each means, for futures, spot and margin alike, and what its headers count.

Of codes with several meanings the message decides, so messages are looked up before codes; and words that leave the
fate open go before the code that they come with. Where the documents of futures and of spot differ, those of the market
are used: on futures an internal error in the words of the documents is surely not done, on spot it may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from killswitch_ccxt.errors import CLOCK, DENIED, DOWN, GONE, LIMITED, MODE_CHANGED, SAME, UNKNOWN, Meaning, rejected
from killswitch_ccxt.response_capture import Answer

CODES: Final[Mapping[str, Meaning]] = {
    "duplicated": rejected("duplicate_client_order_id"),
    "open fate": UNKNOWN,
    "5xx": UNKNOWN,  # with a code that nobody knows
    # The request itself
    "-1000": UNKNOWN,
    "-1001": UNKNOWN,
    "-1002": DENIED,
    "-1003": LIMITED,
    "-1006": UNKNOWN,
    "-1007": UNKNOWN,
    "-1008": UNKNOWN,  # overloaded: the documents of the day say "failed", orders have been seen to succeed
    "-1010": UNKNOWN,  # "an error message was received": where the words say which, they are below
    "-1011": DENIED,
    "-1013": rejected("other"),  # it did not come to the matching engine
    "-1015": LIMITED,
    "-1016": UNKNOWN,  # the service shuts down: what it did before, it does not say
    "-1021": CLOCK,
    "-1022": DENIED,
    "-1099": DENIED,
    "-1106": rejected("other"),
    "-1111": rejected("other"),
    "-1121": rejected("market_closed"),
    # The order
    "-2010": rejected("other"),
    "-2011": GONE,
    "-2012": UNKNOWN,  # cancelling all failed: of how many, it does not say
    "-2013": GONE,
    "-2014": DENIED,
    "-2015": DENIED,
    "-2017": DENIED,
    "-2018": rejected("insufficient_margin"),
    "-2019": rejected("insufficient_margin"),
    "-2021": rejected("other"),
    "-2022": rejected("already_flat"),  # or resting orders conflict with it, which it does not tell apart
    "-2023": rejected("other"),
    "-2024": rejected("blocked_by_order"),  # the position is not sufficient: what rests takes a part of it
    "-2025": rejected("blocked_by_order"),
    "-2028": rejected("insufficient_margin"),
    "-3000": UNKNOWN,
    "-3041": rejected("insufficient_margin"),
    "-3044": UNKNOWN,
    "-4002": rejected("price_band"),
    "-4003": rejected("below_minimum"),
    "-4004": rejected("below_minimum"),
    "-4005": rejected("above_maximum"),
    "-4013": rejected("price_band"),
    "-4015": rejected("other"),
    "-4016": rejected("price_band"),
    "-4024": rejected("price_band"),
    "-4028": rejected("other"),
    "-4046": SAME,
    "-4059": SAME,
    "-4061": MODE_CHANGED,
    "-4083": UNKNOWN,  # the batch failed: how much of it, it does not say
    "-4087": rejected("market_closed"),  # reducing only
    "-4088": rejected("permission"),
    "-4108": rejected("market_closed"),
    "-4109": rejected("permission"),  # the account is inactive
    "-4116": rejected("duplicate_client_order_id"),
    "-4118": rejected("blocked_by_order"),
    "-4131": rejected("price_band"),
    "-4140": rejected("market_closed"),
    "-4141": rejected("market_closed"),
    "-4164": rejected("below_minimum"),
    "-4183": rejected("price_band"),
    "-4184": rejected("price_band"),
    "-4192": rejected("market_closed"),  # cooling off
    "-4210": rejected("price_band"),
    "-4211": rejected("price_band"),
    "-4400": rejected("market_closed"),
    "-4401": rejected("market_closed"),
    "-4402": rejected("permission"),  # not offered in this region
    "-4403": rejected("permission"),
    "-5025": rejected("other"),  # limit orders only: the next one may be such
    "-5028": CLOCK,
    # Words that come without a code, or that tell apart what one code says
    "Unknown error, please check your request or try again later.": UNKNOWN,
    "Account has insufficient balance for requested action.": rejected("insufficient_margin"),
    "Market is closed.": rejected("market_closed"),
    # In the place of an answer about the order: it is not gone, it must not be touched.
    "This action is disabled on this account.": DENIED,
    "This account may not place or cancel orders.": DENIED,
    "This symbol is not permitted for this account.": DENIED,
    "This symbol is restricted for this account.": DENIED,
    # Neither: the order rests as it was.
    "Order was not canceled due to cancel restrictions.": rejected("other"),
    "Rest API trading is not enabled.": DENIED,
    "Unknown order sent.": GONE,
    "Filter failure: NOTIONAL": rejected("below_minimum"),
    "Filter failure: MIN_NOTIONAL": rejected("below_minimum"),
    "Filter failure: MARKET_LOT_SIZE": rejected("above_maximum"),
    "Filter failure: PERCENT_PRICE": rejected("price_band"),
    "Filter failure: PERCENT_PRICE_BY_SIDE": rejected("price_band"),
}
FORM: Final = re.compile(r"-[1-9]\d{3,4}")
_FAILED: Final = "Internal error; unable to process your request. Please try again."
FUTURES: Final[Mapping[str, Meaning]] = {**CODES, _FAILED: DOWN, "Service Unavailable.": DOWN}
COINM: Final[Mapping[str, Meaning]] = {
    **FUTURES,
    # What USD-M calls −4118, −4131, −4164, −5028, −5025, −4087, −4088, −4183, −4184, −4210 and −4211; two of the same
    # numbers are other things here.
    "-4112": rejected("blocked_by_order"),
    "-4113": rejected("price_band"),
    "-4178": rejected("below_minimum"),
    "-4188": DOWN,
    "-4196": rejected("other"),
    "-4087": rejected("other"),  # the pair
    "-4088": rejected("other"),  # the interval of time
    "-4089": rejected("market_closed"),
    "-4189": rejected("market_closed"),
    "-4090": rejected("permission"),
    "-4151": rejected("price_band"),
    "-4152": rejected("price_band"),
    "-4154": rejected("price_band"),
    "-4155": rejected("price_band"),
}
"""COIN-M numbers some of its refusals in another way than USD-M does, as its own list of error codes shows."""
SPOT: Final[Mapping[str, Meaning]] = {
    **CODES,
    "-1004": UNKNOWN,  # on futures it is about addresses
    "-2026": GONE,  # archived without a fill
    "-5041": UNKNOWN,  # it waited too long in the queue
}
_OPEN: Final = re.compile(
    r"status unknown|unknown error|timeout waiting|timed? out|unexpected response|internal (server )?error"
    r"|(system|server) (is )?busy|overloaded|system abnormality",
    re.IGNORECASE,
)
"""Words of a refusal that do not say that nothing was done, whatever code they come with."""
_TELLING: Final = frozenset({"-1003", "-1015", "-1021", "-4188", "-5028"})
"""Codes that are sure whatever their words: not listened to, or too late."""

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
    said = [text, *([] if code is None else [str(code)])]
    if _OPEN.search(text) and str(code) not in _TELLING:
        said.insert(1, "open fate")
    return ("duplicated", *said) if "duplicat" in text.lower() else tuple(said)


def codes_of(answer: Answer) -> Iterable[str]:
    """As `codes_in`, of a whole answer; a gateway's own refusal has no body that could be read."""
    if answer.status in (418, 429):
        return ("-1003",)
    return (*codes_in(answer.body), *(["5xx"] if answer.status >= 500 else []))


LONGEST_COUNT: Final = 12
"""Digits of a count that can be one."""


def used_from(headers: Mapping[str, str]) -> Mapping[str, int]:
    """The venue's own count, limit → units."""
    found = {name: headers.get(header, "") for header, name in _COUNTERS.items()}
    return {name: int(units) for name, units in found.items() if len(units) <= LONGEST_COUNT and units.isdecimal()}
