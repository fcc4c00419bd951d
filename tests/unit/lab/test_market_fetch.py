"""`ksctl market fetch` as a user calls it, and a backtest that reads what it wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from itertools import count
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from killswitch.accounts import plug_ins
from killswitch.cli import terminal
from killswitch.cli.lab.backtest import backtest
from killswitch.cli.lab.market import market
from killswitch.lab import fetching
from killswitch.lab.bars import Series
from killswitch.lab.crash import crash_bars
from killswitch.model.backoff import Backoff
from killswitch.model.inspection import Bar, BarHistory
from killswitch.model.venue import OrderRejectedError, VenueDownError


def _bars(one: Series) -> list[Bar]:
    columns = (one.open, one.high, one.low, one.close, one.volume)
    return [
        Bar(opened // 1000, *(Decimal(repr(column[row])) for column in columns))
        for row, opened in enumerate(one.opened)
    ]


class CrashHistory:
    """The generated crash as a venue's history, 400 bars at a time."""

    def __init__(self) -> None:
        self.requested: list[tuple[str, str, int]] = []
        self.closed = False
        self.endpoint: str | None = None
        self.failure: Exception | None = None
        self._bars = {f"{one.symbol.replace('_', '/')}:USDT": _bars(one) for one in crash_bars(7).series}

    async def bars(self, symbol: str, timeframe: str, since: int, limit: int | None = None) -> Sequence[Bar]:
        self.requested.append((symbol, timeframe, since))
        if self.failure is not None:
            raise self.failure
        if symbol not in self._bars:
            raise OrderRejectedError("other", f"no symbol {symbol}")
        return [bar for bar in self._bars[symbol] if bar.ts >= since][:400]

    async def close(self) -> None:
        self.closed = True


class FakePlugIn:
    """A venue plug-in with one exchange."""

    def __init__(self, history: CrashHistory) -> None:
        self._history = history

    def listings(self) -> Sequence[object]:
        return ()

    def history(self, exchange: str, endpoint: str | None = None) -> BarHistory | None:
        self._history.endpoint = endpoint
        if exchange == "broken":
            raise ValueError("this endpoint is no address")
        return self._history if exchange == "swapex" else None


class FakeEntryPoint:
    name = value = module = "made-up"
    dist = None

    def __init__(self, plug_in: FakePlugIn) -> None:
        self.load = lambda: plug_in


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> CrashHistory:
    made = CrashHistory()
    monkeypatch.setattr(plug_ins, "entry_points", lambda group: [FakeEntryPoint(FakePlugIn(made))])
    monkeypatch.setattr(fetching, "REQUEST_PAUSE", 0.0)
    monkeypatch.setattr(fetching, "WAITS", Backoff(0.0, 0.0))
    return made


def run_verb(command: object, *arguments: str | Path) -> Result:
    """Run a verb: its exit, or its refusal in `exception`; a traceback fails the test."""
    result = CliRunner().invoke(command, [str(each) for each in arguments], standalone_mode=False)  # type: ignore[arg-type] # a command
    if result.exception is not None and not isinstance(result.exception, click.ClickException):
        raise result.exception
    return result


def fetch(folder: Path, *arguments: str, to: str = "2024-01-02") -> Result:
    return run_verb(market, "fetch", "swapex", *arguments, "--from", "2024-01-01", "--to", to, "--out", folder)


BOOK = """\
name: one
accounts:
  - account: main
    market: swap
    currency: USDT
    equity: 100000
    positions: [{symbol: BTC_USDT_USDT, side: long, notional: 200000, leverage: 5}]
"""


def test_a_backtest_reads_fetched_bars(history: CrashHistory, tmp_path: Path, repository: Path) -> None:
    """The crash is fetched into files, and a book of its symbol is backtested on them."""
    done = fetch(tmp_path / "market", "BTC/USDT:USDT", "ETH/USDT:USDT")
    assert done.return_value == 0, done.stderr
    assert history.closed
    (tmp_path / "book.yaml").write_text(BOOK, encoding="utf-8")
    policies = repository / "policies" / "futures-drawdown"
    tried = run_verb(
        backtest, "--policies", policies, "--market", tmp_path / "market", "--book", tmp_path / "book.yaml",
        "--output", "json",
    )  # fmt: skip
    assert not tried.exception, tried.stderr
    assert json.loads(tried.stdout)


