"""Deribit, API v2: one account's futures, perpetuals and options in one currency, or in all with cross collateral.

Deribit's amount is the number of contracts here: US dollars on inverse futures, coins on everything else. So the
contract size is 1 everywhere, whatever `contract_size` states: that is the size of one lot.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final

from msgspec.structs import replace

from killswitch.model.inspection import Capability, KeyRights
from killswitch.model.parsing import (
    Row,
    UnreadableError,
    decimal,
    every_page,
    instant,
    optional_text,
    positive,
    rows_at,
    value_at,
)
from killswitch.model.snapshot import Fill, FillCause, Flow, Order, Position, Rate
from killswitch.model.venue import (
    AccountSpec,
    Cost,
    OrderLife,
    OrderReport,
    OrderRequest,
    RateLimit,
    VenueError,
)
from killswitch_ccxt import fills, orders, positions
from killswitch_ccxt.answers import parsed
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import PositionMode, is_stop
from killswitch_ccxt.equity import AccountEquity, from_dollars
from killswitch_ccxt.errors import Meaning, VenueAnswer, as_venue_error, rejected
from killswitch_ccxt.instruments import names_its_assets
from killswitch_ccxt.traits import Ages
from killswitch_ccxt.venues.deribit.codes import CAPABILITIES, CODES, COSTS, LIMITS, refusal_codes
from killswitch_ccxt.venues.deribit.prices import DeribitPriceDialect
from killswitch_ccxt.venues.deribit.rows import (
    cross_collateral_equity,
    entry_of,
    flow_of,
    has_cross_collateral,
    is_complete_rule,
    position_row,
    positions_margin,
    rights_of,
    single_currency_equity,
)

PAGES: Final = 50
CLOCK_TOLERANCE: Final = 60_000
"""Milliseconds after our time up to which rows are requested: the venue's clock may be ahead."""


