"""The folder of an incident's rendered files: `STORE.incidents/<incident>/`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from killswitch.incident.rendering import Rendered

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def folder_beside(store_at: str) -> Path:
    """Where the incidents of the store at this path or `sqlite:///` URL are rendered to."""
    return Path(store_at.removeprefix("sqlite:///") + ".incidents")


def write(folder: Path, incident: str, name: str, rendered: Rendered) -> bool:
    """Write `name.md` and `name.html` of an incident, unless they say so already; whether anything was written.

    Every reader finds the old file or the new one, whole. OSError if it cannot be written.
    """
    home = folder / _fit(incident)
    home.mkdir(parents=True, exist_ok=True)
    written = [
        _replace(home / f"{_fit(name)}{suffix}", text.encode("utf-8", "backslashreplace"))
        for suffix, text in ((".md", rendered.markdown), (".html", rendered.html))
    ]
    return any(written)


def _fit(name: str) -> str:
    """A name that is one part of a path, whatever stood in the store."""
    return _UNFIT.sub("-", name).lstrip(".") or "unnamed"


def _replace(path: Path, content: bytes) -> bool:
    if path.is_file() and path.read_bytes() == content:
        return False
    temporary = path.with_name(f".{path.name}.tmp")
    # Made anew: what somebody else has put there may be a link to another file, or a pipe that is never read.
    temporary.unlink(missing_ok=True)
    with temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return True