def test_the_summary_counts_bars_per_symbol(history: CrashHistory, tmp_path: Path) -> None:
    """One row per symbol; the second time no bar is new and no request is sent."""
    first = fetch(tmp_path, "BTC/USDT:USDT")
    count = len((tmp_path / "BTC_USDT_USDT.csv").read_text().splitlines()) - 1
    assert f"the venue has no data for the last {24 * 60 - count} bars before --to" in first.stdout.splitlines()[-1]
    assert first.stdout.splitlines()[0] == f"swapex, 1m, in {tmp_path}"
    assert first.stdout.splitlines()[2].split()[:3] == ["BTC/USDT:USDT", f"{count:,}", f"{count:,}"]
    again = json.loads(fetch(tmp_path, "BTC/USDT:USDT", "--output", "json").stdout)
    (symbol,) = again["symbols"]
    assert (symbol["bars"], symbol["new"], symbol["file"]) == (count, 0, "BTC_USDT_USDT.csv")


def test_an_unknown_symbol_does_not_prevent_the_fetch_of_others(history: CrashHistory, tmp_path: Path) -> None:
    """Exit 1 with the venue's words, and the other's file."""
    done = fetch(tmp_path, "NO/USDT:USDT", "BTC/USDT:USDT")
    assert done.return_value == 1
    assert "NO/USDT:USDT: swapex answered: no symbol NO/USDT:USDT; check the symbol and the timeframe" in done.stderr
    assert [path.name for path in tmp_path.glob("*.csv")] == ["BTC_USDT_USDT.csv"]


def test_a_venue_that_stays_down_is_an_error_that_says_how_to_resume(history: CrashHistory, tmp_path: Path) -> None:
    """Exit 1, no traceback."""
    history.failure = VenueDownError("maintenance")
    done = fetch(tmp_path, "BTC/USDT:USDT")
    assert done.return_value == 1
    assert "run the same command again to resume" in done.stderr


def test_a_defect_of_an_adapter_is_reported_with_its_symbol(history: CrashHistory, tmp_path: Path) -> None:
    """Whatever third-party code raises."""
    history.failure = RuntimeError("a bug")
    done = fetch(tmp_path, "BTC/USDT:USDT")
    assert done.return_value == 1
    assert "BTC/USDT:USDT: the adapter failed: RuntimeError: a bug" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("swapex", "X", "--from", "2021-01-01", "--to", "2020-01-01"), "--from must be before --to"),
        (("swapex", "X", "--from", "yesterday"), "is not a date: write 2021-05-19"),
        (("swapex", "X", "--from", "2021-01-01", "--timeframe", "1M"), "is not a timeframe: write 1m, 5m"),
        (("swapex", "A/B", "A:B", "--from", "2021-01-01"), "would share one file"),
        (("otherex", "X", "--from", "2021-01-01"), "no venue is called otherex"),
        (("broken", "X", "--from", "2021-01-01"), "broken cannot be reached: this endpoint"),
    ],
    ids=["backwards", "no-date", "month", "same-file", "unknown", "endpoint"],
)  # fmt: skip
def test_invalid_arguments_are_refused_before_any_request(
    history: CrashHistory, tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    """The error is one sentence."""
    done = run_verb(market, "fetch", *arguments, "--out", tmp_path / "out")
    assert why in str(done.exception)
    assert not history.requested and not (tmp_path / "out").exists()


def test_the_endpoint_reaches_the_plug_in_and_its_token_no_file(history: CrashHistory, tmp_path: Path) -> None:
    """A token in the address is the user's secret: the file beside the bars does not contain it."""
    history.failure = None
    done = fetch(tmp_path, "BTC/USDT:USDT", "--endpoint", "http://127.0.0.1:1/gate?token=PLANTED")
    assert done.return_value == 0
    assert history.endpoint == "http://127.0.0.1:1/gate?token=PLANTED"
    for path in tmp_path.iterdir():
        assert "PLANTED" not in path.read_text()
    other = fetch(tmp_path, "BTC/USDT:USDT")
    assert "from http://127.0.0.1:1/gate" in other.stderr


def test_progress_without_a_terminal_is_a_line_every_thirty_seconds(
    history: CrashHistory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An answer each 15 s, of 400 bars at most: lines at 30 s, 60 s and 90 s, none of them for the other answers.

    The crash lasts 480 minutes, a third of the day; 400 minutes are 28% of it.
    """
    seconds = count(0, 15)
    monkeypatch.setattr(terminal, "monotonic", lambda: float(next(seconds)))
    done = fetch(tmp_path, "BTC/USDT:USDT", "ETH/USDT:USDT")
    assert [line for line in done.stderr.splitlines() if "fetched to" in line] == [
        "BTC/USDT:USDT: fetched to 2024-01-01T08:00:00Z, 33%",
        "ETH/USDT:USDT: fetched to 2024-01-01T06:40:00Z, 28%",
        "ETH/USDT:USDT: fetched to 2024-01-02T00:00:00Z, 100%",
    ]


def test_a_fetch_without_bars_prints_no_summary(history: CrashHistory, tmp_path: Path) -> None:
    """Only the error; the folder stays empty."""
    done = fetch(tmp_path, "NO/USDT:USDT")
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
