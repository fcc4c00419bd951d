"""A policy set that a runner took into force: its files, where they came from, and who approved them.

Also when two names of approvers and authors are of one person.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256
from typing import Final, Literal

from msgspec import Struct, field

from killswitch.model.snapshot import Instant

ChangeClass = Literal["TIGHTENING", "LOOSENING", "EQUIVALENT", "NEITHER", "UNDECIDED"]
"""What is proved of a change of policies. NEITHER and UNDECIDED need what a loosening needs."""

_ADDRESS: Final = re.compile(r"^(.*?)<([^<>]*)>\s*$", re.DOTALL)


class PolicyFile(Struct, frozen=True):
    """One file of a policy folder. `path`: relative to the folder, with slashes."""

    path: str
    content: bytes


class Approval(Struct, frozen=True, kw_only=True):
    """A verified statement of an approver over one change. `id`: SHA-256 of the signed bytes, in hexadecimal."""

    id: str
    principal: str
    key: str
    """The fingerprint of the key that signed it."""
    expires_at: Instant


class PolicyOrigin(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a set came from, and by whom. Names in `claimed` are those written in commits, which nobody verified."""

    source: str
    """The name of the source; the paths of a run without a source."""
    ref: str | None = None
    commit: str | None = None
    folder_digest: str = ""
    signers: tuple[str, ...] = ()
    claimed: tuple[str, ...] = ()
    verdict: ChangeClass | None = None
    """What was proved of it against the set before; None for the first set and for one that was rolled back to."""
    approvals: tuple[Approval, ...] = ()
    operator: str | None = None
    """Who commanded it, if it was an operator: a rollback or a pin."""
    reason: str | None = None


class AppliedSet(Struct, frozen=True, kw_only=True):
    """A set in force since `at`. `program`: the version of the program that compiled it."""

    digest: str
    at: Instant
    program: str
    origin: PolicyOrigin
    files: tuple[PolicyFile, ...] = field(default=())


class SetChange(Struct, frozen=True, kw_only=True):
    """A set that came into force, as the store keeps it: `AppliedSet` without its files.

    `content`: the digest of the files. `renamed`: former name → name of each policy whose state moved.
    """

    digest: str
    content: str
    at: Instant
    program: str
    origin: PolicyOrigin
    renamed: dict[str, str] = field(default_factory=dict)


def name_now(policy: str, at: Instant, changes: Sequence[SetChange]) -> str:
    """The name by now of a policy that had this one `at` an instant. `changes`: newest first, as a store has them."""
    for change in reversed(changes):
        if change.at > at:
            policy = change.renamed.get(policy, policy)
    return policy


def folder_digest(files: Iterable[PolicyFile]) -> str:
    """SHA-256 over path and content of every file in the order of their paths, as `sha256:` and hexadecimal digits.

    Lengths precede both, so that no two folders have the same bytes.
    """
    digest = sha256()
    for file in sorted(files, key=lambda each: each.path):
        path = file.path.encode()
        digest.update(b"%d %d\n" % (len(path), len(file.content)))
        digest.update(path)
        digest.update(file.content)
    return f"sha256:{digest.hexdigest()}"


def same_person(text: str) -> str:
    """A name or address in one spelling: Unicode's compatible form, no case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def identities(text: str) -> Collection[str]:
    """What a principal or a claim `Name <address>` may be recognised by.

    The whole text, the name, the address, and the part of the address before `@` and before `+`: a person who writes
    commits under another address of the same name is still no second person.
    """
    whole = same_person(text)
    found = {whole}
    parts = _ADDRESS.match(whole)
    name, address = (parts[1].strip(), parts[2].strip()) if parts else ("", whole)
    found |= {name, address}
    if "@" in address:
        local = address.rpartition("@")[0]
        found |= {local, local.partition("+")[0]}
    return found - {""}
