"""Signatures of a git source: S1, S2, S3, T5, T6 and T7, with repositories made by git and keys made by real tools."""

from __future__ import annotations

from msgspec.structs import replace

from tests.source.signed_repositories import DAY, LOOSE, NOW, TIGHT, Desk, texts, trusted


def test_s1_a_signed_commit_is_proposed_with_the_files_of_its_tree(desk: Desk) -> None:
    """S1 S4: the files, the commit, its signer by the key, and what it claims."""
    commit = desk.host.commit(LOOSE, "alice", "Raise the limit\n\nCo-authored-by: Eve <eve@example.com>")
    candidate = desk.poll().answer.candidate
    assert candidate is not None
    assert (candidate.commit, candidate.source, candidate.path) == (commit, "desk", "policies")
    assert texts(candidate.files) == {"desk.yaml": LOOSE["policies/desk.yaml"]}
    (step,) = candidate.steps
    (verified,) = step.commits
    assert (verified.id, verified.signer, verified.subject) == (commit, "alice@example.com", "Raise the limit")
    assert verified.claimed == ("Al <al@example.com>", "Eve <eve@example.com>")
    assert step.folder_digest == candidate.folder_digest
    assert candidate.is_protected


def test_s1_an_unsigned_commit_below_a_signed_head_is_refused(desk: Desk) -> None:
    """S1: the head alone vouches for nothing; the next honest commit is taken without a hand."""
    unsigned = desk.host.commit(LOOSE, None)
    desk.host.commit({"policies/other.yaml": "a: 1\n"}, "alice")
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.commit, problem.is_page) == ("KS8101", unsigned, True)
    desk.host.reset(desk.anchor)
    honest = desk.host.commit(LOOSE, "alice")
    assert desk.proposed() == honest


def test_s1_an_unsigned_commit_inside_a_merge_is_refused(desk: Desk) -> None:
    """S1: all parents of merges, however the merge itself is signed."""
    desk.host.git("checkout", "--quiet", "-b", "side")
    hidden = desk.host.commit({"policies/hidden.yaml": "a: 1\n"}, None)
    desk.host.commit({"policies/hidden.yaml": None}, "alice")
    desk.host.git("checkout", "--quiet", "main")
    desk.host.commit(LOOSE, "alice")
    desk.host.merge("side", "alice")
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.commit) == ("KS8101", hidden)


def test_s1_a_merge_brings_its_signed_commits_in_one_step(desk: Desk) -> None:
    """S1: two steps on the first-parent line, the second of which brings two commits."""
    desk.host.git("checkout", "--quiet", "-b", "side")
    side = desk.host.commit({"policies/side.yaml": "a: 1\n"}, "bob")
    desk.host.git("checkout", "--quiet", "main")
    first = desk.host.commit(LOOSE, "alice")
    merge = desk.host.merge("side", "alice")
    candidate = desk.poll().answer.candidate
    assert candidate is not None
    assert [texts(step.files or ()) for step in candidate.steps] == [
        {"desk.yaml": LOOSE["policies/desk.yaml"]},
        {"desk.yaml": LOOSE["policies/desk.yaml"], "side.yaml": "a: 1\n"},
    ]
    assert [(step.commit, [each.id for each in step.commits]) for step in candidate.steps] == [
        (first, [first]), (merge, [side, merge]),
    ]  # fmt: skip


def test_s1_a_side_branch_from_before_the_last_good_commit_is_verified_up_to_its_fork(desk: Desk) -> None:
    """S1: the unsigned history before the anchor is not demanded; what came later is."""
    desk.host.git("branch", "side")
    desk.host.commit(LOOSE, "alice")
    desk.apply()
    merged = desk.merge_side()
    assert desk.proposed_commits() == merged


def test_s2_an_openpgp_signature_counts_by_its_full_fingerprint(desk: Desk) -> None:
    """S2: gpg verifies, and the principal is that of the key in the trust set."""
    desk.trust = replace(desk.trust, keys=(*desk.trust.keys, trusted(desk.keys["gpg-gina"])))
    commit = desk.host.commit(LOOSE, "gpg-gina")
    candidate = desk.poll().answer.candidate
    assert candidate is not None
    assert candidate.steps[0].commits[0].signer == "gpg-gina@example.com"
    assert candidate.commit == commit


