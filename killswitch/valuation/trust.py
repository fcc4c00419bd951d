"""Trust in an account's numbers: the reasons why its equity or its positions are unknown."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from operator import attrgetter

from killswitch.model.instant import to_micros
from killswitch.model.magnitude import LEAST, MOST, sane
from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.valuation.position_measures import HOLDINGS, ZERO

PROFIT_OF_NOTHING = Decimal("0.01")
"""The fraction of equity above which the unrealised profit of an account without positions is more than rounding."""

_contracts = attrgetter("contracts")


def reason_untrusted(account: AccountSnapshot, as_of: int, stale_after: int | None) -> str | None:
    """The reason why the account's numbers are unknown, or None if they are usable."""
    return (
        reason_equity_missing(account)
        or reason_positions_unusable(account)
        or reason_stale(account, as_of, stale_after)
        or reason_positions_missing(account)
    )


def reason_equity_missing(account: AccountSnapshot) -> str | None:
    """The reason if an account that is `ok` reports no usable equity, or None."""
    if account.quality != "ok":
        return None
    if account.equity is None:
        return f"{account.account} reports no equity"
    return (
        None if sane(account.equity) else f"{account.account} reports an equity of {account.equity} {account.currency}"
    )


def reason_positions_unusable(account: AccountSnapshot) -> str | None:
    """The reason why the account's positions are unusable, or None, whether or not its equity is known."""
    if account.quality != "ok":
        return f"{account.account} is {account.quality}: {account.reason or 'no reason given'}"
    fault = None if account.positions is None else _impossible_position(account, account.positions)
    return None if fault is None else f"{account.account} {fault}"


def reason_positions_missing(account: AccountSnapshot) -> str | None:
    """The reason if the account does not report its positions, or None."""
    return f"{account.account} reports no positions" if account.positions is None else None


def are_open(sizes: Sequence[Decimal]) -> bool:
    """Whether there are positions, all of them open and of a plausible size, in contracts."""
    return bool(sizes) and all(map(Decimal.is_finite, sizes)) and min(sizes) >= LEAST and max(sizes) < MOST


def _impossible_position(account: AccountSnapshot, positions: Sequence[Position]) -> str | None:
    """The impossible value in the positions, if any; it makes the whole answer unusable."""
    sizes = [*map(_contracts, positions)]
    if are_open(sizes):
        return None  # nearly every snapshot
    for position in positions:
        if not sane(position.contracts) or position.contracts < ZERO:
            return f"reports {position.contracts} contracts of {position.symbol}"
    if any(sizes):
        return None
    margin = account.margin_used
    if margin is not None and margin.is_finite() and margin > ZERO:
        return f"reports no positions, but {margin} {account.currency} of margin in use"
    if _has_profit(account):
        return f"reports no positions, but {account.unrealized} {account.currency} of unrealised profit"
    return None


def _has_profit(account: AccountSnapshot) -> bool:
    """Whether the account shows a profit that requires positions, although it lists none."""
    profit, equity = account.unrealized, account.equity
    if profit is None or equity is None or account.complete is False or account.market in HOLDINGS:
        return False
    return profit.is_finite() and equity.is_finite() and abs(profit) > PROFIT_OF_NOTHING * abs(equity)


def reason_stale(account: AccountSnapshot, as_of: int, stale_after: int | None) -> str | None:
    """The reason if the account was not observed within `stale_after` microseconds before `as_of`, or None."""
    if stale_after is None:
        return None
    if account.observed_at is None:
        return f"{account.account} does not report when it was observed"
    if as_of - to_micros(account.observed_at) > stale_after:
        return f"{account.account} was last observed at {account.observed_at.isoformat()}"
    return None
