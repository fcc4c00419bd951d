"""Traps of single policies, each by its smallest policy, with the engine's own evaluation as the judge."""

from __future__ import annotations

from math import inf
from pathlib import Path
from time import perf_counter

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import Graph
from killswitch.model.instant import MINUTE
from killswitch.proof.properties import prove
from killswitch.proof.silence import silent_ranges
from killswitch.proof.solver import Prover
from killswitch.proof.verdicts import Situation
from killswitch.proof.witness import Evaluation, replay
from tests.graphs import compiled
from tests.unit.proof.policies import graph_of, policy, stage

pytest.importorskip("z3", reason="the extra `prove` is not installed")


def fall(name: str, at: str, window: str = "1h", more: str = "on_unknown: hold") -> str:
    return f"{name}: {{signal: equity.drawdown, window: {window}, at_least: {at}, {more}, grace: 75m}}"


def at(minute: int, *values: float, lost: bool = False, scheduled: bool = True) -> Evaluation:
    """An evaluation with known values."""
    return Evaluation(
        minute * MINUTE, values, values, (None,) * len(values), scheduled, lost, frozenset(), {}
    )  # fmt: skip


def fired(graph: Graph, *run: Evaluation) -> list[str | None]:
    return [each.fired for each in replay(graph, run)]


def test_trap_a_condition_under_all_fires_again_without_a_new_loss(tmp_path: Path) -> None:
    """8% → 6.5% → 7.8% fires again after the cooldown only if a condition of the book re-arms the level."""
    alone = graph_of(tmp_path, policy(fall("a", "7%"), stage(1, "any: [a]")))
    book = "a: {when: 'equity.drawdown(\"1h\") >= 0.07 && exposure.leverage >= 1.2', on_unknown: hold, grace: 75m}"
    merged = graph_of(tmp_path, policy(book, stage(1, "any: [a]")))
    assert fired(alone, at(0, 0.08), at(40, 0.065), at(50, 0.078)) == ["s1", None, None]
    assert fired(merged, at(0, 0.08, 2.0), at(40, 0.065, 2.0), at(50, 0.078, 2.0)) == ["s1", None, "s1"]


def test_trap_only_the_highest_level_fires(tmp_path: Path) -> None:
    """With a level on top that only notifies, a fall of 20% in one evaluation closes nothing."""
    stages = f"{stage(1, 'any: [a]')}\n{stage(2, 'any: [b]', actions='[]')}"
    graph = graph_of(tmp_path, policy(f"{fall('a', '14%')}\n{fall('b', '20%')}", stages))
    assert fired(graph, at(0, 0.2)) == ["s2"]


def test_trap_tripping_on_unknown_fires_at_a_fresh_start(tmp_path: Path) -> None:
    """A young window is partly known, 0 to 1: `on_unknown: trip` fires before anything has happened."""
    graph = graph_of(tmp_path, policy(fall("a", "10%", "15m", "on_unknown: trip"), stage(1, "any: [a]")))
    young = replace(at(0, 0.0), high=(1.0,))
    assert fired(graph, young) == ["s1"]
    found = Situation(Prover(perf_counter), graph)
    read = found.run(1)[0][0].signals[0]
    inputs, steps, facts = found.run(1)
    is_young = [read.low == 0, read.high == 1, found.z3.Not(inputs[0].signals[0].unknown)]
    assert found.prover.is_impossible(*facts, *is_young, steps[0].fired == -1) is True


def test_trap_one_tick_is_not_at_once(tmp_path: Path) -> None:
    """A pushed evaluation counts no tick, so that `confirm: 1 ticks` waits for the next scheduled one."""
    graph = graph_of(
        tmp_path, policy(fall("a", "7%", "1h", "confirm: 1 ticks, on_unknown: hold"), stage(1, "any: [a]"))
    )
    assert fired(graph, at(0, 0.08, scheduled=False), at(1, 0.08)) == [None, "s1"]


