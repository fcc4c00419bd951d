"""Signed statements: their text, their files, and what real keys make of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.instant import DAY, HOUR, SECOND
from killswitch.source.statement_signatures import StatementProblem, VerifiedStatement, verify_all, verify_statement
from killswitch.source.statements import (
    FORMAT,
    Statement,
    StatementError,
    encode_statement,
    join_signature,
    parse_statement,
    read_approval,
)
from killswitch.source.trust import Trust, TrustedKey
from tests.unit.source.approval_keys import NOW, Signer, digest, openpgp_signer, ssh_signer, statement, trust_of

WRITTEN = f"""Killswitch approval statement, version 1
purpose: change
source: desk
ref: refs/heads/main
path: policies
base: {digest("a")}
result: {digest("b")}
class: LOOSENING
subject: -
key: SHA256:AbC
given: 2027-01-15T07:00:00Z
expires: 2027-01-22T08:00:00Z
"""


def test_a_statement_is_one_line_for_each_field() -> None:
    """What is signed is exactly the text that a person reads (A3)."""
    assert encode_statement(statement(key="SHA256:AbC")).decode() == WRITTEN
    assert parse_statement(WRITTEN.encode()) == statement(key="SHA256:AbC")


@pytest.mark.parametrize(
    "changed",
    [
        ("purpose: change", "purpose: everything"), ("class: LOOSENING", "class: fine"), ("source: desk", "source: -"),
        ("subject: -", "subject:  -"), ("2027-01-15T07:00:00Z", "2027-01-15T08:00:00+01:00"),
        ("given: 2027", "given: yesterday, 2027"), (digest("a"), "sha256:aaaa"), ("ref: ", "branch: "),
        ("path: policies\n", ""), ("expires:", "note: approved\nexpires:"), (FORMAT, "I approve"),
        ("subject: -", "subject: a\u202eb"), ("subject: -", "subject: a\rb"), ("source: desk", "source: desk "),
    ],
    ids=lambda it: it[1][:24],
)  # fmt: skip
def test_any_other_text_is_no_statement(changed: tuple[str, str]) -> None:
    """A statement has one spelling: what a reader sees and what is counted cannot differ."""
    text = WRITTEN.replace(*changed)
    assert text != WRITTEN
    with pytest.raises(StatementError):
        parse_statement(text.encode())


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@given(TEXTS, st.none() | TEXTS, st.none() | TEXTS, st.integers(0, 4 * 10**15), st.integers(0, 4 * 10**15))
def test_a_statement_is_read_as_it_was_written(
    source: str, ref: str | None, subject: str | None, given_at: int, expires: int
) -> None:
    """Whatever can be written is read back equal; what cannot be written in one line is refused."""
    written = statement(source=source, ref=ref, subject=subject, given=given_at, expires=expires, key="k")
    try:
        signed = encode_statement(written)
    except StatementError:
        return
    assert signed.count(b"\n") == 12
    assert parse_statement(signed) == written


@pytest.mark.parametrize("words", [b"Approved-by: Ann\n", WRITTEN.encode(), b"", b"\xff\xfe", b"x" * 70_000])
def test_a3_words_are_no_approval(words: bytes) -> None:
    """A3: without a signature nothing is an approval, whatever it says."""
    with pytest.raises(StatementError):
        read_approval(words)


@pytest.mark.parametrize("maker", [ssh_signer, openpgp_signer])
def test_t7_a_valid_statement_has_the_principal_of_its_key(maker: Callable[[str], Signer]) -> None:
    """T7: who approves is the principal of the key in the trust set, for SSH and for OpenPGP."""
    ann = maker("ann@desk.example")
    found = verified(ann.approval(statement()), trust_of([ann]))
    assert isinstance(found, VerifiedStatement)
    assert (found.principal, found.key, found.statement.result) == (ann.principal, ann.fingerprint, digest("b"))


def verified(content: bytes, trust: Trust, now: int = NOW) -> VerifiedStatement | StatementProblem:
    """The verification of one file."""
    return verify_statement(read_approval(content), trust, now)


def refused(content: bytes, trust: Trust, now: int = NOW) -> str:
    """The code with which a file is refused."""
    found = verified(content, trust, now)
    assert isinstance(found, StatementProblem), found
    return found.code


@pytest.mark.parametrize("maker", [ssh_signer, openpgp_signer])
def test_a_changed_statement_is_not_what_was_signed(maker: Callable[[str], Signer]) -> None:
    """The signature is of these bytes: another result below the same signature is refused."""
    ann = maker("ann@desk.example")
    content = ann.approval(statement())
    assert refused(content.replace(digest("b").encode(), digest("c").encode()), trust_of([ann])) == "KS8302"


@pytest.mark.parametrize("maker", [ssh_signer, openpgp_signer])
def test_the_signature_of_another_key_is_refused(maker: Callable[[str], Signer]) -> None:
    """A statement that names the key of Ann and is signed by Mallory does not count as Ann's."""
    ann, mallory = maker("ann@desk.example"), maker("mallory@desk.example")
    signed = encode_statement(statement(key=ann.fingerprint))
    assert refused(join_signature(signed, mallory.signature(signed)), trust_of([ann, mallory])) == "KS8302"


