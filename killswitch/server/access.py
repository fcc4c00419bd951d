"""Who may do what: tokens with roles and scopes, and the class of a command by its effect. Pure, but for the file.

A token is 256 random bits behind a prefix, shown once; the file holds its SHA-256. A slow hash would add nothing to 256
random bits, and would cost time under an attack. A token that this program did not generate has another form, so that
no example or password is ever one.
"""

from __future__ import annotations

import fcntl
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec
from msgspec import Struct, structs

from killswitch.gate.files import replace_file
from killswitch.model.flags import is_of_policy
from killswitch.model.snapshot import Event, Instant
from killswitch.operations.commands import is_covered

FORMAT: Final = "killswitch.tokens/v1"
PREFIX: Final = "kst_"
_TOKEN = re.compile(r"kst_[A-Za-z0-9_-]{43}", re.ASCII)

Role = Literal["viewer", "trader", "risk", "admin"]
EffectClass = Literal["read", "positions", "report", "tighten", "loosen", "carry", "administer"]
"""`read` changes nothing, and shows no position; `positions` does. `report`: what a bot sends of itself, such as
heartbeats. `tighten` reduces risk, and never waits for a second person. `loosen` lets risk in again. `carry` brings a
statement that somebody has signed, who alone counts. `administer` issues and revokes tokens."""

RIGHTS: Final[dict[Role, frozenset[EffectClass]]] = {
    "viewer": frozenset({"read", "positions", "carry"}),
    "trader": frozenset({"read", "positions", "report", "tighten", "carry"}),
    "risk": frozenset({"read", "positions", "report", "tighten", "loosen", "carry"}),
    "admin": frozenset({"read", "carry", "administer"}),
}
"""What each role may do, in its scopes. An admin issues and revokes tokens, and reads without positions."""

SCOPE_KINDS: Final = ("account", "venue", "strategy", "symbol", "label")
SCOPE_PATTERN: Final = rf"^(portfolio|({'|'.join(SCOPE_KINDS)})/[^\s]+)$"
"""The form of a token's scopes: a misspelled one would be refused everywhere, when somebody needs the token."""

TIGHTENING: Final = frozenset({"apply", "close", "lock", "halt", "cancel", "acknowledge"})
"""Kinds of events that only reduce risk, unless they cancel stops and exits. `apply` carries out a saved plan, which
the tick holds against the stages of the policies: it sends nothing that they do not. `acknowledge` changes nothing that
trades: it needs the same rights, and no second person."""


class TokenRecord(Struct, frozen=True, omit_defaults=True):
    """One token: whose it is and what it may do. `hash`: SHA-256 of the token, in hexadecimal digits.

    `scopes`: account/NAME, venue/NAME, …; `portfolio` is everything.
    """

    id: str
    hash: str
    principal: str
    role: Role
    scopes: tuple[str, ...]
    created: Instant
    expires: Instant | None = None
    request: str | None = None
    """The digest of the idempotency key that a token was issued with over HTTP, and that of the body behind a colon."""
    is_revoked: bool = False
    """Whether somebody has ended it: a clock that is set back gives an expired token its time again, and no revoked."""

    def is_valid_at(self, now: datetime) -> bool:
        """Whether it counts at this time: it has not expired, and was not revoked."""
        return not self.is_revoked and (self.expires is None or now < self.expires)


class TokenFile(Struct, frozen=True):
    """The tokens of a server."""

    tokens: tuple[TokenRecord, ...] = ()
    format: str = FORMAT


class TokenFileError(Exception):
    """The file of tokens cannot be used; the message has the path, the cause and the way out."""


_DECODER = msgspec.json.Decoder(TokenFile)
_ENCODER = msgspec.json.Encoder()


def class_of(event: Event) -> EffectClass:
    """The class of a command, by what it does and not by its verb.

    A paused scope takes on no risk, and a paused policy protects no longer.
    """
    if event.kind in ("pause", "resume"):
        return "tighten" if (event.kind == "pause") != is_of_policy(event) else "loosen"
    if event.kind == "restate":
        return "tighten" if event.restated_as == "loss" else "loosen"
    return "tighten" if event.kind in TIGHTENING and not event.all_orders else "loosen"


class Rights(Protocol):
    """Who may do something, by whatever credential: a role and its scopes."""

    @property
    def role(self) -> Role: ...

    @property
    def scopes(self) -> tuple[str, ...]: ...


def refusal(token: Rights, wanted: EffectClass, scope: str | None, *, is_scoped: bool = True) -> str | None:
    """Why the token may not do that, with what to do instead; None if it may."""
    if wanted not in RIGHTS[token.role]:
        able = ", ".join(role for role, rights in RIGHTS.items() if wanted in rights)
        return f"the role {token.role} may not {_verb(wanted)}: it takes one of {able}"
    if is_scoped and not is_covered(scope, token.scopes):
        return f"the token is for {', '.join(token.scopes) or 'no scope'}, and not for {scope or 'portfolio'}"
    return None


