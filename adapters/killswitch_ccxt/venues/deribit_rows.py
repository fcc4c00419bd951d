"""Deribit's lists, and what one of them says of a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from killswitch.model.inspection import KeyRights
from killswitch_ccxt.numbers import UnreadableError

Row = Mapping[str, Any]


def rows_of(value: Any, what: str) -> list[Row]:
    """All rows of a list. UnreadableError where it is none."""
    if not isinstance(value, list) or not all(isinstance(it, Mapping) for it in value):
        raise UnreadableError(f"the venue's answer holds no list of {what}")
    return value


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
