"""What a symbol's market can take, and how much its price moves: told only by venues that show it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log, sqrt

from killswitch.market.bar import Bar
from killswitch.market.rules import MarketRules
from killswitch.market.tape import Tape
from killswitch.model.snapshot import Liquidity

DAY = 86_400.0
RETURNS = 60
"""Volatility is over so many bars at the most,"""
FEWEST = 10
"""and unknown with fewer."""


@dataclass(slots=True)
class Activity:
    """The closes and volumes of a market's bars, as far back as they are looked at."""

    _moves: dict[str, deque[tuple[float, float]]] = field(default_factory=dict)
    """Symbol → (seconds, log return) of each bar."""
    _seconds: float | None = None

    def begin(self, seconds: float | None, bars: Mapping[str, Bar], tapes: Mapping[str, Tape]) -> None:
        """Bars of `seconds` close, None if that is unknown; the tapes still have the closes before."""
        self._seconds = seconds
        if seconds is None:
            return
        for symbol, bar in bars.items():
            last = tapes[symbol].last
            if last:
                moves = self._moves.setdefault(symbol, deque(maxlen=RETURNS))
                moves.append((seconds, log(bar.close / last)))

    def of(self, tape: Tape, rules: MarketRules) -> Liquidity:
        """What the symbol's market can still take in the bar that closed last.

        The depth is what the venue's participation leaves of the bar's volume, on each side; it reaches as far as the
        price would move if that were taken (`Tape.slippage`: 2 · impact · participation of the best price).
        """
        depth = tape.available(rules.participation)
        known = self._seconds is not None
        return Liquidity(
            symbol=tape.instrument.symbol,
            bid_depth=depth,
            ask_depth=depth,
            within=2 * rules.impact * rules.participation,
            volume=tape.volume / tape.size if known else None,
            over=self._seconds,
            volatility=self.volatility(tape.instrument.symbol),
        )

    def volatility(self, symbol: str) -> float | None:
        """Of a day, as a fraction: √(Σ r² ÷ Σ seconds × a day) over the log returns r of the bars.

        That is the realised volatility of Andersen, Bollerslev, Diebold and Labys, "Modeling and forecasting realized
        volatility", Econometrica 71, 2003, scaled to a day. None where fewer than `FEWEST` returns are known.
        """
        moves = self._moves.get(symbol, ())
        if len(moves) < FEWEST:
            return None
        return sqrt(sum(r * r for _, r in moves) / sum(seconds for seconds, _ in moves) * DAY)
