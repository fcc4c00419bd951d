"""Drills: the real runner in a generated crash, faults of the venue, targets, and what ends or refuses a drill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from killswitch.accounts.opening import LoadedPolicies
from killswitch.cli import ksctl
from killswitch.cli.lab.drill import drill
from killswitch.cli.session import load_policies
from killswitch.content import policies_folder
from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.document import DeclaredReason
from killswitch.incident.record.incident_decisions import find_incident
from killswitch.incident.report.texts import stakeholder_text, venue_text
from killswitch.lab.book import BookError, read_book
from killswitch.operations.board import read_board
from killswitch.operations.drills.live import NotADrillError, measure_live, real_event_since
from killswitch.operations.drills.measures import COMPLETED, DrillResult, Measure, Spent, measures_of
from killswitch.operations.drills.pages import due_page, keep, kept_results, result_page, trend_page
from killswitch.operations.drills.simulation import DrillWorld, book_for, run_drill
from killswitch.policy.schema.drill import DrillDocument
from killswitch.runner.status_blob import started_as
from killswitch.store.sqlite import open_store
from tests.incidents import FilledStore, filled_store, whole_incident

AT = datetime(2026, 1, 1, tzinfo=UTC)
DOCUMENT = {"apiVersion": "killswitch.dev/v1", "kind": "Drill", "metadata": {"name": "monthly"}}


def document(**spec: object) -> DrillDocument:
    return DrillDocument.model_validate(DOCUMENT | {"spec": {"mode": "simulation", "every": "30d"} | spec})


@pytest.fixture(scope="module")
def loaded() -> LoadedPolicies:
    return load_policies([policies_folder() / "futures-drawdown"])


@pytest.fixture(scope="module")
def simulated(loaded: LoadedPolicies, tmp_path_factory: pytest.TempPathFactory) -> tuple[DrillResult, Path]:
    """A simulation with every fault."""
    folder = tmp_path_factory.mktemp("drill")
    faults = document(faults=["reject", "lost_answer", "outage"])
    return run_drill(faults, loaded, book_for(loaded.accounts), DrillWorld(folder, AT)), folder


def test_a_simulation_closes_everything_although_the_venue_fails(simulated: tuple[DrillResult, Path]) -> None:
    """One order is rejected, one answer lost, and the venue gone for 10 s: 100% closed, not before the outage ended."""
    result, folder = simulated
    found = {each.what: each.value for each in result.measures}
    assert result.ended == COMPLETED
    assert found["closed"] == 1.0
    assert (found["time to flat"] or 0) >= 10.0
    store = open_store(str(folder / "drill.sqlite"), read_only=True)
    try:
        orders = incident_of(store, find_incident(store, result.incident), StartedAs("s")).orders
    finally:
        store.close()
    assert "drill: the venue rejects this order" in {each.text for each in orders}
    assert any(each.was_unknown for each in orders)
    assert all(each.final for each in orders)


@pytest.mark.parametrize(
    "verb",
    [
        ("report",), ("report", "--format", "html"), ("report", "export", "--variant", "closing"),
        ("report", "export", "--format", "csv"), ("report", "export", "--variant", "closing", "--format", "csv"),
        ("report", "list"), ("status",),
    ],
)  # fmt: skip
def test_everything_about_a_drill_says_that_it_is_one(
    simulated: tuple[DrillResult, Path], verb: tuple[str, ...]
) -> None:
    """Report, page title, exports and status: whoever finds the file a week later takes it for no incident."""
    done = CliRunner().invoke(ksctl, [*verb, "--store", str(simulated[1] / "drill.sqlite")])
    assert done.exit_code == 0, done.output
    assert "DRILL" in "".join(done.output.splitlines(keepends=True)[:60])
    if "html" in verb:
        assert "<title>" in done.output
        assert "DRILL" in done.output.partition("<title>")[2].partition("</title>")[0]


def test_the_board_and_the_runbook_of_a_drill_say_that_it_is_one(simulated: tuple[DrillResult, Path]) -> None:
    """The largest line of the board, and the heading of each runbook; a store of a run has neither."""
    store = open_store(str(simulated[1] / "drill.sqlite"), read_only=True)
    try:
        board = read_board(store, AT, AT, None)
        found = incident_of(store, find_incident(store, None), started_as(store, "s"))
    finally:
        store.close()
    assert board.headline.text.startswith("DRILL: ")
    assert board.mode.startswith("DRILL, ")
    assert found.title.startswith("DRILL: ")
    assert stakeholder_text(found).splitlines()[0].count("DRILL") == 1
    assert "no order left the process" in venue_text(found)


MARGIN = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: margin}
spec:
  mode: enforce
  scope: {each: account, match: {account: [main]}}
  max_gap: 10m
  triggers:
    thin: {signal: exposure.margin_ratio, at_least: 10%, on_unknown: hold}
  stages:
    - name: top-up
      level: 1
      any: [thin]
      cooldown: 1h
      reset: manual
      actions:
        - lock_trading: {mode: reduce_only}
        - top_up_margin: {from: treasury, to_ratio: 6%, at_most: 6000 USDT, keep: 5000 USDT}
"""
TWO_ACCOUNTS = """
name: two
accounts:
  - {account: main, market: swap, currency: USDT, equity: 12000,
     positions: [{symbol: ETH_USDT, side: long, notional: 40000, leverage: 10}]}
  - {account: treasury, market: swap, currency: USDT, equity: 20000}
"""


