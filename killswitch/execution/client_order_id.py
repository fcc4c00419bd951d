"""Client order ids, and how long a request for an order stays valid. Pure.

Ids are the same on every machine and after every restart, so that an order can always be queried by its name.

A delayed request is carried out when it arrives. The venue's answer that it has no such order counts only when that can
no longer happen.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from uuid import UUID

from killswitch.execution.closing_pace import ClosingPace
from killswitch.model.backoff import Backoff
from killswitch.model.venue import (
    OWN_HEX_MARK,
    OWN_LENGTH,
    OWN_MARK,
    OWN_SHORTEST,
    STOP_WORK,
    ClientIdRule,
    OrderLife,
)

PLAIN = ClientIdRule()
DRILL_MARK = "drill"
"""How the client order id of the order that opens a live drill's position begins."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PLAIN_ID = re.compile(r"[0-9a-z]{20}")


def client_order_id(decision_id: str, intent_index: int, attempt: int, rule: ClientIdRule = PLAIN) -> str:
    """The client order id of one attempt at one intent; `intent_index` and `attempt` count up to 36⁴ and 36⁵.

    The id has 31 characters that contain its origin in plain form where the venue accepts them, else it is a digest in
    the form that the venue accepts. ValueError for an origin that does not fit, and for a rule under which ids would
    not be unique.
    """
    digest = decision_id
    if not _PLAIN_ID.fullmatch(decision_id):
        digest = blake2b(decision_id.encode(), digest_size=10).hexdigest()
    origin = f"{digest}{_base36(intent_index, 4)}{_base36(attempt, 5)}"
    match rule.form:
        case "plain" if rule.longest >= OWN_LENGTH:
            return OWN_MARK + origin
        case "plain":
            return OWN_MARK + _short(origin, rule.longest - len(OWN_MARK))
        case "hex":
            return "0x" + _hex(origin)
        case "uuid":
            # Version 8 of RFC 9562: a custom form with valid version and variant bits.
            digits = _hex(origin)
            return str(UUID(f"{digits[:12]}8{digits[13:16]}a{digits[17:]}"))


def drill_order_id(origin: str, rule: ClientIdRule = PLAIN) -> str:
    """The client order id of the order that opens a live drill's position, in the form that the venue accepts.

    It begins with the mark of a drill and not with that of closes, so that no close takes it for an order of its own.
    `origin` identifies one run for ever. ValueError for a rule under which ids would not be unique.
    """
    if rule.form == "plain":
        width = min(rule.longest, OWN_LENGTH) - len(DRILL_MARK)
        if width < OWN_SHORTEST - len(OWN_MARK):
            raise ValueError(f"client order ids of {rule.longest} characters are too short for a drill")
        number = int.from_bytes(blake2b(origin.encode(), digest_size=20).digest())
        return DRILL_MARK + _base36(number % 36**width, width)
    mark = DRILL_MARK.encode().hex()
    digits = mark + blake2b(origin.encode(), digest_size=16).hexdigest()[: 32 - len(mark)]
    return "0x" + digits if rule.form == "hex" else str(UUID(f"{digits[:12]}8{digits[13:16]}a{digits[17:]}"))


def catastrophe_stop_work(origin: str) -> str:
    """What a catastrophe stop is journaled under in place of a decision: 20 characters that its id contains.

    `origin` identifies one order for ever: account, position and number.
    """
    width = 20 - len(STOP_WORK)
    return STOP_WORK + _base36(int.from_bytes(blake2b(origin.encode(), digest_size=16).digest()) % 36**width, width)


def names_catastrophe_stops(rule: ClientIdRule) -> bool:
    """Whether ids under the rule show which resting order is a catastrophe stop."""
    return rule.form == "plain" and rule.longest >= OWN_LENGTH


def _short(origin: str, width: int) -> str:
    if width < OWN_SHORTEST - len(OWN_MARK):
        raise ValueError(f"client order ids of {width + len(OWN_MARK)} characters are too short to be unique")
    number = int.from_bytes(blake2b(origin.encode(), digest_size=20).digest())
    return _base36(number % 36**width, width)


def _hex(origin: str) -> str:
    return OWN_HEX_MARK + blake2b(origin.encode(), digest_size=14).hexdigest()


def _base36(number: int, width: int) -> str:
    if not 0 <= number < 36**width:
        raise ValueError(f"{number} does not fit into {width} digits")
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits


def validity(life: OrderLife, pace: ClosingPace, expired: int) -> float | None:
    """Validity of the next order in seconds; None where a request cannot carry it.

    `expired`: number of orders before it that were refused as expired.
    """
    if life.longest is None:
        return None
    wanted = Backoff(pace.first_validity, pace.longest_validity).after(expired + 1)
    return min(life.longest, max(life.shortest, wanted))


def lapses_after(life: OrderLife, pace: ClosingPace, valid_for: float | None) -> float:
    """Seconds after sending at which a request can no longer be carried out. `valid_for`: its own validity."""
    limits = [bound for bound in (valid_for, life.always) if bound is not None]
    return max(pace.absence_after, min(limits, default=pace.assumed_validity) + pace.validity_margin)
