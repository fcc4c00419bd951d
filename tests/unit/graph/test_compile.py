"""Compiling as a whole: the result when something is wrong, and independence of the order of files."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.graph.compile import compile_policies
from killswitch.graph.lowering import outcomes
from killswitch.graph.nodes import (
    AllOf,
    Compare,
    ComparisonOp,
    ConditionNode,
    Graph,
    Not,
    Number,
    SignalRead,
    SignalRef,
)
from killswitch.graph.wording import span
from killswitch.policy.loader import load

GOLDEN = Path(__file__).parent / "golden"


def test_one_error_leaves_no_graph_at_all() -> None:
    """A policy set is complete or absent: a valid policy beside a broken one does not run alone."""
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
    """No policies are no error of compiling; the loader reports an empty folder."""
    policy_set, diagnostics = compile_policies([])
    assert diagnostics == ()
    assert policy_set is not None
    assert policy_set.graphs == ()


@pytest.mark.parametrize("op", ["<", "<=", ">", ">="])
@pytest.mark.parametrize("value", [-0.5, 0.0, 0.5, 1.0, 1.5])
def test_plain_comparisons_have_the_outcomes_of_the_lowered_code(op: ComparisonOp, value: float) -> None:
    """The shortcut for plain conditions gives the result of the lowered code."""
    signals = [SignalRef("equity.drawdown", (1,))]
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
def test_a_duration_is_written_as_in_a_policy(micros: int, expected: str) -> None:
    """Largest unit first, none that is zero."""
    assert span(micros) == expected


@pytest.mark.parametrize(
    ("expression", "keys", "text"),
    [
        ('equity.drawdown("15m") >= 0.05', "signal: equity.drawdown, window: 15m, at_least: 0.05", "0.05"),
        ('0.05 <= equity.drawdown("15m")', "signal: equity.drawdown, window: 15m, at_least: 0.05", "0.05"),
        ('(equity.drawdown("15m")) > 5e-2  // much', "signal: equity.drawdown, window: 15m, above: 0.05", "5e-2"),
        ("equity.value < 1000", "signal: equity.value, below: 1000 USDT", "1000"),
        ("-2 >= exposure.net", None, "-2"),
        ("250 >= venue.latency", "signal: venue.latency, at_most: 250ms", "250"),
    ],
)
def test_a_plain_comparison_is_the_same_trigger_in_either_form(
    tmp_path: Path, expression: str, keys: str | None, text: str
) -> None:
    """Signal, comparison and value are those of the threshold form; only the number keeps its spelling."""
    triggers = f"    a: {{when: '{expression}', on_unknown: hold}}\n"
    triggers += "" if keys is None else f"    b: {{{keys}, on_unknown: hold}}\n"
    graph = graph_of(tmp_path, triggers)
    assert graph.triggers[0].threshold is not None
    assert graph.triggers[0].threshold.written == text
    if keys is not None:
        assert graph.triggers[1].threshold is not None
        plain = replace(graph.triggers[0].threshold, written=graph.triggers[1].threshold.written)
        assert plain == graph.triggers[1].threshold
        assert graph.triggers[0].condition == graph.triggers[1].condition


@pytest.mark.parametrize(
    "expression",
    [
        'equity.drawdown("15m") == 0.05',
        'equity.drawdown("15m") > 0.05 || venue.malformed > 3',
        "exposure.net > exposure.gross",
        '!(equity.drawdown("15m") > 0.05)',
    ],
)
def test_a_condition_other_than_one_comparison_has_no_threshold(tmp_path: Path, expression: str) -> None:
    """There would be no single value to show the headroom to."""
    (trigger,) = graph_of(tmp_path, f"    a: {{when: '{expression}', on_unknown: hold}}\n").triggers
    assert trigger.threshold is None


def graph_of(folder: Path, triggers: str) -> Graph:
    """The graph of a policy with these triggers, the first of which its one stage uses."""
    (folder / "p.yaml").write_text(
        "apiVersion: killswitch.dev/v1\nkind: Policy\nmetadata: {name: example}\nspec:\n  mode: observe\n"
        "  scope: {each: account, match: {currency: USDT}}\n  max_gap: 10m\n"
        f"  triggers:\n{triggers}  stages:\n"
        "    - {name: s, level: 1, any: [a], cooldown: 1h, reset: manual, actions: []}\n",
        encoding="utf-8",
    )
    policy_set, diagnostics = compile_policies(load([folder]).documents)
    assert policy_set is not None, diagnostics
    return policy_set.graphs[0]


DIFFERENT = {"market": "spot", "venue": "venue: binance, ", "currency": "BTC", "account": "other"}


@pytest.mark.parametrize("different", [None, *DIFFERENT])
def test_an_account_that_no_scope_covers_is_reported(tmp_path: Path, different: str | None) -> None:
    """By market, venue, currency or name; an account that differs in nothing is not reported."""
    own = {key: DIFFERENT[key] if key == different else usual for key, usual in MATCHING.items()}
    (tmp_path / "a.yaml").write_text(
        "apiVersion: killswitch.dev/v1\nkind: Account\n"
        f"metadata: {{name: {own['account']}}}\nspec: {{adapter: paper, {own['venue']}market: {own['market']}, "
        f"currency: {own['currency']}, execution: live}}\n---\n"
        "apiVersion: killswitch.dev/v1\nkind: Policy\nmetadata: {name: example}\nspec:\n  mode: observe\n"
        "  scope: {each: account, match: {account: [main], market: swap, venue: paper, currency: USDT}}\n"
        "  max_gap: 10m\n  triggers: {a: {signal: exposure.leverage, above: 5, on_unknown: warn}}\n"
        "  stages:\n    - {name: s, level: 1, any: [a], cooldown: 1h, reset: manual, actions: []}\n",
        encoding="utf-8",
    )
    policy_set, diagnostics = compile_policies(load([tmp_path]).documents)
    assert policy_set is not None
    assert ("KS5010" in {each.code for each in diagnostics}) == (different is not None)


MATCHING = {"market": "swap", "venue": "", "currency": "USDT", "account": "main"}
