"""A handle on a store's database: its transactions, whose turn it is, and where they go when the file fails.

For whoever holds the lease no answer of the file ends the run: what fails there is done in memory. Only a start insists
on a store that can be read, because from then on the process itself remembers what it acts on.

SQLite lets one writer in and has the others ask again, ever more seldom. A tick that asks in vain for the tenth time
sleeps for a twentieth of a second, while the threads that send notifications pass it by.
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
from killswitch.store.fallback import HELD, HOLDERS_PATIENCE, Fallback, driver_connection

WRITE: Final = "killswitch_write"
"""Execution option of a connection that will write: an engine may begin it with the write lock taken."""

_FINAL: Final = (FencedError, DuplicateDecisionError)
"""Answers about what was asked, and not about the file: no other place to write to changes them."""

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H", bound="Handle")


def enduring(call: Callable[Concatenate[H, P], T]) -> Callable[Concatenate[H, P], T]:
    """A call that is made again wherever a file that fails has left a way to make it."""

    @functools.wraps(call)
    def until_done(handle: H, /, *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            engine = handle._engine
            try:
                return call(handle, *args, **kwargs)
            except _FINAL:
                raise
            except StoreError as error:
                handle._find_a_way(error, engine)

    return until_done


class Handle:
    """Reads and writes a database, one transaction at a time; safe to share between threads."""

    def __init__(
        self, engine: Engine, place: str = "", fallback: Fallback | None = None, *, volatile: bool = False
    ) -> None:
        """`place`: what it is called where it fails. `fallback`: what is left to it when its file fails.

        `volatile`: nothing outlives it.
        """
        self.place = place
        self._volatile = volatile
        self._fallback = fallback
        self._on_disk = engine
        self._fence: int | None = None
        self._lease: Lease | None = None
        """The lease as this handle has taken or renewed it last."""
        self._is_under_way = False
        """Whether a tick of the holder was committed: from then on no row of the store is worth ending the run for."""
        self._unreadable: dict[str, str] = {}
        self._turns = Turns()
        self._keep_said: Callable[[str], None] | None = None
        self._use(engine)

    def _use(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(**{WRITE: True})

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()
        self._on_disk.dispose()
        if self._fallback is not None:
            self._fallback.close()

    def go_on_in_memory(self, keep_said: Callable[[str], None]) -> None:
        """From now on, where the file takes no writes, they go to a copy in memory until it does again.

        For whoever acts under the lease, and for nobody else: what is handed to another process must be on the disk.
        `keep_said`: takes every journal entry that is in memory only, as a line of JSON.
        """
        self._keep_said = keep_said
        if self._fallback is not None:
            event.listen(self._on_disk, "checkout", _be_quick)
            self._fallback.allow_memory()
            with _explained(self.place):
                kept = [self._on_disk.connect() for _ in range(HELD)]
                for each in kept:
                    each.exec_driver_sql("SELECT 1 FROM lease")
                    each.close()

    @property
    def trouble(self) -> str | None:
        """What is wrong with the store, and what is done instead; None while nothing is."""
        found = (self._file_trouble(), *self._unreadable.values())
        return "; ".join(each for each in found if each is not None) or None

    def _file_trouble(self) -> str | None:
        fallback = self._fallback
        if fallback is None:
            return None
        if fallback.copy is not None:
            at = from_micros(int(fallback.copy.since * 1_000_000))
            words = (
                f"since {at:%H:%M:%S} UTC everything is kept in memory only, and a restart would know nothing of it: "
                f"{fallback.copy.because}"
            )
            lost = fallback.copy.lost
            return words if lost is None else f"{words}; {_lost_words(lost)}"
        if fallback.gave_up is not None:
            return f"the reserve of the store ({fallback.reserve.path}) is being used up: {fallback.gave_up}"
        return None

    @property
    def displaced(self) -> str | None:
        """That another file, or none, lies where this store was opened; None while it is the same."""
        return None if self._fallback is None else self._fallback.displaced

    def renew_reserve(self) -> str | None:
        """Make the reserve whole, where there is space for it; why it could not be, else None."""
        fallback = self._fallback
        if fallback is None or fallback.copy is not None:
            return None
        with fallback.lock:
            try:
                fallback.reserve.make()
            except OSError as error:
                return f"the store has no whole reserve ({fallback.reserve.path}): {error.strerror or error}"
            fallback.gave_up = None
        return None

    def _find_a_way(self, error: StoreError, failed: Engine, *, writes: bool = True) -> None:
        """Make it worth trying again after `error` on the engine `failed`; raises `error` where nothing is left."""
        fallback = self._fallback
        if fallback is None:
            raise error
        with fallback.lock:
            if self._engine is not failed:
                return  # another thread has found it meanwhile
            with self._turns.turn():
                if failed is not self._on_disk:
                    self._leave_damaged_copy(error, failed, fallback)
                elif not (writes and self._made_room(error, failed, fallback)):
                    if not self._may_go_to_memory(error, fallback):
                        raise error
                    fallback.require_ours(self._fence)
                    self._go_to_memory(fallback.to_memory(error), fallback)

    def _may_go_to_memory(self, error: StoreError, fallback: Fallback) -> bool:
        """Whether the error is the file's fault alone, or, once a tick was committed, anything at all."""
        return fallback.may_use_memory and (self._is_under_way or isinstance(error, MediumError | WriteLockedError))

    def _made_room(self, error: StoreError, failed: Engine, fallback: Fallback) -> bool:
        if not isinstance(error, MediumError):
            return False
        with _explained(self.place), driver_connection(failed) as disk:
            return fallback.make_room(disk, error)

    def _leave_damaged_copy(self, error: StoreError, failed: Engine, fallback: Fallback) -> None:
        """A whole copy of a damaged file is damaged too; `error` for whatever else is wrong in memory."""
        if not (isinstance(error, DamagedStoreError) and self._is_under_way and fallback.is_whole):
            raise error
        with driver_connection(failed) as copied:
            engine = fallback.to_memory(error, copied)
        self._go_to_memory(engine, fallback)
        failed.dispose()

    def _go_to_memory(self, engine: Engine, fallback: Fallback) -> None:
        if not fallback.is_whole and self._lease is not None:
            with engine.begin() as connection:
                connection.execute(sql.PUT_LEASE, msgspec.structs.asdict(self._lease))
        self._use(engine)

    def _return_to_disk(self, *, last: bool = False) -> None:
        """Write back what is in memory only, where it is time to try that. FencedError where another has the store.

        `last`: at once, and with more patience, because the run ends.
        """
        fallback = self._fallback
        if fallback is None or fallback.copy is None:
            return
        if not (fallback.is_due or (last and fallback.is_whole)):
            fallback.require_ours(self._fence)
            return
        with fallback.lock, self._turns.turn():
            if fallback.copy is not None and fallback.write_back(self._fence, last=last):
                memory = self._engine
                self._use(self._on_disk)
                fallback.copy = None
                memory.dispose()

    def _keep_for_people(self, entries: Sequence[JournalEntry]) -> None:
        """Where the journal is in memory only, it is said as well: a line that a log may keep."""
        if self._keep_said is not None and (self._volatile or self._engine is not self._on_disk):
            for entry in entries:
                self._keep_said(rows.ENCODER.encode(entry).decode())

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
                self._find_a_way(failure, engine, writes=False)

    def _decoded(
        self, what: str, decode: Callable[[Any], T], found: Iterable[Any], *, all_of_it: bool = False
    ) -> list[T]:
        """Every row as `decode` makes it. DamagedStoreError for one that it cannot make anything of.

        In a run that is under way such a row is left out, and a problem, unless `all_of_it` is asked for.
        """
        made = []
        for row in found:
            try:
                made.append(decode(row))
            except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
                number = getattr(row, "sequence", None)
                which = what if number is None else f"{what} (number {number})"
                if all_of_it or not self._is_under_way:
                    raise DamagedStoreError(self.place, f"{which} cannot be read ({error})") from error
                self._unreadable.setdefault(what, f"the store {self.place}: {which} cannot be read and is left out")
        return made

    def _decoded_one(self, what: str, decode: Callable[[Any], T], found: Sequence[Any]) -> T | None:
        """The first row, or None where there is none."""
        return next(iter(self._decoded(what, decode, found[:1])), None)

    def _lease_row(self, found: Sequence[Any]) -> Any:
        return next(iter(self._decoded("the lease", rows.checked_lease, found, all_of_it=True)), None)

    @contextmanager
    def _writing(self, *, background: bool = False) -> Iterator[Connection]:
        with self._turns.turn(background=background), _explained(self.place), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _writing_fenced(self, *, background: bool = False) -> Iterator[Connection]:
        """A write that no later holder of the lease can have overtaken: looked up in its own transaction.

        `background`: it lets every other write of this process go first.
        """
        with self._writing(background=background) as connection:
            if self._fence is not None:
                row = self._lease_row(connection.execute(sql.LEASE).all())
                if row is not None:
                    consequence = ": this process stops, because its memory is older than the store"
                    require_lease(self._fence, row.generation, row.owner, consequence)
            yield connection


