"""`ksctl notify match` and `log`, and `acknowledge`: who gets a message, what was not sent, what is acknowledged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli import ksctl
from killswitch.graph.routing import Escalation
from killswitch.model.instant import MINUTE
from killswitch.model.store import Suppression, TickRecord
from killswitch.store.sqlite import open_store
from tests.outboxes import START, waiting
from tests.runner_world import World
from tests.unit.planning.routing.test_tree_in_a_run import Run, firing, policies

TREE = """apiVersion: killswitch.dev/v1
kind: NotificationTree
metadata: {name: on-call}
spec:
  receiver: desk
  receivers:
    desk: {targets: [{log: {level: warning}}]}
    phone: {targets: [{custom: {name: pager}}]}
  routes: [pages, warnings]
---
apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {name: pages}
spec: {match: {severity: page}, receiver: phone, continue: true}
---
apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {name: warnings}
spec: {match: {severity: warning}}
---
apiVersion: killswitch.dev/v1
kind: Silence
metadata: {name: quiet}
spec: {match: {policy: swaps}, author: ada, reason: upgrade, until: '2099-01-01T00:00:00Z'}
"""


def called(*arguments: object) -> Result:
    return CliRunner().invoke(ksctl, [str(each) for each in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tree.yaml").write_text(TREE, encoding="utf-8")
    return tmp_path


def test_match_shows_the_tree_with_who_takes_a_message(folder: Path) -> None:
    found = called("notify", "match", "--policies", folder, "--event", "fired", "--policy", "swaps")
    assert found.exit_code == 0, found.output
    assert "Urgent: fired, page, swaps" in found.output
    assert "  pages: takes it → phone: custom pager\n" in found.output
    assert "  warnings: does not match" in found.output
    assert "held" not in found.output


def test_match_says_what_holds_a_message_that_is_not_urgent(folder: Path) -> None:
    found = called("notify", "match", "--policies", folder, "--policy", "swaps", "--severity", "warning", "-o", "json")
    nodes = {each["path"]: each for each in json.loads(found.stdout)["nodes"]}
    assert nodes["root/warnings"]["held"] == "silence quiet by ada"
    assert nodes["root/warnings"]["receiver"] == "desk"
    assert [path for path, each in nodes.items() if each["takes"]] == ["root/warnings"]


def test_log_lists_what_was_sent_and_what_was_not_with_its_reason(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "ks.sqlite"))
    waiting(store, ["m1"])
    why = Suppression(1, "alert/outage/a", "m2", "root", "desk", "inhibited", "firing/p/account/a")
    store.commit_tick(TickRecord(START, "sha256:0", (), (), (), (), (), None, (), 0, (), (why,)))
    store.close()
    found = called("notify", "log", "--store", tmp_path / "ks.sqlite").output
    assert "pending  t  [page] m1  [m1]" in found
    assert "suppressed  desk  alert/outage/a (inhibited: firing/p/account/a)  [m2]" in found


def test_an_id_that_nothing_waits_for_is_refused_with_what_does(tmp_path: Path) -> None:
    world = World(tmp_path)
    run = Run(world, policies(escalate=(Escalation(5 * MINUTE, "phone"),)))
    run.tick(firing("d1"))
    run.store.close()
    found = called("acknowledge", "nothing", "--store", next(tmp_path.glob("*.sqlite")))
    assert (found.exit_code, "waiting: d1" in found.output) == (1, True)


def test_a_silence_of_everything_is_refused(tmp_path: Path) -> None:
    found = called("notify", "silence", "--for", "1h", "--reason", "x", "--store", tmp_path / "ks.sqlite")
    assert found.exit_code != 0
    assert "nothing silences every message" in found.output
