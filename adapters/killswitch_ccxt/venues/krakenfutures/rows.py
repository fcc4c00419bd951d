"""Conversion of Kraken Futures' answers, with its limits and capabilities."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from killswitch.model.parsing import Row, UnreadableError, decimal, required_number
from killswitch.model.snapshot import Balance, FillCause, FlowKind
from killswitch.model.venue import Cost, RateLimit, VenueDownError, VenueError
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.errors import DENIED, DOWN, GONE, LIMITED, UNKNOWN, Meaning, coded, rejected
from killswitch_ccxt.traits import call_costs, capability_table

CODES: Final[Mapping[str, Meaning]] = {
    **coded(rejected("already_flat"), "wouldNotReducePosition"),
    **coded(rejected("insufficient_margin"), "insufficientAvailableFunds", "insufficientFunds", "INSUFFICIENT_MARGIN",
        "wouldCauseLiquidation"),
    **coded(rejected("above_maximum"), "maxPositionViolation"),
    **coded(rejected("blocked_by_order"), "selfFill", "tooManySmallOrders", "tooManyOrders"),
    **coded(rejected("price_band"), "outsidePriceCollar", "wouldIncreasePriceDislocation", "postWouldExecute",
        "iocWouldNotExecute"),
    **coded(rejected("market_closed"), "marketSuspended", "marketInactive", "marketUnavailable", "marketIsPostOnly",
        "contractNotFound"),
    **coded(rejected("duplicate_client_order_id"), "clientOrderIdAlreadyExist"),
    # A size is exact by the venue's step when it is sent, and no minimum is known: what is wrong with it is unknown.
    **coded(rejected("other"), "invalidSize", "invalidPrice", "invalidOrderType", "invalidSide", "clientOrderIdTooLong",
        "clientOrderIdTooBig", "clientOrderIdInvalid", "fixedLeverageTooHigh", "orderForEditNotAStop",
        "requiredArgumentMissing", "invalidArgument", "Json Parse Error"),
    **coded(GONE, "orderForEditNotFound", "notFound", "filled"),
    **coded(LIMITED, "apiLimitExceeded"),
    **coded(DENIED, "authenticationError", "accountInactive", "invalidAccount"),
    **coded(DOWN, "nonceBelowThreshold", "nonceDuplicate", "wouldProcessAfterSpecifiedTime", "Unavailable",
        "unavailable"),
    **coded(UNKNOWN, "Server Error", "Internal Server Error", "unknownError",
        # In the answer to a sent order these are no refusals: it was accepted, and its fills have to be queried.
        "cancelled", "edited"),
}  # fmt: skip
STATES: Final = {
    "ENTERED_BOOK": "open", "TRIGGER_PLACED": "open", "FULLY_EXECUTED": "closed", "CANCELLED": "canceled",
    "REJECTED": "rejected", "TRIGGER_ACTIVATION_FAILURE": "rejected",
}  # fmt: skip
EVENTS: Final = {
    "OrderPlaced": "open", "OrderTriggerPlaced": "open", "OrderUpdated": "open", "OrderTriggerActivated": "open",
    "OrderCancelled": "canceled", "OrderTriggerCancelled": "canceled", "OrderRejected": "rejected",
    "OrderNotFound": None,
}  # fmt: skip
CAUSES: Final[Mapping[str, FillCause]] = {
    "liquidation": "liquidation", "assignee": "adl", "assignor": "adl", "unwindBankrupt": "adl",
    "unwindCounterparty": "adl",
}  # fmt: skip
LOG: Final[Mapping[str, FlowKind]] = {
    "transfer": "transfer", "subaccount transfer": "transfer", "cross-exchange transfer": "transfer",
    "admin transfer": "transfer", "funding rate change": "funding", "interest payment": "interest",
    "kfee applied": "fee", "tax withheld": "fee", "tax refund": "rebate",
}  # fmt: skip


_STATED_BY_FILLS: Final = frozenset({"covered liquidation", "settlement", "conversion", "dust conversion"})


def is_trade(info: str) -> bool:
    """Whether an entry of the account log is stated by fills, or converts one coin into another."""
    return info.startswith("futures ") or info in _STATED_BY_FILLS


def wallet_of(contract: object) -> str:
    """The wallet that holds a contract: `PF_XBTUSD` in `flex`, `PI_XBTUSD` and `FI_XBTUSD_260327` in `fi_xbtusd`.

    UnreadableError for another form of name: the contract may be in any wallet.
    """
    kind, _, rest = str(contract).lower().partition("_")
    pair = rest.partition("_")[0]
    if len(kind) != 2 or kind[0] not in "pf" or not pair:
        raise UnreadableError(f"the name of contract {contract!r} does not contain its wallet")
    return "flex" if kind[1] == "f" else f"f{kind[1]}_{pair}"


def dollar_price(row: Row | None) -> Decimal | None:
    """The price of one unit in USD, as the flex wallet values it."""
    quantity, value = (None, None) if row is None else (decimal(row.get("quantity")), decimal(row.get("value")))
    return value / quantity if quantity and value is not None else None


def flex_balances(held: Mapping[str, Row], own: Decimal | None, currency: str) -> tuple[Balance, ...]:
    """The balance of each currency, priced as the flex wallet values it; `own` is the price of the account's
    currency in USD."""
    found = []
    for asset, row in sorted(held.items()):
        quantity, dollars = required_number(row.get("quantity"), f"the quantity of {asset}"), dollar_price(row)
        if not quantity:
            continue
        price = dollars if currency == "USD" else None if own is None or dollars is None else dollars / own
        found.append(Balance(asset, quantity, Decimal(1) if asset == currency else price, wallet=quantity))
    return tuple(found)


def single_collateral_equity(row: Row, currency: str, held: str, wallet: str) -> AccountEquity:
    """The equity of a single-collateral wallet in the currency `held`."""
    if held != currency:
        raise UnreadableError(f"wallet {wallet} is in {held}, and the account in {currency}")
    auxiliary, margin = row.get("auxiliary") or {}, row.get("marginRequirements") or {}
    equity = required_number(auxiliary.get("pv"), f"the portfolio value of wallet {wallet}")
    balances = row.get("balances") or {}
    cash = next((decimal(it) for asset, it in balances.items() if asset == row.get("currency")), None)
    return AccountEquity(
        equity, free=decimal(auxiliary.get("af")), margin_used=decimal(margin.get("im")),
        maintenance_margin=decimal(margin.get("mm")),
        balances=(Balance(currency, equity, Decimal(1), wallet=cash, equity=equity),),
        unrealized=None if cash is None else equity - cash,
    )  # fmt: skip


def found_order(number: Any, name: str, status: str, order: Row) -> dict[str, Any]:
    """An order under ccxt's names."""
    return {
        "id": number, "clientOrderId": name, "status": status, "filled": decimal(order.get("filled")),
        "amount": required_number(order.get("quantity"), f"the quantity of {name}"),
    }  # fmt: skip


