"""Signals of declared hedges and of what nobody owns: values by hand, false alarms, and what makes them unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Instrument, Order, Position
from killswitch.signals.arguments import HedgeLegs, LegOfHedge, Value
from killswitch.signals.signal_values import ColumnReader
from killswitch.valuation.own_quantities import OwnQuantities
from killswitch.valuation.ownership import StrategyRule
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.snapshot_facts import SnapshotFacts
from tests.worlds import START, account, after, fill, position, rules, snapshot
from tests.worlds.firings import Scenario
from tests.worlds.signals import history_of, values_of

UNKNOWN = (-math.inf, math.inf)
CARRY = HedgeLegs(
    "carry", (LegOfHedge("spot", "BTC/USDT", Decimal(1)), LegOfHedge("perp", "BTC_USDT", Decimal(1)))
)  # fmt: skip
GRID = StrategyRule("grid", None, None, None, None, order_prefixes=("grid-",), symbols=("S0",))


def value(
    signal: str,
    accounts: Sequence[AccountSnapshot],
    arguments: Sequence[Value] = (),
    *strategies: StrategyRule,
    instruments: Sequence[tuple[str, Instrument]] = (),
) -> tuple[float, float]:
    """The interval of a signal after one snapshot of these accounts; `instruments`: account and its rules."""
    known = {(name, rule.symbol): rule for name, rule in instruments}
    facts = SnapshotFacts(to_micros(START), tuple(accounts), known)
    facts.ownership = OwnQuantities(strategies).observe(accounts, to_micros(START))
    view = ScopeView(to_micros(START), True, tuple(accounts), known, None, around=facts)
    reference = SignalRef(signal, tuple(arguments))
    history = history_of([reference])
    history.observe(view)
    columns = ColumnReader([reference]).read(history, view)
    return columns.lo[0], columns.hi[0]


def spot(contracts: str) -> AccountSnapshot:
    """The long leg: a holding of bitcoin, without contract rules."""
    rows = [position("BTC/USDT", "long", contracts=contracts, mark_price="100")] if contracts != "0" else []
    return account("1000", rows, name="spot", market="spot")


def perp(contracts: str, **more: Any) -> AccountSnapshot:
    """The short leg, in contracts of a tenth of a bitcoin."""
    rows = [position("BTC_USDT", "short", contracts=contracts, mark_price="100")] if contracts != "0" else []
    return account("1000", rows, name="perp", **more)


TENTHS = (("perp", rules("BTC_USDT", contract_size="0.1")),)


@pytest.mark.parametrize(
    ("long", "short", "expected"),
    [
        ("1", "10", False),  # 1 against 10 × 0.1
        ("1", "4", True),  # 1 against 0.4: |0.6| > 10% of 1
        ("0", "0", False),  # both closed
        ("1", "0", True),  # one leg closed
        ("1", "9", False),  # exactly the tolerance is not beyond it: 0.1 of 1
        ("1", "8.9", True),
        ("0.3", "3", False),  # 0.3 − 3 × 0.1 in binary floats is not 0
    ],
)
def test_a_hedge_is_broken_beyond_its_tolerance(long: str, short: str, expected: bool) -> None:
    """|net| ÷ the larger side, in base units × ratio, against 10%."""
    found = value("hedge.broken", [spot(long), perp(short)], (CARRY, 0.1), instruments=TENTHS)
    assert found == (float(expected), float(expected))


def test_the_ratio_is_base_units_of_the_hedge() -> None:
    """Two units of a token that is half a bitcoin, at a ratio of 0.5, hedge one bitcoin."""
    hedge = HedgeLegs("h", (LegOfHedge("spot", "BTC/USDT", Decimal("0.5")), LegOfHedge("perp", "BTC_USDT", Decimal(1))))
    assert value("hedge.broken", [spot("2"), perp("10")], (hedge, 0.0), instruments=TENTHS) == (0.0, 0.0)


def test_an_inverse_leg_is_in_base_units_at_its_mark() -> None:
    """100 contracts of 1 USD at a mark of 100 are one bitcoin."""
    inverse = (("perp", rules("BTC_USDT", contract_size="1", inverse=True)),)
    assert value("hedge.broken", [spot("1"), perp("100")], (CARRY, 0.0), instruments=inverse) == (0.0, 0.0)


@pytest.mark.parametrize(
    "accounts",
    [
        [spot("1")],
        [spot("1"), perp("10", quality="down", reason="no answer")],
        [spot("1"), account("1000", None, name="perp")],
    ],
    ids=["not in the scope", "down", "positions unknown"],
)
def test_a_hedge_with_an_unknown_leg_is_unknown(accounts: list[AccountSnapshot]) -> None:
    """Not broken, although the other leg stands alone in what is known."""
    assert value("hedge.broken", accounts, (CARRY, 0.1), instruments=TENTHS) == (0.0, 1.0)


def test_a_hedge_whose_contract_size_is_unknown_is_unknown() -> None:
    """Ten contracts may be ten bitcoins or a tenth."""
    assert value("hedge.broken", [spot("1"), perp("10")], (CARRY, 0.1)) == (0.0, 1.0)


# Ownership


def order(id_: str, client: str | None, symbol: str = "S1") -> Order:
    return Order(id=id_, symbol=symbol, side="buy", amount=Decimal(1), client_order_id=client)


OURS = "ks" + "0123456789abcdef0123" + "000000000"


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        ([], (0.0, 0.0)),
        ([order("1", "grid-1"), order("2", "web-1"), order("3", "web-2")], (2.0, 2.0)),
        ([order("1", None), order("2", "web-1")], (1.0, 2.0)),  # one may be the strategy's
        ([order("1", None, "S0")], (0.0, 0.0)),  # of its declared symbol
        ([order("1", OURS)], (0.0, 0.0)),  # the runner's own is nobody's, and no order by hand
    ],
)
def test_unowned_orders_are_counted(orders: list[Order], expected: tuple[float, float]) -> None:
    """Those of nobody surely; those whose id the venue does not state perhaps."""
    assert value("ownership.unowned_orders", [account("1000", [], orders=orders)], (), GRID) == expected


def test_unowned_orders_of_an_unknown_account_are_at_least_those_of_the_others() -> None:
    """A count is bounded by what is seen; of a single account nothing is seen."""
    down = account("1000", [], name="b", quality="down", reason="no answer")
    seen = account("1000", [], orders=[order("1", "web-1")])
    assert value("ownership.unowned_orders", [seen, down], (), GRID) == (1.0, math.inf)
    assert value("ownership.unowned_orders", [down], (), GRID) == UNKNOWN


def test_the_unowned_share_is_that_of_the_gross_notional() -> None:
    """Of 60 declared and 40 that was held before anybody looked, between nothing and 40% is unowned."""
    found = value("ownership.unowned_share", [account("1000", _sized("60", "40"))], (), GRID)
    assert found == (0.0, pytest.approx(0.4, abs=1e-12))


def test_the_unowned_share_is_known_where_ownership_is() -> None:
    """A venue that names its rows: 25 of 100 belong to no declared strategy."""
    named = StrategyRule("grid", None, None, None, None, named=("bot-1",))
    rows = [
        position("A", "long", contracts="3", notional="75", strategy="bot-1"),
        position("B", "short", contracts="1", notional="25", strategy="person"),
    ]
    assert value("ownership.unowned_share", [account("1000", rows)], (), named) == (0.25, 0.25)


def test_an_empty_book_has_nothing_unowned_and_a_book_without_strategies_is_unowned() -> None:
    """0 of nothing; 1 where no Strategy is declared."""
    assert values_of("ownership.unowned_share", []) == (0.0, 0.0)
    assert value("ownership.unowned_share", [account("1000", _sized("60", "40"))]) == (1.0, 1.0)


def test_the_unowned_share_of_unknown_positions_is_unknown() -> None:
    """Missing positions, and a missing price."""
    assert values_of("ownership.unowned_share", None) == UNKNOWN
    assert value("ownership.unowned_share", [account("1000", [position("A", "long")])]) == UNKNOWN


def _sized(*notionals: str) -> list[Position]:
    return [position(f"S{i}", "long", contracts="1", notional=each) for i, each in enumerate(notionals)]


# Scenarios

HEDGE = """apiVersion: killswitch.dev/v1
kind: HedgeGroup
metadata: {name: carry}
spec:
  legs:
    - {account: spot, symbol: BTC/USDT, ratio: 1}
    - {account: perp, symbol: BTC_USDT, ratio: 1}
