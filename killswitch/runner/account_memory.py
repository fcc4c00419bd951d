"""Stores what the next run needs before its first snapshot: symbols held recently, and the rules of their markets.

Some venues return fills only for named symbols. Without them, the fills of a position that closed while no runner ran
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
from killswitch.runner.observers import TickReport
from killswitch.runner.status_blob import last_view

SYMBOLS_NAME: Final = "symbols"
KEPT_FOR: Final = timedelta(minutes=5)
"""How long a symbol is kept after its position is closed: its fills may arrive late."""


class HeldSymbols(Struct):
    """The stored blob: account → symbols that it held recently."""

    accounts: dict[str, list[str]] = {}


_DECODER = msgspec.json.Decoder(HeldSymbols)


def rules_name(account: str) -> str:
    """The name under which the store keeps the rules of an account."""
    return f"rules/{account}"


class AccountMemory:
    """An observer that stores what `restore_adapters` passes to the adapters of the next run, whenever it changes."""

    def __init__(self, store: Store, accounts: Mapping[str, ArmedAccount]) -> None:
        self._store = store
        self._accounts = accounts
        self._held_at: dict[str, dict[str, datetime]] = {}
        self._written = _held(store)

    def ticked(self, report: TickReport) -> None:
        """Record the symbols held now and recently; an account that could not be polled keeps its symbols."""
        as_of = report.snapshot.as_of
        for account in report.snapshot.accounts:
            if account.positions is not None:
                # A position of the last run may have closed while no runner ran: its rows may arrive late.
                earlier = dict.fromkeys(self._written.accounts.get(account.account, ()), as_of)
                symbols = (position.symbol for position in account.positions)
                held_at = self._held_at.get(account.account, earlier) | dict.fromkeys(symbols, as_of)
                self._held_at[account.account] = {it: at for it, at in held_at.items() if as_of - at <= KEPT_FOR}
        held = self._written.accounts | {name: sorted(held_at) for name, held_at in self._held_at.items()}
        if held != self._written.accounts:
            self._written = HeldSymbols(held)
            self._store.put_live(SYMBOLS_NAME, msgspec.json.encode(self._written))
        for name, armed in self._accounts.items():
            if (kept := armed.adapter.kept_rules) is not None and (rules := kept.to_keep()) is not None:
                self._store.put_live(rules_name(name), rules)


def restore_adapters(store: Store, accounts: Mapping[str, ArmedAccount]) -> None:
    """Pass what the last run stored to each account's adapter, before any request."""
    held, view = _held(store).accounts, last_view(store)
    sound = {} if view is None else {it.account: view.as_of for it in view.accounts if it.quality == "ok"}
    for name, armed in accounts.items():
        if (remember := armed.adapter.remember) is not None and name in held:
            remember(held[name], sound.get(name))
        if (kept := armed.adapter.kept_rules) is not None and (rules := store.live(rules_name(name))) is not None:
            kept.use(rules)


def _held(store: Store) -> HeldSymbols:
    # A blob of another version is ignored: the first poll then queries only the symbols that are still held.
    return decoded(_DECODER.decode, store.live(SYMBOLS_NAME)) or HeldSymbols()
