"""Fills of a scope: what each is of, in money, and those that are not of this program."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.model.instant import to_micros
from killswitch.signals.history.collector import Collector, Needs
from killswitch.signals.history.order_flow import WindowCoverage, are_ours, longest, without_old

if TYPE_CHECKING:
    from killswitch.model.snapshot import Fill
    from killswitch.valuation.account_facts import AccountFacts
    from killswitch.valuation.scope_view import ScopeView


def notional_of(facts: AccountFacts, symbol: str, amount: float, price: float) -> float | None:
    """amount × size × price in the account's currency, for inverse contracts amount × size ÷ price; None: unknown."""
    from killswitch.valuation.position_measures import contract_value, is_inverse

    rules = facts.rules.get((facts.name, symbol))
    value = contract_value(facts.account, symbol, rules)
    if value is None or not price:
        return None
    face = abs(amount) * float(value)
    return face / price if is_inverse(symbol, rules) else face * price


def fee_of(facts: AccountFacts, fill: Fill) -> float | None:
    """The fee; None if it is in a coin without a price. A fill without a fee pays none itself (Alpaca books fees
    apart)."""
    from killswitch.model.magnitude import sane
    from killswitch.valuation.position_measures import price_of

    fee, account = fill.fee, facts.account
    if fee is None or not fee:
        return 0.0
    if not sane(fee):
        return None
    base, _, quote = fill.symbol.partition(":")[0].replace("_", "/").partition("/")
    if fill.fee_currency in (None, account.currency):
        price: Decimal | None = Decimal(1)
    elif fill.fee_currency == base and quote == account.currency:
        price = fill.price  # the coin that is traded, at the price of the trade
    else:
        price = price_of(fill.fee_currency or "", account)
    return None if price is None else float(fee * price)


class _FilledState(Struct):
    rows: list[tuple[int, str, str, float | None]]
    coverage: WindowCoverage
    before_reset: dict[str, int] = {}


class FilledByOthers(Collector):
    """The fills of a scope that are not of this program: time, cause, and notional in the scope's currency."""

    name: ClassVar[str] = "filled"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._keep = longest(needs)
        self._max_gap = max_gap
        self._rows: dict[str, tuple[int, str, float | None]] = {}
        self._before_reset: dict[str, int] = {}
        """The fills before the last reset and when they were, which do not count where they are reported once more."""
        self.coverage = WindowCoverage()

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Add the fills that became known; without them, or without an account, coverage has a hole."""
        now = view.as_of
        is_whole = bool(view.facts)
        for facts in view.facts:
            account = facts.account
            if account.quality != "ok" or account.fills is None:
                is_whole = False
                continue
            for fill in account.fills:
                key = f"{account.account}/{fill.id}"
                if not are_ours(fill.client_order_id, fill.order) and key not in self._before_reset:
                    self._rows.setdefault(key, (min(now, to_micros(fill.at)), fill.cause, _notional(view, facts, fill)))
        if is_whole:
            self.coverage.observe(now, self._max_gap)
        self._before_reset = without_old(self._before_reset, now)
        edge = now - self._keep
        if any(row[0] < edge for row in self._rows.values()):
            self._rows = {key: row for key, row in self._rows.items() if row[0] >= edge}

    def within(self, now: int, window: int) -> Iterator[tuple[str, float | None]]:
        """Cause and notional of the fills in [now − window, now]."""
        return ((cause, value) for at, cause, value in self._rows.values() if at >= now - window)

    def restart(self, now: int, *, accept: bool) -> None:
        """Earlier fills no longer count."""
        self._before_reset |= {key: at for key, (at, _, _) in self._rows.items()}
        self._rows.clear()
        self.coverage.restart(now)

    def state(self) -> object:
        rows = [(at, key, cause, value) for key, (at, cause, value) in self._rows.items()]
        return _FilledState(rows, self.coverage, self._before_reset)

    def restore(self, stored: bytes) -> None:
        state = msgjson.decode(stored, type=_FilledState)
        self._rows = {key: (at, cause, value) for at, key, cause, value in state.rows}
        self.coverage, self._before_reset = state.coverage, state.before_reset


def _notional(view: ScopeView, facts: AccountFacts, fill: Fill) -> float | None:
    """The fill's notional in the scope's currency; None without a contract size or a rate."""
    rate = view.conversion(facts.account.currency).rate
    value = notional_of(facts, fill.symbol, float(fill.amount), float(fill.price))
    return None if rate is None or value is None else value * float(rate)
