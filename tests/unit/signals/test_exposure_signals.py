"""Exposure signals of the whole book: imbalance, concentration, groups, distance to liquidation; equity by venue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import json as msgjson

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.signals.arguments import SymbolGroup, Value
from killswitch.signals.history.margin_ratios import MarginRatios
from killswitch.signals.signal_values import ColumnReader
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import START, account, after, flow, position
from tests.worlds.firings import Scenario
from tests.worlds.signals import Observed, held, history_of, made, minutes, readings, recorded, values_of

INF = math.inf
UNKNOWN = (-INF, INF)
MAJORS = SymbolGroup("majors", ("S0", "S1"))
USDT = "{each: account, match: {currency: USDT}}"
PRICELESS = position("X", "long", "0")


@pytest.mark.parametrize(
    ("signal", "arguments", "positions", "expected"),
    [
        ("exposure.imbalance", (), [], 0),
        ("exposure.imbalance", (), [position("A", "short", notional="7"), position("B", "short", notional="1")], -1),
        ("exposure.imbalance", (), held("60", "30", "10"), 0.4),
        ("exposure.imbalance", (), held("50", "50"), 0),
        ("exposure.herfindahl", (), [], 0),
        ("exposure.herfindahl", (), held("50", "30", "20"), 0.38),
        ("exposure.herfindahl", (), held("5"), 1),
        ("exposure.herfindahl", (), held("25", "25", "25", "25"), 0.25),
        ("exposure.group_share", (MAJORS,), [], 0),
        ("exposure.group_share", (MAJORS,), held("60", "30", "10"), 0.9),
        ("exposure.group_share", (SymbolGroup("none", ("Z",)),), held("60", "30"), 0),
        ("exposure.group_net", (MAJORS,), held("60", "30", "10"), 30),
        ("exposure.group_net", (MAJORS,), [], 0),
        ("exposure.group_net", (SymbolGroup("none", ("Z",)),), held("60", "30"), 0),
        ("exposure.group_net", (MAJORS,), [*held("60", "30"), PRICELESS], 30),  # it is of no member
    ],
)
def test_imbalance_concentration_and_groups(
    signal: str, arguments: Sequence[Value], positions: Sequence[Position], expected: float
) -> None:
    """A share of nothing is 0; only shorts are −1; one position is all of the book."""
    assert values_of(signal, positions, arguments=arguments) == (pytest.approx(expected), pytest.approx(expected))


@pytest.mark.parametrize(
    ("signal", "arguments"),
    [
        ("exposure.imbalance", ()),
        ("exposure.herfindahl", ()),
        ("exposure.group_share", (MAJORS,)),
        ("exposure.group_net", (SymbolGroup("it", ("X",)),)),
    ],
)
@pytest.mark.parametrize("positions", [None, [*held("60", "30"), PRICELESS]], ids=["positions", "price"])
def test_they_are_unknown_without_positions_or_a_price(
    signal: str, arguments: Sequence[Value], positions: Sequence[Position] | None
) -> None:
    """A price of any position for a share of all, of a member for the net of a group."""
    assert values_of(signal, positions, arguments=arguments) == UNKNOWN


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=12))
def test_the_index_is_the_sum_of_squared_shares(notionals: list[int]) -> None:
    """Herfindahl (1950), in exact fractions; at most the largest share, and at least its square."""
    gross = sum(notionals)
    index = sum(Decimal(each) ** 2 for each in notionals) / Decimal(gross) ** 2
    (found, same) = values_of("exposure.herfindahl", held(*map(str, notionals)))
    assert found == same == pytest.approx(float(index), abs=1e-9)
    largest = max(notionals) / gross
    assert largest**2 - 1e-9 <= found <= largest + 1e-9


# Liquidation


def marked(side: str, mark: str, liquidation: str | None, notional: str = "100") -> Position:
    prices = {} if liquidation is None else {"liquidation_price": liquidation}
    return position(f"{side}{mark}{liquidation}", side, mark_price=mark, notional=notional, **prices)


@pytest.mark.parametrize(
    ("pick", "positions", "expected"),
    [
        ("worst", [], (1, 1)),
        ("weighted", [], (1, 1)),
        ("worst", [marked("long", "100", "80")], (0.2, 0.2)),
        ("worst", [marked("short", "100", "130")], (0.3, 0.3)),
        ("worst", [marked("long", "100", "0")], (1, 1)),  # a venue's 0: it cannot be liquidated
        ("worst", [marked("short", "100", "250")], (1, 1)),
        ("worst", [marked("long", "100", "105")], (0, 0)),
        ("worst", [marked("long", "100", "80"), marked("short", "100", "110")], (0.1, 0.1)),
        ("weighted", [marked("long", "100", "80", "300"), marked("short", "100", "110")], (0.175, 0.175)),
        ("worst", [marked("long", "100", "80"), marked("long", "100", None)], (0, 0.2)),
        ("worst", [marked("long", "100", None)], (0, 1)),
        ("weighted", [marked("long", "100", "80"), marked("long", "100", None)], UNKNOWN),
        ("worst", None, UNKNOWN),
        ("weighted", None, UNKNOWN),
    ],
)
def test_the_distance_to_liquidation(
    pick: str, positions: Sequence[Position] | None, expected: tuple[float, float]
) -> None:
    """An empty book is 1 and never 0; without a liquidation price the worst is at most that of the others."""
    assert values_of("exposure.liquidation_distance", positions, arguments=(pick,)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("equity", "maintenance", "positions", "expected"),
    [
        ("1000", "200", held("3000", "1000"), 0.2),
        ("1000", None, [], 1),
        ("1000", "200", [], 1),
        ("200", "200", held("4000"), 0),
        ("100", "200", held("4000"), -0.025),
        ("-100", "0", held("4000"), -0.025),
        ("5000", "0", held("1000"), 5),
        ("1000", None, held("4000"), None),
        (None, "200", held("4000"), None),
        ("1000", "200", None, None),
        ("1000", "200", [PRICELESS], None),
    ],
)
def test_the_adverse_move_that_is_left(
    equity: str | None, maintenance: str | None, positions: Sequence[Position] | None, expected: float | None
) -> None:
    """Of 1,000 less 200 of maintenance, 4,000 gross may move by 20%; at the maintenance margin nothing is left."""
    more = {} if maintenance is None else {"maintenance_margin": maintenance}
    answer = account(equity, positions, **more)
    found = readings("exposure.liquidation_buffer", (), [(START, (answer,))])
    assert found == [UNKNOWN if expected is None else (pytest.approx(expected), pytest.approx(expected))]


# The change of the margin ratio


CHANGE = "exposure.margin_ratio_change"


def margins(*margins: tuple[str | None, str], every: int = 1, **more: Any) -> list[Observed]:
    """Answers with these maintenance margins and equities, `every` minutes apart."""
    found = [
        account(equity, [], **more, **({} if margin is None else {"maintenance_margin": margin}))
        for margin, equity in margins
    ]
    return [(after(minutes=every * place), (each,)) for place, each in enumerate(found)]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (margins(("100", "1000"), ("100", "1000"), ("350", "1000")), (0.25, 0.25)),
        (margins(("100", "1000"), ("300", "1000"), ("100", "1000")), (0, 0)),  # what happened in between is no end
        (margins(("100", "1000"), ("100", "1000"), ("100", "500")), (0.1, 0.1)),  # a withdrawal moves it
        (margins(("300", "1000"), ("300", "1000"), ("0", "1000")), (-0.3, -0.3)),
        (margins(("100", "1000"), ("100", "1000"), ("100", "-1")), (INF, INF)),
        (margins(("100", "-1"), ("100", "-1"), ("100", "1000")), (-INF, -INF)),
        (margins(("100", "-1"), ("100", "-1"), ("100", "-1")), UNKNOWN),
        (margins(("0", "-1"), ("0", "-1"), ("0", "-1")), (0, 0)),
        (margins(("100", "1000"), ("350", "1000")), (-INF, 0.35)),  # the window is not complete
        (margins((None, "1000"), ("350", "1000"), ("350", "1000")), (-INF, 0.35)),
        (margins(("100", "1000"), ("100", "1000"), (None, "1000")), UNKNOWN),
        (margins((None, "1000"), (None, "1000"), (None, "1000")), UNKNOWN),
        (margins(("100", "1000"), ("350", "1000"), every=10), (0.25, 0.25)),  # 8 minutes old: within max_gap
        (margins(("100", "1000"), ("350", "1000"), every=13), (-INF, 0.35)),
    ],
)
@pytest.mark.parametrize("restarts", [False, True])
def test_the_change_of_the_margin_ratio(
    observed: list[Observed], expected: tuple[float, float], restarts: bool
) -> None:
    """Of two minutes, also over restarts: an unknown earlier ratio is at least 0, so that the current one bounds it."""
    assert readings(CHANGE, (2 * MINUTE,), observed, restarts=restarts)[-1] == pytest.approx(expected)


def test_the_change_begins_anew_with_other_accounts() -> None:
    """A second account with a ratio of 0.9 joins: the ratio of both is no change of the first one's."""
    one, other = (
        account("1000", [], name=name, maintenance_margin=margin) for name, margin in (("a", "0"), ("b", "900"))
    )
    observed = [(after(minutes=place), (one,) if place < 3 else (one, other)) for place in range(6)]
    assert readings(CHANGE, (2 * MINUTE,), observed)[2:] == [(0, 0), (-INF, 0.45), (-INF, 0.45), (0, 0)]


