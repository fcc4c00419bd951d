"""No order creates or destroys money in the paper market."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.market.tape import MarketBar
from killswitch.model.snapshot import AccountSnapshot, Market
from killswitch.model.venue import OrderRejectedError, OrderRequest
from tests.markets import START, instrument

SYMBOLS = ("A", "B")
CONTRACT = {"A": "1", "B": "0.1"}
WALLET = Decimal(5000)
RULES = MarketRules(jitter=Decimal("0.5"), impact=Decimal("0.2"))


class Send(Struct, frozen=True):
    symbol: str
    side: str
    thousandths: int
    reduce_only: bool
    limit: int | None
    ioc: bool = False
    trigger: int | None = None
    falls: bool = True


class Pass(Struct, frozen=True):
    """A bar of each symbol: open, close and the reach of its extremes in cents, and its volume."""

    prices: tuple[tuple[int, int, int, int, int], ...]


class Cancel(Struct, frozen=True):
    number: int


class Money(Struct, frozen=True):
    kind: str
    amount: int


class Intervention(Struct, frozen=True):
    """The venue takes a part of a position, in twentieths, at a price in cents."""

    symbol: str
    twentieths: int
    cents: int


Step = Send | Pass | Cancel | Money | Intervention

_cents = st.integers(4000, 16000)
_bars = st.tuples(_cents, _cents, st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 3000))
_steps = st.one_of(
    st.builds(
        Send,
        st.sampled_from(SYMBOLS),
        st.sampled_from(["buy", "sell"]),
        st.integers(1, 400_000),
        st.booleans(),
        st.none() | _cents,
        st.booleans(),
        st.none() | _cents,
        st.booleans(),
    ),
    st.builds(Pass, st.tuples(_bars, _bars)),
    st.builds(Cancel, st.integers(1, 20)),
    st.builds(Money, st.sampled_from(["deposit", "withdrawal", "funding"]), st.integers(0, 1000)),
    st.builds(Intervention, st.sampled_from(SYMBOLS), st.integers(1, 20), _cents),
)
plays = st.lists(_steps, max_size=30)
markets = st.sampled_from(["swap", "spot", "hedge"])
"""A swap in hedge mode counts as a market of its own."""


class Session:
    """A market and the steps done to it so far."""

    def __init__(self, market: str, seed: int = 7) -> None:
        symbols = [instrument(name, contract_size=CONTRACT[name]) for name in SYMBOLS]
        self.market = PaperMarket(symbols, seed=seed, rules=RULES, recall=timedelta(days=99))
        kind: Market = "spot" if market == "spot" else "swap"
        leverage = Decimal(10 if kind == "swap" else 1)
        self.market.add_account(
            "main", market=kind, currency="USDT", wallet=WALLET, leverage=leverage, hedge=market == "hedge"
        )
        self.reduce_only: set[str] = set()
        self._sent = 0
        self.do(Pass(((10000, 10000, 0, 0, 2000),) * 2))

    def do(self, step: Step) -> None:
        if isinstance(step, Send):
            self._send(step)
        elif isinstance(step, Pass):
            at = (self.market.now or START) + timedelta(minutes=1)
            bars = zip(SYMBOLS, step.prices, strict=True)
            self.market.advance(at, {name: _bar(*prices) for name, prices in bars})
        elif isinstance(step, Cancel):
            for order in self.market.open_orders("main")[: step.number % 3]:
                self.market.cancel("main", order.symbol, order.id)
        elif isinstance(step, Intervention):
            self._take(step)
        else:
            sign = -1 if step.kind == "withdrawal" else 1
            self.market.flow("main", step.kind, Decimal(sign * step.amount))  # type: ignore[arg-type] # one of three

    def _take(self, step: Intervention) -> None:
        for held in self.seen.positions or ():
            if held.symbol == step.symbol and self.seen.market == "swap":
                lots = int(held.contracts * 1000 * step.twentieths / 20)
                if lots:
                    price = Decimal(step.cents) / 100
                    self.market.deleverage("main", step.symbol, Decimal(lots) / 1000, price, side=held.side)

    def _send(self, step: Send) -> None:
        self._sent += 1
        sells = step.side == "sell"
        request = OrderRequest(
            client_order_id=f"c{self._sent}",
            symbol=step.symbol,
            side="sell" if sells else "buy",
            position_side="long" if sells == step.reduce_only else "short",
            amount=Decimal(step.thousandths) / 1000,
            reduce_only=step.reduce_only,
            type="market" if step.limit is None else "limit",
            price=None if step.limit is None else Decimal(step.limit) / 100,
            time_in_force="ioc" if step.ioc else "gtc",
            trigger_price=None if step.trigger is None else Decimal(step.trigger) / 100,
            trigger_when=None if step.trigger is None else "falls" if step.falls else "rises",
        )
        try:
            report = self.market.submit("main", request)
        except OrderRejectedError:
            return
        if step.reduce_only:
            self.reduce_only.add(report.id)

    @property
    def seen(self) -> AccountSnapshot:
        return self.market.snapshot("main")


def _bar(opened: int, closed: int, up: int, down: int, volume: int) -> MarketBar:
    high, low = max(opened, closed) + up, min(opened, closed) - down
    return MarketBar(*(Decimal(cents) / 100 for cents in (opened, high, low, closed)), Decimal(volume))


def _played(market: str, steps: Iterable[Step]) -> Session:
    play = Session(market)
    for step in steps:
        play.do(step)
    return play


@given(markets, plays)
def test_equity_is_flows_plus_profit(market: str, steps: list[Step]) -> None:
    """After every step equity is start + flows + realised − fees + unrealised, to the last digit."""
    play = Session(market)
    for step in steps:
        play.do(step)
        seen = play.seen
        assert seen.fills is not None and seen.flows is not None and seen.positions is not None
        realized = sum(((fill.realized_pnl or 0) - (fill.fee or 0) for fill in seen.fills), Decimal(0))
        unrealized = sum((position.unrealized_pnl or 0 for position in seen.positions), Decimal(0))
        flows = sum((flow.amount for flow in seen.flows), Decimal(0))
        assert seen.equity == WALLET + flows + realized + unrealized


@given(markets, plays)
def test_equity_is_cash_flow_plus_holdings(market: str, steps: list[Step]) -> None:
    """The same without any P&L: cash paid and received for goods, and goods at their price. So is the position."""
    seen = _played(market, steps).seen
    assert seen.fills is not None and seen.flows is not None and seen.positions is not None
    money = WALLET + sum(flow.amount for flow in seen.flows)
    goods = dict.fromkeys(SYMBOLS, Decimal(0))
    for fill in seen.fills:
        bought = fill.amount * Decimal(CONTRACT[fill.symbol]) * (1 if fill.side == "buy" else -1)
        goods[fill.symbol] += bought
        money -= bought * fill.price + (fill.fee or 0)
    held = dict.fromkeys(SYMBOLS, Decimal(0))
    for p in seen.positions:
        held[p.symbol] += p.contracts * Decimal(CONTRACT[p.symbol]) * (1 if p.side == "long" else -1)
    marks = {p.symbol: p.mark_price or Decimal(0) for p in seen.positions}
    assert held == goods
    assert seen.equity == money + sum(quantity * marks[symbol] for symbol, quantity in held.items() if quantity)


@given(markets, plays)
def test_reduce_only_never_reverses_a_position(market: str, steps: list[Step]) -> None:
    """Fill by fill, a reduce-only order only ever makes a position smaller."""
    play = _played(market, steps)
    held: dict[tuple[str, str | None], Decimal] = {}
    for fill in play.seen.fills or ():
        key = (fill.symbol, fill.position_side if market == "hedge" else None)
        before = held.get(key, Decimal(0))
        held[key] = after = before + (fill.amount if fill.side == "buy" else -fill.amount)
        if market == "hedge":
            assert after >= 0 if fill.position_side == "long" else after <= 0
        if fill.order in play.reduce_only:
            assert abs(after) < abs(before)
            assert before * after >= 0


@given(markets, plays)
def test_no_order_fills_more_than_its_amount(market: str, steps: list[Step]) -> None:
    """Positions and fills are above zero, and no order's fills sum to more than its amount."""
    play = _played(market, steps)
    seen = play.seen
    assert all(position.contracts > 0 for position in seen.positions or ())
    assert all(fill.amount > 0 and fill.price > 0 and (fill.fee or 0) >= 0 for fill in seen.fills or ())
    for number in range(1, len(steps) + 1):
        for symbol in SYMBOLS:
            report = play.market.find_order("main", symbol, f"c{number}")
            if report is not None:
                assert 0 <= report.filled <= report.amount
                assert (report.state == "filled") == (report.filled == report.amount)


