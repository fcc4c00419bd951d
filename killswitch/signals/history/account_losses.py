"""The loss of each account of a scope since an open, from a history of its own."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import json as msgjson

from killswitch.signals.history.anchored_values import OpeningValues
from killswitch.signals.history.collector import FollowedHistory, HistoryCollector, Needs
from killswitch.signals.history.windows import UNKNOWN, fall_since

if TYPE_CHECKING:
    from killswitch.model.words import ChangeCause
    from killswitch.signals.history.rows import HistoryState
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.signals.sessions import Anchor
    from killswitch.valuation.scope_view import ScopeView


class AccountLosses(HistoryCollector):
    """A history of each account, as if it were a scope: its unit value, so that transfers between accounts are no loss.

    Only their states are stored: a loss since an open needs no rows.
    """

    name = "account_losses"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._needs = needs
        self._histories: dict[str, History] = {}
        self._stored: dict[str, HistoryState] = {}
        """What was restored of accounts that were not seen since."""
        self._seen: ScopeView | None = None

    def losses(self, view: ScopeView, anchor: Anchor) -> dict[str, Interval]:
        """Account → its loss since the last open of the anchor, in the scope's currency, never negative.

        If it is unknown, it is at least 0, and at most the equity at the open.
        """
        shown = {account.account for account in view.accounts}
        found: dict[str, Interval] = dict.fromkeys((*self._stored, *shown), (0.0, math.inf))
        for name, history in self._histories.items():
            opened = history.collectors.of(OpeningValues).at_open(anchor)
            if opened is None or opened.equity <= 0:
                found[name] = 0.0, math.inf
                continue
            fall = fall_since(history, opened.value, opened.at) if name in shown else UNKNOWN
            low, high = (0.0, 1.0) if fall == UNKNOWN else fall
            found[name] = float(opened.equity) * low, float(opened.equity) * high
        return found

    def follow(self, history: FollowedHistory, equity: Decimal | None) -> None:
        """Let each account's history observe the snapshot."""
        view = history.view
        if view is None or view is self._seen:
            return  # a price of it was not corroborated
        self._seen = view
        shown = {account.account for account in view.accounts}
        if equity is not None:  # others have left the scope
            self._histories = {name: each for name, each in self._histories.items() if name in history.members}
            self._stored = {name: each for name, each in self._stored.items() if name in history.members}
        for account in view.accounts:
            own = self._histories.get(account.account)
            if own is None:
                own = self._histories[account.account] = self._history(history, account.account)
            own.observe(view if len(shown) == 1 else view.with_accounts([account]))

    def _history(self, of_scope: FollowedHistory, account: str) -> History:
        from killswitch.signals.history.scope import History

        own = History((), 0, of_scope.terms, collectors={OpeningValues: self._needs})
        stored = self._stored.pop(account, None)
        if stored is not None:
            own.restore(stored, ())
        return own

    def restate(self, change: str, cause: ChangeCause, now: int) -> None:
        """Restate the change in the history of its account."""
        for each in self._histories.values():
            each.restate(change, cause, now)

    def restart(self, now: int, *, accept: bool) -> None:
        """Accept what is unexplained, as the reset does in the scope; opens are not moved."""
        for each in self._histories.values():
            if accept:
                each.accept_until(now, now)
            each.rebase(accept=accept)

    def state(self) -> dict[str, HistoryState]:
        """The state of each account's history."""
        return {**self._stored, **{name: each.state() for name, each in self._histories.items()}}

    def restore(self, stored: bytes) -> None:
        """Restore each account's history when the account is seen first."""
        from killswitch.signals.history.rows import HistoryState

        self._stored = msgjson.decode(stored, type=dict[str, HistoryState])
