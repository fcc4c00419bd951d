"""What OKX lets be done, how often, and what is to be known about it."""

from __future__ import annotations

from typing import Final

from killswitch.model.inspection import Capability
from killswitch.model.venue import Cost, RateLimit

LIMITS: Final = (
    RateLimit("orders", 60, 2.0, "symbol"),
    RateLimit("batch orders", 300, 2.0, "symbol"),
    RateLimit("account orders", 1000, 2.0),
    RateLimit("cancels", 60, 2.0, "symbol"),
    RateLimit("order details", 60, 2.0, "symbol"),
    RateLimit("pending", 60, 2.0),
    RateLimit("algo pending", 20, 2.0),
    RateLimit("fills", 60, 2.0),
    RateLimit("positions", 10, 2.0),
    RateLimit("balance", 10, 2.0),
    RateLimit("bills", 5, 1.0),
    RateLimit("dead man", 1, 1.0),
)
"""By user id, and where it says so by instrument. A batch counts by its orders.

A reading of all orders is one question for plain orders and five for algo orders: every 5 s, and while things move
every 2 s, which is 2.5 a second of the 10 that there are.
"""
COSTS: Final = (
    Cost("snapshot", "positions", 1),
    Cost("snapshot", "balance", 1),
    Cost("snapshot", "pending", 1),
    Cost("snapshot", "algo pending", 3),
    Cost("snapshot", "fills", 1),
    Cost("snapshot", "bills", 1),
    Cost("submit", "orders", 1),
    Cost("submit", "account orders", 1),
    Cost("submit_batch", "batch orders", each=1),
    Cost("submit_batch", "account orders", each=1),
    Cost("find_order", "order details", 1),
    Cost("open_orders", "pending", 1),
    Cost("open_orders", "algo pending", 5),
    Cost("fills", "order details", 1),
    Cost("fills", "fills", 1),
    Cost("cancel", "cancels", 1),
    Cost("dead_man", "dead man", 1),
)
CAPABILITIES: Final = (
    Capability(
        "equity", "yes", "of the trading account, in its currency; what lies in the funding account is not seen"
    ),
    Capability("positions", "partly", "futures and perpetuals; an option or a spot margin position makes them unknown"),
    Capability("orders", "yes"),
    Capability("trigger orders", "partly", "all kinds but chase and smart iceberg orders, and those of trading bots"),
    Capability("fills", "yes", "of the last three days"),
    Capability(
        "flows",
        "yes",
        "all bills; a type that nobody knows counts as profit or loss; a deposit is seen when it comes"
        " from the funding account",
    ),
    Capability("prices", "yes"),
    Capability("market orders", "yes", "up to maxMktSz"),
    Capability("limit orders", "yes"),
    Capability("reduce only", "yes", "in long/short mode the position side guards instead"),
    Capability("put back stops", "partly", "a stop with a target beside it (OCO) comes back as the stop alone"),
    Capability("batch orders", "yes", "20 orders; conditional ones go one by one"),
    Capability("close book", "no", "OKX closes one instrument at a time"),
    Capability("position mode", "yes"),
    Capability("find by client id", "yes", "a cancelled order that never filled is forgotten after two hours"),
    Capability("dead man", "yes", "10 to 120 s, all instruments; whether it takes algo orders is not documented"),
    Capability("push", "yes", "plain orders, positions, account; algo orders are seen when they are next read"),
    Capability("key rights", "yes"),
    Capability("clock", "yes"),
    Capability("bars", "yes"),
    Capability("sandbox", "yes", "OKX's demo trading, with keys made there"),
    Capability("demo", "no", "say sandbox: OKX has one system for both"),
)
