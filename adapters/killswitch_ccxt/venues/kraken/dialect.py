"""Kraken: a spot account by its balances, or a margin account by its open positions.

Few private requests a second are allowed, so balances are fetched every few seconds only, and more often while own
orders are in progress; prices are public and fetched every time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    above_zero,
    decimal,
    object_at,
    one_of,
    optional_number,
    optional_text,
    required_number,
    required_text,
    time_of,
)
from killswitch.model.snapshot import Fill, Flow, Position, Side
from killswitch.model.venue import (
    AccountSpec,
    ClientIdRule,
    Cost,
    DeadManRule,
    OrderLife,
    RateLimit,
    VenueDescription,
)
from killswitch_ccxt import orders
from killswitch_ccxt.answers import NoSuchSymbolError
from killswitch_ccxt.dialect import CcxtTimer
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.errors import VenueAnswer
from killswitch_ccxt.instruments import Quote, States
from killswitch_ccxt.traits import Ages, call_costs, capability_table
from killswitch_ccxt.venues.kraken.orders import KrakenOrders
from killswitch_ccxt.venues.kraken.requests import tier_of
from killswitch_ccxt.venues.kraken.rows import (
    CODES,
    LEDGER,
    STATES,
    held_amounts,
    margin_rows,
    refusal_codes,
)
from killswitch_ccxt.withdrawals import CoinList

UNITS_PER_REQUEST: Final = 10
"""Units of the counter for one private request: a snapshot costs a fraction of one."""


class Kraken(CcxtTimer, KrakenOrders):
    """One account at Kraken. `options: {tier: starter | intermediate | pro}`, by default starter."""

    exchange = "kraken"
    more_options = ("tier",)
    codes = CODES
    code_form = re.compile(r"E[A-Z][A-Za-z]+:.+")
    costs = (
        *call_costs(
            "counter",
            find_order=2 * UNITS_PER_REQUEST,
            open_orders=UNITS_PER_REQUEST,
            fills=4 * UNITS_PER_REQUEST,
            dead_man=UNITS_PER_REQUEST,
        ),
        *call_costs("matching", submit=1, cancel=8),
    )
    client_ids = ClientIdRule("uuid", 36)
    # The engine refuses an order for good whose deadline is less than two seconds ahead.
    order_life = OrderLife(shortest=5.0, longest=60.0, names="open")
    dead_man = DeadManRule("account", shortest=1.0, longest=86_400.0, takes_stops=True, quiet_for_maintenance=True)
    streams = ("orders", "balance")
    # Each list costs two units of the counter, which allows few of them.
    ages = Ages(
        orders=20.0, fills=60.0, flows=60.0, quotes=None, states=10.0, orders_least=5.0, rows_least=15.0,
        early_flows=1, early_fills=1,
    )  # fmt: skip
    coin_list = CoinList(
        "publicGetAssets", ("result",), None, None, "status",
        ("enabled", "withdrawal_only"), ("deposit_only", "funding_temporarily_disabled"),
    )  # fmt: skip
    has_separate_order_kinds = False
    rights_note = "Kraken does not state the permissions of a key; check them on the website"
    tried = "answers from its documents"
    capabilities = capability_table(
        {
            "equity": "yes, balances at last prices; of a margin account the venue's own equity",
            "positions": "yes, balances of a spot account, open positions of a margin account",
            "trigger orders": "yes, in the same list",
            "flows": "yes, from the ledgers",
            "reduce only": "partly, margin only; a spot order cannot sell more than there is",
            "put back stops": "yes, triggered by the last price",
            "batch orders": "no, only orders of one pair go together",
            "close book": "no",
            "position mode": "yes, always one-way",
            "find by client id": "yes, among open and closed orders; a name is unique among open ones only",
            "dead man": "yes, all orders of the account; disarm before maintenance",
            "push": "yes, orders and balances",
            "key rights": "no, the venue does not state it",
            "bars": "yes, the last 720 of a timeframe",
            "sandbox": "no, Kraken has none for spot",
            "demo": "no",
        },
        "orders", "fills", "prices", "market orders", "limit orders", "clock",
    )  # fmt: skip

    @classmethod
    def traits_for(cls, spec: AccountSpec) -> VenueDescription:
        tier = tier_of(spec)
        limits = (
            RateLimit("counter", tier.requests * UNITS_PER_REQUEST, tier.recovery),
            RateLimit("matching", tier.points, tier.points_recovery, by="symbol"),
        )
        costs = (Cost("snapshot", "counter", units=tier.snapshot), *cls.costs)
        return replace(super().traits_for(spec), limits=limits, costs=costs)

    @classmethod
    def codes_of(cls, answer: VenueAnswer) -> Iterable[str]:
        return tuple(refusal_codes(answer.fields.get("error")))

    def corrected_rule(self, rule: Row) -> Row:
        """The rule without a step of a negative number of decimals, which no pair has."""
        info, precision = rule.get("info") or {}, dict(rule.get("precision") or {})
        for name, field in (("amount", "lot_decimals"), ("price", "pair_decimals")):
            if (optional_number(info.get(field)) or 0) < 0:
                precision[name] = None
        return {**rule, "precision": precision}

    def _symbol(self, pair: str) -> str:
        found = self.client.ccxt.resolve_market_by_altname_or_id(pair)
        return str(found["symbol"]) if found is not None else pair

    # Snapshot

    async def spot_account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        if self.spec.market == "margin":
            return await self._margin_account()
        equity, found = await self.value_spot_account(self._spot_balance())
        return replace(equity, as_of=self.cached_as_of, positions_as_of=self.cached_as_of), found

    async def _spot_balance(self) -> Row:
        """The balances, under ccxt's names."""
        (result,) = await self.cached_answers(self.tier.spot, ("privatePostBalanceEx", {}))
        amounts = held_amounts(result)
        totals: dict[str, Decimal] = {}
        free: dict[str, Decimal] = {}
        for asset, (amount, blocked) in amounts.items():
            # Assets that earn rewards (`.F`) are traded like others.
            code = self.client.ccxt.safe_currency_code(asset.removesuffix(".F"))
            totals[code] = totals.get(code, Decimal(0)) + amount
            free[code] = free.get(code, Decimal(0)) + amount - (blocked or Decimal(0))
        return {"total": totals} | {code: {"total": totals[code], "free": free[code]} for code in totals}

    async def states(self) -> States:
        venue_state = STATES.get(await self._status() or "")
        infos = {symbol: rule.get("info") or {} for symbol, rule in self.rules.items() if self.concerns(rule)}
        # A status that is not known here is an unknown state.
        return {
            symbol: venue_state or STATES.get(str(info.get("status")))
            for symbol, info in infos.items()
            if venue_state is not None or info.get("status") != "online"
        }

    async def status(self) -> str | None:
        status = await self._status()
        return "ok" if status == "online" else status

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        rows = await self.all_rows("privatePostTradesHistory", "trades", {"start": since // 1000})
        return tuple(self._fill(number, row) for number, row in rows.items())

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        answer = await self.counted_call("privatePostQueryOrders", {"txid": order_id, "trades": "true"})
        row = object_at(answer, "result", order_id, what=f"the answer about order {order_id}")
        numbers = row.get("trades") or []
        if not isinstance(numbers, list) or (not numbers and required_number(row.get("vol_exec"), "the filled volume")):
            raise UnreadableError(f"order {order_id} is filled, and its trades are not listed")
        if not numbers:
            return ()
        answer = await self.counted_call("privatePostQueryTrades", {"txid": ",".join(map(str, numbers))})
        rows = object_at(answer, "result")
        if not rows.keys() >= set(map(str, numbers)):
            raise UnreadableError(f"the answer lacks trades of order {order_id}")
        return tuple(self._fill(number, row) for number, row in rows.items())

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        rows = await self.all_rows("privatePostLedgers", "ledger", {"start": since // 1000})
        return tuple(flow for flow in (self._flow(number, row) for number, row in rows.items()) if flow is not None)

    async def _margin_account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        result, rows = await self.cached_answers(
            self.tier.margin,
            ("privatePostTradeBalance", {"asset": self.client.ccxt.currency(self.spec.currency)["id"]}),
            ("privatePostOpenPositions", {"docalcs": "true"}),
        )
        result = object_at(result, what="the answer about the equity")
        found = tuple(self._position(pair, kind, row) for (pair, kind), row in margin_rows(rows).items())
        # Only the sum of the collateral is stated, which its prices change: it is no wallet.
        equity = AccountEquity(
            required_number(result.get("e"), "the equity"), free=decimal(result.get("mf")),
            margin_used=decimal(result.get("m")),
            unrealized=decimal(result.get("n")), as_of=self.cached_as_of, positions_as_of=self.cached_as_of,
        )  # fmt: skip
        quotes = await self.quotes(sorted({it.symbol for it in found}))
        return equity, tuple(_priced(it, quotes[it.symbol]) if it.symbol in quotes else it for it in found)

    def _position(self, pair: str, kind: str, row: Mapping[str, Decimal | None]) -> Position:
        symbol = self._symbol(pair)
        if symbol not in self.rules:
            raise NoSuchSymbolError(f"position {pair}: the venue's rules have no such pair")
        side: Side = "long" if kind == "buy" else "short"
        volume, cost = required_number(row["volume"], "the volume"), row["cost"]
        self.leverage[symbol, side] = row["leverage"]
        return Position(
            symbol, side, volume, entry_price=None if cost is None else cost / volume, margin=row["margin"],
            leverage=row["leverage"], unrealized_pnl=row["net"],
        )  # fmt: skip

    def _fill(self, number: str, row: Row) -> Fill:
        symbol = self._symbol(required_text(row.get("pair"), f"the pair of fill {number}"))
        side = one_of(orders.ORDER_SIDES, row.get("type"), f"side of fill {number}")
        quote = (self.rules.get(symbol) or {}).get("quote")
        return Fill(
            number, _at(row, number), symbol, side, above_zero(row.get("vol"), f"the volume of fill {number}"),
            above_zero(row.get("price"), f"the price of fill {number}"), order=optional_text(row.get("ordertxid")),
            fee=decimal(row.get("fee")), fee_currency=quote,
        )  # fmt: skip

    def _flow(self, number: str, row: Row) -> Flow | None:
        kind = LEDGER.get(required_text(row.get("type"), f"the type of ledger entry {number}"))
        if kind is None or (row.get("type") == "staking" and row.get("subtype") == "allocation"):
            return None
        amount = required_number(row.get("amount"), f"the amount of ledger entry {number}")
        amount -= decimal(row.get("fee")) or 0
        currency = self.client.ccxt.safe_currency_code(
            required_text(row.get("asset"), f"the asset of ledger entry {number}").removesuffix(".F")
        )
        return Flow(number, _at(row, number), kind, amount, currency) if amount else None

    async def _status(self) -> str | None:
        status = object_at(await self.client.call("publicGetSystemStatus"), "result").get("status")
        return None if status is None else str(status)


def _priced(position: Position, quote: Quote) -> Position:
    return replace(
        position, mark_price=quote.last, last_price=quote.last, bid=quote.bid, ask=quote.ask,
        notional=None if quote.last is None or position.contracts is None else position.contracts * quote.last,
    )  # fmt: skip


def _at(row: Row, number: str) -> datetime:
    return time_of(required_number(row.get("time"), f"the time of {number}") * 1000, f"row {number}")
