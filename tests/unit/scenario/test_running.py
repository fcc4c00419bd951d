"""Runs of scenarios: what is expected is compared with what the engine decides, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from killswitch.cli.lab.scenarios import within
from killswitch.model.snapshot import Snapshot
from killswitch.scenario.book import snapshots
from killswitch.scenario.running import FEW, CaseResult, ScenarioRunner, offset, run_all
from tests.unit.scenario.written import POLICY, POSITION, loaded, ran, result, scenario_text

# 10,000 falls by 1% a minute: 9,605.96 after 4m (3.94%), 9,509.90 after 5m (4.90%), 9,414.80 after 6m (5.85%).
FALL = "10000 -1%x8"
WARN = "{at: 4m, fires: warn}"
CLOSE = "{at: 8m, fires: close}"
"""5% is exceeded at 6m, and confirmed 2m later."""


def failures(found: CaseResult) -> list[tuple[str, str, str]]:
    """(time, wanted, seen) of every failure."""
    return [(offset(each.at), each.wanted, each.seen) for each in found.failures]


def test_a_scenario_passes_where_everything_happens_as_expected(tmp_path: Path) -> None:
    """Both firings, and nothing else."""
    found = result(tmp_path, scenario_text(FALL, f"expect: [{WARN}, {CLOSE}]"))
    assert (found.outcome, found.failures, found.steps) == ("passed", (), 9)


def test_a_firing_that_nothing_expects_fails(tmp_path: Path) -> None:
    """It is reported at the scenario, with the values of its parts."""
    found = result(tmp_path, scenario_text(FALL, f"expect: [{WARN}]"))
    assert failures(found) == [("8m", "nothing more at this step", "fires close (falls on account/main)")]
    assert [each.truth for each in found.failures[0].values] == ["true", "true", "true"]


def test_an_expectation_that_nothing_meets_fails(tmp_path: Path) -> None:
    """It is reported at its own place, with the interval of every clause and how long it is confirmed."""
    found = result(tmp_path, scenario_text(FALL, f"expect: [{WARN}, {{at: 7m, fires: close}}, {CLOSE}]"))
    assert failures(found) == [("7m", "fires close (falls on account/main)", "nothing like it")]
    lines = [each.line for each in found.failures[0].values]
    assert lines[0] == "false   stage close"
    assert lines[1] == "  true    any: trigger five: not confirmed: 1m of 2m"
    # 1 - 0.99^7
    assert lines[2] == "    true    equity.loss_from_start >= 5%  [6.79347%]"


def test_all_failures_are_shown_each_with_wanted_and_seen(tmp_path: Path) -> None:
    """One does not hide the next."""
    expect = [
        "{at: 3m, in_force: warn}",
        "{at: 4m, fires: warn, lock: all, notifies: [desk], text: ['9.9%']}",
        "{at: 6m, trigger: five, is: confirmed}",
        "{at: 8m, fires: close, orders: ['sell 2 BTC/USDT:USDT'], cancels: ['7']}",
        "{at: 8m, lock_in_force: none}",
    ]
    found = failures(result(tmp_path, scenario_text(FALL, f"expect: [{', '.join(expect)}]")))
    message = found.pop(2)
    assert (message[0], message[1]) == ("4m", 'fires warn (falls on account/main): a text with "9.9%"')
    assert "three: 3.94% against >= 3%" in message[2]
    assert found == [
        ("3m", "in force warn (falls on account/main)", "none is in force"),
        ("4m", "fires warn (falls on account/main): lock all", "lock none"),
        ("6m", "trigger five is confirmed (falls on account/main)", "true, held"),
        (
            "8m",
            "fires close (falls on account/main): orders sell 2 BTC/USDT:USDT",
            "orders sell 1 BTC/USDT:USDT",
        ),
        ("8m", "fires close (falls on account/main): cancels 7", "cancels none"),
        ("8m", "lock in force none (account/main)", "lock reduce_only"),
    ]


def test_the_text_that_a_person_reads_is_an_expectation_like_any_other(tmp_path: Path) -> None:
    """Title and lines of the message, with numbers and units; and the routes that it reaches."""
    text = "'level 1 warn: falls on account/main', '3.94% from its peak, 394.04 USDT'"
    warn = f"{{at: 4m, fires: warn, text: [{text}], notifies: [desk, everything]}}"
    assert result(tmp_path, scenario_text(FALL, f"expect: [{warn}, {CLOSE}]")).outcome == "passed"


def test_an_operators_reset_and_its_reason_are_expected(tmp_path: Path) -> None:
    """The command is processed by the step at its time."""
    text = scenario_text(
        "10000 -1%x4 =x4",
        "events: [{at: 6m, kind: reset, scope: account/main, author: jo, reason: looked at it}]",
        "expect: [{at: 4m, fires: warn}, {at: 6m, resets: warn, reason: looked at}, {at: 6m, in_force: none}]",
    )
    assert result(tmp_path, text).outcome == "passed"


def test_an_automatic_reset_is_a_decision_like_any_other(tmp_path: Path) -> None:
    """Below 1.5% from 6m on, for 2m, and not before the cooldown of 5m has ended at 9m."""
    expect = "expect: [{at: 4m, fires: warn}, {at: 9m, resets: warn}]"
    assert result(tmp_path, scenario_text("10000 -1%x4 9800 9900 =x6", expect)).outcome == "passed"
    late = result(tmp_path, scenario_text("10000 -1%x4 9800 9900 =x6", expect.replace("9m", "8m")))
    assert failures(late)[0] == ("8m", "resets warn (falls on account/main)", "nothing like it")
    assert late.failures[0].values[0].line == "true    reset of warn: true for 2m of 2m"


def test_money_that_leaves_is_no_loss_and_without_a_row_it_is_not_explained(tmp_path: Path) -> None:
    """A withdrawal of a tenth fires nothing; as much without a row is a notice, and fires nothing either."""
    flow = "flows: [{at: 2m, kind: withdrawal, amount: -1000}]"
    assert result(tmp_path, scenario_text("10000 =x5", account=[POSITION, flow])).outcome == "passed"
    missing = flow.replace("kind: withdrawal", "kind: unexplained")
    found = result(tmp_path, scenario_text("10000 =x5", account=[POSITION, missing]))
    assert {each.name for each in found.seen if each.subject == "notice"} == {"unexplained"}


def test_money_that_leaves_a_book_with_unknown_positions_is_no_profit(tmp_path: Path) -> None:
    """Equity as written falls by the withdrawal alone, so that unrealised profit is as before."""
    flow = "flows: [{at: 2m, kind: withdrawal, amount: -1000}]"
    _, (scenario,), problems = loaded(tmp_path, scenario_text("10000 9900 8900 =", account=[flow]))
    assert problems == ()
    found = [snapshot.accounts[0] for _, snapshot in snapshots(scenario)]
    assert [each.unrealized for each in found] == [0, -100, -100, -100]
    assert [len(each.flows or ()) for each in found] == [0, 0, 1, 0]


def test_a_trade_has_its_fill_and_its_average_entry(tmp_path: Path) -> None:
    """2 at 100, 2 more at 110: entry 105. 1 sold at 120: 15 realised, 45 of the other three left."""
    position = "positions: [{symbol: X, side: long, contracts: 2 = 4 = 3, price: 100 110 = 120 =}]"
    _, (scenario,), problems = loaded(tmp_path, scenario_text("1000", account=[position]))
    assert problems == ()
    found = [snapshot.accounts[0] for _, snapshot in snapshots(scenario)]
    # 2 × 10 at step 1; 4 × 10 at step 3
    assert [each.equity for each in found] == [1000, 1020, 1020, 1060, 1060]
    held = [(each.positions or ())[0] for each in found]
    assert [each.entry_price for each in held] == [100, 100, 105, 105, 105]
    assert [each.unrealized_pnl for each in held] == [0, 20, 20, 60, 45]
    fills = [(fill.side, fill.amount, fill.price, fill.realized_pnl) for each in found for fill in each.fills or ()]
    assert fills == [("buy", 2, 110, None), ("sell", 1, 120, 15)]


def test_a_trade_says_by_what_it_was(tmp_path: Path) -> None:
    """A stop has the price at which it was triggered, a liquidation its cause; other trades have neither."""
    contracts = "contracts: 3 2 1 0, price: 100 90 80 70, trades: [{at: 1m, by: stop}, {at: 2m, by: liquidation}]"
    text = scenario_text("1000", account=[f"positions: [{{symbol: X, side: long, {contracts}}}]"])
    _, (scenario,), problems = loaded(tmp_path, text)
    assert problems == ()
    found = [fill for _, each in snapshots(scenario) for fill in each.accounts[0].fills or ()]
    assert [(each.cause, each.trigger_price) for each in found] == [
        ("trade", 90),
        ("liquidation", None),
        ("trade", None),
    ]


def test_a_watched_price_moves_by_its_series_alone(tmp_path: Path) -> None:
    """It is no position, and equity does not move with it."""
    text = scenario_text("1000 =x2", account=["positions: []", "watch: {BTC: 60000 -10% _}"])
    _, (scenario,), problems = loaded(tmp_path, text)
    assert problems == ()
    found = [each.accounts[0] for _, each in snapshots(scenario)]
    assert [(it.symbol, it.mark_price) for each in found for it in each.watched or ()] == [
        ("BTC", 60000), ("BTC", 54000), ("BTC", None),
    ]  # fmt: skip
    assert [each.equity for each in found] == [1000, 1000, 1000]


def test_a_reset_lifts_the_lock_of_its_policy(tmp_path: Path) -> None:
    """From the close until the operator resets it."""
    text = scenario_text(
        FALL + " =x2",
        "events: [{at: 9m, kind: reset, scope: account/main, author: jo, reason: why}]",
        f"expect: [{WARN}, {CLOSE}, {{at: 8m, lock_in_force: reduce_only}}, {{at: 9m, resets: close}},"
        " {at: 9m, lock_in_force: none}]",
    )
    assert result(tmp_path, text).failures == ()


@pytest.mark.parametrize(
    ("expected", "failures_of"),
    [
        ("lock: reduce_only", [("lock of the whole scope", "lock of ETH/USDT:USDT")]),
        (
            "lock: reduce_only, lock_of: ['long in ETH/USDT:USDT']",
            [("lock of long in ETH/USDT:USDT", "lock of ETH/USDT:USDT")],
        ),
        ("lock: reduce_only, lock_of: ['ETH/USDT:USDT']", []),
        ("lock_of: []", [("lock of the whole scope", "lock of ETH/USDT:USDT")]),
    ],
)  # fmt: skip
def test_a_lock_of_a_part_is_no_lock_of_the_scope(
    tmp_path: Path, expected: str, failures_of: list[tuple[str, str]]
) -> None:
    """A policy that locks one symbol where all were meant fails, also by what is in force afterwards."""
    narrow = POLICY.replace(
        "lock_trading: {mode: reduce_only}", 'lock_trading: {mode: reduce_only, symbols: ["ETH/USDT:USDT"]}'
    )
    expect = f"expect: [{WARN}, {{at: 8m, fires: close, {expected}}}, {{at: 8m, lock_in_force: none}}]"
    found = result(tmp_path, scenario_text(FALL, expect), policy=narrow)
    assert [(each.wanted.rpartition(": ")[2] or each.wanted, each.seen) for each in found.failures] == [
        (wanted, seen) for wanted, seen in failures_of
    ]


def test_missing_data_is_neither_clear_nor_a_loss(tmp_path: Path) -> None:
    """What was held stays so while the account cannot be read; nothing is confirmed meanwhile."""
    expect = (
        "expect: [{at: 4m, fires: warn}, {at: 6m, trigger: three, is: unknown}, {at: 6m, in_force: warn},"
        " {at: 6m, notice: unknown}]"
    )
    assert result(tmp_path, scenario_text("10000 -1%x4 stalex2 =x2", expect)).outcome == "passed"


def test_a_restart_goes_on_with_what_was_stored(tmp_path: Path) -> None:
    """A latched stage stays latched, and what was lost during the outage is seen after it."""
    text = scenario_text(
        FALL + " =x2",
        "restarts: [{at: 5m, outage: 2m}]",
        "expect: [{at: 4m, fires: warn}, {at: 5m, in_force: warn}, {at: 7m, in_force: warn}, {at: 9m, fires: close}]",
    )
    found = result(tmp_path, text)
    assert (found.failures, found.steps) == ((), 10)


def test_a_loss_seen_from_a_trade_has_its_fill(tmp_path: Path) -> None:
    """Half of 2 contracts is sold 100 lower: 200 are lost, of which 100 are realised, and no more afterwards."""
    position = POSITION.replace("contracts: 1, price: 20000", "contracts: 2 =x2 1 =x2, price: 20000 = -100 = = =")
    text = scenario_text("6000", "expect: [{at: 2m, fires: warn}]", account=[position])
    found = result(tmp_path, text)
    assert (found.outcome, [each.name for each in found.seen]) == ("passed", ["warn"])


def test_a_pending_scenario_is_counted_apart(tmp_path: Path) -> None:
    """It is loaded, so that its names are checked, and not run."""
    found = result(tmp_path, scenario_text(FALL, "pending: the close is not agreed"))
    assert (found.outcome, found.pending, found.steps) == ("pending", "the close is not agreed", 0)


def _endless(_path: str) -> Iterator[Snapshot]:
    """A recording whose first snapshot never comes."""
    while True:
        pass
    yield


def test_a_run_that_hangs_inside_of_a_step_ends_at_its_limit(tmp_path: Path) -> None:
    """It is an error with the steps until then, and no success; the next one runs, in each of several processes."""
    text = scenario_text(FALL).split("  starts:")[0] + "  recording: policy.yaml\n"
    others = (scenario_text("10000 =x2", name=f"n{number}") for number in range(FEW))
    policies, scenarios, problems = loaded(tmp_path, text, *others)
    assert problems == ()
    for jobs in (1, 2):
        found = [it.result for it in run_all(policies, scenarios, _endless, jobs=jobs, within=partial(within, 0.2))]
        assert found[0].error == "the time limit is over after 0 steps"
        assert [each.outcome for each in found] == ["error", *["passed"] * FEW]


def test_a_notice_that_nothing_expects_fails_by_what_the_scenario_says(tmp_path: Path) -> None:
    """Two triggers are unknown for 2m, which pages by `hold` and warns by `warn`; then both are known again."""
    equity = "10000 =x3 stalex2 =x2"  # unknown for a minute at 5m, the default of `grace`
    begin, end = "{at: 5m, notice: unknown}", "{at: 6m, notice: unknown, text: [no longer unknown]}"
    cases = {
        ("hold", "pages", ""): ["5m", "5m"],
        ("hold", "pages", begin): [],
        ("hold", "all", ""): ["5m", "5m", "6m", "6m"],
        ("hold", "all", begin): ["6m", "6m"],
        ("hold", "all", f"{begin}, {end}"): [],
        ("hold", "none", ""): [],
        ("warn", "pages", ""): [],
        ("hold", "none", end): [],
    }
    for (on_unknown, level, expected), wanted in cases.items():
        policy = POLICY.replace("on_unknown: hold", f"on_unknown: {on_unknown}")
        text = scenario_text(equity, f"notices: {level}", f"expect: [{expected}]")
        found = result(tmp_path, text, policy).failures
        assert [offset(each.at) for each in found] == wanted, (on_unknown, level, expected)
        assert all(each.is_unexpected and each.seen.startswith("notice unknown (falls on ") for each in found)


def test_a_page_that_nothing_expects_fails_without_a_word_about_notices(tmp_path: Path) -> None:
    """A tenth of the money leaves without a row. The failure shows what a person reads."""
    flow = "flows: [{at: 2m, kind: unexplained, amount: -1000}]"
    (failure,) = result(tmp_path, scenario_text("10000 =x5", account=[POSITION, flow])).failures
    assert (offset(failure.at), failure.wanted) == ("2m", "nothing more at this step")
    assert failure.seen.startswith("notice unexplained (falls on account/main)\n[page] ")
    expected = "expect: [{at: 2m, notice: unexplained}]"
    assert result(tmp_path, scenario_text("10000 =x5", expected, account=[POSITION, flow])).outcome == "passed"


def test_a_notice_that_is_expected_and_not_sent_fails(tmp_path: Path) -> None:
    """As any other expectation, also where no notice is compared."""
    found = result(tmp_path, scenario_text("10000 =x5", "notices: none", "expect: [{at: 2m, notice: unknown}]"))
    assert failures(found) == [("2m", "notice unknown (account/main)", "nothing like it")]


def test_the_notices_of_a_firing_belong_to_it(tmp_path: Path) -> None:
    """A stage that fires while the account cannot be read also pages that it could close nothing yet."""
    equity = "10000 -6% stale =x6"
    fired = "{at: 2m, fires: close}"
    policy = POLICY.replace("confirm: 2m, on_unknown: hold", "confirm: 1m, on_unknown: trip")
    found = result(
        tmp_path, scenario_text(equity, "notices: all", f"expect: [{{at: 1m, fires: warn}}, {fired}]"), policy
    )
    at_2m = [(each.subject, each.severity) for each in found.seen if offset(each.at) == "2m"]
    assert ("fires", None) in at_2m
    assert ("notice", "page") in at_2m
    assert [each for each in found.failures if offset(each.at) == "2m"] == []


def test_a_stage_that_fired_without_a_latch_is_not_said_to_be_simply_in_force(tmp_path: Path) -> None:
    """It fired while the account could not be read: it is in force, and `not latched` in its reason is no riddle."""
    policy = POLICY.replace("confirm: 2m, on_unknown: hold", "confirm: 1m, on_unknown: trip")
    text = scenario_text("10000 -6% stale =x6", "expect: [{at: 2m, in_force: warn}]")
    (seen,) = [found for _, wanted, found in failures(result(tmp_path, text, policy)) if "in force warn" in wanted]
    assert seen.startswith("close is in force without a latch: what it closes is not wholly known")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_scenarios_do_not_influence_each_other(tmp_path: Path, order: tuple[int, int]) -> None:
    """The result is the same in any order."""
    texts = [scenario_text(FALL, f"expect: [{WARN}, {CLOSE}]", name=name) for name in ("one", "two")]
    policies, scenarios, _ = loaded(tmp_path, *texts)
    runner = ScenarioRunner(policies, lambda _: iter(()))
    assert [runner.run(scenarios[i]).result.outcome for i in order] == ["passed", "passed"]


def test_the_trace_has_what_the_evaluator_has_seen(tmp_path: Path) -> None:
    """Stages that fired or were refused, resets, and routes."""
    trace = ran(tmp_path, scenario_text(FALL, f"expect: [{WARN}, {CLOSE}]")).trace
    assert trace.routes == {"desk", "everything"}
    assert trace.policies["falls"].fired == {"warn", "close"}
    assert trace.policies["falls"].refused == {"warn"}


TREE = """---
apiVersion: killswitch.dev/v1
kind: NotificationTree
metadata: {name: on-call}
spec:
  receiver: desk
  receivers: {desk: {targets: [{log: {level: warning}}]}}
  routes: [warnings]
