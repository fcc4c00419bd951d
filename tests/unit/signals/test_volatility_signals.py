"""Volatility, moves, jumps and correlations of markets, and the expected move of the book, from sampled prices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal

import numpy as np
import pytest
from msgspec import json as msgjson
from sklearn.covariance import LedoitWolf

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.model.snapshot import AccountSnapshot, CorporateAction, Snapshot, WatchedPrice
from killswitch.risk.covariance import shrunk_covariance, shrunk_covariance_array
from killswitch.signals.arguments import Value
from killswitch.signals.history.prices import StoredSamples
from killswitch.signals.history.scope import History
from killswitch.signals.signal_values import ColumnReader
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, position, rules, snapshot
from tests.worlds.firings import Scenario
from tests.worlds.signals import history_of

Interval = tuple[float, float]
UNKNOWN = (-math.inf, math.inf)
A_YEAR = 365 * 86_400


def watched(price: object, at: float, *, printed: float | None = None, symbol: str = "BTC") -> WatchedPrice:
    when = after(seconds=at if printed is None else printed)
    return WatchedPrice(symbol, mark_price=Decimal(str(price)), at=when)


def minutes(*prices: float | None, symbol: str = "BTC", **more: object) -> list[AccountSnapshot]:
    """An account that watches a symbol: its price each minute; None where the account is down."""
    rows = [None if price is None else watched(price, 60 * i, symbol=symbol) for i, price in enumerate(prices)]
    return [
        account("1000", quality="down", reason="no answer") if row is None else account("1000", watched=(row,), **more)  # type: ignore[arg-type] # fields of the account
        for row in rows
    ]


def value(
    name: str, arguments: Sequence[Value], answers: Sequence[AccountSnapshot | Sequence[AccountSnapshot]],
    step: float = 60, max_gap: int = 10 * MINUTE, later: float = 0,
) -> Interval:  # fmt: skip
    """The interval of a signal after these answers, `step` seconds apart; `later`: seconds after the last one."""
    reference = SignalRef(name, tuple(arguments))
    history, reader = history_of([reference], max_gap=max_gap), ColumnReader([reference])
    for i, each in enumerate(answers):
        history.observe(seen(i * step, each))
    last = seen((len(answers) - 1) * step + later, answers[-1])
    columns = reader.read(history, last)
    return columns.lo[0], columns.hi[0]


def seen(at: float, answers: AccountSnapshot | Sequence[AccountSnapshot]) -> ScopeView:
    accounts = [answers] if isinstance(answers, AccountSnapshot) else answers
    return ScopeView(to_micros(after(seconds=at)), True, accounts, {}, None)


def exactly(number: float) -> object:
    return pytest.approx((number, number), rel=1e-9, abs=1e-12)


# Volatility


def test_volatility_of_prices_that_alternate() -> None:
    """100, 101, 100, 101 each minute: returns of 1%, −0.990…% and 1%, by hand 0.011490 × √525,600 = 8.330."""
    lo, hi = value("market.volatility", ("BTC", 3 * MINUTE, MINUTE), minutes(100, 101, 100, 101))
    assert (lo, hi) == pytest.approx((8.330, 8.330), abs=5e-4)


def test_volatility_of_a_constant_price_is_zero() -> None:
    """Fresh prints of the same price: the market is calm."""
    assert value("market.volatility", ("BTC", 3 * MINUTE, MINUTE), minutes(*[100] * 4)) == (0.0, 0.0)


def test_a_frozen_feed_has_no_volatility() -> None:
    """A fresh answer with the same print is frozen, not calm."""
    frozen = [account("1000", watched=(watched(100, 60 * i, printed=0),)) for i in range(4)]
    assert value("market.volatility", ("BTC", 3 * MINUTE, MINUTE), frozen) == UNKNOWN


@pytest.mark.parametrize(("every", "window"), [(1, 60), (5, 240), (7, 300)])
def test_volatility_equals_numpy(every: int, window: int) -> None:
    """Of a random walk with ticks of 20 s: the first price of each grid point of the window, and NumPy's std."""
    path = 100 * np.exp(np.cumsum(np.random.default_rng(7).normal(0, 1e-3, 3 * 400)))
    answers = [account("1000", watched=(watched(price, 20 * i),)) for i, price in enumerate(path)]
    first = to_micros(after(seconds=20 * (len(path) - 1))) - window * MINUTE
    inside = [
        price
        for i, price in enumerate(path)
        if (at := to_micros(after(seconds=20 * i))) % (every * MINUTE) == 0 and at >= first
    ]
    prices = np.array([float(Decimal(str(each))) for each in inside])
    expected = np.std(prices[1:] / prices[:-1] - 1, ddof=1) * math.sqrt(A_YEAR / (60 * every))
    found = value("market.volatility", ("BTC", window * MINUTE, every * MINUTE), answers, step=20)
    assert found == exactly(float(expected))


