"""Sending from the outbox: order, pauses, giving up, and what a webhook gets when it is down, refuses or hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from killswitch.incident.notify import apprise_target
from killswitch.incident.notify import delivery as sending_module
from killswitch.incident.notify.apprise_target import AppriseSender
from killswitch.incident.notify.delivery import MOST_ABANDONED, NotificationSender, TargetDelivery
from killswitch.incident.notify.message import Message
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.instant import HOUR
from killswitch.store.errors import FencedError, StoreError
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.outboxes import START, Scripted, lane, through, waiting
from tests.webhooks import Webhook, free_port

# Apprise imports the `imghdr` of Python 3.11 and 3.12 where it is there.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

NAMES = ["m1", "m2", "m3", "m4", "m5"]
PATIENCE = 60.0
"""Seconds until a wait for another thread is a failure."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    made = open_store(str(tmp_path / "store.sqlite"))
    yield made
    made.close()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


def to(webhook: Webhook) -> AppriseSender:
    return AppriseSender("env:URL", lambda: f"json://127.0.0.1:{webhook.port}/", lambda _: str)


def test_messages_leave_in_the_order_in_which_they_came(store: SqlStore, clock: VirtualClock) -> None:
    """Each is marked before the next one is taken, and nothing is sent once nothing waits."""
    waiting(store, NAMES)
    sender = Scripted()
    work = lane(store, sender, clock)
    assert [work.step() for _ in range(6)] == [0, 0, 0, 0, 0, None]
    assert sender.taken == NAMES
    assert {each.state for each in store.deliveries(10)} == {"delivered"}
    assert (work.counts.pending, work.counts.delivered) == (0, 5)


def test_a_target_that_is_down_is_asked_ever_more_seldom_with_its_oldest_message(
    store: SqlStore, clock: VirtualClock
) -> None:
    """Pauses of 1, 2, 4 … 30 seconds, of the target and not of each message; new messages do not shorten them."""
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


def test_a_message_that_is_never_taken_holds_up_no_page_behind_it_for_long(
    store: SqlStore, clock: VirtualClock
) -> None:
    """After eight attempts in vain the next one is tried, and taken: the rest follows in order, all within 150 seconds.

    The first is asked for again each minute, and told as a problem until it is taken.
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


def test_a_target_that_is_down_for_long_gets_everything_in_order_all_the_same(
    store: SqlStore, clock: VirtualClock
) -> None:
    """Now and then the second message is tried, in vain too: so it is the target, and the first stays the first."""
    waiting(store, NAMES)
    sender = Scripted("down")
    work = lane(store, sender, clock)
    asyncio.run(through(work, clock, 1500.0))
    assert set(sender.attempts) == {"m1", "m2"}
    assert sender.attempts.count("m1") > 7 * sender.attempts.count("m2")
    sender.error = None
    asyncio.run(through(work, clock, 120.0))
    assert sender.taken == NAMES


def test_a_target_that_comes_back_at_the_very_attempt_that_doubts_gets_the_first_message_next(
    store: SqlStore, clock: VirtualClock
) -> None:
    """The second message was tried instead of the first, and taken: the first follows at once, not a minute later."""
    waiting(store, NAMES)
    sender = Scripted("down")
    work = lane(store, sender, clock)
    while len(sender.attempts) < 8:
        asyncio.run(clock.sleep(work.step() or 0.0))
    sender.error = None
    assert [work.step() for _ in NAMES] == [0] * 5
    assert sender.taken == ["m2", "m1", "m3", "m4", "m5"]
    assert work.problem is None


def test_a_single_message_that_fails_is_its_own_next(store: SqlStore, clock: VirtualClock) -> None:
    """Where there is no other to try, it is tried itself."""
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
    """Nothing listens for sixty seconds of the runner's time; then everything arrives, once, in order."""
    webhook = Webhook(free_port())
    waiting(store, NAMES)
    work = lane(store, to(webhook), clock)
    asyncio.run(through(work, clock, 60.0))
    (oldest,) = store.outbox()
    assert oldest.pending == 5
    assert (oldest.error or "").startswith("127.0.0.1:"), "the cause before what was tried"
    with webhook.listening():
        asyncio.run(through(work, clock, 60.0))
    assert webhook.ids == NAMES
    assert webhook.bodies[0]["title"] == "[page] m1"
    assert webhook.bodies[0]["message"] == "body of m1\n\nnotification m1"
    assert {each.state for each in store.deliveries(10)} == {"delivered"}


