"""Trust along the history of a git source: T3, T4 and A9, with trust files and statements that real keys signed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from killswitch.model.applied_set import PolicyFile, folder_digest
from killswitch.source.git_request import VerifiedState
from killswitch.source.git_verdicts import trust_digest
from killswitch.source.statement_checks import signer_of
from killswitch.source.statements import NAMESPACE, Purpose, Statement, encode_statement, join_signature
from killswitch.source.trust import Trust
from killswitch.source.trust_file import TrustFileError, check_successor, needed_approvals, parse_trust
from tests.source.signed_repositories import DAY, LOOSE, NOW, TIGHT, Desk, KeyRing, trusted

FILE, FOLDER = ".killswitch/trust.yaml", ".killswitch/approvals"


def trust_text(keys: KeyRing, version: int, entries: dict[str, str], approvals: int = 2) -> str:
    """A trust file. `entries`: name of a key → further lines of it, such as `may: [sign]`, separated by `;`."""
    lines = ["apiVersion: killswitch.dev/v1", "kind: PolicyTrust", "metadata: {name: desk}", "spec:"]
    lines += [f"  version: {version}", f"  approvals: {approvals}", "  keys:"]
    for name, more in entries.items():
        key = keys[name]
        lines.append(f"  - principal: {key.principal}")
        if key.kind == "ssh":
            lines.append(f"    ssh: {key.public.strip()}")
        else:
            lines += ["    openpgp: |", *(f"      {line}" for line in key.public.strip().splitlines())]
        lines += [f"    {each.strip()}" for each in more.split(";")]
    return "\n".join(lines) + "\n"


SIGN, APPROVE = "may: [sign]", "may: [approve]"
FIRST = {"alice": SIGN, "bob": SIGN, "carol": APPROVE, "dan": APPROVE}


def statement(
    desk: Desk, by: str, purpose: Purpose, base: str | None, result: str | None, *, expires: int = NOW + DAY
) -> bytes:
    """The file of an approval of one key."""
    key = desk.keys[by]
    signed = encode_statement(
        Statement(
            purpose=purpose, source="desk", key=key.fingerprint, given=NOW - DAY, expires=expires,
            ref=desk.source.ref, path=desk.source.path, base=base, result=result,
        )
    )  # fmt: skip
    return join_signature(signed, desk.host.signature(signed, by, NAMESPACE))


@pytest.fixture
def later(desk: Desk) -> Desk:
    """A source whose trust file is in the repository, as it is in the configuration."""
    desk.host.commit({FILE: trust_text(desk.keys, 1, FIRST)}, None)
    anchor = desk.host.head
    desk.source = replace(desk.source, anchor=anchor, trust_path=FILE, approvals_path=FOLDER)
    desk.trust = parse_trust(trust_text(desk.keys, 1, FIRST).encode(), FILE)
    desk.known = VerifiedState()
    return desk


def change(desk: Desk, text: str, *approvers: str) -> dict[str, str | bytes | None]:
    """A changed trust file, and the statements of approvers over the change."""
    before = (desk.host.folder / FILE).read_bytes()
    base, result = trust_digest(before), trust_digest(text.encode())
    given = {f"{FOLDER}/{name}.approval": statement(desk, name, "trust", base, result) for name in approvers}
    return {FILE: text, **given}


def test_t3_a_change_of_trust_takes_effect_for_the_commits_after_it(later: Desk) -> None:
    """T3: with the approvals of the trust before it; a new signer's commit before it is refused."""
    with_erin = trust_text(later.keys, 2, {**FIRST, "erin": SIGN})
    later.host.commit(change(later, with_erin, "carol", "dan"), "alice")
    after = later.host.commit(LOOSE, "erin")
    candidate = later.poll(signer_of).answer.candidate
    assert candidate is not None
    assert (candidate.commit, candidate.trust) == (after, with_erin.encode())
    assert len(candidate.statements) == 2
    later.host.reset(later.source.anchor or "")
    too_early = later.host.commit(LOOSE, "erin")
    later.host.commit(change(later, with_erin, "carol", "dan"), "alice")
    (problem,) = later.poll(signer_of).answer.problems
    assert (problem.code, problem.commit) == ("KS8102", too_early)


