"""A small venue for tests of closing: it does what it says, remembers it (in a file, if asked), and never lies.

Unique client order ids, reduce-only orders that never turn a position, partial fills. What goes wrong between
it and us is put in between by the tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from killswitch.model.snapshot import AccountSnapshot, Fill, Instrument, Order, OrderSide, Position, Side
from killswitch.model.venue import OrderRejectedError, OrderReport, OrderRequest, VenueTraits
from tests.fake_venue import FakeVenue, deviating

NOW = datetime(2021, 5, 19, 12, 0, tzinfo=UTC)
ZERO = Decimal(0)
PRICE = Decimal(100)


class VirtualClock:
    """Time that passes only when someone sleeps."""

    def __init__(self, start: datetime = NOW) -> None:
        self.start = start
        self.elapsed = 0.0

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        self.elapsed += seconds


class HonestVenue(FakeVenue):
    """One account in one-way mode. Positions are signed contracts; every price is 100.

    `fill_shares`: how much of what could fill the n-th order gets, the rest of it expires; 1 after the last.
    """

    traits: VenueTraits = VenueTraits(enforces_reduce_only=True)

    def __init__(
        self,
        positions: Mapping[str, Decimal],
        *,
        account: str = "main",
        resting: Mapping[str, str] | None = None,
        fill_shares: tuple[str, ...] = (),
        step: str | None = "0.001",
        minimum: str = "0.001",
        file: Path | None = None,
    ) -> None:
        """`resting`: order id → symbol. With a `file` that exists, its state is taken and the rest ignored."""
        super().__init__()
        self.account = account
        self.file = file
        self.step = None if step is None else Decimal(step)
        self.minimum = Decimal(minimum)
        self.state: dict[str, Any] = {
            "positions": {symbol: str(amount) for symbol, amount in positions.items()},
            "resting": dict(resting or {}),
            "orders": {},
            "log": [],
            "fill_shares": list(fill_shares),
        }
        if file is not None and file.exists():
            self.state = json.loads(file.read_text())
        self._save()

    def position(self, symbol: str) -> Decimal:
        return Decimal(self.state["positions"].get(symbol, "0"))

    def traded(self, symbol: str) -> Decimal:
        """Contracts that orders have filled, over all of them."""
        orders = self.state["orders"].values()
        return sum((Decimal(order["filled"]) for order in orders if order["symbol"] == symbol), ZERO)

    def move(self, symbol: str, by: Decimal) -> None:
        """Someone else trades on the account."""
        self.state["positions"][symbol] = str(self.position(symbol) + by)
        self._save()

    @deviating
    async def snapshot(self) -> AccountSnapshot:
        held = {symbol: self.position(symbol) for symbol in self.state["positions"] if self.position(symbol)}
        return AccountSnapshot(
            account=self.account,
            venue="honest",
            market="swap",
            currency="USDT",
            quality="ok",
            observed_at=NOW,
            equity=Decimal(10_000),
            margin_used=sum((abs(amount) * PRICE / 5 for amount in held.values()), ZERO),
            position_mode="one_way",
            positions=tuple(
                Position(
                    symbol=symbol,
                    side="long" if amount > 0 else "short",
                    contracts=abs(amount),
                    mark_price=PRICE,
                    notional=abs(amount) * PRICE,
                )
                for symbol, amount in held.items()
            ),
            orders=await self.open_orders(),
            instruments=tuple(
                Instrument(symbol, contract_size=Decimal(1), amount_step=self.step, min_amount=self.minimum)
                for symbol in self.state["positions"]
            ),
        )

    @deviating
    async def submit(self, request: OrderRequest) -> OrderReport:
        orders = self.state["orders"]
        self.state["log"].append(f"submit {request.client_order_id}")
        if request.client_order_id in orders:
            raise OrderRejectedError("duplicate_client_order_id", "there is an order of this name")
        if request.amount < self.minimum:
            raise OrderRejectedError("below_minimum", f"at least {self.minimum}")
        held = self.position(request.symbol)
        against = held if request.side == "sell" else -held
        if request.reduce_only and against <= 0:
            raise OrderRejectedError("already_flat", "nothing to reduce")
        fillable = min(request.amount, against) if request.reduce_only else request.amount
        shares = self.state["fill_shares"]
        filled = fillable * Decimal(shares.pop(0)) if shares else fillable
        self.state["positions"][request.symbol] = str(held - filled if request.side == "sell" else held + filled)
        orders[request.client_order_id] = {
            "id": str(len(orders) + 1),
            "symbol": request.symbol,
            "side": request.side,
            "amount": str(request.amount),
            "filled": str(filled),
            "state": "filled" if filled == request.amount else "expired",
        }
        self._save()
        return self._report(request.client_order_id)

    @deviating
    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        self.state["log"].append(f"ask {client_order_id}")
        return self._report(client_order_id) if client_order_id in self.state["orders"] else None

    @deviating
    async def open_orders(self) -> tuple[Order, ...]:
        return tuple(
            Order(id=order, symbol=symbol, side="buy", amount=Decimal(1))
            for order, symbol in self.state["resting"].items()
        )

    @deviating
    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        order = self.state["orders"].get(client_order_id)
        if order is None or Decimal(order["filled"]) == 0:
            return ()
        side: OrderSide = order["side"]
        return (Fill(f"f{order['id']}", NOW, symbol, side, Decimal(order["filled"]), PRICE, fee=ZERO),)

    @deviating
    async def cancel(self, symbol: str, order_id: str) -> None:
        self.state["log"].append(f"cancel {order_id}")
        self.state["resting"].pop(order_id, None)
        self._save()

    async def close(self) -> None:
        """Nothing to give back."""

    def side(self, symbol: str) -> Side:
        return "long" if self.position(symbol) >= 0 else "short"

    def _report(self, name: str) -> OrderReport:
        order = self.state["orders"][name]
        return OrderReport(
            id=order["id"],
            client_order_id=name,
            symbol=order["symbol"],
            state=order["state"],
            amount=Decimal(order["amount"]),
            filled=Decimal(order["filled"]),
            average_price=PRICE,
            fee=Decimal(order["filled"]) * Decimal("0.05"),
        )

    def _save(self) -> None:
        """Whole or not at all: a venue does not lose an order because its client was killed."""
        if self.file is not None:
            temporary = self.file.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.state))
            temporary.replace(self.file)
