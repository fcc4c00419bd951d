"""Delivery from the outbox: order, pauses, expiry, and what a webhook receives when it is down, refuses or hangs."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from killswitch import worker
from killswitch.incident.notify import apprise_target
from killswitch.incident.notify import delivery as sending_module
from killswitch.incident.notify.apprise_target import AppriseSender
from killswitch.incident.notify.delivery import MOST_ABANDONED, NotificationSender, TargetDelivery
from killswitch.incident.notify.message import Message
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.backoff import Backoff
from killswitch.model.instant import HOUR
from killswitch.model.store import Delivery
from killswitch.store.errors import FencedError, StoreError
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.outboxes import START, Scripted, lane, through, waiting
from tests.webhooks import Webhook, free_port

# Apprise imports the `imghdr` of Python 3.11 and 3.12 where it is there.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

NAMES = ["m1", "m2", "m3", "m4", "m5"]
PATIENCE = 60.0
"""Seconds after which a wait for another thread is a failure."""


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


def apprise_sender(webhook: Webhook) -> AppriseSender:
    return AppriseSender("env:URL", lambda: f"json://127.0.0.1:{webhook.port}/", lambda _: str)


def test_messages_are_sent_in_the_order_of_the_outbox(store: SqlStore, clock: VirtualClock) -> None:
    """Each is marked before the next one is read, and nothing is sent from an empty outbox."""
    waiting(store, NAMES)
    sender = Scripted()
    work = lane(store, sender, clock)
    assert [work.step() for _ in range(6)] == [0, 0, 0, 0, 0, None]
    assert sender.taken == NAMES
    assert {each.state for each in store.deliveries(10)} == {"delivered"}
    assert (work.counts.pending, work.counts.delivered) == (0, 5)


def test_a_target_that_is_down_is_retried_with_growing_pauses_and_its_oldest_message(
    store: SqlStore, clock: VirtualClock
) -> None:
    """Pauses of 1, 2, 4 … 30 seconds belong to the target, not to a message; new messages do not shorten them."""
    waiting(store, NAMES)
    sender = Scripted("refused")
    work = lane(store, sender, clock)
    pauses = []
    for _ in range(7):
        due = work.step()
        assert due is not None
        pauses.append(due)
        waiting(store, [f"later-{clock.monotonic()}"])
        assert work.step() == pytest.approx(due), "woken within the pause"
        asyncio.run(clock.sleep(due))
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert sender.attempts == ["m1"] * 7
    assert (store.deliveries(100)[-1].attempts, store.deliveries(100)[-1].error) == (7, "refused")


def test_a_message_that_is_always_refused_delays_later_pages_only_briefly(store: SqlStore, clock: VirtualClock) -> None:
    """After eight failed attempts the next message is tried and accepted: the rest follows in order within 150 seconds.

    The first is retried each minute, and is a problem until it is accepted.
    """
    waiting(store, NAMES)
    sender = Scripted()
    sender.never = {"m1"}
    work = lane(store, sender, clock)
    asyncio.run(through(work, clock, 150.0))
    assert sender.taken == NAMES[1:]
    assert sender.attempts[:11] == [*["m1"] * 8, "m2", "m1", "m3"], "once more, should the target have just come back"
    assert work.problem == "t refuses 1 of its notifications and accepts others: too long for me"
    waiting(store, ["m6"])
    assert [work.step(), work.step()] == [0, 0], "a new page waits for no pause: the one put aside is due, and has none"
    assert sender.taken[-1] == "m6"
    before = len(sender.attempts)
    asyncio.run(through(work, clock, 300.0))
    assert set(sender.attempts[before:]) == {"m1"}
    assert 4 <= len(sender.attempts[before:]) <= 6
    sender.never = set()
    asyncio.run(through(work, clock, 120.0))
    assert sorted(sender.taken) == sorted([*NAMES, "m6"]), "each once"
    assert work.problem is None


def test_a_target_that_is_down_for_long_gets_everything_in_order(store: SqlStore, clock: VirtualClock) -> None:
    """The second message is tried at times and fails too: the fault is the target's, and the first stays first."""
    waiting(store, NAMES)
    sender = Scripted("down")
    work = lane(store, sender, clock)
    asyncio.run(through(work, clock, 1500.0))
    assert set(sender.attempts) == {"m1", "m2"}
    assert sender.attempts.count("m1") > 7 * sender.attempts.count("m2")
    sender.error = None
    asyncio.run(through(work, clock, 120.0))
    assert sender.taken == NAMES


