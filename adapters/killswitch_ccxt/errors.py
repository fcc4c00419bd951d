"""The meaning of a venue's refusal. It is decided here alone: by the venue's own code first, then by ccxt's class.

The refusal of a change is definite, so that the change may be sent again, only where the answer has a readable verdict:
a known code, or one in the form of the venue's codes, and no order number. An answer with one damaged field looks like
a refusal too, while its order may be executed: its status is unknown (ADR 0058).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from msgspec import Struct

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


class VenueAnswer(Struct, frozen=True):
    """A venue's answer: status, headers (names in lower case), parsed body (or None), its text, and the path of the
    request."""

    status: int
    headers: Mapping[str, str]
    body: Any
    text: str
    path: str

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields of the body; none where it is no object."""
        return self.body if isinstance(self.body, Mapping) else {}

    @property
    def retry_after(self) -> float | None:
        """Seconds of the header `Retry-After`; None where the venue states none."""
        try:
            return float(self.headers["retry-after"])
        except (KeyError, ValueError):
            return None


Kind = Literal["rejected", "limited", "down", "unknown", "gone", "same", "denied", "malformed"]


class Meaning(Struct, frozen=True):
    """The meaning of a refusal. `reason` is set for `rejected` only.

    `rejected`: nothing was done. `limited`: not processed because of a rate limit. `down`: surely not done, for a cause
    other than this order. `unknown`: it may have been done. `gone`: the order does not exist, or no longer. `same`: the
    state is already as requested. `denied`: the credentials lack the right. `malformed`: an answer without a meaning.
    """

    kind: Kind
    reason: RejectReason = "other"
    seconds: float | None = None
    """Of `limited`: for how long, where only the venue's documents state it."""
    is_mode_change: bool = False
    """Of `rejected`: whether the account has another position mode than the request assumes."""
    is_clock_error: bool = False
    """Of `down`: whether the timestamp of the request is wrong or expired."""


def rejected(reason: RejectReason) -> Meaning:
    """A rejection: nothing was done, for this reason."""
    return Meaning("rejected", reason)


def limited(seconds: float) -> Meaning:
    """A rate limit that lasts so many seconds."""
    return Meaning("limited", seconds=seconds)


def coded(meaning: Meaning, *codes: int | str) -> dict[str, Meaning]:
    """Several codes of one meaning, as a part of a dialect's `codes`."""
    return dict.fromkeys(map(str, codes), meaning)


_UNSURE: Final = ("timed out", "timeout", "try again later", "system")
"""Text of a refusal with an unknown code that leaves open whether something was done."""


def unsure_code(codes: Mapping[str, Meaning], code: object, text: object) -> tuple[str, ...]:
    """The code `unsure` where the venue's own code is not in `codes` and the text leaves the outcome open."""
    words = str(text or "").lower()
    return ("unsure",) if str(code) not in codes and any(part in words for part in _UNSURE) else ()


class RefusalCodes(Struct, frozen=True):
    """How a venue refuses. `codes`: the meaning of each code. `form`: the form of codes that are not known."""

    codes: Mapping[str, Meaning]
    form: re.Pattern[str] | None = None

    def is_refusal(self, found: Iterable[str]) -> bool:
        """Whether an answer contains a code of this venue."""
        return any(code in self.codes or (self.form is not None and self.form.fullmatch(code)) for code in found)


NO_VERDICT: Final = "the answer has no code of a refusal, so the request may have been executed"
_ORDER_NUMBERS: Final = frozenset({"orderId", "ordId", "order_id", "algoId", "oid", "txid"})
"""Venues' names of the number that they assign to an accepted order."""


def has_order_number(body: object) -> bool:
    """Whether an answer, or one of its rows, contains an order number."""
    if isinstance(body, list):
        return any(map(has_order_number, body))
    if not isinstance(body, Mapping):
        return False
    return any(
        (name in _ORDER_NUMBERS and value not in (None, "", 0, "0", False, [], {})) or has_order_number(value)
        for name, value in body.items()
    )


LIMITED: Final = Meaning("limited")
DOWN: Final = Meaning("down")
CLOCK: Final = Meaning("down", is_clock_error=True)
UNKNOWN: Final = Meaning("unknown")
GONE: Final = Meaning("gone")
SAME: Final = Meaning("same")
DENIED: Final = Meaning("denied", "permission")
MALFORMED: Final = Meaning("malformed")


MODE_CHANGED: Final = Meaning("rejected", is_mode_change=True)


class ModeChangedError(OrderRejectedError):
    """Refused, because the account's position mode has changed."""


class GoneError(VenueError):
    """The venue does not have the order, or no longer."""


class AlreadySoError(VenueError):
    """The state is already as requested."""


