"""A preview states what the gate would answer now to a suggested hedge, by the function of its verdicts."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.graph.limits import LimitsRule
from killswitch.limits.view import Pause, encode_gate_view
from killswitch.model.decision import HedgeOption, HedgeOrder, NetExposure
from killswitch.model.snapshot import WrittenLock
from killswitch.operations.gate_answers import GateAnswer, gate_answers, locks_of_run
from killswitch.operations.preview import encode_preview, preview
from killswitch.planning.actions.net_exposure import ScopeExposure
from killswitch.planning.interpreter import Interpreter
from killswitch.runner.locks.gate_view import gate_view_file
from tests.backtests import written
from tests.shown import plan_text
from tests.unit.limits.gates import BTC, NOW, gate_account, held, limits, sizes, usdt, view
from tests.worlds import START, snapshot

ORDER = HedgeOrder("main", BTC, "sell", Decimal(5), Decimal(100), Decimal(500))
"""500 USDT of BTC at a mark of 100."""
EXPOSURE = ScopeExposure(
    "shown", "account/main",
    NetExposure(BTC, "USDT", Decimal(500), options=(
        HedgeOption("reduce", "yes", (replace(ORDER, contracts=Decimal(1)),)), HedgeOption("open", "yes", (ORDER,)),
    )),
)  # fmt: skip
POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: shown}
spec:
  mode: enforce
  scope: {each: account, match: {account: [main]}}
  max_gap: 48h
  triggers: {fall: {signal: equity.drawdown_from_peak, at_least: 5%, on_unknown: hold}}
  stages:
    - {name: out, level: 1, any: [fall], cooldown: 1h, reset: manual, actions: [{close: {side: both, fraction: 100%}}]}
"""


def answers(tmp_path: Path, rule: LimitsRule, **more: object) -> tuple[GateAnswer, ...]:
    """Those of the gate of a run that has read the account half a second ago."""
    store = str(tmp_path / "ks.sqlite")
    account = gate_account(rule=rule, **more)
    gate_view_file(store).write_bytes(encode_gate_view(view(account)))
    return gate_answers((EXPOSURE,), (rule,), store, NOW)


@pytest.mark.parametrize(("most", "is_allowed", "reason"), [("500", True, "allowed"), ("499", False, "order_size")])
def test_an_order_that_opens_is_judged_by_the_limits_of_its_account(
    tmp_path: Path, most: str, is_allowed: bool, reason: str
) -> None:
    """500 pass a limit of 500, and not one of 499. The order that reduces is no question: it is an exit."""
    (found,) = answers(tmp_path, limits(order_size=sizes(usdt(most))))
    assert (found.order, found.is_allowed, found.reason) == (ORDER, is_allowed, reason)
    assert found.line.startswith(f"The gate would {'allow' if is_allowed else 'deny'} sell 5 {BTC} on main now")


def test_what_only_the_gate_knows_denies_it_too(tmp_path: Path) -> None:
    """A pause by hand, and the sentinel file, which precedes it."""
    paused = (Pause("account/main", "lunch", START),)
    (found,) = answers(tmp_path, limits(), pauses=paused)
    assert (found.is_allowed, found.reason) == (False, "paused")
    (tmp_path / "ks.sqlite.halt").touch()
    (halted,) = answers(tmp_path, limits(), pauses=paused)
    assert (halted.is_allowed, halted.reason) == (False, "sentinel")


def test_without_a_run_the_answer_is_unknown_and_says_why(tmp_path: Path) -> None:
    """No store is named; no run has written a view; the view is damaged."""
    rule = limits()
    store = str(tmp_path / "ks.sqlite")
    (unnamed,) = gate_answers((EXPOSURE,), (rule,), None, NOW)
    (unwritten,) = gate_answers((EXPOSURE,), (rule,), store, NOW)
    gate_view_file(store).write_bytes(b"{")
    (damaged,) = gate_answers((EXPOSURE,), (rule,), store, NOW)
    assert [each.is_allowed for each in (unnamed, unwritten, damaged)] == [None, None, None]
    assert "no store of a run is named" in unnamed.line
    assert "no run has written" in unwritten.line and "cannot be read" in damaged.line


def test_a_preview_knows_the_locks_that_the_run_has_written(tmp_path: Path) -> None:
    """So that it suggests no hedge on an account that is locked for every order; without a run it knows none."""
    store, lock = str(tmp_path / "ks.sqlite"), WrittenLock("d1", "operator", "account/main", START, ("main",))
    assert locks_of_run(None) == locks_of_run(store) == ()
    gate_view_file(store).write_bytes(encode_gate_view(view(gate_account(), locks=(lock,))))
    assert locks_of_run(store) == (lock,)


def test_no_answer_is_given_for_an_account_without_limits_or_without_a_suggestion(tmp_path: Path) -> None:
    """Who has no `Limits` does not ask the gate; what is not feasible has no order."""
    store = str(tmp_path / "ks.sqlite")
    assert gate_answers((EXPOSURE,), (replace(limits(), accounts=("other",)),), store, NOW) == ()
    none = replace(EXPOSURE, exposure=replace(EXPOSURE.exposure, options=(HedgeOption("open", "no", why=("a",)),)))
    assert gate_answers((none,), (limits(),), store, NOW) == ()


def test_the_plan_prints_the_answer_below_the_exposure_and_in_its_json(tmp_path: Path) -> None:
    policies = written(POLICY)
    seen = gate_account(held("long", "5")).state
    shown = preview(policies, snapshot(NOW, seen), Interpreter(policies), "none", frozenset())
    found = answers(tmp_path, limits(order_size=sizes(usdt("499"))))
    shown = replace(shown, net_exposures=(EXPOSURE,), gate_answers=found)
    text = plan_text(shown)
    assert "The gate would deny sell 5" in text and text.index("Net exposure") < text.index("The gate would deny")
    (encoded,) = json.loads(encode_preview(shown))["gate_answers"]
    assert (encoded["is_allowed"], encoded["reason"], encoded["order"]["contracts"]) == (False, "order_size", "5")