def test_t3_a_change_of_trust_without_its_approvals_stays_without_effect(later: Desk) -> None:
    """T3: none, one of two, one person twice, the signer of the change, statements over another text: all refused; it
    is taken back by an honest commit without a hand."""
    with_erin = trust_text(later.keys, 2, {**FIRST, "erin": SIGN})
    changed = later.host.commit(change(later, with_erin), "alice")
    (problem,) = later.poll(signer_of).answer.problems
    assert (problem.code, problem.commit, problem.file) == ("KS8121", changed, FILE)
    later.host.reset(later.source.anchor or "")
    later.host.commit(change(later, with_erin, "carol"), "alice")
    assert later.codes(signer_of) == ["KS8121"]
    other = change(later, trust_text(later.keys, 2, {**FIRST, "mallory": SIGN}), "carol", "dan")
    later.host.commit({**other, FILE: with_erin}, "alice")
    assert later.codes(signer_of) == ["KS8121"]
    honest = later.host.commit({FILE: trust_text(later.keys, 1, FIRST)}, "bob")
    assert later.proposed(signer_of) == honest


def test_t3_who_signs_or_is_claimed_as_author_of_a_change_of_trust_does_not_approve_it(later: Desk) -> None:
    """T3: also where a key may do both."""
    both = {**FIRST, "carol": "may: [sign, approve]"}
    later.trust = parse_trust(trust_text(later.keys, 1, both).encode(), FILE)
    with_erin = trust_text(later.keys, 2, {**both, "erin": SIGN})
    later.host.commit(change(later, with_erin, "carol", "dan"), "carol")
    assert later.codes(signer_of) == ["KS8121"]
    later.host.reset(later.source.anchor or "")
    files = change(later, with_erin, "carol", "dan")
    later.host.commit(files, "alice", "more trust\n\nCo-authored-by: Dan <dan@example.com>")
    assert later.codes(signer_of) == ["KS8121"]
    later.host.reset(later.source.anchor or "")
    commit = later.host.commit(files, "alice")
    assert later.proposed(signer_of) == commit


def test_t3_one_approver_ends_the_key_of_a_signer_at_once(later: Desk) -> None:
    """T3: removed, revoked or ended sooner with one approval; the commits after it are refused."""
    later.host.commit(
        change(later, trust_text(later.keys, 2, {k: v for k, v in FIRST.items() if k != "bob"}), "carol"), "alice"
    )
    taken = later.host.head
    assert later.proposed(signer_of) == taken
    later.host.commit(LOOSE, "bob")
    assert later.codes(signer_of) == ["KS8102"]
    later.host.reset(taken)
    honest = later.host.commit(LOOSE, "alice")
    assert later.proposed(signer_of) == honest


def test_t3_the_version_of_trust_never_falls(later: Desk) -> None:
    """T3: an older file that was approved once does not come back, in the repository or in the configuration."""
    second = trust_text(later.keys, 2, {**FIRST, "erin": SIGN})
    later.host.commit(change(later, second, "carol", "dan"), "alice")
    later.apply(signer_of)
    assert later.known.trust_version >= 1
    later.host.commit(change(later, trust_text(later.keys, 1, FIRST), "carol", "dan"), "alice")
    assert later.codes(signer_of) == ["KS8122"]
    later.known = replace(later.known, trust=None, trust_version=2)
    assert later.codes(signer_of) == ["KS8122"]


def test_t3_a_change_never_leaves_fewer_approvers_than_approvals(later: Desk) -> None:
    """T3: refused whoever approves it, by the file itself and by what is revoked in it."""
    only_carol = trust_text(later.keys, 2, {"alice": SIGN, "carol": APPROVE}, approvals=2)
    later.host.commit(change(later, only_carol, "carol", "dan"), "alice")
    assert later.codes(signer_of) == ["KS8120"]
    later.host.reset(later.source.anchor or "")
    revoked = trust_text(later.keys, 2, {**FIRST, "dan": f"{APPROVE}; revoked: true"})
    later.host.commit(change(later, revoked, "carol", "dan"), "alice")
    assert later.codes(signer_of) == ["KS8123"]


def test_t3_a_trust_file_that_is_removed_leaves_the_trust_before_it(later: Desk) -> None:
    """T3: and is refused until it is restored."""
    later.host.commit({FILE: None}, "alice")
    assert later.codes(signer_of) == ["KS8124"]
    later.host.commit({FILE: trust_text(later.keys, 1, FIRST)}, "alice")
    assert later.proposed(signer_of) == later.host.head


