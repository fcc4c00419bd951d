"""`ksctl replay --decision`: a stored decision has the same bytes when evaluated again, or what differs is named."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from killswitch.accounts.next_set import next_set
from killswitch.accounts.opening import LoadedPolicies
from killswitch.cli.lab.replay import replay
from killswitch.lab.recording import read
from killswitch.lab.reevaluation import Reevaluation, ReplayedSet, reevaluate
from killswitch.model.applied_set import PolicyFile, PolicyOrigin
from killswitch.model.decision import Decision
from killswitch.model.store import StoredDecision
from killswitch.store.sqlite import open_store
from tests.backtests import shipped, written
from tests.runner_world import ScriptedVenue, Seen, World, book

DEMO = [ReplayedSet(None, lambda: shipped("futures-degross"))]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(replay, list(arguments), catch_exceptions=False)


def stored_in(folder: Path) -> list[StoredDecision]:
    store = open_store(str(folder / "killswitch.sqlite"), read_only=True)
    newest = [each.decision.id for each in store.decisions(100)]
    found = [kept for id_ in newest if (kept := store.decision(id_)) is not None]
    store.close()
    return found


def test_every_decision_of_the_demo_is_bit_identical(demo: tuple[Path, str]) -> None:
    """From its store alone: the store has the set that decided, and names the recording."""
    folder, _ = demo
    decisions = stored_in(folder)
    assert len(decisions) >= 3
    for each in decisions:
        done = invoke("--decision", each.decision.id[:8], "--store", str(folder / "killswitch.sqlite"))
        assert done.exit_code == 0, done.output
        assert done.output.rstrip().endswith("bit-identical: evaluated again, the decision has the same bytes")


def reevaluated(demo: tuple[Path, str], change: Callable[[Decision], Decision]) -> Reevaluation:
    """The first decision of the demo, as if the store had a changed one."""
    folder, _ = demo
    first = min(stored_in(folder), key=lambda each: each.decision.as_of)
    changed = StoredDecision(change(first.decision), first.snapshot)
    return reevaluate(DEMO, changed, read(folder / "recording.jsonl"))


def test_a_changed_decision_is_found_field_by_field(demo: tuple[Path, str]) -> None:
    """One contract more in the first order: this field differs, and no other."""

    def with_one_more(decision: Decision) -> Decision:
        first, *others = decision.intents
        return replace(decision, intents=(replace(first, contracts=first.contracts + 1), *others))

    found = reevaluated(demo, with_one_more)
    assert not found.is_identical
    (difference,) = found.differences
    assert difference.field == "intents.0.contracts"
    assert float(json.loads(difference.stored)) == float(json.loads(difference.evaluated)) + 1


def test_an_order_too_many_is_absent_when_it_is_evaluated_again(demo: tuple[Path, str]) -> None:
    found = reevaluated(demo, lambda it: replace(it, intents=(*it.intents, it.intents[-1])))
    (difference,) = found.differences
    assert difference.evaluated == "absent"


def test_a_decision_that_the_set_does_not_make_is_a_problem(demo: tuple[Path, str]) -> None:
    """Another id: nothing of the recorded tick is it."""
    found = reevaluated(demo, lambda it: replace(it, id="0" * 20))
    assert not found.is_identical
    assert (found.problem or "").startswith("it is not decided on the recorded snapshot, which decides cut-half of")


def test_a_recording_that_ends_before_it_is_a_problem(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    last = max(stored_in(folder), key=lambda each: each.decision.as_of)
    short = list(read(folder / "recording.jsonl"))[:10]
    found = reevaluate(DEMO, last, short)
    assert (found.problem or "").startswith("the recording has no snapshot of ")


def test_a_snapshot_of_the_store_that_was_not_recorded_is_named(demo: tuple[Path, str]) -> None:
    """Who exchanges the recording, and changes nothing that the decision depends on, is found too."""
    folder, _ = demo
    first = min(stored_in(folder), key=lambda each: each.decision.as_of)
    altered = [replace(each, heartbeats={"bot": each.as_of}) for each in read(folder / "recording.jsonl")]
    found = reevaluate(DEMO, first, altered)
    assert [each.field for each in found.differences] == ["snapshot"]


def test_the_verb_exits_1_and_names_the_fields(demo: tuple[Path, str], tmp_path: Path) -> None:
    """JSON has the same, with both values."""
    folder, _ = demo
    altered = tmp_path / "killswitch.sqlite"
    shutil.copy(folder / "killswitch.sqlite", altered)
    first = min(stored_in(folder), key=lambda each: each.decision.as_of).decision
    with sqlite3.connect(altered) as connection:
        ((body,),) = connection.execute("SELECT body FROM decisions WHERE id = ?", (first.id,))
        changed = body.replace(b'"level":1,', b'"level":3,')
        connection.execute("UPDATE decisions SET body = ? WHERE id = ?", (changed, first.id))
    connection.close()
    arguments = ("--decision", first.id, "--store", str(altered))
    done = invoke(*arguments)
    assert (done.exit_code, "NOT IDENTICAL in 1 field" in done.output) == (1, True)
    record = json.loads(invoke(*arguments, "--output", "json").output)
    assert record["is_identical"] is False
    assert record["differences"] == [{"field": "level", "stored": "3", "evaluated": "1"}]


def test_other_policies_are_refused_by_their_digest(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    first = stored_in(folder)[0].decision.id
    store = str(folder / "killswitch.sqlite")
    others = str(folder.parent / "policies" / "futures-drawdown")
    refused = invoke("--decision", first, "--store", store, "--policies", others)
    assert refused.exit_code == 1
    assert "the decision was made by the set sha256:" in refused.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--decision", "ab"), "add --store FILE"),
        (("--policies", "p"), "Missing option '--snapshots'"),
        ((), "Missing option"),
    ],
)
def test_what_is_missing_is_wrong_usage(arguments: tuple[str, ...], says: str) -> None:
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert says in refused.output


def test_an_unknown_decision_is_refused(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    refused = invoke("--decision", "zz", "--store", str(folder / "killswitch.sqlite"))
    assert (refused.exit_code, "no decision whose id begins with zz" in refused.output) == (1, True)


STEPS = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: desk}}
spec:
  mode: enforce
  scope: {{each: account, match: {{}}}}
  max_gap: 10m
  triggers:
    fall: {{signal: equity.loss_from_start, at_least: {first}, on_unknown: hold}}
    deep: {{signal: equity.loss_from_start, at_least: {second}, on_unknown: hold}}
  stages:
    - {{name: close-everything, level: 2, any: [deep], cooldown: 1m, reset: manual,
       actions: [{{close: {{side: both, fraction: 100%}}}}]}}
    - {{name: trim, level: 1, any: [fall], cooldown: 1m, reset: manual,
       actions: [{{close: {{side: both, fraction: 50%}}}}]}}
"""


