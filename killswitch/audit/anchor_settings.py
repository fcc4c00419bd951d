"""Where anchors are published: the file of `ksctl run --anchors`, in TOML.

It is a file of the operator's own and no policy: a set must not decide who can see that the record was changed.

    every = "1h"                        # besides those that are forced by a firing, a close and a reset
    folder = "anchors"                  # copies of what was published, with its time stamps

    [git]                               # one public sequence, if the branch is protected
    remote = "ssh://git@git.example.com/audit/anchors.git"
    branch = "anchors"
    key = "anchor_ed25519"              # the private key that signs each commit
    ssh_key = "deploy_ed25519"          # the private key for ssh; left out: none
    known_hosts = "known_hosts"

    [[time_stamps]]                     # the time (RFC 3161)
    url = "https://tsa.example.com/"
    certificates = "tsa.pem"            # whom to trust for them

Paths are relative to the file.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from killswitch.audit.log_files import AuditError
from killswitch.model.legible import legible
from killswitch.policy.schema.scalars import duration

_SECURE: Final = ("https://", "http://127.0.0.1", "http://[::1]", "http://localhost")
"""A time stamp is signed; without https whoever listens sees when there was a firing."""


class GitAnchors(Struct, frozen=True, forbid_unknown_fields=True):
    """A branch to which each anchor is pushed as a signed commit."""

    remote: str
    branch: str
    key: str
    ssh_key: str | None = None
    known_hosts: str | None = None


class TimeStamps(Struct, frozen=True, forbid_unknown_fields=True):
    """A time stamping authority (RFC 3161), and the certificates by which its answers are verified."""

    url: str
    certificates: str


class AnchorSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where anchors are published, and how often. `every`: seconds once read."""

    folder: str
    every: str = "1h"
    git: GitAnchors | None = None
    time_stamps: tuple[TimeStamps, ...] = ()

    @property
    def seconds(self) -> float:
        """The time between two anchors that nothing forces."""
        return duration(self.every) / 1_000_000


def read_anchor_settings(file: Path) -> AnchorSettings:
    """Read the file; paths in the result are whole. Raises AuditError with the place and what to write."""
    try:
        found = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), AnchorSettings)
        _ = found.seconds
    except OSError as error:
        raise AuditError(f"{file} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise AuditError(f"{file}: {legible(str(error))} (docs/audit.md has an example)") from error
    if found.git is None and not found.time_stamps:
        raise AuditError(f"{file} names nobody who gets the anchors: add [git], [[time_stamps]] or both")
    for each in found.time_stamps:
        if not each.url.startswith(_SECURE):
            raise AuditError(f"{file}: a time stamp is requested by https, not from {each.url!r}")
    return _below(found, file.absolute().parent)


def _below(settings: AnchorSettings, folder: Path) -> AnchorSettings:
    """The settings with whole paths."""

    def whole(path: str) -> str:
        return str(folder / path)

    git = settings.git
    return AnchorSettings(
        whole(settings.folder),
        settings.every,
        None
        if git is None
        else GitAnchors(
            git.remote,
            git.branch,
            whole(git.key),
            None if git.ssh_key is None else whole(git.ssh_key),
            None if git.known_hosts is None else whole(git.known_hosts),
        ),
        tuple(TimeStamps(each.url, whole(each.certificates)) for each in settings.time_stamps),
    )
