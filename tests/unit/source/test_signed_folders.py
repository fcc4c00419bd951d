"""A folder with a signed manifest, polled in a process of its own, with real keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.model.instant import DAY, HOUR
from killswitch.source.folders import read_directory
from killswitch.source.poller import SourcePoller
from killswitch.source.polling import PollRequest, SourceSettings, poll_folder_in_child
from killswitch.source.statements import Statement
from killswitch.source.sync_state import SourceState
from tests.unit.source.approval_keys import NOW, Signer, ssh_signer

TRUST = """apiVersion: killswitch.dev/v1
kind: PolicyTrust
metadata: {name: desk}
spec:
  version: 1
  approvals: 1
  keys:
    - {principal: ann, ssh: KEY, may: [sign, approve]}
"""


def request(folder: Path, signer: Signer, version: int = 0) -> PollRequest:
    """A poll of the folder, which must be signed by this key."""
    settings = SourceSettings(name="desk", kind="directory", file=folder, folder=folder, is_signed=True)
    trust = TRUST.replace("KEY", " ".join(signer.public.split()[:2])).encode()
    return PollRequest(settings=settings, now=NOW, trust=trust, manifest_version=version)


def sign(folder: Path, signer: Signer, version: int, **more: object) -> None:
    """Put a manifest of the folder as it is now next to its policies."""
    plain = Statement(
        purpose="manifest", source="desk", key="", given=NOW, expires=NOW + DAY, subject=str(version),
        result=read_directory(folder).digest,
    )  # fmt: skip
    (folder / "manifest.approval").write_bytes(signer.approval(replace(plain, **more)))


def test_c4_a_manifest_by_a_trusted_key_makes_the_folder_a_candidate(tmp_path: Path) -> None:
    """With its version and its signer; the set is protected."""
    ann = ssh_signer("ann")
    (tmp_path / "a.yaml").write_text("a: 1\n")
    sign(tmp_path, ann, 7)
    answer = poll_folder_in_child(request(tmp_path, ann, 7))
    assert answer.problems == ()
    assert answer.candidate is not None
    assert (answer.candidate.signer, answer.candidate.manifest_version, answer.candidate.is_protected) == (
        "ann",
        7,
        True,
    )
    older = poll_folder_in_child(request(tmp_path, ann, 8))
    assert [each.code for each in older.problems] == ["KS8232"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"result": "sha256:" + 64 * "0"}, "KS8308"),
        ({"source": "other"}, "KS8308"),
        ({"purpose": "change"}, "KS8308"),
        ({"subject": "seven"}, "KS8308"),
        ({"expires": NOW + HOUR, "given": NOW - DAY, "subject": None}, "KS8308"),
        ({"expires": NOW}, "KS8306"),
    ],
    ids=["another folder", "another source", "another purpose", "no version", "no subject", "expired"],
)
def test_c4_any_other_statement_is_no_manifest(tmp_path: Path, more: dict[str, object], code: str) -> None:
    """Each way has the code of its reason."""
    ann = ssh_signer("ann")
    (tmp_path / "a.yaml").write_text("a: 1\n")
    sign(tmp_path, ann, 7, **more)
    assert [each.code for each in poll_folder_in_child(request(tmp_path, ann)).problems] == [code]


def test_c4_a_key_that_is_not_trusted_signs_no_manifest(tmp_path: Path) -> None:
    """The reason is named."""
    ann, eve = ssh_signer("ann"), ssh_signer("eve")
    (tmp_path / "a.yaml").write_text("a: 1\n")
    sign(tmp_path, eve, 7)
    (found,) = poll_folder_in_child(request(tmp_path, ann)).problems
    assert (found.code, found.is_page) == ("KS8303", True)


def test_c4_what_is_in_force_needs_no_manifest_any_more(tmp_path: Path) -> None:
    """A statement expires after two weeks at most, and a set in force does not."""
    ann = ssh_signer("ann")
    (tmp_path / "a.yaml").write_text("a: 1\n")
    asked = replace(request(tmp_path, ann), in_force=read_directory(tmp_path).digest)
    assert poll_folder_in_child(asked).problems == ()


def test_p1_a_poll_that_gives_no_answer_is_a_problem(tmp_path: Path) -> None:
    """A named pipe in the place of the folder, a file, and a folder that is not there: never an exception."""
    ann = ssh_signer("ann")
    (tmp_path / "file").write_text("a: 1\n")
    for name in ("file", "none"):
        answer = poll_folder_in_child(request(tmp_path / name, ann))
        assert [each.code for each in answer.problems] == ["KS8220"], name


def test_h7_an_anchor_moves_only_with_the_approvals_of_a_loosening(tmp_path: Path) -> None:
    """By an approver, for this source and this commit; a signer's word, another commit or no trust counts not."""
    ann, eve = ssh_signer("ann"), ssh_signer("eve")
    (tmp_path / "trust.yaml").write_bytes(request(tmp_path, ann).trust or b"")
    settings = SourceSettings(name="desk", kind="git", file=tmp_path, trust=tmp_path / "trust.yaml")
    poller, state, commit = SourcePoller(settings, tmp_path), SourceState(source="desk"), "3" * 40

    def stated(by: Signer, **more: object) -> bytes:
        plain = Statement(purpose="anchor", source="desk", key="", given=NOW, expires=NOW + DAY, subject=commit)
        return by.approval(replace(plain, **more))

    assert poller.is_anchor_approved(state, commit, [stated(ann)], NOW)
    for wrong in (
        stated(eve),
        stated(ann, subject="4" * 40),
        stated(ann, source="other"),
        stated(ann, purpose="reset"),
    ):
        assert not poller.is_anchor_approved(state, commit, [wrong], NOW)
    assert not poller.is_anchor_approved(state, commit, [], NOW)
    bare = SourcePoller(replace(settings, trust=None), tmp_path)
    assert not bare.is_anchor_approved(state, commit, [stated(ann)], NOW)
