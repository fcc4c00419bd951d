"""The lock folder is kept at what the decisions require, whatever happens to its files meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from errno import ENOSPC
from pathlib import Path

import pytest

from killswitch.accounts.arming import ArmedAccount, Arming
from killswitch.gate.lock_reader import LockVerdict, read_lock
from killswitch.model.decision import Decision, LockMode, LockOrder
from killswitch.model.store import JournalEntry, JournalKind, TickRecord
from killswitch.operations.commands import operator_event
from killswitch.runner.locks.lock_lifecycle import LockLifecycle
from killswitch.store.sql import SqlStore
from tests import graphs
from tests.lock_turns import LockFolder, Locking
from tests.runner_world import ScriptedVenue, World, crash_policy

MAIN = "account/main"


class Site:
    """A store, a lock folder with a union, and `LockLifecycle`s on them, one after the other."""

    def __init__(self, world: World) -> None:
        self.store: SqlStore = world.open()
        self.now: datetime = world.clock.now()
        self.union = world.folder / "union.json"
        self.folder = world.locks.folder
        self.file = self.folder / "account__main.json"
        self.gate = self.started()

    def started(self) -> Locking:
        """The content of the folder after a runner starts now."""
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

    def read(self, path: Path) -> LockVerdict:
        return read_lock(path, self.now)

    def fires(self, policy: str = "crash", mode: LockMode = "reduce_only", seconds: float | None = None) -> Decision:
        until = None if seconds is None else self.now + timedelta(seconds=seconds)
        return Decision(
            id=f"{policy}-fires-{self.now.timestamp():.0f}", as_of=self.now, policy=policy, policy_set="sha256:test",
            scope=MAIN, mode="enforce", stage="stop", level=1, previous_level=0, lock=LockOrder(MAIN, mode, until),
        )  # fmt: skip

    def suspects(self, policy: str = "crash", mode: LockMode = "reduce_only", seconds: float = 20) -> Decision:
        """A lock on suspicion for so many seconds; 0 withdraws those before it."""
        until = self.now + timedelta(seconds=seconds)
        return Decision(
            id=f"{policy}-suspects-{self.now.timestamp():.0f}", as_of=self.now, policy=policy,
            policy_set="sha256:test", scope=MAIN, mode="enforce", stage="stop", level=0, previous_level=0,
            kind="suspicion", lock=LockOrder(MAIN, mode, until), reason="suspicion: equity fell by 30000 USDT",
        )  # fmt: skip

    @property
    def is_locked(self) -> bool:
        """Whether bots are locked, on which the scope's file and the union agree."""
        scope, union = self.read(self.file).locked, self.read(self.union).locked
        assert scope == union
        return scope

    def written(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.file.read_text())
        return found

    def unfinished(self) -> list[str]:
        return [stored.decision.id for stored in self.store.unfinished()]

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


@pytest.mark.parametrize("remaining", [None, "open", "milder"])
def test_l1_a_lock_whose_file_is_deleted_or_weakened_is_written_again(site: Site, remaining: str | None) -> None:
    """Neither the scope's file nor the union ever opens because somebody deleted or rewrote the scope's file."""
    site.commit(site.fires(mode="all"))
    if remaining is None:
        site.file.unlink()
    else:
        content = json.loads(site.file.read_text()) | (
            {"locked": False} if remaining == "open" else {"mode": "reduce_only"}
        )
        site.file.write_text(json.dumps(content))
    assert site.later(1) == ()
    assert (site.read(site.file).mode, site.read(site.union).mode) == ("all", "all")


def test_a_restart_knows_the_written_locks_before_the_folder_answers(site: Site) -> None:
    """A folder that hangs at the start hides no breach: the file of the run before is left, with its beginning."""
    fired = site.fires()
    site.commit(fired)
    begun = site.now
    site.now += timedelta(minutes=5)
    accounts = {"main": ArmedAccount("main", "paper", "swap", "USDT", ScriptedVenue(None), armed=True)}
    lifecycle = LockLifecycle(site.store, Arming(accounts, graphs.policy_set(crash_policy())))
    lifecycle.remember(site.now)
    (known,) = lifecycle.written(site.now)
    assert (known.decision, known.since) == (fired.id, begun)


def test_an_open_file_that_is_deleted_is_written_again(site: Site) -> None:
    """Readers take a missing file for locked, and a living runner says otherwise."""
    assert not site.read(site.file).locked
    site.file.unlink()
    site.later(1)
    assert not site.read(site.file).locked


def closing_of(decision: Decision, kind: JournalKind, at: datetime) -> JournalEntry:
    return JournalEntry(decision.id, kind, at, account="main", data={"status": "flat"})


@pytest.mark.parametrize("restart", [False, True])
def test_c4_a_reset_during_a_close_keeps_the_lock_until_the_close_has_ended(site: Site, restart: bool) -> None:
    """While the switch still sells, bots must not buy: the lock ends with the last order, also across restarts."""
    fires = site.fires()
    site.commit(fires)
    site.store.append(closing_of(fires, "planned", site.now))
    site.commit(site.resets())
    if restart:
        site.started()
    site.later(1)
    assert site.read(site.file).locked
    site.store.append(closing_of(fires, "finished", site.now))
    site.later(1)
    assert not site.read(site.file).locked
    assert not site.read(site.union).locked


