"""Market signals: what the prices of a snapshot say of a market, and of the venues that quote it.

Prices that are compared with each other come from one answer. A symbol in several accounts of the scope is one market
at each venue; the worst venue counts, and one that cannot be read makes a bound of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from killswitch.model.instant import SECOND
from killswitch.signals.arguments import SYMBOL, Argument, Relation
from killswitch.signals.declaration import (
    NOT_NEGATIVE,
    BoolSignal,
    SignalSpec,
    TextSignal,
    condition,
)
from killswitch.signals.history.windows import UNKNOWN, largest

if TYPE_CHECKING:
    from killswitch.model.snapshot import Liquidity
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.signals.sessions import TradingSession
    from killswitch.valuation.account_facts import AccountFacts, PriceRow
    from killswitch.valuation.scope_view import ScopeView

_ZERO = Decimal(0)
MOST_SPREAD = 2.0
"""(ask − bid) ÷ their middle where the bid is nearly nothing."""
STATES = (
    "open", "at_limit", "limit_only", "post_only", "reduce_only", "cancel_only", "closed", "delisted", "halted",
)  # fmt: skip
"""States of a market, each worse than the one before."""
ALWAYS = "always"
"""The word for a market without closing hours."""


# One symbol


def _largest(
    view: ScopeView, symbol: str, of: Callable[[AccountFacts, PriceRow], float | Decimal | None], most: float
) -> Interval:
    """The largest at all venues of what `of` computes from a row; None is unknown."""
    found: dict[str, list[float]] = {}
    for facts, rows in view.priced(symbol):
        values = found.setdefault(facts.account.venue, [])
        for row in rows or ():
            value = of(facts, row)
            if value is not None:
                values.append(float(value))
                break
    return largest(found, most)


def _spread_of(_: AccountFacts, row: PriceRow) -> Decimal | None:
    """(ask − bid) ÷ their middle, at least 0; None if a side is missing."""
    bid, ask = row.bid, row.ask
    if bid is None or ask is None or bid <= 0 or ask <= 0:
        return None
    return (ask - bid) * 2 / (ask + bid) if ask > bid else _ZERO


def _worst_spread(view: ScopeView) -> Interval:
    columns = view.columns
    if columns is None:
        return UNKNOWN
    worst = float(columns.spread.max()) if len(columns) else 0.0
    if not math.isnan(worst):
        return worst, worst
    return max((each for each in columns.spread.tolist() if not math.isnan(each)), default=0.0), MOST_SPREAD


def _price_age(view: ScopeView, symbol: str) -> Interval:
    def age(facts: AccountFacts, row: PriceRow) -> float | None:
        at = None if row.mark_price is None else facts.printed_at(row)
        return None if at is None else max(0, view.as_of - at) / SECOND

    return _largest(view, symbol, age, math.inf)


def _price_gap(view: ScopeView, symbol: str, a: str, b: str) -> Interval:
    def gap(_: AccountFacts, row: PriceRow) -> Decimal | None:
        prices = {"mark": row.mark_price, "index": row.index_price, "last": row.last_price}
        one, other = prices[a], prices[b]
        return None if one is None or other is None or one <= 0 or other <= 0 else abs(one - other) / other

    return _largest(view, symbol, gap, math.inf)


def _crossed(view: ScopeView, symbol: str) -> bool | None:
    """True if the bid is above the ask in one account; false only if every venue has both sides."""
    found: dict[str, bool | None] = {}
    for facts, rows in view.priced(symbol):
        found.setdefault(facts.account.venue, None)
        sides = ((row.bid, row.ask) for row in rows or ())
        both = next(((bid, ask) for bid, ask in sides if bid is not None and ask is not None), None)
        if both is not None:
            found[facts.account.venue] = bool(found[facts.account.venue]) or both[0] > both[1]
    if any(found.values()):
        return True
    return None if not found or None in found.values() else False


def _state(view: ScopeView, symbol: str, session: str | TradingSession) -> str | None:
    """The worst state of the symbol in the scope; None if a rule lacks the state and no other one is the worst.

    Outside of its session a market is closed. Venues give that as halted, or no state; only a delisting outlasts it.
    """
    found: list[str | None] = []
    for facts in view.facts:
        rule = view.instrument(facts.name, symbol)
        if rule is not None:
            found.append("at_limit" if rule.state == "open" and _is_at_limit(view, facts, symbol) else rule.state)
    if found and not isinstance(session, str) and not session.is_open(view.as_of):
        return "delisted" if "delisted" in found else "closed"
    worst = max((each for each in found if each is not None), key=STATES.index, default=None)
    return None if None in found and worst != STATES[-1] else worst


def _is_at_limit(view: ScopeView, facts: AccountFacts, symbol: str) -> bool:
    """Whether the last price is as far from the reference price as the venue lets it move."""
    if not facts.is_priced(view.as_of, view.stale_after):
        return False
    for row in facts.watched:
        if row.symbol == symbol and row.last_price is not None and row.reference_price and row.price_limit:
            return abs(row.last_price / row.reference_price - 1) >= row.price_limit
    return False


# Depth


def _depth(view: ScopeView, symbol: str, side: str, within: float) -> Interval:
    """The resting amount within the fraction, in the scope's currency: the least of all venues."""
    found: dict[str, Interval] = {}
    for facts in view.facts:
        venue, account = facts.account.venue, facts.account
        if not facts.is_priced(view.as_of, view.stale_after):
            found.setdefault(venue, (0.0, math.inf))
            continue
        row = next((each for each in account.liquidity or () if each.symbol == symbol), None)
        if row is not None:
            low, high = _resting(view, facts, row, side, within)
            before = found.get(venue, (0.0, math.inf))
            found[venue] = max(low, before[0]), min(high, before[1])
        elif facts.priced(symbol):
            found.setdefault(venue, (0.0, math.inf))
    if not found or all(interval == (0.0, math.inf) for interval in found.values()):
        return UNKNOWN
    return min(low for low, _ in found.values()), min(high for _, high in found.values())


