"""Market folders: bars are aligned by time, gaps remain gaps, and errors name their place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.lab.bars import BarsError, BarTable, Series, read_market

HEAD = "ts,open,high,low,close,volume\n"


def _csv(folder: Path, symbol: str, rows: list[tuple[int, str]]) -> None:
    """Write a flat bar for each (minute, price)."""
    lines = [f"{minute * 60_000},{price},{price},{price},{price},5" for minute, price in rows]
    (folder / f"{symbol}.csv").write_text(HEAD + "\n".join(lines) + "\n")


def test_bars_are_dated_when_they_close() -> None:
    """A one-minute bar opened at minute 0 is known at minute 1."""
    table = BarTable("m", [Series("A", [0, 60_000_000], *[[1.0, 2.0]] * 4, volume=[1.0, 1.0])])
    assert [at for at, _ in table] == [datetime(1970, 1, 1, 0, minute, tzinfo=UTC) for minute in (1, 2)]


def test_a_missing_minute_of_one_symbol_carries_its_last_price(tmp_path: Path) -> None:
    """B has no minute 1: its price of minute 0 is used there, marked as carried, with no volume."""
    _csv(tmp_path, "A", [(0, "10"), (1, "11"), (2, "12")])
    _csv(tmp_path, "B", [(0, "20"), (2, "22")])
    bars = [bars for _, bars in read_market(tmp_path)]
    assert [(b["B"].close, b["B"].carried, b["B"].volume) for b in bars] == [
        (20, False, 5), (20, True, 0), (22, False, 5)]  # fmt: skip


def test_a_minute_without_any_bar_is_skipped(tmp_path: Path) -> None:
    """An outage of the venue remains a gap: no bar is invented."""
    _csv(tmp_path, "A", [(0, "10"), (1, "11"), (2, "12"), (7, "13")])
    table = read_market(tmp_path)
    assert len(table) == 4
    assert [at.minute for at, _ in table] == [1, 2, 3, 8]
    assert table.interval == timedelta(minutes=1)


def test_since_begins_when_every_symbol_has_a_price(tmp_path: Path) -> None:
    """B begins at minute 2, and so does a book that holds it; at minute 1 B is absent."""
    _csv(tmp_path, "A", [(0, "10"), (1, "11"), (2, "12"), (3, "13")])
    _csv(tmp_path, "B", [(2, "20"), (3, "21")])
    table = read_market(tmp_path)
    assert [set(bars) for _, bars in table] == [{"A"}, {"A"}, {"A", "B"}, {"A", "B"}]
    assert [at.minute for at, _ in table.since(frozenset({"B"}))] == [3, 4]
    assert len(list(table.since(frozenset({"A"})))) == 4


def test_since_carries_the_last_earlier_price(tmp_path: Path) -> None:
    """A has no bar at the first requested instant: its last earlier price is carried into it."""
    _csv(tmp_path, "A", [(0, "10"), (1, "11"), (3, "13")])
    _csv(tmp_path, "B", [(2, "20"), (3, "21")])
    _, first = next(read_market(tmp_path).since(frozenset({"A", "B"})))
    assert (first["A"].close, first["A"].carried) == (11, True)


def test_prices_are_the_decimals_that_were_written(tmp_path: Path) -> None:
    """0.1 is 0.1, and the finest decimal in use is the tick."""
    _csv(tmp_path, "A", [(0, "0.1"), (1, "0.30003"), (2, "0.3")])
    table = read_market(tmp_path)
    assert [str(bars["A"].close) for _, bars in table] == ["0.1", "0.30003", "0.3"]
    (rules,) = table.instruments()
    assert rules.price_step == Decimal("0.00001")


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("0,1,1,1,1,1\n0,1,1,1,1,1\n", "row 2: ts is not later than that of the row before"),
        ("0,1,1,2,1,1\n", "row 1: not a bar: open 1.0, high 1.0, low 2.0, close 1.0"),
        ("0,0,0,0,0,1\n", "row 1: not a bar"),
        ("0,1,1,1,1,-1\n", "row 1: volume -1.0 is below zero"),
        ("0,1,nan,1,1,1\n", "row 1: a value is missing or not a number"),
        ("0,1,x,1,1,1\n", "A.csv:2: high is not a number: 'x'"),
        ("0,1,1\n", "A.csv:2: low is not a number: None"),
        ("0.5,1,1,1,1,1\n", "A.csv:2: ts is not a number: '0.5'"),
        ("", "holds no bar"),
        ("0,1,1,1,1,1\n", "fewer than two bars"),
    ],
)
def test_an_invalid_market_file_is_reported_with_its_place(tmp_path: Path, rows: str, text: str) -> None:
    """The error has the file, the row and the cause."""
    (tmp_path / "A.csv").write_text(HEAD + rows)
    with pytest.raises(BarsError) as caught:
        read_market(tmp_path)
    assert text in str(caught.value)


def test_a_folder_without_usable_bars_is_an_error(tmp_path: Path) -> None:
    """An empty folder, a missing folder, a missing column, and the same symbol twice."""
    with pytest.raises(BarsError, match=r"holds no \.parquet and no \.csv file"):
        read_market(tmp_path)
    with pytest.raises(BarsError, match="no such folder"):
        read_market(tmp_path / "nowhere")
    (tmp_path / "A.csv").write_text("ts,open\n1,2\n")
    with pytest.raises(BarsError, match="has no column high, low, close, volume"):
        read_market(tmp_path)
    (tmp_path / "A.parquet").write_bytes(b"no parquet")
    with pytest.raises(BarsError, match=r"A is there as \.parquet and as \.csv"):
        read_market(tmp_path)


def test_an_invalid_parquet_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    """The error is a message, not a traceback of the library."""
    (tmp_path / "A.parquet").write_bytes(b"no parquet")
    with pytest.raises(BarsError, match=r"A\.parquet"):
        read_market(tmp_path)


def test_an_unknown_symbol_of_a_book_is_named(tmp_path: Path) -> None:
    """The error has the missing symbol and those that exist."""
    _csv(tmp_path, "A", [(0, "10"), (1, "11")])
    with pytest.raises(BarsError, match="has no X; it has A"):
        read_market(tmp_path).since(frozenset({"X"}))


def test_real_bars_of_the_crash_are_read(shared: Path) -> None:
    """5,561 minutes of eight symbols; ADA is complete and LINK lacks two, as the data's README counts them."""
    table = read_market(shared / "data/market/2021-05-19_binance-spot_1m")
    assert len(table) == 5561
    carried = dict.fromkeys(table.symbols, 0)
    for _, bars in table:
        for symbol, one in bars.items():
            carried[symbol] += one.carried
    assert carried == {
        "ADA_USDT": 0, "BCH_USDT": 3, "BTC_USDT": 0, "DOGE_USDT": 1, "DOT_USDT": 1, "ETH_USDT": 2,
        "LINK_USDT": 2, "XRP_USDT": 1,
    }  # fmt: skip
