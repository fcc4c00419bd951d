"""`status`, `history`, `explain`, `close` and `reset` on a store: what they print, and how they refuse."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli.live.run import run
from killswitch.cli.live.status import history, status
from killswitch.cli.operate.verbs import close, reset
from killswitch.cli.policy.explain import explain
from killswitch.model.instant import SECOND, to_micros
from killswitch.operations.commands import operator_event
from killswitch.operations.pages.wording import amount_in
from tests.runner_world import ScriptedVenue, World
from tests.unit.runner.test_loop import crash
from tests.worlds import START


@pytest.fixture
def crashed(world: World) -> World:
    """A store after a crash that was decided, locked and closed."""
    store = world.open()
    asyncio.run(crash(world, store, ScriptedVenue(None)))
    store.close()
    return world


def invoke(command: object, *arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments), catch_exceptions=False)  # type: ignore[arg-type] # a command


def store_option(world: World) -> tuple[str, str]:
    return ("--store", str(world.folder / "store.sqlite"))


@pytest.mark.parametrize(
    ("currencies", "text"),
    [(("USDT",), "1,250.00 USDT"), ((), "1,250.00"), (("EUR", "USD"), "unknown in EUR and USD")],
)
def test_a_sum_has_the_currency_of_its_accounts(currencies: tuple[str, ...], text: str) -> None:
    """Amounts in several currencies have no sum; without a kept snapshot the currency is unknown."""
    assert amount_in(currencies, Decimal(1250)) == text


@pytest.mark.parametrize("command", [status, history, explain], ids=["status", "history", "explain"])
def test_a_missing_store_is_reported_and_not_created(command: object, world: World) -> None:
    """A read-only verb creates nothing: exit 1, one line, no file."""
    subject = ("abc",) if command is explain else ()
    refused = invoke(command, *subject, *store_option(world))
    assert refused.exit_code == 1
    assert f"there is no store at {world.folder}/store.sqlite" in refused.stderr
    assert list(world.folder.iterdir()) == []


def test_status_of_a_store_without_a_tick_says_so(world: World) -> None:
    """What is unknown is shown with the reason."""
    world.open().close()
    output = invoke(status, *store_option(world))
    assert output.exit_code == 0
    assert "not running: no runner holds the lease" in output.stdout
    assert "Stages: unknown, no runner has ticked on this store yet" in output.stdout
    assert invoke(history, *store_option(world)).stdout == "No decision is recorded on this store.\n"


def test_status_shows_latch_and_lock_separately_and_dates_old_values(crashed: World) -> None:
    """The stage stays latched until it is reset, the lock in force until it is lifted; nobody renews it."""
    output = invoke(status, *store_option(crashed)).stdout
    assert "Accounts, stages and triggers are as of the last tick, not as of now." in output
    (stage,) = [line for line in output.splitlines() if "enforce" in line]
    assert stage.split()[:6] == ["account/main", "crash", "enforce", "3", "close-everything", "2024-01-01T00:00:01Z"]
    (lock,) = [line for line in output.splitlines() if "LOCKED" in line and line.strip().startswith("account/main")]
    assert "LOCKED reduce_only  it is lifted" in lock
    assert "(stale)" in lock
    (trigger,) = [line for line in output.splitlines() if line.strip().startswith("fall ")]
    assert ">= 10.0%" in trigger
    assert "true since 2024-01-01T00:00:01Z, confirmed" in trigger


@pytest.mark.parametrize(("form", "title"), [("markdown", "# {}\n"), ("html", "<h1>{}</h1>")])
def test_a_page_is_printed_in_each_of_its_forms(crashed: World, form: str, title: str) -> None:
    """Status, history and a decision as Markdown and as HTML, with the same facts as the text."""
    store = crashed.open(read_only=True)
    (stored,) = store.decisions(10)
    store.close()
    for command, subject, name in ((status, (), "Status"), (history, (), "History"), (explain, ("3",), "Decision")):
        shown = invoke(command, *(stored.decision.id for _ in subject), *store_option(crashed), "--output", form)
        assert title.format(name) in shown.stdout
        assert stored.decision.id in shown.stdout
        assert "close-everything" in shown.stdout


@pytest.mark.parametrize(
    ("command", "arguments", "why"),
    [
        (status, ("--watch", "--output", "html"), "leave out --watch and --probe"),
        (status, ("--probe", "live", "--output", "markdown"), "leave out --watch and --probe"),
        (explain, ("KS2102", "--output", "html"), "a code has text, markdown and json"),
    ],
)
def test_a_form_without_a_page_is_refused(
    command: object, arguments: tuple[str, ...], why: str, crashed: World
) -> None:
    """What is watched, a probe and a diagnostic code are no pages."""
    refused = invoke(command, *arguments, *store_option(crashed))
    assert refused.exit_code == 2
    assert why in refused.stderr


def test_status_as_json_is_one_object_with_its_format(crashed: World) -> None:
    """Stdout holds nothing but the JSON object."""
    output = json.loads(invoke(status, *store_option(crashed), "--output", "json").stdout)
    assert output["format"] == "killswitch.status/v1"
    assert output["runner"]["liveness"] == "gone"
    (machine,) = output["view"]["machines"]
    assert (machine["level"], machine["stage"]) == (3, "close-everything")
    assert {lock["locked"] for lock in output["locks"]} == {True}


def test_status_distinguishes_a_living_runner_from_one_whose_lease_expired(world: World) -> None:
    """A lease in force means a living runner; an expired one means a runner that died without releasing it."""
    store = world.open()
    elsewhere = "host-7/0b5e4f1a/4026531836/1/8127"
    store.acquire(elsewhere, to_micros(START), 10 * SECOND)
    assert "NOT RUNNING: its lease expired without renewal" in invoke(status, *store_option(world)).stdout
    store.acquire(elsewhere, to_micros(START), 100 * 366 * 24 * 3600 * SECOND)
    assert "Runner  alive (pid " in invoke(status, *store_option(world)).stdout
    store.close()


def test_status_lists_pending_commands(world: World) -> None:
    """A pending command is shown with its author and reason."""
    store = world.open()
    store.put_event(operator_event("reset", "account/main", "operator-1", "reviewed", START))
    store.close()
    output = invoke(status, *store_option(world)).stdout
    assert "reset account/main by operator-1" in output
    assert "reviewed" in output


def test_history_shows_the_result_with_realised_pnl_and_fees(crashed: World) -> None:
    """Ten contracts bought at 110 and sold at 85 lost 250 before the fee of 1."""
    output = invoke(history, *store_option(crashed)).stdout.splitlines()
    assert len(output) == 2
    assert "level 3 close-everything: crash on account/main" in output[1]
    assert output[0].split()[-8:] == ["traded", "realised", "fees", "slippage", "delay", "cost", "took", "remarks"]
    sums = ["-250.00", "USDT", "1.00", "USDT", "0.00", "USDT", "0.00", "USDT"]
    assert output[1].split()[-13:-2] == ["flat", "1", "position", *sums]
    record = json.loads(invoke(history, *store_option(crashed), "--output", "json").stdout)
    assert record["decision"]["format"] == "killswitch.decision/v1"
    assert (record["result"]["standing"], record["result"]["realised"]) == ("flat", "-250")


def test_explain_shows_the_chain_from_policy_line_to_flat(crashed: World) -> None:
    """Policy line, trigger with value and threshold, snapshot, order, fill, and the venue's confirmation at the end."""
    store = crashed.open(read_only=True)
    (stored,) = store.decisions(10)
    store.close()
    output = invoke(explain, stored.decision.id[:6], *store_option(crashed)).stdout
    order = [
        "Decision  " + stored.decision.id,
        "sha256:test",
        "fall  equity.loss_from_start 15.00% against >= 10.0%, true since 2024-01-01T00:00:01Z",
        "policy.yaml:1\n\nSnapshot",
        "main at paper, ok: equity 850.00 USDT",
        "sell 10",
        "ks" + stored.decision.id,
        "locked at 2024-01-01T00:00:01Z",
        "BTC long on main: 0 left at the venue",
        "main: every target is reached, 2024-01-01T",
        "flat: the venue itself shows every target of 0 reached",
        "realised -250.00 USDT before fees, fees 1.00 USDT",
    ]
    places = [output.find(part) for part in order]
    assert -1 not in places, order[places.index(-1)] + "\n" + output
    assert places == sorted(places)
    chain = json.loads(invoke(explain, stored.decision.id, *store_option(crashed), "--output", "json").stdout)
    assert chain["format"] == "killswitch.explanation/v1"
    assert chain["snapshot"]["accounts"][0]["equity"] == "850"