@pytest.mark.parametrize(
    ("missing", "is_known"), [((), True), ((3, 7), True), ((2, 5, 8), False), ((4, 5), True), ((3, 4, 5), False)]
)
def test_fewer_than_four_fifths_of_the_returns_are_too_few(missing: tuple[int, ...], is_known: bool) -> None:
    """Ten are expected of ten minutes. Each minute without an answer lacks one: 8 are enough, 7 are not."""
    prices = [None if i in missing else 100.0 + i % 3 for i in range(11)]
    found = value("market.volatility", ("BTC", 10 * MINUTE, MINUTE), minutes(*prices))
    assert (found != UNKNOWN) is is_known


def test_one_return_has_no_deviation() -> None:
    """Two prices and one return: a standard deviation needs two."""
    assert value("market.volatility", ("BTC", MINUTE, MINUTE), minutes(100, 101)) == UNKNOWN


def test_shares_have_a_year_of_sessions() -> None:
    """252 sessions of 23,400 s: the same returns of a minute are 8.330 × √(98,280 ÷ 525,600) of a year."""
    answers = minutes(100, 101, 100, 101, market="equity")
    found = value("market.volatility", ("BTC", 3 * MINUTE, MINUTE), answers)
    returns = np.array([0.01, 100 / 101 - 1, 0.01])
    assert found == exactly(float(np.std(returns, ddof=1) * math.sqrt(252 * 390)))


def test_the_venue_that_moves_most_counts() -> None:
    """A symbol of one name at two venues; without an answer of one it is at least that of the other."""
    calm = [account("1", name="a", venue="x", watched=(watched(100 + i % 2, 60 * i),)) for i in range(4)]
    wild = [account("1", name="b", venue="y", watched=(watched(100 + 5 * (i % 2), 60 * i),)) for i in range(4)]
    arguments = ("BTC", 3 * MINUTE, MINUTE)
    alone = value("market.volatility", arguments, calm)[0]
    both = value("market.volatility", arguments, list(zip(calm, wild, strict=True)))
    assert both[0] == both[1] > 4 * alone
    down = account("1", name="b", venue="y", quality="down")
    late = [*zip(calm[:3], wild[:3], strict=True), (calm[3], down)]
    assert value("market.volatility", arguments, late) == pytest.approx((alone, math.inf))
    known_by_other = [(one, account("1", name="b", venue="x", quality="down")) for one in calm]
    assert value("market.volatility", arguments, known_by_other) == exactly(alone)


def test_a_symbol_that_nobody_watches_is_unknown() -> None:
    """Neither held nor on a watch list: nothing is known of it."""
    assert value("market.volatility", ("ETH", 3 * MINUTE, MINUTE), minutes(100, 101, 100, 101)) == UNKNOWN


def test_volatility_ratio_is_the_quotient() -> None:
    """The last four minutes against all twenty, by NumPy."""
    prices = [100 * (1 + 0.001 * (i % 2)) for i in range(17)] + [102.0, 99.0, 103.0, 98.0]
    change = np.array(prices[1:]) / np.array(prices[:-1]) - 1
    expected = float(np.std(change[-4:], ddof=1) / np.std(change, ddof=1))
    found = value("market.volatility_ratio", ("BTC", 4 * MINUTE, 20 * MINUTE, MINUTE), minutes(*prices))
    assert found == exactly(expected)