def test_t3_trust_inside_a_side_branch_has_no_effect_on_the_branch(later: Desk) -> None:
    """T3: what a merge brings is judged by the trust before the merge."""
    later.host.git("checkout", "--quiet", "-b", "side")
    with_mallory = trust_text(later.keys, 2, {**FIRST, "mallory": SIGN})
    later.host.commit(change(later, with_mallory, "carol", "dan"), "alice")
    evil = later.host.commit({"policies/side.yaml": "a: 1\n"}, "mallory")
    later.host.git("checkout", "--quiet", "main")
    later.host.merge("side", "alice")
    (problem,) = later.poll(signer_of).answer.problems
    assert (problem.code, problem.commit) == ("KS8102", evil)


def test_how_many_approvals_a_change_of_trust_needs(keys: KeyRing) -> None:
    """One, where keys only sign less; all N, where anybody gains, or where an approver would go."""
    alice, carol, dan = (
        trusted(keys["alice"]),
        trusted(keys["carol"], may="approve"),
        trusted(keys["dan"], may="approve"),
    )
    before = Trust(version=1, approvals=2, keys=(alice, carol, dan))
    cases = {
        1: [
            (carol, dan),
            (replace(alice, valid_until=NOW), carol, dan),
            (replace(alice, is_revoked=True), carol, dan),
        ],
        2: [
            (alice, carol),
            (alice, carol, replace(dan, is_revoked=True)),
            (alice, carol, replace(dan, valid_until=NOW)),
            (replace(alice, approves=True), carol, dan),
            (replace(alice, principal="eve@example.com"), carol, dan),
            (replace(alice, valid_from=NOW), carol, dan),
            (alice, carol, dan, trusted(keys["erin"])),
        ],
    }
    found = {
        needed: {needed_approvals(before, replace(before, version=2, keys=after)) for after in sets}
        for needed, sets in cases.items()
    }
    assert found == {1: {1}, 2: {2}}
    assert needed_approvals(before, replace(before, version=2, approvals=1)) == 2
    ended = replace(before, keys=(replace(alice, valid_until=NOW), carol, dan))
    assert needed_approvals(ended, replace(before, version=2)) == 2, "a key that ended comes back"
    check_successor(before, replace(before, version=2))


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("version: 1", "version: 0", "KS2006"),
        ("version: 1", "version: one", "KS2006"),
        ("approvals: 2", "approvals: 3", "KS8123"),
        ("may: [sign]", "may: []", "KS2007"),
        ("may: [sign]", "may: [sing]", "KS2004"),
        ("may: [sign]", "may: [sign]\n    trusted: true", "KS2001"),
        ("may: [sign]", "may: [sign]\n    until: soon", "KS2113"),
        ("ssh: ssh-ed25519 ", "ssh: ssh-ed25519-cert-v01@openssh.com ", "KS8120"),
        ("ssh: ssh-ed25519 ", "ssh: cert-authority ssh-ed25519 ", "KS8120"),
        ("ssh: ssh-ed25519 ", "ssh: ssh-rsa ", "KS8120"),
        ("principal: alice@example.com", "principal: 'a b'", "KS8120"),
        ("principal: alice@example.com", "principal: '*'", "KS8120"),
        ("  keys:", "  kyes:", "KS2001"),
        ("kind: PolicyTrust", "kind: PolicyTrust\nkind: PolicyTrust", "KS1103"),
        ("metadata:", "metadata: [", "KS1101"),
    ],
)
def test_t4_all_of_a_trust_file_is_read_strictly(keys: KeyRing, old: str, new: str, code: str) -> None:
    """T4: a line that cannot be read refuses the file, with the code and the place of it."""
    text = trust_text(keys, 1, FIRST)
    assert old in text
    with pytest.raises(TrustFileError) as refused:
        parse_trust(text.replace(old, new, 1).encode(), "trust.yaml")
    assert code in [each.code for each in refused.value.diagnostics]
    assert all(each.line >= 1 and each.file == "trust.yaml" for each in refused.value.diagnostics)


def test_t4_a_key_under_two_names_is_refused(keys: KeyRing) -> None:
    """T4: one person would be two approvers."""
    text = trust_text(keys, 1, FIRST)
    twice = text.replace(keys["dan"].public.strip(), keys["carol"].public.strip())
    with pytest.raises(TrustFileError) as refused:
        parse_trust(twice.encode(), "trust.yaml")
    assert "KS8120" in [each.code for each in refused.value.diagnostics]