def test_a_simulation_moves_margin_between_the_accounts_of_its_book(tmp_path: Path) -> None:
    """Once, with an answer, as the runner does: the request is journaled before it is sent."""
    (tmp_path / "policy.yaml").write_text(MARGIN, encoding="utf-8")
    (tmp_path / "book.yaml").write_text(TWO_ACCOUNTS, encoding="utf-8")
    (folder := tmp_path / "drill").mkdir()
    loaded = load_policies([tmp_path / "policy.yaml"])
    result = run_drill(document(), loaded, read_book(tmp_path / "book.yaml"), DrillWorld(folder, AT))
    assert result.ended == COMPLETED
    store = open_store(str(folder / "drill.sqlite"), read_only=True)
    try:
        effects = [each for each in store.journal() if each.data.get("effect") == "transfer"]
    finally:
        store.close()
    assert [each.data.get("status") for each in effects] == [None, "sent", "moved"]


def test_a_dry_run_sends_nothing(loaded: LoadedPolicies, tmp_path: Path) -> None:
    """Not even to the paper venue: its measures are those of the decision and of its message."""
    result = run_drill(document(mode="dry_run"), loaded, book_for(loaded.accounts), DrillWorld(tmp_path, AT))
    assert [each.what for each in result.measures] == ["time to decision", "time to notification"]
    store = open_store(str(tmp_path / "drill.sqlite"), read_only=True)
    try:
        assert incident_of(store, find_incident(store, None), StartedAs("s")).orders == ()
    finally:
        store.close()
    assert not list((tmp_path / "locks").glob("*")) if (tmp_path / "locks").exists() else True


def test_a_real_event_ends_a_drill(loaded: LoadedPolicies, tmp_path: Path) -> None:
    """Before its first bar: nothing was measured, and it has not passed."""
    world = DrillWorld(tmp_path, AT, lambda: "decision abc, close-everything on account/main")
    result = run_drill(document(), loaded, book_for(loaded.accounts), world)
    assert result.ended == "ended by a real event: decision abc, close-everything on account/main"
    assert (result.measures, result.is_passed) == ((), False)
    assert "NOT COMPLETED" in str(result_page(result).facts)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilledStore]:
    written = filled_store(tmp_path_factory.mktemp("incident"))
    whole_incident(written)
    yield written
    written.store.close()


def test_a_firing_of_the_live_runner_is_a_real_event_and_a_drill_is_none(ended: FilledStore, tmp_path: Path) -> None:
    """What was decided before the drill began does not count; a store that cannot be read ends it."""
    opened = find_incident(ended.store, None).decisions[0].as_of
    assert "on account/main" in str(real_event_since(str(ended.path), opened)())
    assert real_event_since(str(ended.path), opened + timedelta(days=1))() is None
    assert "cannot be read" in str(real_event_since(str(tmp_path / "none.sqlite"), opened)())


LIVE = {"mode": "live", "live": {"account": "main", "symbol": "BTC", "most": "1"}}


def test_an_incident_that_is_no_drill_is_not_measured_as_one(ended: FilledStore) -> None:
    """A stage fired: nobody closed by hand with `drill` as the reason."""
    with pytest.raises(NotADrillError, match="is no drill: close by hand"):
        measure_live(document(**LIVE), ended.store, str(ended.path), "", AT)
    with pytest.raises(NotADrillError, match="is no live drill"):
        measure_live(document(), ended.store, str(ended.path), "", AT)


def test_measures_by_hand(ended: FilledStore) -> None:
    """Decided 5 s after the trigger, 3 s of them its confirmation, and 0.5 s of computing: 2.5 s."""
    incident = incident_of(ended.store, find_incident(ended.store, None), StartedAs("s"))
    at = incident.opened_at
    trigger = replace(incident.firings[0].triggers[0], true_since=at - timedelta(seconds=5))
    firing = replace(incident.firings[0], triggers=(trigger,))
    order = replace(
        incident.orders[0], decision=firing.decision, sent_at=at + timedelta(seconds=1), side="sell",
        price=Decimal(97), arrival_mark=Decimal(100), filled=Decimal(1),
    )  # fmt: skip
    ending = replace(incident.endings[0], decision=firing.decision, status="flat", at=at + timedelta(seconds=61))
    found = replace(
        incident, firings=(firing,), orders=(order,), endings=(ending,), left=(),
        reason=DeclaredReason("drill", "DRILL", ""),
    )  # fmt: skip
    measured = {
        each.what: each
        for each in measures_of(document(), found, [None], (), Spent(0.5, 0.5, 4.0), {trigger.name: 3.0})  # type: ignore[list-item]  # only whether there is one counts
    }
    assert {what: each.value for what, each in measured.items()} == pytest.approx(
        {
            "time to decision": 2.5, "time to first order": 1.5, "time to flat": 61.5, "time to notification": 4.0,
            "average slippage": 0.03, "worst slippage": 0.03, "closed": 1.0,
        }
    )  # fmt: skip
    assert {what for what, each in measured.items() if not each.is_met} == {"time to flat", "average slippage"}


