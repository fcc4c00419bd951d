"""Statements that approvers sign: their exact text, the file with the signature, and how to read both.

A statement is a text of one line for each field, which a person can read before signing it. The file of an approval
(`*.approval`) is this text, followed by the armoured signature of exactly these bytes. Nothing else is an approval: no
word in a message, no label, no trailer of a commit (A3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Literal, get_args

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.applied_set import ChangeClass
from killswitch.model.instant import DAY, from_micros, rfc3339
from killswitch.policy.schema.part import MistakeError
from killswitch.policy.schema.scalars import moment

FORMAT = "Killswitch approval statement, version 1"
NAMESPACE = "killswitch-approval"
"""The namespace of `ssh-keygen -Y sign -n`, so that no other signature of the same key is an approval."""
LONGEST = 14 * DAY
"""An approval expires at most this long after it was given, in microseconds (A6). A manifest is no approval: it states
what a folder holds, and is as long valid as it says."""
LARGEST = 64 << 10
"""The maximum size of the file of an approval, in bytes."""
SUFFIX = ".approval"
DELIVERED = "policy_source_statement/"
"""How the names of the live blobs begin that hold files of approvals which were delivered to a runner itself."""

Purpose = Literal["change", "arrival", "merge", "trust", "anchor", "manifest", "reset", "recovery", "drill"]
"""What is approved: a change of policies, what it fires on arrival (A8), the merge of a host (A9), a change of trust
(T3), a moved anchor (H7), the content of a directory or mount (C4), a reset, a step of the way back after one, a live
drill."""

SIGNED_BY_SIGNERS: frozenset[Purpose] = frozenset({"merge", "manifest"})
"""Purposes of which the key must be one that signs commits; for all others it must be one that approves."""


class StatementError(ValueError):
    """A text that is no statement; the message says why."""


class Statement(Struct, frozen=True, kw_only=True):
    """What one key approves. Texts have no control characters; None is written as `-`."""

    purpose: Purpose
    source: str
    """The name of the source, as in the configuration of the runner."""
    key: str
    """The fingerprint of the key that signs: `SHA256:…` of SSH, 40 hexadecimal digits of OpenPGP."""
    given: int
    """Microseconds; whole seconds are written."""
    expires: int
    ref: str | None = None
    path: str | None = None
    base: str | None = None
    """The digest of the folder in force; of the trust file with `trust`."""
    result: str | None = None
    """The digest of the folder, or of the trust file, that is approved."""
    shown: ChangeClass | None = None
    """The class of the change as it was shown to the approver."""
    subject: str | None = None
    """What else is approved: the stages that fire on arrival, a commit, a version, the firing that a reset ends."""


class SignedStatement(Struct, frozen=True):
    """A statement, the bytes that are signed, and the armoured signature, which nobody has verified yet."""

    statement: Statement
    signed: bytes
    signature: bytes

    @property
    def id(self) -> str:
        """SHA-256 of the signed bytes, by which an approval is spent once (A6)."""
        return sha256(self.signed).hexdigest()


FIELDS = (
    "purpose", "source", "ref", "path", "base", "result", "class", "subject", "key", "given", "expires",
)  # fmt: skip
_TIMES = ("given", "expires")
_REQUIRED = frozenset({"purpose", "source", "key", *_TIMES})
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ARMOUR = re.compile(rb"^-----BEGIN (?:SSH|PGP) SIGNATURE-----\r?$", re.MULTILINE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters, and those that change what a reader sees: other line ends, directions, characters of no width."""


def given_by(statement: Statement, key: str, now: int, lasts: int) -> Statement:
    """The statement of a key, given `now` and valid for `lasts` microseconds: times in whole seconds, and at most
    `LONGEST` for all but a manifest."""
    given = now - now % 1_000_000
    lasts = lasts if statement.purpose == "manifest" else min(lasts, LONGEST)
    return replace(statement, key=key, given=given, expires=given + lasts)


