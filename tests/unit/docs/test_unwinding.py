"""The section of docs/semantics.md on the execution of a close matches the program."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import get_args

import pytest

from killswitch.graph.compile import compile_loaded
from killswitch.graph.unwinding import OF_CAUSE, UnwindingRule
from killswitch.graph.wording import percent
from killswitch.model.words import Cause
from killswitch.policy.loader import load
from tests.unit.docs.pages import Section, sections


@pytest.fixture(scope="module")
def section(repository: Path) -> Section:
    return sections((repository / "docs" / "semantics.md").read_text(encoding="utf-8"))["How a close is carried out"]


@pytest.fixture
def careful(section: Section, tmp_path: Path) -> UnwindingRule:
    """The unwinding of the page, which compiles without a diagnostic."""
    (text,) = section.yaml
    (tmp_path / "unwinding.yaml").write_text(text, encoding="utf-8")
    policies, problems = compile_loaded(load([tmp_path]))
    assert problems == ()
    assert policies is not None
    (rule,) = policies.unwindings
    return rule


def test_the_ladder_of_the_page_is_that_of_its_unwinding(section: Section, careful: UnwindingRule) -> None:
    """Each try of each execution step, with its limit in multiples of the bound from a mark of 1,000."""
    bound = careful.bound("BTC/USDT:USDT", "BTC")
    assert bound is not None
    expected = []
    for rung in careful.ladder:
        limits = [1000 * (1 - bound * rung.widen), 1000 * (1 + bound * rung.widen)]
        ladder = ["—", "—"] if rung.order == "market" else [f"{limit:,.0f}" for limit in limits]
        expected += [[f"`{rung.order}`", *ladder]] * rung.tries
    rows = section.tables[0]
    assert [list(row.values())[1:] for row in rows] == expected
    assert [row["order"] for row in rows] == [str(number) for number in range(1, len(expected) + 1)]


def test_the_reasons_of_the_page_are_the_built_in_ones(section: Section) -> None:
    """Every reason of the vocabulary, its bound, the orders within it and its pace."""
    rows = section.tables[1]
    assert [row["reason"].strip("`") for row in rows] == list(get_args(Cause)) == list(OF_CAUSE)
    for row, rule in zip(rows, OF_CAUSE.values(), strict=True):
        bound = rule.bound("BTC_USDT", "BTC")
        limited = [rung for rung in rule.ladder if rung.order == "limit_ioc"]
        tries = [f"{rung.tries} at {percent((bound or Decimal(0)) * rung.widen)}" for rung in limited]
        pace = rule.max_orders_per_minute
        assert row["bound"] == ("none" if bound is None else percent(bound))
        assert row["orders before it goes at market"] == (", ".join(tries) or "0")
        assert row["orders a minute"] == ("no limit" if pace is None else str(pace))
