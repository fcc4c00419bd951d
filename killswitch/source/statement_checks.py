"""Statements that a source needs before there is a change to review: of trust, of a merge, and manifests of folders.

A git source calls `signer_of` for each statement about one claim (T3, A9). A folder or a mount with `require: signed`
calls `check_manifest` for its content (C4).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from killswitch.model.legible import one_line
from killswitch.source.candidate import SourceProblem
from killswitch.source.git_verdicts import StatementClaim
from killswitch.source.statement_signatures import (
    StatementProblem,
    VerifiedStatement,
    verify_all,
    verify_statement,
)
from killswitch.source.statements import Statement, StatementError, read_approval
from killswitch.source.trust import Trust, TrustedKey
from killswitch.source.trust_file import TrustFileError, parse_trust

ReadTrust = Callable[[bytes], Trust]
"""Text of a trust file → the trust set; raises TrustFileError for a file with mistakes."""


class ManifestRequest(Struct, frozen=True):
    """What a signed manifest of a folder is checked against."""

    statements: tuple[bytes, ...]
    trust: bytes | None
    source: str
    folder_digest: str
    now: int


class Manifest(Struct, frozen=True):
    """A verified manifest: its version, and who signed it."""

    version: int
    principal: str


def signer_of(content: bytes, claim: StatementClaim, trust: Trust, now: int) -> TrustedKey | None:
    """The key of the trust set with which the file of an approval is signed, if it is about exactly this claim, and
    counts at `now` (microseconds) by the role that its purpose needs; None for any other file."""
    try:
        found = read_approval(content)
    except StatementError:
        return None
    if not _is_about(found.statement, claim):
        return None  # before any program is started
    verified = verify_statement(found, trust, now)
    if isinstance(verified, StatementProblem):
        return None
    return next(each for each in trust.keys if each.fingerprint == verified.key)


def _is_about(statement: Statement, claim: StatementClaim) -> bool:
    stated = (statement.purpose, statement.source, statement.ref, statement.path, statement.base, statement.result)
    return stated == (claim.purpose, claim.source, claim.ref or None, claim.path or None, claim.base, claim.result)


def configured_trust(text: bytes) -> Trust:
    """The trust set in the trust file of the runner's configuration. Raises TrustFileError for one with mistakes."""
    return parse_trust(text, "the trust file")


def check_manifest(request: ManifestRequest, read_trust: ReadTrust = configured_trust) -> Manifest | SourceProblem:
    """The newest signed manifest over exactly this folder (C4), or why there is none.

    Its subject is the version, a whole number that never falls; whether it falls is judged by who keeps the last one.
    """
    if request.trust is None:
        return _no_manifest("KS8314", "no trust set is configured, so that nobody may sign the folder")
    try:
        trust = read_trust(request.trust)
    except TrustFileError as error:
        return _no_manifest("KS8247", one_line(str(error)))
    verified, problems = verify_all(request.statements, trust, request.now)
    found = [each for each in verified if _is_manifest(each, request)]
    newest = max(found, key=lambda each: (_version(each), each.id), default=None)
    if newest is not None:
        return Manifest(_version(newest), newest.principal)
    first = next(iter(problems), None)
    if first is not None:
        return _no_manifest(first.code, first.text)
    return _no_manifest("KS8308", "no signed manifest states the digest of the folder as it is now")


def _is_manifest(each: VerifiedStatement, request: ManifestRequest) -> bool:
    statement = each.statement
    is_about = (statement.purpose, statement.source, statement.result) == (
        "manifest", request.source, request.folder_digest,
    )  # fmt: skip
    return is_about and _version(each) > 0


def _version(each: VerifiedStatement) -> int:
    """The version of a manifest; 0 for a subject that is none."""
    subject = each.statement.subject or ""
    return int(subject) if subject.isascii() and subject.isdigit() and len(subject) < 10 else 0


def _no_manifest(code: str, text: str) -> SourceProblem:
    fix = "sign the folder as it is with `ksctl approve --purpose manifest`; the set in force stays"
    return SourceProblem(code=code, text=text, fix=fix, is_page=True)
