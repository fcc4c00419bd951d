"""Imported protections lock when freqtrade's own rules do, on the same closed trades.

The rules are those of `tests/oracle/protections.py`, which imports nothing of the product. What is approximated is a
parameter of them, or a test of its own here, and is in the report of the import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given, settings

from killswitch.accounts.plug_ins import load_plug_ins
from killswitch.graph.compile import compile_policies
from killswitch.graph.nodes import PolicySet
from killswitch.operations.importing.freqtrade import import_freqtrade
from killswitch.operations.importing.report import ImportedFolder
from killswitch.policy.loader import load
from tests.oracle import protections as freqtrade
from tests.oracle.protections import PairLock, Trade
from tests.unit.policy.test_freqtrade_protections import (
    BEGUN,
    DAY,
    HOUR,
    differing,
    leave_within_5_minutes_of_a_close,
    lists_of_trades,
    locks_of,
    trades_of,
)

CONFIG = '{"exchange": {"name": "binance"}, "stake_currency": "USDT", "trading_mode": "%s", "dry_run": true}'
DOCUMENTED = (
    '{"method": "CooldownPeriod", "stop_duration_candles": 5}',
    '{"method": "MaxDrawdown", "lookback_period_candles": 48, "trade_limit": 20, "stop_duration_candles": 4, '
    '"max_allowed_drawdown": 0.2}',
    '{"method": "StoplossGuard", "lookback_period_candles": 24, "trade_limit": 4, "stop_duration_candles": 2, '
    '"only_per_pair": False}',
    '{"method": "LowProfitPairs", "lookback_period_candles": 6, "trade_limit": 2, "stop_duration_candles": 60, '
    '"required_profit": 0.02}',
    '{"method": "LowProfitPairs", "lookback_period_candles": 24, "trade_limit": 4, "stop_duration_candles": 2, '
    '"required_profit": 0.01}',
)
"""The full example of freqtrade's documentation (docs/includes/protections.md), one protection each."""
Rule = Callable[[Sequence[Trade]], list[PairLock]]
RULES: tuple[tuple[Rule, int], ...] = (
    (lambda trades: freqtrade.cooldown_period(trades, 5 * HOUR), 0),
    (lambda trades: freqtrade.max_drawdown(trades, 2 * DAY, 20, 4 * HOUR, 0.2), 2 * DAY),
    (lambda trades: freqtrade.stoploss_guard(trades, DAY, 4, 2 * HOUR), DAY),
    (lambda trades: freqtrade.low_profit_pairs(trades, 6 * HOUR, 2, 60 * HOUR, 0.02), 6 * HOUR),
    (lambda trades: freqtrade.low_profit_pairs(trades, DAY, 4, 2 * HOUR, 0.01), DAY),
)
"""The rule of each, and its lookback in minutes, 0 without one."""


