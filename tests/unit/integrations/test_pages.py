"""The pages of the bots: each path of an order names tests that exist, and the code of the overview runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from killswitch.integrations import OrderPermits
from tests.bots.desk import PAGES, blocks
from tests.e2e.fork_client import REPOSITORY

NAMED = re.compile(r"`(test_\w+)`")


def rows() -> list[str]:
    """The rows of the table of paths."""
    text = (PAGES / "index.md").read_text(encoding="utf-8")
    section = text.partition("{ #paths }")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][2:]


def functions(*folders: Path) -> set[str]:
    """The names of the tests in these folders."""
    found = (path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("test_*.py"))
    return {name for text in found for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)}


def test_each_path_of_an_order_names_a_test_that_exists() -> None:
    """Also those that refer to the row above."""
    real, unit = functions(REPOSITORY / "tests" / "bots"), functions(REPOSITORY / "tests" / "unit" / "integrations")
    assert rows()
    for row in rows():
        last = row.strip().strip("|").rpartition("|")[2]
        of_the_package, _, without = last.partition("unit:")
        assert NAMED.findall(last) or "the same" in last, row
        assert set(NAMED.findall(of_the_package)) <= real, row
        assert set(NAMED.findall(without)) <= unit, row


@pytest.mark.parametrize("bot", ["ccxt", "freqtrade", "hummingbot", "nautilus_trader"])
def test_each_bot_has_rows_for_entries_and_for_exits(bot: str) -> None:
    """What opens is stopped, and what closes is sent."""
    mine = [row.split("|")[4] for row in rows() if row.split("|")[1].strip() == bot]
    assert any("sent" in outcome and "not sent" not in outcome for outcome in mine)
    assert any(re.search("not sent|NotSent|fails|denied", outcome) for outcome in mine)


def test_the_lines_of_the_overview_make_permits() -> None:
    """By the lock file alone, and by the gate."""
    (code,) = blocks("index.md")
    names: dict[str, object] = {}
    exec(compile(code, "index.md", "exec"), names)
    assert isinstance(names["permits"], OrderPermits)
