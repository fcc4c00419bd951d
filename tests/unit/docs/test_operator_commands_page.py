"""docs/operator-commands.md describes each declared reason as the program treats it."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.cli.operate.reasons import MEANINGS
from killswitch.graph.unwinding import OF_CAUSE
from killswitch.model.decision import Decision, Intent, Unwinding
from killswitch.model.words import Cause
from killswitch.operations.pages.plan import execution_text
from killswitch.planning.orders.unwind import declared_unwinding as as_decided
from tests.unit.docs.pages import sections
from tests.worlds import START

TRIES = {"one": 1, "two": 2}


def rows(repository: Path) -> list[dict[str, str]]:
    """The table of the declared reasons."""
    page = (repository / "docs" / "operator-commands.md").read_text(encoding="utf-8")
    (found,) = sections(page)["The reason decides how"].tables
    return found


def test_the_page_lists_every_declared_reason(repository: Path) -> None:
    """Reason and meaning are those of the vocabulary, in its order."""
    assert [(row["word"], row["when"]) for row in rows(repository)] == [
        (f"`{word}`", meaning) for word, meaning in MEANINGS.items()
    ]


@pytest.mark.parametrize("cause", list(MEANINGS))
def test_bounds_tries_and_pace_of_a_reason_are_those_of_its_orders(cause: Cause, repository: Path) -> None:
    """Each try within a bound is counted, and tries without a bound are described as market orders."""
    (how,) = (row["carried out"] for row in rows(repository) if row["word"] == f"`{cause}`")
    rule = OF_CAUSE[cause]
    described = [
        (TRIES[count], Decimal(share)) for count, share in re.findall(r"(one|two) (?:tr\w+ )?within ([\d.]+)%", how)
    ]
    at_most = Decimal(0) if not rule.slippage else rule.slippage[0].at_most
    assert described == [(rung.tries, at_most * rung.widen * 100) for rung in rule.ladder if rung.order == "limit_ioc"]
    assert "at market" in how
    pace = re.search(r"(\d+) orders a minute", how)
    assert (None if pace is None else int(pace[1])) == rule.max_orders_per_minute


def manual_close(unwinding: Unwinding | None, *bands: str | None) -> Decision:
    """A manual close with one position for each bound."""
    intents = tuple(
        Intent("main", f"S{number}", "long", "sell", Decimal(1), Decimal(0), reduce_only=True, rank=number,
               band=None if band is None else Decimal(band))
        for number, band in enumerate(bands)
    )  # fmt: skip
    return Decision(
        "d1", START, "operator", "sha256:0", "portfolio", "enforce", None, 0, 0, kind="manual", intents=intents,
        unwinding=unwinding,
    )  # fmt: skip


def test_a_dry_run_describes_the_reason_market_as_the_page_does(repository: Path) -> None:
    """One try within 3%, two at market, and three times the bound, which is 9%; the page quotes it."""
    style = execution_text(manual_close(as_decided(OF_CAUSE["market"]), "0.03", "0.03"))
    rungs, _, pace = style.partition("; ")
    assert rungs == (
        "within 3% of the mark, 1 try, then at market, 2 tries, then resting within 9% of the mark where no market "
        "order fills"
    )
    assert pace == "as fast as the venue allows"
    page = " ".join((repository / "docs" / "operator-commands.md").read_text(encoding="utf-8").split())
    assert f'"{rungs}"' in page


def test_different_bounds_are_printed_as_a_range() -> None:
    """0.5% for one symbol and 2% for the other: the execution steps refer to `the bound`."""
    style = execution_text(manual_close(as_decided(OF_CAUSE["regulatory"]), "0.02", "0.005"))
    assert style.startswith("within the bound, 2 tries, then within 2 × the bound, 2 tries, then at market, 2 tries, ")
    assert "; the bound is 0.5% to 2% of the mark; " in style


def test_a_close_without_bounds_uses_market_orders() -> None:
    """There is no other execution step."""
    assert execution_text(manual_close(None, None)) == "at market; as fast as the venue allows"
