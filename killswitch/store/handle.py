"""A handle on a store's database: its transactions, their order, and where they go when the file fails.

For the holder of the lease no failure of the file ends the run: its reads and writes go to memory. Only the start
requires a readable store, because from then on the process remembers what it acts on.

SQLite admits one writer and lets the others retry at growing intervals. A tick that retries for the tenth time sleeps
for a twentieth of a second, while the threads that send notifications pass it.
"""

from __future__ import annotations

import functools
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, Final, Literal, ParamSpec, TypeVar

import msgspec
from msgspec.structs import asdict
from sqlalchemy import Connection, Engine, TextClause, event
from sqlalchemy.exc import DBAPIError

from killswitch.model.instant import from_micros
from killswitch.model.store import JournalEntry, Lease
from killswitch.store import rows
from killswitch.store import statements as sql
from killswitch.store.errors import (
    DamagedStoreError,
    DuplicateDecisionError,
    FencedError,
    MediumError,
    StoreError,
    WriteLockedError,
    require_lease,
    store_error,
)
from killswitch.store.fallback import HOLDER_TIMEOUT, KEPT_CONNECTIONS, Fallback, driver_connection

WRITE: Final = "killswitch_write"
"""Execution option of a connection that will write: an engine may begin it with the write lock."""

_FINAL: Final = (FencedError, DuplicateDecisionError)
"""Errors about the request, not the file: writing elsewhere does not change them."""

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H", bound="StoreHandle")


