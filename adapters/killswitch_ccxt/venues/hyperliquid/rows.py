"""Conversion of Hyperliquid's answers. Its refusals are sentences, identified by a part of their text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    above_zero,
    decimal,
    flag,
    identifier,
    object_at,
    one_of,
    optional_number,
    optional_text,
    positive,
    required_number,
    required_text,
    time_of,
    value_at,
)
from killswitch.model.snapshot import Fill, Flow, FlowKind, OrderSide, Side
from killswitch_ccxt.errors import DENIED, DOWN, GONE, LIMITED, UNKNOWN, Meaning, coded, rejected

CODES: Final[Mapping[str, Meaning]] = {
    **coded(rejected("already_flat"), "Reduce only order would increase position"),
    **coded(rejected("below_minimum"), "Order must have minimum value of", "Order has zero size"),
    **coded(rejected("insufficient_margin"), "Insufficient margin to place order", "Insufficient spot balance",
        "insufficient spot balance"),
    **coded(rejected("above_maximum"), "Order exceeds maximum position size",
        "Order would cause position to exceed margin tier limit", "Order would increase open interest"),
    **coded(rejected("other"), "Order has invalid size", "Price must be divisible by tick size",
        "Order has invalid price"),
    **coded(rejected("price_band"), "Post only order would have immediately matched",
        "Order could not immediately match against any resting orders", "No liquidity available for market order",
        "Order price too far from oracle", "Order price cannot be more than",
        "Order rejected due to price more aggressive than oracle", "Invalid TP/SL price"),
    **coded(rejected("market_closed"), "Trading is halted"),
    **coded(rejected("permission"), "Cannot set scheduled cancel time until enough volume traded"),
    **coded(GONE, "Order was never placed, already canceled, or filled", "unknownOid"),
    **coded(LIMITED, "Too many cumulative requests sent", "Too many requests"),
    **coded(DENIED, "User or API Wallet", "Must deposit before performing actions", "Multi-sig required",
        "Vault not registered"),
    **coded(DOWN, "Invalid nonce"),
    **coded(UNKNOWN,
        # Internal failures of the venue, which leave the outcome open.
        "Internal error", "Internal server error", "internal error", "timed out", "timeout"),
}  # fmt: skip
ORDER_STATES: Final = {
    "open": "open", "triggered": "open", "filled": "closed", "canceled": "canceled", "scheduledCancel": "canceled",
    "rejected": "rejected", "waitingForTrigger": "open", "waitingForFill": "open",
}  # fmt: skip
IGNORED: Final = frozenset(
    {"liquidation", "spotTransfer", "spotGenesis", "cStakingTransfer", "cDeposit", "cWithdraw", "perpDexClassTransfer",
     "deployGasAuction", "borrowLend", "activateDexAbstraction"}
)  # fmt: skip
"""Entries of the ledger that do not change the perpetuals' USDC, or that fills state."""
SIGNS: Final[Mapping[str, tuple[FlowKind, int, str]]] = {
    "deposit": ("deposit", 1, "usdc"), "withdraw": ("withdrawal", -1, "usdc"),
    "vaultDeposit": ("transfer", -1, "usdc"), "vaultCreate": ("transfer", -1, "usdc"),
    "vaultDistribution": ("transfer", 1, "usdc"), "vaultWithdraw": ("transfer", 1, "netWithdrawnUsd"),
    "vaultLeaderCommission": ("rebate", 1, "usdc"), "rewardsClaim": ("rebate", 1, "amount"),
}  # fmt: skip

_SIDES: Final[Mapping[str, OrderSide]] = {"A": "sell", "B": "buy"}
_DIRECTIONS: Final[Mapping[str, tuple[OrderSide, Side]]] = {
    "Open Long": ("buy", "long"), "Close Long": ("sell", "long"), "Long > Short": ("sell", "long"),
    "Open Short": ("sell", "short"), "Close Short": ("buy", "short"), "Short > Long": ("buy", "short"),
}  # fmt: skip
"""`dir` of a fill → its side, and the side of its position; where the position turned, the side that was closed."""
SIGNIFICANT: Final = 5
MOST_DECIMALS: Final = 6


def allowed_price(price: Decimal, size_decimals: int) -> Decimal:
    """The nearest price that the venue accepts: five significant digits, and six decimals less those of a size.

    Whole numbers are accepted with any number of digits.
    """
    if price == price.to_integral_value():
        return price
    exponent = max(price.adjusted() - SIGNIFICANT + 1, size_decimals - MOST_DECIMALS)
    return price.quantize(Decimal(1).scaleb(min(exponent, 0)))


