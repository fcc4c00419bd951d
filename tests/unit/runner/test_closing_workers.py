"""Closers that run in parallel with the ticks: order, isolation, and what may end a run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import pytest

from killswitch.engine.alerts import AlertState, advance
from killswitch.model.decision import Decision, Intent
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot, Closing, Residual
from killswitch.model.venue import CredentialsRefusedError, RateLimitedError, VenueDownError
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
    """A clock that is advanced manually."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeExecutor:
    """Completes one adopted decision a pass; `errors` are raised by the first passes; `gate` blocks a pass."""

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
        self.stalls: dict[str, str] = {}
        self.wait = 0.0
        self.has_pending_fees = False

    def give_up(self, entry: object) -> None:
        """No test gives up a close here."""

    def abandon(self) -> asyncio.Future[object] | None:
        """Queries nothing outside its passes."""

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


def workers_for(
    clock: Seconds | None = None, leftover: Sequence[Closing] = (), **closers: FakeExecutor
) -> ClosingWorkers:
    workers = {name: ClosingWorker(name, closer, leftover, clock or Seconds()) for name, closer in closers.items()}
    return ClosingWorkers(workers)


async def rounds(workers: ClosingWorkers, clock: Seconds | None = None, most: int = 50) -> None:
    for _ in range(most):
        await workers.advance(1.0)
        if not workers.is_working:
            return
        if clock is not None:
            clock.now += 0.1
    raise AssertionError("there is still work")


def test_each_account_gets_the_decisions_that_trade_on_it_after_its_recovery() -> None:
    """A decision over two accounts goes to both closers; one that does not trade there is not passed on."""

    async def story() -> None:
        one, two = FakeExecutor(), FakeExecutor()
        workers = workers_for(one=one, two=two)
        workers.adopt([decision("both", "one", "two"), decision("second", "two"), decision("elsewhere", "three")])
        assert one.adopted == [], "adopted before the recovery"
        await rounds(workers)
        assert (one.done, two.done) == (["both"], ["both", "second"])
        assert (one.recovered, two.recovered) == (1, 1)

    asyncio.run(story())


def test_c14_a_pass_that_hangs_delays_neither_ticks_nor_other_accounts() -> None:
    """C14: the other account closes while one venue does not answer, and no second pass starts in parallel."""

    async def story() -> None:
        gate = asyncio.Event()
        slow, quick = FakeExecutor(gate=gate), FakeExecutor()
        workers = workers_for(slow=slow, quick=quick)
        workers.adopt([decision("both", "slow", "quick")])
        for _ in range(5):
            await workers.advance(0.001)
        assert (slow.done, quick.done) == ([], ["both"])
        workers.adopt([decision("more", "slow")])
        await workers.advance(0.001)
        assert slow.adopted == ["both"], "a decision was handed over in the middle of a pass"
        gate.set()
        await rounds(workers)
        assert slow.done == ["both", "more"]
        assert not slow.interrupted

    asyncio.run(story())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (VenueDownError("maintenance"), "maintenance"),
        (ZeroDivisionError("a defect"), "unexpected ZeroDivisionError: a defect"),
        (asyncio.CancelledError(), "one of its own calls cancelled it"),
    ],
    ids=["the venue", "a defect", "cancelled from inside"],
)
def test_c16_trouble_in_a_pass_is_reported_and_the_pass_retried(error: BaseException, expected: str) -> None:
    """C16: no error in closing one account ends the run or the close."""

    async def story() -> None:
        clock, closer = Seconds(), FakeExecutor([error])
        workers = workers_for(clock, main=closer)
        workers.adopt([decision("one", "main")])
        await workers.advance(1.0)
        assert (f"closing on account main is retried after {expected}",) == workers.alerts.texts
        assert 0 < workers.wait < 1, "tried again at once, or not soon"
        await rounds(workers, clock)
        assert (closer.done, workers.alerts.texts) == (["one"], ())

    asyncio.run(story())


