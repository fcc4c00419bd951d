"""Several orders in one request to Bybit, each answered in its own place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from killswitch.model.venue import MalformedAnswerError, OrderReport, OrderRequest, VenueError
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect, PositionMode
from killswitch_ccxt.venues.bybit_rows import row_report

Found = dict[str, OrderReport | VenueError]
"""By client order id."""


async def sent_together(
    dialect: Dialect, requests: Sequence[OrderRequest], mode: PositionMode
) -> Sequence[OrderReport | VenueError]:
    """One request for each category: Bybit takes no mixed ones. A failure of the only request is raised."""
    found: Found = {}
    ready: dict[str, list[tuple[OrderRequest, dict[str, Any]]]] = {}
    for request in requests:
        try:
            arguments = dialect.create_arguments(request, mode)
        except VenueError as error:
            found[request.client_order_id] = error
            continue
        written = dict(dialect.client.ccxt.create_order_request(*arguments))
        ready.setdefault(str(written.pop("category")), []).append((request, written))
    for category, rows in ready.items():
        try:
            found |= await _sent(dialect.client, category, rows)
        except VenueError as error:
            if len(ready) == 1 and not found:
                raise
            found |= {request.client_order_id: error for request, _ in rows}
    return [found[request.client_order_id] for request in requests]


async def _sent(client: Client, category: str, rows: Sequence[tuple[OrderRequest, dict[str, Any]]]) -> Found:
    asked = {"category": category, "request": [written for _, written in rows]}
    answer = await client.call("privatePostV5OrderCreateBatch", asked, places=True)
    told = (answer.get("result") or {}).get("list") or []
    codes = (answer.get("retExtInfo") or {}).get("list") or []
    if len(told) != len(rows) or len(codes) != len(rows):
        raise MalformedAnswerError(f"a batch of {len(rows)} orders, and {len(told)} and {len(codes)} answers")
    return {
        request.client_order_id: row_report(request, row, code)
        for (request, _), row, code in zip(rows, told, codes, strict=True)
    }
