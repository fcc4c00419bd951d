"""Order requests in Alpaca's format, which depends on asset, size and time of day."""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Literal

from killswitch.model.venue import OrderRejectedError, OrderRequest
from killswitch_alpaca.hours import Session
from killswitch_alpaca.instruments import DOLLAR, PENNY, SUB_PENNY
from killswitch_alpaca.positions import is_crypto

SendStyle = Literal["plain", "queued", "extended", "bounded"]
"""How a stock order is sent: unchanged; unchanged, for Alpaca to hold until the market opens; as a limit order into
the extended session; the same with a limit price that is still to be computed."""


def send_style(
    request: OrderRequest, session: Session, outside_hours: Literal["queue", "extended"] | None, opens: datetime | None
) -> SendStyle:
    """How to send the order now. Raises OrderRejectedError where it must not be sent.

    `opens`: when the next usable session begins. Coins have no hours, and a stop rests at any time.
    """
    if is_crypto(request.symbol) or request.trigger_price is not None or session == "regular":
        return "plain"
    until = "" if opens is None else f" until {opens:%Y-%m-%d %H:%M} UTC"
    closed = f"{request.symbol}: the stock market is closed{until}"
    if outside_hours is None:
        raise OrderRejectedError(
            "market_closed", f"{closed}; set outside_hours of the account to queue or extended to close then"
        )
    if outside_hours == "queue":
        if request.type != "market":
            raise OrderRejectedError("market_closed", f"{closed}; only market orders are queued for the opening")
        return "queued"
    if session == "closed":
        raise OrderRejectedError("market_closed", f"{closed}; the extended session is over as well")
    if request.time_in_force == "ioc":
        raise OrderRejectedError("other", f"{request.symbol}: the extended session accepts no ioc orders")
    return "bounded" if request.price is None else "extended"


def bounding_price(request: OrderRequest, reference: Decimal, band: Decimal) -> Decimal:
    """The limit price of an order without one: `band` beyond `reference`, rounded to a tick within the band."""
    sells = request.side == "sell"
    price = reference * (1 - band if sells else 1 + band)
    tick = PENNY if price >= DOLLAR else SUB_PENNY
    return (price / tick).to_integral_value(ROUND_CEILING if sells else ROUND_FLOOR) * tick


def order_body(request: OrderRequest, style: SendStyle, limit: Decimal | None = None) -> dict[str, Any]:
    """The JSON body of `POST /v2/orders`. Numbers are texts, so that none passes through a float.

    `limit`: the price of a `bounded` order. Raises OrderRejectedError for an order that Alpaca does not support.
    """
    price = limit if style == "bounded" else request.price
    body: dict[str, Any] = {
        "symbol": request.symbol,
        "qty": _text(request.amount),
        "side": request.side,
        "type": _type(request, price),
        "time_in_force": _time_in_force(request, style, price),
        "client_order_id": request.client_order_id,
    }
    if price is not None:
        body["limit_price"] = _text(price)
    if request.trigger_price is not None:
        body["stop_price"] = _text(request.trigger_price)
    if style in ("extended", "bounded"):
        body["extended_hours"] = True
    if not is_crypto(request.symbol):
        # Alpaca then refuses a close that would open a position. Coins cannot be sold short at all.
        opens = (request.side == "buy") is (request.position_side == "long")
        body["position_intent"] = f"{request.side}_to_{'open' if opens else 'close'}"
    return body


def _type(request: OrderRequest, price: Decimal | None) -> str:
    if request.trigger_price is None:
        return "market" if price is None else "limit"
    if request.trigger_when != ("falls" if request.side == "sell" else "rises"):
        raise OrderRejectedError(
            "other", f"{request.symbol}: Alpaca's stops only sell on a falling price and buy on a rising one"
        )
    if price is None and is_crypto(request.symbol):
        raise OrderRejectedError("other", f"{request.symbol}: Alpaca accepts stops for coins only with a limit price")
    return "stop" if price is None else "stop_limit"


def _time_in_force(request: OrderRequest, style: SendStyle, price: Decimal | None) -> str:
    if is_crypto(request.symbol):
        # An unfilled market order for coins would rest: the part that does not fill at once must expire.
        at_market = price is None and request.trigger_price is None
        return "ioc" if at_market or request.time_in_force == "ioc" else "gtc"
    fractional = request.amount != request.amount.to_integral_value()
    if request.time_in_force == "ioc":
        if fractional:
            raise OrderRejectedError("other", f"{request.symbol}: fractional shares are day orders only, not ioc")
        return "ioc"
    if style != "plain" or fractional or (price is None and request.trigger_price is None):
        return "day"
    return "gtc"


def _text(number: Decimal) -> str:
    return format(number, "f")
