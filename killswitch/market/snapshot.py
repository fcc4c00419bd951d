"""Snapshots of accounts at the paper venue, with the liquidity of its markets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from math import log, sqrt

from killswitch.market.account import PaperAccount
from killswitch.market.holding import ZERO, Margin, PaperHolding, initial_margin, liquidation_price
from killswitch.market.matching import Matching
from killswitch.market.order_checks import free_money
from killswitch.market.rules import MarketRules, base_asset
from killswitch.market.tape import MarketBar, Tape
from killswitch.model.snapshot import AccountSnapshot, Balance, Health, Liquidity, Mark, Position, WatchedPrice

_ONE = Decimal(1)
_MOMENT = timedelta.resolution


def snapshot_of(
    account: PaperAccount,
    matching: Matching,
    at: datetime,
    with_instruments: bool,
    activity: MarketActivity | None = None,
    row_lag: float = 0.0,
) -> AccountSnapshot:
    """The snapshot of `account` as of `at`. The paper market has one price: mark, index and last are the same.

    With `activity` it includes the liquidity of each market that has a price. `row_lag`: seconds by which rows are
    late.
    """
    tapes, rules, quotes = matching.tapes, matching.rules, matching.quotes
    marks = quotes.prices(account)
    margin = account.margin(marks, rules.maintenance)
    positions = tuple(
        _position(account, holding, matching, margin, marks[holding.symbol]) for holding in account.holdings.values()
    )
    cash = account.is_cash
    # Time may not advance, so further rows may still be dated at this moment.
    rows_until = at - _MOMENT
    return AccountSnapshot(
        account=account.name,
        venue=account.venue,
        market=account.market,
        currency=account.currency,
        quality="ok",
        observed_at=at,
        equity=_clean(margin.equity),
        free=_clean(free_money(account, matching)),
        margin_used=ZERO if cash else _clean(margin.used),
        maintenance_margin=ZERO if cash else _clean(margin.maintenance),
        margin_mode=None if cash else "cross",
        position_mode="hedge" if account.is_hedged else "one_way",
        balances=_balances(account, marks, margin),
        flows=account.flows.shown(at),
        positions=positions,
        orders=tuple(order.resting() for order in account.working),
        fills=account.fills.shown(at),
        instruments=tuple(tape.instrument for tape in tapes.values()) if with_instruments else None,
        liquidity=None if activity is None else activity.all(tapes, rules),
        health=Health(latency_ms=0.0, requests=1, errors=0, timeouts=0, malformed=0, rate_limited=0, clock_skew_ms=0.0),
        unrealized=ZERO if cash else _clean(margin.unrealized),
        wallet_as_of=at,
        positions_as_of=at,
        orders_as_of=at,
        marked_at=at,
        fills_as_of=rows_until,
        flows_as_of=rows_until,
        row_lag_s=row_lag,
        complete=True,
        marks=_marks_of(account.vanished_since(at), tapes),
        rates=quotes.rates(account.currency) or None,
    )


def watched_prices(
    tapes: Mapping[str, Tape], rules: MarketRules, symbols: Iterable[str], at: datetime
) -> tuple[WatchedPrice, ...]:
    """The prices of these symbols as of `at`, without those that the market does not have or that have no price."""
    found = ((symbol, tapes[symbol]) for symbol in symbols if symbol in tapes)
    return tuple(
        WatchedPrice(symbol, tape.last, tape.last, tape.last, tape.bid(rules), tape.ask(rules), at)
        for symbol, tape in found
        if tape.last is not None
    )


def _marks_of(symbols: tuple[str, ...], tapes: Mapping[str, Tape]) -> tuple[Mark, ...]:
    prices = ((symbol, tapes[symbol].last) for symbol in symbols)
    return tuple(Mark(symbol, last) for symbol, last in prices if last is not None)


def _position(
    account: PaperAccount, holding: PaperHolding, matching: Matching, margin: Margin, price: Decimal
) -> Position:
    """One position; `price` is the last one in the account's currency.

    Costs are kept in the account's currency: the entry price in another quote asset is unknown.
    """
    tape, rules = matching.tapes[holding.symbol], matching.rules
    rate = rules.maintenance
    last = tape.last or ZERO
    size = abs(holding.quantity)
    notional = size * price
    cash = account.is_cash
    other = None
    if account.is_hedged:
        other = account.holdings.get(account.key(holding.symbol, "short" if holding.side == "long" else "long"))
    return Position(
        symbol=holding.symbol,
        side=holding.side,
        contracts=size if tape.size == 1 else size / tape.size,
        entry_price=holding.entry_price if matching.quotes.bridge(account, holding.symbol) is None else None,
        mark_price=last,
        index_price=last,
        last_price=last,
        bid=tape.bid(rules),
        ask=tape.ask(rules),
        liquidation_price=None if cash else liquidation_price(holding, last, margin, rate, tape.tick, other),
        notional=notional,
        margin=None if cash else initial_margin(notional, holding.leverage),
        leverage=None if cash else holding.leverage,
        unrealized_pnl=_clean(holding.unrealized(price)),
    )


def _balances(account: PaperAccount, marks: Mapping[str, Decimal], margin: Margin) -> tuple[Balance, ...]:
    """Balances, money first. In a cash market holdings are balances too; their sum at these prices is the equity."""
    if not account.is_cash:
        wallet = _clean(account.wallet)
        return (Balance(account.currency, wallet, _ONE, ZERO, wallet, _clean(margin.equity)),)
    held = tuple(_holding_balance(base_asset(key), it.quantity, marks[key]) for key, it in account.holdings.items())
    return (_holding_balance(account.currency, _clean(account.cash), _ONE), *held)


def _holding_balance(asset: str, amount: Decimal, price: Decimal) -> Balance:
    """A holding of a cash account: no part of it is unrealised profit."""
    return Balance(asset, amount, price, ZERO, amount, amount)


def _clean(money: Decimal) -> Decimal:
    """The same number; a zero without its decimals, which would be written `0E-8`."""
    return money if money else ZERO


DAY = 86_400.0
RETURNS = 60
"""Largest number of bars over which volatility is measured."""
FEWEST = 10
"""Smallest number of bars with which volatility is known."""


class MarketActivity:
    """Recent closes and volumes of a market's bars."""

    def __init__(self) -> None:
        self._moves: dict[str, deque[tuple[float, float]]] = {}
        """Symbol → (seconds, log return) of each bar."""
        self._seconds: float | None = None

    def begin(self, seconds: float | None, bars: Mapping[str, MarketBar], tapes: Mapping[str, Tape]) -> None:
        """Record bars of `seconds`, None if that is unknown; the tapes still have the closes before."""
        self._seconds = seconds
        if seconds is None:
            return
        for symbol, bar in bars.items():
            last = tapes[symbol].last
            if last:
                moves = self._moves.setdefault(symbol, deque(maxlen=RETURNS))
                moves.append((seconds, log(bar.close / last)))

    def all(self, tapes: Mapping[str, Tape], rules: MarketRules) -> tuple[Liquidity, ...]:
        """Liquidity of every market that has a price."""
        return tuple(self.of(tape, rules) for tape in tapes.values() if tape.last is not None)

    def of(self, tape: Tape, rules: MarketRules) -> Liquidity:
        """Liquidity of the symbol's market in the bar that closed last.

        The depth is the rest of the venue's participation in the bar's volume, on each side; it reaches as far as the
        price would move if all of it were taken (`Tape.slippage`: 2 · impact · participation of the best price).
        """
        depth = tape.available(rules.participation)
        known = self._seconds is not None
        return Liquidity(
            symbol=tape.instrument.symbol,
            bid_depth=depth,
            ask_depth=depth,
            within=2 * rules.impact * rules.participation,
            volume=tape.volume / tape.size if known else None,
            over=self._seconds,
            volatility=self.volatility(tape.instrument.symbol),
        )

    def volatility(self, symbol: str) -> float | None:
        """Of a day, as a fraction: √(Σ r² ÷ Σ seconds × a day) over the log returns r of the bars.

        That is the realised volatility of Andersen, Bollerslev, Diebold and Labys, "Modeling and forecasting realized
        volatility", Econometrica 71, 2003, scaled to a day. None where fewer than `FEWEST` returns are known.
        """
        moves = self._moves.get(symbol, ())
        if len(moves) < FEWEST:
            return None
        return sqrt(sum(r * r for _, r in moves) / sum(seconds for seconds, _ in moves) * DAY)
