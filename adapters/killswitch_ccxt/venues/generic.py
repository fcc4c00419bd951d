"""Any other exchange that ccxt knows: its unified calls, with what is missing detected and said."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from msgspec import structs

from killswitch.model.snapshot import Fill, Market
from killswitch.model.venue import ClientIdRule, RateLimit
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.traits import Ages, capability_table, charge

_ASKED: Final[Mapping[str, str]] = {
    "equity": "fetchBalance", "positions": "fetchPositions", "orders": "fetchOpenOrders", "fills": "fetchMyTrades",
    "flows": "fetchLedger", "prices": "fetchTickers", "market orders": "createMarketOrder",
    "limit orders": "createLimitOrder", "reduce only": "createReduceOnlyOrder", "put back stops": "createTriggerOrder",
    "position mode": "fetchPositionMode", "find by client id": "fetchOrder", "clock": "fetchTime", "bars": "fetchOHLCV",
    "sandbox": "sandbox",
}  # fmt: skip
"""Capability → the entry of ccxt's `has` that decides it."""
_NOT_GENERIC: Final[Mapping[str, str]] = {
    "trigger orders": "partly, asked for with ccxt's trigger flag; whether that brings all of them is not known",
    "batch orders": "no, no two exchanges answer a batch alike, so orders are sent one by one",
    "dead man": "no, what its timer covers is nothing that ccxt tells",
    **dict.fromkeys(("close book", "push", "key rights", "demo"), "no, not on the generic way"),
}


@cache
def generic(exchange: str) -> type[Dialect]:
    """A dialect made of what ccxt says of the exchange. ValueError if it knows none of that name."""
    described = _described(exchange)
    has = described.has
    rate = max(1, round(1000 / float(described.rateLimit or 1000)))
    members: dict[str, Any] = {
        "__doc__": f"{exchange}, spoken to by ccxt's unified calls.",
        "exchange": exchange,
        "markets": _markets(has),
        "environments": ("production", "sandbox") if has.get("sandbox") else ("production",),
        "credentials": {
            _NAMES.get(name, name): name for name, needed in described.requiredCredentials.items() if needed
        },
        "limits": (RateLimit("requests", rate * 10, 10.0, by="account"),),
        "costs": charge("requests", snapshot=3, submit=1, find_order=1, open_orders=1, fills=1, cancel=1),
        "client_ids": ClientIdRule(longest=32),
        "ages": Ages(orders=10.0, fills=30.0, flows=30.0),
        "capabilities": capability_table(
            {name: "yes" if has.get(method) else f"no, ccxt has no {method}" for name, method in _ASKED.items()}
            | dict(_NOT_GENERIC)
        ),
        "has_hedge_mode": bool(has.get("fetchPositionMode")),
        "tried": "not tried: the generic way, with what ccxt says that it has",
    }
    return type(f"Generic_{exchange}", (Generic,), members)


class Generic(Dialect):
    """What cannot be taken for granted of an exchange that nobody has looked at.

    Whether a balance has unrealised profit in it, each exchange decides for itself, so that no wallet is told; and
    whether a list of rows came whole, nobody can say.
    """

    rows_whole = frozenset()

    def refine_fill(self, fill: Fill, info: Mapping[str, Any]) -> Fill:
        """Many exchanges count trades of each symbol by themselves."""
        return structs.replace(fill, id=f"{fill.symbol}:{fill.id}")


_NAMES: Final = {
    "apiKey": "key", "password": "passphrase", "walletAddress": "wallet_address", "privateKey": "private_key",
}  # fmt: skip


def _described(exchange: str) -> Any:
    try:
        module = importlib.import_module("ccxt")
    except ImportError as error:
        raise ValueError(
            f"ccxt is not installed ({error}); install it with pip install '.[ccxt]' in a clone of Killswitch"
        ) from error
    if exchange not in module.exchanges:
        from difflib import get_close_matches

        close = get_close_matches(exchange, module.exchanges, 1)
        meant = f", did you mean {close[0]}?" if close else ""
        raise ValueError(f"ccxt knows no exchange called {exchange}{meant}")
    return getattr(module, exchange)()


def _markets(has: Mapping[str, Any]) -> tuple[Market, ...]:
    kinds: tuple[Market, ...] = ("spot", "margin", "swap", "future")
    return tuple(kind for kind in kinds if has.get(kind))
