"""The form of the client order ids of this program, which tells its own orders and fills from those of others."""

from __future__ import annotations

import re
from typing import Final

MARK: Final = "ks"
HEX_MARK: Final = MARK.encode().hex()
PLAIN_LENGTH: Final = 31
"""Length of an id that contains decision, intent and attempt in plain form."""
SHORTEST: Final = 14
"""Minimum length of an id: shorter ones could collide within a day. No venue's limit is that low."""
DECISION_LENGTH: Final = 20
"""Length of the decision's id, which follows the mark in plain form."""


def is_ours(name: str | None) -> bool:
    """Whether `name` has the form of an id of this program, under any venue's rule."""
    if name is None:
        return False
    digits = name.lower().removeprefix("0x").replace("-", "")
    if len(digits) == 32 and digits.startswith(HEX_MARK):
        return all(digit in "0123456789abcdef" for digit in digits)
    return bool(re.fullmatch(rf"{MARK}[0-9a-z]{{{SHORTEST - 2},{PLAIN_LENGTH - 2}}}", name))


def decision_in(name: str) -> str | None:
    """The decision that an id of ours contains; None for a form that contains only a digest."""
    return name[len(MARK) :][:DECISION_LENGTH] if len(name) == PLAIN_LENGTH and name.startswith(MARK) else None
