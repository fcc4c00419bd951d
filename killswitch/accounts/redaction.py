"""Redacts credentials in the texts of an adapter: its errors are printed, stored and shown by `status`."""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final, TypeVar
from urllib.parse import quote, quote_plus

from msgspec.structs import replace

from killswitch.accounts.poll.shared_adapter import AdapterView
from killswitch.model.inspection import Inspection, KeyRights
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import FateUnknownError, OrderReport, OrderRequest, Push, VenueAdapter, VenueError

T = TypeVar("T")
HIDDEN = "[hidden credential]"
SHORTEST = 6
"""Characters of base64 that are hidden: fewer are in many words."""
LEAST: Final = 4
"""Characters of a credential's beginning that are hidden where a text was cut off."""
_PRIVATE: Final = 0xF0000
"""The first code point of a private area of Unicode, whose characters represent hosts while credentials are hidden."""
_ESCAPED: Final = re.compile("%[0-9A-F]{2}")
_CUT: Final = re.compile(r"…|\.\.\.")
_CLOSING: Final = " \n\t'\"`)]}>"
_Wording = Callable[..., Callable[..., object]]


class Redactor:
    """Redacts the credentials of one account, as they are and in every form in which a client may write them."""

    def __init__(self, secrets: Iterable[str], hosts: Iterable[str] = ()) -> None:
        """`hosts`: names that no secret is: they stay readable where a credential is only a part of one."""
        written = {form for secret in secrets if secret for form in _forms(str(secret))}
        # Longer ones first: a credential that contains another one must not be left in pieces.
        self._written = sorted(written, key=len, reverse=True)
        self._hosts = sorted({host for host in hosts if host}, key=len, reverse=True)

    def hide(self, text: str) -> str:
        """`text` with every credential replaced."""
        within = [each for each in self._written if any(each != host and host in each for host in self._hosts)]
        for each in within:  # a credential that contains a host is hidden whole
            text = text.replace(each, HIDDEN)
        for number, host in enumerate(self._hosts):
            text = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w-]|\.\w)", chr(_PRIVATE + number), text)
        for each in self._written:
            text = text.replace(each, HIDDEN)
        text = self._without_beginnings(text)
        for number, host in enumerate(self._hosts):
            text = text.replace(chr(_PRIVATE + number), host)
        return text

    def _without_beginnings(self, text: str) -> str:
        """Redact beginnings of credentials where the text was cut off."""
        for end in sorted(_ends(text), reverse=True):  # from the last one, so that earlier offsets stay valid
            begins = min((_begins(text, each, end) for each in self._written), default=end)
            if begins < end:
                text = text[:begins] + HIDDEN + text[end:]
        return text


def _ends(text: str) -> set[int]:
    """Where `text` was or may have been cut off: at its end, with and without closing quotes, and at ellipses."""
    ends = {len(text), len(text.rstrip(_CLOSING))} | {found.start() for found in _CUT.finditer(text)}
    return ends - {0}


def _begins(text: str, secret: str, end: int) -> int:
    """Where a beginning of `secret` begins that ends at `end`; `end` where there is none."""
    at = text.find(secret[:LEAST], max(0, end - len(secret)), end)
    while at >= 0:
        if secret.startswith(text[at:end]):
            return at
        at = text.find(secret[:LEAST], at + 1, end)
    return end


def _forms(secret: str) -> Iterator[str]:
    """The secret as it is, URL- and form-encoded, as Python's `repr`, as in JSON and HTML, in hex, and in base64."""
    # Bytes of the environment that are not UTF-8 are decoded as surrogates, and appear in a URL as the original bytes.
    raw = secret.encode(errors="surrogateescape")
    yield from (secret, str.__repr__(secret)[1:-1], repr(raw)[2:-1])
    for written in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield from (written, written.replace("/", r"\/"))
    yield from (escape(secret), escape(secret, quote=False), escape(secret).replace("&#x27;", "&#39;"))
    for written in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield from (written, _ESCAPED.sub(lambda found: found[0].lower(), written))
    yield from (raw.hex(), raw.hex().upper())
    for offset in range(3):
        # Adjacent bytes change the characters at the edges: only those between are certain.
        first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
        for encode in (b64encode, urlsafe_b64encode):
            inside = encode(b"\0" * offset + raw)[first:last].decode()
            if len(inside) >= SHORTEST:
                yield inside


