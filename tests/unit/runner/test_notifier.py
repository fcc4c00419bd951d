"""What the ticks of a run put into the outbox, and what leaves it; with real files, threads and a real store."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.engine.alerts import AlertState, advance
from killswitch.graph.nodes import PolicySet
from killswitch.graph.routing import Route, RouteRule, RouteTarget
from killswitch.incident.notify.delivery import NotificationSender
from killswitch.incident.notify.message import decode_message
from killswitch.model.alert import Alert, Alerts
from killswitch.model.decision import Decision, LockOrder, Notice
from killswitch.model.instant import HOUR, SECOND, to_micros
from killswitch.model.snapshot import Closing, Residual, Snapshot
from killswitch.model.store import ROUTING, TickRecord
from killswitch.model.venue import OrderReport, OrderRequest, VenueDownError
from killswitch.operations.commands import operator_event
from killswitch.operations.status import encode_status, store_status
from killswitch.planning.routing.state import read_routing
from killswitch.runner.notify.notifier import Notifier
from killswitch.runner.observers import shortfalls
from killswitch.store.errors import StoreError
from killswitch.store.sql import SqlStore
from tests import graphs
from tests.runner_world import PACE, ScriptedVenue, Seen, World, book, crash_policy
from tests.shown import status_text
from tests.webhooks import Webhook, free_port
from tests.worlds import START, snapshot

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

EVERYTHING = RouteRule(None, None, None, None, None, None, ())
PATIENT = replace(PACE, stop_timeout=60.0)
"""A message that is on its way when a run ends goes out once more in the next, so these runs end after it."""


@pytest.fixture(autouse=True)
def apprise_is_there() -> None:
    """Importing it takes longer than these runs wait at their end on a machine under load."""
    import apprise

    assert apprise


def routed(*targets: RouteTarget) -> PolicySet:
    route = Route("desk", EVERYTHING, targets, HOUR, graphs.HERE)
    return replace(graphs.policy_set(crash_policy()), routes=(route,))


def in_file(world: World) -> RouteTarget:
    return RouteTarget("file", str(world.folder / "n.jsonl"))


def lines(world: World) -> list[dict[str, str]]:
    path = world.folder / "n.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


async def crash(world: World, store: SqlStore, policies: PolicySet, *, armed: bool = True) -> Seen:
    """A run that sees 1,000, then 850, closes, and ends."""
    seen, venue = Seen(), ScriptedVenue(book("1000"))
    runner = world.runner(store, [venue], armed=armed, policies=policies, pace=PATIENT, witnesses=(seen,))
    try:
        await runner.start()
        await runner.tick()
        venue.answer = book("850")
        await world.clock.sleep(1.0)
        await runner.tick()
        assert await runner.close_within(60.0)
        await world.clock.sleep(1.0)
        await runner.tick()
    finally:
        # However it ends: a thread that continued to send would use a connection of a store that is already closed.
        await runner.finish()
        await runner.shut_down()
    return seen


def test_a_close_that_leaves_more_than_at_its_end_is_notified(world: World) -> None:
    """Its end has a message of its own and no notice; after it, more positions or more contracts are a message."""
    store, policies = world.open(), routed(in_file(world))
    asyncio.run(crash(world, store, policies))
    ended = store.decisions(1)[0].decision
    runner = world.runner(store, [ScriptedVenue(book("850"))], policies=policies)
    state, sent = AlertState(), list[int]()
    for second, left in enumerate(({"BTC": 2}, {"BTC": 1}, {"BTC": 1, "ETH": 1}, {"BTC": 1, "ETH": 900})):
        residual = tuple(Residual("main", symbol, "long", Decimal(count)) for symbol, count in left.items())
        closings = (Closing(ended.id, "residual", residual, Decimal(0), ended.scope),)
        at = replace(snapshot(START + timedelta(hours=1, seconds=second)), closings=closings)
        notices, state = advance(state, shortfalls(closings), to_micros(at.as_of))
        sent.append(len(runner.observers.messages(at, (), notices, (), AlertState())))
    asyncio.run(runner.shut_down())
    assert sent == [1, 0, 1, 1]


async def again(world: World, store: SqlStore, policies: PolicySet) -> None:
    """A run of one tick that finds the book flat; messages that its targets accept are delivered before it ends."""
    venue = ScriptedVenue(book("850"))
    runner = world.runner(store, [venue], armed=False, policies=policies, pace=PATIENT)
    await world.clock.sleep(60.0)
    await runner.start()
    await runner.tick()
    await runner.finish()
    await runner.shut_down()


def test_a_stage_and_the_end_of_its_close_are_notified(world: World) -> None:
    """One message for each, in order, delivered by the end of the run."""
    store = world.open()
    asyncio.run(crash(world, store, routed(in_file(world))))
    assert [(line["event"], line["severity"]) for line in lines(world)] == [("fired", "page"), ("closed", "info")]
    (count,) = store.outbox()
    assert (count.pending, count.delivered, count.given_up) == (0, 2, 0)


def test_a_firing_in_force_is_a_real_event_until_its_reset_however_many_ticks_follow(world: World) -> None:
    """As long as it is, no drill is notified: ticks without a decision forget nothing, nor does a tick with one."""
    store, venue = world.open(), ScriptedVenue(book("1000"))
    runner = world.runner(store, [venue], policies=routed(in_file(world)), pace=PATIENT)

    def real() -> tuple[str, ...]:
        return read_routing(store.live(ROUTING)).real

    async def fired_and_reset() -> None:
        await runner.start()
        await runner.tick()
        venue.answer = book("850")
        for _ in range(5):
            await world.clock.sleep(1.0)
            await runner.tick()
            await runner.close_within(5.0)
        assert real() == ("firing/crash/account/main",)
        store.put_event(operator_event("close", "account/main", "ada", "drill", world.clock.now(), cause="drill"))
        await world.clock.sleep(1.0)
        await runner.tick()
        assert real() == ("firing/crash/account/main",)
        store.put_event(operator_event("reset", "account/main", "ada", "seen", world.clock.now()))
        await world.clock.sleep(1.0)
        await runner.tick()
        await runner.finish()
        await runner.shut_down()

    asyncio.run(fired_and_reset())
    assert real() == ()
    assert not [line for line in lines(world) if line["title"].startswith("[page] DRILL")]


def test_an_observing_run_notifies_that_nothing_was_done(world: World) -> None:
    """It notifies people all the same."""
    asyncio.run(crash(world, world.open(), routed(in_file(world)), armed=False))
    (fired,) = [line for line in lines(world) if line["event"] == "fired"]
    assert fired["title"].endswith("observed only: nothing was done)")
    assert "this run only observes" in fired["body"]


def test_a_restart_notifies_nothing_twice(world: World) -> None:
    """The outbox knows what was notified: ids are derived from the subject."""
    store = world.open()
    asyncio.run(crash(world, store, routed(in_file(world))))
    before = lines(world)
    asyncio.run(again(world, store, routed(in_file(world))))
    assert [line for line in lines(world) if line["event"] != "notice"] == before


def test_messages_that_could_not_be_sent_are_sent_by_the_next_run(world: World) -> None:
    """A webhook that is down for the whole of a run gets everything from the next one, once."""
    webhook = Webhook(free_port())
    policies = routed(RouteTarget("apprise", f"json://127.0.0.1:{webhook.port}/"))
    store = world.open()
    asyncio.run(crash(world, store, policies))
    waited = [each.message.id for each in reversed(store.deliveries(10))]
    assert len(waited) == 2
    with webhook.listening():
        asyncio.run(again(world, store, policies))
    assert webhook.ids[:2] == waited
    assert len(set(webhook.ids)) == len(webhook.ids)


def test_messages_for_a_target_that_no_route_names_any_more_are_reported_and_expire_in_a_day(world: World) -> None:
    """The route was removed, or its target renamed: nothing is lost without a notice, nor waits for ever."""
    store = world.open()
    asyncio.run(crash(world, store, routed(RouteTarget("file", str(world.folder / "none" / "n.jsonl")))))
    asyncio.run(again(world, store, routed(in_file(world))))
    view = store_status(store, world.clock.now(), 0).view
    assert view is not None
    (problem,) = [text for text in view.problems if "no route names this target any more" in text]
    assert f"{world.folder}/none/n.jsonl 3 wait" in problem  # the stage, its end, and that this target cannot work
    asyncio.run(world.clock.sleep(25 * 3600.0))
    asyncio.run(again(world, store, graphs.policy_set(crash_policy())))
    stranded = [each for each in store.deliveries(50) if "none" in each.message.target]
    assert {each.state for each in stranded} == {"given_up"}
    assert all(each.error for each in stranded)


def test_a_tick_that_is_not_committed_notifies_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is part of the tick: a crash in between leaves neither, and the next run decides and notifies."""
    store = world.open()
    commit = store.commit_tick

    def fails(record: TickRecord) -> None:
        if record.decisions:
            assert record.messages
            raise StoreError("disk full")
        commit(record)

    monkeypatch.setattr(store, "commit_tick", fails)
    with pytest.raises(StoreError):
        asyncio.run(crash(world, store, routed(in_file(world))))
    assert list(store.deliveries(10)) == []
    assert lines(world) == []


