"""What is wrong now over the end of a run: in the status, after a restart, and after an upgrade."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.store import ALERTS
from killswitch.model.venue import VenueDownError
from killswitch.operations.status import encode_status, store_status
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.judged_keys import unjudged
from killswitch.runner.loop import RunnerPace
from killswitch.store.sqlite import open_store
from killswitch.watcher.watch import SwitchView
from tests import graphs, shown, worlds
from tests.runner_world import ScriptedVenue, crash_policy
from tests.virtual_time import VirtualTime

OUT = "account main cannot be read since 2021-05-19T12:00:05Z"


class Downable(ScriptedVenue):
    """A venue that is down between two seconds."""

    def __init__(self, time: VirtualTime, first: float, last: float) -> None:
        self.book = worlds.account("1000", (), name="main")
        super().__init__(self.book, "main")
        self.time, self.first, self.last = time, first, last

    async def snapshot(self) -> AccountSnapshot:
        if self.first <= self.time.monotonic() < self.last:
            raise VenueDownError("connection refused")
        return self.book


class Site:
    """Runs one after the other on one store; the account cannot be read from 5 s to 77 s."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.time = folder, VirtualTime()
        self.store = open_store(str(folder / "store.sqlite"))

    def run(self, ticks: int, *, armed: bool = True, name: str = "main") -> list[str]:
        """The notices of one more run, whose only account has this name, oldest first."""
        before = len(self.store.notices(1000))
        venue = Downable(self.time, 5, 77)
        venue.book = worlds.account("1000", (), name=name)
        account = ArmedAccount(name, "paper", "swap", "USDT", venue, armed=armed)
        runner = assemble(
            graphs.policy_set(crash_policy()), {name: account}, self.store, self.time,
            RunnerPace(1.0, 0.5, stop_timeout=0.5), live=armed, locks=LockPaths(self.folder / "locks", None),
        )  # fmt: skip
        self.time.run(runner.run(asyncio.Event(), ticks))
        notices = self.store.notices(1000)
        return [each.text.partition(" (")[0] for each in reversed(notices[: len(notices) - before])]

    def status(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(encode_status(store_status(self.store, self.time.now(), 0)))
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def test_the_status_lists_what_is_wrong_since_when(site: Site) -> None:
    """The outage began 15 s before it was notified; once it is over it is not listed."""
    site.run(30)
    assert site.status()["active_alerts"] == [
        {
            "key": "outage/main",
            "severity": "page",
            "since": "2021-05-19T12:00:05Z",
            "text": f"{OUT} (down: connection refused); until it is, its triggers go by their on_unknown",
            "scope": "runner",
        }
    ]
    text = shown.status_text(store_status(site.store, site.time.now(), 0), "s")
    (line,) = text.partition("\n\nActive alerts\n")[2].partition("\n\n")[0].splitlines()
    assert f"  page  {OUT} (down" in line
    site.run(60)
    assert site.status()["active_alerts"] == []


def test_a_restart_in_an_outage_pages_nothing_again_and_its_end_once(site: Site) -> None:
    """The second run does not know yet whether the account can be read: that is not the end of the outage."""
    assert site.run(30) == [OUT]
    assert site.run(30) == []
    assert site.run(30) == ["account main can be read again, after 72 s"]


def test_a_store_of_an_earlier_version_pages_an_outage_once_more(site: Site) -> None:
    """It has no state of alerts, and the text names the first poll of this run."""
    assert site.run(30) == [OUT]
    site.store.put_live(ALERTS, b"null")
    (again,) = site.run(30)
    assert again.startswith("account main cannot be read since 2021-05-19T12:00:29Z")


def test_a_run_that_does_not_arm_an_account_does_not_end_its_outage(site: Site) -> None:
    """Nobody polls the account for outages in that run: whether it can be read is known again in the next armed run."""
    site.run(30)
    assert site.run(10, armed=False) == []
    assert [each["key"] for each in cast("list[dict[str, str]]", site.status()["active_alerts"])] == ["outage/main"]
    assert site.run(45) == ["account main can be read again, after 72 s"]


def test_an_alert_of_an_account_that_was_removed_ends_with_a_notice(site: Site) -> None:
    """At the second tick of the first run without it, whose accounts are another one; it is listed no longer."""
    site.run(30)
    assert site.run(1, armed=False, name="other") == []
    assert [each["key"] for each in cast("list[dict[str, str]]", site.status()["active_alerts"])] == ["outage/main"]
    ended = "account main is no longer configured: outage/main has ended, after 25 s"
    assert site.run(5, armed=False, name="other") == [ended]
    assert site.status()["active_alerts"] == []


@pytest.mark.parametrize(
    ("key", "judged", "is_unjudged"),
    [
        ("closing/main/stalled", ("closing/other",), True),
        ("closing/main/stalled", ("closing/main",), False),
        ("closing/main/stalled", ("closing/mai",), True),
        ("locks/folder", (), True),
        ("locks/folder", ("locks",), False),
        ("hedge/main/BTC/USDT:USDT/long", (), True),
        ("hedge/main/BTC/USDT:USDT/long", ("hedge/main",), False),
        ("part/the locks", ("part/the outbox",), True),
        ("wall-clock/ahead", (), False),
    ],
)
def test_an_alert_of_a_part_that_a_run_does_not_have_is_unjudged(
    key: str, judged: tuple[str, ...], is_unjudged: bool
) -> None:
    assert unjudged((key,), judged) == ((key,) if is_unjudged else ())


def test_the_status_of_the_store_of_a_watcher_says_what_it_is(site: Site) -> None:
    """It has switches and evaluates no policy; elsewhere that no scope matches an account is a mistake of the set."""
    site.run(2)
    found = store_status(site.store, site.time.now(), 0)
    assert found.view is not None
    empty = replace(found, view=replace(found.view, machines=()))
    at = site.time.now()
    switch = SwitchView("maker", "the bot", "a file", ("main",), "close", "armed", at, 30.0, 1.0, 5.0, None, None, ())
    watcher = shown.status_text(replace(empty, switches=(switch,)), "s")
    assert "Stages: none, as this is the store of a watcher, which evaluates no policy" in watcher
    assert "no policy scope matches" not in watcher
    assert "Stages: no policy scope matches an account" in shown.status_text(empty, "s")
