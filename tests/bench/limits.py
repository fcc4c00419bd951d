"""The documented order limits of three venues, and the minimum time that they and the network permit for a close.

Looked up on 2026-11-21; of two counts that a document leaves open, the stricter one:

- Binance USD-M futures: 300 orders in 10 s and 1,200 in a minute for an account, weight 2,400 in a minute for an
  address (`GET /fapi/v1/exchangeInfo`, `rateLimits`); `POST /fapi/v1/order` counts 1, 1 and 0, `POST
  /fapi/v1/batchOrders`, of up to 5, counts 5, 1 and 5 (developers.binance.com, derivatives, usds-margined-futures:
  New Order, Place Multiple Orders). A snapshot is account, positions (5 each) and all open orders (40).
- Bybit, linear contracts of a unified account: 10 orders a second to `/v5/order/create` and 10 to
  `/v5/order/create-batch`, where each order of a batch counts; 50 position lists and 50 order lists a second; 600
  requests in 5 s for an address (bybit-exchange.github.io/docs/v5/rate-limit, /docs/v5/order/batch-place). Whether
  the two share one count is taken to be so, and a batch to be 10 at most, because more never fit into a second.
- OKX: 1,000 new orders in 2 s for a sub-account, each of a batch counted (okx.com/help,
  fill-ratio-sub-account-rate-limit); 60 single orders in 2 s for an instrument; batches of up to 20; 10 requests of
  positions in 2 s (okx.com/docs-v5: POST Place order, POST Place multiple orders, GET Positions).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from killswitch.model.venue import Call, ClientIdRule, Cost, RateLimit, VenueDescription, VenueTraits

BINANCE = VenueDescription(
    limits=(
        RateLimit("orders-10s", 300, 10.0),
        RateLimit("orders-1m", 1200, 60.0),
        RateLimit("weight-1m", 2400, 60.0, by="address"),
    ),
    costs=(
        Cost("submit", "orders-10s", each=1),
        Cost("submit", "orders-1m", each=1),
        Cost("submit_batch", "orders-10s", units=5),
        Cost("submit_batch", "orders-1m", units=1),
        Cost("submit_batch", "weight-1m", units=5),
        Cost("snapshot", "weight-1m", units=50),
        Cost("open_orders", "weight-1m", units=40),
        Cost("find_order", "weight-1m", units=1),
        Cost("fills", "weight-1m", units=5),
        Cost("cancel", "weight-1m", units=1),
    ),
    batch=5,
    client_ids=ClientIdRule("plain", 36),
)
BYBIT = VenueDescription(
    limits=(
        RateLimit("orders", 10, 1.0),
        RateLimit("lists", 50, 1.0),
        RateLimit("requests", 600, 5.0, by="address"),
    ),
    costs=(
        Cost("submit", "orders", each=1),
        Cost("submit", "requests", units=1),
        Cost("submit_batch", "orders", each=1),
        Cost("submit_batch", "requests", units=1),
        Cost("snapshot", "lists", units=2),
        Cost("snapshot", "requests", units=3),
        Cost("open_orders", "lists", units=1),
        Cost("open_orders", "requests", units=1),
        Cost("find_order", "lists", units=1),
        Cost("find_order", "requests", units=1),
        Cost("fills", "requests", units=1),
        Cost("cancel", "requests", units=1),
    ),
    batch=10,
    client_ids=ClientIdRule("plain", 36),
)
OKX = VenueDescription(
    limits=(
        RateLimit("orders", 1000, 2.0),
        RateLimit("instrument", 60, 2.0, by="symbol"),
        RateLimit("positions", 10, 2.0),
    ),
    costs=(
        Cost("submit", "orders", each=1),
        Cost("submit", "instrument", each=1),
        Cost("submit_batch", "orders", each=1),
        Cost("snapshot", "positions", units=1),
        Cost("find_order", "instrument", each=1),
    ),
    batch=20,
    client_ids=ClientIdRule("plain", 32),
)


class Trip(Struct, frozen=True):
    """One request: the loop's time when it was sent, and its randomly drawn round trip."""

    call: Call
    sent_at: float
    elapsed: float
    orders: int = 0


def spread(traits: VenueDescription, orders: int) -> tuple[float, int]:
    """(minimum seconds from the first to the last order sent, how many orders are sent last).

    One order for each symbol, singly or in full batches, whichever is faster: of equal requests at `units` each, a
    limit permits floor(allowed / units) at once, and as many again every `per` seconds.
    """
    ways: list[tuple[Call, int]] = [("submit", 1)]
    if traits.batch > 1:
        ways.append(("submit_batch", traits.batch))
    return min(_spread(traits, call, size, orders) for call, size in ways)


def _spread(traits: VenueTraits, call: Call, size: int, orders: int) -> tuple[float, int]:
    requests = math.ceil(orders / size)
    latest, last = 0.0, orders
    for limit in traits.limits:
        taken = [cost for cost in traits.costs if cost.call == call and cost.limit == limit.name]
        units = sum(cost.units + cost.each * size for cost in taken)
        if units == 0 or limit.by == "symbol":
            continue
        fit = limit.allowed // units
        rounds = (requests - 1) // fit
        if rounds * limit.per >= latest:
            latest = rounds * limit.per
            last = min(last, orders - rounds * fit * size)
    return latest, last


def floor(traits: VenueDescription, orders: int, trips: Sequence[Trip]) -> float:
    """The minimum seconds for closing `orders` positions with the latencies of `trips`.

    The time until the limits permit the last orders, the longest round trip of those sent last, and the round trip of
    the snapshot that proves the book flat: nothing can prove it before they are answered.
    """
    latest, last = spread(traits, orders)
    sent = [trip for trip in trips if trip.orders]
    tail: list[float] = []
    count = 0
    for trip in sorted(sent, key=lambda trip: trip.sent_at, reverse=True):
        if count >= last:
            break
        tail.append(trip.elapsed)
        count += trip.orders
    proof = [trip.elapsed for trip in trips if trip.call == "snapshot"][-1:]
    return latest + max(tail) + sum(proof)
