"""The tree of a git source: S4, S5 and S6, with trees and commits that git itself would not write."""

from __future__ import annotations

from binascii import unhexlify

import pytest
from msgspec.structs import replace

from killswitch.model.applied_set import PolicyFile, folder_digest
from killswitch.source.git_objects import object_id, parse_commit, parse_tree
from killswitch.source.git_problems import GitSourceError
from killswitch.source.git_request import GitLimits
from killswitch.source.git_tree import UNREADABLE
from tests.source.signed_repositories import LOOSE, Desk, texts


def tree_of(*entries: tuple[str, str, str]) -> bytes:
    """A tree of (mode, name, id), in this order."""
    return b"".join(f"{mode} {name}\0".encode() + unhexlify(name_id) for mode, name, name_id in entries)


class Trees:
    """Trees that are written as they are, below `policies` of a signed commit."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.blob = desk.host.write_object(b"a: 1\n", "blob")

    def tree(self, *entries: tuple[str, str, str]) -> str:
        return self.desk.host.write_object(tree_of(*entries), "tree")

    def push(self, policies: str, mode: str = "40000") -> str:
        root = self.tree((mode, "policies", policies))
        return self.desk.host.commit_tree(root, [self.desk.anchor], "alice")


@pytest.fixture
def trees(desk: Desk) -> Trees:
    return Trees(desk)


def honest(desk: Desk) -> None:
    """After the refusal, the next honest commit on the last good one is taken without a hand."""
    desk.host.reset(desk.anchor)
    commit = desk.host.commit(LOOSE, "alice")
    assert desk.proposed() == commit


@pytest.mark.parametrize(("mode", "code"), [("120000", "KS8022"), ("160000", "KS8023"), ("100664", "KS8024")])
def test_s4_a_link_a_submodule_and_a_special_mode_are_refused(trees: Trees, mode: str, code: str) -> None:
    """S4: anywhere in the path, whatever it leads to; file and commit are named."""
    below = trees.tree((mode, "evil.yaml", trees.blob))
    trees.push(trees.tree(("100644", "a.yaml", trees.blob), ("40000", "sub", below)))
    (problem,) = trees.desk.poll().answer.problems
    assert (problem.code, problem.file, problem.is_page) == (code, "policies/sub/evil.yaml", True)
    honest(trees.desk)


def test_s4_a_path_that_leads_through_a_link_is_refused(trees: Trees) -> None:
    """S4: `policies` itself is a link to a folder of the machine."""
    target = trees.desk.host.write_object(b"/etc", "blob")
    trees.push(target, "120000")
    assert trees.desk.codes() == ["KS8022"]
    honest(trees.desk)


def test_s4_a_link_made_by_git_is_refused_too(desk: Desk) -> None:
    """S4: as somebody would commit it."""
    (desk.host.folder / "policies" / "passwd.yaml").symlink_to("/etc/passwd")
    desk.host.commit({}, "alice")
    assert desk.codes() == ["KS8022"]
    honest(desk)


@pytest.mark.parametrize("name", ["a\nb.yaml", "a\x1b[2Jb.yaml", "a\u202eb.yaml", "a\u200bb.yaml"])
def test_s4_a_name_with_a_control_character_is_refused_and_not_printed(trees: Trees, name: str) -> None:
    """S4: also one that changes the direction of writing, or that has no width."""
    trees.push(trees.tree(("100644", name, trees.blob)))
    (problem,) = trees.desk.poll().answer.problems
    assert problem.code == "KS8025"
    assert name not in f"{problem.text}{problem.file}"
    assert (problem.text + str(problem.file)).isprintable()
    honest(trees.desk)


def test_s4_a_name_that_occurs_twice_is_refused(trees: Trees) -> None:
    """S4: at the fetch, by git's own check, or by ours; which file is meant is not defined."""
    other = trees.desk.host.write_object(b"a: 2\n", "blob")
    trees.push(trees.tree(("100644", "a.yaml", trees.blob), ("100644", "a.yaml", other)))
    assert trees.desk.codes() in (["KS8010"], ["KS8026"])
    honest(trees.desk)


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([("100644", "a", "1" * 40), ("100644", "a", "2" * 40)], "KS8026"),
        ([("100644", "a", "1" * 40), ("40000", "a", "2" * 40)], "KS8026"),
        ([("100644", "..", "1" * 40)], "KS8026"),
        ([("100644", ".GIT", "1" * 40)], "KS8026"),
        ([("100644", "a/b", "1" * 40)], "KS8026"),
        ([("100644", "", "1" * 40)], "KS8026"),
        ([("100644", "b", "1" * 40), ("100644", "a", "2" * 40)], "KS8027"),
        ([("1006449", "a", "1" * 40)], "KS8027"),
        ([("10x644", "a", "1" * 40)], "KS8027"),
        ([("100644", "a\x7f", "1" * 40)], "KS8025"),
    ],
)
def test_s4_a_tree_is_parsed_strictly(entries: list[tuple[str, str, str]], code: str) -> None:
    """S4: doubled, out of order, or with a name that leads elsewhere."""
    with pytest.raises(GitSourceError) as refused:
        parse_tree("0" * 40, tree_of(*entries))
    assert refused.value.code == code


