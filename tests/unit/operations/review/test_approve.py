"""`ksctl approve`: what an approver sees and signs, with real keys, a real repository and the store of a runner."""

from __future__ import annotations

import json
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from killswitch.cli import ksctl
from killswitch.model.applied_set import folder_digest
from killswitch.model.instant import HOUR
from killswitch.source.candidate import ArrivalFiring, Review
from killswitch.source.statement_signatures import VerifiedStatement, verify_all, verify_statement
from killswitch.source.statements import DELIVERED, read_approval
from killswitch.source.sync_state import SOURCE_STATE, Head, SourceState, encode_source
from killswitch.store.sqlite import open_store
from tests.unit.operations.review.sets import BASE, Files, edited, files, reviewed
from tests.unit.source.approval_keys import openpgp_signer, ssh_signer, trust_of

pytest.importorskip("z3", reason="the extra `prove` is not installed")

ANN = ssh_signer("ann@desk.example")
SOFTER, HARDER = edited("below: 1000", "below: 500"), edited("below: 1000", "below: 1500")
SOURCE = """apiVersion: killswitch.dev/v1
kind: PolicySource
metadata: {name: desk}
spec:
  git: {url: "https://git.example.com/desk.git", ref: refs/heads/main, path: policies}
  trust: trust.yaml
  loosening: {after: 4h}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a source file, and base, softer and harder policies next to it."""
    (tmp_path / "source.yaml").write_text(SOURCE)
    for name, written in (("base", BASE), ("softer", SOFTER), ("harder", HARDER)):
        write(tmp_path / name, written)
    return tmp_path


def write(folder: Path, written: Files) -> None:
    """Write files into a folder."""
    for path, text in written.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def run(place: Path, *arguments: str, answer: str = "") -> Result:
    """Run `ksctl approve` with the source of the place."""
    return CliRunner().invoke(ksctl, ["approve", "--source", str(place / "source.yaml"), *arguments], input=answer)


def of_files(place: Path, head: str, *more: str, answer: str = "") -> Result:
    """Approve the change from `base` to a folder, with the key of Ann, into a file."""
    return run(
        place, "--base", str(place / "base"), "--head", str(place / head), "--key", str(ANN.private), "--out",
        str(place / "ann.approval"), *more, answer=answer,
    )  # fmt: skip


def test_an_approval_of_a_loosening_counts_in_the_review(place: Path) -> None:
    """A3: what is written is what the runner counts: source, ref, path, both folders and the class."""
    ran = of_files(place, "softer", "--yes")
    assert ran.exit_code == 0, ran.output
    assert "LOOSENING: less strict in some situation" in ran.output
    assert "takes effect 4h after it is approved" in ran.output
    found = read_approval((place / "ann.approval").read_bytes())
    now = found.statement.given
    assert isinstance(verify_statement(found, trust_of([ANN]), now), VerifiedStatement)
    content = (place / "ann.approval").read_bytes()
    assert [
        each.principal for each in reviewed(SOFTER, trust=trust_of([ANN]), statements=(content,), now=now).approvals
    ] == ["ann@desk.example"]
    assert (found.statement.ref, found.statement.path, found.statement.shown) == (
        "refs/heads/main",
        "policies",
        "LOOSENING",
    )


def test_nothing_is_signed_without_a_yes(place: Path) -> None:
    """The approver is asked, and any other answer signs nothing."""
    for answer in ("n\n", "", "\n"):
        ran = of_files(place, "softer", answer=answer)
        assert ran.exit_code != 0
        assert not (place / "ann.approval").exists()
    assert of_files(place, "softer", answer="y\n").exit_code == 0
    assert (place / "ann.approval").exists()


def test_what_needs_no_approval_is_not_signed(place: Path) -> None:
    """A tightening, and no change, say so and end well."""
    for head in ("harder", "base"):
        ran = of_files(place, head, "--yes")
        assert (ran.exit_code, (place / "ann.approval").exists()) == (0, False)
        assert "needs no approval" in ran.output


