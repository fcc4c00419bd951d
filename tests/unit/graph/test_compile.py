"""Compiling as a whole: what is left when something is wrong, and what the order of files leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.graph.compile import compile_policies
from killswitch.graph.nodes import AllOf, Compare, ComparisonOp, ConditionNode, Not, Number, SignalRead, SignalRef
from killswitch.graph.ranges import _RANGES, outcomes
from killswitch.graph.wording import span
from killswitch.policy.loader import load
from killswitch.signals.catalogue import BY_NAME

GOLDEN = Path(__file__).parent / "golden"


def test_one_error_leaves_no_graph_at_all() -> None:
    """A policy set is whole or it is not: a sound policy beside a broken one is not run alone."""
    files = [GOLDEN / "futures.yaml", GOLDEN / "invalid" / "ks3010-unknown-trigger.yaml"]
    policy_set, diagnostics = compile_policies(load(files).documents)
    assert policy_set is None
    assert {diagnostic.code for diagnostic in diagnostics} == {"KS3010"}


def test_policies_come_in_the_order_of_their_names() -> None:
    """Whatever the order of the files."""
    files = [GOLDEN / "futures.yaml", GOLDEN / "expressions.yaml"]
    one, _ = compile_policies(load(files).documents, commit="abc")
    other, _ = compile_policies(load(files[::-1]).documents, commit="abc")
    assert one == other
    assert one is not None
    assert one.commit == "abc"
    assert [graph.policy for graph in one.graphs] == ["expressions", "futures-drawdown"]


def test_no_documents_make_an_empty_policy_set() -> None:
    """Nothing to watch is no mistake of compiling; that a folder is empty is told by the loader."""
    policy_set, diagnostics = compile_policies([])
    assert diagnostics == ()
    assert policy_set is not None
    assert policy_set.graphs == ()


def test_every_range_belongs_to_a_number_of_the_catalogue() -> None:
    """A renamed signal must not leave its range behind."""
    assert all(BY_NAME[name].type == "number" for name in _RANGES)


@pytest.mark.parametrize("op", ["<", "<=", ">", ">="])
@pytest.mark.parametrize("value", [-0.5, 0.0, 0.5, 1.0, 1.5])
def test_steps_and_lowered_code_agree_on_what_can_hold(op: ComparisonOp, value: float) -> None:
    """The short way for plain conditions says what the lowered code says."""
    signals = [SignalRef("equity.drawdown", 1)]
    step: ConditionNode = Compare(op, SignalRead(0), Number(value))
    plainly, composed, negated = outcomes([step, AllOf((step, step)), Not(step)], signals)
    assert plainly == composed
    assert {not each for each in negated} == plainly


@pytest.mark.parametrize(
    ("micros", "expected"),
    [
        (0, "0s"),
        (250_000, "250ms"),
        (90_000_000, "1m30s"),
        (5_400_000_000, "1h30m"),
        (86_400_000_000, "1d"),
        (7, "7us"),
    ],
)
def test_a_time_is_told_as_a_policy_writes_it(micros: int, expected: str) -> None:
    """Largest unit first, none that is zero."""
    assert span(micros) == expected
