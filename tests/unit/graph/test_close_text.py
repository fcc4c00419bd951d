"""The description of a close in plans, diagrams and explanations."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.graph.actions.close import Close, close_text
from tests.graphs import close


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (close("both", "0.5"), "close 50% of both by default"),
        (
            close("both", "0.5", share_cap=Decimal("0.125")),
            "close 50% of both by default, no position above 12.5% of the gross",
        ),
        (
            close("both", "0.8", ranking="component-risk", spread="by_rank"),
            "close 80% of the gross of both, worst first by component-risk",
        ),
        (
            close("losing", "1", top=3, worst=0.6, symbols=("ETH",), except_assets=("BTC",)),
            "close 100% of losing by default, top 3, worst 0.6, only ETH, not BTC",
        ),
    ],
)
def test_a_close_is_described_in_words(action: Close, text: str) -> None:
    """The fraction, the side, the order and every bound."""
    assert close_text(action, ()) == text
