"""What happened to an account: its trades, and money that moved; when each list was read, and how late rows come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from killswitch.model.snapshot import Fill, Flow
from killswitch_alpaca.activities import Known, read_fill, read_flow
from killswitch_alpaca.parts import MOVES, TRADES, Hurry, Part
from killswitch_alpaca.queries import Questions
from killswitch_alpaca.settings import Settings

FLOWS_BEHIND = timedelta(days=1)
"""Rows of money that moved come up to a day later: of the last day none are proven to be known."""
LAG_KEPT: Final = 3600.0
"""Seconds for which a lag that was measured is told."""
LONGEST_LAG: Final = 180.0
"""Seconds; no more is told. In storms rows have come a minute late, and this is three times that. A fill that is later
came after an outage, or its trade was corrected: of the next fill it says no more than that this one may be late."""


class Ledger:
    """Rows that no snapshot has given yet, and what they explain. `venue_time`: now, by Alpaca's clock."""

    def __init__(self, settings: Settings, ask: Questions, venue_time: Callable[[], datetime]) -> None:
        self._settings = settings
        self._ask = ask
        self._venue_time = venue_time
        self.trades = Part(TRADES, 300.0)
        self.moves = Part(MOVES, 300.0)
        self.hurry = Hurry()
        self._lags: deque[tuple[float, float]] = deque()
        """When a trade came, in seconds of the loop, and how late it was; each later one was less late."""
        self._fills: list[Fill] = []
        self._flows: list[Flow] = []
        self._trades_known, self._moves_known = Known(), Known()

    def remember(self, since: datetime | None) -> None:
        """Rows from `since` on are new: that is what the run before this one knew."""
        self._trades_known.remember(since)
        self._moves_known.remember(since)

    async def read_trades(self, coins: Iterable[str]) -> None:
        """Read what was traded. `coins` are symbols that are known: trades write them without a slash."""
        asked_at, before = self._venue_time(), self.trades.as_of
        names = {symbol.replace("/", ""): symbol for symbol in coins}
        answer = await self._ask.activities(self._trades_known, "/account/activities/FILL")
        new = [read_fill(each, names) for each in self._trades_known.new(answer)]
        begun = self._trades_known.begun
        self._fills += new
        self._trades_known.learn(answer)
        now = asyncio.get_running_loop().time()
        for fill in new:
            if begun:  # what is older explains no change that was seen
                self.hurry.filled(now, fill)
            # Late is what was not in an answer to a question that was asked after it had happened.
            late = before is not None and fill.at < before
            self._measured(now, (asked_at - fill.at).total_seconds() if late else 0.0)

    async def read_moves(self) -> None:
        """Read what money moved beside trades."""
        answer = await self._ask.activities(
            self._moves_known, "/account/activities", category="non_trade_activity"
        )  # fmt: skip
        seen = self._settings.now()
        new = [read_flow(each, self._settings.currency, seen) for each in self._moves_known.new(answer)]
        flows = [flow for flow in new if flow is not None]
        begun = self._moves_known.begun
        self._flows += flows
        self._moves_known.learn(answer)
        now = asyncio.get_running_loop().time()
        for flow in flows:
            if begun and flow.currency == self._settings.currency:
                self.hurry.moved(now, flow.amount)

    def _measured(self, now: float, lag: float) -> None:
        while self._lags and self._lags[-1][1] <= lag:
            self._lags.pop()  # what came before and was less late is never the most any more
        self._lags.append((now, lag))

    def lag(self, now: float) -> float | None:
        """The most by which a trade was late in the last hour, in seconds, `LONGEST_LAG` at most; None without one."""
        while self._lags and now - self._lags[0][0] > LAG_KEPT:
            self._lags.popleft()
        return min(self._lags[0][1], LONGEST_LAG) if self._lags else None

    def new_fills(self, now: float) -> tuple[Fill, ...] | None:
        """Those that were not given before; None where they are not known."""
        found, self._fills = tuple(self._fills), []
        return found if self.trades.is_good(now) else None

    def new_flows(self, now: float) -> tuple[Flow, ...] | None:
        """The same of money that moved."""
        found, self._flows = tuple(self._flows), []
        return found if self.moves.is_good(now) else None

    @property
    def fills_as_of(self) -> datetime | None:
        """Up to when all fills were given; None once reading them has failed."""
        return self.trades.as_of if self.trades.trouble is None else None

    @property
    def flows_as_of(self) -> datetime | None:
        """The same of money that moved: a day before it was asked for."""
        asked_at = self.moves.as_of if self.moves.trouble is None else None
        return None if asked_at is None else asked_at - FLOWS_BEHIND
