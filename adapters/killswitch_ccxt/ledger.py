"""Fills and flows of one account: which rows are new, up to when all are known, and how late the venue writes them.

They explain changes of balances. When a balance or a position has changed, both are fetched in the same snapshot,
whatever their age, and again after 1, 2, 5 and 10 s, because venues write rows late; the last fetch follows after
`LAST_EARLY_FETCH` seconds, so that rows are known to so many seconds past the change. An allowance keeps a book that
trades every second from using requests that closing needs. Where it does not suffice for all fetches, those after 1, 2
and 5 s are left out: the later ones decide about a loss. While something changes at every tick, the lists are fetched
every 10 s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, TypeVar

from killswitch.model.snapshot import Fill, Flow
from killswitch_ccxt.answers import forget_oldest
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.fills import unique
from killswitch_ccxt.parts import (
    KNOWN_ROWS,
    LATE_ROWS,
    LONGEST_LOOK_BACK,
    LOOK_BACK,
    MOST_SYMBOLS,
    OVERLAP,
    ReadPart,
    SnapshotPart,
)

Row = TypeVar("Row", Fill, Flow)
NEVER: Final = float("-inf")
EARLY_FETCH_DELAYS: Final = (0.0, 0.8, 1.8, 4.8, 9.8)
"""Seconds after a change at which rows are fetched early, a little less than whole seconds: ticks are a second apart.
"""
LAST_EARLY_FETCH: Final = 20.0
"""Seconds after a change of the last early fetch; later where the venue was seen to be later."""
BURST: Final = 2.0
"""Seconds from the first of a series of changes within which each change causes fetches of its own."""
DECISIVE: Final = 3
"""Fetches that explain a change: the immediate one, the one after ten seconds, and the last."""
LAG_KEPT: Final = 3600.0
"""Seconds for which a measured lag is reported."""
LAG_STEP: Final = 5000
"""Largest gap between two fetches, in milliseconds, that counts as lag of a row: within a longer gap the time is
unknown."""


class RequestAllowance:
    """An allowance of requests per minute, full at the start, which saves up at least `saved` requests."""

    def __init__(self, a_minute: int, saved: int) -> None:
        self._a_minute = a_minute
        self._left = float(max(a_minute, saved))
        self._most = self._left
        self._at = NEVER

    @property
    def pace(self) -> float:
        """Seconds between two requests that are spread evenly."""
        return 60 / self._a_minute

    def left(self, now: float) -> int:
        """The requests that are available at `now`."""
        if self._at != NEVER:
            self._left = min(self._most, self._left + (now - self._at) * self._a_minute / 60)
        self._at = now
        return int(self._left)

    def left_after(self, now: float, seconds: float) -> float:
        """The requests that will be left after so many seconds without one."""
        self.left(now)
        return self._left + seconds * self._a_minute / 60

    def spend(self, requests: int) -> None:
        """Deduct requests that are being sent."""
        self._left -= requests


class RowList(Generic[Row]):
    """Rows of one kind. Times are in seconds of the loop's clock, `requested_at` in ms of our own clock."""

    def __init__(self, kind: str, part: SnapshotPart[bool], allowance: RequestAllowance) -> None:
        self.part = part
        self.allowance = allowance
        self.requested_at: int | None = None
        """The time of the last successful request."""
        self._early_fetch_at = self._moved_at = self._burst_at = NEVER
        self._since: int | None = None
        self._look_back = LOOK_BACK[kind]
        self._known: dict[str, None] = {}
        self._new: dict[str, Row] = {}
        self._lags: deque[tuple[float, float]] = deque()

    def look_back_to(self, since: int, now: int) -> None:
        """Start the first fetch at that time, in ms, if that is earlier than the usual start."""
        self._since = min(now - self._look_back, max(since - OVERLAP, now - LONGEST_LOOK_BACK))

    def since(self, now: int) -> int:
        """The start, in ms, of the next fetch."""
        return now - self._look_back if self._since is None else self._since

    def is_early_fetch_due(self, now: float, moved_at: float, settled: float, requests: int = 1) -> bool:
        """Whether rows are fetched early because of a change at `moved_at`. `requests`: those of one fetch."""
        if self.part.failure is not None:
            return False  # after a failure they are due again by themselves
        read, age = self.part.at - moved_at, now - moved_at
        if moved_at - self._moved_at > settled:
            self._burst_at = moved_at
        self._moved_at = moved_at
        wanted = [it for it in (*EARLY_FETCH_DELAYS, settled) if read < it <= age]
        if not wanted:
            return False
        pace = min(EARLY_FETCH_DELAYS[-1], self.allowance.pace * max(requests, 1))
        if wanted[-1] >= EARLY_FETCH_DELAYS[-1] or now - self._early_fetch_at >= pace:
            return self.allowance.left(now) > 0
        if moved_at - self._burst_at > BURST:
            return False  # changes continue: the allowance is spread over them
        # This fetch, the one after ten seconds, and the last.
        return self.allowance.left_after(now, settled - age) >= DECISIVE * max(requests, 1)

    def record_early_fetch(self, now: float, requests: int) -> None:
        """Record an early fetch with so many requests."""
        self.allowance.spend(requests)
        self._early_fetch_at = now

    def record(
        self, rows: Iterable[Row], requested_at_ms: int, lag_of: Callable[[Row], float | None], now: float
    ) -> None:
        """Record the rows of a fetch at that time (ms); `lag_of`: the lag of a row in seconds, if it is late."""
        for row in rows:
            if row.id not in self._known:
                self._known[row.id], self._new[row.id] = None, row
                if (lag := lag_of(row)) is not None:
                    self._lags.append((now, lag))
            elif row.id in self._new:
                self._new[row.id] = row
        forget_oldest(self._known, KNOWN_ROWS)
        self.requested_at, self._since = requested_at_ms, requested_at_ms - OVERLAP

    def lag(self, now: float) -> float | None:
        """The largest lag of a row in the last hour, in seconds; None where no row was late."""
        while self._lags and now - self._lags[0][0] > LAG_KEPT:
            self._lags.popleft()
        return max((lag for _, lag in self._lags), default=None)

    def is_known(self, now: float) -> bool:
        """Whether the last fetch succeeded and is recent; later rows may exist."""
        return bool(self.part.recent_value(now)) and self.part.failure is None

    def new_rows(self, now: float) -> tuple[Row, ...] | None:
        """The rows that no earlier snapshot had; None where the rows are unknown."""
        if not self.is_known(now):
            return None
        new, self._new = tuple(self._new.values()), {}
        return new


