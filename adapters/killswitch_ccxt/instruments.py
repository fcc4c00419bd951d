"""Conversion of ccxt's markets and tickers to instruments and prices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any, Final

from msgspec import Struct

from killswitch.model.parsing import Row, flag, instant, optional_number, positive, value_at
from killswitch.model.snapshot import Instrument, InstrumentState, WatchedPrice

ASSETS: Final = ("baseAsset", "quoteAsset")
"""Binance's names of the two assets of a symbol."""
TICKER: Final = "bid ask last indexPrice markPrice"
"""ccxt's fields of a ticker, in the order of `quote_of`."""
States = Mapping[str, InstrumentState | None]
"""Symbol → its state; None for a state that is not known here."""


def with_maximum(rule: Row, *maxima: Any) -> Row:
    """ccxt's market with the smallest of the maximum amounts `maxima`; None where there is none."""
    known = [it for it in map(positive, maxima) if it is not None]
    limits = rule.get("limits") or {}
    return {**rule, "limits": {**limits, "amount": {**(limits.get("amount") or {}), "max": min(known, default=None)}}}


class StateTable(Struct, frozen=True):
    """How a venue writes the state of a symbol into its rule."""

    fields: tuple[str, ...]
    """Fields of the venue's own rule; the first one that is not empty has the state."""
    states: Mapping[str, InstrumentState]
    """The venue's name of a state → the state."""
    passing: Collection[str]
    """Names of states for which ccxt states whether trading is on."""

    def read(self, rules: Mapping[str, Row]) -> dict[str, InstrumentState | None]:
        """Symbol → its state, without symbols in a passing state. An unknown name is an unknown state: closing skips a
        symbol whose state is closed."""
        names = {symbol: self._state_field(rule.get("info")) for symbol, rule in rules.items()}
        return {symbol: self.states.get(name) for symbol, name in names.items() if name not in self.passing}

    def _state_field(self, info: Any) -> str:
        found = (value_at(info, name) for name in self.fields)
        return str(next((value for value in found if value not in (None, "")), None))


def names_its_assets(rule: Row) -> bool:
    """Whether the symbol names its assets: `BTC/USDT`, and for a contract also the coin of settlement."""
    if "base" not in rule:
        return True  # kept by an earlier run, or of an exchange with other names
    base, quote, settle = (rule.get(name) for name in ("base", "quote", "settle"))
    info = rule.get("info")
    named = [rule[name] for name in ("baseId", "quoteId") if name in rule]
    if isinstance(info, Mapping) and info.keys() & set(ASSETS):
        named += [info.get(name) for name in ASSETS]  # ccxt fills a missing name from the symbol
    if not all(isinstance(it, str) and it for it in (base, quote, *named)):
        return False
    name = f"{base}/{quote}:{settle}" if rule.get("contract") else f"{base}/{quote}"
    return str(rule.get("symbol")).startswith(name)


def instruments(
    rules: Iterable[Row], states: States | None = None, *, tick_size: bool = True
) -> tuple[Instrument, ...]:
    """One instrument for each rule. `states` override those of the rules; `tick_size`: precisions are steps."""
    states = states or {}
    return tuple(_instrument(rule, states, tick_size) for rule in rules if names_its_assets(rule))


class InstrumentChanges:
    """The instruments of the last snapshot, so that a snapshot has only those that have changed."""

    def __init__(self) -> None:
        self._last: tuple[Instrument, ...] = ()
        self._made_of: object = None

    def is_any_closed(self, symbols: Collection[str]) -> bool:
        """Whether one of the symbols accepts no orders, as far as known."""
        return any(each.symbol in symbols and each.state not in ("open", None) for each in self._last)

    def changed_instruments(
        self, made_of: object, make: Callable[[], tuple[Instrument, ...]]
    ) -> tuple[Instrument, ...] | None:
        """The instruments of `make` that have changed; None where none has, or the inputs are the same as before."""
        if made_of == self._made_of:
            return None
        found, old = make(), {each.symbol: each for each in self._last}
        self._last, self._made_of = found, made_of
        return tuple(each for each in found if old.get(each.symbol) != each) or None


