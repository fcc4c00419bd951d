"""The history of a git source: H1 to H7, and the anchor of T1 and T2, with repositories that are rewritten."""

from __future__ import annotations

import subprocess
from pathlib import Path

from msgspec.structs import replace

from killswitch.source.git_request import GitLimits, VerifiedState, moved_anchor
from tests.source.signed_repositories import LOOSE, TIGHT, Desk, texts


def test_t2_without_an_anchor_and_a_last_good_set_nothing_is_proposed(desk: Desk) -> None:
    """T1 T2: the first commit is never taken over from the source; the problem says what to write."""
    desk.host.commit(LOOSE, "alice")
    desk.source = replace(desk.source, anchor=None)
    (problem,) = desk.poll().answer.problems
    assert problem.code == "KS8126"
    assert "anchor" in problem.fix
    desk.source = replace(desk.source, anchor=desk.anchor)
    assert desk.proposed() == desk.host.head


def test_t1_the_anchor_itself_is_the_first_set_and_needs_no_signature(desk: Desk) -> None:
    """T1: somebody has looked at it; once it is in force there is nothing new."""
    candidate = desk.poll().answer.candidate
    assert candidate is not None
    assert (candidate.commit, candidate.steps) == (desk.anchor, ())
    desk.apply()
    assert desk.proposed() is None
    assert desk.known.newest_commit_at is not None


def test_another_folder_of_the_commit_in_force_is_proposed(desk: Desk) -> None:
    """The configuration names another `path`, and the branch does not move: no commit is new, the files are."""
    desk.host.commit({"strict/desk.yaml": LOOSE["policies/desk.yaml"]}, "alice")
    good = desk.apply()
    assert desk.proposed() is None
    desk.source = replace(desk.source, path="strict")
    candidate = desk.poll().answer.candidate
    assert candidate is not None
    assert (candidate.commit, candidate.steps, texts(candidate.files)) == (
        good, (), {"desk.yaml": LOOSE["policies/desk.yaml"]},
    )  # fmt: skip
    desk.apply()
    assert desk.proposed() is None


def test_h2_a_ref_that_went_back_is_refused_with_both_ids(desk: Desk) -> None:
    """H2: an older commit, though signed and once in force; the next honest commit on top is taken."""
    first = desk.host.commit(LOOSE, "alice")
    second = desk.host.commit(TIGHT, "alice")
    desk.apply()
    desk.host.put(first)
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.is_page) == ("KS8130", True)
    assert first in problem.text
    assert second in problem.text
    desk.host.reset(second)
    third = desk.host.commit(LOOSE, "bob")
    assert desk.proposed() == third


def test_h2_a_ref_that_went_sideways_is_refused(desk: Desk) -> None:
    """H2: another line from the same commit, all of it signed."""
    desk.host.commit(TIGHT | {"policies/a.yaml": "a: 1\n"}, "alice")
    good = desk.apply()
    desk.host.reset(desk.anchor)
    other = desk.host.commit(LOOSE, "alice")
    (problem,) = desk.poll().answer.problems
    assert problem.code == "KS8131"
    assert good in problem.text
    assert other in problem.text


def test_h2_a_last_good_commit_that_was_merged_as_the_second_parent_is_refused(desk: Desk) -> None:
    """H2: the line in force has to be the first-parent line, not only reachable."""
    desk.host.git("checkout", "--quiet", "-b", "side")
    desk.host.commit({"policies/side.yaml": "a: 1\n"}, "alice")
    desk.host.git("checkout", "--quiet", "main")
    desk.host.commit({"policies/main.yaml": "a: 1\n"}, "alice")
    good = desk.apply()
    desk.host.git("checkout", "--quiet", "side")
    merged = desk.host.merge("main", "alice")
    desk.host.put(merged)
    assert desk.codes() == ["KS8131"]
    desk.host.reset(good)
    honest = desk.host.merge("side", "alice")
    assert desk.proposed() != merged
    assert honest == desk.proposed()


def test_h2_an_unrelated_history_is_refused(desk: Desk) -> None:
    """H2: also on a machine that has no copy of the old one."""
    desk.host.commit(LOOSE, "alice")
    desk.apply()
    desk.host.git("checkout", "--quiet", "--orphan", "other")
    unrelated = desk.host.commit(TIGHT, "alice")
    desk.host.put(unrelated)
    assert desk.codes() == ["KS8132"]
    desk.start_afresh()
    assert desk.codes() == ["KS8132"]


def test_h3_a_tag_that_names_another_object_is_refused(desk: Desk) -> None:
    """H3: although the new tag and its commit are signed; a new tag is the way forward."""
    desk.source = replace(desk.source, ref="refs/tags/v1")
    first = desk.host.commit(LOOSE, "alice")
    sign = desk.host.signing("alice")
    desk.host.git(*sign, "tag", "--sign", "--message", "one", "v1")
    assert desk.apply() == first
    second = desk.host.commit(TIGHT, "alice")
    desk.host.git(*sign, "tag", "--sign", "--force", "--message", "one", "v1")
    assert desk.codes() == ["KS8133"]
    desk.host.git(*sign, "tag", "--sign", "--message", "two", "v2")
    desk.source = replace(desk.source, ref="refs/tags/v2")
    assert desk.proposed() == second


def test_h1_forty_hexadecimal_digits_are_a_commit_id_and_never_a_branch(desk: Desk) -> None:
    """H1: a host that has a branch with the name of another commit cannot lead there."""
    first = desk.host.commit(TIGHT | {"policies/a.yaml": "a: 1\n"}, "alice")
    evil = desk.host.commit(LOOSE, "mallory")
    desk.host.put(evil, f"refs/heads/{first}")
    desk.source = replace(desk.source, ref=first)
    assert desk.proposed() == first