def test_s2_an_openpgp_key_that_is_not_in_the_trust_set_is_unknown(desk: Desk) -> None:
    """S2: with no OpenPGP key in the set, and with another one."""
    desk.host.commit(LOOSE, "gpg-mallory")
    assert desk.codes() == ["KS8102"]
    desk.trust = replace(desk.trust, keys=(*desk.trust.keys, trusted(desk.keys["gpg-gina"])))
    assert desk.codes() == ["KS8102"]


def test_s2_an_unknown_ssh_key_is_refused_and_named(desk: Desk) -> None:
    """S2 T7: whatever address the commit claims."""
    desk.host.commit(LOOSE, "mallory", GIT_COMMITTER_EMAIL="alice@example.com", GIT_AUTHOR_EMAIL="alice@example.com")
    (problem,) = desk.poll().answer.problems
    assert problem.code == "KS8102"
    assert desk.keys["mallory"].fingerprint in problem.text
    assert problem.principal is None


def test_s2_a_signature_in_another_namespace_is_refused(desk: Desk) -> None:
    """S2: a signature over the same bytes that the key made as `file` is none of a commit."""
    payload = desk.host.raw(desk.host.commit(LOOSE, None))
    desk.host.put(desk.host.write_object(desk.host.signed_bytes(payload, "alice", namespace="file")))
    assert desk.codes() == ["KS8105"]


def test_s2_a_signature_that_was_copied_from_another_commit_is_refused(desk: Desk) -> None:
    """S2: it is of other bytes."""
    honest = desk.host.raw(desk.host.commit(LOOSE, "alice"))
    copied = honest.replace(b"\n\na change", b"\n\nanother change")
    desk.host.put(desk.host.write_object(copied))
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.principal) == ("KS8104", "alice@example.com")


def test_s2_two_signature_headers_are_refused(desk: Desk) -> None:
    """S2: which of them would count differs between readers (CVE-2026-114467)."""
    payload = desk.host.raw(desk.host.commit(LOOSE, None))
    once = desk.host.signed_bytes(payload, "alice")
    desk.host.put(desk.host.write_object(desk.host.signed_bytes(once, "mallory")))
    assert desk.codes() == ["KS8111"]


def test_s2_a_signature_of_another_kind_is_refused_by_name(desk: Desk) -> None:
    """S2: X.509, as git makes it with gpgsm."""
    payload = desk.host.raw(desk.host.commit(LOOSE, None))
    head, _, message = payload.partition(b"\n\n")
    armour = b"-----BEGIN SIGNED MESSAGE-----\n MIIB\n -----END SIGNED MESSAGE-----"
    desk.host.put(desk.host.write_object(head + b"\ngpgsig " + armour + b"\n\n" + message))
    (problem,) = desk.poll().answer.problems
    assert problem.code == "KS8103"
    assert "X.509" in problem.text


def test_s2_a_damaged_armour_is_a_bad_signature(desk: Desk) -> None:
    """S2: not a crash."""
    payload = desk.host.raw(desk.host.commit(LOOSE, None))
    head, _, message = payload.partition(b"\n\n")
    armour = b"-----BEGIN SSH SIGNATURE-----\n AAAA\n -----END SSH SIGNATURE-----"
    desk.host.put(desk.host.write_object(head + b"\ngpgsig " + armour + b"\n\n" + message))
    assert desk.codes() == ["KS8104"]


def test_a_key_that_may_only_approve_signs_no_commit(desk: Desk) -> None:
    """The roles of the trust set."""
    desk.host.commit(LOOSE, "carol")
    assert desk.codes() == ["KS8106"]


def test_t5_a_key_that_ended_signs_nothing_new_whatever_date_it_writes(desk: Desk) -> None:
    """T5: git itself accepts this commit, by the date in it."""
    ended = trusted(desk.keys["bob"], valid_until=NOW - 30 * DAY)
    desk.trust = replace(desk.trust, keys=(ended, *(key for key in desk.trust.keys if "bob" not in key.principal)))
    before = str(NOW // 1_000_000 - 60 * 86_400)
    desk.host.commit(LOOSE, "bob", GIT_COMMITTER_DATE=before, GIT_AUTHOR_DATE=before)
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.principal) == ("KS8107", "bob@example.com")