def test_a_target_that_recovers_at_the_attempt_with_the_second_message_gets_the_first_next(
    store: SqlStore, clock: VirtualClock
) -> None:
    """The second message is tried instead of the first and accepted: the first follows at once, not a minute later."""
    waiting(store, NAMES)
    sender = Scripted("down")
    work = lane(store, sender, clock)
    while len(sender.attempts) < 8:
        asyncio.run(clock.sleep(work.step() or 0.0))
    sender.error = None
    assert [work.step() for _ in range(3)] == [0] * 3, "what waited goes out as one"
    assert sender.taken == ["m2", "m1", "m3", "m4", "m5"]
    assert work.problem is None


def test_a_restart_keeps_the_pauses(store: SqlStore, clock: VirtualClock) -> None:
    """The next run waits for the rest of the pause, tries the same message, and pauses twice as long as before."""
    waiting(store, NAMES)
    sender = Scripted("down")
    first = lane(store, sender, clock)
    for _ in range(4):
        asyncio.run(clock.sleep(first.step() or 0.0))
    assert first.step() == 16.0
    asyncio.run(clock.sleep(10.0))
    second = lane(store, sender, clock)
    assert (second.step(), len(sender.attempts)) == (6.0, 5)
    asyncio.run(clock.sleep(6.0))
    assert (second.step(), sender.attempts) == (30.0, ["m1"] * 6)


def test_a_restart_keeps_a_refused_message_from_delaying_others(store: SqlStore, clock: VirtualClock) -> None:
    """What the target was seen to refuse is passed by later pages, and still a problem."""
    waiting(store, NAMES)
    sender = Scripted()
    sender.never = {"m1"}
    asyncio.run(through(lane(store, sender, clock), clock, 150.0))
    waiting(store, ["m6"])
    again = lane(store, sender, clock)
    assert [again.step(), again.step()] == [0, 0], "the refused one is due, and delays nothing"
    assert sender.taken[-1] == "m6"
    assert again.step() == 60.0
    assert again.problem == "t refuses 1 of its notifications and accepts others: too long for me"