def test_after_a_reset_the_window_begins_anew_and_is_complete() -> None:
    """0.1 before, 0.4 at the reset: the rise that fired counts no more, and what follows counts from the reset."""
    used = SignalRef(CHANGE, (2 * MINUTE,))
    past, found = history_of([used]), []
    for place, (at, accounts) in enumerate(margins(("100", "1000"), ("100", "1000"), ("400", "1000"), ("600", "1000"))):
        view = ScopeView(to_micros(at), True, accounts, {}, None)
        past.observe(view)
        if place == 2:
            past.rebase(accept=True)
        columns = ColumnReader([used]).read(past, view)
        found.append((columns.lo[0], columns.hi[0]))
    assert found[2:] == [(0, 0), (pytest.approx(0.2), pytest.approx(0.2))]


def test_a_day_is_kept_in_240_observations() -> None:
    """A tick each second does not make the stored state grow: 24 h are 240 observations, and few more."""
    past = MarginRatios([{"window": 24 * HOUR}], 15 * MINUTE)
    answer = account("1000", [], maintenance_margin="100")
    for place in range(0, 30 * HOUR, 30 * SECOND):
        past.observe(ScopeView(to_micros(START) + place, True, (answer,), {}, None), None)
    (series,) = msgjson.decode(msgjson.encode(past.state()))["series"].values()
    assert 240 <= len(series["at"]) <= 242