def test_c1_a_close_that_stalls_for_lack_of_trust_is_reported() -> None:
    """After some passes the reason becomes a trouble; time between passes does not count; it ends with the distrust."""

    class Distrusting(FakeExecutor):
        waits = False

        async def advance(self) -> bool:
            self.wait = 1.0
            self.passes += not self.waits
            self.distrust = "an empty book with 5 of margin in use" if self.passes <= DISTRUSTED_PASSES else None
            return self.distrust is not None

        async def one_pass(self, workers: ClosingWorkers) -> None:
            self.wait = 0.0
            await workers.advance(1.0)

    async def story() -> None:
        closer = Distrusting()
        workers = workers_for(main=closer)
        await workers.recover(1.0)
        for _ in range(DISTRUSTED_PASSES - 1):
            await closer.one_pass(workers)
        closer.waits = True
        for _ in range(20):
            await closer.one_pass(workers)
        assert workers.alerts.texts == ()
        closer.waits = False
        await closer.one_pass(workers)
        trouble = "closing on account main makes no progress: an empty book with 5 of margin in use"
        assert list(workers.alerts.texts) == [trouble]
        await closer.one_pass(workers)
        assert workers.alerts.texts == ()
        assert not workers.is_working

    asyncio.run(story())


def test_a_failure_that_needs_another_answer_is_another_alert() -> None:
    """A venue that recovers by itself, a key that an operator must replace, and a defect: each is notified."""

    async def story() -> None:
        clock = Seconds()
        errors = (RateLimitedError("rate limited"), CredentialsRefusedError("key expired"), KeyError("contractSize"))
        closer = FakeExecutor(errors)
        workers, state, notified = workers_for(clock, main=closer), AlertState(), []
        workers.adopt([decision("one", "main")])
        for second in range(1, 40):
            await workers.advance(1.0)
            clock.now += 1.0
            notices, state = advance(state, workers.alerts, second * SECOND)
            notified += [notice.text.rpartition(" after ")[2] for notice in notices]
        failures, ends = notified[:3], notified[3:]
        assert failures == ["rate limited", "key expired", "unexpected KeyError: 'contractSize'"]
        assert sorted(ends) == sorted(failures), "over only once a pass has succeeded"

    asyncio.run(story())


def test_a_position_that_cannot_be_closed_for_another_reason_is_paged_again() -> None:
    """An order that is open, and then orders that are refused; the first reason is not over meanwhile."""

    async def story() -> None:
        closer = FakeExecutor()
        workers, state, texts = workers_for(main=closer), AlertState(), []
        for second, stalls in enumerate(
            (
                {"one/BTC/USDT:USDT/long/open": "order o1 has been open"},
                {"one/BTC/USDT:USDT/long/refused": "BTC is refused repeatedly"},
            )
        ):
            closer.stalls = stalls
            workers.adopt([decision(f"pass {second}", "main")])
            await workers.advance(1.0)
            notices, state = advance(state, workers.alerts, second * SECOND)
            texts += [notice.text.removeprefix("closing on account main: ") for notice in notices]
        assert texts == ["order o1 has been open", "BTC is refused repeatedly"]

    asyncio.run(story())


def test_a_stall_of_an_earlier_run_is_unknown_until_a_pass_can_trust_the_account() -> None:
    """A stall takes several passes to be found: until then a restart must not report that closing makes progress."""

    class Distrusting(FakeExecutor):
        distrust: str | None = None

        async def advance(self) -> bool:
            self.passes += 1
            self.wait = 1.0
            self.distrust = "connection refused" if self.passes < DISTRUSTED_PASSES else None
            return True

    async def story() -> None:
        closer = Distrusting()
        workers = workers_for(main=closer)
        closer.wait = 1.0
        await workers.recover(1.0)
        seen = [workers.alerts.unknown]
        for _ in range(DISTRUSTED_PASSES):
            closer.wait = 0.0
            await workers.advance(1.0)
            seen.append(workers.alerts.unknown)
        assert seen == [("closing/main",)] * DISTRUSTED_PASSES + [()]

    asyncio.run(story())


