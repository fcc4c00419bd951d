"""freqtrade's four protections, naively, from its documentation (docs/includes/protections.md, 2024-10 to 2026-02).

Imports nothing of the product. A trade is closed when all of it is sold; protections are evaluated when a trade closes;
"only trades that completed after current_time − lookback_period will be considered" is strict; a lock ends `stop` after
the last trade that was considered. Times and durations are minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

STOPS = ("stop_loss", "stoploss_on_exchange", "trailing_stop_loss", "liquidation")
"""Exit reasons of `StoplossGuard`; the documentation lists three, the code has liquidations, too."""


class Trade(Struct, frozen=True):
    """A closed trade; `ratio` is its profit ÷ stake, `reason` why it was closed."""

    pair: str
    side: str
    opened: int
    closed: int
    ratio: float
    reason: str
    stake: float = 1000.0


class PairLock(Struct, frozen=True):
    """A lock of a pair, or of all (`*`), from `since` until before `until`."""

    pair: str
    since: int
    until: int


def next_candle(minute: int, timeframe: int) -> int:
    """ "All protection end times are rounded up to the next candle": from a boundary to the one after it."""
    return (minute // timeframe + 1) * timeframe


def _evaluated(
    trades: Iterable[Trade], lookback: int, rule: Callable[[list[Trade], Trade], int | None]
) -> list[PairLock]:
    """The locks of all pairs by a rule that returns when its lock ends, at each close."""
    done, locks = sorted(trades, key=lambda each: each.closed), []
    for index, last in enumerate(done):
        seen = [each for each in done[: index + 1] if each.closed > last.closed - lookback]
        until = rule(seen, last)
        if until is not None and until > last.closed:
            locks.append(PairLock("*", last.closed, until))
    return locks


def _by_pair(locks: Callable[[list[Trade]], list[PairLock]], trades: Sequence[Trade]) -> list[PairLock]:
    """The locks of a rule that looks at one pair at a time."""
    pairs = sorted({each.pair for each in trades})
    found = ((pair, locks([each for each in trades if each.pair == pair])) for pair in pairs)
    return [replace(lock, pair=pair) for pair, mine in found for lock in mine]


def stoploss_guard(
    trades: Sequence[Trade], lookback: int, limit: int, stop: int, only_per_pair: bool = False
) -> list[PairLock]:
    """`limit` or more trades "resulted in stoploss", "if the resulting profit was negative"."""

    def rule(seen: list[Trade], _: Trade) -> int | None:
        stops = [each for each in seen if each.reason in STOPS and each.ratio < 0]
        return max(each.closed for each in stops) + stop if len(stops) >= limit else None

    if only_per_pair:
        return _by_pair(lambda mine: _evaluated(mine, lookback, rule), trades)
    return _evaluated(trades, lookback, rule)


def drawdown_of(trades: Sequence[Trade], mode: str, balance: float) -> float:
    """The largest fall of the running sum from a maximum that starts at 0, or of the balance ÷ its maximum."""
    if mode == "ratios":
        sums = [sum(each.ratio for each in trades[:count]) for count in range(len(trades) + 1)]
        return max(high - low for index, high in enumerate(sums) for low in sums[index:])
    held = [balance + sum(each.ratio * each.stake for each in trades[:count]) for count in range(len(trades) + 1)]
    return max((high - low) / high for index, high in enumerate(held) for low in held[index:])


def max_drawdown(
    trades: Sequence[Trade], lookback: int, limit: int, stop: int, allowed: float, mode: str = "ratios",
    balance: float = 0.0, winners_lock: bool = True,
) -> list[PairLock]:  # fmt: skip
    """Trading stops "if max-drawdown is > allowed", of at least `limit` trades, for `stop` "after the last trade".

    `balance`: the starting balance. `winners_lock`: as in freqtrade, where a winner evaluates and prolongs, too.
    """

    def rule(seen: list[Trade], last: Trade) -> int | None:
        if len(seen) < limit or (last.ratio >= 0 and not winners_lock):
            return None
        earlier = sum(each.ratio * each.stake for each in trades if each.closed <= last.closed - lookback)
        fallen = drawdown_of(seen, mode, balance + earlier)
        return max(each.closed for each in seen) + stop if fallen > allowed else None

    return _evaluated(trades, lookback, rule)


def low_profit_pairs(trades: Sequence[Trade], lookback: int, limit: int, stop: int, required: float) -> list[PairLock]:
    """Of "all trades for a pair": below `required` with a minimum of `limit` trades, of both sides."""

    def rule(seen: list[Trade], _: Trade) -> int | None:
        low = len(seen) >= limit and sum(each.ratio for each in seen) < required
        return max(each.closed for each in seen) + stop if low else None

    return _by_pair(lambda mine: _evaluated(mine, lookback, rule), trades)


def cooldown_period(trades: Sequence[Trade], stop: int) -> list[PairLock]:
    """A pair is locked "for `stop` after exiting"; "does not consider lookback_period"."""
    return [PairLock(each.pair, each.closed, each.closed + stop) for each in trades]


def is_locked(locks: Iterable[PairLock], minute: int, pair: str) -> bool:
    """Whether a pair may not be entered at that minute."""
    return any(lock.pair in ("*", pair) and lock.since <= minute < lock.until for lock in locks)
