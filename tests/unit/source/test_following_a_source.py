"""A run that follows a source: what is polled, reviewed and proposed, with a runner and children of the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import replace

from killswitch.accounts.next_set import NextSet
from killswitch.accounts.opening import LoadedPolicies, compiled
from killswitch.model.applied_set import AppliedSet, PolicyFile, PolicyOrigin, folder_digest
from killswitch.model.snapshot import Snapshot
from killswitch.operations.policy_sources import result_of, send_command, source_status
from killswitch.policy.kinds import TESTS
from killswitch.policy.loader import load_texts
from killswitch.runner.clock import SystemClock
from killswitch.runner.hot_reload import ReloadAnswer
from killswitch.runner.observers import TickReport
from killswitch.runner.sources.policy_source import PolicySource, SourceAccess, SourceRun
from killswitch.source import sync_decision
from killswitch.source.candidate import ArrivalFiring, Candidate, Review, ReviewRequest, SourceAnswer, SourceProblem
from killswitch.source.poller import PollResult, SourcePoller
from killswitch.source.polling import SourceSettings
from killswitch.source.sync import restored
from killswitch.source.sync_state import CommandVerb, SourceState, decode_source
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests import worlds
from tests.e2e.processes import POLICY

WITHIN = 30.0
ACCOUNT = (
    b"apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\n"
    b"spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:1', execution: observe}\n"
)


def files(share: str) -> tuple[PolicyFile, ...]:
    """A policy with this threshold, and its account."""
    return (
        PolicyFile("account.yaml", ACCOUNT),
        PolicyFile("policy.yaml", POLICY.replace("at_least: 2%", f"at_least: {share}").encode()),
    )


def loaded(share: str) -> LoadedPolicies:
    """That folder, compiled."""
    return compiled(load_texts(files(share), without=TESTS), None, files=files(share))


class Held(Struct):
    """A proposal that the test answers."""

    answer: Future[ReloadAnswer]
    proposed: NextSet


class PlayedRunner:
    """Takes, holds or refuses what is proposed, as the test says."""

    def __init__(self, share: str) -> None:
        origin = PolicyOrigin(source="desk", folder_digest=folder_digest(files(share)))
        digest = loaded(share).policies.digest
        self.in_force = AppliedSet(digest=digest, at=worlds.START, program="1", origin=origin, files=files(share))
        self.proposals: list[Held] = []
        self.has_proposal = threading.Event()

    def propose(self, proposed: NextSet, /) -> Held:
        self.proposals.append(Held(Future(), proposed))
        self.has_proposal.set()
        return self.proposals[-1]

    def take(self) -> NextSet:
        """Take the newest proposal."""
        assert self.has_proposal.wait(WITHIN)
        self.has_proposal.clear()
        of = self.proposals[-1]
        digest = of.proposed.loaded.policies.digest
        self.in_force = replace(self.in_force, digest=digest, origin=of.proposed.origin, files=of.proposed.files)
        of.answer.set_result(ReloadAnswer("taken", digest))
        return of.proposed


class PlayedPoller(SourcePoller):
    """Answers polls with what the test has set."""

    def __init__(self, settings: SourceSettings) -> None:
        super().__init__(settings, Path())
        self.answer = SourceAnswer()
        self.polled = threading.Semaphore(0)
        self.goes_on = threading.Event()
        self.goes_on.set()

    def propose(self, share: str) -> None:
        """Propose a folder with this threshold from the next poll on."""
        found = files(share)
        self.answer = SourceAnswer(
            candidate=Candidate(
                source="desk", kind="directory", files=found, folder_digest=folder_digest(found), is_protected=False
            )
        )

    def poll(self, state: SourceState, previous: str | None, now: int) -> PollResult:
        """Answer, as soon as the test lets it go on."""
        self.goes_on.wait(WITHIN)
        self.polled.release()
        return PollResult(self.answer)


class Scene:
    """A source with its poller, reviewer and runner."""

    def __init__(self, folder: Path) -> None:
        self.store: SqlStore = open_store(str(folder / "store.sqlite"), read_only=False)
        settings = SourceSettings(name="desk", kind="directory", file=folder / "source.yaml", poll=20_000)
        self.poller = PlayedPoller(settings)
        self.runner = PlayedRunner("2%")
        self.review: Callable[[ReviewRequest], Review] = lambda _: Review(policy_digest="d", verdict="TIGHTENING")
        clock = SystemClock()
        run = SourceRun(self.store, "", loaded("2%"), clock, clock.monotonic, lambda: 0.0)
        access = SourceAccess(self.poller, lambda request: self.review(request))  # noqa: PLW0108 - replaced by tests
        state = restored(None, "desk", self.runner.in_force)
        self.source = PolicySource(settings, access, run, state)

    def tick(self) -> None:
        """A tick of the run, which only passes on what it has."""
        snapshot = Snapshot(worlds.START, (), "killswitch.snapshot/v1", scheduled=True)
        self.source.ticked(TickReport(snapshot, (), (), (), (), 0.0))

    def until(self, condition: Callable[[], object]) -> None:
        """Tick until the condition is true; each tick lets the thread look once more."""
        for _ in range(int(WITHIN * 100)):
            if condition():
                return
            self.tick()
            self.source.request(lambda _: None)
            self.poller.polled.acquire(timeout=0.05)
        raise AssertionError("it never became true")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    made.source.follow(made.runner)
    yield made
    made.poller.goes_on.set()
    made.source.stop()
    made.store.close()


def test_a_tightening_is_reviewed_against_the_set_in_force_and_proposed(scene: Scene) -> None:
    """The proposal carries where it came from and its class; nothing more is proposed once it is in force."""
    asked: list[ReviewRequest] = []

    def review(request: ReviewRequest) -> Review:
        asked.append(request)
        return Review(policy_digest="d", verdict="TIGHTENING")

    scene.review = review
    scene.poller.propose("1%")
    proposed = scene.runner.take()
    assert (asked[0].base, asked[0].base_digest) == (files("2%"), loaded("2%").policies.digest)
    assert proposed.files == files("1%")
    assert (proposed.origin.source, proposed.origin.verdict) == ("desk", "TIGHTENING")
    scene.until(lambda: scene.source.condition.sync == "synced")
    assert len(scene.runner.proposals) == 1


def test_a_tick_passes_by_a_poll_that_hangs(scene: Scene) -> None:
    """Structure, not time: ticks complete, and pass on a command, while the poll is blocked."""
    scene.poller.goes_on.clear()
    scene.source.request(lambda _: None)
    for _ in range(20):
        scene.tick()
    send_command(scene.store, "pause", "olga", "the host moves", worlds.START, lasts=3600.0)
    scene.tick()
    scene.poller.goes_on.set()
    scene.until(lambda: scene.source.condition.hold is not None)


def test_what_the_runner_refuses_is_a_problem_and_the_next_set_is_proposed(scene: Scene) -> None:
    """With its text (KS8245), and not proposed in a loop."""
    scene.poller.propose("1%")
    assert scene.runner.has_proposal.wait(WITHIN)
    scene.runner.has_proposal.clear()
    scene.runner.proposals[-1].answer.set_result(ReloadAnswer("refused", "d", ("policy stop was renamed",)))
    scene.until(lambda: scene.source.condition.culprit is not None)
    culprit = scene.source.condition.culprit
    assert culprit is not None
    assert (culprit.code, "policy stop was renamed" in culprit.text) == ("KS8245", True)
    assert len(scene.runner.proposals) == 1
    scene.poller.propose("0.5%")
    scene.until(scene.runner.has_proposal.is_set)
    assert scene.runner.take().files == files("0.5%")


def test_r7_a_held_set_waits_and_is_seen_once_it_is_in_force(scene: Scene) -> None:
    """The runner takes it by itself when the close is over."""
    scene.poller.propose("1%")
    assert scene.runner.has_proposal.wait(WITHIN)
    held = scene.runner.proposals[-1]
    held.answer.set_result(ReloadAnswer("held", "d", ("decision 7 is closing",)))
    scene.until(lambda: scene.source.condition.wait is not None and scene.source.condition.wait.what == "close")
    digest = held.proposed.loaded.policies.digest
    scene.runner.in_force = replace(
        scene.runner.in_force, digest=digest, origin=held.proposed.origin, files=held.proposed.files
    )
    scene.until(lambda: scene.source.condition.sync == "synced")


def test_a_pause_withdraws_a_set_that_is_held(scene: Scene) -> None:
    """Else it would be taken while the source is suspended: the set in force is proposed again, and supersedes it."""
    scene.poller.propose("1%")
    assert scene.runner.has_proposal.wait(WITHIN)
    scene.runner.proposals[-1].answer.set_result(ReloadAnswer("held", "d", ("decision 7 is closing",)))
    scene.until(lambda: scene.source.condition.wait is not None and scene.source.condition.wait.what == "close")
    send_command(scene.store, "pause", "olga", "a drill", worlds.START, lasts=3600.0)
    scene.until(lambda: scene.source.condition.hold is not None)
    scene.until(lambda: len(scene.runner.proposals) > 1)
    assert scene.runner.proposals[-1].proposed.files == files("2%")


def head_moves_back(scene: Scene) -> None:
    scene.poller.propose("2%")


def head_is_forged(scene: Scene) -> None:
    bad = SourceProblem(code="KS8104", text="no signature", fix="sign it", is_page=True, commit="c2")
    scene.poller.answer = SourceAnswer(problems=(bad,))


@pytest.mark.parametrize("change", [head_moves_back, head_is_forged])
def test_a_set_that_is_held_is_withdrawn_once_its_grounds_are_gone(
    scene: Scene, change: Callable[[Scene], None]
) -> None:
    """Else the runner would take it by itself at the end of the close: the set in force supersedes it, once."""
    scene.poller.propose("1%")
    assert scene.runner.has_proposal.wait(WITHIN)
    scene.runner.proposals[-1].answer.set_result(ReloadAnswer("held", "d", ("decision 7 is closing",)))
    scene.until(lambda: scene.source.condition.wait is not None and scene.source.condition.wait.what == "close")
    change(scene)
    scene.until(lambda: len(scene.runner.proposals) > 1)
    assert scene.runner.proposals[-1].proposed.files == files("2%")
    for _ in range(5):
        scene.tick()
        scene.source.request(lambda _: None)
        assert scene.poller.polled.acquire(timeout=WITHIN)
    assert len(scene.runner.proposals) == 2


def test_a_held_set_that_would_fire_at_its_first_tick_by_now_is_withdrawn(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A8: it is compared again while the close lasts, and waits for somebody else."""
    scene.poller.propose("1%")
    assert scene.runner.has_proposal.wait(WITHIN)
    fires = ArrivalFiring(policy="stop", scope="account/main", stage="flat", text="flat of stop would fire")
    scene.review = lambda _: Review(policy_digest="d", verdict="TIGHTENING", arrival=(fires,))
    scene.runner.proposals[-1].answer.set_result(ReloadAnswer("held", "d", ("decision 7 is closing",)))
    scene.until(lambda: scene.source.condition.wait is not None and scene.source.condition.wait.what == "close")
    monkeypatch.setattr(sync_decision, "FRESH", 20_000)  # microseconds, instead of a minute
    scene.until(lambda: scene.runner.proposals[-1].proposed.files == files("2%"))