def fallen(seconds: float) -> Notice:
    at = START + timedelta(seconds=seconds)
    return Notice(at, "crash", "account/main", "unexplained", "page", f"a fall of {seconds:g} counts as loss")


def test_many_pages_of_one_crash_are_one_page_and_later_one_with_their_count(world: World) -> None:
    """159 notices in 159 seconds: one leaves at once; after five minutes one states that there were 158 more."""
    notifier = Notifier(routed(in_file(world)), world.open(), world.clock)
    sent = []
    for second in range(400):
        seen = Snapshot(START + timedelta(seconds=second), (), "killswitch.snapshot/v1")
        notices = [fallen(second)] if second < 159 else []
        sent += [(second, decode_message(each.body)) for each in notifier.outgoing(seen, (), notices, (), AlertState())]
    assert [(second, message.severity, message.count) for second, message in sent] == [
        (0, "page", 1), (300, "page", 158),
    ]  # fmt: skip
    assert sent[1][1].title == "[page] 158 more: equity changed without an explanation: crash on account/main"
    assert sent[1][1].body.splitlines() == [
        "158 more since the last message, 159 since 2024-01-01T00:00:00Z; the newest:",
        "a fall of 158 counts as loss",
        "when: 2024-01-01T00:02:38Z (UTC); nothing here is newer",
        "next: ksctl status",
    ]


