"""Kraken Futures (derivatives API v3), by the venue's own rows where ccxt guesses.

ccxt omits limit prices of open orders and amounts of inverse fills, replaces the fee by one from its table, and ignores
fills in the answer to an order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from killswitch.model.parsing import (
    EndlessListError,
    Row,
    UnreadableError,
    above_zero,
    at_least_zero,
    decimal,
    every_page,
    flag,
    identifier,
    instant,
    object_at,
    one_of,
    optional_text,
    required_number,
    required_text,
    rows_at,
    time_of,
    value_at,
)
from killswitch.model.snapshot import Fill, Flow, InstrumentState, Order, Position
from killswitch.model.venue import (
    AccountSpec,
    ClientIdRule,
    ConditionalOrderRule,
    DeadManRule,
    OrderLife,
    OrderReport,
    OrderRequest,
    VenueDownError,
)
from killswitch_ccxt import orders, positions
from killswitch_ccxt.answers import forget_oldest
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import BatchResults, CcxtTimer, Dialect, PositionMode, is_stop
from killswitch_ccxt.equity import AccountEquity, from_dollars, optional_from_dollars, rates_in_dollars, value_of
from killswitch_ccxt.errors import VenueAnswer, present_codes, row_error
from killswitch_ccxt.fills import fills_of_order, ledger_flow, unique
from killswitch_ccxt.instruments import TICKER, Quote, States, quote_of
from killswitch_ccxt.traits import Ages
from killswitch_ccxt.venues.krakenfutures.rows import (
    CAPABILITIES,
    CAUSES,
    CODES,
    COSTS,
    LIMITS,
    LOG,
    STATES,
    client_id_of,
    dollar_price,
    event_of,
    flex_balances,
    found_order,
    is_trade,
    refused_on_stream,
    single_collateral_equity,
    wallet_of,
)

ROUNDED: Final = Decimal("1e-4")
"""The rounding of a portfolio's value, as a share of it: Kraken rounds the total."""
FILL_ROWS: Final = 100
"""Fills of one answer."""
FILL_PAGES: Final = 10
LOG_ROWS: Final = 500
SHORT_LOG: Final = 25
HISTORY: Final = 7 * 86_400_000
"""Milliseconds of order events that are searched for an order that this process has not sent."""
BEFORE_SENT: Final = 600_000
"""Milliseconds before the sending of an order, by our clock, from which on its events are searched."""
HISTORY_ROWS: Final = 1000
HISTORY_PAGES: Final = 10
REMEMBERED: Final = 10_000
"""Number of orders whose time of sending is remembered."""


