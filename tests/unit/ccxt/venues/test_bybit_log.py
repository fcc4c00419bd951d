"""Bybit's transaction log when it is longer than one poll reads: flows are unknown until all of it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from killswitch.model.parsing import UnreadableError
from killswitch.model.venue import RateLimitedError, VenueDownError, VenueError
from killswitch_ccxt.venues.bybit.flows import LogReader, Page
from tests.unit.ccxt.venues.test_bybit_inverse_and_flows import Rows, RowsVenue

NOW = 1_700_000_000_000
DAY, SECOND = 86_400_000, 1000


def funding(number: int, at: int) -> dict[str, str]:
    return {
        "id": str(number), "type": "SETTLEMENT", "funding": "1", "currency": "USDT", "transactionTime": str(at),
    }  # fmt: skip


class Log:
    """The venue's log: rows newest first, 50 a page, with cursors that state how many rows were returned."""

    def __init__(self, count: int) -> None:
        self.rows = [funding(number, NOW - number * SECOND) for number in range(count)]
        self.asked: list[dict[str, Any]] = []
        self.refusal: VenueError | None = None

    async def page(self, asked: dict[str, Any]) -> Page:
        self.asked.append(asked)
        if self.refusal is not None:
            raise self.refusal
        span = [row for row in self.rows if asked["startTime"] <= int(row["transactionTime"]) <= asked["endTime"]]
        begin = int(asked.get("cursor", 0))
        after = begin + asked["limit"]
        return span[begin:after], str(after) if after < len(span) else None


def read(portions: LogReader, since: int, now: int) -> set[str]:
    return {flow.id for flow in asyncio.run(portions.flows(since, now))}


def test_a_log_of_4500_rows_takes_three_polls_and_loses_no_row() -> None:
    """2,000 rows each; rows written meanwhile are read with the rest, and the fourth poll requests only new rows."""
    log = Log(4500)
    portions = LogReader(log.page)
    for times in (1, 2):
        with pytest.raises(UnreadableError, match="more than 2,000 rows that are not read yet"):
            read(portions, NOW - DAY, NOW + (times - 1) * 5 * SECOND)
        assert len(log.asked) == 40 * times
    log.rows.insert(0, funding(9999, NOW + 7 * SECOND))
    # A new row moves this venue's cursors by one; the real cursors point at a row.
    log.asked[:] = []
    found = read(portions, NOW - DAY, NOW + 10 * SECOND)
    assert found >= {str(number) for number in range(4500)} | {"9999"}
    assert 10 <= len(log.asked) <= 15
    assert read(portions, NOW, NOW + 30 * SECOND) == {"0", "9999"}


def test_a_cursor_that_the_venue_no_longer_accepts_is_discarded() -> None:
    """Its span is read again from the beginning, and in the end every row is read."""
    log = Log(2100)
    portions = LogReader(log.page)
    with pytest.raises(UnreadableError):
        read(portions, NOW - DAY, NOW)
    log.refusal = VenueDownError("the venue refused: 10001 cursor invalid")
    with pytest.raises(VenueDownError):
        read(portions, NOW - DAY, NOW + 5 * SECOND)
    log.refusal = None
    with pytest.raises(UnreadableError):
        read(portions, NOW - DAY, NOW + 10 * SECOND)
    assert read(portions, NOW - DAY, NOW + 15 * SECOND) == {str(number) for number in range(2100)}


def test_a_rate_limited_page_loses_no_progress() -> None:
    """After too many requests the same cursor is requested again."""
    log = Log(2100)
    portions = LogReader(log.page)
    with pytest.raises(UnreadableError):
        read(portions, NOW - DAY, NOW)
    log.refusal = RateLimitedError("10006 Too many visits!", 1.0)
    with pytest.raises(RateLimitedError):
        read(portions, NOW - DAY, NOW)
    log.refusal = None
    assert read(portions, NOW - DAY, NOW) == {str(number) for number in range(2100)}
    assert len(log.asked) == 40 + 1 + 2 + 4  # the two remaining pages, and the 181 rows of the last three minutes


def test_an_outage_of_an_hour_leaves_one_more_request() -> None:
    """Polled every five seconds meanwhile: the unread time is one span, not one for each attempt."""
    log = Log(10)
    portions = LogReader(log.page)
    log.refusal = VenueDownError("nobody answers")
    for number in range(720):
        with pytest.raises(VenueDownError):
            read(portions, NOW - DAY, NOW + number * 5 * SECOND)
    log.refusal, log.asked = None, []
    assert read(portions, NOW - DAY, NOW + 3600 * SECOND) == {str(number) for number in range(10)}
    assert len(log.asked) == 1


class EndlessLog(RowsVenue):
    """A venue whose log never ends."""

    async def _fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        parts = urlsplit(url)
        if not parts.path.endswith("account/transaction-log"):
            return await super()._fetch(url, method, headers, body)
        begin = int(parse_qs(parts.query).get("cursor", ["0"])[0])
        rows = [funding(number, NOW) for number in range(begin, begin + 50)]
        return {"retCode": 0, "retMsg": "OK", "result": {"list": rows, "nextPageCursor": str(begin + 50)}, "time": 0}


WALLET = {
    "accountType": "UNIFIED", "totalEquity": "1000", "totalMaintenanceMargin": "0", "totalInitialMargin": "0",
    "coin": [{"coin": "USDT", "equity": "1000", "usdValue": "1000", "walletBalance": "1000", "unrealisedPnl": "0"}],
}  # fmt: skip


def test_a_snapshot_states_why_its_flows_are_unknown() -> None:
    """Equity and positions are known; the reason names the log and what happens next, and no Python class."""

    def rows(route: str, query: Mapping[str, str]) -> Rows:
        return [WALLET] if route == "account/wallet-balance" else []

    async def once(venue: Any) -> Any:
        return await venue.snapshot()

    seen = EndlessLog(rows).run(once)
    assert (seen.quality, seen.equity, seen.flows) == ("ok", 1000, None)
    assert "flows: the transaction log has more than 2,000 rows" in seen.reason
    assert "the next fetch continues" in seen.reason
    assert "Error" not in seen.reason
