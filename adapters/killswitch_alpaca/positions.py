"""Alpaca's positions as ours, and its names as ours: its positions write BTCUSD where its orders write BTC/USD."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from killswitch.model.snapshot import Position, Side
from killswitch_alpaca.numbers import Row, UnreadableError, decimal, needed, positive, word

CRYPTO, EQUITY, OPTION = "crypto", "us_equity", "us_option"
QUOTES = ("USDT", "USDC", "USD", "BTC")
"""What crypto is priced in at Alpaca, the longer names first."""


def symbol_of(name: str, asset_class: object) -> str:
    """Our symbol of what Alpaca calls `name`."""
    if asset_class != CRYPTO or "/" in name:
        return name
    quote = next((each for each in QUOTES if name.endswith(each) and len(name) > len(each)), None)
    return name if quote is None else f"{name.removesuffix(quote)}/{quote}"


def is_crypto(symbol: str) -> bool:
    """Whether the symbol, as ours, is of a market that never closes."""
    return "/" in symbol


def read_position(found: Row) -> Position | None:
    """One position; None for one of size zero. UnreadableError where its side and its size contradict each other."""
    name = word(found, "symbol")
    try:
        size = needed(found, "qty")
        if size == 0:
            return None
        side: Side = "long" if size > 0 else "short"
        told = found.get("side")
        if told not in (side, None):
            raise UnreadableError(f"qty {size} is said to be {told}")  # noqa: TRY301 - named below
        value = decimal(found.get("market_value"))
        return Position(
            symbol=symbol_of(name, found.get("asset_class")),
            side=side,
            contracts=abs(size),
            entry_price=positive(found.get("avg_entry_price")),
            mark_price=positive(found.get("current_price")),
            notional=None if value is None else abs(value),
            unrealized_pnl=decimal(found.get("unrealized_pl")),
        )
    except UnreadableError as error:
        raise UnreadableError(f"position {name}: {error}") from None


def read_positions(answer: Sequence[Row]) -> tuple[Position, ...]:
    """All of them. UnreadableError names the first that makes no sense: a book with a hole is no book."""
    found = [position for each in answer if (position := read_position(each)) is not None]
    keys = [position.key for position in found]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UnreadableError(f"position {twice[0]} is there twice")
    return tuple(found)


def worth(positions: Sequence[Position]) -> Decimal | None:
    """What the positions are worth together, shorts below zero; None once a part of it is unknown."""
    total = Decimal(0)
    for position in positions:
        if position.notional is None:
            return None
        total += position.notional if position.side == "long" else -position.notional
    return total
