"""Bybit's error codes, limits and capabilities, from its v5 API documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from killswitch.model.snapshot import FillCause, InstrumentState
from killswitch.model.venue import Cost, RateLimit
from killswitch_ccxt.errors import (
    CLOCK,
    DENIED,
    DOWN,
    GONE,
    LIMITED,
    MODE_CHANGED,
    SAME,
    UNKNOWN,
    Meaning,
    RefusalCodes,
    VenueAnswer,
    coded,
    rejected,
    unsure_code,
)
from killswitch_ccxt.traits import call_costs, capability_table

CODES: Final[Mapping[str, Meaning]] = {
    **coded(rejected("already_flat"), 110017, 110034, 30041, 30009),
    **coded(rejected("below_minimum"), "too small", 110094, 170136, 170140, 30003, 3100116),
    **coded(rejected("above_maximum"), "too large", 170124, 170135, 170228, 170229, 170381, 170382, 30004, 130006),
    **coded(rejected("blocked_by_order"), "covered", 110020, 170810),
    **coded(rejected("price_band"), 110003, 110120, 110121, 30208, 30209, 170132, 170133, 170192, 170193, 170194,
           170195, 170196, 170197, 170198, 170199, 170200, 170203, 170204, 170371, 170372),
    # Settlement, auction, delisting, cooling-off period, an account in migration: it passes
    **coded(rejected("market_closed"), 110063, 110066, 110070, 110074, 110023, 110042, 110095, 110098, 110099, 110103,
           110124, 110137, 30228, 170031, 170151, 170157, 170159, 170217, 170218, 3100197),
    **coded(rejected("insufficient_margin"), 30256, 110131, 170034, 170207, 110004, 110006, 110007, 110012, 110014,
           110044, 110045, 110051, 110052, 110053, 170033, 170131, 30031, 30042, 30049, 30067, 130021, 3200300),
    **coded(rejected("duplicate_client_order_id"), 110072, 110030, 170141, 12141, 30001),
    **coded(rejected("permission"), 10024, 10027, 10029, 110068, 110069, 110088, 110097, 110102, 110105, 110106,
           110123, 110125, 110132, 110136, 170209, 170219, 170224, 170241, 170348),
    **coded(rejected("other"), 110011, 110016, 110021, 110040, 110080, 170149, 170201, 170210, 170223, 170226),
    **coded(GONE, 110001, 110008, 110010, 20001, 30032, 30034, 30037, 170139, 170142, 170143, 170190, 170213),
    **coded(SAME, 110025, 110026, 110027, 110043),
    **coded(LIMITED, 10006, 10018, 10429, 170222, 170005, 403),
    **coded(DENIED, -2015, 10003, 10004, 10005, 10007, 10008, 10009, 10010, 10028, 33004),
    **coded(CLOCK, 10002),
    **coded(DOWN, -1, 10019),
    **coded(MODE_CHANGED, "position mode"),
    **coded(UNKNOWN, 429, 5004, 10000, 10014, 10016, 110079, 170001, 170007, 170032, 170035, 170146, 170147, 170150,
           170191, 170212, 170234, 340099, "unsure"),
}  # fmt: skip
FORM: Final = re.compile(r"-?[1-9]\d{2,6}")
REFUSAL_CODES: Final = RefusalCodes(CODES, FORM)
"""The codes, and words for refusals that only their text identifies: `too small`, `too large`, `covered`,
`position mode`, `unsure`.

