"""Reading a policy set for a verb: compiled and whole, or every mistake told and exit 1."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from killswitch.graph.nodes import PolicySet
    from killswitch.policy.loader import Loaded


class PolicyMistakesError(click.ClickException):
    """The policies do not compile; shows every mistake."""

    def show(self, file: object = None) -> None:
        click.echo(self.message, err=True)


def compiled(folder: Path) -> tuple[PolicySet, Loaded]:
    """The policies under `folder` and the documents that they came from. PolicyMistakesError with all mistakes."""
    from killswitch.graph.compile import compile_policies
    from killswitch.policy.diagnostics import has_errors, render
    from killswitch.policy.loader import load

    loaded = load([folder])
    if has_errors(loaded.diagnostics):
        raise PolicyMistakesError(render(loaded.diagnostics))
    policies, found = compile_policies(loaded.documents, commit_of(folder))
    if policies is None:
        raise PolicyMistakesError(render(found))
    return policies, loaded


def commit_of(folder: Path) -> str | None:
    """The git commit that the folder is at; None where it is in no repository, or differs from its commit."""
    place = folder if folder.is_dir() else folder.parent
    try:
        clean = subprocess.run(
            ["git", "status", "--porcelain", "--", "."], cwd=place, capture_output=True, text=True, check=True
        )
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=place, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return None if clean.stdout.strip() else head.stdout.strip()