def test_a_defect_in_delivery_is_a_problem_and_delivery_goes_on(
    store: SqlStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the thread meets: the page is sent once the defect is over."""
    monkeypatch.setattr(worker, "PAUSES", Backoff(0.0, 0.0))
    waiting(store, ["m1"])
    sender, met, over = CountingSender(1), threading.Event(), threading.Event()
    claim = store.claim

    def defective(*arguments: Any, **named: Any) -> Delivery | None:
        if met.is_set() and over.wait(PATIENCE):
            return claim(*arguments, **named)
        met.set()
        raise TypeError("not a number")

    monkeypatch.setattr(store, "claim", defective)
    sending = NotificationSender({"t": lane(store, sender, clock)})
    sending.wake()
    assert met.wait(PATIENCE)
    until = monotonic() + PATIENCE
    while not sending.problems:
        assert monotonic() < until
    assert sending.problems == ("notify t failed and is repeated: TypeError: not a number",)
    over.set()
    assert sender.done.wait(PATIENCE)
    assert sending.drain(PATIENCE)
    assert sending.problems == ()


def test_a_single_failing_message_is_retried_itself(store: SqlStore, clock: VirtualClock) -> None:
    """There is no other message to try instead."""
    waiting(store, ["m1"])
    sender = Scripted("down")
    work = lane(store, sender, clock)
    asyncio.run(through(work, clock, 400.0))
    assert set(sender.attempts) == {"m1"}
    assert len(sender.attempts) >= 14
    assert (work.problem or "").startswith("notifications to t have failed since")


def test_a_webhook_that_is_down_for_a_minute_loses_nothing_and_gets_nothing_twice(
    store: SqlStore, clock: VirtualClock
) -> None:
    """No server listens for sixty seconds of the runner's time; then the first arrives, and what waited as one."""
    webhook = Webhook(free_port())
    waiting(store, NAMES)
    work = lane(store, apprise_sender(webhook), clock)
    asyncio.run(through(work, clock, 60.0))
    (oldest,) = store.outbox()
    assert oldest.pending == 5
    assert (oldest.error or "").startswith("127.0.0.1:"), "the cause before what was tried"
    with webhook.listening():
        asyncio.run(through(work, clock, 60.0))
    assert webhook.ids == ["m1", "m2-and-others"]
    assert all(name in webhook.bodies[1]["message"] for name in NAMES[1:])
    assert webhook.bodies[0]["title"] == "[page] m1"
    assert webhook.bodies[0]["message"] == "body of m1\n\nnotification m1"
    assert {each.state for each in store.deliveries(10)} == {"delivered"}


def test_a_webhook_that_goes_down_and_comes_back_gets_everything_once(store: SqlStore, clock: VirtualClock) -> None:
    """Real sockets, down and up again between messages: each arrives once."""
    webhook = Webhook(free_port())
    work = lane(store, apprise_sender(webhook), clock)
    for number, name in enumerate(NAMES):
        waiting(store, [name])
        asyncio.run(through(work, clock, 5.0))
        if number % 2:
            with webhook.listening():
                asyncio.run(through(work, clock, 60.0))
    with webhook.listening():
        asyncio.run(through(work, clock, 60.0))
    assert webhook.ids == NAMES


def test_a_webhook_that_answers_500_is_retried_until_it_accepts(store: SqlStore, clock: VirtualClock) -> None:
    """After three refusals the same message is sent a fourth time, then the others as one; each arrives once."""
    webhook = Webhook(free_port())
    webhook.refusals = 3
    waiting(store, NAMES)
    with webhook.listening():
        asyncio.run(through(lane(store, apprise_sender(webhook), clock), clock, 60.0))
    assert (webhook.refused, webhook.ids) == (3, ["m1", "m2-and-others"])
    assert [each.attempts for each in store.deliveries(10)] == [1, 1, 1, 1, 4]


def test_a_webhook_that_never_answers_may_get_a_message_twice_with_the_same_id(
    store: SqlStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Received, but not answered in time: whether it arrived is unknown, so it is sent again with the same id."""
    monkeypatch.setattr(apprise_target, "TIMEOUT", 0.2)
    webhook = Webhook(free_port())
    webhook.silent = True
    waiting(store, ["m1"])
    work = lane(store, apprise_sender(webhook), clock)
    with webhook.listening():
        assert work.step() == 1
        assert "no complete answer within 0.2 s" in (store.deliveries(1)[0].error or "")
        assert (work.problem or "").startswith("notifications to t stall: no complete answer"), "at once"
        webhook.silent = False
        asyncio.run(clock.sleep(1.0))
        assert work.step() == 0
    assert webhook.ids == ["m1", "m1"]
    assert (store.deliveries(1)[0].state, store.deliveries(1)[0].attempts) == ("delivered", 2)


class StoreThatFailsToSettle:
    """A store that fails to mark sent messages, `failures` times."""

    def __init__(self, store: SqlStore, failures: int) -> None:
        self._store = store
        self.failures = failures

    def settle(self, message: str, at: int, error: str | None, **due: int) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("the store did not take it: database is locked")
        self._store.settle(message, at, error, **due)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_a_sent_message_that_could_not_be_marked_is_not_sent_again(store: SqlStore, clock: VirtualClock) -> None:
    """Nothing more is sent until the store accepts the mark; then the next message follows."""
    waiting(store, ["m1", "m2"])
    sender = Scripted()
    work = TargetDelivery("t", sender, StoreThatFailsToSettle(store, 3), clock, HOUR)  # type: ignore[arg-type]  # the rest is the store's
    work.step()
    assert "wait for the store" in (work.problem or "")
    asyncio.run(through(work, clock, 60.0))
    assert sender.attempts == ["m1", "m2"]
    assert work.problem is None


def test_messages_that_could_not_be_delivered_in_time_expire_and_are_reported(
    store: SqlStore, clock: VirtualClock
) -> None:
    """After an hour the old messages are no longer tried; that is a problem until the target accepts a message."""
    waiting(store, ["m1", "m2"])
    sender = Scripted("refused")
    work = lane(store, sender, clock, give_up_after=HOUR)
    asyncio.run(through(work, clock, 301.0))
    assert work.problem == "notifications to t have failed since 2021-05-19T12:00:00Z: refused"
    asyncio.run(through(work, clock, 3700.0))
    assert {(each.state, each.error) for each in store.deliveries(10)} == {("given_up", "refused")}
    assert work.problem == (
        "notifications to t were given up, because it accepted none for 1h: refused; `ksctl status` counts them"
    )
    assert work.counts.given_up == 2
    waiting(store, ["m3"], at=clock.now())
    sender.error = None
    asyncio.run(through(work, clock, 60.0))
    assert (sender.taken, work.problem) == (["m3"], None)


def test_a_run_of_months_prunes_old_deliveries(store: SqlStore, clock: VirtualClock) -> None:
    """A message a day for 100 days in one run: those of the last 30 days are kept, and one or two more."""
    work = lane(store, Scripted(), clock)
    for day in range(100):
        waiting(store, [f"m{day}"], at=clock.now())
        asyncio.run(through(work, clock, 60.0))
        asyncio.run(clock.sleep(24 * 3600.0))
    assert 30 <= len(store.deliveries(200)) <= 32


def test_an_unexpected_error_of_a_target_is_a_failure_like_any_other(store: SqlStore, clock: VirtualClock) -> None:
    """Its text is not recorded, because it was not checked for secrets."""

    class Broken:
        def send(self, message: Message) -> None:
            raise RuntimeError("token=hunter2")

    waiting(store, ["m1"])
    assert lane(store, Broken(), clock).step() == 1
    assert store.deliveries(1)[0].error == "unexpected RuntimeError"


class HangingSender:
    """Receives a message and does not return until it is released."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()
        self.attempts: list[str] = []

    def send(self, message: Message) -> None:
        self.attempts.append(message.id)
        self.reached.set()
        assert self.released.wait(PATIENCE)


class CountingSender(Scripted):
    """Sets `done` when all expected messages have arrived."""

    def __init__(self, expected: int) -> None:
        super().__init__()
        self.done = threading.Event()
        self._expected = expected

    def send(self, message: Message) -> None:
        super().send(message)
        if len(self.taken) == self._expected:
            self.done.set()


def test_a_hanging_target_delays_no_other_target_and_no_stop(
    store: SqlStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others get all their messages, the running attempt is a problem, and a stop does not wait for it."""
    monkeypatch.setattr(sending_module, "ATTEMPT_WITHIN", 0.05)
    waiting(store, NAMES, target="hangs")
    waiting(store, [f"other-{name}" for name in NAMES], target="works")
    hanging, counting = HangingSender(), CountingSender(5)
    sending = NotificationSender(
        {"hangs": lane(store, hanging, clock, target="hangs"), "works": lane(store, counting, clock, target="works")}
    )
    sending.wake()
    assert hanging.reached.wait(PATIENCE)
    assert counting.done.wait(PATIENCE)
    until = monotonic() + PATIENCE
    while sending.deliveries["hangs"].problem is None:
        assert monotonic() < until
    assert sending.deliveries["hangs"].problem == (
        "notifications to hangs stall: it neither accepted nor refused a message within 0.05 s"
    )
    assert sending.drain(PATIENCE) in (True, False), "whether its thread has ended by then or not"
    assert monotonic() < until
    hanging.released.set()
    assert {each.target: each.pending for each in store.outbox()} == {"hangs": 5, "works": 0}


def test_messages_for_a_hanging_target_expire_in_time(
    store: SqlStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most three hanging attempts are abandoned; the other waiting messages still expire."""
    monkeypatch.setattr(sending_module, "ATTEMPT_WITHIN", 0.05)
    waiting(store, NAMES)
    hanging = HangingSender()
    work = lane(store, hanging, clock, give_up_after=HOUR)
    try:
        asyncio.run(through(work, clock, 1800.0))
        assert hanging.attempts == NAMES[:MOST_ABANDONED], "none of them twice while it hangs"
        assert "stall" in (work.problem or "")
        asyncio.run(through(work, clock, 3700.0))
        assert {each.state for each in store.deliveries(10)} == {"given_up"}
        assert "were given up" in (work.problem or "")
    finally:
        hanging.released.set()


def test_a_message_accepted_after_its_attempt_was_abandoned_is_not_sent_again(
    store: SqlStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that recovers has written the message: it counts as delivered, and the next follows."""
    monkeypatch.setattr(sending_module, "ATTEMPT_WITHIN", 0.05)
    waiting(store, ["m1", "m2"])
    hanging = HangingSender()
    work = lane(store, hanging, clock)
    work.step()
    monkeypatch.setattr(sending_module, "ATTEMPT_WITHIN", PATIENCE)
    hanging.released.set()
    until = monotonic() + PATIENCE
    while {each.message.id: each.state for each in store.deliveries(10)}["m1"] != "delivered":
        work.step()
        assert monotonic() < until
    asyncio.run(through(work, clock, 60.0))
    assert hanging.attempts == ["m1", "m2"]
    assert {each.state for each in store.deliveries(10)} == {"delivered"}
    assert (work.problem, work.counts.delivered) == (None, 2)


def test_the_message_of_a_stage_overtakes_notices(store: SqlStore, clock: VirtualClock) -> None:
    """A flood of notices delays no page of a stage; messages of equal rank keep their order."""
    waiting(store, ["n1", "n2"], event="notice", policy="runner")
    waiting(store, ["w1"], event="notice", severity="warning")
    waiting(store, ["f1"])
    waiting(store, ["n3"], event="notice", policy="runner")
    waiting(store, ["r1"], event="residual")
    waiting(store, ["p1"], event="notice")
    waiting(store, ["c1"], event="closed", severity="info")
    waiting(store, ["f2"], body='it said \'","event":"notice","severity":"page","policy":"runner"\'')
    sender = Scripted()
    asyncio.run(through(lane(store, sender, clock), clock, 60.0))
    assert sender.taken == ["f1", "r1", "p1", "c1", "f2", "n1", "n2", "w1", "n3"]


def test_a_stop_sends_the_messages_that_can_be_sent_at_once(store: SqlStore, clock: VirtualClock) -> None:
    """A message from just before the stop is still sent, and a target that is down is not awaited."""
    waiting(store, NAMES)
    waiting(store, ["d1"], target="down")
    sender = Scripted()
    down = lane(store, Scripted("refused"), clock, target="down")
    sending = NotificationSender({"t": lane(store, sender, clock), "down": down})
    sending.wake()
    assert sending.drain(PATIENCE) is True
    assert sender.taken == NAMES
    assert {each.target: each.pending for each in store.outbox()} == {"t": 0, "down": 1}


def test_a_run_that_lost_its_lease_sends_nothing_more(store: SqlStore, clock: VirtualClock, tmp_path: Path) -> None:
    """The messages belong to the next holder of the lease: the thread of the old one ends silently."""
    waiting(store, NAMES)
    store.fence(store.acquire("old", 0, 10).generation)
    other = open_store(str(tmp_path / "store.sqlite"))
    other.acquire("new", 20, 10)
    other.close()
    sender = Scripted()
    with pytest.raises(FencedError):
        lane(store, sender, clock).step()
    sending = NotificationSender({"t": lane(store, sender, clock)})
    sending.wake()
    assert sending.drain(PATIENCE) is True
    assert sender.attempts == []


def test_a_target_that_is_dead_for_a_day_keeps_no_more_in_memory(store: SqlStore, clock: VirtualClock) -> None:
    """Messages that fail are claimed again from the store: what the lane remembers does not grow with them."""
    delivery = lane(store, Scripted("down"), clock, give_up_after=HOUR // 10)
    for number in range(60):
        waiting(store, [f"m{number}"], at=clock.now())
        asyncio.run(through(delivery, clock, 400))
    gc.collect()
    assert sum(isinstance(each, Delivery) for each in gc.get_objects()) <= 3
