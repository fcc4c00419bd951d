"""Which of two things a refusal means that a venue says in one word: its own rules for the symbol decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from killswitch.model.venue import OrderRejectedError, OrderRequest, VenueError
from killswitch_ccxt.numbers import positive


def told_apart(error: VenueError, request: OrderRequest, rule: Mapping[str, Any] | None) -> VenueError:
    """`error`, or a refusal with a reason where the venue named none and the amount is outside the symbol's rules.

    Several venues call every wrong amount by one name; closing leaves what is too small and cuts what is too large.
    """
    if not isinstance(error, OrderRejectedError) or error.reason != "other" or rule is None:
        return error
    limits = (rule.get("limits") or {}).get("amount") or {}
    least, most = positive(limits.get("min")), positive(limits.get("max"))
    if least is not None and request.amount < least:
        return OrderRejectedError("below_minimum", str(error))
    if most is not None and request.amount > most:
        return OrderRejectedError("above_maximum", str(error))
    return error