@pytest.mark.parametrize("content", [b"", b"\xff", b"- a\n", b"a: 1\n---\nb: 1\n", b"x" * ((1 << 20) + 1)])
def test_t4_what_is_no_trust_file_is_refused(content: bytes) -> None:
    """T4: empty, not UTF-8, a list, two documents, too large."""
    with pytest.raises(TrustFileError):
        parse_trust(content, "trust.yaml")


def test_t4_a_trust_file_with_openpgp_keys_and_times_is_read_whole(keys: KeyRing) -> None:
    """The fingerprint that gpg lists, and days as microseconds in UTC."""
    entries = {**FIRST, "gpg-gina": f"{SIGN}; from: 2026-01-01; until: 2027-01-01; revoked: true"}
    trust = parse_trust(trust_text(keys, 7, entries).encode(), "trust.yaml")
    gina = trust.keys[-1]
    assert (trust.version, trust.approvals, len(trust.keys)) == (7, 2, 5)
    assert (gina.fingerprint, gina.is_revoked, gina.signs) == (keys["gpg-gina"].fingerprint, True, True)
    assert (gina.valid_from, gina.valid_until) == (1_767_225_600_000_000, 1_798_761_600_000_000)
    assert trust.keys[0].fingerprint == keys["alice"].fingerprint


def test_a9_a_signers_statement_over_the_result_replaces_the_signature_of_a_merge(later: Desk) -> None:
    """A9: of a merge that the host made with its own key; without it, and with a statement of an approver, refused."""
    base = folder_digest([PolicyFile("desk.yaml", TIGHT["policies/desk.yaml"].encode())])
    files = [PolicyFile("desk.yaml", TIGHT["policies/desk.yaml"].encode()), PolicyFile("side.yaml", b"a: 1\n")]
    later.host.git("checkout", "--quiet", "-b", "side")
    later.host.commit({"policies/side.yaml": "a: 1\n"}, "bob")
    later.host.git("checkout", "--quiet", "main")
    merge = later.host.merge("side", "mallory")
    assert later.codes(signer_of) == ["KS8102"]
    later.statements = (statement(later, "carol", "merge", base, folder_digest(files)),)
    assert later.codes(signer_of) == ["KS8102"]
    later.statements = (statement(later, "alice", "merge", base, folder_digest(files)),)
    candidate = later.poll(signer_of).answer.candidate
    assert candidate is not None
    assert candidate.commit == merge
    assert [each.signer for each in candidate.steps[0].commits] == ["bob@example.com", "alice@example.com"]


def test_a9_a_statement_replaces_the_signature_of_nothing_below_the_merge(later: Desk) -> None:
    """A9: the work inside is signed by its authors, or refused."""
    base = folder_digest([PolicyFile("desk.yaml", TIGHT["policies/desk.yaml"].encode())])
    files = [PolicyFile("desk.yaml", TIGHT["policies/desk.yaml"].encode()), PolicyFile("side.yaml", b"a: 1\n")]
    later.statements = (statement(later, "alice", "merge", base, folder_digest(files)),)
    later.host.git("checkout", "--quiet", "-b", "side")
    below = later.host.commit({"policies/side.yaml": "a: 1\n"}, None)
    later.host.git("checkout", "--quiet", "main")
    later.host.merge("side", None)
    (problem,) = later.poll(signer_of).answer.problems
    assert (problem.code, problem.commit) == ("KS8101", below)


def test_a9_a_statement_over_another_result_or_one_that_expired_replaces_nothing(later: Desk) -> None:
    """A9: the base and the result are those of exactly this step, and the statement is valid now."""
    base = folder_digest([PolicyFile("desk.yaml", TIGHT["policies/desk.yaml"].encode())])
    result = folder_digest([PolicyFile("desk.yaml", LOOSE["policies/desk.yaml"].encode())])
    squashed = later.host.commit(LOOSE, None)
    for wrong in (
        statement(later, "alice", "merge", base, base),
        statement(later, "alice", "merge", result, result),
        statement(later, "alice", "change", base, result),
        statement(later, "alice", "merge", base, result, expires=NOW),
        statement(later, "mallory", "merge", base, result),
        b"Approved-by: Alice\n",
    ):
        later.statements = (wrong,)
        assert later.codes(signer_of) == ["KS8101"]
    later.statements = (statement(later, "alice", "merge", base, result),)
    assert later.proposed(signer_of) == squashed
