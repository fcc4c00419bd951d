"""An executed order is never sent again because its answer was damaged: real clients over loopback.

The list of positions is three seconds old, so that only the answer can show what was done.
"""

from __future__ import annotations

import asyncio
import copy
from decimal import Decimal
from typing import Any

import pytest

from killswitch.conformance.mutations import MISSING, Mutation
from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.venue import FateUnknownError
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudgets
from tests.conformance.harnesses import WireHarness
from tests.conformance.wires import WIRES
from tests.faults.journal_checker import MemoryJournal
from tests.faults.scene import committed, decision_on

LAG = 3.0
PATIENCE = 120.0
"""Seconds of virtual time."""
DAMAGED = [
    ("binance", Mutation("POST /fapi/v1/order", ("executedQty",), "zero", "0"), "GET /fapi/v3/positionRisk"),
    ("bitget", Mutation("POST /api/v2/mix/order/place-order", ("code",), "a word", "nonsense"),
     "GET /api/v2/mix/position/all-position"),
    ("okx", Mutation("POST /api/v5/trade/order", ("data", 0, "sCode"), "null", None), "GET /api/v5/account/positions"),
    ("krakenfutures", Mutation("POST /derivatives/api/v3/sendorder", ("sendStatus", "status"), "null", None),
     "GET /derivatives/api/v3/openpositions"),
    ("bybit", Mutation("POST /v5/order/create", ("retCode",), "null", None), "GET /v5/position/list"),
    ("mexc", Mutation("POST /api/v1/private/order/create", ("code",), "a word", "nonsense"),
     "GET /api/v1/private/position/open_positions"),
]  # fmt: skip


@pytest.mark.parametrize(("venue", "mutation", "positions"), DAMAGED, ids=[it[0] for it in DAMAGED])
def test_an_executed_order_with_a_damaged_answer_is_queried_and_not_sent_twice(
    venue: str, mutation: Mutation, positions: str
) -> None:
    """Half of four is two, whatever the one wrong field of the answer shows."""
    harness, journal = WireHarness(WIRES[venue]), MemoryJournal()
    key = (harness.symbols[0], "long")

    async def close_half() -> None:
        time = harness.time
        await (await harness.open({key: Decimal(4)})).close()
        answers: list[tuple[float, Any]] = []
        damaged: list[str] = []

        def change(route: str, answer: Any) -> Any:
            if route == positions and _has_rows(answer):
                answers.append((time.monotonic(), copy.deepcopy(answer)))
                old = [it for at, it in answers if at <= time.monotonic() - LAG]
                return copy.deepcopy(old[-1] if old else answers[0][1])
            changed = mutation.change(route, answer)
            if changed != answer:
                damaged.append(route)
            return changed

        adapter = await harness.connect(change)
        budget = RequestBudgets(1.0).of("main", "here", adapter.traits, Decimal("0.5"))
        closer = AccountExecutor("main", adapter, journal, time, budget=budget, breaker=Breaker())
        try:
            await closer.recover()
            await adapter.snapshot()
            decision = decision_on(harness.wire.exchange, "d1", time.now(), {key: Decimal(2)}, reduce_only=True)
            closer.adopt(committed(journal, decision))
            started = time.monotonic()
            while await closer.advance():
                assert time.monotonic() - started < PATIENCE, "the close does not end"
        finally:
            if (ending := closer.abandon()) is not None:
                await asyncio.gather(ending, return_exceptions=True)
            await adapter.close()
            await harness.close()
        assert damaged, f"{mutation} changed nothing"
        assert len(answers) > 1, f"no answer to {positions} was replaced by an older one"
        assert harness.held(key) == Decimal(2)

    harness.run(close_half())


def _has_rows(answer: Any) -> bool:
    """Whether the list of positions has a row: Bybit has one list for each settlement coin, two of them empty here."""
    result = answer.get("result") if isinstance(answer, dict) else None
    return not isinstance(result, dict) or bool(result.get("list"))


@pytest.mark.parametrize(("kind", "value"), [("null", None), ("missing", MISSING)])
def test_a_cancel_at_okx_without_its_verdict_is_not_reported_as_done(kind: str, value: object) -> None:
    """A row without `sCode` is no success: its order may still rest."""
    harness = WireHarness(WIRES["okx"])
    symbol = harness.symbols[0]

    async def cancel_order() -> None:
        await (await harness.open({(symbol, "long"): Decimal(4)})).close()
        await harness.rest(symbol, "buy", Decimal(1))
        adapter = await harness.connect(
            Mutation("POST /api/v5/trade/cancel-order", ("data", 0, "sCode"), kind, value).change
        )
        try:
            (order,) = await adapter.open_orders()
            with pytest.raises(FateUnknownError):
                await adapter.cancel(symbol, order.id)
        finally:
            await adapter.close()
            await harness.close()

    harness.run(cancel_order())
