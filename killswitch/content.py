"""Location of the shipped policies and runbooks: package data, or folders of the source tree."""

from __future__ import annotations

from pathlib import Path


def policies_folder() -> Path:
    """Folder of the shipped policy sets, one folder each. FileNotFoundError if the installation lacks it."""
    return _content("policies")


def runbooks_folder() -> Path:
    """Folder of the shipped runbook and report templates. FileNotFoundError if the installation lacks it."""
    return _content("runbooks")


def _content(name: str) -> Path:
    package = Path(__file__).parent
    for folder in (package / "_content" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the shipped {name} are not installed: neither package data nor a source tree holds them")
