"""OKX's error codes, limits and capabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from killswitch.model.venue import Cost, RateLimit
from killswitch_ccxt.errors import (
    CLOCK,
    DENIED,
    DOWN,
    GONE,
    LIMITED,
    MODE_CHANGED,
    UNKNOWN,
    Meaning,
    VenueAnswer,
    coded,
    rejected,
    unsure_code,
)
from killswitch_ccxt.traits import call_costs, capability_table

CODES: Final[Mapping[str, Meaning]] = {
    # Nothing to reduce: no position, or one that has turned
    **coded(rejected("already_flat"), 51023, 51043, 51169, 51170, 59216),
    **coded(rejected("below_minimum"), 50122, 51007, 51020, 51118, 51120),
    **coded(rejected("above_maximum"), 51004, 51005, 51033, 51101, 51108, 51185, 51201, 51202, 51203, 51207, 51275),
    # Open orders block the closing order, or there are too many of them
    **coded(rejected("blocked_by_order"), 51102, 51103, 51104, 51112, 51115, 51117, 51125, 51126, 51134, 51148, 51162,
            51165, 51167, 51168, 51174, 51206, 51210, 51213, 51342),
    # Price limits, also those of trigger prices against the last, the mark and the index price
    **coded(rejected("price_band"), 51006, 51031, 51116, 51122, 51135, 51136, 51137, 51138, 51250,
            51277, 51278, 51279, 51280, 51300, 51302, 51303, 51304, 51305, 51306, 51307, 51308),
    # Temporary: listing, suspension, settlement, auction, frozen by ADL or liquidation, cooling-off period, an empty
    # book
    **coded(rejected("market_closed"), 50009, 50017, 50018, 50019, 50020, 50021, 50022, 50023, 51001, 51021, 51022,
            51027, 51028, 51029, 51030, 51087, 51109, 51110, 51124, 51196, 51197, 51341, 51404, 51507, 54000, 54011,
            54012, 54035, 54072, 54094),
    **coded(rejected("insufficient_margin"), 51008, 51017, 51119, 51127, 51131, 51502, 59200),
    **coded(rejected("duplicate_client_order_id"), 50071, 51011, 51016, 51065, 51068),
    # The order itself: parameters, lot size, an amount outside the range, which may be either end of it
    **coded(rejected("other"), 51000, 51121, 51252),
    # The account lacks the permission, whatever the key's permissions are
    **coded(rejected("permission"), 4088, 50012, 50027, 50028, 50029, 50032, 50033, 50041, 50051, 50052, 50059, 50060,
            51009, 51010, 51024, 51155, 51734, 54007, 54008, 54092),
    # The key, its passphrase, its signature, its addresses, its permissions
    **coded(DENIED, 50007, 50008, 50030, 50035, 50100, 50101, 50103, 50104, 50105, 50106, 50107, 50110, 50111, 50113,
            50114, 50118, 50119, 50120, 50121, 60004, 60005, 60007, 60009, 60011, 60024, 60032),
    **coded(LIMITED, 50011, 50040, 50061, 51113, 58102, 60014),
    # Surely not accepted: maintenance, disabled API, an expired request
    **coded(DOWN, 50001, 50005, 60015, 64008),
    **coded(CLOCK, 50036, 50037, 50102, 50112, 60006),
    # "does not mean that the request was successful or failed", busy, system error, a request or an order that timed
    # out, a repeated request
    **coded(UNKNOWN, 50004, 50013, 50026, 50042, 51054, 51149, 63999),
    # Words for codes that need their text
    "posSide": MODE_CHANGED,
    "unsure": UNKNOWN,
    **coded(GONE, 51063, 51400, 51401, 51402, 51405, 51410, 51503, 51509, 51510, 51603),
}  # fmt: skip
FRAMES: Final = frozenset({"0", "1", "2"})
"""Outer codes that only refer to the rows."""


def row_codes(code: object, text: object) -> tuple[str, ...]:
    """A code with what its text adds, the most specific one first. 51000 is any wrong parameter; with the position
    side in its text, the account has the other position mode."""
    # "51008_1000" is how the documents write code and sub-code.
    number, message = str(code or "").partition("_")[0], str(text or "").lower()
    if number in FRAMES or not number:
        return ()
    if number == "51000" and "posside" in message:
        return ("posSide", number)
    return (number, *unsure_code(CODES, number, text))


def codes_in(answer: VenueAnswer) -> Iterable[str]:
    """The codes in a refusal: of its rows, then its own."""
    body = answer.fields
    data = body.get("data")
    rows = [it for it in data if isinstance(it, Mapping)] if isinstance(data, list) else []
    refusals = [row_codes(it.get("sCode"), it.get("sMsg")) for it in rows]
    return tuple(code for each in (*refusals, row_codes(body.get("code"), body.get("msg"))) for code in each)


LIMITS: Final = (
    *(RateLimit(name, 60, 2.0, "symbol") for name in ("orders", "cancels", "order details")),
    *(RateLimit(name, 60, 2.0) for name in ("pending", "fills")),
    *(RateLimit(name, 10, 2.0) for name in ("positions", "balance")),
    RateLimit("batch orders", 300, 2.0, "symbol"),
    RateLimit("account orders", 1000, 2.0),
    RateLimit("algo pending", 20, 2.0),
    RateLimit("bills", 5, 1.0),
    RateLimit("dead man", 1, 1.0),
)
"""Counted by user id, and where stated by instrument. A batch counts by its orders.

A fetch of all orders is one request for plain orders and five for algo orders: every 5 s, and every 2 s while orders
change, which is 2.5 a second of the 10 that are allowed.
"""
COSTS: Final = (
    *call_costs("positions", snapshot=1), *call_costs("balance", snapshot=1), *call_costs("bills", snapshot=1),
    *call_costs("pending", snapshot=1, open_orders=1), *call_costs("algo pending", snapshot=3, open_orders=5),
    *call_costs("fills", snapshot=1, fills=1), *call_costs("order details", find_order=1, fills=1),
    *call_costs("orders", submit=1), *call_costs("cancels", cancel=1), *call_costs("dead man", dead_man=1),
    Cost("submit_batch", "batch orders", each=1),
    *call_costs("account orders", submit=1), Cost("submit_batch", "account orders", each=1),
)  # fmt: skip
CAPABILITIES: Final = capability_table(
    {
        "equity": "yes, of the trading account, in its currency; the funding account is not read",
        "positions": "partly, futures and perpetuals; an option or a spot margin position makes them unknown",
        "trigger orders": "partly, all kinds but chase and smart iceberg orders, and those of trading bots",
        "fills": "yes, of the last three days",
        "flows": "yes, all bills; an unknown type counts as profit or loss; a deposit appears when it comes"
                 " from the funding account",
        "market orders": "yes, up to maxMktSz",
        "reduce only": "yes, in long/short mode by the position side",
        "put back stops": "partly, a stop with a target (OCO) is restored as the stop alone",
        "batch orders": "yes, 20 orders; conditional ones go one by one",
        "close book": "no, OKX closes one instrument at a time",
        "find by client id": "yes, a cancelled order that never filled is forgotten after two hours",
        "dead man": "yes, 10 to 120 s, all instruments; whether it takes algo orders is not documented",
        "push": "yes, plain orders, positions, account; algo orders are fetched later",
        "sandbox": "yes, OKX's demo trading, with keys made there",
        "demo": "no, use sandbox: OKX has one system for both",
    },
    "orders", "prices", "limit orders", "position mode", "key rights", "clock", "bars",
)  # fmt: skip
