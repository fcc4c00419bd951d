"""What would be read wrong in silence: money of another currency, and rows that a venue writes down late."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.snapshot import Flow, Position
from killswitch.model.venue import AccountSpec
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.equity import AccountEquity, in_one_currency
from killswitch_ccxt.numbers import UnreadableError
from killswitch_ccxt.rules import Rules
from killswitch_ccxt.snapshot_reader import SnapshotReader
from tests.virtual_time import START, VirtualTime


def test_money_of_another_currency_is_not_taken_for_the_accounts_own() -> None:
    """An account in USDC that is told of 5 000 USDT only: what it is worth is not known."""
    balance: dict[str, Any] = {"USDT": {"total": "5000"}, "USD": {"total": "7000"}}
    with pytest.raises(UnreadableError, match="USDC"):
        in_one_currency(balance, "USDC")


def test_a_row_that_the_venue_writes_down_late_is_still_asked_for() -> None:
    """Money came half a minute before a reading and was in no ledger yet: the next reading asks from before it."""
    time = VirtualTime()
    begins: list[int] = []

    class Told(Dialect):
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

    async def course() -> None:
        spec = AccountSpec("main", "ccxt", "swap", "USDT", None, {"clock": time}, {}, exchange="binanceusdm")
        client = Client(spec, Told)
        client.ccxt.has["fetchTime"] = False
        dialect = Told(client, spec)
        rules = Rules(client, dialect, spec)

        async def ready(**_: bool) -> None:
            """The rules are there."""

        rules.ready = ready  # type: ignore[method-assign] # they are not what is tried here
        reading = SnapshotReader(client, dialect, spec, rules)
        try:
            await reading.snapshot()
            await asyncio.sleep(120.0)
            await reading.snapshot()
        finally:
            await client.close()

    time.run(course())
    first = int(START.timestamp() * 1000)
    assert begins[0] <= first - 3_600_000, "what happened while nobody looked is asked for"
    assert len(begins) == 2
    assert begins[1] <= first - 30_000