# Venues


def at_venues(**equities: str | None) -> tuple[AccountSnapshot, ...]:
    """An account at each venue; None: it is down."""
    return tuple(
        account(equity, [] if equity else None, name=f"at-{venue}", venue=venue, quality="ok" if equity else "down")
        for venue, equity in equities.items()
    )


def shares(venue: str, *observed: tuple[AccountSnapshot, ...]) -> list[tuple[float, float]]:
    answers = [(after(minutes=place), each) for place, each in enumerate(observed)]
    return readings("venue.equity_share", (venue,), answers)


def test_the_share_of_equity_at_each_venue() -> None:
    """60, 50 and −10 of 100; a venue without an account of the scope is a mistake, and unknown."""
    observed = at_venues(a="60", b="50", c="-10")
    found = {venue: shares(venue, observed)[0][0] for venue in "abcd"}
    assert found == {"a": 0.6, "b": 0.5, "c": -0.1, "d": -INF}


@pytest.mark.parametrize("observed", [at_venues(a="10", b="-10"), at_venues(a="10", b="-20"), at_venues(a=None)])
def test_the_share_of_nothing_or_of_debt_is_unknown(observed: tuple[AccountSnapshot, ...]) -> None:
    """And that of an account that is down."""
    assert shares("a", observed) == [UNKNOWN]


