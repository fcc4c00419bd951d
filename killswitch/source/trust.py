"""The trust set: who signs commits, who approves changes, and how many approvals a loosening needs."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

KeyKind = Literal["ssh", "openpgp"]


class TrustedKey(Struct, frozen=True, kw_only=True):
    """One key of one person. `fingerprint`: `SHA256:…` of an SSH key, 40 hexadecimal digits of an OpenPGP key."""

    kind: KeyKind
    fingerprint: str
    principal: str
    public: str
    """The SSH line (`ssh-ed25519 AAAA…`), or the armoured OpenPGP key."""
    signs: bool
    approves: bool
    valid_from: int | None = None
    valid_until: int | None = None
    """Microseconds; judged by the runner's clock when a commit is first seen (T5)."""
    is_revoked: bool = False
    """Nothing that it signed and that is not in force yet counts (T6); an ended key counts for what was seen before."""


class Trust(Struct, frozen=True, kw_only=True):
    """The whole of a trust file. `version` never falls (T3). `approvals`: how many a loosening needs (N)."""

    version: int
    approvals: int
    keys: tuple[TrustedKey, ...]

    @property
    def approvers(self) -> frozenset[str]:
        """The principals that may approve."""
        return frozenset(key.principal for key in self.keys if key.approves)
