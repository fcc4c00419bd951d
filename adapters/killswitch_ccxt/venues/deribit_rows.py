"""Deribit's lists, and what one of them says of a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from killswitch.model.inspection import KeyRights
from killswitch_ccxt.numbers import UnreadableError, needed

Row = Mapping[str, Any]
PERIODS = frozenset({"perpetual", "day", "week", "month"})
"""How long futures live: of another word nobody knows here whether they end."""


def rows_of(value: Any, what: str) -> list[Row]:
    """All rows of a list. UnreadableError where it is none."""
    if not isinstance(value, list) or not all(isinstance(it, Mapping) for it in value):
        raise UnreadableError(f"the venue's answer holds no list of {what}")
    return value


def is_told(rule: Row) -> bool:
    """Whether a contract says how long it lives, and settles in a coin that it is of: else it would be another one."""
    if not rule.get("contract"):
        return True
    lives = rule.get("option") or (rule.get("info") or {}).get("settlement_period") in PERIODS
    return bool(lives) and rule.get("settle") in (rule.get("base"), rule.get("quote"))


def position_row(info: Row, symbol: str | None) -> dict[str, Any]:
    """A position under ccxt's names, which takes every direction but `buy` for a short one.

    UnreadableError where the direction contradicts the size, which is signed, or either is not told.
    """
    name, direction = info.get("instrument_name"), info.get("direction")
    size = needed(info.get("size"), f"the size of position {name}")
    if size and direction != ("buy" if size > 0 else "sell"):
        raise UnreadableError(f"position {name}: its size is {size}, and its direction {direction!r}")
    return {
        "symbol": symbol if symbol is not None else name, "side": "long" if size > 0 else "short", "contracts": size,
        "entryPrice": info.get("average_price"), "markPrice": info.get("mark_price"), "leverage": info.get("leverage"),
        "liquidationPrice": info.get("estimated_liquidation_price"), "info": info,
    }  # fmt: skip


def rights_of(keys: Sequence[Row], key: str) -> KeyRights:
    """Of the list of the account's keys, what it says of this one."""
    ours = [it for it in keys if it.get("client_id") == key]
    if not ours:
        return KeyRights(note="the venue's list of keys does not name this one")
    scopes = dict(each.partition(":")[::2] for each in str(ours[0].get("max_scope", "")).split())
    return KeyRights(
        read=scopes.get("account") in ("read", "read_write"),
        trade=scopes.get("trade") == "read_write",
        withdraw=scopes.get("wallet") == "read_write",
        transfer=scopes.get("wallet") == "read_write",
        bound_to_addresses=bool(ours[0].get("ip_whitelist")),
    )