def retried(call: Callable[Concatenate[H, P], T]) -> Callable[Concatenate[H, P], T]:
    """Repeat a call as long as a fallback of a failing file allows it."""

    @functools.wraps(call)
    def until_done(handle: H, /, *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            engine = handle._engine
            try:
                return call(handle, *args, **kwargs)
            except _FINAL:
                raise
            except StoreError as error:
                handle._recover(error, engine)

    return until_done


class StoreHandle:
    """Reads and writes a database, one transaction at a time; thread-safe."""

    def __init__(self, engine: Engine, place: str, fallback: Fallback | None = None, *, volatile: bool = False) -> None:
        """`place`: name of the store in messages. `fallback`: the fallbacks when its file fails.

        `volatile`: the store ends with the process.
        """
        self.place = place
        self._volatile = volatile
        self._fallback = fallback
        self._on_disk = engine
        self._fence: int | None = None
        self._lease: Lease | None = None
        """The lease as this handle last acquired or renewed it."""
        self._is_under_way = False
        """Whether the holder has committed a tick: from then on no unreadable row ends the run."""
        self._unreadable: dict[str, str] = {}
        self._queue = WriteQueue()
        self._log_entry: Callable[[str], None] | None = None
        self._use(engine)

    def _use(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(**{WRITE: True})

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()
        self._on_disk.dispose()
        if self._fallback is not None:
            self._fallback.close()

    def allow_memory(self, log_entry: Callable[[str], None]) -> None:
        """From now on write to a copy in memory while the file accepts no writes.

        Only for the holder of the lease: rows for other processes must be on the disk. `log_entry` receives every
        journal entry that is in memory only, as a line of JSON.
        """
        self._log_entry = log_entry
        if self._fallback is not None:
            event.listen(self._on_disk, "checkout", _limit_busy_wait)
            self._fallback.allow_memory()
            with _errors_of(self.place):
                connections = [self._on_disk.connect() for _ in range(KEPT_CONNECTIONS)]
                for each in connections:
                    each.exec_driver_sql("SELECT 1 FROM lease")
                    each.close()

    @property
    def trouble(self) -> str | None:
        """What is wrong with the store, and the fallback in use; None while nothing is."""
        return "; ".join(self.troubles.values()) or None

    @property
    def troubles(self) -> dict[str, str]:
        """What is wrong with the store, by kind: what is kept in memory, the reserve, and what cannot be read."""
        return self._file_trouble() | {f"unreadable/{what}": text for what, text in self._unreadable.items()}

    def _file_trouble(self) -> dict[str, str]:
        fallback = self._fallback
        if fallback is None:
            return {}
        if fallback.copy is not None:
            at = from_micros(int(fallback.copy.since * 1_000_000))
            text = (
                f"since {at:%H:%M:%S} UTC records are kept in memory only, and a restart would lose them: "
                f"{fallback.copy.cause}"
            )
            lost = fallback.copy.lost
            return {"memory": text} if lost is None else {"lost-rows": f"{text}; {_lost_rows_text(lost)}"}
        if (why := fallback.reserve_used_because) is not None:
            return {"reserve": f"the reserve of the store ({fallback.reserve.path}) is being used up: {why}"}
        return {}

    @property
    def in_memory_because(self) -> str | None:
        """Why records are in memory only, so that a restart would lose them; None while they are durable."""
        copy = None if self._fallback is None else self._fallback.copy
        return None if copy is None else copy.cause

    @property
    def displaced(self) -> str | None:
        """That another file, or none, is at the path of this store; None while it is the same."""
        return None if self._fallback is None else self._fallback.displaced

    def leave_sign_of_life(self, blob: bytes) -> None:
        """Answer with `blob` at the socket next to the file."""
        if self._fallback is not None:
            self._fallback.sign.leave(blob)

    def renew_reserve(self) -> str | None:
        """Restore the reserve, where there is space for it; return why it could not be, else None."""
        fallback = self._fallback
        if fallback is None or fallback.copy is not None:
            return None
        with fallback.lock:
            try:
                fallback.reserve.make()
            except OSError as error:
                return f"the store's reserve ({fallback.reserve.path}) is incomplete: {error.strerror or error}"
            fallback.reserve_used_because = None
        return None

    def _recover(self, error: StoreError, failed: Engine, *, writes: bool = True) -> None:
        """Prepare a retry after `error` on the engine `failed`; raises `error` where no fallback is left."""
        fallback = self._fallback
        if fallback is None:
            raise error
        with fallback.lock:
            if self._engine is not failed:
                return  # another thread has recovered meanwhile
            with self._queue.acquire():
                if failed is not self._on_disk:
                    self._leave_damaged_copy(error, failed, fallback)
                elif not (writes and self._make_room(error, failed, fallback)):
                    if not self._may_go_to_memory(error, fallback):
                        raise error
                    fallback.require_own_lease(self._fence)
                    self._go_to_memory(self._copied(error, fallback), fallback)

    def _copied(self, error: StoreError, fallback: Fallback) -> Engine:
        """The store in memory; its readable part where a copy shows that the file is damaged too.

        Raises DamagedStoreError for such a file before a tick was committed: what it lacks is remembered nowhere.
        """
        try:
            return fallback.to_memory(error)
        except DamagedStoreError as damage:
            if not self._is_under_way:
                raise
            return fallback.to_memory(damage)

    def _may_go_to_memory(self, error: StoreError, fallback: Fallback) -> bool:
        """Whether memory is allowed: for an error of the file, or, once a tick was committed, for any error."""
        return fallback.may_use_memory and (self._is_under_way or isinstance(error, MediumError | WriteLockedError))

    def _make_room(self, error: StoreError, failed: Engine, fallback: Fallback) -> bool:
        if not isinstance(error, MediumError):
            return False
        with _errors_of(self.place), driver_connection(failed) as disk:
            return fallback.make_room(disk, error)

    def _leave_damaged_copy(self, error: StoreError, failed: Engine, fallback: Fallback) -> None:
        """Replace a copy of a damaged file, which is damaged too; raises `error` for any other failure in memory."""
        if not (isinstance(error, DamagedStoreError) and self._is_under_way and fallback.can_write_back):
            raise error
        with driver_connection(failed) as copied:
            engine = fallback.to_memory(error, copied)
        self._go_to_memory(engine, fallback)
        failed.dispose()

    def _go_to_memory(self, engine: Engine, fallback: Fallback) -> None:
        if not fallback.can_write_back and self._lease is not None:
            with engine.begin() as connection:
                connection.execute(sql.PUT_LEASE, asdict(self._lease))
        self._use(engine)

    def _return_to_disk(self, *, last: bool = False) -> None:
        """Write memory back, where it is time to try. Raises FencedError where another runner has the store.

        `last`: at once, and with a longer timeout, because the run ends.
        """
        fallback = self._fallback
        if fallback is None or fallback.copy is None:
            return
        if not (fallback.is_due or (last and fallback.can_write_back)):
            fallback.require_own_lease(self._fence)
            return
        with fallback.lock, self._queue.acquire():
            if fallback.copy is not None and fallback.write_back(self._fence, last=last):
                memory = self._engine
                self._use(self._on_disk)
                fallback.copy = None
                memory.dispose()

    def _log_entries(self, entries: Sequence[JournalEntry]) -> None:
        """Log journal entries that are in memory only."""
        if self._log_entry is not None and (self._volatile or self._engine is not self._on_disk):
            for entry in entries:
                self._log_entry(rows.ENCODER.encode(entry).decode())

    def _read(self, statement: TextClause, **parameters: object) -> Sequence[Any]:
        while True:
            engine = self._engine
            try:
                with engine.connect() as connection:
                    return connection.execute(statement, parameters).all()
            except DBAPIError as error:
                failure = store_error(self.place, error.orig, "could not be read")
                if self._fallback is None or not self._fallback.may_use_memory:
                    raise failure from error
                self._recover(failure, engine, writes=False)

    def _decoded(self, what: str, decode: Callable[[Any], T], found: Iterable[Any], *, strict: bool = False) -> list[T]:
        """Decode every row. Raises DamagedStoreError for a row that cannot be decoded.

        In a run that is under way such a row is left out and reported as a problem, unless `strict`.
        """
        made = []
        for row in found:
            try:
                made.append(decode(row))
            except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
                number = getattr(row, "sequence", None)
                which = what if number is None else f"{what} (number {number})"
                if strict or not self._is_under_way:
                    raise DamagedStoreError(self.place, f"{which} cannot be read ({error})") from error
                self._unreadable.setdefault(what, f"the store {self.place}: {which} cannot be read and is left out")
        return made

    def _decoded_one(self, what: str, decode: Callable[[Any], T], found: Sequence[Any]) -> T | None:
        """The first row, or None where there is none."""
        return next(iter(self._decoded(what, decode, found[:1])), None)

    def _lease_row(self, found: Sequence[Any]) -> Any:
        return next(iter(self._decoded("the lease", rows.checked_lease, found, strict=True)), None)

    @contextmanager
    def _writing(self, *, background: bool = False) -> Iterator[Connection]:
        with self._queue.acquire(background=background), _errors_of(self.place), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _writing_fenced(self, *, background: bool = False) -> Iterator[Connection]:
        """A write transaction that first checks that no later holder has the lease.

        `background`: it lets every other write of this process go first.
        """
        with self._writing(background=background) as connection:
            if self._fence is not None:
                row = self._lease_row(connection.execute(sql.LEASE).all())
                if row is not None:
                    consequence = ": this process stops, because its memory is older than the store"
                    require_lease(self._fence, row.generation, row.owner, consequence)
            yield connection


def _lost_rows_text(lost: tuple[str, ...]) -> str:
    """The consequences where a damaged file could not be copied completely, and how to end the run."""
    which = f"some rows could not be read of {', '.join(lost)}" if lost else "all of its rows could be read"
    return (
        f"{which}; nothing is written to the file any more. Once no close is in progress, stop this run, restore a "
        "backup of the store or move it away, and start again"
    )


def _limit_busy_wait(raw: sqlite3.Connection, _record: object, _proxy: object) -> None:
    """Limit the wait of a tick for another process's write."""
    raw.execute(f"PRAGMA busy_timeout = {int(HOLDER_TIMEOUT * 1000)}")


@contextmanager
def _errors_of(place: str) -> Iterator[None]:
    """Turn the driver's errors (locked, full, read-only, corrupt) into StoreErrors with cause and next step."""
    try:
        yield
    except DBAPIError as error:
        raise store_error(place, error.orig) from error
    except sqlite3.Error as error:  # of what is written in the driver's own form
        raise store_error(place, error) from error


class WriteQueue:
    """The store's write lock inside the process; trading writes go first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_locked = False
        self.waiting: Counter[Literal["urgent", "background"]] = Counter()
        """Threads that wait for the lock; urgent ones get it first."""

    @contextmanager
    def acquire(self, *, background: bool = False) -> Iterator[None]:
        """Acquire the lock. `background`: only once no urgent thread waits."""
        kind: Literal["urgent", "background"] = "background" if background else "urgent"
        with self._changed:
            self.waiting[kind] += 1
            try:
                self._changed.wait_for(lambda: not (self._is_locked or (background and self.waiting["urgent"])))
            finally:
                self.waiting[kind] -= 1
            self._is_locked = True
        try:
            yield
        finally:
            with self._changed:
                self._is_locked = False
                self._changed.notify_all()
