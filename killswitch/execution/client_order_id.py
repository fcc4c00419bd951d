"""Client order ids, and how long a request for an order stays valid.

The same on every machine and after every restart, so that an order can be asked about by name whatever has happened.

An order that is held up on its way is carried out when it arrives. The venue's word that it has no such order is an
answer only when that can no longer be. Pure.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from uuid import UUID

from killswitch.execution.patience import Pace
from killswitch.model.venue import ClientIdRule, OrderLife

PLAIN = ClientIdRule()
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PLAIN_ID = re.compile(r"[0-9a-z]{20}")
_MARK = "ks"
_HEX_MARK = _MARK.encode().hex()
_WHOLE = 31
"""Characters of an id that spells decision, intent and attempt out."""
_SHORTEST = 14
"""Below this, two orders of one day might share a name by chance: no venue takes so little."""


def client_order_id(decision_id: str, intent_index: int, attempt: int, rule: ClientIdRule = PLAIN) -> str:
    """The name of one attempt at one intent. `intent_index` and `attempt` count up to 36⁴ and 36⁵.

    31 characters that spell its origin out where the venue takes them, else a digest of it in the form that the venue
    takes. ValueError for an origin that does not fit, and for a rule under which names would not be unique.
    """
    digest = decision_id
    if not _PLAIN_ID.fullmatch(decision_id):
        digest = blake2b(decision_id.encode(), digest_size=10).hexdigest()
    origin = f"{digest}{_base36(intent_index, 4)}{_base36(attempt, 5)}"
    match rule.form:
        case "plain" if rule.longest >= _WHOLE:
            return _MARK + origin
        case "plain":
            return _MARK + _short(origin, rule.longest - len(_MARK))
        case "hex":
            return "0x" + _hex(origin)
        case "uuid":
            # Version 8 of RFC 9562: a form of one's own, with the version and the variant where readers look for them.
            digits = _hex(origin)
            return str(UUID(f"{digits[:12]}8{digits[13:16]}a{digits[17:]}"))


def is_ours(name: str | None) -> bool:
    """Whether `name` has the form of a name that this program gives, under any venue's rule."""
    if name is None:
        return False
    bare = name.lower().removeprefix("0x").replace("-", "")
    if len(bare) == 32 and bare.startswith(_HEX_MARK):
        return all(digit in "0123456789abcdef" for digit in bare)
    return bool(re.fullmatch(rf"{_MARK}[0-9a-z]{{{_SHORTEST - 2},{_WHOLE - 2}}}", name))


def _short(origin: str, width: int) -> str:
    if width < _SHORTEST - len(_MARK):
        raise ValueError(f"a venue that takes {width + len(_MARK)} characters cannot be told our orders apart")
    number = int.from_bytes(blake2b(origin.encode(), digest_size=20).digest())
    return _base36(number % 36**width, width)


def _hex(origin: str) -> str:
    return _HEX_MARK + blake2b(origin.encode(), digest_size=14).hexdigest()


def _base36(number: int, width: int) -> str:
    if not 0 <= number < 36**width:
        raise ValueError(f"{number} does not fit into {width} digits")
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits


def validity(life: OrderLife, pace: Pace, expired: int) -> float | None:
    """Seconds for which the next order is to be valid; None where a request cannot say it.

    `expired`: how many before it were refused because their time was up.
    """
    if life.longest is None:
        return None
    wanted = min(pace.longest_validity, pace.first_validity * 2.0 ** min(expired, 10))
    return min(life.longest, max(life.shortest, wanted))


def over_after(life: OrderLife, pace: Pace, valid_for: float | None) -> float:
    """Seconds after sending from which on a request can no longer be carried out. `valid_for`: what it said itself."""
    bounds = [bound for bound in (valid_for, life.always) if bound is not None]
    return max(pace.absence_after, min(bounds, default=pace.unbounded_validity) + pace.after_validity)
