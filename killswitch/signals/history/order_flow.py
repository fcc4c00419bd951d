"""Collectors of orders: when each was first seen in a scope, and which of our own the venue refused."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.signals.arguments import Value
from killswitch.signals.history.collector import Collector, Needs

if TYPE_CHECKING:
    from killswitch.model.snapshot import AccountSnapshot
    from killswitch.valuation.scope_view import ScopeView

OrderKey = tuple[str, str]
"""Account and id of an order."""
ROWS_REPEATED = 48 * HOUR
"""How long a row may be reported again: by a pass that repeats an account, or by the first poll of a later run."""
OWN_FILLS_WITHIN = MINUTE
"""How long after an order of ours a fill of its symbol without a client order id may be of it: rows arrive late."""


def are_ours(*names: str | None) -> bool:
    """Whether one of the ids of an order or a fill is a client order id of this program."""
    from killswitch.model.venue import is_ours

    return any(map(is_ours, names))


def longest(needs: Needs, key: str = "window") -> int:
    """The longest duration of that key in the arguments (microseconds)."""
    return max((_micros(arguments, key) for arguments in needs), default=0)


def _micros(arguments: Mapping[str, Value], key: str) -> int:
    value = arguments[key]
    if not isinstance(value, int):
        raise TypeError(f"the argument {key} is a duration, not {value!r}")
    return value


def without_old(rows: dict[str, int], now: int) -> dict[str, int]:
    """Row → its time, without those that are reported no more."""
    return {key: at for key, at in rows.items() if now - at <= ROWS_REPEATED} if rows else rows


class WindowCoverage(Struct):
    """Since when snapshots were observed without a gap (microseconds). A reset makes what precedes it irrelevant."""

    begun_at: int | None = None
    last_at: int | None = None
    is_rebased: bool = False

    def observe(self, now: int, max_gap: int) -> None:
        """Add a snapshot; after a gap, coverage begins with it."""
        if self.begun_at is None or (self.last_at is not None and now - self.last_at > max_gap):
            self.begun_at, self.is_rebased = now, False
        self.last_at = now

    def restart(self, now: int) -> None:
        """A reset: windows begin now and count as complete."""
        self.begun_at, self.last_at, self.is_rebased = now, now, True

    def reaches(self, edge: int) -> bool:
        """Whether everything since `edge` was observed."""
        return self.begun_at is not None and (self.is_rebased or self.begun_at <= edge)


class _SeenState(Struct):
    times: list[int]
    known: list[tuple[str, str, int]]
    resting: list[OrderKey]
    observed: dict[str, int]
    own: list[tuple[str, str, int]]


class SeenOrders(Collector):
    """When each order of a scope was first seen, by the open orders and the fills of others than this program.

    An order that is placed and gone between two polls without a fill is never seen, so that a count is a lower bound.
    Orders that are there at the first look, or after a gap, are dated by when they were created; without that they may
    be as old as the last look.
    """

    name: ClassVar[str] = "seen_orders"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._keep = longest(needs)
        self._max_gap = max_gap
        self._times: list[int] = []
        self._known: dict[OrderKey, int] = {}
        self._resting: dict[str, frozenset[str]] = {}
        self._observed: dict[str, int] = {}
        self._own: dict[OrderKey, int] = {}
        """Account and symbol of an order of ours → when it was last reported."""

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Add the orders and fills of the accounts that can be read."""
        now = view.as_of
        for own in (None if view.tick is None else view.tick.own_orders) or ():
            self._own[own.account, own.symbol] = now
        for facts in view.facts:
            account = facts.account
            if account.quality == "ok" and account.orders is not None:
                self._observe(account, now)
        self._forget(now)

    def _observe(self, account: AccountSnapshot, now: int) -> None:
        name, last = account.account, self._observed.get(account.account)
        is_new = last is None
        since = now if last is None or now - last <= self._max_gap else last
        for order in account.orders or ():
            key = (name, order.id)
            if key in self._known or are_ours(order.client_order_id):
                continue
            created = None if order.created_at is None else min(now, to_micros(order.created_at))
            at = created if created is not None else None if is_new else since
            self._add(key, at, now)
        for key, at in self._filled(account, now):
            self._add(key, None if is_new else at, now)
        self._resting[name] = frozenset(order.id for order in account.orders or ())
        self._observed[name] = now

    def _filled(self, account: AccountSnapshot, now: int) -> Iterator[tuple[OrderKey, int]]:
        """The orders of fills that no list of open orders has shown."""
        for fill in account.fills or ():
            key = (account.account, fill.order or "")
            if fill.order is None or fill.cause != "trade" or key in self._known:
                continue
            if are_ours(fill.client_order_id, fill.order):
                continue
            own = self._own.get((account.account, fill.symbol))
            if fill.client_order_id is None and own is not None and now - own <= OWN_FILLS_WITHIN:
                continue  # it may be ours, and a count that is too low is not wrong
            yield key, min(now, to_micros(fill.at))

    def _add(self, key: OrderKey, at: int | None, now: int) -> None:
        """`at`: when it was first seen; None if it may be older than the window."""
        self._known[key] = now if at is None else at
        if at is not None and at >= now - self._keep:
            insort(self._times, at)

    def _forget(self, now: int) -> None:
        edge = now - self._keep
        del self._times[: bisect_left(self._times, edge)]
        if len(self._known) > 2 * (len(self._times) + sum(map(len, self._resting.values()))) + 64:
            resting = {(account, order) for account, orders in self._resting.items() for order in orders}
            self._known = {key: at for key, at in self._known.items() if at >= edge or key in resting}
        if self._own:
            self._own = {key: at for key, at in self._own.items() if now - at <= OWN_FILLS_WITHIN}

    def count(self, now: int, window: int) -> int:
        """The orders first seen in [now − window, now]."""
        return len(self._times) - bisect_left(self._times, now - window)

    def restart(self, now: int, *, accept: bool) -> None:
        """Orders that were seen before no longer count; those that rest are no new ones."""
        self._times.clear()

    def state(self) -> object:
        """The times, and the orders that must not be counted again."""
        return _SeenState(
            self._times, [(*key, at) for key, at in self._known.items()],
            [(account, order) for account, orders in self._resting.items() for order in orders],
            self._observed, [(*key, at) for key, at in self._own.items()],
        )  # fmt: skip

    def restore(self, stored: bytes) -> None:
        """Restore them. MsgspecError if they are damaged."""
        state = msgjson.decode(stored, type=_SeenState)
        self._times, self._observed = sorted(state.times), state.observed
        self._known = {(account, order): at for account, order, at in state.known}
        self._own = {(account, symbol): at for account, symbol, at in state.own}
        by_account: dict[str, set[str]] = {name: set() for name in self._observed}
        for account, order in state.resting:
            by_account.setdefault(account, set()).add(order)
        self._resting = {account: frozenset(orders) for account, orders in by_account.items()}