def plain_number(number: Decimal) -> str:
    """The number without exponent and trailing zeros, as it is signed."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def codes_in(sentence: object) -> Iterable[str]:
    """The codes that a sentence contains."""
    text = str(sentence or "")
    return (code for code in CODES if code in text)


def sentences(body: object) -> Iterable[object]:
    """Every refusal in an answer."""
    if not isinstance(body, Mapping):
        return
    if body.get("status") == "err":
        yield body.get("response")
    elif body.get("status") == "unknownOid":
        yield "unknownOid"
    yield body.get("error")
    for status in statuses(body):
        if isinstance(status, Mapping):
            yield status.get("error")


def statuses(body: Any) -> list[Any]:
    """The statuses of a request, one for each order: an object, or a text."""
    found = value_at(body, "response", "data", "statuses")
    return found if isinstance(found, list) else []


def sent_status(status: object, name: str, amount: Decimal) -> dict[str, Any]:
    """The status of an order that was sent, under ccxt's names."""
    if isinstance(status, str):
        raise UnreadableError(f"order {name} was accepted ({status}), and the answer lacks its number")
    row = status if isinstance(status, Mapping) else {}
    filled, resting = row.get("filled"), row.get("resting")
    if isinstance(filled, Mapping):
        size = above_zero(filled.get("totalSz"), f"the filled amount of {name}")
        return {"id": filled.get("oid"), "status": "closed" if size >= amount else "expired", "filled": size,
                "average": positive(filled.get("avgPx"))}  # fmt: skip
    if isinstance(resting, Mapping):
        return {"id": resting.get("oid"), "status": "open", "filled": Decimal(0)}
    raise UnreadableError(f"order {name} is neither resting nor filled")


def found_order(answer: Row, name: str) -> dict[str, Any]:
    """An order that was found, under ccxt's names."""
    result = answer.get("order") or {}
    order, status = result.get("order") or {}, str(result.get("status"))
    state = ORDER_STATES.get(status)
    if state is None:
        state = "canceled" if status.endswith("Canceled") else "rejected" if status.endswith("Rejected") else None
    if state is None:
        raise UnreadableError(f"state of order {name}: unknown value {status!r}")
    amount = required_number(order.get("origSz"), f"the size of order {name}")
    left = required_number(order.get("sz"), f"the remaining amount of order {name}")
    filled = amount if state == "closed" else amount - left
    return {
        "id": optional_text(order.get("oid")), "clientOrderId": order.get("cloid") or name, "status": state,
        "amount": amount,
        "filled": filled,
    }  # fmt: skip


def is_spot(coin: object) -> bool:
    """Whether a coin is a spot market: `@107`, or `PURR/USDC`, the first of them."""
    return isinstance(coin, str) and (coin.startswith("@") or "/" in coin)


def spot_asset(coin: str) -> int | None:
    """The asset id by which an order in a spot market is cancelled; None for a name that does not contain it.

    Spot markets are numbered from 10,000 on (Hyperliquid's documents, "Asset IDs").
    """
    number = coin.removeprefix("@") if coin.startswith("@") else "0" if coin == "PURR/USDC" else ""
    return 10_000 + int(number) if number.isdecimal() else None


def resting_order(row: Row, symbol: str, held: Decimal | None) -> dict[str, Any]:
    """An open order under ccxt's names.

    `held`: contracts of the symbol's position, for a stop of the whole position, which has no size of its own.
    """
    number = f"order {row.get('oid')}"
    amount = required_number(row.get("origSz"), f"the size of {number}")
    left = required_number(row.get("sz"), f"the remaining amount of {number}")
    is_trigger, closes_position = row.get("isTrigger"), row.get("isPositionTpsl")
    if not isinstance(is_trigger, bool):
        raise UnreadableError(f"{number} does not state whether it has a trigger")
    if not amount and closes_position is not True:
        raise UnreadableError(f"{number} has no size")
    if not 0 <= left <= amount:
        raise UnreadableError(f"{number} has {left} remaining of {amount}")
    trigger = positive(row.get("triggerPx")) if is_trigger else None
    if is_trigger and trigger is None:
        raise UnreadableError(f"{number} has a trigger without a price")
    return {
        "id": row.get("oid"), "symbol": symbol, "clientOrderId": row.get("cloid"),
        "side": one_of(_SIDES, row.get("side"), f"side of {number}"),
        "amount": amount or held or Decimal(0), "filled": amount - left, "price": row.get("limitPx"),
        "triggerPrice": trigger, "reduceOnly": row.get("reduceOnly"), "timestamp": row.get("timestamp"),
        "type": row.get("orderType"),
    }  # fmt: skip


