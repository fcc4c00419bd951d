"""Conversion of Bybit's own rows, where ccxt's unified structures state less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from msgspec.structs import replace

from killswitch.model.inspection import KeyRights
from killswitch.model.parsing import (
    Row,
    UnreadableError,
    any_flag,
    decimal,
    instant,
    object_at,
    optional_text,
    positive,
    required_number,
    required_text,
    value_at,
)
from killswitch.model.snapshot import Balance, Fill, Side
from killswitch.model.venue import MalformedAnswerError, OrderReport, OrderRequest, VenueError
from killswitch_ccxt.equity import AccountEquity, by_asset, from_dollars, rates_in_dollars, unrealized_of, value_of
from killswitch_ccxt.errors import row_error
from killswitch_ccxt.instruments import Quote, with_maximum
from killswitch_ccxt.venues.bybit import codes as bybit_codes

ROUNDED: Final = Decimal("1e-5")
"""The difference between a total and the sum of its parts, as a share of the total, that counts as rounding."""
OPTIONS_SHARE: Final = Decimal("5e-4")
"""The share of the equity outside wallets and profits that indicates options; interest is less."""


def with_order_maximum(rule: Row) -> Row:
    """ccxt's market, with the maximum of any order: Bybit accepts less in a market order than in others."""
    filters = value_at(rule, "info", "lotSizeFilter") or {}
    return with_maximum(rule, *(filters.get(name) for name in ("maxOrderQty", "maxMktOrderQty", "maxMarketOrderQty")))


def bounded(found: Quote, rule: Row) -> Quote:
    """The quote with the prices between which a futures order may be, by the symbol's ratios x and y.

    To buy at most min(max(index, mark × (1 + x)), mark × (1 + y)), to sell at least max(min(index, mark × (1 − x)),
    mark × (1 − y)) (https://bybit-exchange.github.io/docs/v5/account/set-price-limit). That of spot depends on a
    premium that no ticker states.
    """
    x, y = (
        positive(value_at(rule, "info", "riskParameters", name)) for name in ("priceLimitRatioX", "priceLimitRatioY")
    )
    mark, index = found.mark, found.index
    if rule.get("spot") or mark is None or index is None or x is None or y is None:
        return found
    highest = min(max(index, mark * (1 + x)), mark * (1 + y))
    return replace(found, lowest=max(min(index, mark * (1 - x)), mark * (1 - y)), highest=highest)


def _account(answer: Row) -> Row:
    """The unified account of an answer. UnreadableError unless there is exactly one."""
    rows = value_at(answer, "result", "list") or []
    if len(rows) != 1:
        raise UnreadableError(f"the answer has {len(rows)} unified accounts instead of one")
    return object_at(rows[0])


def account_equity(answer: Row, currency: str, as_of: datetime | None = None) -> AccountEquity:
    """The equity from `account/wallet-balance`: dollars, divided by Bybit's own price of `currency`.

    Totals that Bybit leaves empty, as with isolated margin, are unknown. UnreadableError where the currency has no
    price, because its row is missing or empty.
    """
    row = _account(answer)
    coins = tuple(by_asset(row.get("coin"), "coin").values())
    total = required_number(row.get("totalEquity"), "totalEquity")
    price = _dollars(next((it for it in coins if it.get("coin") == currency), {}))

    def in_currency(value: Any) -> Decimal | None:
        found = decimal(value)
        return found if not found else from_dollars(found, price, currency)

    balances = tuple(_balance(it, price, currency) for it in coins if decimal(it.get("equity")))
    equity = from_dollars(total, price, currency) if total else total
    parts = value_of(balances)
    # The total is the sum of the coins, rounded in dollars.
    equity = parts if abs(parts - equity) <= ROUNDED * abs(equity) else equity
    return AccountEquity(
        equity=equity,
        free=in_currency(row.get("totalAvailableBalance")),
        margin_used=_positions_margin(row, balances),
        maintenance_margin=in_currency(row.get("totalMaintenanceMargin")),
        balances=balances,
        unrealized=unrealized_of(balances),
        rates=rates_in_dollars(price, currency),
        as_of=as_of,
        is_complete=False if _has_options(coins, balances, equity) else None,
    )


