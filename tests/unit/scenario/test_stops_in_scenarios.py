"""Scenarios of catastrophe stops: they act, they must not act, and an input is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.scenario.running import CaseResult, offset
from tests.unit.scenario.written import POLICY, result, scenario_text

STOP = """---
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, execution: live}
---
apiVersion: killswitch.dev/v1
kind: CatastropheStop
metadata: {name: far}
spec: {accounts: [main], distance: 20%, from: entry, trigger: mark, band: 10%, if_refused: none}
"""
HELD = "positions: [{symbol: BTC_USDT, side: long, contracts: CONTRACTS, price: PRICE, amount_step: 0.001STEP}]"
STEP = ", price_step: 0.1"


def played(folder: Path, expect: str, *, contracts: str = "1", price: str = "20000", step: str = STEP,
           orders: str = "orders: []", equity: str = "10000 =x3") -> CaseResult:  # fmt: skip
    book = HELD.replace("CONTRACTS", contracts).replace("PRICE", price).replace("STEP", step)
    text = scenario_text(equity, "notices: none", f"expect: [{expect}]", account=(book, orders))
    return result(folder, text, POLICY + STOP)


def failures(found: CaseResult) -> list[tuple[str, str, str]]:
    """(time, wanted, seen) of every failure."""
    return [(offset(each.at), each.wanted, each.seen) for each in found.failures]


def test_a_stop_that_acts(tmp_path: Path) -> None:
    """20% below an entry of 20,000 is 16,000, for one contract."""
    found = played(tmp_path, "{at: 0s, stops: ['sell 1 BTC_USDT at 16000']}")
    assert (found.outcome, failures(found)) == ("passed", [])


def test_a_stop_that_must_not_act(tmp_path: Path) -> None:
    """There is no position: nothing is placed."""
    found = played(tmp_path, "{at: 0s, stops: []}", contracts="0")
    assert (found.outcome, failures(found)) == ("passed", [])


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        ({"step": ""}, "none for BTC_USDT: the price step of BTC_USDT is unknown"),
        ({"equity": "10000 stale =x2"}, "unknown"),
    ],
)
def test_a_stop_with_an_unknown_input(more: dict[str, str], seen: str, tmp_path: Path) -> None:
    """Without the step of prices, or while the account cannot be read, nothing is placed."""
    found = played(tmp_path, f"{{at: 1m, stops: ['{seen}']}}", **more)
    assert (found.outcome, failures(found)) == ("passed", [])


def test_other_stops_than_expected_are_shown(tmp_path: Path) -> None:
    """What is wanted and what would be done."""
    found = played(tmp_path, "{at: 0s, stops: ['sell 1 BTC_USDT at 15000']}")
    assert failures(found) == [
        ("0s", "stops sell 1 BTC_USDT at 15000 (account/main)", "stops sell 1 BTC_USDT at 16000")
    ]
