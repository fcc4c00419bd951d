"""Running closers beside the ticks: order, isolation, and who may end a run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import pytest

from killswitch.model.decision import Decision, Intent
from killswitch.model.snapshot import AccountSnapshot, Closing, Residual
from killswitch.model.venue import VenueDownError
from killswitch.runner.closing_worker import AT_ONE_INSTANT, DISTRUSTED_PASSES, ClosingWorker
from killswitch.runner.closing_workers import ClosingWorkers
from killswitch.store.errors import StoreError
from tests.worlds import START


def decision(name: str, *accounts: str) -> Decision:
    """A decision that sells one BTC on each of the accounts."""
    intents = tuple(
        Intent(account, "BTC", "long", "sell", Decimal(1), Decimal(0), reduce_only=True, rank=1) for account in accounts
    )
    return Decision(
        id=name, as_of=START, policy="p", policy_set="s", scope="portfolio", mode="enforce", stage="stop", level=1,
        previous_level=0, intents=intents,
    )  # fmt: skip


class Seconds:
    """A clock that is put on by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeCloser:
    """Works off one adopted decision a pass; `errors` are raised by the first passes; `gate` holds a pass up."""

    def __init__(self, errors: Sequence[BaseException] = (), gate: asyncio.Event | None = None) -> None:
        self.errors = list(errors)
        self.gate = gate
        self.adopted: list[str] = []
        self.done: list[str] = []
        self.recovered = 0
        self.in_pass = False
        self.interrupted = False
        self.distrust: str | None = None
        self.passes = 0
        self.stall_notice: str | None = None
        self.wait = 0.0
        self.has_pending_fees = False

    def give_up(self, entry: object) -> None:
        """Nobody gives anything up here."""

    def abandon(self) -> asyncio.Future[object] | None:
        """Nothing is asked beside its passes."""

    async def recover(self) -> None:
        self.recovered += 1
        if self.errors and isinstance(self.errors[0], ConnectionError):
            raise self.errors.pop(0)

    def prepare(self, one: Decision, planned: object) -> None:
        pass

    def adopt(self, one: Decision) -> None:
        self.interrupted |= self.in_pass and self.gate is not None and not self.gate.is_set()
        self.adopted.append(one.id)

    def apply_snapshot(self, account: AccountSnapshot, at: float | None = None) -> None:
        """This one needs no rules."""

    async def advance(self) -> bool:
        self.in_pass = True
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.errors:
                raise self.errors.pop(0)
            self.done += self.adopted[len(self.done) : len(self.done) + 1]
            return len(self.done) < len(self.adopted)
        finally:
            self.in_pass = False

    def progress(self) -> tuple[Closing, ...]:
        return tuple(Closing(name, "flat" if name in self.done else "closing") for name in self.adopted)


def closings(clock: Seconds | None = None, leftover: Sequence[Closing] = (), **closers: FakeCloser) -> ClosingWorkers:
    workers = {name: ClosingWorker(name, closer, leftover, clock or Seconds()) for name, closer in closers.items()}
    return ClosingWorkers(workers)


async def rounds(works: ClosingWorkers, clock: Seconds | None = None, most: int = 50) -> None:
    for _ in range(most):
        await works.advance(1.0)
        if not works.is_working:
            return
        if clock is not None:
            clock.now += 0.1
    raise AssertionError("there is still work")


def test_each_account_gets_the_decisions_that_trade_on_it_after_its_recovery() -> None:
    """A decision over two accounts goes to both closers; one that does not trade there is not handed over."""

    async def story() -> None:
        one, two = FakeCloser(), FakeCloser()
        works = closings(one=one, two=two)
        works.adopt([decision("both", "one", "two"), decision("second", "two"), decision("elsewhere", "three")])
        assert one.adopted == [], "adopted before the recovery"
        await rounds(works)
        assert (one.done, two.done) == (["both"], ["both", "second"])
        assert (one.recovered, two.recovered) == (1, 1)

    asyncio.run(story())


def test_c14_a_pass_that_hangs_keeps_neither_ticks_nor_other_accounts() -> None:
    """C14: the other account closes while one venue does not answer, and no second pass is begun beside it."""

    async def story() -> None:
        gate = asyncio.Event()
        slow, quick = FakeCloser(gate=gate), FakeCloser()
        works = closings(slow=slow, quick=quick)
        works.adopt([decision("both", "slow", "quick")])
        for _ in range(5):
            await works.advance(0.001)
        assert (slow.done, quick.done) == ([], ["both"])
        works.adopt([decision("more", "slow")])
        await works.advance(0.001)
        assert slow.adopted == ["both"], "a decision was handed over in the middle of a pass"
        gate.set()
        await rounds(works)
        assert slow.done == ["both", "more"]
        assert not slow.interrupted

    asyncio.run(story())


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (VenueDownError("maintenance"), "VenueDownError: maintenance"),
        (ZeroDivisionError("a defect"), "unexpected ZeroDivisionError: a defect"),
        (asyncio.CancelledError(), "one of its own calls cancelled it"),
    ],
    ids=["the venue", "a defect", "cancelled from inside"],
)
def test_c16_trouble_in_a_pass_is_told_and_the_pass_tried_again(error: BaseException, says: str) -> None:
    """C16: nothing that goes wrong in closing one account ends the watch, or the closing."""

    async def story() -> None:
        clock, closer = Seconds(), FakeCloser([error])
        works = closings(clock, main=closer)
        works.adopt([decision("one", "main")])
        await works.advance(1.0)
        assert (f"closing on account main is retried after {says}",) == works.troubles
        assert 0 < works.wait < 1, "tried again at once, or not soon"
        await rounds(works, clock)
        assert (closer.done, works.troubles) == (["one"], ())

    asyncio.run(story())


