"""Fetching bars: in pages, resumable, within rate limits, and never torn or duplicated."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.lab import bar_files
from killswitch.lab.bar_files import BarOrigin, FetchError, file_stem
from killswitch.lab.bars import read_market
from killswitch.lab.fetching import TRIES, Fetch, FetchResult, milliseconds
from killswitch.model.inspection import Bar
from killswitch.model.venue import (
    CredentialsRefusedError,
    MalformedAnswerError,
    OrderRejectedError,
    RateLimitedError,
    VenueDownError,
    VenueError,
)
from tests import virtual_time

MINUTE = 60_000
START = int(virtual_time.START.timestamp() * 1000)
"""The clock of these tests begins then: noon of 19 May 2021."""
NOON = START // MINUTE
EARLIER = START - 1000 * MINUTE
WHOSE = BarOrigin("somewhere", "BTC/USDT:USDT", "1m")


def bar(number: int, close: str = "100.5") -> Bar:
    """Bar number `number` after EARLIER."""
    price = Decimal(close)
    return Bar(EARLIER + number * MINUTE, price, price + 1, price - 1, price, Decimal(number))


class KilledError(BaseException):
    """Stands for the death of the process."""


class PublicHistory:
    """A venue with these bars, `page` at a time; single requests can be made to fail first."""

    def __init__(self, bars: Sequence[Bar], page: int = 100, *, window: int | None = None) -> None:
        """`window`: the venue searches only so many minutes from the requested time."""
        self.window = window
        self.bars_there = sorted(bars, key=lambda each: each.ts)
        self.page = page
        self.requested: list[int] = []
        self.failures: dict[int, BaseException] = {}

    async def bars(self, symbol: str, timeframe: str, since: int, limit: int | None = None) -> Sequence[Bar]:
        self.requested.append(since)
        failure = self.failures.pop(len(self.requested), None)
        if failure is not None:
            raise failure
        end = None if self.window is None else since + self.window * MINUTE
        return [each for each in self.bars_there if each.ts >= since and (end is None or each.ts < end)][: self.page]

    async def close(self) -> None: ...


def fetch(
    history: PublicHistory,
    folder: Path,
    first: int = 0,
    last: int = 10,
    *,
    origin: BarOrigin = WHOSE,
    timeline: virtual_time.VirtualTime | None = None,
    on_warning: Callable[[str], None] = lambda _: None,
) -> FetchResult:
    """Fetch the bars numbered from `first` to before `last`."""
    timeline = timeline or virtual_time.VirtualTime()
    work = Fetch(history, origin, folder, timeline, on_retry=on_warning)
    return timeline.run(work.run(EARLIER + first * MINUTE, EARLIER + last * MINUTE))


def lines(folder: Path) -> list[str]:
    return (folder / "BTC_USDT_USDT.csv").read_text(encoding="utf-8").splitlines()


def test_the_file_is_what_a_backtest_reads(tmp_path: Path) -> None:
    """Columns and decimals as the venue wrote them, one row a bar; the symbol is the file's name."""
    done = fetch(PublicHistory([bar(n) for n in range(10)]), tmp_path, 0, 3)
    assert lines(tmp_path) == [
        "ts,open,high,low,close,volume",
        *(f"{EARLIER + n * MINUTE},100.5,101.5,99.5,100.5,{n}" for n in range(3)),
    ]
    table = read_market(tmp_path)
    assert (table.symbols, len(table)) == (("BTC_USDT_USDT",), 3)
    assert (done.bars, done.new, done.gaps, done.requests) == (3, 3, 0, 1)


@pytest.mark.parametrize(
    ("symbol", "file"),
    [("BTC/USDT:USDT", "BTC_USDT_USDT"), ("AAPL", "AAPL"), ("BRK.B", "BRK.B"), ("../x", ".._x"), ("A-B/C", "A-B_C")],
)
def test_a_symbol_names_a_file_in_the_folder(symbol: str, file: str) -> None:
    """Named as the market folders of the field are; no symbol leads out of the folder."""
    assert file_stem(symbol) == file


def test_an_unfinished_bar_is_not_written(tmp_path: Path) -> None:
    """At noon the bar of 11:59 has just ended and may still change; the one of 11:58 is the last that is written."""
    history = PublicHistory([bar(n) for n in range(990, 1003)])
    done = fetch(history, tmp_path, 990, 2000)
    assert done.last == EARLIER + 998 * MINUTE
    assert done.bars == 9