# ccxt's exceptions by name, without the import of ccxt. The nearest base class of an exception decides.
_BY_CLASS: Final[Mapping[str, Meaning]] = {
    **coded(GONE, "OrderNotFound", "OrderNotCached", "CancelPending"),
    **coded(rejected("duplicate_client_order_id"), "DuplicateOrderId"),
    **coded(rejected("insufficient_margin"), "InsufficientFunds"),
    **coded(rejected("market_closed"), "MarketClosed"),
    **coded(SAME, "NoChange", "MarginModeAlreadySet"),
    **coded(DENIED, "AuthenticationError", "PermissionDenied", "AccountNotEnabled", "AccountSuspended"),
    **coded(DENIED, "RestrictedLocation"),
    **coded(LIMITED, "RateLimitExceeded", "DDoSProtection"),
    **coded(DOWN, "OnMaintenance", "InvalidNonce", "ExchangeClosedByUser"),
    **coded(UNKNOWN, "RequestTimeout", "ExchangeNotAvailable", "NetworkError", "OperationFailed"),
    **coded(MALFORMED, "BadResponse", "NullResponse"),
    **coded(rejected("other"), "BaseError"),
}


_BY_STATUS: Final[Mapping[int, Meaning]] = {401: DENIED, 418: LIMITED, 429: LIMITED}


def meaning_of(
    error: BaseException, codes: Mapping[str, Meaning], found: Iterable[str], status: int | None = None
) -> Meaning:
    """The meaning of ccxt's `error`; `found` are the venue's own codes in the refusal, the most specific one first.

    `status`: of the answer. It decides where ccxt has found an error that it does not know.
    """
    for code in found:
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
    return MALFORMED  # ccxt failed to process the answer: KeyError, TypeError and the like


def is_definite(error: BaseException, verdicts: RefusalCodes, found: Iterable[str], answer: VenueAnswer | None) -> bool:
    """Whether the venue has refused a change whose request has reached it, in a readable way.

    A status that refuses every request is a verdict; for venues without known codes, ccxt's narrow classes are.
    """
    if answer is None:
        return False
    if answer.status in _BY_STATUS or verdicts.is_refusal(found):
        return True
    return verdicts.form is None and type(error).__name__ not in _BROAD


_BROAD: Final = frozenset({"BaseError", "ExchangeError"})
"""ccxt's classes that state only that a request failed."""


def as_venue_error(
    meaning: Meaning, text: str, *, is_change: bool, was_sent: bool, answer: VenueAnswer | None = None
) -> VenueError:
    """The error to raise. `is_change`: the call was to change something. `was_sent`: its request may have arrived.

    A change whose request was not sent is surely not done; a query without an answer has changed nothing.
    """
    if meaning.is_clock_error:
        return RequestExpiredError(f"{text}; {CLOCK_OFF}")
    if meaning.kind == "denied":
        text = f"the venue rejects the credentials, or they lack the permission: {text}"
    if meaning.kind == "limited":
        stated = None if answer is None else answer.retry_after
        seconds = meaning.seconds if stated is None else stated
        retry_text = "" if seconds is None else f"; the venue accepts no requests for {seconds:g} s"
        return RateLimitedError(f"{text}{retry_text}", seconds)
    if meaning.kind in _FOR_CHANGES_AND_QUERIES:
        return _FOR_CHANGES_AND_QUERIES[meaning.kind](text)
    if not is_change:
        return _query_error(meaning, text)
    if meaning.kind == "unknown":
        return FateUnknownError(text) if was_sent else VenueDownError(text)
    return (ModeChangedError if meaning.is_mode_change else OrderRejectedError)(meaning.reason, text)


def _query_error(meaning: Meaning, text: str) -> VenueError:
    """The error of a failed query."""
    if meaning.kind == "denied":
        return CredentialsRefusedError(text)
    return VenueDownError(text if meaning.kind != "rejected" else f"the venue refused the request: {text}")


_FOR_CHANGES_AND_QUERIES: Final[Mapping[Kind, type[VenueError]]] = {
    "gone": GoneError, "same": AlreadySoError, "down": VenueDownError, "malformed": MalformedAnswerError,
}  # fmt: skip
"""Meanings that are the same for changes and queries."""


def row_error(verdicts: RefusalCodes, codes: Iterable[str], text: str, *, order: object = None) -> VenueError:
    """The error of one refused row of an answer. `order`: the row, where it concerns an order that was sent.

    FateUnknownError for a row without a readable verdict: the order may be at the venue.
    """
    found = tuple(codes)
    if not verdicts.is_refusal(found) or has_order_number(order):
        return FateUnknownError(f"{text}; {NO_VERDICT}")
    meaning = next((verdicts.codes[code] for code in found if code in verdicts.codes), rejected("other"))
    return as_venue_error(meaning, text, is_change=True, was_sent=True)


def present_codes(*found: Any) -> tuple[str, ...]:
    """Codes as text, without missing ones."""
    return tuple(str(code) for code in found if code not in (None, ""))
