"""Answers of an account whose equity prices alone have moved: a wallet, and one position that made the rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from killswitch.model.snapshot import AccountSnapshot, Balance, Snapshot
from tests.worlds import START, account, position, snapshot

SYMBOL = "BTC/USDT:USDT"


def made(equity: str, wallet: str = "10000", **more: Any) -> AccountSnapshot:
    """An account with this equity, of which the wallet is a part and the rest is open profit or loss."""
    profit, currency = Decimal(equity) - Decimal(wallet), more.get("currency", "USDT")
    balance = Balance(currency, Decimal(wallet), wallet=Decimal(wallet), equity=Decimal(equity))
    held = [position(SYMBOL, "long", str(profit), notional="20000", margin="2000")]
    return account(equity, held, balances=(balance,), unrealized=profit, **more)


Observed = tuple[datetime, Sequence[AccountSnapshot]]


def minutes(*answers: AccountSnapshot | Sequence[AccountSnapshot], begin: datetime = START) -> list[Observed]:
    """An answer, or one of each account, a minute apart."""
    found = [(each,) if isinstance(each, AccountSnapshot) else tuple(each) for each in answers]
    return [(begin + timedelta(minutes=place), each) for place, each in enumerate(found)]


def recorded(observed: Sequence[Observed]) -> list[Snapshot]:
    """The snapshots of a recording."""
    return [snapshot(at, *accounts) for at, accounts in observed]