def test_a_recovery_that_fails_is_retried_before_anything_is_sent() -> None:
    """Until an earlier run's orders are reconciled, no pass is made, and its closes are shown as in progress."""

    async def story() -> None:
        clock, closer = Seconds(), FakeExecutor([ConnectionError("refused")])
        workers = workers_for(clock, (Closing("old", "closing"),), main=closer)
        workers.adopt([decision("new", "main")])
        await workers.advance(1.0)
        assert (closer.recovered, closer.adopted) == (1, [])
        assert {each.decision: each.status for each in workers.progress()} == {"old": "closing", "new": "planned"}
        await rounds(workers, clock)
        assert (closer.recovered, closer.done) == (2, ["new"])

    asyncio.run(story())


def test_a_store_that_fails_in_a_pass_raises() -> None:
    """Acting unrecorded is worse than stopping."""

    async def story() -> None:
        workers = workers_for(main=FakeExecutor([StoreError("the disk is full")]))
        workers.adopt([decision("one", "main")])
        await rounds(workers)

    with pytest.raises(StoreError, match="the disk is full"):
        asyncio.run(story())


def test_one_decision_on_two_accounts_reports_the_worse_status_and_the_summed_cost() -> None:
    """The stage machine that waits for the close gets one answer; an unknown part makes the cost unknown."""

    class FixedResult(FakeExecutor):
        def __init__(self, closing: Closing) -> None:
            super().__init__()
            self.closing = closing

        def progress(self) -> tuple[Closing, ...]:
            return (self.closing,)

    left = Residual("two", "BTC", "long", Decimal(1))

    async def story(cost: str | None) -> Closing:
        workers = workers_for(
            one=FixedResult(Closing("d", "flat", (), Decimal(3), "portfolio")),
            two=FixedResult(Closing("d", "residual", (left,), None if cost is None else Decimal(cost), "portfolio")),
        )
        await rounds(workers)
        (found,) = workers.progress()
        return found

    assert asyncio.run(story("4")) == Closing("d", "residual", (left,), Decimal(7), "portfolio")
    assert asyncio.run(story(None)).cost is None


def test_a_stop_lets_a_pass_finish_and_cancels_it_after_the_timeout() -> None:
    """The answer to an order is journaled if it arrives in time; otherwise the order is queried at the next start."""

    async def story() -> tuple[bool, bool]:
        ending, hanging = FakeExecutor(gate=asyncio.Event()), FakeExecutor(gate=asyncio.Event())
        workers = workers_for(ending=ending, hanging=hanging)
        workers.adopt([decision("both", "ending", "hanging")])
        for _ in range(3):
            await workers.advance(0.001)
        assert ending.gate is not None
        ending.gate.set()
        await workers.stop(0.05)
        return ending.done == ["both"], hanging.in_pass

    assert asyncio.run(story()) == (True, False)


def test_c14_an_account_continues_as_soon_as_its_own_pass_ends() -> None:
    """C14: while one venue answers nothing, the passes of another follow one another without a pause."""

    async def story() -> list[str]:
        slow, quick = FakeExecutor(gate=asyncio.Event()), FakeExecutor()
        workers = workers_for(slow=slow, quick=quick)
        workers.adopt([decision("both", "slow", "quick"), *(decision(f"more {n}", "quick") for n in range(40))])
        # More turns of the loop than all passes of the one need, and no time for the other.
        await workers.run_until(until=asyncio.ensure_future(turns(1000)))
        await workers.abandon()
        return quick.done

    assert len(asyncio.run(story())) == 41


