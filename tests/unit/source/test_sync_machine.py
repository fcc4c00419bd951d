"""Whatever a source answers, whenever: nothing is taken that was not reviewed against the set in force, no loosening
without approvals and delay, and after any bad input the next honest head is taken."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from killswitch.model.applied_set import ChangeClass
from killswitch.source.candidate import SourceAnswer
from killswitch.source.sync import answered, applied, commanded, declined, passed, restored, reviewed
from killswitch.source.sync_decision import condition, decide
from killswitch.source.sync_state import Restore, SourceCommand, Stay, Take, Wait, decode_source, encode_source
from tests.unit.source.sync_cases import (
    DELAYED,
    HOUR,
    RULES,
    approval,
    candidate,
    digest,
    in_force,
    problem,
    review,
)

TEXTS = ("one", "two", "three", "four")
BAD = (
    SourceAnswer(problems=(problem("KS8001", page=False),)),
    SourceAnswer(problems=(problem("KS8101"),)),
    SourceAnswer(progress="not yet"),
    SourceAnswer(candidate=replace(candidate("one", "x7"), files=())),
    SourceAnswer(candidate=replace(candidate("two", "x7"), steps=())),
)
REDUCING = ("TIGHTENING", "EQUIVALENT")
NUMBERS = st.none() | st.integers(1, 2)
"""The number of the approval that a review finds, if any: few, so that one that is spent comes again."""
CLASSES = st.sampled_from(["TIGHTENING", "LOOSENING", "EQUIVALENT", "NEITHER", "UNDECIDED"])


class SourceMachine(RuleBasedStateMachine):
    """A source with its host, reviewer, operator and clock; the machine keeps its own record of what may be taken."""

    def __init__(self) -> None:
        super().__init__()
        self.demanded = DELAYED
        self.text, self.number = "one", 1
        self.known = [in_force("one", "c1")]
        self.state = restored(None, "desk", self.known[0])
        self.clock = 0
        self.judged: tuple[str, str, ChangeClass, bool, bool] | None = None
        """Of the last review that was about head and set in force: both, class, approved, with problems."""
        self.waited = 0
        """Time since the last review that was approved followed one that was not, for this head and base."""
        self.given: set[str] = set()
        self.counter = 0

    @initialize(is_delayed=st.booleans())
    def configure(self, is_delayed: bool) -> None:
        """The configuration of the runner."""
        self.demanded = DELAYED if is_delayed else RULES

    def honest(self, text: str) -> None:
        """The next commits of an honest history, with this text at their end."""
        first = int(str(self.state.commit)[1:]) + 1
        self.number += 2
        commits = [f"c{number}" for number in range(first, self.number + 1)]
        before = self.state.head
        self.state = answered(self.state, SourceAnswer(candidate=candidate(text, *commits)), self.clock)
        is_same = before is not None and (before.folder_digest, before.base) == (digest(text), digest(self.text))
        if not is_same or before is None or before.commit != commits[-1]:
            self.judged = None
            self.waited = self.waited if is_same else 0

    def judge(self, verdict: ChangeClass, number: int | None, *, is_broken: bool = False) -> None:
        """A review of the head against the set in force, with the approval of that number."""
        head = self.state.head
        assert head is not None
        approvals = () if number is None else (approval("ann", id_=f"id {number}"),)
        problems = (problem("KS2001", page=False),) if is_broken else ()
        found = review(verdict, *approvals, needed=1, problems=problems)
        self.state = reviewed(self.state, head.folder_digest, digest(self.text), found, self.clock)
        if head.base != digest(self.text):
            return
        is_approved = number is not None and f"id {number}" not in self.given
        counts = is_approved or verdict in REDUCING
        self.waited = self.waited if counts else 0
        self.judged = (head.folder_digest, digest(self.text), verdict, is_approved, is_broken)

    @rule(text=st.sampled_from(TEXTS), verdict=CLASSES, numbers=st.tuples(NUMBERS, NUMBERS), hours=st.integers(0, 9),
          is_refused=st.booleans())  # fmt: skip
    def change(
        self, text: str, verdict: ChangeClass, numbers: tuple[int | None, int | None], hours: int, is_refused: bool
    ) -> None:
        """What is meant to happen, or nearly: a push, a review, a wait of up to 4.5 h, another review, a take."""
        self.suspend("resume")
        self.honest(text)
        assert self.state.problems == ()
        self.judge(verdict, numbers[0])
        self.pass_time(hours * HOUR // 2)
        if numbers[1] is not None:
            self.judge(verdict, numbers[1])
        if isinstance(decide(self.state, self.demanded), Take):
            self.take(is_refused)

    @rule(text=st.sampled_from(TEXTS))
    def push(self, text: str) -> None:
        """Somebody pushes, and the runner polls."""
        self.honest(text)

    @rule(bad=st.sampled_from(BAD))
    def be_bad(self, bad: SourceAnswer) -> None:
        """The host, a thief or an editor at work."""
        self.state = answered(self.state, bad, self.clock)
        assert not isinstance(decide(self.state, self.demanded), Take | Stay)

    @precondition(lambda self: self.state.head is not None)
    @rule(verdict=CLASSES, number=NUMBERS, is_broken=st.booleans())
    def review_it(self, verdict: ChangeClass, number: int | None, is_broken: bool) -> None:
        """The review child answers."""
        self.judge(verdict, number, is_broken=is_broken)

    @rule(text=st.sampled_from(TEXTS), base=st.sampled_from(TEXTS))
    def review_another(self, text: str, base: str) -> None:
        """A review that was under way while something else was taken: it must not count."""
        head = self.state.head
        if head is None or (digest(text), base) != (head.folder_digest, self.text):
            after = reviewed(self.state, digest(text), digest(base), review("TIGHTENING"), self.clock)
            assert after == self.state

    @rule(micros=st.integers(-HOUR, 5 * HOUR))
    def pass_time(self, micros: int) -> None:
        """Measured time; a negative one is a defect of a clock, and nothing passes."""
        self.state = passed(self.state, micros)
        head = self.state.head
        counts = self.judged is not None and (self.judged[3] or self.judged[2] in REDUCING)
        if micros > 0 and counts and head is not None:
            self.waited += micros

    @rule(years=st.sampled_from([-1, 1]))
    def set_the_clock(self, years: int) -> None:
        """The wall clock is wrong by a year."""
        self.clock += years * 365 * 24 * HOUR

    @rule()
    def restart(self) -> None:
        """The runner is killed, and starts from its store."""
        last = next(each for each in self.known if each.origin.folder_digest == self.state.in_force)
        self.state = restored(decode_source(encode_source(self.state)), "desk", last)
        assert not isinstance(decide(self.state, self.demanded), Take | Stay)

    @rule(verb=st.sampled_from(["pause", "pin", "resume"]))
    def suspend(self, verb: str) -> None:
        """An operator suspends the source for an hour, or ends that."""
        self.counter += 1
        command = SourceCommand(
            id=f"command {self.counter}", verb="pause" if verb == "pause" else "pin" if verb == "pin" else "resume",
            author="olga", reason="a drill", at=self.clock, lasts=HOUR,
        )  # fmt: skip
        self.state = commanded(self.state, command, self.known)

    @rule(text=st.sampled_from(TEXTS))
    def roll_back(self, text: str) -> None:
        """An operator orders a set that was in force."""
        self.counter += 1
        command = SourceCommand(
            id=f"command {self.counter}", verb="rollback", author="olga", reason="it misfires", at=self.clock,
            lasts=HOUR, digest=f"set of {text}",
        )  # fmt: skip
        self.state = commanded(self.state, command, self.known)
        step = decide(self.state, self.demanded)
        if isinstance(step, Restore):
            earlier = next(each for each in self.known if each.digest == step.policy_digest)
            ordered = replace(earlier, origin=replace(earlier.origin, operator="olga"))
            self.state = applied(self.state, ordered)
            self.text, self.judged, self.waited = earlier.files[0].content.decode(), None, 0

    @precondition(lambda self: isinstance(decide(self.state, self.demanded), Take))
    @rule(is_refused=st.booleans())
    def take(self, is_refused: bool) -> None:
        """The runner takes what may be taken, or refuses it."""
        step, head = decide(self.state, self.demanded), self.state.head
        assert isinstance(step, Take)
        assert head is not None
        assert head.commit is not None
        assert self.state.hold is None
        assert self.judged is not None
        folder, base, verdict, is_approved, is_broken = self.judged
        assert (folder, base, is_broken) == (step.folder_digest, digest(self.text), False)
        assert not self.given & {each.id for each in step.approvals}
        if verdict not in REDUCING:
            assert is_approved
            assert self.waited >= self.demanded.loosening_after
        if is_refused:
            self.state = declined(self.state, folder, (problem("KS8245", page=False),), self.clock)
            self.judged = None
            return
        self.given |= {each.id for each in step.approvals}
        self.text = next(text for text in TEXTS if digest(text) == folder)
        now = in_force(self.text, head.commit, step.approvals)
        self.known = [now, *(each for each in self.known if each.digest != now.digest)]
        self.state, self.judged, self.waited = applied(self.state, now), None, 0

    @invariant()
    def an_honest_tightening_is_taken_without_a_hand(self) -> None:
        """Tried from here, and not kept: whatever has happened, unless an operator has suspended the source."""
        if self.state.hold is not None:
            return
        line = [f"c{number}" for number in range(1, self.number + 20)]
        begin = line.index(str(self.state.commit)) + 1
        following = candidate("new", *line[begin:])
        after = answered(self.state, SourceAnswer(candidate=following), self.clock)
        after = reviewed(after, digest("new"), digest(self.text), review("TIGHTENING"), self.clock)
        assert isinstance(decide(after, self.demanded), Take), (decide(after, self.demanded), after.problems)

    @invariant()
    def a_suspended_source_is_never_synced(self) -> None:
        """And what waits has no problem that nobody sees."""
        found = condition(self.state, self.demanded, self.clock)
        if self.state.hold is not None:
            assert found.sync == "out of sync"
        if (
            isinstance(decide(self.state, self.demanded), Wait | Stay)
            and not self.state.problems
            and found.culprit is None
        ):
            assert found.health == "healthy"


TestSourceMachine = SourceMachine.TestCase
TestSourceMachine.settings = settings(max_examples=300, stateful_step_count=25)
