"""Explanations of failed requests, for people.

Libraries express the cause by error classes and wrap one error in another, so all of them are searched. Classes are
matched by name, which needs no import of the libraries.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Final

from killswitch.model.legible import shortened

CLOCK_OFF: Final = "this machine's clock is off, by what the venue says"
"""The phrase added to a venue's message about a wrong clock; causes are classified by it."""
_TAGS: Final = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.DOTALL | re.IGNORECASE)
_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title\s*>", re.DOTALL | re.IGNORECASE)
_LONGEST_PAGE: Final = 100
"""The maximum number of characters quoted from a web page."""
_DEEPEST: Final = 20
_NO_NAME: Final = frozenset({"gaierror", "ClientConnectorDNSError", "NameResolutionError"})
_CLOSED: Final = frozenset({"ServerDisconnectedError", "ConnectionResetError", "ConnectionAbortedError",
                            "BrokenPipeError", "RemoteDisconnected", "ClientPayloadError"})  # fmt: skip
_LATE: Final = frozenset({"TimeoutError", "Timeout"})
_NOT_ACCEPTED: Final = frozenset({"SSLCertVerificationError", "CertificateError", "ClientConnectorCertificateError"})
_UNREACHED: Final = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}


def why_unanswered(error: BaseException, where: str, within: float | None = None) -> str | None:
    """The cause of a failed request to `where` with a timeout of `within` seconds; None for other errors.

    A specific cause takes precedence over a general one: an unresolved name over a failed connection.
    """
    return next(_explanations(list(_all(error)), where, within), None)


def _explanations(found: Sequence[BaseException], where: str, within: float | None) -> Iterator[str]:
    names = frozenset(each.__name__ for one in found for each in type(one).__mro__)
    numbers = {one.errno for one in found if isinstance(one, OSError)}
    if names & _NOT_ACCEPTED:
        detail = next((text for one in found if (text := getattr(one, "verify_message", ""))), "")
        yield f"the TLS certificate of {where} is not trusted" + (f": {detail}" if detail else "")
    if names & _NO_NAME:
        yield f"the host name of {where} cannot be resolved"
    if "SSLError" in names:
        detail = next((text for one in found if isinstance(text := getattr(one, "reason", None), str)), "")
        yield f"the TLS handshake with {where} failed" + (f" ({detail.lower().replace('_', ' ')})" if detail else "")
    if errno.ECONNREFUSED in numbers or "ConnectionRefusedError" in names:
        yield f"{where} refused the connection"
    if numbers & _UNREACHED:
        yield f"the network of {where} is unreachable"
    if names & _LATE:
        yield f"no complete answer {'in time' if within is None else f'within {within:g} s'} from {where}"
    if errno.ECONNRESET in numbers or names & _CLOSED:
        yield f"{where} closed the connection without an answer"
    yield from (f"{where} cannot be reached: {it.strerror}" for it in found if isinstance(it, OSError) and it.strerror)


def words_of(status: int, text: str) -> str:
    """The status and text of an answer; for an empty answer, the name of the status."""
    if not text.strip():
        return f"{status} {_status_phrase(status)}".rstrip() + ", without a message"
    return f"{status}{',' if _is_page(text) else ''} {text_of(text)}"


def text_of(text: str) -> str:
    """The text of an answer; for a web page its title, or its first words without one. Empty without text."""
    if not _is_page(text):
        return text.strip()
    title = _TITLE.search(text)
    shown = " ".join(_TAGS.sub(" ", text if title is None else title[1]).split())
    return "a web page instead of data" + (f": {shortened(shown, _LONGEST_PAGE)}" if shown else "")


def _is_page(text: str) -> bool:
    return text.lstrip().startswith("<")


def _status_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _all(error: BaseException) -> Iterator[BaseException]:
    """The error and all errors that it was raised from or contains, each once."""
    seen: set[int] = set()
    left: list[object] = [error]
    while left and len(seen) < _DEEPEST:
        one = left.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [one.__cause__, None if one.__suppress_context__ else one.__context__]
        left += [*one.args, getattr(one, "os_error", None), getattr(one, "reason", None)]
        left += getattr(one, "exceptions", ())
