"""Payloads of Alpaca's trading API v2, by its documents: rows of what is true at an exchange."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

from killswitch.model.snapshot import Fill
from tests.faults.exchange import ZERO, Exchange, Key, Placed
from tests.wire.ledger import Book, Row, RowKind

EASTERN = timezone(timedelta(hours=-4))
"""New York in summer."""
SPACE = uuid.UUID("8f2c9f5e-6a94-4c07-9a5e-6a3b2c1d0e0f")
STATUS = {"filled": "filled", "canceled": "canceled", "expired": "expired", "rejected": "rejected"}


def uuid_of(name: str) -> str:
    """The UUID of an id of the exchange."""
    return str(uuid.uuid5(SPACE, name))


def stamp(at: datetime) -> str:
    """A time in Alpaca's format, with nanoseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def text(number: Decimal | None) -> str | None:
    return None if number is None else format(number.normalize() if number else ZERO, "f")


def is_crypto(symbol: str) -> bool:
    return "/" in symbol


def compact(symbol: str) -> str:
    """A pair in the notation of positions and paths."""
    return symbol.replace("/", "")


def class_of(symbol: str) -> str:
    return "crypto" if is_crypto(symbol) else "us_equity"


def covered(exchange: Exchange, key: Key) -> Decimal:
    """The amount of a position that its resting exits reserve."""
    return sum(
        (
            it.amount - it.filled
            for it in exchange.orders.values()
            if it.state == "open" and it.symbol == key[0] and (it.side == "sell") is (key[1] == "long")
        ),
        ZERO,
    )


def position(exchange: Exchange, book: Book, key: Key) -> dict[str, Any]:
    """One position: a short one has a negative size and a negative value."""
    lot, price = book.lots[key], book.marks[key[0]]
    size = lot.amount if key[1] == "long" else -lot.amount
    crypto = is_crypto(key[0])
    return {
        "asset_id": uuid_of(key[0]),
        "symbol": compact(key[0]),
        "exchange": "CRYPTO" if crypto else "NASDAQ",
        "asset_class": class_of(key[0]),
        "asset_marginable": not crypto,
        "qty": text(size),
        "avg_entry_price": text(lot.entry),
        "side": key[1],
        "market_value": text(size * price),
        "cost_basis": text(size * lot.entry),
        "unrealized_pl": text(book.unrealized(key)),
        "unrealized_plpc": "0",
        "unrealized_intraday_pl": "0",
        "unrealized_intraday_plpc": "0",
        "current_price": text(price),
        "lastday_price": "100",
        "change_today": "0",
        "qty_available": text(lot.amount - covered(exchange, key)),
    }


def order(it: Placed, at: datetime, more: dict[str, Any]) -> dict[str, Any]:
    """One order. `more`: fields that only the server knows."""
    kind = {(True, True): "stop_limit", (True, False): "stop", (False, True): "limit", (False, False): "market"}[
        it.trigger_price is not None, it.price is not None
    ]
    status = STATUS.get(it.state, "partially_filled" if it.filled else "new")
    closes = (it.side == "sell") is (it.key[1] == "long")
    intent = None if is_crypto(it.symbol) else f"{it.side}_to_{'close' if closes else 'open'}"
    return {
        "id": uuid_of(it.id),
        "client_order_id": it.name or uuid_of(f"name of {it.id}"),
        "created_at": stamp(at),
        "updated_at": stamp(at),
        "submitted_at": stamp(at),
        "filled_at": stamp(at) if it.state == "filled" else None,
        "expired_at": None,
        "canceled_at": None,
        "failed_at": None,
        "replaced_at": None,
        "replaced_by": None,
        "replaces": None,
        "asset_id": uuid_of(it.symbol),
        "symbol": it.symbol,
        "asset_class": class_of(it.symbol),
        "notional": None,
        "qty": text(it.amount),
        "filled_qty": text(it.filled),
        "filled_avg_price": text(it.paid / it.filled) if it.filled else None,
        "order_class": "",
        "order_type": kind,
        "type": kind,
        "side": it.side,
        "time_in_force": "gtc" if is_crypto(it.symbol) else "day",
        "limit_price": text(it.price),
        "stop_price": text(it.trigger_price),
        "status": status,
        "extended_hours": False,
        "legs": None,
        "trail_percent": None,
        "trail_price": None,
        "hwm": None,
        "subtag": None,
        "source": None,
        "position_intent": intent,
    } | more


def fill_activity(fill: Fill, whole: bool) -> dict[str, Any]:
    return {
        "id": f"{fill.at.astimezone(EASTERN):%Y%m%d%H%M%S}000::{uuid_of(fill.id)}",
        "activity_type": "FILL",
        "transaction_time": stamp(fill.at),
        "type": "fill" if whole else "partial_fill",
        "price": text(fill.price),
        "qty": text(fill.amount),
        "side": fill.side,
        "symbol": fill.symbol,
        "leaves_qty": "0",
        "order_id": uuid_of(fill.order or ""),
        "cum_qty": text(fill.amount),
        "order_status": "filled",
    }


MOVES: Final[Mapping[RowKind, tuple[str, str]]] = {
    "deposit": ("CSD", "CSD"), "withdrawal": ("CSW", "CSW"), "transfer": ("CSW", "CSD"), "funding": ("INT", "INT"),
    "insurance": ("FEE", "FEE"), "rebate": ("PTR", "PTR"),
}  # fmt: skip
"""Kind of a cash change → `activity_type` of an outflow, and of an inflow."""


def move_activity(row: Row) -> dict[str, Any]:
    """An activity that is not a trade."""
    return {
        "id": f"{row.at.astimezone(EASTERN):%Y%m%d}000000000::{uuid_of(f'move {row.number}')}",
        "activity_type": MOVES[row.kind][row.amount > ZERO], "net_amount": text(row.amount),
        "date": row.at.astimezone(EASTERN).date().isoformat(), "description": "", "status": "executed",
    }  # fmt: skip


def asset(symbol: str, minimum: Decimal, step: Decimal | None, *, fractionable: bool) -> dict[str, Any]:
    crypto = is_crypto(symbol)
    found: dict[str, Any] = {
        "id": uuid_of(symbol),
        "class": class_of(symbol),
        "exchange": "CRYPTO" if crypto else "NASDAQ",
        "symbol": symbol,
        "name": symbol,
        "status": "active",
        "tradable": True,
        "marginable": not crypto,
        "maintenance_margin_requirement": 100 if crypto else 30,
        "shortable": not crypto,
        "easy_to_borrow": not crypto,
        "fractionable": fractionable,
        "attributes": [],
    }
    if crypto:
        found |= {"min_order_size": text(minimum), "min_trade_increment": text(step), "price_increment": "0.01"}
    return found