def test_volatility_ratio_of_nothing_is_unknown() -> None:
    """0 ÷ 0 of a constant price, and half an hour of history for an hour."""
    arguments = ("BTC", 3 * MINUTE, 6 * MINUTE, MINUTE)
    assert value("market.volatility_ratio", arguments, minutes(*[100] * 7)) == UNKNOWN
    assert value("market.volatility_ratio", arguments, minutes(100, 101, 100, 101)) == UNKNOWN


# Moves and jumps


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        pytest.param((100, 105, 110), 0.1, id="rise"),
        pytest.param((100, 105, 80), -0.2, id="fall"),
        pytest.param((50, 100, 105, 110), 0.1, id="older prices do not count"),
        pytest.param((100, None, 110), 0.1, id="the gap between does not matter"),
    ],
)
def test_move(prices: tuple[float | None, ...], expected: float) -> None:
    """Against the price two minutes ago, signed."""
    assert value("market.move", ("BTC", 2 * MINUTE), minutes(*prices)) == exactly(expected)


def test_move_from_the_last_price_before_the_window() -> None:
    """Nothing was observed exactly then: the last price before it counts, if it is within max_gap."""
    answers = minutes(100, None, None, 101, 102, 103)
    assert value("market.move", ("BTC", 3 * MINUTE), answers) == exactly(0.03)
    assert value("market.move", ("BTC", 3 * MINUTE), answers, max_gap=MINUTE) == UNKNOWN


def test_move_is_unknown_in_the_first_hours_of_a_listing_and_across_a_split() -> None:
    """The history does not reach back; the price is a tenth because the unit is."""
    assert value("market.move", ("BTC", 3 * MINUTE), minutes(100, 101, 102)) == UNKNOWN
    split = CorporateAction("s", after(), "BTC", Decimal(10))
    answers = minutes(100, 100, 100)
    tenth = account("1000", watched=(watched(10, 180),), corporate_actions=(split,))
    assert value("market.move", ("BTC", 3 * MINUTE), [*answers, tenth]) == UNKNOWN
    again = [account("1000", watched=(watched(11, 60 * i),)) for i in range(4, 7)]
    assert value("market.move", ("BTC", 2 * MINUTE), [*answers, tenth, *again]) == exactly(0.0)


def test_move_of_a_symbol_without_a_price_now_is_unknown() -> None:
    """It was delisted: the last price is no current one."""
    assert value("market.move", ("BTC", MINUTE), [*minutes(100, 101), account("1000")]) == UNKNOWN
    assert value("market.move", ("BTC", MINUTE), minutes(100, 101, None)) == UNKNOWN


def test_moves_of_two_venues_are_bounds() -> None:
    """−20% at one and −10% at the other."""
    pairs = [
        (
            account("1", name="a", venue="x", watched=(watched(one, 60 * i),)),
            account("1", name="b", venue="y", watched=(watched(other, 60 * i),)),
        )
        for i, (one, other) in enumerate([(100, 100), (80, 90)])
    ]
    assert value("market.move", ("BTC", MINUTE), pairs) == pytest.approx((-0.2, -0.1))


def alternating(count: int, size: float) -> list[float]:
    """Prices whose returns are ±size, with a sample standard deviation of size × √(n ÷ (n − 1))."""
    found = [100.0]
    for i in range(count):
        found.append(found[-1] * (1 + (size if i % 2 else -size)))
    return found


def test_a_jump_is_measured_in_deviations_of_the_window_before_it() -> None:
    """−5% after returns of ±1%: their deviation is 1% × √(20 ÷ 19), without the jump itself."""
    prices = alternating(20, 0.01)
    found = value("market.jump", ("BTC", 20 * MINUTE, MINUTE), minutes(*prices, prices[-1] * 0.95))
    assert found == exactly(0.05 / (0.01 * math.sqrt(20 / 19)))
    exact = alternating(20, 0.01 * math.sqrt(19 / 20))
    found = value("market.jump", ("BTC", 20 * MINUTE, MINUTE), minutes(*exact, exact[-1] * 0.95))
    assert found == exactly(5.0)


