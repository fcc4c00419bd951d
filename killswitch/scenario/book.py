"""The books of a scenario: series of equity, prices and flows become the snapshots that a venue would report.

Equity changes by the profit of positions, by flows, and by nothing else. Where equity is a series, the first position
with a single price moves such that it is as written; where positions are unknown, what flows do not explain is profit
of a book that the venue does not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal, localcontext

from msgspec import Struct

from killswitch.model.snapshot import (
    AccountSnapshot,
    Fill,
    FillCause,
    Flow,
    Health,
    Instrument,
    Order,
    Position,
    Snapshot,
    WatchedPrice,
)
from killswitch.scenario.cases import AccountSeries, MoneyFlow, PositionSeries, Scenario
from killswitch.scenario.series import Unread, Value

ZERO, ONE = Decimal(0), Decimal(1)
SAME = Decimal("1e-9")
"""Relative tolerance within which two computations of equity agree."""
DIGITS = Decimal("1e-10")
"""Computed prices and equity are rounded to ten decimals."""


_CAUSES: dict[str, FillCause] = {"liquidation": "liquidation", "adl": "adl"}


class ContradictionError(Exception):
    """The series of an account contradict each other at a step."""

    def __init__(self, account: str, step: int, text: str, fix: str) -> None:
        super().__init__(text)
        self.account, self.step, self.text, self.fix = account, step, text, fix


class _Held(Struct):
    """One position as it is held: its price, its contracts and its average entry.

    `shown`: what was shown of it last, `of`: the numbers of which that was made; most steps change nothing.
    """

    price: Decimal
    contracts: Decimal
    entry: Decimal
    of: tuple[Decimal | None, ...] = ()
    shown: Position | None = None


class AccountBook:
    """One account, step by step."""

    def __init__(self, account: AccountSeries) -> None:
        self._account = account
        self._equity = account.first_equity
        self._flows: dict[int, list[MoneyFlow]] = {}
        for each in account.flows:
            self._flows.setdefault(each.step, []).append(each)
        self._orders = _orders(account)
        self._moved = ZERO
        """Flows since the start, for a book whose positions are unknown."""
        self._held: list[_Held] = []
        self._seen_at: datetime | None = None
        self._last: AccountSnapshot | None = None
        self._rows: list[Flow] = []
        self._fills: list[Fill] = []

    def step(self, step: int, at: datetime) -> AccountSnapshot:
        """The snapshot of the account at a step, which follows the one before. ContradictionError."""
        account = self._account
        with localcontext() as context:
            context.prec = 40
            self._move(step, at)
            unread = account.unread.get(step)
            if unread is None:
                self._seen_at = at
                self._last = self._read(step, at)
                self._rows, self._fills = [], []
                return self._last
        return self._unread(unread, step)

    def skip(self, step: int, at: datetime) -> None:
        """A step that nobody measures. ContradictionError."""
        with localcontext() as context:
            context.prec = 40
            self._move(step, at)

    def _move(self, step: int, at: datetime) -> None:
        """Apply the step's flows, moves of prices, and trades."""
        account, before = self._account, self._equity
        flows = self._flows.get(step, ())
        moved = sum((each.amount for each in flows), ZERO) if flows else ZERO
        if step == 0 and moved:
            raise ContradictionError(account.name, 0, "money moves at the first step", "write it at a later step")
        self._rows += [
            Flow(f"{account.name}-f{step}-{n}", at, each.kind, each.amount, account.currency)
            for n, each in enumerate(flows)
            if each.kind != "unexplained"
        ]
        self._moved += moved
        wanted = self._wanted(step)
        positions = account.positions or ()
        if step == 0:
            self._held = [_Held(each.first_price, _number(each.contracts, 0), each.first_price) for each in positions]
            self._equity = before if wanted is None else wanted
            return
        profit, carrier = ZERO, None
        for each, held in zip(positions, self._held, strict=True):
            if each.price is None:
                carrier = (each, held)
                continue
            price = _known(each.price, step, held.price)
            profit += _profit(each, held, price)
            held.price = price
        if carrier is not None and wanted is not None:
            profit += self._carry(step, carrier, wanted - before - moved - profit)
        if (
            account.positions is not None
            and wanted is not None
            and abs(before + profit + moved - wanted) > (SAME * max(abs(wanted), Decimal(1)))
        ):
            raise self._contradiction(step, wanted, before + profit + moved)
        self._equity = before + profit + moved if wanted is None else wanted
        for each, held in zip(positions, self._held, strict=True):
            self._trade(each, held, _number(each.contracts, step), step, at)

    def _wanted(self, step: int) -> Decimal | None:
        """The equity that the scenario writes for this step; None if positions and flows determine it."""
        if self._account.equity is None:
            return None
        value = self._account.equity[step]
        return value if isinstance(value, Decimal) else self._equity

    def _carry(self, step: int, carrier: tuple[PositionSeries, _Held], profit: Decimal) -> Decimal:
        """Move the position's price such that its profit is `profit`; returns the profit that it makes."""
        each, held = carrier
        quantity = held.contracts * each.contract_size
        if not profit:
            return ZERO
        if not quantity:
            text = f"equity changes by {profit:f} while `{each.symbol}`, whose price moves it, is not held"
            raise ContradictionError(self._account.name, step, text, "hold a position, or write the change as a flow")
        change = profit / quantity if each.side == "long" else -profit / quantity
        price = held.price + change
        if price <= 0:
            text = f"equity as written needs a price of {price:.6g} of `{each.symbol}`"
            raise ContradictionError(
                self._account.name, step, text, "write more contracts, or a smaller change of equity"
            )
        held.price = price
        return profit

    def _contradiction(self, step: int, wanted: Decimal, is_now: Decimal) -> ContradictionError:
        positions = self._account.positions
        if not positions:
            text = f"equity is {wanted:f}, and nothing moves the {is_now:f} of a flat account"
            fix = "hold a position, or write the change as a flow"
        else:
            text = f"equity is {wanted:f}, and prices and flows make it {is_now:f}"
            fix = "write a single equity, or a single price of the position that moves it"
        return ContradictionError(self._account.name, step, text, fix)

    def _trade(self, each: PositionSeries, held: _Held, contracts: Decimal, step: int, at: datetime) -> None:
        """Trade to `contracts` at the current price."""
        amount = contracts - held.contracts
        if not amount:
            return
        opens = amount > 0
        side = "buy" if opens == (each.side == "long") else "sell"
        sign = 1 if each.side == "long" else -1
        realized = None if opens else -amount * each.contract_size * (held.price - held.entry) * sign
        if opens:
            held.entry = (held.entry * held.contracts + held.price * amount) / contracts
        held.contracts = contracts
        by = each.trades.get(step, "order")
        self._fills.append(
            Fill(
                f"{self._account.name}-t{step}-{each.symbol}", at, each.symbol, "buy" if side == "buy" else "sell",
                abs(amount), _rounded(held.price), position_side=each.side, realized_pnl=realized,
                cause=_CAUSES.get(by, "trade"),
                trigger_price=_rounded(held.price) if by == "stop" else None,
            )
        )  # fmt: skip

    def _read(self, step: int, at: datetime) -> AccountSnapshot:
        account = self._account
        is_absent = step in account.absent
        shown = None if account.positions is None else [
            _position(each, held, step) for each, held in zip(account.positions, self._held, strict=True)
            if held.contracts
        ]  # fmt: skip
        profits = [position.unrealized_pnl for position in shown or ()]
        profit: Decimal | None = None
        if shown is None:
            profit = self._equity - account.first_equity - self._moved
        elif all(each is not None for each in profits):
            profit = sum((each for each in profits if each is not None), ZERO)
        return AccountSnapshot(
            account=account.name, venue=account.venue, market=account.market, currency=account.currency, quality="ok",
            observed_at=at, equity=None if is_absent else _rounded(self._equity),
            unrealized=None if is_absent or profit is None else _rounded(profit),
            positions=None if shown is None else tuple(shown), orders=self._orders,
            flows=tuple(self._rows), fills=tuple(self._fills), instruments=_instruments(account) if step == 0 else (),
            health=_health(account, step), wallet_as_of=at, positions_as_of=at, marked_at=at,
            fills_as_of=at, flows_as_of=at, complete=True,
            free=_amount(account, "free", step), margin_used=_amount(account, "margin_used", step),
            maintenance_margin=_amount(account, "maintenance_margin", step), watched=_watched(account, step, at),
        )  # fmt: skip

    def _unread(self, quality: Unread, step: int) -> AccountSnapshot:
        account, last = self._account, self._last
        reason = f"the scenario says {quality}"
        if last is None:
            return AccountSnapshot(
                account=account.name, venue=account.venue, market=account.market, currency=account.currency,
                quality=quality, reason=reason, health=_health(account, step),
            )  # fmt: skip
        return AccountSnapshot(
            account=account.name, venue=account.venue, market=account.market, currency=account.currency,
            quality=quality, reason=reason, observed_at=self._seen_at, equity=last.equity,
            positions=last.positions, orders=last.orders, marked_at=last.marked_at,
            health=_health(account, step),
        )  # fmt: skip