def _positions_margin(row: Row, balances: Sequence[Balance]) -> Decimal | None:
    """The initial margin of positions in all coins, in the account's currency; the account's own total includes
    orders. None where a coin does not state it, as with portfolio margin."""
    if decimal(row.get("totalInitialMargin")) == 0:
        return Decimal(0)
    prices, total = {it.asset: it.price for it in balances}, Decimal(0)
    for coin in row.get("coin") or ():
        margin, price = decimal(coin.get("totalPositionIM")), prices.get(str(coin.get("coin")))
        if margin is None or (margin and price is None):
            return None
        total += margin * price if margin and price is not None else 0
    return total


def _has_options(coins: Sequence[Row], balances: Sequence[Balance], equity: Decimal) -> bool:
    """Whether the equity exceeds wallets and the profit of futures, which is the value of options.

    The value of options is unrealised, and no position explains it, because options are not read.
    """
    profits = {str(it.get("coin")): decimal(it.get("unrealisedPnl")) for it in coins}
    unexplained = Decimal(0)
    for it in balances:
        profit = profits.get(it.asset)
        if it.price is not None and it.wallet is not None and profit is not None:
            unexplained += abs((it.amount - it.wallet - profit) * it.price)
    return unexplained > OPTIONS_SHARE * abs(equity)


def position_index(row: Row) -> int:
    """The index by which an order names the position: 0 in one-way mode, 1 for long and 2 for short in hedge mode."""
    index = row.get("positionIdx")
    if isinstance(index, bool) or str(index) not in ("0", "1", "2"):
        raise UnreadableError(f"position {row.get('symbol')}: unknown positionIdx {index!r}")
    return int(index)  # type: ignore[arg-type] # one of the three


def spot_balance(answer: Row) -> dict[str, Any]:
    """ccxt's unified balance, with the equity of each coin as its total."""
    coins = by_asset(_account(answer).get("coin"), "coin")
    return {"total": {coin: required_number(row.get("equity"), f"the equity in {coin}") for coin, row in coins.items()}}


def dollar_prices(answer: Row) -> dict[str, Decimal]:
    """Coin → price in USD by Bybit's own valuation in `account/wallet-balance`, for coins of the account."""
    prices = {str(it.get("coin")): _dollars(it) for it in _account(answer).get("coin") or []}
    return {"USD": Decimal(1), **{coin: price for coin, price in prices.items() if price is not None}}


def rate(prices: Mapping[str, Decimal], coin: object, currency: str) -> Decimal | None:
    """The price of one `coin` in `currency`; None where Bybit has no price of one of the two."""
    if coin == currency:
        return Decimal(1)
    each, own = prices.get(str(coin)), prices.get(currency)
    return each / own if each is not None and own is not None else None


def order_of_executions(rows: Sequence[Row]) -> dict[str, Any]:
    """An order as a row of `order/history`, from its executions.

    If a part is left, the order may still be open: it is reported as open, and queried again.
    """
    latest = min(rows, key=lambda it: required_number(it.get("leavesQty"), "leavesQty"))
    left = required_number(latest.get("leavesQty"), "leavesQty")
    sizes = [required_number(it.get("execQty"), "execQty") for it in rows]
    prices = [required_number(it.get("execPrice"), "execPrice") for it in rows]
    filled = sum(sizes, Decimal(0))
    value = sum((size * price for size, price in zip(sizes, prices, strict=True)), Decimal(0))
    return {
        **{name: latest.get(name) for name in ("symbol", "orderId", "orderLinkId", "side", "orderType")},
        "qty": str(latest.get("orderQty") or filled + left), "cumExecQty": str(filled), "leavesQty": str(left),
        "avgPrice": str(value / filled) if filled else "", "price": str(latest.get("orderPrice") or ""),
        "orderStatus": "PartiallyFilled" if left else "Filled", "createdTime": latest.get("execTime"),
        "updatedTime": latest.get("execTime"),
    }  # fmt: skip


def _dollars(coin: Row) -> Decimal | None:
    amount, value = decimal(coin.get("equity")), decimal(coin.get("usdValue"))
    return value / amount if amount and value else None


def _balance(coin: Row, price: Decimal | None, currency: str) -> Balance:
    """The balance of one coin. Equity and wallet are net of the debt.

    Every answer states the debt, even if it is zero: without it the wallet is unknown.
    """
    own, equity = _dollars(coin), required_number(coin.get("equity"), "equity")
    each = None if own is None else own if currency == "USD" else own / price if price else None
    wallet_balance, borrowed = decimal(coin.get("walletBalance")), decimal(coin.get("spotBorrow"))
    wallet = None if wallet_balance is None or borrowed is None else wallet_balance - borrowed
    return Balance(required_text(coin.get("coin"), "the name of a coin"), equity, each, wallet=wallet, equity=equity)


