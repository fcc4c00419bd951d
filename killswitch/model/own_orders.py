"""How an order of this program is recognised: by the form of its client order id, under any venue's rule."""

from __future__ import annotations

import re
from typing import Final

MARK: Final = "ks"
"""How every plain id begins."""
HEX_MARK: Final = MARK.encode().hex()
PLAIN_LENGTH: Final = 31
"""Length of an id that contains decision, intent and attempt in plain form."""
SHORTEST: Final = 14
"""Minimum length of an id: shorter ones could collide within a day. No venue's limit is that low."""
_PLAIN: Final = re.compile(rf"{MARK}[0-9a-z]{{{SHORTEST - 2},{PLAIN_LENGTH - 2}}}")


def is_ours(name: str | None) -> bool:
    """Whether `name` has the form of an id of this program, under any venue's rule."""
    if name is None:
        return False
    digits = name.lower().removeprefix("0x").replace("-", "")
    if len(digits) == 32 and digits.startswith(HEX_MARK):
        return all(digit in "0123456789abcdef" for digit in digits)
    return bool(_PLAIN.fullmatch(name))