class Ledger:
    """Fills and flows of one account."""

    def __init__(self, client: Client, dialect: Dialect, phase: float, read: ReadPart) -> None:
        """`read`: fetches a part and records the cause of a failure."""
        ages = dialect.ages
        self._client = client
        self._dialect = dialect
        self._read_part = read
        fills, flows = (RequestAllowance(each, ages.early_saved) for each in (ages.early_fills, ages.early_flows))
        self.fills: RowList[Fill] = RowList("fills", SnapshotPart(ages.fills, phase), fills)
        self.flows: RowList[Flow] = RowList("flows", SnapshotPart(ages.flows, phase), flows)
        self._moved_at = NEVER
        self._changed_at: dict[str, float] = {}
        """Symbol → time of its last change."""
        self._requested_at: dict[str, float] = {}
        """Symbol → time of the last successful request for its fills; the same time for all where requests name no
        symbol."""
        self._traded: dict[str, datetime] = {}
        self._held_before: tuple[str, ...] = ()

    # Changes

    def remember(self, symbols: Collection[str], since: datetime | None) -> None:
        """Set the symbols that were held before this run began."""
        self._held_before = tuple(symbols)
        if since is not None:
            then, now = int(since.timestamp() * 1000), self._client.now_ms()
            self.fills.look_back_to(then, now)
            self.flows.look_back_to(then, now)

    def begin(self, symbols: Iterable[str], now: float) -> None:
        """Begin with the first snapshot, of an account that holds `symbols`. The venue has written down earlier rows by
        now."""
        known = (symbol for symbol in self._held_before if symbol in self._dialect.rules)
        self._changed_at = dict.fromkeys((*symbols, *known), now - LATE_ROWS)

    def note_activity(self, symbols: Iterable[str], now: float) -> None:
        """Record an order or a stream message: fills are fetched soon."""
        self._changed_at |= dict.fromkeys(symbols, now)
        self._make_due_soon(self.fills.part)

    def note_change(self, symbols: Collection[str], held: Collection[str], now: float) -> None:
        """Record a change of balances, or of positions in `symbols`: rows are fetched in this snapshot.

        Where only balances changed and no ledger names the traded symbols, the trades may concern anything that is
        `held`.
        """
        is_silent = self._dialect.fills_need_symbol and not self._dialect.has_trades_in_flows
        self.note_activity(symbols or (held if is_silent else ()), now)
        self._moved_at = now

    def expire(self) -> None:
        """Make both due at the next snapshot."""
        self.fills.part.due = self.flows.part.due = NEVER

    # Fetching

    async def read(self, now: float) -> None:
        """Fetch what is due, or is needed because of a change."""
        settled = max(LAST_EARLY_FETCH, self.lag(now) or 0.0)
        fetches, since = [], self.fills.since(self._client.now_ms())
        is_early = self.flows.is_early_fetch_due(now, self._moved_at, settled)
        if is_early or self.flows.part.due <= now:
            if is_early:
                self.flows.record_early_fetch(now, 1)
            fetches.append(self._read_flows())
        requests = min(MOST_SYMBOLS, len(self._changed_at)) if self._dialect.fills_need_symbol else 1
        is_early = self.fills.is_early_fetch_due(now, self._moved_at, settled, requests)
        if is_early or self.fills.part.due <= now:
            fetches.append(self._read_fills(self._symbols(now, is_early=is_early), since, now))
        await asyncio.gather(*fetches)
        symbols = self._newly_traded(since, now)
        if symbols:
            await self._read_fills(symbols[:MOST_SYMBOLS], since, now)

    async def _read_flows(self) -> None:
        since = self.flows.since(self._client.now_ms())
        await self._rows(self.flows, partial(self._dialect.flows, since), lambda _: self.flows.requested_at)

    async def _read_fills(self, symbols: list[str], since: int, now: float) -> None:
        """Where requests name symbols, each symbol is included until a while after its last change."""
        if not await self._rows(self.fills, partial(self._dialect.fills, symbols, since), self._previous_request):
            return
        for symbol in symbols:
            self._requested_at[symbol] = now
            if self._changed_at.get(symbol, now) + LATE_ROWS <= now:
                self._changed_at.pop(symbol, None)
        if self._unrequested():
            self._make_due_soon(self.fills.part)

    def _symbols(self, now: float, *, is_early: bool) -> list[str]:
        """The symbols whose fills are fetched, those with the oldest fetch first."""
        # A delisted symbol may still be held, and has no market whose fills can be requested.
        listed = (it for it in self._changed_at if it in self._dialect.rules)
        order = sorted(listed, key=lambda it: (self._requested_at.get(it, NEVER), self._changed_at[it]))
        by_symbol = self._dialect.fills_need_symbol
        if by_symbol:
            order = order[: min(MOST_SYMBOLS, self.fills.allowance.left(now)) if is_early else MOST_SYMBOLS]
        if is_early:
            self.fills.record_early_fetch(now, len(order) if by_symbol else 1)
        return order

    def _unrequested(self) -> list[str]:
        """Symbols without a fetch since their last change."""
        rules = self._dialect.rules
        return [it for it, at in self._changed_at.items() if it in rules and self._requested_at.get(it, NEVER) < at]

    def _newly_traded(self, since: int, now: float) -> list[str]:
        """Symbols with a new trade in the ledger and without a fetch in this snapshot."""
        if not self._dialect.has_trades_in_flows or self.flows.part.failure is not None:
            return []
        latest = self._dialect.latest_trades()
        new = [it for it, at in latest.items() if self._traded.get(it) != at and self._local_ms(at) >= since]
        self._traded |= latest
        self._changed_at |= dict.fromkeys(new, now)
        return [symbol for symbol in new if self._requested_at.get(symbol, NEVER) < now]

    async def _rows(
        self, rows: RowList[Any], fetch: Callable[[], Awaitable[Any]], previous_request: Callable[[Any], int | None]
    ) -> bool:
        requested_at, now = self._client.now_ms(), asyncio.get_running_loop().time()
        found: list[Any] = []

        async def is_answered() -> bool:
            answer = await fetch()
            found.extend(unique(answer or ()))
            return answer is not None

        if not await self._read_part(rows.part, is_answered):
            return False
        rows.record(found, requested_at, lambda row: self._lag_of(row, previous_request(row), requested_at), now)
        return True

    def _previous_request(self, fill: Fill) -> int | None:
        """The time, in ms of our clock, of the last fetch that should have included this fill."""
        if not self._dialect.fills_need_symbol:
            return self.fills.requested_at
        requested = self._requested_at.get(fill.symbol)
        if requested is None:
            return None
        return self._client.now_ms() - int((asyncio.get_running_loop().time() - requested) * 1000)

    def _lag_of(self, row: Fill | Flow, before: int | None, requested_at: int) -> float | None:
        """Seconds by which a row is late: it is older than the fetch `before`, which did not include it.

        A row that is older than the overlap of fetches has another date than its change of the balance.
        """
        late = 0 if before is None else before - self._local_ms(row.at)
        if before is None or not 0 < late < OVERLAP:
            return None
        return (late + min(LAG_STEP, requested_at - before)) / 1000

    # State

    def fills_as_of(self, now: float) -> datetime | None:
        """Venue time up to which every fill is known; None while the fills of a changed symbol were not fetched."""
        if "fills" not in self._dialect.complete_lists or not self.fills.is_known(now):
            return None
        if not self._dialect.fills_need_symbol:
            return self._venue_time(self.fills.requested_at)
        if self._unrequested():
            return None
        # A symbol without a trade in the ledger has not traded; without such a ledger, one without a change has not.
        return self.flows_as_of(now) if self._dialect.has_trades_in_flows else self._venue_time(self.fills.requested_at)

    def flows_as_of(self, now: float) -> datetime | None:
        """Venue time up to which every flow is known."""
        is_complete = "flows" in self._dialect.complete_lists and self.flows.is_known(now)
        return self._venue_time(self.flows.requested_at) if is_complete else None

    def lag(self, now: float) -> float | None:
        """The lag of rows in seconds; None where no row was late."""
        lags = (self.fills.lag(now), self.flows.lag(now))
        return max((lag for lag in lags if lag is not None), default=None)

    def _venue_time(self, ours: int | None) -> datetime | None:
        return None if ours is None else self._client.venue_time(ours)

    def _local_ms(self, at: datetime) -> int:
        """Milliseconds of our clock at a venue time."""
        return int(at.timestamp() * 1000 - (self._client.skew_ms or 0.0))

    def _make_due_soon(self, part: SnapshotPart[Any]) -> None:
        part.due = min(part.due, part.at + self._dialect.ages.rows_least)
