"""Which part of a change of equity is profit or loss, and which is money that came or went.

What neither prices nor rows of the ledger explain is a residual R. It is judged by its size against the equity E, by
what was traded in the three seconds before it and the five after it (X, notional), and by `slack`, what venues are
known to do without a row or a price: answers that are not of one moment, funding, liquidation.

- noise: |R| ≤ n, and the sum of such in a minute at most 0.5% of E. Profit or loss.
- slip: |R| ≤ (2% + fee) × X, and the sum of such in a minute at most 1% of E. Profit or loss, until a row says flow.
- trade: |R| ≤ 20% × the part of X that no fill accounts for, + what the price made of that part meanwhile, + slack.
  Pending until fills and flows are known past it by a lag.
- money: the rest. A flow of either sign, until fills or a policy say otherwise. Time never makes a loss of it.

Constants come of trying the rule on random worlds (docs/adr/0085).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from killswitch.model.instant import SECOND
from killswitch.signals.position import ZERO

Residual = Literal["noise", "slip", "trade", "money"]

NOISE_IN_A_MINUTE = Decimal("0.005")
SLIP = Decimal("0.021")
"""2% of what was traded, and a taker's fee of 0.1%."""
SLIPS_IN_A_MINUTE = Decimal("0.01")
TRADED = Decimal("0.20")
FUNDING = Decimal("0.03")
LIQUIDATION = Decimal("0.04")

MINUTE_OF_SUMS = 60 * SECOND
TRADES_BEFORE = 3 * SECOND
TRADES_AFTER = 5 * SECOND
SKEW = 3 * SECOND
"""How far two answers of a venue may be apart where it does not date them."""
FUNDING_LATE = 15 * SECOND
"""How long after the full hour funding may be booked."""
HOUR_OF_FUNDING = 3600 * SECOND

LAG = 16 * SECOND
"""The least time by which the ledger must be known past a pending change before that is profit or loss."""
LONGEST_LAG = 180 * SECOND
"""The most, however late a row was seen to be: what waits longer leaves the windows that triggers look at."""
LAG_OF_A_SMALL_ONE = 5 * SECOND
LAG_OF_MANY = 10 * SECOND
"""The same of one of many falls in a row."""
SMALL = Decimal("0.01")
"""A pending change of at most this fraction of equity waits for the shorter lag."""
FALLS = 5
FALLS_WITHIN = 12 * SECOND
"""So many unexplained falls in such a time are no transfers: trades that nobody shows."""
SETTLED_AFTER = 30 * SECOND
"""Money that moved is settled as that after so long; a row, a fill or more falls may undo it."""
SAME_MOMENT = 4 * SECOND
"""A row dated so near to a change may be about it."""
EARLY = 60 * SECOND
"""How long a row waits for the change that it tells of."""
NETTED_WITHIN = 5 * SECOND
"""Pending changes of opposite sign so near to each other are one answer that lagged behind another."""


def judge(
    residual: Decimal,
    equity: Decimal,
    noise: Decimal,
    *,
    traded: Decimal,
    untold: Decimal,
    slack: Decimal,
    noise_before: Decimal,
    slips_before: Decimal,
) -> Residual:
    """What a residual is taken for. Money in the account's currency; `noise` is n.

    `untold` is what trades that no fill accounts for may have made. `noise_before` and `slips_before`: the sums of the
    residuals of these kinds in the minute before, with their signs.
    """
    size = abs(residual)
    if size <= noise and abs(noise_before + residual) <= NOISE_IN_A_MINUTE * equity:
        return "noise"
    if size <= SLIP * traded and abs(slips_before + residual) <= SLIPS_IN_A_MINUTE * equity:
        return "slip"
    if size <= untold + slack:
        return "trade"
    return "money"


def skew_of(repriced: Decimal, skew: int | None, interval: int) -> Decimal:
    """Σ |q| |Δ mark| × skew ÷ interval, at most three intervals' worth; `skew` None where answers are not dated."""
    return repriced * min(Decimal(SKEW if skew is None else skew) / Decimal(max(interval, 1)), Decimal(3))


def unrecorded(gross: Decimal, liquidated: Decimal, since: int, at: int) -> Decimal:
    """What venues take without a row for a while: funding of the `gross`, and fees of what was `liquidated`."""
    return (FUNDING * gross if has_funding(since, at) else ZERO) + LIQUIDATION * liquidated


def has_funding(since: int, at: int) -> bool:
    """Whether a full hour, at which venues book funding, lies in the time or shortly before it."""
    return (at + 10 * SECOND) // HOUR_OF_FUNDING > (since - FUNDING_LATE) // HOUR_OF_FUNDING


def lag_of(amount: Decimal, equity: Decimal, row_lag: float | None, *, hurried: bool = False) -> int:
    """By how much the ledger must be known past a pending change (microseconds).

    `row_lag`: by how much its rows were late, in seconds. A small change, or one of many falls, waits for that too, but
    no longer than another one waits at least.
    """
    late = 0 if row_lag is None else int(min(row_lag * SECOND, LONGEST_LAG))
    if abs(amount) <= SMALL * abs(equity):
        return min(max(LAG_OF_A_SMALL_ONE, late), LAG)
    return min(max(LAG_OF_MANY, late), LAG) if hurried else max(LAG, late)


def is_about(row_at: int, since: int, at: int) -> bool:
    """Whether a row is dated inside the time from `since` to `at`, or as good as."""
    return since - SAME_MOMENT <= row_at <= at + SAME_MOMENT


def is_amount(row: Decimal, change: Decimal, noise: Decimal) -> bool:
    """Whether a row's amount is that of a change: within 1% of the row, or within noise where it is more than that."""
    if row * change <= ZERO:
        return False
    return abs(row - change) <= max(abs(row) / 100, noise if abs(row) > 2 * noise else ZERO)
