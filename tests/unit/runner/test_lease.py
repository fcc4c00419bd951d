"""One runner per store."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.instant import SECOND, to_micros
from killswitch.runner.lease import LeaseHolder, LeaseLostError, LeaseRefusedError, is_dead, pid_of, this_process
from killswitch.store.sql import SqlStore
from tests.worlds import START


def test_a_second_runner_is_refused_and_told_who_holds_the_lease(store: SqlStore) -> None:
    """The message names the holder, until when its lease runs, and the way out."""
    clock = VirtualClock(START)
    LeaseHolder(store, clock, 30.0, "elsewhere/1/1").acquire()
    with pytest.raises(LeaseRefusedError) as refused:
        LeaseHolder(store, clock, 30.0, "here/2/2").acquire()
    assert "pid 1 on elsewhere" in str(refused.value)
    assert "2024-01-01T00:00:30Z" in str(refused.value)
    assert "SIGTERM" in str(refused.value)


def test_an_expired_lease_is_acquired_with_a_new_generation(store: SqlStore) -> None:
    """A runner that died on another machine blocks the store for its lease, and no longer."""
    import asyncio

    clock = VirtualClock(START)
    first = LeaseHolder(store, clock, 30.0, "elsewhere/1/1").acquire()
    asyncio.run(clock.sleep(31.0))
    second = LeaseHolder(store, clock, 30.0, "here/2/2").acquire()
    assert second.generation == first.generation + 1


def test_the_lease_of_a_process_proven_dead_is_acquired_at_once(store: SqlStore) -> None:
    """After a kill -9 on the same machine the next runner does not wait for the lease to expire."""
    printed = subprocess.run(
        [sys.executable, "-c", "from killswitch.runner.lease import this_process; print(this_process())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    dead = printed.stdout.strip()
    clock = VirtualClock(START)
    store.acquire(dead, to_micros(clock.now()), 3600 * SECOND)
    assert LeaseHolder(store, clock, 30.0).acquire().generation == 2


def test_a_holder_counts_as_dead_only_with_proof() -> None:
    """A living process, one of another machine and an unreadable name are not taken for dead."""
    assert not is_dead(this_process())
    assert not is_dead("another-host/boot/space/1/1")
    assert not is_dead("somebody")
    assert pid_of(this_process()) == os.getpid()
    assert pid_of("somebody") is None


def test_a_reused_process_id_does_not_keep_a_dead_runner_alive() -> None:
    """The start time is part of the name, so another process with the same id is distinguished."""
    machine, pid, started = this_process().rsplit("/", 2)
    assert is_dead(f"{machine}/{pid}/{int(started) - 1}")


def test_the_lease_is_renewed_before_it_expires_and_not_at_every_tick(store: SqlStore) -> None:
    """Renewal costs a write, so it waits until half of the lease has passed."""
    import asyncio

    clock = VirtualClock(START)
    holder = LeaseHolder(store, clock, 30.0)
    until = holder.acquire().expires_at
    asyncio.run(clock.sleep(10.0))
    holder.renew()
    lease = store.lease()
    assert lease is not None
    assert lease.expires_at == until
    asyncio.run(clock.sleep(6.0))
    holder.renew()
    lease = store.lease()
    assert lease is not None
    assert lease.expires_at == until + 16 * SECOND


def test_a_runner_that_overslept_its_lease_stops_if_another_has_acted_since(store: SqlStore) -> None:
    """Its memory is older than the store: it must not continue, even if the other runner has ended."""
    import asyncio

    clock = VirtualClock(START)
    holder = LeaseHolder(store, clock, 30.0)
    holder.acquire()
    asyncio.run(clock.sleep(40.0))
    other = LeaseHolder(store, clock, 30.0, "here/2/2")
    other.acquire()
    with pytest.raises(LeaseLostError):
        holder.renew()
    other.release()
    with pytest.raises(LeaseLostError):
        holder.renew()
