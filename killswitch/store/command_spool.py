"""A folder of operator commands next to the store: a server leaves them there, and the runner stores them.

A server under attack must not contend for the store, so that it writes one synced file for each command, and the tick
that finds it stores it as an event with the same id. An event is stored once, however often its file is found.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from killswitch.model.flags import is_of_policy
from killswitch.model.snapshot import Event
from killswitch.model.store import Store

LARGEST: Final = 64 << 10
"""Bytes of a file."""
MOST: Final = 1_000
"""Files that may wait; of them at most half may be of commands that loosen."""
MOST_KEYS: Final = 20_000
"""Files of commands that are over, by which their keys are remembered. A full table refuses only what loosens: without
a memory of its key, a retry of something that tightens does no harm."""
TAKEN_AT_ONCE: Final = 100
"""Commands that one tick takes, those that tighten first."""

LOOSENS_FOR: Final = timedelta(minutes=2)
CLOSES_FOR: Final = timedelta(minutes=10)
"""How long a command waits for a runner. What loosens was meant for the book as its author saw it, and a close for the
positions of that moment. A lock or a halt waits for ever: it only keeps risk out."""

WAITS_FOR: Final[Mapping[str, timedelta | None]] = {
    "close": CLOSES_FOR, "apply": CLOSES_FOR, "cancel": CLOSES_FOR, "lock": None, "halt": None, "resume": None,
    "approve": None, "acknowledge": None,
}  # fmt: skip
"""Kind of a command that tightens → how long it waits; None: for ever."""

FORGOTTEN_AFTER: Final = timedelta(hours=48)
"""How long the file of a command is kept after it was given, so that a retry of the request is recognised."""
DELIVERABLE: Final = ("policy_source_statement/", "policy_source_command/")
"""How the names of the live blobs begin that a command may write."""

SpoolState = Literal["waiting", "taken", "expired"]
Urgency = Literal["0-tighten", "1-loosen"]
"""How the name of a file begins: a sorted folder has the commands that tighten first."""


class SpooledDelivery(Struct, frozen=True, tag="delivery"):
    """A live blob that the runner stores in place of the event: a signed statement, or a command to the source."""

    name: str
    text: str


class SpooledPage(Struct, frozen=True, tag="page"):
    """What the runner pages in place of storing the event, once."""

    key: str
    text: str


class SpooledCommand(Struct, frozen=True, omit_defaults=True):
    """A command with the digest of the request that gave it: a retry with another body is another command.

    `instead`: what is done with it in place of storing the event, which then is only the record of who and when.
    """

    event: Event
    body: str
    instead: SpooledDelivery | SpooledPage | None = None


class TakenCommands(Struct, frozen=True):
    """What was found: how many events were stored, files that hold no command, and commands that came too late.

    `failed`: why a file could not be taken. It is tried again, and holds no other one up.
    """

    stored: int = 0
    damaged: tuple[str, ...] = ()
    expired: tuple[Event, ...] = ()
    failed: str | None = None
    pages: tuple[SpooledPage, ...] = ()


class SpoolFullError(Exception):
    """Too many commands wait; the message says which kind is still taken."""


_ENCODER = msgspec.json.Encoder(decimal_format="string")
_DECODER = msgspec.json.Decoder(SpooledCommand)


def spool_of(store: Path) -> Path:
    """The folder of the commands of a store."""
    return store.with_name(f"{store.name}.commands")


class CommandSpool:
    """The folder, for the server that fills it and the runner that empties it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._done = folder / "done"
        self._expired = folder / "expired"

    def prepare(self) -> None:
        """Create the folders. OSError if that fails."""
        for each in (self._done, self._expired):
            each.mkdir(parents=True, exist_ok=True)

    # Of the server

    def put(self, command: SpooledCommand, urgency: Urgency) -> bool:
        """Leave a command: it is on disk when this returns. SpoolFullError, or OSError.

        False, and nothing is changed, if one with its id waits already: of two requests with one key at the same moment
        the first counts.
        """
        waiting = self._names()
        loosening = sum(name.startswith("1-") for name in waiting)
        if len(waiting) >= MOST or (urgency == "1-loosen" and loosening >= MOST // 2):
            raise SpoolFullError(f"{len(waiting)} commands wait for the runner, which takes none: see `ksctl status`")
        if urgency == "1-loosen" and self._keys() >= MOST_KEYS:
            hours = FORGOTTEN_AFTER.total_seconds() / 3600
            raise SpoolFullError(f"{MOST_KEYS} keys are remembered, for {hours:g} h: only what tightens is taken")
        body = _ENCODER.encode(command)
        if len(body) > LARGEST:
            raise SpoolFullError(f"a command has at most {LARGEST} bytes")
        path = self.folder / f"{urgency}-{command.event.id}.json"
        temporary = self.folder / f".{path.name}.{secrets.token_hex(4)}"
        try:
            with temporary.open("xb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync(self.folder)
        return True

    def _keys(self) -> int:
        """How many commands that are over are remembered."""
        folders = (each for each in (self._done, self._expired) if each.is_dir())
        return sum(1 for folder in folders for _ in os.scandir(folder))

    def find(self, id_: str) -> tuple[SpooledCommand, SpoolState] | None:
        """The command with this id, and what became of its file; None if nobody gave it, or it is forgotten."""
        places: tuple[tuple[Path, SpoolState], ...] = (
            (self.folder, "waiting"), (self._done, "taken"), (self._expired, "expired"),
        )  # fmt: skip
        for urgency in ("0-tighten", "1-loosen"):
            name = f"{urgency}-{id_}.json"
            for folder, state in places:
                found = _read(folder / name)
                if found is not None:
                    return found, state
        return None

    # Of the runner

    @property
    def is_waiting(self) -> bool:
        """Whether a command waits."""
        return bool(self._names())

    def take(self, store: Store, now: datetime) -> TakenCommands:
        """Store the commands that wait. Raises StoreError, and OSError if the folder cannot be read.

        `now`: as ticks are dated. A file is moved once its event is stored. Where that fails the same event is stored
        again, which counts once, whether a tick has consumed it or not.
        """
        stored, damaged, expired, failed = 0, [], [], None
        pages: dict[Path, SpooledPage] = {}
        for name in sorted(self._names())[:TAKEN_AT_ONCE]:
            path = self.folder / name
            try:
                command = _read(path)
                if command is None:
                    damaged.append(name)
                elif _is_late(command, now):
                    expired.append(command.event)
                    path.replace(self._expired / name)
                    continue
                elif isinstance(command.instead, SpooledPage):
                    pages[path] = command.instead  # it stays where a later file ends this with an error
                    continue
                else:
                    _keep(store, command)
                    stored += 1
                path.replace(self._done / name)
            except OSError as error:
                failed = f"{name}: {error.strerror}"
        for path in pages:
            try:
                path.replace(self._done / path.name)
            except OSError as error:
                failed = f"{path.name}: {error.strerror}"
        return TakenCommands(stored, tuple(damaged), tuple(expired), failed, tuple(pages.values()))

    def forget(self) -> None:
        """Remove the files of commands that were taken, or came too late, long ago: a retry of one is a new command."""
        oldest = time.time() - FORGOTTEN_AFTER.total_seconds()
        for folder in (self._done, self._expired):
            with suppress(FileNotFoundError):
                for each in os.scandir(folder):
                    with suppress(FileNotFoundError):
                        if each.stat(follow_symlinks=False).st_mtime < oldest:
                            Path(each.path).unlink()

    def _names(self) -> list[str]:
        try:
            return [each.name for each in os.scandir(self.folder) if each.name.endswith(".json")]
        except FileNotFoundError:
            return []


def _read(path: Path) -> SpooledCommand | None:
    try:
        with path.open("rb") as file:
            return _DECODER.decode(file.read(LARGEST + 1))
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _keep(store: Store, command: SpooledCommand) -> None:
    """Store what the command is: an event, or a blob of the kinds that a command may write."""
    if not isinstance(command.instead, SpooledDelivery):
        store.put_event(command.event)
    elif command.instead.name.startswith(DELIVERABLE):
        store.put_live(command.instead.name, command.instead.text.encode())


def _is_late(command: SpooledCommand, now: datetime) -> bool:
    event = command.event
    longest = WAITS_FOR.get(event.kind, LOOSENS_FOR)
    if event.all_orders or (event.kind == "resume" and not is_of_policy(event)):
        longest = LOOSENS_FOR
    elif event.kind == "pause" and not is_of_policy(event):
        longest = None
    return longest is not None and now - event.at > longest


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(body: bytes) -> str:
    """The digest of the body of a request."""
    return sha256(body).hexdigest()
