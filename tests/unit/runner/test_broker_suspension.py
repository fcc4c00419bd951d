"""A lock of mode `all` suspends trading at the broker, once nothing is left to close, and until the lock is lifted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.opening import open_accounts
from killswitch.accounts.plug_ins import AdapterError
from killswitch.execution.effects.performing import RunEnd
from killswitch.graph.actions.exit_process import ExitProcess
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import Action
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import OrderReport, OrderRequest, VenueDownError
from killswitch.operations.commands import OperatorCommandKind, operator_event
from killswitch.policy.loader import load
from killswitch.policy.schema.account import AccountDocument
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.locks.broker_suspension import LIVE_NAME
from killswitch.runner.loop import Runner, RunnerPace
from killswitch.store.sqlite import open_store
from tests import graphs, worlds
from tests.runner_world import ScriptedVenue, Seen, book, crash_policy
from tests.virtual_time import VirtualTime


class BrokerVenue(ScriptedVenue):
    """A broker that refuses every order while trading is suspended."""

    def __init__(self, time: VirtualTime, answer: AccountSnapshot) -> None:
        super().__init__(answer)
        self.time = time
        self.suspended = False
        self.requests: list[tuple[int, bool]] = []
        self.fails: Exception | None = None
        self.sent_while_suspended = 0

    async def suspend_trading(self, suspended: bool) -> None:
        self.requests.append((round(self.time.monotonic()), suspended))
        if self.fails is not None:
            raise self.fails
        self.suspended = suspended

    async def submit(self, request: OrderRequest) -> OrderReport:
        self.sent_while_suspended += self.suspended
        await asyncio.sleep(0.05)
        return await super().submit(request)


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.time = VirtualTime()
        self.store = open_store(str(folder / "store.sqlite"))
        self.seen = Seen()

    def runner(
        self, venue: ScriptedVenue, *, armed: bool = True, suspends: bool = True, further: tuple[Action, ...] = ()
    ) -> Runner:
        graph = crash_policy()
        (stage,) = graph.stages
        actions = (LockTrading("all", None), *stage.actions[1:], *further)
        graph = replace(graph, stages=(replace(stage, actions=actions),))
        account = ArmedAccount("main", "broker", "swap", "USDT", venue, armed=armed, suspends=suspends)
        return assemble(
            graphs.policy_set(graph), {"main": account}, self.store, self.time, RunnerPace(1.0, 0.5, stop_timeout=0.5),
            live=armed, locks=LockPaths(self.folder / "locks", None), observers=(self.seen,), is_run=True,
        )  # fmt: skip

    def command(self, kind: OperatorCommandKind, reason: str) -> None:
        """A person's command about the account."""
        self.store.put_event(
            operator_event(
                kind, "account/main", "a person", reason, self.time.now(), cause="operator" if kind == "close" else None
            )
        )

    async def ticks(self, runner: Runner, number: int) -> None:
        for _ in range(number):
            await runner.tick()
            await runner.close_within(0.9)
            await self.time.sleep(1.0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def test_the_broker_suspends_once_nothing_is_left_to_close_and_resumes_when_the_lock_is_lifted(site: Site) -> None:
    """The close leaves first; the suspension follows it, and the manual reset ends it."""
    venue = BrokerVenue(site.time, book("1000"))
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        await site.ticks(runner, 1)
        venue.answer = book("850")
        await site.ticks(runner, 4)
        assert venue.suspended
        assert site.seen.reports[-1].runner.suspended == ("main",)
        site.command("reset", "looked at it")
        await site.ticks(runner, 3)
        await runner.finish()
        await runner.shut_down()

    site.time.run(story())
    assert len(venue.sent) == 1
    assert venue.sent_while_suspended == 0
    assert [suspended for _, suspended in venue.requests] == [True, False]
    assert not venue.suspended


class SlowBroker(BrokerVenue):
    """Answers a suspension after a fifth of a second, which an abandoned request does not live to see."""

    async def suspend_trading(self, suspended: bool) -> None:
        await asyncio.sleep(0.2)
        await super().suspend_trading(suspended)


def test_an_exit_of_the_process_waits_for_the_request_to_the_broker(site: Site) -> None:
    """The request that follows the close is under way in the pass that could exit; the next pass exits."""
    venue = SlowBroker(site.time, book("1000"))
    runner = site.runner(venue, further=(ExitProcess(),))

    async def story() -> RunEnd:
        run = asyncio.ensure_future(runner.run(asyncio.Event(), 30))
        await site.time.sleep(1.5)
        venue.answer = book("850")
        return await run

    end = site.time.run(story())
    assert (end.exit_code, len(venue.sent), venue.suspended) == (1, 1, True)


@pytest.mark.parametrize("why", ["not asked for", "not armed"])
def test_an_account_that_does_not_request_it_or_is_not_armed_is_not_suspended(site: Site, why: str) -> None:
    """Only the lock file is written there."""
    venue = BrokerVenue(site.time, book("1000"))
    runner = site.runner(venue, armed=why != "not armed", suspends=why != "not asked for")

    async def story() -> None:
        await runner.start()
        await site.ticks(runner, 1)
        venue.answer = book("850")
        await site.ticks(runner, 3)

    site.time.run(story())
    assert venue.requests == []


def test_a_broker_that_does_not_answer_is_reported_and_retried(site: Site) -> None:
    """After 1, 2 and 4 seconds; one page, and one when it has worked."""
    venue = BrokerVenue(site.time, book("1000"))
    runner = site.runner(venue)
    venue.fails = VenueDownError("503")

    async def story() -> None:
        await runner.start()
        await site.ticks(runner, 1)
        venue.answer = book("850")
        await site.ticks(runner, 12)
        venue.fails = None
        await site.ticks(runner, 8)

    site.time.run(story())
    assert venue.suspended
    assert 4 <= len(venue.requests) <= 6
    pages = [notice.text for report in site.seen.reports for notice in report.notices if "broker" in notice.text]
    failed = "trading of account main could not be suspended at its broker: 503; it is retried"
    assert [pages[0], pages[1].partition("Z: ")[2]] == [failed, failed]
    assert pages[1].startswith("over since ")
    assert len(pages) == 2
    assert site.seen.reports[-1].problems == ()


def test_a_restart_resumes_the_suspension(site: Site) -> None:
    """The lock is in force: the broker gets the request again, as it may have lost it; we lift what we suspended."""
    venue = BrokerVenue(site.time, book("1000"))

    async def story() -> None:
        first = site.runner(venue)
        await first.start()
        await site.ticks(first, 1)
        venue.answer = book("850")
        await site.ticks(first, 4)
        await first.finish()
        venue.suspended = False
        second = site.runner(venue)
        await second.start()
        await site.ticks(second, 2)
        assert venue.suspended
        assert [suspended for _, suspended in venue.requests] == [True, True]
        site.command("reset", "looked at it")
        await second.tick()
        await second.finish()
        third = site.runner(venue)
        await third.start()
        await site.ticks(third, 2)
        await third.finish()

    site.time.run(story())
    assert not venue.suspended


def test_a_suspension_that_is_not_ours_is_left_alone(site: Site) -> None:
    """A person at the broker has suspended trading: no tick of ours lifts that."""
    venue = BrokerVenue(site.time, worlds.account("1000", (), name="main"))
    venue.suspended = True

    async def story() -> None:
        runner = site.runner(venue)
        await runner.start()
        await site.ticks(runner, 3)
        await runner.finish()

    site.time.run(story())
    assert venue.suspended
    assert venue.requests == []


def test_the_suspension_is_lifted_before_a_close_starts(site: Site) -> None:
    """A position appears under the lock and is closed manually: the suspension is lifted first, then returns."""
    venue = BrokerVenue(site.time, book("1000"))
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        await site.ticks(runner, 1)
        venue.answer = book("850")
        await site.ticks(runner, 4)
        assert venue.suspended
        venue.answer = book("850")
        await site.ticks(runner, 1)
        site.command("close", "it came back")
        await site.ticks(runner, 8)

    site.time.run(story())
    assert len(venue.sent) == 2
    assert venue.sent_while_suspended == 0
    assert [suspended for _, suspended in venue.requests] == [True, False, True]


def test_an_account_that_requests_what_its_adapter_cannot_do_is_refused(tmp_path: Path) -> None:
    """A user who relies on the broker's lock learns at the start that there is none."""
    file = tmp_path / "account.yaml"
    file.write_text(
        "apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\n"
        "spec: {adapter: paper, endpoint: 'http://127.0.0.1:1', market: swap, currency: USDT,\n"
        "  execution: live, options: {suspend_trade: true}}\n"
    )
    accounts = [each.model for each in load([file]).documents if isinstance(each.model, AccountDocument)]
    with pytest.raises(
        AdapterError, match="account main: suspend_trade is set, and adapter paper cannot suspend trading at a broker"
    ):
        open_accounts(accounts, live=True)


class HangingBroker(BrokerVenue):
    """A broker that accepts the request to allow trading, and never answers it."""

    async def suspend_trading(self, suspended: bool) -> None:
        self.requests.append((round(self.time.monotonic()), suspended))
        if not suspended:
            await asyncio.Event().wait()
        self.suspended = suspended


class TimedVenue(ScriptedVenue):
    """A venue that records when orders leave for it."""

    def __init__(self, time: VirtualTime, answer: AccountSnapshot, account: str) -> None:
        super().__init__(answer, account)
        self.time = time
        self.sent_at: list[float] = []

    async def submit(self, request: OrderRequest) -> OrderReport:
        self.sent_at.append(self.time.monotonic())
        return await super().submit(request)


def test_a_broker_that_does_not_answer_delays_no_other_account(site: Site) -> None:
    """Both accounts fall: the one at its venue is closed at once, the one at the broker when the request is over."""
    slow = HangingBroker(site.time, book("1000"))
    fast = TimedVenue(site.time, book("1000", "other"), "other")
    graph = crash_policy()
    (stage,) = graph.stages
    graph = replace(graph, stages=(replace(stage, actions=(LockTrading("all", None), *stage.actions[1:])),))
    accounts = {
        "main": ArmedAccount("main", "broker", "swap", "USDT", slow, armed=True, suspends=True),
        "other": ArmedAccount("other", "fast", "swap", "USDT", fast, armed=True),
    }

    site.store.put_live(LIVE_NAME, b'["main"]')  # an earlier run has suspended it, as a lock that is lifted told it
    run = assemble(
        graphs.policy_set(graph), accounts, site.store, site.time, RunnerPace(1.0, 5.0), live=True,
        locks=LockPaths(site.folder / "locks", None), observers=(site.seen,),
    )  # fmt: skip

    async def story() -> float:
        await run.start()
        await run.tick()
        slow.answer, fast.answer = book("850"), book("850", "other")
        fell = site.time.monotonic()
        await run.tick()
        await run.close_within(3.0)
        assert slow.sent == []
        await run.close_within(20.0)
        await run.finish()
        await run.shut_down()
        return fell

    fell = site.time.run(story())
    assert fast.sent_at == [pytest.approx(fell, abs=0.2)]
    assert len(slow.sent) == 1
