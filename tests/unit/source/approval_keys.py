"""People with real SSH and OpenPGP keys, the trust sets that name them, and what they sign."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.applied_set import ChangeClass
from killswitch.model.instant import DAY, HOUR
from killswitch.source.statements import NAMESPACE, Purpose, Statement, encode_statement, join_signature
from killswitch.source.trust import KeyKind, Trust, TrustedKey

NOW = 1_800_000_000_000_000
"""The runner's clock of the tests, in microseconds."""


class Signer(Struct, frozen=True):
    """One key of a person. `private`: its file; for OpenPGP the home of its keyring."""

    principal: str
    kind: KeyKind
    private: Path
    public: str
    fingerprint: str

    def trusted(
        self,
        *,
        signs: bool = True,
        approves: bool = True,
        valid_from: int | None = None,
        valid_until: int | None = None,
    ) -> TrustedKey:
        """The key in a trust set."""
        return TrustedKey(
            kind=self.kind, fingerprint=self.fingerprint, principal=self.principal, public=self.public, signs=signs,
            approves=approves, valid_from=valid_from, valid_until=valid_until,
        )  # fmt: skip

    def signature(self, signed: bytes, namespace: str = NAMESPACE) -> bytes:
        """The armoured signature of these bytes."""
        if self.kind == "ssh":
            command = ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(self.private), "-"]
        else:
            command = ["gpg", "--homedir", str(self.private), "--batch", "--armor", "--detach-sign"]
        return subprocess.run(command, input=signed, capture_output=True, check=True).stdout

    def approval(self, statement: Statement) -> bytes:
        """The file of an approval by this key."""
        signed = encode_statement(replace(statement, key=self.fingerprint))
        return join_signature(signed, self.signature(signed))


@cache
def ssh_signer(principal: str, number: int = 1) -> Signer:
    """A person with an SSH key, made once for all tests of a process; `number` tells several keys apart."""
    file = Path(mkdtemp()) / f"{number}"
    _quietly("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", principal, "-f", str(file))
    public = file.with_suffix(".pub").read_text().strip()
    shown = _quietly("ssh-keygen", "-l", "-f", str(file))
    return Signer(principal, "ssh", file, public, shown.split()[1])


@cache
def openpgp_signer(principal: str) -> Signer:
    """A person with an OpenPGP key, made once for all tests of a process."""
    home = Path(mkdtemp())
    gpg = ("gpg", "--homedir", str(home), "--batch")
    _quietly(*gpg, "--passphrase", "", "--quick-gen-key", principal, "ed25519", "sign", "never")
    listed = _quietly(*gpg, "--with-colons", "--list-keys")
    fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
    return Signer(principal, "openpgp", home, _quietly(*gpg, "--armor", "--export"), fingerprint)


def _quietly(*command: str) -> str:
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def trust_of(signers: Iterable[Signer], approvals: int = 1) -> Trust:
    """A trust set in which everybody signs and approves."""
    return Trust(version=1, approvals=approvals, keys=tuple(each.trusted() for each in signers))


def statement(purpose: Purpose = "change", **more: object) -> Statement:
    """A statement about the change of the tests, given an hour ago and valid for a week."""
    shown: ChangeClass = "LOOSENING"
    fields: Mapping[str, object] = {
        "purpose": purpose, "source": "desk", "ref": "refs/heads/main", "path": "policies", "base": digest("a"),
        "result": digest("b"), "shown": shown, "key": "-", "given": NOW - HOUR, "expires": NOW + 7 * DAY, **more,
    }  # fmt: skip
    return Statement(**fields)  # type: ignore[arg-type]  # the tests name the fields


def digest(digit: str) -> str:
    """A digest of one digit."""
    return "sha256:" + digit * 64
