"""Statements in the place of a signature: the manifest of a folder (C4), and claims about commits of a repository.

What a statement is about is compared field by field; its signature, key and time are judged as those of approvals.
"""

from __future__ import annotations

import re
from typing import Final

from killswitch.source.candidate import SourceProblem
from killswitch.source.git_verdicts import StatementClaim
from killswitch.source.polling import Manifest, ManifestRequest
from killswitch.source.statement_signatures import VerifiedStatement, verify_all, verify_statement
from killswitch.source.statements import StatementError, read_approval
from killswitch.source.trust import Trust, TrustedKey
from killswitch.source.trust_file import TrustFileError, parse_trust

_VERSION: Final = re.compile(r"version ([0-9]{1,9})")
FIX: Final = "sign the folder for the purpose `manifest`, and put the statement next to the policies"


def signed_manifest(request: ManifestRequest) -> Manifest | SourceProblem:
    """The valid manifest of the folder with the highest version; a problem with all reasons if there is none.

    The subject of its statement is `version N`.
    """
    try:
        trust = parse_trust(request.trust or b"", "the trust file")
    except TrustFileError as error:
        return _unsigned(str(error))
    verified, problems = verify_all(request.statements, trust, request.now)
    found = [(version, each) for each in verified if (version := _version_over(each, request)) is not None]
    if not found:
        reasons = "; ".join(each.line for each in problems) or "no statement is about this folder"
        return _unsigned(reasons)
    version, statement = max(found, key=lambda each: each[0])
    return Manifest(version, statement.principal)


def _version_over(found: VerifiedStatement, request: ManifestRequest) -> int | None:
    """The version of a manifest of this folder; None for any other statement."""
    statement = found.statement
    if statement.purpose != "manifest" or statement.source != request.source:
        return None
    written = _VERSION.fullmatch(statement.subject or "")
    return int(written[1]) if written is not None and statement.result == request.folder_digest else None


def _unsigned(why: str) -> SourceProblem:
    text = f"the folder has no valid signed manifest: {why}"
    return SourceProblem(code="KS8231", text=text, fix=FIX, is_page=True)


def claimed_by(content: bytes, claim: StatementClaim, trust: Trust, now: int) -> TrustedKey | None:
    """The key with which a file of an approval states exactly this claim; None for any other file."""
    try:
        signed = read_approval(content)
    except StatementError:
        return None
    stated = signed.statement
    wanted = (claim.purpose, claim.source, claim.ref, claim.path, claim.base, claim.result)
    if (stated.purpose, stated.source, stated.ref, stated.path, stated.base, stated.result) != wanted:
        return None
    found = verify_statement(signed, trust, now)
    if not isinstance(found, VerifiedStatement):
        return None
    return next((key for key in trust.keys if key.fingerprint == found.key), None)
