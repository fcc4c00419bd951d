"""How long what a run leaves behind is kept: the file of `ksctl store retain --declared`, in TOML.

It is a file of the operator's own and no policy, as that of the anchors: a set that is proposed in a pull request must
not decide what evidence is deleted. What no table declares is kept for ever.

    clock_within = "3d"                 # nothing is removed unless the record has no gap that long until now
    every = "1d"                        # how often a run with --retain does it

    [store]                             # lines of the record, decisions, journal, commands, notices, incidents
    keep = "400d"
    archive = "audit"                   # lines are exported here, with what they name, before they leave the store

    [archive]                           # whole segments of that folder
    keep = "2555d"

    [incidents]                         # runbooks and reports of the folder STORE.incidents
    keep = "400d"

    [recordings]                        # files of `ksctl run --record`
    keep = "90d"
    files = "recordings/*.jsonl*"

    [events]                            # files of `ksctl run --events`
    keep = "30d"
    files = "events/*.jsonl*"

Paths are relative to the file.
"""

from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.audit.log_files import AuditError
from killswitch.model.legible import legible
from killswitch.policy.schema.scalars import duration
from killswitch.record.line import digest_of

FileClass = Literal["recordings", "events"]
"""Files of runs that a pattern names."""
SHORTEST: Final = timedelta(days=1)
"""A close, its report and its questions take hours."""
SHORTEST_INTERVAL: Final = timedelta(minutes=10)
"""A retention reads all decisions, and verifies the archive where it removes lines: seconds of one core."""


class KeptStore(Struct, frozen=True, forbid_unknown_fields=True):
    """How long a store keeps what it has, and the folder of segments that gets the lines before."""

    keep: str
    archive: str


class KeptFor(Struct, frozen=True, forbid_unknown_fields=True):
    """How long the segments of the archive, or the files of an incident, are kept."""

    keep: str


class KeptFiles(Struct, frozen=True, forbid_unknown_fields=True):
    """How long files are kept after they were last written. `files`: a pattern of paths, as `events/*.jsonl*`."""

    keep: str
    files: str


class RetentionTables(Struct, frozen=True, forbid_unknown_fields=True):
    """What is removed when it is older than declared; what is None is kept for ever.

    `clock_within`: the longest gap in the record by which the clock is believed. `every`: the schedule of a run; None
    where a run does not do it.
    """

    clock_within: str
    every: str | None = None
    store: KeptStore | None = None
    archive: KeptFor | None = None
    incidents: KeptFor | None = None
    recordings: KeptFiles | None = None
    events: KeptFiles | None = None

    @property
    def file_classes(self) -> dict[FileClass, KeptFiles]:
        """The declared classes of files by their names."""
        named: dict[FileClass, KeptFiles | None] = {"recordings": self.recordings, "events": self.events}
        return {name: files for name, files in named.items() if files is not None}

    @property
    def keeps(self) -> tuple[timedelta, ...]:
        """The declared times of all tables. Raises ValueError."""
        tables = (self.store, self.archive, self.incidents, *self.file_classes.values())
        return tuple(kept_for(each.keep) for each in tables if each is not None)

    @property
    def longest_gap(self) -> timedelta:
        """`clock_within` as a time."""
        return timedelta(microseconds=duration(self.clock_within))

    @property
    def interval(self) -> timedelta | None:
        """`every` as a time."""
        return None if self.every is None else timedelta(microseconds=duration(self.every))


class RetentionSettings(RetentionTables, frozen=True, forbid_unknown_fields=True):
    """The tables of a file, with whole paths. `digest`: SHA-256 of the file, for the record."""

    digest: str = ""


def kept_for(keep: str) -> timedelta:
    """The time that a table declares. ValueError where it is none, or shorter than a day."""
    found = timedelta(microseconds=duration(keep))
    if found < SHORTEST:
        raise ValueError(f"keep = {keep!r} is shorter than a day: write at least 1d")
    return found


def read_retention_settings(file: Path) -> RetentionSettings:
    """Read the file; paths in the result are whole. Raises AuditError with the place and what to write."""
    try:
        content = file.read_bytes()
        found = msgspec.convert(tomllib.loads(content.decode("utf-8")), RetentionTables)
        _require_times(found)
    except OSError as error:
        raise AuditError(f"{file} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise AuditError(f"{file}: {legible(str(error))} (docs/audit.md has an example)") from error
    if found.store is None and found.incidents is None and not found.file_classes:
        which = "[store], [incidents], [recordings] or [events]"
        raise AuditError(f"{file} declares nothing that may be removed: add {which}")
    if found.archive is not None and (found.store is None or kept_for(found.archive.keep) < kept_for(found.store.keep)):
        raise AuditError(f"{file}: [archive] has what left the store: declare [store], with a `keep` that is no longer")
    return _below(found, file.absolute().parent, digest_of(content))


def _require_times(found: RetentionTables) -> None:
    """Raise ValueError where the times do not fit together."""
    shortest, gap, every = min(found.keeps, default=SHORTEST), found.longest_gap, found.interval
    if found.keeps and gap > shortest:
        raise ValueError(
            f"clock_within = {found.clock_within!r} is longer than the shortest `keep`: the lines that confirm the "
            "clock would be removed"
        )
    if every is not None and (every < SHORTEST_INTERVAL or every > gap):
        raise ValueError(
            f"every = {found.every!r} is not from {SHORTEST_INTERVAL.total_seconds() / 60:.0f} min to `clock_within`: "
            "the line of each retention shows that the clock goes on"
        )


def _below(found: RetentionTables, folder: Path, digest: str) -> RetentionSettings:
    """The settings with whole paths."""

    def whole(files: KeptFiles | None) -> KeptFiles | None:
        return None if files is None else replace(files, files=str(folder / files.files))

    store = None if found.store is None else replace(found.store, archive=str(folder / found.store.archive))
    return RetentionSettings(
        found.clock_within, found.every, store, found.archive, found.incidents, whole(found.recordings),
        whole(found.events), digest,
    )  # fmt: skip