class KrakenFutures(CcxtTimer, Dialect):
    """One account: a multi-collateral (`flex`) wallet in USD, or the single-collateral wallet of `options: {wallet:
    …}`."""

    exchange = "krakenfutures"
    more_options = ("wallet",)
    codes = CODES
    limits, costs, capabilities = LIMITS, COSTS, CAPABILITIES
    client_ids = ClientIdRule("plain", 32)
    conditional_orders = ConditionalOrderRule(("mark",))
    # A batch has one deadline for all orders, which ccxt does not send; client order ids are unique for ever.
    order_life = OrderLife(names="ever")
    batch = 10
    dead_man = DeadManRule("account", shortest=1.0, takes_stops=True, quiet_for_maintenance=True)
    streams = ("orders", "positions", "balance")
    ages = Ages(orders=5.0, fills=15.0, flows=60.0, quotes=1.0, early_flows=1)
    has_separate_order_kinds = False
    rights_note = "Kraken Futures does not state the permissions of a key; check them on the website"
    tried = "a local server with its wire format"

    refusal_of = staticmethod(refused_on_stream)

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._wallet = str(spec.options.get("wallet", "flex"))
        self._busy_log = False
        """Whether the account log exceeded a short list at the last fetch."""
        self._sent: dict[str, int] = {}
        """Client order id → time when the order was sent first (UTC ms)."""

    @classmethod
    def codes_of(cls, answer: VenueAnswer) -> Iterable[str]:
        body = answer.fields
        error = body.get("error")
        rows = body.get("errors") or ()
        statuses = (body.get(name) or {} for name in ("sendStatus", "cancelStatus", "editStatus"))
        return present_codes(
            error,
            error.partition(":")[0] if isinstance(error, str) else None,
            *(it.get("message") for it in rows if isinstance(it, Mapping)),
            *(it.get("status") for it in statuses if isinstance(it, Mapping)),
        )

    def concerns(self, rule: Row) -> bool:
        return super().concerns(rule) and self._is_in_wallet(rule.get("id"))

    # Snapshot

    async def equity(self) -> AccountEquity:
        accounts = object_at(await self.client.call("privateGetAccounts"), "accounts")
        wallet, currency = self._wallet, self.spec.currency
        row = accounts.get(wallet)
        if not isinstance(row, Mapping):
            raise UnreadableError(f"the account has no wallet {wallet}; it has {', '.join(sorted(accounts))}")
        if row.get("type") != "multiCollateralMarginAccount":
            return single_collateral_equity(row, currency, self._code(str(row.get("currency"))), wallet)
        for name, other in accounts.items():
            if decimal(value_at(other, "auxiliary", "pv")):
                raise UnreadableError(
                    f"wallet {name} has equity in addition to the flex wallet; define it as an account of its own, "
                    f"with options: {{wallet: {name}}}, or move its balance"
                )
        held = {self._code(asset): it for asset, it in (row.get("currencies") or {}).items()}
        price = dollar_price(held.get(currency))

        free, used, maintained, profit = (
            optional_from_dollars(row.get(name), price, currency)
            for name in ("availableMargin", "initialMargin", "maintenanceMargin", "totalUnrealized")
        )
        dollars = required_number(row.get("portfolioValue"), "the flex wallet's portfolioValue")
        equity = from_dollars(dollars, price, currency)
        balances = flex_balances(held, price, currency)
        parts = None if profit is None else profit + value_of(balances)
        return AccountEquity(
            parts if parts is not None and abs(parts - equity) <= ROUNDED * abs(equity) else equity,
            free=free, margin_used=used, maintenance_margin=maintained, balances=balances, unrealized=profit,
            rates=rates_in_dollars(price, currency),
        )  # fmt: skip

    async def positions(self) -> tuple[Position, ...]:
        """The positions of the account's wallet: the venue lists those of all wallets together."""
        rows = await self.client.call("fetch_positions")
        own_rows = [row for row in rows if self._is_in_wallet((row.get("info") or {}).get("symbol"))]
        return positions.positions(own_rows, self.rules, self.refine_position)

    async def orders(self) -> tuple[Order, ...]:
        listed = rows_at(await self.client.call("privateGetOpenorders"), "openOrders")
        rows = self.client.ccxt.parse_orders(listed)
        own_rows = [row for row in rows if self._is_in_wallet((row.get("info") or {}).get("symbol"))]
        return orders.open_orders(map(self.refine_order, own_rows))

    def refine_order(self, row: Row) -> Row:
        info = row.get("info") or {}
        name = client_id_of(info)
        return {**row, "price": info.get("limitPrice"), "clientOrderId": name, "type": info.get("orderType")}

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        """Fills back to `since`, the newest first, in pages of a hundred. UnreadableError where that is too far
        back."""

        async def page(last: str | None) -> tuple[tuple[Fill, ...], str | None]:
            params = {} if last is None else {"lastFillTime": last}
            rows = rows_at(await self.client.call("privateGetFills", params), "fills")
            found, oldest = tuple(self._fills(rows)), min((str(row.get("fillTime")) for row in rows), default="")
            at = instant(self.client.ccxt.parse8601(oldest)) if oldest else None
            if len(rows) < FILL_ROWS or at is None or at.timestamp() * 1000 < since:
                return found, None
            return found, oldest

        found = {fill.id: fill for fill in await every_page(page, None, FILL_PAGES, "fills")}
        return tuple(fill for fill in found.values() if fill.at.timestamp() * 1000 >= since)

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        rows = rows_at(await self.client.call("privateGetFills"), "fills")
        return fills_of_order(unique(self._fills(rows), "fill "), order_id)

    def _fills(self, rows: Iterable[Row]) -> Iterator[Fill]:
        return (self._fill(row) for row in rows if self._is_in_wallet(row.get("symbol")))

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        """Flows from a short list while it suffices: it costs a third of a long one in the history pool."""
        for count in (LOG_ROWS,) if self._busy_log else (SHORT_LOG, LOG_ROWS):
            answer = await self.client.call("historyGetAccountLog", {"since": since, "count": count})
            rows = rows_at(answer, "logs")
            self._busy_log = len(rows) >= SHORT_LOG
            if len(rows) < count:
                break
        else:
            raise UnreadableError(f"more than {LOG_ROWS} entries of the account log since the last fetch")
        return tuple(flow for flow in map(self._flow, rows) if flow is not None)

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Quotes of the held symbols: the venue returns all, and parsing all of them would cost more than the
        request."""
        wanted = {str(self.client.ccxt.market(symbol)["id"]).upper(): symbol for symbol in symbols}
        answer = await self.client.call("publicGetTickers") if wanted else {"tickers": []}
        rows, at = rows_at(answer, "tickers"), instant(self.client.ccxt.parse8601(answer.get("serverTime")))
        found = {wanted.get(str(row.get("symbol")).upper()): row for row in rows}
        return {symbol: quote_of(row, TICKER, at) for symbol, row in found.items() if symbol is not None}

    async def states(self) -> States:
        rows = rows_at(await self.client.call("publicGetTickers"), "tickers")
        found: dict[str, InstrumentState] = {}
        for row in rows:
            symbol = self.client.ccxt.safe_symbol(row.get("symbol"))
            if flag(row.get("suspended")):
                found[symbol] = "halted"
            elif flag(row.get("postOnly")):
                found[symbol] = "post_only"
        return found

    # Orders

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        order = self._order(request, mode)
        self._remember(request)
        answer = await self.client.call("privatePostSendorder", order, places=True)
        return self._status_report(object_at(answer, "sendStatus"), request)

    async def submit_batch(self, requests: Sequence[OrderRequest], mode: PositionMode) -> BatchResults:
        tagged = {str(tag): request for tag, request in enumerate(requests)}
        rows = [{"order": "send", "order_tag": tag, **self._order(it, mode)} for tag, it in tagged.items()]
        self._remember(*requests)
        answer = await self.client.call("privatePostBatchorder", {"batchOrder": rows}, places=True)
        found = {str(row.get("order_tag")): row for row in rows_at(answer, "batchStatus")}
        sent = (orders.row_report(found.get(tag), it, self._status_report) for tag, it in tagged.items())
        return [await orders.outcome(it) for it in sent]

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """Find an order by its status, which open and just ended orders have (5 s), then by the history."""
        params = {"orderIds": [], "cliOrdIds": [client_order_id]}
        for row in rows_at(await self.client.call("privateGetOrdersStatus", params), "orders"):
            order = row.get("order") or {}
            if order.get("cliOrdId") == client_order_id:
                state = one_of(STATES, row.get("status"), f"state of order {client_order_id}")
                return found_order(order["orderId"], client_order_id, state, order)
        found = await self._in_history(client_order_id)
        if found is not None:
            return found
        answer = await self.client.call("privateGetFills")
        if any(client_id_of(it) == client_order_id for it in rows_at(answer, "fills")):
            raise VenueDownError(f"order {client_order_id} has fills, and the history has no such order yet")
        return None

    async def _in_history(self, name: str) -> Row | None:
        """The end of an order by the history of its events.

        None where the history reaches back to the time when this process sent the order, or else a week, and does not
        have it. VenueDownError where the history does not show the end, or is not long enough.
        """
        now = self.client.now_ms()
        since = self._sent[name] - BEFORE_SENT if name in self._sent else now - HISTORY
        too_long = VenueDownError(
            f"the history of the last {(now - since) / 86_400_000:.1f} days is too long to be read, so order {name} "
            "may be in it: look for it at the venue"
        )

        async def page(before: int | None) -> tuple[list[Row], int | None]:
            # The newest come first. A page begins with the last moment of the one before it, which may have been cut
            # there.
            params = {"since": since, "count": HISTORY_ROWS} | ({} if before is None else {"before": before})
            rows = rows_at(await self.client.call("historyGetOrders", params), "elements")
            events: list[Row] = [it for it in map(event_of, rows) if it is not None and it["clientOrderId"] == name]
            if any(it["status"] != "open" for it in events):
                return events, None
            times = (required_number(it.get("timestamp"), "the time of an event") for it in rows)
            oldest = min(times, default=Decimal(0))
            if len(rows) < HISTORY_ROWS or oldest < since:
                return events, None
            if int(oldest) + 1 >= (now + BEFORE_SENT if before is None else before):
                raise too_long
            return events, int(oldest) + 1

        try:
            events = await every_page(page, None, HISTORY_PAGES, "the history")
        except EndlessListError as error:
            raise too_long from error
        ended = next((it for it in events if it["status"] != "open"), None)
        if events and ended is None:
            raise VenueDownError(f"order {name} is not open, and the history does not show its end yet")
        return ended

    def _remember(self, *requests: OrderRequest) -> None:
        for request in requests:
            self._sent.setdefault(request.client_order_id, self.client.now_ms())
        forget_oldest(self._sent, REMEMBERED)

    def _is_in_wallet(self, contract: object) -> bool:
        return wallet_of(contract) == self._wallet

    def _order(self, request: OrderRequest, mode: PositionMode) -> dict[str, str]:
        ccxt = self.client.ccxt
        symbol, _, side, amount, price, _ = self.create_arguments(request, mode)
        order = {
            "symbol": str(ccxt.market(symbol)["id"]), "side": side, "cliOrdId": request.client_order_id,
            "size": str(ccxt.amount_to_precision(symbol, amount)),
            "orderType": "mkt" if request.type == "market" else "ioc" if request.time_in_force == "ioc" else "lmt",
        }  # fmt: skip
        if price is not None and request.type == "limit":
            order["limitPrice"] = str(ccxt.price_to_precision(symbol, price))
        if request.trigger_price is not None:
            order["orderType"] = "stp" if is_stop(request) else "take_profit"
            order["stopPrice"] = str(ccxt.price_to_precision(symbol, request.trigger_price))
            order["triggerSignal"] = "mark"
        return order | ({"reduceOnly": "true"} if request.reduce_only else {})

    def _status_report(self, row: Row, request: OrderRequest) -> OrderReport:
        """The report by `sendStatus`. A refused order has a status that is no order state."""
        status, events = str(row.get("status")), row.get("orderEvents") or ()
        is_taker = request.trigger_price is None and (request.type == "market" or request.time_in_force == "ioc")
        is_unfilled = status == "iocWouldNotExecute" and row.get("order_id")
        if status not in ("placed", "partiallyFilled", "filled") and not is_unfilled:
            raise row_error(self.refusal_codes(), (status,), f"{self.exchange}: {status}", order=row)
        executions = [it for it in events if it.get("type") == "EXECUTION"]
        if len({str(it.get("executionId")) for it in executions}) < len(executions):
            raise UnreadableError(f"the answer about {request.client_order_id} lists an execution twice")
        paid = [(above_zero(it.get("amount"), "the executed amount"), above_zero(it.get("price"), "its price"))
                for it in executions]  # fmt: skip
        filled = sum((amount for amount, _ in paid), Decimal(0))
        # A matched taker order has ended with the answer; one that was only placed may still be matched.
        has_ended = is_unfilled or (
            is_taker and any(it.get("type") in ("EXECUTION", "CANCEL", "REJECT") for it in events)
        )
        state = "closed" if filled >= request.amount else "expired" if has_ended else "open"
        value = sum((amount * price for amount, price in paid), Decimal(0))
        average = value / filled if filled else None
        report = {"id": row.get("order_id"), "status": state, "filled": filled, "average": average}
        return self.accepted_report(report, request)

    # Rows

    def _fill(self, row: Row) -> Fill:
        number, currency = identifier(row.get("fill_id"), "a fill"), row.get("fee_currency")
        return Fill(
            number, time_of(self.client.ccxt.parse8601(row.get("fillTime")), f"fill {number}"),
            self.client.ccxt.safe_symbol(row.get("symbol")),
            one_of(orders.ORDER_SIDES, row.get("side"), f"side of fill {number}"),
            above_zero(row.get("size"), f"the size of fill {number}"),
            at_least_zero(row.get("price"), f"the price of {number}"),
            order=optional_text(row.get("order_id")), fee=decimal(row.get("fee_paid")),
            fee_currency=None if currency is None else self._code(currency),
            cause=CAUSES.get(str(row.get("fillType")), "trade"), client_order_id=optional_text(client_id_of(row)),
        )  # fmt: skip

    def _flow(self, row: Row) -> Flow | None:
        number = optional_text(row.get("id"))
        kind = required_text(row.get("info"), f"account log {number}")
        if is_trade(kind):
            return None
        asset = required_text(row.get("asset"), f"account log {number}")
        if asset == row.get("contract"):
            return None
        if LOG.get(kind) == "funding":
            amount = row.get("realized_funding")
        else:
            before = required_number(row.get("old_balance"), f"old_balance of account log {number}")
            amount = required_number(row.get("new_balance"), f"new_balance of account log {number}") - before
        return ledger_flow(
            kind, LOG, f"account log {number}", number=number, at=self.client.ccxt.parse8601(row.get("date")),
            amount=amount, currency=self._code(asset),
        )  # fmt: skip

    def _code(self, asset: str) -> str:
        return str(self.client.ccxt.safe_currency_code(asset.upper()))