class Deribit(DeribitPriceDialect):
    """One account, in one-way mode. docs/venues/deribit.md describes its peculiarities."""

    exchange = "deribit"
    codes: ClassVar[Mapping[str, Meaning]] = CODES
    code_form = re.compile(r"-?[1-9]\d{3,4}")
    limits: ClassVar[tuple[RateLimit, ...]] = LIMITS
    costs: ClassVar[tuple[Cost, ...]] = COSTS
    streams = ("orders", "balance")
    # Requests for the log are expensive, and each collateral currency needs its own.
    ages = Ages(orders=5.0, fills=15.0, flows=30.0, quotes=15.0, early_flows=2)
    capabilities: ClassVar[tuple[Capability, ...]] = CAPABILITIES
    has_orders_by_get = True
    # Any number of orders may have the same label.
    order_life = OrderLife(longest=60.0, names="none")
    tried = "answers from its documents"

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._dollars: Decimal | None = None
        """The price of the account's currency in USD, where Deribit states the equity in dollars."""
        self._is_cross_collateral = False
        self._collateral: frozenset[str] = frozenset((spec.currency,))
        """Currencies of the account that are part of its equity."""
        self._settlement_currencies: frozenset[str] = frozenset((spec.currency,))
        """Currencies in which the account's positions settle."""
        self._authentication = asyncio.Lock()

    @classmethod
    def codes_of(cls, answer: VenueAnswer) -> Iterable[str]:
        error = answer.body.get("error") if isinstance(answer.body, Mapping) else None
        return refusal_codes(error) if isinstance(error, Mapping) else ()

    # Streams

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        """The generic options, with all currencies: ccxt watches the portfolio of four only."""
        return {**super().client_options(spec), "currencies": ["any"]}

    async def watch(self, method: str) -> None:
        """Authenticate first, one stream at a time: ccxt would open the second one before the first is
        authenticated."""
        async with self._authentication:
            await self.client.call("authenticate")
        await super().watch(method)

    @classmethod
    def refusal_of(cls, message: Any) -> VenueError | None:
        error = message.get("error") if isinstance(message, Mapping) else None
        if not isinstance(error, Mapping):
            return None
        meaning = next((CODES[code] for code in refusal_codes(error) if code in CODES), rejected("other"))
        text = f"deribit stream: {error.get('code')} {error.get('message')}"
        return as_venue_error(meaning, text, is_change=False, was_sent=False)

    def corrected_rule(self, rule: Row) -> Row:
        """The rule with amounts for contracts; an option is no inverse contract, since its amount is in coins."""
        return {
            **rule,
            "contractSize": Decimal(1),
            "inverse": bool(rule.get("inverse")) and not rule["option"],
            **({} if is_complete_rule(rule) else {"base": None}),
        }

    def concerns(self, rule: Row) -> bool:
        """Whether the account may hold the market. A combination is held as its legs, and its price is a difference."""
        return super().concerns(rule) and "combo" not in str((rule.get("info") or {}).get("kind"))

    # Snapshot

    async def account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        equity, held = await asyncio.gather(self.equity(), self.client.call("private_get_get_positions"))
        infos = rows_at(held, "result", what="the answer about positions")
        rows = [position_row(info, self._symbol(info.get("instrument_name"))) for info in infos]
        if not self._is_cross_collateral:
            rows = [row for row in rows if self._settlement_coin(row) in (self.spec.currency, None)]
        found = positions.positions(rows, self.rules, self.refine_position)
        equity = replace(equity, margin_used=None if self._is_cross_collateral else positions_margin(equity, rows))
        coins = {str(self.rules[each.symbol].get("settle")) for each in found}
        self._settlement_currencies = frozenset({self.spec.currency, *coins})
        if equity.rates is None and self.spec.currency != "USD":
            equity = replace(equity, rates=self._rates_of(found))
        return equity, found

    async def equity(self) -> AccountEquity:
        """The equity: the figures of one currency, or with cross collateral the totals, which Deribit states in
        dollars."""
        indexes = self.indexes(self._collateral if self._is_cross_collateral else ())
        answer, dollars = await asyncio.gather(self.client.call("private_get_get_account_summaries"), indexes)
        summaries, currency = rows_at(answer, "result", "summaries"), self.spec.currency
        row = next((it for it in summaries if it.get("currency") == currency), None)
        first = row if row is not None else next(iter(summaries), None)
        if first is None:
            raise UnreadableError("the answer has no summary of any currency")
        self._is_cross_collateral = has_cross_collateral(first)
        if not self._is_cross_collateral:
            if row is None:
                raise UnreadableError(f"the answer has no row of {currency}, the account's currency")
            self._collateral = frozenset((currency,))
            return single_currency_equity(row)
        held = [it for it in summaries if decimal(it.get("equity")) or decimal(it.get("balance"))]
        self._collateral = frozenset((currency, *(str(it.get("currency")) for it in held)))
        missing = self._collateral - dollars.keys()
        dollars = {**dollars, **(await self.indexes(missing) if missing else {})}
        self._dollars = dollars.get(currency)
        return cross_collateral_equity(first, held, currency, dollars)

    def _rates_of(self, found: Sequence[Position]) -> tuple[Rate, ...] | None:
        """The price of the account's coin in USD, where a position has the index price of that coin."""
        inverse = (it for it in found if self.rules[it.symbol].get("inverse") and it.index_price is not None)
        return next(((Rate("USD", it.index_price),) for it in inverse if it.index_price is not None), None)

    def _symbol(self, name: object) -> str | None:
        """ccxt's symbol of an instrument; None if the rules do not contain it."""
        known = (self.client.ccxt.markets_by_id or {}).get(str(name))
        return str(known[0]["symbol"]) if known else None

    def _settlement_coin(self, row: Row) -> str | None:
        rule = self.rules.get(str(row.get("symbol")))
        return None if rule is None or not names_its_assets(rule) else str(rule.get("settle"))

    def refine_position(self, position: Position, info: Row) -> Position:
        """The position without amounts that are not in the account's currency."""
        rule = self.rules[position.symbol]
        is_own_currency = rule.get("settle") == self.spec.currency
        notional = None
        if rule.get("option"):
            index = positive(info.get("index_price"))
            if is_own_currency and rule.get("base") == rule.get("settle"):
                notional = position.contracts
            elif is_own_currency and index is not None:
                notional = position.contracts * index
        elif is_own_currency:
            notional = positions.position_value(position, rule)
        elif rule.get("inverse") and (self._dollars or self.spec.currency == "USD"):
            notional = from_dollars(position.contracts, self._dollars, self.spec.currency)
        return replace(
            position,
            entry_price=position.entry_price
            if rule.get("option")
            else entry_of(position, info, inverse=bool(rule.get("inverse"))),
            notional=notional,
            index_price=positive(info.get("index_price")),
            margin=decimal(info.get("initial_margin")) if is_own_currency else None,
            unrealized_pnl=decimal(info.get("floating_profit_loss")) if is_own_currency else None,
        )

    async def orders(self) -> tuple[Order, ...]:
        answer = await self.client.call("private_get_get_open_orders")
        return orders.open_orders(self._order(row) for row in rows_at(answer, "result", what="the answer about orders"))

    def _order(self, info: Row) -> dict[str, Any]:
        """ccxt's order, with label, trigger and reduce-only, which ccxt ignores."""
        (row,) = parsed(self.client.ccxt.parse_orders, [info])
        kind = str(info.get("order_type"))
        return {
            **row, "timestamp": info.get("creation_timestamp"),
            "clientOrderId": info.get("label"), "reduceOnly": info.get("reduce_only"), "type": kind,
            "triggerPrice": positive(info.get("trigger_price")), "stopLossPrice": None, "takeProfitPrice": None,
            "price": None if info.get("price") == "market_price" or kind.endswith("market") else info.get("price"),
            "amount": info.get("amount"), "filled": info.get("filled_amount"), "average": info.get("average_price"),
            "fee": {"cost": info.get("commission"), "currency": self._settlement_coin(row)},
        }  # fmt: skip

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        answers = await asyncio.gather(*(self._trades(it, since) for it in sorted(self._settlement_currencies)))
        return self._as_fills([row for rows in answers for row in rows])

    async def _trades(self, currency: str, since: int) -> list[Row]:
        until = self.client.now_ms() + CLOCK_TOLERANCE

        async def page(begin: int) -> tuple[list[Row], int | None]:
            params = {"currency": currency, "start_timestamp": begin,
                     "end_timestamp": until, "count": 1000, "sorting": "asc"}  # fmt: skip
            answer = await self.client.call("private_get_get_user_trades_by_currency_and_time", params)
            rows = rows_at(answer, "result", "trades")
            return rows, int(rows[-1]["timestamp"]) if rows and value_at(answer, "result", "has_more") else None

        rows = await every_page(page, since, PAGES, f"fills in {currency}")
        return list({str(row.get("trade_id")): row for row in rows}.values())

    def _as_fills(self, rows: Sequence[Row]) -> tuple[Fill, ...]:
        return fills.fills(parsed(self.client.ccxt.parse_trades, rows), self.refine_fill)

    def refine_fill(self, fill: Fill, info: Row) -> Fill:
        """The fill with its cause: `liquidation` states the liquidated side, `liquidity` our side."""
        own_side = str(info.get("liquidity") or "")
        cause: FillCause = "liquidation" if own_side and own_side in str(info.get("liquidation") or "") else "trade"
        rule = self.rules.get(fill.symbol) or {}
        return replace(
            fill,
            at=instant(info.get("timestamp")) or fill.at,
            fee=decimal(info.get("fee")),
            fee_currency=optional_text(info.get("fee_currency")),
            cause=cause,
            client_order_id=optional_text(info.get("label")),
            realized_pnl=decimal(info.get("profit_loss")) if rule.get("settle") == self.spec.currency else None,
        )

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        """Deposits, withdrawals and transfers in the transaction logs of the account's currencies."""
        answers = await asyncio.gather(*(self._currency_flows(it, since) for it in sorted(self._collateral)))
        return tuple(flow for found in answers for flow in found)

    async def _currency_flows(self, currency: str, since: int) -> list[Flow]:
        params: dict[str, Any] = {
            "currency": currency, "start_timestamp": since,
            "end_timestamp": self.client.now_ms() + CLOCK_TOLERANCE, "count": 250,
        }  # fmt: skip

        async def page(cursor: Any) -> tuple[list[Row], Any]:
            more = {} if cursor is None else {"continuation": cursor}
            answer = await self.client.call("private_get_get_transaction_log", {**params, **more})
            return rows_at(answer, "result", "logs"), value_at(answer, "result", "continuation")

        rows = await every_page(page, None, PAGES, "the transaction log")
        return [flow for flow in map(flow_of, rows) if flow is not None]

    # Orders

    def order_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """The trigger price is text, which ccxt requires."""
        params: dict[str, Any] = {"label": request.client_order_id}
        if (deadline := self.deadline_of(request)) is not None:
            params["valid_until"] = deadline
        if request.reduce_only:
            params["reduceOnly"] = True
        if request.time_in_force == "ioc" and request.type == "limit":
            params["timeInForce"] = "IOC"
        if request.trigger_price is not None:
            params["stopLossPrice" if is_stop(request) else "takeProfitPrice"] = format(request.trigger_price, "f")
            params["trigger"] = "mark_price"
        return params

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        row = await self.client.call("create_order", *self.create_arguments(request, mode), places=True)
        return self.accepted_report(self._order(row["info"]), request)

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """Find an order by its label. A stop and the order that it sent have the same one: the newest is the result."""
        params = {"currency": self.rules[symbol]["settleId"], "label": client_order_id}
        answer = await self.client.call("private_get_get_order_state_by_label", params)
        listed = rows_at(answer, "result", what=f"the answer about order {client_order_id}")
        rows = [it for it in listed if it.get("label") == client_order_id]
        if not rows and listed:
            raise UnreadableError(f"queried order {client_order_id}, the answer lists only other orders")
        if not rows:
            return None
        return self._order(max(rows, key=lambda it: int(it.get("creation_timestamp") or 0)))

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        params = {"order_id": order_id, "sorting": "asc"}
        answer = await self.client.call("private_get_get_user_trades_by_order", params)
        is_nested = isinstance(value_at(answer, "result"), Mapping)
        names = ("result", "trades") if is_nested else ("result",)
        rows = rows_at(answer, *names, what=f"the answer about trades of order {order_id}")
        return fills.fills_of_order(self._as_fills(rows), order_id)

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        await self.client.call("private_get_cancel", {"order_id": order_id}, changes=True)

    # Inspection

    async def rights(self) -> KeyRights:
        """The permissions of this key in the list of keys, which every key with account:read may read."""
        answer = await self.client.call("private_get_list_api_keys")
        return rights_of(rows_at(answer, "result", what="the answer about keys"), self.client.ccxt.apiKey)

    async def margin_mode(self) -> str | None:
        return "cross"
