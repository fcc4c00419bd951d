"""Position sizes for `ksctl size` and the API: a request, the account's own numbers, and one answer.

What a request leaves out is read from the account, if it names one; what neither has is unknown. Nothing is sent: the
account is read once, as `ksctl snapshot` reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from decimal import Decimal
from math import sqrt
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Instrument, Side
from killswitch.risk.sizing.answer import (
    Size,
    SizedMarket,
    SizingInput,
    Suggestion,
    bounded,
    given,
)
from killswitch.risk.sizing.consensus import SizingDecision, consensus
from killswitch.risk.sizing.fixed_fractional import risk_to_stop, share_of_equity
from killswitch.risk.sizing.kelly import TradeRecord, continuous_kelly, kelly
from killswitch.risk.sizing.volatility_target import target_volatility
from killswitch.valuation.position_measures import HOLDINGS, is_option, notional, settlement

DAYS_OF_YEAR = 365


class FixedFractional(Struct, frozen=True, tag="fixed-fractional", tag_field="method", forbid_unknown_fields=True):
    """`fraction` of equity is lost from the price to `stop`; `costs` of both trades are a fraction of the price."""

    fraction: Decimal
    stop: Decimal
    side: Side
    costs: Decimal


class FixedNotional(Struct, frozen=True, tag="fixed-notional", tag_field="method", forbid_unknown_fields=True):
    """The notional is `fraction` of equity."""

    fraction: Decimal


class Kelly(Struct, frozen=True, tag="kelly", tag_field="method", forbid_unknown_fields=True):
    """A `fraction` of Kelly from closed trades; mean `gain` and `loss` per unit of notional.

    `probability`: the lower Wilson bound of 95%, or the estimate itself.
    """

    fraction: Decimal
    wins: int
    losses: int
    gain: Decimal
    loss: Decimal
    probability: Literal["lower-bound", "estimate"] = "lower-bound"


class ContinuousKelly(Struct, frozen=True, tag="continuous-kelly", tag_field="method", forbid_unknown_fields=True):
    """A `fraction` of (mean − rate) ÷ volatility²; all of a year. Without `volatility` the account's is used."""

    fraction: Decimal
    mean: Decimal
    rate: Decimal
    volatility: Decimal | None = None


class VolatilityTarget(Struct, frozen=True, tag="volatility-target", tag_field="method", forbid_unknown_fields=True):
    """`target` ÷ the larger of volatility and `floor`; all of a year. Without `volatility` the account's is used."""

    target: Decimal
    floor: Decimal
    volatility: Decimal | None = None


Single = FixedFractional | FixedNotional | Kelly | ContinuousKelly | VolatilityTarget


class Consensus(Struct, frozen=True, tag="consensus", tag_field="method", forbid_unknown_fields=True):
    """The median of several methods, of which at least `quorum` are known; `decisions` are their record, if any."""

    methods: tuple[Single, ...]
    quorum: int
    decisions: tuple[SizingDecision, ...] = ()


class SizeRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A request: the body of `POST /v1/size`, and what the options of `ksctl size` become.

    `others`: gross notional of the account's other positions. Each number that is given replaces the account's own.
    """

    symbol: str
    size_by: Single | Consensus
    leverage_cap: Decimal
    account: str | None = None
    equity: Decimal | None = None
    price: Decimal | None = None
    others: Decimal | None = None
    contract_size: Decimal | None = None
    inverse: bool | None = None
    step: Decimal | None = None
    min_amount: Decimal | None = None
    min_notional: Decimal | None = None


def size_of(request: SizeRequest, account: AccountSnapshot | None, now: datetime) -> Size:
    """The size that a request asks for. `account`: as read at or before `now`; None where the request names none.

    SizingError for a request that has no answer; what is unknown is in the answer.
    """
    market = sized_market(request, account, now)
    volatility = _volatility(request.symbol, account, now)
    return bounded(suggested(request.size_by, market, volatility), market)


def suggested(method: Single | Consensus, market: SizedMarket, volatility: SizingInput) -> Suggestion:
    """The suggestion of a method; `volatility` is the account's, for methods that are given none."""
    if isinstance(method, Consensus):
        of_each = [suggested(each, market, volatility) for each in method.methods]
        return consensus(of_each, method.quorum, method.decisions)
    if isinstance(method, FixedFractional):
        return risk_to_stop(
            method.fraction, market.price, method.stop, method.side, method.costs, inverse=market.rules.inverse
        )
    if isinstance(method, FixedNotional):
        return share_of_equity(method.fraction)
    if isinstance(method, Kelly):
        record = TradeRecord(method.wins, method.losses, method.gain, method.loss)
        return kelly(record, method.fraction, point_estimate=method.probability == "estimate")
    of_year = volatility if method.volatility is None else given("volatility", method.volatility)
    if isinstance(method, ContinuousKelly):
        return continuous_kelly(method.mean, method.rate, of_year, method.fraction)
    return target_volatility(method.target, of_year, method.floor)


