"""Meaning of Alpaca's refusals, and what of failures and addresses may be shown.

Alpaca has few codes and many sentences: `40310000` alone covers too few shares, too little money, a wash trade and a
suspended account. A refusal is therefore classified by its code and then by its words, in the order of `MEANINGS`. A
refusal with a code and unknown words has the reason `other`, with Alpaca's own sentence. An answer with neither one of
Alpaca's codes nor known words is no refusal: the order's status is unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from msgspec import Struct

from killswitch.model.legible import legible, shortened
from killswitch.model.parsing import UnreadableError, decimal
from killswitch.model.unanswered import text_of
from killswitch.model.venue import (
    CredentialsRefusedError,
    FateUnknownError,
    OrderRejectedError,
    RateLimitedError,
    RejectReason,
    VenueDownError,
    VenueError,
)

LONGEST_TEXT = 300
"""Characters of Alpaca's text that messages repeat."""

RefusalMeaning = RejectReason | Literal["gone", "denied", "held"]
"""Why an order was refused; or the order no longer exists (`gone`), the keys are not valid (`denied`), or too few
shares are free and the numbers next to the text give the reason (`held`)."""


class RefusedAnswer(Struct, frozen=True):
    """An unsuccessful answer: its status, Alpaca's own code and sentence, and the rest of the body."""

    status: int
    code: int | None
    text: str
    body: Mapping[str, Any]
    retry_after: float | None = None


MEANINGS: Final[tuple[tuple[str, RefusalMeaning, tuple[int, ...]], ...]] = (
    (r"client_?\s?order_?\s?id must be unique", "duplicate_client_order_id", (40010001,)),
    (r"position intent mismatch", "already_flat", (42210000,)),
    (r"order (is )?not found", "gone", (40410000,)),
    (r"not cancell?able|already in .*(filled|cancell?ed|expired|replaced|rejected)|pending[ _]cancel",
     "gone", (42210000,)),
    (r"insufficient (qty|quantity)|insufficient balance for(?! usd\b)", "held", (40310000,)),
    (r"wash trade|opposite side .*order exists|while a .*(buy|sell) order is open",
     "blocked_by_order", (40310000, 42210000)),
    (r"insufficient .*(buying power|balance)|insufficient.*margin", "insufficient_margin", (40310000,)),
    (r"cost basis must be >=|minimal (amount|qty)|minimum (order|amount|qty)|(qty|notional) must be > 0",
     "below_minimum", (40310000, 42210000, 40010001)),
    (r"cost basis must be <=|max(imum|imal)? (order|notional|amount|qty|size)",
     "above_maximum", (40310000, 42210000, 40010001)),
    (r"pattern day trading", "permission", (40310100, 40310000)),
    (r"by user request|trading (is |has been )?(blocked|suspended|disabled)|not authori[sz]ed to trade|restricted"
     r"|account is not (active|allowed)|not allowed to short|cannot be sold short|not eligible to trade",
     "permission", (40310000, 42210000)),
    (r"orders (are )?not allowed for account", "permission", (40010001, 40310000, 42210000)),
    (r"market (is )?(currently )?closed|outside (of )?(market|regular|trading) hours|market hours|trading halt"
     r"|(is )?halted|extended[ _]hours order", "market_closed", (40310000, 42210000)),
    (r"not tradable|not active|asset .*not found|could not find asset",
     "market_closed", (40310000, 42210000, 40410000)),
    (r"too far|price (is )?(outside|beyond|away)|price band|limit up|limit down", "price_band", (40310000, 42210000)),
)  # fmt: skip
"""Words (a regular expression), their meaning, and the codes that they come with. The first match wins; a row holds
for its codes, and for refusals without a code."""


def read_refusal(status: int, text: str, retry_after: float | None = None) -> RefusedAnswer:
    """Parse an answer with a status of 400 and more, whatever its body is."""
    try:
        body = json.loads(text, parse_float=Decimal)
    except ValueError:
        body = {}
    body = body if isinstance(body, Mapping) else {}
    code = body.get("code")
    message = body.get("message")
    words = message if isinstance(message, str) and message else text_of(text)
    shown = "".join(each if each.isprintable() else " " for each in legible(shortened(words, LONGEST_TEXT)))
    return RefusedAnswer(status, code if type(code) is int else None, shown, body, retry_after)


