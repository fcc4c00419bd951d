"""Scenarios that give the values of signals, at times of their own."""

from __future__ import annotations

from decimal import Decimal
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.graph.nodes import SignalRef
from killswitch.scenario.comparison import Failure
from killswitch.scenario.given_signals import GivenValue, parse_given
from killswitch.scenario.running import ScenarioRunner
from killswitch.scenario.written import WrittenPosition, WrittenScenario, scenario_yaml, series, value_text
from tests.unit.scenario.written import POLICY, POSITION, loaded, result, scenario_text

FALL = SignalRef("equity.drawdown", (3_600_000_000,))
LEVERAGE = SignalRef("exposure.leverage", ())
IMPACT = POLICY.replace("three: {signal: equity.loss_from_start, at_least: 3%",
                        'three: {signal: equity.drawdown, window: 1h, at_least: 3%')  # fmt: skip


def at_times(times: str, signals: str, *more: str) -> str:
    text = scenario_text("10000", f"times: {times}", f"signals: {signals}", *more, account=(POSITION,))
    return text.replace("  every: 1m\n", "", 1)


def failures(folder: Path, text: str, policy: str) -> tuple[Failure, ...]:
    """The failures of the scenario of a policy with a warning."""
    policies, scenarios, _ = loaded(folder, text, policy=policy)
    return ScenarioRunner(policies, lambda _: iter(())).run(scenarios[0]).result.failures


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("7%x2 unknown", [(0.07, 0.07), (0.07, 0.07), (-inf, inf)]),
        ("0.05 4%..10% =", [(0.05, 0.05), (0.04, 0.1), (0.04, 0.1)]),
        ("4%.. ..10% _", [(0.04, inf), (-inf, 0.1), (-inf, inf)]),
        ("0%", [(0.0, 0.0)] * 3),
        ("1% 2%x*", [(0.01, 0.01), (0.02, 0.02), (0.02, 0.02)]),
    ],
)
def test_items_are_intervals(text: str, values: list[tuple[float, float]]) -> None:
    """Numbers and shares are points, `a..b` is partly known, and `unknown` is everything."""
    parsed = parse_given(text, FALL)
    assert parsed.problems == ()
    assert parsed.values(3) == [GivenValue(low, high) for low, high in values]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("= 1%", "no value comes before"),
        ("1%x* 2%", "nothing follows"),
        ("1%x0", "repeated 0 times"),
        ("NaN", "no value of"),
        ("..", "no value of"),
        ("10%..4%", "ends before it begins"),
        ("101%", "from 0 to 1"),
        ("-1%", "from 0 to 1"),
        ("low", "no value of"),
    ],
)
def test_a_value_that_a_signal_never_has_is_a_mistake(text: str, why: str) -> None:
    """A drawdown is a share between 0 and 1, and each mistake says so at its item."""
    (problem,) = parse_given(text, FALL).problems
    assert problem.code == "KS7010" and why in problem.message and problem.fix


def test_a_signal_that_is_never_unknown_is_not_given_as_unknown() -> None:
    """`venue.consecutive_failures` is a count that is always known."""
    (problem,) = parse_given("unknown", SignalRef("venue.consecutive_failures", ())).problems
    assert "never unknown" in problem.message


@given(st.floats(-1e300, 1e300), st.floats(0, 1), st.floats(0, 1))
def test_a_written_value_reads_as_the_same_floats(number: float, one: float, other: float) -> None:
    """Whatever its digits are, a value is written such that the same interval is read."""
    low, high = min(one, other), max(one, other)
    for signal, value in ((LEVERAGE, GivenValue(abs(number), abs(number))), (FALL, GivenValue(low, high))):
        parsed = parse_given(value_text(value), signal)
        assert (parsed.problems, parsed.values(1)) == ((), [value])


def test_given_signals_replace_those_of_the_book(tmp_path: Path) -> None:
    """The stage fires at the given fall, while the equity of the book never moves; 62 minutes are one step."""
    found = result(
        tmp_path,
        at_times("[0s, 62m, 63m]", "{equity.drawdown(1h): 0% 4% unknown}", "expect:",
                 "  - {at: 62m, fires: warn}", "  - {at: 63m, in_force: warn}",
                 "  - {at: 63m, trigger: three, is: unknown}"),
        IMPACT,
    )  # fmt: skip
    assert (found.outcome, found.failures, found.steps) == ("passed", (), 3)


