"""Polling all accounts for a tick: whatever a venue does, a snapshot of each account is returned."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.poller import Polls
from killswitch.accounts.poll.request_meter import request_meters
from killswitch.execution.account_executor import AccountExecutor
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.snapshot import AccountSnapshot, Health
from killswitch.model.venue import FateUnknownError, MalformedAnswerError, RateLimitedError, VenueDownError
from tests.runner_world import ScriptedVenue, World, book
from tests.worlds import START, account, position, rules


def armed(venue: ScriptedVenue) -> ArmedAccount:
    return ArmedAccount(venue.account, "paper", "swap", "USDT", venue, armed=False)


def poller_of(*venues: ScriptedVenue, timeout: float = 0.05) -> Polls:
    return Polls({venue.account: armed(venue) for venue in venues}, timeout)


@pytest.mark.parametrize(
    ("error", "quality", "reason"),
    [
        (VenueDownError("maintenance"), "down", "maintenance"),
        (FateUnknownError("no answer"), "down", "no answer"),
        (RateLimitedError("slow down", 3.0), "down", "rate limited: slow down"),
        (MalformedAnswerError("equity is text"), "malformed", "equity is text"),
        (KeyError("equity"), "down", "the adapter failed: 'equity'"),
        (VenueDownError(), "down", "VenueDownError"),
        (asyncio.CancelledError(), "down", "the adapter cancelled its own request"),
    ],
    ids=["down", "fate unknown", "rate limited", "malformed", "a defect of the adapter", "no text", "cancelled"],
)
def test_a_failed_poll_is_an_unreadable_account_with_the_reason(
    error: BaseException, quality: str, reason: str
) -> None:
    """No error of a venue, nor a defect of its adapter, escapes the poll of a tick."""
    (polled,) = asyncio.run(poller_of(ScriptedVenue(error)).gather())
    assert (quality, reason) == (polled.quality, polled.reason)
    assert polled.positions is None
    assert polled.equity is None


def test_a_poll_without_an_answer_has_the_latency_of_the_timeout() -> None:
    """Otherwise the quantiles of latency would leave out the slowest polls."""

    async def story() -> AccountSnapshot:
        polls = poller_of(ScriptedVenue(None), timeout=0.02)
        found = await polls.gather()
        await polls.abandon()
        return found[0]

    seen = asyncio.run(story())
    assert (seen.quality, seen.health) == ("down", Health(latency_ms=20.0, timeouts=1))


def test_c14_a_venue_that_never_answers_costs_the_others_its_timeout_once() -> None:
    """C14: the first silent poll is waited for until its timeout; after that, ticks continue without waiting."""

    async def story() -> None:
        silent, good = ScriptedVenue(None, "silent"), ScriptedVenue(account("1", name="good"), "good")
        poller = poller_of(silent, good, timeout=0.05)
        first = asyncio.create_task(poller.gather())
        await turns(50)
        assert not first.done(), "the first tick gave up before the timeout"
        assert tuple(polled.quality for polled in await first) == ("down", "ok")
        for _ in range(3):
            tick = asyncio.create_task(poller.gather())
            await turns(50)
            assert tick.done(), "a tick waited again for a venue that is known to be silent"
            assert tuple(polled.quality for polled in tick.result()) == ("down", "ok")
        assert silent.in_flight <= 1
        await poller.abandon()
        assert silent.in_flight == 0

    asyncio.run(story())


async def turns(count: int) -> None:
    """Let every ready task run, without time passing."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_late_venue_is_back_as_soon_as_a_background_poll_has_arrived() -> None:
    """An account that timed out is polled in the background, and its answer ends the waiting."""

    async def story() -> list[str]:
        venue = ScriptedVenue(None)
        poller = poller_of(venue, timeout=0.01)
        found = [(await poller.gather())[0].quality]
        venue.answer = account("1")
        for _ in range(1000):
            found.append((await poller.gather())[0].quality)
            if found[-1] == "ok":
                break
            await asyncio.sleep(0)
        found.append((await poller.gather())[0].quality)
        return found

    qualities = asyncio.run(story())
    assert qualities[0] == "down"
    assert qualities[-2:] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (account("1", name="other"), "venue returned account other; the document declares main"),
        (account("1", market="spot"), "venue returned market spot; the document declares swap"),
        (account("1", currency="EUR"), "venue returned currency EUR; the document declares USDT"),
    ],
    ids=["account", "market", "currency"],
)
def test_an_answer_about_something_else_is_malformed(answer: object, reason: str) -> None:
    """The answer is compared with the account's document before anybody decides on it."""
    (polled,) = asyncio.run(poller_of(ScriptedVenue(answer)).gather())  # type: ignore[arg-type]  # a snapshot by the cases
    assert ("malformed", reason) == (polled.quality, polled.reason)


