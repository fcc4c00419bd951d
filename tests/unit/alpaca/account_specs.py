"""Account specifications for Alpaca, as from documents."""

from __future__ import annotations

from typing import Any

from killswitch.model.venue import AccountSpec


def spec(**more: Any) -> AccountSpec:
    """A paper account with planted keys, changed by the given fields."""
    base: dict[str, Any] = {
        "account": "main", "adapter": "alpaca", "market": "equity", "currency": "USD", "environment": "sandbox",
        "endpoint": None, "options": {}, "credentials": {"key": "KEY-PLANTED", "secret": "SECRET-PLANTED"},
    }  # fmt: skip
    return AccountSpec(**(base | more))