def test_a_lock_ordered_after_a_reset_during_a_close_is_kept(site: Site) -> None:
    """The end of the earlier close lifts the earlier lock, not the one ordered since."""
    fires = site.fires()
    site.commit(fires)
    site.store.append(closing_of(fires, "planned", site.now))
    site.commit(site.resets())
    site.later(1)
    site.commit(site.fires())
    site.store.append(closing_of(fires, "finished", site.now))
    site.later(1)
    assert site.read(site.file).locked
    site.started()
    assert site.read(site.file).locked


def reset_by_hand(site: Site, scope: str) -> tuple[str, ...]:
    return site.gate.act((), site.now, (operator_event("reset", scope, "operator-1", "looked at it", site.now),))


@pytest.mark.parametrize("content", [b"garbage", b""])
def test_a_manual_reset_lifts_an_unreadable_lock_file(site: Site, content: bytes) -> None:
    """No policy is latched, so no decision says so: the operator command alone is enough."""
    site.file.write_bytes(content)
    site.later(1)
    assert site.read(site.union).locked
    assert reset_by_hand(site, MAIN) == ()
    assert not site.read(site.file).locked
    assert not site.read(site.union).locked


def test_a_manual_reset_of_foreign_lifts_a_foreign_lock(site: Site) -> None:
    """The documents say that an operator lifts it, under that name."""
    site.union.write_text('{"locked": tru')
    site.later(1)
    assert site.read(site.union).locked
    reset_by_hand(site, "foreign")
    site.later(1)
    assert not site.read(site.union).locked


def test_a_lock_without_a_latch_is_lifted_manually_and_stays_lifted(site: Site) -> None:
    """Also that of a policy that is gone, or that locked without latching; no restart writes it again."""
    site.commit(site.fires("removed-since"))
    reset_by_hand(site, MAIN)
    assert not site.read(site.file).locked
    site.started()
    assert not site.read(site.file).locked


def test_a_lock_that_fires_in_the_tick_of_the_reset_is_kept(site: Site) -> None:
    """The reset lifts the locks in force when it was given."""
    fires = site.fires()
    site.store.commit_tick(
        TickRecord(site.now, "sha256:test", (), (), (fires,), (), site.gate.planned(fires), None, (), 0)
    )
    site.gate.act((fires,), site.now, (operator_event("reset", MAIN, "operator-1", "looked at it", site.now),))
    assert site.read(site.file).locked


def test_only_a_manual_reset_lifts_an_unreadable_file(site: Site) -> None:
    """A reset in the history opens, at a restart, only a file that can be read as one of ours."""
    site.commit(site.fires())
    site.commit(site.resets(author="operator-1"))
    assert not site.read(site.file).locked
    site.file.write_bytes(b"garbage")
    site.started()
    site.later(1)
    assert "is not a lock file" in str(site.written()["reason"])
    assert site.is_locked


def test_a_lock_on_suspicion_states_its_kind_and_end_and_ends_by_itself(site: Site) -> None:
    """20 s from 00:00:00; bots and people read the reason, programs read `details`."""
    site.commit(site.suspects())
    assert site.is_locked
    reason = "suspicion: equity fell by 30000 USDT; locked until 2024-01-01T00:00:20Z unless the cause is known before"
    assert site.written()["reason"] == reason
    assert site.written()["details"] == {"decision": "crash-suspects-1704067200", "on_suspicion": "yes"}
    assert "on_suspicion" in json.loads(site.union.read_text())["details"]
    site.later(19)
    assert site.is_locked
    site.later(1)
    assert not site.is_locked
    assert site.unfinished() == []


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("first", ["lock", "suspicion"])
def test_a_suspicion_never_lengthens_another_lock(site: Site, first: str, restart: bool) -> None:
    """A lock of 5 s by another policy, before the suspicion or after it: trading opens after the 5 s."""
    lock, suspicion = site.fires("other", "all", seconds=5), site.suspects()
    for decision in (lock, suspicion) if first == "lock" else (suspicion, lock):
        site.commit(decision)
    assert site.read(site.file).mode == "all"
    assert "on_suspicion" not in json.loads(site.union.read_text())["details"]
    site.later(4)
    assert site.is_locked
    site.later(1)
    assert not site.is_locked
    if restart:
        site.started()
        assert not site.is_locked
    assert site.unfinished() == []


def test_a_suspicion_in_the_same_tick_leaves_the_lock_unchanged(site: Site) -> None:
    """Both are committed before either is written; the milder mode and the earlier end of the lock hold."""
    lock, suspicion = site.fires("other", seconds=5), site.suspects(mode="all")
    site.store.commit_tick(
        TickRecord(
            site.now, "sha256:test", (), (), (suspicion, lock), (),
            (*site.gate.planned(suspicion), *site.gate.planned(lock)), None, (), 0,
        )
    )  # fmt: skip
    site.gate.act((suspicion, lock), site.now)
    assert site.read(site.file).mode == "reduce_only"
    assert site.written()["details"] == {"decision": lock.id}
    site.later(5)
    assert not site.is_locked


