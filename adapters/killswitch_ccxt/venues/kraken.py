"""Kraken: a spot account by its balances, or a margin account by its open positions.

Its private questions are so few in a second that balances are asked every few seconds only, and each time while
something of ours is under way; prices are public and asked each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, Final

from msgspec import structs

from killswitch.model.inspection import Capability, KeyRights
from killswitch.model.snapshot import Fill, Flow, InstrumentState, Market, Position, Side
from killswitch.model.venue import (
    AccountSpec,
    ClientIdRule,
    Cost,
    DeadManRule,
    OrderReport,
    OrderRequest,
    RateLimit,
    VenueTraits,
)
from killswitch_ccxt import orders
from killswitch_ccxt.client import Answer, Client
from killswitch_ccxt.dialect import Ages, Dialect, PositionMode, Row
from killswitch_ccxt.holdings import holdings
from killswitch_ccxt.numbers import NoSuchSymbolError, UnreadableError, decimal, needed
from killswitch_ccxt.venues.kraken_rows import (
    CODES,
    LEDGER,
    STATES,
    found_order,
    held_amounts,
    margin_rows,
    reduces,
    triggered,
    words_of,
)
from killswitch_ccxt.wealth import Wealth

TIERS: Final[Mapping[str, tuple[int, float, int, float, float]]] = {
    "starter": (15, 45.0, 60, 60.0, 10.0),
    "intermediate": (20, 40.0, 125, 53.0, 5.0),
    "pro": (20, 20.0, 180, 48.0, 2.0),
}
"""Verification of the account → questions and in how many seconds they are given back, points of the matching engine
for a pair likewise, and the seconds between two readings of the balances."""
BUSY: Final = 15.0
"""Seconds after something of ours in which balances are asked each time."""
PAGES: Final = 4
TENTH: Final = 10
"""Units of the counter are tenths of a question."""


class Kraken(Dialect):
    """`options: {tier: starter | intermediate | pro}`, starter where it is not said."""

    exchange = "kraken"
    markets: ClassVar[tuple[Market, ...]] = ("spot", "margin")
    environments = ("production",)
    codes = CODES
    costs = (
        Cost("snapshot", "counter", units=3), Cost("find_order", "counter", units=2 * TENTH),
        Cost("open_orders", "counter", units=TENTH), Cost("fills", "counter", units=4 * TENTH),
        Cost("dead_man", "counter", units=TENTH), Cost("submit", "matching", units=1),
        Cost("cancel", "matching", units=8),
    )  # fmt: skip
    client_ids = ClientIdRule("uuid", 36)
    dead_man = DeadManRule("account", shortest=1.0, longest=86_400.0, takes_stops=True, quiet_for_maintenance=True)
    streams = ("orders", "balance")
    ages = Ages(orders=20.0, fills=60.0, flows=60.0, quotes=None, states=10.0)
    kinds_apart = False
    tried = "answers from its documents"
    capabilities = (
        Capability("equity", "yes", "balances at last prices; of a margin account the venue's own equity"),
        Capability("positions", "yes", "balances of a spot account, open positions of a margin account"),
        Capability("orders", "yes"),
        Capability("trigger orders", "yes", "in the same list"),
        Capability("fills", "yes"),
        Capability("flows", "yes", "from the ledgers"),
        Capability("prices", "yes"),
        Capability("market orders", "yes"),
        Capability("limit orders", "yes"),
        Capability("reduce only", "partly", "margin only; a spot order cannot sell more than there is"),
        Capability("put back stops", "yes", "triggered by the last price"),
        Capability("batch orders", "no", "only orders of one pair go together"),
        Capability("close book", "no"),
        Capability("position mode", "yes", "one way always"),
        Capability("find by client id", "yes", "among open and closed orders; a name is unique among open ones only"),
        Capability("dead man", "yes", "all orders of the account; disarm before maintenance"),
        Capability("push", "yes", "orders and balances"),
        Capability("key rights", "no", "the venue does not tell"),
        Capability("clock", "yes"),
        Capability("bars", "yes", "the last 720 of a timeframe"),
        Capability("sandbox", "no", "Kraken has none for spot, and ccxt cannot make one"),
        Capability("demo", "no"),
    )

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._balances: tuple[float, object] = (float("-inf"), None)
        self._busy_until = float("-inf")
        self._leverage: dict[tuple[str, Side], Decimal | None] = {}

    @classmethod
    def traits_for(cls, spec: AccountSpec) -> VenueTraits:
        asked, within, points, back, _ = _tier(spec)
        limits = (
            RateLimit("counter", asked * TENTH, within),
            RateLimit("matching", points, back, by="symbol"),
        )
        return structs.replace(super().traits_for(spec), limits=limits)

    @classmethod
    def codes_of(cls, answer: Answer) -> Iterable[str]:
        body = answer.body
        return tuple(words_of(body.get("error"))) if isinstance(body, Mapping) else ()

    # Reading

    async def held(self) -> tuple[Wealth, tuple[Position, ...]]:
        if self.spec.market == "margin":
            return await self._margin()
        amounts = held_amounts(await self._kept("privatePostBalanceEx"))
        totals: dict[str, Decimal] = {}
        free: dict[str, Decimal] = {}
        for asset, (amount, blocked) in amounts.items():
            # What earns by itself (`.F`) is traded like what does not.
            code = self.client.ccxt.safe_currency_code(asset.removesuffix(".F"))
            totals[code] = totals.get(code, Decimal(0)) + amount
            free[code] = free.get(code, Decimal(0)) + amount - (blocked or Decimal(0))
        balance = {"total": totals} | {code: {"total": totals[code], "free": free[code]} for code in totals}
        return await holdings(balance, self.spec, self.rules, self.last_prices)

    async def states(self) -> Mapping[str, InstrumentState]:
        of_all = STATES.get(await self._status() or "")
        found: dict[str, InstrumentState] = {}
        for symbol, rule in self.rules.items():
            state = of_all or STATES.get(str((rule.get("info") or {}).get("status")))
            if state is not None and self.concerns(rule):
                found[symbol] = state
        return found

    async def status(self) -> str | None:
        told = await self._status()
        return "ok" if told == "online" else told

    def refine_order(self, row: Row) -> Row:
        info = row.get("info") or {}
        name = info.get("cl_ord_id")
        return {**row, **triggered(info), "clientOrderId": name, "reduceOnly": reduces(info)}

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        rows = await self._listed("privatePostTradesHistory", "trades", {"start": since // 1000})
        return tuple(self._fill(number, row) for number, row in rows.items())

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        answer = await self.client.call("privatePostQueryOrders", {"txid": order_id, "trades": "true"})
        numbers = (_result(answer).get(order_id) or {}).get("trades") or ()
        if not numbers:
            return ()
        answer = await self.client.call("privatePostQueryTrades", {"txid": ",".join(map(str, numbers))})
        return tuple(self._fill(number, row) for number, row in _result(answer).items())

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        rows = await self._listed("privatePostLedgers", "ledger", {"start": since // 1000})
        return tuple(flow for flow in (self._flow(number, row) for number, row in rows.items()) if flow is not None)

    async def rights(self) -> KeyRights:
        return KeyRights(note="Kraken does not tell what a key may do; look at the key on its page")

    # Acting

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        """Send one order. The answer says that it was taken, and nothing of what became of it."""
        order = self._order(request, mode)
        self._under_way()
        result = _result(await self.client.call("privatePostAddOrder", order, changes=True))
        numbers = result.get("txid") or ()
        said = {"id": numbers[0] if numbers else None, "clientOrderId": request.client_order_id}
        return orders.report({**said, "amount": request.amount}, request.symbol)

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """First among open orders, then among closed ones: an order that ends in between is in the second."""
        self._under_way()
        for method, part in (("privatePostOpenOrders", "open"), ("privatePostClosedOrders", "closed")):
            answer = await self.client.call(method, {"cl_ord_id": client_order_id})
            rows = _result(answer).get(part)
            if not isinstance(rows, Mapping):
                raise UnreadableError(f"the answer has no {part} orders")
            for number, row in rows.items():
                if row.get("cl_ord_id") == client_order_id:
                    return found_order(number, row, client_order_id)
        return None

    def _order(self, request: OrderRequest, mode: PositionMode) -> dict[str, str]:
        ccxt = self.client.ccxt
        symbol, _, side, amount, _, _ = self.create_arguments(request, mode)
        limited = request.type == "limit"
        order = {
            "pair": str(ccxt.market(symbol)["id"]), "type": side, "ordertype": request.type,
            "volume": str(ccxt.amount_to_precision(symbol, amount)), "cl_ord_id": request.client_order_id,
        }  # fmt: skip
        price = str(ccxt.price_to_precision(symbol, request.price)) if limited else None
        if request.trigger_price is not None:
            protects = (side == "sell") is (request.trigger_when == "falls")
            order["ordertype"] = ("stop-loss" if protects else "take-profit") + ("-limit" if limited else "")
            order["price"] = str(ccxt.price_to_precision(symbol, request.trigger_price))
            order |= {} if price is None else {"price2": price}
        else:
            order |= {} if price is None else {"price": price}
        if request.time_in_force == "ioc" and request.trigger_price is None:
            order["timeinforce"] = "IOC"
        if self.spec.market == "margin":
            kept = self._leverage.get((symbol, request.position_side))
            order["leverage"] = str(max(2, int(kept))) if kept is not None else "2"
            order |= {"reduce_only": "true"} if request.reduce_only else {}
        return order

    # Parts

    async def _margin(self) -> tuple[Wealth, tuple[Position, ...]]:
        result, rows = await asyncio.gather(
            self._asked("privatePostTradeBalance", {"asset": self.client.ccxt.currency(self.spec.currency)["id"]}),
            self._asked("privatePostOpenPositions", {"docalcs": "true"}),
        )
        found = tuple(self._position(pair, kind, row) for (pair, kind), row in margin_rows(rows).items())
        wealth = Wealth(
            needed(result.get("e"), "the equity"), free=decimal(result.get("mf")), margin_used=decimal(result.get("m")),
        )  # fmt: skip
        told = await self.quotes(sorted({it.symbol for it in found}))
        priced = tuple(
            structs.replace(
                it, mark_price=told[it.symbol].last, last_price=told[it.symbol].last, bid=told[it.symbol].bid,
                ask=told[it.symbol].ask,
                notional=None if told[it.symbol].last is None else it.contracts * told[it.symbol].last,  # type: ignore[operator] # not None
            )
            if it.symbol in told
            else it
            for it in found
        )  # fmt: skip
        return wealth, priced

    def _position(self, pair: str, kind: str, row: Mapping[str, Decimal | None]) -> Position:
        symbol = self._symbol(pair)
        if symbol not in self.rules:
            raise NoSuchSymbolError(f"position {pair}: the venue's rules have no such pair")
        side: Side = "long" if kind == "buy" else "short"
        volume, cost = needed(row["volume"], "the volume"), row["cost"]
        self._leverage[symbol, side] = row["leverage"]
        return Position(
            symbol, side, volume, entry_price=None if cost is None else cost / volume, margin=row["margin"],
            leverage=row["leverage"], unrealized_pnl=row["net"],
        )  # fmt: skip

    async def _kept(self, method: str) -> object:
        """The answer, or the last one while nothing of ours is under way."""
        now = asyncio.get_running_loop().time()
        at, kept = self._balances
        if now < self._busy_until or now - at >= _tier(self.spec)[4] or now < at:
            kept = _result(await self.client.call(method))
            self._balances = (now, kept)
        return kept

    async def _asked(self, method: str, asked: Mapping[str, str]) -> Any:
        answer = await self.client.call(method, asked)
        result = answer.get("result") if isinstance(answer, Mapping) else None
        if result is None:
            raise UnreadableError(f"{method}: the answer has no result")
        return result

    async def _listed(self, method: str, part: str, asked: Mapping[str, int]) -> dict[str, Row]:
        """Rows by id, in pages of fifty. UnreadableError where they do not come to an end."""
        found: dict[str, Row] = {}
        for _ in range(PAGES):
            result = _result(await self.client.call(method, {**asked, "ofs": len(found)}))
            rows = result.get(part)
            if not isinstance(rows, Mapping):
                raise UnreadableError(f"the answer has no {part}")
            found |= rows
            if not rows or len(found) >= int(result.get("count") or 0):
                return found
        raise UnreadableError(f"{method}: more than {len(found)} rows since the last reading")

    def _fill(self, number: str, row: Row) -> Fill:
        symbol, side = self._symbol(str(row.get("pair"))), row.get("type")
        if side not in ("buy", "sell"):
            raise UnreadableError(f"fill {number}: it has no side")
        quote = (self.rules.get(symbol) or {}).get("quote")
        return Fill(
            number, _at(row, number), symbol, side, needed(row.get("vol"), f"the volume of fill {number}"),
            needed(row.get("price"), f"the price of fill {number}"), order=row.get("ordertxid"),
            fee=decimal(row.get("fee")), fee_currency=quote,
        )  # fmt: skip

    def _flow(self, number: str, row: Row) -> Flow | None:
        kind = LEDGER.get(str(row.get("type")))
        if kind is None or (row.get("type") == "staking" and row.get("subtype") == "allocation"):
            return None
        amount = needed(row.get("amount"), f"the amount of ledger entry {number}") - (decimal(row.get("fee")) or 0)
        currency = self.client.ccxt.safe_currency_code(str(row.get("asset")).removesuffix(".F"))
        return Flow(number, _at(row, number), kind, amount, currency) if amount else None

    async def _status(self) -> str | None:
        told = _result(await self.client.call("publicGetSystemStatus")).get("status")
        return None if told is None else str(told)

    def _symbol(self, pair: str) -> str:
        found = self.client.ccxt.resolve_market_by_altname_or_id(pair)
        return str(found["symbol"]) if found is not None else pair

    def _under_way(self) -> None:
        self._busy_until = asyncio.get_running_loop().time() + BUSY


def _tier(spec: AccountSpec) -> tuple[int, float, int, float, float]:
    """ValueError for a tier that Kraken does not have."""
    tier = str(spec.options.get("tier", "starter"))
    if tier not in TIERS:
        raise ValueError(f"options: tier of a Kraken account is one of {', '.join(TIERS)}, not {tier}")
    return TIERS[tier]


def _result(answer: Any) -> Mapping[str, Any]:
    result = answer.get("result") if isinstance(answer, Mapping) else None
    if not isinstance(result, Mapping):
        raise UnreadableError("the answer has no result")
    return result


def _at(row: Row, number: str) -> datetime:
    try:
        return datetime.fromtimestamp(float(needed(row.get("time"), f"the time of {number}")), UTC)
    except (OverflowError, OSError, ValueError):
        raise UnreadableError(f"row {number}: {row.get('time')!r} is no time") from None


DIALECTS: Final[Mapping[str, type[Dialect]]] = {"kraken": Kraken}
