"""The lease of a store: one runner per store, and which process holds it."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from killswitch.model.clock import Clock
from killswitch.model.instant import SECOND, from_micros, rfc3339, to_micros
from killswitch.model.store import Lease, Store, StoreBusyError
from killswitch.runner.clock import FOLLOWED


class LeaseRefusedError(Exception):
    """Another runner holds this store; the message names it, the end of its lease, and the way out."""


class LeaseLostError(Exception):
    """The lease expired and another runner has held the store since: this one must stop acting."""


UNKNOWN_TTL = 900 * SECOND
"""The assumed TTL (microseconds) of a lease that has none, because an older version wrote it."""
CHECK_EVERY = 0.5
"""Seconds between two checks whether a lease was renewed."""


def is_misdated(lease: Lease, now: datetime) -> bool:
    """Whether the lease expires later than its holder can have dated it: the wall clock was set back since.

    Its expiry means nothing then; only a renewal proves that the holder runs.
    """
    slack = FOLLOWED // timedelta(microseconds=1)
    return lease.expires_at - to_micros(now) > (lease.ttl or UNKNOWN_TTL) + slack


def end_misdated(store: Store, lease: Lease, pause: Callable[[float], None] = time.sleep) -> None:
    """Wait for as long as a running holder may take to renew a misdated `lease`, and release it if it is not renewed.

    The caller reads the store again afterwards: a running holder has renewed the lease.
    """
    seconds = (lease.ttl or UNKNOWN_TTL) / SECOND
    for _ in range(math.ceil(seconds / CHECK_EVERY)):
        if is_dead(lease.owner):
            break
        pause(CHECK_EVERY)
        if store.lease() != lease:
            return
    store.release_unrenewed(lease)


def misdated_message(lease: Lease, now: datetime) -> str:
    """The message while `end_misdated` waits."""
    ahead = (lease.expires_at - to_micros(now)) // SECOND
    return (
        f"the lease of {lease.owner} runs for {ahead} s by this machine's clock, which was set back since it was "
        f"acquired: waiting for at most {(lease.ttl or UNKNOWN_TTL) / SECOND:g} s to see whether its holder renews it"
    )


class LeaseHolder:
    """Acquires the lease of a store, renews it in time, and releases it."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ttl: float,
        owner: str = "",
        *,
        pause: Callable[[float], None] = time.sleep,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.store = store
        self.clock = clock
        """Its wall clock dates the lease, since other processes compare the expiry with theirs."""
        self.ttl = ttl
        """Seconds for which the lease outlives a crash of this process."""
        self.owner = owner
        """This process by default."""
        self.pause = pause
        """Sleeps for the given seconds."""
        self.on_wait = on_wait
        """Called with the reason for a wait."""
        self._ttl = int(self.ttl * SECOND)
        self.owner = self.owner or this_process()
        self._lease: Lease | None = None
        self._renewed_at = 0.0

    @property
    def generation(self) -> int:
        """The generation of the lease, which lock files carry. RuntimeError before `acquire`."""
        if self._lease is None:
            raise RuntimeError("the lease is not held")
        return self._lease.generation

    def acquire(self) -> Lease:
        """Acquire the lease, and write under it from now on.

        LeaseRefusedError if another runner holds it. The lease of a holder that is proven dead is released first, and
        so is a misdated one that its holder does not renew.
        """
        try:
            lease = self._acquire()
        except LeaseRefusedError:
            self._end_of_the_dead()
            lease = self._acquire()
        self._lease = lease
        self.store.fence(lease.generation)
        return lease

    def _end_of_the_dead(self) -> None:
        """Release the lease of a dead holder."""
        holder = self.store.lease()
        if holder is None:
            return
        if is_dead(holder.owner):
            self.store.release(holder.owner)
        elif is_misdated(holder, self.clock.now()):
            self.on_wait(misdated_message(holder, self.clock.now()))
            end_misdated(self.store, holder, self.pause)

    def renew(self) -> None:
        """Renew the lease once half of it is used up, by the wall clock of other processes or by the monotonic one.

        LeaseLostError if another runner has held it meanwhile.
        """
        held = self._lease
        if held is None:
            raise RuntimeError("the lease is not held")
        left = held.expires_at - to_micros(self.clock.now())
        unrenewed = (self.clock.monotonic() - self._renewed_at) * SECOND
        if self._ttl // 2 < left <= self._ttl and unrenewed < self._ttl // 2:
            return
        try:
            renewed = self._acquire()
        except LeaseRefusedError as error:
            raise LeaseLostError(f"the lease is lost: {error}") from error
        if renewed.generation != held.generation:
            self.store.release(self.owner)
            raise LeaseLostError(
                f"the lease of generation {held.generation} expired, and another runner has held it meanwhile; "
                "this one stops, because its state is older than the store"
            )
        self._lease = renewed

    def release(self) -> None:
        """Release the lease, so that the next runner need not wait."""
        if self._lease is not None:
            self.store.release(self.owner, to_micros(self.clock.now()))
            self._lease = None

    def _acquire(self) -> Lease:
        try:
            lease = self.store.acquire(self.owner, to_micros(self.clock.now()), self._ttl)
        except StoreBusyError as error:
            holder = self.store.lease()
            raise LeaseRefusedError(_refusal(holder) if holder else str(error)) from None
        self._renewed_at = self.clock.monotonic()
        return lease


def this_process() -> str:
    """A unique name of this process: host, PID namespace, process id and start time."""
    pid = os.getpid()
    return f"{_machine()}/{pid}/{_started(pid) or 'unknown'}"


def pid_of(owner: str) -> int | None:
    """The process id in an owner's name; None if the name has another form."""
    parts = owner.rsplit("/", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else None


def process_text(owner: str) -> str:
    """The owner for people: `pid 12400 on host`; the whole name where it has another form."""
    pid = pid_of(owner)
    return owner if pid is None else f"pid {pid} on {owner.partition('/')[0]}"


def is_dead(owner: str) -> bool:
    """Whether `owner` is proven dead: a process of this machine that no longer runs. False when in doubt."""
    return _runs(owner) is False


def is_running(owner: str) -> bool:
    """Whether `owner` is proven to run on this machine. False when in doubt."""
    return _runs(owner) is True


def _runs(owner: str) -> bool | None:
    """Whether the process runs; None where this process cannot tell."""
    machine, _, pid = owner.rpartition("/")[0].rpartition("/")
    started = owner.rpartition("/")[2]
    if not pid.isdigit() or machine != _machine() or started == "unknown":
        return None
    begun = _started(int(pid))
    if begun is None:
        # Where /proc hides other users' processes, only the kernel's own "no such process" is proof.
        return None if _exists(int(pid)) else False
    return begun == started


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _machine() -> str:
    """Host name, boot and PID namespace, within which process ids are unique."""
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
        f"another runner holds this store: {process_text(holder.owner)} (generation {holder.generation}), lease until "
        f"{until}. Stop that one first (SIGTERM), or wait until its lease expires"
    )