def _verb(wanted: EffectClass) -> str:
    return {
        "read": "read", "positions": "read positions", "report": "report", "tighten": "close, halt, lock or cancel",
        "loosen": "unlock, reset, pause, set flags or cancel stops and exits", "carry": "carry statements",
        "administer": "issue or revoke tokens",
    }[wanted]  # fmt: skip


def no_scope(text: str) -> str | None:
    """Why no command and no view has such a scope; None where one may have it."""
    if re.fullmatch(SCOPE_PATTERN, text):
        return None
    return f"{text} is no scope: write portfolio, or {', '.join(f'{kind}/NAME' for kind in SCOPE_KINDS)}"


def issue(
    principal: str, role: Role, scopes: Sequence[str], created: datetime, expires: datetime | None,
    request: str | None = None,
) -> tuple[str, TokenRecord]:  # fmt: skip
    """A new token, which is shown once, and its record."""
    token = PREFIX + secrets.token_urlsafe(32)
    digest = sha256(token.encode()).hexdigest()
    return token, TokenRecord(secrets.token_hex(4), digest, principal, role, tuple(scopes), created, expires, request)


def ended_by(records: Sequence[TokenRecord], ids: Iterable[str], now: datetime) -> tuple[TokenRecord, ...]:
    """The records with these tokens revoked; of those that are valid, `now` is the end. TokenFileError for an unknown
    id."""
    unknown = set(ids) - {each.id for each in records}
    if unknown:
        known = ", ".join(each.id for each in records) or "none"
        raise TokenFileError(f"there is no token {', '.join(sorted(unknown))}. Known: {known}")
    return tuple(
        each if each.id not in ids else structs.replace(
            each, is_revoked=True, expires=now if each.is_valid_at(now) else each.expires
        )
        for each in records
    )  # fmt: skip


class Tokens:
    """The tokens of a file, read again when it changes: a revoked token ends within a request."""

    def __init__(self, path: Path) -> None:
        """TokenFileError if the file cannot be read."""
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._records: tuple[TokenRecord, ...] = ()
        self._by_hash: dict[str, TokenRecord] = {}
        self._read()

    @property
    def records(self) -> tuple[TokenRecord, ...]:
        """All of them, also those that have expired. TokenFileError if the file has become unreadable."""
        self._read()
        return self._records

    def change(self, change: Callable[[tuple[TokenRecord, ...]], tuple[TokenRecord, ...]]) -> None:
        """Replace the records by those that `change` makes of them, on disk when this returns.

        One process at a time changes the file; others wait. TokenFileError, or OSError if it cannot be written.
        """
        with self._path.with_name(f".{self._path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                before = read_tokens(self._path)
            except OSError as error:
                raise TokenFileError(f"the tokens in {self._path} cannot be read: {error.strerror}") from error
            write_tokens(self._path, structs.replace(before, tokens=change(before.tokens)))
        self._read()

    def find(self, presented: str, now: datetime) -> TokenRecord | None:
        """The record of a token that is valid now. TokenFileError if the file has become unreadable."""
        self._read()
        if not _TOKEN.fullmatch(presented):
            return None
        digest = sha256(presented.encode()).hexdigest()
        found = self._by_hash.get(digest)  # its time says something of the hash, from which no token follows
        if found is None or not hmac.compare_digest(found.hash, digest):
            return None
        return found if found.is_valid_at(now) else None

    def _read(self) -> None:
        try:
            stat = self._path.stat()
            changed = (stat.st_mtime_ns, stat.st_ino)
            if changed != self._seen:
                self._records, self._seen = read_tokens(self._path).tokens, changed
                self._by_hash = {each.hash: each for each in self._records}
        except OSError as error:
            raise TokenFileError(f"the tokens in {self._path} cannot be read: {error.strerror}") from error


def read_tokens(path: Path) -> TokenFile:
    """The tokens of a file. TokenFileError if it is no such file, OSError if it cannot be read."""
    try:
        found = _DECODER.decode(path.read_bytes())
    except msgspec.MsgspecError as error:
        raise TokenFileError(f"{path} is no file of tokens ({error}): issue one with `ksctl serve token`") from error
    if found.format != FORMAT:
        raise TokenFileError(f"{path} has the format {found.format}, and this version reads {FORMAT}")
    return found


def write_tokens(path: Path, tokens: TokenFile) -> None:
    """Replace the file of tokens, readable by its owner alone. OSError if that fails."""
    replace_file(path, msgspec.json.format(_ENCODER.encode(tokens), indent=2), is_private=True)
