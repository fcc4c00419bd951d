"""Until when the rows that may explain a change are known."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import pytest
from msgspec.structs import replace

from killswitch.model.instant import to_micros
from killswitch.pnl_explain.explanation import rows_known_until
from killswitch.pnl_explain.pending_changes import UnexplainedChange
from tests.worlds import account, after

CHANGE = UnexplainedChange(to_micros(after(minutes=600)), Decimal(-100), 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "flows_at", "expected"),
    [("trade", 599, 599), ("trade", 541, 541), ("trade", 539, 601), ("money", 539, 539)],
    ids=["a minute before", "59 minutes before", "61 minutes before", "what no trade accounts for"],
)
def test_flows_with_a_lag_of_hours_do_not_delay_a_fall_that_trades_may_explain(
    kind: Literal["trade", "money"], flows_at: int, expected: int
) -> None:
    """Fills are known until a minute after the change, flows until some time before it."""
    seen = account("1000", [], fills_as_of=after(minutes=601), flows_as_of=after(minutes=flows_at))
    assert rows_known_until(seen, replace(CHANGE, kind=kind), 0) == to_micros(after(minutes=expected))


def test_without_a_complete_list_of_flows_nothing_is_proven() -> None:
    """The list of flows was never fetched completely."""
    seen = account("1000", [], fills_as_of=after(minutes=601))
    assert rows_known_until(seen, replace(CHANGE, kind="trade"), 0) is None
