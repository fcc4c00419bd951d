"""What the paper venue refuses, in the order in which it looks."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from killswitch.market.account import PaperAccount
from killswitch.market.holding import ZERO
from killswitch.market.margin import initial_margin
from killswitch.market.rules import MarketRules
from killswitch.market.tape import Tape
from killswitch.model.snapshot import Instrument, InstrumentState
from killswitch.model.venue import OrderRejectedError, OrderRequest

_NO_ORDERS: frozenset[InstrumentState] = frozenset({"halted", "delisted", "cancel_only"})
_NO_MARKET_ORDERS: frozenset[InstrumentState] = frozenset({"limit_only", "post_only"})


def check(account: PaperAccount, request: OrderRequest, tapes: Mapping[str, Tape], rules: MarketRules) -> None:
    """Raise OrderRejectedError, with the venue's reason, if the order cannot be accepted."""
    if request.client_order_id in account.orders:
        raise OrderRejectedError(
            "duplicate_client_order_id", f"client order id {request.client_order_id} was used before"
        )
    tape = tapes.get(request.symbol)
    if tape is None:
        raise OrderRejectedError("other", f"no symbol {request.symbol}")
    if tape.last is None:
        raise OrderRejectedError("market_closed", f"{request.symbol} has no price yet")
    _check_state(request, tape.instrument.state)
    price = _check_price(request, tape, tape.last)
    if request.reduce_only:
        _check_reduces(account, request)
    _check_size(account, request, tape, price)
    _check_money(account, request, tapes, rules, price)


def _check_state(request: OrderRequest, state: InstrumentState | None) -> None:
    if state in _NO_ORDERS:
        raise OrderRejectedError("market_closed", f"{request.symbol} is {state}")
    if state == "reduce_only" and not request.reduce_only:
        raise OrderRejectedError("market_closed", f"{request.symbol} takes reduce-only orders only")
    if state in _NO_MARKET_ORDERS and request.type == "market":
        raise OrderRejectedError("market_closed", f"{request.symbol} is {state}: no market orders")


def _check_price(request: OrderRequest, tape: Tape, last: Decimal) -> Decimal:
    """The price the order is judged at: its limit, or the last price."""
    if request.type == "market":
        return last
    price = request.price
    if price is None or price <= 0:
        raise OrderRejectedError("other", "a limit order needs a price above zero")
    if price % tape.tick:
        raise OrderRejectedError("other", f"price {price} is not a multiple of {tape.tick}")
    band = tape.instrument.price_band
    if band is not None and abs(price - last) > band * last:
        raise OrderRejectedError("price_band", f"price {price} is further than {band} from {last}")
    return price


def _check_reduces(account: PaperAccount, request: OrderRequest) -> None:
    quantity = account.open_quantity(request.symbol)
    closes = "long" if request.side == "sell" else "short"
    if request.position_side != closes:
        raise OrderRejectedError("other", f"a reduce-only {request.side} cannot reduce a {request.position_side}")
    if (quantity if closes == "long" else -quantity) <= 0:
        raise OrderRejectedError("already_flat", f"no {closes} position in {request.symbol} to reduce")


def _check_size(account: PaperAccount, request: OrderRequest, tape: Tape, price: Decimal) -> None:
    instrument: Instrument = tape.instrument
    amount = request.amount
    if amount <= 0 or (instrument.min_amount is not None and amount < instrument.min_amount):
        raise OrderRejectedError("below_minimum", f"amount {amount} is below {instrument.min_amount}")
    if amount % tape.step:
        raise OrderRejectedError("other", f"amount {amount} is not a multiple of {tape.step}")
    if instrument.max_amount is not None and amount > instrument.max_amount:
        raise OrderRejectedError("above_maximum", f"amount {amount} is above {instrument.max_amount}")
    # As at Binance, a reduce-only order of a derivative may be worth less than the minimum.
    exempt = request.reduce_only and not account.is_cash
    notional = amount * tape.size * price
    if instrument.min_notional is not None and notional < instrument.min_notional and not exempt:
        raise OrderRejectedError("below_minimum", f"notional {notional} is below {instrument.min_notional}")


def _check_money(
    account: PaperAccount,
    request: OrderRequest,
    tapes: Mapping[str, Tape],
    rules: MarketRules,
    price: Decimal,
) -> None:
    tape = tapes[request.symbol]
    quantity = request.amount * tape.size
    if account.is_cash and request.side == "sell":
        promised = sum(
            (o.left * tapes[o.request.symbol].size for o in account.working
             if o.request.symbol == request.symbol and o.request.side == "sell"),
            ZERO,
        )  # fmt: skip
        free = account.open_quantity(request.symbol) - promised
        if quantity > free:
            raise OrderRejectedError("insufficient_margin", f"only {free} of {request.symbol} is free to sell")
        return
    if request.reduce_only:
        return
    held = account.open_quantity(request.symbol)
    against = max(ZERO, -held if request.side == "buy" else held)
    opens = max(ZERO, quantity - against) * price
    needs = initial_margin(opens, account.leverage_of(request.symbol)) + opens * rules.taker_fee
    free = free_money(account, tapes, rules)
    if opens and needs > free:
        raise OrderRejectedError("insufficient_margin", f"needs {needs} {account.currency}, {free} is free")


def free_money(account: PaperAccount, tapes: Mapping[str, Tape], rules: MarketRules) -> Decimal:
    """What new orders may use, in the account's currency; never below zero."""
    held_back = account.order_margin(tapes)
    if account.is_cash:
        return max(ZERO, account.cash - held_back)
    marks = {symbol: tapes[symbol].last or ZERO for symbol in account.holdings}
    margin = account.margin(marks, rules.maintenance)
    return max(ZERO, margin.equity - margin.used - held_back)
