"""Entries of the record: what happened, before they have a number and a hash.

The record is the append-only, hash-chained log of what a run decided, sent and was answered (`killswitch.record`). An
entry is made by whoever acts; the store gives it its number, its hash and its place in the chain, in the transaction of
what it records.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from killswitch.model.snapshot import Instant

EntryKind = Literal[
    "chain",  # the first line of a chain: its id, the version of the format, its epoch
    "epoch",  # the first line after a restore: the chain before it, its number and root, the newest anchor known
    "started",  # a run has taken the lease: its owner and generation
    "ended",  # that run ends in order; a start without an end before the next start is an unclean end
    "watched",  # a time in which an account had usable snapshots without a gap
    "policy_set",  # a set of policies comes into force
    "command",  # an operator command is carried out by this tick; announces nothing, its decision follows
    "decision",  # a decision; its work is announced by the lines `planned`
    "notice",  # a message for operators that is no decision
    "notification",  # a message to one target; announces its delivery
    "delivery",  # what became of a notification
    "order",  # a journal entry: a request that is about to be sent, or the venue's answer
    "loosening",  # an attempt to loosen what is in force, and what became of it
    "anchor",  # an anchor was published, or could not be
    "login",  # by a server: a credential is used, or a login failed; repetitions by their number
    "request",  # by a server: a request with an effect, and how it was answered
    "token",  # by a server: a token is issued or revoked
    "retention",  # lines or files that are older than declared are removed: announced, then what was removed
    "cut",  # half a line at the end of a file was cut: its length and hash
]
"""Kinds of entries. A later version adds kinds and never changes the meaning of one."""


class Private(Struct, frozen=True, tag="private"):
    """A value that must be erasable: a name, an address, a text that a person wrote.

    The line has SHA-256 of a random salt and the value; both are kept outside of it.
    """

    value: str


Field = str | int | bool | Private
"""A value of an entry. There are no floats: an amount is a text as it was written."""


class RecordEntry(Struct, frozen=True, omit_defaults=True):
    """An entry without its number.

    `fields` are short and identify what it is about; `details` may be of any size. `body`: bytes that
    are recorded by their digest, and `kept` where they are kept already, else the store keeps them with the record.
    `announces` and `answers` name the subject of an announcement, as `order/CLIENT_ORDER_ID`; the line that answers
    has the number of the newest line that announced the same subject.
    """

    kind: EntryKind
    at: Instant
    fields: dict[str, Field] = {}
    details: dict[str, Field] = {}
    """What does not fit into a line is kept outside, under the digest that the line names."""
    body: bytes | None = None
    """Named by SHA-256 and length, whatever its size."""
    kept: Literal["decisions", "events"] | None = None
    """The table that has the body, under the id in `fields`: `decision` or `command`."""
    announces: str | None = None
    """The subject whose answer a later line is to have: the act follows."""
    answers: str | None = None
    """The subject that this entry answers. Without an announcement of it in the record, the line answers nothing."""


def with_known(fields: dict[str, Field | None]) -> dict[str, Field]:
    """The fields that have a value: what is unknown is absent."""
    return {name: value for name, value in fields.items() if value is not None}


def private(text: str | None) -> Private | None:
    """The text as an erasable value; None where there is none."""
    return None if text is None else Private(text)