def test_a_jump_without_a_return_or_a_deviation_is_unknown() -> None:
    """After a constant price; after an outage; with the same print; and while the account is down."""
    arguments = ("BTC", 4 * MINUTE, MINUTE)
    assert value("market.jump", arguments, minutes(*[100] * 5, 95)) == UNKNOWN
    prices = alternating(5, 0.01)
    assert value("market.jump", arguments, minutes(*prices, *[None] * 11, 95)) == UNKNOWN
    same = account("1000", watched=(watched(95, 360, printed=300),))
    assert value("market.jump", arguments, [*minutes(*prices), same]) == UNKNOWN
    assert value("market.jump", arguments, minutes(*prices, None)) == UNKNOWN


def test_a_jump_remains_until_the_next_sample() -> None:
    """Between two grid points the last return is the same one."""
    prices = alternating(4, 0.01)
    answers = minutes(*prices, prices[-1] * 0.95)
    first = value("market.jump", ("BTC", 4 * MINUTE, MINUTE), answers)
    assert value("market.jump", ("BTC", 4 * MINUTE, MINUTE), answers, later=30) == first


# The book


def holding(*positions: tuple[str, str, float, float], equity: str = "100000", **more: object) -> AccountSnapshot:
    """An account that holds (symbol, side, mark, notional)."""
    rows = [
        position(symbol, side, "0", mark_price=str(mark), notional=str(notional))
        for symbol, side, mark, notional in positions
    ]
    return account(equity, rows, **more)  # type: ignore[arg-type] # fields of the account


def walk(returns: Sequence[float]) -> list[float]:
    return [100.0, *(100 * np.cumprod(1 + np.asarray(returns))).tolist()]


MOVE = (MINUTE, 1440 * MINUTE, MINUTE)


def test_expected_move_of_a_hedged_book() -> None:
    """Long and short 50,000, σ 1% and ρ 0.9: √(2 × 50,000² × 1%² × 0.1) ÷ 100,000 = 0.2236%.

    The returns are ±a and ±b of (1, 1) and (1, −1), with a² + b² = 1% squared, a² − b² = 0.9 of it, in equal numbers.
    Of so many the estimate shrinks by a part of 0.02%.
    """
    a, b = 0.01 * math.sqrt(0.95), 0.01 * math.sqrt(0.05)
    pattern = [(a + b, a - b), (-a - b, -a + b), (a - b, a + b), (-a + b, -a - b)]
    one, other = (walk([pattern[i % 4][k] for i in range(1440)]) for k in (0, 1))
    answers = [holding(("A", "long", x, 50_000), ("B", "short", y, 50_000)) for x, y in zip(one, other, strict=True)]
    lo, hi = value("equity.expected_move", MOVE, answers)
    assert lo == hi == pytest.approx(0.002236, rel=2e-3)
    hour, _ = value("equity.expected_move", (HOUR, *MOVE[1:]), answers)
    assert hour == pytest.approx(lo * math.sqrt(60))


def test_expected_move_is_that_of_the_covariance_of_scikit_learn() -> None:
    """Four markets, of which one is held on two accounts, and `LedoitWolf` of their simple returns."""
    rng = np.random.default_rng(3)
    moves = rng.normal(0, 0.01, (90, 4)) @ rng.normal(0, 1, (4, 4))
    paths = [walk(column) for column in moves.T]
    exposures = np.array([30_000.0, -20_000.0, 5_000.0, 45_000.0])
    answers = []
    for marks in zip(*paths, strict=True):
        book = [
            (symbol, "short" if x < 0 else "long", mark, abs(x) / (2 if symbol == "D" else 1))
            for symbol, mark, x in zip("ABCD", marks, exposures, strict=True)
        ]
        answers.append((holding(*book, name="one", equity="60000"), holding(book[3], name="two", equity="40000")))
    prices = np.array([[float(Decimal(str(x))) for x in path] for path in paths])
    returns = (prices[:, 1:] / prices[:, :-1] - 1).T
    covariance = LedoitWolf().fit(returns).covariance_
    expected = math.sqrt(exposures @ covariance @ exposures * 240) / 100_000
    found = value("equity.expected_move", (4 * HOUR, 90 * MINUTE, MINUTE), answers)
    assert found == exactly(expected)


