"""`ksctl backtest`: its runs, its output, and its refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from killswitch.cli import ksctl
from killswitch.cli.lab.demo import POLICIES
from killswitch.lab.crash import crash_bars

BOOK = """\
name: two
accounts:
  - account: main
    market: swap
    currency: USDT
    equity: 100000
    positions:
      - {symbol: BTC_USDT, side: long, notional: 150000, leverage: 5}
      - {symbol: XRP_USDT, side: short, notional: 150000, leverage: 5}
"""


@pytest.fixture
def policies(repository: Path) -> str:
    return str(repository / "policies" / "futures-drawdown")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.yaml"
    path.write_text(BOOK, encoding="utf-8")
    return path


def market(folder: Path, bars: int = 30, *symbols: str) -> Path:
    """A market folder of the generated crash's first bars, as CSV."""
    folder.mkdir(parents=True)
    for series in crash_bars(7).series:
        if not symbols or series.symbol in symbols:
            rows = zip(series.opened, series.open, series.high, series.low, series.close, series.volume, strict=True)
            lines = [f"{ts // 1000},{','.join(map(repr, map(float, rest)))}" for ts, *rest in list(rows)[:bars]]
            text = "\n".join(["ts,open,high,low,close,volume", *lines])
            (folder / f"{series.symbol}.csv").write_text(text + "\n", encoding="utf-8")
    return folder


def ksctl_backtest(*arguments: str | int | Path) -> Result:
    return CliRunner().invoke(ksctl, ["backtest", *map(str, arguments)], prog_name="ksctl")


def json_answer(*arguments: str | int | Path) -> dict[str, Any]:
    """The JSON output of a run that must succeed."""
    result = ksctl_backtest("--output", "json", *arguments)
    assert result.exit_code == 0, result.output
    read: dict[str, Any] = json.loads(result.stdout)
    return read


def test_the_three_rules_are_compared_side_by_side(policies: str) -> None:
    """In a whole generated crash: staging acts, `nothing` does nothing, close-all closes once."""
    read = json_answer("--policies", policies, "--crash", 7)
    (tried,) = read["books"]
    runs = {run["rule"]: run for run in tried["runs"]}
    assert set(runs) == {"staged", "none", "close-all"}
    assert [firing["level"] for firing in runs["staged"]["firings"]] == [1, 2, 3]
    assert runs["none"]["firings"] == []
    assert len(runs["close-all"]["firings"]) == 1
    assert float(runs["close-all"]["gross_end"]) == 0
    assert read["complete"] is True


def test_the_backtest_ends_with_the_equity_of_the_demo(repository: Path, readme_equity: str) -> None:
    """The live run of the demo and the backtest of the same bars end with the same equity."""
    result = ksctl_backtest("--policies", str(repository / "policies" / POLICIES), "--crash", 7)
    assert readme_equity in result.output


@pytest.fixture
def readme_equity(repository: Path) -> str:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    (line,) = (line for line in readme.splitlines() if "with the policies  lowest" in line)
    return line.split(", end")[1].split()[0]


def test_the_suffix_of_a_file_selects_its_format(policies: str, tmp_path: Path) -> None:
    """In addition to stdout, which still has the whole answer."""
    files = [tmp_path / f"report{suffix}" for suffix in (".html", ".md", ".json", ".txt")]
    folder = market(tmp_path / "m", 40)
    read = json_answer(
        "--policies", policies, "--market", folder, *(part for file in files for part in ("--out", file))
    )
    assert files[0].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert files[1].read_text(encoding="utf-8").startswith("# Backtest")
    assert json.loads(files[2].read_text(encoding="utf-8")) == read
    assert "The rules side by side" in files[3].read_text(encoding="utf-8")


