"""The envelope of OKX's answers, its refusal codes, and its signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from killswitch.model.venue import OrderRejectedError, RejectReason
from tests.wire.okx.payloads import Row
from tests.wire.server import SECRET, Ask, Reply

CODES: Final[Mapping[RejectReason, tuple[str, str]]] = {
    "already_flat": ("51169", "You don't have any positions in this direction for this contract to reduce or close"),
    "below_minimum": ("51020", "Your order should meet or exceed the minimum order amount"),
    "above_maximum": ("51202", "Market order amount exceeds the maximum amount"),
    "blocked_by_order": ("51112", "The close order size exceeds your available size"),
    "price_band": ("51138", "Your price is beyond the limit"),
    "market_closed": ("51022", "Contract suspended"),
    "insufficient_margin": ("51008", "Order failed, insufficient margin in account"),
    "duplicate_client_order_id": ("51016", "Client order ID already exists"),
    "permission": ("50120", "This API key doesn't have permission to use this function"),
    "other": ("51121", "Order quantity must be a multiple of the lot size"),
}
ALL_FAILED: Final = "All operations failed"


def good(rows: Sequence[Row | list[str]]) -> Reply:
    """An answer with rows; those of bars are lists."""
    return Reply({"code": "0", "msg": "", "data": rows})


def refusal(code: str, message: str, status: int = 200) -> Reply:
    """A refusal of the whole request."""
    return Reply({"code": code, "msg": message, "data": []}, status)


def outcome(rows: list[Row]) -> Reply:
    """Rows with a result each; the outer code is 0 for all done, 1 for none, 2 for some."""
    failed = sum(it["sCode"] != "0" for it in rows)
    code = "0" if not failed else "1" if failed == len(rows) else "2"
    message = {"0": "", "1": ALL_FAILED, "2": "Bulk operation partially succeeded"}[code]
    return Reply({"code": code, "msg": message, "data": rows})


def row_of(error: OrderRejectedError, row: Mapping[str, object], **more: str) -> Row:
    """The row of an order that was refused."""
    code, message = CODES[error.reason]
    if error.reason == "above_maximum" and row.get("ordType") != "market":
        code, message = "51203", "Order amount exceeds the limit"
    return {"sCode": code, "sMsg": message, "ts": "0", "tag": "", **more}


def signature(of: str) -> str:
    """HMAC-SHA256 with the secret, base64."""
    return base64.b64encode(hmac.new(SECRET.encode(), of.encode(), hashlib.sha256).digest()).decode()


def paged(rows: list[Row], ask: Ask, by: str) -> list[Row]:
    """At most 100 rows, those older than the row `after`."""
    after = ask.params.get("after")
    if after:
        at = next((number for number, it in enumerate(rows) if it[by] == after), len(rows))
        rows = rows[at + 1 :]
    return rows[: min(100, int(ask.params.get("limit") or 100))]