def fill(row: Row, symbol: str, user: str) -> Fill:
    """One fill. `closedPnl` excludes the fee: an opening fill has 0 and a fee.

    UnreadableError where `dir`, which states the position, contradicts the side.
    """
    # Fills without a trade, such as settlements, are all numbered 0.
    fields = [row.get(name) for name in ("time", "coin", "oid", "side", "startPosition", "px", "sz")]
    number = identifier(row.get("tid"), f"a fill of {row.get('coin')}")
    number = "/".join(map(str, fields)) if number == "0" else number
    what = f"fill {number}"
    at = time_of(row.get("time"), what)
    side, direction = one_of(_SIDES, row.get("side"), f"side of {what}"), str(row.get("dir"))
    order_side, position_side = _DIRECTIONS.get(direction, (side, None))
    if order_side != side:
        raise UnreadableError(f"{what}: its side is {row['side']!r}, and its direction {direction!r}")
    liquidation = row.get("liquidation")
    is_ours = isinstance(liquidation, Mapping) and str(liquidation.get("liquidatedUser")).lower() == user.lower()
    return Fill(
        number, at, symbol, side, above_zero(row.get("sz"), f"the size of {what}"),
        above_zero(row.get("px"), f"the price of {what}"), order=optional_text(row.get("oid")),
        position_side=position_side, fee=decimal(row.get("fee")), fee_currency=optional_text(row.get("feeToken")),
        realized_pnl=decimal(row.get("closedPnl")),
        cause="liquidation" if is_ours else "adl" if "Auto-Deleveraging" in direction else "trade",
        client_order_id=optional_text(row.get("cloid")),
    )  # fmt: skip


def ledger_flow(row: Row, user: str) -> Flow | None:
    """An entry of the ledger, without funding. An unknown kind is a transfer, as far as it states an amount."""
    delta = object_at(row, "delta", what=f"the ledger entry of {row.get('time')}")
    kind = required_text(delta.get("type"), "an entry of the ledger")
    number = f"{required_text(row.get('hash'), 'the hash of an entry')}/{row.get('time')}/{kind}"
    if kind in IGNORED:
        return None
    at = time_of(row.get("time"), f"ledger entry {number}")
    fee = decimal(delta.get("fee")) or Decimal(0)
    if kind in SIGNS:
        flow, sign, field = SIGNS[kind]
        amount = sign * required_number(delta.get(field), f"the amount of ledger entry {number}")
        return Flow(number, at, flow, amount - (fee if sign < 0 else 0), "USDC")
    moved = _moved(kind, delta, user.lower())
    return Flow(number, at, "transfer", moved - (fee if moved < 0 else 0), "USDC") if moved else None


def _moved(kind: str, delta: Row, user: str) -> Decimal | None:
    """The amount moved between wallets, positive into this account's perpetuals; None where it does not concern
    them."""
    sender, receiver = str(delta.get("user")).lower(), str(delta.get("destination")).lower()
    match kind:
        case "accountClassTransfer":
            sign = 1 if flag(delta.get("toPerp")) else -1
            return sign * required_number(delta.get("usdc"), "the amount of a transfer")
        case "internalTransfer" | "subAccountTransfer":
            amount = required_number(delta.get("usdc"), "the amount of a transfer")
            return amount if receiver == user else -amount
        case "send":
            if delta.get("token") != "USDC":
                return None
            is_received = receiver == user and delta.get("destinationDex") == ""
            is_sent = sender == user and delta.get("sourceDex") == ""
            amount = required_number(delta.get("amount"), "the amount of a transfer")
            return amount if is_received and not is_sent else -amount if is_sent and not is_received else None
        case _:
            return _unknown_entry_amount(delta, sender, receiver, user)


def _unknown_entry_amount(delta: Row, sender: str, receiver: str, user: str) -> Decimal | None:
    """The USDC of an entry of an unknown kind: an outflow where this account sent it, otherwise with its own sign.

    Such an entry must not make the whole ledger unknown for as long as it is listed. Its kind is in the flow's id.
    """
    stated = delta.get("usdc")
    if stated is None and delta.get("token") == "USDC":
        stated = delta.get("amount")
    amount = optional_number(stated)
    return -abs(amount) if amount is not None and sender == user != receiver else amount


def funding_flow(row: Row) -> Flow:
    """Funding paid (−) or received (+) for one position."""
    delta = object_at(row, "delta", what=f"the ledger entry of {row.get('time')}")
    transaction = required_text(row.get("hash"), "the hash of a funding")
    number = f"{transaction}/{row.get('time')}/{required_text(delta.get('coin'), 'the coin of a funding')}"
    at = time_of(row.get("time"), f"funding {number}")
    return Flow(number, at, "funding", required_number(delta.get("usdc"), f"the amount of funding {number}"), "USDC")
