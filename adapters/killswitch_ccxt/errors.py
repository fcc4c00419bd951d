"""What a refusal of a venue means for closing. Decided here once: the venue's own code first, then ccxt's class.

A refusal of a change is definite, so that the change may be sent again, only where the venue has given a verdict that
can be read: a code that is known or has the form of its codes, and no number of an order beside it. An answer in which
one field is damaged looks like a refusal too, and its order may be executed: its fate is unknown (ADR 0118).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from killswitch.model.unanswered import CLOCK_OFF
from killswitch.model.venue import (
    CredentialsRefusedError,
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    RateLimitedError,
    RejectReason,
    RequestExpiredError,
    VenueDownError,
    VenueError,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A venue's answer: status, headers (names in lower case), parsed body (or None), its text, the path asked for."""

    status: int
    headers: Mapping[str, str]
    body: Any
    text: str
    path: str

    @property
    def retry_after(self) -> float | None:
        """Seconds, where the venue says them."""
        try:
            return float(self.headers["retry-after"])
        except (KeyError, ValueError):
            return None


Kind = Literal["rejected", "limited", "down", "unknown", "gone", "same", "denied", "malformed"]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a refusal says. `reason` for `rejected` only.

    `rejected`: nothing was done. `limited`: not listened to. `down`: surely nothing done, and not about this order.
    `unknown`: it may have been done. `gone`: there is no such order (any more). `same`: it is so already. `denied`: the
    credentials may not. `malformed`: an answer without a meaning.
    """

    kind: Kind
    reason: RejectReason = "other"
    seconds: float | None = None
    """Of `limited`: for how long, where the venue says it in its documents only."""
    mode: bool = False
    """Of `rejected`: whether it says that the account counts positions in another way than we took for granted."""
    clock: bool = False
    """Of `down`: whether it says that the time in the request is not the venue's, or is up."""


def rejected(reason: RejectReason) -> Meaning:
    """Nothing was done, for this reason."""
    return Meaning("rejected", reason)


def limited(seconds: float) -> Meaning:
    """Not listened to, for so long."""
    return Meaning("limited", seconds=seconds)


def each(meaning: Meaning, *codes: int | str) -> dict[str, Meaning]:
    """Several codes of one meaning, as a part of a dialect's `codes`."""
    return dict.fromkeys(map(str, codes), meaning)


_UNSURE: Final = ("timed out", "timeout", "try again later", "system")
"""Words of a refusal with an unknown code that leave open whether something was done."""


def unsure(codes: Mapping[str, Meaning], code: object, text: object) -> tuple[str, ...]:
    """The code `unsure` where the venue's own code is not in `codes` and the text leaves the outcome open."""
    words = str(text or "").lower()
    return ("unsure",) if str(code) not in codes and any(part in words for part in _UNSURE) else ()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How a venue refuses. `codes`: what each of its codes means. `form`: how one that is not known is written."""

    codes: Mapping[str, Meaning]
    form: re.Pattern[str] | None = None

    def read(self, said: Iterable[str]) -> bool:
        """Whether what an answer says has a code of this venue in it."""
        return any(code in self.codes or (self.form is not None and self.form.fullmatch(code)) for code in said)


NO_VERDICT: Final = "the answer has no code that refuses it, so it may have been done"
_ORDER_NUMBERS: Final = frozenset({"orderId", "ordId", "order_id", "algoId", "oid", "txid"})
"""How venues call the number that they give to an order which they have taken."""


def names_an_order(body: object) -> bool:
    """Whether an answer, or a row of one, has the number of an order in it."""
    if isinstance(body, list):
        return any(map(names_an_order, body))
    if not isinstance(body, Mapping):
        return False
    return any(
        (name in _ORDER_NUMBERS and value not in (None, "", 0, "0", False, [], {})) or names_an_order(value)
        for name, value in body.items()
    )


LIMITED: Final = Meaning("limited")
DOWN: Final = Meaning("down")
CLOCK: Final = Meaning("down", clock=True)
UNKNOWN: Final = Meaning("unknown")
GONE: Final = Meaning("gone")
SAME: Final = Meaning("same")
DENIED: Final = Meaning("denied", "permission")
MALFORMED: Final = Meaning("malformed")


MODE_CHANGED: Final = Meaning("rejected", mode=True)


class ModeChangedError(OrderRejectedError):
    """Refused, since the account's position mode is another one than it was."""


class GoneError(VenueError):
    """The venue has no such order, or has it no more."""


class AlreadySoError(VenueError):
    """What was asked for is so already."""


