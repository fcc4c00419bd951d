"""What Kraken Futures lets in, what requests cost there, and what the adapter can do."""

from __future__ import annotations

from typing import Final

from killswitch.model.inspection import Capability
from killswitch.model.venue import Cost, RateLimit

LIMITS: Final = (RateLimit("derivatives", 500, 10.0), RateLimit("history", 40, 600.0))
"""The venue's history pool is 100 in ten minutes; the account log takes 1 or 3 of it each 60 s, as much again while
money moves, and two more when it begins to."""
COSTS: Final = (
    Cost("snapshot", "derivatives", units=5), Cost("submit", "derivatives", units=10),
    Cost("submit_batch", "derivatives", units=9, each=1), Cost("find_order", "derivatives", units=3),
    Cost("find_order", "history", units=1), Cost("open_orders", "derivatives", units=2),
    Cost("fills", "derivatives", units=5), Cost("fills", "history", units=1),
    Cost("cancel", "derivatives", units=10), Cost("dead_man", "derivatives", units=25),
)  # fmt: skip
CAPABILITIES: Final = (
    Capability("equity", "yes", "portfolio value of the flex wallet, in USD"),
    Capability("positions", "yes", "the venue tells no notional, leverage or liquidation price"),
    Capability("orders", "yes"),
    Capability("trigger orders", "yes", "in the same list"),
    Capability("fills", "yes", "the fee where the venue tells it"),
    Capability("flows", "yes", "from the account log"),
    Capability("prices", "yes"),
    Capability("market orders", "yes", "the venue bounds them at 1% from the market"),
    Capability("limit orders", "yes"),
    Capability("reduce only", "yes"),
    Capability("put back stops", "yes", "triggered by the mark"),
    Capability("batch orders", "yes"),
    Capability("close book", "no"),
    Capability("position mode", "yes", "one way always"),
    Capability("find by client id", "yes", "by the status; five seconds after its end by the history, a week back"),
    Capability("dead man", "yes", "all orders of the account; disarm before maintenance"),
    Capability("push", "yes"),
    Capability("key rights", "no", "the venue does not tell"),
    Capability("clock", "no"),
    Capability("bars", "yes"),
    Capability("sandbox", "yes", "demo-futures.kraken.com, with keys of its own"),
    Capability("demo", "no"),
)