def test_w5_one_alert_for_one_culprit_however_often_it_is_polled(scene: Scene) -> None:
    """The key names it, so that the same one is notified once and another one again."""

    def be_bad(commit: str) -> None:
        bad = SourceProblem(code="KS8101", text="no key", fix="sign it", is_page=True, commit=commit, principal="sam")
        scene.poller.answer = SourceAnswer(problems=(bad,))

    keys: set[str] = set()
    for commit in ("c1", "c2"):
        be_bad(commit)
        scene.until(lambda commit=commit: [it.commit for it in scene.source.state.problems] == [commit])  # type: ignore[misc]  # bound
        for _ in range(10):
            scene.tick()
            found = scene.source.alerts.found
            assert [each.severity for each in found] == ["page"]
            assert f"commit {commit}" in found[0].text
            assert "signed by sam" in found[0].text
            keys.add(found[0].key)
    assert len(keys) == 2


def test_c4_a_folder_without_policies_removes_nothing(scene: Scene) -> None:
    """It compiles, and holds an account only."""
    found = files("1%")[:1]
    scene.poller.answer = SourceAnswer(
        candidate=Candidate(source="desk", kind="directory", files=found, folder_digest=folder_digest(found))
    )
    scene.until(lambda: scene.source.condition.culprit is not None)
    culprit = scene.source.condition.culprit
    assert culprit is not None
    assert culprit.code == "KS8240"
    assert scene.runner.proposals == []