def test_c1_a_closing_that_stands_still_because_it_trusts_nothing_is_told() -> None:
    """After some passes the reason is a trouble; waiting between passes does not count; it ends with the distrust."""

    class Distrusting(FakeCloser):
        waits = False

        async def advance(self) -> bool:
            self.wait = 1.0
            self.passes += not self.waits
            self.distrust = "an empty book with 5 of margin in use" if self.passes <= DISTRUSTED_PASSES else None
            return self.distrust is not None

        async def one_pass(self, works: ClosingWorkers) -> None:
            self.wait = 0.0
            await works.advance(1.0)

    async def story() -> None:
        closer = Distrusting()
        works = closings(main=closer)
        await works.recover(1.0)
        for _ in range(DISTRUSTED_PASSES - 1):
            await closer.one_pass(works)
        closer.waits = True
        for _ in range(20):
            await closer.one_pass(works)
        assert works.troubles == ()
        closer.waits = False
        await closer.one_pass(works)
        said = "closing on account main makes no progress: an empty book with 5 of margin in use"
        assert list(works.troubles) == [said]
        await closer.one_pass(works)
        assert works.troubles == ()
        assert not works.is_working

    asyncio.run(story())


def test_a_recovery_that_fails_is_tried_again_before_anything_is_sent() -> None:
    """Until an earlier run's orders are accounted for, no pass is made, and its closings are shown as under way."""

    async def story() -> None:
        clock, closer = Seconds(), FakeCloser([ConnectionError("refused")])
        works = closings(clock, (Closing("old", "closing"),), main=closer)
        works.adopt([decision("new", "main")])
        await works.advance(1.0)
        assert (closer.recovered, closer.adopted) == (1, [])
        assert {each.decision: each.status for each in works.progress()} == {"old": "closing", "new": "planned"}
        await rounds(works, clock)
        assert (closer.recovered, closer.done) == (2, ["new"])

    asyncio.run(story())


def test_a_store_that_fails_in_a_pass_comes_out() -> None:
    """Acting unrecorded is worse than stopping."""

    async def story() -> None:
        works = closings(main=FakeCloser([StoreError("the disk is full")]))
        works.adopt([decision("one", "main")])
        await rounds(works)

    with pytest.raises(StoreError, match="the disk is full"):
        asyncio.run(story())


def test_one_decision_on_two_accounts_is_one_closing_with_the_worse_status_and_the_summed_cost() -> None:
    """The machine that waits for the close hears one answer, and an unknown part makes the cost unknown."""

    class Said(FakeCloser):
        def __init__(self, closing: Closing) -> None:
            super().__init__()
            self.closing = closing

        def progress(self) -> tuple[Closing, ...]:
            return (self.closing,)

    left = Residual("two", "BTC", "long", Decimal(1))

    async def story(cost: str | None) -> Closing:
        works = closings(
            one=Said(Closing("d", "flat", (), Decimal(3), "portfolio")),
            two=Said(Closing("d", "residual", (left,), None if cost is None else Decimal(cost), "portfolio")),
        )
        await rounds(works)
        (found,) = works.progress()
        return found

    assert asyncio.run(story("4")) == Closing("d", "residual", (left,), Decimal(7), "portfolio")
    assert asyncio.run(story(None)).cost is None


def test_a_stop_lets_a_pass_end_and_calls_it_off_when_it_does_not() -> None:
    """What was sent gets its answer journaled if it comes in time; what does not is asked about at the next start."""

    async def story() -> tuple[bool, bool]:
        ending, hanging = FakeCloser(gate=asyncio.Event()), FakeCloser(gate=asyncio.Event())
        works = closings(ending=ending, hanging=hanging)
        works.adopt([decision("both", "ending", "hanging")])
        for _ in range(3):
            await works.advance(0.001)
        assert ending.gate is not None
        ending.gate.set()
        await works.stop(0.05)
        return ending.done == ["both"], hanging.in_pass

    assert asyncio.run(story()) == (True, False)


