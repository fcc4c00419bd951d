"""Where the ready content is: in a wheel it is package data, in a source tree it stands beside the package."""

from __future__ import annotations

from pathlib import Path


def policies_folder() -> Path:
    """The folder of the shipped policy sets, one folder each. FileNotFoundError if the installation lacks it."""
    return _content("policies")


def runbooks_folder() -> Path:
    """The folder of the shipped runbook and report templates. FileNotFoundError if the installation lacks it."""
    return _content("runbooks")


def _content(name: str) -> Path:
    package = Path(__file__).parent
    for folder in (package / "_content" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the shipped {name} are not installed: neither package data nor a source tree holds them")
