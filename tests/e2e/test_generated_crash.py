"""The generated crash fires all three levels of the shipped policy, one after the other."""

from __future__ import annotations

import pytest

from killswitch.graph.compile import compile_policies
from killswitch.lab.book import demo_book
from killswitch.lab.crash import START, CrashModel, crash_bars
from killswitch.lab.feed import record
from killswitch.lab.recording import replay
from killswitch.model.decision import Decision
from killswitch.policy.loader import load
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("seed", range(6))
def test_futures_drawdown_fires_its_levels_in_order_within_the_crash(seed: int) -> None:
    """Nothing in the calm hours; then level 1, 2 and 3, each once, before the fall is over."""
    policies, _ = compile_policies(load([REPOSITORY / "policies" / "futures-drawdown"]).documents)
    assert policies is not None
    records = replay(policies, record(crash_bars(seed), demo_book()))
    fired = [one for one in records if isinstance(one, Decision) and one.kind is None]
    assert [one.level for one in fired] == [1, 2, 3]
    model = CrashModel()
    minutes = [(one.as_of - START).total_seconds() / 60 for one in fired]
    assert model.calm < minutes[0] < minutes[-1] < model.calm + model.crash