def event_of(row: Row) -> dict[str, Any] | None:
    """The order of one event of the history; None for an event without an own order."""
    for kind, details in (row.get("event") or {}).items():
        status = EVENTS.get(kind)
        order = details.get("newOrder") or details.get("order") or details.get("newTrigger") or {}
        if status is None or not order.get("clientId"):
            continue
        filled, quantity = decimal(order.get("filled")), decimal(order.get("quantity"))
        if details.get("reason") == "full_fill" or (filled is not None and quantity is not None and filled >= quantity):
            status = "closed"
        return found_order(order.get("uid"), str(order["clientId"]), status, order)
    return None


def client_id_of(row: Row) -> object:
    """The client order id of a fill or an order, if it has one."""
    return row.get("cliOrdId") or row.get("cli_ord_id")


def refused_on_stream(message: Any) -> VenueError | None:
    """The error of an alert or an error message. ccxt ignores alerts, and requests no challenge after an error.

    Kraken issues a challenge for any key, and has one message for a wrong key, a wrong signature and a missing
    permission.
    """
    if not isinstance(message, Mapping) or message.get("event") not in ("alert", "error"):
        return None
    text = str(message.get("message"))
    if text.startswith("Already subscribed"):
        return None
    return VenueDownError(
        f"Kraken Futures refuses a request on the private stream: {text}; "
        "if it repeats, key or secret are wrong, or the key lacks the permission for the WebSocket API"
    )


LIMITS: Final = (RateLimit("derivatives", 500, 10.0), RateLimit("history", 40, 600.0))
"""The venue's history pool is 100 in ten minutes; the account log takes 1 or 3 of it each 60 s, as much again while
balances change, and two more at the first change."""
COSTS: Final = (
    *call_costs("derivatives", snapshot=5, submit=10, find_order=3, open_orders=2, fills=5, cancel=10, dead_man=25),
    Cost("submit_batch", "derivatives", units=9, each=1),
    *call_costs("history", find_order=1, fills=1),
)
CAPABILITIES: Final = capability_table(
    {
        "equity": "yes, portfolio value of the flex wallet, in USD",
        "positions": "yes, without notional, leverage and liquidation price, which the venue does not state",
        "trigger orders": "yes, in the same list",
        "fills": "yes, with the fee where the venue states it",
        "flows": "yes, from the account log",
        "market orders": "yes, the venue limits them to 1% from the market",
        "put back stops": "yes, triggered by the mark",
        "close book": "no",
        "position mode": "yes, always one-way",
        "find by client id": "yes, by its status until 5 s after its end, then by the history of one week",
        "dead man": "yes, all orders of the account; disarm before maintenance",
        "key rights": "no, the venue does not state it",
        "clock": "no",
        "sandbox": "yes, demo-futures.kraken.com, with keys of its own",
        "demo": "no",
    },
    "orders", "prices", "limit orders", "reduce only", "batch orders", "push", "bars",
)  # fmt: skip