def test_a_runner_that_takes_over_sends_the_count_once(world: World) -> None:
    """Killed after the message with the count was committed, or before: the next run makes the same message."""
    store = world.open()
    notices = tuple(fallen(second) for second in range(10))
    store.commit_tick(
        TickRecord(
            as_of=START, policy_set="sha256:test", states=(), rows=(), decisions=(), notices=notices, journal=(),
            snapshot=None, consumed_events=(), prune_before=0, messages=(),
        )
    )  # fmt: skip
    asyncio.run(world.clock.sleep(20.0))
    ids = []
    for _ in range(2):
        notifier = Notifier(routed(in_file(world)), store, world.clock)
        notifier.start()
        seen = Snapshot(START + timedelta(seconds=310), (), "killswitch.snapshot/v1")
        (found,) = notifier.outgoing(seen, (), (), (), AlertState())
        assert decode_message(found.body).count == 9
        ids.append(found.id)
    assert ids[0] == ids[1]


def test_a_stage_that_fires_after_it_was_held_back_corrects_the_first_page(world: World) -> None:
    """A second poll held it back for two seconds: the page of the firing states that it replaces the first one."""
    notifier = Notifier(routed(in_file(world)), world.open(), world.clock)
    why = Alert("uncorroborated/crash/account/main/close", "page", "close did not fire: stale")
    _, before = advance(AlertState(), Alerts((why,)), to_micros(START))
    decision = Decision(
        "d1", START + timedelta(seconds=2), "crash", "sha256:test", "account/main", "enforce", "close", 3, 0
    )
    later = Snapshot(START + timedelta(seconds=2), (), "killswitch.snapshot/v1")
    (fired,) = notifier.outgoing(later, (decision,), (), (decision,), before)
    assert decode_message(fired.body).body.splitlines()[0] == (
        "this corrects the messages since 2024-01-01T00:00:00Z: the stage has fired now"
    )