def _profit(each: PositionSeries, held: _Held, price: Decimal) -> Decimal:
    move = (price - held.price) * held.contracts * each.contract_size
    return move if each.side == "long" else -move


def _rounded(value: Decimal) -> Decimal:
    """The value with at most ten decimals; one that was written with fewer is unchanged."""
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and -10 <= exponent <= 0:
        return value
    rounded = value.quantize(DIGITS).normalize()
    return rounded.quantize(ONE) if rounded == rounded.to_integral_value() else rounded


def _number(series: Sequence[Value], step: int) -> Decimal:
    value = series[step]
    return value if isinstance(value, Decimal) else ZERO


def _known(series: Sequence[Value], step: int, last: Decimal) -> Decimal:
    """The value at a step; an unknown one leaves the price where it was."""
    value = series[step]
    return value if isinstance(value, Decimal) else last


def _optional(series: Sequence[Value] | None, step: int) -> Decimal | None:
    value = None if series is None else series[step]
    return value if isinstance(value, Decimal) else None


def _position(each: PositionSeries, held: _Held, step: int) -> Position:
    is_unknown = each.price is not None and each.price[step] is None
    liquidation, margin = _optional(each.liquidation, step), _optional(each.margin, step)
    of = (None if is_unknown else held.price, held.contracts, held.entry, liquidation, margin)
    if held.shown is None or of != held.of:
        held.of, held.shown = of, _shown(each, held, liquidation, margin, is_unknown=is_unknown)
    return held.shown