def test_t5_a_commit_that_was_seen_before_its_key_ended_keeps_counting(desk: Desk) -> None:
    """T5: what counts is the runner's clock when the commit was first seen; a fresh store refuses it."""
    ends = trusted(desk.keys["bob"], valid_until=NOW + DAY)
    desk.trust = replace(desk.trust, keys=(ends, *(key for key in desk.trust.keys if "bob" not in key.principal)))
    first = desk.host.commit(LOOSE, "bob")
    assert desk.proposed() == first
    desk.now = NOW + 2 * DAY
    second = desk.host.commit(TIGHT, "alice")
    assert desk.proposed() == second
    desk.known = replace(desk.known, verified=())
    assert desk.codes() == ["KS8107"]
    desk.source = replace(desk.source, anchor=first)
    assert desk.proposed() == second


def test_t5_a_key_that_is_not_valid_yet_is_refused(desk: Desk) -> None:
    """T5: by the runner's clock; a day later the same commit is taken."""
    later = trusted(desk.keys["bob"], valid_from=NOW + DAY)
    desk.trust = replace(desk.trust, keys=(later, *(key for key in desk.trust.keys if "bob" not in key.principal)))
    commit = desk.host.commit(LOOSE, "bob")
    assert desk.codes() == ["KS8108"]
    desk.now = NOW + DAY
    assert desk.proposed() == commit


def test_t5_a_commit_that_is_dated_more_than_an_hour_ahead_is_refused(desk: Desk) -> None:
    """T5: one hour is not too much; either date counts."""
    ahead = NOW // 1_000_000 + 3_590
    desk.host.commit(LOOSE, "alice", GIT_COMMITTER_DATE=f"{ahead} +0000")
    assert desk.proposed() is not None
    desk.host.commit(TIGHT, "alice", GIT_AUTHOR_DATE=f"{ahead + 3_600} +0000")
    assert desk.codes() == ["KS8110"]
    desk.now += 3_600_000_000
    assert desk.proposed() == desk.host.head


def test_t5_a_clock_that_is_a_year_off_refuses_and_leaves_nothing_behind(desk: Desk) -> None:
    """T5: with the clock a year back a commit is from the future, a year ahead its key has ended; then all is well."""
    ends = trusted(desk.keys["alice"], valid_from=NOW - 30 * DAY, valid_until=NOW + 30 * DAY)
    desk.trust = replace(desk.trust, keys=(ends, *desk.trust.keys[1:]))
    commit = desk.host.commit(LOOSE, "alice")
    desk.now = NOW - 365 * DAY
    assert desk.codes() == ["KS8110"]
    desk.now = NOW + 365 * DAY
    assert desk.codes() == ["KS8107"]
    desk.now = NOW
    assert desk.proposed() == commit


def test_t5_what_was_first_seen_by_a_clock_that_was_ahead_counts_from_the_right_time(desk: Desk) -> None:
    """T5: a commit that was seen a year too late is not refused for a key that ended in between."""
    desk.now = NOW + 365 * DAY
    commit = desk.host.commit(LOOSE, "alice")
    assert desk.proposed() == commit
    desk.now = NOW
    ends = trusted(desk.keys["alice"], valid_until=NOW + 30 * DAY)
    desk.trust = replace(desk.trust, keys=(ends, *desk.trust.keys[1:]))
    assert desk.proposed() == commit


def test_t6_a_revoked_key_stops_what_is_not_in_force_yet(desk: Desk) -> None:
    """T6: also a commit that was verified before; the next honest history is taken."""
    desk.host.commit(LOOSE, "bob")
    assert desk.proposed() is not None
    revoked = trusted(desk.keys["bob"], is_revoked=True)
    desk.trust = replace(desk.trust, keys=(desk.trust.keys[0], revoked, *desk.trust.keys[2:]))
    assert desk.codes() == ["KS8109"]
    desk.host.reset(desk.anchor)
    honest = desk.host.commit({"policies/b.yaml": "a: 1\n"}, "alice")
    assert desk.proposed() == honest


