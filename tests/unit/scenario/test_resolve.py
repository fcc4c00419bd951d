"""Scenario documents: every mistake is an error with its code, its place and a fix before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from killswitch.cli import ksctl
from killswitch.graph.compile import compile_loaded
from killswitch.policy.loader import load
from tests.unit.scenario.written import POLICY, POSITION, loaded, scenario_text

FALL = "10000 -1%x8"

# ruff: noqa: E501  # a case is one line where it can be
MISTAKES: dict[str, tuple[str, str, int, str]] = {
    "no zone": (scenario_text(FALL).replace(" Europe/Berlin", ""), "KS7001", 6, "IANA time zone"),
    "a time that clocks skip": (
        scenario_text(FALL).replace("03-02 09:00", "03-29 02:30"), "KS7001", 6, "write the start in UTC",
    ),
    "a time that occurs twice": (
        scenario_text(FALL).replace("03-02 09:00", "10-25 02:30"), "KS7001", 6, "write the start in UTC",
    ),
    "a list for a series": (scenario_text("[1, 2]"), "KS7002", 13, "-1%x5"),
    "NaN": (scenario_text("10000 NaN"), "KS7010", 13, "`_` for an unknown value"),
    "a negative step": (scenario_text(FALL).replace("every: 1m", "every: -1m"), "KS2101", 7, ""),
    "a step of zero": (scenario_text(FALL).replace("every: 1m", "every: 0s"), "KS2101", 7, "more than 0"),
    "an end beyond the calendar": (
        scenario_text("10000 =x99999").replace("every: 1m", "every: 365d"), "KS7011", 7, "a shorter time",
    ),
    "no account": (scenario_text(FALL).split("  accounts:")[0] + "  accounts: {}\n", "KS7003", 8, "add an account"),
    "neither series nor a recording": (scenario_text(FALL).split("  starts:")[0], "KS7003", 4, "or name a `recording`"),
    "series next to a recording": (scenario_text(FALL, "recording: a.jsonl"), "KS7003", 6, "remove `starts`"),
    "an expectation about nothing": (scenario_text(FALL, "expect: [{at: 1m}]"), "KS7004", 15, "exactly one of"),
    "an expectation about two things": (
        scenario_text(FALL, "expect: [{at: 1m, fires: warn, resets: warn}]"), "KS7004", 15, "exactly one of",
    ),
    "a trigger that is nothing": (scenario_text(FALL, "expect: [{at: 1m, trigger: three}]"), "KS7004", 15, "`is: true`"),
    "orders of a state": (
        scenario_text(FALL, "expect: [{at: 1m, in_force: warn, orders: []}]"), "KS7004", 15, "write one of fires",
    ),
    "a flag without a name": (
        scenario_text(FALL, "events: [{at: 1m, kind: flag, author: jo, reason: why}]"), "KS7005", 15, "`flag: NAME`",
    ),
    "series of several lengths": (
        scenario_text(FALL, account=[POSITION, "free: 100 50"]), "KS7010", 15, "`=x*`",
    ),
    "a single step": (scenario_text("10000"), "KS7010", 13, "several values"),
    "a price of zero": (
        scenario_text("10000", account=[POSITION.replace("20000", "20000 -50%x2 =0")]), "KS7010", 14, "smaller change",
    ),
    "an expectation between two steps": (
        scenario_text(FALL, "expect: [{at: 90s, fires: warn}]"), "KS7011", 15, "write 1m or 2m",
    ),
    "an expectation after the end": (
        scenario_text(FALL, "expect: [{at: 9m, fires: warn}]"), "KS7011", 15, "at most 8m",
    ),
    "an expectation during an outage": (
        scenario_text(FALL, "restarts: [{at: 2m, outage: 3m}]", "expect: [{at: 4m, fires: warn}]"), "KS7011", 16, "5m or later",
    ),
    "an outage between two steps": (
        scenario_text(FALL, "restarts: [{at: 2m, outage: 90s}]"), "KS7011", 15, "multiple of `every`",
    ),
    "an outage without an end": (
        scenario_text(FALL, "restarts: [{at: 2m, outage: 9m}]"), "KS7011", 15, "shorter outage",
    ),
    "overlapping outages": (
        scenario_text(FALL, "restarts: [{at: 2m, outage: 3m}, {at: 4m, outage: 2m}]"), "KS7013", 15, "in their order",
    ),
    "a command between two steps": (
        scenario_text(FALL, "events: [{at: 1s, kind: reset, author: jo, reason: why}]"), "KS7011", 15, "0s or 1m",
    ),
    "money between two steps": (
        scenario_text("10000 =x3", account=[POSITION, "flows: [{at: 30s, kind: deposit, amount: 5}]"]), "KS7011", 15, "a step",
    ),
    "a withdrawal that enters": (
        scenario_text("10000 =x3", account=[POSITION, "flows: [{at: 1m, kind: withdrawal, amount: 5}]"]), "KS7012", 15, "below 0",
    ),
    "a flat account that loses": (
        scenario_text(FALL, account=["positions: []"]), "KS7012", 9, "hold a position, or write the change as a flow",
    ),
    "prices that contradict equity": (
        scenario_text(FALL, account=[POSITION.replace("20000", "20000 =x8")]), "KS7012", 9, "a single equity",
    ),
    "a price below zero": (
        scenario_text("10000 -60%", account=[POSITION.replace("20000", "5000")]), "KS7012", 9, "more contracts",
    ),
    "a trade without a change": (
        scenario_text("10000 =x3", account=[POSITION.replace("amount_step", "trades: [{at: 1m, by: stop}], amount_step")]),
        "KS7012", 14, "at which they become fewer",
    ),
    "a liquidation that opens": (
        scenario_text("10000", account=[POSITION.replace("contracts: 1,", "contracts: 1 2, trades: [{at: 1m, by: adl}],")]),
        "KS7012", 14, "at which they become fewer",
    ),
    "a trade between two steps": (
        scenario_text("10000", account=[POSITION.replace("contracts: 1,", "contracts: 2 1, trades: [{at: 30s, by: stop}],")]),
        "KS7011", 14, "the time of a step",
    ),
    "a watched symbol that is held": (
        scenario_text(FALL, account=[POSITION, 'watch: {"BTC/USDT:USDT": 5}']), "KS7012", 15, "remove it from `watch`",
    ),
    "a watched price of zero": (
        scenario_text(FALL, account=[POSITION, "watch: {X: 5 -5 =x*}"]), "KS7010", 15, "a smaller change",
    ),
    "one thing expected twice": (
        scenario_text(FALL, "expect: [{at: 4m, in_force: warn}, {at: 4m, in_force: none}]"), "KS7014", 15, "remove one",
    ),
    "a renamed policy": (
        scenario_text(FALL).replace("[falls]", "[fall]"), "KS7020", 5, "did you mean `falls`?",
    ),
    "a misspelt stage": (
        scenario_text(FALL, "expect: [{at: 4m, fires: wran}]"), "KS7020", 15, "did you mean `warn`?",
    ),
    "a misspelt trigger": (
        scenario_text(FALL, "expect: [{at: 4m, trigger: tree, is: true}]"), "KS7020", 15, "did you mean `three`?",
    ),
    "a misspelt scope": (
        scenario_text(FALL, "expect: [{at: 4m, fires: warn, scope: account/mian}]"), "KS7020", 15, "did you mean `account/main`?",
    ),
    "a misspelt route": (
        scenario_text(FALL, "expect: [{at: 4m, fires: warn, notifies: [dsek]}]"), "KS7020", 15, "did you mean `desk`?",
    ),
    "a policy that is not tested": (
        scenario_text(FALL, "expect: [{at: 4m, fires: warn, policy: other}]"), "KS7020", 15, "among `policies`",
    ),
    "a missing recording": (
        scenario_text(FALL).split("  starts:")[0] + "  recording: none.jsonl\n", "KS7021", 6, "relative to this file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_an_error_at_its_place(tmp_path: Path, case: str) -> None:
    """Its code, its line and what to write; the scenario is not run."""
    text, code, line, fix = MISTAKES[case]
    _, scenarios, problems = loaded(tmp_path, text)
    assert scenarios == ()
    assert problems
    found = problems[0]
    assert (found.code, found.line, found.severity) == (code, line, "error"), found
    assert fix in found.fix, found.fix


@pytest.mark.parametrize("case", MISTAKES)
def test_w5_no_mistake_is_a_test_that_passes(tmp_path: Path, case: str) -> None:
    """`ksctl test` runs nothing, not even the scenario without a mistake next to it, and exits 1 with the place."""
    text, code, line, _ = MISTAKES[case]
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
    (tmp_path / "right.yaml").write_text(scenario_text("10000 =x2", name="right"), encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(ksctl, ["test", str(tmp_path), "--jobs", "1"])
    assert result.exit_code == 1
    assert f"{tmp_path / 'wrong.yaml'}:{line}:" in result.stdout
    assert code in result.stdout
    assert "nothing was run" in result.stdout


def test_a_mistake_in_a_series_underlines_its_item(tmp_path: Path) -> None:
    """The column is that of the item in the file."""
    _, _, (problem,) = loaded(tmp_path, scenario_text("10000 -1%x5 nan"))
    assert (problem.line, problem.column, problem.length) == (13, 27, 3)


def test_scope_and_policy_are_written_where_there_are_several(tmp_path: Path) -> None:
    """With one policy on one account both are clear."""
    two = scenario_text(FALL, "expect: [{at: 4m, fires: warn}]").replace(
        "    main:", "    other: {venue: paper, market: swap, currency: USDT, equity: 5, positions: []}\n    main:"
    )
    _, _, (problem,) = loaded(tmp_path, two)
    assert (problem.code, problem.fix) == ("KS7022", "add `scope`, one of account/other, account/main")


def test_w5_two_scenario_files_with_one_name_are_an_error(tmp_path: Path) -> None:
    """The second names the place of the first."""
    _, _, problems = loaded(tmp_path, scenario_text(FALL), scenario_text(FALL))
    assert [each.code for each in problems] == ["KS1207"]


def test_w5_a_misspelt_key_of_a_scenario_is_an_error(tmp_path: Path) -> None:
    """`expects` would be a test that passes for ever."""
    _, _, problems = loaded(tmp_path, scenario_text(FALL, "expects: [{at: 4m, fires: warn}]"))
    assert [(each.code, each.line) for each in problems] == [("KS2001", 15)]


def test_scenarios_are_no_part_of_what_is_deployed(tmp_path: Path) -> None:
    """The digest of a policy set is the same with and without them."""
    policies, _, _ = loaded(tmp_path)
    before = policies.digest
    policies, scenarios, _ = loaded(tmp_path, scenario_text(FALL))
    assert len(scenarios) == 1
    assert policies.digest == before
    assert compile_loaded(load([tmp_path]))[0] == policies
