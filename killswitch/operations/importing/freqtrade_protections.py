"""freqtrade's protections as policies that lock entries: the four rules of its documentation, by fills.

A protection is evaluated there when a trade closes, over trades that closed within its lookback; here it is a condition
that is true while a trade has just closed. What differs is in the report of each, and in docs/importing.md:

- a lock ends when its time is over, not at the next candle;
- ratios of profit include leverage there and are of the notional here, so thresholds are divided by the leverage, which
  must be a literal;
- a stop that the bot keeps to itself cannot be told from another losing exit, so that every losing trade counts.

A stage is reset when no trade is left in its window and its lock is over, so that a reset forgets nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from msgspec import Struct

from killswitch.operations.importing.freqtrade_strategy import ProtectionText
from killswitch.operations.importing.report import ImportedSetting, Outcome

JUST_CLOSED: Final = 5
"""Minutes for which a trade counts as just closed."""
DEFAULT_MINUTES: Final = 60
DAY: Final = 24 * 60
_UNITS: Final = {"m": 1, "h": 60, "d": DAY, "w": 7 * DAY, "M": 30 * DAY}
_TIME: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "StoplossGuard": ("trade_limit", "only_per_pair", "only_per_side", "required_profit"),
    "MaxDrawdown": ("trade_limit", "max_allowed_drawdown", "calculation_mode"),
    "LowProfitPairs": ("trade_limit", "required_profit", "only_per_side"),
    "CooldownPeriod": (),
}
PERIODS: Final = (
    "method", "lookback_period", "lookback_period_candles", "stop_duration", "stop_duration_candles", "unlock_at",
)  # fmt: skip
ROUNDED: Final = "a lock ends when its time is over, not at the next candle"


class ProtectedBook(Struct, frozen=True):
    """What the protections of a strategy apply to.

    `timeframe`: minutes of a candle, None if unknown; `leverage`: of every entry, None if it is code; `has_shorts`:
    whether the strategy may sell short; `stops_rest`: whether its stops are orders at the exchange.
    """

    account: str
    file: str
    timeframe: int | None
    leverage: Decimal | None
    has_shorts: bool
    stops_rest: bool


class NoEquivalentError(Exception):
    """A protection, or a part of one, that no policy can declare."""


class _Rule(Struct, frozen=True):
    """A policy to be: its scope, condition, window in minutes, lock and what is approximated."""

    name: str
    each: str
    when: str
    lookback: int
    locked: str
    lasts: int
    approximations: tuple[str, ...]


def minutes_of(timeframe: object) -> int | None:
    """The minutes of a timeframe such as `5m` or `1h`; None for anything else."""
    found = re.fullmatch(r"(\d{1,4})([mhdwM])", timeframe) if isinstance(timeframe, str) else None
    return int(found[1]) * _UNITS[found[2]] if found and int(found[1]) else None


def protection_policies(
    protections: Sequence[ProtectionText], book: ProtectedBook
) -> tuple[list[str], list[ImportedSetting]]:
    """The policy documents, and what became of each protection."""
    texts: list[str] = []
    settings: list[ImportedSetting] = []
    for number, protection in enumerate(protections, 1):
        method = protection.entries.get("method")
        known = method.value if method is not None and isinstance(method.value, str) else "protection"
        key, line = f"protections[{number - 1}] {known}", protection.line
        try:
            rules = list(_rules(known, protection, book))
        except NoEquivalentError as error:
            settings.append(ImportedSetting("no equivalent", key, book.file, line, f"not imported: {error}"))
            continue
        for rule in rules:
            name = f"freqtrade-{rule.name}-{number}"
            texts.append(_policy(name, rule, book))
            outcome: Outcome = "approximated"
            settings.append(ImportedSetting(outcome, key, book.file, line, "; ".join(rule.approximations), name))
    return texts, settings


def _rules(method: str, protection: ProtectionText, book: ProtectedBook) -> Iterator[_Rule]:
    if protection.code is not None:
        raise NoEquivalentError(protection.code)
    if method not in KEYS:
        raise NoEquivalentError(f"known protections are {', '.join(KEYS)}")
    strange = set(protection.entries) - set(KEYS[method]) - set(PERIODS)
    if strange:
        raise NoEquivalentError(f"{', '.join(sorted(strange))} is not a key of {method} that is known here")
    values = {key: literal.value for key, literal in protection.entries.items()}
    lock, lasts = _lock(values, book.timeframe)
    if method == "CooldownPeriod":
        yield _Rule("cooldown-period", "symbol", _closed("any", "any", 0), lasts, lock, lasts, (ROUNDED,))
        return
    lookback = _period(values, "lookback_period", book.timeframe)
    if method == "StoplossGuard":
        yield from _stoploss_guard(values, lookback, lock, lasts, book)
    elif method == "MaxDrawdown":
        yield _max_drawdown(values, lookback, lock, lasts, book)
    else:
        yield _low_profit(values, lookback, lock, lasts, book)


def _stoploss_guard(
    values: Mapping[str, object], lookback: int, lock: str, lasts: int, book: ProtectedBook
) -> Iterator[_Rule]:
    limit = _count(values, "trade_limit", 10)
    if _number(values, "required_profit", Decimal(0)) != 0:
        raise NoEquivalentError("a stop counts as losing below 0 only, and required_profit is another number")
    outcome = "stop" if book.stops_rest else "loss"
    notes = [ROUNDED]
    if not book.stops_rest:
        notes.append("every losing trade counts as a stop, because the bot's stops are not orders at the exchange")
    each = "symbol" if _flag(values, "only_per_pair") else "account"
    sides = ("long", "short") if book.has_shorts else ("long",)
    for side in sides if _flag(values, "only_per_side") else ("any",):
        when = f'trades.count("{lookback}m", "{outcome}", "scope", "{side}") >= {limit}.0 && '
        of_side = lock if side == "any" else f"{lock}, side: {side}"
        name = "stoploss-guard" if side == "any" else f"stoploss-guard-{side}s"
        yield _Rule(name, each, when + _closed(outcome, side, lookback), lookback, of_side, lasts, tuple(notes))


def _max_drawdown(values: Mapping[str, object], lookback: int, lock: str, lasts: int, book: ProtectedBook) -> _Rule:
    limit, mode = _count(values, "trade_limit", 1), values.get("calculation_mode", "ratios")
    allowed = _number(values, "max_allowed_drawdown", Decimal(0))
    if mode not in ("ratios", "equity"):
        raise NoEquivalentError("calculation_mode is ratios or equity")
    notes = [ROUNDED]
    if mode == "ratios":
        allowed, notes = _of_notional(allowed, book, notes)
    else:
        notes.append("the balance is equity without unrealised profit, from which trades are counted back")
    when = (
        f'trades.drawdown("{lookback}m", "{mode}") > {_written(allowed)} && '
        f'trades.count("{lookback}m", "any", "scope", "any") >= {limit}.0 && {_closed("any", "any", lookback)}'
    )
    return _Rule("max-drawdown", "account", when, lookback, lock, lasts, tuple(notes))


def _low_profit(values: Mapping[str, object], lookback: int, lock: str, lasts: int, book: ProtectedBook) -> _Rule:
    if _flag(values, "only_per_side"):
        raise NoEquivalentError("only_per_side: the profit of one side of a pair is no signal here")
    limit = _count(values, "trade_limit", 1)
    required, notes = _of_notional(_number(values, "required_profit", Decimal(0)), book, [ROUNDED])
    notes.append("also evaluated for 5 minutes after a close, when an older trade leaves the window")
    when = (
        f'trades.profit("{lookback}m", "scope") < {_written(required)} && '
        f'trades.count("{lookback}m", "any", "scope", "any") >= {limit}.0 && {_closed("any", "any", lookback)}'
    )
    return _Rule("low-profit-pairs", "symbol", when, lookback, lock, lasts, tuple(notes))


def _closed(outcome: str, side: str, lookback: int) -> str:
    """The condition that such a trade has just closed, so that each further one begins the lock again."""
    window = min(JUST_CLOSED, lookback) if lookback else JUST_CLOSED
    return f'trades.count("{window}m", "{outcome}", "scope", "{side}") >= 1.0'


def _of_notional(ratio: Decimal, book: ProtectedBook, notes: list[str]) -> tuple[Decimal, list[str]]:
    """A ratio of profit ÷ stake as one of profit ÷ notional."""
    if book.leverage is None:
        raise NoEquivalentError("its ratios include the leverage, and the leverage callback is code")
    if book.leverage != 1:
        notes = [*notes, f"{ratio:f} of the stake is divided by the leverage of {book.leverage:f}"]
    return ratio / book.leverage, notes


def _lock(values: Mapping[str, object], timeframe: int | None) -> tuple[str, int]:
    """The keys of the lock, and the minutes that it lasts at most."""
    if "unlock_at" in values:
        at = values["unlock_at"]
        if not isinstance(at, str) or not _TIME.fullmatch(at):
            raise NoEquivalentError("unlock_at is no time HH:MM")
        if {"stop_duration", "stop_duration_candles"} & set(values):
            raise NoEquivalentError("unlock_at and stop_duration contradict each other, as in freqtrade")
        return f'mode: reduce_only, until: "{at} UTC"', DAY
    lasts = _period(values, "stop_duration", timeframe)
    return f"mode: reduce_only, for: {lasts}m", lasts


def _period(values: Mapping[str, object], key: str, timeframe: int | None) -> int:
    """The minutes of a period that is written in minutes or in candles."""
    candles = f"{key}_candles"
    if key in values and candles in values:
        raise NoEquivalentError(f"{key} and {candles} contradict each other, as in freqtrade")
    if candles not in values:
        return _count(values, key, DEFAULT_MINUTES, least=1)
    if timeframe is None:
        raise NoEquivalentError(
            f"{candles} needs the timeframe, which is neither in the strategy nor in the configuration"
        )
    return _count(values, candles, 1, least=1) * timeframe


def _count(values: Mapping[str, object], key: str, default: int, least: int = 0) -> int:
    found = values.get(key, default)
    if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= 1_000_000:
        raise NoEquivalentError(f"{key} is not a whole number from {least}")
    return found


def _number(values: Mapping[str, object], key: str, default: Decimal) -> Decimal:
    found = values.get(key, default)
    if isinstance(found, int | float | Decimal) and not isinstance(found, bool):
        number = Decimal(str(found))
        if abs(number) < 1_000_000:
            return number
    raise NoEquivalentError(f"{key} is not a number")


def _flag(values: Mapping[str, object], key: str) -> bool:
    found = values.get(key, False)
    if not isinstance(found, bool):
        raise NoEquivalentError(f"{key} is not True or False")
    return found


def _written(value: Decimal) -> str:
    """A number as an expression writes it, with a decimal point."""
    text = f"{value:.12f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def _policy(name: str, rule: _Rule, book: ProtectedBook) -> str:
    reset = max(rule.lookback, rule.lasts)
    return f"""apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: {name}, labels: {{imported-from: freqtrade}}}}
spec:
  mode: enforce
  scope: {{each: {rule.each}, match: {{account: {book.account}}}}}
  max_gap: 10m
  triggers:
    closed:
      when: '{rule.when}'
      on_unknown: hold
      grace: {rule.lookback + DEFAULT_MINUTES}m
  stages:
    - name: {rule.name}
      level: 1
      any: [closed]
      cooldown: {min(JUST_CLOSED, rule.lasts)}m
      # A reset begins the windows again: when nothing is left in them, and no lock, it forgets nothing.
      reset: {{auto: {{when: 'trades.count("{reset}m", "any", "scope", "any") < 1.0', for: 0s}}}}
      actions: [lock_trading: {{{rule.locked}}}]
      notify: [freqtrade]
"""