def test_what_could_not_be_analysed_is_shown_before_it_is_signed(place: Path) -> None:
    """A1: a base that does not compile makes any change UNDECIDED, which the statement and the page say."""
    write(place / "base", edited("below:", "bellow:"))
    ran = of_files(place, "softer", "--yes")
    assert ran.exit_code == 0, ran.output
    assert "UNDECIDED: could not be analysed" in ran.output
    assert read_approval((place / "ann.approval").read_bytes()).statement.shown == "UNDECIDED"


def test_a_head_with_mistakes_is_not_signed(place: Path) -> None:
    """The place and the code of the mistake, and no file."""
    write(place / "softer", edited("below:", "bellow:"))
    ran = of_files(place, "softer", "--yes")
    assert ran.exit_code == 1 and "floor.yaml:9: KS2" in ran.output
    assert not (place / "ann.approval").exists()


def test_revisions_are_read_from_the_repository(place: Path) -> None:
    """The files of the source's path at a git revision, without hidden ones, as the runner reads them."""
    repository = place / "clone"
    git = ["git", "-C", str(repository), "-c", "user.name=Dan", "-c", "user.email=dan@desk.example"]
    write(repository / "policies", {**BASE, ".hidden": "x"})
    subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True)
    for name, written in (("one", BASE), ("two", SOFTER)):
        write(repository / "policies", written)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", name], check=True)
    out = place / "ann.approval"
    arguments = ["--repository", str(repository), "--key", str(ANN.private), "--out", str(out), "--yes"]
    ran = run(place, "--base", "main~1", "--head", "main", *arguments)
    assert ran.exit_code == 0, ran.output
    found = read_approval(out.read_bytes()).statement
    assert (found.base, found.result) == (folder_digest(files(BASE)), folder_digest(files(SOFTER)))
    assert (
        "is no revision" in run(place, "--base=-x", "--head", "main", *arguments[:4], "--out", str(place / "b")).output
    )


def test_openpgp_signs_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the fingerprint of a key in the approver's own keyring."""
    ann = openpgp_signer("ann@desk.example")
    monkeypatch.setenv("GNUPGHOME", str(ann.private))
    out = place / "ann.approval"
    ran = run(
        place, "--base", str(place / "base"), "--head", str(place / "softer"), "--openpgp", ann.fingerprint, "--out",
        str(out), "--yes",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    found = read_approval(out.read_bytes())
    assert isinstance(verify_statement(found, trust_of([ann]), found.statement.given), VerifiedStatement)


def store_with(place: Path, head: Head | None) -> Path:
    """The store of a runner whose source waits with this head."""
    path = place / "ks.sqlite"
    store = open_store(str(path), read_only=False)
    state = SourceState(source="desk", in_force="sha256:" + "a" * 64, head=head)
    store.put_live(SOURCE_STATE, encode_source(state))
    store.close()
    return path


LOOSENING = Review(policy_digest="sha256:x", verdict="LOOSENING", why=("LOOSENING: floor: softer",), approvals_needed=2)
WAITING = Head(folder_digest="sha256:" + "b" * 64, base="sha256:" + "a" * 64, commit="c" * 40, review=LOOSENING)


def test_an_approval_is_delivered_to_the_runner_that_waits(place: Path) -> None:
    """With --store the class is the runner's own, and the approval needs no repository."""
    firing = ArrivalFiring("floor", "account/main", "stop", "would close: sell 1 BTC on main")
    store_at = store_with(place, replace(WAITING, review=replace(LOOSENING, arrival=(firing,))))
    ran = run(place, "--store", str(store_at), "--key", str(ANN.private), "--yes", "--output", "json")
    assert ran.exit_code == 0, ran.output
    assert "would close: sell 1 BTC on main" in ran.stderr
    store = open_store(str(store_at), read_only=True)
    delivered = tuple(store.live_under(DELIVERED).values())
    store.close()
    found, problems = verify_all(delivered, trust_of([ANN]), read_approval(delivered[0]).statement.given + HOUR)
    assert problems == ()
    assert {(each.statement.purpose, each.statement.subject) for each in found} == {
        ("change", None), ("arrival", "floor/account/main/stop"),
    }  # fmt: skip
    assert {each.statement.base for each in found} == {WAITING.base}
    assert {each["purpose"] for each in json.loads(ran.stdout)["approvals"]} == {"change", "arrival"}


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (None, "proposes nothing"), (replace(WAITING, review=None), "has not compared it yet"),
        (replace(WAITING, folder_digest=WAITING.base), "proposes nothing"),
    ],
    ids=["no head", "no review", "in force"],
)  # fmt: skip
def test_nothing_is_approved_that_the_runner_has_not_reviewed(place: Path, head: Head | None, text: str) -> None:
    """What is not known to the runner has no class that an approver could be shown."""
    store_at = store_with(place, head)
    ran = run(place, "--store", str(store_at), "--key", str(ANN.private), "--yes")
    assert ran.exit_code == 1 and text in ran.output