def test_a_signature_of_another_namespace_is_no_approval() -> None:
    """A key that signs commits (`git`) or files (`file`) has approved nothing by that."""
    ann = ssh_signer("ann@desk.example")
    signed = encode_statement(statement(key=ann.fingerprint))
    for namespace in ("git", "file"):
        found = verified(join_signature(signed, ann.signature(signed, namespace)), trust_of([ann]))
        assert found == StatementProblem(
            "KS8302", "the approval of ann@desk.example is signed in another namespace than killswitch-approval"
        )


@pytest.mark.parametrize("kinds", [("ssh", "openpgp"), ("openpgp", "ssh")])
def test_a_signature_of_the_other_kind_of_key_is_refused(kinds: tuple[str, str]) -> None:
    """A key of one kind cannot be vouched for by a signature of the other kind."""
    makers: dict[str, Callable[[str], Signer]] = {"ssh": ssh_signer, "openpgp": openpgp_signer}
    named, other = (makers[each]("ann@desk.example") for each in kinds)
    signed = encode_statement(statement(key=named.fingerprint))
    assert refused(join_signature(signed, other.signature(signed)), trust_of([named])) == "KS8302"


def test_damaged_signatures_are_refused() -> None:
    """No damage of the armour passes, and none is a traceback."""
    ann = ssh_signer("ann@desk.example")
    signed = encode_statement(statement(key=ann.fingerprint))
    begin, end = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
    for inside in (b"", b"????\n", b"U1NIU0lH\n", b"AAAA\n", b"U1NIU0lHAAAAAf////8=\n"):
        assert refused(signed + begin + inside + end, trust_of([ann])) == "KS8302"
    assert refused(signed + begin, trust_of([ann])) == "KS8302"


ANN = ssh_signer("ann@desk.example")


@pytest.mark.parametrize(
    ("trusted", "code"),
    [
        ([], "KS8303"), ([ANN.trusted(approves=False)], "KS8305"), ([ANN.trusted(valid_until=NOW)], "KS8304"),
        ([ANN.trusted(valid_from=NOW + 1)], "KS8304"), ([ANN.trusted(valid_from=NOW, valid_until=NOW + 1)], None),
        ([replace(ANN.trusted(), is_revoked=True)], "KS8304"),
        ([replace(ANN.trusted(), public="ssh-ed25519")], "KS8303"),
        ([replace(ANN.trusted(), public="ssh-ed25519 AAAA\nx ssh-ed25519 BBBB")], "KS8303"),
    ],
    ids=["unknown", "no approver", "ended", "not yet valid", "valid now", "revoked", "no key", "two lines"],
)  # fmt: skip
def test_t5_a_key_counts_by_the_clock_of_the_runner(trusted: list[TrustedKey], code: str | None) -> None:
    """T5: unknown, ended, not yet valid and not entitled are different words; the date in a statement decides none."""
    found = verified(ANN.approval(statement()), Trust(version=1, approvals=1, keys=tuple(trusted)))
    assert (found.code if isinstance(found, StatementProblem) else None) == code