def test_a_venue_that_is_down_has_its_last_equity_where_it_held_nothing() -> None:
    """60 of 100; the other one gains 20 by its prices."""
    others = [made(equity, "40", name="at-b", venue="b") for equity in ("40", "60")]
    observed = (*at_venues(a="60"), others[0]), (*at_venues(a=None), others[1])
    assert shares("a", *observed) == [(0.6, 0.6), (0.5, 0.5)]
    assert shares("b", *observed) == [(0.4, 0.4), (0.5, 0.5)]


def test_a_venue_that_is_down_is_bounded_by_what_it_held() -> None:
    """It held a long of 1,000 of equity 1,000; nobody else shows its price: between nothing and everything."""
    up = account("1000", [], name="b", venue="b")
    holding = account("1000", [position("BTC/USDT:USDT", "long", "0", notional="1000")], name="a", venue="a")
    down = account(None, None, name="a", venue="a", quality="down", reason="timeout")
    assert shares("a", (holding, up), (down, up)) == [(0.5, 0.5), (0, 1)]
    assert shares("b", (holding, up), (down, up)) == [(0.5, 0.5), (0, 1)]


def test_a_transfer_in_transit_is_at_neither_venue() -> None:
    """The false alarm of its row: 50 have left `a`, and not arrived at `b` yet."""
    sent = account("10", [], name="at-a", venue="a", flows=[flow("t", after(minutes=1), "-50", "transfer")])
    found = shares("a", at_venues(a="60", b="40"), (sent, *at_venues(b="40")))
    assert found == [(0.6, 0.6), (0.2, 0.2)]


# Scenarios of the size of the book; those of its shape are beside the losses


def book(*notionals: str, equity: str = "1000", **more: Any) -> AccountSnapshot:
    """Positions with these notionals, alternately long and short."""
    return account(equity, held(*notionals), **more)


def margined(equity: str, maintenance: str | None, **more: Any) -> AccountSnapshot:
    return book("1000", equity=equity, **({} if maintenance is None else {"maintenance_margin": maintenance}), **more)


BLIND = recorded(minutes(*[account("1000", None)] * 3))
SCENARIOS: dict[str, Scenario] = {
    "exposure.gross": Scenario(
        "signal: exposure.gross, above: 3000 USDT",
        recorded(minutes(book("2000", "1000"), book("2000", "1001"))),
        recorded(minutes(book("2900"), book("1500", "1500"))),  # as much, on both sides
        BLIND,
        scope=USDT,
    ),
    "exposure.net": Scenario(
        "signal: exposure.net, at_least: 1000 USDT",
        recorded(minutes(book("1000", "1"), book("1500", "500"))),
        recorded(minutes(book("5000", "5000"), book("10", "5000"))),  # a large hedge; a net short
        BLIND,
        scope=USDT,
    ),
    "exposure.leverage": Scenario(
        "signal: exposure.leverage, above: 3",
        recorded(minutes(book("3000"), book("3000", equity="999"))),  # the same book on less equity
        recorded(minutes(book("2900"), book("2842", equity="948"))),  # 2.9 long after −2%: 2.998
        BLIND,
    ),
    "exposure.largest_share": Scenario(
        "signal: exposure.largest_share, at_least: 60%, confirm: 1m",
        recorded(minutes(book("50", "50"), book("60", "40"), book("60", "40"))),
        recorded(minutes(book(), book("50", "50"), book("100"), book("50", "50"))),  # while a book of two is opened
        BLIND,
    ),
    "exposure.margin_ratio": Scenario(
        "signal: exposure.margin_ratio, at_least: 0.5",
        recorded(minutes(margined("1000", "499"), margined("998", "499"))),
        recorded(minutes(margined("1000", "100", margin_used="900"), margined("1000", "499"))),  # initial margin
        recorded(minutes(*[margined("1000", None)] * 3)),
    ),
    "exposure.margin_ratio_change": Scenario(
        "signal: exposure.margin_ratio_change, window: 2m, at_least: 0.2",
        recorded(minutes(*(margined("1000", each) for each in ("100", "150", "200", "351")))),
        recorded(minutes(*(margined("1000", each) for each in ("500", "500", "550", "600", "700")))),  # high, and slow
        recorded(minutes(*(margined("1000", each) for each in ("100", "100", "100", None, None, None)))),
    ),
}
