"""Short constructors of snapshots for tests: one account, one instant, money as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

from killswitch.model.snapshot import (
    AccountSnapshot,
    Closing,
    Event,
    EventKind,
    Fill,
    Flow,
    Instrument,
    Order,
    OrderSide,
    Position,
    Side,
    Snapshot,
)

START = datetime(2024, 1, 1, tzinfo=UTC)


def after(**duration: float) -> datetime:
    """START plus a duration: `after(minutes=15)`."""
    return START + timedelta(**duration)


def position(symbol: str, side: str, pnl: str | None = None, **more: Any) -> Position:
    """An open position; `pnl` is its unrealised profit; further fields as text."""
    fields: dict[str, Any] = {"contracts": "1", **more}
    numbers: dict[str, Any] = {
        k: Decimal(v) if isinstance(v, str) and k != "strategy" else v for k, v in fields.items()
    }
    profit = None if pnl is None else Decimal(pnl)
    return Position(symbol=symbol, side=cast(Side, side), unrealized_pnl=profit, **numbers)


def rules(symbol: str, **more: Any) -> Instrument:
    """A linear instrument of contract size 1 and step 0.001, unless said otherwise."""
    fields: dict[str, Any] = {"contract_size": "1", "amount_step": "0.001", "min_amount": "0.001", **more}
    kept = ("state", "inverse")
    known: dict[str, Any] = {k: v if k in kept else Decimal(v) for k, v in fields.items()}
    return Instrument(symbol=symbol, **known)


def account(
    equity: str | None,
    positions: Sequence[Position] | None = (),
    *,
    name: str = "main",
    quality: str = "ok",
    reason: str | None = None,
    flows: Sequence[Flow] = (),
    fills: Sequence[Fill] = (),
    orders: Sequence[Order] = (),
    instruments: Sequence[Instrument] = (),
    **more: Any,
) -> AccountSnapshot:
    """One swap account in USDT."""
    known: dict[str, Any] = {k: Decimal(v) if isinstance(v, str) and k in MONEY else v for k, v in more.items()}
    return AccountSnapshot(
        account=name, venue=known.pop("venue", "paper"), market=known.pop("market", "swap"),
        currency=known.pop("currency", "USDT"),
        quality=quality,  # type: ignore[arg-type]  # literal by the caller
        reason=reason, equity=None if equity is None else Decimal(equity),
        positions=None if positions is None else tuple(positions),
        flows=tuple(flows), fills=tuple(fills), orders=tuple(orders), instruments=tuple(instruments),
        **known,
    )  # fmt: skip


MONEY = ("free", "margin_used", "maintenance_margin")


def snapshot(
    at: datetime,
    *accounts: AccountSnapshot,
    events: Sequence[Event] = (),
    closings: Sequence[Closing] = (),
    scheduled: bool = True,
) -> Snapshot:
    """A snapshot of all accounts at `at`."""
    return Snapshot(
        as_of=at, accounts=accounts, format="killswitch.snapshot/v1", scheduled=scheduled,
        events=tuple(events), closings=tuple(closings),
    )  # fmt: skip


def flow(id_: str, at: datetime, amount: str, kind: str = "withdrawal", currency: str = "USDT") -> Flow:
    """Money in (+) or out (−)."""
    return Flow(id=id_, at=at, kind=kind, amount=Decimal(amount), currency=currency)  # type: ignore[arg-type]  # literal


def fill(id_: str, at: datetime, symbol: str, side: str, amount: str, price: str, **more: Any) -> Fill:
    """A fill; `realized_pnl`, `fee` as text."""
    fields: dict[str, Any] = {k: Decimal(v) if k in ("realized_pnl", "fee") else v for k, v in more.items()}
    return Fill(
        id=id_,
        at=at,
        symbol=symbol,
        side=cast(OrderSide, side),
        amount=Decimal(amount),
        price=Decimal(price),
        **fields,
    )


def operator_event(
    kind: EventKind, at: datetime, scope: str | None = "account/main", id_: str = "e1", **more: Any
) -> Event:
    """An operator's command as an event."""
    return Event(id=id_, at=at, kind=kind, scope=scope, author="operator-1", reason="reviewed", **more)