def test_s4_attributes_filters_and_export_rules_change_no_byte(desk: Desk) -> None:
    """S4: the bytes are those of the blob: line ends, `ident`, `export-ignore` and filters apply to work trees."""
    attributes = "* text eol=crlf ident working-tree-encoding=UTF-16 filter=evil export-ignore export-subst\n"
    written = {"policies/desk.yaml": "a: $Id$ $Format:%H$\n", "policies/.gitattributes": attributes}
    blob = desk.host.write_object(written["policies/desk.yaml"].encode(), "blob")
    hidden = desk.host.write_object(attributes.encode(), "blob")
    trees = Trees(desk)
    trees.push(trees.tree(("100644", ".gitattributes", hidden), ("100644", "desk.yaml", blob)))
    candidate = desk.poll().answer.candidate
    assert candidate is not None
    assert texts(candidate.files) == {"desk.yaml": written["policies/desk.yaml"]}


def test_s6_the_digest_is_of_paths_and_bytes(desk: Desk) -> None:
    """S6: two commits with one content have one digest, and each step has its own."""
    desk.host.commit(LOOSE | {"policies/sub/b.yaml": "b: 1\n", "README.md": "x\n"}, "alice")
    desk.host.commit({"README.md": "y\n"}, "alice")
    candidate = desk.poll().answer.candidate
    assert candidate is not None
    files = [PolicyFile("sub/b.yaml", b"b: 1\n"), PolicyFile("desk.yaml", LOOSE["policies/desk.yaml"].encode())]
    assert candidate.folder_digest == folder_digest(files)
    assert [step.folder_digest for step in candidate.steps] == [candidate.folder_digest] * 2


def test_a_step_that_no_set_could_come_from_blocks_no_later_one(trees: Trees) -> None:
    """A link on the way has the digest `unreadable`, to which nothing binds; the next honest commit is proposed."""
    evil = trees.push(trees.tree(("120000", "evil.yaml", trees.blob)))
    good = trees.tree(("40000", "policies", trees.tree(("100644", "a.yaml", trees.blob))))
    commit = trees.desk.host.commit_tree(good, [evil], "bob")
    candidate = trees.desk.poll().answer.candidate
    assert candidate is not None
    assert candidate.commit == commit
    assert [step.folder_digest == UNREADABLE for step in candidate.steps] == [True, False]


def test_an_emptied_and_a_removed_folder_remove_nothing(desk: Desk) -> None:
    """Nothing is proposed, with a warning of its own for each."""
    desk.host.commit({"policies/desk.yaml": None, "policies/README": "x\n"}, "alice")
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.is_page) == ("KS8021", False)
    desk.host.commit({"policies/README": None, "other": "x\n"}, "alice")
    assert desk.codes() == ["KS8020"]
    commit = desk.host.commit(LOOSE, "alice")
    assert desk.proposed() == commit


def test_s5_too_many_files_too_large_ones_and_too_many_bytes_have_codes_of_their_own(desk: Desk) -> None:
    """S5: each bound, with limits that a test can reach."""
    desk.host.commit({f"policies/{number}.yaml": "x" * 90 for number in range(12)}, "alice")
    cases = {
        "KS8030": GitLimits(documents=12),
        "KS8031": GitLimits(file_bytes=89),
        "KS8032": GitLimits(folder_bytes=1_000),
        "KS8034": GitLimits(entries=12),
        "KS8035": GitLimits(object_bytes=100),
    }
    for code, limits in cases.items():
        desk.limits = limits
        assert desk.codes() == [code]
    desk.limits = GitLimits()
    assert desk.proposed() == desk.host.head


def test_s5_a_folder_that_is_nested_too_deep_is_refused(desk: Desk) -> None:
    """S5: depth 8 is read, depth 9 is not."""
    desk.host.commit({"policies/1/2/3/4/5/6/7/a.yaml": "a: 1\n"}, "alice")
    assert desk.proposed() == desk.host.head
    desk.host.commit({"policies/1/2/3/4/5/6/7/8/a.yaml": "a: 1\n"}, "alice")
    assert desk.codes() == ["KS8033"]
    honest(desk)


