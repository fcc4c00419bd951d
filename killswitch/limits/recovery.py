"""What the way back after a reset leaves of an account's limits: a share of each size, and a number of positions.

| limit                                                   | on the way back                                       |
|---------------------------------------------------------|-------------------------------------------------------|
| `gross`, `concentration`, `position_size`, `order_size` | × share, in whatever unit it is written               |
| `leverage`                                              | × share                                               |
| `day.loss`                                              | × share                                               |
| `day.trades`, `day.fees`, `orders_per_minute`           | as written: rates and costs follow the sizes          |
| `free_margin`, `price_band`, `latency`, `spread`        | as written: they are no sizes                         |
| `banned`, `session`, `maintenance`                      | as written                                            |
| positions                                               | the plan's number × fᵏ, rounded down, until full size |

A limit below what is held closes nothing: entries are refused, exits pass.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal

from msgspec.structs import replace

from killswitch.graph.limits import LimitAmount, LimitsRule, SizeRule
from killswitch.limits.view import Pause
from killswitch.planning.recovery.way_back import RecoveryCap


def reduced_limits(limits: LimitsRule, cap: RecoveryCap | None) -> LimitsRule:
    """The limits that are in effect on the way back; the same without one, and at its full size."""
    if cap is None or cap.share == 1:
        return limits
    share, day = cap.share, limits.day
    return replace(
        limits,
        gross=_amount(limits.gross, share),
        leverage=None if limits.leverage is None else limits.leverage * share,
        concentration=_amount(limits.concentration, share),
        position_size=tuple(_size(each, share) for each in limits.position_size),
        order_size=tuple(_size(each, share) for each in limits.order_size),
        day=day if day is None else replace(day, loss=_amount(day.loss, share)),
    )


def pause_of(cap: RecoveryCap | None) -> Pause | None:
    """The pause of everything that opens, from a trip until the health condition is met; None on the ramp."""
    if cap is None or cap.share:
        return None
    return Pause(cap.scope, f"the recovery plan {cap.plan} of {cap.policy} {cap.why}", cap.since)


def positions_beyond(cap: RecoveryCap, opened: Collection[str], symbol: str) -> int | None:
    """The number of positions with one more in `symbol`, if it is above the cap; None if it may be opened.

    `opened`: the symbols with a position at worst. Symbols of one hedge count as one position, and a further leg of a
    hedge that is open already, here or on another account, is never refused: its first leg would be naked.

    With at most two positions, and BTC/USDT with BTC/USDT:USDT as one hedge:

    - ETH and XRP are open: DOGE would be the third, and more of ETH is not counted again.
    - ETH and BTC/USDT are open: BTC/USDT:USDT passes, as the second leg of the same position.
    """
    if cap.positions is None or symbol in cap.begun:
        return None
    names = {_position(cap, each) for each in opened if each not in cap.begun}
    own = _position(cap, symbol)
    count = len(names | {own})
    return None if own in names or count <= cap.positions else count


def _position(cap: RecoveryCap, symbol: str) -> tuple[str, ...]:
    """What counts as one position with the symbol."""
    return next((hedge for hedge in cap.hedges if symbol in hedge), (symbol,))


def _amount(amount: LimitAmount | None, share: Decimal) -> LimitAmount | None:
    return None if amount is None else replace(amount, value=amount.value * share)


def _size(rule: SizeRule, share: Decimal) -> SizeRule:
    return replace(rule, at_most=replace(rule.at_most, value=rule.at_most.value * share))