def _resting(view: ScopeView, facts: AccountFacts, row: Liquidity, side: str, within: float) -> Interval:
    """Bounds of the depth within a fraction, from the depth within the one that the venue states."""
    contracts = row.bid_depth if side == "bid" else row.ask_depth
    value = None if contracts is None or contracts < 0 else _value(view, facts, row.symbol, side, contracts)
    if value is None or row.within is None:
        return 0.0, math.inf
    stated = float(row.within)
    if math.isclose(stated, within, rel_tol=1e-9):
        return value, value
    return (value, math.inf) if stated < within else (0.0, value)


def _value(view: ScopeView, facts: AccountFacts, symbol: str, side: str, contracts: Decimal) -> float | None:
    """The value of contracts at the best price of the side, or at the mark without one, in the scope's currency."""
    from killswitch.valuation.position_measures import contract_value, is_inverse

    rule = view.instrument(facts.name, symbol)
    face = contract_value(facts.account, symbol, rule)
    prices = [row.bid if side == "bid" else row.ask for row in facts.priced(symbol)]
    prices += [row.mark_price for row in facts.priced(symbol)]
    price = next((each for each in prices if each is not None and each > 0), None)
    if face is None or price is None:
        return None
    own = contracts * face / price if is_inverse(symbol, rule) else contracts * face * price
    value = view.converted_or_unknown(own, facts.account)
    return None if value is None else float(value)


def _depth_cover(view: ScopeView, symbol: str, side: str, within: float) -> Interval:
    """Depth ÷ the notional that is closed into this side: bids take long positions, asks short ones."""
    held = _closing_into(view, symbol, side)
    if held is None:
        return UNKNOWN
    if held == 0.0:
        return math.inf, math.inf
    low, high = _depth(view, symbol, side, within)
    return UNKNOWN if low == -math.inf else (low / held, high / held)


def _closing_into(view: ScopeView, symbol: str, side: str) -> float | None:
    """The notional of the symbol that is closed into this side, in the scope's currency; None if it is unknown."""
    if view.columns is None:
        return None
    total, closing = 0.0, "long" if side == "bid" else "short"
    for facts in view.facts:
        for place in facts.held.places_of(symbol):
            if facts.held.sides[place] == closing:
                own = facts.held.notionals[place]
                value = None if own is None else view.converted_or_unknown(own, facts.account)
                if value is None:
                    return None
                total += float(value)
    return total


BOOK_SIDE = Argument(
    key="book_side", kind="word", words=("bid", "ask"), meaning="The side of the order book that counts.", example="bid"
)
WITHIN = Argument(
    key="within",
    kind="fraction",
    meaning="The distance from the best price, as a fraction of it.",
    example="0.5%",
    range=(0.0, 1.0),
)
_PRICES = ("mark", "index", "last")
A = Argument(key="a", kind="word", words=_PRICES, meaning="The price that is compared.", example="mark")
B = Argument(
    key="b",
    kind="word",
    words=_PRICES,
    meaning="The price that it is compared with.",
    example="index",
    relations=(Relation("other_than", "a"),),
)
SESSION = Argument(
    key="session",
    kind="reference",
    document="Session",
    words=(ALWAYS,),
    meaning="The Session in which the market trades; `always` for one that never closes.",
    example=ALWAYS,
)
_OTHER_VENUE = "a venue of the scope cannot be read or does not state it: it is at least that of the others"