def test_the_array_form_of_the_estimate_is_the_exact_one() -> None:
    """The two forms differ by rounding, and both equal scikit-learn's."""
    returns = np.random.default_rng(11).normal(0, 0.02, (7, 60))
    exact = np.array(shrunk_covariance(returns.tolist()))
    exposures = np.arange(7.0) - 3.0
    assert shrunk_covariance_array(returns).variance(exposures) == pytest.approx(
        exposures @ exact @ exposures, rel=1e-9
    )
    assert exact == pytest.approx(LedoitWolf().fit(returns.T).covariance_, rel=1e-9)


def test_expected_move_of_an_empty_book_is_zero() -> None:
    """And of one that is hedged within one market: nothing of it moves."""
    assert value("equity.expected_move", MOVE, [account("1000")]) == (0.0, 0.0)
    hedged = holding(("A", "long", 100, 500), ("A", "short", 100, 500))
    assert value("equity.expected_move", MOVE, [hedged]) == (0.0, 0.0)


def test_expected_move_without_equity_is_infinite() -> None:
    """Everything that moves is more than nothing."""
    answers = [holding(("A", "long", x, 500), equity="-5") for x in alternating(4, 0.01)]
    assert value("equity.expected_move", (HOUR, 4 * MINUTE, MINUTE), answers) == (math.inf, math.inf)


def test_a_new_position_makes_the_expected_move_unknown_for_the_window() -> None:
    """Unless its symbol was on the watch list: windows begin at the start of observation."""
    prices = alternating(4, 0.01)
    arguments = (HOUR, 4 * MINUTE, MINUTE)
    old = [holding(("A", "long", x, 500)) for x in prices[:-1]]
    new = holding(("A", "long", prices[-1], 500), ("B", "long", 50, 500))
    assert value("equity.expected_move", arguments, [*old, new]) == UNKNOWN
    watching = [
        holding(("A", "long", x, 500), watched=(watched(x / 2, 60 * i, symbol="B"),)) for i, x in enumerate(prices[:-1])
    ]
    lo, hi = value("equity.expected_move", arguments, [*watching, new])
    assert 0 < lo == hi


def test_markets_without_common_returns_bound_the_expected_move() -> None:
    """A lacks two minutes of ten and B two others: each has 8 returns, both have 6. At most what they move alone."""
    one, other = alternating(10, 0.01), alternating(10, 0.02)
    answers = []
    for i, (x, y) in enumerate(zip(one, other, strict=True)):
        rows = [
            position(symbol, "long", "0", notional="1000", **({} if i in gaps else {"mark_price": str(mark)}))
            for symbol, mark, gaps in (("A", x, (2, 4)), ("B", y, (6, 8)))
        ]
        answers.append(account("100000", rows))
    arguments = (MINUTE, 10 * MINUTE, MINUTE)
    lo, hi = value("equity.expected_move", arguments, answers)
    sigmas = []
    for path, gaps in ((one, (2, 4)), (other, (6, 8))):
        kept = np.array([x for i, x in enumerate(path) if i not in gaps])
        sigmas.append(np.std(kept[1:] / kept[:-1] - 1, ddof=1))
    assert lo == 0.0
    assert hi == pytest.approx(1000 * sum(sigmas) / 100_000)


@pytest.mark.parametrize(("measure", "expected"), [("mean", 1.0), ("largest_eigenvalue", 1.0)])
def test_correlation_of_identical_markets(measure: str, expected: float) -> None:
    """Also if one is held short: it is of returns, not of positions."""
    answers = [holding(("A", "long", x, 500), ("B", "short", x, 700)) for x in alternating(6, 0.01)]
    assert value("market.correlation", (6 * MINUTE, MINUTE, measure), answers) == exactly(expected)