def test_explain_of_an_unknown_decision_points_to_history(crashed: World) -> None:
    """Exit 1, and the command that lists the decisions."""
    refused = invoke(explain, "zzz", *store_option(crashed))
    assert (refused.exit_code, refused.stderr) == (
        1,
        "Error: no decision id starts with zzz; `ksctl history` lists them\n",
    )


def test_explain_of_a_code_prints_its_page_without_a_store() -> None:
    """Lower case is accepted; an unknown code is refused."""
    assert invoke(explain, "ks1203").stdout.startswith("KS1203: ")
    refused = invoke(explain, "KS9999")
    assert refused.exit_code == 1
    assert "unknown code KS9999" in refused.stderr


def test_explain_of_a_decision_needs_a_store() -> None:
    """The usage error names the option."""
    refused = invoke(explain, "d43")
    assert "name the store with --store FILE" in refused.stderr


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (close, ("--store", "s"), "Missing option '--reason'"),
        (close, ("--store", "s", "--reason", " "), "the text is empty"),
        (reset, ("account/main", "--store", "s", "--reason", "\udcff"), "the text is not UTF-8"),
        (close, ("--store", "s", "--reason", "r", "--dry-run"), "name the policies and accounts with --policies"),
        (reset, ("account/main", "--reason", "r"), "Missing option '--store'"),
        (run, ("--store", "s", "--policies", ".", "--interval", "soon"), "`soon` is not a duration"),
        (run, ("--store", "s", "--policies", ".", "--interval", "5"), "write 5s"),
    ],
    ids=["no reason", "a blank reason", "a reason of odd bytes", "no policies", "no store", "no duration", "no unit"],
)
def test_wrong_usage_is_refused_before_any_file_is_created(
    command: object, arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """click's usage error (64 through `ksctl`), with the cause, and no file left behind."""
    monkeypatch.chdir(tmp_path)
    refused = invoke(command, *arguments)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert list(tmp_path.iterdir()) == []


ACCOUNT = """
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, execution: live%s}
"""
WATCH = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: watch}
spec:
  mode: observe
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers: {loss: {signal: equity.loss_from_start, at_least: 5%, on_unknown: hold}}
  stages: [{name: tell, level: 1, any: [loss], cooldown: 1h, reset: manual, actions: []}]
