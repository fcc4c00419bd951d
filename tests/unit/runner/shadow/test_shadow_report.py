"""`ksctl shadow report`, and the set that `ksctl run --shadow` names; comparisons are worked by hand."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import click
import pytest

from killswitch.cli.live.shadow import report, shadow_files
from killswitch.graph.compile import compile_loaded
from killswitch.graph.routing import MessageAttributes, RouteRule
from killswitch.model.applied_set import PolicyOrigin
from killswitch.model.decision import Decision, Intent
from killswitch.operations.pages.shadow import shadow_page
from killswitch.policy.loader import load
from killswitch.render.document import markdown, text
from killswitch.runner.shadow.comparison import FiringComparison, ShadowReport, compared, differences
from killswitch.runner.shadow.evaluation import fired
from killswitch.runner.shadow.record import SHADOW, SeenTicks, ShadowPast, ShadowRecord, TickSpan, encode_record
from tests.runner_world import World
from tests.unit.operations.test_live_verbs import invoke, store_option
from tests.worlds import after

DAY = 86_400.0


def firing(seconds: float, contracts: str = "1", stage: str = "trim") -> Decision:
    intent = Intent("main", "BTC", "long", "sell", Decimal(contracts), Decimal(0), reduce_only=True, rank=1)
    return Decision(
        f"{stage}{seconds:g}", after(seconds=seconds), "desk", "sha256:0", "account/main", "enforce", stage, 1, 0,
        intents=(intent,),
    )  # fmt: skip


def record(**more: object) -> ShadowRecord:
    fields: dict[str, object] = {
        "id": "abc", "reason": "candidate", "origin": PolicyOrigin(source="desk", commit="c0ffee"),
        "digest": "sha256:0123456789ab", "begun_at": after(), "store_at": "/nowhere/abc.sqlite",
    }  # fmt: skip
    return ShadowRecord(**(fields | more))  # type: ignore[arg-type] # by the caller


def reported(
    mine: Sequence[Decision], deployed: Sequence[Decision], *spans: tuple[float, float], missed: int = 0
) -> ShadowReport:
    seen = SeenTicks(
        tuple(TickSpan(after(seconds=a), after(seconds=b), round(b - a) + 1) for a, b in spans), missed
    )  # fmt: skip
    until = after(seconds=max(b for _, b in spans) if spans else 0.0)
    return compared(record(), ShadowPast(seen, tuple(mine)), deployed, until)


def test_three_firings_in_nine_days_of_a_set_whose_deployed_one_never_fired() -> None:
    """The sentence that the person who promotes it needs."""
    found = reported([firing(DAY), firing(3 * DAY), firing(8 * DAY)], [], (1, 9 * DAY))
    shown = text(shadow_page((found,)))
    assert "trim of desk on account/main would have fired 3 times in 8d 23h; the deployed set never" in shown
    assert [each.what for each in found.differences] == ["only the shadow set fires it"] * 3


def test_firings_of_one_stage_within_ten_seconds_are_one() -> None:
    """A stage that fetched prices a second time is a little later."""
    assert differences([firing(100)], [firing(109)]) == ()
    assert len(differences([firing(100)], [firing(111)])) == 2


def test_a_nearer_firing_is_the_same_one() -> None:
    """Two of the deployed set near one of the shadow set: the nearer one is its own, the other is left."""
    (left,) = differences([firing(100)], [firing(92), firing(101)])
    assert (left.what, left.deployed) == ("only the deployed set fires it", "trim92")


def test_other_amounts_are_a_difference() -> None:
    (found,) = differences([firing(100, "3")], [firing(100, "2")])
    assert found.what == "the shadow set closes more of 1 and less of 0 positions"


def test_what_it_has_not_seen_is_a_gap_and_no_difference() -> None:
    """The deployed set fired while the process was not there: nothing is said of it."""
    found = reported([], [firing(150)], (1, 100), (200, 300), missed=7)
    assert found.differences == ()
    assert found.is_partly_known
    assert [each.id for each in found.unseen] == ["trim150"]
    assert found.seconds == 199.0
    shown = text(shadow_page((found,)))
    assert "partly known, see its gaps" in shown
    assert "not seen (1m 40s); 7 snapshots lost; 1 decision of the deployed set not seen" in shown


def test_decisions_of_before_it_began_do_not_count() -> None:
    """They are in its store, because it begins with the states of the deployed set."""
    found = reported([], [firing(-50)], (1, 100))
    assert (found.differences, found.unseen, found.counts) == ((), (), ())


def test_a_set_that_was_deployed_before_is_called_so() -> None:
    found = compared(record(reason="previous"), ShadowPast(SeenTicks(), ()), [], after(days=1))
    assert "the set that was deployed before" in markdown(shadow_page((found,)))


def test_a_store_that_cannot_be_read_is_unknown_and_not_quiet(world: World) -> None:
    """No firing is claimed, and none is denied."""
    store = world.open()
    store.put_live(f"{SHADOW}abc", encode_record(record()))
    store.close()
    done = invoke(report, *store_option(world), "--output", "json")
    (found,) = json.loads(done.output)["reports"]
    assert "there is no store at /nowhere/abc.sqlite" in found["unread"]
    shown = invoke(report, *store_option(world)).output
    assert "partly known, see its gaps" in shown
    assert "Unknown" in shown


def test_without_a_shadow_set_the_report_says_so(world: World) -> None:
    world.open()
    assert invoke(report, *store_option(world)).output == "No policy set is or was in shadow on this store.\n"
    refused = invoke(report, "xyz", *store_option(world))
    assert (refused.exit_code, "no shadow set of this store has an id that begins with xyz" in refused.stderr) == (
        1,
        True,
    )


def compare_live(
    mine: Sequence[Decision], deployed: Sequence[Decision], seen: float | None, lost: Sequence[float] = ()
) -> list[str]:
    """What a comparison during a run finds once the set in shadow has evaluated the snapshot at `seen`."""
    comparison = FiringComparison()
    comparison.add(map(fired, mine), map(fired, deployed))
    dropped = {after(seconds=each) for each in lost}
    at = None if seen is None else after(seconds=seen)
    return [what for _, what in comparison.differences(at, dropped.__contains__)]


def test_a_difference_of_a_run_is_found_once_no_counterpart_can_come() -> None:
    """A stage that fetches prices again may fire up to ten seconds later."""
    assert compare_live([firing(5.0)], [], 15.0) == []
    assert compare_live([firing(5.0)], [], 15.5) == ["only the shadow set fires it"]
    assert compare_live([], [firing(5.0)], 15.5) == ["only the deployed set fires it"]
    assert compare_live([firing(5.0)], [firing(15.0)], 60.0) == []
    assert compare_live([firing(5.0)], [firing(5.0, stage="flat")], 60.0) == [
        "only the shadow set fires it",
        "only the deployed set fires it",
    ]


def test_what_a_set_in_shadow_has_not_evaluated_is_no_difference() -> None:
    """Its process may still answer, or has lost the snapshot at which the deployed set fired."""
    assert compare_live([], [firing(5.0)], None) == []
    assert compare_live([], [firing(5.0)], 60.0, lost=[5.0]) == []
    assert compare_live([], [firing(5.0)], 60.0, lost=[6.0]) == ["only the deployed set fires it"]


@pytest.mark.parametrize(
    ("policies", "matches"), [(None, False), (("desk",), False), (("shadow",), True), (("desk", "shadow"), True)]
)
def test_only_a_route_that_names_the_policy_shadow_matches_a_difference(
    policies: tuple[str, ...] | None, matches: bool
) -> None:
    """A route without the key matches everything else, and nothing that a set in shadow would have done."""
    rule = RouteRule(None, None, None, None, policies, None, ())
    assert rule.matches(MessageAttributes("notice", "warning", "shadow", "shadow")) is matches
    assert rule.matches(MessageAttributes("notice", "warning", "runner", "runner")) is (policies is None)


def test_a_route_for_differences_is_none_that_nothing_reaches(tmp_path: Path) -> None:
    """No diagnostic says that no message can match it."""
    routes = (
        "apiVersion: killswitch.dev/v1\nkind: NotificationRoute\nmetadata: {name: authors}\n"
        "spec: {match: {policy: %s}, targets: [{log: {level: info}}]}\n"
    )
    found = {}
    for policy in ("shadow", "nobody"):
        file = tmp_path / f"{policy}.yaml"
        file.write_text(routes % policy, encoding="utf-8")
        _, diagnostics = compile_loaded(load([file]))
        found[policy] = "KS5021" in {each.code for each in diagnostics}
    assert found == {"shadow": False, "nobody": True}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a branch `stricter`, whose folder on disk is that of `main`."""

    def git(*arguments: str) -> None:
        subprocess.run(
            ("git", "-C", str(tmp_path), "-c", "user.name=jo", "-c", "user.email=jo@example.com", *arguments),
            check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )  # fmt: skip

    policies = tmp_path / "policies"
    policies.mkdir()
    (tmp_path / "README").write_text("not a policy", encoding="utf-8")
    (policies / "desk.yaml").write_text("deployed: true\n", encoding="utf-8")
    (policies / "notes.txt").write_text("no policy", encoding="utf-8")
    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-q", "-m", "deployed")
    git("checkout", "-q", "-b", "stricter")
    (policies / "desk.yaml").write_text("stricter: true\n", encoding="utf-8")
    git("commit", "-q", "-a", "-m", "stricter")
    git("checkout", "-q", "main")
    return tmp_path