def imported(folder: Path, protections: str, *, mode: str = "spot", body: str = "") -> ImportedFolder:
    """The import of a strategy whose stops rest at the exchange, at a timeframe of an hour."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(CONFIG % mode, encoding="utf-8")
    (folder / "strategy.py").write_text(
        "class S(IStrategy):\n    timeframe = '1h'\n    order_types = {'stoploss_on_exchange': True}\n"
        f"{body}    protections = [{protections}]\n",
        encoding="utf-8",
    )
    return import_freqtrade([folder / "config.json"], folder / "strategy.py", [], load_plug_ins(), "main")


def policies_of(found: ImportedFolder, folder: Path) -> PolicySet:
    at = folder / "out"
    at.mkdir(exist_ok=True)
    (at / "policy.yaml").write_text(found.files["policy.yaml"], encoding="utf-8")
    compiled, problems = compile_policies(load([at]).documents)
    assert problems == ()
    assert compiled is not None
    return compiled


@pytest.mark.parametrize("number", range(len(DOCUMENTED)))
@settings(max_examples=10, deadline=None)
@given(trades=lists_of_trades())
def test_the_documented_protections_lock_as_freqtrade_does(
    tmp_path_factory: pytest.TempPathFactory, number: int, trades: list[Trade]
) -> None:
    """At every minute and for every pair, with winners that prolong; but where a trade leaves the window meanwhile."""
    rule, lookback = RULES[number]
    assume(not leave_within_5_minutes_of_a_close(trades, lookback))
    folder = tmp_path_factory.mktemp("import")
    policies, until = policies_of(imported(folder, DOCUMENTED[number]), folder), trades[-1].closed + 62 * HOUR
    assert differing(locks_of(policies, trades, until), rule(trades), until) == []


def test_a_lookback_shorter_than_the_lock_does_not_end_it(tmp_path: Path) -> None:
    """Two poor trades lock for 60 h, although no trade is within the last 6 h soon."""
    trades = trades_of(-0.05, -0.05)
    found = locks_of(policies_of(imported(tmp_path, DOCUMENTED[3]), tmp_path), trades, BEGUN + 3 * DAY)
    assert [(lock.pair, lock.until - lock.since) for lock in found] == [("A", 60 * HOUR)]


def test_defaults_are_freqtrades_own(tmp_path: Path) -> None:
    """Both periods 60 min; 10 trades of `StoplossGuard`, one trade and 0 of `MaxDrawdown` and `LowProfitPairs`."""
    ten = [Trade("A", "long", BEGUN + 6 * i, BEGUN + 6 * i + 5, -0.01, "stop_loss") for i in range(10)]
    guard = policies_of(imported(tmp_path / "a", '{"method": "StoplossGuard"}'), tmp_path / "a")
    assert [lock.until - lock.since for lock in locks_of(guard, ten, BEGUN + 5 * HOUR)] == [60]
    for method in ("MaxDrawdown", "LowProfitPairs"):
        found = policies_of(imported(tmp_path / method, f'{{"method": "{method}"}}'), tmp_path / method)
        assert locks_of(found, trades_of(0.01), BEGUN + 5 * HOUR) == []
        assert [lock.until - lock.since for lock in locks_of(found, trades_of(-0.01), BEGUN + 5 * HOUR)] == [60]


def test_a_ratio_of_the_stake_is_divided_by_a_leverage_that_is_a_literal(tmp_path: Path) -> None:
    """At 5×, 20% of the stake is 4% of the notional; without the callback it is 1, and as code it is unknown."""
    leverage = "    def leverage(self, pair, **kwargs):\n        return {}\n"
    at_five = imported(tmp_path / "a", DOCUMENTED[1], mode="futures", body=leverage.format("5.0"))
    assert '"ratios") > 0.04 &&' in at_five.files["policy.yaml"]
    plain = imported(tmp_path / "b", DOCUMENTED[1], mode="futures")
    assert '"ratios") > 0.2 &&' in plain.files["policy.yaml"]
    code = imported(tmp_path / "c", DOCUMENTED[1], mode="futures", body=leverage.format("min(3, self.most)"))
    assert "policy.yaml" not in code.files
    assert [
        (each.key, each.line) for each in code.settings if each.outcome == "no equivalent" and "leverage" in each.text
    ] == [("leverage", 4), ("protections[0] MaxDrawdown", 6)]


def test_a_guard_of_one_side_becomes_a_policy_and_a_lock_of_each_side(tmp_path: Path) -> None:
    """Longs and shorts of a bot that may sell short; longs alone of one that may not."""
    guard = '{"method": "StoplossGuard", "only_per_side": True, "trade_limit": 2, "lookback_period": 600}'
    both = imported(tmp_path / "a", guard, mode="futures", body="    can_short = True\n").files["policy.yaml"]
    assert both.count("side: long}") == both.count("side: short}") == 1
    assert both.count('"scope", "long") >= 2.0') == both.count('"scope", "short") >= 2.0') == 1
    assert "short" not in imported(tmp_path / "b", guard, mode="futures").files["policy.yaml"]


def test_a_lock_until_a_time_of_the_day_is_in_utc(tmp_path: Path) -> None:
    """`unlock_at` is UTC in freqtrade."""
    found = imported(tmp_path, '{"method": "CooldownPeriod", "unlock_at": "07:30"}')
    assert 'until: "07:30 UTC"' in found.files["policy.yaml"]
    policies_of(found, tmp_path)


def test_stops_that_the_bot_keeps_to_itself_make_every_loss_a_stop(tmp_path: Path) -> None:
    """Four losing exits by signal: freqtrade counts none of them, the import does and says so."""
    (tmp_path / "config.json").write_text(CONFIG % "spot", encoding="utf-8")
    (tmp_path / "s.py").write_text(
        f"class S(IStrategy):\n    timeframe = '1h'\n    protections = [{DOCUMENTED[2]}]\n", encoding="utf-8"
    )
    found = import_freqtrade([tmp_path / "config.json"], tmp_path / "s.py", [], load_plug_ins(), "main")
    (guard,) = [each for each in found.settings if "StoplossGuard" in each.key]
    assert (guard.outcome, "every losing trade counts as a stop" in guard.text) == ("approximated", True)
    locks = locks_of(policies_of(found, tmp_path), trades_of(*[-0.01] * 4), BEGUN + DAY)
    assert [lock.pair for lock in locks] == ["*"]


@pytest.mark.parametrize(
    ("protection", "why"),
    [
        ('{"method": "CooldownPeriod", "stop_duration": self.x.value}', "stop_duration (line 4) is code"),
        ('{"method": "CooldownPeriod", "stop_duration": 5, "stop_duration_candles": 2}', "contradict each other"),
        ('{"method": "CooldownPeriod", "stop_duration": "5"}', "stop_duration is not a whole number"),
        ('{"method": "CooldownPeriod", "stop_duration": True}', "stop_duration is not a whole number"),
        ('{"method": "CooldownPeriod", "unlock_at": "24:00"}', "unlock_at is no time HH:MM"),
        ('{"method": "StoplossGuard", "required_profit": 0.02}', "required_profit is another number"),
        ('{"method": "LowProfitPairs", "only_per_side": True}', "the profit of one side"),
        ('{"method": "MaxDrawdown", "calculation_mode": "sharpe"}', "calculation_mode is ratios or equity"),
        ('{"method": "MaxDrawdown", "trade_limt": 3}', "trade_limt is not a key of MaxDrawdown"),
        ('{"method": "Hodl"}', "known protections are StoplossGuard"),
        ('{"method": METHOD}', "method (line 4) is code"),
        ("make_protection()", "it is code"),
        ('{**BASE, "method": "CooldownPeriod"}', "one of its keys is code"),
    ],
)
def test_what_no_policy_can_declare_is_listed_with_its_line_and_not_imported(
    tmp_path: Path, protection: str, why: str
) -> None:
    """The other protection of the strategy is imported all the same."""
    found = imported(tmp_path, f'{protection}, {{"method": "CooldownPeriod", "stop_duration": 7}}')
    (listed,) = [each for each in found.settings if each.key.startswith("protections[0]")]
    assert (listed.outcome, listed.line, listed.file) == ("no equivalent", 4, str(tmp_path / "strategy.py"))
    assert why in listed.text
    assert found.files["policy.yaml"].count("kind: Policy") == 1
    assert "for: 7m" in found.files["policy.yaml"]