def test_t6_a_revoked_key_leaves_the_set_in_force_and_pages(desk: Desk) -> None:
    """T6: the page ends with the next honest set."""
    commit = desk.host.commit(LOOSE, "bob")
    desk.apply()
    assert desk.proposed() is None
    revoked = trusted(desk.keys["bob"], is_revoked=True)
    desk.trust = replace(desk.trust, keys=(desk.trust.keys[0], revoked, *desk.trust.keys[2:]))
    answer = desk.poll().answer
    assert [(each.code, each.commit, each.principal) for each in answer.problems] == [
        ("KS8125", commit, "bob@example.com")
    ]
    assert answer.candidate is None
    assert answer.problems[0].is_page
    honest = desk.host.commit(TIGHT, "alice")
    assert desk.apply() == honest
    assert desk.codes() == []


def test_an_openpgp_key_that_its_owner_revoked_or_let_expire_is_refused(desk: Desk) -> None:
    """S2: `gpg --verify` exits with 0 for both; its status lines decide."""
    key = desk.keys.expiring("gpg-short", "1d")
    desk.trust = replace(desk.trust, keys=(*desk.trust.keys, trusted(key)))
    commit = desk.host.commit(LOOSE, "gpg-short")
    assert desk.proposed() == commit
    desk.known = replace(desk.known, verified=())
    desk.now = NOW + 3 * DAY
    assert desk.codes() == ["KS8107"]
    revocation = desk.keys.gpg_home / "openpgp-revocs.d" / f"{key.fingerprint}.rev"
    desk.keys.gpg("--import", text=revocation.read_text().replace(":-----BEGIN", "-----BEGIN"))
    public = desk.keys.exported(key.fingerprint)
    desk.trust = replace(desk.trust, keys=(*desk.trust.keys[:-1], replace(trusted(key), public=public)))
    desk.now = NOW
    assert desk.codes() == ["KS8109"]


def test_s3_a_tag_source_verifies_the_tag_object_and_the_commits(desk: Desk) -> None:
    """S3: a signed tag on a signed commit; each alone does not suffice."""
    desk.source = replace(desk.source, ref="refs/tags/v1")
    commit = desk.host.commit(LOOSE, "alice")
    desk.host.git("tag", "v1")
    assert desk.codes() == ["KS8113"]
    desk.host.git(*desk.host.signing(None), "tag", "--force", "--annotate", "--message", "one", "v1")
    assert desk.codes() == ["KS8101"]
    desk.host.git(*desk.host.signing("alice"), "tag", "--force", "--sign", "--message", "one", "v1")
    assert desk.proposed() == commit


def test_s3_a_signed_tag_does_not_vouch_for_an_unsigned_commit(desk: Desk) -> None:
    """S3: tag good, commit bad."""
    desk.source = replace(desk.source, ref="refs/tags/v1")
    commit = desk.host.commit(LOOSE, None)
    desk.host.git(*desk.host.signing("alice"), "tag", "--sign", "--message", "one", "v1")
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.commit) == ("KS8101", commit)


def test_s3_a_signed_tag_of_another_name_or_of_another_tag_is_refused(desk: Desk) -> None:
    """S3: a tag `v1` that the host serves as `v2`, and a tag of a tag."""
    desk.host.commit(LOOSE, "alice")
    desk.host.git(*desk.host.signing("alice"), "tag", "--sign", "--message", "one", "v1")
    desk.host.put(desk.host.git("rev-parse", "refs/tags/v1"), "refs/tags/v2")
    desk.source = replace(desk.source, ref="refs/tags/v2")
    assert desk.codes() == ["KS8114"]
    desk.host.git(*desk.host.signing("alice"), "tag", "--sign", "--message", "two", "v3", "refs/tags/v1")
    desk.source = replace(desk.source, ref="refs/tags/v3")
    assert desk.codes() == ["KS8114"]


def test_problems_of_one_key_are_folded_and_unsigned_commits_are_not(desk: Desk) -> None:
    """Ten problems at most, the last with the number of the others."""
    for number in range(3):
        desk.host.commit({"policies/a.yaml": f"a: {number}\n"}, "carol")
    for number in range(12):
        desk.host.commit({"policies/a.yaml": f"b: {number}\n"}, None)
    problems = desk.poll().answer.problems
    assert [each.code for each in problems] == ["KS8106"] + ["KS8101"] * 9
    assert problems[-1].text.endswith("5 more commits are refused")
