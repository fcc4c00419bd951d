"""`ksctl size`: bad input ends in one line that names it, an unknown size in exit code 4."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli import ksctl

MARKET = [
    "BTC/USDT:USDT", "--equity", "100000", "--price", "60000", "--contract-size", "1", "--step", "0.001",
    "--leverage-cap", "3",
]  # fmt: skip
STOP = ["fixed-fractional", *MARKET, "--fraction", "2%", "--stop", "57000", "--side", "long", "--costs", "0"]


def size(*arguments: str, given: str | bytes | None = None) -> Result:
    return CliRunner().invoke(ksctl, ["size", *arguments], input=given)


def status(*arguments: str) -> tuple[object, str]:
    """The exit code that the command line has, and the output in one line."""
    found = CliRunner().invoke(ksctl, ["size", *arguments], standalone_mode=False)
    assert found.exception is None
    return found.return_value, " ".join(found.output.split())


def replaced(name: str, value: str) -> list[str]:
    """The request by a stop with one option of another value."""
    found = list(STOP)
    found[found.index(name) + 1] = value
    return found


def test_a_size_is_printed_as_text_and_as_json() -> None:
    """2% of 100,000 over 3,000 is 0.666 BTC."""
    assert "0.666 contracts" in size(*STOP).output
    found = json.loads(size(*STOP, "--output", "json").output)
    assert found["format"] == "killswitch.size/v1"
    (answer,) = found["sizes"]
    assert (answer["contracts"], answer["bound_by"]) == ("0.666", "fraction at risk")
    assert {"name": "equity", "value": "100000", "source": "given", "age": None, "unknown": None} in answer["inputs"]


def test_an_unknown_size_exits_4_with_its_reason() -> None:
    """`--step` and `--price` are not given, and there is no account to read them from."""
    code, printed = status("fixed-notional", "A/B", "--fraction", "1", "--leverage-cap", "2", "--equity", "5")
    assert code == 4
    assert "unknown: price is not given" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (replaced("--stop", "61000"), "the stop of a long position is below its entry"),
        (replaced("--stop", "-1"), "the stop is -1"),
        (replaced("--fraction", "0"), "the fraction at risk is 0"),
        (replaced("--fraction", "120%"), "more than all equity cannot be at risk"),
        (replaced("--fraction", "two"), "'two' is not a number"),
        (replaced("--costs", "100%"), "costs are 1"),
        (replaced("--leverage-cap", "0"), "the leverage cap is 0"),
        (replaced("--equity", "1e10000000"), "is not a number"),
        (replaced("--equity", "NaN"), "is not a number"),
        (replaced("--step", "0"), "the step is 0"),
        (replaced("--price", "0"), "the entry is 0"),
        (replaced("--side", "up"), "'up' is not one of"),
        ([*STOP, "--account", "main"], "--account needs --policies"),
        (["kelly", *MARKET, "--wins", "1", "--losses", "-1", "--gain", "1", "--loss", "1", "--fraction", "1"], "-1"),
        (["volatility-target", *MARKET, "--target", "0", "--floor", "1%"], "the volatility target is 0"),
        (["risk-parity", "--target", "20%", "--leverage-cap", "3"], "Missing option '--asset'"),
        (["risk-parity", "--asset", "A/B,size=long", "--target", "20%", "--leverage-cap", "3"], "not one of side"),
        (["risk-parity", "--asset", "A/B,side=up", "--target", "20%", "--leverage-cap", "3"], "side is one of long"),
        (["risk-parity", "--asset", "A/B,side=long", "--target", "20%", "--leverage-cap", "3"], "volatility missing"),
        (
            ["risk-parity", "--asset", "A,side=long,volatility=x", "--target", "20%", "--leverage-cap", "3"],
            "'x' is not a number",
        ),
        (["request", "nowhere.json"], "does not exist"),
        (["request", "."], "is a directory"),
    ],
)
def test_bad_input_is_one_line_that_names_it(arguments: list[str], message: str) -> None:
    """Wrong usage exits 64 from the command line, which is click's 2 here; never a traceback."""
    found = size(*arguments)
    assert found.exit_code == 2
    assert isinstance(found.exception, SystemExit)
    assert message in " ".join(found.output.split())


@pytest.mark.parametrize("body", [b"", b"\x00", b"{" * 2_000_000, b'{"symbol": 1}'])
def test_a_request_that_cannot_be_read_is_wrong_usage(body: bytes) -> None:
    """From stdin, however long."""
    found = size("request", "-", given=body)
    assert isinstance(found.exception, SystemExit), found.exception
    assert found.exit_code == 2
    assert "the request cannot be read" in found.output


def test_an_account_that_is_not_there_and_one_that_does_not_answer(tmp_path: Path) -> None:
    """A wrong name is an error with the right ones; a venue that is down makes the size unknown."""
    account = (
        "apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\n"
        "spec: {adapter: paper, market: swap, currency: USDT, execution: observe, endpoint: 'http://127.0.0.1:1'}\n"
    )
    (tmp_path / "account.yaml").write_text(account, encoding="utf-8")
    at = ["fixed-notional", "BTC_USDT", "--fraction", "1", "--leverage-cap", "2", "--policies", str(tmp_path)]
    wrong = size(*at, "--account", "man")
    assert (wrong.exit_code, "did you mean main?" in wrong.output) == (1, True)
    code, printed = status(*at, "--account", "main", "--read-timeout", "2s")
    assert code == 4
    assert "account main is down" in printed
