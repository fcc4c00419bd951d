"""Hyperliquid's perpetuals. A key is a private key: that of the account itself, or of an agent that may only trade.

Orders are written and signed here: before its first order ccxt would name a referrer and approve a fee for a third
party, both signed with the account's key.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from msgspec.structs import replace

from killswitch.model.inspection import KeyRights
from killswitch.model.parsing import (
    Row,
    UnreadableError,
    decimal,
    instant,
    object_at,
    positive,
    required_number,
    rows_at,
    total,
)
from killswitch.model.snapshot import Balance, Fill, Flow, LimitUse, Order, Position
from killswitch.model.venue import (
    AccountSpec,
    ClientIdRule,
    DeadManRule,
    OrderLife,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RateLimit,
    VenueDownError,
    VenueError,
)
from killswitch_ccxt import orders
from killswitch_ccxt.answers import NoSuchSymbolError
from killswitch_ccxt.dialect import Dialect, PositionMode, is_stop
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.errors import GoneError, VenueAnswer
from killswitch_ccxt.fills import fills_of_order
from killswitch_ccxt.instruments import Quote
from killswitch_ccxt.traits import Ages, call_costs, capability_table
from killswitch_ccxt.venues.hyperliquid.rows import (
    CODES,
    allowed_price,
    codes_in,
    fill,
    found_order,
    funding_flow,
    is_spot,
    ledger_flow,
    plain_number,
    resting_order,
    sent_status,
    sentences,
    spot_asset,
    statuses,
)

BOUND: Final = Decimal("0.05")
"""Largest distance of a market order's limit from the middle price: the venue has only limit orders."""
LONGEST_PAGE: Final = 2000
PUBLIC: Final = frozenset({"allMids", "metaAndAssetCtxs"})
"""Requests that concern no account."""
FILLS_LOOK_BACK: Final = 86_400_000