def _history_free(reader: Callable[..., Interval]) -> Callable[..., Interval]:
    """The reader of a signal of the current view alone."""

    def read(_: History, view: ScopeView, *arguments: object) -> Interval:
        return reader(view, *arguments)

    return read


SIGNALS: tuple[SignalSpec, ...] = (
    condition(
        name="market.spread",
        arguments=(SYMBOL,),
        unit="fraction",
        meaning="(ask − bid) ÷ their middle, at least 0. The widest of the venues of the scope.",
        partly_known=_OTHER_VENUE,
        unknown="a side is missing, as in auctions and maintenance",
        range=(0.0, MOST_SPREAD),
        reader=lambda _, view, symbol: _largest(view, symbol, _spread_of, MOST_SPREAD),
    ),
    condition(
        name="market.worst_spread",
        arguments=(),
        unit="fraction",
        meaning="The widest spread of the symbols that are held; 0 for an empty book.",
        partly_known="a side of a symbol is missing: it is at least that of the others",
        unknown="positions are unknown",
        range=(0.0, MOST_SPREAD),
        reader=_history_free(_worst_spread),
    ),
    condition(
        name="market.depth",
        arguments=(SYMBOL, BOOK_SIDE, WITHIN),
        unit="money",
        meaning="Value of the orders that rest within the fraction of the best price. The least of the venues.",
        partly_known="the venue states the depth within another fraction, or one venue does not state it",
        unknown="no venue states its depth, the best price or the contract's size",
        range=NOT_NEGATIVE,
        reader=_history_free(_depth),
    ),
    condition(
        name="market.depth_cover",
        arguments=(SYMBOL, BOOK_SIDE, WITHIN),
        unit="ratio",
        meaning=(
            "`market.depth` ÷ the notional that is closed into that side: long positions into bids, short ones into "
            "asks; +∞ without such a position."
        ),
        partly_known="the depth is partly known",
        unknown="the depth is unknown, or positions or a notional are",
        range=NOT_NEGATIVE,
        reader=_history_free(_depth_cover),
    ),
    condition(
        name="market.price_age",
        arguments=(SYMBOL,),
        unit="seconds",
        meaning=(
            "Time from the venue's time of the mark to the snapshot's as_of, at least 0. Illiquid marks are minutes "
            "old."
        ),
        partly_known=_OTHER_VENUE,
        unknown="there is no mark, or the venue does not state its time",
        range=NOT_NEGATIVE,
        reader=_history_free(_price_age),
    ),
    BoolSignal(
        name="market.crossed",
        arguments=(SYMBOL,),
        meaning="Whether the bid is above the ask. Both are of one answer; equal ones are not crossed.",
        partly_known="never",
        unknown="a side is missing",
        collects=(),
        needs_equity=False,
        reader=lambda _, view, symbol: _crossed(view, symbol),
    ),
    condition(
        name="market.price_gap",
        arguments=(SYMBOL, A, B),
        unit="fraction",
        meaning="|a − b| ÷ b of two prices of one answer. Of a dated future, mark and index differ by its basis.",
        partly_known=_OTHER_VENUE,
        unknown="one of the prices is missing",
        range=NOT_NEGATIVE,
        reader=_history_free(_price_gap),
    ),
    TextSignal(
        name="market.state",
        arguments=(SYMBOL, SESSION),
        measures="condition",
        meaning=(
            "The worst state of the market in the scope, from the best to the worst: open, at_limit (the last price "
            "is as far from the venue's reference price as it lets it move), limit_only, post_only, reduce_only, "
            "cancel_only, closed, delisted, halted. Outside of the declared session it is closed, whatever a venue "
            "states but a delisting: many state `halted` then, which is no halt. A rule counts until the venue gives "
            "it again, so that `open` may be old."
        ),
        partly_known="never",
        unknown="no account of the scope was given a rule of this symbol with its state",
        values=STATES,
        reads_pnl=False,
        needs_equity=False,
        collects=(),
        reader=lambda _, view, symbol, session: _state(view, symbol, session),
    ),
)
