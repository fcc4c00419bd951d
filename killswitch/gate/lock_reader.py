"""Reads lock files as a bot must: an unreadable file is a lock, and so is one that no runner keeps alive."""

from __future__ import annotations

import errno
import os
import stat
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.gate.changes import LONGEST_LIFE, LockRecord
from killswitch.model.decision import LockMode
from killswitch.model.lock_parts import strictest_at, strictest_mode
from killswitch.model.snapshot import LockPart, Side

T = TypeVar("T")
_DECODER = msgspec.json.Decoder(LockRecord)
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)

_PASSING = frozenset({errno.EIO, errno.ESTALE, errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE,
                      errno.ENOMEM})  # fmt: skip
"""Temporary errors of the disk or of this process: the file may be readable the next time."""

LARGEST = 1_000_000
"""Bytes. The lock of a portfolio of a thousand accounts, all locked, takes a fifth of it."""


class UnfitFileError(Exception):
    """The path is not a regular file; the message has its type."""


class LockVerdict(Struct, frozen=True):
    """Whether trading is locked. `mode` is None when it is not; `reduce_only` leaves the exits open.

    `only`: the parts of the scope that are locked, of which `mode` is the strictest; empty: all of it.
    """

    locked: bool
    mode: LockMode | None
    reason: str
    only: tuple[LockPart, ...] = ()

    def allows(self, *, reduces_risk: bool) -> bool:
        """Whether an order may be sent; under `reduce_only`, only one that reduces a position.

        The answer for everything: a lock of a part counts as one of the whole.
        """
        return not self.locked or (self.mode == "reduce_only" and reduces_risk)

    def mode_at(self, side: Side, symbol: str) -> LockMode | None:
        """How a position of `side` in `symbol` is locked; None if it is not."""
        return strictest_at(self.only, side, symbol) if self.only else self.mode

    def may_open(self, side: Side, symbol: str) -> bool:
        """Whether an order may open or enlarge a position of `side` in `symbol`."""
        return self.mode_at(side, symbol) is None

    def may_close(self, side: Side, symbol: str) -> bool:
        """Whether an order may reduce a position of `side` in `symbol`, and not beyond zero."""
        return self.mode_at(side, symbol) != "all"


class LockFile(Struct, frozen=True):
    """A lock file as read: its lock, or the problem with it. Neither: there is no such file."""

    path: Path
    lock: LockRecord | None
    problem: str | None
    may_pass: bool = False
    """Whether the error is a temporary one of the disk or of this process: the content is unknown then."""
    mode: LockMode = "reduce_only"
    """How strict a file that is not a lock file is, as far as its fields can be read."""


def read_file(path: Path, *, through_links: bool = False) -> LockFile:
    """The lock file at `path`; never raises, and never waits for another program."""
    try:
        return LockFile(path, _DECODER.decode(content_of(path, through_links=through_links)), None)
    except FileNotFoundError:
        return LockFile(path, None, None)
    except UnfitFileError as error:
        return LockFile(path, None, f"is not a lock file: {error}")
    except OSError as error:
        return LockFile(path, None, f"cannot be read: {error.strerror}", may_pass=error.errno in _PASSING)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        found = some_fields(path, _ModeFields, through_links=through_links)
        mode: LockMode = found.mode if found is not None and found.locked else "reduce_only"
        return LockFile(path, None, f"is not a lock file: {error}", mode=mode)


class _ModeFields(msgspec.Struct):
    locked: bool
    mode: LockMode