def test_what_is_stored_is_what_is_shown(scene: Scene) -> None:
    """`status` reads the state from the store: sync, health, suspension and its author, the result of a command."""
    command = send_command(scene.store, "pin", "olga", "a freeze", worlds.START, lasts=3600.0, remind=60.0)
    scene.until(lambda: result_of(scene.store, command) is not None)
    result = result_of(scene.store, command)
    assert result is not None
    assert result.is_accepted
    shown = source_status(scene.store, worlds.START)
    assert shown is not None
    assert shown.suspended is not None
    assert (shown.sync, shown.suspended.kind, shown.suspended.author) == ("out of sync", "pin", "olga")
    stored = scene.store.live("policy_source")
    assert stored is not None
    assert decode_source(stored).hold is not None
    (alert,) = (each for each in scene.source.alerts.found if each.key.startswith("source/suspended/"))
    assert "by olga: a freeze" in alert.text


def test_a_pause_that_arrives_during_a_review_is_obeyed_before_the_set_is_taken(scene: Scene) -> None:
    """A review takes up to minutes: what an operator has suspended meanwhile is not proposed after it."""
    is_reviewing, goes_on = threading.Event(), threading.Event()

    def review(_: ReviewRequest) -> Review:
        is_reviewing.set()
        goes_on.wait(WITHIN)
        return Review(policy_digest="d", verdict="TIGHTENING")

    scene.review = review
    scene.poller.propose("1%")
    assert is_reviewing.wait(WITHIN)
    send_command(scene.store, "pause", "olga", "a drill", worlds.START, lasts=3600.0)
    scene.tick()
    goes_on.set()
    scene.until(lambda: scene.source.condition.hold is not None)
    assert scene.runner.proposals == []


