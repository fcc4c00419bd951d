"""Decisions for tests, written the short way."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from killswitch.model.decision import Decision, Intent
from killswitch.model.snapshot import Side
from tests.worlds import START


def cut(positions: Mapping[str, tuple[Side, Decimal, Decimal]]) -> Decision:
    """A decision on account `main` that takes, of each symbol, so many contracts of those held."""
    intents = tuple(
        Intent(
            account="main",
            symbol=symbol,
            position_side=side,
            side="sell" if side == "long" else "buy",
            contracts=contracts,
            target=held - contracts,
            reduce_only=True,
            rank=place,
        )
        for place, (symbol, (side, contracts, held)) in enumerate(positions.items(), start=1)
    )
    return Decision(
        id="d" * 20,
        as_of=START,
        policy="test",
        policy_set="sha256:test",
        scope="account/main",
        mode="enforce",
        stage="one",
        level=1,
        previous_level=0,
        intents=intents,
    )
