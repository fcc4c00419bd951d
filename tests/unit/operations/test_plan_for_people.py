"""`ksctl plan` for people: positions, money, levels, large books, another set next to it, and saved plans."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from killswitch.accounts.opening import read_policies
from killswitch.cli.live.plan import plan as plan_verb
from killswitch.cli.live.plan import show
from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.model.applied_set import AppliedSet, PolicyOrigin
from killswitch.model.snapshot import Snapshot, encode_snapshot
from killswitch.model.store import TickRecord
from killswitch.operations.lifting import ScopeHold
from killswitch.operations.pages.plan_comparison import comparison_page
from killswitch.operations.plan_comparison import OtherSet, preview_both
from killswitch.operations.preview import Preview, plan_of, preview
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.operator.plan_file import encode_plan
from killswitch.render.document import text
from killswitch.store.sqlite import open_store
from tests import graphs
from tests.runner_world import ScriptedVenue, World, crash_policy
from tests.runner_world import book as one_long
from tests.shown import plan_text
from tests.unit.limits.gates import limits
from tests.worlds import START, account, position, rules

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: stop}
spec:
  mode: enforce
  scope: {each: account, match: {currency: USDT}}
  max_gap: 10m
  triggers:
    floor: {signal: equity.value, at_most: 9000 USDT, on_unknown: hold}
    peak: {signal: equity.drawdown_from_peak, at_least: 20%, on_unknown: hold}
    worst: {signal: exposure.largest_share, at_least: 99%, on_unknown: hold}
  stages:
    - name: half
      level: 1
      any: [floor, worst]
      cooldown: 6h
      reset: manual
      actions: [{close: {side: both, fraction: 50%}}]
    - name: everything
      level: 2
      any: [peak]
      cooldown: 6h
      reset: manual
      actions: [{lock_trading: {mode: reduce_only}}, {close: {side: both, fraction: 100%}}]
"""
ACCOUNT = """
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:9', execution: live}
"""
FLOOR, PEAK = "at_most: 9000 USDT", "at_least: 20%"


def folder(at: Path, *changes: tuple[str, str]) -> Path:
    """A folder with the policy, changed, and the account."""
    at.mkdir()
    text = POLICY
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (at / "policy.yaml").write_text(text, encoding="utf-8")
    (at / "account.yaml").write_text(ACCOUNT, encoding="utf-8")
    return at


def book(equity: str = "10000", count: int = 2) -> Snapshot:
    """`count` positions of 10 at 100 with a loss of their number each, and quotes of half a per cent."""
    held = [
        position(f"S{n}", "long", str(-n), contracts="10", mark_price="100", notional="1000", bid="99.5", ask="100.5",
                 liquidation_price="75")
        for n in range(1, count + 1)
    ]  # fmt: skip
    known = [rules(each.symbol) for each in held]
    return Snapshot(START, (account(equity, held, instruments=known),), "killswitch.snapshot/v1")