def test_trap_a_stage_that_may_decline_is_not_assumed_to_fire(tmp_path: Path) -> None:
    """With `corroborate`, 14% does not imply level 3 in force: a mark far from its index declines."""
    graph = graph_of(tmp_path, policy(fall("a", "14%"), stage(3, "any: [a]", "corroborate: true")))
    found = Situation(Prover(perf_counter), graph)
    inputs, steps, facts = found.run(1)
    read = inputs[0].signals[0]
    beyond = [read.low == read.high, read.low >= found.z3.Q(14, 100), found.z3.Not(read.unknown)]
    assert found.prover.is_impossible(*facts, *beyond, steps[0].state.level != 3) is False


def test_trap_the_level_in_force_is_not_monotone_but_the_demanded_one_is(repository: Path) -> None:
    """The deeper run fires level 2 earlier, and its cooldown ends earlier: only demand is claimed, and proved."""
    found = prove(Prover(perf_counter), compiled(repository / "policies/futures-drawdown").graphs[0])
    assert [each.outcome for each in found if each.property.startswith("a deeper loss")] == ["proved"]


def test_trap_a_slow_bleed_fires_nothing_and_is_named(repository: Path) -> None:
    """1.8% an hour stays below every threshold of futures-drawdown, which the ranges of silence state."""
    graph = compiled(repository / "policies/futures-drawdown").graphs[0]
    hours = [at(60 * hour, 0.0045, 0.018, lost=True) for hour in range(40)]
    assert {each.fired for each in replay(graph, hours)} == {None}
    assert 'In normal state, equity.drawdown("1h") below 7% gets no response.' in silent_ranges(graph)


@pytest.mark.parametrize(
    ("written", "value", "fires"), [("* 5.0 >= 0.225", 0.045, False), ("* 2.0 >= 0.09", 0.045, True)]
)
def test_trap_floats_are_not_reals(tmp_path: Path, written: str, value: float, fires: bool) -> None:
    """5 × 0.045 is 0.22499999999999998: at a fall of exactly 4.5% the lowering agrees with the engine."""
    trigger = f"a: {{when: 'equity.drawdown(\"1h\") {written}', on_unknown: hold, grace: 75m}}"
    graph = graph_of(tmp_path, policy(trigger, stage(1, "any: [a]")))
    found = Situation(Prover(perf_counter), graph)
    inputs, steps, facts = found.run(1)
    read = inputs[0].signals[0]
    exact = [each == found.z3.Q(*value.as_integer_ratio()) for each in (read.low, read.high)]
    happens = [*facts, *exact, found.z3.Not(read.unknown), found.z3.Not(inputs[0].refused[0]), steps[0].fired == 0]
    assert found.prover.is_impossible(*happens) is not fires
    assert (fired(graph, at(0, value)) == ["s1"]) is fires


def test_trap_drawdowns_are_not_ordered_with_the_peak(tmp_path: Path) -> None:
    """`drawdown(1h) <= drawdown_from_peak` is false of partly known windows, and not assumed."""
    triggers = f"{fall('a', '10%')}\nb: {{signal: equity.drawdown_from_peak, at_least: 5%, on_unknown: hold}}"
    found = Situation(Prover(perf_counter), graph_of(tmp_path, policy(triggers, stage(1, "any: [a, b]"))))
    deeper = found.inputs.signals[0].high > found.inputs.signals[1].high
    assert found.prover.is_impossible(*found.facts, deeper) is False


def test_trap_an_unknown_drawdown_is_unknown_over_every_window(tmp_path: Path) -> None:
    """The axiom of windows makes all `equity.drawdown` unknown together; other signals are independent."""
    triggers = (
        f"{fall('a', '10%')}\n{fall('b', '5%', '15m')}\nc: {{signal: exposure.leverage, at_least: 2, on_unknown: hold}}"
    )
    found = Situation(Prover(perf_counter), graph_of(tmp_path, policy(triggers, stage(1, "any: [a, b, c]"))))
    hour, quarter, leverage = (each.unknown for each in found.inputs.signals)
    no = found.z3.Not
    assert found.prover.is_impossible(*found.facts, hour != quarter) is True
    assert found.prover.is_impossible(*found.facts, no(hour), leverage) is False
    assert replay(found.graph, [replace(at(0, 0.0, 0.0, 0.0), low=(-inf,) * 3, high=(inf,) * 3)])[0].fired is None
