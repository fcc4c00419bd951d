"""What polls take of a venue's limits: never the share for closing, and never more than the venue allows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.poller import Polls
from killswitch.accounts.poll.request_meter import NoPollRoomError, RequestMeter, request_meters
from killswitch.accounts.poll.shared_adapter import share_adapter
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import (
    OPTIONAL_ATTRIBUTES,
    Batching,
    Cost,
    RateLimit,
    RateLimitedError,
    VenueDownError,
    VenueTraits,
)
from killswitch.ratelimit.budget import RequestBudgets
from killswitch.runner.clock import SystemClock
from tests.runner_world import ScriptedVenue, World, book
from tests.virtual_time import VirtualTime
from tests.worlds import START, account

TRAITS = VenueTraits(
    limits=(RateLimit("weight", 10, 10.0, "address"),),
    costs=(Cost("snapshot", "weight", units=3), Cost("submit", "weight", units=1)),
)


class LimitedVenue(ScriptedVenue):
    """A venue that describes its limits, and reports how much of them it has counted."""

    def __init__(self, answer: AccountSnapshot | BaseException | None, name: str = "main") -> None:
        super().__init__(answer, name)
        self.traits = TRAITS
        self.counted: Mapping[str, int] = {}

    def used(self) -> Mapping[str, int]:
        return self.counted


def armed(venue: ScriptedVenue, at: str = "paper") -> ArmedAccount:
    return ArmedAccount(venue.account, at, "swap", "USDT", venue, armed=True, closing_share=Decimal("0.4"))


def poller_of(*venues: ScriptedVenue, at: Mapping[str, str] | None = None) -> tuple[Polls, dict[str, RequestMeter]]:
    """A poller of these venues, on a clock that does not advance, and its request budgets."""
    accounts = {each.account: armed(each, (at or {}).get(each.account, "paper")) for each in venues}
    meters = request_meters(accounts, VirtualClock(START))
    return Polls(accounts, 0.5, meters), meters


def test_c14_polls_stop_at_the_share_for_closing_and_orders_continue() -> None:
    """Of 10 units 4 are reserved: two polls of 3 fit, the third finds the account down, and 4 orders may leave."""

    async def story() -> None:
        venue = LimitedVenue(account("1"))
        poller, meters = poller_of(venue)
        polled = [(await poller.gather())[0] for _ in range(3)]
        assert [each.quality for each in polled] == ["ok", "ok", "down"]
        assert polled[2].reason == "the request budget is spent"
        assert venue.reads == 2, "asked though there was no room"
        assert meters["main"].budget.room(0.0, "submit", ["BTC"] * 9) == 4

    asyncio.run(story())


def test_a_poll_waits_for_budget_that_is_free_within_its_timeout() -> None:
    """Units that come back in a moment are waited for, and the tick has its account."""

    async def story() -> None:
        venue = LimitedVenue(account("1"))
        venue.traits = VenueTraits((RateLimit("reads", 1, 0.05),), (Cost("snapshot", "reads", units=1),))
        poller = Polls({"main": armed(venue)}, 30.0, request_meters({"main": armed(venue)}, SystemClock()))
        assert [(await poller.gather())[0].quality for _ in range(3)] == ["ok", "ok", "ok"]

    asyncio.run(story())


def test_accounts_at_one_venue_share_what_is_counted_for_the_address_and_others_do_not() -> None:
    """Two accounts at one venue fit two polls together; one at another venue has its own limit."""

    async def story() -> list[str]:
        one, two, far = (LimitedVenue(account("1", name=name), name) for name in ("one", "two", "far"))
        poller, _ = poller_of(one, two, far, at={"far": "elsewhere"})
        await poller.gather()
        return [each.quality for each in await poller.gather()]

    assert asyncio.run(story()) == ["down", "down", "ok"]


def test_c14_a_rate_limited_poll_silences_its_venue_for_all_accounts_there_and_for_no_other() -> None:
    """After 429 nothing is requested for the time that it names; the next tick says why; another venue is polled."""

    async def story() -> None:
        one, two = LimitedVenue(RateLimitedError("slow down", 30.0), "one"), LimitedVenue(account("1"), "two")
        far = LimitedVenue(account("1", name="far"), "far")
        poller, meters = poller_of(one, two, far, at={"far": "elsewhere"})
        await poller.gather()
        polled = {each.account: each for each in await poller.gather()}
        assert (one.reads, two.reads, far.reads) == (1, 0, 2)
        assert polled["one"].reason == polled["two"].reason == "the venue has asked for a pause"
        assert polled["far"].quality == "ok"
        assert meters["two"].budget.wait(0.0, "submit", ["BTC"]) == 30.0

    asyncio.run(story())


def test_units_that_the_venue_has_counted_for_others_are_respected() -> None:
    """Another program at the same address has used 9 of 10 units: one order fits, and no poll."""

    async def story() -> None:
        venue = LimitedVenue(account("1"))
        venue.counted = {"weight": 9}
        poller, meters = poller_of(venue)
        await poller.gather()
        assert meters["main"].budget.room(0.0, "submit", ["BTC"] * 9) == 1

    asyncio.run(story())


@pytest.mark.parametrize("counted", [{"weight": "many"}, None, 7], ids=["text", "nothing", "a number"])
def test_a_failing_request_count_of_an_adapter_costs_no_poll(counted: object) -> None:
    """A defect in the reported count leaves the account readable."""

    async def story() -> str:
        venue = LimitedVenue(account("1"))
        venue.counted = counted  # type: ignore[assignment]  # the defect
        return (await poller_of(venue)[0].gather())[0].quality

    assert asyncio.run(story()) == "ok"


def test_c15_a_poll_ignores_the_breaker_and_its_answer_closes_it() -> None:
    """C15: with orders stopped by five failures, the account is polled all the same; that lets orders leave again."""

    async def story() -> None:
        venue = LimitedVenue(VenueDownError("maintenance"))
        poller, meters = poller_of(venue)
        breaker = meters["main"].breaker
        for _ in range(5):
            breaker.failed(0.0)
        assert not breaker.allows(0.0)
        await poller.gather()
        assert breaker.state == "open", "an account that cannot be read says nothing for its orders"
        venue.answer = account("1")
        assert (await poller.gather())[0].quality == "ok"
        assert breaker.state == "closed"

    asyncio.run(story())


def test_an_account_that_cannot_be_polled_stops_no_order() -> None:
    """A venue may fail to report positions and accept orders all the same: failed polls open no breaker."""

    async def story() -> None:
        poller, meters = poller_of(ScriptedVenue(VenueDownError("positions are not to be had")))
        for _ in range(20):
            await poller.gather()
        assert meters["main"].breaker.allows(0.0)

    asyncio.run(story())


async def _echo(requests: object) -> list[object]:
    return [requests]


class GiftedVenue(LimitedVenue):
    """Has every capability that only some adapters have."""

    batches = Batching(7, _echo)

    async def close_book(self) -> None:
        self.answer = account("1")


def test_a_shared_adapter_offers_exactly_what_its_adapter_offers() -> None:
    """The wrapper of a plain adapter must not claim them."""
    for view in share_adapter(ScriptedVenue(None)):
        assert not any(getattr(view, name) for name in OPTIONAL_ATTRIBUTES)
        assert view.traits == VenueTraits()
    for view in share_adapter(GiftedVenue(None)):
        offered = {name for name in OPTIONAL_ATTRIBUTES if getattr(view, name) is not None}
        assert offered == {"batches", "close_book", "used"}
        assert view.traits == TRAITS
    (ticks, _), requests = share_adapter(GiftedVenue(None)), ("one", "two")
    assert ticks.batches is not None and ticks.batches.most == 7
    assert asyncio.run(ticks.batches.submit(requests)) == [requests]  # type: ignore[arg-type]  # passed on as it is


def test_a_close_leaves_on_the_share_that_polls_left(tmp_path: Path) -> None:
    """Through a whole runner: the tick polls until its share is spent, and the close that it decides leaves."""
    world = World(tmp_path)
    venue = LimitedVenue(book("1000"))
    venue.traits = VenueTraits(
        (RateLimit("weight", 8, 10.0, "address"),), (Cost("snapshot", "weight", 2), Cost("submit", "weight", 1))
    )

    async def story() -> list[str]:
        runner = world.runner(world.open(), [venue])
        await runner.start()
        qualities = []
        for equity in ("1000", "850", "850"):
            venue.answer = book(equity) if not venue.sent else venue.answer
            await world.clock.sleep(1.0)
            qualities.append((await runner.tick()).snapshot.accounts[0].quality)
        await runner.finish()
        return qualities

    try:
        assert asyncio.run(story()) == ["ok", "ok", "down"]
    finally:
        world.close()
    assert [(order.side, order.amount) for order in venue.sent] == [("sell", Decimal(10))]


class Crowd:
    """Accounts at one address, each polled again a second after its last poll, beside a close without an end."""

    def __init__(self, accounts: int, allowed: int, per: float, poll_cost: int) -> None:
        self.time = VirtualTime()
        limit = RateLimit("weight", allowed, per, "address")
        traits = VenueTraits((limit,), (Cost("snapshot", "weight", units=poll_cost), Cost("submit", "weight", units=1)))
        budgets = RequestBudgets()
        self._meters = [
            RequestMeter(budgets.of(str(each), "v", traits, Decimal("0.5")), monotonic=self.time.monotonic)
            for each in range(accounts)
        ]
        self.orders = 0
        self.read_at: list[list[float]] = [[] for _ in range(accounts)]

    def go_on_for(self, seconds: float, *, closing: bool) -> None:
        async def all_of_it() -> None:
            polls = [self._read(each, seconds) for each in range(len(self._meters))]
            await asyncio.gather(*polls, *([self._close(seconds)] if closing else []))

        self.time.run(all_of_it())

    async def _close(self, end: float) -> None:
        """Orders take every unit that is free; answers take 0.04 to 0.22 s."""
        budget, loop = self._meters[0].budget, asyncio.get_running_loop()
        while self.time.elapsed < end:
            while budget.wait(now := self.time.elapsed, "submit", ("X",)) <= 0.0:
                ticket, self.orders = budget.reserve(now, "submit", ("X",)), self.orders + 1
                answered_at = now + 0.04 + self.orders % 7 * 0.03
                loop.call_at(answered_at, budget.answered, answered_at, ticket)
            await asyncio.sleep(budget.wait(self.time.elapsed, "submit", ("X",)))

    async def _read(self, account: int, end: float) -> None:
        meter = self._meters[account]
        while self.time.elapsed < end:
            with suppress(NoPollRoomError):
                ticket = await meter.admit(5.0)
                self.read_at[account].append(self.time.elapsed)
                await asyncio.sleep(0.04)
                meter.finish(ticket, ScriptedVenue(None))
            await asyncio.sleep(1.0)

    @property
    def longest_gap(self) -> float:
        """The longest time, in seconds, for which any account was not polled."""
        ends = [[0.0, *times, self.time.elapsed] for times in self.read_at]
        return max(later - earlier for each in ends for earlier, later in pairwise(each))


@pytest.mark.parametrize(("allowed", "per", "poll_cost"), [(20, 1.0, 5), (100, 10.0, 20), (2400, 60.0, 50)])
def test_a_close_with_a_backlog_does_not_keep_the_account_from_being_polled(
    allowed: int, per: float, poll_cost: int
) -> None:
    """Orders that take every unit as it comes back leave a poll its own once in a window, and keep their half."""
    crowd = Crowd(1, allowed, per, poll_cost)
    crowd.go_on_for(300.0, closing=True)
    assert crowd.longest_gap < per + 3.0
    assert crowd.orders >= allowed / 2 * 300.0 / (per + 0.22)


@pytest.mark.parametrize("closing", [True, False])
def test_accounts_at_one_address_are_polled_equally_often(*, closing: bool) -> None:
    """Ten accounts on room for two and a half polls a second: none is skipped for others."""
    crowd = Crowd(10, 100, 1.0, 20)
    crowd.go_on_for(60.0, closing=closing)
    counts = [len(each) for each in crowd.read_at]
    assert max(counts) - min(counts) <= 1
    assert crowd.longest_gap < 10 / 2 * 1.5


@pytest.mark.parametrize("accounts", [3, 5])
def test_too_many_accounts_at_one_address_are_polled_rarely_but_evenly(
    accounts: int,
) -> None:
    """Half of 2400 units a minute is 60 polls of 20: three accounts in step would have spent them after 20 s."""
    crowd = Crowd(accounts, 2400, 60.0, 20)
    crowd.go_on_for(300.0, closing=False)
    assert crowd.longest_gap < 13.0
    read = sum(len(each) for each in crowd.read_at)
    assert 0.85 * 300 < read <= 300 + 60, "what the limit allows is used, and no more"


def test_polls_that_fit_into_a_long_limit_are_never_slowed() -> None:
    """55 polls of 20 in a minute are less than half of 2400: each leaves at the moment that it is due."""
    crowd = Crowd(1, 2400, 60.0, 20)
    crowd.go_on_for(300.0, closing=False)
    assert {round(later - earlier, 6) for earlier, later in pairwise(crowd.read_at[0])} == {1.04}


def test_a_pushed_poll_is_not_paced() -> None:
    """Ten polls of 20 of 400 in ten seconds are the pace of 2400 a minute; a pushed poll leaves at once, besides."""

    async def story() -> list[int]:
        limit = RateLimit("weight", 2400, 60.0, "address")
        traits = VenueTraits((limit,), (Cost("snapshot", "weight", units=20),))
        meter = RequestMeter(RequestBudgets().of("main", "v", traits, Decimal("0.5")), monotonic=lambda: 0.0)
        counts = []
        for poll in (True, False):
            with suppress(NoPollRoomError):
                for number in range(100):  # noqa: B007 - how many it came to is read below
                    await meter.admit(0.0, poll=poll)
            counts.append(number)
        return counts

    assert asyncio.run(story()) == [11, 60 - 11]


class Ticking:
    """Accounts that are all polled at every interval, as by a runner; `answer` in seconds."""

    def __init__(
        self, accounts: int, poll_cost: int, interval: float, *, allowed: int = 2400, patience: float = 5.0
    ) -> None:
        self.time = VirtualTime()
        traits = VenueTraits(
            (RateLimit("weight", allowed, 60.0, "address"),), (Cost("snapshot", "weight", units=poll_cost),)
        )
        budgets = RequestBudgets(interval)
        self._meters = [
            RequestMeter(
                budgets.of(str(each), "v", traits, Decimal("0.5")), monotonic=self.time.monotonic, interval=interval
            )
            for each in range(accounts)
        ]
        self._interval, self._patience = interval, patience
        self.missed = 0
        self.read_at: list[list[float]] = [[] for _ in range(accounts)]

    def go_on_for(self, seconds: float) -> None:
        async def all_of_it() -> None:
            while (begun := self.time.elapsed) < seconds:
                await asyncio.gather(*(self._poll(each) for each in range(len(self._meters))))
                await asyncio.sleep(max(0.0, begun + self._interval - self.time.elapsed))

        self.time.run(all_of_it())

    async def _poll(self, account: int) -> None:
        meter = self._meters[account]
        try:
            ticket = await meter.admit(self._patience)
        except NoPollRoomError:
            self.missed += 1
            return
        self.read_at[account].append(self.time.elapsed)
        await asyncio.sleep(0.1)
        meter.finish(ticket, ScriptedVenue(None))

    @property
    def longest_gap(self) -> float:
        ends = [[0.0, *times, self.time.elapsed] for times in self.read_at]
        return max(later - earlier for each in ends for earlier, later in pairwise(each))


@pytest.mark.parametrize(
    ("accounts", "poll_cost", "interval"),
    [(1, 17, 1.0), (3, 17, 4.0), (13, 17, 12.0), (20, 17, 20.0), (4, 150, 35.0), (60, 17, 60.0)],
)
def test_polls_that_fit_into_a_limit_are_not_refused_by_their_pacing(
    accounts: int, poll_cost: int, interval: float
) -> None:
    """All of a tick leave together; half of 2400 a minute holds them at every interval, and so must the pacing."""
    assert accounts * poll_cost * 60 / interval <= 1200
    ticking = Ticking(accounts, poll_cost, interval)
    ticking.go_on_for(1200.0)
    assert ticking.missed == 0


def test_far_too_many_accounts_are_all_polled_in_turn() -> None:
    """Fifty accounts in room for one poll a second: each about once in fifty seconds, none of them forgotten."""
    ticking = Ticking(50, 20, 1.0)
    ticking.go_on_for(260.0)
    assert ticking.longest_gap < 75.0
    counts = [len(each) for each in ticking.read_at]
    assert max(counts) <= 1.5 * min(counts)


def test_accounts_whose_polls_cost_differently_share_one_pace() -> None:
    """The dearer poll always fits, whichever account was named first."""
    limit = RateLimit("weight", 40, 60.0, "address")
    for costs in ((10, 5), (5, 10)):
        budgets = RequestBudgets()
        found = [
            budgets.of(str(cost), "v", VenueTraits((limit,), (Cost("snapshot", "weight", units=cost),)))
            for cost in costs
        ]
        for budget in found:
            assert budget.wait(0.0, "snapshot", (), "poll") == 0.0


def test_a_claim_of_a_poll_ends_with_the_poll_that_replaced_it() -> None:
    """A corroboration that claims after the poll takes over; once it is read, the others need not wait for either."""
    limit = RateLimit("weight", 240, 60.0, "address")
    traits = VenueTraits((limit,), (Cost("snapshot", "weight", units=40),))
    budgets = RequestBudgets()
    one, two = (budgets.of(name, "v", traits) for name in ("one", "two"))
    taken = one.reserve(0.0, "snapshot", (), "poll")
    one.answered(0.1, taken)
    one.claim(1.0, "snapshot", (), "poll", overdue=2.0, until=1000.0)
    one.claim(2.0, "snapshot", overdue=3.0, until=1000.0)
    one.answered(2.1, one.reserve(2.0, "snapshot", (), "turn"))
    assert two.wait(20.0, "snapshot", (), "poll") == 0.0
