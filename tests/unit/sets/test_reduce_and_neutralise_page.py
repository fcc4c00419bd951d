"""docs/reduce-and-neutralise.md: each block is a whole set whose scenarios pass; its numbers are computed."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from killswitch.cli import ksctl
from killswitch.graph.actions.reduce import room
from killswitch.planning.actions.reduce import to_sell
from killswitch.planning.margin_transfers import MarginNeed
from tests.unit.docs.pages import sections

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "docs" / "reduce-and-neutralise.md").read_text(encoding="utf-8")
SETS = {title: section.yaml[0] for title, section in sections(PAGE).items() if section.yaml}


@pytest.mark.parametrize("title", SETS)
def test_a_block_is_a_whole_set_whose_three_scenarios_pass(title: str, tmp_path: Path) -> None:
    """One in which it acts, one in which it must not, one in which its input is unknown."""
    (tmp_path / "set.yaml").write_text(SETS[title], encoding="utf-8")
    for arguments in (["validate", "--strict"], ["lint", "--strict"], ["fmt", "--check"], ["test"]):
        done = CliRunner().invoke(ksctl, [*arguments, str(tmp_path)])
        assert done.exit_code == 0, f"{arguments}\n{done.output}"
    assert "3 scenarios: 3 passed" in done.output
    assert [word for word in ("# Acts", "# Must not", "# Unknown") if word in SETS[title]] == [
        "# Acts", "# Must not", "# Unknown",
    ]  # fmt: skip


@pytest.mark.parametrize("title", SETS)
def test_a_scenario_of_a_block_fails_where_other_orders_are_expected(title: str, tmp_path: Path) -> None:
    """The order, or the transfer, that is expected is the one that is planned."""
    text, count = re.subn(r"(orders: \[sell |reason: )([\d.]+) ", r"\g<1>1\2 ", SETS[title])
    assert count
    (tmp_path / "set.yaml").write_text(text, encoding="utf-8")
    assert CliRunner().invoke(ksctl, ["test", str(tmp_path)]).exit_code == 1


def test_the_numbers_of_the_page_are_computed() -> None:
    """57,500 and 57,644 of 300,000 on 97,000; the room below a limit of 3 is that of the formula."""
    book = Decimal(300_000), Decimal(97_000), Decimal("2.5")
    assert [to_sell(*book), to_sell(*book, Decimal("0.001")).quantize(Decimal(1))] == [57_500, 57_644]
    assert "57,500, at a cost of 0.1% 57,644" in PAGE
    assert MarginNeed(Decimal(450), Decimal(750), Decimal("0.3")).whole == 750
    assert "of 450 on 750 to 30%\n750" in PAGE
    assert room(Decimal(3), Decimal("2.5")) == Decimal("0.05")