def _lost_words(lost: tuple[str, ...]) -> str:
    """What the run goes on with where a damaged file could not be copied whole, and how it is ended well."""
    which = f"not all could be read of {', '.join(lost)}" if lost else "all of its rows could be read"
    return (
        f"{which}; the file is not written any more. Once no close is under way, end this run, put back a backup of "
        "the store or move it away, and start again"
    )


def _be_quick(raw: sqlite3.Connection, _record: object, _proxy: object) -> None:
    """A tick must not wait for another process's write as long as a command that only starts."""
    raw.execute(f"PRAGMA busy_timeout = {int(HOLDERS_PATIENCE * 1000)}")


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """Turn the driver's complaints (locked, full, read-only, corrupt) into a StoreError that says so."""
    try:
        yield
    except DBAPIError as error:
        raise store_error(place, error.orig) from error


class Turns:
    """Hands the right to write from thread to thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self.waiting: Counter[Literal["urgent", "background"]] = Counter()
        """Threads that wait for the turn: the urgent ones have it first."""

    @contextmanager
    def turn(self, *, background: bool = False) -> Iterator[None]:
        """Wait for the turn, and have it. `background`: only once nobody else wants it."""
        kind: Literal["urgent", "background"] = "background" if background else "urgent"
        with self._changed:
            self.waiting[kind] += 1
            try:
                self._changed.wait_for(lambda: not (self._taken or (background and self.waiting["urgent"])))
            finally:
                self.waiting[kind] -= 1
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()
