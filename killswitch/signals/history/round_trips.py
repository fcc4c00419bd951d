"""Round trips: what was opened and closed of one symbol and side of an account, from flat to flat.

A fill that turns a position over ends one trip and begins another. Entry prices are averaged. Money is in the account's
currency; a profit is net of the fees that the fills state. What an order of this program opens or closes is in no trip,
or closing would fire the next rule. Times are microseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.model.instant import HOUR, SECOND, to_micros
from killswitch.signals.history.collector import Collector, Needs
from killswitch.signals.history.fills import fee_of, notional_of
from killswitch.signals.history.order_flow import OWN_FILLS_WITHIN, WindowCoverage, are_ours, longest

if TYPE_CHECKING:
    from decimal import Decimal

    from killswitch.model.snapshot import AccountSnapshot, Fill, Side
    from killswitch.valuation.account_facts import AccountFacts
    from killswitch.valuation.held_positions import SizeKey
    from killswitch.valuation.scope_view import ScopeView

DUST = 1e-9
"""The fraction of its largest size below which a position is flat, and of its entry within which a profit is zero."""
LATE = 300 * SECOND
"""How long a fill may be late before it is missing."""
SETTLED = 30 * SECOND
"""How long positions and fills may be of two moments."""
STOPS_KEPT = 48 * HOUR
"""How long an order that has left the book is known to have been a stop."""
ROWS_KEPT = 48 * HOUR
"""How long the ids of fills are kept; venues repeat no older ones."""
Outcome = Literal["any", "loss", "stop", "liquidated"]
TripKey = tuple[str, str, str]
"""Account, symbol and side."""


class RoundTrip(Struct, frozen=True, array_like=True):
    """One round trip. `profit` ÷ `entry` is its return; None if what it depends on was not observed.

    `by_stop`: whether it ended by an order that was seen resting with a trigger price, or by the venue. `is_doubtful`:
    an order of this program may have closed it, because its fills do not state whose they are.
    """

    account: str
    symbol: str
    side: str
    closed_at: int
    profit: float | None
    entry: float
    by_stop: bool
    is_liquidated: bool
    is_doubtful: bool

    @property
    def is_loss(self) -> bool | None:
        """Whether it lost; None if its profit is unknown."""
        return None if self.profit is None else self.profit < -DUST * self.entry

    @property
    def is_stop(self) -> bool | None:
        """Whether it lost by a stop; None if another order closed it at a loss, which may have been a hidden stop."""
        lost = self.is_loss
        return False if lost is False else True if lost and self.by_stop else None

    @property
    def ratio(self) -> float | None:
        """Its profit as a fraction of the notional at entry; None if that is unknown."""
        return None if self.profit is None or self.is_doubtful or self.entry <= 0.0 else self.profit / self.entry


class OpenTrip(Struct):
    """A trip that has not ended: contracts held and their average price, and what it has made so far.

    `entry` is the notional at which `opened` contracts in all were opened.
    """

    contracts: float = 0.0
    price: float = 0.0
    largest: float = 0.0
    opened: float = 0.0
    entry: float = 0.0
    profit: float | None = 0.0
    is_liquidated: bool = False
    is_own: bool = False
    is_doubtful: bool = False


class Streak(Struct, array_like=True):
    """Losing trips in a row up to now: those that are sure, those that are possible, and the last that did not lose."""

    sure: int = 0
    possible: int = 0
    won_at: int = -1


class _State(Struct):
    closed: list[RoundTrip]
    streaks: dict[str, Streak]
    open: list[tuple[str, str, str, OpenTrip]]
    coverage: WindowCoverage
    begun: list[tuple[str, str, int]]
    seen: dict[str, int]
    stops: list[tuple[str, str, int]]
    own: list[tuple[str, str, int]]
    last_close: list[tuple[str, str, int]]
    differing: dict[str, int]
    hole_at: int | None


class RoundTrips(Collector):
    """The round trips of a scope.

    Of a position that is there at the first look, how it was opened is unknown, and so is what its trip makes. While
    positions differ from what fills add up to, a fill is awaited; then, if all rows are known, something else changed
    the size (a fee in the coin, a transfer, a split); else there is a hole, and the position starts again.
    """

    name: ClassVar[str] = "round_trips"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._keep = longest([each for each in needs if "window" in each])
        self._max_gap = max_gap
        self.coverage = WindowCoverage()
        self.hole_at: int | None = None
        """When a fill was last found missing; before it, trips may be missing."""
        self._closed: deque[RoundTrip] = deque()
        self._streaks: dict[str, Streak] = {}
        self._open: dict[TripKey, OpenTrip] = {}
        self._begun: dict[tuple[str, str], int] = {}
        self._seen: dict[str, int] = {}
        self._stops: dict[tuple[str, str], int] = {}
        self._own: dict[tuple[str, str], int] = {}
        self._last_close: dict[tuple[str, str], int] = {}
        self._differing: dict[str, int] = {}
        self._equal: dict[str, Mapping[SizeKey, Decimal]] = {}
        """Account → its sizes when the fills added up to them; no fill came since."""

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Add the fills of the accounts that can be read; one that cannot leaves a hole of its own."""
        now = view.as_of
        for own in (None if view.tick is None else view.tick.own_orders) or ():
            self._own[own.account, own.symbol] = now
        is_whole = bool(view.facts)
        for facts in view.facts:
            account = facts.account
            if account.quality != "ok" or account.positions is None or account.fills is None:
                is_whole = False
                continue
            self._remember_stops(account, now)
            is_new = (facts.name, "") not in self._begun
            if is_new:
                self._begin(facts, now)
            if account.fills:
                self._equal.pop(facts.name, None)
                self._add_fills(facts, account.fills, now)
            self._compare(facts, now)
        if is_whole:
            begun = self.coverage.begun_at
            self.coverage.observe(now, self._max_gap)
            if begun is not None and self.coverage.begun_at != begun:
                self.hole_at = now
        self._forget(now)

    def _add_fills(self, facts: AccountFacts, fills: Iterable[Fill], now: int) -> None:
        """Add the fills that are new, and no part of what was there at the first look."""
        for fill in sorted(fills, key=lambda each: each.at):
            key, at = f"{facts.name}/{fill.id}", to_micros(fill.at)
            since = max(self._begun[facts.name, ""], self._begun.get((facts.name, fill.symbol), 0))
            if key not in self._seen and at >= since:
                self._fill(facts, fill)
            self._seen[key] = max(at, now - ROWS_KEPT)

    @property
    def is_settled(self) -> bool:
        """Whether the fills add up to the positions."""
        return not self._differing

    def _begin(self, facts: AccountFacts, now: int) -> None:
        """Take the positions that are there as open trips, except those that the fills of this snapshot have opened."""
        self._begun[facts.name, ""] = now
        fills = facts.account.fills or ()
        for key, size in (facts.sizes or {}).items():
            mine = [fill for fill in fills if fill.symbol == key[0]]
            signed = sum(float(it.amount) * (1 if it.side == "buy" else -1) for it in mine)
            if mine and abs(signed - float(size) * (1 if key[1] == "long" else -1)) <= DUST * float(size):
                self._begun[facts.name, ""] = min(self._begun[facts.name, ""], *(to_micros(it.at) for it in mine))
            else:
                self._take(facts, (facts.name, *key), float(size))

    def _take(self, facts: AccountFacts, key: TripKey, size: float) -> None:
        """Take a position whose opening was not observed as an open trip."""
        entry = (facts.entries or {}).get((key[1], "long" if key[2] == "long" else "short"))
        self._open[key] = OpenTrip(size, float(entry or 0), size, profit=None)

    def _remember_stops(self, account: AccountSnapshot, now: int) -> None:
        for order in account.orders or ():
            if order.trigger_price is not None:
                for name in filter(None, (order.id, order.client_order_id)):
                    self._stops[account.account, name] = now

    def _fill(self, facts: AccountFacts, fill: Fill) -> None:
        """Fold a fill into the trip of its side; a rest turns the position over."""
        side: Side = fill.position_side or self._side_of(facts.name, fill)
        amount, opens = float(fill.amount), (fill.side == "buy") == (side == "long")
        key = (facts.name, fill.symbol, side)
        if opens:
            self._add(facts, key, amount, fill)
            return
        trip = self._open.get(key)
        closed = min(amount, trip.contracts) if trip is not None else 0.0
        if trip is not None and closed > 0.0:
            self._reduce(facts, key, trip, closed, fill)
        rest, is_hedged = amount - closed, facts.account.position_mode == "hedge"
        if rest > DUST * amount and not (is_hedged or (closed == 0.0 and fill.position_side is not None)):
            self._add(facts, (facts.name, fill.symbol, "short" if side == "long" else "long"), rest, fill)

    def _side_of(self, account: str, fill: Fill) -> Side:
        """The side of a fill that does not state it: what it closes, else what it opens."""
        closes: Side = "short" if fill.side == "buy" else "long"
        return closes if (account, fill.symbol, closes) in self._open else "long" if fill.side == "buy" else "short"

    def _add(self, facts: AccountFacts, key: TripKey, amount: float, fill: Fill) -> None:
        trip = self._open.setdefault(key, OpenTrip())
        part, price, total = amount / float(fill.amount), float(fill.price), trip.contracts + amount
        trip.is_own |= not trip.contracts and self._is_own(facts, fill)
        trip.price = (trip.price * trip.contracts + price * amount) / total
        trip.contracts, trip.largest = total, max(trip.largest, total)
        value, fee = notional_of(facts, fill.symbol, amount, price), fee_of(facts, fill)
        trip.entry, trip.opened = trip.entry + (value or 0.0), trip.opened + amount
        trip.profit = None if trip.profit is None or fee is None or value is None else trip.profit - part * fee

    def _reduce(self, facts: AccountFacts, key: TripKey, trip: OpenTrip, amount: float, fill: Fill) -> None:
        is_own = self._is_own(facts, fill)
        if is_own:
            if trip.opened:  # what this program closes is no part of the trip
                trip.entry -= trip.entry * amount / trip.opened
                trip.opened -= amount
        else:
            made, fee = self._realised(facts, key, trip, amount, fill), fee_of(facts, fill)
            net = None if made is None or fee is None else made - amount / float(fill.amount) * fee
            trip.profit = None if trip.profit is None or net is None else trip.profit + net
        is_forced = fill.cause in ("liquidation", "adl")
        trip.is_liquidated |= is_forced
        trip.is_doubtful |= not is_forced and self._may_be_own(facts, fill)
        trip.contracts -= amount
        if trip.contracts > DUST * trip.largest:
            return
        del self._open[key]
        if not (trip.is_own or is_own):
            self._close(key, trip, to_micros(fill.at), by_stop=is_forced or self._is_by_stop(facts, fill))

    def _is_by_stop(self, facts: AccountFacts, fill: Fill) -> bool:
        names = (fill.order or "", fill.client_order_id or "")
        return fill.trigger_price is not None or any((facts.name, name) in self._stops for name in names)

    def _is_own(self, facts: AccountFacts, fill: Fill) -> bool:
        return are_ours(fill.client_order_id, fill.order)

    def _may_be_own(self, facts: AccountFacts, fill: Fill) -> bool:
        """Whether this program has worked on the symbol, and the fill does not state whose it is."""
        at = self._own.get((facts.name, fill.symbol))
        return fill.client_order_id is None and at is not None and to_micros(fill.at) - at <= OWN_FILLS_WITHIN

    def _close(self, key: TripKey, trip: OpenTrip, at: int, *, by_stop: bool) -> None:
        found = RoundTrip(*key, at, trip.profit, trip.entry, by_stop, trip.is_liquidated, trip.is_doubtful)
        self._closed.append(found)
        self._last_close[key[0], key[1]] = max(at, self._last_close.get((key[0], key[1]), at))
        lost = None if found.is_doubtful else found.is_loss
        for per in ("", key[1]):
            streak = self._streaks.setdefault(per, Streak())
            streak.sure = streak.sure + 1 if lost else 0
            streak.possible = 0 if lost is False else streak.possible + 1
            streak.won_at = at if lost is False else streak.won_at

    def _realised(self, facts: AccountFacts, key: TripKey, trip: OpenTrip, amount: float, fill: Fill) -> float | None:
        """What closing so much makes before fees: as the venue states it, else from the average price."""
        if fill.realized_pnl is not None:
            return float(fill.realized_pnl)
        now = notional_of(facts, key[1], amount, float(fill.price))
        then = notional_of(facts, key[1], amount, trip.price)
        if now is None or then is None or not trip.price:
            return None
        rules = facts.rules.get((facts.name, key[1]))
        gain = then - now if rules is not None and rules.inverse else now - then
        return gain if key[2] == "long" else -gain

    def _compare(self, facts: AccountFacts, now: int) -> None:
        """Compare what fills add up to with the positions, and settle what differs for too long."""
        sizes = facts.sizes
        if sizes is not None and self._equal.get(facts.name) is sizes:
            return
        held: dict[TripKey, float] = {(facts.name, *key): float(size) for key, size in (sizes or {}).items()}
        own = {key: trip.contracts for key, trip in self._open.items() if key[0] == facts.name}
        if held == own:
            self._differing.pop(facts.name, None)
            if sizes is not None:
                self._equal[facts.name] = sizes
            return
        differing = [
            key for key in held.keys() | own.keys()
            if abs(held.get(key, 0.0) - own.get(key, 0.0)) > 1e-6 * max(held.get(key, 0.0), own.get(key, 0.0))
        ]  # fmt: skip
        if not differing:
            self._differing.pop(facts.name, None)
            return
        since = self._differing.setdefault(facts.name, now)
        known = facts.account.fills_as_of
        is_complete = known is not None and to_micros(known) >= since and now - since >= SETTLED
        if not is_complete and now - since < LATE:
            return
        del self._differing[facts.name]
        for key in differing:
            self._resize(facts, key, held.get(key, 0.0), now, is_traded=not is_complete)

    def _resize(self, facts: AccountFacts, key: TripKey, size: float, now: int, *, is_traded: bool) -> None:
        """Take the size that a position has. Without a trade its cost stays, and a vanished position ends no trip."""
        trip = self._open.pop(key, None)
        if is_traded:
            self._begun[facts.name, key[1]] = self.hole_at = now
            self.coverage.begun_at, self.coverage.is_rebased = now, False
        if size and (is_traded or trip is None):
            self._take(facts, key, size)
        elif size and trip is not None:
            scale = size / trip.contracts
            trip.contracts, trip.largest, trip.opened = size, trip.largest * scale, trip.opened * scale
            trip.price /= scale
            self._open[key] = trip

    def _forget(self, now: int) -> None:
        edge = now - self._keep
        while self._closed and self._closed[0].closed_at < edge:
            self._closed.popleft()
        if len(self._seen) > 4096 and now - min(self._seen.values()) > 2 * ROWS_KEPT:
            self._seen = {key: at for key, at in self._seen.items() if now - at <= ROWS_KEPT}
        if len(self._stops) > 512:
            self._stops = {key: at for key, at in self._stops.items() if now - at <= STOPS_KEPT}

    def within(self, now: int, window: int, symbol: str | None = None, side: str = "any") -> Iterator[RoundTrip]:
        """The trips that closed in (now − window, now], of one symbol and side if given."""
        for trip in self._closed:
            if trip.closed_at > now - window and symbol in (None, trip.symbol) and side in ("any", trip.side):
                yield trip

    def streak(self, symbol: str | None = None) -> tuple[int, int | None]:
        """The least and greatest number of losing trips in a row up to now; None: no bound, since trips are missing
        after the last one that did not lose."""
        found = self._streaks.get(symbol or "", Streak())
        is_whole = self.is_settled and (self.hole_at is None or found.won_at >= self.hole_at)
        return found.sure, found.possible if is_whole else None

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
        self.hole_at = None
        self.coverage.restart(now)

    def state(self) -> object:
        return _State(
            list(self._closed), self._streaks, [(*key, trip) for key, trip in self._open.items()],
            self.coverage, [(*key, at) for key, at in self._begun.items()], self._seen,
            [(*key, at) for key, at in self._stops.items()], [(*key, at) for key, at in self._own.items()],
            [(*key, at) for key, at in self._last_close.items()], self._differing, self.hole_at,
        )  # fmt: skip

    def restore(self, stored: bytes) -> None:
        state = msgjson.decode(stored, type=_State)
        self._closed, self._streaks = deque(state.closed), state.streaks
        self._open = {(account, symbol, side): trip for account, symbol, side, trip in state.open}
        self.coverage, self._seen, self.hole_at = state.coverage, state.seen, state.hole_at
        self._begun = {(account, symbol): at for account, symbol, at in state.begun}
        self._stops = {(account, name): at for account, name, at in state.stops}
        self._own = {(account, symbol): at for account, symbol, at in state.own}
        self._last_close = {(account, symbol): at for account, symbol, at in state.last_close}
        self._differing = state.differing
        self._equal.clear()
