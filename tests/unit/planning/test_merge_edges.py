"""Which decisions give their positions up to another, and which are carried out as they are."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import pytest
from msgspec.structs import replace

from killswitch.model.decision import Decision, Intent
from killswitch.planning.merge import merge
from tests.worlds import START


def decided(id_: str, target: str, kind: Literal["manual", "hedge"] | None = None) -> Decision:
    """Leave `target` contracts of BTC."""
    order = Intent("main", "BTC", "long", "sell", Decimal(1), Decimal(target), False, 1)
    return Decision(
        id=id_, as_of=START, policy=id_, policy_set="sha256:test", scope="account/main", mode="enforce", stage="s",
        level=1, previous_level=0, intents=(order,), kind=kind,
    )  # fmt: skip


@pytest.mark.parametrize("kept", [decided("k", "5", "manual"), replace(decided("k", "5"), mode="observe")])
def test_a_close_by_hand_and_one_that_only_observes_are_left_whole(kept: Decision) -> None:
    """Though others leave less of the same position; among those the smallest target has it."""
    for order in ((0, 1, 2), (2, 1, 0)):
        given = [(kept, decided("two", "2"), decided("one", "1"))[place] for place in order]
        found = {each.id: each for each in merge(given, {})}
        assert found["k"] == kept
        assert [len(found[name].intents) for name in ("two", "one")] == [0, 1]
