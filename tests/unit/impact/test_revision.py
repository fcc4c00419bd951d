"""Files of a git revision: read from its objects, with nothing of the repository run, and everything bounded."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from killswitch.operations.impact import revision
from killswitch.operations.impact.revision import GitRevisionError, PolicyRepository
from tests.unit.impact.policy_desk import AUTHOR, PolicyDesk

FILES = {"a.yaml": "a: 1\n", "deep/b.yaml": "b: 2\n", "deep/template.md.j2": "{{ x }}\n"}


def desk_in(folder: Path) -> PolicyDesk:
    return PolicyDesk(folder, FILES)


def test_the_files_of_a_revision_are_those_that_were_committed(tmp_path: Path) -> None:
    """Also where the files on disk have changed since, and by branch, tag, short id and full id."""
    desk = desk_in(tmp_path)
    commit = desk.git("rev-parse", "HEAD")
    desk.git("tag", "v1")
    desk.write({"a.yaml": "a: 9\n", "new.yaml": "c: 3\n"})
    repository = PolicyRepository(desk.policies)
    for name in ("main", "v1", commit, commit[:9]):
        found = repository.files(name, [desk.policies])
        assert found.commit == commit
        assert {each.path: each.content.decode() for each in found.files} == {
            f"policies/{path}": text for path, text in FILES.items()
        }


def test_files_on_disk_are_those_of_a_commit_only_byte_for_byte(tmp_path: Path) -> None:
    """A changed byte, a new file and a removed one are not committed."""
    desk = desk_in(tmp_path)
    repository, commit = PolicyRepository(desk.policies), desk.git("rev-parse", "HEAD")
    assert repository.is_committed(commit, [desk.policies])
    desk.write({"a.yaml": "a: 1 \n"})
    assert not repository.is_committed(commit, [desk.policies])
    desk.write({"a.yaml": "a: 1\n", "new.yaml": ""})
    assert not repository.is_committed(commit, [desk.policies])
    (desk.policies / "new.yaml").unlink()
    (desk.policies / "deep" / "b.yaml").unlink()
    assert not repository.is_committed(commit, [desk.policies])


CANARY = "canary"


def armed_with_programs(desk: PolicyDesk, canary: Path) -> None:
    """Everything that a repository can name to be run names a program that leaves a file."""
    program = desk.folder / ".git" / "run-me"
    program.write_text(f"#!/bin/sh\ntouch {canary}\ncat\n", encoding="utf-8")
    program.chmod(0o755)
    hooks = desk.folder / "hooks"
    hooks.mkdir()
    for hook in ("post-checkout", "reference-transaction", "pre-auto-gc", "fsmonitor-watchman", "post-index-change"):
        (hooks / hook).write_bytes(program.read_bytes())
        (hooks / hook).chmod(0o755)
    desk.write({".gitattributes": "*.yaml filter=evil diff=evil export-subst\n"})
    desk.commit("attributes")
    settings = {
        "core.fsmonitor": program, "core.hooksPath": hooks, "filter.evil.smudge": program, "filter.evil.clean": program,
        "filter.evil.process": program, "diff.evil.textconv": program, "diff.external": program, "core.pager": program,
        "core.sshCommand": program, "core.gitProxy": program, "credential.helper": program, "core.askPass": program,
        "alias.cat-file": f"!{program}", "alias.ls-tree": f"!{program}", "gpg.program": program, "core.editor": program,
        "uploadpack.packObjectsHook": program,
    }  # fmt: skip
    for name, value in settings.items():
        desk.git("config", name, str(value))


def test_nothing_that_a_repository_names_is_run(tmp_path: Path) -> None:
    """A canary on hooks, filters, fsmonitor, textconv, aliases, pagers, askpass and commands of transport."""
    desk, canary = desk_in(tmp_path), tmp_path / CANARY
    armed_with_programs(desk, canary)
    found = PolicyRepository(desk.policies).files("main", [desk.policies])
    assert len(found.files) == len(FILES) + 1
    assert not canary.exists()
    subprocess.run(["git", "status"], cwd=desk.folder, env={**os.environ, **AUTHOR}, capture_output=True, check=False)
    assert canary.exists(), "an ordinary git runs these programs, so the test can fail"


def test_a_missing_object_is_an_error_and_is_never_fetched(tmp_path: Path) -> None:
    """A partial clone whose remote is a command: nothing is fetched lazily, and the command is not run."""
    desk, canary = desk_in(tmp_path), tmp_path / CANARY
    blob = desk.git("rev-parse", "HEAD:policies/a.yaml")
    (desk.folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    remote = {
        "core.repositoryFormatVersion": "1", "extensions.partialClone": "origin", "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::sh -c touch% {canary}", "protocol.ext.allow": "always", "protocol.allow": "always",
    }  # fmt: skip
    for name, value in remote.items():
        desk.git("config", name, value)
    with pytest.raises(GitRevisionError, match=r"cannot read|missing|larger|partial"):
        PolicyRepository(desk.policies).files("main", [desk.policies])
    assert not canary.exists()


def test_a_replaced_object_is_not_read_in_place_of_the_committed_one(tmp_path: Path) -> None:
    """`git replace` shows another content under the same id."""
    desk = desk_in(tmp_path)
    commit = desk.git("rev-parse", "HEAD")
    desk.write({"a.yaml": "a: 666\n"})
    other = desk.commit("other")
    desk.git("replace", commit, other)
    found = PolicyRepository(desk.policies).files(commit, [desk.policies])
    assert {each.path: each.content for each in found.files}["policies/a.yaml"] == b"a: 1\n"


def test_links_and_submodules_are_named_and_never_followed(tmp_path: Path) -> None:
    """S4: their targets are outside what was committed here."""
    desk = desk_in(tmp_path)
    (desk.policies / "link.yaml").symlink_to("/etc/passwd")
    desk.git("update-index", "--add", "--cacheinfo", f"160000,{desk.git('rev-parse', 'HEAD')},policies/sub")
    desk.git("add", "policies/link.yaml")
    desk.git("commit", "-q", "-m", "links")
    found = PolicyRepository(desk.policies).files("main", [desk.policies])
    assert {(each.path, each.why) for each in found.skipped} == {
        ("policies/link.yaml", "a symbolic link"), ("policies/sub", "a submodule"),
    }  # fmt: skip
    assert not any("root:" in each.content.decode() for each in found.files)


@pytest.mark.parametrize("name", ["--output=/tmp/x", "", "nowhere", "ma\x1bin", "main:policies"])
def test_what_is_no_revision_is_an_error_without_control_characters(tmp_path: Path, name: str) -> None:
    """An option, nothing, an unknown name, an escape sequence, a tree."""
    desk = desk_in(tmp_path)
    with pytest.raises(GitRevisionError) as found:
        PolicyRepository(desk.policies).files(name, [desk.policies])
    assert str(found.value).isprintable()


def test_a_path_outside_the_repository_and_a_folder_without_one_are_errors(tmp_path: Path) -> None:
    """The message says to name a folder instead."""
    desk = desk_in(tmp_path)
    with pytest.raises(GitRevisionError, match="not in the repository"):
        PolicyRepository(desk.policies).files("main", [tmp_path])
    with pytest.raises(GitRevisionError, match="in no git repository"):
        PolicyRepository(tmp_path)


def test_a_file_above_the_bound_is_an_error(tmp_path: Path) -> None:
    """Its size is known before it is read."""
    desk = desk_in(tmp_path)
    desk.write({"big.yaml": "#" * (revision.LARGEST_FILE + 1)})
    desk.commit("big")
    with pytest.raises(GitRevisionError, match=r"big\.yaml at main is larger than 1 MiB"):
        PolicyRepository(desk.policies).files("main", [desk.policies])


def test_a_tree_of_ten_thousand_million_names_ends_at_the_bound(tmp_path: Path) -> None:
    """S5: ten folders in each of ten folders, ten deep, are one small object each, and a listing without an end."""
    desk = desk_in(tmp_path)
    tree = desk.git("rev-parse", "HEAD:policies/deep")
    for _ in range(10):
        entries = "".join(f"040000 tree {tree}\td{number}\n" for number in range(10))
        made = subprocess.run(
            ["git", "mktree"], cwd=desk.folder, input=entries, capture_output=True, text=True, check=True
        )
        tree = made.stdout.strip()
    evil = desk.git("commit-tree", tree, "-m", "evil")
    with pytest.raises(GitRevisionError, match="more entries than a policy folder can have"):
        PolicyRepository(desk.policies).files(evil, [desk.folder])