def test_the_name_in_the_document_is_the_venues_name() -> None:
    """Policies match venues by the name in the document, whatever the adapter calls it."""
    (polled,) = asyncio.run(poller_of(ScriptedVenue(book("1", venue="testnet"))).gather())
    assert polled.venue == "paper"


def test_a_second_poll_reads_only_the_accounts_named() -> None:
    """Corroboration polls the scope's accounts and leaves the others alone."""

    async def again() -> tuple[int, int]:
        one, two = ScriptedVenue(account("1", name="one"), "one"), ScriptedVenue(account("1", name="two"), "two")
        poller = poller_of(one, two)
        polled = await poller.gather_again(("two",), 2.0)
        assert {"two"} == set(polled)
        return one.reads, two.reads

    assert asyncio.run(again()) == (0, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin_mode": "\ud800"},
        {"positions": ("BTC",)},
        {"positions": (replace(position("BTC", "long", "0"), contracts="many"),)},
        {"observed_at": datetime(2021, 5, 19, 12, 0)},  # noqa: DTZ001 - a naive time is the case
        {"instruments": (replace(rules("BTC"), state="resting"),)},
        {"equity": object()},
    ],
    ids=["lone surrogate", "text for a position", "text for a number", "naive time", "unknown state", "no type"],
)
def test_an_answer_that_cannot_be_recorded_is_malformed(wrong: dict[str, object]) -> None:
    """No other code checks an adapter's types: a value that could not be stored would end the run."""
    answer = replace(account("1"), **wrong)
    (polled,) = asyncio.run(poller_of(ScriptedVenue(answer)).gather())
    assert polled.quality == "malformed"
    assert polled.reason is not None
    polled.reason.encode()


def test_a_float_becomes_the_decimal_that_it_prints() -> None:
    """A float contract count would raise in the first sum with a Decimal."""
    held = replace(position("BTC", "long", "0"), contracts=0.1)
    (polled,) = asyncio.run(poller_of(ScriptedVenue(account("1", (held,)))).gather())
    assert polled.positions is not None
    assert str(polled.positions[0].contracts) == "0.1"


def test_lone_surrogates_in_a_reason_are_escaped() -> None:
    """So that the reason of an error can be stored."""
    (polled,) = asyncio.run(poller_of(ScriptedVenue(VenueDownError("bad \udc80"))).gather())
    assert polled.reason == "bad \\udc80"


class SlowVenue(ScriptedVenue):
    """Takes 1.6 seconds of the clock for each answer."""

    def __init__(self, answer: AccountSnapshot | BaseException, name: str, clock: VirtualClock) -> None:
        super().__init__(answer, name)
        self._clock = clock

    async def snapshot(self) -> AccountSnapshot:
        await self._clock.sleep(1.6)
        return await super().snapshot()


def test_a_snapshot_is_as_old_as_its_request_and_a_failure_as_its_end() -> None:
    """Requested at 5 s and answered at 6.6 s an account is as of 5 s; that it cannot be read is known at 6.6 s."""
    clock = VirtualClock(START)
    clock.set(START + timedelta(seconds=5))
    fast, down = ScriptedVenue(account("1", name="fast"), "fast"), ScriptedVenue(VenueDownError("gone"), "down")
    slow = SlowVenue(account("1", name="slow"), "slow", clock)
    accounts = {venue.account: armed(venue) for venue in (fast, down, slow)}
    poller = Polls(accounts, 5.0, request_meters(accounts, clock))
    asyncio.run(poller.gather())
    assert [poller[name].dated for name in accounts] == [5.0, 6.6, 5.0]


def test_a_closer_gets_the_time_at_which_its_account_was_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another account takes 1.6 s longer to answer: the first one's snapshot is not dated to that moment."""
    world, learned = World(tmp_path), dict[str, float | None]()

    def learn(_: AccountExecutor, snapshot: AccountSnapshot, at: float | None = None) -> None:
        learned[snapshot.account] = at

    monkeypatch.setattr(AccountExecutor, "apply_snapshot", learn)
    fast, slow = ScriptedVenue(book("1100")), SlowVenue(book("1100", name="other"), "other", world.clock)

    async def story() -> float:
        runner = world.runner(world.open(), [fast, slow])
        await runner.start()
        began = world.clock.monotonic()
        await runner.tick()
        await runner.finish()
        await runner.shut_down()
        return began

    try:
        began = asyncio.run(story())
    finally:
        world.close()
    assert world.clock.monotonic() >= began + 1.6
    assert learned == {"main": began, "other": began}
