"""The JSON format between the paper server and its client.

    GET    /v1/accounts/{account}/snapshot?rules=N&watch=…  AccountSnapshot; instruments unless N is the rules' version,
                                                            which the header Rules-Version states; `watched` has the
                                                            prices of each symbol of a `watch`
    GET    /v1/accounts/{account}/prices?symbol=&symbol=…   {symbol: Prices}; it costs nothing of any limit
    POST   /v1/accounts/{account}/orders                    OrderRequest → OrderReport
    GET    /v1/accounts/{account}/orders?symbol=&client_order_id=   OrderReport, or 404 `no_such_order`
    GET    /v1/accounts/{account}/orders/open               [Order]
    GET    /v1/accounts/{account}/fills?symbol=&client_order_id=    [Fill]
    DELETE /v1/accounts/{account}/orders/{order}?symbol=    204, also for an order that is gone
    POST   /v1/accounts/{account}/orders/batch              [OrderRequest] → [BatchAnswer], one for each, in order
    POST   /v1/accounts/{account}/book/close                204
    POST   /v1/accounts/{account}/transfers                 TransferRequest → 204; it costs nothing of any limit
    GET    /v1/accounts/{account}/transfers?id=             TransferState; it costs nothing of any limit
    POST   /v1/accounts/{account}/flows                     FlowRequest → Flow
    POST   /v1/accounts/{account}/taken                     TakeRequest → Fill
    POST   /v1/states                                       StateRequest → 204

The last three are for whoever operates the venue in a test; they cost nothing of any limit. Every other answer about an
account has the header Limits-Used where the venue has limits: `name=units; name=units`. A request beyond a limit is
answered with 429 and not carried out; Retry-After is in whole seconds, and absent if the request can never fit.
The server accepts requests of programs on its own machine, not those that a web page makes a browser send: Host must
name loopback, a request with an Origin is refused, and so is a POST whose Content-Type is not application/json.
Numbers are finite, below a quadrillion, and have 12 decimals at most.

A refused request is answered with a status of 4xx and a RequestRefusal. Only 404 with the code `no_such_order` means
that an order never existed: any other 404 is a wrong address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from ipaddress import ip_address
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from killswitch.market.terms import LONGEST_LAG
from killswitch.model.snapshot import FillCause, FlowKind, InstrumentState, Side
from killswitch.model.venue import OrderReport, RejectReason

JSON = "application/json"
"""Content type of all requests and answers."""
RULES_HEADER = "Rules-Version"
USED_HEADER = "Limits-Used"

MOST_DIGITS, MOST_DECIMALS = 15, 12
"""Digits of a number in a request before and after the decimal point. Together they fit Decimal's precision."""
UNSIGNED = frozenset({"contracts", "delivery", "price", "price_band"})

ErrorCode = Literal[
    "rejected", "no_such_order", "no_such_account", "bad_request", "not_begun", "too_many", "not_allowed"
]


class RequestRefusal(Struct, frozen=True, omit_defaults=True):
    """Why a request was refused; `reason` for a rejected order."""

    code: ErrorCode
    text: str
    reason: RejectReason | None = None


class BatchAnswer(Struct, frozen=True, omit_defaults=True):
    """Result of one order of a batch: its report, or why it was refused."""

    report: OrderReport | None = None
    refusal: RequestRefusal | None = None


def check_numbers(body: object) -> None:
    """Raise ValueError, naming the field, for a number in a request that no market can process.

    JSON has no NaN, but the text of a Decimal may be one, and an amount once added to a wallet cannot be removed.
    """
    for each in body if isinstance(body, tuple) else (body,):
        for name in each.__struct_fields__ if isinstance(each, Struct) else ():
            value = getattr(each, name)
            if not isinstance(value, Decimal):
                continue
            if not value.is_finite():
                raise ValueError(f"{name} is not a number: {value}")
            _, digits, exponent = value.as_tuple()
            if int(exponent) < -MOST_DECIMALS or int(exponent) + len(digits) > MOST_DIGITS:
                most = f"below 1E+{MOST_DIGITS}, with {MOST_DECIMALS} decimals at most"
                raise ValueError(f"{name} is out of range: {value:.4E} ({most})")
            if value < 0 and name in UNSIGNED:
                raise ValueError(f"{name} is below zero: {value}")


class FlowRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A deposit (+) or withdrawal (−) of money, or of an `asset` of a cash account.

    Snapshots show the row `lag` seconds later; by default the lag of the venue's terms.
    """

    kind: FlowKind
    amount: Decimal
    asset: str | None = None
    lag: Annotated[float, Meta(ge=0, le=LONGEST_LAG)] | None = None


class TransferRequest(Struct, frozen=True):
    """Money that moves from the account of the address to the account `to`, once under an `id`."""

    to: str
    amount: Decimal
    id: str


class TransferState(Struct, frozen=True):
    """Whether a transfer of this id was made. One that was not may still arrive."""

    moved: bool


class TakeRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A position for the venue to take over at `price`: `contracts` of it, or all.

    `side` selects one of the two positions of hedge mode.
    """

    symbol: str
    price: Decimal
    contracts: Decimal | None = None
    cause: FillCause = "adl"
    side: Side = "long"


class StateRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The state of a symbol; with `delivery` and the state `delisted`, positions are delivered at that price."""

    symbol: str
    state: InstrumentState
    price_band: Decimal | None = None
    delivery: Decimal | None = None


def is_loopback(host: str) -> bool:
    """Whether a host, as a URL names it, is this machine's loopback address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


_COUNT: Final = re.compile(r"[0-9]{1,12}")


def used_header(used: Mapping[str, int]) -> str:
    """The header Limits-Used for these counts."""
    return "; ".join(f"{name}={units}" for name, units in used.items())


def read_used(header: str) -> dict[str, int]:
    """The counts in a header Limits-Used; unknown parts are left out."""
    parts = (part.strip().partition("=") for part in header.split(";"))
    return {name: int(units) for name, _, units in parts if name and _COUNT.fullmatch(units)}


encode = msgspec.json.Encoder(decimal_format="string").encode
