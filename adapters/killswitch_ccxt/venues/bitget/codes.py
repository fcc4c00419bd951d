"""Bitget's error codes, limits and capabilities, from its v2 documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from killswitch.model.snapshot import FlowKind, InstrumentState
from killswitch.model.venue import RateLimit
from killswitch_ccxt.errors import (
    CLOCK,
    DENIED,
    DOWN,
    GONE,
    LIMITED,
    MODE_CHANGED,
    UNKNOWN,
    Meaning,
    coded,
    present_codes,
    rejected,
    unsure_code,
)
from killswitch_ccxt.traits import call_costs, capability_table

CODES: Final[Mapping[str, Meaning]] = {
    **coded(rejected("already_flat"), 22002, 25227, 40837, 43043, 45068),
    **coded(rejected("below_minimum"), 13008, 22034, 25207, 43006, 43010, 43027, 43037, 43042, 45110, 45111, 45114),
    **coded(rejected("above_maximum"), 25208, 40888, 40921, 43007, 43038, 43041, 45104, 45112, 45113),
    # Open orders block the closing order, or there are too many of them
    **coded(rejected("blocked_by_order"), 25225, 25232, 40723, 40746, 40755, 40757, 40761, 40867, 40939, 43029, 43128,
           45003, 45005, 45006, 45118),
    # Includes a trigger price on the wrong side of the market
    **coded(rejected("price_band"), 22006, 22007, 22008, 22009, 25205, 25206, 25654, 25655, 40718, 40719, 40748, 40815,
           40816, 40820, 40821, 40830, 40832, 40834, 40836, 40915, 40917, 41117, 43008, 43009, 43013, 43014, 43015,
           43016, 43034, 43035, 43039, 43040, 45060, 45061, 45062, 45122),
    # Maintenance, delisting, settlement, ADL or liquidation in progress: it passes, or the symbol is gone
    **coded(rejected("market_closed"), 22004, 22039, 22040, 22041, 22043, 22044, 22067, 25008, 25012, 25101, 25102,
           25104, 25105, 25108, 40308, 40309, 40844, 40845, 40931, 41114, 43115, 45009, 45043, 45119, 95001),
    **coded(rejected("insufficient_margin"), 25202, 25203, 25219, 40711, 40712, 40754, 40756, 40762, 40798, 40800,
           43012, 45002, 45008, 45120),
    **coded(rejected("duplicate_client_order_id"), 25212, 40786, 43118, 45034),
    **coded(rejected("permission"), 40000, 40022, 40023, 40024, 40025, 40026, 40035, 40100, 40101, 40103, 40104, 40111,
           40199, 40301, 40710, 40752, 40753, 40760, 40916, 45107, 45108),
    **coded(rejected("other"), 40808, 40017, 400172, 40034, 22005, 43005),
    **coded(GONE, 22001, 25204, 40109, 40768, 43001, 43004, 43020, 43021, 43025, 43026, 43033, 45031, 45057),
    **coded(LIMITED, 429, 25004, 45129, 50009),
    **coded(MODE_CHANGED, 25237, 40774, 43075, 45018, 45020, 45021, 45109),
    **coded(DENIED, 22010, 40001, 40002, 40003, 40006, 40009, 40011, 40012, 40013, 40014, 40016, 40018, 40031, 40036,
           40037, 40038, 40041),
    **coded(CLOCK, 40004, 40005, 40008),
    **coded(DOWN, 40078, 40200),
    **coded(UNKNOWN, 1, 25001, 25003, 30009, 30030, 32047, 40010, 40015, 40725, 40908, 40910, 43059, 45001, 45023,
           45024, 500, "unsure"),
}  # fmt: skip
"""40774, 43075 and 45021 refuse an order of the other position mode. 40010 and 40910 are requests that timed out inside
Bitget: the order may exist. 45023 and 45024 are errors while an order was created or cancelled. 43005 is documented as
too many orders and as too large an amount: the symbol's rules decide.