def test_h4_the_floor_is_the_store_and_not_the_clone(desk: Desk) -> None:
    """H4: a second runner with an empty disk refuses what the first one would."""
    first = desk.host.commit(TIGHT | {"policies/a.yaml": "a: 1\n"}, "alice")
    desk.host.commit(LOOSE, "alice")
    desk.apply()
    desk.start_afresh()
    assert desk.proposed() is None
    desk.host.put(first)
    assert desk.codes() == ["KS8130"]
    desk.start_afresh()
    assert desk.codes() == ["KS8132"]  # an empty copy cannot tell an older history from another one


def test_h5_a_shallow_host_cannot_be_read(desk: Desk) -> None:
    """H5: git ends with success and brings nothing; that is never "nothing new", nor what an earlier poll left."""
    old = desk.host.commit(LOOSE, "alice")
    assert desk.proposed() == old
    left_over = Path(desk.source.folder) / "repository.git" / "refs" / "killswitch" / "incoming"
    left_over.write_text(f"{old}\n")  # as a poll leaves it that ended before it was judged
    desk.host.commit(TIGHT, "alice")
    desk.host.commit({"policies/a.yaml": "a: 1\n"}, "alice")
    shallow = desk.host.folder.parent / "shallow"
    source = f"file://{desk.host.folder}"
    subprocess.run(["git", "clone", "--quiet", "--bare", "--depth=1", source, str(shallow)], check=True)
    whole = desk.source
    desk.source = replace(desk.source, url=f"file://{shallow}")
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.is_page) == ("KS8007", False)
    desk.source = whole
    assert desk.proposed() == desk.host.head


def test_h5_a_missing_ref_cannot_be_read(desk: Desk) -> None:
    """H5: a branch that is gone removes nothing."""
    desk.host.commit(LOOSE, "alice")
    desk.apply()
    desk.source = replace(desk.source, ref="refs/heads/gone")
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.is_page) == ("KS8006", False)
    assert "refs/heads/gone" in problem.text


def test_h5_a_missing_object_cannot_be_read(desk: Desk) -> None:
    """H5: a copy that lost a file is fetched again; a host that lost it is an error."""
    desk.host.commit(LOOSE, "alice")
    blob = desk.host.git("rev-parse", "HEAD:policies/desk.yaml")
    (desk.host.folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.is_page) == ("KS8012", False), problem.text


def test_h7_a_moved_anchor_is_the_way_forward_after_a_rewrite(desk: Desk) -> None:
    """H7: history counts from there on, and the rewritten commit is signed all the same."""
    desk.host.commit(LOOSE, "alice")
    desk.apply()
    desk.host.git("checkout", "--quiet", "--orphan", "other")
    root = desk.host.commit(TIGHT, None)
    rewritten = desk.host.commit(LOOSE, "bob")
    desk.host.put(rewritten)
    assert desk.codes() == ["KS8132"]
    desk.known = moved_anchor(desk.known, root)
    assert desk.apply() == rewritten


def test_s7_what_was_verified_is_remembered_and_a_long_catch_up_is_resumed(desk: Desk) -> None:
    """S5 S7: twenty commits a poll; the others at the next ones, and the head only at the end."""
    for number in range(150):
        desk.host.commit({"policies/a.yaml": f"a: {number}\n"}, "alice")
    desk.limits = GitLimits(commits=64)
    seen = []
    for _ in range(2):
        polled = desk.poll()
        assert polled.answer.candidate is None
        assert polled.answer.problems == ()
        assert polled.answer.progress is not None
        seen.append(len(desk.known.verified))
    assert seen == [64, 128]
    assert desk.proposed() == desk.host.head
    assert len(desk.known.verified) == 150


def test_s5_a_history_that_is_longer_than_one_poll_reads_is_not_read(desk: Desk) -> None:
    """S5: with a code, and no candidate."""
    for number in range(5):
        desk.host.commit({"policies/a.yaml": f"a: {number}\n"}, "alice")
    desk.limits = GitLimits(history=3)
    assert desk.codes() == ["KS8036"]
    desk.limits = GitLimits()
    assert desk.proposed() == desk.host.head


def test_a_merge_of_an_old_branch_with_dates_out_of_order_is_verified_to_its_fork_only(desk: Desk) -> None:
    """S1: dates only order the search; what is an ancestor of the last good commit needs no signature for it."""
    old = str(desk.now // 1_000_000 - 900 * 86_400)
    for number in range(4):
        desk.host.commit(
            {"policies/a.yaml": f"a: {number}\n"},
            None,
            GIT_COMMITTER_DATE=f"{old} +0000",
            GIT_AUTHOR_DATE=f"{old} +0000",
        )
    desk.host.git("branch", "side")
    for number in range(4):
        desk.host.commit({"policies/b.yaml": f"a: {number}\n"}, None)
    desk.source = replace(desk.source, anchor=desk.host.head)
    desk.known = VerifiedState()
    merged = desk.merge_side()
    assert desk.proposed_commits() == merged


def test_an_old_commit_that_is_dated_later_than_its_children_is_found_before_it_is_refused(desk: Desk) -> None:
    """S1: the search by dates misses it, and the exact one is made before anything is refused."""
    early = f"{desk.now // 1_000_000 - 900 * 86_400} +0000"
    desk.host.git("branch", "side")
    for number in range(3):
        desk.host.commit({"policies/b.yaml": f"a: {number}\n"}, None, GIT_COMMITTER_DATE=early, GIT_AUTHOR_DATE=early)
    desk.source = replace(desk.source, anchor=desk.host.head)
    merged = desk.merge_side()
    assert desk.proposed_commits() == merged
