"""Enumerations shared by policies and decisions, the steps of a ladder, and places in policy files.

They are separate from the message types because verbs that only read policies need no messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct

LockMode = Literal["reduce_only", "all"]
Source = Literal["LONG", "SHORT", "MIXED", "UNKNOWN"]
PolicyMode = Literal["enforce", "observe"]
CancelWhy = Literal["entry", "all"]
Market = Literal["swap", "future", "spot", "margin", "equity"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Cause = Literal[
    "market", "system-failure", "exchange-breach", "regulatory", "counterparty", "dead-man", "drill", "operator"
]
"""The reason of a manual close. market: prices move away. system-failure: our own systems fail. exchange-breach: the
venue is hacked or insolvent. regulatory: an authority or compliance requires it. counterparty: a bank, a broker or a
stablecoin fails. dead-man: whoever a dead-man's switch listens to is silent. drill: an exercise. operator: a person's
own judgement."""
ChangeCause = Literal["loss", "flow"]
"""What an unexplained change of equity is by an operator's knowledge. loss: profit or loss. flow: money that came or
went."""
Severity = Literal["info", "warning", "page"]
SHADOW: Final = "shadow"
"""Policy and scope of notices about what sets in shadow would have done differently."""
NotificationEvent = Literal["fired", "closed", "residual", "reset", "notice"]
"""fired: a stage fired, or a manual close. closed: every target is reached. residual: the close ended with a residual.
reset: the scope is back to normal."""


def close_text(cause: Cause | None) -> str:
    """A close by command, for people. No person gives that of a dead-man's switch."""
    return "dead-man close" if cause == "dead-man" else "close by hand"


def place_text(side: str | None, symbols: Iterable[str] | None) -> str:
    """A part of a scope for people: `long in BTC_USDT`, `short`, `BTC_USDT and ETH_USDT`, `everything`."""
    named = " and ".join(symbols or ())
    if side is not None:
        return f"{side} in {named}" if named else side
    return named or "everything"


class ReferenceCurrency(Struct, frozen=True):
    """The rule for rates to `currency`: at least `venues` venues must agree within the fraction `within`.

    `declared`: the rates to use where they do not, sorted by currency.
    """

    currency: str
    venues: int
    within: Decimal
    declared: tuple[tuple[str, Decimal], ...] = ()


NOBODY: Final = ""
"""The owner of what no strategy owns."""
UNKNOWN_OWNER: Final = "?"
"""The owner of what cannot be assigned; no document can have this name."""


class StrategyRule(Struct, frozen=True):
    """What belongs to one strategy, on the accounts that match (None: any value)."""

    name: str
    accounts: tuple[str, ...] | None
    venues: tuple[str, ...] | None
    markets: tuple[str, ...] | None
    currencies: tuple[str, ...] | None
    whole: bool = False
    """Whether everything in these accounts is its own, so that their equity is its equity."""
    order_prefixes: tuple[str, ...] = ()
    """How its client order ids begin."""
    symbols: tuple[str, ...] = ()
    """The symbols that are its own, except what others are seen to trade in them."""
    named: tuple[str, ...] = ()
    """Its names in the `strategy` of positions, orders and fills."""

    def covers(self, account: str, venue: str, market: str, currency: str) -> bool:
        """Whether the strategy may own anything in the account."""
        allowed = (self.accounts, self.venues, self.markets, self.currencies)
        values = (account, venue, market, currency)
        return all(names is None or value in names for names, value in zip(allowed, values, strict=True))

    def may_meet(self, other: StrategyRule) -> bool:
        """Whether an account may be covered by both."""
        pairs = (
            (self.accounts, other.accounts), (self.venues, other.venues),
            (self.markets, other.markets), (self.currencies, other.currencies),
        )  # fmt: skip
        return all(one is None or two is None or not set(one).isdisjoint(two) for one, two in pairs)


class Rung(Struct, frozen=True, omit_defaults=True):
    """One step of the order ladder: `tries` orders of this kind, then the next step. The last one repeats without end.

    `limit_ioc` has its limit at `widen` × the intent's band from the mark, and its unfilled part expires at once;
    `market` has no limit; `limit` rests at `widen` × the band, for markets that accept no market orders.
    """

    order: Literal["limit_ioc", "market", "limit"]
    widen: Decimal = Decimal(1)
    tries: int = 1


class Place(Struct, frozen=True):
    """A place in a policy file; lines and columns count from 1."""

    file: str
    line: int
    column: int
    text: str
    """The source line, for `explain`."""