With 170035 an order is submitted for processing, 170001 and 170032 are internal failures, 429 is a trading service
under high load: the order may exist. 110079, 170150, 170191, 170212: an order in process.
"""
_BY_TEXT: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "10001": (
        ("minimum limit", "too small"),
        ("lower limit", "too small"),
        ("maximum limit", "too large"),
        ("too large", "too large"),
        ("position idx", "position mode"),
    ),
    "110017": (("truncated to zero", "covered"),),
}


def refusal_codes(code: object, text: object) -> tuple[str, ...]:
    """A code with what its text adds, the most specific one first."""
    number, message = str(code), str(text).lower()
    return (
        *(word for part, word in _BY_TEXT.get(number, ()) if part in message),
        number,
        *unsure_code(CODES, code, text),
    )


def codes_of(answer: VenueAnswer) -> Iterable[str]:
    """The codes of a refusal. The status 403 is an address that is blocked because of a rate limit."""
    if isinstance(answer.body, Mapping):
        return refusal_codes(answer.body.get("retCode"), answer.body.get("retMsg"))
    return ("403",) if answer.status == 403 else ()


PATHS: Final[Mapping[str, str]] = {
    "/v5/order/create": "create",
    "/v5/order/create-batch": "create-batch",
    "/v5/order/cancel": "cancel",
    "/v5/order/disconnected-cancel-all": "dcp",
    "/v5/order/realtime": "realtime",
    "/v5/order/history": "history",
    "/v5/execution/list": "execution",
    "/v5/position/list": "position",
    "/v5/account/wallet-balance": "wallet",
    "/v5/account/transaction-log": "log",
}
"""Path → limit: each endpoint has its own."""
LIMITS: Final = (
    *(RateLimit(name, 10, 1.0) for name in ("create", "create-batch", "cancel")),
    *(RateLimit(name, 50, 1.0) for name in ("realtime", "history", "execution", "position", "wallet")),
    RateLimit("dcp", 5, 1.0),
    RateLimit("log", 25, 1.0),
    RateLimit("address", 600, 5.0, by="address"),
)
BATCH: Final = 10
"""Orders of a batch. Twenty fit into a request, but each order counts, and the usual limit is ten in a second."""


COSTS: Final = (
    *call_costs("position", snapshot=3), *call_costs("wallet", snapshot=1), *call_costs("log", snapshot=1),
    *call_costs("realtime", snapshot=1, find_order=3, open_orders=4, fills=3), *call_costs("history", find_order=1,
    fills=1),
    *call_costs("execution", snapshot=1, find_order=1, fills=2), *call_costs("create", submit=1),
    *call_costs("cancel", cancel=1), *call_costs("dcp", dead_man=1), Cost("submit_batch", "create-batch", each=1),
    *call_costs("address", snapshot=5, submit=1, submit_batch=2, find_order=5, open_orders=4, fills=6, cancel=1),
    *call_costs("address", dead_man=2),
)  # fmt: skip

STATES: Final[Mapping[str, InstrumentState]] = {"Closed": "delisted", "Delivering": "halted", "PreLaunch": "halted"}
"""Status of an instrument that does not trade."""
PASSING: Final = ("Trading",)
CAUSES: Final[Mapping[str, FillCause | None]] = {
    "Trade": "trade", "BlockTrade": "trade", "MovePosition": "trade", "FutureSpread": "trade",
    "BustTrade": "liquidation", "AdlTrade": "adl", "Delivery": "delivery", "Settle": "delivery",
    "Funding": None, "SessionSettlePnL": None, "CorporateAction": None,
}  # fmt: skip
"""execType → cause of a fill; None for rows that are no fills: funding is a flow, the settlement of a session and a
stock split move no money."""
CAPABILITIES: Final = capability_table(
    {
        "equity": "yes, unified accounts only; totals in dollars, divided by Bybit's own price of the currency",
        "positions": "yes, USDT, USDC and inverse contracts; option positions are not read",
        "trigger orders": "yes, stop, take-profit and stop-loss orders come with the plain ones",
        "fills": "yes, liquidations, ADL and deliveries included",
        "flows": "yes, transaction log; an unknown type counts as profit or loss",
        "reduce only": "yes, in hedge mode too, together with the position's side",
        "put back stops": "yes, triggered by the mark price",
        "batch orders": f"yes, {BATCH} at once: each order counts against 10 in a second",
        "close book": "no, Bybit has no such request",
        "position mode": "yes, one for each symbol; read from the positions themselves",
        "find by client id": "yes, open and closed orders, then the history, then executions",
        "dead man": "partly, bound to a private stream: Bybit must have enabled it for the account (dcpStatus ON)",
        "push": "yes, orders, positions, wallet",
        "key rights": "yes, not in demo trading",
        "sandbox": "yes, testnet",
        "demo": "yes, without the rights of the key and without the dead-man timer",
    },
    "orders", "prices", "market orders", "limit orders", "clock", "bars",
)  # fmt: skip
