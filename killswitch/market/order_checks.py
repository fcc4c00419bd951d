"""Order checks of the paper venue, in their order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from killswitch.market.account import PaperAccount
from killswitch.market.holding import ZERO, initial_margin
from killswitch.market.matching import Matching
from killswitch.market.tape import Tape
from killswitch.market.terms import VenueTerms
from killswitch.market.walk import is_met
from killswitch.model.snapshot import Instrument
from killswitch.model.venue import ClientIdRule, OrderRejectedError, OrderRequest

_IDS = {"plain": r"[a-z0-9]+", "hex": r"0x[0-9a-f]{32}", "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"}


class OrderChecks:
    """Checks of an order against its account and the venue."""

    def __init__(self, terms: VenueTerms, matching: Matching) -> None:
        self.terms = terms
        self.matching = matching

    def check(self, account: PaperAccount, request: OrderRequest) -> None:
        """Raise OrderRejectedError, with the venue's reason, for an order that cannot be accepted."""
        client_id = request.client_order_id
        if client_id in account.orders:
            raise OrderRejectedError("duplicate_client_order_id", f"client order id {client_id} was used before")
        if self.terms.checks_client_ids:
            _check_client_id(client_id, self.terms.traits.client_ids)
        tapes = self.matching.tapes
        tape = tapes.get(request.symbol)
        if tape is None:
            raise OrderRejectedError("other", f"no symbol {request.symbol}")
        if tape.last is None:
            raise OrderRejectedError("market_closed", f"{request.symbol} has no price yet")
        self._check_state(account, request, tape)
        price = _check_price(request, tape, tape.last)
        if account.is_exit(request):
            _check_reduces(account, request)
        if self.terms.resting_exits_block and request.trigger_price is None:
            _check_exits(account, request, tapes)
        _check_size(account, request, tape, price)
        self._check_money(account, request, price)

    def _check_state(self, account: PaperAccount, request: OrderRequest, tape: Tape) -> None:
        state = tape.instrument.state
        if tape.is_shut:
            raise OrderRejectedError("market_closed", f"{request.symbol} is {state}")
        if state == "reduce_only" and not account.is_exit(request):
            raise OrderRejectedError("market_closed", f"{request.symbol} accepts reduce-only orders only")
        if request.trigger_price is not None:
            return  # it is checked again when it triggers
        if not tape.has_market_orders and request.type == "market":
            raise OrderRejectedError("market_closed", f"{request.symbol} is {state}: no market orders")
        takes_liquidity = request.time_in_force == "ioc" or self.matching.is_marketable(request, tape)
        if state == "post_only" and takes_liquidity:
            raise OrderRejectedError("market_closed", f"{request.symbol} is post_only: no orders that take liquidity")

    def _check_money(self, account: PaperAccount, request: OrderRequest, price: Decimal) -> None:
        tapes = self.matching.tapes
        tape = tapes[request.symbol]
        if account.is_cash and request.side == "sell":
            free = account.open_quantity(request.symbol, "long") - reserved_quantity(account, request, tapes)
            if request.amount * tape.size > free:
                raise OrderRejectedError("insufficient_margin", f"only {free} of {request.symbol} is free to sell")
            return
        if account.is_exit(request):
            return
        if self.matching.quotes.bridge(account, request.symbol) is not None:
            raise OrderRejectedError("other", f"{request.symbol} can only be sold: its quote asset is another currency")
        held = account.open_quantity(request.symbol, request.position_side)
        against = max(ZERO, -held if request.side == "buy" else held)
        opens = max(ZERO, request.amount * tape.size - against) * price
        needs = initial_margin(opens, account.leverage_of(request.symbol)) + opens * self.matching.rules.taker_fee
        free = free_money(account, self.matching)
        if opens and needs > free:
            raise OrderRejectedError("insufficient_margin", f"needs {needs} {account.currency}, {free} is free")