def test_a_webhook_that_goes_down_and_comes_back_gets_everything_once(store: SqlStore, clock: VirtualClock) -> None:
    """Real sockets, down and up again between messages: each arrives once."""
    webhook = Webhook(free_port())
    work = lane(store, to(webhook), clock)
    for number, name in enumerate(NAMES):
        waiting(store, [name])
        asyncio.run(through(work, clock, 5.0))
        if number % 2:
            with webhook.listening():
                asyncio.run(through(work, clock, 60.0))
    with webhook.listening():
        asyncio.run(through(work, clock, 60.0))
    assert webhook.ids == NAMES


def test_a_webhook_that_answers_500_is_asked_again_until_it_takes_it(store: SqlStore, clock: VirtualClock) -> None:
    """Three refusals: the same message a fourth time, then the others; nobody gets a refused one twice."""
    webhook = Webhook(free_port())
    webhook.refusals = 3
    waiting(store, NAMES)
    with webhook.listening():
        asyncio.run(through(lane(store, to(webhook), clock), clock, 60.0))
    assert (webhook.refused, webhook.ids) == (3, NAMES)
    assert [each.attempts for each in store.deliveries(10)] == [1, 1, 1, 1, 4]


def test_a_webhook_that_never_answers_may_get_a_message_twice_with_the_same_id(
    store: SqlStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken, and no answer within the time: whether it arrived is unknown, so it is sent again under its old id."""
    monkeypatch.setattr(apprise_target, "TIMEOUT", 0.2)
    webhook = Webhook(free_port())
    webhook.silent = True
    waiting(store, ["m1"])
    work = lane(store, to(webhook), clock)
    with webhook.listening():
        assert work.step() == 1
        assert "no complete answer within 0.2 s" in (store.deliveries(1)[0].error or "")
        assert (work.problem or "").startswith("notifications to t stall: no complete answer"), "at once"
        webhook.silent = False
        asyncio.run(clock.sleep(1.0))
        assert work.step() == 0
    assert webhook.ids == ["m1", "m1"]
    assert (store.deliveries(1)[0].state, store.deliveries(1)[0].attempts) == ("delivered", 2)


class Forgetful:
    """A store that fails to mark what was sent, as often as told."""

    def __init__(self, store: SqlStore, failures: int) -> None:
        self._store = store
        self.failures = failures

    def settle(self, message: str, at: int, error: str | None) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("the store did not take it: database is locked")
        self._store.settle(message, at, error)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_what_was_sent_and_could_not_be_marked_is_not_sent_again(store: SqlStore, clock: VirtualClock) -> None:
    """While the store takes no mark nothing more is sent; once it does, the next message follows."""
    waiting(store, ["m1", "m2"])
    sender = Scripted()
    work = TargetDelivery("t", sender, Forgetful(store, 3), clock, HOUR)  # type: ignore[arg-type]  # the rest is the store's
    work.step()
    assert "wait for the store" in (work.problem or "")
    asyncio.run(through(work, clock, 60.0))
    assert sender.attempts == ["m1", "m2"]
    assert work.problem is None


def test_what_could_not_be_delivered_in_time_is_given_up_and_told(store: SqlStore, clock: VirtualClock) -> None:
    """After an hour nothing of the old is tried any more; that is a problem until the target takes something."""
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


def test_a_run_of_months_forgets_what_was_settled_long_ago(store: SqlStore, clock: VirtualClock) -> None:
    """A message a day for 100 days, in one run: those of the last 30 days are remembered, and one or two more."""
    work = lane(store, Scripted(), clock)
    for day in range(100):
        waiting(store, [f"m{day}"], at=clock.now())
        asyncio.run(through(work, clock, 60.0))
        asyncio.run(clock.sleep(24 * 3600.0))
    assert 30 <= len(store.deliveries(200)) <= 32


def test_a_defect_of_one_target_is_a_failure_like_another(store: SqlStore, clock: VirtualClock) -> None:
    """Its words are not repeated, because nobody has looked through them for secrets."""

    class Broken:
        def send(self, message: Message) -> None:
            raise RuntimeError("token=hunter2")

    waiting(store, ["m1"])
    assert lane(store, Broken(), clock).step() == 1
    assert store.deliveries(1)[0].error == "unexpected RuntimeError"


class Hanging:
    """Takes a message and does not come back until it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.let_go = threading.Event()
        self.asked: list[str] = []

    def send(self, message: Message) -> None:
        self.asked.append(message.id)
        self.reached.set()
        assert self.let_go.wait(PATIENCE)


class Telling(Scripted):
    """Says when everything has come."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.done = threading.Event()
        self._wanted = wanted

    def send(self, message: Message) -> None:
        super().send(message)
        if len(self.taken) == self._wanted:
            self.done.set()


def test_a_target_that_hangs_holds_up_no_other_and_no_stop(
    store: SqlStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others get all of theirs, an attempt that goes on is a problem, and a stop does not wait for it."""
    monkeypatch.setattr(sending_module, "ATTEMPT_WITHIN", 0.05)
    waiting(store, NAMES, target="hangs")
    waiting(store, [f"other-{name}" for name in NAMES], target="works")
    hanging, telling = Hanging(), Telling(5)
    sending = NotificationSender(
        {"hangs": lane(store, hanging, clock, target="hangs"), "works": lane(store, telling, clock, target="works")}
    )
    sending.wake()
    assert hanging.reached.wait(PATIENCE)
    assert telling.done.wait(PATIENCE)
    until = monotonic() + PATIENCE
    while sending.deliveries["hangs"].problem is None:
        assert monotonic() < until
    assert sending.deliveries["hangs"].problem == (
        "notifications to hangs stall: it neither accepted nor refused a message within 0.05 s"
    )
    assert sending.drain(PATIENCE) in (True, False), "whether its thread has ended by then or not"
    assert monotonic() < until
    hanging.let_go.set()
    assert {each.target: each.pending for each in store.outbox()} == {"hangs": 5, "works": 0}


def test_what_waits_for_a_target_that_hangs_is_given_up_in_time(
    store: SqlStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempts that hang are left to themselves, three at most; the rest of what waits has its end all the same."""
    monkeypatch.setattr(sending_module, "ATTEMPT_WITHIN", 0.05)
    waiting(store, NAMES)
    hanging = Hanging()
    work = lane(store, hanging, clock, give_up_after=HOUR)
    try:
        asyncio.run(through(work, clock, 1800.0))
        assert hanging.asked == NAMES[:MOST_ABANDONED], "none of them twice while it hangs"
        assert "stall" in (work.problem or "")
        asyncio.run(through(work, clock, 3700.0))
        assert {each.state for each in store.deliveries(10)} == {"given_up"}
        assert "were given up" in (work.problem or "")
    finally:
        hanging.let_go.set()


def test_what_a_target_took_long_after_it_was_left_is_not_sent_again(
    store: SqlStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that comes back has written what it was given: that counts as delivered, and the next follows."""
    monkeypatch.setattr(sending_module, "ATTEMPT_WITHIN", 0.05)
    waiting(store, ["m1", "m2"])
    hanging = Hanging()
    work = lane(store, hanging, clock)
    work.step()
    monkeypatch.setattr(sending_module, "ATTEMPT_WITHIN", PATIENCE)
    hanging.let_go.set()
    for future in tuple(work._abandoned.values()):
        future.result(PATIENCE)
    asyncio.run(through(work, clock, 60.0))
    assert hanging.asked == ["m1", "m2"]
    assert {each.state for each in store.deliveries(10)} == {"delivered"}
    assert (work.problem, work.counts.delivered) == (None, 2)


def test_what_fired_overtakes_what_the_program_says_of_itself(store: SqlStore, clock: VirtualClock) -> None:
    """A flood of notices holds up no page of a stage; among equals the order stays."""
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


def test_a_stop_sends_what_can_be_sent_at_once(store: SqlStore, clock: VirtualClock) -> None:
    """What came just before the stop still leaves, and a target that is down is not waited for."""
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
    """The next holder's messages are its own: the thread of the old one ends without a word."""
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