def test_a_ref_is_read_without_a_checkout(repository: Path) -> None:
    """The files of the ref below --policies, and the commit; the folder stays as it is."""
    files, origin = shadow_files("stricter", [repository / "policies"])
    assert [(each.path, each.content) for each in files] == [("policies/desk.yaml", b"stricter: true\n")]
    assert (origin.ref, len(origin.commit or "")) == ("stricter", 40)
    assert (repository / "policies" / "desk.yaml").read_text(encoding="utf-8") == "deployed: true\n"


def test_a_folder_is_read_with_the_files_of_policies_only(repository: Path) -> None:
    files, origin = shadow_files(str(repository / "policies"), [repository / "policies"])
    assert [each.path for each in files] == ["desk.yaml"]
    assert origin.commit is None


@pytest.mark.parametrize("named", ["nothing-of-this-name", "--upload-pack=x", "main\x1b[2J", "main:policies"])
def test_what_is_neither_folder_nor_ref_is_named(repository: Path, named: str) -> None:
    with pytest.raises(click.ClickException) as refused:
        shadow_files(named, [repository / "policies"])
    assert refused.value.message.startswith("--shadow: ")
    assert "\x1b" not in refused.value.message


def moments(found: ShadowReport) -> list[datetime]:
    return [each.as_of for each in found.differences]


def test_differences_are_in_the_order_of_time() -> None:
    found = reported([firing(50), firing(10)], [firing(30)], (1, 100))
    assert moments(found) == [after() + timedelta(seconds=each) for each in (10, 30, 50)]