def sized_market(request: SizeRequest, account: AccountSnapshot | None, now: datetime) -> SizedMarket:
    """The market of a request: what it gives, else what the account shows; the rest is unknown, with its reason."""
    symbol = request.symbol
    equity, price = given("equity", request.equity), given("price", request.price)
    others = None if request.others is None else given("other positions", request.others)
    rules = Instrument(symbol)
    if account is not None:
        rules = _rules(account, symbol)
        equity = equity if request.equity is not None else _read(account, "equity", account.equity, now)
        price = price if request.price is not None else _price(account, symbol, now)
        others = others or other_positions(account, (symbol,), now)
        if (why := _misfit(account, symbol)) is not None:
            price = replace(price, value=None, unknown=why)
    if is_option(symbol):
        price = replace(price, value=None, unknown=f"{symbol} is an option: its price is not that of its underlying")
    overrides = {
        "contract_size": request.contract_size, "inverse": request.inverse, "amount_step": request.step,
        "min_amount": request.min_amount, "min_notional": request.min_notional,
    }  # fmt: skip
    known = {name: value for name, value in overrides.items() if value is not None}
    return SizedMarket(equity, price, replace(rules, **known), request.leverage_cap, others)


def _rules(account: AccountSnapshot, symbol: str) -> Instrument:
    found = next((each for each in account.instruments or () if each.symbol == symbol), Instrument(symbol))
    if found.contract_size is None and account.market in HOLDINGS:
        return replace(found, contract_size=Decimal(1))  # an amount of a holding is in base units
    return found


def _misfit(account: AccountSnapshot, symbol: str) -> str | None:
    """Why a size in this market cannot be counted in the account's currency; None if it can."""
    coin = settlement(symbol)
    if coin in ("", account.currency):
        return None
    return f"{symbol} settles in {coin}, and account {account.account} counts in {account.currency}"


def _read(account: AccountSnapshot, name: str, value: Decimal | None, now: datetime) -> SizingInput:
    """A number of the account with its age; unknown unless the account was read whole."""
    at = account.observed_at
    age = None if at is None else max(0.0, (now - at).total_seconds())
    source = f"account {account.account}"
    if account.quality != "ok":
        return SizingInput(name, None, source, age, f"{source} is {account.quality}: {account.reason or 'no reason'}")
    if value is None or not sane(value):
        return SizingInput(name, None, source, age, f"{source} has no {name}")
    return SizingInput(name, value, source, age)


def _price(account: AccountSnapshot, symbol: str, now: datetime) -> SizingInput:
    """The mark price of a symbol that the account holds or watches, with the age of the price itself."""
    found = next(_prices(account, symbol), None)
    if found is None:
        why = f"account {account.account} neither holds nor watches {symbol}: give the price, or name it under `watch`"
        return SizingInput("price", None, f"account {account.account}", unknown=why)
    value, at = found
    read = _read(account, "price", value, now)
    return read if at is None else replace(read, age=max(0.0, (now - at).total_seconds()))


def _prices(account: AccountSnapshot, symbol: str) -> Iterator[tuple[Decimal, datetime | None]]:
    for position in account.positions or ():
        if position.symbol == symbol and position.mark_price is not None:
            yield position.mark_price, position.mark_at or account.marked_at
    for watched in account.watched or ():
        if watched.symbol == symbol and watched.mark_price is not None:
            yield watched.mark_price, watched.at


def other_positions(account: AccountSnapshot, symbols: Collection[str], now: datetime) -> SizingInput:
    """The gross notional of the positions in other symbols; unknown where one of them is."""
    total: Decimal | None = None if account.positions is None else Decimal(0)
    rules = {each.symbol: each for each in account.instruments or ()}
    for position in account.positions or ():
        if position.symbol not in symbols and total is not None:
            own = notional(position, account, rules.get(position.symbol))
            total = None if own is None else total + own
    return _read(account, "other positions", total, now)


def _volatility(symbol: str, account: AccountSnapshot | None, now: datetime) -> SizingInput:
    """The venue's daily volatility of the symbol, scaled to a year by the root of its days."""
    if account is None:
        return SizingInput("volatility", None, unknown="volatility is not given")
    daily = next((each.volatility for each in account.liquidity or () if each.symbol == symbol), None)
    of_year = None if daily is None else Decimal(repr(daily * sqrt(DAYS_OF_YEAR)))
    return _read(account, "volatility", of_year, now)
