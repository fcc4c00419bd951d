"""What the paper server and its client say to each other, as JSON.

    GET    /v1/accounts/{account}/snapshot?rules=N          AccountSnapshot; instruments unless N is the rules' version,
                                                            which the header Rules-Version gives
    POST   /v1/accounts/{account}/orders                    OrderRequest → OrderReport
    GET    /v1/accounts/{account}/orders?symbol=&client_order_id=   OrderReport, or 404 `no_such_order`
    GET    /v1/accounts/{account}/orders/open               [Order]
    GET    /v1/accounts/{account}/fills?symbol=&client_order_id=    [Fill]
    DELETE /v1/accounts/{account}/orders/{order}?symbol=    204, also for an order that is gone
    POST   /v1/accounts/{account}/flows                     FlowRequest → Flow

Anything refused is answered with a status of 4xx and a Refusal. Only 404 with the code `no_such_order` says that
an order never was: any other 404 is a wrong address.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import Struct

from killswitch.model.snapshot import FlowKind
from killswitch.model.venue import RejectReason

RULES_HEADER = "Rules-Version"

ErrorCode = Literal["rejected", "no_such_order", "no_such_account", "bad_request", "not_begun"]


class Refusal(Struct, frozen=True, omit_defaults=True):
    """Why a request was refused; `reason` for a rejected order."""

    code: ErrorCode
    text: str
    reason: RejectReason | None = None


class FlowRequest(Struct, frozen=True):
    """Money to put into (+) or take out of (−) an account."""

    kind: FlowKind
    amount: Decimal


encode = msgspec.json.Encoder(decimal_format="string").encode
