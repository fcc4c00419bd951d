"""A proxy in front of a ccxt exchange, which lets through only what it knows to be harmless.

    exchange = gated(ccxt.binanceusdm({...}), OrderPermits("main", gate="http://127.0.0.1:8600", lock_file=...))
    exchange.create_order("BTC/USDT:USDT", "market", "buy", 0.5)        # judged
    exchange.fapiPrivatePostOrder({...})                                # refused, with the reason

Orders leave ccxt by many names: aliases, lists, helpers, raw endpoints, sockets. So nothing passes by its name unless
it reads or cancels; `create_order`, `create_orders` and `edit_order` are judged, and everything else is refused. Give
the bot the proxy only: what holds the exchange itself can send past it.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple  # noqa: TID251 - a bot's environment may have no msgspec

from killswitch.integrations.ccxt_orders import (
    UnjudgeableOrderError,
    children_of,
    client_order_id,
    list_asked,
    may_be_flagged,
    order_asked,
)
from killswitch.integrations.permission import (
    OrderNotSentError,
    OrderPermits,
    Permission,
    is_refusal,
    new_client_order_id,
)


def _key(name: str) -> str:
    """`fetchOHLCV`, `fetch_ohlcv` and `fetchOhlcv` are one name."""
    return name.replace("_", "").lower()


def _names(text: str) -> list[str]:
    return text.split()


READS: Final = _names(
    "accounts balance bids_asks borrow_interest borrow_rate borrow_rate_history canceled_and_closed_orders "
    "canceled_orders closed_order closed_orders cross_borrow_rate cross_borrow_rates currencies deposits "
    "deposits_withdrawals fees free_balance funding_history funding_interval funding_intervals funding_rate "
    "funding_rate_history funding_rates greeks index_ohlcv isolated_borrow_rate isolated_borrow_rates l2_order_book "
    "l3_order_book last_prices ledger ledger_entry leverage leverage_tiers leverages liquidations long_short_ratio "
    "long_short_ratio_history margin_adjustment_history margin_mode margin_modes mark_ohlcv mark_price mark_prices "
    "market_leverage_tiers markets my_liquidations my_trades ohlcv open_interest open_interest_history open_interests "
    "open_order open_orders option option_chain option_positions order order_book order_books order_status "
    "order_trades orders partial_balance position position_history position_mode positions positions_for_symbol "
    "positions_history positions_risk premium_index_ohlcv settlement_history status ticker tickers time total_balance "
    "trades trading_fee trading_fees trading_limits transaction_fee transaction_fees transactions transfers "
    "used_balance withdrawals"
)
STREAMS: Final = _names(
    "balance bids_asks funding_rate funding_rates liquidations liquidations_for_symbols mark_price mark_prices "
    "my_liquidations my_trades ohlcv ohlcv_for_symbols order_book order_book_for_symbols orders orders_for_symbols "
    "position positions ticker tickers trades trades_for_symbols"
)
CANCELS: Final = _names(
    "cancel_order cancel_orders cancel_all_orders cancel_all_orders_after cancel_orders_for_symbols cancel_order_ws "
    "cancel_orders_ws cancel_all_orders_ws"
)
LOCAL: Final = _names(
    "load_markets load_fees load_time_difference market markets_by_id market_id market_ids market_symbols currency "
    "currency_id symbol amount_to_precision price_to_precision cost_to_precision fee_to_precision "
    "currency_to_precision calculate_fee iso8601 parse8601 milliseconds seconds microseconds nonce parse_timeframe "
    "build_ohlcvc sort_by filter_by index_by group_by safe_string safe_number safe_integer safe_value safe_float "
    "check_required_credentials close sleep set_leverage set_margin_mode "
    "id name version has timeframes markets symbols currencies codes fees limits precision_mode rate_limit "
    "countries certified pro urls options last_response_headers timeout verbose"
)
"""What computes, and settings that send no order: leverage and margin mode are the bot's own."""
JUDGED: Final = frozenset(["createorder", "createorders", "editorder"])

PASSING: Final = frozenset(
    _key(each)
    for each in (
        *(f"fetch_{each}" for each in READS), *(f"fetch_{each}_ws" for each in READS),
        *(f"watch_{each}" for each in STREAMS), *(f"un_watch_{each}" for each in STREAMS), *CANCELS, *LOCAL,
    )
)  # fmt: skip
HELPERS: Final[Mapping[str, tuple[str, str | None]]] = {
    "createmarketorder": ("market", None), "createlimitorder": ("limit", None),
    "createmarketbuyorder": ("market", "buy"), "createmarketsellorder": ("market", "sell"),
    "createlimitbuyorder": ("limit", "buy"), "createlimitsellorder": ("limit", "sell"),
}  # fmt: skip
"""ccxt's own helpers would call the exchange behind the proxy: type and side."""


class Step(NamedTuple):
    """A judged call: what to call at the exchange, and the permission to call it."""

    permission: Permission
    method: str
    arguments: tuple[Any, ...]
    flagged: bool


