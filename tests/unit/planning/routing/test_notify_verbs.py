"""`ksctl notify match` and `log`, and `acknowledge`: who gets a message, what was not sent, what is acknowledged."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from killswitch.cli import ksctl
from killswitch.graph.routing import Escalation, MessageSilence
from killswitch.incident.notify.message import decode_message
from killswitch.model.decision import Notice
from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.model.snapshot import Event, Snapshot
from killswitch.model.store import ROUTING, Suppression, TickRecord
from killswitch.operations.notifying import held_messages, matchers_of, silence_views
from killswitch.planning.routing.state import read_routing
from killswitch.store.sqlite import open_store
from tests.outboxes import waiting
from tests.runner_world import World
from tests.unit.planning.routing import routing_world
from tests.unit.planning.routing.routing_world import Routing, notice, rule, tree
from tests.unit.planning.routing.test_tree_in_a_run import Run, firing, policies
from tests.worlds import START

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


@pytest.mark.parametrize(
    ("written", "matched"),
    [
        (["severity=warning", "severity=info"], {"severity": ("warning", "info")}),
        (["level>=2"], {"level": ("2",)}),
        (["account=main", "strategy=grid"], {"scope": ("account/main", "strategy/grid")}),
        (["policy=swaps", "event=notice", "notify=desk"], {"policy": ("swaps",), "event": ("notice",),
                                                           "notify": ("desk",)}),
        (["desk=eu", "book=a"], {"label/desk": ("eu",), "label/book": ("a",)}),
    ],
)  # fmt: skip
def test_a_silence_takes_conditions_as_people_write_them(
    written: list[str], matched: dict[str, tuple[str, ...]]
) -> None:
    """Any key of a route's `match`, an account, a strategy, and any other key as a label of the policy."""
    assert matchers_of(written) == matched


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("warnings", "is no condition"), ("severity=", "is no condition"), ("severity=loud", "no severity loud"),
        ("event=crash", "there is no event crash"), ("level=2", "write level>=N"), ("level>=10", "from 1 to 9"),
    ],
)  # fmt: skip
def test_a_condition_that_can_match_nothing_is_refused(written: str, why: str) -> None:
    """A silence that holds nothing would be found out by a message at night."""
    with pytest.raises(ValueError, match=why):
        matchers_of([written])
    with pytest.raises(ValueError, match="named twice"):
        matchers_of(["desk=eu", "desk=us"])


def silenced(**keys: Any) -> Event:
    return Event("hand-1", START, "silence", author="ada", reason="upgrade", until=START + timedelta(hours=2), **keys)


UNKNOWN = Notice(START, "crash", "account/main", "unknown", "page", "no data")


@pytest.mark.parametrize(
    ("keys", "is_held"),
    [
        ({"matching": {"severity": ("page",), "scope": ("account/main",)}}, True),
        ({"matching": {"severity": ("warning",)}}, False),
        ({"matching": {"label/desk": ("eu",)}}, False),
        ({"matching": {"level": ("2",)}}, False),  # a notice has no level, and what is unknown matches nothing
        ({"policy": "crash"}, True),
        ({"policy": "crash", "matching": {"policy": ("other",)}}, True),
    ],
)  # fmt: skip
def test_a_silence_by_command_holds_what_matches_every_condition_and_never_a_firing(
    tmp_path: Path, keys: dict[str, object], is_held: bool
) -> None:
    """Its answer says what it holds; a firing of the same policy goes out in the same tick."""
    run = Run(World(tmp_path), policies())
    at = Snapshot(START, (), "killswitch.snapshot/v1", events=(silenced(**keys),))
    (answer,) = run.notifier.answers(at)
    assert "by ada: upgrade" in answer.text
    sent = run.tick(firing("d1"), notices=(UNKNOWN,), events=(silenced(**keys),))
    events = [event for each in sent for event in [decode_message(each.body).event]]
    assert "fired" in events or "2 messages" in decode_message(sent[0].body).title
    assert [each.why for each in run.store.suppressions(9)] == (["silenced"] if is_held else [])


def test_a_silence_is_listed_and_ended_by_command_with_its_author(tmp_path: Path) -> None:
    """Until its end it is in the list; then the next notice goes out, and a silence of nobody is named."""
    run = Run(World(tmp_path), policies())
    run.tick(events=(silenced(policy="crash"),))
    state = read_routing(run.store.live(ROUTING))
    (view,) = silence_views(state, START)
    assert (view.author, view.reason, view.matches, view.is_document) == ("ada", "upgrade", "policy=crash", False)
    assert silence_views(state, START + timedelta(hours=2)) == ()
    end = Event("hand-2", START, "silence", author="bob", reason="over", ids=("hand-1", "hand-9"))
    at = Snapshot(START, (), "killswitch.snapshot/v1", events=(end,))
    (answer,) = run.notifier.answers(at)
    assert answer.text == ("ended by bob: silence hand-1 of ada (over); no silence by command is called hand-9")
    (sent,) = run.tick(after=timedelta(minutes=1), notices=(UNKNOWN,), events=(end,))
    assert decode_message(sent.body).event == "notice"
    assert silence_views(read_routing(run.store.live(ROUTING)), START) == ()


def test_a_held_message_is_listed_with_its_receiver_and_who_holds_it() -> None:
    """What `status` and the board show of it; once it is over it is held no more."""
    until = MessageSilence("upgrade", rule(policies=("p",)), "ada", "venue upgrade", routing_world.START + HOUR)
    run = Routing(tree(silences=(until,)))
    begun = notice("outage")
    run.step(begun)
    (held,) = held_messages(run.state)
    assert (held.receiver, held.alert, held.severity, held.why) == ("desk", "outage", "warning", "silenced")
    assert "by ada" in held.line
    run.step(routing_world.over(begun), after=MINUTE)
    assert held_messages(run.state) == ()


def test_the_verb_ends_no_silence_of_a_document_and_no_unknown_one(tmp_path: Path) -> None:
    """It lists what there is, and how a document's silence ends."""
    end = to_micros(START + timedelta(days=40_000))
    quiet = MessageSilence("upgrade", rule(policies=("crash",)), "ada", "venue upgrade", end)
    run = Run(World(tmp_path), replace(policies(), message_silences=(quiet,)))  # type: ignore[type-var] # a policy set
    run.tick()
    run.store.close()
    at = ("--reason", "over", "--store", next(tmp_path.glob("*.sqlite")))
    assert "ends with an edit of it" in called("notify", "silence", "--end", "upgrade", *at).output
    assert "There are: upgrade  policy=crash" in called("notify", "silence", "--end", "x", *at).output
    listed = called("notify", "silences", "--store", at[-1], "-o", "json")
    assert json.loads(listed.stdout)["silences"][0]["matches"] == "policy=crash"
    assert "--end, the silence that ends now" in called("notify", "silence", "policy=crash", *at).output


def test_a_silence_of_everything_is_refused(tmp_path: Path) -> None:
    found = called("notify", "silence", "--for", "1h", "--reason", "x", "--store", tmp_path / "ks.sqlite")
    assert found.exit_code != 0
    assert "never every message" in found.output
