"""Backups of a store, and restores: a restored store is older than the venue and than the newest anchor.

A restore begins an epoch. Its first entry names the chain before, its number and root at the backup, the newest anchor
known, author and reason: without it the next anchor would contradict the record. Work that is not finished is marked in
the journal, so that it uses no client order id of the time that is lost, and is verified before it goes on.

All of that is written before the store has its name: a restore that is killed leaves no store that a run would take.
"""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from killswitch.audit.log_files import AuditError, sole_writer, verify_source
from killswitch.gate.files import sync_folder
from killswitch.journal.codec import decode_all, encode
from killswitch.journal.entries import PlannedWork, Restored
from killswitch.model.record_entry import RecordEntry, private, with_known
from killswitch.model.store import EPOCH
from killswitch.record.anchors import FetchedAnchor
from killswitch.record.line import FORMAT
from killswitch.record.verification import RecordReport
from killswitch.store.record_chain import RecordTip
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import copy_store, open_store

_COMPANIONS: Final = ("-wal", "-shm", "-journal")
"""Ends of the names of what SQLite writes next to a store."""
SKIPPED: Final = 100_000
"""Attempts of each unfinished order that a restore skips: more than any close sends."""


class StoreCheck(Struct, frozen=True):
    """Whether a store is whole: what SQLite finds wrong in its file, and the report of its record."""

    damage: tuple[str, ...]
    record: RecordReport

    @property
    def is_whole(self) -> bool:
        """Whether neither has anything wrong; one without a record is whole where no anchor is given."""
        needs_record = self.record.entries > 0 or self.record.needs_anchor
        return not self.damage and (self.record.verdict == "verified" or not needs_record)


class Restoration(Struct, frozen=True):
    """What a restore began: the chain, its first line, and the unfinished work that is verified before it goes on.

    `lost`: how many entries the newest anchor covered that the backup does not have; None if no anchor is known.
    """

    chain: str
    line: int
    lost: int | None
    unfinished: int


def check_store(path: Path, anchors: Sequence[FetchedAnchor] = ()) -> StoreCheck:
    """Check the file of a store and its record. Raises StoreError where it cannot be opened.

    Where anchors are given, one of them has to confirm the record.
    """
    with closing(open_store(str(path), read_only=True)) as store:
        report = verify_source(store, anchors, needs_anchor=bool(anchors))
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as raw:
            found = [str(row[0]) for row in raw.execute("PRAGMA integrity_check(10)")]
    except sqlite3.Error as error:
        found = [str(error)]
    return StoreCheck(tuple(each for each in found if each != "ok"), report)


def back_up(path: Path, to: Path) -> StoreCheck:
    """Copy a store, also under a run, to a new file, and check the copy. Raises AuditError where the file exists."""
    if to.exists():
        raise AuditError(f"{to} exists: a backup overwrites nothing, name another file")
    copy_store(str(path), to)
    return check_store(to)


def restore(
    backup: Path, to: Path, author: str, reason: str, at: datetime, anchors: Iterable[FetchedAnchor] = ()
) -> Restoration:
    """Copy a backup to a new store and begin an epoch there. Raises AuditError.

    `anchors`: those that are known, by which the entries that are lost are counted.
    """
    for each in (to, *(to.with_name(f"{to.name}{suffix}") for suffix in _COMPANIONS)):
        if each.exists():  # SQLite would read the log of the store before into the new one
            raise AuditError(f"{each} exists: move it away first, for analysis. Its runner must be stopped")
    checked = check_store(backup)
    if not checked.is_whole:
        what = checked.damage[0] if checked.damage else f"its record is {checked.record.verdict}"
        raise AuditError(
            f"the backup {backup} is not whole: {what}. Restore another one; `ksctl store verify` shows more"
        )
    with _made_elsewhere(to) as copy:
        copy_store(str(backup), copy)
        return _begin_epoch(copy, tuple(anchors), author, reason, at)


def _begin_epoch(copy: Path, anchors: tuple[FetchedAnchor, ...], author: str, reason: str, at: datetime) -> Restoration:
    """Begin an epoch in a copy that nobody uses yet, and close it."""
    with closing(open_store(str(copy))) as store:
        tip = store.record_tip()
        ours = (each.anchor for each in anchors if each.refused is None and tip and each.anchor.chain == tip.chain)
        newest = max((each.number for each in ours), default=None)
        chain = secrets.token_hex(16)
        unfinished = _mark_unfinished(store, chain, at)
        store.put_live(EPOCH, chain.encode())
        store.add_to_record([epoch_entry(tip, chain, newest, author, reason, at)])
        after = store.record_tip()
    lost = None if newest is None or tip is None else max(0, newest - tip.number)
    return Restoration(chain, 1 if after is None else after.number, lost, unfinished)


@contextmanager
def _made_elsewhere(to: Path) -> Iterator[Path]:
    """The place where a store is made that gets its name at the end, at once; what a killed restore left is removed.

    Raises AuditError where another restore is at work, where the place is somebody else's folder, and where the store
    cannot be written there.
    """
    folder = to.with_name(f".{to.name}.restoring")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with sole_writer(folder, "restore"):
            left = list(folder.iterdir())
            if folder.is_symlink() or any(not each.name.startswith(to.name) or each.is_dir() for each in left):
                raise AuditError(f"{folder} is not what a restore has left: move it away, and restore again")
            for each in left:
                each.unlink()
            try:
                copy = folder / to.name
                yield copy
                if any(copy.with_name(f"{copy.name}{suffix}").exists() for suffix in _COMPANIONS):
                    raise AuditError(f"{copy} was not written completely: see what has it open, and restore again")
                _name(copy, to)
                sync_folder(to.parent)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise AuditError(f"{to} cannot be written: {error.strerror or error}") from error


def _name(copy: Path, to: Path) -> None:
    """Give the copy its name, where nothing else has it."""
    try:
        to.hardlink_to(copy)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as SMB
        if to.exists():
            raise
        copy.rename(to)


def epoch_entry(
    tip: RecordTip | None, chain: str, newest: int | None, author: str, reason: str, at: datetime
) -> RecordEntry:
    """The entry that begins an epoch. `newest`: the number of the newest anchor known of the chain before."""
    fields = with_known({
        "chain": chain, "format": FORMAT, "before": None if tip is None else tip.chain,
        "number": None if tip is None else tip.number, "root": None if tip is None else tip.root.hex(),
        "newest_anchor": newest, "actor": private(author),
    })  # fmt: skip
    return RecordEntry("epoch", at, fields, with_known({"reason": private(reason)}))


def _mark_unfinished(store: SqlStore, epoch: str, at: datetime) -> int:
    """Mark every position that unfinished decisions work on; returns how many."""
    entries = []
    for stored in store.unfinished():
        journal = decode_all(store.journal(stored.decision.id))
        used = max((each.attempt or 0 for each in journal), default=0)
        places = {each.place for each in journal if isinstance(each, PlannedWork) and each.key is not None}
        entries += [
            encode(Restored(stored.decision.id, at, *place, attempt=used + SKIPPED, epoch=epoch))
            for place in sorted(places, key=str)
        ]
    store.append_all(entries)
    return len(entries)