def test_a_lock_by_hand_is_notified_and_belongs_to_no_incident(world: World) -> None:
    """So is the close by hand after it, which is an incident of its own."""
    lock = Decision(
        id="l", as_of=START, policy="operator", policy_set="sha256:test", scope="account/main", mode="enforce",
        stage=None, level=0, previous_level=0, kind="manual", author="desk", reason="news",
        lock=LockOrder("account/main", "reduce_only", None),
    )  # fmt: skip
    close = replace(lock, id="c", lock=None, cause="operator")
    notifier = Notifier(routed(in_file(world)), world.open(), world.clock)
    messages = notifier.outgoing(snapshot(START), (lock, close), (), (lock, close), AlertState())
    assert {decode_message(each.body).decision for each in messages} == {"l", "c"}


def test_without_a_route_the_outbox_stays_empty(world: World) -> None:
    """No table grows, no thread is started, and status has no block for it."""
    store = world.open()
    asyncio.run(crash(world, store, graphs.policy_set(crash_policy())))
    assert list(store.outbox()) == []
    assert "Notifications" not in status_text(store_status(store, world.clock.now(), 10), "x")


def test_a_reset_is_notified_to_those_notified_of_the_stage(world: World) -> None:
    """With the level that ends."""
    store = world.open()
    asyncio.run(crash(world, store, routed(in_file(world))))
    store.put_event(operator_event("reset", "account/main", at=world.clock.now(), author="o", reason="over"))
    asyncio.run(again(world, store, routed(in_file(world))))
    (reset,) = [line for line in lines(world) if line["event"] == "reset"]
    assert reset["level"] == 3
    assert "reset to level 0 by o" in reset["title"]


def test_status_shows_which_messages_wait_and_why(world: World) -> None:
    """By route and target, with the last error of the oldest one."""
    store = world.open()
    asyncio.run(crash(world, store, routed(RouteTarget("file", str(world.folder / "none" / "n.jsonl")))))
    text = status_text(store_status(store, world.clock.now(), 10), "x")
    (row,) = [line for line in text.splitlines() if line.startswith("  desk")]
    assert "none/n.jsonl  3        0          0" in row  # the stage, its end, and that this target cannot work
    assert "No such file or directory" in row


TOKEN = "T0KENsup3rsecret"