def some_fields(path: Path, fields: type[T], *, through_links: bool = False) -> T | None:
    """The `fields` of another program's lock at `path`; None if it lacks them, or cannot be read."""
    try:
        return msgspec.json.decode(content_of(path, through_links=through_links), type=fields)
    except (OSError, UnfitFileError, UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None


def content_of(path: Path, *, through_links: bool = False) -> bytes:
    """The content of the small regular file at `path`. UnfitFileError, OSError, or DecodeError if it is too large.

    Nothing else is opened: opening a pipe without a writer or a device may block or have side effects.
    """
    _require_regular(path.stat(follow_symlinks=through_links).st_mode)
    descriptor = os.open(path, _READ if through_links else _READ | _NO_LINK)
    try:
        found = os.fstat(descriptor)
        _require_regular(found.st_mode)  # it may have been exchanged meanwhile
        if found.st_size > LARGEST:
            raise msgspec.DecodeError(f"it has {found.st_size} bytes, and a lock at most {LARGEST}")
        with open(descriptor, "rb", closefd=False) as file:  # a descriptor is no path
            return file.read(LARGEST)
    finally:
        os.close(descriptor)


def _require_regular(mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise UnfitFileError("it is a symbolic link")
    if not stat.S_ISREG(mode):
        raise UnfitFileError(f"it is a {'folder' if stat.S_ISDIR(mode) else 'pipe, a socket or a device'}")


def read_lock(path: Path, now: datetime) -> LockVerdict:
    """The verdict of the lock file at `path` at `now`; missing, unreadable and stale files are locked.

    `expires_ts` is ignored: only the runner ends a lock, by writing `locked: false`, so that readers with different
    clocks agree. An unreadable file forbids entries and allows exits, because a halt never forbids reducing risk.
    A bot may name the file by a link of its own.
    """
    return _verdict(read_file(path, through_links=True), now)


def read_own_lock(path: Path, now: datetime) -> LockVerdict:
    """The verdict of the lock file without the locks of wider scopes; missing and stale files are locked."""
    return _own_verdict(read_file(path, through_links=True), now)


def read_position_lock(
    folder: Path, account: str, side: Side, symbol: str, now: datetime, *, strategy: str | None = None
) -> LockVerdict:
    """Whether a position of `side` in `symbol` on `account` is locked, by all the files of `folder` that concern it.

    They are the files of the account, of the strategy that trades, and of the symbol, which exists only while the
    symbol is locked; any other missing file is a lock. The file of a strategy that trades in several accounts is locked
    as soon as one of them is: of it only the strategy's own lock counts here.
    """
    verdicts = [read_lock(lock_path(folder, f"account/{account}"), now)]
    if strategy is not None:
        verdicts.append(read_own_lock(lock_path(folder, f"strategy/{strategy}"), now))
    of_symbol = read_file(lock_path(folder, f"symbol/{symbol}"), through_links=True)
    if of_symbol.lock is not None or of_symbol.problem is not None:
        verdicts.append(_verdict(of_symbol, now))
    locking = [(mode, each.reason) for each in verdicts if (mode := each.mode_at(side, symbol)) is not None]
    if not locking:
        return LockVerdict(False, None, "open")
    reason = "; ".join(dict.fromkeys(reason for _, reason in locking))
    return LockVerdict(True, strictest_mode([mode for mode, _ in locking]), reason)


def lock_path(folder: Path, scope: str) -> Path:
    """The file of a scope in a lock folder: `account/main` is `account__main.json`."""
    return folder / ("__".join(quote(part, safe=" @:+") for part in scope.split("/")) + ".json")


def _verdict(found: LockFile, now: datetime) -> LockVerdict:
    lock, name = found.lock, found.path.name
    if found.problem is not None:
        return LockVerdict(True, found.mode, f"{name} {found.problem}")
    if lock is None:
        return LockVerdict(True, "reduce_only", f"{name} does not exist: no runner has opened trading")
    if lock.locked:
        return LockVerdict(True, lock.mode, lock.reason or "locked", lock.only)
    if lock.alive_until < now.timestamp():
        return LockVerdict(True, "reduce_only", f"{name} is stale: no runner keeps it alive")
    if lock.alive_until > now.timestamp() + LONGEST_LIFE:
        return LockVerdict(True, "reduce_only", f"{name} claims to be kept alive for more than a day: no runner does")
    return LockVerdict(False, None, "open")


def _own_verdict(found: LockFile, now: datetime) -> LockVerdict:
    """The verdict of the file without the locks of wider scopes; a stale file is as strict as it says."""
    lock = found.lock
    if lock is None or lock.own is None or lock.alive_until < now.timestamp():
        return _verdict(found, now)
    return _verdict(replace(found, lock=replace(lock.own, alive_until=lock.alive_until)), now)
