"""The fills of a scope that are not of this program: what the venue closed, and how much was traded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.model.instant import to_micros
from killswitch.model.venue import is_ours
from killswitch.signals.history.collector import Collector, Needs
from killswitch.signals.history.order_flow import WindowCoverage, longest
from killswitch.valuation.fill_money import notional_of

if TYPE_CHECKING:
    from killswitch.model.snapshot import Fill
    from killswitch.valuation.account_facts import AccountFacts
    from killswitch.valuation.scope_view import ScopeView


class _FilledState(Struct):
    rows: list[tuple[int, str, str, float | None]]
    coverage: WindowCoverage


class FilledByOthers(Collector):
    """The fills of a scope that are not of this program: time, cause, and notional in the scope's currency."""

    name: ClassVar[str] = "filled"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._keep = longest(needs)
        self._max_gap = max_gap
        self._rows: dict[str, tuple[int, str, float | None]] = {}
        self.coverage = WindowCoverage()

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Add the fills that became known; without them, or without an account, coverage has a hole."""
        now = view.as_of
        is_whole = bool(view.facts)
        for facts in view.facts:
            account = facts.account
            if account.quality != "ok" or account.fills is None:
                is_whole = False
                continue
            for fill in account.fills:
                if not is_ours(fill.client_order_id) and not is_ours(fill.order):
                    key = f"{account.account}/{fill.id}"
                    self._rows.setdefault(key, (min(now, to_micros(fill.at)), fill.cause, _notional(view, facts, fill)))
        if is_whole:
            self.coverage.observe(now, self._max_gap)
        if self._rows:
            edge = now - self._keep
            self._rows = {key: row for key, row in self._rows.items() if row[0] >= edge}

    def within(self, now: int, window: int) -> Iterator[tuple[str, float | None]]:
        """Cause and notional of the fills in [now − window, now]."""
        return ((cause, value) for at, cause, value in self._rows.values() if at >= now - window)

    def restart(self, now: int, *, accept: bool) -> None:
        """Earlier fills no longer count."""
        self._rows = {key: (now - self._keep - 1, cause, value) for key, (_, cause, value) in self._rows.items()}
        self.coverage.restart(now)

    def state(self) -> object:
        rows = [(at, key, cause, value) for key, (at, cause, value) in self._rows.items()]
        return _FilledState(rows, self.coverage)

    def restore(self, stored: bytes) -> None:
        state = msgjson.decode(stored, type=_FilledState)
        self._rows = {key: (at, cause, value) for at, key, cause, value in state.rows}
        self.coverage = state.coverage


def _notional(view: ScopeView, facts: AccountFacts, fill: Fill) -> float | None:
    """The fill's notional in the scope's currency; None without a contract size or a rate."""
    rate = view.conversion(facts.account.currency).rate
    value = notional_of(facts, fill.symbol, float(fill.amount), float(fill.price))
    return None if rate is None or value is None else value * float(rate)
