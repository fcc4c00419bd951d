"""Conversion of ccxt's positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.parsing import Row, UnreadableError, decimal, not_negative, one_of, positive, required_number
from killswitch.model.snapshot import Position
from killswitch_ccxt.answers import NoSuchSymbolError
from killswitch_ccxt.instruments import Quote, names_its_assets
from killswitch_ccxt.orders import SIDES

Rules = Mapping[str, Row]
"""ccxt's markets by symbol."""


def positions(
    rows: Iterable[Row], rules: Rules, refine: Callable[[Position, Row], Position] = lambda position, _: position
) -> tuple[Position, ...]:
    """Every row with a size. `refine` adds what only the venue's own row (`info`) states.

    UnreadableError names a row that cannot be parsed: then no position is trusted.
    """
    found = []
    for row in rows:
        position = _position(row, rules)
        if position is not None:
            found.append(refine(position, row.get("info") or {}))
    keys = [it.key for it in found]
    if len(set(keys)) != len(keys):
        raise UnreadableError(f"the venue lists a position twice: {sorted(keys)}")
    return tuple(found)


def _position(row: Row, rules: Rules) -> Position | None:
    symbol = row.get("symbol")
    size = decimal(row.get("contracts"))
    if size == 0:
        return None
    if size is None:
        raise UnreadableError(f"position {symbol} has no size")
    if not isinstance(symbol, str) or symbol not in rules:
        raise NoSuchSymbolError(f"position {symbol!r}: the venue's rules have no such symbol")
    if not names_its_assets(rules[symbol]):
        raise UnreadableError(f"position {symbol}: the venue's rules do not state the underlying of the contract")
    mark = positive(row.get("markPrice"))
    position = Position(
        symbol=symbol,
        side=one_of(SIDES, row.get("side"), f"side of position {symbol}"),
        contracts=abs(size),
        entry_price=positive(row.get("entryPrice")),
        mark_price=mark,
        last_price=positive(row.get("lastPrice")),
        liquidation_price=positive(row.get("liquidationPrice")),
        margin=decimal(row.get("initialMargin")),
        leverage=positive(row.get("leverage")),
        unrealized_pnl=decimal(row.get("unrealizedPnl")),
    )
    stated = positive(None if row.get("notional") is None else abs(required_number(row["notional"], "notional")))
    return replace(position, notional=stated or position_value(position, rules[symbol]))


def check_contracts(found: tuple[Position, ...], rules: Rules) -> tuple[Position, ...]:
    """The positions unchanged. UnreadableError where the rules do not make one a contract: it would pass for a spot
    holding."""
    not_contracts = [position.symbol for position in found if not rules[position.symbol].get("contract")]
    if not_contracts:
        raise UnreadableError(f"the venue's rules do not state the underlying of {', '.join(not_contracts)}")
    return found


def position_value(position: Position, rule: Row) -> Decimal | None:
    """contracts × contract size × mark; ÷ mark for an inverse contract; None without a mark or a size."""
    size, mark = positive(rule.get("contractSize")), position.mark_price
    if rule.get("spot"):
        size = Decimal(1)
    if size is None or mark is None:
        return None
    base = position.contracts * size
    return base / mark if rule.get("inverse") else base * mark


def with_quote(position: Position, quote: Quote, rule: Row, currency: str) -> Position:
    """The position with prices of the market where it has none itself; with a notional, if that is in `currency`."""
    is_marked = position.mark_price is not None
    fuller = replace(
        position,
        mark_price=position.mark_price or quote.mark,
        mark_at=position.mark_at if is_marked else quote.at,
        index_price=position.index_price or quote.index,
        last_price=position.last_price or quote.last,
        bid=position.bid or quote.bid,
        ask=position.ask or quote.ask,
    )
    if fuller.notional is not None or not in_currency(rule, currency):
        return fuller
    return replace(fuller, notional=position_value(fuller, rule))


def without_invalid_values(position: Position) -> Position:
    """The position without a negative margin or rank, which cannot be right."""
    margin = not_negative(position.margin)
    rank = None if position.adl_rank is None or position.adl_rank < 0 else position.adl_rank
    if margin is position.margin and rank == position.adl_rank:
        return position
    return replace(position, margin=margin, adl_rank=rank)


def check_settlement(rule: Row, symbol: object) -> None:
    """UnreadableError where a contract settles in a coin that it is not of: it may be one of the account's."""
    if rule.get("settle") not in (rule.get("base"), rule.get("quote")):
        raise UnreadableError(f"position {symbol}: the venue's rules do not state the settlement coin")


def sized(rows: Sequence[Row], field: str) -> list[Row]:
    """The venue's rows with a size in `field`. UnreadableError for a missing size, and for one below zero."""
    sizes = [required_number(row.get(field), f"the size of {row.get('symbol')}") for row in rows]
    negative = [str(row.get("symbol")) for row, size in zip(rows, sizes, strict=True) if size < 0]
    if negative:
        raise UnreadableError(f"positions with a negative size: {', '.join(negative)}")
    return [row for row, size in zip(rows, sizes, strict=True) if size]


def converted(position: Position, rate: Decimal | None) -> Position:
    """The position with its money times `rate`; None where `rate` is unknown."""

    def money(amount: Decimal | None) -> Decimal | None:
        return None if amount is None or rate is None else amount * rate

    return replace(
        position,
        notional=money(position.notional),
        margin=money(position.margin),
        unrealized_pnl=money(position.unrealized_pnl),
    )


def in_currency(rule: Row, currency: str) -> bool:
    """Whether ccxt's amounts of a position are in the account's currency: an inverse contract has them in its coin."""
    return not rule.get("inverse") or rule.get("settle") == currency