def test_a_suspicion_leaves_a_lock_that_this_store_did_not_order(site: Site) -> None:
    """Another writer has locked the scope for 5 s: the file stays unchanged, and nothing follows its end."""
    until = site.now + timedelta(seconds=5)
    others = LockFolder(site.folder, site.union, generation=1, alive_for=3600.0)
    others.write(LockOrder(MAIN, "reduce_only", until), "theirs", "theirs", "theirs", site.now)
    before = site.file.read_bytes()
    site.commit(site.suspects(mode="all"))
    assert site.file.read_bytes() == before
    site.later(5)
    assert not site.is_locked


def test_two_suspicions_last_until_the_later_end(site: Site) -> None:
    """Of two policies, or of two falls: each has its own 20 s."""
    site.commit(site.suspects())
    site.later(10)
    site.commit(site.suspects("other"))
    site.later(19)
    assert site.is_locked
    site.later(1)
    assert not site.is_locked


@pytest.mark.parametrize("restart", ["none", "before", "after"])
def test_a_suspicion_that_is_withdrawn_opens_at_once(site: Site, restart: str) -> None:
    """Its fall was money that moved; also where a new run withdraws it, and where a new run starts afterwards."""
    site.commit(site.suspects())
    if restart == "before":
        site.started()
    site.later(5)
    assert site.is_locked
    site.commit(site.suspects(seconds=0))
    if restart == "after":
        site.started()
    assert not site.is_locked
    assert site.unfinished() == []


def test_a_withdrawal_leaves_the_suspicion_of_another_policy(site: Site) -> None:
    """What one policy knows by now, the other may not know."""
    site.commit(site.suspects())
    site.commit(site.suspects("other"))
    site.later(1)
    site.commit(site.suspects(seconds=0))
    assert site.is_locked
    site.later(19)
    assert not site.is_locked


def test_a_withdrawal_leaves_the_lock_that_replaced_the_suspicion(site: Site) -> None:
    """The stage has fired since: its lock is permanent."""
    site.commit(site.suspects())
    site.commit(site.fires())
    site.later(1)
    site.commit(site.suspects(seconds=0))
    assert site.is_locked


def crashed_before_acting(site: Site, *decisions: Decision) -> None:
    """A tick committed by a run that died before it acted."""
    for one in decisions:
        site.store.commit_tick(
            TickRecord(site.now, "sha256:test", (), (), (one,), (), site.gate.planned(one), None, (), 0)
        )


@pytest.mark.parametrize(("later", "locked"), [(5, True), (20, False)])
def test_a_planned_suspicion_that_was_not_written_expires_at_its_end(site: Site, later: int, locked: bool) -> None:
    """A run dies between commit and lock. The next one writes the rest of the 20 s, or nothing at all."""
    crashed_before_acting(site, site.suspects())
    site.now += timedelta(seconds=later)
    site.started()
    assert site.is_locked is locked
    assert site.unfinished() == []
    site.later(20)
    assert not site.is_locked


def test_a_withdrawal_that_was_not_carried_out_is_carried_out_by_the_next_run(site: Site) -> None:
    """A run dies between the withdrawal's commit and the lifting."""
    site.commit(site.suspects())
    site.now += timedelta(seconds=2)
    crashed_before_acting(site, site.suspects(seconds=0))
    site.started()
    assert not site.is_locked


def test_a_suspicion_that_ends_under_another_lock_stays_unwritten_after_a_crash(site: Site) -> None:
    """A lock of 5 s was in force when a run died with a suspicion planned; the next one starts after those 5 s."""
    site.commit(site.fires("other", seconds=5))
    crashed_before_acting(site, site.suspects())
    site.now += timedelta(seconds=6)
    site.started()
    assert not site.is_locked
    assert site.unfinished() == []


def test_a_suspicion_that_could_not_be_written_in_time_leaves_no_unfinished_work(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full for its 20 s: by then it has expired, and nobody writes it afterwards."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("killswitch.gate.lock_file_writer.replace_file", refuse)
        site.commit(site.suspects())
        assert len(site.unfinished()) == 1
        site.later(20)
    assert site.unfinished() == []
    site.later(1)
    assert not site.is_locked


def test_a_suspicion_suspends_no_broker(site: Site) -> None:
    """It writes a lock of mode `all`, and no account counts as fully locked."""
    site.commit(site.suspects(mode="all"))
    assert site.read(site.file).mode == "all"
    assert site.gate.fully_locked(site.now) == frozenset()


def test_a_suspicion_replaced_by_a_lock_does_not_return_when_the_lock_is_reset(site: Site) -> None:
    """A stage fires and is reset within the 20 s of another policy's suspicion; a new run starts within them."""
    site.commit(site.suspects("other"))
    site.commit(site.fires())
    site.later(1)
    site.commit(site.resets())
    assert not site.is_locked
    site.started()
    assert not site.is_locked