def test_correlation_equals_numpy() -> None:
    """Mean of the pairs, and λ₁ ÷ n, of five random markets."""
    moves = np.random.default_rng(5).normal(0, 0.01, (40, 5)) + np.random.default_rng(6).normal(0, 0.01, (40, 1))
    paths = [walk(column) for column in moves.T]
    answers = [
        holding(*((symbol, "long", mark, 100) for symbol, mark in zip("ABCDE", marks, strict=True)))
        for marks in zip(*paths, strict=True)
    ]
    prices = np.array(paths)
    matrix = np.corrcoef(prices[:, 1:] / prices[:, :-1] - 1)
    pairs = [matrix[i, j] for i in range(5) for j in range(i)]
    arguments = 40 * MINUTE, MINUTE
    assert value("market.correlation", (*arguments, "mean"), answers) == exactly(float(np.mean(pairs)))
    largest = float(np.linalg.eigvalsh(matrix)[-1]) / 5
    assert value("market.correlation", (*arguments, "largest_eigenvalue"), answers) == exactly(largest)


def test_eigenvalue_of_equally_correlated_markets() -> None:
    """λ₁ ÷ n = (1 + (n − 1)ρ) ÷ n: of two with ρ = 0.9 it is 0.95."""
    a, b = 0.01 * math.sqrt(0.95), 0.01 * math.sqrt(0.05)
    pattern = [(a + b, a - b), (-a - b, -a + b), (a - b, a + b), (-a + b, -a - b)]
    one, other = (walk([pattern[i % 4][k] for i in range(40)]) for k in (0, 1))
    answers = [holding(("A", "long", x, 1), ("B", "long", y, 1)) for x, y in zip(one, other, strict=True)]
    found = value("market.correlation", (40 * MINUTE, MINUTE, "largest_eigenvalue"), answers)
    assert found == pytest.approx((0.95, 0.95), abs=1e-6)


@pytest.mark.parametrize(
    "book",
    [
        pytest.param(lambda x: [("A", "long", x, 1)], id="one market"),
        pytest.param(lambda x: [("A", "long", x, 1), ("B", "long", 100, 1)], id="a constant one"),
        pytest.param(lambda x: [(s, "long", x * (1 + i), 1) for i, s in enumerate("ABCDEF")], id="too many markets"),
    ],
)
def test_correlation_is_unknown(book: Callable[[float], list[tuple[str, str, float, float]]]) -> None:
    """Six markets and six returns: their matrix has no more to say than the returns."""
    answers = [holding(*book(x)) for x in alternating(6, 0.01)]
    assert value("market.correlation", (6 * MINUTE, MINUTE, "mean"), answers) == UNKNOWN


# A restart


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("market.volatility", ("A", 4 * MINUTE, MINUTE)),
        ("market.volatility_ratio", ("A", 2 * MINUTE, 4 * MINUTE, MINUTE)),
        ("market.move", ("A", 4 * MINUTE)),
        ("market.jump", ("A", 3 * MINUTE, MINUTE)),
        ("market.correlation", (4 * MINUTE, MINUTE, "mean")),
        ("equity.expected_move", (HOUR, 4 * MINUTE, MINUTE)),
    ],
)
def test_a_restart_keeps_the_value(name: str, arguments: tuple[Value, ...]) -> None:
    """Samples are stored as rows, and read again; the next observation follows the last one."""
    reference = SignalRef(name, arguments)
    answers = [
        holding(("A", "long", x, 500), ("B", "long", y, 300))
        for x, y in zip(alternating(5, 0.01), (100, 103, 102, 104, 101, 99), strict=True)
    ]

    def read(history: History, at: int) -> Interval:
        columns = ColumnReader([reference]).read(history, seen(60 * at, answers[at]))
        return columns.lo[0], columns.hi[0]

    history, samples = history_of([reference]), []
    for i, each in enumerate(answers[:-1]):
        history.observe(seen(60 * i, each))
        assert history.prices is not None
        samples.append(msgjson.decode(msgjson.encode(history.prices.new_samples()), type=list[StoredSamples]))
    again = history_of([reference])
    again.restore(history.state(), [], samples)
    assert read(again, 4) == read(history, 4) != UNKNOWN
    for each in (history, again):
        each.observe(seen(300, answers[-1]))
    assert read(again, 5) == read(history, 5)


