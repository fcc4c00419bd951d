"""Faults between a venue and us: by script, or by chance that a seed decides.

Chance is decided for the n-th call of a kind about a symbol and nothing else, so that one mishap can be left out and
the others stay: what a failing run printed can be reduced by hand, or by `tests.faults.campaign`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import Final, Literal, Protocol

from msgspec import Struct

from killswitch.model.venue import Call
from tests.faults.statement import WRONG

Mishap = Literal[
    "none",
    "down",  # surely not done, and the adapter knows
    "limited",  # surely not done: too many requests
    "lost",  # never arrives; the connection breaks
    "silent",  # never arrives, and no answer ever comes
    "done",  # done, and the connection breaks
    "done_silent",  # done, and no answer ever comes
    "garbled",  # done, and the answer makes no sense
    "defect",  # done, and the adapter raises what it should not
    "called_off",  # done, and the adapter cancels its own request
    "slow",  # done and answered, seconds late
    "late",  # the connection breaks, and the request arrives a second later all the same
    "held",  # the connection breaks, and the request arrives many seconds later: it is carried out if it is valid then
    "twice",  # the request arrives twice
    "redirected",  # not done; the answer is of 3xx and names another place, where it would be done
    "mispacked",  # done, and the answer is not packed as it claims
    "huge",  # done, and the answer, a good one, unpacks to more than anybody can keep
    "nonsense",  # done, and the answer is about another order, or less than nothing was filled
    "empty", "page", "stale", "lagging", "malformed", "sign", "nan",  # see tests.faults.statement
]  # fmt: skip
COMMON: Final[tuple[Mishap, ...]] = (
    "down", "limited", "lost", "silent", "done", "done_silent", "garbled", "defect", "called_off", "slow",
)  # fmt: skip
MISHAPS: Final[Mapping[Call, tuple[Mishap, ...]]] = {
    "snapshot": (*COMMON, *WRONG),
    "submit": (*COMMON, "late", "twice", "nonsense"),
    "submit_batch": (*COMMON, "late", "twice"),
    "close_book": (*COMMON, "late", "twice"),
    "find_order": (*COMMON, "empty", "lagging", "nonsense"),
    "open_orders": COMMON,
    "fills": COMMON,
    "cancel": (*COMMON, "late", "twice"),
    "transfer": (*COMMON, "late"),
}
"""What may go wrong by chance. (That the list of open orders lies is scripted only: who would ever know?)"""
Occasion = tuple[Call, str, int]
"""The n-th call of a kind about a symbol (empty for calls about none), counted from 0."""


class Mishaps(Protocol):
    """Decides the mishap at each occasion."""

    def at(self, occasion: Occasion, now: float) -> Mishap: ...


class Rule(Struct):
    """The next `times` calls of this kind (and about this symbol) fail in this way, from the `after`-th on."""

    call: Call
    mishap: Mishap
    symbol: str | None = None
    times: int = 1
    after: int = 0


class Script:
    """Rules, of which the first that applies decides; no other call fails."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = list(rules)

    def at(self, occasion: Occasion, now: float) -> Mishap:
        call, symbol, number = occasion
        for rule in self.rules:
            if rule.call == call and rule.symbol in (None, symbol) and number >= rule.after and rule.times > 0:
                rule.times -= 1
                return rule.mishap
        return "none"


class Chance:
    """A share `rate` of all calls fails, until `until` (seconds). `only`: no occasion but these."""

    def __init__(self, seed: int, rate: float, until: float, only: Collection[Occasion] | None = None) -> None:
        self._seed = seed
        self._rate = rate
        self._until = until
        self._only = only
        self.happened: dict[Occasion, Mishap] = {}

    def at(self, occasion: Occasion, now: float) -> Mishap:
        if now >= self._until or (self._only is not None and occasion not in self._only):
            return "none"
        throw = drawn(self._seed, *occasion)
        if throw >= self._rate:
            return "none"
        kinds = MISHAPS[occasion[0]]
        self.happened[occasion] = kinds[int(throw / self._rate * len(kinds))]
        return self.happened[occasion]


def drawn(*of: object) -> float:
    """A number in [0, 1) that depends on `of` and nothing else."""
    digest = blake2b(repr(of).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