"""
STRATEGY = """apiVersion: killswitch.dev/v1
kind: Strategy
metadata: {name: grid}
spec: {match: {}, order_ids: grid-}
"""
PORTFOLIO = "{each: portfolio, match: {}}"


def legs(minute: int, long: str, short: str, **more: Any) -> Any:
    tenths = [rules("BTC_USDT", contract_size="0.1")]
    return snapshot(after(minutes=minute), spot(long), perp(short, instruments=tenths, **more))


def ordered(minute: int, *orders: Order, **more: Any) -> Any:
    return snapshot(after(minutes=minute), account("1000", _sized("100"), orders=orders, **more))


def traded(minute: int, size: str, *fills: Any) -> Any:
    rows = [position("BTC_USDT", "long", contracts=size, notional=f"{size}00", mark_price="100")] if size != "0" else []
    return snapshot(after(minutes=minute), account("1000", rows, fills=fills, instruments=[rules("BTC_USDT")]))


def bought(id_: str, minute: int, amount: str, client: str | None) -> Any:
    return fill(id_, after(minutes=minute), "BTC_USDT", "buy", amount, "100", client_order_id=client)


OWN_ORDERS = [order(str(i), f"grid-{i}") for i in range(3)]
OWN_TRADE = [traded(0, "0"), traded(1, "3", bought("1", 1, "3", "grid-1"))]
SCENARIOS: dict[str, Scenario] = {
    "hedge.broken": Scenario(
        "signal: hedge.broken, hedge: carry, tolerance: 10%, is: true, confirm: 2m",
        [legs(0, "1", "10"), legs(1, "1", "4"), legs(2, "1", "4"), legs(3, "1", "4")],  # one is liquidated to 0.4
        [legs(0, "0", "0"), legs(1, "1", "0"), legs(2, "1", "10"), legs(3, "1", "10")],  # one fills before its partner
        [legs(0, "1", "10"), *(legs(m, "1", "10", quality="down", reason="no answer") for m in (1, 2, 3))],
        scope=PORTFOLIO,
        documents=HEDGE,
    ),
    "ownership.unowned_orders": Scenario(
        "signal: ownership.unowned_orders, at_least: 1",
        [ordered(0, *OWN_ORDERS), ordered(1, *OWN_ORDERS, order("9", "web-9"))],  # one by hand
        [ordered(0, *OWN_ORDERS), ordered(1, *OWN_ORDERS)],
        [ordered(0), *(ordered(m, quality="down", reason="no answer") for m in (1, 2, 3))],
        documents=STRATEGY,
    ),
    "ownership.unowned_share": Scenario(
        "signal: ownership.unowned_share, at_least: 30%",
        [*OWN_TRADE, traded(2, "5", bought("2", 2, "2", "web-1"))],  # 2 of 5 are bought by hand
        OWN_TRADE,
        [traded(0, "0"), traded(1, "3", bought("1", 1, "3", None)), traded(2, "3"), traded(3, "3")],
        documents=STRATEGY,
    ),
}
