"""What the paper venue tells about an account: its snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from killswitch.market.account import PaperAccount
from killswitch.market.checks import free_money
from killswitch.market.holding import ZERO, Holding
from killswitch.market.instruments import base_asset
from killswitch.market.margin import Margin, initial_margin, liquidation_price
from killswitch.market.rules import MarketRules
from killswitch.market.tape import Tape
from killswitch.model.snapshot import AccountSnapshot, Balance, Health, Position

_ONE = Decimal(1)


def view(
    account: PaperAccount,
    tapes: Mapping[str, Tape],
    rules: MarketRules,
    at: datetime,
    with_instruments: bool,
) -> AccountSnapshot:
    """Everything about `account` as of `at`. The paper market has one price: mark, index and last are the same."""
    marks = {symbol: tapes[symbol].last or ZERO for symbol in account.holdings}
    margin = account.margin(marks, rules.maintenance)
    positions = tuple(
        _position(account, symbol, holding, tapes[symbol], margin, rules)
        for symbol, holding in account.holdings.items()
    )
    cash = account.is_cash
    return AccountSnapshot(
        account=account.name,
        venue=account.venue,
        market=account.market,
        currency=account.currency,
        quality="ok",
        observed_at=at,
        equity=_clean(margin.equity),
        free=_clean(free_money(account, tapes, rules)),
        margin_used=ZERO if cash else _clean(margin.used),
        maintenance_margin=ZERO if cash else _clean(margin.maintenance),
        margin_mode=None if cash else "cross",
        position_mode="one_way",
        balances=_balances(account, tapes),
        flows=tuple(account.flows),
        positions=positions,
        orders=tuple(order.resting() for order in account.working),
        fills=tuple(account.fills),
        instruments=tuple(tape.instrument for tape in tapes.values()) if with_instruments else None,
        health=Health(latency_ms=0.0, requests=1, errors=0, timeouts=0, malformed=0, rate_limited=0, clock_skew_ms=0.0),
    )


def _position(
    account: PaperAccount, symbol: str, holding: Holding, tape: Tape, margin: Margin, rules: MarketRules
) -> Position:
    last = tape.last or ZERO
    size = abs(holding.quantity)
    notional = size * last
    cash = account.is_cash
    return Position(
        symbol=symbol,
        side=holding.side,
        contracts=size if tape.size == 1 else size / tape.size,
        entry_price=holding.entry_price,
        mark_price=last,
        index_price=last,
        last_price=last,
        bid=tape.bid(rules),
        ask=tape.ask(rules),
        liquidation_price=None if cash else liquidation_price(holding, last, margin, rules.maintenance, tape.tick),
        notional=notional,
        margin=None if cash else initial_margin(notional, holding.leverage),
        leverage=None if cash else holding.leverage,
        unrealized_pnl=_clean(holding.unrealized(last)),
    )


def _balances(account: PaperAccount, tapes: Mapping[str, Tape]) -> tuple[Balance, ...]:
    """Money first. In a cash market what is held is a balance too; the sum at these prices is the equity."""
    if not account.is_cash:
        return (Balance(account.currency, _clean(account.wallet), _ONE, ZERO),)
    held = tuple(
        Balance(base_asset(symbol), holding.quantity, tapes[symbol].last, ZERO)
        for symbol, holding in account.holdings.items()
    )
    return (Balance(account.currency, _clean(account.cash), _ONE, ZERO), *held)


def _clean(money: Decimal) -> Decimal:
    """The same number; a zero without its decimals, which would be written `0E-8`."""
    return money if money else ZERO