def test_a_planted_secret_appears_nowhere(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the store's bytes, a notice, the status, a stream or a log, though the target fails and says why."""
    monkeypatch.setenv("DESK_URL", f"json://user:{TOKEN}@127.0.0.1:{free_port()}/{TOKEN}/?-k={TOKEN}")
    store = world.open()
    with caplog.at_level(logging.DEBUG):
        seen = asyncio.run(crash(world, store, routed(RouteTarget("apprise", "env:DESK_URL"))))
    (count,) = store.outbox()
    assert count.pending == 2
    assert "refused the connection" in (count.error or "")
    status = store_status(store, world.clock.now(), 100)
    output = status_text(status, "x").encode() + encode_status(status) + repr(seen.reports).encode()
    written = b"".join(path.read_bytes() for path in world.folder.rglob("*") if path.is_file())
    streams = "".join(capfd.readouterr()) + caplog.text
    assert TOKEN.encode() not in output + written + streams.encode()


def test_a_missing_secret_is_a_reason_and_no_refusal_to_start(world: World) -> None:
    """An observing run starts without its chat; the message waits and states what is wrong."""
    store = world.open()
    asyncio.run(crash(world, store, routed(RouteTarget("apprise", "env:KS_NOT_SET"))))
    assert "the environment variable KS_NOT_SET is not set" in (store.outbox()[0].error or "")


def notice_of(runner_notices: tuple[Notice, ...], part: str) -> list[Notice]:
    return [notice for notice in runner_notices if part in notice.text]


def test_an_abandoned_message_pages_once_through_the_other_targets(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that accepted nothing for an hour is reported as a problem, by the targets that work."""
    store = world.open()
    broken = RouteTarget("file", str(world.folder / "none" / "n.jsonl"))

    async def run() -> Seen:
        seen, venue = Seen(), ScriptedVenue(book("1000"))
        runner = world.runner(store, [venue], armed=False, policies=routed(broken, in_file(world)), witnesses=(seen,))
        # No threads: the lanes work when the test says so, in its time.
        senders: list[NotificationSender] = []

        def record(sender: NotificationSender) -> None:
            senders.append(sender)

        monkeypatch.setattr(NotificationSender, "wake", record)
        await runner.start()
        await runner.tick()
        venue.answer = book("850")
        for _ in range(4):
            await world.clock.sleep(3601.0)
            await runner.tick()
            for lane in senders[0].deliveries.values():
                while lane.step() == 0:
                    pass
        await runner.finish()
        await runner.shut_down()
        return seen

    seen = asyncio.run(run())
    notices = [notice for report in seen.reports for notice in notice_of(report.notices, "given up")]
    assert len(notices) == 1
    assert (notices[0].policy, notices[0].severity) == ("runner", "page")
    assert any("given up" in line["body"] for line in lines(world) if line["event"] == "notice")


def test_every_message_in_the_store_decodes_to_its_own_id(world: World) -> None:
    """The documented key for deduplication by receivers is the key of the outbox."""
    store = world.open()
    asyncio.run(crash(world, store, routed(in_file(world))))
    for each in store.deliveries(10):
        assert decode_message(each.message.body).id == each.message.id
    decided: list[Decision] = [stored.decision for stored in store.decisions(10)]
    assert lines(world)[0]["decision"] == decided[0].id


def test_one_outage_is_one_page_and_one_all_clear(world: World) -> None:
    """For three minutes the account of a policy with two triggers cannot be read: a phone rings once, and once more."""
    store, venue = world.open(), ScriptedVenue(book("1000"))
    graph = crash_policy()
    (trigger,) = graph.triggers
    unread = tuple(replace(trigger, name=name, grace=10 * SECOND) for name in ("one", "two"))
    graph = replace(graph, triggers=(trigger, *unread))
    policies = replace(routed(in_file(world)), graphs=(graph,))
    runner = world.runner(store, [venue], policies=policies, pace=PATIENT)

    async def outage() -> None:
        await runner.start()
        for second in range(400):
            venue.answer = VenueDownError("maintenance") if 20 <= second < 200 else book("1000")
            await runner.tick()
            await world.clock.sleep(1.0)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(outage())
    found = [(line["severity"], line["title"]) for line in lines(world)]
    assert [severity for severity, _ in found] == ["page", "page"], found
    assert "cannot be read" in found[0][1]
    assert "over: " in found[1][1]


class DyingVenue(ScriptedVenue):
    """Takes the first order and answers nothing any more, until it is `back`; the order is not filled."""

    is_back = False

    async def submit(self, request: OrderRequest) -> OrderReport:
        if self.is_back:
            return await super().submit(request)
        self.sent.append(request)
        self.answer = VenueDownError("no answer")
        raise VenueDownError("no answer")

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        if not self.is_back:
            raise VenueDownError("no answer")
        return await super().find_order(symbol, client_order_id)


def test_a_venue_that_dies_during_a_close_is_one_page_with_its_updates_in_the_thread_of_the_firing(
    world: World,
) -> None:
    """The page of the outage says how many orders got no answer and that the close goes on; no order pages alone."""
    store, venue = world.open(), DyingVenue(book("1000"))
    runner = world.runner(store, [venue], policies=routed(in_file(world)), pace=PATIENT)

    async def run() -> None:
        await runner.start()
        for second in range(200):
            if second == 3:
                venue.answer = book("850")
            if second == 100:
                venue.is_back, venue.answer = True, book("850")
            await runner.tick()
            await world.clock.sleep(1.0)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(run())
    found = lines(world)
    pages = [line for line in found if line["severity"] == "page" and "over: " not in line["title"]]
    assert [page["title"].partition("] ")[2] for page in pages if "update: " not in page["title"]] == [
        "level 3 close-everything: crash on account/main (paper, live)", "the close on account main has a problem",
    ]  # fmt: skip
    (outage,) = (page for page in pages if "cannot be read" in page["title"])
    assert "the close there is not finished and goes on once it can be read" in outage["body"]
    assert {line["thread"] for line in found} == {found[0]["decision"]}
    assert {page["key"] for page in pages[1:]} == {pages[1]["key"]}
    assert [line["event"] for line in found].count("closed") == 1