def test_a_decision_after_a_reload_is_evaluated_with_the_sets_in_their_order(world: World) -> None:
    """A stage latched under the set before: the set that decided, alone, decides from another level."""
    before, after_it = written(STEPS.format(first="5%", second="50%")), STEPS.format(first="15%", second="20%")
    seen, store, venue = Seen(), world.open(), ScriptedVenue(book("1100"))
    runner = world.runner(store, [venue], armed=False, policies=before, witnesses=(seen,))
    taken = next_set(
        (PolicyFile("p.yaml", after_it.encode()),), PolicyOrigin(source="x"), LoadedPolicies(before, (), ())
    )

    async def course() -> None:
        async def tick(equity: str) -> None:
            venue.answer = book(equity)
            await runner.tick()
            await world.clock.sleep(1.0)

        await runner.start()
        for equity in ("1100", "1030"):
            await tick(equity)
        assert runner.reloads.propose(taken).is_prepared.wait(30.0)
        for equity in ("1030", "1030", "850"):
            await tick(equity)
        await runner.finish()

    asyncio.run(course())
    decision = store.decisions(1)[0].decision
    assert (decision.stage, decision.previous_level) == ("close-everything", 1)
    kept = store.decision(decision.id)
    assert kept is not None
    (change,) = store.set_changes(5)
    snapshots = [report.snapshot for report in seen.reports]
    sets = [ReplayedSet(None, lambda: before), ReplayedSet(change.at, lambda: taken.loaded.policies)]
    assert reevaluate(sets, kept, snapshots, ()).is_identical
    alone = reevaluate(sets[1:], kept, snapshots, ())
    assert "previous_level" in [each.field for each in alone.differences]
