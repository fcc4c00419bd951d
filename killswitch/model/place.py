"""Where something was written in a policy: what every message and explanation points back to."""

from __future__ import annotations

from killswitch.model.record import Record, record


@record
class Place(Record):
    """Where in the policy text a node was written; lines and columns count from 1."""

    file: str
    line: int
    column: int
    text: str
    """The source line, for `explain`."""