def previewed(at: Path, snapshot: Snapshot) -> Preview:
    policy_set = read_policies([at]).policies
    interpreter = Interpreter(policy_set)
    interpreter.tick(replace(book(), as_of=snapshot.as_of - timedelta(seconds=5)))
    return preview(policy_set, snapshot, interpreter, "scripted", frozenset({"main"}))


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the rows that begin with a word."""
    found = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]
    return [row for row in found if "  ".join(row).startswith(first)]


def test_a_position_shows_its_size_its_loss_and_its_distance_to_liquidation(tmp_path: Path) -> None:
    """The worst comes first: S2 has lost 2; 75 is a quarter below the mark of 100."""
    text = plan_text(previewed(folder(tmp_path / "p"), book()))
    assert rows(text, "main  S") == [
        ["main", "S2", "long", "10", "100", "1,000.00", "-2.00 USDT", "25.00%"],
        ["main", "S1", "long", "10", "100", "1,000.00", "-1.00 USDT", "25.00%"],
    ]


def test_a_trigger_shows_its_headroom_in_per_cent_and_in_money(tmp_path: Path) -> None:
    """10,000 of equity: 1,000 above the floor; a fifth of the peak is 2,000; a share of the book is of no equity."""
    text = plan_text(previewed(folder(tmp_path / "p"), book()))
    assert rows(text, "floor")[0][2:5] == ["<= 9000 USDT", "1,000.00", "−1,000.00 USDT more"]
    assert rows(text, "peak")[0][2:5] == [">= 20%", "20.00%", "−2,000.00 USDT more"]
    assert rows(text, "worst")[0][3:5] == ["49.00%", "none [1]"]
    assert "  [1] it does not depend on equity" in text.splitlines()


def test_a_trigger_that_is_true_shows_how_far_it_is_beyond(tmp_path: Path) -> None:
    """8,500 is 500 below the floor."""
    text = plan_text(previewed(folder(tmp_path / "p"), book("8500")))
    assert rows(text, "floor")[0][4] == "beyond by 500.00 USDT"


def test_a_level_shows_its_orders_their_price_and_cost_and_what_stays_net(tmp_path: Path) -> None:
    """Half of two positions of 1,000 at a bid half a per cent below the mark costs 5; 1,000 stay net."""
    text = plan_text(previewed(folder(tmp_path / "p"), book()))
    assert rows(text, "1  half")[0][:6] == [
        "1",
        "half",
        "2",
        "1,000.00 USDT",
        "at least 5.00 USDT [1]",
        "1,000.00 USDT",
    ]
    everything = rows(text, "2  everything")[0]
    assert everything[:6] == ["2", "everything", "2", "2,000.00 USDT", "at least 10.00 USDT [1]", "0.00 USDT"]
    assert "lock account/main: reduce_only" in everything[-1] + text
    assert rows(text, "1  sell")[0] == ["1", "sell", "5", "S2 (main)", "99.5", "500.00", "2.50 USDT", "5"]


def test_a_plan_on_thousands_of_positions_shows_the_worst_and_counts_the_rest(tmp_path: Path) -> None:
    """4,000 positions lose 1 to 4,000: the twelve worst are shown; the others have lost 1 + … + 3,988."""
    shown = previewed(folder(tmp_path / "p"), book("9000000", 4000))
    text = plan_text(shown)
    assert [row[1] for row in rows(text, "main  S")] == [f"S{n}" for n in range(4000, 3988, -1)]
    lost = sum(range(1, 3989))
    assert f"and 3,988 more positions: 3,988 losing (-{lost:,}.00 USDT); `--output json` lists all" in text
    assert [row[0] for row in rows(text, "3,995 more")] == ["3,995 more"] * 2  # of each level
    assert len(text.splitlines()) < 60


def test_json_lists_every_position_headroom_and_level(tmp_path: Path) -> None:
    """Programs get what the page folds."""
    at, recording = folder(tmp_path / "p"), tmp_path / "r.jsonl"
    recording.write_bytes(encode_snapshot(book(count=30)) + b"\n")
    answer = json.loads(invoke(plan_verb, "--policies", str(at), "--snapshot", str(recording), "-o", "json").stdout)
    assert len(answer["positions"]) == 30
    assert [each["trigger"] for each in answer["headrooms"]] == ["floor", "peak", "worst"]
    assert answer["headrooms"][0]["change"] == "-1000.00000000"
    assert [(each["stage"], len(each["orders"])) for each in answer["levels"]] == [("half", 30), ("everything", 30)]
    assert Decimal(answer["levels"][1]["cost"]) == 150


def invoke(command: object, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, catch_exceptions=False)  # type: ignore[arg-type] # a command


def test_html_is_written_next_to_the_answer(tmp_path: Path) -> None:
    """The page of the browser has the rows of the terminal."""
    at, recording, page = folder(tmp_path / "p"), tmp_path / "r.jsonl", tmp_path / "plan.html"
    recording.write_bytes(encode_snapshot(book()) + b"\n")
    done = invoke(plan_verb, "--policies", str(at), "--snapshot", str(recording), "--html", str(page))
    assert done.exit_code == 0
    assert "−1,000.00 USDT more" in page.read_text(encoding="utf-8")


# Next to another set


def against(tmp_path: Path, equity: str, *changes: tuple[str, str]) -> Result:
    head, other, recording = folder(tmp_path / "head", *changes), folder(tmp_path / "other"), tmp_path / "r.jsonl"
    recording.write_bytes(encode_snapshot(book(equity)) + b"\n")
    return invoke(
        plan_verb, "--policies", str(head), "--snapshot", str(recording), "--against", str(other), "-o", "wide"
    )


def test_both_sets_are_shown_side_by_side_where_they_decide_otherwise(tmp_path: Path) -> None:
    """At 8,500 the floor of 9,000 fires, and that of 8,000 of the head does not."""
    text = against(tmp_path, "8500", (FLOOR, "at_most: 8000 USDT")).stdout
    other = str(tmp_path / "other")
    assert rows(text, "stop  account/main  fires") == [
        ["stop", "account/main", "fires half, level 1: 2 orders, closes 1,000.00", "nothing"]
    ]
    assert rows(text, "stop  account/main  floor") == [
        ["stop", "account/main", "floor", "<= 9000 USDT: true, beyond by 500.00 USDT",
         "<= 8000 USDT: false, −500.00 USDT more"]
    ]  # fmt: skip
    assert text.rstrip().endswith(
        f"Head and {other} differ on 1 scope; 1 scope of them would decide something under one set only; 0 are the "
        "same. Nothing was changed."
    )


def test_equal_sets_are_said_to_decide_the_same(tmp_path: Path) -> None:
    """An edit of a comment is no difference."""
    text = against(tmp_path, "10000", ("spec:", "# a comment\nspec:")).stdout
    assert text.rstrip().endswith("Both sets decide the same on this snapshot (1 scope). Nothing was changed.")


def test_a_policy_that_only_one_set_has_is_named(tmp_path: Path) -> None:
    """A removed policy decides nothing: that must not look like a quiet one."""
    text = against(tmp_path, "8500", ("name: stop", "name: renamed")).stdout
    assert rows(text, "renamed  account/main")[0][2] == "not in this set"
    assert rows(text, "stop  account/main")[0][3] == "not in this set"


def test_deployed_is_the_set_in_force_on_the_store(tmp_path: Path) -> None:
    """It is compiled from the files that the store keeps, whatever the folder holds by now."""
    at = folder(tmp_path / "p")
    loaded = read_policies([at])
    store_at = tmp_path / "s"
    applied = AppliedSet(
        digest=loaded.policies.digest, at=START, program="1", origin=PolicyOrigin(source="p"), files=loaded.files
    )
    with closing(open_store(str(store_at))) as store:
        record = TickRecord(START, loaded.policies.digest, (), (), (), (), (), None, (), 0, applied=applied)
        store.commit_tick(record)
    (at / "policy.yaml").write_text(POLICY.replace(PEAK, "at_least: 30%"), encoding="utf-8")
    arguments = ("--policies", str(at), "--store", str(store_at), "--against", "deployed", "-o", "json")
    done = CliRunner().invoke(plan_verb, [*arguments, "--read-timeout", "2s"], standalone_mode=False)
    answer = json.loads(done.stdout)
    assert answer["against"]["policy_set"] == loaded.policies.digest != answer["policy_set"]
    assert done.return_value == 1  # its account cannot be read
    assert "main is down" in done.stdout


def test_deployed_needs_a_store_that_keeps_a_set(tmp_path: Path) -> None:
    """The way out is named: a folder."""
    at = folder(tmp_path / "p")
    assert "name its store with --store" in invoke(plan_verb, "--policies", str(at), "--against", "deployed").stderr
    open_store(str(tmp_path / "s")).close()
    refused = invoke(
        plan_verb, "--policies", str(at), "--against", "deployed", "--store", str(tmp_path / "s"),
        "--read-timeout", "2s",
    )  # fmt: skip
    assert refused.exit_code == 1
    assert "the store keeps no policy set" in refused.stderr


def test_what_a_reload_does_to_a_stage_in_force_is_shown_before_it_happens(world: World) -> None:
    """The stage that has fired is gone in the head: it would stay in force without a place, and both are shown."""
    store, deployed = world.open(), graphs.policy_set(crash_policy())
    venue = ScriptedVenue(one_long("1000"))

    async def fire() -> None:
        runner = world.runner(store, [venue])
        await runner.start()
        for equity in ("1000", "850"):
            venue.answer = one_long(equity)
            await runner.tick()
            await world.clock.sleep(1.0)
        await runner.shut_down()

    asyncio.run(fire())
    snapshot = Snapshot(world.clock.now(), (one_long("850"),), "killswitch.snapshot/v1")
    crash = crash_policy()
    (stage,) = crash.stages
    head = graphs.policy_set(replace(crash, stages=(replace(stage, name="new", actions=(CancelOrders("all"),)),)))
    before = store.states()
    shown, other = preview_both(head, OtherSet("deployed", deployed), snapshot, store, frozenset({"main"}))
    (running,) = other.preview.machines
    assert (running.level, running.stage) == (3, "close-everything")
    assert [line for line in other.reload if "close-everything" in line]
    page = text(comparison_page(shown, other))
    assert "What a reload does to what is in force" in page
    assert "in force: level 3 close-everything" in page
    assert store.states() == before


def test_a_comparison_shows_what_is_held_by_hand_and_the_limits_that_differ(world: World) -> None:
    """Two documents, of which one allows a leverage of 3 instead of 2; what both limit alike is not repeated."""
    alike = replace(limits(leverage=Decimal(4)), name="alike")
    sets = [
        replace(graphs.policy_set(crash_policy()), limits=(limits(leverage=Decimal(most)), alike)) for most in (2, 3)
    ]
    snapshot = Snapshot(world.clock.now(), (one_long("1000"),), "killswitch.snapshot/v1")
    shown, other = preview_both(sets[1], OtherSet("old", sets[0]), snapshot, None, frozenset({"main"}))
    held = ScopeHold("d1", "account/main", "hand", "halt by hand of account/main", "ann", "seen", START)
    page = text(comparison_page(replace(shown, holds=(held,)), other))
    assert "halt by hand of account/main" in page and "ann" in page
    assert "Limits of entries that differ" in page
    assert "leverage 2" in page and "leverage 3" in page and "alike" not in page


# Watching


def test_watch_prints_a_page_for_each_interval_in_a_pipe_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    """One JSON object a line; after the second page an interrupt ends it with 0."""
    at = folder(tmp_path / "p")
    command = [
        sys.executable, "-c", "from killswitch.cli import main; main()", "plan", "--policies", str(at), "--watch",
        "--interval", "1s", "--read-timeout", "1s", "-o", "json",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pages = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().decode()
        assert process.wait(timeout=30) == 0
    assert [each["format"] for each in pages] == ["killswitch.preview/v1"] * 2
    assert pages[0]["as_of"] < pages[1]["as_of"]
    assert "stopped watching; nothing was changed" in rest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--watch", "--out", "x"), "--watch follows live venues"),
        (("--watch", "-o", "html"), "is one page: leave out --watch"),
        (("--watch", "--interval", "10ms"), "--interval is at least 1s"),
        (("--against", "nowhere"), "there is no such folder or file"),
    ],
)
def test_options_that_exclude_each_other_are_refused(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """Before any venue is read."""
    refused = invoke(plan_verb, "--policies", str(folder(tmp_path / "p")), *arguments)
    assert refused.exit_code == 2
    assert message in refused.stderr


# Saved plans


def saved(tmp_path: Path) -> Path:
    shown = previewed(folder(tmp_path / "p"), book("8500"))
    plan = plan_of(shown, shown.decisions)
    assert plan is not None
    at = tmp_path / "plan.json"
    at.write_bytes(encode_plan(plan))
    return at


def test_a_saved_plan_is_shown_with_its_orders_and_its_basis(tmp_path: Path) -> None:
    """Half of two positions, and the book that they were computed from."""
    at = saved(tmp_path)
    shown = invoke(show, str(at))
    assert shown.exit_code == 0
    assert "level 1 half: stop on account/main" in shown.stdout
    assert rows(shown.stdout, "1  main")[0][:5] == ["1", "main", "sell", "5.0", "S2 (long)"]
    assert "Based on account main" in shown.stdout
    assert "What is wrong" not in shown.stdout
    assert f"`ksctl apply {at}` applies it" in " ".join(shown.stdout.split())


@pytest.mark.parametrize(
    ("before", "after", "problem", "shown"),
    [
        ('"contracts": "5.0"', '"contracts": "6"', "was altered after it was saved", "1  main     sell   6"),
        (
            "killswitch.plan/v1",
            "killswitch.plan/v9",
            "a field is missing or has another type",
            "1  main     sell   5.0",
        ),
        ('"as_of": "2024-01-01T00:00:00Z",\n  "pol', '"as_of": 12,\n  "pol', "another type", "cannot be read: as_of"),
        ('"basis": [', '"basis": 7, "was": [', "another type", "cannot be read: basis"),
        ('"format"', '"invented": 1, "format"', "altered after it was saved", "1  main     sell   5.0"),
    ],
    ids=["altered", "another version", "a damaged time", "a damaged basis", "an unknown field"],
)
def test_show_never_refuses_and_says_what_is_wrong(
    tmp_path: Path, before: str, after: str, problem: str, shown: str
) -> None:
    """What can be read is shown; `ksctl apply` would refuse each of these files."""
    at = saved(tmp_path)
    text = at.read_text(encoding="utf-8")
    assert before in text
    at.write_text(text.replace(before, after, 1), encoding="utf-8")
    found = invoke(show, str(at), "-o", "wide")
    assert found.exit_code == 0
    assert problem in found.stdout
    assert shown in found.stdout
    assert "`ksctl apply` refuses this file" in found.stdout


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[" * 100_000, b"[]", b"{}", b'{"decisions": [1, {"id": "\x1b[31m"}]}', b"null"]
)
def test_show_of_any_bytes_ends_without_a_traceback_and_without_control_characters(
    tmp_path: Path, content: bytes
) -> None:
    """A file of another program, half a file, or an attack on the terminal."""
    at = tmp_path / "x"
    at.write_bytes(content)
    found = invoke(show, str(at))
    assert found.exit_code == 0
    assert "What is wrong with this file" in found.stdout
    assert "\x1b" not in found.stdout