def test_an_unknown_value_is_not_met() -> None:
    """A drill with an unknown value has not passed, and its page says why it is unknown."""
    unknown = Measure("time to flat", None, 60.0, "seconds", None, "not every close has reached its targets")
    result = DrillResult("d", "simulation", AT, "sha256:0", 7, (), (unknown,), COMPLETED)
    assert not result.is_passed
    assert "unknown time to flat" in str(result_page(result).facts)


def test_results_are_kept_and_a_damaged_line_is_counted(tmp_path: Path) -> None:
    """The trend shows what can be read, and says how many lines cannot."""
    good = DrillResult("monthly", "simulation", AT, "sha256:0", 7, (), (), COMPLETED)
    path = keep(tmp_path, good)
    path.write_bytes(path.read_bytes() + b"{broken\n")
    keep(tmp_path, good)
    found, damaged = kept_results(tmp_path)
    assert (found, damaged) == ([good, good], 1)
    assert "1 lines" in trend_page(found, damaged).warning


@pytest.mark.parametrize(
    ("results", "later", "due"),
    [
        ((), timedelta(), "OVERDUE: never run"),
        ((COMPLETED,), timedelta(days=29), "2026-01-31T00:00:00Z"),
        ((COMPLETED,), timedelta(days=30), "OVERDUE since 2026-01-31T00:00:00Z"),
        (("ended by a real event: x",), timedelta(days=1), "OVERDUE: never completed"),
    ],
)
def test_a_drill_is_due_after_its_interval(results: tuple[str, ...], later: timedelta, due: str) -> None:
    """One that a real event ended does not count as done."""
    kept = [DrillResult("monthly", "simulation", AT, "sha256:0", 7, (), (), ended) for ended in results]
    (table,) = due_page([document()], kept, AT + later).sections[0].tables
    assert table.rows[0][-1] == due


def test_a_currency_without_prices_is_refused(loaded: LoadedPolicies) -> None:
    """The crash is in USDT: an account in euros needs a book of its own."""
    (account,) = loaded.accounts
    euro = account.model_copy(update={"spec": account.spec.model_copy(update={"currency": "EUR"})})
    with pytest.raises(BookError, match="give a --book"):
        book_for([euro])


def test_the_verb_of_simulations_runs_no_live_drill_and_prints_the_way(tmp_path: Path) -> None:
    """It sends nothing, and names the commands that approve and run it."""
    text = json.dumps(DOCUMENT | {"spec": {"every": "90d"} | LIVE})
    (tmp_path / "drills.yaml").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(drill, ["run", "monthly", "--policies", str(tmp_path)])
    assert result.exit_code == 1
    assert "ksctl approve --purpose drill --drill monthly" in " ".join(result.output.split())
    assert "ksctl drill live monthly --live" in " ".join(result.output.split())
    missing = CliRunner().invoke(drill, ["run", "yearly", "--policies", str(tmp_path)])
    assert "it has monthly" in missing.output


@pytest.mark.parametrize("verb", [("list",), ("run", "weekly")])
def test_documents_that_cannot_be_read_are_not_a_set_without_drills(verb: tuple[str, ...], tmp_path: Path) -> None:
    """The place and the cause, as everywhere: not the advice to add a document of kind Drill."""
    result = CliRunner().invoke(ksctl, ["drill", *verb, "--policies", str(tmp_path / "misspelled")])
    assert result.exit_code == 1
    assert "KS1001" in result.output and "kind Drill" not in result.output


def test_a_folder_that_cannot_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    """Before anything runs: a drill by a scheduler fails with a line, and not with a traceback."""
    at = tmp_path / "set"
    shutil.copytree(policies_folder() / "futures-drawdown", at)
    weekly = DOCUMENT | {"metadata": {"name": "weekly"}, "spec": {"mode": "dry_run", "every": "7d"}}
    (at / "drill.yaml").write_text(json.dumps(weekly))
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "drills"
    result = CliRunner().invoke(ksctl, ["drill", "run", "weekly", "--policies", str(at), "--folder", str(folder)])
    assert isinstance(result.exception, SystemExit), result.exception
    assert f"the folder {folder / 'weekly'} of the drill cannot be made" in result.output
