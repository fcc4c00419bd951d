"""The commit that a decision names for its policies."""

from __future__ import annotations

import subprocess
from pathlib import Path

from killswitch.accounts.opening import commit_of


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=desk", "-c", "user.email=desk@example.com")
    done = subprocess.run(("git", "-C", str(folder), *who, *arguments), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_commit_is_named_only_if_it_holds_the_files_as_they_are(tmp_path: Path) -> None:
    """Committed: the commit. Changed, untracked or ignored: none, because nobody could look the text up there."""
    policies, ignored = tmp_path / "policies", tmp_path / "mine"
    for folder in (policies, ignored):
        folder.mkdir()
        (folder / "policy.yaml").write_text("kind: Policy\n", encoding="utf-8")
    (tmp_path / ".gitignore").write_text("/mine/\n", encoding="utf-8")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "policies")
    assert commit_of([policies]) == git(tmp_path, "rev-parse", "HEAD")
    assert commit_of([ignored]) is None
    (policies / "policy.yaml").write_text("kind: Ranking\n", encoding="utf-8")
    assert commit_of([policies]) is None
