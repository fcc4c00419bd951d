"""The git commit that policy files stand in, where there is one."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

_PATIENCE = 5.0


def commit_of(paths: Sequence[Path]) -> str | None:
    """The commit that holds exactly these files as they are on disk; None if none does (no git, changed, ignored)."""
    if not paths:
        return None
    start = paths[0] if paths[0].is_dir() else paths[0].parent
    commit = _git(start, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(start, "status", "--porcelain", "--ignored", "--", *(str(path.resolve()) for path in paths))
    return commit if changes == "" else None


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None if it is not there, takes too long or refuses."""
    try:
        done = subprocess.run(
            ("git", "-C", str(folder), *arguments), capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # a policy set without a commit is identified by its digest
    return done.stdout.strip()
