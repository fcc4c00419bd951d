"""Classification of unexplained changes of equity as profit or loss, or as transfers.

A residual R is the part that neither prices nor ledger rows explain. It is classified by its size relative to the
equity E, by the notional X traded from three seconds before to five seconds after it, and by `slack`, the possible
effect of events without a row or price: answers of different moments, funding, liquidation.

- noise: |R| ≤ n, and the sum of such in a minute at most 0.5% of E. Profit or loss.
- slip: |R| ≤ (2% + fee) × X, and the sum of such in a minute at most 1% of E. Profit or loss, until a row identifies a
  transfer.
- trade: |R| ≤ 20% × the part of X that no fill accounts for, + the price move on that part, + slack.
  Pending until fills and flows are known past it by a lag.
- money: the rest. A flow of either sign, until fills or a policy say otherwise. Time never makes a loss of it.

The constants are calibrated on random worlds (docs/adr/0085).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from killswitch.model.instant import SECOND
from killswitch.valuation.position_measures import ZERO

ResidualKind = Literal["noise", "slip", "trade", "money"]

NOISE_IN_A_MINUTE = Decimal("0.005")
SLIP = Decimal("0.021")
"""2% of the traded notional, plus a taker fee of 0.1%."""
SLIPS_IN_A_MINUTE = Decimal("0.01")
UNFILLED_TRADE_BOUND = Decimal("0.20")
FUNDING = Decimal("0.03")
LIQUIDATION = Decimal("0.04")

MINUTE_OF_SUMS = 60 * SECOND
TRADES_BEFORE = 3 * SECOND
TRADES_AFTER = 5 * SECOND
SKEW = 3 * SECOND
"""The assumed time between two answers of a venue that does not date them."""
FUNDING_LATE = 15 * SECOND
"""How long after the full hour funding can be booked."""
HOUR_OF_FUNDING = 3600 * SECOND

LAG = 16 * SECOND
"""The minimum time by which the ledger must be known past a pending change before that counts as profit or loss."""
LONGEST_LAG = 180 * SECOND
"""The maximum lag, whatever the delay of rows: a longer wait would exceed the windows of triggers."""
LAG_OF_A_SMALL_ONE = 5 * SECOND
LAG_OF_MANY = 10 * SECOND
"""The minimum lag of one of many falls in a row."""
SMALL = Decimal("0.01")
"""The fraction of equity up to which a pending change waits only for the shorter lag."""
FALLS = 5
FALLS_WITHIN = 12 * SECOND
"""`FALLS` unexplained falls within this time are unreported trades, not transfers."""
SETTLED_AFTER = 30 * SECOND
"""The time after which a transfer is settled; a row, a fill or more falls can reverse it."""
SAME_MOMENT = 4 * SECOND
"""The maximum time between a row and a change that it may explain."""
EARLY = 60 * SECOND
"""How long a row waits for its change of equity."""
NETTED_WITHIN = 5 * SECOND
"""The time within which pending changes of opposite sign are one answer that lagged behind another."""


def classify_residual(
    residual: Decimal,
    equity: Decimal,
    noise: Decimal,
    *,
    traded: Decimal,
    unfilled: Decimal,
    slack: Decimal,
    noise_before: Decimal,
    slips_before: Decimal,
) -> ResidualKind:
    """Classify a residual. Money is in the account's currency; `noise` is n.

    `unfilled` is the bound of the effect of trades without fills. `noise_before` and `slips_before` are the signed sums
    of the residuals of these kinds in the last minute.
    """
    size = abs(residual)
    if size <= noise and abs(noise_before + residual) <= NOISE_IN_A_MINUTE * equity:
        return "noise"
    if size <= SLIP * traded and abs(slips_before + residual) <= SLIPS_IN_A_MINUTE * equity:
        return "slip"
    if size <= unfilled + slack:
        return "trade"
    return "money"


def skew_of(repriced: Decimal, skew: int | None, interval: int) -> Decimal:
    """Σ |q| |Δ mark| × skew ÷ interval, at most three intervals' worth; `skew` is None if answers are not dated."""
    return repriced * min(Decimal(SKEW if skew is None else skew) / Decimal(max(interval, 1)), Decimal(3))


def unrecorded_charges(gross: Decimal, liquidated: Decimal, since: int, at: int) -> Decimal:
    """The possible charges without a row yet: funding on the `gross`, and fees on the `liquidated` notional."""
    return (FUNDING * gross if has_funding(since, at) else ZERO) + LIQUIDATION * liquidated


def has_funding(since: int, at: int) -> bool:
    """Whether a full hour, when venues book funding, is in the interval or shortly before it."""
    return (at + 10 * SECOND) // HOUR_OF_FUNDING > (since - FUNDING_LATE) // HOUR_OF_FUNDING


def lag_of(amount: Decimal, equity: Decimal, row_lag: float | None, *, hurried: bool = False) -> int:
    """The lag by which the ledger must be known past a pending change (microseconds).

    `row_lag`: the measured delay of its rows, in seconds. A small change, or one of many falls, waits for that, too,
    but at most `LAG`.
    """
    late = 0 if row_lag is None else int(min(row_lag * SECOND, LONGEST_LAG))
    if abs(amount) <= SMALL * abs(equity):
        return min(max(LAG_OF_A_SMALL_ONE, late), LAG)
    return min(max(LAG_OF_MANY, late), LAG) if hurried else max(LAG, late)


def is_at_about(row_at: int, since: int, at: int) -> bool:
    """Whether a row is dated from `since` to `at`, within a tolerance."""
    return since - SAME_MOMENT <= row_at <= at + SAME_MOMENT


def is_about_amount(row: Decimal, change: Decimal, noise: Decimal) -> bool:
    """Whether the amounts of a row and a change agree: within 1% of the row, or within noise if that is greater."""
    if row * change <= ZERO:
        return False
    return abs(row - change) <= max(abs(row) / 100, noise if abs(row) > 2 * noise else ZERO)