def test_all_splits_and_random_books_are_backtested(policies: str, tmp_path: Path) -> None:
    """C(3, 1) × C(2, 1) splits of three symbols, and two random books of each kind."""
    folder = market(tmp_path / "m", 20, "BTC_USDT", "ETH_USDT", "XRP_USDT")
    read = json_answer("--policies", policies, "--market", folder, "--all-splits", 1, "--random", 2)
    kinds = [book["kind"] for book in read["books"]]
    assert kinds.count("split") == math.comb(3, 1) * math.comb(2, 1)
    assert {kind: kinds.count(kind) for kind in set(kinds) - {"split"}} == {
        "hedged": 2, "directional": 2, "concentrated": 2,
    }  # fmt: skip


def test_a_folder_of_markets_runs_all_of_them(policies: str, tmp_path: Path) -> None:
    """One command runs every folder; what a market is too small for is listed."""
    market(tmp_path / "markets" / "one", 20, "BTC_USDT")
    market(tmp_path / "markets" / "two", 20, "BTC_USDT", "ETH_USDT")
    read = json_answer("--policies", policies, "--market", tmp_path / "markets", "--all-splits", 1, "--random", 1)
    assert {book["market"] for book in read["books"]} == {"one", "two"}
    assert "one: no splits: 1 long and 1 short need 2 symbols, and there is 1" in read["missing"]


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_a_book_that_is_left_out_is_named_in_every_format(policies: str, book: Path, tmp_path: Path, form: str) -> None:
    """With the reason: a table of fewer books must not look like a table of all."""
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.yaml").write_text(BOOK, encoding="utf-8")
    (tmp_path / "books" / "b.yaml").write_text(
        BOOK.replace("two", "odd").replace("BTC_USDT", "FOO_USDT"), encoding="utf-8"
    )
    bars = market(tmp_path / "m", 20)
    result = ksctl_backtest(
        "--policies", policies, "--market", bars, "--books", tmp_path / "books", "--output", form, "--quiet"
    )  # fmt: skip
    assert result.exit_code == 0
    output = " ".join(result.output.replace("\\_", "_").split())
    assert "Left out" in output
    assert "book odd cannot be held: has no FOO_USDT; it has" in output


def test_every_book_of_a_folder_is_backtested(policies: str, book: Path, tmp_path: Path) -> None:
    """The answer names each of them."""
    (tmp_path / "books").mkdir()
    for name in ("a", "b"):
        (tmp_path / "books" / f"{name}.yaml").write_text(BOOK.replace("two", name), encoding="utf-8")
    read = json_answer("--policies", policies, "--market", market(tmp_path / "m", 20), "--books", tmp_path / "books")
    assert [tried["book"]["name"] for tried in read["books"]] == ["a", "b"]