# ccxt's exceptions by name, the narrow ones before what they are made of. Names, so that this file needs no ccxt.
_BY_CLASS: Final[Mapping[str, Meaning]] = {
    "OrderNotFound": GONE,
    "OrderNotCached": GONE,
    "CancelPending": GONE,
    "DuplicateOrderId": rejected("duplicate_client_order_id"),
    "InsufficientFunds": rejected("insufficient_margin"),
    "MarketClosed": rejected("market_closed"),
    "NoChange": SAME,
    "MarginModeAlreadySet": SAME,
    "PermissionDenied": DENIED,
    "AccountNotEnabled": DENIED,
    "AccountSuspended": DENIED,
    "AuthenticationError": DENIED,
    "RestrictedLocation": DENIED,
    "RateLimitExceeded": LIMITED,
    "DDoSProtection": LIMITED,
    "OnMaintenance": DOWN,
    "InvalidNonce": DOWN,
    "ExchangeClosedByUser": DOWN,
    "RequestTimeout": UNKNOWN,
    "ExchangeNotAvailable": UNKNOWN,
    "NetworkError": UNKNOWN,
    "BadResponse": MALFORMED,
    "NullResponse": MALFORMED,
    "OperationFailed": UNKNOWN,
    "BaseError": rejected("other"),
}


_BY_STATUS: Final[Mapping[int, Meaning]] = {401: DENIED, 418: LIMITED, 429: LIMITED}


def meaning_of(
    error: BaseException, codes: Mapping[str, Meaning], said: Iterable[str], status: int | None = None
) -> Meaning:
    """What `error` of ccxt means; `said` are the venue's own codes in the refusal, the most telling one first.

    `status`: of the answer. It decides where ccxt has found an error in the answer, and knows nothing of it.
    """
    for code in said:
        if code in codes:
            return codes[code]
    if type(error).__name__ in _BROAD and status is not None:
        if status >= 500:
            return UNKNOWN
        if status in _BY_STATUS:
            return _BY_STATUS[status]
    for known in type(error).__mro__:
        if known.__name__ in _BY_CLASS:
            return _BY_CLASS[known.__name__]
    return MALFORMED  # ccxt stumbled over the answer: KeyError, TypeError and the like


def is_definite(error: BaseException, verdicts: Verdicts, said: Iterable[str], answer: Answer | None) -> bool:
    """Whether the venue has said no to a change whose request has reached it, and not only something unreadable.

    A status that refuses whoever asks is a verdict; of venues whose codes are not known, ccxt's narrow classes are.
    """
    if answer is None:
        return False
    if answer.status in _BY_STATUS or verdicts.read(said):
        return True
    return verdicts.form is None and type(error).__name__ not in _BROAD


_BROAD: Final = frozenset({"BaseError", "ExchangeError"})
"""Classes of ccxt that say of an answer no more than that it is no success."""


def as_venue_error(
    meaning: Meaning, text: str, *, changes: bool, left: bool, answer: Answer | None = None
) -> VenueError:
    """The error to raise. `changes`: the call was to change something. `left`: its request may have reached the venue.

    A change whose request never left is surely not done; a reading that got no answer has changed nothing.
    """
    if meaning.clock:
        text = f"{text}; {CLOCK_OFF}"
    why = (
        f"the venue does not accept the credentials, or they may not do this: {text}"
        if meaning.kind == "denied"
        else text
    )
    if meaning.kind == "limited":
        told = None if answer is None else answer.retry_after
        seconds = meaning.seconds if told is None else told
        wanted = "" if seconds is None else f"; it wants no requests for {seconds:g} s"
        return RateLimitedError(f"{text}{wanted}", seconds)
    if meaning.clock:
        return RequestExpiredError(text)
    if meaning.kind in _ALWAYS:
        return _ALWAYS[meaning.kind](why)
    if not changes:
        return _unread(meaning, why)
    if meaning.kind == "unknown":
        return FateUnknownError(text) if left else VenueDownError(text)
    return (ModeChangedError if meaning.mode else OrderRejectedError)(meaning.reason, why)


def _unread(meaning: Meaning, text: str) -> VenueError:
    """What failed to be read."""
    if meaning.kind == "denied":
        return CredentialsRefusedError(text)
    return VenueDownError(text if meaning.kind != "rejected" else f"the venue refused: {text}")


_ALWAYS: Final[Mapping[Kind, type[VenueError]]] = {
    "gone": GoneError, "same": AlreadySoError, "down": VenueDownError, "malformed": MalformedAnswerError,
}  # fmt: skip
"""What means the same whether something was to be changed or not."""


def row_error(verdicts: Verdicts, said: Iterable[str], text: str, *, order: object = None) -> VenueError:
    """What the refusal of one row of an answer means. `order`: the row, where it is about an order that was sent.

    FateUnknownError for a row without a verdict that can be read: the order may be at the venue.
    """
    found = tuple(said)
    if not verdicts.read(found) or names_an_order(order):
        return FateUnknownError(f"{text}; {NO_VERDICT}")
    meant = next((verdicts.codes[code] for code in found if code in verdicts.codes), rejected("other"))
    return as_venue_error(meant, text, changes=True, left=True)


def first_said(*found: Any) -> tuple[str, ...]:
    """Codes as text, without those that are missing."""
    return tuple(str(code) for code in found if code not in (None, ""))
