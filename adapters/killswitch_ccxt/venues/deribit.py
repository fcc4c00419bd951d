"""Deribit, API v2: one account's futures, perpetuals and options in one currency, or in all with cross collateral.

What Deribit calls an amount is what is a contract here: US dollars on inverse futures, coins on everything else. So
the contract size is 1 everywhere, whatever `contract_size` says: that is how many of them one lot has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final

from msgspec import structs

from killswitch.model.inspection import Capability, KeyRights
from killswitch.model.snapshot import Fill, FillCause, Flow, FlowKind, Order, Position
from killswitch.model.venue import AccountSpec, Cost, OrderReport, OrderRequest, RateLimit, VenueError
from killswitch_ccxt import fills, orders, positions
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Ages, Dialect, PositionMode
from killswitch_ccxt.errors import Meaning, as_venue_error, rejected
from killswitch_ccxt.hearing import Answer
from killswitch_ccxt.numbers import UnreadableError, decimal, instant, needed, positive
from killswitch_ccxt.quotes import Quote
from killswitch_ccxt.venues.deribit_terms import CAPABILITIES, CODES, COSTS, LIMITS, said
from killswitch_ccxt.wealth import Wealth, from_dollars

Row = Mapping[str, Any]
FLOWS: Final[Mapping[str, FlowKind]] = {"deposit": "deposit", "withdrawal": "withdrawal", "transfer": "transfer"}
"""`type` of an entry of the transaction log → kind of a flow."""
PAGES: Final = 50


class Deribit(Dialect):
    """One account, in one way mode. Its ways are told in docs/venues/deribit.md."""

    exchange = "deribit"
    codes: ClassVar[Mapping[str, Meaning]] = CODES
    limits: ClassVar[tuple[RateLimit, ...]] = LIMITS
    costs: ClassVar[tuple[Cost, ...]] = COSTS
    streams = ("orders", "balance")
    ages = Ages(orders=5.0, fills=15.0, flows=30.0, quotes=15.0)
    capabilities: ClassVar[tuple[Capability, ...]] = CAPABILITIES
    changes_by_get = True
    tried = "answers as its documents give them"

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._dollars: Decimal | None = None
        """US dollars for one of the account's currency, where worth is told in dollars."""
        self._crossed = False
        self._settled: frozenset[str] = frozenset((spec.currency,))
        """Currencies that the account's positions settle in."""
        self._corrected: tuple[object, dict[str, Row]] = (None, {})
        self._entering = asyncio.Lock()

    @classmethod
    def codes_of(cls, answer: Answer) -> Iterable[str]:
        error = answer.body.get("error") if isinstance(answer.body, Mapping) else None
        return said(error) if isinstance(error, Mapping) else ()

    # Hearing

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        """Without a word of ours ccxt hears the portfolio of four currencies only."""
        return {**super().client_options(spec), "currencies": ["any"]}

    async def watch(self, method: str) -> None:
        """Enters first, and alone: ccxt would ask for the second stream before the first has been let in."""
        async with self._entering:
            await self.client.call("authenticate")
        await super().watch(method)

    @classmethod
    def refused_by(cls, message: Any) -> VenueError | None:
        error = message.get("error") if isinstance(message, Mapping) else None
        if not isinstance(error, Mapping):
            return None
        meaning = next((CODES[code] for code in said(error) if code in CODES), rejected("other"))
        text = f"deribit stream: {error.get('code')} {error.get('message')}"
        return as_venue_error(meaning, text, changes=False, left=False)

    @property
    def rules(self) -> Mapping[str, Row]:
        """With amounts for contracts; an option is no inverse contract, since its amount is in coins."""
        found = super().rules
        if self._corrected[0] is not found:
            rules: dict[str, Row] = {
                symbol: {
                    **rule,
                    "contractSize": Decimal(1),
                    "inverse": bool(rule.get("inverse")) and not rule["option"],
                }
                for symbol, rule in found.items()
            }
            self._corrected = (found, rules)
        return self._corrected[1]

    # Reading

    async def account(self) -> tuple[Wealth, tuple[Position, ...]]:
        answer, rows = await asyncio.gather(
            self.client.call("private_get_get_account_summaries"), self.client.call("fetch_positions")
        )
        wealth = await self._wealth(answer)
        if not self._crossed:
            rows = [row for row in rows if self._settles(row) in (self.spec.currency, None)]
        found = positions.positions(rows, self.rules, self.refine_position)
        settled = {str(self.rules[each.symbol].get("settle")) for each in found}
        self._settled = frozenset({self.spec.currency, *settled})
        return wealth, found

    def _settles(self, row: Row) -> str | None:
        rule = self.rules.get(str(row.get("symbol")))
        return None if rule is None else str(rule.get("settle"))

    async def _wealth(self, answer: Any) -> Wealth:
        """Of one currency its own figures; with cross collateral those of the whole, which Deribit tells in dollars."""
        result = answer.get("result") if isinstance(answer, Mapping) else None
        summaries = result.get("summaries") if isinstance(result, Mapping) else None
        if not isinstance(summaries, list):
            raise UnreadableError("the venue's answer holds no summaries")
        currency = self.spec.currency
        row = next((it for it in summaries if it.get("currency") == currency), None)
        first = row if row is not None else next(iter(summaries), None)
        if first is None:
            raise UnreadableError("the venue's answer holds no summary of any currency")
        self._crossed = first.get("cross_collateral_enabled") is True
        if not self._crossed:
            if row is None:
                raise UnreadableError(f"the venue says nothing of {currency}, the account's currency")
            return Wealth(
                equity=needed(row.get("equity"), f"the equity in {currency}"),
                free=decimal(row.get("available_funds")),
                margin_used=decimal(row.get("initial_margin")),
                maintenance_margin=decimal(row.get("maintenance_margin")),
                cash=decimal(row.get("balance")),
                margin_mode="cross",
            )
        if currency != "USD":
            index = await self.client.call("public_get_get_index_price", {"index_name": f"{currency.lower()}_usd"})
            self._dollars = positive((index.get("result") or {}).get("index_price"))

        def worth(dollars: Any) -> Decimal | None:
            found = decimal(dollars)
            return None if found is None else from_dollars(found, self._dollars, currency)

        total = needed(first.get("total_equity_usd"), "the account's total equity")
        return Wealth(
            equity=from_dollars(total, self._dollars, currency),
            margin_used=worth(first.get("total_initial_margin_usd")),
            maintenance_margin=worth(first.get("total_maintenance_margin_usd")),
            cash=sum((decimal(it.get("balance")) or Decimal(0) for it in summaries), Decimal(0)),
            margin_mode="cross",
        )

    def refine_position(self, position: Position, info: Row) -> Position:
        """Money that is not in the account's currency is not told as if it were."""
        rule = self.rules[position.symbol]
        ours = rule.get("settle") == self.spec.currency
        notional = None
        if rule.get("option"):
            index = positive(info.get("index_price"))
            if ours and rule.get("base") == rule.get("settle"):
                notional = position.contracts
            elif ours and index is not None:
                notional = position.contracts * index
        elif ours:
            notional = positions.worth(position, rule)
        elif rule.get("inverse") and (self._dollars or self.spec.currency == "USD"):
            notional = from_dollars(position.contracts, self._dollars, self.spec.currency)
        return structs.replace(
            position,
            notional=notional,
            index_price=positive(info.get("index_price")),
            margin=decimal(info.get("initial_margin")) if ours else None,
            unrealized_pnl=decimal(info.get("floating_profit_loss")) if ours else None,
        )

    async def orders(self) -> tuple[Order, ...]:
        answer = await self.client.call("private_get_get_open_orders")
        return orders.resting(self._order(row) for row in _rows(answer.get("result"), "orders"))

    def _order(self, info: Row) -> dict[str, Any]:
        """ccxt's order; it knows neither labels nor the trigger's name, and takes no notice of reduce-only."""
        try:
            row = self.client.ccxt.parse_order(dict(info))
        except Exception as error:
            raise UnreadableError(f"ccxt cannot read order {info.get('order_id')}: {error}") from error
        kind = str(info.get("order_type"))
        return {
            **row, "clientOrderId": info.get("label"), "reduceOnly": info.get("reduce_only"), "type": kind,
            "triggerPrice": positive(info.get("trigger_price")), "stopLossPrice": None, "takeProfitPrice": None,
            "price": None if info.get("price") == "market_price" or kind.endswith("market") else info.get("price"),
            "amount": info.get("amount"), "filled": info.get("filled_amount"), "average": info.get("average_price"),
            "fee": {"cost": info.get("commission")},
        }  # fmt: skip

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        answers = await asyncio.gather(*(self._trades(currency, since) for currency in sorted(self._settled)))
        return self._as_fills([row for rows in answers for row in rows])

    async def _trades(self, currency: str, since: int) -> list[Row]:
        found: dict[str, Row] = {}
        until = int(self.client.now().timestamp() * 1000) + 60_000
        for _ in range(PAGES):
            asked = {"currency": currency, "start_timestamp": since, "end_timestamp": until, "count": 1000,
                     "sorting": "asc"}  # fmt: skip
            answer = await self.client.call("private_get_get_user_trades_by_currency_and_time", asked)
            result = answer.get("result") or {}
            rows = _rows(result.get("trades"), "trades")
            found.update({str(row.get("trade_id")): row for row in rows})
            if not result.get("has_more") or not rows:
                return list(found.values())
            since = int(rows[-1]["timestamp"])
        raise UnreadableError(f"more than {PAGES * 1000} fills in {currency}")

    def _as_fills(self, rows: Sequence[Row]) -> tuple[Fill, ...]:
        try:
            parsed = self.client.ccxt.parse_trades([dict(row) for row in rows])
        except Exception as error:
            raise UnreadableError(f"ccxt cannot read the venue's trades: {error}") from error
        return fills.fills(parsed, self.refine_fill)

    def refine_fill(self, fill: Fill, info: Row) -> Fill:
        """`liquidation` names whose side was liquidated, `liquidity` which one was ours."""
        mine = str(info.get("liquidity") or "")
        cause: FillCause = "liquidation" if mine and mine in str(info.get("liquidation") or "") else "trade"
        rule = self.rules.get(fill.symbol) or {}
        return structs.replace(
            fill,
            fee=decimal(info.get("fee")),
            fee_currency=info.get("fee_currency") or None,
            cause=cause,
            realized_pnl=decimal(info.get("profit_loss")) if rule.get("settle") == self.spec.currency else None,
        )

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        """What the transaction log calls deposits, withdrawals and transfers."""
        found: list[Flow] = []
        until = int(self.client.now().timestamp() * 1000) + 60_000
        asked: dict[str, Any] = {
            "currency": self.spec.currency, "start_timestamp": since, "end_timestamp": until, "count": 250,
        }  # fmt: skip
        for _ in range(PAGES):
            answer = await self.client.call("private_get_get_transaction_log", asked)
            result = answer.get("result") or {}
            for row in _rows(result.get("logs"), "log entries"):
                kind, at = FLOWS.get(str(row.get("type"))), instant(row.get("timestamp"))
                if kind is None:
                    continue
                if at is None or row.get("id") is None:
                    raise UnreadableError("an entry of the transaction log without an id or a time")
                change = needed(row.get("change"), f"the change of log entry {row['id']}")
                found.append(Flow(str(row["id"]), at, kind, change, str(row.get("currency"))))
            if result.get("continuation") is None:
                return tuple(found)
            asked = {**asked, "continuation": result["continuation"]}
        raise UnreadableError("more entries of the transaction log than can be read")

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Of each currency that the symbols settle in, one answer with the prices of all its instruments."""
        wanted = {str(self.rules[symbol]["id"]): symbol for symbol in symbols}
        currencies = sorted({str(self.rules[symbol].get("settle")) for symbol in symbols})
        answers = await asyncio.gather(
            *(self.client.call("public_get_get_book_summary_by_currency", {"currency": each}) for each in currencies)
        )
        rows = [row for it in answers for row in _rows(it.get("result"), "prices")]
        return {
            wanted[row["instrument_name"]]: Quote(
                positive(row.get("bid_price")), positive(row.get("ask_price")), positive(row.get("last")), None,
                positive(row.get("mark_price")),
            )
            for row in rows
            if row.get("instrument_name") in wanted
        }  # fmt: skip

    # Acting

    def order_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """ccxt reads a trigger price as text only."""
        params: dict[str, Any] = {"label": request.client_order_id}
        if request.reduce_only:
            params["reduceOnly"] = True
        if request.time_in_force == "ioc" and request.type == "limit":
            params["timeInForce"] = "IOC"
        if request.trigger_price is not None:
            stop = (request.side == "sell") is (request.trigger_when == "falls")
            params["stopLossPrice" if stop else "takeProfitPrice"] = format(request.trigger_price, "f")
            params["trigger"] = "mark_price"
        return params

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        row = await self.client.call("create_order", *self.create_arguments(request, mode), changes=True)
        found = self._order(row["info"])
        if found["clientOrderId"] not in (request.client_order_id, None, ""):
            raise UnreadableError(f"sent order {request.client_order_id}, told of {found['clientOrderId']}")
        return orders.report({**found, "clientOrderId": request.client_order_id}, request.symbol)

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """By label. A stop and what it has sent have the same one: the newest is what became of it."""
        asked = {"currency": self.rules[symbol]["settleId"], "label": client_order_id}
        answer = await self.client.call("private_get_get_order_state_by_label", asked)
        rows = [it for it in _rows(answer.get("result"), "orders") if it.get("label") == client_order_id]
        if not rows:
            return None
        return self._order(max(rows, key=lambda it: int(it.get("creation_timestamp") or 0)))

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        asked = {"order_id": order_id, "sorting": "asc"}
        answer = await self.client.call("private_get_get_user_trades_by_order", asked)
        result = answer.get("result")
        rows = _rows(result.get("trades") if isinstance(result, Mapping) else result, "trades")
        return tuple(fill for fill in self._as_fills(rows) if fill.order == order_id)

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        await self.client.call("private_get_cancel", {"order_id": order_id}, changes=True)

    # Being asked about

    async def rights(self) -> KeyRights:
        """What the list of keys says of this one; every key with account:read may see it."""
        answer = await self.client.call("private_get_list_api_keys")
        ours = [it for it in _rows(answer.get("result"), "keys") if it.get("client_id") == self.client.ccxt.apiKey]
        if not ours:
            return KeyRights(note="the venue's list of keys does not name this one")
        scopes = dict(each.partition(":")[::2] for each in str(ours[0].get("max_scope", "")).split())
        return KeyRights(
            read=scopes.get("account") in ("read", "read_write"),
            trade=scopes.get("trade") == "read_write",
            withdraw=scopes.get("wallet") == "read_write",
            transfer=scopes.get("wallet") == "read_write",
            bound_to_addresses=bool(ours[0].get("ip_whitelist")),
        )

    async def margin_mode(self) -> str | None:
        return "cross"


def _rows(value: Any, what: str) -> list[Row]:
    if not isinstance(value, list) or not all(isinstance(it, Mapping) for it in value):
        raise UnreadableError(f"the venue's answer holds no list of {what}")
    return value


DIALECTS: Final[Mapping[str, type[Dialect]]] = {"deribit": Deribit}
