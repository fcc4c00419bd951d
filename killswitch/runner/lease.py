"""One runner per store: the lease, and who holds it when it is not us."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from killswitch.model.clock import Clock
from killswitch.model.instant import SECOND, from_micros, rfc3339, to_micros
from killswitch.model.store import Lease, Store, StoreBusyError


class LeaseRefusedError(Exception):
    """Another runner lives on this store; the message names it, until when, and what to do."""


class LeaseLostError(Exception):
    """Our lease ran out and someone else has had the store since: acting must stop."""


class LeaseHolder:
    """Takes the lease, renews it in time, gives it back."""

    def __init__(self, store: Store, clock: Clock, ttl: float, owner: str | None = None) -> None:
        """`ttl` in seconds: how long the store stays ours when we die without a word."""
        self._store = store
        self._clock = clock
        self._ttl = int(ttl * SECOND)
        self.owner = owner or this_process()
        self._lease: Lease | None = None

    @property
    def generation(self) -> int:
        """The generation of the lease held; it dates the lock files. RuntimeError before `take`."""
        if self._lease is None:
            raise RuntimeError("the lease is not taken")
        return self._lease.generation

    def take(self) -> Lease:
        """Take the lease, and write under it from now on.

        LeaseRefusedError if a runner lives; one that is proven dead is succeeded at once.
        """
        now = to_micros(self._clock.now())
        try:
            self._lease = self._store.acquire(self.owner, now, self._ttl)
        except StoreBusyError:
            holder = self._store.lease()
            if holder is not None and not is_dead(holder.owner):
                raise LeaseRefusedError(_refusal(holder)) from None
            if holder is not None:
                self._store.release(holder.owner)
            self._lease = self._acquire(now)
        self._store.fence(self._lease.generation)
        return self._lease

    def keep(self) -> None:
        """Renew once half of it is used up. LeaseLostError if another has held it meanwhile."""
        held = self._lease
        if held is None:
            raise RuntimeError("the lease is not taken")
        now = to_micros(self._clock.now())
        if held.expires_at - now > self._ttl // 2:
            return
        try:
            renewed = self._acquire(now)
        except LeaseRefusedError as error:
            raise LeaseLostError(f"the lease was lost: {error}") from error
        if renewed.generation != held.generation:
            self._store.release(self.owner)
            raise LeaseLostError(
                f"the lease of generation {held.generation} ran out and was taken by another runner meanwhile; "
                "this one stops, because its memory is older than the store"
            )
        self._lease = renewed

    def release(self) -> None:
        """Give the lease back, so that the next runner need not wait."""
        if self._lease is not None:
            self._store.release(self.owner)
            self._lease = None

    def _acquire(self, now: int) -> Lease:
        try:
            return self._store.acquire(self.owner, now, self._ttl)
        except StoreBusyError as error:
            holder = self._store.lease()
            raise LeaseRefusedError(_refusal(holder) if holder else str(error)) from None


def this_process() -> str:
    """A name for this process that no other process has: host, process space, id and start."""
    pid = os.getpid()
    return f"{_machine()}/{pid}/{_started(pid) or 'unknown'}"


def pid_of(owner: str) -> int | None:
    """The process id in an owner's name; None if the name is not of our making."""
    parts = owner.rsplit("/", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else None


def is_dead(owner: str) -> bool:
    """Whether `owner` is proven to be gone: a process of this machine that runs no longer. Doubt is False."""
    machine, _, rest = owner.rpartition("/")[0].rpartition("/")
    started = owner.rpartition("/")[2]
    if not rest.isdigit() or machine != _machine() or started == "unknown":
        return False
    begun = _started(int(rest))
    # Where /proc hides other users' processes, only the kernel's own "no such process" is proof.
    return not _exists(int(rest)) if begun is None else begun != started


def runs_here(owner: str) -> bool:
    """Whether `owner` is proven to be a process of this machine that runs."""
    machine, _, pid = owner.rpartition("/")[0].rpartition("/")
    started = owner.rpartition("/")[2]
    return pid.isdigit() and machine == _machine() and started != "unknown" and _started(int(pid)) == started


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _machine() -> str:
    """Host name, boot and process space: process ids mean something only inside of these."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
        space = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        boot, space = "unknown", "unknown"
    return f"{socket.gethostname()}/{boot}/{space}"


def _started(pid: int) -> str | None:
    """When process `pid` began, in the kernel's ticks; None if that cannot be read, `ended` for a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    state, began = fields[0], fields[19]
    return "ended" if state in "ZX" else began


def _refusal(holder: Lease) -> str:
    until = rfc3339(from_micros(holder.expires_at))
    return (
        f"another runner lives on this store: {holder.owner} (generation {holder.generation}), lease until {until}. "
        "Stop that one first (SIGTERM), or wait until its lease has run out"
    )
