"""From documents to orders: a policy and its unwinding as YAML, and the decision after a fall."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from killswitch.graph.compile import compile_loaded
from killswitch.model.decision import Decision, Rung, Unwinding, decision_record
from killswitch.model.snapshot import Liquidity
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.loader import load
from tests.worlds import START, account, after, position, rules, snapshot

D = Decimal
BTC = "BTC/USDT:USDT"
POLICY = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: out}
spec:
  mode: enforce
  scope: {each: account, match: {market: swap}}
  max_gap: 10m
  triggers:
    fall: {signal: equity.drawdown, window: 15m, at_least: 10%, on_unknown: hold}
  stages:
    - name: close
      level: 1
      any: [fall]
      cooldown: 1h
      reset: manual
      actions: [{close: {side: both, fraction: 100%}}]
"""
UNWINDING = """\
---
apiVersion: killswitch.dev/v1
kind: Unwinding
metadata: {name: default}
spec:
  max_orders_per_minute: 60
  pause: 2s
  impact: {model: linear, at_most: 0.5%, participation: 10%, if_unknown: whole}
  slippage: [{symbols: [BTC], at_most: 0.5%}, {at_most: 2%}]
  ladder: [{order: limit_ioc, widen: 2, tries: 2}, {order: market}]
"""


def decision_after_fall(folder: Path, text: str) -> Decision:
    """The decision on an account that is long 12 BTC and loses a fifth."""
    (folder / "policy.yaml").write_text(text, encoding="utf-8")
    policies, problems = compile_loaded(load([folder]))
    assert policies is not None, problems
    interpreter = Interpreter(policies)
    market = (Liquidity(BTC, bid_depth=D(50), volume=D(1000), over=86400.0, volatility=0.05),)
    for minute, pnl in enumerate(("0", "-200")):
        held = [position(BTC, "long", pnl, contracts="12", mark_price="100", notional="1200")]
        holder = account(str(1000 + D(pnl)), held, instruments=[rules(BTC)], liquidity=market)
        found = interpreter.tick(snapshot(after(minutes=minute), holder))
    [decision] = found.decisions
    assert decision.as_of > START
    return decision


def test_the_document_called_default_carries_out_a_close_that_names_none(tmp_path: Path) -> None:
    """A tenth of 50 bids is 5, the impact would allow 100: 5, 5 and 2, bounded at 0.5%, on the declared ladder."""
    decision = decision_after_fall(tmp_path, POLICY + UNWINDING)
    assert [intent.contracts for intent in decision.intents] == [D(5), D(5), D(2)]
    assert {intent.band for intent in decision.intents} == {D("0.005")}
    assert decision.unwinding == Unwinding(
        "default", (Rung("limit_ioc", D(2), 2), Rung("market")), 60, 2.0, is_sliced=True
    )


def test_without_an_unwinding_document_the_record_is_unchanged(tmp_path: Path) -> None:
    """One market order, and no key in the record that older readers do not know."""
    decision = decision_after_fall(tmp_path, POLICY)
    assert [intent.contracts for intent in decision.intents] == [D(12)]
    record = decision_record(decision)
    assert "unwinding" not in record
    [intent] = record["intents"]  # type: ignore[misc]  # a list in every record
    assert set(intent) == {  # type: ignore[has-type]  # an object in every record
        "account", "symbol", "position_side", "side", "contracts", "target", "reduce_only", "rank", "score",
    }  # fmt: skip
