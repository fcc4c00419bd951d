"""The union file must be no scope's file: it is made of those, and would otherwise be made of itself."""

from __future__ import annotations

from pathlib import Path

from killswitch.gate.errors import LockError
from killswitch.gate.foreign import FOREIGN_SCOPE

_SCOPE_KINDS = frozenset({"account", "venue", "portfolio", FOREIGN_SCOPE})


def require_apart(folder: Path, union: Path) -> None:
    """LockError if `union` has the name of a scope's file in `folder`. Both paths are resolved already."""
    if union.parent == folder and union.suffix == ".json" and union.stem.partition("__")[0] in _SCOPE_KINDS:
        raise LockError(
            f"{union} cannot be the file for all scopes: in the lock folder that is the name of one scope's own file. "
            "Give it another name, or put it elsewhere"
        )