---
apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {name: warnings}
spec: {match: {level: {at_least: 2}}}
"""


def test_who_is_notified_by_a_tree_of_routes_is_expected_like_any_other(tmp_path: Path) -> None:
    """Level 1 is taken by the root, and level 2 by the route; flat routes next to the tree take it from nobody."""
    text = scenario_text(
        FALL,
        "expect: [{at: 4m, fires: warn, notifies: [root, everything]}, {at: 8m, fires: close, notifies: [warnings]}]",
    )
    assert result(tmp_path, text, policy=POLICY + TREE).outcome == "passed"
    text = scenario_text(FALL, "expect: [{at: 4m, fires: warn, notifies: [warnings]}, {at: 8m, fires: close}]")
    assert failures(result(tmp_path, text, policy=POLICY + TREE))[0][1].endswith("routes warnings")


UNREAD = (
    TREE.replace("routes: [warnings]", "routes: [unread, warnings]")
    + """---
apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {name: unread}
spec: {match: {events: [notice], severity: page, policy: falls}}
"""
)


@pytest.mark.parametrize(
    ("routes", "outcome"),
    [("[unread]", "passed"), ("[unread, everything]", "passed"), ("[warnings]", "failed"), ("[root]", "failed")],
)
def test_who_is_notified_of_unknown_input_is_expected_as_of_a_firing(tmp_path: Path, routes: str, outcome: str) -> None:
    """A notice has no level: a route by level takes none, and its own route takes it before the root does."""
    begin = f"{{at: 5m, notice: unknown, notifies: {routes}}}"
    end = "{at: 6m, notice: unknown, text: [no longer unknown]}"
    text = scenario_text("10000 =x3 stalex2 =x2", f"expect: [{begin}, {end}]")
    assert result(tmp_path, text, policy=POLICY + UNREAD).outcome == outcome
