"""Transfers between the wallets of one owner at Binance, and their list, by the venue's wallet interface.

The account of `BinanceWire` is the wallet UMFUTURE; of the others it keeps what they hold of USDT.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.wire.binance import payloads as payloads

if TYPE_CHECKING:
    from tests.wire.binance.venue import BinanceWire


def move(wire: BinanceWire, params: Mapping[str, Any]) -> object:
    """POST asset/transfer: at once, and without an id of the client."""
    kind, asset, amount = str(params["type"]), str(params["asset"]), Decimal(str(params["amount"]))
    source, _, target = kind.partition("_")
    own = {**wire.wallets, "UMFUTURE": wire.ledger.wallets["USDT"]}
    if asset != "USDT" or source not in own or target not in own or amount <= 0:
        raise payloads.refuse(-1102, "Mandatory parameter was malformed.")
    if amount > own[source]:
        raise payloads.refuse(-5013, "Asset transfer failed: insufficient balance")
    for name, sign in ((source, -1), (target, 1)):
        if name == "UMFUTURE":
            wire.ledger.flow("transfer", sign * amount)
        else:
            wire.wallets[name] += sign * amount
    number = 11_000_000 + len(wire.transfers)
    row = {"asset": asset, "amount": format(amount, "f"), "type": kind, "status": "CONFIRMED", "tranId": number,
           "timestamp": wire.now_ms()}  # fmt: skip
    wire.transfers.insert(0, row)
    return {"tranId": number}


def listed(wire: BinanceWire, params: Mapping[str, Any]) -> object:
    """GET asset/transfer: of one type, from a time on, in numbered pages."""
    since, size, page = (
        int(params.get(name, usual)) for name, usual in (("startTime", 0), ("size", 10), ("current", 1))
    )
    rows = [it for it in wire.transfers if it["type"] == params["type"] and it["timestamp"] >= since]
    rows = [] if wire.hidden_transfers else rows
    return {"total": len(rows), "rows": rows[size * (page - 1) : size * page]}
