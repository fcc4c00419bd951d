"""The comparison of policies sees what `reduce` and `neutralise` do to a book."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import pytest

from killswitch.proof.against import SetComparison, compare_sets
from killswitch.proof.solver import Prover
from tests.unit.proof.policies import policy, set_of, stage

pytest.importorskip("z3", reason="the extra `prove` is not installed")

TRIGGER = "a: {signal: equity.drawdown, window: 1h, at_least: 7%, on_unknown: hold, grace: 75m}"
LOCK = "{lock_trading: {mode: reduce_only}}"
N = "window: 24h, sample: 5m, least: 100, if_unknown: nothing, fallback: nothing"
NOTIONAL = f"{{neutralise: {{by: notional, {N}}}}}"

TOP_UP = "{top_up_margin: {from: treasury, to_ratio: 30%, at_most: 1000 USDT, keep: 500 USDT}}"


def reduce(to: str, **more: str) -> str:
    keys = {"to": to, "of": "gross", "order": "proportion", "flows": "page", **more}
    return "{reduce: {" + ", ".join(f"{key}: {value}" for key, value in keys.items()) + "}}"


def compared(folder: Path, base: str, head: str) -> SetComparison:
    """The comparison of two policies whose only stage has these actions after its lock."""
    made = [
        set_of(folder, policy(TRIGGER, stage(1, "any: [a]", actions=f"[{LOCK}{', ' if action else ''}{action}]")))
        for action in (base, head)
    ]
    return compare_sets(Prover(perf_counter), *made)


@pytest.mark.parametrize(
    ("base", "head", "word"),
    [
        (reduce("2.5"), reduce("2.5"), "EQUIVALENT"),
        (reduce("2.5"), reduce("2.50"), "EQUIVALENT"),
        (reduce("2.5"), reduce("2"), "TIGHTENING"),
        (reduce("2"), reduce("2.5"), "LOOSENING"),
        (reduce("2.5"), "", "NEITHER"),
        ("", reduce("2.5"), "NEITHER"),
        (reduce("2.5", at_most_per_day="2"), reduce("2.5"), "TIGHTENING"),
        (reduce("2.5"), reduce("2.5", at_most_per_day="2"), "LOOSENING"),
        (reduce("2.5"), reduce("2.5", of="net"), "NEITHER"),
        (reduce("2.5"), reduce("2.5", order="rank"), "NEITHER"),
        (reduce("2.5"), reduce("2.5", flows="reduce"), "NEITHER"),
        (NOTIONAL, NOTIONAL, "EQUIVALENT"),
        (NOTIONAL, "", "NEITHER"),
        ("", NOTIONAL, "NEITHER"),
        (NOTIONAL, NOTIONAL.replace("fallback: nothing", "fallback: close"), "NEITHER"),
        (NOTIONAL, NOTIONAL.replace("by: notional", "by: beta, hub: BTC_USDT"), "NEITHER"),
        (NOTIONAL, reduce("2.5"), "NEITHER"),
        (TOP_UP, TOP_UP, "EQUIVALENT"),
        (TOP_UP, TOP_UP.replace("1000", "1000.0"), "EQUIVALENT"),
        (TOP_UP, "", "NEITHER"),
        ("", TOP_UP, "NEITHER"),
        (TOP_UP, TOP_UP.replace("1000", "2000"), "NEITHER"),
        (TOP_UP, TOP_UP.replace("keep: 500", "keep: 100"), "NEITHER"),
        (TOP_UP, TOP_UP.replace("30%", "30%, partial_to: 40%"), "NEITHER"),
        (TOP_UP, TOP_UP.replace("treasury", "desk"), "NEITHER"),
    ],
)
def test_a_changed_cut(tmp_path: Path, base: str, head: str, word: str) -> None:
    """A lower target and more cuts a day are harder; another measure or order, and other margin, is neither.

    Nor is a stage that begins or ends to cut: one that cuts also declines while its input is unknown.
    """
    assert compared(tmp_path, base, head).verdict() == word


def test_a_hedge_that_may_be_opened_now_is_named(tmp_path: Path) -> None:
    """A reviewer reads that the head may open a position."""
    opened = NOTIONAL[:-2] + ", open: {account: desk, instrument: BTC_USDT, at_most: 100 USDT}}}"
    found = compared(tmp_path, NOTIONAL, opened)
    assert found.verdict() == "NEITHER"
    assert any("may open a hedge" in change.text for change in found.changes)