def refined_fill(fill: Fill, info: Row, *, spot: bool, paid_in: str | None, each: Decimal | None) -> Fill:
    """The fill with fee, profit and cause. The closed size states its position side, in either mode.

    `each`: the price, in the account's currency, of the coin in which Bybit states the profit; None: unknown.
    """
    profit = decimal(info.get("execPnl"))
    closed = decimal(info.get("closedSize"))
    side: Side | None = None
    if closed is not None and closed in (0, fill.amount) and not spot:
        side = "long" if (fill.side == "sell") is (closed != 0) else "short"
    coin = info.get("feeCurrency") or info.get("feeCoin") or fill.fee_currency or paid_in
    return replace(
        fill,
        at=instant(info.get("execTime")) or fill.at,
        fee=decimal(info.get("execFee")),
        fee_currency=None if coin is None else str(coin),
        realized_pnl=None if profit is None or each is None else profit * each,
        cause=bybit_codes.CAUSES.get(str(info.get("execType"))) or "trade",
        position_side=side,
        client_order_id=optional_text(info.get("orderLinkId")),
    )


def refined_order(row: Row) -> Row:
    """ccxt's order with position side, reduce-only and fee of Bybit's row."""
    info = row["info"]
    side = {"1": "long", "2": "short"}.get(str(info.get("positionIdx")))
    fees = info.get("cumFeeDetail")
    detailed = isinstance(fees, Mapping) and len(fees) == 1
    coin, cost = next(iter(fees.items())) if detailed else (None, None)
    paid = decimal(cost if cost is not None else None if fees else info.get("cumExecFee"))
    reduces = any_flag(info.get("reduceOnly"), info.get("closeOnTrigger"))
    # 1 waits for a rise, 2 for a fall.
    falls = {"1": False, "2": True}.get(str(info.get("triggerDirection")))
    guards = None if falls is None else (row.get("side") == "sell") is falls
    found = {
        **row, "timestamp": info.get("createdTime"),
        "positionSide": side, "reduceOnly": reduces, "fee": {"cost": paid, "currency": coin}, "guards": guards,
    }  # fmt: skip
    if row.get("status") == "rejected" and decimal(row.get("filled")):
        found["status"] = "canceled"  # the rest was canceled: a rejected order has no fills
    return found


def rights_of(info: Row, *, spot: bool) -> KeyRights:
    """The permissions of `user/query-api`."""
    allowed = {str(area): set(rights or ()) for area, rights in (info.get("permissions") or {}).items()}
    writes = str(info.get("readOnly")) == "0"
    wallet = allowed.get("Wallet", set())
    wanted, area = ({"SpotTrade"}, "Spot") if spot else ({"Order", "Position"}, "ContractTrade")
    addresses = [it for it in info.get("ips") or () if it and it != "*"]
    expires = datetime.fromisoformat(str(info["expiredAt"]).replace("Z", "+00:00")) if info.get("expiredAt") else None
    return KeyRights(
        read=True,
        trade=writes and wanted <= allowed.get(area, set()),
        withdraw=writes and "Withdraw" in wallet,
        transfer=writes and bool(wallet & {"AccountTransfer", "SubMemberTransfer", "SubMemberTransferList"}),
        bound_to_addresses=bool(addresses),
        expires_at=None if expires is None or expires <= datetime(1971, 1, 1, tzinfo=UTC) else expires,
        note="" if str(info.get("uta")) == "1" else "this is not a unified account, the only kind that is supported",
    )


def row_report(request: OrderRequest, row: Row, code: Row) -> OrderReport | VenueError:
    """The result of one order of a batch."""
    number = code.get("code")
    if number != 0 or isinstance(number, bool):
        refusal = bybit_codes.refusal_codes(number, code.get("msg"))
        return row_error(bybit_codes.REFUSAL_CODES, refusal, f"bybit {number}: {code.get('msg')}", order=row)
    if row.get("orderLinkId") != request.client_order_id or not row.get("orderId"):
        return MalformedAnswerError(f"sent order {request.client_order_id}, the row in its place is {dict(row)}")
    return OrderReport(str(row["orderId"]), request.client_order_id, request.symbol, "open", request.amount, Decimal(0))