def test_a_store_of_another_source_is_refused(place: Path) -> None:
    """The name in the source file is the one that the statement binds."""
    store_at = store_with(place, WAITING)
    (place / "source.yaml").write_text(SOURCE.replace("name: desk", "name: other"))
    ran = run(place, "--store", str(store_at), "--key", str(ANN.private), "--yes")
    assert ran.exit_code == 1 and "no source named other" in ran.output


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["--key", "KEY"], ["--base", "a", "--key", "KEY"], ["--base", "a", "--head", "b", "--key", "KEY"],
        ["--base", "a", "--head", "b", "--out", "x"],
    ],
    ids=["nothing", "no change", "no head", "no file", "no key"],
)  # fmt: skip
def test_wrong_usage_is_named(place: Path, arguments: list[str]) -> None:
    """Each combination that cannot work is refused before anything is read."""
    ran = run(place, *(str(ANN.private) if each == "KEY" else each for each in arguments))
    assert ran.exit_code in (2, 64) and "Error: name " in ran.output


def test_a_key_that_is_none_is_named(place: Path) -> None:
    """No traceback for a file that is no key."""
    (place / "nokey").write_text("words")
    ran = run(
        place, "--base", str(place / "base"), "--head", str(place / "softer"), "--key", str(place / "nokey"), "--out",
        str(place / "x"), "--yes",
    )  # fmt: skip
    assert ran.exit_code == 1 and "ssh-keygen failed" in ran.output


def test_a_changed_trust_file_is_approved_by_its_digests(place: Path) -> None:
    """T3: the statement is of the two texts of the trust file, and counts for exactly them."""
    texts = b"version: 1\n", b"version: 2\n"
    for name, text in zip(("old", "new"), texts, strict=True):
        (place / f"{name}.yaml").write_bytes(text)
    arguments = ["--purpose", "trust", "--base", str(place / "old.yaml"), "--head", str(place / "new.yaml")]
    ran = run(place, *arguments, "--key", str(ANN.private), "--out", str(place / "t.approval"), "--yes")
    assert ran.exit_code == 0, ran.output
    assert "purpose: trust" in ran.output
    found = read_approval((place / "t.approval").read_bytes()).statement
    assert (found.base, found.result) == tuple(f"sha256:{sha256(each).hexdigest()}" for each in texts)


def test_a_merge_and_a_manifest_are_signed_without_a_review(place: Path) -> None:
    """A9, C4: a signer vouches for a result; the manifest has a version."""
    out = place / "m.approval"
    common = ["--key", str(ANN.private), "--yes", "--out"]
    sides = ["--base", str(place / "base"), "--head", str(place / "softer")]
    assert run(place, "--purpose", "merge", *sides, *common, str(out)).exit_code == 0
    merge = read_approval(out.read_bytes()).statement
    assert (merge.purpose, merge.base, merge.shown) == ("merge", folder_digest(files(BASE)), None)
    ran = run(place, "--purpose", "manifest", *sides[2:], "--manifest-version", "7", *common, str(place / "f.approval"))
    assert ran.exit_code == 0, ran.output
    manifest = read_approval((place / "f.approval").read_bytes()).statement
    assert (manifest.purpose, manifest.subject, manifest.base) == ("manifest", "7", None)
    assert manifest.result == folder_digest(files(SOFTER))
