"""Deribit's error codes, limits and capabilities (https://docs.deribit.com)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from killswitch.model.venue import RateLimit
from killswitch_ccxt.errors import (
    DENIED,
    DOWN,
    GONE,
    LIMITED,
    UNKNOWN,
    Meaning,
    coded,
    present_codes,
    rejected,
    unsure_code,
)
from killswitch_ccxt.traits import call_costs, capability_table

CODES: Final[Mapping[str, Meaning]] = {
    **coded(rejected("insufficient_margin"), 10009, 10039),
    **coded(rejected("below_minimum"), 10002, 10032),
    **coded(rejected("above_maximum"), 10016, 10017, 10018, 11022),
    # An own order on the other side, or too many open orders or triggers
    **coded(rejected("blocked_by_order"), 10003, 10013, 10014, 10015, 10038, 11013, 11035, 13901),
    **coded(rejected("price_band"), 10005, 10006, 10007, 10008, 10011, 10034, 10035, 11036, 11054),
    # Locked, closed or expired books, missing instruments, disabled methods
    **coded(rejected("market_closed"), 10012, 10019, 10020, 10072, 11037, 11046, 13019, 13020, 13025, 13503),
    # The order itself, and "rejects which are not considered as very often"
    **coded(rejected("other"), 10021, 10022, 10023, 10026, 10027, 10031, 10043, 10044, 11029, 11030, 11031, 11043,
            -32602),
    **coded(DENIED, 9999, 10000, 11042, 12005, 13000, 13001, 13002, 13004, 13007, 13009, 13012, 13021,
            11098, 13031, 13403),
    **coded(LIMITED, 10028, 10047, 10066),
    # Surely not accepted: maintenance, settlement for some seconds each day, "should be retried"
    **coded(DOWN, 11051, 10040, 10041),
    # "Some unhandled error on server", "some general failure", "invalid input or internal failure", "not responding or
    # processing the response takes too long", cancelled by another request, timed out
    **coded(UNKNOWN, 10001, 11094, 13008, 13028, 13666, 13888),
    "unsure": UNKNOWN,  # from the text, see `unsure_code`
    **coded(GONE, 10004, 10010, 10029, 11008, 11044),
}  # fmt: skip


def refusal_codes(error: Mapping[str, Any]) -> tuple[str, ...]:
    """The code of a refusal with what its text adds; Deribit writes its texts with underscores."""
    data = error.get("data")
    reason = data.get("reason") if isinstance(data, Mapping) else data
    text = f"{error.get('message')} {reason}".lower().replace("_", " ")
    code = present_codes(error.get("code"))
    return (*code, *unsure_code(CODES, error.get("code"), text))


LIMITS: Final = (RateLimit("requests", 20, 1.0), RateLimit("matching", 5, 1.0), RateLimit("transaction log", 1, 1.0))
"""The sustained rate of an account without a higher tier: 10,000 credits a second, 500 each; and 5 orders a second."""
COSTS: Final = (
    *call_costs("requests", snapshot=3, find_order=1, open_orders=1, fills=2),
    *call_costs("matching", submit=1, cancel=1),
)
CAPABILITIES: Final = capability_table(
    {
        "equity": "yes, of the account's currency; of all of them where cross collateral is on",
        "positions": "partly, an amount is USD on inverse futures and coins elsewhere; options are listed, see their"
                     " notional: it is the underlying's",
        "trigger orders": "yes, in the same list",
        "flows": "yes, deposits, withdrawals and transfers; funding is in the settled profit",
        "market orders": "partly, futures and perpetuals; options have thin books, prefer limit orders",
        "batch orders": "no",
        "close book": "no, Deribit closes one instrument at a time",
        "position mode": "yes, always one-way",
        "find by client id": "yes, by label; Deribit does not refuse a second order of the same label",
        "dead man": "no, cancel on disconnect is for one WebSocket connection's orders",
        "push": "partly, orders and balance; positions are fetched later",
        "key rights": "yes, needs the scope account:read",
        "sandbox": "yes, test.deribit.com, with keys made there",
        "demo": "no, use sandbox",
    },
    "orders", "fills", "prices", "limit orders", "reduce only", "put back stops", "clock", "bars",
)  # fmt: skip