# Scenarios: each fires, does not fire on the false alarm of its row, and is unknown


def market(*prices: float | None, symbol: str = "A", frozen: bool = False) -> list[Snapshot]:
    """A recording of a position and its price each minute; None where the account is down."""
    taken = []
    for i, price in enumerate(prices):
        at = after(minutes=i)
        held = [position(symbol, "long", "0", mark_price=str(price or 1), notional="1000")]
        is_down = price is None
        more = {} if is_down else {"marked_at": after() if frozen else at}
        answer = account("1000", held, quality="down" if is_down else "ok", instruments=(rules(symbol),), **more)
        taken.append(snapshot(at, answer))
    return taken


def pair(moves: Sequence[tuple[float, float]]) -> list[Snapshot]:
    """A recording of two positions with these returns each minute."""
    paths = zip(*(walk([move[k] for move in moves]) for k in (0, 1)), strict=True)
    return [
        snapshot(after(minutes=i), holding(("A", "long", x, 1000), ("B", "short", y, 1000), equity="1000"))
        for i, (x, y) in enumerate(paths)
    ]


BOUNCE = alternating(12, 0.0001)
CALM_THEN_WILD = [*alternating(10, 0.001), 100.0, 95.0, 101.0, 94.0]
TOGETHER = [(0.01, 0.01), (-0.01, -0.01), (0.012, 0.012), (-0.011, -0.011)] * 3
APART = [(0.01, -0.01), (0.01, 0.01), (-0.01, 0.01), (-0.01, -0.01)] * 3
BLIND = [snapshot(after(minutes=i), account("1000", None, reason="no positions")) for i in range(13, 16)]
SCENARIOS: dict[str, Scenario] = {
    "market.volatility": Scenario(
        "signal: market.volatility, symbol: A, window: 10m, every: 1m, at_least: 2.0",
        market(*CALM_THEN_WILD), market(*BOUNCE), market(*BOUNCE, frozen=True),
        at=after(minutes=12),  # the first large return
    ),
    "market.volatility_ratio": Scenario(
        "signal: market.volatility_ratio, symbol: A, short: 3m, long: 12m, every: 1m, at_least: 1.8",
        market(*CALM_THEN_WILD), market(*alternating(14, 0.05)), market(*[100.0] * 14),
        at=after(minutes=12),
    ),
    "market.move": Scenario(
        "signal: market.move, symbol: A, window: 3m, at_most: -5%",
        market(100, 100, 100, 94), market(100, 100, 100, 100.0, 96, 98, 95.5), market(*[100] * 4, None, None, None),
    ),
    "market.jump": Scenario(
        "when: 'market.jump(\"A\", \"10m\", \"1m\") >= 5.0 && market.move(\"A\", \"1m\") <= -0.03'",
        market(*alternating(12, 0.005), 94.0), market(*alternating(12, 0.0001), 99.5),
        market(*alternating(12, 0.0001), 94.0, 90.0, frozen=True),
    ),
    "equity.expected_move": Scenario(
        "signal: equity.expected_move, horizon: 1h, window: 10m, every: 1m, at_least: 5%",
        pair(APART), pair(TOGETHER), [*pair(TOGETHER), *BLIND],
        at=after(minutes=8),  # with eight returns of ten
    ),
    "market.correlation": Scenario(
        "signal: market.correlation, window: 10m, every: 1m, measure: mean, at_least: 0.95",
        pair(TOGETHER), pair(APART), [*pair(APART), *BLIND],
        at=after(minutes=8),
    ),
}  # fmt: skip
