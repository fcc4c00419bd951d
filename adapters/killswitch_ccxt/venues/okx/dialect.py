"""OKX, API v5 (https://www.okx.com/docs-v5/en/): one trading account, its futures, perpetuals and spot."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final

from msgspec.structs import replace

from killswitch.model.inspection import Capability, KeyRights
from killswitch.model.parsing import (
    EndlessListError,
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
from killswitch.model.snapshot import Fill, Flow, InstrumentState, Order, Position, Side
from killswitch.model.venue import AccountSpec, ConditionalOrderRule, Cost, DeadManRule, OrderLife, RateLimit
from killswitch_ccxt import fills, orders, positions
from killswitch_ccxt.answers import answered, parsed
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import PositionMode
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.errors import Meaning
from killswitch_ccxt.instruments import Quote, States, marks_of, quote_of, quotes, with_maximum
from killswitch_ccxt.traits import Ages
from killswitch_ccxt.venues.okx import rows as okx_rows
from killswitch_ccxt.venues.okx.codes import CAPABILITIES, CODES, COSTS, LIMITS, codes_in
from killswitch_ccxt.venues.okx.orders import OkxOrderDialect
from killswitch_ccxt.withdrawals import CoinList

PAGE: Final = 100
"""Most rows of one answer."""
PAGES: Final = 50
"""Most pages of one list: 5,000 rows."""
MOST_PRICE_LIMITS: Final = 10
"""Most symbols of a watch list whose price limits are read: OKX answers 20 such requests of an address in 2 s."""
ALGO_KINDS: Final = ("conditional,oco", "trigger", "move_order_stop", "iceberg", "twap")
"""`ordType` of each request for algo orders; only the first two kinds are allowed together."""
STATES: Final[Mapping[str, InstrumentState]] = {
    "live": "open", "suspend": "halted", "preopen": "halted", "test": "halted", "rebase": "halted",
    "post_only": "post_only", "settling": "halted", "expired": "delisted",
}  # fmt: skip
"""`state` of an instrument → the state; any other value is unknown."""


class Okx(OkxOrderDialect):
    """One trading account. docs/venues/okx.md describes its peculiarities."""

    exchange = "okx"
    keeps_rules = True
    more_options = ("margin_mode",)
    codes: ClassVar[Mapping[str, Meaning]] = CODES
    code_form = re.compile(r"[1-9]\d{3,4}")
    limits: ClassVar[tuple[RateLimit, ...]] = LIMITS
    adl_ranks = 5
    costs: ClassVar[tuple[Cost, ...]] = COSTS
    batch = 20
    dead_man = DeadManRule("account", shortest=10, longest=120, takes_stops=None)
    conditional_orders = ConditionalOrderRule(("mark", "index", "last"))
    order_life = OrderLife(longest=30.0, always=30.0, names="open")
    streams = ("orders", "positions", "balance")
    coin_list = CoinList("private_get_asset_currencies", ("data",), "ccy", None, "canWd", ("true",), ("false",))
    ages = Ages(orders=5.0, fills=15.0, flows=20.0, quotes=10.0, states=300.0)
    capabilities: ClassVar[tuple[Capability, ...]] = CAPABILITIES
    has_hedge_mode = True
    tried = "a local server with its wire format, through ccxt's client"

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._dollars: Decimal | None = None
        """The price of the account's currency in USD."""

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        kinds = ["spot"] if spec.market == "spot" else ["swap", "future"]
        return {"defaultType": spec.market, "fetchMarkets": {"types": kinds}, "createOrder": "privatePostTradeOrder"}

    codes_of = staticmethod(codes_in)

    def corrected_rule(self, rule: Row) -> Row:
        """The rule with the maximum of a market order, which is far below that of a limit order, as the maximum of
        any."""
        if not rule.get("contract"):
            return rule
        return with_maximum(rule, value_at(rule, "info", "maxMktSz"), value_at(rule, "limits", "amount", "max"))

    # Snapshot

    async def account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        """Equity and positions by two concurrent requests. `account-position-risk` is of one moment, but has neither
        wallets nor marks."""
        if self.spec.market == "spot":
            return await self.spot_account()
        equity, rows = await asyncio.gather(self.equity(), self.client.call("fetch_positions"))
        self._check_positions(rows)
        found = positions.check_contracts(positions.positions(rows, self.rules, self.refine_position), self.rules)
        self.held_contracts = {position.key: position.contracts for position in found}
        return equity, found

    async def equity(self) -> AccountEquity:
        account = okx_rows.only_row(await self.client.call("private_get_account_balance"), "the balance")
        currency = self.spec.currency
        price = okx_rows.dollar_price(account, currency)
        if price is None and any(decimal(it.get("eq")) for it in account.get("details") or ()):
            index = await self.client.call("public_get_market_index_tickers", {"instId": f"{currency}-USD"})
            price = positive(okx_rows.only_row(index, "the index").get("idxPx"))
        self._dollars = price
        return okx_rows.account_equity(account, currency, price, self.client.answer_time(account.get("uTime")))

    def _check_positions(self, rows: Sequence[Row]) -> None:
        """UnreadableError for positions that cannot be closed as they are."""
        modes: dict[tuple[str, Side], str] = {}
        for row in rows:
            info = row.get("info") or {}
            size, name = decimal(info.get("pos")), info.get("instId")
            if not size:
                continue
            if info.get("instType") in ("OPTION", "MARGIN"):
                kind = "an option" if info["instType"] == "OPTION" else "a spot margin position"
                raise UnreadableError(f"{name} is {kind}, which is not supported: move it to another sub-account")
            if info.get("posSide") == "long" and size < 0:
                raise UnreadableError(f"position {name}: {size} contracts on the long side")
            side: Side = "short" if row.get("side") == "short" else "long"
            key = (str(row.get("symbol")), side)
            if key in modes:
                raise UnreadableError(f"{name} has a cross and an isolated position: close one of the two manually")
            modes[key] = str(info.get("mgnMode"))
        self.margin_modes = modes

    def refine_position(self, position: Position, info: Row) -> Position:
        """The position without amounts that are not in the account's currency; ccxt's notional is in US dollars."""
        rule = self.rules[position.symbol]
        is_own_currency = info.get("ccy") in (self.spec.currency, None, "")
        rank = decimal(info.get("adl"))
        if rule.get("settle") == self.spec.currency:
            notional = positions.position_value(position, rule)
        else:
            dollars = positive(info.get("notionalUsd"))
            notional = dollars / self._dollars if dollars and self._dollars else None
        return replace(
            position,
            notional=notional,
            index_price=positive(info.get("idxPx")),
            last_price=positive(info.get("last")),
            adl_rank=None if rank is None else int(rank),
            margin=(positive(info.get("margin")) or positive(info.get("imr"))) if is_own_currency else None,
            unrealized_pnl=decimal(info.get("upl")) if is_own_currency else None,
        )

    async def orders(self) -> tuple[Order, ...]:
        plain, *algos = await asyncio.gather(
            self._paged("private_get_trade_orders_pending", {}, "ordId"),
            *(self._paged("private_get_trade_orders_algo_pending", {"ordType": it}, "algoId") for it in ALGO_KINDS),
        )
        parse = self.client.ccxt.parse_orders
        algo_rows = [row for rows in algos for row in rows]
        found = [okx_rows.plain_order(row, row["info"]) for row in parsed(parse, plain)]
        conditional = [okx_rows.algo_order(row, row["info"], self.held_contracts) for row in parsed(parse, algo_rows)]
        self.resting = {str(it["id"]): (False, str(it["info"]["instId"])) for it in found}
        self.resting |= {str(it["id"]): (True, str(it["info"]["instId"])) for it in conditional}
        return orders.open_orders([*found, *conditional])

    async def _paged(self, method: str, params: Mapping[str, Any], by: str, most: int = PAGES) -> list[Row]:
        """Every row of a list in at most that many pages, the newest first."""

        async def page(after: str | None) -> tuple[list[Row], str | None]:
            more = {} if after is None else {"after": after}
            rows = rows_at(await self.client.call(method, {**params, **more}), "data", what=f"the answer to {method}")
            return rows, None if len(rows) < PAGE else rows[-1][by]

        return await every_page(page, None, most, method)

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        return self._as_fills(await self._paged("private_get_trade_fills", {"begin": since}, "billId"))

    def _as_fills(self, rows: Sequence[Row]) -> tuple[Fill, ...]:
        trades = parsed(self.client.ccxt.parse_trades, rows)
        # Trades are numbered by instrument; bills are not.
        with_ids = ({**row, "id": row["info"].get("billId")} for row in trades)
        return fills.fills(with_ids, self.refine_fill)

    def refine_fill(self, fill: Fill, info: Row) -> Fill:
        fee = decimal(info.get("fee"))
        rule = self.rules.get(fill.symbol) or {}
        settled = rule.get("settle") or rule.get("quote")
        return replace(
            fill,
            at=instant(info.get("ts")) or fill.at,
            fee=None if fee is None else -fee,
            fee_currency=optional_text(info.get("feeCcy")),
            client_order_id=optional_text(info.get("clOrdId")),
            cause=okx_rows.cause_of(info),
            position_side=orders.SIDES.get(str(info.get("posSide"))),  # no side in net mode
            realized_pnl=decimal(info.get("fillPnl")) if settled == self.spec.currency else None,
        )

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        params = {"instId": self.id_of(symbol), "ordId": order_id}
        found = self._as_fills(await self._paged("private_get_trade_fills", params, "billId"))
        return fills.fills_of_order(found, order_id)

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        """All bills by one request; for an account with many trades, the bills of each kind of flow."""
        method, params = "private_get_account_bills", {"begin": since}
        try:
            bills = await self._paged(method, params, "billId", okx_rows.MOST_BILL_PAGES)
        except EndlessListError as error:
            bills = [*error.rows]
            for kind in okx_rows.FLOW_TYPES:
                await asyncio.sleep(okx_rows.BILL_REQUEST_INTERVAL)
                bills += await self._paged(method, {"type": kind, **params}, "billId")
        return okx_rows.flows({row.get("billId"): row for row in bills}.values())

    async def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Quotes by one request for each kind of contract: ccxt requests that of the first symbol only."""
        kinds: dict[str, list[str]] = {}
        for symbol in symbols:
            kinds.setdefault(str(self.rules[symbol].get("type")), []).append(symbol)
        answers = await asyncio.gather(*(self.client.call("fetch_tickers", each) for each in kinds.values()))
        return {symbol: quote for answer in answers for symbol, quote in quotes(answer).items()}

    async def prices(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Mark, index and last price by concurrent requests: one for each kind of contract, and each currency of an
        index."""
        quoted = sorted({okx_rows.index_of(self.rules[symbol]).rpartition("-")[2] for symbol in symbols})
        kinds = self._kinds_of(symbols)
        return await self._prices(
            symbols,
            *(("public_get_public_mark_price", {"instType": kind}) for kind in kinds if kind != "SPOT"),
            *(("public_get_market_tickers", {"instType": kind}) for kind in kinds),
            *(("public_get_market_index_tickers", {"quoteCcy": currency}) for currency in quoted),
        )

    async def watched(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """The prices, and the price limits of the first few of the watch list: OKX has a request for each symbol."""
        names = {self.rules[it]["id"]: it for it in self.spec.watch[:MOST_PRICE_LIMITS] if it in symbols}
        limits = [self.client.call("public_get_public_price_limit", {"instId": name}) for name in names]
        found, answers = await asyncio.gather(self.prices(symbols), answered(limits))
        rows = {str(row.get("instId")): row for answer in answers for row in rows_at(answer, "data")}
        bounds = {symbol: okx_rows.price_limits(rows[name]) for name, symbol in names.items() if name in rows}
        return {symbol: replace(quote, **bounds.get(symbol, {})) for symbol, quote in found.items()}

    async def asset_prices(self, assets: Sequence[str]) -> Mapping[str, Quote]:
        """Index and last price of the market against the account's currency; OKX's own valuation has no request."""
        names = {f"{asset}-{self.spec.currency}": asset for asset in assets}
        requests = [
            self.client.call(method, {"instId": name})
            for name in names
            for method in ("public_get_market_index_tickers", "public_get_market_ticker")
        ]
        rows = [row for it in await answered(requests) for row in rows_at(it, "data")]
        found = {asset: [row for row in rows if row.get("instId") == name] for name, asset in names.items()}
        return {asset: quote_of({**its[0], **its[-1]}, "- - last idxPx -", None) for asset, its in found.items() if its}

    async def marks(self, symbols: Sequence[str]) -> Mapping[str, Decimal]:
        if self.spec.market == "spot":
            return await super().marks(symbols)
        calls = (("public_get_public_mark_price", {"instType": kind}) for kind in self._kinds_of(symbols))
        return marks_of(await self._prices(symbols, *calls))

    def _kinds_of(self, symbols: Sequence[str]) -> list[str]:
        return sorted({okx_rows.kind_of(self.rules[symbol]) for symbol in symbols})

    async def _prices(self, symbols: Sequence[str], *calls: tuple[str, Row]) -> dict[str, Quote]:
        """Prices by several concurrent requests, each a method and its params."""
        answers = await self.call_all(*calls)
        rows = [row for answer in answers for row in rows_at(answer, "data", what="the answer about prices")]
        return okx_rows.prices({symbol: self.rules[symbol] for symbol in symbols}, rows)

    async def states(self) -> States:
        kinds = ("SPOT",) if self.spec.market == "spot" else ("SWAP", "FUTURES")
        answers = await self.call_all(*(("public_get_public_instruments", {"instType": kind}) for kind in kinds))
        rows = [row for answer in answers for row in rows_at(answer, "data", what="the answer about instruments")]
        listed = {row.get("instId"): row.get("state") for row in rows}
        names = {symbol: rule["id"] for symbol, rule in self.rules.items()}
        return {symbol: STATES.get(str(listed[it])) if it in listed else "delisted" for symbol, it in names.items()}

    async def position_mode(self) -> PositionMode | None:
        mode = okx_rows.only_row(await self.client.call("private_get_account_config"), "the account").get("posMode")
        if self.spec.market == "spot":
            return "one_way"
        return "hedge" if mode == "long_short_mode" else "one_way" if mode == "net_mode" else None

    # Inspection

    async def rights(self) -> KeyRights:
        config = okx_rows.only_row(await self.client.call("private_get_account_config"), "the account")
        if "perm" not in config:
            return KeyRights(note="the venue does not state the permissions of the key")
        permissions = {word.strip() for word in str(config["perm"]).split(",")}
        is_bound = bool(config.get("ip"))
        expires = not is_bound and bool(permissions & {"trade", "withdraw"})
        return KeyRights(
            read="read_only" in permissions,
            trade="trade" in permissions,
            withdraw="withdraw" in permissions,
            transfer="trade" in permissions,
            bound_to_addresses=is_bound,
            note="bound to no address: OKX deletes such a key after 14 days without use" if expires else "",
        )
