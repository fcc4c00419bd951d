"""Public bars of a venue, for backtests."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.model.fitting import did_you_mean
from killswitch.model.inspection import Bar
from killswitch.model.parsing import UnreadableError, required_number
from killswitch.model.venue import AccountSpec, MalformedAnswerError
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect


class CcxtBars:
    """Bars of one exchange through ccxt, as a BarHistory. It uses no credentials."""

    def __init__(self, dialect: type[Dialect], endpoint: str | None) -> None:
        self._exchange = dialect.exchange
        spec = AccountSpec("", "ccxt", dialect.markets[0], "", endpoint, {}, {}, exchange=dialect.exchange)
        self._client = Client(spec, dialect)

    async def bars(self, symbol: str, timeframe: str, since: int, limit: int | None = None) -> Sequence[Bar]:
        """See `BarHistory`. ValueError for a symbol or a timeframe that the venue does not have."""
        if not self._client.ccxt.markets:
            await self._client.call("load_markets")
        ccxt = self._client.ccxt
        if symbol not in ccxt.markets:
            suggestion = did_you_mean(symbol.replace("_", "/"), list(ccxt.markets))
            raise ValueError(f"{self._exchange} has no symbol {symbol}{suggestion}")
        if timeframe not in (ccxt.timeframes or {}):
            raise ValueError(f"{self._exchange} has no bars of {timeframe}; it has {', '.join(ccxt.timeframes or ())}")
        rows = await self._client.call("fetch_ohlcv", symbol, timeframe, since, limit)
        try:
            found = {bar.ts: bar for bar in map(_bar, rows)}
        except UnreadableError as error:
            raise MalformedAnswerError(f"a bar of {symbol}: {error}") from error
        return [found[ts] for ts in sorted(found) if ts >= since]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _bar(row: Sequence[object]) -> Bar:
    ts, opened, high, low, close, volume = row[:6]
    return Bar(
        int(required_number(ts, "its time")),
        required_number(opened, "its open"), required_number(high, "its high"), required_number(low, "its low"),
        required_number(close, "its close"),
        required_number(volume, "its volume"),
    )  # fmt: skip