def test_s5_a_tree_of_ten_to_the_tenth_names_is_refused_while_it_is_read(trees: Trees) -> None:
    """S5: seven trees of thirty names that are one and the same tree; nobody waits for the end of the listing."""
    tree = trees.tree(*((("100644", f"{number:02}.yaml", trees.blob)) for number in range(30)))
    for _ in range(6):
        tree = trees.tree(*(("40000", f"{number:02}", tree) for number in range(30)))
    trees.push(tree)
    (problem,) = trees.desk.poll().answer.problems
    assert problem.code == "KS8034"
    honest(trees.desk)


def test_s5_a_file_of_two_gigabytes_is_refused_by_its_size(desk: Desk) -> None:
    """S5: its content is not read, and the next honest commit is taken."""
    file = desk.host.folder / "policies" / "large.yaml"
    with file.open("wb") as sparse:
        sparse.truncate(2 << 30)
    desk.host.git("config", "core.compression", "1")
    desk.host.git("config", "core.bigFileThreshold", "16m")
    desk.host.commit({}, "alice")
    file.unlink()
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.file) == ("KS8031", "policies/large.yaml")
    honest(desk)


def test_s5_a_fetch_that_is_larger_than_its_limit_is_ended(desk: Desk) -> None:
    """S5: git has no limit of its own; what is left of it on the disk is removed at the next poll."""
    content = b"".join(object_id("blob", number.to_bytes(4, "big")).encode() for number in range(60_000))
    desk.host.commit({"data.bin": content}, "alice")
    desk.limits = replace(desk.limits, fetched_bytes=200_000)
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.is_page) == ("KS8009", False)
    desk.host.reset(desk.anchor)
    commit = desk.host.commit(LOOSE, "alice")
    assert desk.proposed() == commit


HEAD = b"tree " + b"1" * 40 + b"\n"
AUTHOR = b"author Al <a@b> 1700000000 +0000\ncommitter Al <a@b> 1700000000 +0000\n"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (HEAD + AUTHOR + b"gpgsig a\ngpgsig b\n\nm\n", "KS8111"),
        (HEAD + AUTHOR + b"gpgsig a\ngpgsig-sha256 b\n\nm\n", "KS8111"),
        (HEAD + AUTHOR + b"encoding UTF-7\n\nm\n", "KS8112"),
        (HEAD + AUTHOR + b"\nm\0m\n", "KS8112"),
        (HEAD + AUTHOR + b"\n\xff\n", "KS8112"),
        (HEAD + AUTHOR.replace(b"Al", b"\xff") + b"\nm\n", "KS8112"),
        (HEAD + HEAD + AUTHOR + b"\nm\n", "KS8027"),
        (HEAD + AUTHOR + b"parent " + b"2" * 40 + b"\n\nm\n", "KS8027"),
        (HEAD + AUTHOR + AUTHOR + b"\nm\n", "KS8027"),
        (HEAD + b"parent " + b"2" * 40 + b"\nparent " + b"2" * 40 + b"\n" + AUTHOR + b"\nm\n", "KS8027"),
        (HEAD + b"parent " + b"2" * 39 + b"\n" + AUTHOR + b"\nm\n", "KS8027"),
        (AUTHOR + b"\nm\n", "KS8027"),
        (HEAD + AUTHOR.replace(b"+0000", b"0000") + b"\nm\n", "KS8027"),
        (HEAD + AUTHOR.replace(b"<a@b>", b"<a<@b>") + b"\nm\n", "KS8027"),
        (HEAD + AUTHOR, "KS8027"),
        (b"", "KS8027"),
    ],
)
def test_a_commit_is_parsed_strictly(content: bytes, code: str) -> None:
    """What is doubled, out of order, cut off or in another encoding is refused with its own code."""
    with pytest.raises(GitSourceError) as refused:
        parse_commit("0" * 40, content)
    assert refused.value.code == code


def test_the_payload_of_a_commit_is_what_git_signs(desk: Desk) -> None:
    """The bytes without the header of the signature, with a merge of a signed tag and a header of another program."""
    desk.host.git("checkout", "--quiet", "-b", "side")
    desk.host.commit({"policies/side.yaml": "a: 1\n"}, "bob")
    desk.host.git(*desk.host.signing("bob"), "tag", "--sign", "--message", "one", "v1")
    desk.host.git("checkout", "--quiet", "main")
    desk.host.commit(LOOSE, "alice")
    merge = desk.host.merge("v1", "alice")
    assert b"\nmergetag object " in desk.host.raw(merge)
    assert desk.proposed() == merge
