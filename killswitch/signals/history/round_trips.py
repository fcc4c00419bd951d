"""Round trips: what was opened and closed of one symbol and side of an account, from flat to flat.

A fill that turns a position over ends one trip and begins another. Money is in the account's currency; a P&L is net of
the fees that the trip paid under observation. Trips that an order of this program closed are none: closing would fire
the next rule. Times are microseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.model.instant import to_micros
from killswitch.model.venue import is_ours
from killswitch.signals.history.collector import Collector, Needs
from killswitch.signals.history.order_flow import WindowCoverage, longest

if TYPE_CHECKING:
    from killswitch.model.snapshot import AccountSnapshot, Fill, Side
    from killswitch.valuation.account_facts import AccountFacts
    from killswitch.valuation.scope_view import ScopeView

DUST = 1e-9
"""The part of a position, as a fraction of its largest size, below which it is flat: rounding of floats."""
Outcome = Literal["any", "loss", "stop", "liquidated"]


class RoundTrip(Struct, frozen=True, array_like=True):
    """One round trip. `profit` ÷ `entry` is its return; None if a price, a fee or the contract size is unknown.

    `is_stop`: None if another kind of order closed it at a loss: it may have been a stop that was never seen resting.
    """

    account: str
    symbol: str
    side: str
    closed_at: int
    profit: float | None
    entry: float
    is_stop: bool | None
    is_liquidated: bool

    @property
    def is_loss(self) -> bool | None:
        """Whether it lost; None if its profit is unknown."""
        return None if self.profit is None else self.profit < 0.0

    @property
    def ratio(self) -> float | None:
        """Its profit as a fraction of the notional at entry."""
        return self.profit / self.entry if self.profit is not None and self.entry > 0.0 else None


class OpenTrip(Struct):
    """A trip that has not ended: contracts held and their average price, and what it has made."""

    contracts: float = 0.0
    price: float = 0.0
    largest: float = 0.0
    entry: float = 0.0
    profit: float | None = 0.0
    is_stop: bool = False
    is_liquidated: bool = False
    is_own: bool = False


class _State(Struct):
    closed: list[RoundTrip]
    streaks: list[tuple[str, int]]
    open: list[tuple[str, str, str, OpenTrip]]
    coverage: WindowCoverage
    begun: dict[str, int]
    seen: dict[str, int]
    stops: list[tuple[str, str]]
    last_close: list[tuple[str, str, int]]
    mismatched: list[str]
    last_win: dict[str, int]
    hole_at: int | None


TripKey = tuple[str, str, str]
"""Account, symbol and side."""


class RoundTrips(Collector):
    """The round trips of a scope. Positions that are there at the first look are open trips at their entry prices.

    Fills are taken in the order of their times. Coverage ends where fills are not reported, or where what they add up
    to differs from the positions at two snapshots in a row: then positions are taken as they are.
    """

    name: ClassVar[str] = "round_trips"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._keep = longest([each for each in needs if "window" in each])
        self._max_gap = max_gap
        self.coverage = WindowCoverage()
        self._closed: deque[RoundTrip] = deque()
        self._streaks: dict[str, int] = {}
        self._last_win: dict[str, int] = {}
        self._hole_at: int | None = None
        self._open: dict[TripKey, OpenTrip] = {}
        self._begun: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._stops: set[tuple[str, str]] = set()
        self._last_close: dict[tuple[str, str], int] = {}
        self._mismatched: set[str] = set()

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Add the fills of the accounts that can be read; one that cannot leaves a hole of its own."""
        now = view.as_of
        is_whole = bool(view.facts)
        for facts in view.facts:
            account = facts.account
            if account.quality != "ok" or account.positions is None or account.fills is None:
                is_whole = False
                continue
            if account.account not in self._begun:
                self._begin(facts, now)
            self._remember_stops(account)
            for fill in sorted(account.fills, key=lambda each: each.at):
                key = f"{account.account}/{fill.id}"
                if key not in self._seen and to_micros(fill.at) >= self._begun[account.account]:
                    self._seen[key] = now
                    self._fill(facts, fill)
            is_whole = self._agrees(facts, now) and is_whole
        if is_whole:
            begun = self.coverage.begun_at
            self.coverage.observe(now, self._max_gap)
            if begun is not None and self.coverage.begun_at != begun:
                self._hole_at = now
        self._forget(now)

    def _begin(self, facts: AccountFacts, now: int) -> None:
        """Take the positions that are there as open trips."""
        self._begun[facts.name] = now
        for key in [each for each in self._open if each[0] == facts.name]:
            del self._open[key]
        for position in facts.positions or ():
            size, price = float(position.contracts), float(position.entry_price or 0)
            trip = OpenTrip(size, price, size, 0.0, 0.0 if price else None)
            value = self._money(facts, position.symbol, size, price)
            trip.entry = value or 0.0
            trip.profit = trip.profit if value is not None else None
            self._open[facts.name, position.symbol, position.side] = trip

    def _remember_stops(self, account: AccountSnapshot) -> None:
        for order in account.orders or ():
            if order.trigger_price is not None:
                self._stops.add((account.account, order.id))

    def _fill(self, facts: AccountFacts, fill: Fill) -> None:
        """Fold a fill into the trip of its side; a rest turns the position over."""
        side: Side = fill.position_side or self._side_of(facts.name, fill)
        amount, opens = float(fill.amount), (fill.side == "buy") == (side == "long")
        price = float(fill.price)
        key = (facts.name, fill.symbol, side)
        if opens:
            self._add(facts, key, amount, price, fill)
            return
        trip = self._open.get(key)
        closed = min(amount, trip.contracts) if trip is not None else 0.0
        if trip is not None and closed > 0.0:
            self._reduce(facts, key, trip, closed, closed / amount, fill)
        rest = amount - closed
        if rest > DUST * amount and fill.position_side is None:
            other: Side = "short" if side == "long" else "long"
            self._add(facts, (facts.name, fill.symbol, other), rest, price, fill, part=rest / amount)

    def _side_of(self, account: str, fill: Fill) -> Side:
        """The side of a fill that does not state it: what is open, else what it opens."""
        sides: tuple[Side, Side] = ("long", "short")
        for side in sides:
            if (account, fill.symbol, side) in self._open:
                return side
        return "long" if fill.side == "buy" else "short"

    def _add(
        self, facts: AccountFacts, key: TripKey, amount: float, price: float, fill: Fill, *, part: float = 1.0
    ) -> None:
        trip = self._open.setdefault(key, OpenTrip())
        total = trip.contracts + amount
        trip.price = (trip.price * trip.contracts + price * amount) / total
        trip.contracts, trip.largest = total, max(trip.largest, total)
        value, fee = self._money(facts, fill.symbol, amount, price), self._fee(facts, fill)
        trip.entry += value or 0.0
        trip.profit = None if trip.profit is None or fee is None or value is None else trip.profit - part * fee

    def _reduce(
        self, facts: AccountFacts, key: TripKey, trip: OpenTrip, amount: float, part: float, fill: Fill
    ) -> None:
        made, fee = self._realised(facts, key, trip, amount, part, fill), self._fee(facts, fill)
        trip.profit = None if trip.profit is None or made is None or fee is None else trip.profit + made - part * fee
        trip.contracts -= amount
        trip.is_own |= is_ours(fill.client_order_id) or is_ours(fill.order)
        is_forced = fill.cause in ("liquidation", "adl")
        trip.is_liquidated |= is_forced
        is_stop = fill.trigger_price is not None or (facts.name, fill.order or "") in self._stops
        trip.is_stop |= is_forced or is_stop
        if trip.contracts > DUST * trip.largest:
            return
        del self._open[key]
        if not trip.is_own:
            self._close(key, trip, to_micros(fill.at))

    def _close(self, key: TripKey, trip: OpenTrip, at: int) -> None:
        lost = trip.profit is None or trip.profit < 0.0
        found = RoundTrip(
            *key, at, trip.profit, trip.entry, True if trip.is_stop else None if lost else False, trip.is_liquidated
        )
        self._closed.append(found)
        self._last_close[key[0], key[1]] = at
        for per in ("", key[1]):
            if found.is_loss is False:
                self._streaks[per], self._last_win[per] = 0, at
            else:
                self._streaks[per] = self._streaks.get(per, 0) + 1

    def _realised(
        self, facts: AccountFacts, key: TripKey, trip: OpenTrip, amount: float, part: float, fill: Fill
    ) -> float | None:
        """What closing so much makes before fees: as the venue states it, else from the average price."""
        if fill.realized_pnl is not None:
            return float(fill.realized_pnl) * part
        now = self._money(facts, key[1], amount, float(fill.price))
        then = self._money(facts, key[1], amount, trip.price)
        if now is None or then is None or not trip.price:
            return None
        gain = then - now if self._is_inverse(facts, key[1]) else now - then
        return gain if key[2] == "long" else -gain

    def _money(self, facts: AccountFacts, symbol: str, amount: float, price: float) -> float | None:
        """The notional of so many contracts at a price, in the account's currency; None without a contract size."""
        rules = facts.rules.get((facts.name, symbol))
        size = None if rules is None else rules.contract_size
        if size is None or not price:
            return None
        face = amount * float(size)
        return face / price if rules is not None and rules.inverse else face * price

    def _is_inverse(self, facts: AccountFacts, symbol: str) -> bool:
        rules = facts.rules.get((facts.name, symbol))
        return rules is not None and rules.inverse

    def _fee(self, facts: AccountFacts, fill: Fill) -> float | None:
        """The fee in the account's currency; None in another one. A fill without a fee has paid none."""
        if fill.fee is None or not fill.fee:
            return 0.0
        return float(fill.fee) if fill.fee_currency in (None, facts.account.currency) else None

    def _agrees(self, facts: AccountFacts, now: int) -> bool:
        """Whether the fills add up to the positions; after two snapshots in which they do not, begin again."""
        held: dict[TripKey, float] = {(facts.name, *key): float(size) for key, size in (facts.sizes or {}).items()}
        own = {key: trip.contracts for key, trip in self._open.items() if key[0] == facts.name}
        keys = held.keys() | own.keys()
        if all(abs(held.get(key, 0.0) - own.get(key, 0.0)) <= 1e-6 * max(held.get(key, 0.0), 1e-9) for key in keys):
            self._mismatched.discard(facts.name)
            return True
        if facts.name not in self._mismatched:
            self._mismatched.add(facts.name)  # fills may be late
            return True
        self._mismatched.discard(facts.name)
        self._begin(facts, now)
        self.coverage = WindowCoverage()
        self._hole_at = now
        return True

    def _forget(self, now: int) -> None:
        edge = now - self._keep
        while self._closed and self._closed[0].closed_at < edge:
            self._closed.popleft()
        if len(self._seen) > 4096:
            self._seen = {key: at for key, at in self._seen.items() if now - at <= max(self._keep, self._max_gap)}

    def within(self, now: int, window: int, symbol: str | None = None, side: str = "any") -> Iterator[RoundTrip]:
        """The trips that closed in (now − window, now], of one symbol and side if given."""
        for trip in self._closed:
            if trip.closed_at > now - window and symbol in (None, trip.symbol) and side in ("any", trip.side):
                yield trip

    def streak(self, symbol: str | None = None) -> tuple[int, bool]:
        """Losing trips in a row up to now, of the scope or of one symbol, and whether none can be missing.

        After a hole, trips are missing until one that won.
        """
        per = symbol or ""
        is_whole = self._hole_at is None or self._last_win.get(per, -1) >= self._hole_at
        return self._streaks.get(per, 0), is_whole

    @property
    def symbols(self) -> list[str]:
        """The symbols with a closed trip."""
        return sorted({trip.symbol for trip in self._closed} | {key for key in self._streaks if key})

    def last_close(self, symbol: str) -> int | None:
        """When the last trip of the symbol closed, on any account; None if none did under observation."""
        return max((at for (_, name), at in self._last_close.items() if name == symbol), default=None)

    def restart(self, now: int, *, accept: bool) -> None:
        """Earlier trips no longer count; what is open stays open."""
        self._closed.clear()
        self._streaks.clear()
        self._hole_at = None
        self.coverage.restart(now)

    def state(self) -> object:
        return _State(
            list(self._closed), list(self._streaks.items()), [(*key, trip) for key, trip in self._open.items()],
            self.coverage, self._begun, self._seen, sorted(self._stops),
            [(*key, at) for key, at in self._last_close.items()], sorted(self._mismatched),
            self._last_win, self._hole_at,
        )  # fmt: skip

    def restore(self, stored: bytes) -> None:
        state = msgjson.decode(stored, type=_State)
        self._closed, self._streaks = deque(state.closed), dict(state.streaks)
        self._open = {(account, symbol, side): trip for account, symbol, side, trip in state.open}
        self.coverage, self._begun, self._seen = state.coverage, state.begun, state.seen
        self._stops, self._mismatched = set(state.stops), set(state.mismatched)
        self._last_close = {(account, symbol): at for account, symbol, at in state.last_close}
        self._last_win, self._hole_at = state.last_win, state.hole_at


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
    rules = facts.rules.get((facts.name, fill.symbol))
    rate = view.conversion(facts.account.currency).rate
    if rules is None or rules.contract_size is None or rate is None or not fill.price:
        return None
    face = abs(fill.amount * rules.contract_size)
    return float((face / fill.price if rules.inverse else face * fill.price) * rate)
