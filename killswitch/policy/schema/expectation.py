"""What a policy expects to touch: `expect: {accounts: at most 3, positions: at most 20%}`.

A selector with a slip compiles, and touches every account. The expectation is compared with what is found: a plan exits
1, a first start refuses, a run pages. It never declines or cuts anything that fires.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated

from msgspec import Struct

from killswitch.policy.schema.cross_key_checks import Breach
from killswitch.policy.schema.part import MistakeError, Part, Scalar
from killswitch.policy.schema.scalars import pattern_json, quoted

_COUNT = re.compile(r"at most (\d{1,6})", re.ASCII)
_SHARE = re.compile(r"at most (\d{1,3}(?:\.\d{1,9})?)\s*%", re.ASCII)
_FIX = "write a number or a share of all, such as `at most 3` or `at most 20%`"


class AtMost(Struct, frozen=True):
    """The most that is expected: `count` things, or `share` of all of them (0 to 1); one of the two is None."""

    count: int | None
    share: Decimal | None
    written: str

    def allows(self, found: int, total: int) -> bool:
        """Whether so many of all are no more than expected."""
        if self.count is not None:
            return found <= self.count
        return self.share is None or found <= self.share * total


def at_most(value: object) -> AtMost:
    """`at most 3`, or `at most 20%` of all."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if found := _COUNT.fullmatch(text):
        return AtMost(int(found[1]), None, text)
    if found := _SHARE.fullmatch(text):
        share = Decimal(found[1]) / 100
        if share > 1:
            raise MistakeError("KS2116", f"{quoted(value)} is more than all", "write at most 100%")
        return AtMost(None, share, text)
    fix = _FIX
    if re.fullmatch(r"\d{1,6}(?:\.\d{1,9})?\s*%?", str(value).strip(), re.ASCII) and not isinstance(value, bool):
        fix = f"write `at most {str(value).strip()}`"
    raise MistakeError("KS2116", f"{quoted(value)} is not a bound", fix)


Bound = Annotated[
    AtMost, Scalar(at_most, pattern_json(f"{_COUNT.pattern}|{_SHARE.pattern}", "at most 3", "at most 20%"))
]


class ExpectedReach(Part):
    """The most that a policy is expected to touch, of all accounts and positions of the policy set."""

    accounts: Bound | None = None
    """How many accounts its scopes have. Left out: any number."""
    positions: Bound | None = None
    """How many open positions its scopes have; for a strategy that shares accounts, those that may be its own. Left
    out: any number."""


def expectation_breaches(spec: Mapping[str, object]) -> Iterator[Breach]:
    """Report an expectation that says nothing."""
    if spec.get("expect") == {}:
        fix = "write `accounts: at most 3` or `positions: at most 20%` below it, or remove it"
        yield Breach("KS2218", ("spec", "expect"), "`expect` states no bound", fix)