def _check_client_id(client_id: str, rule: ClientIdRule) -> None:
    too_long = rule.form == "plain" and len(client_id) > rule.longest
    if too_long or not re.fullmatch(_IDS[rule.form], client_id):
        raise OrderRejectedError("other", f"client order id {client_id!r} is not {rule.form} of up to {rule.longest}")


def _check_price(request: OrderRequest, tape: Tape, last: Decimal) -> Decimal:
    """The price at which the order is checked: its limit, else its trigger, else the last price."""
    around = last
    if request.trigger_price is not None or request.trigger_when is not None:
        around = _check_trigger(request, tape, last)
    if request.type == "market":
        return around
    price = request.price
    if price is None or price <= 0:
        raise OrderRejectedError("other", "a limit order needs a price above zero")
    if price % tape.tick:
        raise OrderRejectedError("other", f"price {price} is not a multiple of {tape.tick}")
    band = tape.instrument.price_band
    if band is not None and abs(price - around) > band * around:
        raise OrderRejectedError("price_band", f"price {price} is further than {band} from {around}")
    return price


def _check_trigger(request: OrderRequest, tape: Tape, last: Decimal) -> Decimal:
    trigger = request.trigger_price
    if trigger is None or trigger <= 0 or request.trigger_when is None:
        raise OrderRejectedError("other", "a conditional order needs a trigger price above zero, and when it is met")
    if trigger % tape.tick:
        raise OrderRejectedError("other", f"trigger price {trigger} is not a multiple of {tape.tick}")
    if is_met(request, last):
        raise OrderRejectedError("other", f"the order would trigger at once: the price is {last}")
    return trigger


def _check_reduces(account: PaperAccount, request: OrderRequest) -> None:
    quantity = account.open_quantity(request.symbol, request.position_side)
    closes = "long" if request.side == "sell" else "short"
    if request.position_side != closes:
        raise OrderRejectedError("other", f"a reduce-only {request.side} cannot reduce a {request.position_side}")
    if (quantity if closes == "long" else -quantity) <= 0:
        raise OrderRejectedError("already_flat", f"no {closes} position in {request.symbol} to reduce")


def _check_exits(account: PaperAccount, request: OrderRequest, tapes: Mapping[str, Tape]) -> None:
    """Refuse an exit while resting ones already cover all that is held; in a cash account every sale is an exit."""
    if not (account.is_exit(request) or (account.is_cash and request.side == "sell")):
        return
    resting = reserved_quantity(account, request, tapes)
    if resting and resting >= abs(account.open_quantity(request.symbol, request.position_side)):
        raise OrderRejectedError("blocked_by_order", f"resting exits of {request.symbol} cover all that is held")


def reserved_quantity(account: PaperAccount, request: OrderRequest, tapes: Mapping[str, Tape]) -> Decimal:
    """Base quantity that open exits, conditional ones included, will take from the position that `request` reduces."""
    cash = account.is_cash
    of = account.held_as(request.symbol) if cash else request.symbol
    return sum(
        (order.left * tapes[order.request.symbol].size for order in account.working
         if order.request.side == request.side and (cash or account.is_exit(order.request))
         and (account.held_as(order.request.symbol) if cash else order.request.symbol) == of),
        ZERO,
    )  # fmt: skip


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
    exempt = account.is_exit(request) and not account.is_cash
    notional = amount * tape.size * price
    if instrument.min_notional is not None and notional < instrument.min_notional and not exempt:
        raise OrderRejectedError("below_minimum", f"notional {notional} is below {instrument.min_notional}")


def free_money(account: PaperAccount, matching: Matching) -> Decimal:
    """Money available to new orders, in the account's currency; never below zero."""
    held_back = account.order_margin(matching.tapes)
    if account.is_cash:
        return max(ZERO, account.cash - held_back)
    margin = account.margin(matching.quotes.prices(account), matching.rules.maintenance)
    return max(ZERO, margin.equity - margin.used - held_back)