class GatedExchange:
    """The proxy of an exchange of `ccxt`. `GatedAsyncExchange` is that of `ccxt.async_support` and `ccxt.pro`."""

    def __init__(
        self,
        exchange: Any,
        permits: OrderPermits,
        *,
        cash: Collection[str] = (),
        also: Collection[str] = (),
        params: Collection[str] = (),
        name_orders: Callable[[], str] | None = new_client_order_id,
    ) -> None:
        """`cash`: assets that count as money on spot, where selling into one is an exit.

        `also`: further names that pass unjudged, `params`: further parameters of orders; both are your word that they
        send nothing, and change nothing. `name_orders`: makes a client order id for an order without one; None: none.
        """
        inside = {
            "exchange": exchange, "permits": permits, "cash": frozenset(cash), "also": frozenset(map(_key, also)),
            "params": frozenset(params), "name_orders": name_orders, "flagged": set(),
        }  # fmt: skip
        object.__setattr__(self, "_inside", inside)
        object.__setattr__(self, "refusal", _refusal_class())

    def __getattr__(self, name: str) -> Any:
        inside, key = self._inside, _key(name)
        if name.startswith("_"):
            raise AttributeError(name)
        if key in HELPERS:
            return partial(self._helper, *HELPERS[key])
        if key in JUDGED:
            return {"createorder": self.create_order, "createorders": self.create_orders}.get(key, self.edit_order)
        if key in PASSING or key in inside["also"]:
            return getattr(inside["exchange"], name)
        found = getattr(inside["exchange"], name)  # a name that does not exist is an AttributeError, as always
        if callable(found):
            return partial(self._refuse, name)
        raise AttributeError(f"{name} is not let through by the gate: read it before the exchange is wrapped")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"set {name} on the exchange before it is wrapped")

    def create_order(
        self,
        symbol: str,
        type: str,  # noqa: A002 - ccxt's own name, which bots pass by keyword
        side: str,
        amount: Any,
        price: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Judge and send. What is not sent raises `refusal`: an OrderNotSentError and ccxt's PermissionDenied."""
        self._load()
        return self._send(self._judged_order(symbol, type, side, amount, price, params))

    def create_orders(self, orders: Sequence[Mapping[str, Any]], params: Mapping[str, Any] | None = None) -> Any:
        """Judge a list as a whole, and send it or nothing of it."""
        self._load()
        return self._send(self._judged_list(orders, params))

    def edit_order(
        self,
        id: str,  # noqa: A002 - ccxt's own name, which bots pass by keyword
        symbol: str,
        type: str,  # noqa: A002 - as above
        side: str,
        amount: Any = None,
        price: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Judge a change of a resting order by its new total, and send it."""
        self._load()
        return self._send(self._judged_change(id, symbol, type, side, amount, price, params))

    def _load(self) -> None:
        if not self._inside["exchange"].markets:
            self._inside["exchange"].load_markets()

    def _send(self, step: Step) -> Any:
        inside = self._inside
        self._require(step)
        try:
            answer = getattr(inside["exchange"], step.method)(*step.arguments)
        except Exception as error:
            if is_refusal(error):
                inside["permits"].report(step.permission, "refused")
            raise
        self._remember(step, answer)
        return answer

    def _helper(self, kind: str, side: str | None, symbol: str, *more: Any, **named: Any) -> Any:
        if side is None:
            return self.create_order(symbol, kind, *more, **named)
        if kind == "market" and len(more) > 1:
            more = (more[0], None, *more[1:])  # these two take parameters where the others take a price
        return self.create_order(symbol, kind, side, *more, **named)

    def _refuse(self, name: str, *_: object, **__: object) -> Any:
        raise self.refusal(
            f"{name} is not known to be harmless and is not judged: use create_order, create_orders or edit_order, or "
            f"let it through with also=({name!r},)"
        )

    def _judged_order(
        self, symbol: str, kind: str, side: str, amount: Any, price: Any, params: Mapping[str, Any] | None
    ) -> Step:
        sent = self._named(dict(params or {}))
        order, market = self._asked(symbol, kind, side, amount, price, sent)
        permission = self._inside["permits"].ask(order, *children_of(order, sent, 0))
        if permission.is_proved_exit and may_be_flagged(market, sent):
            sent["reduceOnly"] = True  # the venue then bounds what the gate has proved
        sent.pop("killswitchExit", None)
        flagged = sent.get("reduceOnly") is True or sent.get("closePosition") is True
        return Step(permission, "create_order", (symbol, kind, side, amount, price, sent), flagged)

    def _judged_list(self, orders: Sequence[Mapping[str, Any]], params: Mapping[str, Any] | None) -> Step:
        asked: list[dict[str, Any]] = []
        sent = []
        try:
            made = list_asked(orders)
        except UnjudgeableOrderError as error:
            raise self.refusal(str(error)) from error
        for each in made:
            each["params"] = self._named(each["params"])
            order, _ = self._asked(each["symbol"], each["type"], each["side"], each["amount"], each["price"],
                                   {**(params or {}), **each["params"]})  # fmt: skip
            children = children_of(order, each["params"], len(asked))
            asked += [order, *children]
            each["params"].pop("killswitchExit", None)
            sent.append(each)
        permission = self._inside["permits"].ask(*asked)
        return Step(permission, "create_orders", (sent, dict(params or {})), False)

    def _judged_change(
        self, id_: str, symbol: str, kind: str, side: str, amount: Any, price: Any, params: Mapping[str, Any] | None
    ) -> Step:
        if amount is None:
            raise self.refusal("state the amount of the changed order: its new total is judged")
        sent = dict(params or {})
        order, market = self._asked(symbol, kind, side, amount, price, sent)
        is_amend = bool(market.get("contract")) and self._inside["exchange"].has.get("editOrder") is True
        order |= {"change": "amend" if is_amend else "replace", "order": id_}
        if is_amend:
            # The venue keeps the flags of the order that it amends: what this call states changes none.
            order = {key: value for key, value in order.items() if key not in ("close_position", "client_order_id")}
            order["reduce_only"] = id_ in self._inside["flagged"]
        permission = self._inside["permits"].ask(order)
        sent.pop("killswitchExit", None)
        return Step(permission, "edit_order", (id_, symbol, kind, side, amount, price, sent), bool(order["reduce_only"])
                    if is_amend else sent.get("reduceOnly") is True)  # fmt: skip

    def _asked(
        self, symbol: str, kind: str, side: str, amount: Any, price: Any, params: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """The order as the gate reads it, and its market."""
        inside = self._inside
        market: Mapping[str, Any] = inside["exchange"].market(symbol)
        needs_price = inside["exchange"].options.get("createMarketBuyOrderRequiresPrice")
        try:
            order = order_asked(market, kind, side, amount, price, params, cash=inside["cash"],
                                allowed=inside["params"], buys_by_cost=needs_price is False)  # fmt: skip
        except UnjudgeableOrderError as error:
            raise self.refusal(f"the order of {symbol} is not sent: {error}") from error
        return order, market

    def _named(self, params: dict[str, Any]) -> dict[str, Any]:
        make = self._inside["name_orders"]
        if make is not None and client_order_id(params) is None:
            params["clientOrderId"] = make()
        return params

    def _require(self, step: Step) -> None:
        if not self._inside["permits"].may_still_send(step.permission):
            denied = step.permission
            reason = f"{denied.reason}: {denied.text}" if not denied.may_send else "a lock, or too late to send it"
            raise self.refusal(f"not sent by {step.method}: {reason}", denied)

    def _remember(self, step: Step, answer: Any) -> None:
        if step.flagged and isinstance(answer, Mapping) and answer.get("id"):
            self._inside["flagged"].add(str(answer["id"]))


class GatedAsyncExchange(GatedExchange):
    """The proxy of an asynchronous exchange: the same names, awaited. The gate is asked in a thread."""

    async def create_order(self, *arguments: Any, **named: Any) -> Any:
        """As that of `GatedExchange`."""
        return await self._judge_and_send(
            partial(self._judged_order, *_bound(GatedExchange.create_order, arguments, named))
        )

    async def create_orders(self, orders: Sequence[Mapping[str, Any]], params: Mapping[str, Any] | None = None) -> Any:
        """As that of `GatedExchange`."""
        return await self._judge_and_send(partial(self._judged_list, orders, params))

    async def edit_order(self, *arguments: Any, **named: Any) -> Any:
        """As that of `GatedExchange`."""
        return await self._judge_and_send(
            partial(self._judged_change, *_bound(GatedExchange.edit_order, arguments, named))
        )

    async def _judge_and_send(self, judge: Callable[[], Step]) -> Any:
        inside = self._inside
        if not inside["exchange"].markets:
            await inside["exchange"].load_markets()
        step = await asyncio.to_thread(judge)
        self._require(step)
        try:
            sending: Awaitable[Any] = getattr(inside["exchange"], step.method)(*step.arguments)
            answer = await sending
        except Exception as error:
            if is_refusal(error):
                await asyncio.to_thread(inside["permits"].report, step.permission, "refused")
            raise
        self._remember(step, answer)
        return answer

    async def __aenter__(self) -> GatedAsyncExchange:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._inside["exchange"].close()


def gated(exchange: Any, permits: OrderPermits, **options: Any) -> GatedExchange:
    """The proxy of a ccxt exchange, synchronous or not. `options`: as `GatedExchange` has them."""
    is_async = inspect.iscoroutinefunction(exchange.create_order)
    return (GatedAsyncExchange if is_async else GatedExchange)(exchange, permits, **options)


def _refusal_class() -> type[OrderNotSentError]:
    """An error that a bot's `except ccxt.BaseError` catches as well. Of ccxt only what the bot has imported."""
    denied = getattr(sys.modules.get("ccxt"), "PermissionDenied", None)
    return OrderNotSentError if denied is None else type("GatedOrderError", (OrderNotSentError, denied), {})


def _bound(method: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a call in order, with those that are left out. TypeError as for any call."""
    bound = inspect.signature(method).bind(None, *arguments, **named)
    bound.apply_defaults()
    return bound.args[1:]