@given(markets, plays)
def test_an_immediate_order_is_final_when_answered(market: str, steps: list[Step]) -> None:
    """None is ever listed as open, except one that waits for its trigger."""
    play = Session(market)
    immediate = set()
    for number, step in enumerate(step for step in steps if isinstance(step, Send)):
        if step.ioc:
            immediate.add(f"c{number + 1}")
    for step in steps:
        play.do(step)
        for order in play.market.open_orders("main"):
            assert order.client_order_id not in immediate or order.trigger_price is not None


@given(plays, st.integers(45_000, 50_000))
def test_a_spot_account_never_has_debt(steps: list[Step], all_in: int) -> None:
    """For any trades, all in from the start, cash stays at or above zero while nobody withdraws."""
    kept: list[Step] = [Send("A", "buy", all_in, reduce_only=False, limit=None)]
    kept += [step for step in steps if not isinstance(step, Money)]
    balances = _played("spot", kept).seen.balances
    assert balances is not None
    assert all(balance.amount >= 0 for balance in balances)


@given(plays)
def test_after_a_bar_an_account_has_its_maintenance_margin_or_no_position(steps: list[Step]) -> None:
    """The venue's liquidation leaves equity above the maintenance margin at the close, or no position."""
    heavy: list[Step] = [Send(symbol, "buy", 150_000, reduce_only=False, limit=None) for symbol in SYMBOLS]
    seen = _played("swap", [*heavy, *steps, Pass(((10000, 9000, 100, 100, 500),) * 2)]).seen
    assert seen.equity is not None and seen.maintenance_margin is not None
    assert seen.equity > seen.maintenance_margin or not seen.positions


@given(markets, plays)
def test_the_same_steps_give_the_same_result(market: str, steps: list[Step]) -> None:
    """Same seed, same steps: the same snapshot, ids and slippage included."""
    assert _played(market, steps).seen == _played(market, steps).seen
