"""Any value in place of any other in a scenario is a problem with a place, or a scenario: never an exception."""

from __future__ import annotations

import io
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from killswitch.lab.recording import read
from killswitch.scenario.running import ScenarioRunner
from tests.unit.scenario.written import loaded, scenario_text

FEW = 3
"""Odd values for each place."""
ODD: tuple[object, ...] = (
    None, True, 0, -1, 10**30, 0.1, "", " ", "x", "nan", "1e400", "-1%x5", "0 =x*", "down", "0 0", "100%",
    "9999-12-31 23:59 UTC", "1m", "3650d", [], {}, ["x"], {"x": 1}, "\x00", "É" * 300,
)  # fmt: skip
POSITION = """positions:
  - symbol: BTC/USDT:USDT
    side: long
    contracts: 1 =x5 2 =x*
    price: 20000
    contract_size: 1
    amount_step: 0.001
    liquidation: 9000
    margin: 500
    trades: [{at: 6m, by: stop}]
  - {symbol: X, side: short, contracts: 3, price: 10 _ =x*}"""
ACCOUNT = (
    *POSITION.split("\n"),
    "watch: {W: 5 (+1 -1)x2 =x*}",
    "orders: [{id: o, symbol: X, side: buy, amount: 1, price: 2, trigger_price: 3, reduce_only: true}]",
    "flows: [{at: 2m, kind: deposit, amount: 500}]", "free: 400 =x*", "margin_used: 3", "maintenance_margin: 1",
    "health: {latency: 80, requests: 4, errors: 0, timeouts: 0, malformed: 0, rate_limited: 0, clock_skew: 2}",
)  # fmt: skip
WHOLE = scenario_text(
    "10000 -1%x4 _ stale =x4",
    "events: [{at: 6m, kind: reset, scope: account/main, author: jo, reason: why, until: 9m}]",
    "restarts: [{at: 7m, outage: 2m}]",
    "expect: [{at: 4m, fires: warn, lock: none, orders: [], cancels: [], notifies: [desk], text: [a]},"
    " {at: 4m, trigger: three, is: held}, {at: 4m, in_force: warn}, {at: 4m, lock_in_force: none}]",
    account=ACCOUNT,
)  # fmt: skip


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside of a value."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))  # type: ignore[index] # it is a mapping or a list


def changed(document: Any, path: tuple[Any, ...], value: object) -> Any:
    """A copy of the document with another value at the path."""
    copy = deepcopy(document)
    inside = copy
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return copy


def test_no_odd_value_is_an_exception_or_passes_silently(tmp_path: Path) -> None:
    """Every value of a scenario is replaced by a few odd ones; what still loads is run to its end."""
    yaml = YAML(typ="safe", pure=True)
    document = yaml.load(WHOLE)
    ran = refused = 0
    for number, path in enumerate(places(document)):
        for shift in range(FEW):
            stream = io.StringIO()
            yaml.dump(changed(document, path, ODD[(number * FEW + shift) % len(ODD)]), stream)
            policies, scenarios, problems = loaded(tmp_path, stream.getvalue())
            assert problems or scenarios
            for scenario in scenarios:
                result = ScenarioRunner(policies, lambda name: read(Path(name))).run(scenario).result
                assert result.outcome in ("passed", "failed", "error", "pending")
                ran += 1
            refused += bool(problems)
    assert ran > 20
    assert refused > 150
