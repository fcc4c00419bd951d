"""A git repository of policies made by the real git, and `ksctl impact` in it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from killswitch.cli import ksctl

NOW = "2026-03-02T12:00:00Z"
AUTHOR = {
    "GIT_AUTHOR_NAME": "Jo", "GIT_AUTHOR_EMAIL": "jo@example.com", "GIT_COMMITTER_NAME": "Jo",
    "GIT_COMMITTER_EMAIL": "jo@example.com", "GIT_AUTHOR_DATE": "2026-03-01T09:00:00Z",
    "GIT_COMMITTER_DATE": "2026-03-01T09:00:00Z", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
}  # fmt: skip


class PolicyDesk:
    """A repository `desk` with a folder `policies`; its base is the branch `main`."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder = folder / "desk"
        self.policies = self.folder / "policies"
        self.policies.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        self.write(files)
        self.commit("base")

    def git(self, *arguments: str) -> str:
        """Run git in the repository, with a fixed author and time."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env={**os.environ, **AUTHOR},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def write(self, files: Mapping[str, str]) -> None:
        """Write files below `policies`."""
        for name, text in files.items():
            path = self.policies / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def commit(self, message: str) -> str:
        """Commit everything; the id."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def impact(self, *arguments: object, against: str = "main", spans: Path | None = None) -> Result:
        """`ksctl impact` on the folder; `spans`: a folder of bars, else one that holds none of the shipped spans."""
        crashes = ["--crashes", str(spans)] if spans is not None else []
        words = ["impact", str(self.policies), "--against", against, *crashes, "--now", NOW, *map(str, arguments)]
        found = CliRunner().invoke(ksctl, words, catch_exceptions=False)
        assert "Traceback" not in found.output
        return found

    def answer(self, *arguments: object, **more: Any) -> tuple[dict[str, Any], int]:
        """The answer as JSON, and the exit code."""
        found = self.impact(*arguments, "-o", "json", **more)
        return json.loads(found.stdout), found.exit_code

    def comment(self, *arguments: object, **more: Any) -> tuple[str, int]:
        """The comment, and the exit code."""
        found = self.impact(*arguments, "-o", "markdown", **more)
        return found.stdout, found.exit_code


def bars(folder: Path, closes: Mapping[str, Sequence[float]]) -> Path:
    """A folder of bars a minute apart, that open where the one before closed, deep enough for every order."""
    folder.mkdir(parents=True, exist_ok=True)
    for symbol, prices in closes.items():
        rows = ["ts,open,high,low,close,volume"]
        opened = prices[0]
        for minute, close in enumerate(prices):
            high, low = max(opened, close), min(opened, close)
            rows.append(
                f"{1_700_000_000_000 // 60_000 * 60_000 + minute * 60_000},{opened},{high},{low},{close},1000000000"
            )
            opened = close
        (folder / f"{symbol}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