class Hyperliquid(Dialect):
    """One account with perpetuals of the first exchange there, in USDC."""

    exchange = "hyperliquid"
    more_options = ("vault",)
    codes = CODES
    code_form = re.compile(r"[A-Z]\S* .+", re.DOTALL)  # sentences instead of codes
    limits = (RateLimit("weight", 1200, 60.0, by="address"),)
    costs = call_costs("weight", snapshot=13, submit=3, find_order=2, open_orders=20, fills=22, cancel=1, dead_man=1)
    """A snapshot costs 13 while balances and positions change all the time, else 8. A list costs 20, as does each
    page of it."""
    client_ids = ClientIdRule("hex", 34)
    # Without an expiry an action is valid for two days: that is how old its nonce may be.
    order_life = OrderLife(longest=60.0, always=172_800.0, names="none")
    dead_man = DeadManRule("account", shortest=5.0, a_day=10, takes_stops=True)
    streams = ("orders", "positions")
    # A list of fills weighs 20, the two ledgers 40: with these, 60 a minute.
    ages = Ages(
        orders=10.0, fills=20.0, flows=60.0, quotes=15.0, orders_least=4.0, rows_least=15.0, early_flows=1,
        early_fills=1, early_saved=1,  # a list costs 20 of 1,200 a minute: three saved would be too many
        limits=600.0,
    )  # fmt: skip
    has_separate_order_kinds = False
    tried = "answers from its documents"
    capabilities = capability_table(
        {
            "equity": "partly, of the first exchange's perpetuals; unknown for a unified account",
            "positions": "partly, without those of exchanges deployed by others (HIP-3)",
            "trigger orders": "yes, in the same list",
            "market orders": "partly, as immediate limit orders, at most 5% from the middle price",
            "limit orders": "yes, of at least 10 USDC",
            "put back stops": "yes, triggered by the mark",
            "batch orders": "no, one refused row would hide the result of the others",
            "close book": "no",
            "position mode": "yes, always one-way",
            "dead man": "partly, ten times a day, and only for accounts that have traded enough",
            "key rights": "yes, an agent may trade and not withdraw",
            "bars": "yes, the last 5000 of a timeframe",
            "sandbox": "yes, the testnet",
            "demo": "no",
        },
        "orders", "fills", "flows", "prices", "reduce only", "find by client id", "push", "clock",
    )  # fmt: skip

    @classmethod
    def client_options(cls, spec: AccountSpec) -> Mapping[str, Any]:
        return {
            **super().client_options(spec), "builderFee": False, "approvedBuilderFee": False, "refSet": True,
            "fetchMarkets": {"types": ["swap"]}, **({"vaultAddress": _vault(spec)} if _vault(spec) else {}),
            # ccxt copies these with rules that are shared, and creates them only where it requests more than `swap`.
            "hip3TokensByName": {}, "cachedCurrenciesById": {},
        }  # fmt: skip

    @classmethod
    def codes_of(cls, answer: VenueAnswer) -> Iterable[str]:
        refusals = [it for it in sentences(answer.body) if isinstance(it, str)]
        return (*(code for sentence in refusals for code in codes_in(sentence)), *refusals)

    @property
    def user(self) -> str:
        """The owner of the account: the vault or sub-account of `options: {vault: 0x…}`, or the wallet itself."""
        return _vault(self.spec) or str(self.client.ccxt.walletAddress)

    async def watch(self, method: str) -> None:
        await self.client.call(method, params={"user": self.user})

    @classmethod
    def refusal_of(cls, message: Any) -> VenueError | None:
        """The refusal of a subscription; ccxt would report it to its caller and then treat the stream as subscribed."""
        text = str(message.get("data")) if isinstance(message, Mapping) and message.get("channel") == "error" else ""
        if not text or text.startswith("Already subscribed"):
            return None
        return VenueDownError(f"Hyperliquid refuses a request on the stream: {text}")

    def corrected_rule(self, rule: Row) -> Row:
        """The rule without a price step where the mark is missing: ccxt derives the digits of a price from the mark."""
        info, precision = rule.get("info") or {}, rule.get("precision") or {}
        try:
            mark, digits = positive(info.get("markPx")), decimal(info.get("szDecimals"))
        except UnreadableError:
            return {**rule, "precision": {}}
        if digits is not None and digits < 0:
            return {**rule, "precision": {}}
        return rule if mark is not None else {**rule, "precision": {**precision, "price": None}}

    # Snapshot

    async def account(self) -> tuple[AccountEquity, tuple[Position, ...]]:
        """Equity and positions from one answer, after a check of the account's mode."""
        await self._check_not_unified()
        state = await self._info("clearinghouseState")
        summary, rows = object_at(state, "marginSummary"), rows_at(state, "assetPositions")
        at = instant(state.get("time"))
        found = tuple(replace(it, mark_at=at) for it in map(self._position, rows) if it is not None)
        if sorted({it.symbol for it in found}) != sorted(it.symbol for it in found):
            raise UnreadableError("the venue lists a position twice")
        equity = required_number(summary.get("accountValue"), "the account value")
        profit = total(it.unrealized_pnl for it in found)
        # `totalRawUsd` is no wallet: a trade changes it.
        wallet = None if profit is None else equity - profit
        account_equity = AccountEquity(
            equity, free=decimal(state.get("withdrawable")), margin_used=decimal(summary.get("totalMarginUsed")),
            maintenance_margin=decimal(state.get("crossMaintenanceMarginUsed")),
            balances=(Balance(self.spec.currency, equity, Decimal(1), wallet=wallet, equity=equity),),
            unrealized=profit, as_of=at, positions_as_of=at, is_complete=False if self._shares_margin else None,
        )  # fmt: skip
        return account_equity, found

    async def equity_alone(self) -> AccountEquity | None:
        return None

    async def prices(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Mark, oracle price and the middle, which serves as last price, of one answer."""
        answer = await self._info("metaAndAssetCtxs")
        universe = answer[0].get("universe") if isinstance(answer, list) and len(answer) == 2 else None
        if not isinstance(universe, list) or len(universe) != len(answer[1]):
            raise UnreadableError("the answer has no prices")
        rows = {str(coin.get("name")): row for coin, row in zip(universe, answer[1], strict=True)}
        names = {symbol: str((self.rules[symbol].get("info") or {}).get("name")) for symbol in symbols}
        return {
            symbol: Quote(
                last=positive(row.get("midPx")), index=positive(row.get("oraclePx")), mark=positive(row.get("markPx"))
            )
            for symbol, name in names.items()
            if (row := rows.get(name)) is not None
        }

    async def orders(self) -> tuple[Order, ...]:
        """All open orders. Those in spot markets have the venue's own symbol, which suffices to cancel them."""
        rows = rows_at(await self._info("frontendOpenOrders"), what="the answer about orders")
        with_symbols = ((row, self._market_of(row.get("coin"))) for row in rows)
        return orders.open_orders(resting_order(row, symbol, self._sizes.get(symbol)) for row, symbol in with_symbols)

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        """The fills of perpetuals: the spot wallet is no part of the account."""
        rows = rows_at(await self._info("userFillsByTime", startTime=since), what="the answer about fills")
        if len(rows) >= LONGEST_PAGE:
            raise UnreadableError(f"{len(rows)} fills since the last fetch: there may be more")
        own_rows = (row for row in rows if not is_spot(row.get("coin")))
        found = [fill(row, self._market_of(row.get("coin")), self.user) for row in own_rows]
        return tuple({it.id: it for it in found}.values())

    def _market_of(self, coin: object) -> str:
        """ccxt's symbol of a coin, or the venue's own symbol of a spot market. UnreadableError for a missing name."""
        if not isinstance(coin, str) or not coin:
            raise UnreadableError(f"{coin!r} is not the name of a market")
        if is_spot(coin):
            return coin
        symbol = str(self.client.ccxt.coin_to_market_id(coin))
        if symbol not in self.rules:
            raise NoSuchSymbolError(f"a row of {coin}: the venue's rules have no such coin")
        return symbol

    async def order_fills(self, symbol: str, order_id: str) -> tuple[Fill, ...]:
        since = self.client.now_ms() - FILLS_LOOK_BACK
        return fills_of_order(await self.fills((), since), order_id)

    async def flows(self, since: int) -> tuple[Flow, ...] | None:
        kinds = ("userFunding", "userNonFundingLedgerUpdates")
        funding, entries = await asyncio.gather(*(self._info(kind, startTime=since) for kind in kinds))
        found: list[Flow | None] = [*map(funding_flow, rows_at(funding, what="the answer about funding"))]
        found += [ledger_flow(row, self.user) for row in rows_at(entries, what="the answer about the ledger")]
        return tuple(flow for flow in found if flow is not None)

    async def own_limits(self) -> tuple[LimitUse, ...]:
        """The actions that the address has sent, of those that its volume allows it."""
        found = object_at(await self._info("userRateLimit"))
        used = required_number(found.get("nRequestsUsed"), "the requests used")
        most = required_number(found.get("nRequestsCap"), "the requests allowed")
        return (LimitUse("actions", used, most),) if most > 0 and used >= 0 else ()

    async def rights(self) -> KeyRights:
        """The permissions of the key, whose owner is identified by its address."""
        ccxt = self.client.ccxt
        address, wallet = str(ccxt.eth_get_address_from_private_key(ccxt.privateKey)), str(ccxt.walletAddress)
        if address.lower() == wallet.lower():
            return KeyRights(
                read=True, trade=True, withdraw=True, transfer=True,
                note="the account's own private key, which has all permissions; create an agent wallet for the switch",
            )  # fmt: skip
        agents = await self._info("extraAgents", user=wallet)
        for agent in agents if isinstance(agents, list) else ():
            if str(agent.get("address")).lower() == address.lower():
                return KeyRights(
                    read=True, trade=True, withdraw=False, transfer=False, expires_at=instant(agent.get("validUntil")),
                    note=f"the key of the agent wallet {agent.get('name') or address}",
                )  # fmt: skip
        role = await self._info("userRole", user=address)
        master = (role.get("data") or {}).get("user") if isinstance(role, Mapping) else None
        if isinstance(role, Mapping) and role.get("role") == "agent" and str(master).lower() == wallet.lower():
            return KeyRights(read=True, trade=True, withdraw=False, transfer=False, note="the key of an agent wallet")
        note = f"the private key belongs to {address}, which is no agent of the account"
        return KeyRights(read=True, trade=False, note=note)

    # Orders

    async def submit(self, request: OrderRequest, mode: PositionMode) -> OrderReport:
        action = {"type": "order", "orders": [await self._order(request)], "grouping": "na"}
        results = statuses(await self._send_action(action, self.deadline_of(request), places=True))
        if len(results) != 1:
            raise UnreadableError(f"{len(results)} statuses for one order")
        return self.accepted_report(sent_status(results[0], request.client_order_id, request.amount), request)

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        try:
            answer = await self._info("orderStatus", oid=client_order_id)
        except GoneError:
            return None
        return found_order(answer, client_order_id)

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        rule = self.rules.get(symbol)
        asset = spot_asset(symbol) if rule is None else int(rule["baseId"])
        if asset is None:
            raise UnreadableError(f"order {order_id}: {symbol} does not contain the asset id that a cancellation needs")
        await self._send_action({"type": "cancel", "cancels": [{"a": asset, "o": int(order_id)}]})

    async def arm_dead_man(self, seconds: float, symbols: Collection[str]) -> None:
        timeout_ms = int(max(seconds, 5.0) * 1000)
        await self._send_action({"type": "scheduleCancel", "time": self.client.ccxt.milliseconds() + timeout_ms})

    async def disarm_dead_man(self, symbols: Collection[str]) -> None:
        """Cancel the schedule: the action has no time."""
        await self._send_action({"type": "scheduleCancel"})

    # Parts

    _sizes: Mapping[str, Decimal] = {}
    _mode_checked_at: float = float("-inf")
    _shares_margin: bool = False
    """Whether positions at exchanges deployed by others, which are not read, use margin of this account."""

    async def _send_action(self, action: Row, deadline: int | None = None, *, places: bool = False) -> Any:
        """Sign and send an action that is refused from `deadline` (ms) on. The signature depends on the order of the
        fields."""
        ccxt = self.client.ccxt
        nonce, vault = ccxt.incrementing_nonce(), ccxt.format_vault_address(_vault(self.spec))
        request = {"action": action, "nonce": nonce, "signature": ccxt.sign_l1_action(action, nonce, vault, deadline)}
        if deadline is not None:
            request["expiresAfter"] = deadline
        if vault:
            request["vaultAddress"] = vault
        return await self.client.call("privatePostExchange", request, changes=True, places=places)

    async def _order(self, request: OrderRequest) -> dict[str, Any]:
        """The order in the form of the venue's documents; prices are text with at most five significant digits."""
        self.create_arguments(replace(request, price=None), "one_way")
        market, at_market = self.client.ccxt.market(request.symbol), request.type == "market"
        price = (
            await self._market_limit_price(request) if at_market else required_number(request.price, "the limit price")
        )
        kind: dict[str, Any] = {"limit": {"tif": "Ioc" if request.time_in_force == "ioc" else "Gtc"}}
        if request.trigger_price is not None:
            kind = {
                "trigger": {
                    "isMarket": at_market, "triggerPx": self._price_text(request, request.trigger_price),
                    "tpsl": "sl" if is_stop(request) else "tp",
                }
            }  # fmt: skip
        elif at_market:
            kind = {"limit": {"tif": "Ioc"}}
        return {
            "a": int(market["baseId"]), "b": request.side == "buy", "p": self._price_text(request, price),
            "s": plain_number(request.amount), "r": request.reduce_only, "t": kind, "c": request.client_order_id,
        }  # fmt: skip

    def _price_text(self, request: OrderRequest, price: Decimal) -> str:
        """The price as text. OrderRejectedError for a price that the venue would refuse because of its digits."""
        decimals = int((self.rules[request.symbol].get("info") or {}).get("szDecimals", 0))
        if price != allowed_price(price, decimals):
            raise OrderRejectedError("other", f"{price} is no price that {request.symbol} can have")
        return plain_number(price)

    async def _market_limit_price(self, request: OrderRequest) -> Decimal:
        """The limit price of a market order: 5% beyond the trigger price, or beyond the middle price."""
        middle = request.trigger_price
        if middle is None:
            name = (self.rules.get(request.symbol) or {}).get("info", {}).get("name")
            middle = positive((await self._info("allMids")).get(name))
        if middle is None:
            raise OrderRejectedError("market_closed", f"the venue has no middle price of {request.symbol}")
        decimals = int((self.rules[request.symbol].get("info") or {}).get("szDecimals", 0))
        return allowed_price(middle * (1 - BOUND if request.side == "sell" else 1 + BOUND), decimals)

    def _position(self, row: Row) -> Position | None:
        position = row.get("position") or {}
        coin = position.get("coin")
        size = required_number(position.get("szi"), f"the size of position {coin}")
        if size == 0:
            return None
        symbol = self._market_of(coin)
        value = positive(position.get("positionValue"))
        leverage = position.get("leverage") or {}
        self._sizes = {**self._sizes, symbol: abs(size)}
        return Position(
            symbol, "long" if size > 0 else "short", abs(size), entry_price=positive(position.get("entryPx")),
            mark_price=None if value is None else value / abs(size), notional=value,
            liquidation_price=positive(position.get("liquidationPx")), margin=decimal(position.get("marginUsed")),
            leverage=positive(leverage.get("value")), unrealized_pnl=decimal(position.get("unrealizedPnl")),
        )  # fmt: skip

    async def _check_not_unified(self) -> None:
        """UnreadableError for a unified account: the venue does not state its equity in one number."""
        now = asyncio.get_running_loop().time()
        if 0 <= now - self._mode_checked_at < self.ages.mode:
            return
        mode = str(await self._info("userAbstraction")).strip('"')
        if mode not in ("default", "disabled", "dexAbstraction", "None", ""):
            raise UnreadableError(
                f"the account is unified ({mode}): the venue does not state its equity in one number; "
                "set its abstraction to disabled, or monitor it elsewhere"
            )
        self._mode_checked_at, self._shares_margin = now, mode == "dexAbstraction"

    async def _info(self, kind: str, *, user: str | None = None, **more: object) -> Any:
        params = {"type": kind, **({} if kind in PUBLIC else {"user": user or self.user}), **more}
        return await self.client.call("publicPostInfo", params)


def _vault(spec: AccountSpec) -> str | None:
    vault = spec.options.get("vault")
    return None if vault is None else str(vault)
