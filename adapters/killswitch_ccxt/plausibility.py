"""Facts of a snapshot that cannot be right: refused, or unknown in the snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from msgspec import structs

from killswitch.model.snapshot import Position
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.numbers import UnreadableError, not_negative

ROUNDING: Final = Decimal("1e-6")
"""The difference between the equity and the sum of its parts, as a share of the equity, that counts as rounding."""


def check_margin(account_equity: AccountEquity, positions: Sequence[Position]) -> None:
    """UnreadableError for margin of positions where there are no positions: one of the two answers is wrong.

    The maintenance margin decides only where nothing else does: some venues keep it for debts and orders, too.
    """
    held, kind = account_equity.margin_used, "initial"
    if held is None and not account_equity.has_orders_in_maintenance:
        held, kind = account_equity.maintenance_margin, "maintenance"
    if not positions and held:
        raise UnreadableError(
            f"positions use {kind} margin of {held} in the account's currency, and there are no positions"
        )


def without_contradicted_equity(account_equity: AccountEquity, positions: Sequence[Position]) -> AccountEquity:
    """Without an equity of exactly zero where there are positions: then the answer lacks the coin in which they settle.

    A negative equity is real for a moment, during a liquidation.
    """
    if not positions or account_equity.equity != 0:
        return account_equity
    why = f"equity: it is 0 beside {len(positions)} positions, so the answer lacks their settlement coin"
    return replace(account_equity, equity=None, unrealized=None, why=why)


def without_contradicted_profit(account_equity: AccountEquity, currency: str) -> AccountEquity:
    """Without the unrealised profit where it and the wallets do not sum up to the equity: then it is unknown."""
    gap, equity = account_equity.gap, account_equity.equity
    if gap is None or equity is None or abs(gap) <= ROUNDING * max(abs(equity), Decimal(1)):
        return account_equity
    why = f"unrealised profit: with the wallets it differs from the equity by {gap:.8f} {currency}"
    return replace(account_equity, unrealized=None, why=why)


def without_invalid_values(position: Position) -> Position:
    """The position without a negative margin or rank, which cannot be right."""
    margin = not_negative(position.margin)
    rank = None if position.adl_rank is None or position.adl_rank < 0 else position.adl_rank
    if margin is position.margin and rank == position.adl_rank:
        return position
    return structs.replace(position, margin=margin, adl_rank=rank)
