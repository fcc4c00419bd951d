"""Stores what the next run needs before its first snapshot: symbols held lately, and the rules of their markets.

Some venues return fills only for named symbols. Without these, the fills of a position that closed while no runner ran
would never be queried, and its loss would stay unexplained.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct

from killswitch.accounts.arming import ArmedAccount
from killswitch.model.store import Store, decoded
from killswitch.model.venue import RememberingVenue, RuleKeepingVenue
from killswitch.runner.observers import TickReport
from killswitch.runner.status_blob import last_view

SYMBOLS_NAME: Final = "symbols"
KEPT_FOR: Final = timedelta(minutes=5)
"""How long a symbol is kept after its position is closed: its fills may arrive late."""


class HeldSymbols(Struct):
    """The blob: account → symbols that it held lately."""

    accounts: dict[str, list[str]] = {}


_DECODER = msgspec.json.Decoder(HeldSymbols)


def rules_name(account: str) -> str:
    """The name that the rules of an account are kept by."""
    return f"rules/{account}"


class AccountMemory:
    """An observer that stores what `remind` passes to the adapters of the next run, whenever it changes."""

    def __init__(self, store: Store, accounts: Mapping[str, ArmedAccount]) -> None:
        self._store = store
        self._accounts = accounts
        self._seen: dict[str, dict[str, datetime]] = {}
        self._written = _held(store)

    def ticked(self, report: TickReport) -> None:
        """Record the symbols held now and lately; an account that could not be polled keeps its own."""
        as_of = report.snapshot.as_of
        for account in report.snapshot.accounts:
            if account.positions is not None:
                # What the last run left may have closed while nobody looked: its rows may come as late.
                left = dict.fromkeys(self._written.accounts.get(account.account, ()), as_of)
                symbols = (position.symbol for position in account.positions)
                seen = self._seen.get(account.account, left) | dict.fromkeys(symbols, as_of)
                self._seen[account.account] = {it: at for it, at in seen.items() if as_of - at <= KEPT_FOR}
        held = self._written.accounts | {name: sorted(seen) for name, seen in self._seen.items()}
        if held != self._written.accounts:
            self._written = HeldSymbols(held)
            self._store.put_live(SYMBOLS_NAME, msgspec.json.encode(self._written))
        for name, armed in self._accounts.items():
            if isinstance(armed.adapter, RuleKeepingVenue) and (rules := armed.adapter.rules_to_keep()) is not None:
                self._store.put_live(rules_name(name), rules)


def restore_adapters(store: Store, accounts: Mapping[str, ArmedAccount]) -> None:
    """Pass what the last run stored to each account's adapter, before any request."""
    held, view = _held(store).accounts, last_view(store)
    sound = {} if view is None else {it.account: view.as_of for it in view.accounts if it.quality == "ok"}
    for name, armed in accounts.items():
        if isinstance(armed.adapter, RememberingVenue) and name in held:
            armed.adapter.remember(held[name], sound.get(name))
        if isinstance(armed.adapter, RuleKeepingVenue) and (rules := store.live(rules_name(name))) is not None:
            armed.adapter.use_rules(rules)


def _held(store: Store) -> HeldSymbols:
    # Where another version wrote it, the first reading asks only for what is still held.
    return decoded(_DECODER.decode, store.live(SYMBOLS_NAME)) or HeldSymbols()
