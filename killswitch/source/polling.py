"""One poll of a source, made in a process of its own: `python -m killswitch.source.polling`, with JSON on both ends.

The runner starts it, limits its time and its answer, and ends it with all that it started. So a dead mount, a host that
sends a byte a second or a file without end cost a process, never a tick.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from killswitch.model.legible import one_line
from killswitch.source.candidate import Candidate, SourceAnswer, SourceKind, SourceProblem
from killswitch.source.folders import (
    FolderContent,
    FolderProblemError,
    NotYetError,
    content_mark,
    read_directory,
    read_mount,
)
from killswitch.source.limited_process import LimitedProcessError, ProcessLimits, python_module, run_limited
from killswitch.source.statement_checks import Manifest, ManifestRequest, check_manifest

POLL: Final = 30_000_000
"""Microseconds between two polls where the file declares none."""
SETTLES_WITHIN: Final = 2.0
"""Seconds between two readings of a directory that must agree."""
MODULE: Final = "killswitch.source.polling"
_MEMORY: Final = 1 << 30
_ANSWER: Final = 64 << 20
"""Bytes of an answer: base64 of all documents."""
_SECONDS: Final = 60
_DESCRIPTORS: Final = 64


class GitSettings(Struct, frozen=True, kw_only=True):
    """A git source with whole paths."""

    url: str
    ref: str
    path: str
    anchor: str | None = None
    credentials: Path | None = None
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    trust_path: str | None = None
    approvals_path: str | None = None
    allow_file: bool = False


class SourceSettings(Struct, frozen=True, kw_only=True):
    """The content of a source file, with whole paths and microseconds."""

    name: str
    kind: SourceKind
    file: Path
    """The file itself, for messages."""
    git: GitSettings | None = None
    folder: Path | None = None
    is_signed: bool = False
    """Whether signatures are demanded; else a loosening is not protected."""
    trust: Path | None = None
    poll: int = POLL
    stale_after: int | None = None
    frozen_after: int | None = None
    loosening_after: int = 0
    shadow_before: int = 0
    shadow_after: int = 0


class PollRequest(Struct, frozen=True, kw_only=True):
    """What one poll needs. `previous`: the mark of the last candidate (`candidate_mark`), which is not sent again."""

    settings: SourceSettings
    now: int
    """The runner's clock, in microseconds."""
    previous: str | None = None
    trust: bytes | None = None
    """The text of the trust file of the runner's configuration."""
    in_force: str = ""
    """The digest of the folder in force, which needs no manifest any more: one expires, a set in force does not."""
    manifest_version: int = 0
    """The version of the last manifest that was in force, below which none counts (C4)."""
    anchor: str | None = None
    """The anchor that an operator has moved to (H7); None: that of the settings."""
    last_good: str | None = None
    """The commit of the set in force; None where no commit is in force."""
    verified: bytes | None = None
    """What the source has verified so far, as it returned it; the runner only keeps it."""


ManifestCheck = Callable[[ManifestRequest], Manifest | SourceProblem]


def no_manifest_check(_request: ManifestRequest) -> SourceProblem:
    """Where nothing can verify a manifest, none counts as signed."""
    text = "the signature of the manifest cannot be verified: this installation has no verification of statements"
    return SourceProblem(
        code="KS8231", text=text, fix="install ssh-keygen and gpg; the set in force stays", is_page=True
    )


def candidate_mark(candidate: Candidate) -> str:
    """What identifies a candidate with the statements next to it."""
    mark = content_mark(candidate.folder_digest, candidate.statements)
    return mark if candidate.commit is None else f"{candidate.commit}/{mark}"


def poll_folder(
    request: PollRequest, pause: Callable[[float], None], check: ManifestCheck = no_manifest_check
) -> SourceAnswer:
    """Poll a directory or a mount once. Never raises for what it finds there.

    `pause`: waits so many seconds between the two readings of a directory that is written to.
    """
    try:
        content = _settled(request, pause)
    except FolderProblemError as error:
        return SourceAnswer(problems=(error.problem,))
    except NotYetError as error:
        return SourceAnswer(progress=f"not yet: {one_line(str(error))}")
    if content.mark == request.previous:
        return SourceAnswer()
    settings = request.settings
    candidate = Candidate(
        source=settings.name,
        kind=settings.kind,
        files=content.files,
        folder_digest=content.digest,
        generation=content.generation,
        path=str(settings.folder),
        statements=content.statements,
        is_protected=settings.is_signed,
    )
    if not settings.is_signed or candidate.folder_digest == request.in_force:
        return SourceAnswer(candidate=candidate)
    return _signed(candidate, request, check)


def _settled(request: PollRequest, pause: Callable[[float], None]) -> FolderContent:
    folder = request.settings.folder
    if folder is None:
        raise TypeError("a source of this kind has a folder")
    if request.settings.kind == "config_map":
        return read_mount(folder)
    first = read_directory(folder)
    if first.generation is not None or first.mark == request.previous:
        return first
    pause(SETTLES_WITHIN)
    second = read_directory(folder)
    if second.mark != first.mark:
        raise NotYetError(f"{folder} changed within {SETTLES_WITHIN:g} s")
    return second


def _signed(candidate: Candidate, request: PollRequest, check: ManifestCheck) -> SourceAnswer:
    """The candidate with its manifest; a problem if that is absent, wrong, or older than the last one (C4)."""
    manifest = check(
        ManifestRequest(candidate.statements, request.trust, candidate.source, candidate.folder_digest, request.now)
    )
    if isinstance(manifest, SourceProblem):
        return SourceAnswer(problems=(manifest,))
    if manifest.version < request.manifest_version:
        text = (
            f"the manifest has version {manifest.version}, and version {request.manifest_version} was in force: an "
            "older folder is proposed"
        )
        fix = f"sign the folder again, with version {request.manifest_version + 1}"
        problem = SourceProblem(code="KS8232", text=text, fix=fix, is_page=True, principal=manifest.principal)
        return SourceAnswer(problems=(problem,))
    signed = msgspec.structs.replace(candidate, manifest_version=manifest.version, signer=manifest.principal)
    return SourceAnswer(candidate=signed)


def poll_folder_in_child(request: PollRequest) -> SourceAnswer:
    """Poll in a process of its own, with limits, ended with all that it started (P1). Raises nothing."""
    command, environment = python_module(MODULE)
    processes = 8 if request.settings.is_signed else 0  # ssh-keygen and gpg
    limits = ProcessLimits(
        seconds=_SECONDS, memory_bytes=_MEMORY, file_bytes=_ANSWER, processes=processes, open_files=_DESCRIPTORS
    )
    try:
        output = run_limited(command, msgspec.json.encode(request, enc_hook=str), limits, environment)
        return msgspec.json.decode(output, type=SourceAnswer)
    except (LimitedProcessError, msgspec.MsgspecError, OSError) as error:
        text = f"the poll gave no answer: {one_line(str(error))}"
    fix = "check the folder and its mount; the set in force stays"
    problem = SourceProblem(code="KS8244", text=text, fix=fix, is_page=False, file=str(request.settings.folder))
    return SourceAnswer(problems=(problem,))


def main() -> None:
    """Read a PollRequest from stdin, and write a SourceAnswer to stdout."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=PollRequest, dec_hook=lambda kind, text: kind(text))
    signal.alarm(_SECONDS + 5)  # if nobody is left who would end it
    check: ManifestCheck = no_manifest_check
    if request.settings.is_signed:
        check = check_manifest
    sys.stdout.buffer.write(msgspec.json.encode(poll_folder(request, time.sleep, check)))


if __name__ == "__main__":
    main()
