"""Sets with correlation groups and hedges: scenarios in which they act, must not, and do not know, pass as written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli import ksctl

SETS = sorted((Path(__file__).parent / "groups").glob("*.yaml"))


def ran(text: str, folder: Path, *arguments: str) -> Result:
    (folder / "set.yaml").write_text(text, encoding="utf-8")
    return CliRunner().invoke(ksctl, [*arguments, str(folder)])


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_three_scenarios_pass(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ran(text, tmp_path, "validate", "--strict").exit_code == 0
    done = ran(text, tmp_path, "test")
    assert done.exit_code == 0, done.output
    assert "3 scenarios: 3 passed" in done.output


@pytest.mark.parametrize(
    ("name", "what", "instead", "fails"),
    [
        ("hedge-in-one", "symbol: BTC_USDT, ratio: 1}", "symbol: ETH_USDT, ratio: 1}", "hedge-in-one-cuts-both-legs"),
        ("one-bet", "value: 0.85", "value: 0.65", "one-bet-acts"),
        ("one-bet", "value: 0.4}", "value: 0.8}", "one-bet-stays"),
        ("estimated", "method: winsorised", "method: winsorised, residual_to: BTC_USDT", "estimated-moves-together"),
    ],
)
def test_they_fail_where_the_document_says_something_else(
    name: str, what: str, instead: str, fails: str, tmp_path: Path
) -> None:
    text = next(path for path in SETS if path.stem == name).read_text(encoding="utf-8")
    assert what in text
    done = ran(text.replace(what, instead), tmp_path, "test")
    assert done.exit_code == 1
    assert f"FAILED {fails}" in done.output
