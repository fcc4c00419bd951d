"""Verification of signed statements: which key of the trust set counts, for what and when (T5), and who signed (T7).

Whether that one key signed exactly these bytes is for `SignatureVerifier` to say, as for commits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.instant import HOUR, from_micros, rfc3339
from killswitch.source.git_problems import GitSourceError
from killswitch.source.signatures import SignatureError, SignatureVerifier, ssh_public_key
from killswitch.source.statements import (
    LONGEST,
    NAMESPACE,
    SIGNED_BY_SIGNERS,
    SignedStatement,
    Statement,
    StatementError,
    read_approval,
)
from killswitch.source.trust import Trust, TrustedKey

MOST = 200
"""How many statements of one change are looked at; further ones do not count."""
AHEAD = HOUR
"""How far the time in a statement may be ahead of the runner's clock."""
_REFUSED: Final[Mapping[str, tuple[str, str]]] = {
    "KS8001": ("KS8315", "{cause}, so that no statement can be verified"),
    "KS8008": ("KS8315", "{cause}, so that no statement can be verified"),
    "KS8105": ("KS8302", f"the approval of {{who}} is signed in another namespace than {NAMESPACE}"),
    "KS8107": ("KS8304", "the key of {who} expired, as its owner has published"),
    "KS8109": ("KS8304", "the key of {who} was revoked, as its owner has published"),
}
"""Code of a signature → code and text of a statement. By any other, the signature is not of this key and text."""


class VerifiedStatement(Struct, frozen=True):
    """A statement whose signature is valid now. `principal` and `key`: of the key in the trust set."""

    statement: Statement
    id: str
    principal: str
    key: str


class StatementProblem(Struct, frozen=True):
    """Why a statement does not count: a code with a page (`ksctl explain`), and a sentence."""

    code: str
    text: str

    @property
    def line(self) -> str:
        """The sentence with its code."""
        return f"{self.text} ({self.code})"


class _RefusedError(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.problem = StatementProblem(code, text)


def verify_all(
    contents: Iterable[bytes], trust: Trust, now: int
) -> tuple[tuple[VerifiedStatement, ...], tuple[StatementProblem, ...]]:
    """The statements of files of approvals that are valid at `now` (microseconds), and why others are not."""
    verified: dict[str, VerifiedStatement] = {}
    problems: list[StatementProblem] = []
    for number, content in enumerate(dict.fromkeys(contents)):
        if number >= MOST:
            problems.append(StatementProblem("KS8301", f"statements after the first {MOST} are not looked at"))
            break
        try:
            found = verify_statement(read_approval(content), trust, now)
        except StatementError as error:
            found = StatementProblem("KS8301", f"a file is no statement: {error}")
        if isinstance(found, VerifiedStatement):
            verified.setdefault(found.id, found)
        else:
            problems.append(found)
    return tuple(verified.values()), tuple(dict.fromkeys(problems))


def verify_statement(found: SignedStatement, trust: Trust, now: int) -> VerifiedStatement | StatementProblem:
    """The statement with its principal, if its key is trusted for its purpose and signed exactly these bytes.

    The time and the key are checked before any program is started.
    """
    try:
        key = _trusted_key(found.statement, trust, now)
        _require_time(found.statement, key, now)
        _require_signature(found, key, now)
    except _RefusedError as refused:
        return refused.problem
    return VerifiedStatement(found.statement, found.id, key.principal, key.fingerprint)


def _trusted_key(statement: Statement, trust: Trust, now: int) -> TrustedKey:
    """The key of the trust set that the statement names, if it may sign this purpose now."""
    key = next((each for each in trust.keys if each.fingerprint.upper() == statement.key.upper()), None)
    if key is None:
        raise _RefusedError("KS8303", f"the key {statement.key} is not in the trust set")
    if key.kind == "ssh" and key.fingerprint != statement.key:  # the digits of OpenPGP have no case, base64 has
        raise _RefusedError("KS8303", f"the key {statement.key} is not in the trust set")
    whose = f"the key of {key.principal}"
    if not (key.signs if statement.purpose in SIGNED_BY_SIGNERS else key.approves):
        role = "sign" if statement.purpose in SIGNED_BY_SIGNERS else "approve"
        raise _RefusedError("KS8305", f"{whose} may not {role} by the trust set, which `{statement.purpose}` needs")
    if key.is_revoked:
        raise _RefusedError("KS8304", f"{whose} is revoked")
    if key.valid_from is not None and now < key.valid_from:
        raise _RefusedError("KS8304", f"{whose} is valid only from {_time(key.valid_from)}")
    if key.valid_until is not None and now >= key.valid_until:
        raise _RefusedError("KS8304", f"{whose} ended at {_time(key.valid_until)}")
    return key


def _require_time(statement: Statement, key: TrustedKey, now: int) -> None:
    whose = f"the approval of {key.principal}"
    if now >= statement.expires:
        raise _RefusedError("KS8306", f"{whose} expired at {_time(statement.expires)}")
    if statement.given > now + AHEAD:
        raise _RefusedError("KS8307", f"{whose} is dated {_time(statement.given)}, ahead of the runner's clock")
    if statement.purpose != "manifest" and statement.expires - statement.given > LONGEST:
        raise _RefusedError("KS8307", f"{whose} expires more than 14 days after it was given")


def _time(micros: int) -> str:
    return rfc3339(from_micros(micros))


def _require_signature(found: SignedStatement, key: TrustedKey, now: int) -> None:
    """_RefusedError unless this key signed exactly the bytes of the statement. Programs are those of the caller's PATH:
    an approver's machine has them elsewhere than the image of the runner.
    """
    if key.kind == "ssh":
        try:
            public, fingerprint = ssh_public_key(key.public)
        except SignatureError:
            public, fingerprint = "", ""
        if fingerprint != key.fingerprint:
            raise _RefusedError("KS8303", f"the public key of {key.principal} in the trust set is no SSH key")
        key = replace(key, public=public)
    trust = Trust(version=1, approvals=1, keys=(key,))
    with TemporaryDirectory() as home:
        verifier = SignatureVerifier(Path(home), now, os.environ.get("PATH", os.defpath))
        try:
            verifier.verify(found.signature, found.signed, trust, NAMESPACE)
        except GitSourceError as error:
            code, text = _REFUSED.get(
                error.code, ("KS8302", "the signature of the approval of {who} does not count: {cause}")
            )
            raise _RefusedError(code, text.format(who=key.principal, cause=error.problem.text)) from None