@pytest.mark.parametrize(
    ("given_at", "expires", "code"),
    [
        (NOW - HOUR, NOW, "KS8306"), (NOW - HOUR, NOW + SECOND, None), (NOW - DAY, NOW + 13 * DAY, None),
        (NOW - DAY, NOW + 13 * DAY + SECOND, "KS8307"), (NOW + HOUR, NOW + DAY, None),
        (NOW + HOUR + SECOND, NOW + DAY, "KS8307"),
    ],
    ids=["expired", "expires in a second", "14 days", "longer than 14 days", "an hour ahead", "further ahead"],
)  # fmt: skip
def test_a6_an_approval_expires_at_most_14_days_after_it_was_given(
    given_at: int, expires: int, code: str | None
) -> None:
    """A6: by the runner's clock; one that is dated ahead would live longer."""
    found = verified(ANN.approval(statement(given=given_at, expires=expires)), trust_of([ANN]))
    assert (found.code if isinstance(found, StatementProblem) else None) == code


def test_a9_a_merge_is_vouched_for_by_a_key_that_signs() -> None:
    """A9: the statement that replaces the signature of a merge needs the role of a signer, and that alone."""
    signs, approves = ANN.trusted(approves=False), ANN.trusted(signs=False)
    content = ANN.approval(statement("merge", shown=None))
    assert isinstance(verified(content, Trust(version=1, approvals=1, keys=(signs,))), VerifiedStatement)
    assert refused(content, Trust(version=1, approvals=1, keys=(approves,))) == "KS8305"


def test_s2_an_openpgp_approval_by_a_hash_that_can_be_forged_does_not_count() -> None:
    """S2: approvals are verified as strictly as commits; SHA-1 is refused, SHA-512 by the same key is not."""
    ann = openpgp_signer("ann@desk.example")
    signed = encode_statement(statement(key=ann.fingerprint))
    codes = {}
    for algorithm in ("SHA512", "SHA1"):
        command = [
            "gpg",
            "--homedir",
            str(ann.private),
            "--batch",
            "--digest-algo",
            algorithm,
            "--allow-weak-digest-algos",
        ]
        done = subprocess.run([*command, "--armor", "--detach-sign"], input=signed, capture_output=True, check=True)
        found = verified(join_signature(signed, done.stdout), trust_of([ann]))
        codes[algorithm] = found.code if isinstance(found, StatementProblem) else None
    assert codes == {"SHA512": None, "SHA1": "KS8302"}


def test_an_expired_or_revoked_openpgp_key_does_not_count() -> None:
    """What the owner of a key has published about it is heeded, which `gpg --verify` alone does not do."""
    ann = openpgp_signer("gone@desk.example")
    content = ann.approval(statement())
    assert isinstance(verified(content, trust_of([ann])), VerifiedStatement)
    gpg = ["gpg", "--homedir", str(ann.private), "--batch"]
    revocation = ann.private / "openpgp-revocs.d" / f"{ann.fingerprint}.rev"
    text = revocation.read_text().replace(":-----BEGIN", "-----BEGIN")
    subprocess.run([*gpg, "--import"], input=text.encode(), capture_output=True, check=True)
    exported = subprocess.run([*gpg, "--armor", "--export"], capture_output=True, check=True, text=True).stdout
    assert refused(content, trust_of([Signer(ann.principal, ann.kind, ann.private, exported, ann.fingerprint)])) == (
        "KS8304"
    )


def test_one_bad_file_does_not_hide_the_others() -> None:
    """Each file is judged alone, twice the same file is one, and every refusal has its code."""
    good, expired = ANN.approval(statement()), ANN.approval(statement(expires=NOW - SECOND))
    found, problems = verify_all([b"approved!", expired, good, good], trust_of([ANN]), NOW)
    assert [each.statement.result for each in found] == [digest("b")]
    assert [each.code for each in problems] == ["KS8301", "KS8306"]


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ssh-keygen or gpg nothing is verified, and the refusal names the program."""
    monkeypatch.setenv("PATH", "/nowhere")
    found = verified(_SIGNED_BEFORE, trust_of([ANN]))
    assert found == StatementProblem(
        "KS8315", "ssh-keygen cannot be started from /nowhere, so that no statement can be verified"
    )


_SIGNED_BEFORE = ANN.approval(statement())


def test_a_statement_needs_its_fields() -> None:
    """A text that cannot be written in one line is refused when it is written."""
    for wrong in ("", " a", "a\nb", "a\u2028b", "-"):
        with pytest.raises(StatementError):
            encode_statement(Statement(purpose="reset", source="desk", key="k", given=0, expires=1, subject=wrong))
