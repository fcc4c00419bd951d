"""The lock folder kept at what the decisions call for, whatever happens to its files meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from killswitch.gate.lock import LockFolder
from killswitch.gate.reading import Verdict, read_lock
from killswitch.model.decision import Decision, LockMode, LockOrder
from killswitch.model.store import JournalEntry, JournalKind, TickRecord
from killswitch.runner.accounts import ArmedAccount, Arming
from killswitch.runner.hands import hand
from killswitch.runner.locking import Locking
from killswitch.store.sql import SqlStore
from tests import graphs
from tests.runner_world import ScriptedVenue, World, crash_policy

MAIN = "account/main"


class Site:
    """A store, a lock folder with a union, and `Locking`s on them, one after the other."""

    def __init__(self, world: World) -> None:
        self.store: SqlStore = world.open()
        self.now: datetime = world.clock.now()
        self.union = world.folder / "union.json"
        self.folder = world.locks.folder
        self.file = self.folder / "account__main.json"
        self.gate = self.started()

    def started(self) -> Locking:
        """What a runner that starts now makes of the folder."""
        venue = ScriptedVenue(None)
        accounts = {"main": ArmedAccount("main", "paper", "swap", "USDT", venue, armed=True)}
        policies = graphs.policy_set(crash_policy(), graphs.graph([], [], [], policy="other"))
        folder = LockFolder(self.folder, self.union, generation=1, alive_for=3600.0)
        self.gate = Locking(folder, self.store, Arming(accounts, policies))
        self.gate.recover(self.now)
        return self.gate

    def commit(self, one: Decision) -> None:
        """Record `one` as a tick does, and act on it."""
        self.store.commit_tick(
            TickRecord(self.now, "sha256:test", (), (), (one,), (), self.gate.planned(one), None, (), 0)
        )
        self.gate.act((one,), self.now)

    def later(self, seconds: float) -> tuple[str, ...]:
        """One more tick that decides nothing."""
        self.now += timedelta(seconds=seconds)
        return self.gate.act((), self.now)

    def says(self, path: Path) -> Verdict:
        return read_lock(path, self.now)

    def fires(self, policy: str = "crash", mode: LockMode = "reduce_only") -> Decision:
        return Decision(
            id=f"{policy}-fires-{self.now.timestamp():.0f}", as_of=self.now, policy=policy, policy_set="sha256:test",
            scope=MAIN, mode="enforce", stage="stop", level=1, previous_level=0, lock=LockOrder(MAIN, mode, None),
        )  # fmt: skip

    def resets(self, policy: str = "crash", author: str | None = None) -> Decision:
        return Decision(
            id=f"{policy}-reset-{self.now.timestamp():.0f}", as_of=self.now, policy=policy, policy_set="sha256:test",
            scope=MAIN, mode="enforce", stage="stop", level=0, previous_level=1, kind="reset", author=author,
        )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    world = World(tmp_path)
    yield Site(world)
    world.close()


@pytest.mark.parametrize("left", [None, "open", "milder"])
def test_l1_a_lock_whose_file_is_taken_away_or_weakened_is_written_again(site: Site, left: str | None) -> None:
    """Neither the scope's file nor the union ever opens because somebody deleted or rewrote the scope's file."""
    site.commit(site.fires(mode="all"))
    if left is None:
        site.file.unlink()
    else:
        said = json.loads(site.file.read_text()) | ({"locked": False} if left == "open" else {"mode": "reduce_only"})
        site.file.write_text(json.dumps(said))
    assert site.later(1) == ()
    assert (site.says(site.file).mode, site.says(site.union).mode) == ("all", "all")


def test_an_open_file_that_is_taken_away_is_made_again(site: Site) -> None:
    """Its readers take a missing file for locked, and a runner lives that says otherwise."""
    assert not site.says(site.file).locked
    site.file.unlink()
    site.later(1)
    assert not site.says(site.file).locked


def closing_of(decision: Decision, kind: JournalKind, at: datetime) -> JournalEntry:
    return JournalEntry(decision.id, kind, at, account="main", data={"status": "flat"})


@pytest.mark.parametrize("restart", [False, True])
def test_c4_a_reset_in_mid_close_leaves_the_lock_until_the_closing_has_ended(site: Site, restart: bool) -> None:
    """While the switch still sells, bots must not buy: the lock goes with the last order, over restarts too."""
    fires = site.fires()
    site.commit(fires)
    site.store.append(closing_of(fires, "planned", site.now))
    site.commit(site.resets())
    if restart:
        site.started()
    site.later(1)
    assert site.says(site.file).locked
    site.store.append(closing_of(fires, "finished", site.now))
    site.later(1)
    assert not site.says(site.file).locked
    assert not site.says(site.union).locked


def test_what_fires_after_a_reset_in_mid_close_keeps_its_own_lock(site: Site) -> None:
    """The end of the earlier closing takes back the earlier lock, not the one ordered since."""
    fires = site.fires()
    site.commit(fires)
    site.store.append(closing_of(fires, "planned", site.now))
    site.commit(site.resets())
    site.later(1)
    site.commit(site.fires())
    site.store.append(closing_of(fires, "finished", site.now))
    site.later(1)
    assert site.says(site.file).locked
    site.started()
    assert site.says(site.file).locked


def reset_by_hand(site: Site, scope: str) -> tuple[str, ...]:
    return site.gate.act((), site.now, (hand("reset", scope, "operator-1", "looked at it", site.now),))


@pytest.mark.parametrize("content", [b"garbage", b""])
def test_a_reset_by_hand_lifts_a_lock_file_that_nobody_can_read(site: Site, content: bytes) -> None:
    """No policy is latched, so no decision says so: the hand alone is enough."""
    site.file.write_bytes(content)
    site.later(1)
    assert site.says(site.union).locked
    assert reset_by_hand(site, MAIN) == ()
    assert not site.says(site.file).locked
    assert not site.says(site.union).locked


def test_a_reset_by_hand_of_foreign_lifts_what_another_program_left(site: Site) -> None:
    """The documents say that a hand lifts it, under that name."""
    site.union.write_text('{"locked": tru')
    site.later(1)
    assert site.says(site.union).locked
    reset_by_hand(site, "foreign")
    site.later(1)
    assert not site.says(site.union).locked


def test_a_lock_without_a_latch_is_lifted_by_hand_and_stays_lifted(site: Site) -> None:
    """Also that of a policy that is gone, or that locked without latching; no restart writes it again."""
    site.commit(site.fires("removed-since"))
    reset_by_hand(site, MAIN)
    assert not site.says(site.file).locked
    site.started()
    assert not site.says(site.file).locked


def test_a_lock_that_fires_in_the_tick_of_the_hand_stands(site: Site) -> None:
    """The hand takes back what stood when it was given."""
    fires = site.fires()
    site.store.commit_tick(
        TickRecord(site.now, "sha256:test", (), (), (fires,), (), site.gate.planned(fires), None, (), 0)
    )
    site.gate.act((fires,), site.now, (hand("reset", MAIN, "operator-1", "looked at it", site.now),))
    assert site.says(site.file).locked


def test_only_a_hand_lifts_what_cannot_be_read(site: Site) -> None:
    """A reset that stands in history opens, at a restart, only a file that can be read as one of ours."""
    site.commit(site.fires())
    site.commit(site.resets(author="operator-1"))
    assert not site.says(site.file).locked
    site.file.write_bytes(b"garbage")
    site.started()
    site.later(1)
    assert site.file.read_bytes() == b"garbage"
    assert site.says(site.union).locked
