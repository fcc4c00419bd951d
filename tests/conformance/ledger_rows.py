"""Money that arrives or is withdrawn, as each wire-level venue writes it into its own ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


def binance(wire: Any, amount: Decimal) -> None:
    """A row of the income history."""
    wire.incomes.append(
        {"symbol": "", "incomeType": "TRANSFER", "income": str(amount), "asset": "USDT", "info": "TRANSFER",
         "time": wire.now_ms(), "tranId": 9001, "tradeId": ""}
    )  # fmt: skip


def bybit(wire: Any, amount: Decimal) -> None:
    """A row of the transaction log."""
    wire.log.append(
        {"id": "t-9001", "type": "TRANSFER_IN" if amount > 0 else "TRANSFER_OUT", "currency": "USDT",
         "change": str(amount), "funding": "", "transactionTime": str(wire.now_ms()), "category": "", "symbol": ""}
    )  # fmt: skip


def bitget(wire: Any, amount: Decimal) -> None:
    """A bill."""
    kind = "trans_from_exchange" if amount > 0 else "trans_to_exchange"
    wire.bills.append(
        {"billId": "9001", "symbol": "", "amount": str(amount), "fee": "0", "feeByCoupon": "", "coin": "USDT",
         "businessType": kind, "balance": "0", "cTime": str(wire.now_ms())}
    )  # fmt: skip


def okx(wire: Any, amount: Decimal) -> None:
    """A bill."""
    wire.bills_told.insert(
        0, {"billId": "9001", "type": "1", "subType": "11" if amount > 0 else "12", "balChg": str(amount),
            "posBalChg": "0", "ccy": "USDT", "ts": str(wire.now_ms()), "instId": ""}
    )  # fmt: skip


def krakenfutures(wire: Any, amount: Decimal) -> None:
    """A row of the account log."""
    date = datetime.fromtimestamp(wire.now_ms() / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    wire.logs.append(
        {"id": 9001, "date": date, "asset": "usd", "info": "cross-exchange transfer", "booking_uid": "b-9001",
         "margin_account": "flex", "old_balance": 1000, "new_balance": 1000 + float(amount)}
    )  # fmt: skip


def mexc(wire: Any, amount: Decimal) -> None:
    """A transfer."""
    wire.transfers.append(
        {"id": 9001, "txid": "t9001", "currency": "USDT", "amount": float(abs(amount)), "state": "SUCCESS",
         "type": "IN" if amount > 0 else "OUT", "createTime": wire.now_ms(), "updateTime": wire.now_ms()}
    )  # fmt: skip


def alpaca(wire: Any, amount: Decimal) -> None:
    """A non-trade activity: cash that came or went."""
    wire.moves.append(
        {"id": "20210519000000000::9001", "activity_type": "CSD" if amount > 0 else "CSW", "net_amount": str(amount),
         "date": wire.now()[1].date().isoformat(), "description": "", "status": "executed"}
    )  # fmt: skip
