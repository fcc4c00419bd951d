"""What a venue books without anybody trading: settlements, splits, redenominations, and contracts that it takes.

Each is an action on a book at an instant; the truth follows from what the account is worth before and after it.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import ROUND_DOWN, Decimal
from fractions import Fraction
from typing import Literal

from tests.worlds.world import NEVER, ZERO, Book, Side, exact

Rows = Literal["one", "each"]
"""A row of the ledger for each asset that is settled, or for each position."""
FULL = 0.45
"""The largest part of its notional that a position carries as profit or loss."""


def carry(book: Book, share: float) -> None:
    """Every position begins with an unrealised profit; together about `share` of the first equity, which is unchanged.

    The entry prices show it, and the wallets have as much less. Negative: a loss. What they carried before is dropped.
    """
    held = [(key, holding) for key, holding in book.holdings.items() if not book.contracts[key[0]].option]
    gross = sum(float(notional(book, *key)) for key, _ in held)
    if not gross:
        return
    part = Decimal(str(round(max(-FULL, min(FULL, share * book.equity(0.0) / gross)), 6)))
    for (symbol, side), holding in held:
        contract = book.contracts[symbol]
        mark, sign = contract.path.at(0.0), 1 if side == "long" else -1
        before = book.profit(contract, side, holding, 0.0)
        holding.entry = exact(mark / (1 + sign * part) if contract.inverse else mark * (1 - sign * part))
        book.add(contract.settle, before - book.profit(contract, side, holding, 0.0))


def notional(book: Book, symbol: str, side: Side, t: float = 0.0) -> Decimal:
    """The notional of a position in the account's currency."""
    contract, held = book.contracts[symbol], book.holdings[symbol, side].contracts
    mark = contract.path.at(t)
    return held * contract.size * book.price(contract.settle, t) * (1 / mark if contract.inverse else mark)


def settle_profits(
    book: Book,
    t: float,
    *,
    lag: float = NEVER,
    kind: str = "funding",
    rows: Rows = "one",
    only: Collection[tuple[str, Side]] | None = None,
) -> None:
    """Unrealised profit becomes wallet and the entry price becomes the mark, of all positions or of `only` some.

    The rows are visible `lag` seconds later. Options pay no daily settlement.
    """
    book.world.touch(t)
    paid: list[tuple[str, Decimal]] = []
    for (symbol, side), holding in book.holdings.items():
        contract = book.contracts[symbol]
        if contract.option or (only is not None and (symbol, side) not in only):
            continue
        profit = book.profit(contract, side, holding, t)
        holding.entry = contract.path.at(t)
        book.add(contract.settle, profit)
        paid.append((contract.settle, profit))
    book.world.settle(t)
    if lag == NEVER:
        return
    if rows == "one":
        paid = [(asset, sum((x for it, x in paid if it == asset), ZERO)) for asset in dict(paid)]
    for asset, amount in paid:
        if amount:
            book.row(t, kind, amount, asset, t + lag)


def split_contracts(book: Book, t: float, symbol: str, ratio: Fraction) -> None:
    """Every contract becomes `ratio` contracts; the path must fall to 1 ÷ `ratio` of itself at this very instant."""
    for (held, _), holding in book.holdings.items():
        if held == symbol:
            holding.contracts = holding.contracts * ratio.numerator / ratio.denominator
            holding.entry = exact(holding.entry * ratio.denominator / ratio.numerator)
    book.world.settle(t)


def split_holding(book: Book, t: float, asset: str, ratio: Fraction, *, whole: bool = False) -> None:
    """The same of coins or shares that are held. `whole`: the broken part is paid as cash, at the price after it."""
    held = book.wallets[asset] * ratio.numerator / ratio.denominator
    kept = held.to_integral_value(ROUND_DOWN) if whole else exact(held)
    book.wallets[asset] = kept
    if whole:
        book.add(book.currency, exact((held - kept) * book.price(asset, t), 2))
    book.world.settle(t)


def close_all(book: Book, t: float, *, lag: float, slip: float = 0.0) -> None:
    """Every position is closed at the market; a spot account sells nothing."""
    for symbol, side in list(book.holdings):
        held = book.holdings[symbol, side].contracts
        book.trade(
            t, symbol, "sell" if side == "long" else "buy", held, slip=slip, lag=lag,
            position_side=side if book.hedge else None,
        )  # fmt: skip


def withdraw_all(book: Book, t: float, *, lag: float, share: float = 1.0, transit: bool = False) -> dict[str, Decimal]:
    """Of every asset `share` leaves, as rows of their own; the amounts that left."""
    left: dict[str, Decimal] = {}
    for asset, amount in list(book.wallets.items()):
        moved = amount if share == 1.0 else exact(amount * Decimal(str(share)))
        if moved:
            kind = "transfer" if transit else "withdrawal"
            book.flow(t, kind, -moved, asset=asset, lag=lag, transit=transit)
            left[asset] = moved
    return left


def deposit_all(book: Book, t: float, amounts: dict[str, Decimal], *, lag: float, transit: bool = False) -> None:
    """These amounts come, as rows of their own."""
    for asset, amount in amounts.items():
        book.flow(t, "transfer" if transit else "deposit", amount, asset=asset, lag=lag, transit=transit)


def seize(book: Book, t: float, *, left: float = 0.0) -> None:
    """The venue takes all positions and all money but `left` of the first asset, and no row ever reports it."""
    book.world.touch(t)
    book.holdings.clear()
    for asset in book.wallets:
        book.wallets[asset] = ZERO
    book.wallets[book.currency] = exact(left)
    book.world.settle(t)
