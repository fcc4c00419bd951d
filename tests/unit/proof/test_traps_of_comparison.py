"""Further traps of comparing two sets, and of levels that share a condition, each by its smallest policy."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import pytest

from killswitch.graph.compile import compile_loaded
from killswitch.policy.loader import load
from killswitch.proof.against import compare_sets
from killswitch.proof.properties import prove
from killswitch.proof.solver import Prover
from killswitch.scenario.resolve import resolve
from killswitch.scenario.running import ScenarioRunner
from tests.unit.proof.policies import graph_of, policy, set_of, stage

pytest.importorskip("z3", reason="the extra `prove` is not installed")

FALL = "a: {signal: equity.drawdown, window: 1h, at_least: 5%, confirm: 2m, on_unknown: hold, grace: 75m}"
ATTRIBUTED = "attribution: {source_at_least: 65%, if_mixed: worst_ranked, if_unknown: worst_ranked}"


def verdict(folder: Path, base: str, head: str) -> str:
    """Of `--against`, over two sets of one policy each."""
    one, other = set_of(folder, base), set_of(folder, head)
    return compare_sets(Prover(perf_counter), one, other).verdict()


def closing(close: str) -> str:
    """One stage with this close."""
    return policy(FALL, stage(1, "any: [a]", ATTRIBUTED, actions=f"[{{close: {close}}}]"))


def test_trap_two_confirmations_with_a_condition_of_the_book_are_neither(tmp_path: Path) -> None:
    """`all: [fall, leverage]` against one trigger of both: that also re-arms at other moments."""
    leverage = "b: {signal: exposure.leverage, at_least: 1.2, confirm: 2m, on_unknown: hold, grace: 75m}"
    merged = (
        "c: {when: 'equity.drawdown(\"1h\") >= 0.05 && exposure.leverage >= 1.2', confirm: 2m, on_unknown: hold, "
        "grace: 75m}"
    )
    base = policy(f"{FALL}\n{leverage}", stage(1, "all: [a, b]"))
    assert verdict(tmp_path, base, policy(merged, stage(1, "any: [c]"))) == "NEITHER"


@pytest.mark.parametrize(("top", "word"), [("", "TIGHTENING"), (", top: 3", "NEITHER")])
def test_trap_both_sides_are_more_than_the_losing_one_unless_counted(tmp_path: Path, top: str, word: str) -> None:
    """With `top`, three positions of both sides may leave one that three of the losing side contain."""
    base, head = (closing(f"{{side: {side}{top}, fraction: 100%}}") for side in ("losing", "both"))
    assert verdict(tmp_path, base, head) == word


@pytest.mark.parametrize(("spread", "word"), [("", "TIGHTENING"), (", spread: by_rank", "NEITHER")])
def test_trap_a_larger_fraction_by_rank_may_keep_more_of_a_position(tmp_path: Path, spread: str, word: str) -> None:
    """Of the gross, 60% taken elsewhere leaves more of one position than 50% did."""
    base, head = (
        closing(f"{{side: both, rank: component-risk{spread}, fraction: {fraction}}}") for fraction in ("50%", "60%")
    )
    assert verdict(tmp_path, base, head) == word


def test_trap_one_truth_without_a_threshold_attributes_over_another_window(tmp_path: Path) -> None:
    """`!(x < 0.05)` is true whenever `x >= 5%`, and leaves the choice of a window to the other trigger.

    Where both are confirmed, the base takes the window that is further beyond its threshold, the head always 15m.
    """
    quick = "b: {signal: equity.drawdown, window: 15m, at_least: 4%, confirm: 2m, on_unknown: hold, grace: 75m}"
    negated = "a: {when: '!(equity.drawdown(\"1h\") < 0.05)', confirm: 2m, on_unknown: hold, grace: 75m}"
    for side, word in (("losing", "NEITHER"), ("both", "EQUIVALENT")):
        stages = stage(1, "any: [a, b]", ATTRIBUTED, actions=f"[{{close: {{side: {side}, fraction: 100%}}}}]")
        base, head = (policy(f"{first}\n{quick}", stages) for first in (FALL, negated))
        assert verdict(tmp_path, base, head) == word


def test_trap_a_stage_that_counts_a_tick_leaves_pushes_to_the_one_below(tmp_path: Path) -> None:
    """`confirm: 1 ticks` above the same condition at once: on a pushed evaluation the lower stage fires."""
    now = FALL.replace("confirm: 2m, ", "")
    counted = now.replace("a:", "b:").replace("at_least: 5%,", "at_least: 5%, confirm: 1 ticks,")
    graph = graph_of(tmp_path, policy(f"{now}\n{counted}", f"{stage(1, 'any: [a]')}\n{stage(2, 'any: [b]')}"))
    found = {it.subject: it for it in prove(Prover(perf_counter), graph) if it.property == "a stage can fire"}
    assert {name: it.outcome for name, it in found.items()} == {"s1": "proved", "s2": "proved"}
    lower = found["s1"].witness
    assert lower is not None and lower[-1].fired == "s1" and not lower[-1].seen.scheduled


SCENARIO = """\
apiVersion: killswitch.dev/v1
kind: Scenario
metadata: {name: two-sided}
spec:
  policies: [futures-drawdown]
  starts: 2026-03-02 09:00 Europe/Berlin
  every: 1m
  accounts:
    main:
      venue: binanceusdm
      market: swap
      currency: USDT
      equity: 10000
      positions:
        - {symbol: "BTC/USDT:USDT", side: long, contracts: 1, price: 20000 =x60 BTC =x3, amount_step: 0.001}
        - {symbol: "ETH/USDT:USDT", side: short, contracts: 10, price: 1000 =x60 ETH =x3, amount_step: 0.001}
"""


@pytest.mark.parametrize(
    ("bitcoin", "ether", "fires", "orders"),
    [
        # 310 of 500 is lost by the long: 62%, less than the 65% of level 1, so that both sides are trimmed.
        ("19690", "1019", "trim-top-risk", {("BTC/USDT:USDT", "sell"), ("ETH/USDT:USDT", "buy")}),
        # 465 of 750: 62%, more than the 60% of level 2, which closes the long and keeps the short.
        ("19535", "1028.5", "close-losing-side", {("BTC/USDT:USDT", "sell")}),
    ],
)
def test_trap_level_2_keeps_what_level_1_trims(
    repository: Path, tmp_path: Path, bitcoin: str, ether: str, fires: str, orders: set[tuple[str, str]]
) -> None:
    """With 62% of the losses long, futures-drawdown halves the short at level 1 and keeps it at level 2."""
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(SCENARIO.replace("BTC =", f"{bitcoin} =").replace("ETH =", f"{ether} ="), encoding="utf-8")
    loaded = load([repository / "policies/futures-drawdown/policy.yaml", scenario])
    compiled, _ = compile_loaded(loaded)
    assert compiled is not None
    (case,), problems = resolve(loaded.documents, compiled)
    assert problems == ()
    seen = [it for it in ScenarioRunner(compiled, lambda _: iter(())).run(case).result.seen if it.subject == "fires"]
    assert [each.name for each in seen] == [fires]
    assert {_order(each) for each in seen[0].orders} == orders


def _order(text: str) -> tuple[str, str]:
    """Symbol and side of an order as scenarios write it: `sell 0.5 BTC/USDT:USDT`."""
    side, _, symbol = text.split()
    return symbol, side