def _shown(
    each: PositionSeries, held: _Held, liquidation: Decimal | None, margin: Decimal | None, *, is_unknown: bool
) -> Position:
    quantity = held.contracts * each.contract_size
    sign = 1 if each.side == "long" else -1
    price = None if is_unknown else _rounded(held.price)
    return Position(
        symbol=each.symbol, side=each.side, contracts=held.contracts, entry_price=_rounded(held.entry),
        mark_price=price, index_price=price, last_price=price,
        notional=None if is_unknown else _rounded(held.price * quantity),
        unrealized_pnl=None if is_unknown else _rounded((held.price - held.entry) * quantity * sign),
        liquidation_price=liquidation, margin=margin,
    )  # fmt: skip


def _orders(account: AccountSeries) -> tuple[Order, ...]:
    return tuple(
        Order(
            each.id, each.symbol, each.side, each.amount, type="limit" if each.price is not None else "market",
            price=each.price, trigger_price=each.trigger_price, filled=ZERO, reduce_only=each.reduce_only,
        )
        for each in account.orders
    )  # fmt: skip


def _instruments(account: AccountSeries) -> tuple[Instrument, ...]:
    found = {
        each.symbol: Instrument(
            each.symbol, contract_size=each.contract_size, amount_step=each.amount_step, price_step=each.price_step
        )
        for each in account.positions or ()
    }
    return tuple(found.values())


def _watched(account: AccountSeries, step: int, at: datetime) -> tuple[WatchedPrice, ...] | None:
    """The prices of the watch list; None without one."""
    if not account.watch:
        return None
    return tuple(
        WatchedPrice(symbol, mark_price=_optional(prices, step), at=at) for symbol, prices in account.watch.items()
    )


def _amount(account: AccountSeries, key: str, step: int) -> Decimal | None:
    return _optional(account.amounts.get(key), step)


def _health(account: AccountSeries, step: int) -> Health | None:
    if not account.health:
        return None
    found: dict[str, Decimal | None] = {key: _optional(series, step) for key, series in account.health.items()}

    def count(key: str) -> int | None:
        value = found.get(key)
        return None if value is None else int(value)

    def number(key: str) -> float | None:
        value = found.get(key)
        return None if value is None else float(value)

    return Health(
        latency_ms=number("latency_ms"), requests=count("requests"), errors=count("errors"),
        timeouts=count("timeouts"), malformed=count("malformed"), rate_limited=count("rate_limited"),
        clock_skew_ms=number("clock_skew_ms"),
    )  # fmt: skip


def require_consistent(scenario: Scenario) -> None:
    """ContradictionError if the series of an account contradict each other at a step."""
    for account in scenario.accounts:
        if account.flows or account.equity is not None:  # otherwise positions alone move equity
            book = AccountBook(account)
            for step in range(scenario.steps):
                book.skip(step, scenario.starts)


def snapshots(scenario: Scenario) -> Iterator[tuple[int, Snapshot]]:
    """Yield every step that the runner measures, with its snapshot; those of an outage are left out.

    What happens during an outage is seen after it, with its rows. ContradictionError.
    """
    books = [AccountBook(each) for each in scenario.accounts]
    silent = {step for outage in scenario.outages for step in range(outage.last + 1, outage.first)}
    events = scenario.events
    for step in range(scenario.steps):
        at = scenario.at(step)
        if step in silent:
            for book in books:
                book.skip(step, at)
            continue
        accounts = tuple(book.step(step, at) for book in books)
        is_push = step in scenario.pushes
        yield step, Snapshot(
            at, accounts, "killswitch.snapshot/v1", scheduled=not is_push, due=None if is_push else at,
            events=events.get(step, ()),
        )  # fmt: skip