async def turns(count: int) -> None:
    """Let every ready task run, without time passing."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_pass_starts_no_earlier_than_its_closer_asks_and_delays_no_other_account() -> None:
    """One account that waits a second leaves the other to close; its own pass starts when the second is over."""

    class Patient(FakeExecutor):
        async def advance(self) -> bool:
            self.wait = 1.0
            return await super().advance()

    async def story() -> None:
        waiting, quick = Patient(), FakeExecutor()
        workers = workers_for(waiting=waiting, quick=quick)
        waiting.adopted = ["first", "second"]
        workers.adopt([decision("third", "quick")])
        await workers.advance(1.0)
        assert (waiting.done, quick.done) == (["first"], ["third"])
        assert workers.wait == 1.0
        waiting.wait = 0.0
        await workers.advance(1.0)
        assert waiting.done == ["first", "second"]

    asyncio.run(story())


def test_passes_do_not_loop_for_ever_on_a_clock_that_does_not_advance() -> None:
    """In a demo, time passes only when the runner sleeps: a closer that always wants to continue must let it."""

    class Restless(FakeExecutor):
        async def advance(self) -> bool:
            self.passes += 1
            return True

    async def story() -> int:
        closer = Restless()
        workers = workers_for(main=closer)
        await workers.advance(60.0)
        assert workers.wait > 0
        return closer.passes

    assert 1 < asyncio.run(story()) <= AT_ONE_INSTANT


def test_retries_of_a_failing_closer_back_off() -> None:
    """0.1, 0.2, 0.4, … seconds, at most 5, and 0.1 again after a successful pass."""

    async def story() -> list[float]:
        clock, closer = Seconds(), FakeExecutor([VenueDownError("down")] * 8)
        workers = workers_for(clock, main=closer)
        workers.adopt([decision("one", "main"), decision("two", "main")])
        waits = []
        for _ in range(8):
            await workers.advance(1.0)
            waits.append(workers.wait)
            clock.now += workers.wait
        closer.adopted.append("three")
        await workers.advance(1.0)
        closer.errors = [VenueDownError("down")]
        workers.adopt([decision("four", "main")])
        await workers.advance(1.0)
        return [*waits, workers.wait]

    expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 0.1]
    assert asyncio.run(story()) == pytest.approx(expected)


def test_lone_surrogates_in_a_failure_are_escaped() -> None:
    """The trouble becomes a notice, and a notice with a lone surrogate cannot be stored."""
    worker = ClosingWorker("main", FakeExecutor([ConnectionError("bad \udc80")]), ())

    async def one_pass() -> None:
        started = worker.kick()
        assert started is not None
        await started

    asyncio.run(one_pass())
    (text,) = worker.alerts.texts
    assert text.endswith("bad \\udc80")


def test_a_failing_fee_query_is_reported_and_delays_no_close() -> None:
    """It is no close, and the next decision does not wait for the back-off."""

    async def story() -> None:
        clock, closer = Seconds(), FakeExecutor()
        workers = workers_for(clock, main=closer)
        await workers.recover(1.0)
        await rounds(workers)
        closer.has_pending_fees, closer.errors = True, [ZeroDivisionError("a defect")] * 3
        for _ in range(3):
            assert workers.has_work(fees=True)
            await workers.advance(1.0)
            assert (workers.is_working, workers.busy) == (False, frozenset())
            clock.now += workers.wait
        assert len(workers.alerts.texts) == 1
        clock.now -= 0.01
        assert workers.wait > 0
        workers.adopt([decision("one", "main")])
        assert (workers.is_working, workers.wait) == (True, 0.0)
        await workers.advance(1.0)
        assert (closer.done, list(workers.alerts.texts)) == (["one"], [])

    asyncio.run(story())


def test_pending_fees_after_a_recovery_are_no_close() -> None:
    """A run that starts with nothing to close says so, and queries the fees all the same."""

    async def story() -> None:
        closer = FakeExecutor()
        closer.has_pending_fees = True
        workers = workers_for(main=closer)
        assert workers.is_working, "nobody knows before the recovery"
        await workers.recover(1.0)
        assert (workers.is_working, workers.is_owing_fees, workers.wait) == (False, True, 0.0)
        assert (workers.has_work(), workers.has_work(fees=True)) == (False, True)
        await workers.abandon()

    asyncio.run(story())
