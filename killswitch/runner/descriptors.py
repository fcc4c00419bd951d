"""How many files and connections this process may have open, held against what a run needs."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

BASE: Final = 256
"""Descriptors of a run without any account: the store's connections, logs, sinks, reports, notifications."""
PER_ACCOUNT: Final = 32
"""Descriptors of an account: a pool of connections to its venue, its pushes, look-ups of names, its lock file."""
MOST: Final = 65_536
"""No run needs more, and a limit without bounds costs programs time that walk through it."""


def make_room(accounts: int) -> str | None:
    """Raise the soft limit to the hard one; what is missing where that is too little for so many accounts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # then the limit stays, and is told below where it is too low
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = BASE + PER_ACCOUNT * accounts
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    return (
        f"this process may open {soft} files and connections, and {accounts} accounts may need {needed}: raise the "
        "limit (`ulimit -n`, LimitNOFILE= of the service), or orders may find no connection"
    )
