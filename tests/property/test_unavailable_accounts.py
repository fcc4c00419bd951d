"""While an account is unavailable, its scope's equity and fall lie between the bounds, whatever prices do.

The world knows the equity of both accounts: Σ contracts × (price − entry) on top of the cash, in exact decimals. In an
outage positions are kept or reduced, at any price on the way; the bounds exclude what opens, grows or flips them."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import event, example, given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Mark
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import drawdown
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, position

SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT")
START = Decimal(1000)
CASH = Decimal(100_000)
WINDOW = 15 * MINUTE
LITTLE, CENT = 1e-9, Decimal("0.01")


class Book(Struct, frozen=True):
    """Signed contracts of each symbol, all entered at the start, and the profit realised since."""

    name: str
    contracts: tuple[int, int]
    realized: Decimal = Decimal(0)

    def equity(self, prices: tuple[Decimal, Decimal]) -> Decimal:
        return (
            CASH
            + self.realized
            + sum((n * (p - START) for n, p in zip(self.contracts, prices, strict=True)), Decimal(0))
        )

    def reduced(self, parts: tuple[int, int], prices: tuple[Decimal, Decimal]) -> Book:
        """After so many tenths of the positions were closed at these prices, each separately."""
        one, other = (int(size * (10 - part) / 10) for size, part in zip(self.contracts, parts, strict=True))
        closed = replace(self, contracts=(one, other))
        return replace(closed, realized=self.realized + self.equity(prices) - closed.equity(prices))

    def seen(self, prices: tuple[Decimal, Decimal]) -> AccountSnapshot:
        held = [
            position(
                symbol, "long" if size > 0 else "short", str(size * (price - START)), contracts=str(abs(size)),
                entry_price=str(START), mark_price=str(price), notional=str(abs(size) * price),
            )
            for symbol, size, price in zip(SYMBOLS, self.contracts, prices, strict=True) if size
        ]  # fmt: skip
        marks = tuple(Mark(symbol, price) for symbol, price in zip(SYMBOLS, prices, strict=True))
        return account(str(self.equity(prices)), held, name=self.name, marks=marks)

    def down(self) -> AccountSnapshot:
        return account(None, None, name=self.name, quality="down", reason="timeout")


sizes = st.tuples(st.integers(-60, 60), st.integers(-60, 60))
steps = st.lists(
    st.tuples(st.sampled_from((-80, -25, -5, 0, 5, 25, 80)), st.sampled_from((-80, -25, 0, 25, 80)), st.booleans()),
    min_size=1,
    max_size=20,
)


@given(sizes, sizes, steps)
def test_the_truth_lies_between_the_bounds(
    a: tuple[int, int], b: tuple[int, int], walk: list[tuple[int, int, bool]]
) -> None:
    """Prices walk by per mille, `b` is unavailable at some ticks; nobody trades, and both equities stay positive."""
    first, second = Book("a", a), Book("b", b)
    past = History((WINDOW,), HOUR, EquityTerms(10 * MINUTE, 0.001, 60 * SECOND))
    prices, seen_worths, spell = (START, START), [], []
    for minute, (one, other, is_down) in enumerate([(0, 0, False), *walk]):
        prices = (prices[0] * (1000 + one) / 1000, prices[1] * (1000 + other) / 1000)
        now = first.equity(prices) + second.equity(prices)
        if min(first.equity(prices), second.equity(prices)) <= 0:
            break
        if is_down:
            spell.append(now)
        else:  # a peak that only an outage shorter than max_gap hid is none, as ever
            spell.clear()
            seen_worths.append((minute, now))
        seen = second.down() if is_down else second.seen(prices)
        past.observe(ScopeView(to_micros(after(minutes=minute)), True, (first.seen(prices), seen), {}, None))
        highest = max([*(value for at, value in seen_worths if at >= minute - 15), *spell])
        low, high = drawdown(past, WINDOW)
        fall = float(1 - now / highest)
        assert low - LITTLE <= fall <= high + LITTLE
        if past.equity_range is not None and past.equity_range.high.is_finite():
            assert past.equity_range.low - CENT <= now <= past.equity_range.high + CENT
            event("bounded both ways")


reductions = st.lists(
    st.tuples(
        st.sampled_from((-80, -25, 0, 25, 80)), st.sampled_from((-80, -25, 0, 25, 80)),
        st.sampled_from((0, 0, 3, 10)), st.sampled_from((0, 0, 3, 10)),
    ),
    min_size=1,
    max_size=9,
)  # fmt: skip


@example((0, 0), (50, 0), [(-80, 0, 10, 0), (80, 0, 0, 0)])  # closed at the low, before the price comes back
@given(sizes, sizes, reductions)
def test_reductions_during_an_outage_lie_between_the_bounds(
    a: tuple[int, int], b: tuple[int, int], walk: list[tuple[int, int, int, int]]
) -> None:
    """`b` is unavailable from the second minute on, and closes parts of its positions at the prices of each."""
    first, second = Book("a", a), Book("b", b)
    past = History((WINDOW,), HOUR, EquityTerms(10 * MINUTE, 0.001, 60 * SECOND))
    prices = (START, START)
    start = first.equity(prices) + second.equity(prices)
    past.observe(ScopeView(to_micros(after()), True, (first.seen(prices), second.seen(prices)), {}, None))
    highest = start
    for minute, (one, other, *parts) in enumerate(walk, 1):
        prices = (prices[0] * (1000 + one) / 1000, prices[1] * (1000 + other) / 1000)
        second = second.reduced((parts[0], parts[1]), prices)
        now = first.equity(prices) + second.equity(prices)
        if min(first.equity(prices), second.equity(prices)) <= 0:
            break
        highest = max(highest, now)
        past.observe(ScopeView(to_micros(after(minutes=minute)), True, (first.seen(prices), second.down()), {}, None))
        assert past.equity_range is not None
        assert past.equity_range.high.is_finite()
        assert past.equity_range.low - CENT <= now <= past.equity_range.high + CENT
        low, high = drawdown(past, WINDOW)
        assert low - LITTLE <= float(1 - now / highest) <= high + LITTLE
