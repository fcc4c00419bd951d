"""Statements about trust, merges and the content of folders: which key signed exactly this claim, if any."""

from __future__ import annotations

from typing import Literal

import pytest
from msgspec.structs import replace

from killswitch.model.instant import DAY
from killswitch.source.candidate import SourceProblem
from killswitch.source.git_verdicts import StatementClaim
from killswitch.source.statement_checks import Manifest, ManifestRequest, check_manifest, signer_of
from killswitch.source.trust import Trust
from tests.unit.source.approval_keys import NOW, digest, ssh_signer, statement, trust_of

ANN, BOB, EVE = (ssh_signer(f"{name}@desk.example") for name in ("ann", "bob", "eve"))
TRUST = Trust(version=1, approvals=1, keys=(ANN.trusted(signs=False), BOB.trusted(approves=False)))


def claimed(purpose: Literal["trust", "merge"], **more: object) -> StatementClaim:
    """What a git source looks for: the change from folder `a` to folder `b`."""
    plain = StatementClaim(
        purpose=purpose, source="desk", ref="refs/heads/main", path="policies", base=digest("a"), result=digest("b")
    )
    return replace(plain, **more)


def test_t3_a_change_of_trust_is_approved_by_an_approver() -> None:
    """T3: by a key that approves, over exactly the two trust files."""
    content = ANN.approval(statement("trust", shown=None))
    found = signer_of(content, claimed("trust"), TRUST, NOW)
    assert found is not None and found.principal == "ann@desk.example"
    assert signer_of(BOB.approval(statement("trust", shown=None)), claimed("trust"), TRUST, NOW) is None


def test_a9_a_merge_is_vouched_for_by_a_signer() -> None:
    """A9: by a key that signs; an approver's alone does not replace a signature."""
    found = signer_of(BOB.approval(statement("merge", shown=None)), claimed("merge"), TRUST, NOW)
    assert found is not None and found.principal == "bob@desk.example"
    assert signer_of(ANN.approval(statement("merge", shown=None)), claimed("merge"), TRUST, NOW) is None


@pytest.mark.parametrize(
    "claim",
    [
        claimed("merge"), claimed("trust", source="other"), claimed("trust", ref="refs/heads/x"),
        claimed("trust", path=""), claimed("trust", base=None), claimed("trust", base=digest("c")),
        claimed("trust", result=digest("c")),
    ],
    ids=str,
)  # fmt: skip
def test_a_statement_about_anything_else_is_none(claim: StatementClaim) -> None:
    """A3: every field of the claim is one of the statement."""
    assert signer_of(ANN.approval(statement("trust", shown=None)), claim, TRUST, NOW) is None


def test_what_is_no_valid_statement_has_no_signer() -> None:
    """Words, an unknown key, and an expired statement."""
    claim = claimed("trust")
    assert signer_of(b"I approve", claim, TRUST, NOW) is None
    assert signer_of(EVE.approval(statement("trust", shown=None)), claim, TRUST, NOW) is None
    assert signer_of(ANN.approval(statement("trust", shown=None)), claim, TRUST, NOW + 8 * DAY) is None


SIGNERS = trust_of([ANN, BOB])


def manifest(version: str | None = "3", **more: object) -> bytes:
    """A manifest signed by Bob."""
    return BOB.approval(statement("manifest", subject=version, **more))


def checked(*statements: bytes, trust: bytes | None = b"trust", now: int = NOW) -> Manifest | SourceProblem:
    """The check of a folder with digest `b`."""
    return check_manifest(ManifestRequest(statements, trust, "desk", digest("b"), now), lambda _: SIGNERS)


def test_c4_the_newest_signed_manifest_of_a_folder_counts() -> None:
    """C4: it states the digest of the folder; the version is what its reader compares with the last one."""
    assert checked(manifest()) == Manifest(3, "bob@desk.example")
    assert checked(manifest("3"), manifest("11"), manifest("2")) == Manifest(11, "bob@desk.example")
    assert checked(manifest(expires=NOW + 300 * DAY)) == Manifest(3, "bob@desk.example")


@pytest.mark.parametrize(
    ("statements", "code"),
    [
        ((), "KS8308"), ((manifest(result=digest("c")),), "KS8308"), ((manifest(source="other"),), "KS8308"),
        ((manifest(None),), "KS8308"), ((manifest("-1"),), "KS8308"), ((manifest("٣"),), "KS8308"),
        ((b"signed!",), "KS8301"), ((EVE.approval(statement("manifest", subject="3")),), "KS8303"),
        ((BOB.approval(statement(subject="3")),), "KS8308"), ((manifest(expires=NOW),), "KS8306"),
    ],
    ids=["none", "other folder", "other source", "no version", "negative", "other digits", "words", "unknown key",
         "other purpose", "expired"],
)  # fmt: skip
def test_c4_a_folder_without_its_manifest_is_a_page(statements: tuple[bytes, ...], code: str) -> None:
    """C4: each way in which a manifest is none has its code, and the set in force stays."""
    found = checked(*statements)
    assert isinstance(found, SourceProblem)
    assert (found.code, found.is_page) == (code, True)


def test_c4_without_a_trust_set_no_manifest_counts() -> None:
    """C4: no configuration is not consent."""
    found = checked(manifest(), trust=None)
    assert isinstance(found, SourceProblem) and found.code == "KS8314"