def refusal_meaning(refused: RefusedAnswer) -> RefusalMeaning:
    """Why Alpaca refused; `other` where its words are unknown."""
    words = f"{refused.text} {refused.body.get('reject_reason') or ''}".lower()
    for pattern, meaning, codes in MEANINGS:
        if (refused.code is None or refused.code in codes) and re.search(pattern, words):
            return _shares_held(refused) if meaning == "held" else meaning
    denied = refused.code == 40110000 or refused.status == 401 or (refused.status == 403 and refused.code is None)
    return "denied" if denied else "other"


def _shares_held(refused: RefusedAnswer) -> RejectReason:
    """Why too few shares are free: none are held any more, resting orders hold them, or fewer are held than
    requested."""
    try:
        existing, held = decimal(refused.body.get("existing_qty")), decimal(refused.body.get("held_for_orders"))
        free = decimal(refused.body.get("available"))
    except UnreadableError:
        return "blocked_by_order"
    if existing is not None and existing == 0:
        return "already_flat"
    if held is not None:
        return "blocked_by_order" if held > 0 else "other"
    # Refusals for crypto state the requested and the free quantity only: none free means that orders hold it.
    return "other" if free is not None and free > 0 else "blocked_by_order"


def _is_verdict(refused: RefusedAnswer, meaning: RefusalMeaning) -> bool:
    """Whether Alpaca has refused: in known words or with one of its codes, and without an order in the answer."""
    if refused.body.get("client_order_id") and refused.body.get("id"):
        return False
    coded = refused.code is not None and 40_000_000 <= refused.code < 50_000_000
    return coded or meaning != "other"


def as_venue_error(refused: RefusedAnswer, *, changes: bool) -> VenueError:
    """The error for a refusal of a call that `changes` something or only reads."""
    text = f"Alpaca: {refused.status}" + (f" {refused.code}" if refused.code else "")
    text += f": {refused.text}" if refused.text else ", without a message"
    if refused.status == 429:
        seconds = refused.retry_after
        retry_text = "" if seconds is None else f"; the venue accepts no requests for {round(seconds, 1):g} s"
        return RateLimitedError(f"{text}{retry_text}", seconds)
    if refused.status >= 500 or refused.status == 408 or refused.status < 400:
        # Behind a gateway's 5xx the order may have been accepted; a query can be repeated safely.
        return FateUnknownError(text) if changes else VenueDownError(text)
    meaning = refusal_meaning(refused)
    if meaning == "denied":
        hint = f"{text}; check that the keys belong to this address: paper and live accounts have separate keys"
        return OrderRejectedError("permission", hint) if changes else CredentialsRefusedError(hint)
    if not changes:
        return VenueDownError(text)
    if not _is_verdict(refused, meaning):
        return FateUnknownError(f"{text}; the answer has no refusal code, so the request may have taken effect")
    return OrderRejectedError("other" if meaning in ("gone", "held") else meaning, text)  # type: ignore[arg-type] # the rest are reasons


def without_secrets(address: str) -> str:
    """The address without user, password, query and fragment."""
    parts = _parts(address)
    if parts is None:
        return "an invalid address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def redacted(text: str, *addresses: str | None) -> str:
    """The text with every secret part of these addresses redacted."""
    for address in addresses:
        if address is not None:
            text = text.replace(address, without_secrets(address))
            for secret in _secrets(address):
                text = text.replace(secret, "…")
    return legible(text)


def host_of(address: str) -> str:
    """The `host:port` of an address, without user and path."""
    parts = _parts(address)
    return without_secrets(address) if parts is None else parts.netloc.rpartition("@")[2]


def _secrets(address: str) -> list[str]:
    """Secret parts of an address, encoded and decoded, the longest first so that none is redacted in part.

    Parts of up to three characters are left out: they would redact ordinary words.
    """
    parts = _parts(address)
    if parts is None:
        return [address]
    user = parts.netloc.rpartition("@")[0]
    found = {user, user.partition(":")[2] or user, parts.query, parts.fragment}
    found |= {value for _, value in parse_qsl(parts.query)}
    found |= {unquote(each) for each in found}
    return sorted((each for each in found if len(each) > 3), key=len, reverse=True)


def _parts(address: str) -> SplitResult | None:
    """The parts of an address; None for text that is not one."""
    try:
        return urlsplit(address)
    except ValueError:
        return None