"""


@pytest.mark.parametrize(
    ("account", "message"),
    [
        ("", "the policies hold no Account document"),
        (ACCOUNT % "", "account main: adapter paper refused the account: account main needs an endpoint"),
        (ACCOUNT % ", credentials: {key: 'env:NOT_SET_ANYWHERE'}", "NOT_SET_ANYWHERE is not set"),
        (
            ACCOUNT.replace("paper", "papre") % "",
            "no adapter is called `papre`; installed: ",
        ),
        ("kind: [", "1 error, 0 warnings in the policies; nothing was started"),
    ],
    ids=["no account", "no endpoint", "no credential", "no adapter", "not YAML"],
)
def test_a_run_that_cannot_start_prints_the_reason_on_one_line(account: str, message: str, tmp_path: Path) -> None:
    """Exit 69 with place or name, cause and remedy; never a traceback, and no store remains."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "watch.yaml").write_text(WATCH, encoding="utf-8")
    if account:
        (tmp_path / "p" / "account.yaml").write_text(account, encoding="utf-8")
    refused = invoke(run, "--policies", str(tmp_path / "p"), "--store", str(tmp_path / "s"), "--ticks", "1")
    assert refused.exit_code == 69
    assert message in refused.stderr
    assert not (tmp_path / "s").exists(), "a store was left behind"