class RedactedAdapter(AdapterView):
    """A view of an adapter that redacts credentials in errors and reasons."""

    def __init__(self, adapter: VenueAdapter, redactor: Redactor) -> None:
        self._redactor = redactor
        super().__init__(adapter)

    def _optional(self, name: str, call: Callable[..., Any]) -> Callable[..., object]:
        wording: _Wording = _REDACTIONS.get(name, _redact_errors)
        return wording(self, call)

    async def snapshot(self) -> AccountSnapshot:
        answer = await super().snapshot()
        if not isinstance(answer, AccountSnapshot) or answer.reason is None:
            return answer
        return replace(answer, reason=self._redactor.hide(answer.reason))

    async def _through(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except Exception as error:
            hidden = self._redactor.hide(str(error))
            if hidden == str(error):
                raise
            if isinstance(error, VenueError):
                raise _venue_error_with(error, hidden) from None
            raise RuntimeError(f"{type(error).__name__}: {hidden}") from None

    def _redacted_push(self, push: Push) -> Push:
        return push if push.why is None else replace(push, why=self._redactor.hide(push.why))

    def _redacted_error(self, error: VenueError) -> VenueError:
        hidden = self._redactor.hide(str(error))
        return error if hidden == str(error) else _venue_error_with(error, hidden)


def _redact_errors(venue: RedactedAdapter, call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    """Redact the errors of a call; its answer contains no text of the venue."""
    return lambda *arguments: venue._through(call(*arguments))


def _unchanged(venue: RedactedAdapter, call: Callable[..., object]) -> Callable[..., object]:
    """Leave a local call as it is."""
    return call


def _redact_batch(venue: RedactedAdapter, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[object]]:
    async def submit(requests: Sequence[OrderRequest]) -> Sequence[OrderReport | VenueError]:
        answers = await venue._through(call(requests))
        return [venue._redacted_error(answer) if isinstance(answer, VenueError) else answer for answer in answers]

    return submit


def _redact_pushes(venue: RedactedAdapter, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[object]]:
    return lambda receive: venue._through(call(lambda push: receive(venue._redacted_push(push))))


def _redact_inspection(venue: RedactedAdapter, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[object]]:
    """Redact the texts of the venue alone, as `_redact_note` does."""
    hide = venue._redactor.hide

    async def inspect() -> Inspection:
        found: Inspection = await venue._through(call())
        modes = (found.status, found.position_mode, found.margin_mode)
        status, position_mode, margin_mode = (None if each is None else hide(each) for each in modes)
        return replace(
            found,
            status=status, position_mode=position_mode, margin_mode=margin_mode,
            rights=replace(found.rights, note=hide(found.rights.note)),
            capabilities=tuple(replace(each, note=hide(each.note)) for each in found.capabilities),
            notes=tuple(map(hide, found.notes)),
        )  # fmt: skip

    return inspect


def _redact_note(venue: RedactedAdapter, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[object]]:
    """Redact the note alone: a credential that is spelled like a right must not hide that the key has it."""

    async def key_rights() -> KeyRights:
        found: KeyRights = await venue._through(call())
        return replace(found, note=venue._redactor.hide(found.note))

    return key_rights


_REDACTIONS: Final[Mapping[str, _Wording]] = {
    "used": _unchanged, "batches.submit": _redact_batch, "listen": _redact_pushes, "inspect": _redact_inspection,
    "key_rights": _redact_note, "remember": _unchanged, "kept_rules.to_keep": _unchanged, "kept_rules.use": _unchanged,
}  # fmt: skip
"""Call of a capability → how its answer is redacted; others contain no text of the venue."""


def _venue_error_with(error: VenueError, text: str) -> VenueError:
    """An error of the same meaning with the message `text`."""
    error.args = (text,)
    # A subclass may build its message from something else than its arguments: such an error is of unknown status.
    return error if str(error) == text else FateUnknownError(text)
