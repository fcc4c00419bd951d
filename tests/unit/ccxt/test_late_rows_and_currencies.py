"""Two silent misreadings: money of another currency, and rows that a venue publishes late."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.parsing import UnreadableError
from killswitch.model.snapshot import Flow, Position
from killswitch.model.venue import AccountSpec
from killswitch_ccxt.client import Client
from killswitch_ccxt.equity import AccountEquity, in_one_currency
from killswitch_ccxt.rules import Rules
from killswitch_ccxt.snapshot_reader import SnapshotReader
from killswitch_ccxt.venues.generic import Generic
from tests.virtual_time import START, VirtualTime


def test_money_of_another_currency_is_not_counted_as_the_accounts_own() -> None:
    """A USDC account whose balance has only 5 000 USDT and 7 000 USD: its equity is unknown."""
    balance: dict[str, Any] = {"USDT": {"total": "5000"}, "USD": {"total": "7000"}}
    with pytest.raises(UnreadableError, match="USDC"):
        in_one_currency(balance, "USDC")


def test_a_row_that_the_venue_publishes_late_is_still_requested() -> None:
    """Money arrived half a minute before a snapshot and was in no ledger yet: the next one requests rows since then."""
    time = VirtualTime()
    begins: list[int] = []

    class AccountOf1000(Generic):
        exchange = "binanceusdm"

        async def account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
            return AccountEquity(Decimal(1000)), ()

        async def orders(self) -> tuple[Any, ...]:
            return ()

        async def fills(self, symbols: object, since: int) -> tuple[Any, ...]:
            return ()

        async def flows(self, since: int) -> tuple[Flow, ...]:
            begins.append(since)
            return ()

    async def scenario() -> None:
        spec = AccountSpec("main", "ccxt", "swap", "USDT", None, {"clock": time}, {}, exchange="binanceusdm")
        client = Client(spec, AccountOf1000)
        client.ccxt.has["fetchTime"] = False
        dialect = AccountOf1000(client, spec)
        rules = Rules(client, dialect, spec)

        async def ready(**_: bool) -> None:
            """The rules are available."""

        rules.ready = ready  # type: ignore[method-assign] # not under test
        reader = SnapshotReader(client, dialect, spec, rules)
        try:
            await reader.snapshot()
            await asyncio.sleep(120.0)
            await reader.snapshot()
        finally:
            await client.close()

    time.run(scenario())
    first = int(START.timestamp() * 1000)
    assert begins[0] <= first - 3_600_000, "rows from before the first snapshot are requested"
    assert len(begins) == 2
    assert begins[1] <= first - 30_000