def encode_statement(statement: Statement) -> bytes:
    """The bytes that are signed. StatementError for a value that cannot be written in one line."""
    written = {
        **{
            name: getattr(statement, name) for name in ("purpose", "source", "ref", "path", "base", "result", "subject")
        },
        "class": statement.shown,
        "key": statement.key,
        "given": rfc3339(from_micros(statement.given)),
        "expires": rfc3339(from_micros(statement.expires)),
    }
    lines = [FORMAT]
    for name in FIELDS:
        value = "-" if written[name] is None else str(written[name])
        if (
            value != value.strip()
            or not value
            or _UNPRINTABLE.search(value)
            or (value == "-") != (written[name] is None)
        ):
            raise StatementError(f"`{name}` cannot be written in a statement: {_quoted(value)}")
        lines.append(f"{name}: {value}")
    return ("\n".join(lines) + "\n").encode()


def parse_statement(signed: bytes) -> Statement:
    """The statement of signed bytes. StatementError for anything but exactly what `encode_statement` writes.

    The one text of each statement keeps what a reader sees and what is counted the same.
    """
    try:
        head, *lines = signed.decode().split("\n")
    except UnicodeDecodeError:
        raise StatementError("it is not UTF-8") from None
    if head != FORMAT:
        raise StatementError(f"its first line is not `{FORMAT}`")
    if len(lines) != len(FIELDS) + 1 or lines[-1]:
        raise StatementError(f"it does not have the {len(FIELDS)} lines of a statement")
    values: dict[str, str | None] = {}
    for name, line in zip(FIELDS, lines, strict=False):
        found, separator, value = line.partition(": ")
        if found != name or not separator:
            raise StatementError(f"the line of `{name}` is {_quoted(line)}")
        values[name] = None if value == "-" else value
    statement = _statement(values)
    if encode_statement(statement) != signed:
        raise StatementError("it is not written as a statement is: other spaces, or another form of a time")
    return statement


def _statement(values: dict[str, str | None]) -> Statement:
    """The statement of these fields. StatementError for a value that the field does not have."""
    for name in sorted(_REQUIRED):
        if values[name] is None:
            raise StatementError(f"`{name}` is missing")
    for name, words in (("purpose", get_args(Purpose)), ("class", get_args(ChangeClass))):
        if values[name] is not None and values[name] not in words:
            raise StatementError(f"`{name}` is {_quoted(values[name] or '')}, not one of {', '.join(words)}")
    for name in ("base", "result"):
        if values[name] is not None and not _DIGEST.fullmatch(values[name] or ""):
            raise StatementError(f"`{name}` is no digest: {_quoted(values[name] or '')}")
    times = {name: _instant(name, values[name] or "") for name in _TIMES}
    texts = {name: value for name, value in values.items() if name not in (*_TIMES, "class")}
    return Statement(**{**texts, **times, "shown": values["class"]})  # type: ignore[arg-type]  # checked above


def _instant(name: str, written: str) -> int:
    try:
        return moment(written)
    except MistakeError as error:
        raise StatementError(f"`{name}` is {_quoted(written)}: {error.message}") from None


def _quoted(text: str) -> str:
    """A text for a message: shortened, without what cannot be printed."""
    shown = _UNPRINTABLE.sub("�", text)
    return f"`{shown if len(shown) <= 80 else shown[:79] + '…'}`"


def join_signature(signed: bytes, signature: bytes) -> bytes:
    """The file of an approval: the statement, and its armoured signature."""
    return signed + signature.strip() + b"\n"


def read_approval(content: bytes) -> SignedStatement:
    """The statement of the file of an approval, not verified. StatementError if it is none."""
    if len(content) > LARGEST:
        raise StatementError(f"it is larger than {LARGEST >> 10} KiB")
    found = _ARMOUR.search(content)
    if found is None:
        raise StatementError("it has no signature of SSH or OpenPGP; words are no approval")
    signed, signature = content[: found.start()], content[found.start() :]
    return SignedStatement(parse_statement(signed), signed, signature)


ARRIVAL_SEPARATOR = ", "


def arrival_subject(firings: Iterable[tuple[str, str, str]]) -> str:
    """The subject of an approval of what fires on arrival: policy, scope and stage of each, sorted."""
    return ARRIVAL_SEPARATOR.join(sorted({"/".join(each) for each in firings}))
