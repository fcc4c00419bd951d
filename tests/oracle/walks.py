"""Made-up recordings in the public format: one account whose equity follows the test.

Every change of equity is explained (one long position with its P&L, and flows), and mark, index and last
price agree, so that the recordings stay inside the domain of the naive implementation.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from msgspec import Struct, field

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
CENT = Decimal("0.01")
PRICE = Decimal(1000)


class Walk(Struct):
    """Builds snapshots one by one; `leverage` is gross notional ÷ equity at the start.

    `size` scales the position; `cash` is to be scaled with it.
    """

    leverage: int = 1
    size: Decimal | int = 1
    account: str = "main"
    market: str = "swap"
    at: datetime = BEGIN
    price: Decimal = PRICE
    cash: Decimal = Decimal(100_000)
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    _flows: list[dict[str, Any]] = field(default_factory=list)
    _events: list[dict[str, Any]] = field(default_factory=list)
    _rows: int = 0

    @property
    def contracts(self) -> Decimal:
        return Decimal(100) * self.leverage * self.size

    @property
    def profit(self) -> Decimal:
        return (self.price - PRICE) * self.contracts

    @property
    def equity(self) -> Decimal:
        return self.cash + self.profit

    def wait(self, seconds: int) -> Walk:
        """Let time pass without a snapshot."""
        self.at += timedelta(seconds=seconds)
        return self

    def move(self, fraction: Decimal) -> Walk:
        """Change the price by `fraction` of itself, in whole cents, staying above zero."""
        self.price = max(CENT, (self.price * (1 + fraction)).quantize(CENT))
        return self

    def equity_to(self, equity: Decimal) -> Walk:
        """Put the price where equity is exactly `equity`."""
        self.price = PRICE + (equity - self.cash) / self.contracts
        return self

    def flow(self, amount: Decimal, kind: str = "withdrawal") -> Walk:
        """Money in (+) or out (−), reported by the next readable snapshot."""
        self._rows += 1
        self.cash += amount
        self._flows.append(
            {
                "id": f"w{self._rows}",
                "at": stamp(self.at),
                "kind": kind,
                "amount": str(amount),
                "currency": "USDT",
            }
        )
        return self

    def operator_reset(self) -> Walk:
        """An operator resets the account; the next snapshot has the event."""
        self._rows += 1
        self._events.append(
            {"id": f"e{self._rows}", "at": stamp(self.at), "kind": "reset",
             "scope": f"account/{self.account}", "author": "operator-1", "reason": "reviewed"}
        )  # fmt: skip
        return self

    def see(self, quality: str = "ok") -> Walk:
        """Observe the account: one more snapshot."""
        account: dict[str, Any] = {
            "account": self.account, "venue": "paper", "market": self.market, "currency": "USDT",
            "quality": quality,
        }  # fmt: skip
        if quality != "ok":
            account["reason"] = f"made {quality}"
        if quality in {"ok", "stale"}:
            account |= self._numbers()
        if quality == "ok":
            account["flows"], self._flows = self._flows, []
        self.snapshots.append(
            {
                "format": "killswitch.snapshot/v1",
                "as_of": stamp(self.at),
                "accounts": [account],
                "events": self._events,
            }
        )
        self._events = []
        return self

    def _numbers(self) -> dict[str, Any]:
        price, notional = str(self.price), self.price * self.contracts
        position = {
            "symbol": "X_USDT", "side": "long", "contracts": str(self.contracts), "entry_price": str(PRICE),
            "mark_price": price, "index_price": price, "last_price": price, "notional": str(notional),
            "margin": str(notional / 10), "leverage": "10", "unrealized_pnl": str(self.profit),
        }  # fmt: skip
        rules = {
            "symbol": "X_USDT",
            "contract_size": "1",
            "amount_step": "1",
            "min_amount": "1",
            "state": "open",
        }
        return {
            "observed_at": stamp(self.at), "equity": str(self.equity), "margin_used": str(notional / 10),
            "maintenance_margin": str(notional / 100), "position_mode": "one_way",
            "positions": [position], "orders": [], "fills": [], "instruments": [rules],
        }  # fmt: skip


def stamp(at: datetime) -> str:
    """RFC 3339 with a Z."""
    return at.isoformat().replace("+00:00", "Z")