def test_a_push_counts_no_tick(tmp_path: Path) -> None:
    """Of three steps above the threshold the second is a push: `confirm: 2 ticks` is complete at the third."""
    ticks = IMPACT.replace("at_least: 3%,", "at_least: 3%, confirm: 2 ticks,")
    text = at_times("[0s, 1m, 2m]", '{equity.drawdown("1h"): 4%}', "pushes: [1m]", "expect: [{at: 2m, fires: warn}]")
    assert failures(tmp_path, text, ticks) == ()
    without = text.replace("  pushes: [1m]\n", "").replace("at: 2m", "at: 1m")
    assert failures(tmp_path, without, ticks) == ()


MISTAKES = {
    "a signal that no policy reads": (at_times("[0s]", "{equity.drawdwon(1h): 4%}"), "KS7020", "equity.drawdown"),
    "a signal twice": (at_times("[0s]", "{equity.drawdown(1h): 4%, 'equity.drawdown(\"1h\")': 4%}"), "KS7014", "one"),
    "series of two lengths": (at_times("[0s, 1m]", "{equity.drawdown(1h): 1% 2% 3%}"), "KS7010", "x*"),
    "times in no order": (at_times("[0s, 2m, 1m]", "{equity.drawdown(1h): 4%}"), "KS7011", "begin with 0s"),
    "times that begin late": (at_times("[1m]", "{equity.drawdown(1h): 4%}"), "KS7011", "begin with 0s"),
    "a push between two steps": (at_times("[0s, 2m]", "{equity.drawdown(1h): 4%}", "pushes: [1m]"), "KS7011", "2m"),
    "times next to every": (at_times("[0s]", "{equity.drawdown(1h): 4%}", "every: 1m"), "KS7003", "remove one"),
    "a restart between times": (
        at_times("[0s, 2m]", "{equity.drawdown(1h): 4%}", "restarts: [{at: 0s, outage: 1m}]"), "KS7003", "`every`",
    ),
    "an expectation after the end": (
        at_times("[0s, 2m]", "{equity.drawdown(1h): 4%}", "expect: [{at: 3m, fires: warn}]"), "KS7011", "at most 2m",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_has_its_code_and_its_way_out(tmp_path: Path, case: str) -> None:
    """Nothing runs, and the message says what to write."""
    text, code, fix = MISTAKES[case]
    _, scenarios, problems = loaded(tmp_path, text, policy=IMPACT)
    assert [(each.code, fix in each.fix) for each in problems] == [(code, True)]
    assert scenarios == ()


def test_a_written_scenario_runs(tmp_path: Path) -> None:
    """A file that is written from data reads as that data, and passes."""
    fall = (GivenValue(0.0, 0.0), GivenValue(0.04, 0.05), GivenValue(-inf, inf))
    written = WrittenScenario(
        "written", ("Why it is here.",), "falls", "2026-03-02 09:00 UTC", (0, 60_000_000, 61_500_000), "main", "paper",
        "swap", "USDT", (Decimal(10000), Decimal(9900), Decimal(9900)),
        (WrittenPosition("BTC/USDT:USDT", "long", ("1",) * 3, ("20000",) * 3),),
        (('equity.drawdown("1h")', fall),), ((("at", "1m"), ("fires", "warn")),), (61_500_000,),
    )  # fmt: skip
    text = scenario_yaml(written)
    assert "times: [0s, 1m, 1m1s500ms]" in text and "'0 4%..5% unknown'" in text and "10000 9900x2" in text
    assert result(tmp_path, text, IMPACT).failures == ()


def test_equal_items_are_one() -> None:
    """A series that never changes is a single item; others repeat with `xN`."""
    assert (series(["1"] * 3), series(["1", "1", "2"]), series(["1", "2", "1"])) == ("1", "1x2 2", "1 2 1")