def test_several_processes_give_the_same_answer_as_one(policies: str, tmp_path: Path) -> None:
    """The answers are equal to the last digit."""
    folder = market(tmp_path / "m", 30, "BTC_USDT", "ETH_USDT", "XRP_USDT")
    arguments = ("--policies", policies, "--market", folder, "--all-splits", "1", "--random", "1")
    assert json_answer(*arguments) == json_answer(*arguments, "--jobs", "2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the source of the prices"),
        (("--crash", "1", "--market", "."), "--market and --crash exclude each other"),
        (("--crash", "1", "--out", "report.pdf"), "report.pdf: end its name in .html, .json, .md, .txt"),
        (("--crash", "1", "--all-splits", "0"), "--all-splits"),
        (("--crash", "1", "--gross", "0"), "--gross"),
        (("--crash", "1", "--jobs", "0"), "--jobs"),
        (("--crash", "1", "--market", "nowhere"), "nowhere"),
        (("--crash", "1", "--output", "pdf"), "pdf"),
    ],
)
def test_wrong_usage_is_refused(
    policies: str, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the mistake; `main` turns it into exit 64."""
    monkeypatch.chdir(tmp_path)
    result = ksctl_backtest("--policies", policies, *arguments)
    assert result.exit_code == 2  # click's exit code for wrong usage
    assert message in " ".join(result.output.split())


def test_books_from_two_places_exclude_each_other(policies: str, book: Path) -> None:
    """So do a given book and --gross, which applies to generated books."""
    result = ksctl_backtest("--policies", policies, "--crash", "1", "--book", book, "--all-splits", "2")
    assert result.exit_code == 2
    assert "exclude each other" in result.output
    result = ksctl_backtest("--policies", policies, "--crash", "1", "--book", book, "--gross", "2")
    assert result.exit_code == 2


def error_of(*arguments: str | Path) -> str:
    """The output of a run that must fail with exit 1 and no traceback."""
    result = ksctl_backtest(*arguments)
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return " ".join(result.output.split())


def test_a_folder_without_bars_is_refused(policies: str, tmp_path: Path) -> None:
    """The message names the folder."""
    (tmp_path / "empty").mkdir()
    message = error_of("--policies", policies, "--market", tmp_path / "empty")
    assert "empty: holds no .parquet and no .csv file" in message


def test_invalid_bars_are_refused_with_their_place(policies: str, tmp_path: Path) -> None:
    """The message has file and row."""
    folder = market(tmp_path / "m", 5, "BTC_USDT")
    file = folder / "BTC_USDT.csv"
    file.write_text(file.read_text(encoding="utf-8") + "9999999999999,1,2,3,4,5\n", encoding="utf-8")
    assert "BTC_USDT.csv: row 6: not a bar" in error_of("--policies", policies, "--market", folder)


def test_a_book_with_an_unknown_symbol_is_refused(policies: str, book: Path, tmp_path: Path) -> None:
    """The message lists the existing symbols."""
    folder = market(tmp_path / "m", 20, "BTC_USDT")
    message = error_of("--policies", policies, "--market", folder, "--book", book)
    assert "book two cannot be held: has no XRP_USDT; it has BTC_USDT" in message


def test_a_book_with_a_mistake_is_refused_with_its_place(policies: str, book: Path) -> None:
    """The message has file:line:column."""
    book.write_text(BOOK.replace("side: long", "side: up"), encoding="utf-8")
    assert f"{book.name}:8:28" in error_of("--policies", policies, "--crash", "1", "--book", book)


def test_a_folder_without_books_is_refused(policies: str, tmp_path: Path) -> None:
    """The message names the folder."""
    assert "holds no book" in error_of("--policies", policies, "--crash", "1", "--books", tmp_path)


def test_policies_without_a_scope_on_the_book_are_refused(repository: Path) -> None:
    """Staging would otherwise do nothing and look like a result."""
    message = error_of("--policies", repository / "policies" / "spot-drawdown", "--crash", "1")
    assert "no policy watches the book demo" in message
    assert "scope.match" in message


def test_an_empty_policy_set_is_refused(tmp_path: Path) -> None:
    """The refusal does not depend on the loader's message."""
    (tmp_path / "empty").mkdir()
    error_of("--policies", tmp_path / "empty", "--crash", "1")


def test_a_policy_set_without_a_policy_is_refused(tmp_path: Path) -> None:
    """Accounts alone decide nothing."""
    text = (
        "apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\n"
        "spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:1', execution: observe}\n"
    )
    (tmp_path / "account.yaml").write_text(text, encoding="utf-8")
    assert "no Policy document" in error_of("--policies", tmp_path / "account.yaml", "--crash", "1")


def test_a_file_that_cannot_be_written_is_an_error(policies: str, tmp_path: Path) -> None:
    """The message has the reason."""
    folder = market(tmp_path / "m", 5, "BTC_USDT", "XRP_USDT")
    message = error_of("--policies", policies, "--market", folder, "--out", tmp_path / "nowhere" / "report.html")
    assert "cannot be written: No such file or directory" in message


def test_a_variant_is_backtested_on_request(policies: str) -> None:
    """The tighter variant fires sooner, and the answer names it."""
    usual = json_answer("--policies", policies, "--crash", 7)
    tight = json_answer("--policies", policies, "--crash", 7, "--variant", "tight")
    assert tight["policies"]["variant"] == "tight"
    first = [read["books"][0]["runs"][0]["firings"][0]["at"] for read in (usual, tight)]
    assert first[1] < first[0]
