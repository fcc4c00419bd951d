"""The generic dialect of any other exchange that ccxt knows: unified calls, with capabilities that ccxt reports."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from msgspec.structs import replace

from killswitch.model.fitting import did_you_mean
from killswitch.model.parsing import Row, at_least_zero
from killswitch.model.snapshot import Fill, Flow, Order, Position
from killswitch.model.venue import ClientIdRule, RateLimit
from killswitch_ccxt import fills, orders
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.errors import GoneError
from killswitch_ccxt.traits import Ages, call_costs, capability_table
from killswitch_ccxt.validation import WALLET, WITH_PASSPHRASE, not_installed_text

_CCXT_METHODS: Final[Mapping[str, str]] = {
    "equity": "fetchBalance", "positions": "fetchPositions", "orders": "fetchOpenOrders", "fills": "fetchMyTrades",
    "flows": "fetchLedger", "prices": "fetchTickers", "market orders": "createMarketOrder",
    "limit orders": "createLimitOrder", "reduce only": "createReduceOnlyOrder", "put back stops": "createTriggerOrder",
    "position mode": "fetchPositionMode", "find by client id": "fetchOrder", "clock": "fetchTime", "bars": "fetchOHLCV",
    "sandbox": "sandbox",
}  # fmt: skip
"""Capability → the entry of ccxt's `has` that decides about it."""
_NOT_GENERIC: Final[Mapping[str, str]] = {
    "trigger orders": "partly, requested with ccxt's trigger flag; it is unknown whether that returns all of them",
    "batch orders": "no, answers to a batch differ by exchange, so orders are sent one by one",
    "dead man": "no, ccxt does not state what the timer covers",
    **dict.fromkeys(("close book", "push", "key rights", "demo"), "no, not in the generic dialect"),
}


@cache
def generic(exchange: str) -> type[Dialect]:
    """A dialect from ccxt's description of the exchange. ValueError if ccxt has no exchange of that name."""
    described = _described(exchange)
    has = described.has
    rate = max(1, round(1000 / float(described.rateLimit or 1000)))
    members: dict[str, Any] = {
        "__doc__": f"{exchange}, by ccxt's unified calls.",
        "exchange": exchange,
        "markets": tuple(kind for kind in ("spot", "margin", "swap", "future") if has.get(kind)),
        "environments": ("production", "sandbox") if has.get("sandbox") else ("production",),
        "credentials": {
            _CREDENTIAL_NAMES.get(it, it): it for it, needed in described.requiredCredentials.items() if needed
        },
        "limits": (RateLimit("requests", rate * 10, 10.0, by="account"),),
        "costs": call_costs("requests", snapshot=3, submit=1, find_order=1, open_orders=1, fills=1, cancel=1),
        "client_ids": ClientIdRule(longest=32),
        "ages": Ages(orders=10.0, fills=30.0, flows=30.0),
        "capabilities": capability_table(
            {name: "yes" if has.get(method) else f"no, ccxt has no {method}" for name, method in _CCXT_METHODS.items()}
            | dict(_NOT_GENERIC)
        ),
        "has_hedge_mode": bool(has.get("fetchPositionMode")),
        "tried": "not tested: the generic dialect, with the capabilities that ccxt reports",
    }
    return type(f"Generic_{exchange}", (Generic,), members)


class Generic(Dialect):
    """The dialect of an exchange that was not examined.

    Whether a balance includes unrealised profit is unknown, so no wallet is reported; whether a list of rows is
    complete is unknown, too.
    """

    complete_lists = frozenset()

    @classmethod
    def enforces_reduce_only(cls, market: str) -> bool | None:
        """Unknown: ccxt states that such orders can be sent, and not what the exchange does with them."""
        return None if super().enforces_reduce_only(market) else False

    async def spot_account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        """The balances as positions.

        UnreadableError for a negative amount: whether this exchange writes debts so is unknown, and a holding must not
        become a short position.
        """

        async def balance() -> Row:
            found: Row = await self.client.call("fetch_balance")
            for part in ("total", "free", "used"):
                for asset, amount in (found.get(part) or {}).items():
                    if amount is not None:
                        at_least_zero(amount, f"the amount {part} of {asset}")
            return found

        return await self.value_spot_account(balance())

    async def orders(self) -> tuple[Order, ...]:
        """All open orders, conditional ones included."""
        return orders.open_orders(map(self.refine_order, await self.client.call("fetch_open_orders")))

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        """Fills from `since` (UTC ms) on; of `symbols` only, where the venue requires symbols."""
        requested = symbols if self.fills_need_symbol else (None,)
        answers = await asyncio.gather(*(self.client.call("fetch_my_trades", symbol, since) for symbol in requested))
        return fills.fills((row for rows in answers for row in rows), self.refine_fill)

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        """Deposits, withdrawals and other flows from `since` (UTC ms) on; None where the venue does not list them."""
        has = self.client.ccxt.has
        if has.get("fetchLedger"):
            return fills.flows(await self.client.call("fetch_ledger", None, since))
        if has.get("fetchDeposits") and has.get("fetchWithdrawals"):
            methods = ("fetch_deposits", "fetch_withdrawals")
            deposits, withdrawals = await asyncio.gather(*(self.client.call(method, None, since) for method in methods))
            return fills.completed_moves(deposits, "deposit", 1) + fills.completed_moves(withdrawals, "withdrawal", -1)
        return None

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """ccxt's order with this client id, open or not; None only if the venue states that it has none."""
        try:
            row: Row = await self.client.call("fetch_order", None, symbol, {"clientOrderId": client_order_id})
        except GoneError:
            return None
        return row

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        """The fills of one order."""
        rows = await self.client.call("fetch_my_trades", symbol, None, None, {"orderId": order_id})
        return fills.fills_of_order(fills.fills(rows, self.refine_fill), order_id)

    def refine_fill(self, fill: Fill, info: Mapping[str, Any]) -> Fill:
        """The fill with the symbol in its id: many exchanges number the trades of each symbol separately."""
        return replace(fill, id=f"{fill.symbol}:{fill.id}")


_CREDENTIAL_NAMES: Final = {name: key for key, name in {**WITH_PASSPHRASE, **WALLET}.items()}


def _described(exchange: str) -> Any:
    try:
        module = importlib.import_module("ccxt")
    except ImportError as error:
        raise ValueError(not_installed_text(error)) from error
    if exchange not in module.exchanges:
        raise ValueError(f"ccxt knows no exchange called {exchange}{did_you_mean(exchange, module.exchanges)}")
    return getattr(module, exchange)()
