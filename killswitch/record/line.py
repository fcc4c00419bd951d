"""Lines of the record: their bytes, and the hash that chains them.

A line is one entry: `{"prev":"<64 hex>","seq":N,`, then the other keys sorted, UTF-8, without blanks, ended by LF. Its
leaf is SHA-256 of a zero byte and the line without its LF (RFC 6962, 2.1); `prev` is the leaf of the line before, 64
zeros at the first. The bytes that are stored are hashed, and never a serialisation of what was parsed from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Struct

from killswitch.model.instant import rfc3339
from killswitch.model.record_entry import Field, Private, RecordEntry

FORMAT: Final = "killswitch.audit/v1"
MOST_BYTES: Final = 700
"""The longest line, without its LF: a proof with its line stays below 2 KB."""
NO_LEAF: Final = bytes(32)
"""`prev` of the first line of a chain."""
SALT_BYTES: Final = 16

_HEAD: Final = re.compile(rb'\{"prev":"([0-9a-f]{64})","seq":(0|[1-9][0-9]{0,17}),"')
_JSON: Final = msgspec.json.Encoder(order="deterministic")


class Kept(Struct, frozen=True):
    """Bytes that are kept outside of the line, under their SHA-256. `salt` precedes the value of an erasable one."""

    digest: str
    content: bytes
    salt: bytes | None = None


class Line(Struct, frozen=True):
    """A line without its LF, its leaf, and what is kept outside of it."""

    number: int
    text: bytes
    leaf: bytes
    kept: tuple[Kept, ...] = ()


class LineHead(Struct, frozen=True):
    """What is read of a line without parsing it: the leaf that it names, and its number."""

    previous: bytes
    number: int


def leaf_of(line: bytes) -> bytes:
    """The leaf of a line, which has no LF: SHA-256(00 ‖ line), RFC 6962 section 2.1."""
    return sha256(b"\0" + line).digest()


def read_head(line: bytes) -> LineHead | None:
    """The beginning of a line; None where it does not begin as a line does."""
    found = _HEAD.match(line)
    return None if found is None else LineHead(bytes.fromhex(found[1].decode()), int(found[2]))


def digest_of(content: bytes) -> str:
    """The name under which bytes are kept: SHA-256 in hexadecimal digits."""
    return sha256(content).hexdigest()


def salted_digest(salt: bytes, value: bytes) -> str:
    """The digest of an erasable value. Without the salt a short value could be guessed."""
    return sha256(salt + value).hexdigest()


def make_line(
    entry: RecordEntry,
    number: int,
    previous: bytes,
    salt: Callable[[], bytes],
    *,
    answers: int | None = None,
    late: str | None = None,
) -> Line:
    """The line of an entry as number `number` after the line with the leaf `previous`.

    What is too long for `MOST_BYTES` is recorded by its digest: first the details, then the fields too. `salt`: 16
    random bytes for each erasable value. `answers`: the number of the announcement. `late`: when the line was stored,
    for an entry that was made while the store refused writes.
    """
    kept: list[Kept] = []
    fields, details = (_sealed(each, salt, kept) for each in (entry.fields, entry.details))
    base: dict[str, Any] = {"at": rfc3339(entry.at), "kind": entry.kind}
    if entry.announces is not None:
        base["announces"] = True
    if answers is not None:
        base["answers"] = answers
    if late is not None:
        base["late"] = late
    if entry.body is not None:
        base["body"] = _reference(entry.body)
        if entry.kept is None:
            kept.append(Kept(digest_of(entry.body), entry.body))
    for keys in _shorter_and_shorter(base, fields, details, kept):
        text = _text(number, previous, keys)
        if len(text) <= MOST_BYTES:
            break
    else:
        if entry.body is not None and entry.kept is not None:  # the id under which the body is kept is outside too
            kept.append(Kept(digest_of(entry.body), entry.body))
    return Line(number, text, leaf_of(text), tuple(kept))


def _shorter_and_shorter(
    base: dict[str, Any], fields: Mapping[str, Any], details: Mapping[str, Any], kept: list[Kept]
) -> Iterator[dict[str, Any]]:
    """The keys of a line: whole, then with its details by their digest, then with its fields by theirs too."""
    yield {**base, **fields, "details": details} if details else {**base, **fields}
    if details:
        outside = _JSON.encode(details)
        kept.append(Kept(digest_of(outside), outside))
        base = base | {"details": _reference(outside)}
        yield {**base, **fields}
    outside = _JSON.encode(fields)
    kept.append(Kept(digest_of(outside), outside))
    yield base | {"fields": _reference(outside)}


def _text(number: int, previous: bytes, keys: Mapping[str, Any]) -> bytes:
    # The keys are sorted in themselves and follow the head, whose place is fixed: it is read without parsing.
    return b'{"prev":"%s","seq":%d,%s' % (previous.hex().encode(), number, _JSON.encode(keys)[1:])


def _reference(content: bytes) -> dict[str, Any]:
    return {"sha256": digest_of(content), "size": len(content)}


def _sealed(fields: dict[str, Field], salt: Callable[[], bytes], kept: list[Kept]) -> Mapping[str, Any]:
    """The fields with each erasable value replaced by its salted digest; appends what that hides to `kept`."""
    values = fields.values()
    if Private not in map(type, values) and "".join([it for it in values if type(it) is str]).isascii():
        return fields  # as of nearly every line, for which a close waits
    sealed: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Private):
            grain, content = salt(), value.value.encode("utf-8", "backslashreplace")
            kept.append(Kept(salted_digest(grain, content), content, grain))
            sealed[name] = {"salted": kept[-1].digest}
        elif isinstance(value, str):
            # A lone surrogate has no UTF-8: it is written as its escape.
            sealed[name] = value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
        else:
            sealed[name] = value
    return sealed


class LineContent(Struct, frozen=True):
    """The keys of a line that verification and statements read; a line may have others."""

    prev: str
    seq: int
    at: str
    kind: str
    announces: bool = False
    answers: int | None = None
    late: str | None = None
    body: dict[str, str | int] | None = None
    details: dict[str, Any] | None = None
    fields: dict[str, str | int] | None = None
    format: str | None = None
    chain: str | None = None
    decision: str | None = None
    command: str | None = None


class LineOutline(Struct, frozen=True, gc=False):
    """The keys that verification reads of every line. A million lines are read in half the time of `LineContent`."""

    at: str
    kind: str
    announces: bool = False
    answers: int | None = None
    late: str | None = None


_OUTLINE: Final = msgspec.json.Decoder(LineOutline)
_CONTENT: Final = msgspec.json.Decoder(LineContent)
_ALL: Final = msgspec.json.Decoder(dict[str, Any])


def outline_of(line: bytes) -> LineOutline | None:
    """The outline of a line; None where it is not that of a line of this format."""
    try:
        return _OUTLINE.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def content_of(line: bytes) -> LineContent | None:
    """The content of a line; None where it is not that of a line of this format."""
    try:
        return _CONTENT.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def keys_of(line: bytes) -> dict[str, Any] | None:
    """All keys of a line; None where it is no JSON object."""
    try:
        return _ALL.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def references_of(content: LineContent) -> tuple[str, ...]:
    """The digests of what a line keeps outside of it, without its erasable values."""
    found = (content.body, content.fields, content.details)
    return tuple(str(each["sha256"]) for each in found if each is not None and set(each) == {"sha256", "size"})