def test_c14_an_account_goes_on_at_once_where_its_pass_ends_whoever_else_is_still_waiting() -> None:
    """C14: while one venue answers nothing, the passes of another follow one another without a pause in between."""

    async def story() -> list[str]:
        slow, quick = FakeCloser(gate=asyncio.Event()), FakeCloser()
        works = closings(slow=slow, quick=quick)
        works.adopt([decision("both", "slow", "quick"), *(decision(f"more {n}", "quick") for n in range(40))])
        # More turns of the loop than all passes of the one need, and no time for the other.
        await works.run_until(until=asyncio.ensure_future(turns(1000)))
        await works.abandon()
        return quick.done

    assert len(asyncio.run(story())) == 41


async def turns(count: int) -> None:
    """Let everything run that is ready, without time going by."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_pass_is_not_begun_before_its_closer_says_and_another_account_does_not_wait_for_that() -> None:
    """One account that waits a second leaves the other to close; its own pass begins when the second is over."""

    class Patient(FakeCloser):
        async def advance(self) -> bool:
            self.wait = 1.0
            return await super().advance()

    async def story() -> None:
        waiting, quick = Patient(), FakeCloser()
        works = closings(waiting=waiting, quick=quick)
        waiting.adopted = ["first", "second"]
        works.adopt([decision("third", "quick")])
        await works.advance(1.0)
        assert (waiting.done, quick.done) == (["first"], ["third"])
        assert works.wait == 1.0
        waiting.wait = 0.0
        await works.advance(1.0)
        assert waiting.done == ["first", "second"]

    asyncio.run(story())


def test_passes_do_not_go_round_for_ever_while_a_clock_stands_still() -> None:
    """In a demo time passes only when the runner sleeps: a closer that always wants to go on must let it."""

    class Restless(FakeCloser):
        async def advance(self) -> bool:
            self.passes += 1
            return True

    async def story() -> int:
        closer = Restless()
        works = closings(main=closer)
        await works.advance(60.0)
        assert works.wait > 0
        return closer.passes

    assert 1 < asyncio.run(story()) <= AT_ONE_INSTANT


def test_a_closer_that_fails_again_and_again_is_tried_more_and_more_rarely() -> None:
    """0.1, 0.2, 0.4, … seconds, at most 5, and 0.1 again after a pass that went well."""

    async def story() -> list[float]:
        clock, closer = Seconds(), FakeCloser([VenueDownError("down")] * 8)
        works = closings(clock, main=closer)
        works.adopt([decision("one", "main"), decision("two", "main")])
        waits = []
        for _ in range(8):
            await works.advance(1.0)
            waits.append(works.wait)
            clock.now += works.wait
        closer.adopted.append("three")
        await works.advance(1.0)
        closer.errors = [VenueDownError("down")]
        works.adopt([decision("four", "main")])
        await works.advance(1.0)
        return [*waits, works.wait]

    expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 0.1]
    assert asyncio.run(story()) == pytest.approx(expected)


def test_a_failure_in_half_characters_is_told_in_whole_ones() -> None:
    """The trouble becomes a notice, and a notice with a lone surrogate cannot be stored."""
    worker = ClosingWorker("main", FakeCloser([ConnectionError("bad \udc80")]), ())

    async def one_pass() -> None:
        started = worker.kick()
        assert started is not None
        await started

    asyncio.run(one_pass())
    assert worker.trouble is not None
    assert worker.trouble.endswith("bad \\udc80")


def test_a_question_about_charges_that_fails_is_told_and_holds_up_no_close() -> None:
    """It is no closing, and the decision that comes next does not wait for the pause after a failure."""

    async def story() -> None:
        clock, closer = Seconds(), FakeCloser()
        works = closings(clock, main=closer)
        await works.recover(1.0)
        await rounds(works)
        closer.has_pending_fees, closer.errors = True, [ZeroDivisionError("a defect")] * 3
        for _ in range(3):
            assert works.has_work(fees=True)
            await works.advance(1.0)
            assert (works.is_working, works.busy) == (False, frozenset())
            clock.now += works.wait
        assert len(works.troubles) == 1
        clock.now -= 0.01
        assert works.wait > 0
        works.adopt([decision("one", "main")])
        assert (works.is_working, works.wait) == (True, 0.0)
        await works.advance(1.0)
        assert (closer.done, list(works.troubles)) == (["one"], [])

    asyncio.run(story())


def test_what_is_owed_after_a_recovery_is_no_closing() -> None:
    """A run that starts with nothing to close says so, and asks all the same."""

    async def story() -> None:
        closer = FakeCloser()
        closer.has_pending_fees = True
        works = closings(main=closer)
        assert works.is_working, "nobody knows before the recovery"
        await works.recover(1.0)
        assert (works.is_working, works.is_owing_fees, works.wait) == (False, True, 0.0)
        assert (works.has_work(), works.has_work(fees=True)) == (False, True)
        await works.abandon()

    asyncio.run(story())