def test_commands_between_two_looks_are_obeyed_in_the_order_of_their_times(scene: Scene) -> None:
    """A resume, and a pause a second later: the source is suspended, whatever the order of their names."""
    scene.poller.goes_on.clear()
    scene.source.request(lambda _: None)
    verbs: tuple[CommandVerb, ...] = ("resume", "pause")
    for number, verb in enumerate(verbs):
        send_command(scene.store, verb, "olga", "a drill", worlds.START + timedelta(seconds=number), lasts=3600.0)
    scene.tick()
    scene.poller.goes_on.set()
    scene.until(lambda: len(scene.source.state.results) == 2)
    assert [each.verb for each in scene.source.state.results] == ["resume", "pause"]
    hold = scene.source.condition.hold
    assert hold is not None
    assert hold.kind == "pause"


def test_a_review_of_a_set_that_is_no_longer_in_force_takes_nothing(scene: Scene) -> None:
    """A1: a set that was held is taken by the runner during the review of the next one, against the set before it."""
    is_reviewing, goes_on = threading.Event(), threading.Event()

    def review(request: ReviewRequest) -> Review:
        if request.base == files("2%"):
            is_reviewing.set()
            goes_on.wait(WITHIN)
            return Review(policy_digest="d", verdict="TIGHTENING")
        return Review(policy_digest="d", verdict="LOOSENING", approvals_needed=1)

    scene.review = review
    scene.poller.propose("1%")
    assert is_reviewing.wait(WITHIN)
    origin = PolicyOrigin(source="desk", folder_digest=folder_digest(files("0.5%")))
    scene.runner.in_force = replace(
        scene.runner.in_force, digest=loaded("0.5%").policies.digest, origin=origin, files=files("0.5%")
    )
    goes_on.set()
    scene.until(lambda: scene.source.state.in_force == origin.folder_digest)
    assert all(each.proposed.origin.verdict != "TIGHTENING" for each in scene.runner.proposals)
