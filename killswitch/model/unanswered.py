"""In plain words, what became of a request that got no answer, or one that is none: for people, not for programs.

Libraries say it by the class of an error, and wrap one in another: what happened is looked for in all of them. Classes
go by their names, so that this needs none of the libraries.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Final

from killswitch.model.legible import shortened

CLOCK_OFF: Final = "this machine's clock is off, by what the venue says"
"""What stands beside a venue's words where these mean the clock, and is looked for where causes are told apart."""
_TAGS: Final = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.DOTALL | re.IGNORECASE)
_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title\s*>", re.DOTALL | re.IGNORECASE)
_LONGEST_PAGE: Final = 100
"""Characters of a page's words that are repeated: the first ones say what it is."""
_DEEPEST: Final = 20
_NO_NAME: Final = frozenset({"gaierror", "ClientConnectorDNSError", "NameResolutionError"})
_CLOSED: Final = frozenset({"ServerDisconnectedError", "ConnectionResetError", "ConnectionAbortedError",
                            "BrokenPipeError", "RemoteDisconnected", "ClientPayloadError"})  # fmt: skip
_LATE: Final = frozenset({"TimeoutError", "Timeout"})
_NOT_ACCEPTED: Final = frozenset({"SSLCertVerificationError", "CertificateError", "ClientConnectorCertificateError"})
_UNREACHED: Final = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}


def why_unanswered(error: BaseException, where: str, within: float | None = None) -> str | None:
    """What happened to a request to `where`, which was given `within` seconds; None where it is nothing of this kind.

    What is surely known wins over what was made of it: a name that is not found, over a connection that failed.
    """
    return next(_told(list(_all(error)), where, within), None)


def _told(found: Sequence[BaseException], where: str, within: float | None) -> Iterator[str]:
    names = frozenset(each.__name__ for one in found for each in type(one).__mro__)
    numbers = {one.errno for one in found if isinstance(one, OSError)}
    if names & _NOT_ACCEPTED:
        said = next((told for one in found if (told := getattr(one, "verify_message", ""))), "")
        yield f"the certificate of {where} is not accepted" + (f": {said}" if said else "")
    if names & _NO_NAME:
        yield f"the name of {where} is not found"
    if "SSLError" in names:
        said = next((told for one in found if isinstance(told := getattr(one, "reason", None), str)), "")
        yield f"{where} does not speak TLS as it should" + (f" ({said.lower().replace('_', ' ')})" if said else "")
    if errno.ECONNREFUSED in numbers or "ConnectionRefusedError" in names:
        yield f"nothing listens at {where} (connection refused)"
    if numbers & _UNREACHED:
        yield f"no network leads to {where}"
    if names & _LATE:
        yield f"no whole answer {'in time' if within is None else f'within {within:g} s'} from {where}"
    if errno.ECONNRESET in numbers or names & _CLOSED:
        yield f"{where} closed the connection without an answer"
    yield from (
        f"{where} cannot be reached: {one.strerror}" for one in found if isinstance(one, OSError) and one.strerror
    )


def words_of(status: int, text: str) -> str:
    """An answer's status and words. Of nothing, what the status is called."""
    if not text.strip():
        return f"{status} {_called(status)}".rstrip() + ", without a word"
    return f"{status}{',' if _is_page(text) else ''} {text_of(text)}"


def text_of(text: str) -> str:
    """The words of an answer; of a web page its title, or else the first words on it. Empty where there are none."""
    if not _is_page(text):
        return text.strip()
    title = _TITLE.search(text)
    told = " ".join(_TAGS.sub(" ", text if title is None else title[1]).split())
    return "a web page instead of data" + (f": {shortened(told, _LONGEST_PAGE)}" if told else "")


def _is_page(text: str) -> bool:
    return text.lstrip().startswith("<")


def _called(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _all(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it is made of, was raised from, or carries, each once."""
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