def test_bars_already_in_the_file_are_not_fetched_again(tmp_path: Path) -> None:
    """The same command a second time sends no request and leaves the file unchanged."""
    history = PublicHistory([bar(n) for n in range(10)])
    fetch(history, tmp_path)
    before, asked = (tmp_path / "BTC_USDT_USDT.csv").read_bytes(), len(history.requested)
    again = fetch(history, tmp_path)
    assert (again.new, again.bars, again.requests, len(history.requested)) == (0, 10, 0, asked)
    assert (tmp_path / "BTC_USDT_USDT.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["BTC_USDT_USDT.csv", "BTC_USDT_USDT.fetched.json"]


def test_a_longer_span_extends_the_file_without_a_hole(tmp_path: Path) -> None:
    """Bars 4 and 5 exist; a request up to 9 also fetches those between, and likewise 0 to 2 before them."""
    history = PublicHistory([bar(n) for n in range(20)], page=3)
    fetch(history, tmp_path, 4, 6)
    fetch(history, tmp_path, 9, 12)
    assert [line.split(",")[-1] for line in lines(tmp_path)[1:]] == [str(n) for n in range(4, 12)]
    fetch(history, tmp_path, 0, 2)
    assert [line.split(",")[-1] for line in lines(tmp_path)[1:]] == [str(n) for n in range(12)]
    assert all(since >= EARLIER for since in history.requested)


def test_gaps_stay_gaps_and_are_counted(tmp_path: Path) -> None:
    """Without bars 3, 4 and 7 there are two gaps, of three bars; none is filled."""
    there = [bar(n) for n in range(10) if n not in (3, 4, 7)]
    done = fetch(PublicHistory(there, page=2), tmp_path)
    assert (done.bars, done.gaps, done.missing) == (7, 2, 3)


def test_a_symbol_listed_later_begins_at_its_listing(tmp_path: Path) -> None:
    """Requested from 0, listed at 6; that nothing comes before is known then, and not requested again."""
    history = PublicHistory([bar(n) for n in range(6, 20)])
    first = fetch(history, tmp_path)
    assert (first.first, first.before, first.after) == (EARLIER + 6 * MINUTE, 6, 0)
    assert fetch(history, tmp_path).requests == 0


@settings(max_examples=60, deadline=None)
@given(first=st.integers(0, 400), gap=st.integers(0, 150), window=st.integers(64, 200))
def test_a_venue_with_a_limited_search_window_is_queried_beyond_it(
    tmp_path_factory: pytest.TempPathFactory, first: int, gap: int, window: int
) -> None:
    """Listed long after --from, with a gap of hours: all its bars arrive, though the first answers are empty."""
    there = [n for n in range(first, 990) if not first + 400 <= n < first + 400 + gap]
    folder = tmp_path_factory.mktemp("windowed")
    done = fetch(PublicHistory([bar(n) for n in there], 64, window=window), folder, 0, 990)
    assert [line.split(",")[-1] for line in lines(folder)[1:]] == [str(n) for n in there]
    assert done.requests <= len(there) / 64 + 60


def test_a_missing_end_is_requested_again(tmp_path: Path) -> None:
    """The venue had 5 bars of 10; later it has all, and the second fetch gets the rest."""
    first = fetch(PublicHistory([bar(n) for n in range(5)]), tmp_path)
    assert (first.bars, first.before, first.after) == (5, 0, 5)
    done = fetch(PublicHistory([bar(n) for n in range(10)]), tmp_path)
    assert (done.bars, done.new, done.after) == (10, 5, 0)


class NewestAppended(PublicHistory):
    """A venue that appends its newest bar to every page."""

    newest = bar(1000)

    async def bars(self, symbol: str, timeframe: str, since: int, limit: int | None = None) -> Sequence[Bar]:
        return [*await super().bars(symbol, timeframe, since, limit), self.newest]


@pytest.mark.parametrize("newest", [20, 998, 999, 1000], ids=["past the end", "over", "just over", "forming"])
def test_a_newest_bar_appended_to_a_page_does_not_prove_a_gap(tmp_path: Path, newest: int) -> None:
    """Ten bars, three a page, each followed by the bar that forms at noon or one past the end: all ten are fetched."""
    history = NewestAppended([bar(n) for n in range(10)], page=3)
    history.newest = bar(newest)
    done = fetch(history, tmp_path)
    assert (done.bars, done.missing, done.after) == (10, 0, 0)
    assert fetch(history, tmp_path).requests == 0


@pytest.mark.parametrize("there", [5, 0], ids=["five", "none"])
def test_a_missing_end_before_a_forming_bar_is_requested_again(tmp_path: Path, there: int) -> None:
    """The venue had five bars of ten, or none, and the forming one: the rest is fetched once it exists."""
    if there:
        assert fetch(NewestAppended([bar(n) for n in range(there)]), tmp_path).after == 10 - there
    else:
        with pytest.raises(FetchError, match="has no finished 1m bar"):
            fetch(NewestAppended([]), tmp_path)
    assert fetch(NewestAppended([bar(n) for n in range(10)]), tmp_path).bars == 10


def test_a_gap_at_the_end_confirmed_by_a_later_bar_is_not_requested_again(tmp_path: Path) -> None:
    """Bars 0 to 4, and then none until 20: that 5 to 9 do not exist is known, and no request is sent."""
    history = PublicHistory([bar(n) for n in (*range(5), 20)])
    assert fetch(history, tmp_path).after == 5
    assert fetch(history, tmp_path).requests == 0


def test_a_fetch_without_any_bar_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    """No backtest reads a file without bars."""
    with pytest.raises(FetchError, match="somewhere has no finished 1m bar"):
        fetch(PublicHistory([]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_bar_is_left_out_and_reported(tmp_path: Path) -> None:
    """High below low, a negative volume, a price of zero: a backtest would refuse the whole file for each of them."""
    good = [bar(n) for n in range(4)]
    upside_down = Bar(bar(4).ts, Decimal(5), Decimal(4), Decimal(6), Decimal(5), Decimal(1))
    negative = Bar(bar(5).ts, Decimal(5), Decimal(5), Decimal(5), Decimal(5), Decimal(-1))
    worthless = Bar(bar(6).ts, Decimal(0), Decimal(5), Decimal(0), Decimal(5), Decimal(1))
    nothing = Bar(bar(7).ts, Decimal("NaN"), Decimal(5), Decimal(5), Decimal(5), Decimal(1))
    done = fetch(PublicHistory([*good, upside_down, negative, worthless, nothing]), tmp_path)
    assert (done.bars, done.left_out_count) == (4, 4)
    assert "low 6" in done.left_out[0] and "below zero" in done.left_out[1]
    assert len(read_market(tmp_path)) == 4


def test_a_venue_that_is_down_is_retried_with_exponential_backoff(tmp_path: Path) -> None:
    """1 s, 2 s and 4 s after the first three failures, plus the pause of 0.3 s before every further request."""
    history = PublicHistory([bar(n) for n in range(10)])
    history.failures = {n: VenueDownError("maintenance") for n in (1, 2, 3)}
    timeline, warnings = virtual_time.VirtualTime(), list[str]()
    assert fetch(history, tmp_path, timeline=timeline, on_warning=warnings.append).bars == 10
    assert timeline.elapsed == pytest.approx(1 + 2 + 4 + 3 * 0.3)
    assert warnings == [f"BTC/USDT:USDT: maintenance; retry in {wait} s" for wait in (1, 2, 4)]


def test_the_retry_delay_given_by_the_venue_is_respected(tmp_path: Path) -> None:
    """A venue that asks for 30 s gets 30 s."""
    history = PublicHistory([bar(n) for n in range(10)])
    history.failures = {1: RateLimitedError("too many requests", 30.0)}
    timeline = virtual_time.VirtualTime()
    fetch(history, tmp_path, timeline=timeline)
    assert timeline.elapsed == pytest.approx(30.3)


def test_a_ban_is_reported_and_not_waited_out(tmp_path: Path) -> None:
    """The user decides what to do with an hour of ban."""
    history = PublicHistory([bar(n) for n in range(10)])
    history.failures = {1: RateLimitedError("banned", 3600.0)}
    with pytest.raises(FetchError, match="banned"):
        fetch(history, tmp_path)
    assert len(history.requested) == 1


def test_giving_up_reports_how_to_resume_and_resuming_works(tmp_path: Path) -> None:
    """After eight failures in a row; the next call resumes after the fetched pages, not at the beginning."""
    history = PublicHistory([bar(n) for n in range(10)], page=4)
    history.failures = {2 + n: VenueDownError("connection refused") for n in range(TRIES)}
    with pytest.raises(FetchError, match=r"before 2021-05-18T19:24:00Z are kept: run the same command again"):
        fetch(history, tmp_path)
    assert not (tmp_path / "BTC_USDT_USDT.csv").exists(), "a file is whole or not there"
    history.requested.clear()
    assert fetch(history, tmp_path).bars == 10
    assert history.requested[0] == EARLIER + 4 * MINUTE


@pytest.mark.parametrize("error", [OrderRejectedError("other", "no such symbol"), MalformedAnswerError("not JSON")])
def test_an_error_that_a_retry_cannot_fix_is_reported_at_once(tmp_path: Path, error: Exception) -> None:
    """An unknown symbol, a malformed answer: one request, and the venue's own words."""
    history = PublicHistory([])
    history.failures = {1: error}
    with pytest.raises(FetchError, match="somewhere answered: no"):
        fetch(history, tmp_path)
    assert len(history.requested) == 1


@pytest.mark.parametrize(
    "error",
    [
        CredentialsRefusedError("it gives bars only to who has keys"),
        VenueDownError("the venue refused: somewhere fetch_ohlcv: 404 not found"),
        VenueDownError("Alpaca: 403: forbidden"),
    ],
)
def test_a_rejected_request_is_not_retried(tmp_path: Path, error: VenueError) -> None:
    """Missing keys and 4xx would fail the same way: one request, and the folder stays empty."""
    history = PublicHistory([bar(n) for n in range(10)])
    history.failures = {1: error}
    with pytest.raises(FetchError, match="a retry would give the same answer"):
        fetch(history, tmp_path)
    assert (len(history.requested), list(tmp_path.iterdir())) == (1, [])


@pytest.mark.parametrize("status", ["408 timeout", "429 too many", "503 maintenance"])
def test_a_temporary_status_is_retried(tmp_path: Path, status: str) -> None:
    """408, 429 and 5xx are not about the request itself."""
    history = PublicHistory([bar(n) for n in range(10)])
    history.failures = {1: VenueDownError(f"somewhere fetch_ohlcv: {status}")}
    assert fetch(history, tmp_path).bars == 10


@pytest.mark.parametrize(
    ("timeframe", "minutes", "apart"), [("5m", 1, "60 s apart for 5m, which is 300 s"), ("1m", 5, "300 s apart for 1m")]
)
def test_bars_of_another_timeframe_are_refused(tmp_path: Path, timeframe: str, minutes: int, apart: str) -> None:
    """Too close to each other, or all equally too far apart; none is kept."""
    history = PublicHistory([bar(n * minutes) for n in range(20)])
    whose = BarOrigin("somewhere", "BTC/USDT:USDT", timeframe)
    with pytest.raises(FetchError, match=apart):
        fetch(history, tmp_path, 0, 100, origin=whose)
    assert list(tmp_path.iterdir()) == []


def test_a_day_of_summer_time_is_a_day(tmp_path: Path) -> None:
    """Days of New York open at 05:00 UTC until 13 March 2021, and at 04:00 from the 15th on: 23 hours, once."""
    price = Decimal(5)
    days = [datetime(2021, 3, day, 5 if day < 14 else 4, tzinfo=UTC) for day in (10, 11, 12, 13, 14, 15, 16)]
    bars = [Bar(int(day.timestamp() * 1000), price, price, price, price, Decimal(1)) for day in days]
    whose = BarOrigin("somewhere", "AAPL", "1d")
    timeline = virtual_time.VirtualTime()
    work = Fetch(PublicHistory(bars), whose, tmp_path, timeline)
    assert timeline.run(work.run(bars[0].ts, bars[-1].ts + 1)).bars == 7


def test_two_different_bars_for_one_time_are_refused(tmp_path: Path) -> None:
    """Nobody knows which of them is right."""
    with pytest.raises(FetchError, match="two different bars for 2021-05-18T19:23:00Z"):
        fetch(PublicHistory([bar(2), bar(3), bar(3, "7")]), tmp_path)


@pytest.mark.parametrize(
    "other",
    [BarOrigin("elsewhere", "BTC/USDT:USDT", "1m"), BarOrigin("somewhere", "BTC/USDT:USDT", "5m"),
     BarOrigin("somewhere", "BTC/USDT:USDT", "1m", "http://127.0.0.1:1"), BarOrigin("somewhere", "BTC_USDT/USDT",
     "1m")],
    ids=["venue", "timeframe", "endpoint", "symbol"],
)  # fmt: skip
def test_bars_of_two_origins_never_share_a_file(tmp_path: Path, other: BarOrigin) -> None:
    """Another venue, timeframe or address, or a symbol with the same file name: refused, and the file is unchanged."""
    history = PublicHistory([bar(n) for n in range(20)])
    fetch(history, tmp_path)
    before = lines(tmp_path)
    with pytest.raises(FetchError, match="choose another --out"):
        fetch(history, tmp_path, 0, 15, origin=other)
    assert lines(tmp_path) == before


def test_a_partial_file_of_another_fetch_is_refused_and_unchanged(tmp_path: Path) -> None:
    """A `.part` file with another header is not removed: it may be the only copy of its rows."""
    foreign = tmp_path / f"BTC_USDT_USDT.{EARLIER}.part"
    content = b'{"format":"another/v1"}\n1,2,3,4,5,6\n'
    foreign.write_bytes(content)
    with pytest.raises(FetchError, match="belongs to another fetch"):
        fetch(PublicHistory([bar(n) for n in range(10)]), tmp_path)
    assert foreign.read_bytes() == content


def test_a_file_of_the_user_is_not_overwritten(tmp_path: Path) -> None:
    """Only fetched files are written to."""
    (tmp_path / "BTC_USDT_USDT.csv").write_text("mine\n")
    with pytest.raises(FetchError, match="was not fetched by this command"):
        fetch(PublicHistory([bar(1)]), tmp_path)
    assert (tmp_path / "BTC_USDT_USDT.csv").read_text() == "mine\n"


def test_a_modified_file_is_not_extended(tmp_path: Path) -> None:
    """A row was removed by hand: extending the file would present the change as a gap of the venue."""
    history = PublicHistory([bar(n) for n in range(20)])
    fetch(history, tmp_path)
    path = tmp_path / "BTC_USDT_USDT.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(FetchError, match=r"was changed since it was fetched \(9 bars, not 10\)"):
        fetch(history, tmp_path, 0, 15)


def written_by_an_older_version(folder: Path, numbers: Sequence[int], ends: int) -> None:
    """Write these bars, and the older version's statement that all before bar number `ends` exists."""
    rows = [f"{EARLIER + n * MINUTE},100.5,101.5,99.5,100.5,{n}\n" for n in numbers]
    (folder / "BTC_USDT_USDT.csv").write_text("ts,open,high,low,close,volume\n" + "".join(rows))
    whose = {"venue": "somewhere", "symbol": "BTC/USDT:USDT", "timeframe": "1m", "endpoint": None}
    record = {"format": "killswitch.fetched/v1", "whose": whose, "begins": EARLIER}
    record |= {"ends": EARLIER + ends * MINUTE, "bars": len(rows)}
    (folder / "BTC_USDT_USDT.fetched.json").write_text(json.dumps(record))


def test_a_span_that_an_older_version_took_for_empty_is_requested_again(tmp_path: Path) -> None:
    """It had three bars of ten followed by a newest one, and recorded that there are no more: all ten are fetched."""
    written_by_an_older_version(tmp_path, range(3), ends=10)
    history = PublicHistory([bar(n) for n in range(20)])
    warnings: list[str] = []
    assert fetch(history, tmp_path, 0, 5, on_warning=warnings.append).bars == 10
    assert warnings == [
        "BTC/USDT:USDT: BTC_USDT_USDT.csv was fetched by an older version, which could record as empty what it had not "
        "requested; all of it is fetched again"
    ]
    assert fetch(history, tmp_path, on_warning=warnings.append).requests == 0
    assert len(warnings) == 1


def test_bars_that_the_venue_no_longer_has_are_kept(tmp_path: Path) -> None:
    """The older version had the first five; the venue's history begins with the fourth now."""
    written_by_an_older_version(tmp_path, range(5), ends=10)
    assert fetch(PublicHistory([bar(n) for n in range(3, 20)]), tmp_path).bars == 10


def test_a_killed_fetch_resumes_where_it_ended(tmp_path: Path) -> None:
    """Killed at the third page of four: the two before it are kept, and the older file until the end."""
    written_by_an_older_version(tmp_path, range(3), ends=10)
    history = PublicHistory([bar(n) for n in range(10)], page=3)
    history.failures[3] = KilledError()
    with pytest.raises(KilledError):
        fetch(history, tmp_path)
    assert len(lines(tmp_path)) == 4
    history.requested.clear()
    assert fetch(history, tmp_path).bars == 10
    assert history.requested[0] == EARLIER + 6 * MINUTE


def test_a_partial_file_of_an_older_version_is_fetched_again(tmp_path: Path) -> None:
    """Its mark claims all bars before bar 10, and it has two."""
    whose = {"venue": "somewhere", "symbol": "BTC/USDT:USDT", "timeframe": "1m", "endpoint": None}
    rows = [f"{EARLIER + n * MINUTE},100.5,101.5,99.5,100.5,{n}\n" for n in range(2)]
    head = json.dumps(whose, separators=(",", ":")) + "\n"
    part = tmp_path / f"BTC_USDT_USDT.{EARLIER}.part"
    part.write_text(head + "".join(rows) + f"until,{EARLIER + 10 * MINUTE}\n")
    assert fetch(PublicHistory([bar(n) for n in range(10)]), tmp_path).bars == 10


def test_a_file_of_a_later_version_is_not_changed(tmp_path: Path) -> None:
    """This version does not know its format."""
    written_by_an_older_version(tmp_path, range(3), ends=10)
    at = tmp_path / "BTC_USDT_USDT.fetched.json"
    at.write_text(at.read_text().replace("/v1", "/v9"))
    with pytest.raises(FetchError, match=r"is of another version \(killswitch.fetched/v9\)"):
        fetch(PublicHistory([bar(1)]), tmp_path)


def test_a_removed_file_is_fetched_again(tmp_path: Path) -> None:
    """The record of what was fetched is valid only beside its file."""
    history = PublicHistory([bar(n) for n in range(10)])
    fetch(history, tmp_path)
    (tmp_path / "BTC_USDT_USDT.csv").unlink()
    assert fetch(history, tmp_path).new == 10


@pytest.mark.parametrize("first", [0, 5], ids=["the same bars", "others of the file"])
def test_two_processes_do_not_fetch_into_one_file(tmp_path: Path, first: int) -> None:
    """The second is refused: it neither writes between the first one's pages nor replaces the first one's file. Another
    symbol is fetched into the folder meanwhile, and no lock file remains."""
    history = PublicHistory([bar(n) for n in range(10)])
    with bar_files.BarFile(tmp_path, WHOSE).exclusive():
        with pytest.raises(FetchError, match=r"BTC_USDT_USDT\.csv: another process is fetching into it"):
            fetch(history, tmp_path, first)
        assert history.requested == []
        fetch(history, tmp_path, origin=BarOrigin("somewhere", "AAPL", "1m"))
    assert fetch(history, tmp_path, first).bars == 10 - first
    assert not list(tmp_path.glob("*.lock"))


def test_of_two_concurrent_fetches_none_loses_bars_of_the_other(tmp_path: Path) -> None:
    """Bars 4 and 5 exist; one fetches what comes before, the other what comes after, page by page in turns. The later
    one is refused, and its bars are joined when it is called again."""
    history = PublicHistory([bar(n) for n in range(10)], page=1)
    fetch(history, tmp_path, 4, 6)
    timeline = virtual_time.VirtualTime()

    async def both() -> list[FetchResult | BaseException]:
        works = [Fetch(history, WHOSE, tmp_path, timeline) for _ in range(2)]
        spans = [(EARLIER, EARLIER + 6 * MINUTE), (EARLIER + 4 * MINUTE, EARLIER + 10 * MINUTE)]
        runs = [work.run(*span) for work, span in zip(works, spans, strict=True)]
        return await asyncio.gather(*runs, return_exceptions=True)

    before, after = timeline.run(both())
    assert isinstance(before, FetchResult) and isinstance(after, FetchError)
    assert [line.split(",")[-1] for line in lines(tmp_path)[1:]] == [str(n) for n in range(6)]
    fetch(history, tmp_path, 4, 10)
    assert [line.split(",")[-1] for line in lines(tmp_path)[1:]] == [str(n) for n in range(10)]


def test_a_lock_file_of_a_killed_fetch_blocks_nobody(tmp_path: Path) -> None:
    """The file exists, and no process holds its lock."""
    (tmp_path / "BTC_USDT_USDT.lock").touch()
    assert fetch(PublicHistory([bar(n) for n in range(10)]), tmp_path).bars == 10
    assert not (tmp_path / "BTC_USDT_USDT.lock").exists()


@pytest.mark.parametrize(
    ("timeframe", "length"), [("1s", 1), ("1m", 60), ("5m", 300), ("4h", 14_400), ("1d", 86_400), ("2w", 1_209_600)]
)
def test_a_timeframe_has_a_length(timeframe: str, length: int) -> None:
    """In milliseconds."""
    assert milliseconds(timeframe) == length * 1000


@pytest.mark.parametrize("timeframe", ["", "m", "0m", "1M", "1y", "-1m", "1.5h", "5 m"])
def test_a_timeframe_without_a_fixed_length_is_refused(timeframe: str) -> None:
    """A month, and anything else than a whole number of a fixed unit."""
    with pytest.raises(ValueError, match="is not a timeframe"):
        milliseconds(timeframe)


@settings(max_examples=150, deadline=None)
@given(
    there=st.sets(st.integers(0, 40), min_size=1),
    span=st.tuples(st.integers(0, 40), st.integers(0, 40)).filter(lambda each: each[0] < each[1]),
    page=st.integers(1, 50),
    data=st.data(),
)
def test_any_page_size_and_any_kills_come_to_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, there: set[int], span: tuple[int, int], page: int, data: st.DataObject
) -> None:
    """Killed before a request, in the middle of writing (any number of bytes of the last write are there), or between
    any two steps of putting the file in its place; then called again until it is done: the bytes are those of one fetch
    with one page, which are the rows of the span."""
    rows = [bar(n) for n in sorted(there)]
    wanted = [n for n in sorted(there) if span[0] <= n < span[1]]
    if not wanted:
        return
    folder = tmp_path_factory.mktemp("killed")
    history = PublicHistory(rows, page)
    for _ in range(data.draw(st.integers(0, 4), label="kills")):
        _killed_once(history, folder, span, data)
    fetch(history, folder, *span)
    assert [line.split(",")[-1] for line in lines(folder)[1:]] == [str(n) for n in wanted]
    whole = tmp_path_factory.mktemp("whole")
    fetch(PublicHistory(rows, 1000), whole, *span)
    for name in ("BTC_USDT_USDT.csv", "BTC_USDT_USDT.fetched.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert not list(folder.glob("*.part")), "nothing is left over"


def test_bars_of_a_killed_fetch_are_recognised_although_their_partial_file_is_torn(tmp_path: Path) -> None:
    """Killed after the bars and before the record of what they cover, with a byte of the part lost; then before the
    first request; then called again."""
    history = PublicHistory([bar(n) for n in range(3)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _after(4, os.fsync))
        with pytest.raises(KilledError):
            fetch(history, tmp_path)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(part.read_bytes()[:-1])
    history.failures = {len(history.requested) + 1: KilledError()}
    with pytest.raises(KilledError):
        fetch(history, tmp_path)
    assert fetch(history, tmp_path).bars == 3


def _killed_once(history: PublicHistory, folder: Path, span: tuple[int, int], data: st.DataObject) -> None:
    """Run one fetch that is killed where it is told to be, if it gets there."""
    how = data.draw(st.sampled_from(["request", "write", "replace", "unlink"]), label="killed at")
    number = data.draw(st.integers(1, 6), label="number")
    with pytest.MonkeyPatch.context() as patch:
        if how == "request":
            history.failures = {len(history.requested) + number: KilledError()}
        elif how == "write":
            patch.setattr(os, "fsync", _after(number, os.fsync))
        else:
            patch.setattr(Path, how, _after(number, getattr(Path, how)))
        with contextlib.suppress(KilledError):
            fetch(history, folder, *span)
        history.failures = {}
    for part in folder.glob("*.part") if how == "write" else ():
        content = part.read_bytes()
        torn = data.draw(st.integers(0, min(len(content), 60)), label="bytes lost")
        part.write_bytes(content[: len(content) - torn])


def _after(number: int, real: Callable[..., object]) -> Callable[..., object]:
    """A call that ends the process instead of running for the `number`th time."""
    left = number

    def call(*arguments: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            raise KilledError
        return real(*arguments)

    return call


def test_the_clock_of_these_tests_is_noon() -> None:
    """The tests above rely on it."""
    assert datetime.fromtimestamp(START / 1000, UTC).hour == 12