`unsure` comes from the text.
"""


def refusal_codes(code: object, text: object) -> tuple[str, ...]:
    """A code, with what its text adds."""
    return (*present_codes(code), *unsure_code(CODES, code, text))


LIMITS: Final = (
    *(RateLimit(name, 10, 1.0) for name in ("place", "plan", "cancel", "cancel-plan", "detail", "fills", "pending")),
    *(RateLimit(name, 10, 1.0) for name in ("plan-pending", "plan-history", "accounts", "bill")),
    RateLimit("position", 5, 1.0),
    RateLimit("close", 1, 1.0),
    RateLimit("address", 6000, 60.0, by="address"),
)
_MIX: Final = "/api/v2/mix/"
PATHS: Final[Mapping[str, str]] = {
    f"{_MIX}order/place-order": "place",
    f"{_MIX}order/place-plan-order": "plan",
    f"{_MIX}order/cancel-order": "cancel",
    f"{_MIX}order/cancel-plan-order": "cancel-plan",
    f"{_MIX}order/detail": "detail",
    f"{_MIX}order/fills": "fills",
    f"{_MIX}order/orders-pending": "pending",
    f"{_MIX}order/orders-plan-pending": "plan-pending",
    f"{_MIX}order/orders-plan-history": "plan-history",
    f"{_MIX}account/accounts": "accounts",
    f"{_MIX}account/bill": "bill",
    f"{_MIX}position/all-position": "position",
    f"{_MIX}order/close-positions": "close",
}
"""Path → limit: each endpoint has its own."""
REMAINING: Final = "x-mbx-used-remain-limit"
"""What is left of the endpoint's limit in this second (Bitget's questions about its API, question 11)."""
COSTS: Final = (
    *call_costs("position", snapshot=1), *call_costs("accounts", snapshot=1), *call_costs("bill", snapshot=1),
    *call_costs("pending", snapshot=1, open_orders=1), *call_costs("fills", snapshot=1, fills=1),
    *call_costs("plan-pending", snapshot=1, find_order=1, open_orders=3, fills=1),
    *call_costs("plan-history", find_order=1, fills=1), *call_costs("detail", find_order=1, fills=1),
    *call_costs("place", submit=1), *call_costs("plan", submit=1), *call_costs("close", close_book=1),
    *call_costs("cancel", cancel=1), *call_costs("cancel-plan", cancel=1),
    *call_costs("address", snapshot=4, submit=1, close_book=1, find_order=3, open_orders=4, fills=4, cancel=1),
)  # fmt: skip

STATES: Final[Mapping[str, InstrumentState]] = {
    "limit_open": "reduce_only", "maintain": "halted", "restrictedAPI": "halted", "off": "delisted", "listed": "halted",
}  # fmt: skip
"""symbolStatus of symbols that do not trade normally."""
PASSING: Final = ("normal",)
_TRADES: Final = (
    "open_long", "open_short", "close_long", "close_short", "force_close_long", "force_close_short", "buy", "sell",
    "force_buy", "force_sell", "burst_buy", "burst_sell", "burst_long_loss_query", "burst_short_loss_query",
    "delivery_long", "delivery_short", "adl_close_long", "adl_close_short", "adl_buy_in_single_side_mode",
    "adl_sell_in_single_side_mode",
)  # fmt: skip
_MARGIN: Final = ("append_margin", "adjust_down_lever_append_margin", "reduce_margin", "auto_append_margin")
FLOWS: Final[Mapping[str, FlowKind | None]] = {
    **dict.fromkeys((*_TRADES, *_MARGIN, "user_exchange_buy", "user_exchange_sell")),
    "contract_settle_fee": "funding",
    "contract_main_settle_fee": "funding",
    "settle_interest": "interest",
    "deposit": "deposit",
    "withdraw": "withdrawal",
    "transfer_in": "transfer",
    "transfer_out": "transfer",
    **dict.fromkeys(
        ("cash_gift_issue", "cash_gift_recycle", "bonus_issue", "bonus_recycle", "bonus_expired"), "rebate"
    ),
    **dict.fromkeys(("tracking_follow_pay", "tracking_follow_back", "tracking_trader_income"), "fee"),
    "risk_captital_user_transfer": "insurance",
}
"""businessType of a bill → kind of flow; None for what fills state, for margin that moves inside the account, and
for conversions between coins of the account."""
TRANSFER_PREFIXES: Final = ("trans_from_", "trans_to_", "transfer_from_", "transfer_to_")
"""Prefixes of further types of bills that are transfers."""


CAPABILITIES: Final = capability_table(
    {
        "equity": "yes, classic accounts; with several assets as margin, in USDT only",
        "positions": "yes, USDT or USDC futures, by the account's currency",
        "trigger orders": "yes, trigger, trailing, take-profit and stop-loss orders",
        "fills": "yes, liquidations, ADL and deliveries included",
        "flows": "yes, bills of the futures account; an unknown type counts as profit or loss",
        "reduce only": "yes, in hedge mode the order closes a side instead, and cannot open",
        "put back stops": "yes, triggered by the mark price",
        "batch orders": "no, a batch of Bitget is for one symbol, and a close is for many",
        "close book": "yes, closes all futures of the account's currency, once a second",
        "find by client id": "yes, orders, then trigger orders, pending and past",
        "dead man": "no, Bitget has none",
        "push": "no, its streams are not used: the account is polled",
        "sandbox": "yes, Bitget's demo trading",
        "demo": "yes, Bitget's demo trading",
    },
    "orders", "prices", "market orders", "limit orders", "position mode", "key rights", "clock", "bars",
)  # fmt: skip
