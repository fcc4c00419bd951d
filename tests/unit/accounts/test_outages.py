"""An armed account that cannot be polled for long is a page with its reason, once, and so is its recovery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from killswitch.accounts.arming import ArmedAccount
from killswitch.model.decision import Notice
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import CredentialsRefusedError, Push, VenueDownError
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.loop import RunnerPace
from killswitch.runner.status_blob import LIVE_NAME, decode_view
from killswitch.store.sqlite import open_store
from tests import graphs
from tests.runner_world import ScriptedVenue, Seen, book, crash_policy
from tests.virtual_time import VirtualTime

Answer = AccountSnapshot | BaseException | float
DOWN = VenueDownError("connection refused")


class Timed(ScriptedVenue):
    """Answers as its script says for the second of the run; a number is the seconds before a sound answer."""

    def __init__(self, time: VirtualTime, script: Callable[[float], Answer], account: str = "main") -> None:
        super().__init__(book("1000", account), account)
        self.time = time
        self.script = script

    async def snapshot(self) -> AccountSnapshot:
        answer = self.script(self.time.monotonic())
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return book("1000", self.account)
        return answer


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.time = VirtualTime()
        self.store = open_store(str(folder / "store.sqlite"))
        self.seen = Seen()

    def run(self, ticks: int, *venues: ScriptedVenue, armed: bool = True, pace: RunnerPace | None = None) -> None:
        """At an interval of 1 s and a timeout of 0.5 s: so an outage is reported after 15 s, the least there is."""
        accounts = {
            each.account: ArmedAccount(each.account, "paper", "swap", "USDT", each, armed=armed) for each in venues
        }
        runner = assemble(
            graphs.policy_set(crash_policy()), accounts, self.store, self.time,
            pace or RunnerPace(1.0, 0.5, stop_timeout=0.5),
            live=armed, locks=LockPaths(self.folder / "locks", None), observers=(self.seen,),
        )  # fmt: skip
        self.time.run(runner.run(asyncio.Event(), ticks))

    def notices(self, part: str = "account") -> list[tuple[int, str, str]]:
        """Notices of the runner, with the second of the run at which they were sent."""
        return [
            (round((report.snapshot.as_of - self.time.start).total_seconds()), each.severity, each.text)
            for report in self.seen.reports
            for each in report.notices
            if each.policy == "runner" and part in each.text
        ]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def out(first: float, last: float) -> Callable[[float], Answer]:
    """Down from one second to another."""
    return lambda now: DOWN if first <= now < last else 0.0


def test_an_outage_of_72_s_is_one_page_with_its_reason_and_one_all_clear(site: Site) -> None:
    """Down from 5 s to 77 s: a page after 15 s of it, and one when it is polled again."""
    site.run(90, Timed(site.time, out(5, 77)))
    assert site.notices() == [
        (
            20,
            "page",
            "account main cannot be read since 2021-05-19T12:00:05Z (down: connection refused); until it is, its "
            "triggers go by their on_unknown",
        ),
        (77, "page", "account main can be read again, after 72 s"),
    ]


def test_the_status_lists_an_outage_under_problems_until_it_is_over(site: Site) -> None:
    """From 15 s of it on, at every tick, in the same text; not after it."""
    site.run(60, Timed(site.time, out(5, 45)))
    listed = [
        round((each.snapshot.as_of - site.time.start).total_seconds()) for each in site.seen.reports if each.problems
    ]
    assert listed == list(range(20, 45))
    assert len({each.problems for each in site.seen.reports if each.problems}) == 1
    blob = site.store.live(LIVE_NAME)
    assert blob is not None
    assert decode_view(blob).problems == ()


def test_an_outage_of_fourteen_seconds_is_not_reported(site: Site) -> None:
    """Venues restart and limit: an outage that ends before anybody could look is left to the terminal."""
    site.run(40, Timed(site.time, out(5, 19)))
    assert site.notices() == []
    assert not any(report.problems for report in site.seen.reports)


def test_slow_ticks_allow_three_slow_polls(site: Site) -> None:
    """Every 60 s with a timeout of 5 s: three polls take up to 195 s, so the fifth failure in a row is reported."""
    pace = RunnerPace(60.0, 5.0, stop_timeout=0.5)
    site.run(12, Timed(site.time, lambda now: DOWN if now in (60, 120) or 300 <= now <= 540 else 0.0), pace=pace)
    assert [(at, text.partition(" (")[0]) for at, _, text in site.notices()] == [
        (540, "account main cannot be read since 2021-05-19T12:05:00Z"),
        (600, "account main can be read again, after 5 min"),
    ]


def test_a_rejected_key_is_reported_at_once(site: Site) -> None:
    """From the first tick on: a retry has the same result, so nothing is waited for; one page, with the way out."""
    site.run(40, Timed(site.time, lambda _: CredentialsRefusedError("invalid signature")))
    assert site.notices() == [
        (
            0,
            "page",
            "the venue refuses the key of account main: invalid signature; nothing can be read or closed there: put a "
            "valid key where the document's credentials point to, and restart the runner",
        )
    ]
    assert site.seen.reports[0].problems == (site.notices()[0][2],)


def test_an_outage_that_turns_out_to_be_a_rejected_key_is_reported_as_that_too(site: Site) -> None:
    """Two pages: the reason that needs an action is not held back because another was reported."""
    site.run(60, Timed(site.time, lambda now: DOWN if now < 30 else CredentialsRefusedError("revoked")))
    assert [(at, text.partition(" (")[0].partition(":")[0]) for at, _, text in site.notices()] == [
        (15, "account main cannot be read since 2021-05-19T12"),
        (30, "the venue refuses the key of account main"),
    ]


def test_an_account_that_is_only_observed_pages_nobody(site: Site) -> None:
    """Nothing would be closed there."""
    site.run(40, Timed(site.time, out(5, 40)), armed=False)
    assert site.notices() == []


def test_an_outage_of_one_account_is_not_reported_for_another(site: Site) -> None:
    site.run(30, Timed(site.time, out(0, 40), "one"), Timed(site.time, lambda _: 0.0, "two"))
    assert [text.split()[1] for _, _, text in site.notices()] == ["one"]


def test_an_intermittent_account_is_reported_less_and_less(site: Site) -> None:
    """20 s away and one poll in between, 40 times: after the second page it no longer counts as over in between."""
    site.run(850, Timed(site.time, lambda now: 0.0 if now % 21 == 0 else DOWN))
    assert [text.partition(" since")[0].partition(",")[0] for _, _, text in site.notices()] == [
        "account main cannot be read", "account main can be read again", "account main cannot be read",
    ]  # fmt: skip


def test_a_first_answer_that_takes_twelve_seconds_is_awaited_without_a_problem(site: Site) -> None:
    """The reason states what is waited for, and the terminal does not show the account as down."""
    site.run(20, Timed(site.time, lambda now: 12.0 if now == 0 else 0.0))
    waited = [report for report in site.seen.reports if report.snapshot.accounts[0].reason]
    shown = {(each.snapshot.accounts[0].quality, each.outage(each.snapshot.accounts[0])) for each in waited}
    assert shown == {
        (
            "down",
            "not polled yet: waiting for the first answer, for at most 30 s: it holds the rules of all markets",
        )
    }
    assert len(waited) in (12, 13)
    assert site.notices() == []
    assert not any(report.problems for report in site.seen.reports)


def test_a_venue_without_a_first_answer_is_a_page_once_its_allowance_is_over(site: Site) -> None:
    """Not before 30 s, although 15 s are enough for one that has answered before; and it remains one page."""
    site.run(90, Timed(site.time, lambda _: 1000.0))
    ((at, severity, text),) = site.notices()
    assert (at in (30, 31), severity) == (True, "page")
    assert "(down: no first answer within 30 s)" in text


class Pushing(Timed):
    """A venue with a stream that is lost in an outage and retried after 300 s only, as adapters' pauses grow."""

    began: list[float]

    async def listen(self, hear: Callable[[Push], None]) -> None:
        self.began = [*getattr(self, "began", []), self.time.monotonic()]
        while True:
            if isinstance(self.script(self.time.monotonic()), BaseException):
                hear(Push("lost", "the venue hung up"))
                await asyncio.sleep(300.0)
            hear(Push("alive"))
            await asyncio.sleep(1.0)


def test_a_lost_stream_is_restarted_as_soon_as_the_account_is_polled_again(site: Site) -> None:
    """Its own pause is not waited for; the stream is a warning with an all-clear, the account a page with one."""
    venue = Pushing(site.time, out(5, 77))
    site.run(160, venue)
    assert [round(at) for at in venue.began] == [0, 77]
    assert [(severity, text) for _, severity, text in site.notices("stream")] == [
        (
            "warning",
            "the stream of account main is unreliable: the venue hung up; until it delivers again the "
            "account is polled at the interval only",
        ),
        ("warning", "the stream of account main delivers again, after 2 min"),
    ]
    assert [severity for _, severity, text in site.notices() if "stream" not in text] == ["page", "page"]


def test_no_notice_is_sent_twice(site: Site) -> None:
    """Over an outage with a stream, each notice is sent by one tick."""
    site.run(160, Pushing(site.time, out(5, 77)))
    sent = [each for report in site.seen.reports for each in report.notices]
    assert all(isinstance(each, Notice) for each in sent)
    assert len({each.text for each in sent}) == len(sent) == 4