class _RefusedState(Struct):
    refused: dict[str, int]
    coverage: WindowCoverage
    before_reset: dict[str, int] = {}


class OwnRefusals(Collector):
    """The refusals of our own orders on the accounts of a scope, each once."""

    name: ClassVar[str] = "own_refusals"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._keep = longest(needs)
        self._max_gap = max_gap
        self._refused: dict[str, int] = {}
        """Client order id and time of the refusal → the time."""
        self._before_reset: dict[str, int] = {}
        """Those before the last reset, which do not count where a later snapshot reports them once more."""
        self._coverage = WindowCoverage()

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Add the refusals that became known since the last snapshot."""
        own = None if view.tick is None else view.tick.own_orders
        if own is None:
            return
        now = view.as_of
        self._coverage.observe(now, self._max_gap)
        if own:
            accounts = {account.account for account in view.accounts}
            for order in own:
                if order.fate == "rejected" and order.account in accounts:
                    key = f"{order.client_order_id}/{to_micros(order.at)}"
                    if key not in self._before_reset:
                        self._refused[key] = min(now, to_micros(order.at))
        self._before_reset = without_old(self._before_reset, now)
        if self._refused:
            self._refused = {key: at for key, at in self._refused.items() if at >= now - self._keep}

    def count(self, now: int, window: int) -> tuple[int, bool] | None:
        """The refusals in [now − window, now], and whether all of it was observed; None before any observation."""
        if self._coverage.last_at is None or now - self._coverage.last_at > self._max_gap:
            return None
        return sum(at >= now - window for at in self._refused.values()), self._coverage.reaches(now - window)

    def restart(self, now: int, *, accept: bool) -> None:
        """Earlier refusals no longer count."""
        self._before_reset |= self._refused
        self._refused.clear()
        self._coverage.restart(now)

    def state(self) -> object:
        """The refusals, and what was observed."""
        return _RefusedState(self._refused, self._coverage, self._before_reset)

    def restore(self, stored: bytes) -> None:
        """Restore them. MsgspecError if they are damaged."""
        state = msgjson.decode(stored, type=_RefusedState)
        self._refused, self._coverage = state.refused, state.coverage
        self._before_reset = state.before_reset
