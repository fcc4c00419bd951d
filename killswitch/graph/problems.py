"""A mistake found in a part of a policy, before its place in the file is known."""

from __future__ import annotations

from killswitch.model.record import Record, record


@record
class Problem(Record):
    """`start` and `length` count characters of the text in which it was found."""

    code: str
    message: str
    fix: str
    start: int = 0
    length: int = 1