def _instrument(rule: Row, states: States, tick_size: bool) -> Instrument:
    precision, limits = rule.get("precision") or {}, rule.get("limits") or {}
    amounts, costs = limits.get("amount") or {}, limits.get("cost") or {}
    maxima = (amounts.get("max"), (limits.get("market") or {}).get("max"))
    return Instrument(
        symbol=str(rule["symbol"]),
        contract_size=Decimal(1) if rule.get("spot") else _above_zero(rule.get("contractSize")),
        inverse=flag(rule.get("inverse")) is True,
        amount_step=_step(optional_number(precision.get("amount")), tick_size),
        price_step=_step(optional_number(precision.get("price")), tick_size),
        min_amount=_above_zero(amounts.get("min")),
        # A venue may accept less in a market order than in a limit order.
        max_amount=min((most for most in map(_above_zero, maxima) if most is not None), default=None),
        min_notional=_above_zero(costs.get("min")),
        state=states[symbol] if (symbol := str(rule["symbol"])) in states else _state(rule),
    )


def _above_zero(value: Any) -> Decimal | None:
    found = optional_number(value)
    return found if found is not None and found > 0 else None


def _step(found: Decimal | None, tick_size: bool) -> Decimal | None:
    if found is None:
        return None
    if tick_size:
        return found if found > 0 else None
    return Decimal(1).scaleb(-int(found))


def _state(rule: Row) -> InstrumentState | None:
    active = flag(rule.get("active"))
    return None if active is None else "open" if active else "halted"


class Quote(Struct, frozen=True):
    """Prices in quote units per base unit, at the venue time `at`; None is unknown.

    `lowest`: the lowest price at which the venue takes an order to sell; `highest`: the highest to buy.
    """

    bid: Decimal | None = None
    ask: Decimal | None = None
    last: Decimal | None = None
    index: Decimal | None = None
    mark: Decimal | None = None
    at: datetime | None = None
    lowest: Decimal | None = None
    highest: Decimal | None = None


def valuation_price(quote: Quote) -> Decimal | None:
    """The price that values a holding: the last price, or the middle of bid and ask; None where both are missing."""
    if quote.last is not None or quote.bid is None or quote.ask is None:
        return quote.last
    return (quote.bid + quote.ask) / 2


def watched_price(symbol: str, quote: Quote, *, is_spot: bool) -> WatchedPrice:
    """The prices of a watched symbol; the mark of a spot market is the price that values a holding."""
    mark = valuation_price(quote) if is_spot else quote.mark
    reference, limit = _band(quote.lowest, quote.highest)
    return WatchedPrice(symbol, mark, quote.index, quote.last, quote.bid, quote.ask, quote.at, reference, limit)


BAND_STEP: Final = Decimal("1e-12")


def _band(lowest: Decimal | None, highest: Decimal | None) -> tuple[Decimal | None, Decimal | None]:
    """The middle of the two prices, and their distance from it as a fraction, rounded down: each of the two is at the
    limit. (None, None) if one is unknown, or they are no band."""
    if lowest is None or highest is None or not 0 < lowest < highest:
        return None, None
    middle = (lowest + highest) / 2
    return middle, ((highest - lowest) / (highest + lowest)).quantize(BAND_STEP, ROUND_DOWN)


CLOSE_BOOK: Final = Decimal("0.05")
"""Largest difference between bid and ask, as a share of the bid, at which their middle is a price."""


def book_price(quote: Quote) -> Decimal | None:
    """The middle of bid and ask where they are close; a single stray trade does not move it."""
    if quote.bid is None or quote.ask is None or not Decimal(0) <= quote.ask - quote.bid <= CLOSE_BOOK * quote.bid:
        return None
    return (quote.bid + quote.ask) / 2


def marks_of(found: Mapping[str, Quote]) -> dict[str, Decimal]:
    """Symbol → its mark price, for quotes that have one."""
    return {symbol: quote.mark for symbol, quote in found.items() if quote.mark is not None}


def quote_of(row: Row, names: str, at: datetime | None) -> Quote:
    """A quote from the fields `names` of a row, separated by spaces: bid, ask, last, index and mark; `-` for none."""
    bid, ask, last, index, mark = (positive(row.get(name)) for name in names.split())
    return Quote(bid, ask, last, index, mark, at)


def quotes(tickers: Mapping[str, Row]) -> dict[str, Quote]:
    """Symbol → its quote."""
    return {symbol: quote_of(row, TICKER, instant(row.get("timestamp"))) for symbol, row in tickers.items()}
