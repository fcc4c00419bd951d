"""Fills and flows of an account: the rows to report, when each list was read, and how late rows appear."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from msgspec import field

from killswitch.model.snapshot import CorporateAction, Fill, Flow
from killswitch_alpaca.activities import KnownActivities, read_fill, read_flow, read_splits
from killswitch_alpaca.parts import MOVES, TRADES, OutOfTurnReads, SnapshotPart
from killswitch_alpaca.queries import Queries
from killswitch_alpaca.settings import AlpacaSettings

R = TypeVar("R", Fill, Flow)
FLOWS_BEHIND = timedelta(days=1)
"""Flows appear up to a day late, so the last day's are never known to be complete."""
LAG_KEPT: Final = 3600.0
"""Seconds for which a measured lag is reported."""
LONGEST_LAG: Final = 180.0
"""Largest reported lag, in seconds: three times the worst seen in storms. A fill that is later came after an outage,
or its trade was corrected."""


class LedgerRows(SnapshotPart, Generic[R]):
    """A list of rows that is read repeatedly: its age, the rows that were returned, and those that are pending."""

    activities: KnownActivities = field(default_factory=KnownActivities)
    pending: list[R] = field(default_factory=list)

    def new_rows(self, now: float) -> tuple[R, ...] | None:
        """The rows that were not returned before; None where they are unknown."""
        found, self.pending = tuple(self.pending), []
        return found if self.is_usable(now) else None

    @property
    def complete_until(self) -> datetime | None:
        """The venue's time of the last answer; None once reading has failed."""
        return self.as_of if self.failure is None else None


class Ledger:
    """Rows that no snapshot has returned yet, and the changes that they explain. `venue_time` is the current time by
    Alpaca's clock."""

    def __init__(self, settings: AlpacaSettings, queries: Queries, venue_time: Callable[[], datetime]) -> None:
        self._settings = settings
        self._queries = queries
        self._venue_time = venue_time
        self.trades = LedgerRows[Fill](TRADES, 300.0)
        self.flows = LedgerRows[Flow](MOVES, 300.0)
        self.out_of_turn = OutOfTurnReads()
        self._actions: list[CorporateAction] = []
        """Corporate actions that no snapshot has returned yet; they are among the rows of the flows."""
        self._lags: deque[tuple[float, float]] = deque()
        """Time of each trade's arrival, in seconds of the loop, and its lag; each later lag is smaller."""

    def remember(self, since: datetime | None) -> None:
        """Treat rows from `since` on, the last observation of the previous run, as new."""
        self.trades.activities.remember(since)
        self.flows.activities.remember(since)

    async def read_trades(self, coins: Iterable[str]) -> None:
        """Read trades. `coins` are known symbols: trades write them without a slash."""
        asked_at, before = self._venue_time(), self.trades.as_of
        names = {symbol.replace("/", ""): symbol for symbol in coins}
        known = self.trades.activities
        answer = await self._queries.activities(known, "/v2/account/activities/FILL")
        new = [read_fill(each, names) for each in known.new(answer)]
        begun = known.has_answer
        self.trades.pending += new
        known.mark_returned(answer)
        now = asyncio.get_running_loop().time()
        for fill in new:
            if begun:  # older fills explain no observed change
                self.out_of_turn.record_fill(now, fill)
            # A fill is late if an answer to a request that was sent after it did not include it.
            late = before is not None and fill.at < before
            self._record_lag(now, (asked_at - fill.at).total_seconds() if late else 0.0)

    async def read_flows(self) -> None:
        """Read flows and corporate actions."""
        known = self.flows.activities
        answer = await self._queries.activities(known, "/v2/account/activities", category="non_trade_activity")
        seen, new = self._settings.now(), known.new(answer)
        rows = [read_flow(each, self._settings.spec.currency, seen) for each in new]
        flows, actions = [flow for flow in rows if flow is not None], read_splits(new, seen)
        begun = known.has_answer
        self.flows.pending += flows
        self._actions += actions
        known.mark_returned(answer)
        now = asyncio.get_running_loop().time()
        for flow in flows:
            if begun and flow.currency == self._settings.spec.currency:
                self.out_of_turn.record_flow(now, flow.amount)

    def new_corporate_actions(self, now: float) -> tuple[CorporateAction, ...] | None:
        """The corporate actions that were not returned before; None where they are unknown."""
        found, self._actions = tuple(self._actions), []
        return found if self.flows.is_usable(now) else None

    def _record_lag(self, now: float, lag: float) -> None:
        while self._lags and self._lags[-1][1] <= lag:
            self._lags.pop()  # earlier, smaller lags can no longer be the largest
        self._lags.append((now, lag))

    def lag(self, now: float) -> float | None:
        """The largest lag of a trade in the last hour, in seconds, at most `LONGEST_LAG`; None without one."""
        while self._lags and now - self._lags[0][0] > LAG_KEPT:
            self._lags.popleft()
        return min(self._lags[0][1], LONGEST_LAG) if self._lags else None

    @property
    def flows_as_of(self) -> datetime | None:
        """Time up to which all flows were returned: a day before they were requested."""
        asked_at = self.flows.complete_until
        return None if asked_at is None else asked_at - FLOWS_BEHIND
