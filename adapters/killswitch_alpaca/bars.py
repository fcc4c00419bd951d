"""Alpaca's historical bars, unadjusted for splits. Coins need no keys, stocks do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
from msgspec.structs import replace

from killswitch.model.inspection import Bar
from killswitch.model.parsing import Row, UnreadableError, object_at, required_number, written_instant
from killswitch.model.unanswered import why_unanswered
from killswitch.model.venue import CredentialsRefusedError, MalformedAnswerError, VenueDownError
from killswitch.transport import AnswerTooLargeError, RedirectRefusedError
from killswitch_alpaca.errors import as_venue_error, host_of, redacted, without_secrets
from killswitch_alpaca.http import Http, InvalidJsonError, RefusedAnswerError
from killswitch_alpaca.positions import is_crypto
from killswitch_alpaca.settings import DATA

TIMEFRAMES: Final = {
    "1m": "1Min", "5m": "5Min", "15m": "15Min", "30m": "30Min", "1h": "1Hour", "4h": "4Hour", "1d": "1Day",
    "1w": "1Week",
}  # fmt: skip
MOST = 10_000
"""Bars of one answer."""
DELAY = timedelta(minutes=16)
"""Without a subscription, the latest 15 minutes of stock data are not available."""
TIMEOUT = 30.0
KEYS = ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY")


class AlpacaBars:
    """Public bars. Requests for stocks use the keys in Alpaca's own environment variables."""

    def __init__(self, endpoint: str | None = None) -> None:
        """`endpoint` replaces the address of the data API."""
        self._endpoint = (endpoint or DATA).rstrip("/")
        self._https: dict[bool, Http] = {}
        """By whether they are for coins."""

    async def bars(self, symbol: str, timeframe: str, since: int, limit: int | None = None) -> Sequence[Bar]:
        """Fetch one page. Raises CredentialsRefusedError for stocks without keys, ValueError for an unknown
        timeframe."""
        if timeframe not in TIMEFRAMES:
            raise ValueError(f"Alpaca has no bars of {timeframe}; it has {', '.join(TIMEFRAMES)}")
        crypto = is_crypto(symbol)
        query: dict[str, Any] = {
            "symbols": symbol,
            "timeframe": TIMEFRAMES[timeframe],
            "start": datetime.fromtimestamp(since / 1000, UTC).isoformat().replace("+00:00", "Z"),
            "limit": min(limit or MOST, MOST),
            "sort": "asc",
        }
        if not crypto:
            end = datetime.now(UTC) - DELAY
            if end <= datetime.fromtimestamp(since / 1000, UTC):
                return ()
            # Adjusted prices are those of the day of the fetch: a file that is fetched on after a split would mix two.
            query |= {"end": end.isoformat().replace("+00:00", "Z"), "adjustment": "raw"}
        path = "/v1beta3/crypto/us/bars" if crypto else "/v2/stocks/bars"
        try:
            answer = object_at(await self._http_for(crypto).request("GET", path, query), what="bars")
            found = object_at(answer.get("bars") or {}, what="bars").get(symbol) or []
            return [_bar(each) for each in found]
        except RefusedAnswerError as error:
            refused = replace(error.refused, text=self._redacted(error.refused.text))
            raise as_venue_error(refused, changes=False) from None
        except (UnreadableError, InvalidJsonError) as error:
            raise MalformedAnswerError(f"bars of {symbol}: {self._redacted(str(error))}") from None
        except (aiohttp.ClientError, AnswerTooLargeError, RedirectRefusedError, OSError, ValueError) as error:
            # Without its cause, which repeats the whole address.
            why = why_unanswered(error, host_of(self._endpoint), TIMEOUT) or str(error) or type(error).__name__
            raise VenueDownError(f"{without_secrets(self._endpoint)}: no bars: {self._redacted(why)}") from None

    def _redacted(self, text: str) -> str:
        return redacted(text, self._endpoint)

    async def close(self) -> None:
        for http in self._https.values():
            await http.close()
        self._https = {}

    def _http_for(self, crypto: bool) -> Http:
        if crypto not in self._https:
            key, secret = (os.environ.get(name, "") for name in KEYS)
            if not crypto and not (key and secret):
                raise CredentialsRefusedError(
                    f"bars of stocks need keys of Alpaca: set {KEYS[0]} and {KEYS[1]}; coins such as BTC/USD need none"
                )
            self._https[crypto] = Http(self._endpoint, None if crypto else (key, secret), TIMEOUT)
        return self._https[crypto]


def _bar(found: Row) -> Bar:
    at = written_instant(found.get("t"))
    if at is None:
        raise UnreadableError("a bar has no time")
    return Bar(
        int(at.timestamp() * 1000), *(required_number(found.get(name), name) for name in ("o", "h", "l", "c", "v"))
    )
